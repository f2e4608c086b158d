"""Faults that are not kills: canceled runs, runs at once, storage that does not answer, odd clocks, old state."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from sqlflow_dagster.cursor import Marker
from sqlflow_dagster.errors import RunStorageFailed

pytestmark = pytest.mark.fault

REPOSITORY = Path(__file__).parents[2]
SOON = 20  # seconds, on a machine that has much to do
PACED = """
SOURCE far TYPE PACED PARAMS {
  "streams": ["t"], "sync_mode": "incremental", "cursor_field": "ts"%s
};
LOAD t FROM far.t;
"""
CSV = """
SOURCE s TYPE CSV PARAMS {
  "path": "data/s.csv", "types": {"id": "BIGINT", "ts": "%s"}, "sync_mode": "incremental", "cursor_field": "ts"%s
};
LOAD t FROM s;
"""
KEY = ', "primary_key": "id"'


def page(*rows):
    return [[row, f"2026-01-01 {row // 3600:02}:{row // 60 % 60:02}:{row % 60:02}"] for row in rows]


def csv(*rows):
    return "id,ts\n" + "".join(f"{n},{ts}\n" for n, ts in rows)


def marker(bench):
    with closing(duckdb.connect(str(bench.root / "data/warehouse.duckdb"), read_only=True)) as connection:
        return connection.execute(
            "SELECT cursor_value, complete FROM _sqlflow.commits ORDER BY epoch DESC, seq DESC LIMIT 1"
        ).fetchone()


# --- 3: a canceled run


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return folder


def start(bench, home, site):
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "SQLFLOW_PROJECT": str(bench.root),
        "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(site)]),
    }
    command = [sys.executable, "-m", "dagster", "job", "execute", "-f", "definitions.py", "-j", "p"]
    return subprocess.Popen(
        # A shell may have told its background jobs to ignore Ctrl-C, and children inherit that.
        [
            sys.executable,
            "-c",
            "import os, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); os.execv(sys.argv[1], sys.argv[1:])",
            *command,
        ],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(run, text):
    """Read the run's log up to a line that has the text, and keep reading it in the background."""
    for line in run.stderr:
        if text in line:
            threading.Thread(target=run.stderr.read, daemon=True).start()
            return
    raise AssertionError(f"the run ended without {text}")


def wait_until(told):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError):
            if told():
                return
        time.sleep(0.05)
    raise AssertionError("it did not happen in a minute")


def stop(run, number):
    """Send a signal, and see the run end soon."""
    try:
        run.send_signal(number)
        run.wait(SOON)
    finally:
        run.kill()


def ended(home):
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return [run.status.value for run in instance.get_runs()]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_canceled_load_stops_soon_and_keeps_what_it_has_committed(bench, home, paced_site, name):
    bench.pipeline(PACED % ', "seconds_a_page": 0.05')
    bench.write("data/paced/t.json", json.dumps([page(n) for n in range(10_000)]))
    with start(bench, home, paced_site) as run:
        wait_for(run, "STEP_START")
        wait_until(lambda: (bench.root / "data/paced/t.pages").stat().st_size > 5)
        stop(run, getattr(signal, name))
    rows = [row[0] for row in bench.query("SELECT id FROM p.t ORDER BY id")]
    assert rows == list(range(len(rows)))
    assert 0 < len(rows) < 10_000
    assert marker(bench) == (page(rows[-1])[0][1], False)
    assert list((bench.root / ".sqlflow").glob("stage/*")) == []
    assert ended(home) in (["CANCELED"], ["FAILURE"])
    bench.write("data/paced/t.json", json.dumps([page(n) for n in range(len(rows) + 3)]))
    assert bench.ok()["t"].rows <= 4
    assert len(bench.query("FROM p.t")) == len(rows) + 3


def test_a_canceled_query_stops_soon_and_leaves_its_table(bench, home, paced_site):
    bench.pipeline("CREATE TABLE t AS SELECT 1 AS x;")
    bench.ok()
    endless = "SELECT sum(sqrt(i * 1.0)) AS x FROM range(1000000000000) AS numbers(i)"
    bench.pipeline(f"CREATE TABLE t AS {endless};")
    with start(bench, home, paced_site) as run:
        wait_for(run, "STEP_START")
        wait_until((bench.root / "data/warehouse.duckdb.lock").read_text)
        stop(run, signal.SIGTERM)
    assert bench.query("FROM p.t") == [(1,)]
    assert ended(home) in (["CANCELED"], ["FAILURE"])


# --- 5: two runs of one stream at once


@pytest.mark.parametrize("ordered", [True, False], ids=["page-by-page", "at-once"])
@pytest.mark.parametrize("key", [KEY, ""], ids=["with-key", "without-key"])
def test_two_runs_that_read_from_one_cursor_store_each_row_once(bench, paced_site, ordered, key):
    options = key + f', "ordered": {str(ordered).lower()}'
    bench.pipeline(PACED % options)
    bench.write("data/paced/t.json", json.dumps([page(1), page(2)]))
    bench.ok()
    bench.pipeline(PACED % (options + ', "meet": 2'))
    bench.write("data/paced/t.json", json.dumps([page(2, 3), page(4)]))
    outcomes = []
    threads = [threading.Thread(target=lambda: outcomes.append(bench.run()["t"])) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert [row[0] for row in bench.query("SELECT id FROM p.t ORDER BY id")] == [1, 2, 3, 4]
    assert marker(bench) == (page(4)[0][1], True)
    twice = "SELECT count(*) - count(DISTINCT (epoch, seq)) FROM _sqlflow.commits"
    assert bench.query(twice) == [(0,)]


# --- 6: Dagster's storage does not answer


def test_a_locked_run_storage_loses_nothing_and_is_repaired(bench, home, monkeypatch):
    from sqlflow_dagster import build_definitions

    monkeypatch.setenv("DAGSTER_HOME", str(home))
    bench.pipeline(CSV % ("TIMESTAMP", KEY))
    bench.write("data/s.csv", csv((1, "2026-01-01")))
    with dg.DagsterInstance.get() as instance:
        job = build_definitions(bench.root, executor=dg.in_process_executor).resolve_job_def("p")
        assert job.execute_in_process(instance=instance).success
        bench.write("data/s.csv", csv((1, "2026-01-01"), (2, "2026-01-02")))
        from sqlflow_dagster import loading

        held = []

        def lock(name):
            if name == "after_commit_before_cursor_mirror" and not held:
                held.append(sqlite3.connect(home / "history" / "runs.db", check_same_thread=False))
                held[0].execute("BEGIN EXCLUSIVE")
                threading.Timer(7, held[0].close).start()

        monkeypatch.setattr(loading, "failpoint", lock)
        result = job.execute_in_process(instance=instance, raise_on_error=False)
        (stored,) = result.get_asset_materialization_events()
        assert (
            "run storage failed" in stored.step_materialization_data.materialization.metadata["notices"].value
        )
        monkeypatch.undo()
        monkeypatch.setenv("DAGSTER_HOME", str(home))
        assert bench.query("SELECT id FROM p.t ORDER BY id") == [(1,), (2,)]
        again = job.execute_in_process(instance=instance)
        (stored,) = again.get_asset_materialization_events()
        assert stored.step_materialization_data.materialization.metadata["reconciled"].value is True
    assert bench.query("SELECT id FROM p.t ORDER BY id") == [(1,), (2,)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_postgres_run_storage_that_is_restarted_says_so_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    import pgserver

    from sqlflow_dagster.assets.cursors import RunStorage

    # The server runs as another user, which is kept out of pytest's own folder.
    folder = tempfile.mkdtemp(prefix="sqlflow-pg-")
    server = pgserver.get_server(Path(folder) / "data")
    try:
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
        (tmp_path / "dagster.yaml").write_text(
            f"storage:\n  postgres:\n    postgres_url: {url}\ntelemetry:\n  enabled: false\n"
        )
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            store = RunStorage(instance)
            store.set("k", "1")
            stop_server(server)
            with pytest.raises(RunStorageFailed, match="safe in the warehouse"):
                store.set("k", "2")
            server.ensure_postgres_running()
            assert store.get("k") == "1"
            store.set("k", "2")
            assert store.get("k") == "2"
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def stop_server(server):
    from pgserver._commands import pg_ctl

    pg_ctl(["-m", "immediate", "-w", "stop"], pgdata=server.pgdata, user=server.system_user)


# --- 10: cursors that go back, jump or are missing


def test_a_source_that_goes_back_does_not_take_the_cursor_with_it(bench):
    bench.pipeline(CSV % ("TIMESTAMP", KEY + ', "lookback_window": "P30D"'))
    bench.write("data/s.csv", csv((1, "2026-01-20")))
    bench.ok()
    bench.write("data/s.csv", csv((2, "2026-01-10")))
    outcome = bench.ok()["t"]
    assert outcome.cursor_after.value == "2026-01-20 00:00:00"
    assert bench.query("SELECT id FROM p.t ORDER BY id") == [(1,), (2,)]


def test_a_jump_to_the_year_2999_and_null_leave_the_cursor_where_the_present_is(bench):
    bench.pipeline(CSV % ("TIMESTAMP", KEY))
    for n in range(1, 4):
        bench.write("data/s.csv", csv((n, f"2026-01-0{n}"), (100, "2999-01-01"), (200, "")))
        outcome = bench.ok()["t"]
        assert outcome.cursor_after.value == f"2026-01-0{n} 00:00:00"
        assert any("future" in notice for notice in outcome.notices)
    assert bench.query("SELECT id FROM p.t ORDER BY id") == [(1,), (2,), (3,), (100,), (200,)]


# --- 21, 22: time zones and clocks

AWARE = [
    "2026-03-29T00:59:59.999999+00:00",  # a second before the gap in Europe
    "2026-03-29T01:00:00+00:00",
    "2026-10-25T00:30:00+00:00",  # 02:30 in Berlin, the first time
    "2026-10-25T01:30:00+00:00",  # 02:30 in Berlin, the second time
    "2026-11-01T05:30:00+00:00",  # 01:30 in New York, twice
    "2026-11-01T06:30:00+00:00",
]


@pytest.fixture
def zone(request, monkeypatch):
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield request.param
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata"], indirect=True)
@pytest.mark.parametrize("session", ["UTC", "Europe/Berlin", "Pacific/Chatham"])
def test_neither_the_machines_nor_the_sessions_time_zone_moves_a_cursor(bench, zone, session):
    bench.write("profiles/dev.yml", f"engines: {{duckdb: {{timezone: {session}}}}}\n")
    bench.pipeline(CSV % ("TIMESTAMPTZ", ""))
    for upto in range(1, len(AWARE) + 1):
        bench.write("data/s.csv", csv(*enumerate(AWARE[:upto])))
        outcome = bench.ok()["t"]
        value = datetime.fromisoformat(outcome.cursor_after.value.replace("+00", "+00:00"))
        assert value == datetime.fromisoformat(AWARE[upto - 1])
        assert outcome.cursor_after.value.endswith("+00")
        assert outcome.rows <= 2
    moments = "SELECT id, epoch_us(ts) FROM p.t ORDER BY id"
    exact = [(n, round(datetime.fromisoformat(text).timestamp() * 1e6)) for n, text in enumerate(AWARE)]
    assert bench.query(moments) == exact


def test_a_session_that_changes_its_time_zone_reads_on_from_the_same_moment(bench):
    bench.pipeline(CSV % ("TIMESTAMPTZ", ""))
    for upto, session in zip(
        range(1, 7), itertools.cycle(["UTC", "Asia/Tokyo", "America/New_York"]), strict=False
    ):
        bench.write("profiles/dev.yml", f"engines: {{duckdb: {{timezone: {session}}}}}\n")
        bench.write("data/s.csv", csv(*enumerate(AWARE[:upto])))
        bench.ok()
    assert bench.query("SELECT count(*), count(DISTINCT id) FROM p.t") == [(6, 6)]


@pytest.mark.parametrize("zone", ["Europe/Berlin"], indirect=True)
def test_clock_time_in_a_gap_or_fold_is_kept_as_it_is_written(bench, zone):
    naive = [
        "2026-03-29 02:30:00",
        "2026-03-29 02:30:00.000001",
        "2026-10-25 02:30:00",
        "2026-10-25 02:30:00",
    ]
    bench.pipeline(CSV % ("TIMESTAMP", ""))
    for upto in range(1, 5):
        bench.write("data/s.csv", csv(*enumerate(naive[:upto])))
        bench.ok()
    assert [row[0] for row in bench.query("SELECT CAST(ts AS VARCHAR) FROM p.t ORDER BY id")] == naive


def test_nanoseconds_of_a_cursor_are_kept(bench):
    times = [
        "2026-01-01 00:00:00.000000001",
        "2026-01-01 00:00:00.000000002",
        "2026-01-01 00:00:00.000000003",
    ]
    bench.pipeline(CSV % ("TIMESTAMP_NS", ""))
    for upto in range(1, 4):
        bench.write("data/s.csv", csv(*enumerate(times[:upto])))
        outcome = bench.ok()["t"]
        assert outcome.cursor_after.value == times[upto - 1]
        assert outcome.rows <= 2
    assert bench.query("SELECT count(*) FROM p.t") == [(3,)]


@pytest.mark.parametrize("hours", [-24 * 30, -23, 23, 25, 24 * 30])
def test_a_clock_that_is_wrong_loses_and_doubles_nothing(bench, hours):
    """The far side's now, as a machine sees it whose clock is wrong by so many hours."""
    bench.pipeline(CSV % ("TIMESTAMP", ""))
    far_now = datetime.now(UTC) + timedelta(hours=hours)
    rows = []
    for n in range(4):
        rows.append((n, f"{far_now + timedelta(minutes=n):%Y-%m-%d %H:%M:%S}"))
        bench.write("data/s.csv", csv(*rows))
        bench.ok()
    assert bench.query("SELECT id, CAST(ts AS VARCHAR) FROM p.t ORDER BY id") == rows


def test_the_newest_marker_is_told_by_its_number_and_not_by_a_clock(bench):
    bench.pipeline(CSV % ("TIMESTAMP", ""))
    bench.write("data/s.csv", csv((1, "2026-01-01")))
    bench.ok()
    with closing(duckdb.connect(str(bench.root / "data/warehouse.duckdb"))) as connection:
        connection.execute("UPDATE _sqlflow.commits SET committed_at = '2999-01-01T00:00:00+00:00'")
    for n in (2, 3):
        bench.write("data/s.csv", csv(*((k, f"2026-01-0{k}") for k in range(1, n + 1))))
        assert bench.ok()["t"].cursor_before.value == f"2026-01-0{n - 1} 00:00:00"


# --- 31: state of other releases, and state that someone broke


def state(**changes):
    document = {
        "version": 1, "position": [0, 1], "cursor": {"value": "2026-01-01 00:00:00", "type": "TIMESTAMP"},
        "run_id": "r", "rows": 1, "schema_hash": "h", "complete": True, "committed_at": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    return json.dumps({**document, **changes})


@pytest.mark.parametrize(
    "document",
    [
        state(version=2),
        state(version=2, positions={"a": 1}),
        state(more=1),
        state()[:40],
        "[]",
        "null",
        '{"version": 1}',
        "\x00",
    ],
    ids=["newer", "newer-and-other", "unknown-field", "torn", "list", "null", "empty", "binary"],
)
def test_a_cursor_document_that_is_not_ours_is_kept_aside_and_repaired(bench, document):
    bench.pipeline(CSV % ("TIMESTAMP", ""))
    bench.write("data/s.csv", csv((1, "2026-01-01")))
    bench.ok()
    (key,) = bench.shelf.values
    good = bench.shelf.values[key]
    bench.shelf.values[key] = document
    bench.write("data/s.csv", csv((1, "2026-01-01"), (2, "2026-01-02")))
    outcome = bench.ok()["t"]
    assert outcome.cursor_before.value == "2026-01-01 00:00:00"
    assert any("unreadable" in notice for notice in outcome.notices)
    assert bench.shelf.values[f"{key}>unreadable"] == document
    assert Marker.from_json(bench.shelf.values[key]).position > Marker.from_json(good).position
    assert bench.query("SELECT id FROM p.t ORDER BY id") == [(1,), (2,)]


def test_a_warehouse_whose_markers_a_later_release_has_widened_is_read_on(bench):
    bench.pipeline(CSV % ("TIMESTAMP", ""))
    bench.write("data/s.csv", csv((1, "2026-01-01")))
    bench.ok()
    with closing(duckdb.connect(str(bench.root / "data/warehouse.duckdb"))) as connection:
        connection.execute("ALTER TABLE _sqlflow.commits ADD COLUMN watermark VARCHAR")
        connection.execute("ALTER TABLE _sqlflow.commits ADD COLUMN attempts INTEGER DEFAULT 1")
    bench.write("data/s.csv", csv((1, "2026-01-01"), (2, "2026-01-02")))
    assert bench.ok()["t"].cursor_before.value == "2026-01-01 00:00:00"
    assert bench.query("SELECT id FROM p.t ORDER BY id") == [(1,), (2,)]
