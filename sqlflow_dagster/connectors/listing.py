"""Names of files → their partitions, and which of them a read takes: the same for a disk and a bucket.

A partition is a folder `key=value`, or a date written as folders: `2024/01/15`, `2024/01/15/08`,
`2024-01-15` or `20240115`, whose parts are called year, month, day and hour. Where these three are
known, `date` is too.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TypeVar
from urllib.parse import unquote

from sqlflow_dagster.connectors.paths import DEFAULT_PARTITION, File
from sqlflow_dagster.errors import SourceFailed
from sqlflow_dagster.sql import Condition, Value, fold

_DAY = re.compile(r"((?:19|20|21)\d\d)-?(0[1-9]|1[0-2])-?(0[1-9]|[12]\d|3[01])")
# Folders of a date one below the other, from the year on.
_PARTS = (
    ("year", re.compile(r"(?:19|20|21)\d\d")),
    ("month", re.compile(r"0?[1-9]|1[0-2]")),
    ("day", re.compile(r"0?[1-9]|[12]\d|3[01]")),
    ("hour", re.compile(r"[01]?\d|2[0-3]")),
)

_COMPARED: dict[str, Callable[[int], bool]] = {
    "<": lambda sign: sign < 0,
    "<=": lambda sign: sign <= 0,
    ">": lambda sign: sign > 0,
    ">=": lambda sign: sign >= 0,
}

# Keys and values of folders, from the top down.
Partition = tuple[tuple[str, str | None], ...]
F = TypeVar("F", bound=File)


def partition(folders: Sequence[str]) -> Partition:
    """Return what the folders of a name say, from the top down."""
    found: list[tuple[str, str | None]] = []
    part = 0
    for folder in folders:
        key, separator, value = folder.partition("=")
        if separator and key:
            found.append((unquote(key), None if value == DEFAULT_PARTITION else unquote(value)))
            part = 0
        elif part and part < len(_PARTS) and _PARTS[part][1].fullmatch(folder):
            found.append((_PARTS[part][0], folder))
            part += 1
        elif day := _DAY.fullmatch(folder):
            found += [("year", day[1]), ("month", day[2]), ("day", day[3])]
            part = 3
        elif _PARTS[0][1].fullmatch(folder):
            found.append(("year", folder))
            part = 1
        else:
            part = 0
    return tuple(found)


def of(file: File) -> Partition:
    """Return the partition that a file lies in."""
    return partition(file.name.split("/")[:-1])


def order(found: Partition) -> tuple[tuple[bool, Decimal, str], ...]:
    """Return what partitions of one depth are sorted by: numbers by size, others by their letters."""
    return tuple(_place(value) for _key, value in found)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which partitions are read: those that meet all `conditions`, from `floor` on.

    A folder that cannot hold any is not looked into.
    """

    conditions: tuple[Condition, ...] = ()
    floor: Partition = ()

    @property
    def narrows(self) -> bool:
        """Whether there is anything that a file may not meet."""
        return bool(self.conditions or self.floor)

    def admits(self, folders: Sequence[str]) -> bool:
        """Whether a file below these folders may be wanted."""
        found = partition(folders)
        return self._reaches(found) and all(_may(condition, _known(found)) for condition in self.conditions)

    def decides(self, folders: Sequence[str]) -> bool:
        """Whether these folders say of every file below that it is wanted."""
        found = partition(folders)
        known = _known(found)
        if self.floor and not (
            len(found) >= len(self.floor) or order(found) > order(self.floor)[: len(found)]
        ):
            return False
        return all(fold(condition.column) in known for condition in self.conditions)

    def takes(self, file: File) -> bool:
        """Whether a file is wanted."""
        if not self.narrows:
            return True
        found = of(file)
        known = _known(found)
        return self._reaches(found) and all(
            fold(condition.column) in known and _meets(condition, known[fold(condition.column)])
            for condition in self.conditions
        )

    def reaches(self, name: str) -> bool:
        """Whether a file of this name would be looked for."""
        return self._reaches(partition(name.split("/")[:-1]))

    def _reaches(self, found: Partition) -> bool:
        return order(found)[: len(self.floor)] >= order(self.floor)[: len(found)]


def refuse_unknown(conditions: Sequence[Condition], files: Sequence[File]) -> None:
    """Raise SourceFailed where no file lies in folders of a partition that is asked for."""
    known = {key for file in files for key in _known(of(file))}
    for condition in conditions:
        if files and fold(condition.column) not in known:
            has = f"they have {', '.join(sorted(known))}" if known else "they are in none"
            raise SourceFailed(
                f"partition_filter: no file lies in folders of {condition.column!r}; {has} (`key=value` folders, "
                f"or dates such as 2024/01/15), e.g. {files[0].name}"
            )


def sampled(files: Sequence[F], fraction: float | None, most: int | None) -> list[F]:
    """Return some of the files for development: the same ones each time, at least one where there are any.

    A file is in the sample for its name, so that the sample stays as files are added.
    """
    chosen = list(files)
    if fraction is not None and fraction < 1 and files:
        places = {file.name: _chance(file.name) for file in files}
        chosen = [file for file in files if places[file.name] < fraction]
        chosen = chosen or [min(files, key=lambda file: places[file.name])]
    return chosen if most is None else chosen[:most]


def reached(names: Iterable[str], before: Partition, lookback: int) -> Partition:
    """Return the partition from which on the next read looks: the newest of these files', and `lookback` before it.

    `before` is where this read looked from. Raises SourceFailed for files that are in no partition, or
    in those of different keys.
    """
    found = {partition(name.split("/")[:-1]): name for name in names}
    shapes = {tuple(key for key, _ in item): name for item, name in found.items()}
    if len(shapes) > 1 or () in shapes:
        raise SourceFailed(
            f"incremental_by: {' and '.join(shapes.values())} cannot be put in order by partition; all files lie in "
            "folders of the same keys (`year=2024/month=01`, or `2024/01/15`), or read them by `file`"
        )
    ordered = sorted(found, key=order)
    return ordered[max(0, len(ordered) - 1 - lookback)] if ordered else before


def _known(found: Partition) -> dict[str, str | None]:
    """The values by folded key; `date` as far as it is known."""
    known = {fold(key): value for key, value in found}
    year, month, day = (known.get(name) for name in ("year", "month", "day"))
    if year and "date" not in known and month and day:
        known["date"] = f"{year}-{month:0>2}-{day:0>2}"
    return known


def _may(condition: Condition, known: Mapping[str, str | None]) -> bool:
    """Whether a condition may be met below folders of which this is known."""
    column = fold(condition.column)
    if column in known:
        return _meets(condition, known[column])
    year, month = known.get("year"), known.get("month")
    if column != "date" or not year:
        return True
    first = f"{year}-{month:0>2}-01" if month else f"{year}-01-01"
    last = f"{year}-{month:0>2}-31" if month else f"{year}-12-31"
    return _overlaps(condition, first, last)


def _overlaps(condition: Condition, first: str, last: str) -> bool:
    values = [str(value) for value in condition.values]
    match condition.operator:
        case "=" | "IN":
            return any(first <= value <= last for value in values)
        case ">" | ">=":
            return _COMPARED[condition.operator](_compare(last, values[0]))
        case "<" | "<=":
            return _COMPARED[condition.operator](_compare(first, values[0]))
        case _:
            return True


def _meets(condition: Condition, value: str | None) -> bool:
    operator = condition.operator
    if operator in ("=", "IN"):
        return any(_same(value, wanted) for wanted in condition.values)
    if operator in ("!=", "NOT IN"):
        return not any(_same(value, wanted) for wanted in condition.values)
    if value is None:
        return False
    return _COMPARED[operator](_compare(value, str(condition.values[0])))


def _same(value: str | None, wanted: Value) -> bool:
    if value is None or wanted is None:
        return value is None and wanted is None
    return _compare(value, str(wanted).lower() if isinstance(wanted, bool) else str(wanted)) == 0


def _compare(one: str, other: str) -> int:
    """-1, 0 or 1; as numbers where both are, so that month 1 is `01`."""
    left, right = _number(one), _number(other)
    if left is not None and right is not None:
        return (left > right) - (left < right)
    return (one > other) - (one < other)


def _place(value: str | None) -> tuple[bool, Decimal, str]:
    number = None if value is None else _number(value)
    return (
        number is None,
        Decimal(0) if number is None else number,
        "" if number is not None else value or "",
    )


def _number(text: str) -> Decimal | None:
    if not text.replace(".", "", 1).lstrip("-").isdigit():
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _chance(name: str) -> float:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2**64
