"""kill -9 in the middle of loads from local sources, and of exports into local databases."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import duckdb
import openpyxl
import pytest

TESTS = Path(__file__).parents[1]
KILLED = "killed"
RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import Workbench
Workbench(Path(sys.argv[2])).ok(run_id=sys.argv[3])
"""
KEYED = '"sync_mode": "incremental", "cursor_field": "v", "primary_key": "id"'
PARAMS = {
    "DUCKDB": '"path": "data/s.duckdb", "table": "t"',
    "SQLITE": '"path": "data/s.sqlite", "table": "t"',
    "EXCEL": '"path": "data/s*.xlsx"',
}


def killed(bench, failpoint):
    """Run the pipeline in a process of its own, which is killed at that place."""
    environment = {**os.environ, "SQLFLOW_FAILPOINT": f"{failpoint}:kill"}
    command = [sys.executable, "-c", RUN, str(TESTS), str(bench.root), KILLED]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL


def fill(root, kind, rows):
    """Let the far side have these rows."""
    (root / "data").mkdir(exist_ok=True)
    values = [(row, row) for row in rows]
    if kind == "DUCKDB":
        with duckdb.connect(str(root / "data/s.duckdb")) as connection:
            connection.execute("CREATE OR REPLACE TABLE t (id INTEGER, v INTEGER)")
            connection.executemany("INSERT INTO t VALUES (?, ?)", values)
    elif kind == "SQLITE":
        with closing(sqlite3.connect(root / "data/s.sqlite")) as connection, connection:
            connection.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER, v INTEGER)")
            connection.execute("DELETE FROM t")
            connection.executemany("INSERT INTO t VALUES (?, ?)", values)
    elif kind == "EXCEL":
        book = openpyxl.Workbook()
        for row in (("id", "v"), *values):
            book.active.append(row)
        book.save(root / "data/s.xlsx")


@pytest.mark.parametrize(
    ("kind", "failpoint"),
    [
        ("DUCKDB", "before_commit"),
        ("SQLITE", "after_commit_before_cursor_mirror"),
        ("EXCEL", "before_commit"),
    ],
)
def test_a_load_that_was_killed_goes_on_without_loss_or_doubles(bench, kind, failpoint):
    bench.pipeline(f"SOURCE s TYPE {kind} PARAMS {{{PARAMS[kind]}, {KEYED}}};\nLOAD t FROM s;")
    fill(bench.root, kind, [1, 2])
    bench.ok()
    fill(bench.root, kind, [1, 2, 3])
    killed(bench, failpoint)
    bench.ok()
    assert bench.query("SELECT id FROM p.t ORDER BY id") == [(1,), (2,), (3,)]
    assert bench.query("SELECT cursor_value FROM _sqlflow.commits ORDER BY epoch DESC, seq DESC LIMIT 1") == [
        ("3",)
    ]


def look(root, kind):
    if kind == "duckdb":
        with duckdb.connect(str(root / "out.duckdb"), read_only=True) as connection:
            return connection.execute("FROM t ORDER BY 1").fetchall()
    with closing(sqlite3.connect(root / "out.sqlite")) as connection:
        return connection.execute("SELECT * FROM t ORDER BY 1").fetchall()


@pytest.mark.parametrize(
    ("mode", "after"), [("replace", [0, 1, 2]), ("append", [0, 0, 1, 1, 2]), ("upsert", [0, 1, 2])]
)
@pytest.mark.parametrize("kind", ["duckdb", "sqlite"])
def test_an_export_that_was_killed_is_whole_or_not_there_and_never_twice(bench, kind, mode, after):
    def pipeline(rows, how):
        keys = ', "primary_key": "id"' if how == "upsert" else ""
        options = f'OPTIONS {{"mode": "{how}"{keys}}}'
        bench.pipeline(f'EXPORT SELECT range AS id FROM range({rows}) TO "{kind}://out.{kind}/t" {options};')

    pipeline(2, "replace")
    bench.ok()
    pipeline(3, mode)
    killed(bench, "before_export_commit")
    assert look(bench.root, kind) == [(0,), (1,)]
    if mode == "append":
        killed(bench, "after_export_commit")
    bench.ok(run_id=KILLED)
    assert look(bench.root, kind) == [(row,) for row in after]
