"""Objects of a bucket → their bytes in local files: whole, or the ranges that are needed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from sqlflow_dagster.connectors import parquet_ranges
from sqlflow_dagster.connectors.paths import COMPRESSIONS, File
from sqlflow_dagster.connectors.s3_client import ObjectChanged
from sqlflow_dagster.connectors.s3_objects import TIMED, Objects, address_of
from sqlflow_dagster.errors import Canceled, RetryLater, SourceFailed
from sqlflow_dagster.resilience.counts import counter

# Of a file that has its last bytes, the ranges that are needed; None for all of it.
Narrow = Callable[[Path, File], list[tuple[int, int]] | None]

_CHUNK = 2**20
# Larger objects come in several requests at once.
_PIECE = 64 * 2**20
_SPARE = 64 * 2**20
# Of objects larger than this, and where most of it is not needed, only ranges are fetched.
_LEAST_NARROWED = 4 * 2**20
_MOST_OF_IT = 0.5
# Most footers of Parquet are shorter.
_END = 64 * 2**10
# What compressed texts begin with, where their names do not say it (Content-Encoding).
_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}
_ODD = re.compile(r"[\x00-\x1f\x7f\\]")


class _Piece(NamedTuple):
    """Bytes of an object, and the file that they go to; `end` None is all of it."""

    file: File
    path: Path
    start: int
    end: int | None


def requests(files: Iterable[File]) -> int:
    """Return how many requests fetch these objects whole."""
    return sum(max(1, -(-file.size // _PIECE)) for file in files)


class Fetcher:
    """Copies objects of a store."""

    def __init__(self, objects: Objects) -> None:
        """Keep whom to ask."""
        self._objects = objects

    def fetch(self, files: Sequence[File], folder: Path, narrow: Narrow | None = None) -> list[File]:
        """Copy objects below `folder`, many at a time, and return them with their paths there.

        They are whole; but of a large one whose end is there, `narrow` may say which ranges are needed: the
        rest is a hole then. Raises RetryLater where an object was replaced or removed since it was listed, and
        SourceFailed where there is no room for them.
        """
        found = [replace(file, path=path, lead=lead) for file, path, lead in _laid_out(files, folder)]
        for folder_of in {file.path.parent for file in found}:
            folder_of.mkdir(parents=True, exist_ok=True)
        try:
            asked = self._objects.together([partial(self._pieces, file, narrow) for file in found])
            pieces = [piece for some in asked for piece in some]
            _require_room(folder, sum(map(_size, pieces)))
            self._objects.together([partial(self._get, piece) for piece in pieces])
        except ObjectChanged as error:
            raise RetryLater(str(error), after=1) from error
        return found

    def _pieces(self, file: File, narrow: Narrow | None) -> list[_Piece]:
        """What is to be fetched of an object, after a look at its end where that may tell."""
        if narrow is None or file.size < _LEAST_NARROWED or not _is_told_by_content(file):
            return _cut(file, 0, file.size)
        end = file.size - _END
        self._get(_Piece(file, file.path, end, file.size))
        length, magic = _last(file)
        ranges = None
        if magic == parquet_ranges.MAGIC and length < file.size // 2:
            if length + 8 > _END:
                start = file.size - length - 8
                self._get(_Piece(file, file.path, start, end))
                end = start
            ranges = narrow(file.path, file)
        rest = _cut(file, 0, end)
        if ranges is None:
            return rest
        pieces = [piece for start, stop in ranges for piece in _cut(file, start, min(stop, end))]
        return pieces if self._is_worth_it(file, pieces, rest) else rest

    def _is_worth_it(self, file: File, pieces: Sequence[_Piece], rest: Sequence[_Piece]) -> bool:
        """Whether ranges are fetched in place of the rest: not where they cost more than a limit was told."""
        size = sum(map(_size, pieces))
        if size > file.size * _MOST_OF_IT:
            return False
        price = self._objects.prices.of
        dearer = price(lists=0, gets=len(pieces), size=size) > price(
            lists=0, gets=len(rest), size=sum(map(_size, rest))
        )
        return self._objects.options.cost_limit_usd is None or not dearer

    def _get(self, piece: _Piece) -> None:
        file, path, start, end = piece
        bucket, key = address_of(file)
        told = {}
        if _is_told_by_content(file):
            told["If-Match"] = f'"{file.tag}"'
        if end is not None:
            told["Range"] = f"bytes={start}-{end - 1}"

        def fetched() -> int:
            body = self._objects.requests.body(bucket, key, told)
            try:
                return self._written(body, path, start)
            finally:
                body.close()

        size = self._objects.ask(bucket, key, partial(_all, fetched, file, start, end))
        counter().add(bytes_transferred=size, cost_usd=self._objects.prices.of(lists=0, gets=1, size=size))

    def _written(self, body: Any, path: Path, start: int) -> int:
        target = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            at = start
            while chunk := body.read(_CHUNK):
                if self._objects.stopped:
                    raise Canceled("the run was canceled while objects were read; what was committed stays")
                rest = memoryview(chunk)
                while rest:
                    done = os.pwrite(target, rest, at)
                    rest, at = rest[done:], at + done
        finally:
            os.close(target)
        return at - start


def _all(fetch: Callable[[], int], file: File, start: int, end: int | None) -> int:
    """Fetch, and raise RetryLater where fewer bytes came than there are."""
    size, wanted = fetch(), (file.size if end is None else end) - start
    if size != wanted:
        raise RetryLater(f"{file.name}: {size:,} bytes came of {wanted:,}")
    return size


def _laid_out(files: Sequence[File], folder: Path) -> Iterator[tuple[File, Path, str]]:
    """Where each object is copied to: under its name, or under a number where that is no path here."""
    names = [file.tail for file in files]
    folders = {name[: slash.start()] for name in names for slash in re.finditer("/", name)}
    for number, file in enumerate(files):
        parts = file.tail.split("/")
        plain = all(0 < len(os.fsencode(part)) <= 200 and part not in (".", "..") for part in parts)
        if plain and not _ODD.search(file.tail) and file.tail not in folders:
            yield file, folder / file.tail, file.lead
        else:
            ending = re.search(r"(?:\.[A-Za-z0-9]{1,8}){1,2}\Z", file.tail)
            yield file, folder / f"{number:08}{ending[0] if ending else ''}", file.name


def packed(file: File) -> File:
    """The file under a name that says how it is compressed, where its own does not."""
    with file.path.open("rb") as stream:
        head = stream.read(4)
    ending = next((ending for magic, ending in _MAGIC.items() if head.startswith(magic)), None)
    if ending is None or file.path.suffix.lower() in COMPRESSIONS:
        return file
    path = file.path.with_name(f"{file.path.name}{ending}")
    return replace(file, path=file.path.rename(path) if not path.exists() else file.path)


def _cut(file: File, begin: int, end: int) -> list[_Piece]:
    if (begin, end) == (0, file.size) and file.size <= _PIECE:
        return [_Piece(file, file.path, 0, None)]
    return [_Piece(file, file.path, start, min(end, start + _PIECE)) for start in range(begin, end, _PIECE)]


def _size(piece: _Piece) -> int:
    return (piece.file.size if piece.end is None else piece.end) - piece.start


def _is_told_by_content(file: File) -> bool:
    """Whether another object under the same key is noticed by its ETag."""
    return not (file.tag or TIMED).startswith(TIMED)


def _last(file: File) -> tuple[int, bytes]:
    """What the last eight bytes of Parquet say: the length of the footer before them, and the format."""
    with file.path.open("rb") as stream:
        stream.seek(-8, os.SEEK_END)
        last = stream.read(8)
    return int.from_bytes(last[:4], "little"), last[4:]


def _require_room(folder: Path, size: int) -> None:
    room = shutil.disk_usage(folder).free
    if size + _SPARE > room:
        raise SourceFailed(
            f"{size:,} bytes are to be read, and {folder} has room for {room:,}; free some, or narrow the read"
        )
