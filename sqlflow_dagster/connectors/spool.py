"""A compressed or differently encoded file → its UTF-8 bytes piece by piece, with caps against bombs."""

from __future__ import annotations

import bz2
import codecs
import io
import lzma
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast
from zipfile import BadZipFile, ZipFile

from isal import igzip, isal_zlib

from sqlflow_dagster.connectors.compressed_streams import CompressedStreams, Unpacker
from sqlflow_dagster.connectors.paths import COMPRESSIONS, File
from sqlflow_dagster.errors import SourceFailed

# What the files begin with.
_MAGIC = {
    b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip",
}  # fmt: skip
# What the readers of the formats raise for a file that is cut off or no such file.
_BROKEN = (OSError, EOFError, ValueError, lzma.LZMAError, isal_zlib.error, zlib.error, BadZipFile)
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
    return COMPRESSIONS.get(file.path.suffix.lower(), "none") if declared == "auto" else declared


def packed_as(head: bytes) -> str | None:
    """Return the name of the compression that a file begins like, None for none."""
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


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
    if kind in _OPENERS:
        return _OPENERS[kind](file)
    import pyarrow as pa  # noqa: PLC0415 - slow to import

    return cast("IO[bytes]", pa.CompressedInputStream(pa.OSFile(str(file.path)), kind))


def _snappy(file: File) -> IO[bytes]:
    from sqlflow_dagster.connectors.snappy import Snappy  # noqa: PLC0415 - rare

    return cast("IO[bytes]", Snappy(file.path))


def _streams(begin: Callable[[], Unpacker]) -> Callable[[File], IO[bytes]]:
    return lambda file: io.BufferedReader(CompressedStreams(file.path, begin), _CHUNK)


def _only_member(file: File) -> IO[bytes]:
    """Open the one file of an archive, which is read to its checksum."""
    with ZipFile(file.path) as archive:
        names = [
            name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")
        ]
        if len(names) != 1:
            raise SourceFailed(
                f"{file.name}: the archive holds {len(names)} files; have each of them sent alone"
            )
        if archive.getinfo(names[0]).flag_bits & 1:
            raise SourceFailed(f"{file.name}: the archive is encrypted; have it sent without a password")
        return archive.open(names[0])


_OPENERS: Mapping[str, Callable[[File], IO[bytes]]] = {
    "none": lambda file: file.path.open("rb"),
    "gzip": lambda file: cast("IO[bytes]", igzip.open(file.path, "rb")),  # type: ignore[no-untyped-call]
    "bz2": _streams(bz2.BZ2Decompressor),
    "xz": _streams(lzma.LZMADecompressor),
    "zip": _only_member,
    "snappy": _snappy,
}


def has_mark(file: File) -> bool:
    """Whether the file begins with the byte-order mark of UTF-8. Raises SourceFailed where it cannot be read."""
    with opened(file, "none") as stream:
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
