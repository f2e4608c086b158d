"""What happens at the limits of the machine: full and read-only disks, memory, very many streams and partitions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from sqlflow_dagster.assets.automation import due_partitions
from sqlflow_dagster.settings import Schedule

pytestmark = pytest.mark.fault

REPOSITORY = Path(__file__).parents[2]


# --- 23: disks


def may_mount():
    """Return what lets a process mount a disk of its own here, without anyone else seeing it."""
    for way in (["unshare", "--map-root-user", "--mount"], ["sudo", "-n", "unshare", "--mount"]):
        if (
            shutil.which(way[0])
            and not subprocess.run([*way, "true"], capture_output=True, check=False).returncode
        ):
            return way
    pytest.skip(
        "this machine lets no process mount a disk of its own; test_crashes.py limits the size of files"
    )


@pytest.mark.parametrize("kind", ["replace", "append", "sorted"])
def test_a_full_or_read_only_disk_is_named_and_changes_nothing(bench, tmp_path, kind):
    disk = tmp_path / "disk"
    disk.mkdir()
    script = [sys.executable, str(Path(__file__).with_name("full_disk.py")), str(bench.root), str(disk), kind]
    ended = subprocess.run(
        [*may_mount(), *script],
        capture_output=True, text=True, check=False, cwd=REPOSITORY,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    first, full, room, read_only, again = map(json.loads, ended.stdout.splitlines())
    assert first == {"error": None, "rows": [10, 45]}
    # What cannot be spilled is told as memory that is short.
    assert "disk is full" in full["error"] or "free disk space" in full["error"]
    assert full["rows"] == [10, 45]
    assert room == {"error": None, "rows": [20, 190]}
    assert "must be writable" in read_only["error"]
    assert again == {"error": None, "rows": [30, 435]}


# --- 25: memory

# The kernel's peak of this program alone: `getrusage` counts what the parent occupied before it.
LIMITED = """
import re, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.conftest import Workbench
outcomes = Workbench(Path(sys.argv[1])).ok()
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(outcomes["t"].total_rows, outcomes["sums"].total_rows, peak // 1024)
"""


@pytest.mark.proof
def test_twenty_million_rows_need_no_more_memory_than_allowed(bench):
    import duckdb

    rows = 20_000_000
    (bench.root / "data").mkdir()
    duckdb.sql(
        "COPY (SELECT i AS id, TIMESTAMP '2026-01-01' + INTERVAL (i) SECOND AS ts, md5(i::VARCHAR) AS v"
        f" FROM range({rows}) AS t(i)) TO '{bench.root}/data/s.parquet'"
    )
    bench.write("profiles/dev.yml", "engines: {duckdb: {memory_limit: 256MB, threads: 2}}\n")
    bench.pipeline(
        'SOURCE s TYPE PARQUET PARAMS {"path": "data/s.parquet", "sync_mode": "incremental",\n'
        '  "cursor_field": "ts", "primary_key": "id"};\nLOAD t FROM s;\n'
        "CREATE TABLE sums AS SELECT v[1:4] AS head, count(*) AS n FROM t GROUP BY 1;"
    )
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, str(bench.root), str(REPOSITORY)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    stored, heads, megabytes = map(int, ended.stdout.split())
    assert (stored, heads) == (rows, 65536)
    assert megabytes <= 512, megabytes


# --- 27, 28: very many, and sensors that die


def test_a_thousand_streams_are_one_op_that_loads_in_seconds(bench, paced_site):
    from sqlflow_dagster import build_definitions

    names = [f"t{n}" for n in range(1000)]
    bench.pipeline(
        f'SOURCE far TYPE PACED PARAMS {{"streams": {json.dumps(names)}, "sync_mode": "incremental",'
        ' "cursor_field": "ts"};\nLOAD * FROM far;'
    )
    begin = time.process_time()
    definitions = build_definitions(bench.root)
    graph = definitions.resolve_asset_graph()
    assert time.process_time() - begin < 10
    assert len(graph.get_all_asset_keys()) == 1000
    assert len({definition.op.name for definition in definitions.assets}) == 1


@pytest.mark.proof
def test_a_thousand_streams_are_loaded_once_each(bench, paced_site):
    names = [f"t{n}" for n in range(1000)]
    for name in names:
        bench.write(f"data/paced/{name}.json", json.dumps([[[1, "2026-01-01 00:00:00"]]]))
    bench.pipeline(
        f'SOURCE far TYPE PACED PARAMS {{"streams": {json.dumps(names)}, "sync_mode": "incremental",'
        ' "cursor_field": "ts"};\nLOAD * FROM far;'
    )
    for _ in range(2):
        assert len(bench.ok()) == 1000
    assert bench.query("SELECT count(DISTINCT stream), count(*) FROM _sqlflow.commits WHERE complete") == [
        (1000, 2000)
    ]
    assert bench.query("SELECT sum(estimated_size) FROM duckdb_tables() WHERE schema_name = 'p'") == [(1000,)]


def test_ten_thousand_partitions_that_are_due_are_asked_for_once_each():
    partitions = dg.HourlyPartitionsDefinition(start_date="2024-11-09-00:00")
    tick = datetime(2026, 1, 1, tzinfo=UTC)
    begin = time.process_time()
    due = due_partitions(partitions, Schedule(cron="0 0 1 1 *"), tick)
    assert time.process_time() - begin < 10
    assert len(due) == len(set(due)) == 365 * 24
    assert len(partitions.get_partition_keys(current_time=tick)) > 10_000


def sensor_of(bench, **options):
    from sqlflow_dagster import build_definitions

    (sensor,) = build_definitions(bench.root, **options).sensors
    return sensor


@pytest.fixture
def inbox(bench):
    """A pipeline that runs when files come, with ten thousand files of two sizes."""
    bench.write("profiles/dev.yml", "pipelines: {p: {sensors: [{type: new_files, source: s}]}}\n")
    bench.pipeline('SOURCE s TYPE CSV PARAMS {"path": "data/*.csv"};\nLOAD t FROM s;')
    bench.write("data/0.csv", "a\n1\n")
    for n in range(1, 10_000):
        os.link(bench.root / "data/0.csv", bench.root / f"data/{n}.csv")
    return bench


def test_a_sensor_over_ten_thousand_files_ticks_in_seconds_and_dies_without_harm(inbox):
    def tick(cursor):
        begin = time.process_time()
        found = sensor_of(inbox).evaluate_tick(dg.build_sensor_context(cursor=cursor))
        assert time.process_time() - begin < 10
        return [request.run_key for request in found.run_requests], found.cursor

    first, cursor = tick(None)
    # It dies after its run was launched and before its cursor was saved: the same run is asked for.
    again, _ = tick(None)
    assert first == again
    assert len(first) == 1
    nothing, _ = tick(cursor)
    assert nothing == []
    inbox.write("data/new.csv", "a\n2\n")
    other, _ = tick(cursor)
    assert len(other) == 1
    assert other != first
    shutil.rmtree(inbox.root / "data")
