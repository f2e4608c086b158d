"""A run for a partition, or between two dates, reads only those rows from Postgres."""

from __future__ import annotations

import time

import pytest

from tests.connectors.ranges import DAYS, PARTITION, RANGES, ROWS_A_DAY, load


@pytest.fixture
def days(project):
    """A table with an index, of rows over many days and one without a day."""
    project.database.run(
        "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, clock timestamp, day date, n int, amount numeric(12,2))",
        f"INSERT INTO t SELECT n, d, d AT TIME ZONE 'UTC', (d AT TIME ZONE 'UTC')::date, n / 100, n / 100.0 FROM ("
        f"SELECT n, '2026-01-01 00:00+00'::timestamptz + n * interval '1 day' / {ROWS_A_DAY} AS d "
        f"FROM generate_series(0, {DAYS * ROWS_A_DAY - 1}) AS n) AS days",
        "INSERT INTO t VALUES (-1)",
        *(f"CREATE INDEX ON t ({name})" for name in ("at", "clock", "day", "n", "amount")),
        "ANALYZE t",
    )
    project.database.run("VACUUM t")
    return project


@pytest.fixture
def read(days):
    """How many rows of the table the server has looked at; sessions tell when they end."""
    query = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int FROM pg_stat_user_tables"

    def rows_read(least):
        until = time.monotonic() + 20
        while (found := days.database.run(query)[0][0]) < least and time.monotonic() < until:
            time.sleep(0.05)
        return found

    return rows_read


@pytest.mark.parametrize(("column", "bounds", "window", "ids"), RANGES)
def test_only_the_rows_of_a_range_are_read(days, read, column, bounds, window, ids):
    *found, rows = load(days, read, column, bounds, window, table="t")
    wanted = ids[1] - ids[0] + 1
    assert found == [*ids, wanted]
    # A day more where the zone is not known.
    assert rows <= wanted + 2 * ROWS_A_DAY + 2


def test_only_the_rows_of_a_range_of_a_query_are_read(days, read):
    found = load(days, read, "at", {}, PARTITION, query="SELECT id, at FROM t")
    assert found[:3] == (1000, 1099, 100)
    assert found[3] <= 102
