"""A few changed rows into a large table by their key, beside the same typed by hand."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import duckdb

from benchmarks import inputs
from benchmarks.compare import Way, beside_hand, started
from benchmarks.figures import Figure, Sizes
from benchmarks.loads import same_rows
from benchmarks.measure import Command, interleaved, once

_LIMIT = 1.3
# One row of so many is changed.
_EACH = 100
_INCREMENTAL = '"sync_mode": "incremental", "cursor_field": "updated_at", "primary_key": "id"'
_MERGE = """
import duckdb
connection = duckdb.connect({typed!r})
connection.execute("SET memory_limit = '{memory}'")
connection.execute("BEGIN")
connection.execute(
    "CREATE TEMP TABLE stage AS SELECT * FROM read_parquet({newer!r}) "
    "QUALIFY row_number() OVER (PARTITION BY id ORDER BY updated_at DESC) = 1"
)
connection.execute("DELETE FROM rows WHERE id IN (SELECT id FROM stage)")
connection.execute("INSERT INTO rows FROM stage")
connection.execute("COMMIT")
connection.close()
"""


def upsert(sizes: Sizes) -> Iterator[Figure]:
    """Merge one row of a hundred, spread over the whole table: staged, one row a key, DELETE and INSERT."""
    rows = sizes.rows // 2
    scratch = sizes.scratch("upsert")
    base = inputs.rows_file(sizes.folder, rows, "parquet")
    newer = _newer(base, scratch / "newer.parquet")
    ours, hand = _ours(base, scratch / "ours"), _typed(base, newer, scratch / "hand")
    once(ours.command, scratch / "log")
    inputs.hard_link(newer, ours.folder / "project/data/newer.parquet")
    commands = [started(scratch)]
    for way in (ours, hand):
        saved = scratch / "saved" / way.command.name
        shutil.copytree(way.folder, saved, copy_function=_copied)
        commands.append(
            Command(way.command.name, way.command.argv, way.command.env, partial(_restore, way, saved))
        )
    for command in commands:
        once(command, scratch / "log")
    same_rows(hand.database, hand.table, ours.database, ours.table, rows)
    runs = interleaved(commands, sizes.rounds, scratch / "log")
    yield beside_hand(f"{rows // _EACH:,} rows spread over {rows:,}, merged by key", runs, _LIMIT)
    shutil.rmtree(scratch)


def _newer(base: Path, path: Path) -> Path:
    duckdb.sql(
        f"COPY (SELECT * REPLACE (amount + 1 AS amount, updated_at + INTERVAL 10 YEAR AS updated_at) "
        f"FROM '{base}' WHERE id % {_EACH} = 0) TO '{path}'"
    )
    return path


def _ours(base: Path, folder: Path) -> Way:
    pipeline = inputs.load_pipeline(Path("*.parquet"), _INCREMENTAL)
    project = inputs.project(folder / "project", {"load": pipeline})
    inputs.link(project, base)
    command = Command("sqlflow run", inputs.run("load", project), inputs.environment(folder))
    return Way(command, project / "data/warehouse.duckdb", "load.rows", folder)


def _typed(base: Path, newer: Path, folder: Path) -> Way:
    folder.mkdir()
    typed = folder / "typed.duckdb"
    with duckdb.connect(str(typed)) as connection:
        connection.execute(f"CREATE TABLE rows AS FROM '{base}'")
    program = _MERGE.format(typed=str(typed), newer=str(newer), memory=inputs.MEMORY_LIMIT)
    return Way(
        Command("by hand", [sys.executable, "-c", program], inputs.environment(folder)), typed, "rows", folder
    )


def _copied(source: str, target: str) -> None:
    """Inputs are linked, as nothing changes them; all else is copied."""
    (os.link if source.endswith(".parquet") else shutil.copy2)(source, target)


def _restore(way: Way, saved: Path) -> None:
    shutil.rmtree(way.folder)
    shutil.copytree(saved, way.folder, copy_function=_copied)
