"""What a read would take → refused, shortened or allowed, before the first byte of it is read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from sqlflow_dagster.connectors import listing
from sqlflow_dagster.connectors.base import Estimate
from sqlflow_dagster.connectors.paths import File
from sqlflow_dagster.errors import SourceFailed

GB = 10**9
F = TypeVar("F", bound=File)
_ADVICE = (
    'narrow it by `partition_filter` or the path, raise the limit, or set `when_over_limit` to "next_run" where an '
    "incremental read may leave some for later"
)


class Limits(NamedTuple):
    """The most that one read may take; None for any."""

    files: int | None = None
    gigabytes: float | None = None
    usd: float | None = None

    def exceeded(self, estimate: Estimate) -> str | None:
        """Return what is more than allowed, for people; None where nothing is."""
        if self.files is not None and estimate.files > self.files:
            return f"{estimate.files:,} files, and `max_files_per_run` is {self.files:,}"
        if self.gigabytes is not None and estimate.bytes > self.gigabytes * GB:
            return f"{_gigabytes(estimate)} GB, and `max_data_size_gb` is {_plain(self.gigabytes)}"
        if self.usd is not None and (estimate.usd or 0) > self.usd:
            return (
                f"about {_plain(estimate.usd or 0)} USD ({estimate.requests:,} requests, {_gigabytes(estimate)} GB), "
                f"and `cost_limit_usd` is {_plain(self.usd)}"
            )
        return None


class Prices(NamedTuple):
    """What a store takes for requests and for what leaves it, in US dollars."""

    listing_1000: float
    get_1000: float
    gigabyte: float

    def of(self, *, lists: int, gets: int, size: int) -> float:
        """Return the price of so many requests and bytes."""
        return lists * self.listing_1000 / 1000 + gets * self.get_1000 / 1000 + size / GB * self.gigabyte


def check(limits: Limits, estimate: Estimate, advice: str = _ADVICE) -> None:
    """Raise SourceFailed with the advice where the read would take more than allowed."""
    if too_much := limits.exceeded(estimate):
        raise SourceFailed(f"the read would take {too_much}; nothing was read: {advice}")


def _gigabytes(estimate: Estimate) -> str:
    return _plain(estimate.bytes / GB)


def _plain(number: float) -> str:
    """The number with its digits, however small, and without an exponent."""
    return f"{number:,.12f}".rstrip("0").rstrip(".")


def in_order(files: Sequence[F]) -> list[F]:
    """Return files in the order in which runs with limits take them: by partition, time and name."""
    return sorted(files, key=lambda file: (listing.order(listing.of(file)), file.mtime_ns, file.name))
