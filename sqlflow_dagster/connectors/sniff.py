"""CSV files → their delimiter, header and columns' types, decided once over all of them.

A small file is read whole, a large one at its head and at places spread over it to its end. What a
sample cannot know, the conversion checks on every value: see casts.py.
"""

from __future__ import annotations

import csv
import io
import logging
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from sqlflow_dagster.connectors import guess
from sqlflow_dagster.connectors.paths import File
from sqlflow_dagster.connectors.spool import opened, packed_as
from sqlflow_dagster.errors import SourceFailed
from sqlflow_dagster.sql import fold

if TYPE_CHECKING:
    from _csv import Reader

log = logging.getLogger(__name__)

DELIMITERS = (",", "\t", ";", "|")
_BUDGET = 6 * 2**20
_LEAST = 16 * 2**10
_PLACES = 15
_FIRST_ROWS = 3
_LINE = re.compile(r"[^\r\n]*(?:\r\n|[\r\n])")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
_EXCEL = re.compile(r'"?sep=.?"?[\r\n]', re.IGNORECASE)
_FIGURES = re.compile(r"[\d\W]*\d[\d\W]*")
_YEAR = re.compile(r"(19|20)\d\d")


@dataclass(frozen=True, slots=True)
class Form:
    """How the text is written. `delimiter` is None where it is to be found out."""

    delimiter: str | None = None
    quote: str = '"'
    escape: str = ""
    comment: str = ""
    header: bool | None = None
    skip_rows: int = 0
    null_values: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    encoding: str = "utf-8"


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows of one file, its header apart. `names` are the columns as the table will have them.

    `skip` are the lines before the header, blank ones included: to DuckDB one of these would be the header.
    `ending` is what ends the header's line, empty where it is the only one.
    """

    file: File
    header: tuple[str, ...]
    names: tuple[str, ...]
    rows: Sequence[Sequence[str]]
    ending: str
    skip: int


@dataclass(frozen=True, slots=True)
class Sniffed:
    """What all files have in common, and each one's columns in its own order."""

    delimiter: str
    header: bool
    samples: tuple[Sample, ...]
    types: dict[str, str]


def sniff(files: Sequence[tuple[File, str]], form: Form, declared: Iterable[str], *, strict: bool) -> Sniffed:
    """Return what the files (each with its compression) hold; files without any text are left out.

    Columns in `declared` are not guessed. `strict` refuses a name that stands twice in a header.
    Raises SourceFailed where the header cannot be one.
    """
    csv.field_size_limit(sys.maxsize)
    told = {fold(name) for name in declared}
    budget = max(_LEAST, _BUDGET // max(1, len(files)))
    # Where all types are known, the beginnings tell the rest.
    texts = [(file, kind, _parts(file, kind, form, _LEAST if told else budget)) for file, kind in files]
    texts = [(file, kind, parts) for file, kind, parts in texts if parts]
    delimiter = form.delimiter or (_delimiter(texts[0][2][0], form) if texts else ",")
    header = form.header is not False
    samples = []
    for file, kind, parts in texts:
        sample = _sample(file, parts, delimiter, form, header=header, strict=strict)
        if told and not told.issuperset(map(fold, sample.names)):
            more = _parts(file, kind, form, budget)
            sample = _sample(file, more, delimiter, form, header=header, strict=strict)
        samples.append(sample)
    for sample, (_file, _kind, parts) in zip(samples, texts, strict=True):
        _check_width(sample, form, delimiter, parts[0])
    types = _types(samples, form, told)
    if form.header is None:
        _check_header(samples, types)
        _check_second_header(samples)
    if header:
        _warn_of_first_rows(samples, types)
    return Sniffed(delimiter, header, tuple(samples), types)


def delimiter_of(delimiter: str) -> str:
    """Return the one character that stands for a delimiter of several while Python reads the text."""
    return delimiter if len(delimiter) == 1 else "\x1f"


def unique(names: Iterable[str]) -> tuple[str, ...]:
    """Return names that a table can have: none empty, none twice, no control characters."""
    taken: set[str] = set()
    found = []
    for index, raw in enumerate(names):
        base = _CONTROL.sub(" ", raw).strip() or f"column{index}"
        name, number = base, 1
        while fold(name) in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(fold(name))
        found.append(name)
    return tuple(found)


def _parts(file: File, kind: str, form: Form, budget: int) -> list[str]:
    """Texts of the file: the first from its beginning, others from the beginning of a line on."""
    with opened(file, kind) as stream:
        head = stream.read(budget // 2 if kind == "none" and file.size > budget else budget + 1)
        if not head:
            return []
        while _lines(head) <= form.skip_rows and len(head) < _BUDGET and (more := stream.read(budget)):
            head += more
        whole = file.size <= len(head) if kind == "none" else len(head) <= budget
        encoding = "utf-8-sig" if form.encoding in ("utf-8", "utf8") else form.encoding
        _check_encoding(file, head, encoding)
        first = head.decode(encoding, "replace").removeprefix("\ufeff")
        parts = [first if whole else first[: first.rfind("\n") + 1] or first]
        if whole or kind != "none" or encoding != "utf-8-sig":
            return parts
        size = budget // 2 // _PLACES
        for number in range(1, _PLACES + 1):
            stream.seek(len(head) + (file.size - len(head) - size) * number // _PLACES)
            text = stream.read(size).decode("utf-8", "replace")
            begun = _LINE.match(text)
            parts.append(text[begun.end() :] if begun else "")
        return parts


def _lines(text: bytes) -> int:
    """How many ends of lines there are, whatever they are."""
    return max(text.count(b"\n"), text.count(b"\r"))


def _check_encoding(file: File, head: bytes, encoding: str) -> None:
    """Refuse a file that is packed or not in the encoding, as far as its header shows; DuckDB checks the rest."""
    packed = packed_as(head)
    if packed:
        raise SourceFailed(f"{file.name}: it begins as a {packed} file does; set `compression` to '{packed}'")
    if encoding != "utf-8-sig":
        return
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or head[1:64:2].count(0) > 16 or head[:64:2].count(0) > 16:
        raise SourceFailed(f"{file.name}: it looks like UTF-16; set `encoding` to 'utf-16'")
    line = head.partition(b"\n")[0]
    try:
        line.decode()
    except UnicodeDecodeError as error:
        if error.end < len(line) or len(line) < len(head):
            raise SourceFailed(
                f"{file.name}:1: a byte is not utf-8 ({error.reason}); set `encoding` (latin-1, cp1252, utf-16 …)"
            ) from error


def _read(text: str, delimiter: str, form: Form) -> list[list[str]]:
    try:
        return [row for row in _reader(text, delimiter, form) if row]
    except csv.Error:
        # DuckDB reads the file itself and says what is wrong with it, and in which line.
        return []


def _reader(text: str, delimiter: str, form: Form, *, strict: bool = False) -> Reader:
    # Python's reader takes one character as a delimiter.
    text, delimiter = text.replace(delimiter, delimiter_of(delimiter)), delimiter_of(delimiter)
    lines: Iterable[str] = io.StringIO(text, newline="")
    if form.comment:
        lines = (line for line in lines if not line.startswith(form.comment))
    quoted = bool(form.quote)
    # One blank between a delimiter and a quote belongs to no value, as DuckDB reads it.
    before = re.compile(rf"(^|{re.escape(delimiter)}) (?={re.escape(form.quote)})")
    if quoted and f" {form.quote}" in text:
        lines = (before.sub(r"\1", line) for line in lines)
    if strict:
        loose = re.compile(rf"{re.escape(form.quote)} +(?={re.escape(delimiter)}|[\r\n]|$)")
        lines = (loose.sub(lambda _: form.quote, line) for line in lines)
    double = form.escape in ("", form.quote)
    return csv.reader(
        lines,
        delimiter=delimiter,
        quotechar=form.quote or None,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        doublequote=double,
        escapechar=None if double else form.escape,
        strict=strict,
    )


def _skipped(text: str, count: int) -> str:
    if not count:
        return text
    lines = io.StringIO(text, newline="")
    for _ in range(count):
        next(lines, "")
    return lines.read()


def _delimiter(text: str, form: Form) -> str:
    """The delimiter that gives the most rows the width of the first, the widest winning."""
    beginning = _skipped(text, form.skip_rows)[: 256 * 2**10]
    best, score = ",", (0.0, 0)
    for delimiter in DELIMITERS:
        rows = _read(beginning, delimiter, form)[:500]
        if not rows or len(rows[0]) < 2:
            continue
        alike = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
        if (alike, len(rows[0])) > score:
            best, score = delimiter, (alike, len(rows[0]))
    return best


def _sample(
    file: File, parts: Sequence[str], delimiter: str, form: Form, *, header: bool, strict: bool
) -> Sample:
    head = _skipped(parts[0], form.skip_rows)
    more, endings = _lines_before(parts[0], form, header=header)
    skip = _records_skipped(file, parts[0], delimiter, form) + more
    if header:
        _check_header_line(file, head, delimiter, form)
    rows = _read(head, delimiter, form)
    first = tuple(rows[0]) if rows else ()
    names = _names(file, first, form, header=header, strict=strict)
    width = len(names)
    body = rows[1:] if header else rows
    for part in parts[1:]:
        # The last line may be cut, and the first ones stand in a quoted text.
        body += [row for row in _read(part, delimiter, form)[:-1] if _has_width(row, width)]
    ending = _ending(head, delimiter, form)
    if ending and endings - {ending}:
        raise SourceFailed(
            f"{file.name}: its first lines end otherwise than the one at which the table begins (\\n, \\r\\n, \\r); "
            "have it written with one of them"
        )
    return Sample(file, first if header else (), names, body, ending, skip)


def _has_width(row: Sequence[str], width: int) -> bool:
    """Whether there is a value for each column; a delimiter may end the line."""
    return len(row) == width or (len(row) == width + 1 and not row[-1])


def _records_skipped(file: File, text: str, delimiter: str, form: Form) -> int:
    """How many records the lines to be skipped are, which DuckDB counts: a title in quotes may be of several lines.

    Raises SourceFailed for a quote by which DuckDB would skip more than these lines.
    """
    lines = "".join(islice(io.StringIO(text, newline=""), form.skip_rows))
    try:
        return sum(1 for _ in _reader(lines, delimiter, form, strict=True))
    except csv.Error as error:
        raise SourceFailed(
            f"{file.name}: in the lines that `skip_rows` leaves out, a quote is misplaced or not closed ({error}); "
            "mend it, or set `quote` to an empty text where quotes are plain text"
        ) from error


def _lines_before(text: str, form: Form, *, header: bool) -> tuple[int, set[str]]:
    """How many blank lines stand before the header, and how these end and the ones to be skipped.

    DuckDB does not count comments, and counts lines of another end in ways of its own.
    """
    skipped, endings = 0, set()
    for number, line in enumerate(io.StringIO(text, newline="")):
        is_comment = bool(form.comment) and line.startswith(form.comment)
        if number >= form.skip_rows and not (header and (is_comment or line == _end(line))):
            break
        skipped += number >= form.skip_rows and not is_comment
        endings.add(_end(line))
    return skipped, endings


def _ending(text: str, delimiter: str, form: Form) -> str:
    """How the first record ends, within which lines may end otherwise; empty where that is not known."""
    reader = _reader(text, delimiter, form)
    try:
        next((row for row in reader if row), None)
    except csv.Error:
        return ""
    lines = (
        line for line in io.StringIO(text, newline="") if not (form.comment and line.startswith(form.comment))
    )
    return _end(next(islice(lines, max(0, reader.line_num - 1), None), ""))


def _end(line: str) -> str:
    return line[len(line.rstrip("\r\n")) :]


def _check_header_line(file: File, text: str, delimiter: str, form: Form) -> None:
    """Refuse a line that is no header, or whose quotes are misplaced: DuckDB would skip all rows and say nothing."""
    if _EXCEL.match(text):
        raise SourceFailed(
            f"{file.name}:{form.skip_rows + 1}: the line tells Excel what the delimiter is, and is no header; set "
            f"`skip_rows` to {form.skip_rows + 1}"
        )
    if not form.quote:
        return
    try:
        next(_reader(text, delimiter, form, strict=True), None)
    except csv.Error as error:
        raise SourceFailed(
            f"{file.name}:{form.skip_rows + 1}: a quote of the header is misplaced, or not closed ({error}); mend it, "
            "or set `quote` to an empty text where quotes are plain text"
        ) from error


def _names(file: File, first: tuple[str, ...], form: Form, *, header: bool, strict: bool) -> tuple[str, ...]:
    if form.names:
        if first and len(form.names) != len(first):
            raise SourceFailed(
                f"{file.name}:1: {len(first)} columns, and `column_names` has {len(form.names)} names"
            )
        return unique(form.names)
    if not header:
        return tuple(f"column{index}" for index in range(len(first)))
    plain = [fold(name.strip()) for name in first]
    twice = sorted({name for name in plain if name and plain.count(name) > 1}) if strict else []
    if twice:
        raise SourceFailed(
            f"{file.name}:{form.skip_rows + 1}: the header names {', '.join(map(repr, twice))} twice; "
            "give each column a name in `column_names`, or set `schema_policy` to guided"
        )
    return unique(first)


def _check_width(sample: Sample, form: Form, delimiter: str, text: str) -> None:
    if len(sample.names) != 1:
        return
    better = _delimiter(text, form)
    width = len((_read(_skipped(text, form.skip_rows)[:100_000], better, form) or [[]])[0])
    if better != delimiter and width > 1:
        mend = f"set `delimiter` to {better!r}"
        if form.delimiter is None:
            mend = "other files have more: load those of another delimiter by a SOURCE of their own"
        raise SourceFailed(
            f"{sample.file.name}: with the delimiter {delimiter!r} there is one column, with {better!r} "
            f"there are {width}; {mend}"
        )
    if form.delimiter is None:
        _check_title(sample, form, delimiter, text)


def _check_title(sample: Sample, form: Form, delimiter: str, text: str) -> None:
    """Refuse one column where only the first line is one, such as a title."""
    beginning = _skipped(text, form.skip_rows)[:100_000]
    for other in DELIMITERS:
        widths = [len(row) for row in _read(beginning, other, form)[1:]] if other != delimiter else []
        width = max(widths, key=widths.count, default=1)
        if width > 1 and widths.count(width) > max(1, len(widths) // 2):
            raise SourceFailed(
                f"{sample.file.name}: its first line is one column, and with {other!r} most others have {width}; "
                "set `skip_rows` or `comment` where it is no header, `delimiter` to "
                f"{delimiter!r} where there is one column"
            )


def _types(samples: Iterable[Sample], form: Form, declared: set[str]) -> dict[str, str]:
    values: dict[str, set[str]] = defaultdict(set)
    spelling: dict[str, str] = {}
    for sample in samples:
        width = len(sample.names)
        rows = (row[:width] for row in sample.rows if _has_width(row, width))
        columns = list(zip(*rows, strict=True))
        for index, name in enumerate(sample.names):
            key = fold(name)
            spelling.setdefault(key, name)
            if columns and key not in declared:
                values[key].update(columns[index])
    null = set(form.null_values)
    return {name: guess.type_of(values[key] - null) for key, name in spelling.items() if key not in declared}


def _check_header(samples: Iterable[Sample], types: dict[str, str]) -> None:
    """Refuse a first line that is data: nobody said it is a header, and a column's value stands in it."""
    for sample in samples:
        for index, (cell, name) in enumerate(zip(sample.header, sample.names, strict=True)):
            kind = types.get(name, "VARCHAR")
            values = [row[index] for row in sample.rows if index < len(row)]
            if not _is_year(cell, values) and _is_like(cell, values, kind):
                what = "is hardly a name" if kind == "VARCHAR" else f"is {kind}, as its column"
                raise SourceFailed(
                    f"{sample.file.name}:1: the first line looks like data ({cell!r} {what}); "
                    "set `header` to false where it is, to true where it names the columns"
                )


def _check_second_header(samples: Iterable[Sample]) -> None:
    """Refuse a row that says the names again, as files do that were put together of several."""
    for sample in samples:
        if len(sample.header) > 1 and list(sample.header) in sample.rows:
            raise SourceFailed(
                f"{sample.file.name}: a line after the first one is the header again "
                f"({', '.join(sample.header)[:200]}); take it out, or set `header` to true where it is a row"
            )


def _warn_of_first_rows(samples: Iterable[Sample], types: dict[str, str]) -> None:
    """Say where the first rows alone make a column text: a title above the header, or units below it."""
    for sample in samples:
        for index, name in enumerate(sample.names):
            values = [row[index] for row in sample.rows if index < len(row)]
            if types.get(name) != "VARCHAR" or len(values) < _FIRST_ROWS + 2:
                continue
            kind = guess.type_of(values[_FIRST_ROWS:])
            if kind != "VARCHAR" and guess.type_of(values[:_FIRST_ROWS]) == "VARCHAR":
                log.warning(
                    "%s: the column %r is text, and %s but for its first rows; where these are none, set `skip_rows`, "
                    "`header` and `column_names`",
                    sample.file.name,
                    name,
                    kind,
                )
                break


def _is_year(cell: str, values: Sequence[str]) -> bool:
    """Whether a column may be called by a year: hardly one of years."""
    return bool(_YEAR.fullmatch(cell)) and not (values and all(map(_YEAR.fullmatch, values)))


def _is_like(cell: str, values: Sequence[str], kind: str) -> bool:
    """Whether a cell of the first line may be a value: of the column's type, or of figures like all of its texts."""
    if not values:
        return bool(_FIGURES.fullmatch(cell)) or guess.type_of([cell]) != "VARCHAR"
    if kind != "VARCHAR":
        return _alike(guess.type_of([cell]), kind)
    return bool(_FIGURES.fullmatch(cell)) and all(_shape(value) == _shape(cell) for value in values)


def _shape(text: str) -> str:
    return re.sub(r"\d+", "9", text.strip())


def _alike(one: str, other: str) -> bool:
    numbers = ("BIGINT", "DECIMAL", "DOUBLE")
    return one == other or (one.startswith(numbers) and other.startswith(numbers))
