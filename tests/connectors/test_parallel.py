"""Work that is done beside other work: its failure is told, and it ends with a block that fails."""

from itertools import count

import pytest

from sqlflow_dagster.connectors.parallel import beside


def test_what_the_work_raises_is_raised_at_the_end_of_the_block():
    def broken():
        yield
        raise ValueError("broken")

    done = []
    with pytest.raises(ValueError, match="broken"), beside([iter([1, 2]), broken()], "test"):
        done.append(1)
    assert done


def test_all_of_the_work_is_done_before_the_block_ends():
    items = iter(range(1000))
    with beside([items, iter([])], "test"):
        pass
    assert list(items) == []


def test_a_block_that_fails_ends_work_without_an_end():
    with pytest.raises(KeyError), beside([count()], "test"):
        raise KeyError
