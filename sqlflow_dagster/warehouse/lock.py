"""A path → exclusive use of it among processes and threads.

The lock is the kernel's (`flock`), so a dead holder never blocks; the file's text is for people and
names who holds it. Every user in this process shares one lock object a path.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlflow_dagster.errors import WarehouseBusy, WarehouseError

log = logging.getLogger(__name__)

_PROCESS_STARTED = datetime.now(UTC)
_FIRST_WAIT = 0.01
_LONGEST_WAIT = 0.25


class FileLock:
    """One lock file. Get it through `lock_for`; the same thread may hold it several times."""

    def __init__(self, path: Path) -> None:
        """Keep the path; the file is made when the lock is first taken."""
        self.path = path
        self._threads = threading.RLock()
        self._depth = 0
        self._descriptor: int | None = None

    @contextmanager
    def held(self, timeout: float) -> Iterator[float]:
        """Hold the lock; the value is the seconds of `timeout` that were left.

        Raises WarehouseBusy, which names the holder, after `timeout` seconds; WarehouseError where
        the lock file cannot be made.
        """
        deadline = time.monotonic() + timeout
        if not self._threads.acquire(timeout=min(timeout, threading.TIMEOUT_MAX)):
            raise WarehouseBusy(
                f"{self.path}: another step of this process ({os.getpid()}) still held it after {timeout:g} s; "
                "wait for it to end, or raise engines.duckdb.lock_timeout_seconds"
            )
        try:
            if self._depth == 0:
                self._descriptor = self._take(deadline, timeout)
            self._depth += 1
            try:
                yield max(0.0, deadline - time.monotonic())
            finally:
                self._depth -= 1
                if self._depth == 0:
                    self._release()
        finally:
            self._threads.release()

    @property
    def held_by_this_thread(self) -> bool:
        """Whether the calling thread holds the lock."""
        if not self._threads.acquire(blocking=False):
            return False
        try:
            return self._depth > 0
        finally:
            self._threads.release()

    def holder(self) -> str:
        """Return who holds the lock, as that process wrote it; `an unknown process` where it did not."""
        try:
            return self.path.read_text("utf-8").strip() or "an unknown process"
        except FileNotFoundError:
            return "an unknown process"

    def forget(self) -> None:
        """In a forked child: let go of the parent's descriptor, and hold nothing."""
        if self._descriptor is not None:
            # Closing a copy leaves the parent's lock as it is.
            os.close(self._descriptor)
        self.__init__(self.path)  # type: ignore[misc]  # a fresh state is exactly what is wanted

    def _take(self, deadline: float, timeout: float) -> int:
        descriptor = self._open()
        try:
            self._wait(descriptor, deadline, timeout)
            _sign(descriptor)
        # An open descriptor may hold the lock, whatever ends this; it is raised again.
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _wait(self, descriptor: int, deadline: float, timeout: float) -> None:
        wait = _FIRST_WAIT
        while not _locked(descriptor):
            left = deadline - time.monotonic()
            if left <= 0:
                raise WarehouseBusy(
                    f"{self.path.with_suffix('')}: held by {self.holder()}; waited {timeout:g} s. "
                    "Wait for that process or end it, or raise engines.duckdb.lock_timeout_seconds"
                )
            time.sleep(min(wait, left))
            wait = min(wait * 2, _LONGEST_WAIT)

    def _open(self) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise WarehouseError(
                f"{self.path}: cannot make the lock file ({error.strerror}); "
                "the warehouse's folder must be writable, with space left"
            ) from error

    def _release(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.ftruncate(descriptor, 0)
            os.close(descriptor)


_locks: dict[Path, FileLock] = {}
_registry = threading.Lock()


def lock_for(path: Path) -> FileLock:
    """Return this process's lock on the file `path`: `<path>.lock` beside it."""
    real = path.resolve()
    with _registry:
        return _locks.setdefault(real, FileLock(real.with_name(real.name + ".lock")))


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _sign(descriptor: int) -> None:
    text = (
        f"process {os.getpid()} on {socket.gethostname()}, started {_PROCESS_STARTED:%Y-%m-%dT%H:%M:%SZ}, "
        f"holding since {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n"
    )
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
    except OSError as error:
        # The text is for people only: on a full disk the lock itself is still ours.
        log.warning("the lock file could not be signed: %s", error)


def _after_fork() -> None:
    for lock in _locks.values():
        lock.forget()


os.register_at_fork(after_in_child=_after_fork)
