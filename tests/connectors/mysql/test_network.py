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
        f"INSERT INTO orders SELECT seq, repeat('x', 50) FROM seq_1_to_{ROWS}",
    )
    with Proxy("127.0.0.1", project.database.server.port) as proxy:
        yield proxy


def through(far, project, **params):
    return {"connection": None, "host": "127.0.0.1", "port": far.port, "username": "root",
            "database": project.database.name, "table": "orders", "ssl_mode": "disabled", **params}  # fmt: skip


def whole(project):
    return project.query("SELECT count(*), count(DISTINCT id), max(id) FROM p.t") == [(ROWS, ROWS, ROWS)]


@pytest.mark.parametrize(
    ("breaks", "connections", "load"),
    [
        (Refuse(), 1, ""), (Cut(0), 1, "MODE APPEND"), (Cut(300), 1, ""), (Reset(300), 1, "MODE APPEND"),
        # The catalogue is asked on the first connection, with fewer bytes; rows come on the second.
        (Cut(100_000), 2, "MODE APPEND"), (Reset(1_000_000), 2, ""), (Cut(2_000_000), 2, ""),
    ],
    ids=["refused", "closed at once", "cut early", "reset early", "cut in the rows", "reset in the rows", "cut late"],
)  # fmt: skip
def test_a_connection_that_breaks_is_made_again_and_no_row_doubles(project, far, breaks, connections, load):
    far.breaks, far.times = breaks, connections
    (outcome,) = project.load(f"LOAD t FROM my {load};", **through(far, project)).values()
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
    (outcome,) = project.load(**through(far, project, **{longest: 1})).values()
    assert outcome.calls.retries == 1
    assert time.monotonic() - begin < 30
    assert whole(project)


def test_a_server_that_falls_silent_for_good_is_named_and_the_table_stays(project, far):
    project.load(**through(far, project))
    far.breaks = Stall(100_000)
    error = project.error(**through(far, project, silence_seconds=1, max_retries=0))
    assert isinstance(error, RetryLater)
    assert "the server said nothing for 1 s" in str(error)
    assert "raise `silence_seconds`" in str(error)
    assert whole(project)


def test_a_silent_server_is_given_up_without_being_asked_for():
    from sqlflow_dagster.connectors.mysql_options import MySQLOptions, MySQLSinkOptions

    assert MySQLOptions(table="t").longest_silence(None) == 1800
    assert MySQLOptions(table="t").longest_silence(7200) == 7205
    assert MySQLSinkOptions().longest_silence(None) == 1800


@pytest.mark.parametrize(
    ("mode", "before_the_end"),
    [("append", 1), ("replace", 1), ("upsert", 1), ("append", 60), ("replace", 60), ("upsert", 60)],
    ids=str,
)
def test_a_server_that_falls_silent_in_an_export_is_given_up_and_no_row_doubles(
    project, far, mode, before_the_end
):
    """Where its last byte is missing, the rows are there, and we cannot know."""
    import json

    keys = {"keys": "n"} if mode == "upsert" else {}
    options = json.dumps({"table": "out", "mode": mode, "silence_seconds": 1, **keys})
    target = f"mysql://root@127.0.0.1:{far.port}/{project.database.name}?ssl-mode=disabled"
    project.bench.pipeline(f'EXPORT SELECT range AS n FROM range(9) TO "{target}" OPTIONS {options};')
    project.bench.ok()
    before = far.sent
    project.bench.ok()
    far.breaks, far.times = Stall(far.sent - before - before_the_end), 1
    begin = time.monotonic()
    (outcome,) = project.bench.ok().values()
    assert outcome.calls.retries == 1
    assert time.monotonic() - begin < 30
    rows = 27 if mode == "append" else 9
    assert project.database.run("SELECT count(*), count(DISTINCT n) FROM `out`") == [(rows, 9)]


def test_a_server_that_says_nothing_is_given_up_in_time(project, far):
    far.breaks, far.times = Stall(0), 1
    begin = time.monotonic()
    project.load(**through(far, project, connect_timeout=2))
    assert time.monotonic() - begin < 30
    assert whole(project)


@pytest.mark.parametrize("breaks", [Cut(200), Reset(1_000)], ids=["cut", "reset"])
@pytest.mark.parametrize("mode", ["replace", "append"])
def test_an_export_over_a_breaking_network_stands_once(project, far, breaks, mode):
    import json

    options = json.dumps({"table": "out", "mode": mode})
    target = f"mysql://root@127.0.0.1:{far.port}/{project.database.name}?ssl-mode=disabled"
    far.breaks, far.times = breaks, 1
    project.bench.pipeline(f'EXPORT SELECT range AS n FROM range(20000) TO "{target}" OPTIONS {options};')
    project.bench.ok()
    assert project.database.run("SELECT count(*), count(DISTINCT n) FROM `out`") == [(20000, 20000)]
