"""The paced connector, installed as others' packages are; and the page of what was found."""

import sys

import pytest

from . import paced, page

FINDINGS = page.Findings()
_KEPT = "sqlflow/proofs"


class Recorder:
    """Notes how each test ends, also those of other folders: a conftest alone hears of its own only."""

    def __init__(self, config):
        self.kept = config.cache

    def pytest_runtest_logreport(self, report):
        """Note how a test ended: a failed setup counts, a passed one does not."""
        if report.when == "call" or report.outcome != "passed":
            FINDINGS.note(report.nodeid.partition("[")[0], report.outcome)

    def pytest_sessionfinish(self):
        """Keep what was found, and write the page where all of it has passed with the code as it is.

        So one failure costs its own repetition (`pytest --last-failed`), not that of hours.
        """
        if not FINDINGS.results:
            return
        FINDINGS.code = page.code()
        found = FINDINGS.after(self.kept.get(_KEPT, {}))
        self.kept.set(_KEPT, vars(found))
        if found.complete():
            page.write(found)


def pytest_collection_finish(session):
    """Record where proofs are run; `make test` runs none, and leaves the page as it is."""
    proofs = any(item.get_closest_marker("proof") for item in session.items)
    if proofs and not session.config.pluginmanager.has_plugin("sqlflow_proofs"):
        session.config.pluginmanager.register(Recorder(session.config), "sqlflow_proofs")


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
