"""The page of proofs names tests that there are."""

from pathlib import Path

import pytest

from .page import ROWS

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("test", [test for _fault, _expected, tests in ROWS for test in tests])
def test_a_test_that_the_page_names_is_there_and_run_by_make_proofs(test):
    path, _, name = test.partition("::")
    source = (REPOSITORY / path).read_text()
    assert f"def {name}(" in source
    assert "proofs" in path or "pytestmark = pytest.mark.fault" in source
