"""A run for a partition, or between two dates, reads only those rows from MySQL."""

from __future__ import annotations

import pytest

from tests.connectors.ranges import DAYS, PARTITION, RANGES, ROWS_A_DAY, load


@pytest.fixture
def days(project):
    """A table with an index, of rows over many days and one without a day."""
    database = project.database
    database.run("SET GLOBAL userstat = 1")
    database.run(
        "SET time_zone = '+00:00'",
        "CREATE TABLE t (id int PRIMARY KEY, at timestamp NULL, clock datetime, day date, n int, "
        "amount decimal(12,2), INDEX (at), INDEX (clock), INDEX (day), INDEX (n), INDEX (amount))",
        f"INSERT INTO t SELECT seq, d, d, d, seq DIV 100, seq / 100 FROM (SELECT seq, "
        f"TIMESTAMP'2026-01-01 00:00:00' + INTERVAL seq * 86400 DIV {ROWS_A_DAY} SECOND AS d "
        f"FROM seq_0_to_{DAYS * ROWS_A_DAY - 1}) AS days",
        "INSERT INTO t (id) VALUES (-1)", "ANALYZE TABLE t", "FLUSH TABLE_STATISTICS",
    )  # fmt: skip
    yield project
    database.run("SET GLOBAL userstat = 0")


@pytest.fixture
def read(days):
    """How many rows of the table the server has read."""

    def rows_read(_least):
        query = (
            "SELECT coalesce(sum(ROWS_READ), 0) FROM information_schema.TABLE_STATISTICS "
            "WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 't'"
        )
        return int(days.database.run(query)[0][0])

    return rows_read


@pytest.mark.parametrize(("column", "bounds", "window", "ids"), RANGES)
def test_only_the_rows_of_a_range_are_read(days, read, column, bounds, window, ids):
    *found, rows = load(days, read, column, bounds, window, table="t")
    wanted = ids[1] - ids[0] + 1
    assert found == [*ids, wanted]
    # A day more where the zone is not known.
    assert wanted <= rows <= wanted + 2 * ROWS_A_DAY + 2


def test_only_the_rows_of_a_range_of_a_query_are_read(days, read):
    found = load(days, read, "at", {}, PARTITION, query="SELECT id, at FROM t")
    assert found[:3] == (1000, 1099, 100)
    # Each bound may take one row more to know that it ends.
    assert 100 <= found[3] <= 105


@pytest.mark.parametrize("zero_dates", ["null", "error"])
def test_a_date_that_is_none_is_in_every_range(project, zero_dates):
    project.database.run(
        "CREATE TABLE t (id int PRIMARY KEY, day date)",
        "INSERT INTO t VALUES (1, '0000-00-00'), (2, '2026-01-11'), (3, '2026-02-11'), (4, NULL)",
    )
    given = {"table": "t", "primary_key": "id", "sync_mode": "incremental", "cursor_field": "day"}
    given |= {"start_date": "2026-01-01", "end_date": "2026-02-01", "zero_dates": zero_dates}
    if zero_dates == "null":
        project.load(**given)
        assert project.query("SELECT id FROM p.t ORDER BY id") == [(1,), (2,), (4,)]
    else:
        assert "holds a date that is none" in str(project.error(**given))
