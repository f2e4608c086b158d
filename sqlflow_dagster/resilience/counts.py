"""What a step's calls to the outside took, counted wherever they are made."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import astuple, dataclass, field, replace


@dataclass(frozen=True, slots=True)
class Calls:
    """Requests made (retries included), retries, seconds waited, and circuits that opened.

    `bytes_transferred` and `cost_usd` are what a store that asks for money has sent, and its price.
    """

    requests: int = 0
    retries: int = 0
    seconds_waited: float = 0.0
    breaker_openings: int = 0
    bytes_transferred: int = 0
    cost_usd: float = 0.0


def added(calls: Iterable[Calls]) -> Calls:
    """Return the sums of several counts."""
    return Calls(*map(sum, zip(*map(astuple, (Calls(), *calls)), strict=True)))


@dataclass
class Counter:
    """Adds up calls; threads may share one."""

    calls: Calls = Calls()
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(
        self,
        *,
        requests: int = 0,
        retries: int = 0,
        seconds_waited: float = 0.0,
        breaker_openings: int = 0,
        bytes_transferred: int = 0,
        cost_usd: float = 0.0,
    ) -> None:
        """Add to the sums."""
        with self._lock:
            self.calls = replace(
                self.calls,
                requests=self.calls.requests + requests,
                retries=self.calls.retries + retries,
                seconds_waited=self.calls.seconds_waited + seconds_waited,
                breaker_openings=self.calls.breaker_openings + breaker_openings,
                bytes_transferred=self.calls.bytes_transferred + bytes_transferred,
                cost_usd=self.calls.cost_usd + cost_usd,
            )


_counter: ContextVar[Counter] = ContextVar("sqlflow_calls")


@contextmanager
def counting() -> Iterator[Counter]:
    """Count the calls made inside the block, also by threads that run in a copy of its context."""
    counter = Counter()
    token = _counter.set(counter)
    try:
        yield counter
    finally:
        _counter.reset(token)


def counter() -> Counter:
    """Return the counter of the block around; outside of any, one that nobody reads."""
    return _counter.get(None) or Counter()
