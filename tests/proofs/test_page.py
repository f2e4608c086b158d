"""The page of proofs names tests that there are."""

from collections import Counter
from pathlib import Path

import pytest

from .page import ROWS, Findings

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("test", [test for _fault, _expected, tests in ROWS for test in tests])
def test_a_test_that_the_page_names_is_there_and_run_by_make_proofs(test):
    path, _, name = test.partition("::")
    source = (REPOSITORY / path).read_text()
    assert f"def {name}(" in source
    assert "proofs" in path or "pytestmark = pytest.mark.fault" in source


def _found(code: str, **ends: str) -> Findings:
    found = Findings(code, kills=[("before_commit", 3, 0)])
    for test, end in ends.items():
        found.note(test, end)
    return found


def test_what_passed_before_counts_while_the_code_is_the_same():
    before = vars(_found("a", one="passed", two="failed"))
    found = Findings("a")
    found.note("two", "passed")
    assert found.after(before).results == {"one": Counter(passed=1), "two": Counter(passed=1)}
    assert found.after(before).kills == [("before_commit", 3, 0)]
    other = Findings("b")
    assert other.after(before) is other


def test_the_page_waits_for_every_test_and_for_each_to_pass():
    tests = {test: "passed" for _fault, _expected, shown_by in ROWS for test in shown_by}
    assert _found("a", **tests).complete()
    first = next(iter(tests))
    assert not _found("a", **tests | {first: "failed"}).complete()
    assert not _found("a", **{test: end for test, end in tests.items() if test != first}).complete()
