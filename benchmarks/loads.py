"""Whole loads beside CREATE TABLE AS typed by hand, and increments in which nothing is new."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from benchmarks import inputs
from benchmarks.compare import beside_hand
from benchmarks.figures import Figure, Sizes, verdict
from benchmarks.measure import Command, Runs, Usage, interleaved, once, paired
from sqlflow_dagster.settings import DuckDB

_LOAD_LIMIT = 1.15
_GROWTH_LIMIT = 1.20
_DEFAULT_MEMORY = DuckDB().memory_limit
_PEAK_LIMIT = 512
_NOTHING_NEW_LIMIT = 0.3
_LEAST_ROUNDS = 3


def loads(sizes: Sizes) -> Iterator[Figure]:
    """Compare full loads with CREATE TABLE AS, and the memory of a load with that of a tenth of it."""
    for kind, name in (("csv", "CSV"), ("parquet", "Parquet")):
        found = _load(sizes, kind, sizes.rows)
        yield beside_hand(f"{name}, {sizes.rows:,} rows into DuckDB", found, _LOAD_LIMIT)
    for kind, name in (("csv", "CSV"), ("parquet", "Parquet")):
        small, large = (_loaded(sizes, kind, rows, 3).rss for rows in (sizes.few_rows, sizes.rows))
        yield Figure(
            f"{name}, peak memory from {sizes.few_rows:,} to {sizes.rows:,} rows",
            f"{large / small:.2f} x",
            f"≤ {_GROWTH_LIMIT:.2f} x",
            verdict(large / small, _GROWTH_LIMIT),
            f"{small:.0f} MiB, then {large:.0f} MiB",
        )
    rows = 2 * sizes.rows
    found = _loaded(sizes, "csv", rows, 1)
    yield Figure(
        f"CSV, {rows:,} rows, peak memory",
        f"{found.rss:.0f} MiB",
        f"≤ {_PEAK_LIMIT} MiB",
        verdict(found.rss, _PEAK_LIMIT),
        f"wall {found.wall:.2f} s, CPU {found.cpu:.2f} s",
    )


def _loaded(sizes: Sizes, kind: str, rows: int, rounds: int) -> Runs:
    """Measure a load with the memory that a profile has by default, far more than it is to need."""
    file = inputs.rows_file(sizes.folder, rows, kind)
    scratch = sizes.scratch("memory")
    project = inputs.project(scratch / "project", {"load": inputs.load_pipeline(file)}, _DEFAULT_MEMORY)
    inputs.link(project, file)
    words, env = inputs.run("load", project), inputs.environment(scratch)
    command = Command("load", words, env, lambda: inputs.forget(project))
    found = interleaved([command], rounds, scratch / "log")["load"]
    shutil.rmtree(scratch)
    return found


def _load(sizes: Sizes, kind: str, rows: int) -> dict[str, Runs]:
    file = inputs.rows_file(sizes.folder, rows, kind)
    scratch = sizes.scratch(f"load_{kind}_{rows}")
    project = inputs.project(
        scratch / "project", {"load": inputs.load_pipeline(file), "start": inputs.ONE_TABLE}
    )
    inputs.link(project, file)
    typed = scratch / "typed.duckdb"
    env = inputs.environment(scratch)
    commands = (
        Command(
            "by hand",
            [sys.executable, "-c", inputs.by_hand(file, typed)],
            env,
            lambda: typed.unlink(missing_ok=True),
        ),
        Command("sqlflow run", inputs.run("load", project), env, lambda: inputs.forget(project)),
        Command("start", inputs.run("start", project), env, lambda: inputs.forget(project)),
    )
    # Warms the file cache, too.
    for command in commands[:2]:
        once(command, scratch / "log")
    same_rows(typed, "rows", project / "data/warehouse.duckdb", "load.rows", rows)
    found = interleaved(commands, sizes.rounds, scratch / "log")
    shutil.rmtree(scratch)
    return found


def same_rows(typed: Path, one: str, found: Path, other: str, rows: int) -> None:
    """Hold two tables of different files to the same rows and types.

    Raises RuntimeError where they differ: then their times are not to be compared.
    """
    with duckdb.connect() as connection:
        for path, name in ((typed, "typed"), (found, "found")):
            connection.execute(f"ATTACH '{path}' AS {name} (READ_ONLY)")
        tables = (f"typed.{one}", f"found.{other}")
        kinds = [connection.execute(f"DESCRIBE {table}").fetchall() for table in tables]
        sums = [
            connection.execute(
                f"SELECT count(*), sum(hash(COLUMNS(*))) FROM (SELECT {', '.join(inputs.COLUMNS)} FROM {table})"
            ).fetchall()
            for table in tables
        ]
    if kinds[0] != kinds[1] or sums[0] != sums[1] or sums[0][0][0] != rows:
        raise RuntimeError(f"the two ways differ: {kinds}, {sums}")


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to know what is new, and how many rows at the boundary it reads again."""

    name: str
    kind: str
    parameters: str
    boundary: int


_WAYS = (
    _Way("files as the cursor (CSV)", "csv", '"sync_mode": "incremental"', 0),
    _Way("cursor column (Parquet)", "parquet", '"sync_mode": "incremental", "cursor_field": "updated_at"', 1),
    _Way(
        "cursor column and key (Parquet)",
        "parquet",
        '"sync_mode": "incremental", "cursor_field": "updated_at", "primary_key": "id"',
        1,
    ),
)


def nothing_new(sizes: Sizes) -> Iterator[Figure]:
    """Measure an incremental run after one that has read everything."""
    for number, way in enumerate(_WAYS):
        file = inputs.rows_file(sizes.folder, sizes.few_rows, way.kind)
        scratch = sizes.scratch(f"nothing_new_{number}")
        pipelines = {"load": inputs.load_pipeline(file, way.parameters), "start": inputs.ONE_TABLE}
        project = inputs.project(scratch / "project", pipelines)
        inputs.link(project, file)
        env = inputs.environment(scratch)
        start = Command("start", inputs.run("start", project), env)
        load = Command("load", [*inputs.run("load", project), "--format", "json"], env)
        if (first := _rows_read(once(load, scratch / "log"))) != sizes.few_rows:
            raise RuntimeError(f"{way.name}: the first run read {first} rows")
        found = interleaved((start, load), max(sizes.rounds, _LEAST_ROUNDS), scratch / "log")
        yield _nothing_new(f"Nothing new in {sizes.few_rows:,} rows, {way.name}", way, found)
        shutil.rmtree(scratch)


def _nothing_new(case: str, way: _Way, found: dict[str, Runs]) -> Figure:
    start, load = found["start"], found["load"]
    wall = paired(lambda s, o: o.wall - s.wall, start, load)
    cpu = paired(lambda s, o: o.cpu - s.cpu, start, load)
    rows = max(map(_rows_read, load.rounds))
    return Figure(
        case,
        f"{wall:.2f} s beyond the start, {_count(rows)} read",
        f"≤ {_NOTHING_NEW_LIMIT} s, ≤ {_count(way.boundary)}",
        verdict(wall, _NOTHING_NEW_LIMIT) and rows <= way.boundary,
        f"wall {load.wall:.2f} s, start {start.wall:.2f}; CPU {load.cpu:.2f} s, start {start.cpu:.2f}: "
        f"{cpu:.2f} s beyond",
        ratio=load.cpu / start.cpu,
        beside="start",
    )


def _rows_read(run: Usage) -> int:
    """What the run itself says that its source gave."""
    assets: Sequence[dict[str, int]] = json.loads(run.output[run.output.index("{\n") :])["assets"]
    return sum(asset["rows"] for asset in assets)


def _count(rows: int) -> str:
    return f"{rows} row{'' if rows == 1 else 's'}"
