"""A run for a partition, or between two dates, reads only those rows from Postgres."""

from __future__ import annotations

import time

import pytest

from sqlflow_dagster.warehouse.shape import Window

DAYS, ROWS_A_DAY = 40, 100


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


def rows_read(database, least):
    """How many rows of the table the server has looked at; sessions tell when they end."""
    until = time.monotonic() + 20
    query = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int FROM pg_stat_user_tables"
    while (found := database.run(query)[0][0]) < least and time.monotonic() < until:
        time.sleep(0.05)
    return found


PARTITION = Window("2026-01-11 00:00:00+00:00", "2026-01-12 00:00:00+00:00")


@pytest.mark.parametrize(
    ("column", "span", "window", "ids"),
    [
        ("at", {}, PARTITION, (1000, 1099)),
        ("day", {}, PARTITION, (1000, 1099)),
        ("at", {}, Window("2026-01-11 00:00:00+02:00", "2026-01-12 00:00:00+02:00"), (992, 1091)),
        ("clock", {}, Window("2026-01-11 00:00:00+02:00", "2026-01-12 00:00:00+02:00"), (1000, 1099)),
        ("at", {"start_date": "2026-01-11", "end_date": "2026-01-12T12:00:00"}, None, (1000, 1149)),
        ("at", {"start_date": "2026-01-11T00:00:00Z", "end_date": "2026-01-11T06:00:00Z"}, None, (1000, 1024)),
        ("day", {"start_date": "2026-01-11", "end_date": "2026-01-12"}, None, (1000, 1099)),
        ("n", {"start_date": "9.5", "end_date": "10.5"}, None, (1000, 1099)),
        ("amount", {"start_date": "9.505", "end_date": "10.5"}, None, (951, 1049)),
    ],
    ids=["instant", "day", "instant of a zone", "clock of a zone", "dates without a zone", "times", "days",
         "whole numbers", "numbers"],
)  # fmt: skip
def test_only_the_rows_of_a_range_are_read(days, column, span, window, ids):
    # Of a partition only rows with a cursor are kept; elsewhere those without are read each time.
    run = {"window": window, "partition": "2026-01-11"} if window else {}
    source = days.source(table="t", sync_mode="incremental", cursor_field=column, primary_key="id", **span)
    days.bench.pipeline(source + "LOAD t FROM pg MODE UPSERT KEY (id);")
    before = rows_read(days.database, 0)
    days.bench.ok(**run)
    wanted = ids[1] - ids[0] + 1
    assert days.query("SELECT min(id), max(id), count(*) FROM p.t WHERE id >= 0") == [(*ids, wanted)]
    # A day more where the zone is not known.
    assert rows_read(days.database, before + wanted) - before <= wanted + 2 * ROWS_A_DAY + 2


def test_only_the_rows_of_a_range_of_a_query_are_read(days):
    source = days.source(
        query="SELECT id, at FROM t", sync_mode="incremental", cursor_field="at", primary_key="id"
    )
    days.bench.pipeline(source + "LOAD t FROM pg MODE UPSERT KEY (id);")
    before = rows_read(days.database, 0)
    days.bench.ok(window=PARTITION, partition="2026-01-11")
    assert days.query("SELECT min(id), max(id), count(*) FROM p.t WHERE id >= 0") == [(1000, 1099, 100)]
    assert rows_read(days.database, before + 100) - before <= 102
