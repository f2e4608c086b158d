"""Objects of a bucket → a list of them from one listing, and their bytes in local files."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sqlflow_dagster.connectors import globs, listing
from sqlflow_dagster.connectors.budget import Prices
from sqlflow_dagster.connectors.parallel import together
from sqlflow_dagster.connectors.paths import File
from sqlflow_dagster.connectors.s3_client import ObjectChanged, client_with, translated, whole
from sqlflow_dagster.connectors.s3_get import Getter
from sqlflow_dagster.connectors.s3_options import JOURNAL, S3Options, Where
from sqlflow_dagster.connectors.spool import SUFFIXES
from sqlflow_dagster.errors import Canceled, RetryLater, SourceFailed
from sqlflow_dagster.resilience.counts import counter
from sqlflow_dagster.resilience.guard import Guard

T = TypeVar("T")
_CHUNK = 2**20
# Larger objects come in several requests at once.
_PIECE = 64 * 2**20
_SPARE = 64 * 2**20
_TIMED = "stored at "
# What compressed texts begin with, where their names do not say it (Content-Encoding).
_MAGIC = {b"\x1f\x8b": ".gz", b"\x28\xb5\x2f\xfd": ".zst"}
_ODD = re.compile(r"[\x00-\x1f\x7f\\]")


class _Piece(NamedTuple):
    """Bytes of an object, and the file that they go to; `end` None is all of it."""

    file: File
    path: Path
    start: int
    end: int | None


class Objects:
    """What a SOURCE reads of a store."""

    def __init__(self, options: S3Options, guard: Callable[[], Guard]) -> None:
        """Keep how it is asked. Nothing is contacted."""
        self.options = options
        self.prices = Prices(options.price_list_usd, options.price_get_usd, options.price_gb_usd)
        # How many listing requests were made so far.
        self.lists = 0
        self._guard = guard

    @cached_property
    def client(self) -> Any:
        """boto3's client."""
        return self._made[0]

    @cached_property
    def _made(self) -> tuple[Any, Any]:
        return client_with(self.options)

    @cached_property
    def _getter(self) -> Getter:
        client, credentials = self._made
        return Getter(client, credentials, self.options)

    def close(self) -> None:
        """Close the connections, where there are any."""
        if "_getter" in self.__dict__:
            self._getter.close()
        if "_made" in self.__dict__:
            self.client.close()

    def find(self, where: Where, wanted: listing.Wanted) -> Iterator[File]:
        """Yield the objects at a place, in order of their keys; those of unwanted partitions may be left out.

        Folder marks and what hidden names call (`_SUCCESS`, `_temporary/…`) are no objects here.
        """
        bucket, text, kind = where
        if kind in ("key", "either"):
            found = self._head(bucket, text)
            if found or kind == "key":
                yield from [found] if found else []
                return
            text = f"{text}/"
        prefix = where.prefix if kind == "glob" else text
        matches = globs.pattern(text).fullmatch if kind == "glob" else None
        for item in self._walk(bucket, prefix, wanted):
            key = _address(item)[1]
            if key.endswith(f"/{JOURNAL}") or key == JOURNAL:
                raise RetryLater(
                    f"{item.name}: an export is replacing the objects beside it; where it was killed, run it again"
                )
            if not _hidden(key[len(prefix) :]) and (matches is None or matches(key)):
                yield item

    def pieces(self, files: Iterable[File]) -> int:
        """Return how many requests fetch these objects."""
        return sum(max(1, -(-file.size // _PIECE)) for file in files)

    def fetch(self, files: Sequence[File], folder: Path) -> list[File]:
        """Copy whole objects below `folder`, many at a time, and return them with their paths there.

        Raises RetryLater where an object was replaced or removed since it was listed, and
        SourceFailed where there is no room for them.
        """
        size, room = sum(file.size for file in files), shutil.disk_usage(folder).free
        if size + _SPARE > room:
            raise SourceFailed(
                f"{size:,} bytes are to be read, and {folder} has room for {room:,}; free some, or narrow the read"
            )
        found = [replace(file, path=path, lead=lead) for file, path, lead in _laid_out(files, folder)]
        for folder_of in {file.path.parent for file in found}:
            folder_of.mkdir(parents=True, exist_ok=True)
        try:
            self._together([partial(self._get, piece) for file in found for piece in _cut(file)])
        except ObjectChanged as error:
            raise RetryLater(str(error), after=1) from error
        return found

    def ask(self, bucket: str, key: str, request: Callable[[], T]) -> T:
        """Return what one request gives, under the account's rules."""

        def asked() -> T:
            with translated(self.options, bucket, key):
                return request()

        return self._guard().call(asked)

    def _head(self, bucket: str, key: str) -> File | None:
        try:
            size, stored, tag = self.ask(bucket, key, lambda: self._described(bucket, key))
        except ObjectChanged:
            return None
        counter().add(cost_usd=self.prices.of(lists=0, gets=1, size=0))
        return _file(bucket, key, size, stored, tag)

    def _described(self, bucket: str, key: str) -> tuple[int, Any, str]:
        found, where = self.client.head_object(Bucket=bucket, Key=key), f"s3://{bucket}/{key}"
        return (
            whole(found, "ContentLength", where),
            whole(found, "LastModified", where),
            found.get("ETag", ""),
        )

    def _walk(self, bucket: str, prefix: str, wanted: listing.Wanted) -> Iterator[File]:
        """List folder by folder where a filter may leave some out; whole from where it decides nothing more."""
        found: list[File] = []
        left = [prefix]
        while left:
            answers = self._together([partial(self._level, bucket, item, wanted) for item in left])
            found += [item for items, _ in answers for item in items]
            left = [folder for _, folders in answers for folder in folders]
        yield from sorted(found, key=lambda item: item.name)

    def _level(self, bucket: str, prefix: str, wanted: listing.Wanted) -> tuple[list[File], list[str]]:
        """The objects at a prefix, and the folders below it that are still to be looked into."""
        whole = not wanted.narrows or wanted.decides(_folders(bucket, prefix))
        files: list[File] = []
        folders: list[str] = []
        for page in self._pages(bucket, prefix, "" if whole else "/"):
            files += [
                _file(bucket, item["Key"], item["Size"], item["LastModified"], item.get("ETag", ""))
                for item in page.get("Contents", ())
                if not item["Key"].endswith("/")
            ]
            folders += [item["Prefix"] for item in page.get("CommonPrefixes", ())]
        admitted = [
            folder
            for folder in folders
            if wanted.admits(_folders(bucket, folder)) and not _hidden(folder[len(prefix) : -1])
        ]
        return files, admitted

    def _pages(self, bucket: str, prefix: str, delimiter: str) -> Iterator[Any]:
        told = {"Bucket": bucket, "Prefix": prefix, "Delimiter": delimiter}
        seen: set[str] = set()
        while True:
            page = self.ask(bucket, prefix, lambda: self._page(told))
            self.lists += 1
            counter().add(cost_usd=self.prices.of(lists=1, gets=0, size=0))
            yield page
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or not token:
                return
            if token in seen:
                raise SourceFailed(
                    f"s3://{bucket}/{prefix}: the store repeats a page of its listing; look at the store"
                )
            seen.add(token)
            told["ContinuationToken"] = token

    def _page(self, told: dict[str, str]) -> Any:
        page = self.client.list_objects_v2(**told)
        whole(page, "IsTruncated", f"the listing of s3://{told['Bucket']}/{told['Prefix']}")
        return page

    def _get(self, piece: _Piece) -> None:
        file, path, start, end = piece
        bucket, key = _address(file)
        told = {}
        if file.tag and not file.tag.startswith(_TIMED):
            told["If-Match"] = f'"{file.tag}"'
        if end is not None:
            told["Range"] = f"bytes={start}-{end - 1}"

        def fetched() -> int:
            body = self._getter.body(bucket, key, told)
            try:
                return self._written(body, path, start)
            finally:
                body.close()

        size = self.ask(bucket, key, partial(_all, fetched, file, start, end))
        counter().add(bytes_transferred=size, cost_usd=self.prices.of(lists=0, gets=1, size=size))

    def _written(self, body: Any, path: Path, start: int) -> int:
        target = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            at = start
            while chunk := body.read(_CHUNK):
                if self._guard().stopped:
                    raise Canceled("the run was canceled while objects were read; what was committed stays")
                rest = memoryview(chunk)
                while rest:
                    done = os.pwrite(target, rest, at)
                    rest, at = rest[done:], at + done
        finally:
            os.close(target)
        return at - start

    def _together(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Do all of it, some at a time; the first failure ends it."""
        return together(tasks, self.options.parallel_workers, "sqlflow_s3")


def _file(bucket: str, key: str, size: int, stored: Any, tag: str) -> File:
    moment = int(stored.timestamp() * 1e9)
    path = Path(key.rpartition("/")[2])
    # A store that gives no ETags leaves the time to tell objects by.
    known = tag.strip('"') or f"{_TIMED}{moment}"
    return File(path, f"s3://{bucket}/{key}", size, moment, moment, "s3://", known)


def _all(fetch: Callable[[], int], file: File, start: int, end: int | None) -> int:
    """Fetch, and raise RetryLater where fewer bytes came than there are."""
    size, wanted = fetch(), (file.size if end is None else end) - start
    if size != wanted:
        raise RetryLater(f"{file.name}: {size:,} bytes came of {wanted:,}")
    return size


def _address(file: File) -> tuple[str, str]:
    bucket, _, key = file.name.removeprefix("s3://").partition("/")
    return bucket, key


def _folders(bucket: str, prefix: str) -> list[str]:
    return f"s3://{bucket}/{prefix}".split("/")[:-1]


def _hidden(key: str) -> bool:
    return any(part.startswith(("_", ".")) and "=" not in part for part in key.split("/"))


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
    if ending is None or file.path.suffix.lower() in SUFFIXES:
        return file
    path = file.path.with_name(f"{file.path.name}{ending}")
    return replace(file, path=file.path.rename(path) if not path.exists() else file.path)


def _cut(file: File) -> Iterator[_Piece]:
    if file.size <= _PIECE:
        yield _Piece(file, file.path, 0, None)
        return
    for start in range(0, file.size, _PIECE):
        yield _Piece(file, file.path, start, min(file.size, start + _PIECE))
