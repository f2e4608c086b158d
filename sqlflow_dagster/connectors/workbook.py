"""An .xlsx archive → its sheets, its texts, and which cell formats are dates.

The XML is read here and not by a spreadsheet library: the one for Python changes texts (`_x0041_`,
carriage returns), takes a formula without a value for an empty cell, and ends at rows out of order.
Files that could harm are refused: archives that grow out of measure, and XML with a DOCTYPE.
"""

from __future__ import annotations

import posixpath
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn
from xml.parsers import expat

from sqlflow_dagster.connectors.paths import File
from sqlflow_dagster.connectors.spool import Caps
from sqlflow_dagster.errors import SourceFailed

# Texts are held in memory while a sheet is read.
_MOST_TEXT = 2**30
_CHUNK = 2**16
_ESCAPE = re.compile(r"(?:_x[0-9A-Fa-f]{4}_)+")
_HALF = re.compile("[\ud800-\udfff]")
# Numbers of the formats that Excel has without writing them down.
_BUILT_IN_DATES = frozenset({*range(14, 23), *range(27, 37), 45, 47, *range(50, 59)})
_BUILT_IN_ELAPSED = 46
_NO_CODE = re.compile(r'"[^"]*"?|\\.|_.|\*.|\[(?!h+\]|m+\]|s+\])[^\]]*\]', re.IGNORECASE | re.DOTALL)
_ELAPSED = re.compile(r"\[[hms]+\]", re.IGNORECASE)
_OLD = b"\xd0\xcf\x11\xe0"

Attributes = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Book:
    """An open workbook. `dates` and `elapsed` are the cell formats of dates and of lengths of time.

    `main` is the part that lists the sheets.
    """

    file: File
    archive: zipfile.ZipFile
    parts: Parts
    main: str
    sheets: Mapping[str, str]
    strings: tuple[str, ...]
    dates: frozenset[int]
    elapsed: frozenset[int]
    since_1904: bool

    def part_of(self, sheet: str | int | None) -> str:
        """Return the part that holds a sheet: by name, by its place from 0 on, or the first one.

        Raises SourceFailed that lists the sheets there are.
        """
        names = list(self.sheets)
        if isinstance(sheet, str):
            alike = [name for name in names if name.casefold() == sheet.casefold()]
            if sheet in self.sheets or alike:
                return self.sheets[sheet if sheet in self.sheets else alike[0]]
        elif (sheet or 0) < len(names):
            return self.sheets[names[sheet or 0]]
        wanted = "sheet" if sheet is None else f"sheet {sheet!r}"
        listed = ", ".join(map(repr, names)) or "none"
        raise SourceFailed(f"{self.file.name}: there is no {wanted}; its sheets are {listed}")


@contextmanager
def opened(file: File, path: Path, caps: Caps) -> Iterator[Book]:
    """Open the workbook at `path`, which is what `file` holds.

    Raises SourceFailed for what is no whole .xlsx file.
    """
    with explained(file):
        archive = zipfile.ZipFile(path)
    with archive:
        with explained(file):
            book = _read(file, archive, caps)
        yield book


@contextmanager
def explained(file: File) -> Iterator[None]:
    """Raise SourceFailed in words that say what to do where reading an archive breaks."""
    try:
        yield
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        KeyError,
        NotImplementedError,
        OSError,
        ValueError,
        expat.ExpatError,
    ) as error:
        why = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise SourceFailed(f"{file.name}: it is no whole .xlsx file ({why}){_advice(file)}") from error


def fed(
    stream: IO[bytes],
    start: Callable[[str, Attributes], None],
    end: Callable[[str], None] | None = None,
    text: Callable[[str], None] | None = None,
) -> Iterator[None]:
    """Parse XML piece by piece and yield after each. Names come without their namespaces' prefixes.

    Extensions (`extLst`) are left out: elements of theirs are called like those that they extend.
    """
    extended = 0

    def opened(name: str, attributes: Attributes) -> None:
        nonlocal extended
        tag = name.rpartition(":")[2]
        if extended or tag == "extLst":
            extended += 1
        else:
            start(tag, attributes)

    def closed(name: str) -> None:
        nonlocal extended
        if extended:
            extended -= 1
        elif end is not None:
            end(name.rpartition(":")[2])

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = opened
    parser.EndElementHandler = closed
    parser.CharacterDataHandler = text
    parser.StartDoctypeDeclHandler = _refuse_doctype
    while piece := stream.read(_CHUNK):
        parser.Parse(piece, False)
        yield
    parser.Parse(b"", True)
    yield


def unescaped(text: str) -> str:
    """Return a text with its `_x000D_` made characters; halves of none stay as they are written."""
    return _ESCAPE.sub(_characters, text) if "_x" in text else text


def part(archive: zipfile.ZipFile, name: str) -> zipfile.ZipInfo:
    """Return an archive's part; some writers use other letters and slashes. Raises KeyError."""
    wanted = name.replace("\\", "/").lstrip("/").casefold()
    for info in archive.infolist():
        if info.filename.replace("\\", "/").lstrip("/").casefold() == wanted:
            if info.flag_bits & 1:
                raise ValueError("it is encrypted; save it without a password")
            return info
    raise KeyError(name)


def _read(file: File, archive: zipfile.ZipFile, caps: Caps) -> Book:
    names = Parts(file, archive, caps)
    root = names.related("").get("officeDocument", {})
    book = next(iter(root.values()), "xl/workbook.xml")
    sheets = _Sheets()
    names.parse(book, sheets.start)
    related = names.related(book)
    targets = related.get("worksheet", {})
    strings = _Strings(file)
    for name in related.get("sharedStrings", {}).values():
        names.parse(name, strings.start, strings.end, strings.text)
    formats = _Formats()
    for name in related.get("styles", {}).values():
        names.parse(name, formats.start)
    return Book(
        file,
        archive,
        names,
        book,
        {name: targets[key] for name, key in sheets.found if key in targets},
        tuple(strings.found),
        frozenset(formats.dates),
        frozenset(formats.elapsed),
        sheets.since_1904,
    )


class Parts:
    """The parts of an archive and how they refer to one another."""

    def __init__(self, file: File, archive: zipfile.ZipFile, caps: Caps) -> None:
        self._archive = archive
        caps.check(file, sum(info.file_size for info in archive.infolist()))

    def parse(
        self,
        name: str,
        start: Callable[[str, Attributes], None],
        end: Callable[[str], None] | None = None,
        text: Callable[[str], None] | None = None,
    ) -> None:
        """Have the elements of a part told. Raises KeyError where there is none."""
        with self._archive.open(part(self._archive, name)) as stream:
            for _ in fed(stream, start, end, text):
                pass

    def related(self, name: str) -> dict[str, dict[str, str]]:
        """Return what a part refers to: by kind, the parts by their keys. Raises KeyError as `parse` does."""
        found: dict[str, dict[str, str]] = {}

        def start(tag: str, given: Attributes) -> None:
            if tag == "Relationship" and given.get("TargetMode") != "External":
                kind = given.get("Type", "").rpartition("/")[2]
                target = posixpath.normpath(
                    posixpath.join("/", posixpath.dirname(name), given.get("Target", ""))
                )
                found.setdefault(kind, {})[given.get("Id", "")] = target.lstrip("/")

        folder, _slash, base = name.rpartition("/")
        self.parse(posixpath.join(folder, "_rels", f"{base}.rels"), start)
        return found


class _Sheets:
    """The sheets that a workbook lists, each with the key of its part."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str]] = []
        self.since_1904 = False

    def start(self, tag: str, given: Attributes) -> None:
        if tag == "sheet":
            key = next((value for name, value in given.items() if name.endswith(":id")), "")
            self.found.append((given.get("name", ""), key))
        elif tag == "workbookPr":
            self.since_1904 = given.get("date1904", "0") in ("1", "true")


class _Strings:
    """The texts that cells refer to by number; what is spoken of them (`rPh`) is left out."""

    def __init__(self, file: File) -> None:
        self.found: list[str] = []
        self._file = file
        self._parts: list[str] = []
        self._size = 0
        self._inside = self._spoken = False

    def start(self, tag: str, _given: Attributes) -> None:
        if tag == "si":
            self._parts.clear()
        elif tag == "rPh":
            self._spoken = True
        elif tag == "t":
            self._inside = not self._spoken

    def text(self, text: str) -> None:
        if self._inside:
            self._parts.append(text)

    def end(self, tag: str) -> None:
        if tag == "t":
            self._inside = False
        elif tag == "rPh":
            self._spoken = False
        elif tag == "si":
            text = unescaped("".join(self._parts))
            self._size += len(text)
            if self._size > _MOST_TEXT:
                raise SourceFailed(
                    f"{self._file.name}: its texts are longer than {_MOST_TEXT:,} characters; send it as CSV"
                )
            self.found.append(text)


class _Formats:
    """The cell formats (by their place) that show a number as a date or a length of time."""

    def __init__(self) -> None:
        self.dates: set[int] = set()
        self.elapsed: set[int] = set()
        self._codes: dict[str, str] = {}
        self._inside = False
        self._next = 0

    def start(self, tag: str, given: Attributes) -> None:
        if tag == "numFmt":
            self._codes[given.get("numFmtId", "")] = given.get("formatCode", "")
        elif tag in ("cellXfs", "cellStyleXfs"):
            self._inside = tag == "cellXfs"
        elif tag == "cellStyles":
            self._inside = False
        elif tag == "xf" and self._inside:
            kind = _kind(given.get("numFmtId", "0"), self._codes)
            if kind:
                (self.dates if kind == "date" else self.elapsed).add(self._next)
            self._next += 1


def _kind(number: str, codes: Mapping[str, str]) -> str | None:
    code = codes.get(number)
    if code is None:
        if number == str(_BUILT_IN_ELAPSED):
            return "elapsed"
        return "date" if number.isdigit() and int(number) in _BUILT_IN_DATES else None
    plain = _NO_CODE.sub("", code).partition(";")[0].lower()
    if _ELAPSED.search(plain):
        return "elapsed"
    return "date" if "general" not in plain and any(letter in plain for letter in "dmyhs") else None


def _characters(match: re.Match[str]) -> str:
    codes = match.group().replace("_x", " ").replace("_", "").split()
    units = b"".join(int(code, 16).to_bytes(2, "little") for code in codes)
    text = units.decode("utf-16-le", "surrogatepass")
    return _HALF.sub(lambda half: f"_x{ord(half.group()):04X}_", text)


def _refuse_doctype(*_: object) -> NoReturn:
    raise ValueError("its XML has a DOCTYPE, which could name entities, and no Excel writes one")


def _advice(file: File) -> str:
    with file.path.open("rb") as stream:
        old = stream.read(4) == _OLD
    return "; it is an old .xls file or has a password: save it as .xlsx without one" if old else ""
