"""Rows of an EXPORT → an .xlsx workbook of one sheet.

A cell holds numbers of 15 digits, times to the millisecond from March 1900 to the year 9999, and
texts of 32,767 characters. A number or time beyond that is written as text, so that nothing is
rounded; a longer text is refused. Text is always written as text: `=1+1` is no formula.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar, cast
from xml.sax.saxutils import escape, quoteattr

from pydantic import BaseModel, Field

from sqlflow_dagster.connectors import json_sink
from sqlflow_dagster.connectors.base import Place, Rows, Written
from sqlflow_dagster.connectors.sink import FileSinkOptions, file_path, stored
from sqlflow_dagster.connectors.worksheet import MOST_COLUMNS, MOST_ROWS, column_letters
from sqlflow_dagster.errors import BadOption, ExportFailed
from sqlflow_dagster.rooms import room

_LONGEST_TEXT = 32_767
_DIGITS = 15
_LARGEST_SHEET = 2**31 - 2**20
_BEGIN = date(1899, 12, 30)
_FIRST = date(1900, 3, 1)
_INTEGERS = frozenset(
    (
        "TINYINT",
        "SMALLINT",
        "INTEGER",
        "BIGINT",
        "HUGEINT",
        "UTINYINT",
        "USMALLINT",
        "UINTEGER",
        "UBIGINT",
        "UHUGEINT",
    )
)
# What XML cannot carry, and what would be read as an escape.
_ESCAPED = re.compile("[\x00-\x08\x0b-\x1f\ufffe\uffff]|_(?=x[0-9A-Fa-f]{4}_)")
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
# Cells have the style 0, or that of a format counted from 1.
_FORMATS = ("yyyy-mm-dd", "yyyy-mm-dd hh:mm:ss.000", "hh:mm:ss.000")
_DATE, _TIME, _CLOCK = 1, 2, 3
_BAD_IN_NAMES = re.compile(r"[\[\]:*?/\\\x00-\x1f]")


class ExcelSinkOptions(FileSinkOptions):
    """How an exported workbook is written."""

    aliases: ClassVar[Mapping[str, str]] = {
        "sheet_name": "sheet", "worksheet": "sheet", "has_header": "header",
    }  # fmt: skip

    sheet: str = Field("Sheet1", min_length=1, max_length=31, description="Name of the sheet.")
    header: bool = Field(True, description="Whether the first row names the columns.")


def write_workbook(rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
    """Store the rows as a workbook at `target`, or leave what is there.

    TIMESTAMPTZ becomes its UTC time; lists and structs become JSON. Raises ExportFailed for what no
    sheet can hold, BadOption for a target or a sheet's name that Excel would not open.
    """
    wanted = cast("ExcelSinkOptions", options)
    workbook_path(target, wanted, place)
    _check(rows)

    def make(path: Path) -> int:
        with room(place.spool, "excel") as folder:
            lines = folder / "rows.jsonl"
            count = rows.copy_to(lines, json_sink.LINES, json_sink.row(rows.columns))
            if count + wanted.header > MOST_ROWS:
                raise ExportFailed(
                    f"{count:,} rows, and a sheet holds {MOST_ROWS - wanted.header:,}; filter them, or export CSV"
                )
            _write(path, _cells_of(rows, lines), wanted)
        return count

    return stored(target, place, make)


def workbook_path(target: str, options: BaseModel, place: Place) -> Path:
    """Return where the workbook goes. Raises BadOption for a target or a sheet's name that Excel would not open."""
    wanted = cast("ExcelSinkOptions", options)
    if not target.lower().endswith(".xlsx"):
        raise BadOption(
            f"the target {target!r}: Excel opens a workbook only under a name that ends with .xlsx"
        )
    if _BAD_IN_NAMES.search(wanted.sheet) or wanted.sheet.startswith("'") or wanted.sheet.endswith("'"):
        raise BadOption(rf"sheet: {wanted.sheet!r} cannot be a sheet's name; leave out []:*?/\ and outer '")
    return file_path(target, place)


def _check(rows: Rows) -> None:
    if len(rows.columns) > MOST_COLUMNS:
        raise ExportFailed(f"{len(rows.columns):,} columns, and a sheet holds {MOST_COLUMNS:,}; export CSV")
    for name, kind in rows.columns.items():
        if "BIGNUM" in kind:
            raise ExportFailed(f"the column {name!r} is {kind}; CAST it to VARCHAR in the query")


def _cells_of(rows: Rows, lines: Path) -> Iterator[list[str]]:
    """Each row's cells as XML, the header's first."""
    yield [_text(name, f"the name of column {name!r}") for name in rows.columns]
    makers = [_maker(kind) for kind in rows.columns.values()]
    decoder = json.JSONDecoder(object_pairs_hook=tuple, parse_float=Decimal, parse_constant=str)
    with lines.open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, 1):
            row = decoder.decode(line)
            yield [
                "" if value is None else make(value, f"row {number}, column {name!r}")
                for make, (name, value) in zip(makers, row, strict=True)
            ]


def _maker(kind: str) -> Callable[[Any, str], str]:
    """What makes a cell of a value of this type, as DuckDB writes it in JSON."""
    if kind in _INTEGERS or kind.startswith("DECIMAL("):
        return _exact
    return _MAKERS.get(kind, _other)


def _exact(value: Any, where: str) -> str:
    number = Decimal(value)
    exact = len("".join(map(str, number.as_tuple().digits)).strip("0")) <= _DIGITS
    return f"><v>{number:f}</v>" if exact else _text(f"{number:f}", where)


def _double(value: Any, where: str) -> str:
    return _text(value, where) if isinstance(value, str) else f"><v>{float(value)!r}</v>"


def _date(value: Any, where: str) -> str:
    day = _day(value)
    return _text(value, where) if day is None else f' s="{_DATE}"><v>{day}</v>'


def _time(value: Any, where: str) -> str:
    return _moment(value) or _text(value, where)


def _zoned(value: Any, where: str) -> str:
    return _moment(_in_utc(value)) or _text(value, where)


def _moment(text: str) -> str:
    """The cell of a time, nothing where Excel has no such time."""
    day, ms = _day(text[:10]), _milliseconds(text[11:])
    return "" if day is None or ms is None else f' s="{_TIME}"><v>{_serial(day, ms)}</v>'


def _clock(value: Any, where: str) -> str:
    ms = _milliseconds(value)
    return _text(value, where) if ms is None else f' s="{_CLOCK}"><v>{_serial(0, ms)}</v>'


def _truth(value: Any, _where: str) -> str:
    return f' t="b"><v>{int(value)}</v>'


def _other(value: Any, where: str) -> str:
    return _text(value if isinstance(value, str) else _json(value), where)


def _as_json(value: Any, where: str) -> str:
    return _text(_json(value), where)


_MAKERS: Mapping[str, Callable[[Any, str], str]] = {
    **dict.fromkeys(("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"), _time),
    **dict.fromkeys(("DOUBLE", "FLOAT"), _double),
    "TIMESTAMP WITH TIME ZONE": _zoned,
    "BOOLEAN": _truth,
    "DATE": _date,
    "TIME": _clock,
    "JSON": _as_json,
}


def _serial(day: int, ms: int) -> str:
    return f"{day + ms / 86_400_000!r}" if ms else str(day)


def _day(text: str) -> int | None:
    """The number of a day, None where Excel has no such day."""
    try:
        found = date.fromisoformat(text)
    except ValueError:
        return None
    return (found - _BEGIN).days if found >= _FIRST else None


def _milliseconds(text: str) -> int | None:
    """Milliseconds since midnight, None where the time is finer than that, or is none."""
    clock, _point, fraction = text.partition(".")
    if fraction[3:].strip("0"):
        return None
    try:
        found = time.fromisoformat(clock)
    except ValueError:
        return None
    return (found.hour * 3600 + found.minute * 60 + found.second) * 1000 + int(
        fraction[:3].ljust(3, "0") or 0
    )


def _in_utc(text: str) -> str:
    try:
        return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None).isoformat(" ")
    except (ValueError, OverflowError):
        return text


def _text(text: str, where: str) -> str:
    length = len(text.encode("utf-16-le")) // 2
    if length > _LONGEST_TEXT:
        raise ExportFailed(
            f"{where}: a text of {length:,} characters, and a cell holds {_LONGEST_TEXT:,}; shorten it in the "
            "query, or export CSV"
        )
    escaped = escape(_ESCAPED.sub(lambda match: f"_x{ord(match.group()):04X}_", text))
    return f' t="inlineStr"><is><t xml:space="preserve">{escaped}</t></is>'


def _json(value: Any) -> str:
    """A list or struct as JSON, with all digits of its numbers."""
    if isinstance(value, tuple):
        return "{" + ", ".join(f"{json.dumps(k, ensure_ascii=False)}: {_json(v)}" for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=False)


def _write(path: Path, rows: Iterator[list[str]], options: ExcelSinkOptions) -> None:
    header = next(rows)
    letters = [column_letters(number) for number in range(1, len(header) + 1)]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _parts(options.sheet).items():
            archive.writestr(name, _XML + text)
        with archive.open("xl/worksheets/sheet1.xml", "w") as sheet:
            sheet.write(f'{_XML}<worksheet xmlns="{_MAIN}"><sheetData>'.encode())
            size = 0
            for number, cells in enumerate(chain([header] if options.header else [], rows), 1):
                size += sheet.write(_row(number, letters, cells))
                if size > _LARGEST_SHEET:
                    raise ExportFailed(
                        f"row {number}: the sheet is larger than 2 GB, which few programs open; export CSV"
                    )
            sheet.write(b"</sheetData></worksheet>")


def _row(number: int, letters: Sequence[str], cells: Sequence[str]) -> bytes:
    filled = (
        f'<c r="{column}{number}"{cell}</c>' for column, cell in zip(letters, cells, strict=True) if cell
    )
    return f'<row r="{number}">{"".join(filled)}</row>'.encode()


def _parts(sheet: str) -> dict[str, str]:
    """The parts of the archive beside the sheet's own."""
    formats = "".join(
        f'<numFmt numFmtId="{164 + index}" formatCode="{code}"/>' for index, code in enumerate(_FORMATS)
    )
    styles = "".join(
        f'<xf numFmtId="{number}" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>'
        for number in (0, *(164 + index for index in range(len(_FORMATS))))
    )
    kinds = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    return {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{kinds}.sheet.main+xml"/>'
        f'<Override PartName="/xl/styles.xml" ContentType="{kinds}.styles+xml"/>'
        f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kinds}.worksheet+xml"/></Types>',
        "_rels/.rels": _related({"rId1": ("officeDocument", "xl/workbook.xml")}),
        "xl/_rels/workbook.xml.rels": _related(
            {"rId1": ("worksheet", "worksheets/sheet1.xml"), "rId2": ("styles", "styles.xml")}
        ),
        "xl/workbook.xml": f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>'
        f'<sheet name={quoteattr(sheet)} sheetId="1" r:id="rId1"/></sheets></workbook>',
        "xl/styles.xml": f'<styleSheet xmlns="{_MAIN}"><numFmts count="{len(_FORMATS)}">{formats}</numFmts>'
        '<fonts count="1"><font><sz val="11"/><name val="Calibri"/></font></fonts>'
        '<fills count="2"><fill><patternFill patternType="none"/></fill>'
        '<fill><patternFill patternType="gray125"/></fill></fills>'
        '<borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>'
        '<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/></cellStyleXfs>'
        f'<cellXfs count="{len(_FORMATS) + 1}">{styles}</cellXfs>'
        '<cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/></cellStyles></styleSheet>',
    }


def _related(targets: Mapping[str, tuple[str, str]]) -> str:
    entries = "".join(
        f'<Relationship Id="{key}" Type="{_OFFICE}/{kind}" Target="{target}"/>'
        for key, (kind, target) in targets.items()
    )
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{entries}</Relationships>'
