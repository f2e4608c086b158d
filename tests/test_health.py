"""What a source and a table are said to be, from what is known of them."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta

import pytest

from sqlflow_dagster.connectors.base import Health
from sqlflow_dagster.errors import NotAllowed, RetryLater
from sqlflow_dagster.health import freshness, loss_audit, reachability, volume
from sqlflow_dagster.resilience.account import Account
from sqlflow_dagster.resilience.clock import waits_off
from sqlflow_dagster.resilience.guard import Guard
from sqlflow_dagster.resilience.policy import DEFAULTS

NOW = datetime(2026, 1, 10, tzinfo=UTC)
HOUR = timedelta(hours=1)


class Source:
    """A connector as far as health goes."""

    def __init__(self, tmp_path, answer):
        policy = DEFAULTS["api"]
        self.guard = Guard("s", policy, Account(tmp_path, "s", policy))
        self.answer = answer
        self.asked = 0

    def check(self):
        return self.guard.call(self._check)

    def _check(self):
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "level", "message"),
    [
        (Health(ok=True, message="v15", facts={"version": "15"}), "fine", "v15"),
        (Health(ok=False, message="no such database"), "fail", "no such database"),
        (NotAllowed("401"), "fail", "401"),
        (RetryLater("busy", after=60), "fail", "busy"),
    ],
    ids=["there", "not there", "no access", "busy"],
)
def test_a_source_is_asked_once_and_said_to_be_what_it_says(tmp_path, answer, level, message):
    source = Source(tmp_path, answer)
    found = reachability(lambda: nullcontext(source))
    assert (found.level, found.message, source.asked) == (level, message, 1)
    assert found.facts["seconds"] >= 0
    assert found.facts["circuit"] == "CLOSED"


def test_what_cannot_be_opened_is_a_finding_too():
    def opened():
        raise NotAllowed("no password")

    assert reachability(opened).message == "no password"


def test_an_open_circuit_is_told_and_does_not_keep_a_person_from_asking(tmp_path):
    with waits_off():
        source = Source(tmp_path, Health(ok=True, message="there"))
        for _ in range(5):
            source.guard.account.failed()
        found = reachability(lambda: nullcontext(source))
    assert (found.level, source.asked) == ("warn", 1)
    assert found.facts["circuit"] == "OPEN"
    assert found.facts["circuit_seconds"] == pytest.approx(60, abs=1)
    assert "leave it alone for 60" in found.message


@pytest.mark.parametrize(
    ("last", "level", "message"),
    [
        (None, "fail", "never stored"),
        (NOW - HOUR, "fine", "stored 60 minutes ago"),
        (NOW - 5 * HOUR, "warn", "stored 5 hours ago, more than 4 hours"),
        (NOW - 200 * HOUR, "fail", "stored 8 days ago, more than 2 days"),
        (NOW + HOUR, "fine", "stored -3600 seconds ago"),
    ],
    ids=["never", "young", "getting old", "old", "a clock ahead"],
)
def test_freshness(last, level, message):
    found = freshness(last, NOW, 48 * HOUR, 4 * HOUR)
    assert (found.level, found.message) == (level, message)


@pytest.mark.parametrize(
    ("there", "here", "level", "message"),
    [
        (5, 5, "fine", "all 5 rows of the source are here"),
        (5, 7, "fine", "all 5 rows of the source are here; 2 more are here, deleted or changed there since"),
        (5, 3, "fail", "2 of 5 rows of the source are missing: because"),
        (None, 3, "warn", "it cannot be told whether rows were lost: because"),
    ],
    ids=["all", "more", "fewer", "not counted"],
)
def test_loss_audit(there, here, level, message):
    found = loss_audit(there, here, "because")
    assert (found.level, found.message) == (level, message)
    assert found.facts == ({} if there is None else {"audit_source_rows": there, "audit_rows": here})


@pytest.mark.parametrize(
    ("rows", "level"),
    [
        ([], "fine"),
        ([5], "fine"),
        ([100, 90, 110, 0], "fine"),
        ([100, 90, 110, 105, 95, 101], "fine"),
        ([100, 90, 110, 105, 95, 401], "warn"),
        ([100, 90, 110, 105, 95, 24], "warn"),
        ([100, 90, 110, 105, 95, 0], "warn"),
        ([0, 0, 3, 0, 2, 0], "fine"),
        ([0, 0, 0, 0, 0, 1000], "fine"),
        ([100, 90, 0, 105, 95, 0], "warn"),
    ],
    ids=[
        "never",
        "once",
        "too few",
        "usual",
        "too many",
        "too little",
        "none",
        "rare",
        "first",
        "some empty",
    ],
)
def test_volume(rows, level):
    assert volume(rows).level == level
