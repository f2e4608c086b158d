"""A file → the same bytes compressed, for what DuckDB's COPY does not write."""

from __future__ import annotations

import bz2
import lzma
import shutil
from pathlib import Path
from typing import IO, Any, cast

from sqlflow_dagster.errors import BadOption

# By suffix; the first two COPY writes itself.
NATIVE = ("none", "gzip", "zstd")
_SUFFIXES = {
    "gz": "gzip", "gzip": "gzip", "zst": "zstd", "zstd": "zstd", "bz2": "bz2", "xz": "xz", "lz4": "lz4", "br": "brotli",
}  # fmt: skip
_OTHERS = ("lzma", "snappy", "sz", "zip", "7z", "z")
_CHUNK = 2**20


def named(target: str) -> str:
    """Return the compression that a target's suffix says. Raises BadOption for one that is not written."""
    suffix = target.rpartition(".")[2].lower()
    if suffix in _OTHERS:
        raise BadOption(
            f"the target {target!r}: .{suffix} files are not written; end it with .gz, .zst, .bz2, .xz, .lz4 or .br"
        )
    return _SUFFIXES.get(suffix, "none")


def pack(source: Path, target: Path, kind: str) -> None:
    """Write the bytes of `source` to `target`, compressed as `kind` says, piece by piece."""
    with source.open("rb") as plain, _opened(target, kind) as packed:
        shutil.copyfileobj(plain, packed, _CHUNK)


def _opened(target: Path, kind: str) -> IO[bytes]:
    if kind == "bz2":
        return cast("IO[bytes]", bz2.open(target, "wb"))
    if kind == "xz":
        return cast("IO[bytes]", lzma.open(target, "wb"))
    import pyarrow as pa  # noqa: PLC0415 - slow to import

    stream: Any = pa.CompressedOutputStream(pa.OSFile(str(target), "wb"), kind)
    return cast("IO[bytes]", stream)
