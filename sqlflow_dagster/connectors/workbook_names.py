"""The name of a table or range of a workbook → the sheet and the cells that it stands for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlflow_dagster.connectors.sheet_table import Area, area
from sqlflow_dagster.connectors.workbook import Attributes, Book, explained
from sqlflow_dagster.errors import SourceFailed

_CELLS = re.compile(
    r"(?:'(?P<quoted>(?:[^']|'')+)'|(?P<plain>[^'!,()]+))!(?P<cells>[A-Z0-9:]+)", re.IGNORECASE
)
# Names of Excel's own, such as the area to print.
_OWN = "_xlnm."


@dataclass(frozen=True, slots=True)
class Named:
    """What a name stands for. `names` are those of a table that shows no header, which has one otherwise."""

    sheet: str
    area: Area
    is_table: bool = False
    names: tuple[str, ...] = ()


def find(book: Book, name: str) -> Named:
    """Return what a name stands for. Raises SourceFailed that lists the names there are."""
    with explained(book.file):
        tables = {table.name: (sheet, table) for sheet, table in _tables(book)}
        ranges = _Ranges()
        book.parts.parse(book.main, ranges.start, ranges.end, ranges.text)
    alike = {known.casefold(): known for known in (*ranges.found, *tables)}
    known = alike.get(name.casefold())
    if known is None:
        listed = ", ".join([*tables, *ranges.found]) or "none"
        raise SourceFailed(
            f"{book.file.name}: there is no table or named range {name!r}; there are: {listed}"
        )
    if known in tables:
        sheet, table = tables[known]
        return table.at(sheet)
    return _range(book, known, ranges.found[known])


def _range(book: Book, name: str, formula: str) -> Named:
    found = _CELLS.fullmatch(formula.replace("$", "").strip())
    if found is None:
        raise SourceFailed(
            f"{book.file.name}: the name {name!r} stands for {formula[:100]}, which is no range of cells of one sheet"
        )
    sheet = found["plain"] or found["quoted"].replace("''", "'")
    cells = found["cells"]
    return Named(sheet, area(cells if ":" in cells else f"{cells}:{cells}"))


def _tables(book: Book) -> Iterator[tuple[str, _Table]]:
    for sheet, part in book.sheets.items():
        try:
            related = book.parts.related(part)
        except KeyError:
            # A sheet that refers to nothing has no list of it.
            continue
        for name in related.get("table", {}).values():
            table = _Table()
            book.parts.parse(name, table.start)
            yield sheet, table


@dataclass
class _Table:
    """A table: its name, its cells, and how many of their rows are header and totals."""

    name: str = ""
    cells: str = ""
    headers: int = 1
    totals: int = 0
    columns: list[str] = field(default_factory=list)

    def start(self, tag: str, given: Attributes) -> None:
        if tag == "table":
            self.name, self.cells = given.get("displayName", given.get("name", "")), given.get("ref", "")
            self.headers = int(given.get("headerRowCount", "1"))
            self.totals = int(given.get("totalsRowCount", "0"))
        elif tag == "tableColumn":
            self.columns.append(given.get("name", ""))

    def at(self, sheet: str) -> Named:
        """Return its cells without the row of totals."""
        whole = area(self.cells if ":" in self.cells else f"{self.cells}:{self.cells}")
        kept = Area(whole.left, whole.top, whole.right, whole.bottom - self.totals)
        return Named(sheet, kept, is_table=True, names=() if self.headers else tuple(self.columns))


class _Ranges:
    """The names that a workbook gives to ranges, those of the whole workbook before those of one sheet."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}
        self._name = ""
        self._parts: list[str] = []
        self._of_sheet = False

    def start(self, tag: str, given: Attributes) -> None:
        if tag == "definedName":
            self._name, self._of_sheet = given.get("name", ""), "localSheetId" in given
            self._parts.clear()

    def text(self, text: str) -> None:
        if self._name:
            self._parts.append(text)

    def end(self, tag: str) -> None:
        if tag != "definedName":
            return
        if not self._name.startswith(_OWN) and not (self._of_sheet and self._name in self.found):
            self.found[self._name] = "".join(self._parts)
        self._name = ""
