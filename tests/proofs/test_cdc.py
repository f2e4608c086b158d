"""A table that four writers change, copied out of the log by runs that are killed: source and copy are identical."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import duckdb
import pytest

pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(find_spec("pgserver") is None, reason="pgserver has no wheel for the latest Pythons"),
]

TESTS = Path(__file__).parents[1]
WRITERS = 4
CHANGES = int(os.environ.get("SQLFLOW_CDC_CHANGES", "100000"))
PLACES = (
    "after_slot_created", "after_fetch", "after_stage_write", "before_commit", "after_commit",
    "after_commit_before_cursor_mirror", "before_slot_confirmed", "after_cursor_before_materialization",
    "before_commit", "after_commit",
)  # fmt: skip
AT_RANDOM = 10
RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import Workbench
Workbench(Path(sys.argv[2])).ok(run_id=sys.argv[3])
"""
TABLE = """
CREATE TABLE orders (
  id bigint PRIMARY KEY, customer int, name text, amount numeric(14,4), changed timestamptz, doc jsonb,
  tags text[], raw bytea, fine boolean, large text)
"""
# Each column as text, as Postgres and as DuckDB write it.
TEXTS = {
    "id": ("id::text", "id::VARCHAR"),
    "customer": ("customer::text", "customer::VARCHAR"),
    "name": ("name", "name"),
    "amount": ("amount::text", "amount::VARCHAR"),
    "changed": ("(changed AT TIME ZONE 'UTC')::text", "(changed AT TIME ZONE 'UTC')::VARCHAR"),
    "doc": ("doc::text", "doc::VARCHAR"),
    "tags": ("array_to_json(tags)::text", "to_json(tags)::VARCHAR"),
    "raw": ("encode(raw, 'hex')", "lower(hex(raw))"),
    "fine": ("fine::text", "fine::VARCHAR"),
    "large": ("large", "large"),
    "extra": ("extra::text", "extra::VARCHAR"),
}
LARGE = "(SELECT string_agg(md5(n::text || %(seed)s), '') FROM generate_series(1, 120) AS n)"


class Writer(threading.Thread):
    """Makes its part of the changes, as fast as it is given leave to."""

    def __init__(self, connect, number: int) -> None:
        super().__init__(name=f"writer {number}", daemon=True)
        self.dice = random.Random(number)
        self.connect, self.number = connect, number
        self.leave = threading.Semaphore(0)
        self.made: Counter[str] = Counter()
        self.own: list[int] = []
        self.next = number * 10_000_000
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._write()
        except BaseException as error:
            self.error = error
            raise

    def _write(self) -> None:
        import psycopg2

        connection = self.connect()
        connection.autocommit = False
        while self.made.total() < CHANGES // WRITERS:
            size = min(self.dice.choice((1, 1, 2, 10, 60)), CHANGES // WRITERS - self.made.total())
            for _ in range(size):
                self.leave.acquire()
            own, made = list(self.own), Counter()
            try:
                with connection.cursor() as cursor:
                    for _ in range(size):
                        made[self._change(cursor)] += 1
                if self.dice.random() < 0.05:
                    self._give_up(connection, own, size)
                    continue
                connection.commit()
                self.made += made
            except (psycopg2.errors.DeadlockDetected, psycopg2.errors.LockNotAvailable):
                self._give_up(connection, own, size)
        connection.close()

    def _give_up(self, connection, own: list[int], size: int) -> None:
        """Roll back: none of it may arrive, and it is made up for."""
        connection.rollback()
        self.own = own
        self.leave.release(size)

    def _change(self, cursor) -> str:
        dice = self.dice
        values = {"seed": str(dice.random()), "n": dice.randint(0, 10**9), "id": dice.choice(self.own or [0])}
        kind = dice.choices(("insert", "update", "large", "key", "delete", "shared"), (35, 25, 8, 6, 16, 10))[
            0
        ]
        if not self.own and kind not in ("insert", "shared"):
            kind = "insert"
        if kind == "insert":
            self.next += 1
            self.own.append(self.next)
            large = LARGE if dice.random() < 0.3 else "NULL"
            cursor.execute(
                "INSERT INTO orders (id, customer, name, amount, changed, doc, tags, raw, fine, large) VALUES"
                " (%(new)s, %(n)s, %(seed)s, %(n)s / 7.0, now(), jsonb_build_object('n', %(n)s, 'é', %(seed)s),"
                f" ARRAY[%(seed)s, NULL, 'a\"b,{{c}}'], decode(md5(%(seed)s), 'hex'), %(n)s %% 2 = 0, {large})",
                {**values, "new": self.next},
            )
        elif kind == "update":
            cursor.execute("UPDATE orders SET amount = %(n)s, name = NULL WHERE id = %(id)s", values)
        elif kind == "large":
            cursor.execute(f"UPDATE orders SET large = {LARGE} WHERE id = %(id)s", values)
        elif kind == "key":
            self.next += 1
            self.own.remove(values["id"])
            self.own.append(self.next)
            cursor.execute("UPDATE orders SET id = %(new)s WHERE id = %(id)s", {**values, "new": self.next})
        elif kind == "delete":
            self.own.remove(values["id"])
            cursor.execute("DELETE FROM orders WHERE id = %(id)s", values)
        else:
            values["id"] = -dice.randint(1, 50)
            cursor.execute("UPDATE orders SET customer = %(n)s, fine = NOT fine WHERE id = %(id)s", values)
        assert cursor.rowcount == 1, (kind, values)
        return kind


class Runs:
    """Runs of the pipeline, each in a process of its own."""

    def __init__(self, root: Path) -> None:
        self.root, self.number, self.seconds = root, 0, 3.0
        self.kills: Counter[str] = Counter()

    def start(self, failpoint: str = "") -> subprocess.Popen:
        self.number += 1
        command = [sys.executable, "-c", RUN, str(TESTS), str(self.root), f"run-{self.number}"]
        return subprocess.Popen(command, env={**os.environ, "SQLFLOW_FAILPOINT": failpoint})

    def whole(self) -> None:
        begin = time.monotonic()
        assert self.start().wait() == 0
        self.seconds = time.monotonic() - begin

    def killed_at(self, place: str, dice: random.Random) -> bool:
        # Two LOADs pass each place, and the first of them more than once.
        passing = 1 if place == "after_slot_created" else dice.randint(1, 2)
        return self._count(place, self.start(f"{place}:kill:{passing}").wait())

    def killed_at_random(self, dice: random.Random) -> bool:
        process = self.start()
        try:
            code = process.wait(dice.uniform(0.2, 1.0) * self.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        return self._count("at random", code)

    def _count(self, place: str, code: int) -> bool:
        assert code in (0, -signal.SIGKILL), code
        self.kills[place] += bool(code)
        return bool(code)


@pytest.fixture
def server():
    from tests.connectors.postgres.conftest import new_server

    folder = Path(tempfile.mkdtemp(prefix=f"sqlflow-pg-{os.getpid()}-", dir=os.environ.get("TMPDIR", "/tmp")))
    folder.chmod(0o755)
    made = new_server(folder / "data", "-c wal_level=logical -c lock_timeout=20s -c deadlock_timeout=50ms")
    made.start()
    yield made
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


def test_a_hundred_thousand_changes_and_twenty_kills_leave_an_identical_copy(server, tmp_path):
    dice = random.Random(20)
    root = tmp_path / "shop"
    (root / "pipelines").mkdir(parents=True)
    params = {"connection": server.url("postgres"), "table": "orders", "sync_mode": "cdc", "primary_key": "id",
              "transaction_bytes": 2_000_000}  # fmt: skip
    (root / "pipelines/p.sf").write_text(
        f"SOURCE hard TYPE POSTGRES PARAMS {json.dumps({**params, 'deletes': 'hard'})};\n"
        f"SOURCE soft TYPE POSTGRES PARAMS {json.dumps(params)};\nLOAD t FROM hard;\nLOAD u FROM soft;\n"
    )
    admin = server.connect().cursor()
    admin.execute(TABLE)
    admin.execute(
        "INSERT INTO orders (id, customer, fine) SELECT -n, 0, true FROM generate_series(1, 50) AS n"
    )
    writers = [Writer(server.connect, number) for number in range(1, WRITERS + 1)]
    for writer in writers:
        writer.start()
    runs, plan = Runs(root), [*PLACES[1:], *["at random"] * AT_RANDOM]
    dice.shuffle(plan)
    plan.insert(0, PLACES[0])
    begin = time.monotonic()
    rounds = 0
    while plan:
        for writer in writers:
            writer.leave.release(CHANGES // WRITERS // (len(PLACES) + AT_RANDOM))
        place = plan.pop(0)
        killed = runs.killed_at_random(dice) if place == "at random" else runs.killed_at(place, dice)
        if not killed:
            # It ended before it came to that: another try.
            plan.append(place)
        _check_slots(admin, root)
        rounds += 1
        assert rounds < 100
        if rounds % 4 == 0:
            runs.whole()
        if rounds == 8:
            admin.execute("ALTER TABLE orders ADD COLUMN extra int DEFAULT 7")
    for writer in writers:
        writer.leave.release(CHANGES)
        writer.join()
        assert writer.error is None
    runs.whole()
    seconds = time.monotonic() - begin
    made = sum((writer.made for writer in writers), Counter())
    assert made.total() >= CHANGES // WRITERS * WRITERS
    assert runs.kills.total() >= len(PLACES) + AT_RANDOM
    wanted = _rows(admin, root)
    _check_slots(admin, root)
    found = {
        "kills": runs.kills,
        "changes": made,
        "rows": wanted,
        "runs": runs.number,
        "seconds": round(seconds),
    }
    (tmp_path / "found.json").write_text(json.dumps(found, indent=1))


def _rows(admin, root: Path) -> int:
    """Compare every value's text, and return how many rows there are."""
    there, here = (", ".join(pair[side] for pair in TEXTS.values()) for side in (0, 1))
    admin.execute(f"SELECT {there} FROM orders")
    wanted = sorted(admin.fetchall(), key=_number)
    with duckdb.connect(str(root / "data/warehouse.duckdb"), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        hard = connection.execute(f"SELECT {here} FROM p.t").fetchall()
        soft = connection.execute(f"SELECT {here} FROM p.u WHERE NOT _sqlflow_deleted").fetchall()
        twice = connection.execute("SELECT count(*) - count(DISTINCT id) FROM p.u").fetchone()
    assert sorted(hard, key=_number) == wanted
    assert sorted(soft, key=_number) == wanted
    assert twice == (0,)
    return len(wanted)


def _number(row: tuple) -> int:
    return int(row[0])


def _check_slots(admin, root: Path) -> None:
    """A slot for each LOAD at most, and none of them ahead of what is stored."""
    admin.execute(
        "SELECT slot_name, confirmed_flush_lsn - '0/0' FROM pg_replication_slots WHERE NOT temporary"
    )
    slots = dict(admin.fetchall())
    assert len(slots) <= 2
    file = root / "data/warehouse.duckdb"
    if not file.exists():
        return
    copy = root / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for part in file.parent.glob("warehouse.duckdb*"):
        if not part.name.endswith("lock"):
            shutil.copy(part, copy / part.name)
    with duckdb.connect(str(copy / "warehouse.duckdb")) as connection:
        known = "SELECT 1 FROM duckdb_tables() WHERE schema_name = '_sqlflow' AND table_name = 'commits'"
        if not connection.execute(known).fetchone():
            return
        cursors = connection.execute(
            "SELECT arg_max(cursor_value, epoch * 1000000 + seq) FROM _sqlflow.commits GROUP BY source"
        ).fetchall()
    for (text,) in cursors:
        reached = json.loads(text)
        high, low = reached["lsn"].split("/")
        assert slots[reached["slot"]] <= (int(high, 16) << 32 | int(low, 16))
