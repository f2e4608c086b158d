"""Work on deeply nested SQL: DuckDB reads a thousand levels, and Python by itself follows fewer."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")

# A thousand levels of subqueries, each several nodes of the syntax tree and several calls for a node.
_CALLS = 100_000
_STACK_BYTES = 512 * 1024 * 1024
_lock = threading.Lock()


def deeply(work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
    """Return what `work` returns; where it nests too deep for this thread, it is done again in a deeper one."""
    try:
        return work(*args, **kwargs)
    except RecursionError:
        pass
    from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - slow, and seldom needed

    with _lock:
        limit, stack = sys.getrecursionlimit(), threading.stack_size(_STACK_BYTES)
        sys.setrecursionlimit(max(limit, _CALLS))
        try:
            with ThreadPoolExecutor(1) as thread:
                return thread.submit(work, *args, **kwargs).result()
        finally:
            sys.setrecursionlimit(limit)
            threading.stack_size(stack)
