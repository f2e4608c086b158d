"""A network that breaks at any byte: the rows are all there, once, and the table is whole."""

from __future__ import annotations

import time

import pytest

from sqlflow_dagster.errors import RetryLater
from tests.proxy import Cut, Fine, Proxy, Refuse, Reset, Stall

ROWS = 40_000


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


@pytest.mark.parametrize(
    ("after", "connections"), [(500, 1), (100_000, 2)], ids=["in the catalogue", "in the rows"]
)
def test_a_server_that_falls_silent_is_given_up_in_time(project, far, after, connections):
    """It keeps the connection open, as one behind a broken balancer does: no read of the driver ends."""
    far.breaks, far.times = Stall(after), connections
    begin = time.monotonic()
    (outcome,) = project.load(**through(far, project, timeout_seconds=0.5)).values()
    assert outcome.calls.retries == 1
    assert time.monotonic() - begin < 20
    assert whole(project)


def test_a_server_that_says_nothing_is_given_up_in_time(project, far):
    far.breaks, far.times = Stall(0), 1
    begin = time.monotonic()
    project.load(**through(far, project, connect_timeout=2))
    assert time.monotonic() - begin < 20
    assert whole(project)
