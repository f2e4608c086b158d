"""Python's garbage collector is as it was after us, whatever happens within."""

import gc
import weakref

import pytest

from sqlflow_dagster import collector


@pytest.fixture
def collecting():
    """The collector on, and back to how it was."""
    was_on = gc.isenabled()
    gc.enable()
    yield
    gc.unfreeze()
    (gc.enable if was_on else gc.disable)()


def test_it_is_off_within_and_on_again_after_an_error(collecting):
    seen = []

    @collector.paused()
    def work():
        seen.append(gc.isenabled())
        raise ValueError

    with pytest.raises(ValueError):
        work()
    assert (seen, gc.isenabled()) == ([False], True)


def test_a_pause_in_a_pause_ends_with_the_outer_one(collecting):
    with collector.paused():
        with collector.paused():
            pass
        assert not gc.isenabled()


def test_long_work_in_a_pause_collects_what_it_makes_and_looks_at_nothing_older(collecting):
    with collector.paused():
        with collector.resumed():
            assert gc.isenabled()
            assert gc.get_freeze_count() > 0
        assert not gc.isenabled()


def test_without_a_pause_nothing_is_kept_out_of_later_passes(collecting):
    before = gc.get_freeze_count()
    with collector.resumed():
        assert gc.get_freeze_count() == before
    assert gc.isenabled()


def test_what_a_pause_leaves_is_looked_at_no_more(collecting):
    with collector.paused():
        pass
    assert gc.get_freeze_count() > 0


def test_what_was_built_and_replaced_goes_in_time(collecting):
    class Built:
        pass

    gone = []
    for _ in range(40):
        with collector.paused():
            built = Built()
            built.itself = built
            gone.append(weakref.ref(built))
        del built
    left = sum(reference() is not None for reference in gone)
    assert 0 < left < 20


def test_a_collector_that_somebody_has_turned_off_stays_off(collecting):
    gc.disable()
    with collector.paused():
        pass
    assert not gc.isenabled()
