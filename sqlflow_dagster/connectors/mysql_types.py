"""A MySQL column → how it travels: the expression read there, the one stored here, and its DuckDB type.

Values travel in MySQL's binary protocol through DuckDB's mysql_scanner, which types what arrives by
what the server says of a result, not by the catalogue. This is what it does with each type, and why
some go as text instead:

- Whole and floating numbers, and dates and times that are some, arrive exactly.
- `decimal(p, s)` is typed by the width of its text: one digit short where it is unsigned or has no
  places, and DOUBLE beyond 38 digits. Only the others go as they are, up to 38 digits; the rest as text.
- A date that is none (`0000-00-00`) would become NULL without a word, `2024-05-00` and `2024-02-31` break
  the read off: found by a *guard*, which is true at the source for values that the type cannot hold.
- `tinyint(1)` would be true for 2 as for 1: guarded.
- `time` reaches beyond a day: guarded, and text or INTERVAL where `types` says so.
- Text whose collation is binary would arrive as bytes; all text is converted to utf8mb4 at the source.
- `timestamp` is an instant, shown in the session's zone, which is UTC.
- `bit(n)` is a BIT of n; `year` a SMALLINT; `set` and `enum` their text; geometry its well-known text.
- `json` of MariaDB is text with a check that it is JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sqlflow_dagster.connectors import casts, exact_nested
from sqlflow_dagster.connectors.sql_select import Travel
from sqlflow_dagster.sql import Sql, backquote, literal, quote, sql

# What of a column can be compared at the source as DuckDB compares it here.
Order = Literal["number", "float", "text", "date", "timestamp", "timestamptz", "boolean", "none"]

_INTEGERS: Mapping[str, str] = {
    "tinyint": "TINYINT", "smallint": "SMALLINT", "mediumint": "INTEGER", "int": "INTEGER", "bigint": "BIGINT",
}  # fmt: skip
_TIMES: Mapping[str, tuple[str, Order]] = {
    "date": ("DATE", "date"),
    "datetime": ("TIMESTAMP", "timestamp"),
    "timestamp": ("TIMESTAMP WITH TIME ZONE", "timestamptz"),
}
_BYTES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
_TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set"})
GEOMETRIES = frozenset(
    {
        "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon",
        "geometrycollection", "geomcollection",
    }
)  # fmt: skip
_MOST_DIGITS = 38
NO_DATE = "a date that is none, such as 0000-00-00"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table or query. `width` are the digits, bits or bytes that its type says.

    `shown` is the type as the server shows it.
    """

    name: str
    type: str
    shown: str
    unsigned: bool = False
    width: int = 0
    scale: int = 0
    json: bool = False

    @property
    def is_boolean(self) -> bool:
        """Whether it is what MySQL makes of `boolean`."""
        return self.type == "tinyint" and self.width == 1 and not self.unsigned


@dataclass(frozen=True, slots=True)
class Choices:
    """What the user decides for all columns."""

    numeric_type: str = "VARCHAR"
    zero_dates: Literal["error", "null"] = "error"
    tinyint1_as_boolean: bool = True


def travel(column: Column, declared: str | None, choices: Choices) -> Travel[Column]:
    """Return how a column travels; `declared` is the type that the user wants, None for ours."""
    if declared is not None:
        return _declared(column, declared, choices)
    c, kind = backquote(column.name), column.type
    if column.is_boolean and choices.tinyint1_as_boolean:
        found = _boolean(column)
    elif kind in _INTEGERS:
        found = _integer(column)
    elif kind in ("float", "double"):
        found = Travel(column, c, "FLOAT" if kind == "float" else "DOUBLE", order="float")
    elif kind == "decimal":
        found = _decimal(column, choices.numeric_type)
    elif kind in _TIMES:
        found = _time(column, choices)
    elif kind == "json" or column.json:
        found = Travel(column, as_text(column), "JSON", sql("CAST({c} AS JSON)", c=quote(column.name)))
    elif kind in _BYTES:
        found = Travel(column, c, "BLOB")
    else:
        found = _other(column)
    return found


def as_text(column: Column) -> Sql:
    """Return the column as the text that MySQL itself would show."""
    c = backquote(column.name)
    if column.type in _TEXTS or column.type == "json":
        return sql("CONVERT({c} USING utf8mb4)", c=c)
    if column.type in GEOMETRIES:
        return sql("CONVERT(ST_AsText({c}) USING utf8mb4)", c=c)
    if column.type == "bit":
        return sql("LPAD(BIN({c}), {width}, '0')", c=c, width=literal(column.width))
    if column.type in _BYTES:
        return sql("CONVERT({c} USING utf8mb4)", c=c)
    # A float's text has fewer digits than the float; by way of a double it has them all.
    if column.type == "float":
        c = sql("CAST({c} AS DOUBLE)", c=c)
    return sql("CAST({c} AS CHAR)", c=c)


def no_date(c: Sql) -> Sql:
    """Return what is true for a date or time that no calendar has, and not true for NULL."""
    return sql(
        "(MONTH({c}) = 0 OR DAYOFMONTH({c}) = 0 OR DAYOFMONTH({c}) > DAYOFMONTH(LAST_DAY({c})))",
        c=c,
    )


def _boolean(column: Column) -> Travel[Column]:
    c = backquote(column.name)
    return Travel(
        column,
        sql("CAST({c} AS SIGNED)", c=c),
        "BOOLEAN",
        sql("CAST({c} AS BOOLEAN)", c=quote(column.name)),
        order="boolean",
        guard=sql("{c} NOT IN (0, 1)", c=c),
        because="a number other than 0 and 1",
        advice="`tinyint1_as_boolean`: false, to load such columns as TINYINT",
    )


def _integer(column: Column) -> Travel[Column]:
    kind = _INTEGERS[column.type]
    kind = f"U{kind}" if column.unsigned else kind
    c = backquote(column.name)
    if column.is_boolean:
        # As it is it would arrive as true or false.
        local = sql("CAST({c} AS TINYINT)", c=quote(column.name))
        return Travel(column, sql("CAST({c} AS SIGNED)", c=c), kind, local, order="number")
    return Travel(column, c, kind, order="number")


def _decimal(column: Column, numeric_type: str) -> Travel[Column]:
    if column.width > _MOST_DIGITS:
        if numeric_type == "VARCHAR":
            return Travel(column, as_text(column), "VARCHAR", digits=True)
        return _declared(column, numeric_type, Choices())
    kind = f"DECIMAL({column.width},{column.scale})"
    if column.scale and not column.unsigned:
        return Travel(column, backquote(column.name), kind, order="number")
    local = sql("CAST({c} AS {kind})", c=quote(column.name), kind=Sql(kind))
    return Travel(column, as_text(column), kind, local, order="number")


def _time(column: Column, choices: Choices) -> Travel[Column]:
    kind, order = _TIMES[column.type]
    c = backquote(column.name)
    bad = no_date(c)
    local = (
        sql("CAST({c} AS {kind})", c=quote(column.name), kind=Sql(kind)) if order == "timestamptz" else None
    )
    if choices.zero_dates == "null":
        remote = sql("CASE WHEN {bad} THEN NULL ELSE {c} END", bad=bad, c=c)
        return Travel(column, remote, kind, local, order=order, nulled=bad)
    return Travel(
        column, c, kind, local, order=order, guard=bad, because=NO_DATE,
        advice='`zero_dates`: "null", to load NULL in its place',
    )  # fmt: skip


def _other(column: Column) -> Travel[Column]:
    name = quote(column.name)
    match column.type:
        case "year":
            remote = sql("CAST({c} AS SIGNED)", c=backquote(column.name))
            local = sql("CAST({c} AS SMALLINT)", c=name)
            return Travel(column, remote, "SMALLINT", local, order="number")
        case "bit" if column.width == 1:
            remote = sql("CAST({c} AS UNSIGNED)", c=backquote(column.name))
            return Travel(column, remote, "BOOLEAN", sql("CAST({c} AS BOOLEAN)", c=name), order="boolean")
        case "bit":
            return Travel(column, as_text(column), "BIT", sql("CAST({c} AS BIT)", c=name))
        case "time":
            c = backquote(column.name)
            return Travel(
                column,
                as_text(column),
                "TIME",
                sql("CAST({c} AS TIME)", c=name),
                guard=sql("({c} < '00:00:00' OR {c} > '24:00:00')", c=c),
                because="a time beyond those of a day",
                advice=f'"types": {{"{column.name}": "INTERVAL"}}',
            )
        case "uuid":
            return Travel(column, as_text(column), "UUID", sql("CAST({c} AS UUID)", c=name))
    order: Order = "text" if column.type in _TEXTS and column.type != "set" else "none"
    return Travel(column, as_text(column), "VARCHAR", order=order)


def _declared(column: Column, kind: str, choices: Choices) -> Travel[Column]:
    """What the user declares, converted from text and exact."""
    text, name = as_text(column), quote(column.name)
    if casts.is_text(kind):
        return Travel(column, text, "VARCHAR")
    own = travel(column, None, choices)
    if kind == own.kind:
        return own
    order: Order = "none"
    if own.order == "number" and casts.is_exact_number(kind):
        order = "number"
    if casts.is_scalar(kind):
        local = casts.converted(column.name, kind, guessed=False, where=literal("types"))
    elif exact_nested.is_nested(kind):
        local = exact_nested.declared(column.name, kind)
    else:
        local = sql("CAST({c} AS {kind})", c=name, kind=Sql(kind))
    return Travel(column, text, kind, local, order=order)
