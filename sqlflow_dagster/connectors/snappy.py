"""A snappy file, framed or raw → its bytes, as a stream.

The framing format is that of github.com/google/snappy `framing_format.txt`; a raw block begins
with its length and is unpacked at once.
"""

from __future__ import annotations

import io
from pathlib import Path
from types import TracebackType
from typing import Self

_MAGIC = b"\xff\x06\x00\x00sNaPpY"
_LARGEST_BLOCK = 2**30


class Snappy:
    """A readable stream; raises ValueError for what is no snappy data."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._framed = self._file.read(len(_MAGIC)) == _MAGIC
        self._left = io.BytesIO()
        if not self._framed:
            self._file.seek(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes, none at the end."""
        while not (found := self._left.read(size)):
            block = self._next() if self._framed else self._whole()
            if block is None:
                return b""
            self._left = io.BytesIO(block)
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _next(self) -> bytes | None:
        head = self._file.read(4)
        if not head:
            return None
        length = int.from_bytes(head[1:4], "little")
        body = self._file.read(length)
        if len(head) < 4 or len(body) < length:
            raise ValueError("the data ends inside a chunk")
        if head[0] == 0x00:
            return _unpacked(body[4:])
        if head[0] == 0x01:
            return body[4:]
        if head[0] < 0x80:
            raise ValueError(f"an unknown chunk of type {head[0]}")
        return b""

    def _whole(self) -> bytes | None:
        data = self._file.read()
        return _unpacked(data) if data else None


def _unpacked(block: bytes) -> bytes:
    import pyarrow as pa  # noqa: PLC0415 - slow to import

    length = shift = 0
    for byte in block[:5]:
        length |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    if length > _LARGEST_BLOCK:
        raise ValueError("a block says it is larger than a gigabyte")
    return bytes(pa.decompress(block, decompressed_size=length, codec="snappy"))
