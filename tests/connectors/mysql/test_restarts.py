"""A server that is killed in the midst of a read or an export, and comes back: what was under way is done once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tests.connectors.database_project import DatabaseProject

from .conftest import Database, new_server

FIRST, ALL = 100, 3000
ROWS = 400_000


@pytest.fixture(scope="module")
def killable(mysql_server):
    """A server of its own, which keeps what it has committed."""
    folder = Path(tempfile.mkdtemp(prefix=f"sqlflow-my-{os.getpid()}-", dir=mysql_server.folder.parent))
    made = new_server(folder, "--innodb-flush-log-at-trx-commit=1")
    try:
        made.make()
        made.start()
        made.run("CREATE DATABASE shop")
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def shop(bench, killable):
    bench.write("home/dagster.yaml", "telemetry: {enabled: false}\n")
    killable.run("DROP DATABASE shop", "CREATE DATABASE shop")
    return DatabaseProject(bench, Database(killable, "shop"), "MYSQL", "my")


READING = (
    "SELECT count(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT `id`%' AND TIME_MS > 150"
)
WRITING = "SELECT count(*) FROM information_schema.INNODB_TRX WHERE trx_rows_modified > 5000"


class Run:
    """A run of the pipeline in a process of its own, with the waits that it really has."""

    def __init__(self, shop):
        root = shop.bench.root
        self.server, self.log = shop.database.server, root.parent / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [Path(sys.executable).with_name("sqlflow"), "run", "p", "--project", root],
                env={**os.environ, "DAGSTER_HOME": str(root / "home")}, stdout=log, stderr=log,
            )  # fmt: skip

    def killing_the_server(self, when: str) -> bool:
        """Kill the server once it counts what `when` asks for, and start it again; False where the run was sooner done."""
        until = time.monotonic() + 120
        while self.server.run(when) == [(0,)]:
            if self.process.poll() is not None:
                self.ended(0)
                return False
            assert time.monotonic() < until
            # What InnoDB tells of its transactions stays as it is while it is asked more often than ten times a second.
            time.sleep(0.12)
        self.server.stop()
        time.sleep(0.5)
        self.server.start()
        return True

    def ended(self, status: int) -> None:
        assert self.process.wait(120) == status, self.log.read_text()


@pytest.mark.parametrize(("retries", "status"), [(12, 0), (0, 1)])
def test_a_server_killed_in_a_read_is_read_again_and_no_row_is_missed_or_doubled(shop, retries, status):
    shop.database.run(
        "CREATE TABLE orders (id int PRIMARY KEY)", f"INSERT INTO orders SELECT seq FROM seq_1_to_{FIRST}"
    )
    given = {
        "query": "SELECT id, SLEEP(0.001) AS s FROM orders",
        "sync_mode": "incremental",
        "cursor_field": "id",
    }
    shop.pipeline("LOAD t FROM my MODE APPEND;", max_retries=retries, **given)
    Run(shop).ended(0)
    shop.database.run(f"INSERT INTO orders SELECT seq FROM seq_{FIRST + 1}_to_{ALL}")
    run = Run(shop)
    assert run.killing_the_server(READING)
    run.ended(status)
    stored = FIRST if status else ALL
    rows = "SELECT count(DISTINCT id), min(id), max(id) FROM p.t"
    assert shop.query(rows) == [(stored, 1, stored)]
    # What was not loaded is, and what was is not read into it again but for the boundary.
    before = shop.query("SELECT count(*) FROM p.t")[0][0]
    Run(shop).ended(0)
    assert shop.query(rows) == [(ALL, 1, ALL)]
    assert shop.query("SELECT count(*) FROM p.t")[0][0] <= before + ALL - stored + 1


@pytest.mark.parametrize(
    ("mode", "retries", "status", "local_infile"),
    [
        ("replace", 12, 0, "ON"), ("append", 12, 0, "ON"), ("upsert", 12, 0, "OFF"),
        ("replace", 12, 0, "OFF"), ("append", 12, 0, "OFF"),
        ("replace", 0, 1, "OFF"), ("append", 0, 1, "ON"),
    ],
)  # fmt: skip
def test_a_server_killed_in_an_export_has_the_old_rows_or_the_new_ones(
    shop, mode, retries, status, local_infile
):
    database = shop.database
    options = {
        "table": "t",
        "mode": mode,
        "max_retries": retries,
        **({"keys": "id"} if mode == "upsert" else {}),
    }
    shop.bench.pipeline(
        f"EXPORT SELECT range AS id, repeat('x', 100) AS v FROM range({ROWS}) TO \"{database.url}\" "
        f"OPTIONS {json.dumps(options)};"
    )
    database.run(f"SET GLOBAL local_infile = {local_infile}")
    for _ in range(5):
        database.run(
            "DROP TABLE IF EXISTS t, _sqlflow_exports",
            "CREATE TABLE t (id bigint PRIMARY KEY, v longtext)",
            "INSERT INTO t VALUES (-1, 'old')",
        )
        run = Run(shop)
        if run.killing_the_server(WRITING):
            break
    else:
        pytest.fail("each run was done before the server could be killed")
    run.ended(status)
    old = [(1, -1, -1)]
    new = [(ROWS, 0, ROWS - 1)] if mode == "replace" else [(ROWS + 1, -1, ROWS - 1)]
    rows = "SELECT count(*), min(id), max(id) FROM t"
    assert database.run(rows) == (old if status else new)
    if status:
        Run(shop).ended(0)
        assert database.run(rows) == new
    assert database.run("SHOW TABLES LIKE '\\_sqlflow\\_%\\_%'") in ([], [("_sqlflow_exports",)])
