"""A column of SQLite → the DuckDB type that holds each of its values, and the text of each.

SQLite's declared types bind nobody: a column of INTEGER may hold text, one of DATE a number. So the
values are asked what they are, and the declaration says how they are meant:

| values | declared | type |
|---|---|---|
| whole numbers | | BIGINT |
| 0 and 1 | BOOLEAN | BOOLEAN |
| numbers | DECIMAL(p,s) | DECIMAL(p,s) where each is one |
| numbers with decimals | | DOUBLE |
| text | DATE, DATETIME, TIMESTAMP, TIME | DATE, TIMESTAMP, TIMESTAMPTZ or TIME where each is one in ISO 8601 |
| text | | VARCHAR |
| numbers and text | | VARCHAR |
| BLOBs | | BLOB |
| BLOBs and others | | refused |
| none but NULL | | as declared |
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlflow_dagster.connectors import casts, exact_nested
from sqlflow_dagster.connectors.base import Ask
from sqlflow_dagster.connectors.local_database import SOURCE
from sqlflow_dagster.errors import SourceFailed
from sqlflow_dagster.sql import Sql, join, literal, quote, sql

_EXACT = 2**53
_DECIMAL = re.compile(r"(?:DECIMAL|NUMERIC|NUMBER|DEC)\s*\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\)")
_WIDEST_DECIMAL = 38
# Digits that a REAL has for sure.
_DIGITS = 15
# SQLite gives no more columns than 2,000, and takes no longer statement than a million bytes.
_COLUMNS_AT_ONCE = 200
# In SQLite's order numbers come before texts, and texts before BLOBs: the ends tell what there is.
_SEEN = (
    "coalesce(sum(typeof({c}) = 'integer'), 0) || ' ' || coalesce(sum(typeof({c}) = 'real'), 0) || ' ' ||"
    " typeof(min({c})) || ' ' || typeof(max({c}))"
)
_BOUNDS = (
    " || ' ' || coalesce(min(CASE typeof({c}) WHEN 'integer' THEN {c} END), 0) || ' ' ||"
    " coalesce(max(CASE typeof({c}) WHEN 'integer' THEN {c} END), 0)"
)
_UNFIT = (
    " || ' ' || coalesce(sum(typeof({c}) = 'real' AND ({c} >= {limit} OR {c} <= -{limit} OR"
    " round({c}, {scale}) <> {c})), 0)"
)
# 20 digits bring the same number back; SQLite's own CAST writes 15.
_LONG = "printf('%!.20g', {c})"
_SHORT = (
    "CASE WHEN abs({c}) BETWEEN 1e-5 AND 1e15 AND CAST(CAST({c} AS TEXT) AS REAL) = {c} THEN CAST({c} AS TEXT)"
    f" ELSE {_LONG} END"
)
_FIXED = f"CASE WHEN round({{c}}, {{scale}}) = {{c}} THEN printf({{form}}, {{c}}) ELSE {_SHORT} END"


@dataclass(frozen=True, slots=True)
class Column:
    """A column by name, with the type that it was declared to have; empty for none.

    One that is `numbered` is the number of the row: of NULL it makes the next one.
    """

    name: str
    declared: str
    numbered: bool = False

    @property
    def base(self) -> str:
        """The declared type without its length."""
        return self.declared.upper().partition("(")[0].strip()

    @property
    def affinity(self) -> str:
        """SQLite's rule (https://sqlite.org/datatype3.html, 3.1): what a value is changed to on its way in."""
        declared = self.declared.upper()
        rules = (("INT", "integer"), ("CHAR", "text"), ("CLOB", "text"), ("TEXT", "text"), ("BLOB", "none"),
                 ("REAL", "real"), ("FLOA", "real"), ("DOUB", "real"))  # fmt: skip
        if not declared.strip():
            return "none"
        return next((affinity for part, affinity in rules if part in declared), "numeric")

    @property
    def decimal(self) -> tuple[int, int] | None:
        """Digits and decimals of a declared decimal."""
        found = _DECIMAL.fullmatch(self.declared.upper().strip())
        if found is None or int(found[1]) > _WIDEST_DECIMAL or int(found[2] or 0) > int(found[1]):
            return None
        return int(found[1]), int(found[2] or 0)

    @property
    def times(self) -> tuple[str, ...]:
        """The types of time that its texts may be of, the likeliest first."""
        if self.base == "DATE":
            return "DATE", "TIMESTAMP", "TIMESTAMPTZ"
        if self.base.startswith(("DATETIME", "TIMESTAMP")):
            return "TIMESTAMP", "TIMESTAMPTZ"
        return ("TIME",) if self.base == "TIME" else ()

    @property
    def unseen(self) -> str:
        """The type of a column without any value."""
        if self.times:
            return self.times[0]
        if self.base in ("BOOLEAN", "BOOL"):
            return "BOOLEAN"
        if self.decimal:
            return "DECIMAL({},{})".format(*self.decimal)
        kinds = {"integer": "BIGINT", "real": "DOUBLE", "numeric": "DOUBLE"}
        return "BLOB" if self.base == "BLOB" else kinds.get(self.affinity, "VARCHAR")


class Seen(NamedTuple):
    """What a column's values are: how many numbers of each kind, and the kinds of the ends.

    `least` and `most` bound the whole numbers. `unfit` counts numbers with decimals that the declared
    decimal would round. These three are 0 where they are not asked for.
    """

    whole: int
    real: int
    first: str
    last: str
    least: int
    most: int
    unfit: int


def query_sql(inner: Sql) -> Sql:
    """Return the table expression of a SELECT that SQLite itself runs; all its columns are text."""
    return sql("sqlite_query({source}, {inner})", source=literal(SOURCE), inner=literal(inner))


def types(ask: Ask, label: str, columns: Sequence[Column], relation: Sql) -> dict[str, str]:
    """Return the type of each column, asked of all its values.

    `relation` is what follows FROM in SQLite's own SQL. Raises SourceFailed for a column with BLOBs
    among other values.
    """
    seen = _seen(ask, columns, relation)
    found = {column.name: _type(label, column, seen[column.name]) for column in columns}
    texts = [column for column in columns if column.times and seen[column.name].first == "text"]
    return found | _times(ask, texts, relation)


def text_sql(column: Column, kind: str) -> Sql:
    """Return SQLite's expression of a value's text, from which `value_sql` makes the value again."""
    c = quote(column.name)
    if kind == "BLOB":
        return sql(
            "CASE typeof({c}) WHEN 'blob' THEN hex({c}) WHEN 'null' THEN NULL ELSE 'no blob' END AS {c}", c=c
        )
    if kind in ("DOUBLE", "FLOAT"):
        real = sql(_LONG, c=c)
    elif found := _DECIMAL.fullmatch(kind):
        scale = int(found[2] or 0)
        real = sql(_FIXED, c=c, scale=literal(scale), form=literal(f"%.{scale}f"))
    elif kind == "VARCHAR" and column.affinity != "text":
        real = sql(_SHORT, c=c)
    else:
        # No number with decimals is of these types, so that each of its texts is refused.
        return sql("CAST({c} AS TEXT) AS {c}", c=c)
    return sql("CASE typeof({c}) WHEN 'real' THEN {real} ELSE CAST({c} AS TEXT) END AS {c}", c=c, real=real)


def value_sql(column: Column, kind: str, *, guessed: bool, label: str) -> Sql:
    """Return DuckDB's expression that makes a value of its text, or raises where it is none of that type."""
    if kind == "BLOB":
        return sql("unhex({c})", c=quote(column.name))
    if kind == "DOUBLE" and guessed:
        # Its texts are those that `text_sql` wrote: more digits than a number needs, to be exact.
        return sql("CAST({c} AS DOUBLE)", c=quote(column.name))
    if exact_nested.is_nested(kind):
        return exact_nested.from_text(column.name, kind, literal(label))
    return casts.converted(column.name, kind, guessed=guessed, where=literal(label))


def _seen(ask: Ask, columns: Sequence[Column], relation: Sql) -> dict[str, Seen]:
    found: dict[str, Seen] = {}
    for first in range(0, len(columns), _COLUMNS_AT_ONCE):
        part = columns[first : first + _COLUMNS_AT_ONCE]
        questions = (
            sql("{question} AS {name}", question=_question(column), name=quote(f"c{index}"))
            for index, column in enumerate(part)
        )
        inner = sql("SELECT {questions} FROM {relation}", questions=join(", ", questions), relation=relation)
        (row,) = ask(sql("FROM {query}", query=query_sql(inner)))
        for column, text in zip(part, row, strict=True):
            whole, real, least_kind, most_kind, *numbers = text.split()
            least, most, unfit = map(int, [*numbers, "0", "0", "0"][:3])
            found[column.name] = Seen(int(whole), int(real), least_kind, most_kind, least, most, unfit)
    return found


def _question(column: Column) -> Sql:
    c = quote(column.name)
    # SQLite makes text of every number in a column of text.
    parts = [sql(_SEEN, c=c)] if column.affinity == "text" else [sql(_SEEN + _BOUNDS, c=c)]
    if column.decimal:
        digits, scale = column.decimal
        limit = literal(10 ** min(_DIGITS, digits - scale))
        parts.append(sql(_UNFIT, c=c, limit=limit, scale=literal(scale)))
    return join("", parts)


def _type(label: str, column: Column, seen: Seen) -> str:
    if seen.last == "blob":
        if seen.first != "blob":
            raise SourceFailed(
                f"{label}: the column {column.name!r} has BLOBs and other values; leave it out by exclude_columns, "
                "or make them alike by a `query`, e.g. with hex()"
            )
        return "BLOB"
    if seen.last == "text":
        return "VARCHAR"
    if seen.last == "null":
        return column.unseen
    largest = max(abs(seen.least), abs(seen.most))
    if column.decimal and not seen.unfit and largest < 10 ** (column.decimal[0] - column.decimal[1]):
        return "DECIMAL({},{})".format(*column.decimal)
    if not seen.real:
        truth = column.base in ("BOOLEAN", "BOOL") and seen.least >= 0 and seen.most <= 1
        return "BOOLEAN" if truth else "BIGINT"
    return "DOUBLE" if largest <= _EXACT else "VARCHAR"


def _times(ask: Ask, columns: Sequence[Column], relation: Sql) -> dict[str, str]:
    """The types of the columns whose texts are all times."""
    tests = [(column, kind) for column in columns for kind in column.times]
    if not tests:
        return {}
    texts = sql(
        "SELECT {texts} FROM {relation}",
        texts=join(", ", (quote(column.name) for column in columns)),
        relation=relation,
    )
    answers = (
        sql(
            "bool_and({keeps}) FILTER (WHERE {c} IS NOT NULL)",
            keeps=casts.keeps(column.name, kind),
            c=quote(column.name),
        )
        for column, kind in tests
    )
    (row,) = ask(sql("SELECT {tests} FROM {query}", tests=join(", ", answers), query=query_sql(texts)))
    found: dict[str, str] = {}
    for (column, kind), fits in zip(tests, row, strict=True):
        if fits:
            found.setdefault(column.name, kind)
    return found
