"""Folders of the spool, or beside a target: each is one process's, and goes with it, also where it was killed.

A lock is held on a file beside the folder. The kernel lets go of it when the process ends, and whoever makes the
next folder removes those that nobody holds.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from sqlflow_dagster.errors import WarehouseError

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO})
_LOCK = ".lock"
_ANY = re.compile(rf".*{re.escape(_LOCK)}", re.DOTALL)
# So that the name of a folder beside a target is none too long.
_LONGEST = 50


@contextmanager
def room(spool: Path, kind: str) -> Iterator[Path]:
    """Give an empty folder below `spool` for the time of the block; `kind` begins its name.

    Raises WarehouseError where there can be none, or where what the block writes finds no space left.
    """
    begun = False
    try:
        with _room(spool, kind, _ANY) as folder:
            begun = True
            yield folder
    except OSError as error:
        if begun and error.errno not in _FULL:
            raise
        raise WarehouseError(
            f"{spool}: cannot keep what is read or written there ({error.strerror}); it must be writable, with "
            "space left"
        ) from error


def beside(target: Path) -> AbstractContextManager[Path]:
    """Return an empty hidden folder beside `target` for the time of the block, on the same disk.

    What killed processes left of such folders of this target is removed; other names are not touched.
    """
    kind = f".{target.name[:_LONGEST]}"
    return _room(target.parent, kind, re.compile(rf"{re.escape(kind)}-[0-9a-f]{{12}}{re.escape(_LOCK)}"))


@contextmanager
def _room(place: Path, kind: str, locks: re.Pattern[str]) -> Iterator[Path]:
    place.mkdir(parents=True, exist_ok=True)
    _sweep(place, locks)
    folder = place.resolve() / f"{kind}-{uuid.uuid4().hex[:12]}"
    lock = folder.with_name(f"{folder.name}{_LOCK}")
    held = _held(lock)
    try:
        folder.mkdir(mode=0o700)
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


def _sweep(place: Path, locks: re.Pattern[str]) -> None:
    for lock in [path for path in place.iterdir() if locks.fullmatch(path.name)]:
        # Another user's is for that user to remove.
        with suppress(FileNotFoundError, PermissionError):
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(lock.with_name(lock.name.removesuffix(_LOCK)), ignore_errors=True)
                lock.unlink()
            except BlockingIOError:
                pass  # its process works in it
            finally:
                os.close(descriptor)
