"""Objects of a bucket → a list of them from one listing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

from sqlflow_dagster.connectors import globs, listing
from sqlflow_dagster.connectors.budget import Prices
from sqlflow_dagster.connectors.parallel import together
from sqlflow_dagster.connectors.paths import File, hidden
from sqlflow_dagster.connectors.s3_client import Connected, ObjectChanged, connected, translated, whole
from sqlflow_dagster.connectors.s3_options import JOURNAL, S3Options, Where
from sqlflow_dagster.connectors.s3_requests import Requests
from sqlflow_dagster.errors import NotAllowed, RetryLater, SourceFailed
from sqlflow_dagster.resilience.counts import counter
from sqlflow_dagster.resilience.guard import Guard

T = TypeVar("T")
TIMED = "stored at "


class Objects:
    """What a SOURCE reads of a store."""

    def __init__(self, options: S3Options, guard: Callable[[], Guard]) -> None:
        """Keep how it is asked. Nothing is contacted."""
        self.options = options
        self.prices = Prices(options.price_list_usd, options.price_get_usd, options.price_gb_usd)
        # How many listing requests were made so far.
        self.lists = 0
        self._guard = guard

    @property
    def stopped(self) -> bool:
        """Whether the run that reads was canceled."""
        return self._guard().stopped

    @cached_property
    def boto(self) -> Connected:
        """boto3's client and what it goes by; most reads need none."""
        return connected(self.options)

    @cached_property
    def requests(self) -> Requests:
        """What is asked for here, by its name in S3."""
        return Requests(self.options, lambda: self.boto)

    def close(self) -> None:
        """Close the connections, where there are any."""
        if "requests" in self.__dict__:
            self.requests.close()
        if "boto" in self.__dict__:
            self.boto.client.close()

    def find(self, where: Where, wanted: listing.Wanted) -> Iterator[File]:
        """Yield the objects at a place, in order of their keys; those of unwanted partitions may be left out.

        Folder marks and what hidden names call (`_SUCCESS`, `_temporary/…`) are no objects here.
        """
        bucket, text, kind = where
        if kind == "either":
            yield from self._either(where, wanted)
            return
        if kind == "key":
            found = self._head(bucket, text)
            yield from [found] if found else []
            return
        prefix = where.prefix if kind == "glob" else text
        matches = globs.pattern(text).fullmatch if kind == "glob" else None
        for item in self._walk(bucket, prefix, wanted):
            key = address_of(item)[1]
            if key.endswith(f"/{JOURNAL}") or key == JOURNAL:
                raise RetryLater(
                    f"{item.name}: an export is replacing the objects beside it; where it was killed, run it again"
                )
            if not _hidden(key[len(prefix) :]) and (matches is None or matches(key)):
                yield item

    def _either(self, where: Where, wanted: listing.Wanted) -> Iterator[File]:
        """The object of a name, or else what is in the folder of that name.

        Who may read what is in a folder alone is refused the name as an object's, whether there is one or not.
        """
        refused: NotAllowed | None = None
        found = None
        try:
            found = self._head(where.bucket, where.text)
        except NotAllowed as error:
            refused = error
        if found:
            yield found
            return
        listed = list(self.find(Where(where.bucket, f"{where.text}/", "prefix"), wanted))
        if refused and not listed:
            raise refused
        yield from listed

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
        found, where = self.requests.head(bucket, key), f"s3://{bucket}/{key}"
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
            answers = self.together([partial(self._level, bucket, item, wanted) for item in left])
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
        token = ""
        seen: set[str] = set()
        while True:
            page = self.ask(bucket, prefix, partial(self._page, bucket, prefix, delimiter, token))
            self.lists += 1
            counter().add(cost_usd=self.prices.of(lists=1, gets=0, size=0))
            yield page
            token = page.get("NextContinuationToken", "")
            if not page["IsTruncated"]:
                return
            if not token:
                raise SourceFailed(
                    f"s3://{bucket}/{prefix}: the store lists its first objects and not how to ask for the rest: it "
                    "does not speak ListObjectsV2"
                )
            if token in seen:
                raise SourceFailed(
                    f"s3://{bucket}/{prefix}: the store repeats a page of its listing; look at the store"
                )
            seen.add(token)

    def _page(self, bucket: str, prefix: str, delimiter: str, token: str) -> Any:
        page = self.requests.page(bucket, prefix, delimiter, token)
        whole(page, "IsTruncated", f"the listing of s3://{bucket}/{prefix}")
        return page

    def together(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Do all of it, some at a time; the first failure ends it."""
        return together(tasks, self.options.parallel_workers, "sqlflow_s3")


def _file(bucket: str, key: str, size: int, stored: Any, tag: str) -> File:
    moment = int(stored.timestamp() * 1e9)
    path = Path(key.rpartition("/")[2])
    # A store that gives no ETags, or weak ones, leaves the time to tell objects by.
    known = "" if tag.startswith("W/") else tag.strip('"')
    return File(path, f"s3://{bucket}/{key}", size, moment, moment, "s3://", known or f"{TIMED}{moment}")


def address_of(file: File) -> tuple[str, str]:
    """Return the bucket and the key of an object."""
    bucket, _, key = file.name.removeprefix("s3://").partition("/")
    return bucket, key


def _folders(bucket: str, prefix: str) -> list[str]:
    return f"s3://{bucket}/{prefix}".split("/")[:-1]


def _hidden(key: str) -> bool:
    return any(map(hidden, key.split("/")))
