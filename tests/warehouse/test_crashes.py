"""Processes killed at every named place, and two at once: rows and cursor are those of a whole load."""

import os
import signal
import subprocess
import sys

import pytest

from sqlflow_dagster.errors import WarehouseError
from sqlflow_dagster.warehouse import commits

from .conftest import KEY, Depot

pytestmark = pytest.mark.fault

PLACES = ["after_fetch", "after_stage_write", "in_schema_alter", "before_commit", "after_commit"]
CHILD = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("conftest", sys.argv[1])
depots = importlib.util.module_from_spec(spec)
sys.modules["conftest"] = depots
spec.loader.exec_module(depots)
from sqlflow_dagster.errors import CursorConflict
from pathlib import Path
depot = depots.Depot(Path(sys.argv[2]))
given = json.loads(sys.argv[3])
for select in given.pop("selects"):
    while True:
        try:
            depot.load(select, **given)
            break
        except CursorConflict:
            pass
"""
# Where a file's blocks begin, and how large they are.
FIRST_BLOCK, BLOCK = 12_288, 262_144
MERGE = {"keys": ["id"], "cursor_field": "ts"}
KINDS = {"merge": MERGE, "keyless": {"cursor_field": "ts"}, "replace": {"mode": "replace"}}


def child(depot, given, **environment):
    import json

    arguments = [sys.executable, "-c", CHILD, conftest(), str(depot.root), json.dumps(given)]
    return subprocess.Popen(arguments, env={**os.environ, **environment})


def conftest():
    from . import conftest as module

    return module.__file__


def read(upto, extra=""):
    """Rows 1 to `upto`, one a day; `v` says how far the read went."""
    return (
        f"SELECT i AS id, TIMESTAMP '2026-01-01' + INTERVAL (i) DAY AS ts, {upto} AS v{extra}"
        f" FROM range(1, {upto + 1}) AS t(i)"
    )


def seen(depot):
    return depot.query("SELECT id, v FROM sales.orders ORDER BY id")


def cursor(depot):
    with depot.warehouse.open() as connection:
        marker = commits.newest(connection, KEY)
    return marker.cursor.value if marker and marker.cursor else None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", PLACES)
def test_a_killed_load_is_whole_or_absent_and_the_next_one_mends_it(tmp_path, kind, place):
    given = KINDS[kind]
    depot = Depot(tmp_path)
    depot.load(read(3), **{**given, "keys": tuple(given.get("keys", ()))})
    before = (seen(depot), cursor(depot))
    process = child(depot, {**given, "selects": [read(5, ", 'new' AS w")]}, SQLFLOW_FAILPOINT=f"{place}:kill")
    swapped = kind == "replace" and place == "in_schema_alter"
    assert process.wait() == (0 if swapped else -signal.SIGKILL)
    after = (seen(depot), cursor(depot))
    done = place == "after_commit" or swapped
    assert (after == before) != done
    assert list(tmp_path.glob("data/*.wal")) == []
    depot.load(read(6), **{**given, "keys": tuple(given.get("keys", ()))})
    assert [row[0] for row in seen(depot)] == [1, 2, 3, 4, 5, 6]
    assert depot.query("SELECT count(*) FROM duckdb_tables() WHERE table_name LIKE '%new%'") == [(0,)]
    if kind != "replace":
        assert cursor(depot) == "2026-01-07 00:00:00"


def test_the_stage_of_a_killed_process_is_removed_by_the_next_load(tmp_path):
    depot = Depot(tmp_path)
    depot.load(read(3), keys=("id",), cursor_field="ts")
    process = child(depot, {**MERGE, "selects": [read(5)]}, SQLFLOW_FAILPOINT="after_stage_write:kill")
    assert process.wait() == -signal.SIGKILL
    assert len(list(tmp_path.glob(".sqlflow/stage/*.duckdb"))) == 1
    depot.load(read(5), keys=("id",), cursor_field="ts")
    assert list(tmp_path.glob(".sqlflow/stage/*")) == []


def test_processes_that_load_the_same_stream_at_once_lose_and_double_nothing(tmp_path):
    depot = Depot(tmp_path)
    depot.load(read(1), keys=("id",), cursor_field="ts")
    processes = [child(depot, {**MERGE, "selects": [read(n + k) for n in range(2, 7)]}) for k in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert [row[0] for row in seen(depot)] == list(range(1, 9))
    assert depot.query("SELECT count(*) = count(DISTINCT (epoch, seq)) FROM _sqlflow.commits") == [(True,)]
    assert cursor(depot) == "2026-01-09 00:00:00"


def test_processes_that_append_at_once_lose_and_double_nothing(tmp_path):
    depot = Depot(tmp_path)
    processes = [child(depot, {"mode": "append", "selects": [read(2)] * 5}) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert depot.query("SELECT count(*) FROM sales.orders") == [(30,)]


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_disk_is_named_and_leaves_the_table_as_it_was(tmp_path, kind):
    import json

    given = {name: tuple(value) if isinstance(value, list) else value for name, value in KINDS[kind].items()}
    depot = Depot(tmp_path)
    depot.load(read(3), **given)
    before = seen(depot)
    big = "SELECT range AS id, TIMESTAMP '2026-02-01' AS ts, md5(range::VARCHAR) AS v FROM range(1000000)"
    asked = json.dumps(
        {
            **KINDS[kind],
            "schema_policy": "guided",
            "selects": [big.replace("md5(range::VARCHAR)", "hash(range) % 2000000000")],
        }
    )
    process = subprocess.run(
        [sys.executable, "-c", FULL + CHILD, conftest(), str(depot.root), asked],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "WarehouseError" in process.stderr
    assert "disk is full" in process.stderr
    assert seen(depot) == before
    depot.load(read(4), **given)
    assert len(seen(depot)) == 4


@pytest.mark.parametrize("obstacle", ["a folder", "no database", "no folder"])
def test_what_cannot_be_opened_is_named(tmp_path, obstacle):
    depot = Depot(tmp_path)
    path = depot.warehouse.path
    match obstacle:
        case "a folder":
            path.mkdir(parents=True)
        case "no database":
            path.parent.mkdir()
            path.write_text("this is not a database, but a text of some length" * 100)
        case _:
            path.parent.write_text("a file where the folder should be")
    with pytest.raises(WarehouseError, match=r"w\.duckdb"), depot.warehouse.open():
        pass


@pytest.mark.parametrize("kind", KINDS)
def test_a_commit_of_some_size_goes_to_the_file_and_not_to_its_log_first(tmp_path, kind):
    depot = Depot(tmp_path)
    process = child(depot, {**KINDS[kind], "selects": [read(500)]}, SQLFLOW_FAILPOINT="after_commit:kill")
    assert process.wait() == -signal.SIGKILL
    path = depot.warehouse.path
    log = path.with_name(path.name + ".wal")
    assert not log.exists() or log.stat().st_size == 0
    assert len(seen(depot)) == 500


def test_a_log_torn_by_a_crash_opens_as_of_some_commit(tmp_path):
    """Whole loads only: a marker is there with its rows or not at all."""
    import shutil

    depot = Depot(tmp_path)
    process = child(
        depot, {**MERGE, "selects": [read(n) for n in range(1, 5)]}, SQLFLOW_FAILPOINT="after_commit:kill:4"
    )
    assert process.wait() == -signal.SIGKILL
    path = depot.warehouse.path
    log = path.with_name(path.name + ".wal")
    assert log.exists()
    whole = log.read_bytes()
    shutil.copy(path, tmp_path / "copy.duckdb")
    for cut in range(0, len(whole), max(1, len(whole) // 25)):
        shutil.copy(tmp_path / "copy.duckdb", path)
        log.write_bytes(whole[: len(whole) - cut])
        try:
            rows, reached = seen(depot), cursor(depot)
        except WarehouseError as error:
            assert "w.duckdb" in str(error)  # noqa: PT017 - failing loudly is the other promise
            continue
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        assert reached == f"2026-01-{len(rows) + 1:02} 00:00:00"


def test_a_damaged_file_is_named_wherever_the_damage_is(depot):
    depot.load(
        "SELECT i AS id, TIMESTAMP '2026-01-01' + INTERVAL (i) SECOND AS updated_at FROM range(1000) AS n(i)"
    )
    whole = depot.warehouse.path.read_bytes()
    said = set()
    for start in range(FIRST_BLOCK, len(whole), BLOCK):
        depot.warehouse.path.write_bytes(whole[: start + 50] + bytes(64) + whole[start + 114 :])
        try:
            depot.query()
        except WarehouseError as error:
            said.add(str(error).partition(" (")[0])
    path = depot.warehouse.path
    assert said == {
        f"{path}: the warehouse cannot be opened for writing",
        f"{path}: the warehouse cannot be read or written",
    }
