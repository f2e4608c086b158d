"""How long definitions take to load and files to be checked, and whether that grows with the project."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import inputs
from benchmarks.figures import Figure, Sizes, verdict
from benchmarks.measure import Command, Runs, interleaved, once, paired

# Twice the work may take this much more than twice the time before it counts as faster than linear.
_LINEAR_SLACK = 1.15
_LEAST_ROUNDS = 3
_PARTS = ("plan", "assets", "repository", "jobs")

# Dagster itself is imported first: its import is shown beside, as the baseline.
_BUILD = """
import json, sys, time
from pathlib import Path
marks = [time.process_time()]
def mark(): marks.append(time.process_time())
import dagster
mark()
from sqlflow_dagster import build_definitions, load_project
project = load_project(Path(sys.argv[1]))
mark()
definitions = build_definitions(project, executor=dagster.in_process_executor)
mark()
repository = definitions.get_repository_def()
mark()
repository.load_all_definitions()
mark()
spans = [b - a for a, b in zip(marks, marks[1:])]
print(json.dumps({
    **dict(zip(("dagster", "plan", "assets", "repository", "jobs"), spans)),
    "keys": len(repository.assets_defs_by_key), "ops": len(set(repository.assets_defs_by_key.values())),
}))
"""


@dataclass(frozen=True, slots=True)
class _Shape:
    """A project's shape: `pipelines(size)` writes it, with `assets` assets in `ops` ops for each of size."""

    name: str
    pipelines: Callable[[int], dict[str, str]]
    size: int
    assets: int
    ops: int
    limit: float


_SHAPES = (
    _Shape("600 assets of 200 pipelines, each its own op", inputs.many_tables, 200, 3, 3, 1.5),
    _Shape("2,000 streams of 50 SOURCEs", inputs.many_streams, 50, 40, 1, 1.0),
)


def definitions(sizes: Sizes) -> Iterator[Figure]:
    """Measure definitions at their size, at half and at twice of it."""
    for shape in _SHAPES:
        scratch = sizes.scratch("definitions")
        env = inputs.environment(scratch)
        commands = []
        for times in (1, 2, 4):
            size = shape.size * times // 2
            project = inputs.project(scratch / f"project_{size}", shape.pipelines(size))
            commands.append(Command(str(times), [sys.executable, "-c", _BUILD, str(project)], env))
            found = json.loads(once(commands[-1], scratch / "log").output.splitlines()[-1])
            if (found["keys"], found["ops"]) != (size * shape.assets, size * shape.ops):
                raise RuntimeError(f"{shape.name}: {found} where {size} x {shape.assets} were written")
        runs = interleaved(commands, max(sizes.rounds, _LEAST_ROUNDS), scratch / "log")
        half, full, double = (_parts(runs[command.name]) for command in commands)
        yield _definitions(shape, full)
        yield _growth(shape, half, full, double)
        shutil.rmtree(scratch)


def _parts(runs: Runs) -> list[dict[str, float]]:
    found = [json.loads(run.output.splitlines()[-1]) for run in runs.rounds]
    return [{**run, "all": sum(run[part] for part in _PARTS)} for run in found]


def _definitions(shape: _Shape, full: list[dict[str, float]]) -> Figure:
    run = sorted(full, key=lambda run: run["all"])[len(full) // 2]
    return Figure(
        f"Definitions: {shape.name}",
        f"{run['all']:.2f} CPU s",
        f"≤ {shape.limit} CPU s",
        verdict(run["all"], shape.limit),
        f"plan {run['plan']:.2f} with our imports, assets {run['assets']:.2f}, repository "
        f"{run['repository']:.2f}, all jobs resolved {run['jobs']:.2f}; import of Dagster before these "
        f"{run['dagster']:.2f}",
        ratio=run["all"] / run["dagster"],
        beside="import dagster",
    )


def _growth(shape: _Shape, *sizes: list[dict[str, float]]) -> Figure:
    half, full, double = (sorted(run["all"] for run in runs)[len(runs) // 2] for runs in sizes)
    growth = max(full / half, double / full)
    return Figure(
        f"Definitions: {shape.name}, half to all to twice of them",
        f"{full / half:.2f} x, {double / full:.2f} x",
        f"≤ {2 * _LINEAR_SLACK:.2f} x",
        verdict(growth, 2 * _LINEAR_SLACK),
        f"{half:.2f}, {full:.2f}, {double:.2f} CPU s",
    )


def validation(sizes: Sizes) -> Iterator[Figure]:
    """Measure `sqlflow validate` on one file and on fifty, nothing cached."""
    for files, limit in ((1, 0.6), (50, 1.5)):
        scratch = sizes.scratch("validate")
        project = inputs.project(scratch / "project", inputs.whole_files(files))
        env = inputs.environment(scratch)
        ours = Command(
            "validate",
            [inputs.SQLFLOW, "validate", "--project", str(project)],
            env,
            lambda project=project: shutil.rmtree(project / ".sqlflow", ignore_errors=True),
        )
        imports = Command("imports", [sys.executable, "-c", "import duckdb, pydantic, typer, yaml"], env)
        once(ours, scratch / "log")
        runs = interleaved((ours, imports), max(sizes.rounds, _LEAST_ROUNDS), scratch / "log")
        found, base = runs["validate"], runs["imports"]
        yield Figure(
            f"`sqlflow validate`, {files} file{'s' if files > 1 else ''}",
            f"{found.cpu:.2f} CPU s",
            f"≤ {limit} CPU s",
            verdict(found.cpu, limit),
            f"wall {found.wall:.2f} s, {found.rss:.0f} MiB; import of DuckDB, pydantic, typer and yaml alone "
            f"{base.cpu:.2f} CPU s",
            ratio=paired(lambda o, b: o.cpu / b.cpu, found, base),
            beside="imports",
        )
