"""A limit holds over threads, processes, kills and clocks that jump."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sqlflow_dagster.errors import ProjectError, RetryLater
from sqlflow_dagster.resilience.account import Account
from sqlflow_dagster.resilience.counts import counting
from sqlflow_dagster.resilience.policy import Policy

FOREVER = 10.0**9
ASKING = """
import sys, time
from pathlib import Path
from sqlflow_dagster.resilience.account import Account
from sqlflow_dagster.resilience.guard import Guard
from sqlflow_dagster.resilience.policy import Policy
folder, seconds, rate, burst, how = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
policy = Policy(1, 1, 1, 1, 1e9, rate=rate, burst=burst, when_limited=how)
guard = Guard("far", policy, Account(folder, "a", policy))
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + seconds
while time.monotonic() < end:
    guard.call(lambda: print("x", flush=True))
"""


def limited(guard, **rules):
    return guard(**{"rate": 60.0, "burst": 5, "total": FOREVER, **rules})


@pytest.mark.parametrize("how", ["wait", "queue"])
def test_after_a_burst_requests_come_at_the_rate(guard, off, how):
    rules = limited(guard, when_limited=how)
    with counting() as counter:
        for _ in range(20):
            rules.call(lambda: None)
    assert off.skipped == pytest.approx(15, abs=0.5)
    assert counter.calls.seconds_waited == pytest.approx(off.skipped)


def test_a_dropped_request_is_not_made_and_says_when_it_may_be(guard, off):
    rules = limited(guard, when_limited="drop")
    for _ in range(5):
        rules.call(lambda: None)
    with pytest.raises(RetryLater, match="limit of 60 requests a minute is used up") as caught:
        rules.call(lambda: pytest.fail("made"))
    assert caught.value.after == pytest.approx(1, abs=0.1)
    assert off.skipped == 0


def test_what_is_not_used_is_saved_up_to_the_burst(guard, off):
    rules = limited(guard)
    for _ in range(5):
        rules.call(lambda: None)
    off.skip(3600)
    for _ in range(6):
        rules.call(lambda: None)
    assert off.skipped == pytest.approx(3601, abs=0.1)


@pytest.mark.parametrize("how", ["wait", "queue"])
def test_threads_share_a_limit(tmp_path, how):
    """In real time: 1200 a minute, 5 at once."""
    from sqlflow_dagster.resilience.guard import Guard

    policy = Policy(1, 1, 1, 1, FOREVER, rate=1200, burst=5, when_limited=how)
    rules = Guard("far", policy, Account(tmp_path, "a", policy))
    begin = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        made = [threads.submit(rules.call, time.monotonic) for _ in range(25)]
    moments = sorted(item.result() - begin for item in made)
    for index, moment in enumerate(moments):
        assert moment >= (index + 1 - 5) / 20 - 0.01


def asking(folder, seconds, rate, burst, how):
    return subprocess.Popen(
        [sys.executable, "-c", ASKING, str(folder), str(seconds), str(rate), str(burst), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("how", ["wait", "queue"])
def test_processes_share_a_limit_also_when_one_is_killed(tmp_path, how):
    rate, burst = 1200.0, 5
    workers = [asking(tmp_path, 1.5, rate, burst, how) for _ in range(3)]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    begin = time.monotonic()
    for worker in workers:
        worker.stdin.write("\n")
        worker.stdin.flush()
    time.sleep(0.5)
    os.kill(workers[0].pid, signal.SIGKILL)
    made = 0
    for worker in workers:
        text, _ = worker.communicate()
        made += text.count("x")
    took = time.monotonic() - begin
    assert made <= burst + took * rate / 60
    assert made >= rate / 60  # and it flowed: at least a second's worth


def test_a_record_that_cannot_be_read_lets_no_burst_through(guard, off):
    rules = limited(guard)
    rules.call(lambda: None)
    rules.account.path.write_bytes(b"\x00torn")
    before = off.skipped
    rules.call(lambda: None)
    assert off.skipped - before == pytest.approx(1, abs=0.1)


def test_a_record_from_before_the_last_boot_counts_as_new(guard, off):
    rules = limited(guard)
    for _ in range(5):
        rules.call(lambda: None)
    record = json.loads(rules.account.path.read_text())
    record[0] = "another boot"
    rules.account.path.write_text(json.dumps(record).ljust(512))
    rules.call(lambda: None)
    assert off.skipped == 0


def test_accounts_are_apart(guard, off):
    for name in ("a", "b"):
        for _ in range(5):
            limited(guard, account=name).call(lambda: None)
    assert off.skipped == 0


@pytest.mark.parametrize("kind", ["a file in its place", "cannot be made"])
def test_a_folder_that_cannot_be_written_is_named(guard, tmp_path, kind):
    rules = limited(guard)
    if kind == "cannot be made":
        (tmp_path / "accounts").symlink_to(tmp_path / "nowhere")
    else:
        (tmp_path / "accounts").write_text(kind)
    with pytest.raises(ProjectError, match="accounts"):
        rules.call(lambda: None)
