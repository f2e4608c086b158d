"""One sheet's XML → rows of cells, each with its kind and its exact text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Literal, NamedTuple

from sqlflow_dagster.connectors.workbook import Attributes, Book, explained, fed, part, unescaped
from sqlflow_dagster.errors import SourceFailed

MOST_ROWS = 1_048_576
MOST_COLUMNS = 16_384
# Days from the beginning of Python's calendar to Excel's.
_BEGIN_1900 = date(1899, 12, 30).toordinal()
_BEGIN_1904 = date(1904, 1, 1).toordinal()
_LAST_DAY = date(9999, 12, 31).toordinal()
_DAY_MS = 86_400_000
_EXACT = 2**53
_PLACE = re.compile(r"([A-Z]{1,3})([0-9]{1,7})")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_ISO = re.compile(r"(\d{4}-\d\d-\d\d)?(?:T?(\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)Z?)?")

Kind = Literal["whole", "number", "truth", "text", "date", "time", "clock", "elapsed", "error"]


class Cell(NamedTuple):
    """A cell that is not empty: its column from 1 on, what it holds, and that as text."""

    column: int
    kind: Kind
    text: str


class Row(NamedTuple):
    """A row of a sheet by its number, with its cells from left to right."""

    number: int
    cells: list[Cell]


def rows(book: Book, sheet: str | int | None) -> Iterator[Row]:
    """Yield the rows of a sheet that have cells, from top to bottom.

    Raises SourceFailed for what Excel would not open either, and for a formula without its value.
    """
    reader = _Reader(book)
    name = book.part_of(sheet)
    with explained(book.file), book.archive.open(part(book.archive, name)) as stream:
        for _ in fed(stream, reader.start, reader.end, reader.text):
            yield from reader.done
            reader.done.clear()


def column_number(letters: str) -> int:
    """Return a column's number: A is 1, XFD is 16,384."""
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number


def column_letters(number: int) -> str:
    """Return a column's letters: 1 is A."""
    letters = ""
    while number:
        number, rest = divmod(number - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


@dataclass(slots=True)
class _Open:
    """The cell that is being read."""

    column: int
    type: str
    style: int
    formula: bool = False
    inline: bool = False


class _Reader:
    """Takes the events of a sheet's XML and makes rows of them."""

    def __init__(self, book: Book) -> None:
        self.done: list[Row] = []
        self._book = book
        self._number = 0
        self._column = 0
        self._cells: list[Cell] = []
        self._cell: _Open | None = None
        self._parts: list[str] = []
        self._inside = self._data = self._spoken = False
        self._columns: dict[str, int] = {}

    def start(self, tag: str, given: Attributes) -> None:
        if not self._data:
            self._data = tag == "sheetData"
        elif tag == "c":
            self._begin(given)
        elif tag == "v":
            self._inside = self._cell is None or not self._cell.inline
        elif tag == "t":
            self._inside = not self._spoken
        elif tag == "is" and self._cell and self._cell.type == "inlineStr":
            # Some writers put a number beside the text that the cell shows.
            self._parts.clear()
            self._cell.inline = True
        elif tag == "f" and self._cell:
            self._cell.formula = True
        elif tag == "rPh":
            self._spoken = True
        elif tag == "row":
            self._begin_row(given)

    def text(self, text: str) -> None:
        if self._inside:
            self._parts.append(text)

    def end(self, tag: str) -> None:
        if tag in ("v", "t"):
            self._inside = False
        elif tag == "c" and self._cell:
            self._finish(self._cell, "".join(self._parts))
            self._cell = None
        elif tag == "rPh":
            self._spoken = False
        elif tag == "row" and self._data and self._cells:
            self.done.append(Row(self._number, self._cells))
            self._cells = []
        elif tag == "sheetData":
            self._data = False

    def _begin_row(self, given: Attributes) -> None:
        number = int(given["r"]) if "r" in given else self._number + 1
        if not self._number < number <= MOST_ROWS:
            raise ValueError(f"row {number} comes after row {self._number}")
        self._number, self._column = number, 0

    def _begin(self, given: Attributes) -> None:
        place = given.get("r")
        column = self._column + 1 if place is None else self._column_of(place)
        if not self._column < column <= MOST_COLUMNS:
            raise ValueError(f"in row {self._number}, column {column} comes after column {self._column}")
        self._column = column
        self._parts.clear()
        self._cell = _Open(column, given.get("t", "n"), int(given.get("s") or 0))

    def _column_of(self, place: str) -> int:
        found = _PLACE.fullmatch(place)
        if found is None or int(found[2]) != self._number:
            raise ValueError(f"row {self._number} holds a cell {place!r}")
        letters = found[1]
        if letters not in self._columns:
            self._columns[letters] = column_number(letters)
        return self._columns[letters]

    def _finish(self, cell: _Open, text: str) -> None:
        if cell.type == "s" and text:
            index = int(text)
            if not 0 <= index < len(self._book.strings):
                raise ValueError(f"{self._where(cell)} refers to a text that is not there")
            self._add(cell, "text", self._book.strings[index])
        elif cell.type in ("str", "inlineStr"):
            if text or cell.formula or cell.type == "inlineStr":
                self._add(cell, "text", unescaped(text))
        elif cell.type == "e":
            self._add(cell, "error", text or "#VALUE!")
        elif not text:
            if cell.formula:
                raise SourceFailed(
                    f"{self._book.file.name}: {self._where(cell)} has a formula without its value; open the "
                    "file in Excel or LibreOffice and save it, so that it is calculated"
                )
        elif cell.type == "b":
            self._add(cell, "truth", "true" if text.strip() in ("1", "true") else "false")
        elif cell.type == "d":
            self._add(cell, *self._iso(cell, text.strip()))
        else:
            self._add(cell, *self._valued(cell, text.strip()))

    def _add(self, cell: _Open, kind: Kind, text: str) -> None:
        self._cells.append(Cell(cell.column, kind, text))

    def _where(self, cell: _Open) -> str:
        return f"cell {column_letters(cell.column)}{self._number}"

    def _valued(self, cell: _Open, text: str) -> tuple[Kind, str]:
        if not _NUMBER.fullmatch(text):
            raise ValueError(f"{self._where(cell)} holds {text!r}, which is no number")
        if cell.style in self._book.dates:
            moment = _moment(float(text), _BEGIN_1904 if self._book.since_1904 else _BEGIN_1900)
            if moment:
                return moment
        elif cell.style in self._book.elapsed:
            return "elapsed", _span(round(float(text) * _DAY_MS))
        return _number(text)

    def _iso(self, cell: _Open, text: str) -> tuple[Kind, str]:
        found = _ISO.fullmatch(text)
        if found is None or not (found[1] or found[2]):
            raise ValueError(f"{self._where(cell)} holds {text!r}, which is no date")
        if found[1] and found[2]:
            return "time", f"{found[1]} {found[2]}"
        return ("date", found[1]) if found[1] else ("clock", found[2])


def _number(text: str) -> tuple[Kind, str]:
    """A number with the fewest digits that mean it; some writers end whole ones with `.0`."""
    if text.lstrip("+-").isdigit():
        return "whole", str(int(text))
    value = float(text)
    if value.is_integer() and abs(value) < _EXACT:
        return "whole", str(int(value))
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is larger than any number")
    digits = repr(value)
    plain = "e" not in digits or not 1e-9 < abs(value) < 1e21
    return "number", digits if plain else f"{Decimal(digits):f}"


def _moment(serial: float, begin: int) -> tuple[Kind, str] | None:
    """Days since the calendar's beginning as a date or time, to the millisecond; None for no date.

    Before March 1900 Excel's days are one off: it believes in a 29 February 1900.
    """
    days, fraction = divmod(serial, 1)
    day, ms = int(days), round(fraction * _DAY_MS)
    if ms == _DAY_MS:
        day, ms = day + 1, 0
    if day == 0:
        return "clock", _clock(ms)
    if begin == _BEGIN_1900 and day <= 60:
        if day == 60:
            return None
        day += 1
    if not 0 < day <= _LAST_DAY - begin:
        return None
    text = date.fromordinal(begin + day).isoformat()
    return ("time", f"{text} {_clock(ms)}") if ms else ("date", text)


def _clock(ms: int) -> str:
    seconds, rest = divmod(ms, 1000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{rest:03}" if rest else text


def _span(ms: int) -> str:
    return f"-{_clock(-ms)}" if ms < 0 else _clock(ms)
