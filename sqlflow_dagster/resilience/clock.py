"""Time as the rules see it: a clock that only grows, a sleep that can be cut short, and chance.

`waits_off()` is for tests, ours and users': from then on nobody waits, and the clock is set forward by
what would have been waited, so that circuits close and buckets fill as they would have.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self


def since_boot() -> float:
    """Return seconds since the machine started: alike in all its processes, deaf to `date --set`."""
    boottime = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if boottime is None else time.clock_gettime(boottime)


def _wait(seconds: float, stopped: threading.Event) -> None:
    stopped.wait(min(seconds, threading.TIMEOUT_MAX))


@dataclass(frozen=True, slots=True)
class Clock:
    """What the rules ask for time.

    `sleep(seconds, stopped)` returns at once when the event is set. `chance` is uniform in [0, 1).
    """

    now: Callable[[], float] = since_boot
    sleep: Callable[[float, threading.Event], None] = _wait
    chance: Callable[[], float] = random.random


_REAL = Clock()
_in_force = [_REAL]


def clock() -> Clock:
    """Return the clock in force."""
    return _in_force[-1]


class waits_off:  # noqa: N801 - called like a function, and usable in a `with`
    """Stop all waiting of this process, until the end of the `with` block where it is one."""

    def __init__(self) -> None:
        """Switch at once."""
        self.chance: Callable[[], float] = random.random
        self._skipped = 0.0
        self._lock = threading.Lock()
        self._clock = Clock(
            now=lambda: since_boot() + self._skipped,
            sleep=lambda seconds, _: self.skip(seconds),
            chance=lambda: self.chance(),  # noqa: PLW0108 - tests set another
        )
        _in_force.append(self._clock)

    def __enter__(self) -> Self:
        """Return itself; waiting is off already."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait again from now on."""
        _in_force.remove(self._clock)

    @property
    def skipped(self) -> float:
        """The seconds that would have been waited since."""
        return self._skipped

    def skip(self, seconds: float) -> None:
        """Set the clock forward."""
        with self._lock:
            self._skipped += seconds
