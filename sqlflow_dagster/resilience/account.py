"""What all callers of one account on this machine know together: its circuit and its token bucket.

It lives in one small file under a kernel lock that is held for microseconds, so that a killed process
leaves nothing behind but a request it may not have made. Times are those of the machine's own clock
since boot; a file from before the last boot counts as new.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Literal, NamedTuple

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.resilience.clock import clock
from sqlflow_dagster.resilience.policy import Policy

State = Literal["CLOSED", "OPEN", "HALF_OPEN"]
# While another process tries whether the far side is back, this often is looked for its result.
_LOOK_AGAIN = 1.0
# The record is written in one piece of this length, so that a shorter one leaves no rest of a longer.
_SIZE = 512
_READ_ONLY, _READ_WRITE = os.O_RDONLY | os.O_CLOEXEC, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


class Entry(NamedTuple):
    """Whether a request may be made: now (`wait` 0), or what is to be waited for, in seconds.

    With `reserved` the request's turn comes after `wait`, and it need not ask again. `calm` says that
    nothing has failed since the last answer, so that the next one need not be noted.
    """

    wait: float = 0.0
    why: Literal["free", "limited", "held", "open"] = "free"
    reserved: bool = False
    calm: bool = False


class Circuit(NamedTuple):
    """The breaker as health shows it: `seconds` until the far side is asked again."""

    state: State
    failures: int = 0
    seconds: float = 0.0


@dataclass
class _Record:
    boot: str
    at: float
    tokens: float
    held_until: float = 0.0
    failures: int = 0
    failed_at: float = 0.0
    opened_at: float | None = None
    probe_until: float = 0.0


_values = attrgetter(*(field.name for field in fields(_Record)))


class Account:
    """The circuit and bucket of one account; any number of threads and processes share it."""

    def __init__(self, folder: Path, name: str, policy: Policy) -> None:
        """Keep where the file is: one in `folder` for each `name`, on each machine."""
        digest = hashlib.sha256(f"{socket.gethostname()}\0{name}".encode()).hexdigest()[:24]
        self.path = folder / f"{digest}.json"
        self.policy = policy

    def enter(self) -> Entry:
        """Ask whether a request may be made now, and take its token if so."""
        with self._record() as record:
            now = clock().now()
            entry = self._refused(record, now) or self._take(record, now)
            if record.opened_at is not None and entry.why in ("free", "limited"):
                admitted = entry.wait == 0 or entry.reserved
                record.probe_until = now + self.policy.breaker_recovery if admitted else 0.0
            return entry._replace(calm=not record.failures and record.opened_at is None)

    def answered(self) -> None:
        """Note that the far side answered, whatever it said: it is there."""
        with self._record() as record:
            record.failures, record.opened_at, record.probe_until = 0, None, 0.0

    def failed(self) -> bool:
        """Note that the far side did not answer as it should; return whether that opened the circuit."""
        limit, recovery = self.policy.breaker_failures, self.policy.breaker_recovery
        if not limit:
            return False
        with self._record() as record:
            now = clock().now()
            if record.opened_at is not None and now < record.opened_at + recovery:
                return False  # it was on its way when others opened the circuit
            recent = record.failures if now - record.failed_at <= recovery else 0
            record.failures, record.failed_at, record.probe_until = recent + 1, now, 0.0
            if record.opened_at is None and record.failures < limit:
                return False
            record.opened_at = now
            return True

    def left(self) -> None:
        """Note that a request ended without saying anything of the far side."""
        with self._record() as record:
            record.probe_until = 0.0

    def hold(self, seconds: float) -> None:
        """Let no request of the account begin for so long: the far side has asked for it."""
        with self._record() as record:
            record.held_until = max(record.held_until, clock().now() + seconds)

    def circuit(self) -> Circuit:
        """Return the breaker's state, without making the file."""
        try:
            descriptor = os.open(self.path, _READ_ONLY)
        except FileNotFoundError:
            return Circuit("CLOSED")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            record = self._read(descriptor)
        finally:
            os.close(descriptor)
        now = clock().now()
        if record.opened_at is None:
            recent = now - record.failed_at <= self.policy.breaker_recovery
            return Circuit("CLOSED", record.failures if recent else 0)
        left = record.opened_at + self.policy.breaker_recovery - now
        return Circuit("OPEN" if left > 0 else "HALF_OPEN", record.failures, max(0.0, left))

    def _refused(self, record: _Record, now: float) -> Entry | None:
        if record.opened_at is not None:
            left = record.opened_at + self.policy.breaker_recovery - now
            if left > 0:
                return Entry(left, "open")
            if record.probe_until > now:
                return Entry(min(record.probe_until - now, _LOOK_AGAIN), "open")
        if record.held_until > now:
            return Entry(record.held_until - now, "held")
        return None

    def _take(self, record: _Record, now: float) -> Entry:
        if self.policy.rate is None:
            return Entry()
        per_second = self.policy.rate / 60
        record.tokens = min(self.policy.burst, record.tokens + (now - record.at) * per_second)
        record.at = now
        # A billionth is what sums of fractions may lack.
        if record.tokens >= 1 - 1e-9:
            record.tokens -= 1
            return Entry()
        wait = (1 - record.tokens) / per_second
        if self.policy.when_limited != "queue":
            return Entry(wait, "limited")
        record.tokens -= 1
        return Entry(wait, "limited", reserved=True)

    @contextmanager
    def _record(self) -> Iterator[_Record]:
        """The record, under the lock; what the block changes is kept."""
        descriptor = self._open()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            record = self._read(descriptor)
            before = _values(record)
            yield record
            if (after := _values(record)) != before:
                os.pwrite(descriptor, json.dumps(after).ljust(_SIZE).encode(), 0)
        except OSError as error:
            raise self._unusable(error) from error
        finally:
            os.close(descriptor)

    def _open(self) -> int:
        try:
            try:
                return os.open(self.path, _READ_WRITE, 0o666)
            except FileNotFoundError:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                return os.open(self.path, _READ_WRITE, 0o666)
        except OSError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: OSError) -> ProjectError:
        return ProjectError(
            f"{self.path}: cannot keep there how often a source may be asked ({error.strerror}); the project's "
            "`.sqlflow` folder must be writable, with space left"
        )

    def _read(self, descriptor: int) -> _Record:
        text = os.pread(descriptor, _SIZE, 0)
        now, boot = clock().now(), _boot()
        if not text:
            return _Record(boot, now, self.policy.burst)
        try:
            record = _Record(*json.loads(text))
        except (ValueError, TypeError):
            # Nobody knows what it said; with an empty bucket the limit holds in any case.
            return _Record(boot, now, 0.0)
        if record.boot != boot or record.at > now:
            return _Record(boot, now, self.policy.burst)
        return record


@cache
def _boot() -> str:
    """A text that differs after each start of the machine, where the system has one."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except FileNotFoundError:
        return ""
