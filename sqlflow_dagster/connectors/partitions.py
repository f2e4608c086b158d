"""A folder of partitions built beside its target → in the target's place, in one step where that can be."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from pathlib import Path

_AT_CWD = -100
_EXCHANGE = 2


def put(part: Path, path: Path) -> None:
    """Put the folder `part`, in a hidden one beside, in the place of `path`, which is then removed with all in it.

    Where the system can exchange two names at once, a reader sees the old folder or the new one.
    Elsewhere there is none for a moment, and one that a kill leaves is beside it, hidden.
    """
    if not path.exists():
        part.rename(path)
        return
    if not _exchanged(part, path):
        old = path.with_name(f"{part.parent.name}.old")
        path.rename(old)
        part.rename(path)
        part = old
    shutil.rmtree(part)


def synced(folder: Path) -> int:
    """Make all files of the folder durable, and return their size."""
    size = 0
    for file in folder.rglob("*"):
        if file.is_file():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
            size += file.stat().st_size
    return size


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two names; False where this system cannot. Raises OSError where it could not."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_CWD, os.fsencode(one), _AT_CWD, os.fsencode(other), _EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(number, os.strerror(number), str(other))
