"""A compressed or differently encoded file → a pipe of its UTF-8 text, written while DuckDB reads it.

DuckDB unpacks gzip and zstd itself, but takes a file that was cut off for a whole one, and knows no
limit for what becomes of it. Here every byte passes through us: the checksum, the end and the caps
are checked, nothing is unpacked twice, and nothing lies on the disk.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

# Pipes are a matter of POSIX; without them files are unpacked into the spool.
AVAILABLE = hasattr(os, "mkfifo")


class Pipe:
    """A named pipe at `path`; each reader that opens it gets all that `pieces` yields, from the start.

    `error` is what the pieces raised. A reader then saw the end of the text, so it must be asked for.
    """

    def __init__(self, path: Path, pieces: Callable[[], Iterator[bytes]]) -> None:
        """Make the pipe and begin to wait for readers."""
        self.path = path
        self.pieces = pieces
        self.error: Exception | None = None
        self._closing = False
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
        self._thread = threading.Thread(target=self._serve, name=f"pipe {path.name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the writing, also where no reader came."""
        self._closing = True
        while self._thread.is_alive():
            # A writer that waits for a reader is let go by one.
            reader = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK)
            self._thread.join(0.05)
            os.close(reader)
        self.path.unlink()

    def _serve(self) -> None:
        while not self._closing:
            writer = os.open(self.path, os.O_WRONLY)
            try:
                if not self._closing:
                    self._write(writer)
            except BrokenPipeError:
                # The reader has gone: DuckDB found an error of its own.
                pass
            # Of whatever kind: the reader must not take what came so far for all.
            except Exception as error:  # noqa: BLE001
                self.error = error
            finally:
                # The next reader is to wait for a writer of its own, and this one is to see the end.
                fresh = self.path.with_name(f"{self.path.name}.next")
                os.mkfifo(fresh)
                fresh.replace(self.path)
                os.close(writer)

    def _write(self, writer: int) -> None:
        _widen(writer)
        for piece in self.pieces():
            left = memoryview(piece)
            while left:
                if self._closing:
                    return
                left = left[os.write(writer, left) :]


def _widen(writer: int) -> None:
    """Let a mebibyte wait in the pipe where the system can do that: fewer turns between the two."""
    import fcntl  # noqa: PLC0415 - only POSIX has it, and pipes

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        # Refused where a user has many pipes: then it stays as it is.
        with suppress(PermissionError):
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 2**20)
