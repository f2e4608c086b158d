"""Tasks → their results, some at a time; the first failure ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from threading import Event
from typing import TypeVar

T = TypeVar("T")

# Seconds for the block to begin its query: each statement before it would wait for a thread that is at work in
# Python, 5 ms at a time.
_HEAD_START = 0.05


def together(tasks: Sequence[Callable[[], T]], workers: int, name: str) -> list[T]:
    """Return what the tasks give, in their order; each runs in a copy of the caller's context.

    Raises what the first one that fails raises, once those under way have ended; others are not begun.
    """
    if len(tasks) < 2:
        return [task() for task in tasks]
    with ThreadPoolExecutor(workers, name) as threads:
        under_way = [threads.submit(copy_context().run, task) for task in tasks]
        try:
            done, _ = wait(under_way, return_when=FIRST_EXCEPTION)
            failed = next((item for item in under_way if item in done and item.exception()), None)
            if failed:
                failed.result()
        finally:
            threads.shutdown(wait=True, cancel_futures=True)
        return [item.result() for item in under_way]


@contextmanager
def beside(works: Sequence[Iterator[object]], name: str) -> Iterator[None]:
    """Go through `works`, one after the other, in a thread while the block runs.

    What they raise is raised at the block's end. A block that fails ends them at their next item.
    """
    if not works:
        yield
        return
    end, over = Event(), Event()

    def run() -> None:
        over.wait(_HEAD_START)
        for work in works:
            for _ in work:
                if end.is_set():
                    return

    with ThreadPoolExecutor(1, name) as threads:
        under_way = threads.submit(copy_context().run, run)
        try:
            yield
        # Also of a canceled run, or a read that nobody goes on with; it is raised again.
        except BaseException:
            end.set()
            raise
        finally:
            over.set()
        under_way.result()
