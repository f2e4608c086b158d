"""Names and values → SQL text that cannot be broken out of.

All SQL that we build goes through `sql()`, which takes a template and parts that are already SQL.
A plain `str` as a part is a TypeError, so a name or value from outside can only get in through
`quote()` or `literal()`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from string import Formatter
from typing import Literal, NamedTuple

from sqlflow_dagster.errors import ProjectError

# The schema in which the warehouse keeps its own books.
OWN_SCHEMA = "_sqlflow"
# DuckDB's own: two schemas in which nobody makes a table, and three catalogues that are there in each connection.
_TAKEN = dict.fromkeys(("information_schema", "pg_catalog", "memory", "system", "temp"), "DuckDB's own") | {
    OWN_SCHEMA: "the product's own"
}
_FORMATTER = Formatter()
_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}
_PLACE = re.compile(r"\$(\d+)")


class Sql(str):
    """Text that is known to be SQL. Only this module and users' own SQL bodies make it."""

    __slots__ = ()


class TableName(NamedTuple):
    """A table of the warehouse by schema and name. Names compare case-insensitively in DuckDB."""

    schema: str
    name: str

    def __str__(self) -> str:
        """`schema.name`, unquoted: for people, never for SQL (`quote` is)."""
        return f"{self.schema}.{self.name}"

    @property
    def folded(self) -> TableName:
        """The same table in the case that comparisons use."""
        return _folded(self)


# A plan asks for the same names again and again: each one's some twenty times.
@lru_cache(maxsize=1 << 16)
def _folded(table: TableName) -> TableName:
    return TableName(fold(table.schema), fold(table.name))


@lru_cache(maxsize=1 << 16)
def fold(name: str) -> str:
    """Return a name in the case that comparisons use: DuckDB folds the letters of ASCII and no others."""
    return name.lower() if name.isascii() else name.translate(_LOWER)


def whose_schema(name: str) -> str | None:
    """Return whose own a schema is, in words, in which no pipeline can have tables; None where it can."""
    # So the catalogue of a warehouse is called.
    return "the name of a database file" if fold(name).endswith(".duckdb") else _TAKEN.get(fold(name))


def is_name(text: str) -> bool:
    """Whether a text can be a name: it is not empty and has no control character."""
    return bool(text) and not any(ord(c) < 32 or ord(c) == 127 for c in text)


def free_name(wanted: str, taken: Iterable[str]) -> str:
    """Return `wanted`, or that with a number, so that it is none of the names taken."""
    folded = {fold(name) for name in taken}
    names = (f"{wanted}{number or ''}" for number in itertools.count())
    return next(name for name in names if fold(name) not in folded)


def quote(*names: str) -> Sql:
    """Return the names quoted and joined by dots: `quote("a", 'b"c')` is `"a"."b""c"`.

    Raises ProjectError for an empty name or one with a control character (DuckDB cuts at NUL).
    """
    for name in names:
        if not is_name(name):
            raise ProjectError(
                f"{name!r} cannot be a name: it is empty or has a control character; rename it at the source"
            )
    return Sql(".".join('"' + name.replace('"', '""') + '"' for name in names))


def backquote(*names: str) -> Sql:
    """Return the names as MySQL quotes them, whatever its mode: ``backquote("a", "b`c")`` is ```a`.`b``c```."""
    quote(*names)
    return Sql(".".join("`" + name.replace("`", "``") + "`" for name in names))


def literal(value: str | float | Decimal | bool | None) -> Sql:
    """Return a value as a SQL literal of its own type; text is quoted and its quotes doubled.

    Raises ProjectError for text with a NUL, which no SQL literal can carry.
    """
    if value is None:
        return Sql("NULL")
    if isinstance(value, bool):
        return Sql("TRUE" if value else "FALSE")
    if isinstance(value, int | Decimal):
        return Sql(str(value))
    if isinstance(value, float):
        return sql("CAST({text} AS DOUBLE)", text=literal(repr(value)))
    if "\0" in value:
        raise ProjectError("a text value holds a NUL character, which SQL cannot carry")
    return Sql("'" + value.replace("'", "''") + "'")


def sql(template: str, /, **parts: Sql) -> Sql:
    """Fill `{name}` places of `template` with parts that are SQL already; `{{` is a literal brace.

    Raises TypeError for a part that is not `Sql`: quote names, bind or `literal()` values.
    """
    text: list[str] = []
    for before, field, _spec, _conversion in _FORMATTER.parse(template):
        text.append(before)
        if field is None:
            continue
        part = parts[field]
        if not isinstance(part, Sql):
            raise TypeError(f"part {field!r} of {template!r} is plain text; quote() or literal() it")
        text.append(part)
    return Sql("".join(text))


def bound(template: str, values: Sequence[Value], /, **parts: Sql) -> Sql:
    """Fill a template as `sql` does, and each `$1`, `$2` … of its own text with a value's literal.

    For statements that run often: binding a value makes DuckDB's client import pandas, which takes
    longer than a whole load of little.
    """
    text: list[str] = []
    for before, field, _spec, _conversion in _FORMATTER.parse(template):
        text.append(_PLACE.sub(lambda match: literal(values[int(match.group(1)) - 1]), before))
        if field is not None:
            text.append(sql("{part}", part=parts[field]))
    return Sql("".join(text))


def join(separator: str, parts: Iterable[Sql]) -> Sql:
    """Join parts that are SQL already, e.g. a column list by `", "`."""
    return Sql(separator.join(parts))


Value = str | int | float | bool | Decimal | None
Operator = Literal["=", "!=", "<", "<=", ">", ">=", "IN", "NOT IN"]


@dataclass(frozen=True, slots=True)
class Condition:
    """`column operator values`, the values to be bound; `values` has one item but for IN."""

    column: str
    operator: Operator
    values: tuple[Value, ...]
