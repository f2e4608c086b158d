"""What a run costs whatever it loads, beside Dagster alone, and where that goes."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import inputs
from benchmarks.figures import Figure, Sizes, verdict
from benchmarks.measure import Command, interleaved, once, paired

_START_LIMIT = 3.0
_LEAST_ROUNDS = 3

# The least that a Dagster user would write for the same table.
_BARE = """
import sys
import dagster as dg
import duckdb

@dg.asset
def one():
    with duckdb.connect(sys.argv[1]) as connection:
        connection.execute("CREATE OR REPLACE TABLE one AS SELECT 1 AS one")
    return dg.MaterializeResult(metadata={"rows": 1})

job = dg.define_asset_job("start")
definitions = dg.Definitions([one], jobs=[job], executor=dg.in_process_executor)
with dg.DagsterInstance.get() as instance:
    result = definitions.resolve_job_def("start").execute_in_process(instance=instance, raise_on_error=False)
sys.exit(not result.success)
"""

# `sqlflow run` in one process, its stations one after the other.
STATIONS = """
import json, os, signal, sys, time
from pathlib import Path
# As the command does: Dagster ends by it what it has started, which would ignore what this process ignores.
signal.signal(signal.SIGTERM, signal.SIG_DFL)
marks = [("python", time.process_time())]
def mark(name): marks.append((name, time.process_time()))
import sqlflow_dagster.cli.app
mark("command line")
from sqlflow_dagster.project import load_project
project = load_project(Path(sys.argv[1]))
mark("plan, with its imports")
import dagster
mark("import of Dagster")
from sqlflow_dagster.assets import execute
mark("our imports on top of it")
job, _ = execute._job(project, "start", None, lambda item: None)
mark("definitions and job")
with execute.open_instance() as instance:
    mark("instance")
    result = execute._executed(job, instance, full_refresh=False, partition=None)
    mark("run")
    for record in instance.all_logs(result.run_id): pass
    mark("reading its events")
mark("closing")
assert result.success
print(json.dumps({name: at - before for (_, before), (name, at) in zip([("", 0), *marks], marks)}))
"""


def start(sizes: Sizes) -> Iterator[Figure]:
    """Measure a whole `sqlflow run` of one table of one row."""
    scratch = sizes.scratch("start")
    project = inputs.project(scratch / "project", {"start": inputs.ONE_TABLE})
    env = inputs.environment(scratch)
    stations = Command("stations", [sys.executable, "-c", STATIONS, str(project)], env)
    commands = (
        Command("sqlflow run", inputs.run("start", project), env),
        Command("Dagster alone", [sys.executable, "-c", _BARE, str(scratch / "bare.duckdb")], env),
        stations,
    )
    for command in commands:
        once(command, scratch / "log")
    runs = interleaved(commands, max(sizes.rounds, _LEAST_ROUNDS), scratch / "log")
    ours, bare = runs["sqlflow run"], runs["Dagster alone"]
    parts = [json.loads(run.output.splitlines()[-1]) for run in runs["stations"].rounds]
    median = {name: statistics.median(part[name] for part in parts) for name in parts[0]}
    yield Figure(
        "Start: `sqlflow run` of a table of one row",
        f"{ours.cpu:.2f} CPU s",
        f"≤ {_START_LIMIT} CPU s",
        verdict(ours.cpu, _START_LIMIT),
        f"wall {ours.wall:.2f} s, {ours.rss:.0f} MiB; the same table by an asset of Dagster alone "
        f"{bare.cpu:.2f} CPU s, wall {bare.wall:.2f}; of the CPU: "
        + ", ".join(f"{name} {seconds:.2f}" for name, seconds in median.items()),
        ratio=paired(lambda o, b: o.cpu / b.cpu, ours, bare),
        beside="Dagster alone",
    )
    _check(Path(project))
    shutil.rmtree(scratch)


def _check(project: Path) -> None:
    if not (project / "data/warehouse.duckdb").exists():
        raise RuntimeError("the run made no warehouse")
