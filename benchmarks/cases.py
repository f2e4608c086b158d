"""The cases: what is run beside what, and the figure that each must reach."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from benchmarks import inputs
from benchmarks.measure import Command, Usage, interleaved, once
from benchmarks.resilience import cost

START = "CREATE TABLE one AS SELECT 1 AS one;\n"
_LOAD_LIMIT = 1.15
_GROWTH_LIMIT = 1.20
_NOTHING_NEW_LIMIT = 0.3
_RULES_LIMIT = 1.05
# Twice the work may take this much more than twice the time before it counts as faster than linear.
_LINEAR_SLACK = 1.25


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report: what was measured, what it had to reach, and how it came about."""

    case: str
    measured: str
    limit: str
    met: bool
    detail: str


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the cases are. `folder` is scratch; `rounds` is how often each command runs."""

    folder: Path
    rows: int
    rounds: int

    @property
    def few_rows(self) -> int:
        """The smaller load, that memory is compared with."""
        return self.rows // 10

    def scratch(self, name: str) -> Path:
        """Return a new empty folder for one case."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


def loads(sizes: Sizes) -> Iterator[Figure]:
    """Compare full loads with CREATE TABLE AS, and the memory of a load with that of a tenth of it."""
    for kind in ("csv", "parquet"):
        name = kind.upper() if kind == "csv" else "Parquet"
        large = _load(sizes, kind, sizes.rows)
        hand, ours, start = large["by hand"], large["sqlflow run"], large["start"]
        allowed = _LOAD_LIMIT * hand.wall + start.wall
        yield Figure(
            f"{name}, {sizes.rows:,} rows into DuckDB",
            f"{ours.wall:.2f} s",
            f"≤ {allowed:.2f} s = 1.15 x by hand + Dagster's start",
            ours.wall <= allowed,
            f"by hand {hand.wall:.2f} s, start {start.wall:.2f} s; without start "
            f"{(ours.wall - start.wall) / hand.wall:.2f} x by hand; CPU {ours.cpu:.1f} s, "
            f"by hand {hand.cpu:.1f} s",
        )
        small = _load(sizes, kind, sizes.few_rows)["sqlflow run"]
        yield Figure(
            f"{name}, peak memory from {sizes.few_rows:,} to {sizes.rows:,} rows",
            f"{ours.rss / small.rss:.2f} x",
            f"≤ {_GROWTH_LIMIT:.2f} x",
            ours.rss <= _GROWTH_LIMIT * small.rss,
            f"{small.rss:.0f} MiB, then {ours.rss:.0f} MiB; by hand {hand.rss:.0f} MiB; "
            f"memory_limit {inputs.MEMORY_LIMIT} for all",
        )


def _load(sizes: Sizes, kind: str, rows: int) -> dict[str, Usage]:
    file = inputs.rows_file(sizes.folder, rows, kind)
    scratch = sizes.scratch(f"load_{kind}_{rows}")
    project = inputs.project(scratch / "project", {"load": inputs.load_pipeline(file), "start": START})
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
        Command("sqlflow run", _run("load", project), env, lambda: _forget(project)),
        Command("start", _run("start", project), env, lambda: _forget(project)),
    )
    _same_rows(commands[:2], typed, project, rows, scratch / "log")
    found = interleaved(commands, sizes.rounds, scratch / "log")
    shutil.rmtree(scratch)
    return found


def _same_rows(commands: tuple[Command, ...], typed: Path, project: Path, rows: int, log: Path) -> None:
    """Warm the file cache, and hold both ways to the same table before their times are compared."""
    for command in commands:
        once(command, log)
    with duckdb.connect() as connection:
        connection.execute(f"ATTACH '{typed}' AS typed (READ_ONLY)")
        connection.execute(f"ATTACH '{project / 'data/warehouse.duckdb'}' AS ours (READ_ONLY)")
        checks = [
            connection.execute(
                f"SELECT count(*), sum(id), sum(amount), max(updated_at), min(note) FROM {table}"
            ).fetchone()
            for table in ("typed.rows", "ours.load.rows")
        ]
    if checks[0] != checks[1] or not checks[0] or checks[0][0] != rows:
        raise RuntimeError(f"the two ways differ: {checks}")


def nothing_new(sizes: Sizes) -> Iterator[Figure]:
    """Measure an incremental run after one that has read everything."""
    ways = {
        "files as the cursor (CSV)": ("csv", '"sync_mode": "incremental"'),
        "cursor column (Parquet)": ("parquet", '"sync_mode": "incremental", "cursor_field": "updated_at"'),
        "cursor column and key (Parquet)": (
            "parquet",
            '"sync_mode": "incremental", "cursor_field": "updated_at", "primary_key": "id"',
        ),
    }
    for index, (name, (kind, parameters)) in enumerate(ways.items()):
        file = inputs.rows_file(sizes.folder, sizes.few_rows, kind)
        scratch = sizes.scratch(f"nothing_new_{index}")
        pipelines = {"load": inputs.load_pipeline(file, parameters), "start": START}
        project = inputs.project(scratch / "project", pipelines)
        inputs.link(project, file)
        env = inputs.environment(scratch)
        commands = (
            Command("start", _run("start", project), env),
            Command("load", _run("load", project), env),
        )
        once(commands[1], scratch / "log")
        found = interleaved(commands, max(sizes.rounds, 5), scratch / "log")
        extra = found["load"].wall - found["start"].wall
        rows = _rows_read(project)
        boundary = 0 if index == 0 else 1
        yield Figure(
            f"Nothing new in {sizes.few_rows:,} rows, {name}",
            f"{extra:.2f} s beyond the start, {rows} rows read",
            f"≤ {_NOTHING_NEW_LIMIT} s, ≤ {boundary} rows",
            extra <= _NOTHING_NEW_LIMIT and rows <= boundary,
            f"{found['load'].wall:.2f} s, start {found['start'].wall:.2f} s",
        )
        shutil.rmtree(scratch)


def _rows_read(project: Path) -> int:
    with duckdb.connect(str(project / "data/warehouse.duckdb"), read_only=True) as connection:
        row = connection.execute(
            "SELECT rows FROM _sqlflow.commits ORDER BY epoch DESC, seq DESC LIMIT 1"
        ).fetchone()
    return int(row[0]) if row else -1


def definitions(sizes: Sizes) -> Iterator[Figure]:
    """Measure how long Dagster's definitions take to load, and whether that grows with the project."""
    shapes: tuple[tuple[str, Callable[[int], dict[str, str]], int, int, float], ...] = (
        ("600 assets of 200 pipelines, each its own op", inputs.many_tables, 200, 600, 1.5),
        ("2,000 streams of 50 SOURCEs", inputs.many_streams, 50, 2000, 1.0),
    )
    for name, pipelines, size, assets, limit in shapes:
        half, _ = _definitions(sizes, pipelines(size // 2), assets // 2)
        full, parts = _definitions(sizes, pipelines(size), assets)
        yield Figure(f"Definitions: {name}", f"{full:.2f} CPU s", f"≤ {limit} CPU s", full <= limit, parts)
        yield Figure(
            f"Definitions: {name}, against half of them",
            f"{full / half:.2f} x",
            f"≤ {2 * _LINEAR_SLACK:.2f} x",
            full <= 2 * _LINEAR_SLACK * half,
            f"{half:.2f} CPU s, then {full:.2f}",
        )


_BUILD = """
import json, sys, time
from pathlib import Path
begin = time.process_time()
import dagster
from sqlflow_dagster import build_definitions
imported = time.process_time()
definitions = build_definitions(Path(sys.argv[1]))
built = time.process_time()
repository = definitions.get_repository_def()
made = time.process_time()
repository.load_all_definitions()
loaded = time.process_time()
print(json.dumps({
    "import": imported - begin, "build": built - imported, "repository": made - built,
    "jobs": loaded - made, "assets": len(repository.assets_defs_by_key),
}))
"""


def _definitions(sizes: Sizes, pipelines: dict[str, str], assets: int) -> tuple[float, str]:
    """Return the CPU seconds of build and repository: the median of runs after a first one."""
    project = inputs.project(sizes.scratch("definitions"), pipelines)
    env = inputs.environment(sizes.folder)
    runs = []
    for _ in range(1 + max(sizes.rounds, 3)):
        done = subprocess.run(
            [sys.executable, "-c", _BUILD, str(project)], env=dict(env), capture_output=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr.decode()[-3000:])
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    if runs[0]["assets"] != assets:
        raise RuntimeError(f"{runs[0]['assets']} assets where {assets} were written")
    # The first run compiles bytecode and fills the cache of parsed plans.
    run = sorted(runs[1:], key=lambda run: run["build"] + run["repository"])[(len(runs) - 1) // 2]
    parts = (
        f"build {run['build']:.2f}, repository {run['repository']:.2f}; beside these: import of Dagster "
        f"{run['import']:.2f}, all jobs resolved {run['jobs']:.2f}; first time, nothing cached "
        f"{runs[0]['build'] + runs[0]['repository']:.2f}"
    )
    return run["build"] + run["repository"], parts


def validation(sizes: Sizes) -> Iterator[Figure]:
    """Measure `sqlflow validate` on one file and on fifty."""
    for files, limit in ((1, 0.6), (50, 1.5)):
        scratch = sizes.scratch("validate")
        project = inputs.project(scratch / "project", inputs.whole_files(files))
        command = Command(
            "validate",
            [inputs.SQLFLOW, "validate", "--project", str(project)],
            inputs.environment(scratch),
            lambda project=project: shutil.rmtree(project / ".sqlflow", ignore_errors=True),
        )
        once(command, scratch / "log")
        found = interleaved([command], max(sizes.rounds, 5), scratch / "log")["validate"]
        yield Figure(
            f"`sqlflow validate`, {files} file{'s' if files > 1 else ''}",
            f"{found.cpu:.2f} CPU s",
            f"≤ {limit} CPU s",
            found.cpu <= limit,
            f"{found.wall:.2f} s wall, {found.rss:.0f} MiB; nothing cached",
        )


def _run(pipeline: str, project: Path) -> list[str]:
    return [inputs.SQLFLOW, "run", pipeline, "--project", str(project)]


def _forget(project: Path) -> None:
    """Put the project back to before its first run."""
    for path in (project / "data").glob("warehouse.duckdb*"):
        path.unlink()


def rules(sizes: Sizes) -> Iterator[Figure]:
    """Compare pages of an API read under all rules of resilience with the same under none."""
    found = cost(pages=300, rounds=3 * sizes.rounds)
    wall, cpu = found.ruled_wall / found.bare_wall, found.ruled_cpu / found.bare_cpu
    yield Figure(
        "300 pages of an API that answers in 5 ms, with retries, breaker and rate limit",
        f"{wall:.3f} x",
        f"≤ {_RULES_LIMIT:.2f} x without",
        wall <= _RULES_LIMIT,
        f"wall {found.bare_wall:.3f} s without, {found.ruled_wall:.3f} s with; CPU {found.bare_cpu:.3f} s and "
        f"{found.ruled_cpu:.3f} s ({cpu:.3f} x)",
    )


CASES: dict[str, Callable[[Sizes], Iterator[Figure]]] = {
    "loads": loads,
    "nothing-new": nothing_new,
    "definitions": definitions,
    "validate": validation,
    "rules": rules,
}
