"""A network that breaks at any byte: the rows are all there, once, and the table is whole."""

from __future__ import annotations

import time

import pytest

from sqlflow_dagster.errors import RetryLater
from tests.proxy import Cut, Fine, Proxy, Refuse, Reset, Stall

ROWS = 40_000
SLOW = """
import time


def wait(seconds: float) -> float:
    time.sleep(seconds)
    return seconds
"""


@pytest.fixture
def far(project):
    """A table, and a proxy before its server."""
    project.database.run(
        "CREATE TABLE orders (id int PRIMARY KEY, note text)",
        f"INSERT INTO orders SELECT n, repeat('x', 50) FROM generate_series(1, {ROWS}) AS n",
    )
    with Proxy("127.0.0.1", project.database.server.port) as proxy:
        yield proxy


def through(far, project, **params):
    return {"connection": None, "host": "127.0.0.1", "port": far.port, "username": "postgres",
            "database": project.database.name, "table": "orders", "sslmode": "disable", **params}  # fmt: skip


def whole(project):
    return project.query("SELECT count(*), count(DISTINCT id), max(id) FROM p.t") == [(ROWS, ROWS, ROWS)]


@pytest.mark.parametrize(
    ("breaks", "connections"),
    [
        (Refuse(), 1), (Cut(0), 1), (Cut(300), 1), (Reset(300), 1),
        # The catalogue is asked on the first connection, with fewer bytes; rows come on the second.
        (Cut(100_000), 2), (Reset(1_000_000), 2),
    ],
    ids=["refused", "closed at once", "cut early", "reset early", "cut in the rows", "reset in the rows"],
)  # fmt: skip
@pytest.mark.parametrize(
    "load", ["LOAD t FROM pg;", "LOAD t FROM pg MODE APPEND;"], ids=["replace", "append"]
)
def test_a_connection_that_breaks_is_made_again_and_no_row_doubles(project, far, breaks, connections, load):
    far.breaks, far.times = breaks, connections
    (outcome,) = project.load(load, **through(far, project)).values()
    assert outcome.calls.retries == 1
    assert whole(project)


def test_a_server_that_stays_away_leaves_the_table_as_it_was(project, far):
    project.load(**through(far, project))
    far.breaks = Reset(100_000)
    error = project.error(**through(far, project))
    assert isinstance(error, RetryLater)
    assert "tried 3 times" in str(error)
    assert whole(project)
    far.breaks = Fine()
    project.load(**through(far, project))
    assert whole(project)


@pytest.mark.parametrize("longest", ["timeout_seconds", "silence_seconds"])
@pytest.mark.parametrize(
    ("after", "connections"), [(500, 1), (100_000, 2)], ids=["in the catalogue", "in the rows"]
)
def test_a_server_that_falls_silent_is_given_up_in_time(project, far, after, connections, longest):
    """It keeps the connection open, as one behind a broken balancer does: no read of the driver ends."""
    far.breaks, far.times = Stall(after), connections
    begin = time.monotonic()
    (outcome,) = project.load(**through(far, project, **{longest: 0.5})).values()
    assert outcome.calls.retries == 1
    assert time.monotonic() - begin < 20
    assert whole(project)


def test_a_silent_server_is_given_up_without_being_asked_for():
    """Half an hour for one that is there, a minute for one that is gone."""
    from sqlflow_dagster.connectors.postgres_options import PostgresOptions, PostgresSinkOptions

    assert PostgresOptions(table="t").longest_silence(None) == 1800
    assert PostgresSinkOptions().longest_silence(None) == 1800
    assert PostgresOptions(table="t").longest_silence(7200) == 7205
    assert PostgresOptions(table="t", silence_seconds=60).longest_silence(7200) == 60


@pytest.mark.parametrize(
    ("mode", "before_the_end"),
    [("append", 1), ("replace", 1), ("upsert", 1), ("append", 200)],
    ids=["append committed", "replace committed", "upsert committed", "append begun"],
)
def test_a_server_that_falls_silent_in_an_export_is_given_up_and_no_row_doubles(
    project, far, mode, before_the_end
):
    """Where its last byte is missing, the rows are there, and we cannot know."""
    target = f"postgresql://postgres@127.0.0.1:{far.port}/{project.database.name}?sslmode=disable#copy"
    keys = ', "keys": "n"' if mode == "upsert" else ""
    options = f'{{"mode": "{mode}"{keys}, "silence_seconds": 1}}'
    project.bench.pipeline(f'EXPORT SELECT range AS n FROM range(9) TO "{target}" OPTIONS {options};')
    project.bench.ok()
    before = far.sent
    project.bench.ok()
    far.breaks, far.times = Stall(far.sent - before - before_the_end), 1
    begin = time.monotonic()
    (outcome,) = project.bench.ok().values()
    assert outcome.calls.retries == 1
    assert time.monotonic() - begin < 20
    rows = 27 if mode == "append" else 9
    assert project.database.run("SELECT count(*), count(DISTINCT n) FROM copy") == [(rows, 9)]


def test_a_query_that_takes_longer_than_a_silence_is_exported(project, far):
    """Nobody waits for the server while the rows are made."""
    target = f"postgresql://postgres@127.0.0.1:{far.port}/{project.database.name}?sslmode=disable#copy"
    project.bench.write("python_udfs/slow.py", SLOW)
    project.bench.pipeline(
        f'EXPORT SELECT PYTHON_FUNC("slow.wait", 2.5) AS n TO "{target}" OPTIONS {{"silence_seconds": 1}};'
    )
    (outcome,) = project.bench.ok().values()
    assert outcome.calls.retries == 0


def test_a_server_that_says_nothing_is_given_up_in_time(project, far):
    far.breaks, far.times = Stall(0), 1
    begin = time.monotonic()
    project.load(**through(far, project, connect_timeout=2))
    assert time.monotonic() - begin < 20
    assert whole(project)
