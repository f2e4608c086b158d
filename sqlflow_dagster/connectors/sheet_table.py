"""Rows of cells → a table: its columns' names and types, and its rows as CSV.

A column's type is that of all its values: whole numbers BIGINT, others DOUBLE, dates DATE or
TIMESTAMP, clock times TIME, lengths of time INTERVAL; values of several kinds are text. An empty
text beside values that are no text is NULL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from sqlflow_dagster.connectors import text_rows
from sqlflow_dagster.connectors.sniff import unique
from sqlflow_dagster.connectors.worksheet import (
    MOST_COLUMNS,
    MOST_ROWS,
    Cell,
    Kind,
    Row,
    column_letters,
    column_number,
)
from sqlflow_dagster.errors import SourceFailed
from sqlflow_dagster.sql import fold

_RANGE = re.compile(r"\$?([A-Z]{1,3})?\$?([0-9]{1,7})?:\$?([A-Z]{1,3})?\$?([0-9]{1,7})?")
_EXACT = 2**53
_YEAR = re.compile(r"(19|20)\d\d")
_NUMBERS = {"whole", "number"}
_TYPES: dict[frozenset[Kind], str] = {
    frozenset({"truth"}): "BOOLEAN",
    frozenset({"date"}): "DATE",
    frozenset({"time"}): "TIMESTAMP",
    frozenset({"date", "time"}): "TIMESTAMP",
    frozenset({"clock"}): "TIME",
    frozenset({"elapsed"}): "INTERVAL",
}


@dataclass(frozen=True, slots=True)
class Area:
    """The cells that are read: columns and rows from 1 on, ends included."""

    left: int = 1
    top: int = 1
    right: int = MOST_COLUMNS
    bottom: int = MOST_ROWS


@dataclass(frozen=True, slots=True)
class Reading:
    """Which cells are read, and how."""

    area: Area = Area()
    header: bool | None = None
    skip_rows: int = 0
    names: tuple[str, ...] = ()
    null_errors: bool = False
    strict: bool = False


@dataclass(slots=True)
class Values:
    """What was seen of one column."""

    kinds: set[Kind] = field(default_factory=set)
    largest: int = 0
    years: bool = True

    @property
    def type(self) -> str:
        """The DuckDB type that has all values as they stand."""
        kinds = frozenset(self.kinds)
        if kinds == {"whole"}:
            # HUGEINT would leave Parquet as a DOUBLE.
            return (
                "BIGINT" if self.largest < 2**63 else "DECIMAL(38,0)" if self.largest < 10**38 else "VARCHAR"
            )
        if kinds and kinds <= {"whole", "number"}:
            return "DOUBLE" if self.largest <= _EXACT else "VARCHAR"
        return _TYPES.get(kinds, "VARCHAR")

    def add(self, cell: Cell) -> None:
        """Note a value."""
        if cell.kind == "text" and not cell.text:
            return
        self.kinds.add(cell.kind)
        if cell.kind == "whole":
            self.largest = max(self.largest, abs(int(cell.text)))
            self.years = self.years and bool(_YEAR.fullmatch(cell.text))

    def has_like(self, cell: Cell) -> bool:
        """Whether a cell is a value of the same kind; a year is one among years alone."""
        if cell.kind not in _NUMBERS:
            return cell.kind != "text" and self.kinds == {cell.kind}
        among_years = self.kinds == {"whole"} and self.years
        return bool(self.kinds) and self.kinds <= _NUMBERS and (among_years or not _YEAR.fullmatch(cell.text))

    def join(self, other: Values) -> None:
        """Note the values of a column of the same name."""
        self.kinds |= other.kinds
        self.largest = max(self.largest, other.largest)


@dataclass(slots=True)
class Table:
    """A sheet's columns, and how its rows stand in the CSV file.

    Each line is the row's number and `width` values. `columns` are the places of those that the
    table has, by name: one without a name or any value is a gap between others.
    """

    columns: dict[str, int] = field(default_factory=dict)
    values: list[Values] = field(default_factory=list)
    longest_line: int = 0

    @property
    def width(self) -> int:
        """How many values a line has at most."""
        return len(self.values)


def area(text: str) -> Area:
    """Return the cells of a range such as `A3:F200`, `B:D` or `A3:F`.

    Raises ValueError for what is none.
    """
    found = _RANGE.fullmatch(text.strip().upper())
    if found is None or not any(found.groups()):
        raise ValueError(f"{text!r} is no range of cells; write e.g. 'A3:F200', 'B:D' or 'A3:F'")
    left, top, right, bottom = found.groups()
    wanted = Area(
        column_number(left) if left else 1,
        int(top) if top else 1,
        column_number(right) if right else MOST_COLUMNS,
        int(bottom) if bottom else MOST_ROWS,
    )
    if not (
        1 <= wanted.left <= wanted.right <= MOST_COLUMNS and 1 <= wanted.top <= wanted.bottom <= MOST_ROWS
    ):
        raise ValueError(
            f"{text!r} is no range of cells: its end comes before its beginning, or no sheet has it"
        )
    return wanted


def write(label: str, rows: Iterable[Row], reading: Reading, path: Path) -> Table:
    """Write the rows that hold a value as CSV to `path`; no columns for an empty sheet.

    `label` is the file's name in messages. Raises SourceFailed naming the cell that holds an error.
    """
    table = Table()
    found = _within(rows, reading)
    head = next(found, None) if reading.header is not False else None
    header = [] if head is None else _texts(head, reading.area.left)
    with path.open("w", encoding="utf-8", newline="") as target:
        for row in found:
            _write(label, row, reading, table, target)
    _name(label, table, header, reading, head.number if head else 1)
    if head is not None and reading.header is None:
        _check_header(label, head, table, reading.area.left)
    return table


def _check_header(label: str, head: Row, table: Table, left: int) -> None:
    """Refuse a first row that is data: nobody said it is a header, and a column's value stands in it."""
    for cell in head.cells:
        alone = not table.longest_line and cell.kind != "text" and not _YEAR.fullmatch(cell.text)
        if alone or (cell.text and table.values[cell.column - left].has_like(cell)):
            how = "which is hardly a name" if alone else "as its column does"
            raise SourceFailed(
                f"{label}: the first row looks like data (cell {column_letters(cell.column)}{head.number} holds "
                f"{cell.text}, {how}); set `header` to false where it is, to true where it names the columns"
            )


def _within(rows: Iterable[Row], reading: Reading) -> Iterator[Row]:
    """The rows of the area that hold a value, the skipped ones apart."""
    cells = reading.area
    top = cells.top + reading.skip_rows
    whole = cells.left == 1 and cells.right == MOST_COLUMNS
    for row in rows:
        if row.number > cells.bottom:
            return
        kept = row.cells if whole else [c for c in row.cells if cells.left <= c.column <= cells.right]
        if row.number >= top and any(cell.text for cell in kept):
            yield Row(row.number, kept)


def _write(label: str, row: Row, reading: Reading, table: Table, target: IO[str]) -> None:
    left = reading.area.left
    width = row.cells[-1].column - left + 1
    if width > table.width:
        table.values += [Values() for _ in range(width - table.width)]
    texts: list[str | None] = [None] * width
    for cell in row.cells:
        if cell.kind == "error":
            if reading.null_errors:
                continue
            raise SourceFailed(
                f"{label}: cell {column_letters(cell.column)}{row.number} holds the error {cell.text}; mend the "
                "sheet, or set `cell_errors` to null"
            )
        table.values[cell.column - left].add(cell)
        texts[cell.column - left] = cell.text
    line = text_rows.line(row.number, texts)
    table.longest_line = max(table.longest_line, len(line))
    target.write(line)


def _texts(row: Row, left: int) -> list[str]:
    texts = [""] * (row.cells[-1].column - left + 1)
    for cell in row.cells:
        texts[cell.column - left] = cell.text
    return texts


def _name(label: str, table: Table, header: Sequence[str], reading: Reading, number: int) -> None:
    """Give the columns their names; the table gets those that have a name or a value."""
    while header and not header[-1].strip():
        header = header[:-1]
    table.values += [Values() for _ in range(len(header) - table.width)]
    if reading.names:
        if len(reading.names) < table.width:
            raise SourceFailed(
                f"{label}: {table.width} columns, and `column_names` has {len(reading.names)} names"
            )
        table.values += [Values() for _ in range(len(reading.names) - table.width)]
        table.columns = {name: place for place, name in enumerate(unique(reading.names))}
        return
    plain = [fold(name.strip()) for name in header]
    twice = sorted({name for name in plain if name and plain.count(name) > 1})
    if twice and reading.strict:
        raise SourceFailed(
            f"{label}: row {number} names {', '.join(map(repr, twice))} twice; give each column a name in "
            "`column_names`, or set `schema_policy` to guided"
        )
    names = [*header, *[""] * (table.width - len(header))]
    table.columns = {
        name: place
        for place, name in enumerate(unique(names))
        if names[place].strip() or table.values[place].kinds
    }
