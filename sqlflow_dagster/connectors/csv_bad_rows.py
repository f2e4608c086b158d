"""Rows of a CSV file that cannot be stored → the reason, `file:line` and the text of each.

DuckDB does not say in which line a row stood. Where there are bad rows, their files are read once
more, side by side with them, since both are in the same order.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from sqlflow_dagster.connectors.base import Aside, BadRow
from sqlflow_dagster.connectors.files import Readable
from sqlflow_dagster.connectors.sniff import Form, delimiter_of
from sqlflow_dagster.sql import Sql, fold, join, literal, quote, sql

COLUMN = "_sqlflow_bad"
_HIDDEN = "***"


class Column(NamedTuple):
    """A column's name and type, its value, and what is computed once for that, if anything."""

    name: str
    kind: str
    value: Sql
    helper: Sql | None


def bad_sql(columns: Sequence[Column], names: Sequence[str], file: Sql, hidden: frozenset[str]) -> Sql:
    """Return what is NULL for a good row, and else the struct of a bad one: reason, file and fields.

    Values of `hidden` columns are not in the reason.
    """
    checked = [column for column in columns if column.helper]
    if not checked:
        return Sql("CAST(NULL AS STRUCT(reason VARCHAR, file VARCHAR, fields VARCHAR[]))")
    # No OR: DuckDB's optimizer takes the square of the number of its parts.
    is_bad = (sql("CASE WHEN {misfit} THEN true END", misfit=_misfit(column)) for column in checked)
    reasons = (
        sql("CASE WHEN {misfit} THEN {reason} END", misfit=_misfit(column), reason=_reason(column, hidden))
        for column in checked
    )
    return sql(
        "CASE WHEN coalesce({is_bad}) THEN struct_pack(reason := concat_ws('; ', {reasons}), file := {file},"
        " fields := [{fields}]) END",
        is_bad=join(", ", is_bad),
        reasons=join(", ", reasons),
        file=file,
        fields=join(", ", map(quote, names)),
    )


def _misfit(column: Column) -> Sql:
    return sql(
        "CASE WHEN {value} IS NULL THEN strlen(trim({text})) > 0 ELSE false END",
        value=column.value,
        text=quote(column.name),
    )


def _reason(column: Column, hidden: frozenset[str]) -> Sql:
    end = literal(f' of column "{column.name}" is no {column.kind}')
    if fold(column.name) in hidden:
        return sql("concat('a value', {end})", end=end)
    return sql("concat('the value ''', left({text}, 200), '''', {end})", text=quote(column.name), end=end)


@dataclass(frozen=True, slots=True)
class Finder:
    """Looks bad rows up in the files of one read; `names` are the columns of each file."""

    files: Sequence[Readable]
    form: Form
    names: Mapping[str, Sequence[str]]
    hidden: frozenset[str]

    def found(self, rows: Iterable[BadRow]) -> Iterator[Aside]:
        """Yield each row with its line and text; both are of the file where the row is found in it."""
        by_name = {item.file.name: item for item in self.files}
        for name, group in groupby(rows, key=itemgetter(1)):
            yield from self._of_file(by_name[name], group)

    def unread(self, lines: Iterable[tuple[str, str, int, str]]) -> Iterator[Aside]:
        """Yield lines that are no rows; the path by which DuckDB knows the file becomes its name."""
        names = {str(item.path): item.file.name for item in self.files}
        for reason, path, line, text in lines:
            yield Aside(reason, f"{names.get(path, path)}:{line}", "" if self.hidden else text)

    def _of_file(self, item: Readable, rows: Iterable[BadRow]) -> Iterator[Aside]:
        records = self._records(item)
        for reason, _file, texts in rows:
            fields = tuple(text or "" for text in texts)
            line, raw = next(
                ((line, raw) for line, record, raw in records if self._same(record, fields)), (None, "")
            )
            place = item.file.name if line is None else f"{item.file.name}:{line}"
            shown = self._shown(item.file.name, fields) if self.hidden or line is None else raw
            yield Aside(reason, place, shown)

    def _same(self, record: Sequence[str], fields: tuple[str, ...]) -> bool:
        if len(record) == len(fields) + 1 and not record[-1]:
            # A delimiter may end each line.
            record = record[:-1]
        if len(record) > len(fields):
            return False
        nulls = self.form.null_values
        known = ["" if field in nulls else field for field in record]
        return (*known, *[""] * (len(fields) - len(known))) == fields

    def _shown(self, file: str, fields: tuple[str, ...]) -> str:
        """The row's text, made from its values, without those that are stored nowhere."""
        text = io.StringIO()
        known = zip(self.names[file], fields, strict=False)
        shown = [_HIDDEN if fold(name) in self.hidden else field for name, field in known]
        csv.writer(text, delimiter=(self.form.delimiter or ",")[0], lineterminator="").writerow(shown)
        return text.getvalue()

    def _records(self, item: Readable) -> Iterator[tuple[int, list[str], str]]:
        """Yield the line in which each record of the file begins, its values, and its text."""
        csv.field_size_limit(sys.maxsize)
        form = self.form
        double = form.escape in ("", form.quote)
        with item.path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
            lines = _Lines(stream, form)
            reader = csv.reader(
                lines,
                delimiter=delimiter_of(form.delimiter or ","),
                quotechar=form.quote or None,
                quoting=csv.QUOTE_MINIMAL if form.quote else csv.QUOTE_NONE,
                doublequote=double,
                escapechar=None if double else form.escape,
            )
            header = form.header is not False
            while True:
                lines.taken.clear()
                try:
                    record = next(reader)
                except (StopIteration, csv.Error):
                    return
                if header and record:
                    header = False
                elif record:
                    yield lines.first, record, "".join(lines.taken).rstrip("\r\n")


class _Lines:
    """The lines of a file, counted; comments are left out. `taken` are those of one record."""

    def __init__(self, stream: Iterable[str], form: Form) -> None:
        self._lines = enumerate(stream, 1)
        for _ in range(form.skip_rows):
            next(self._lines, None)
        self._comment = form.comment
        self._delimiter = form.delimiter or ","
        self.first = 0
        self.taken: list[str] = []

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        for number, line in self._lines:
            if self._comment and line.startswith(self._comment):
                continue
            if not self.taken:
                self.first = number
            self.taken.append(line)
            return line.replace(self._delimiter, delimiter_of(self._delimiter))
        raise StopIteration
