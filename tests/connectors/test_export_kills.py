"""kill -9 in the middle of exports: the target is the whole old one or the whole new one, and a rerun makes it right."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from sqlflow_dagster.connectors import registry

from .conftest import Folder
from .mysql.conftest import mysql_database, mysql_server  # noqa: F401 - fixtures

if importlib.util.find_spec("pgserver"):
    from .postgres.conftest import database, server  # noqa: F401 - fixtures

pytestmark = pytest.mark.fault
TESTS = Path(__file__).parents[1]
RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import Workbench
bench = Workbench(Path(sys.argv[2]))
print("ready", flush=True)
bench.ok(run_id=sys.argv[3])
"""
OLD, NEW = 3_000, 30_000
QUERY = "SELECT range AS id, '{v}' AS v, md5(range::VARCHAR) AS t FROM range({first}, {last})"


@dataclass
class Far:
    """A target: `look()` counts its values of `v`, and fails where a row is there twice that may not be."""

    bench: Any
    target: str
    look: Any
    options: dict = field(default_factory=dict)
    mode: str = ""

    def pipeline(self, v, first, last, **options):
        given = {**self.options, **options}
        if given.get("mode") == "upsert":
            given["keys"] = "id"
        text = json.dumps(given)
        query = QUERY.format(v=v, first=first, last=last)
        self.bench.pipeline(f'EXPORT {query} TO "{self.target}" OPTIONS {text};')

    def killed(self, run_id, place=None, seconds=None):
        """Run in a process that is killed at a place, or so long after it began; False where it ended before."""
        environment = {**os.environ, "SQLFLOW_FAILPOINT": f"{place}:kill" if place else ""}
        command = [sys.executable, "-c", RUN, str(TESTS), str(self.bench.root), run_id]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
            assert process.stdout.readline() == b"ready\n"
            if seconds is not None:
                time.sleep(seconds)
                process.kill()
            status = process.wait()
        assert status == -signal.SIGKILL or (place is None and status == 0)
        return status != 0

    def survives(self, states, span, moments, places):
        """Kill at each of the places, then at random moments; look, and run again under the same name."""
        old, new = states
        dice = random.Random(7)
        for number, place in enumerate([*places, *[None] * moments]):
            self.pipeline("old", 0, OLD, **({"mode": "replace"} if self.mode else {}))
            self.bench.ok(run_id=f"old-{number}")
            assert self.look() == old
            self.pipeline("new", *span, **({"mode": self.mode} if self.mode else {}))
            killed = self.killed(f"new-{number}", place, None if place else dice.uniform(0.05, 0.9))
            found = self.look()
            assert found in ((old, new) if killed else (new,)), (place, found)
            if place:
                assert found == (new if place == "after_export_commit" else old), place
            self.bench.ok(run_id=f"new-{number}")
            assert self.look() == new, place
            assert list((self.bench.root / ".sqlflow/spool").iterdir()) == [], place


WHOLE = Counter(old=OLD), Counter(new=NEW)


def counted(rows):
    found = list(rows)
    assert len(set(found)) == len(found)
    return Counter(v for _id, v in found)


@pytest.mark.parametrize("name", ["a.csv.xz", "a.parquet", "a.avro", "a.xlsx"])
def test_a_file_that_is_killed_is_the_old_or_the_new_one_and_then_the_new_one(bench, name):
    def look():
        kind = registry.type_for_target(name)
        return counted(row[:2] for row in Folder(bench.root).rows(kind, path=f"out/{name}"))

    Far(bench, f"out/{name}", look).survives(WHOLE, (0, NEW), 1, ["in_export"])
    assert [path.name for path in (bench.root / "out").iterdir()] == [name]


def test_an_object_in_parts_is_the_old_or_the_new_one_and_then_the_new_one(bench, bucket):
    def look():
        rows = [line.split(",") for line in bucket.get("a.csv").decode().splitlines()[1:]]
        return counted((row[0], row[1]) for row in rows)

    options = {key: value for key, value in bucket.params.items() if key != "bucket"} | {"part_size_mb": 5}
    far = Far(bench, f"s3://{bucket.name}/a.csv", look, options)
    old, new = Counter(old=OLD), Counter(new=400_000)
    bucket.put("a.csv", "id,v,t\n" + "".join(f"{number},old,x\n" for number in range(OLD)))
    far.pipeline("new", 0, 400_000)
    for place in ("in_upload", "in_publish"):
        far.killed("new", place)
        assert far.look() == old
    for seconds in (0.5, 1.0):
        bucket.put("a.csv", "id,v,t\n" + "".join(f"{number},old,x\n" for number in range(OLD)))
        killed = far.killed("new", seconds=seconds)
        assert far.look() in ((old, new) if killed else (new,))
    bench.ok()
    assert far.look() == new


@pytest.mark.parametrize(
    ("mode", "rows", "states"),
    [
        ("replace", (0, NEW), WHOLE),
        ("append", (OLD, OLD + NEW), (Counter(old=OLD), Counter(old=OLD, new=NEW))),
        ("upsert", (1_000, NEW), (Counter(old=OLD), Counter(old=1_000, new=NEW - 1_000))),
    ],
    ids=["replace", "append", "upsert"],
)
@pytest.mark.parametrize("system", ["database", "mysql_database"])
def test_a_table_of_a_server_has_the_old_or_the_new_rows_and_none_twice(
    bench, request, system, mode, rows, states
):
    database = request.getfixturevalue(system)
    database.run(
        "CREATE TABLE t (id bigint PRIMARY KEY, v varchar(9), t varchar(40))"
        if mode == "upsert"
        else "SELECT 1"
    )
    far = Far(bench, database.url, lambda: counted(database.run("SELECT id, v FROM t")), {"table": "t"}, mode)
    far.survives(states, rows, 2, ["before_export_commit", "after_export_commit"])
