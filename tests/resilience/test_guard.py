"""What is tried again, how long is waited before, and when a circuit opens and closes."""

import threading

import pytest

from sqlflow_dagster.errors import BadOption, NotAllowed, RetryLater, SourceFailed
from sqlflow_dagster.resilience.clock import Clock
from sqlflow_dagster.resilience.counts import counting


def busy(after=None):
    return RetryLater("busy", after=after)


def test_an_answer_after_failures_is_the_result(guard, script):
    far = script(busy(), busy(), "rows")
    with counting() as counter:
        assert guard().call(far) == "rows"
    assert (counter.calls.requests, counter.calls.retries) == (3, 2)


@pytest.mark.parametrize(
    "error", [NotAllowed("401"), BadOption("x"), SourceFailed("cut"), ZeroDivisionError("defect")], ids=repr
)
def test_what_waiting_does_not_mend_is_raised_at_once(guard, script, off, error):
    far = script(error)
    with pytest.raises(type(error)):
        guard().call(far)
    assert (far.asked, off.skipped) == (1, 0)


def test_tries_are_bounded_by_their_number(guard, script):
    far = script(busy())
    with pytest.raises(RetryLater, match=r"busy; tried 5 times in \d+ s") as caught:
        guard().call(far)
    assert far.asked == caught.value.tries == 5


def test_tries_are_bounded_by_time(guard, script, off):
    far = script(busy(after=40))
    with pytest.raises(RetryLater) as caught:
        guard(total=100, attempts=50).call(far)
    assert off.skipped <= 100
    assert far.asked == 3
    assert caught.value.after == 40


def test_a_wait_that_does_not_fit_is_not_begun(guard, script, off):
    far = script(busy(after=600), "rows")
    with pytest.raises(RetryLater) as caught:
        guard(total=300).call(far)
    assert (far.asked, off.skipped, caught.value.after) == (1, 0, 600)


def test_no_retries_means_one_try(guard, script):
    far = script(busy(), "rows")
    with pytest.raises(RetryLater, match="^busy$"):
        guard(attempts=1).call(far)
    assert far.asked == 1


def test_waits_grow_and_are_a_random_part_of_their_bound(guard, script, off):
    waits = []
    for _ in range(200):
        before = off.skipped
        guard(attempts=2).call(script(busy(), "rows"))
        waits.append(off.skipped - before)
    assert all(0 <= wait <= 1 for wait in waits)
    assert min(waits) < 0.2
    assert max(waits) > 0.8


@pytest.mark.parametrize(
    ("tries", "bound"), [(1, 0.5), (2, 0.5 + 1), (3, 0.5 + 1 + 2), (6, 0.5 + 1 + 2 + 4 + 4 + 4)], ids=str
)
def test_the_bound_of_a_wait_grows_up_to_its_cap(guard, script, off, tries, bound):
    rules = {"first_wait": 0.5, "factor": 2, "longest_wait": 4, "attempts": 9}
    off.chance = lambda: 1.0
    guard(**rules).call(script(*[busy()] * tries, "rows"))
    assert off.skipped == pytest.approx(bound)


@pytest.mark.parametrize(
    ("after", "least", "most"),
    [(7, 7, 8), (0, 0, 1), (1e9, 60, 61)],
    ids=["as asked", "at once", "what cannot be meant is the longest wait"],
)
def test_a_wait_that_is_asked_for_is_kept_to(guard, script, off, after, least, most):
    guard().call(script(busy(after=after), "rows"))
    assert least <= off.skipped <= most


def test_all_callers_of_an_account_wait_when_one_is_told_to(guard, script, off):
    with pytest.raises(RetryLater):
        guard(attempts=1).call(script(busy(after=20)))
    guard(attempts=1).call(script("rows"))
    assert off.skipped == pytest.approx(20, abs=1)


def test_what_an_inner_call_has_tried_is_not_tried_again(guard, script):
    far, rules = script(busy()), guard()
    with pytest.raises(RetryLater):
        rules.retry(lambda: rules.call(far))
    assert far.asked == 5


def test_who_reads_again_is_told_why_first(guard, script):
    told = []
    guard().retry(script(busy(), "rows"), told.append)
    assert [str(error) for error in told] == ["busy"]


def test_a_wait_can_be_cut_short(tmp_path, script):
    """In real time: another thread stops a wait of a minute."""
    from sqlflow_dagster.resilience.guard import Guard
    from sqlflow_dagster.resilience.policy import Policy

    rules = Guard("far", Policy(5, 60, 60, 1, 600))
    timer = threading.Timer(0.05, rules.stop)
    timer.start()
    begin = Clock().now()
    with pytest.raises(RetryLater, match="busy"):
        rules.call(script(busy(after=30)))
    timer.join()
    assert Clock().now() - begin < 5


# --- the circuit


def opened(guard, script, failures=3, **rules):
    broken = guard(attempts=1, breaker_failures=failures, breaker_recovery=30, **rules)
    for _ in range(failures):
        assert broken.account.circuit().state == "CLOSED"
        with pytest.raises(RetryLater):
            broken.call(script(busy()))
    return broken


def test_a_circuit_opens_after_failures_in_a_row_and_nobody_asks(guard, script):
    with counting() as counter:
        rules = opened(guard, script)
    assert counter.calls.breaker_openings == 1
    assert rules.account.circuit().state == "OPEN"
    far = script("rows")
    with pytest.raises(RetryLater, match="failed 3 times in a row and is left alone for 30 s more") as caught:
        guard(attempts=1, breaker_failures=3, breaker_recovery=30, total=10).call(far)
    assert far.asked == 0
    assert caught.value.after == pytest.approx(30, abs=1)


def test_who_has_the_time_waits_for_an_open_circuit_and_spends_no_try(guard, script, off):
    opened(guard, script)
    far = script("rows")
    assert guard(attempts=1, breaker_failures=3, breaker_recovery=30).call(far) == "rows"
    assert off.skipped == pytest.approx(30, abs=1)


def test_one_try_closes_a_circuit_or_opens_it_again(guard, script, off):
    rules = opened(guard, script)
    off.skip(31)
    assert rules.account.circuit().state == "HALF_OPEN"
    with pytest.raises(RetryLater):
        rules.call(script(busy()))
    assert rules.account.circuit().state == "OPEN"
    off.skip(31)
    assert rules.call(script("rows")) == "rows"
    assert rules.account.circuit().state == "CLOSED"


def test_only_one_caller_tries_a_half_open_circuit(guard, script, off):
    rules = opened(guard, script)
    off.skip(31)
    other = script("rows")

    def while_it_tries():
        with pytest.raises(RetryLater, match="left alone"):
            guard(attempts=1, breaker_failures=3, breaker_recovery=30, total=0).call(other)
        return "rows"

    assert rules.call(while_it_tries) == "rows"
    assert other.asked == 0


def test_a_caller_that_died_while_it_tried_blocks_nobody_for_ever(guard, script, off):
    rules = opened(guard, script)
    off.skip(31)
    rules.account.enter()  # and nothing more: killed
    off.skip(31)
    assert rules.call(script("rows")) == "rows"


@pytest.mark.parametrize(
    "between",
    ["rows", NotAllowed("403"), SourceFailed("a broken page"), busy(after=0)],
    ids=["an answer", "no access", "a broken answer", "told when"],
)
def test_a_far_side_that_answers_is_there(guard, script, between):
    rules = guard(attempts=1, breaker_failures=3, breaker_recovery=30)
    for answer in (busy(), busy(), between, busy(), busy()):
        try:
            rules.call(script(answer))
        except (RetryLater, NotAllowed, SourceFailed):
            pass
    assert rules.account.circuit() == ("CLOSED", 2, 0.0)


def test_failures_long_ago_do_not_count(guard, script, off):
    rules = guard(attempts=1, breaker_failures=2, breaker_recovery=30)
    for _ in range(3):
        with pytest.raises(RetryLater):
            rules.call(script(busy()))
        off.skip(31)
    assert rules.account.circuit().state == "CLOSED"


def test_no_breaker_never_opens(guard, script):
    rules = guard(attempts=1, breaker_failures=0)
    for _ in range(30):
        with pytest.raises(RetryLater):
            rules.call(script(busy()))
    assert rules.account.circuit().state == "CLOSED"
