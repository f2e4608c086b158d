"""The paced connector, installed as others' packages are; and the page of what was found."""

import sys

import pytest

from . import paced, page

FINDINGS = page.Findings()


def pytest_runtest_logreport(report):
    """Note how each test ended: a failed setup counts, a passed one does not."""
    if report.when == "call" or report.outcome != "passed":
        FINDINGS.results[report.nodeid.partition("[")[0]][report.outcome] += 1


def pytest_sessionfinish(exitstatus):
    """Write the page where all of it was run, and all is well."""
    if exitstatus == 0 and FINDINGS.complete():
        page.write(FINDINGS)


@pytest.fixture(scope="session")
def findings():
    return FINDINGS


@pytest.fixture(scope="session")
def paced_site(tmp_path_factory):
    from sqlflow_dagster.connectors import registry

    site = tmp_path_factory.mktemp("paced") / "site"
    paced.install(site)
    caches = (registry.types, registry.find, registry._others)
    sys.path.insert(0, str(site))
    for cache in caches:
        cache.cache_clear()
    yield site
    sys.path.remove(str(site))
    for cache in caches:
        cache.cache_clear()
