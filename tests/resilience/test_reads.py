"""A read or a write that breaks is done again, and nothing is doubled or lost."""

import json
import os
import signal
import threading
import time

import pytest

from sqlflow_dagster.errors import NotAllowed, RetryLater, SourceFailed
from sqlflow_dagster.resilience.clock import clock

BUSY = ["RetryLater", "busy"]
KINDS = ["scan", "arrow", "json"]


@pytest.fixture
def far(bench, flaky):
    """Write the script of the reads and a pipeline that loads stream `a`."""

    def write(*reads, kind_of="FLAKY", load="LOAD t FROM s.a;", **params):
        bench.write("far.json", json.dumps(reads))
        params = {"script": "far.json", **params}
        bench.pipeline(f"SOURCE s TYPE {kind_of} PARAMS {json.dumps(params)};\n{load}")
        return bench

    return write


def ids(bench):
    return [row[0] for row in bench.query("SELECT id FROM p.t ORDER BY ALL")]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", ["", " MODE APPEND"], ids=["replace", "append"])
@pytest.mark.parametrize(
    "broken", [[BUSY], [2, BUSY], [1, 2, BUSY]], ids=["before a batch", "after one", "after two"]
)
def test_a_read_that_breaks_is_done_again_without_doubled_rows(far, kind, mode, broken):
    bench = far(broken, broken, [1, 2, 3], kind=kind, load=f"LOAD t FROM s.a{mode};")
    outcome = bench.ok()["t"]
    assert ids(bench) == [1, 2, 3]
    assert (outcome.rows, outcome.inserted) == (3, 3)
    assert (outcome.calls.requests, outcome.calls.retries) == (3, 2)


@pytest.mark.parametrize("kind", ["arrow", "json"])
def test_a_batch_that_breaks_inside_is_read_again(far, kind):
    bench = far([2, BUSY], [2, 4], kind_of="INSIDE", kind=kind)
    assert bench.ok()["t"].calls.retries == 1
    assert ids(bench) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (["NotAllowed", "401: needs the scope read_orders"], NotAllowed),
        (["SourceFailed", "cut"], SourceFailed),
    ],
    ids=["no access", "broken"],
)
@pytest.mark.parametrize("kind_of", ["FLAKY", "INSIDE"])
@pytest.mark.parametrize("kind", ["arrow", "json"])
def test_what_a_batch_raises_is_raised_as_it_was(far, kind_of, kind, answer, error):
    bench = far([2, answer], kind_of=kind_of, kind=kind)
    raised = bench.run()["t"].error
    assert type_and_text(raised) == (error, answer[1])


def type_and_text(error):
    return type(error), str(error)


def test_duckdb_s_failure_can_be_one_that_waiting_mends(far):
    bench = far(["broken"], ["fine"], kind_of="EXPLAINING")
    assert bench.ok()["t"].calls.retries == 1
    assert ids(bench) == [1, 2, 3]


@pytest.mark.parametrize("kind", KINDS)
def test_an_ordered_stream_goes_on_from_its_last_checkpoint(far, kind):
    incremental = {"sync_mode": "incremental", "ordered": True, "kind": kind}
    bench = far([2, 4, BUSY], [4, 5, BUSY], [2, 6, 8], load="LOAD t FROM s.a;", **incremental)
    outcome = bench.ok()["t"]
    assert ids(bench) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (outcome.cursor_before, outcome.cursor_after.value) == (None, "8")
    assert (outcome.rows, outcome.inserted, outcome.total_rows) == (8, 8, 8)
    assert outcome.calls.retries == 2


def test_a_read_that_never_succeeds_leaves_the_table_and_says_how_often_it_was_tried(far):
    bench = far([1, 2])
    bench.ok()
    bench.write("far.json", json.dumps([[1, BUSY]]))
    error = bench.run()["t"].error
    assert isinstance(error, RetryLater)
    assert str(error).startswith("busy; tried 5 times in ")
    assert ids(bench) == [1, 2]


def test_the_parameters_of_a_source_count(far):
    bench = far([BUSY], [BUSY], [1], max_retries=1)
    assert isinstance(bench.run()["t"].error, RetryLater)
    bench = far([BUSY], [BUSY], [1], max_retries=2, resilience={"first_wait_seconds": 40, "factor": 1})
    before = clock().now()
    assert bench.ok()["t"].calls.seconds_waited > 0
    assert clock().now() - before < 120
    assert ids(bench) == [1]


def test_streams_of_an_account_share_its_circuit(far):
    bench = far(
        [BUSY],
        load="LOAD t FROM s.a;\nLOAD u FROM s.b;",
        max_retries=0,
        resilience={"breaker_failures": 1, "total_seconds": 0},
    )
    bench.run()
    asked = (bench.root / "far.log").read_text()
    errors = [str(outcome.error) for outcome in bench.run().values()]
    assert all("left alone" in error for error in errors)
    assert (bench.root / "far.log").read_text() == asked


def test_a_rate_limit_counts_over_runs(far):
    bench = far([1], rate_limit=1, resilience={"burst": 1})
    bench.ok()
    assert bench.ok()["t"].calls.seconds_waited == pytest.approx(60, abs=5)


def test_a_limit_that_a_source_does_not_need_limits_nothing(bench):
    bench.write("data/a.csv", "id\n1\n")
    bench.pipeline('SOURCE s TYPE CSV PARAMS {"path": "data/a.csv", "rate_limit": 1};\nLOAD t FROM s;')
    bench.ok()
    assert bench.ok()["t"].calls.seconds_waited == 0


def test_a_dropped_read_says_when_it_may_be_made(far):
    bench = far([1], rate_limit=1, resilience={"burst": 1, "when_limited": "drop"})
    bench.ok()
    error = bench.run()["t"].error
    assert isinstance(error, RetryLater)
    assert error.after == pytest.approx(60, abs=5)
    assert "limit of 1 requests a minute" in str(error)


def test_a_connector_may_rebuild_what_broke_before_it_reads_again(far):
    from flaky import Flaky

    Flaky.recovered.clear()
    far([BUSY], [1]).ok()
    assert Flaky.recovered == ["busy"]


def test_what_is_done_needs_no_far_side(far):
    """A retry of the same run asks nobody for what it stored, also while the circuit is open."""
    bench = far([1], [["RetryLater", "asked"]])
    bench.ok(run_id="same")
    assert bench.ok(run_id="same")["t"].skipped


def test_a_write_that_breaks_is_done_again(bench, flaky):
    bench.write("sink.json", json.dumps([[BUSY], []]))
    bench.pipeline(
        "CREATE TABLE t AS SELECT 1 AS id;\n"
        'EXPORT SELECT * FROM t TO "out.csv" TYPE FLAKY OPTIONS {"script": "sink.json"};'
    )
    outcomes = bench.ok()
    export = next(outcome for outcome in outcomes.values() if outcome.target)
    assert export.calls.retries == 1
    assert (bench.root / "out.csv").read_text() == "id\n1\n"


@pytest.mark.parametrize(
    ("resilience", "told"),
    [
        (
            {"brekaer_failures": 3},
            "resilience.brekaer_failures: unknown parameter; did you mean 'breaker_failures'?",
        ),
        ({"factor": 0}, "resilience.factor"),
        ({"when_limited": "sleep"}, "resilience.when_limited"),
        (3, "resilience"),
    ],
    ids=["misspelt", "too small", "no strategy", "no object"],
)
def test_a_wrong_rule_is_named(far, resilience, told):
    from sqlflow_dagster.errors import PipelineError

    with pytest.raises(PipelineError, match="resilience") as caught:
        far([1], resilience=resilience).run()
    assert told in str(caught.value)


@pytest.fixture
def interruptible():
    """Ctrl-C means what it means at a terminal: a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_cuts_short_what_is_waited_for(tmp_path, flaky):
    """In real time: Ctrl-C while a read waits for minutes."""
    from tests.conftest import Workbench

    root = tmp_path / "shop"
    (root / "pipelines").mkdir(parents=True)
    bench = Workbench(root)
    bench.write("far.json", json.dumps([[["RetryLater", "busy", 200]]]))
    loads = "LOAD t FROM s.a;\nLOAD u FROM s.b;"
    bench.pipeline(f'SOURCE s TYPE FLAKY PARAMS {{"script": "far.json"}};\n{loads}')
    begin = time.monotonic()
    timer = threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        bench.run()
    timer.join()
    assert time.monotonic() - begin < 20
