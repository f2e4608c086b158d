"""One user of the file at a time, who is named, and whose death frees it."""

import os
import signal
import subprocess
import sys
import threading
import time

import duckdb
import pytest

from sqlflow_dagster.errors import WarehouseBusy, WarehouseError
from sqlflow_dagster.warehouse.duckdb import Warehouse, WarehouseSettings

from .conftest import Depot

pytestmark = pytest.mark.fault

HOLD = """
import sys, time
from pathlib import Path
from sqlflow_dagster.warehouse.duckdb import Warehouse, WarehouseSettings
root = Path(sys.argv[1])
with Warehouse(WarehouseSettings(path=root / "data/w.duckdb", state_directory=root)).open() as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS t AS SELECT 1 AS a")
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(depot):
    """Another process that has the warehouse open."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(depot.root)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def impatient(depot, seconds=0.2):
    return Depot(depot.root, {"lock_timeout_seconds": seconds}).warehouse


def test_the_holder_is_named_after_the_wait(depot, holder):
    with (
        pytest.raises(WarehouseBusy, match=rf"process {holder.pid} on .*, started .*, holding since 20"),
        impatient(depot).open(),
    ):
        pass


def test_a_dead_holder_does_not_block(depot, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with impatient(depot, 5).open() as connection:
        assert connection.execute("FROM t").fetchall() == [(1,)]


def test_a_waiting_step_goes_on_when_the_holder_ends(depot, holder):
    threading.Timer(0.3, holder.kill).start()
    with impatient(depot, 20).open() as connection:
        assert connection.execute("FROM t").fetchall() == [(1,)]


def test_a_program_that_does_not_know_the_lock_is_waited_for_and_named(depot):
    script = (
        "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); print('held', flush=True); time.sleep(60)"
    )
    depot.load("SELECT 1 AS a", mode="replace")
    path = str(depot.warehouse.path)
    with subprocess.Popen([sys.executable, "-c", script, path], stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        with pytest.raises(WarehouseBusy, match=str(process.pid)), impatient(depot).open():
            pass
        process.kill()


def test_a_connection_of_this_process_outside_ours_is_named_not_shared(depot):
    depot.load("SELECT 1 AS a", mode="replace")
    with (
        duckdb.connect(str(depot.warehouse.path)),
        pytest.raises(WarehouseBusy, match="already"),
        impatient(depot).open_locked_down(),
    ):
        pass


def test_threads_take_turns(depot):
    inside, most = 0, 0
    guard = threading.Lock()

    def work():
        nonlocal inside, most
        with depot.warehouse.open():
            with guard:
                inside += 1
                most = max(most, inside)
            time.sleep(0.01)
            with guard:
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


def test_a_thread_that_waits_too_long_is_told_who_holds_it(depot):
    with depot.warehouse.open():
        errors = []

        def wait():
            try:
                with impatient(depot).open():
                    pass
            except WarehouseBusy as error:
                errors.append(str(error))

        thread = threading.Thread(target=wait)
        thread.start()
        thread.join()
    assert "this process" in errors[0]


def test_opening_it_twice_in_one_thread_is_an_error_not_a_deadlock(depot):
    with depot.warehouse.open():
        with pytest.raises(WarehouseError, match="this thread"), depot.warehouse.open():
            pass
        with depot.warehouse.scratch() as connection:
            assert connection.execute("SELECT 1").fetchall() == [(1,)]


def test_the_text_of_the_lock_goes_with_its_holder(depot):
    with depot.warehouse.open():
        assert f"process {os.getpid()} on" in depot.warehouse.lock.holder()
    assert depot.warehouse.lock.holder() == "an unknown process"


def test_a_forked_child_holds_nothing(depot):
    with depot.warehouse.open():
        child = os.fork()
        if child == 0:
            time.sleep(5)
            os._exit(0)
    try:
        with impatient(depot).open() as connection:
            connection.execute("SELECT 1")
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_warehouse_without_a_path_ends_with_its_owner(tmp_path):
    warehouse = Warehouse(WarehouseSettings(path=None, state_directory=tmp_path))
    with warehouse.open() as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS a")
    with warehouse.open() as connection:
        assert connection.execute("FROM t").fetchall() == [(1,)]
    assert warehouse.path.exists()
    warehouse.close()
    assert not warehouse.path.parent.exists()
