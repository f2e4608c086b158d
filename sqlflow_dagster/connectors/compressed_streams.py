"""A file of one or more compressed streams, one after the other → their text, to the file's end.

Python's own readers of bz2 and xz take what follows the first stream, and is no stream, for rubbish to be left out:
a file whose second stream is broken loses all rows from there on.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CHUNK = 2**18
# Tapes, and the format of xz itself, fill up with these.
_PADDING = b"\0"


class Unpacker(Protocol):
    """Python's bz2.BZ2Decompressor or lzma.LZMADecompressor."""

    @property
    def eof(self) -> bool:
        """Whether the stream has ended."""

    @property
    def needs_input(self) -> bool:
        """Whether it has given all that it can of what it took."""

    @property
    def unused_data(self) -> bytes:
        """What came after the stream's end."""

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Take more of the stream, and return no more than `max_length` bytes of its text."""


class CompressedStreams(io.RawIOBase):
    """Reads the file at a path by an unpacker for each stream.

    Reading raises EOFError where a stream is cut off, and what the unpacker raises for what is no stream.
    """

    def __init__(self, path: Path, begin: Callable[[], Unpacker]) -> None:
        """Open the file."""
        self._file = path.open("rb")
        self._begin = begin
        self._unpacker = begin()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """Read some of the text into the buffer, and return how much; 0 at the end of the last stream."""
        target = memoryview(buffer).cast("B")
        while not (text := self._some(len(target))):
            if self._unpacker.eof and not self._next():
                return 0
        target[: len(text)] = text
        return len(text)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def _some(self, most: int) -> bytes:
        if self._unpacker.eof:
            return b""
        piece = self._file.read(_CHUNK) if self._unpacker.needs_input else b""
        if self._unpacker.needs_input and not piece:
            raise EOFError("it ends before the end of a stream")
        return self._unpacker.decompress(piece, most)

    def _next(self) -> bool:
        """Begin the next stream, where there is one."""
        rest = self._unpacker.unused_data.lstrip(_PADDING)
        while not rest and (piece := self._file.read(_CHUNK)):
            rest = piece.lstrip(_PADDING)
        if rest:
            self._file.seek(-len(rest), io.SEEK_CUR)
            self._unpacker = self._begin()
        return bool(rest)
