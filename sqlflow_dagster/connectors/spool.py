"""A compressed or differently encoded file → its UTF-8 bytes piece by piece, with caps against bombs."""

from __future__ import annotations

import bz2
import codecs
import io
import lzma
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from isal import igzip, isal_zlib

from sqlflow_dagster.connectors.compressed_streams import CompressedStreams
from sqlflow_dagster.connectors.paths import File
from sqlflow_dagster.errors import SourceFailed

# By suffix, the name of the compression.
SUFFIXES = {
    ".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd", ".bz2": "bz2", ".xz": "xz", ".lzma": "xz",
    ".lz4": "lz4", ".br": "brotli", ".snappy": "snappy", ".sz": "snappy",
}  # fmt: skip
# What the readers of the formats raise for a file that is cut off or no such file.
_BROKEN = (OSError, EOFError, lzma.LZMAError, isal_zlib.error, ValueError)
_CHUNK = 2**20
# A text that shrinks more than this is no data; a table of zeros shrinks 200 times.
_SMALL = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Caps:
    """How large a file may become: `bytes` in all, and `ratio` times its size beyond 64 MB."""

    bytes: int
    ratio: int

    def check(self, file: File, made: int) -> None:
        """Raise SourceFailed where `made` bytes are more than the file may become."""
        if made > self.bytes or (made > _SMALL and made > file.size * self.ratio):
            raise SourceFailed(
                f"{file.name}: {file.size:,} bytes become more than {made:,}, which is no ordinary file; raise "
                "`max_uncompressed_bytes` or `max_compression_ratio` where it is"
            )


def compression(file: File, declared: str) -> str:
    """Return the name of the file's compression: the declared one, else what its suffix says."""
    return SUFFIXES.get(file.path.suffix.lower(), "none") if declared == "auto" else declared


@contextmanager
def opened(file: File, kind: str) -> Iterator[IO[bytes]]:
    """Open a file for reading its decompressed bytes.

    Raises SourceFailed where it is no such file, also while it is read.
    """
    try:
        with _stream(file, kind) as stream:
            yield stream
    # isal's own types say that its error is an object, not a class.
    except _BROKEN as error:  # type: ignore[misc]
        said = "it cannot be read" if kind == "none" else f"it is no whole {kind} file"
        raise SourceFailed(
            f"{file.name}: {said} ({error}); have it sent again, or mend `compression`"
        ) from error


def _stream(file: File, kind: str) -> IO[bytes]:
    if kind == "none":
        return file.path.open("rb")
    if kind == "gzip":
        return cast("IO[bytes]", igzip.open(file.path, "rb"))  # type: ignore[no-untyped-call]
    if kind == "bz2":
        return io.BufferedReader(CompressedStreams(file.path, bz2.BZ2Decompressor), _CHUNK)
    if kind == "xz":
        return io.BufferedReader(CompressedStreams(file.path, lzma.LZMADecompressor), _CHUNK)
    if kind == "snappy":
        from sqlflow_dagster.connectors.snappy import Snappy  # noqa: PLC0415 - rare

        return cast("IO[bytes]", Snappy(file.path))
    import pyarrow as pa  # noqa: PLC0415 - slow to import

    return cast("IO[bytes]", pa.CompressedInputStream(pa.OSFile(str(file.path)), kind))


def has_mark(file: File) -> bool:
    """Whether the file begins with the byte-order mark of UTF-8."""
    with file.path.open("rb") as stream:
        return stream.read(3) == codecs.BOM_UTF8


def pieces(file: File, kind: str, caps: Caps) -> Iterator[bytes]:
    """Yield the file's decompressed bytes. Raises SourceFailed for a broken file or a bomb."""
    made = 0
    with opened(file, kind) as stream:
        while piece := stream.read(_CHUNK):
            made += len(piece)
            caps.check(file, made)
            yield piece


def unpacked(file: File, folder: Path) -> Path:
    """Return where below `folder` the file's text is written: under its own name, where that is a path."""
    return folder / (file.tail or file.path.name)


def spooled(file: File, folder: Path, kind: str, encoding: str, caps: Caps) -> Path:
    """Write the file's text as UTF-8 below `folder`, under its own name, and return where.

    Raises SourceFailed naming the line that is not in `encoding`.
    """
    path = unpacked(file, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    room = shutil.disk_usage(folder).free
    with path.open("wb") as target:
        for piece in recoded(file, pieces(file, kind, caps), encoding):
            target.write(piece)
            room -= len(piece)
            if room < _SMALL:
                raise SourceFailed(f"{file.name}: no room is left in {folder} to unpack it; free some space")
    return path


def recoded(file: File, chunks: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Yield the chunks as UTF-8 without a byte-order mark."""
    if codecs.lookup(encoding).name == "utf-8":
        for number, chunk in enumerate(chunks):
            yield chunk if number else chunk.removeprefix(codecs.BOM_UTF8)
        return
    decoder: Callable[..., Any] = codecs.getincrementaldecoder(encoding)("strict").decode
    lines = 1
    first = True
    try:
        for chunk in chunks:
            text = cast("str", decoder(chunk))
            if first and text:
                text, first = text.removeprefix("\ufeff"), False
            lines += text.count("\n")
            yield text.encode()
        yield cast("str", decoder(b"", final=True)).encode()
    except UnicodeDecodeError as error:
        lines += error.object[: error.start].count(b"\n")
        raise SourceFailed(
            f"{file.name}:{lines}: a byte is not {encoding} ({error.reason}); mend `encoding`"
        ) from error
