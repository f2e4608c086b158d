"""Guards over accounts of their own, in a process where nobody waits."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from sqlflow_dagster.connectors import registry
from sqlflow_dagster.resilience.account import Account
from sqlflow_dagster.resilience.clock import waits_off
from sqlflow_dagster.resilience.guard import Guard
from sqlflow_dagster.resilience.policy import Policy

PLAIN = {"attempts": 5, "first_wait": 1.0, "longest_wait": 60.0, "factor": 2.0, "total": 300.0}


class Script:
    """A far side that gives its answers one by one, the last one for ever; errors are raised."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = 0

    def __call__(self):
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def off():
    with waits_off() as skipped:
        yield skipped


@pytest.fixture
def guard(tmp_path, off):
    """Make a guard; those of one `account` share its file."""

    def make(account="a", **rules):
        policy = Policy(**{**PLAIN, **rules})
        return Guard("far", policy, Account(tmp_path / "accounts", account, policy))

    return make


@pytest.fixture
def script():
    return Script


@pytest.fixture(scope="module")
def flaky(tmp_path_factory):
    """Install the connectors of flaky.py as others' are: by entry points."""
    site = tmp_path_factory.mktemp("site")
    (site / "flaky.py").write_bytes(Path(__file__).with_name("flaky.py").read_bytes())
    metadata = site / "flaky-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: flaky\nVersion: 1\n")
    names = "".join(f"{name.upper()} = flaky:{name}\n" for name in ("Flaky", "Inside", "Explaining", "Pages"))
    (metadata / "entry_points.txt").write_text(f"[sqlflow_dagster.connectors]\n{names}")
    caches = (registry.types, registry.find, registry._others)
    sys.path.insert(0, str(site))
    for cache in caches:
        cache.cache_clear()
    yield
    sys.modules.pop("flaky", None)
    sys.path.remove(str(site))
    for cache in caches:
        cache.cache_clear()
