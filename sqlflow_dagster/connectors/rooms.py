"""Folders of the spool: each is one process's, and goes with it, also where it was killed.

A lock is held on a file beside the folder. The kernel lets go of it when the process ends, and whoever makes the
next folder removes those that nobody holds.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LOCK = ".lock"


@contextmanager
def room(spool: Path, kind: str) -> Iterator[Path]:
    """Return an empty folder below `spool` for the time of the block; `kind` begins its name."""
    spool.mkdir(parents=True, exist_ok=True)
    _sweep(spool)
    folder = spool.resolve() / f"{kind}-{uuid.uuid4().hex[:12]}"
    lock = folder.with_name(f"{folder.name}{_LOCK}")
    held = _held(lock)
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lock.unlink(missing_ok=True)
        os.close(held)


def _held(lock: Path) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Another may have taken it for a dead one's in the moment before.
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)


def _sweep(spool: Path) -> None:
    for lock in spool.glob(f"*{_LOCK}"):
        with suppress(FileNotFoundError):
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.with_name(lock.name.removesuffix(_LOCK)), ignore_errors=True)
                lock.unlink()
            except BlockingIOError:
                pass  # its process works in it
            finally:
                os.close(descriptor)
