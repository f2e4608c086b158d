"""Ranges that are asked of each database, of a table with one hundred rows a day from 2026-01-01 on.

`at` is an instant, `clock` a time without a zone and `day` a day, all in UTC; `n` is the number of the hundred, and
`amount` a hundredth of the row's number, which is its `id`.
"""

from __future__ import annotations

import pytest

from sqlflow_dagster.warehouse.shape import Window

DAYS, ROWS_A_DAY = 40, 100
PARTITION = Window("2026-01-11 00:00:00+00:00", "2026-01-12 00:00:00+00:00")
_OF_A_ZONE = Window("2026-01-11 00:00:00+02:00", "2026-01-12 00:00:00+02:00")

# The column, the bounds, the partition, and the first and the last row.
RANGES = [
    pytest.param("at", {}, PARTITION, (1000, 1099), id="instant"),
    pytest.param("day", {}, PARTITION, (1000, 1099), id="day"),
    pytest.param("at", {}, _OF_A_ZONE, (992, 1091), id="instant of a zone"),
    pytest.param("clock", {}, _OF_A_ZONE, (1000, 1099), id="clock of a zone"),
    pytest.param(
        "at", {"start_date": "2026-01-11", "end_date": "2026-01-12T12:00:00"}, None, (1000, 1149),
        id="dates without a zone",
    ),
    pytest.param(
        "at", {"start_date": "2026-01-11T00:00:00Z", "end_date": "2026-01-11T06:00:00Z"}, None, (1000, 1024),
        id="times",
    ),
    pytest.param("day", {"start_date": "2026-01-11", "end_date": "2026-01-12"}, None, (1000, 1099), id="days"),
    pytest.param("n", {"start_date": "9.5", "end_date": "10.5"}, None, (1000, 1099), id="whole numbers"),
    pytest.param("amount", {"start_date": "9.505", "end_date": "10.5"}, None, (951, 1049), id="numbers"),
]  # fmt: skip


def load(project, read, column, bounds, window, **params):
    """Load the range, and return the first and last row that are there, their count, and how many were read.

    `read` returns how many rows the server has read so far, given the least that it must tell.
    """
    # Of a partition only rows with a cursor are kept; elsewhere those without are read each time.
    run = {"window": window, "partition": "2026-01-11"} if window else {}
    source = project.source(
        sync_mode="incremental", cursor_field=column, primary_key="id", **bounds, **params
    )
    name = source.split()[1]
    project.bench.pipeline(f"{source}LOAD t FROM {name} MODE UPSERT KEY (id);")
    before = read(0)
    project.bench.ok(**run)
    ((first, last, count),) = project.query("SELECT min(id), max(id), count(*) FROM p.t WHERE id >= 0")
    return first, last, count, read(before + count) - before
