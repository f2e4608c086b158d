"""What of a relation is wanted → the SELECT that Postgres runs, and the one around it that DuckDB runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal

from sqlflow_dagster.connectors import sql_select
from sqlflow_dagster.connectors.postgres_types import Column, travel
from sqlflow_dagster.connectors.sql_select import (
    DAY,
    ISO,
    MOMENT,
    NUMBER,
    ORDERED,
    Compared,
    Dialect,
    Travel,
    ends,
    within,
)
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.sql import Condition, Sql, Value, join, literal, quote, sql

_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d(:?\d\d)?)")
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_BITS = {"int2": 15, "int4": 31, "int8": 63}
_BEFORE_CHRIST = re.compile(r"^(\S+) \(BC\)(.*)$")
_TYPES: Mapping[str, str] = {
    "date": "date", "timestamp": "timestamp", "timestamptz": "timestamptz", "uuid": "uuid",
}  # fmt: skip
Selected = sql_select.Selected[Column]


@dataclass(frozen=True, slots=True)
class Wanted(sql_select.Wanted):
    """What of a relation is to be read.

    `utf8` says that the server compares text byte by byte as UTF-8 where it is asked to; `where` is one more
    condition.
    """

    numeric_type: str = "VARCHAR"
    money_digits: int = 2
    utf8: bool = True
    where: Sql | None = None


def select(relation: Sql, columns: Sequence[Column], wanted: Wanted, label: str) -> Selected:
    """Return the SELECTs of a relation, `label` its name in messages.

    Raises BadOption for columns in `types` that are not there, and SchemaChanged where the cursor
    column is gone or cannot be compared.
    """
    dialect = _dialect(wanted)
    travels = sql_select.travels_of(columns, wanted, label, dialect)
    where = [*([wanted.where] if wanted.where else []), *_conditions(travels, wanted)]
    return sql_select.selected(relation, travels, wanted, where, label, dialect)


def counted(
    relation: Sql, columns: Sequence[Column], wanted: Wanted, label: str, keys: Sequence[str]
) -> Sql | None:
    """Return the SELECT that counts what is wanted, `since` being what cursors are below; None where it cannot be told.

    Only what Postgres compares exactly as DuckDB does is counted.
    """
    dialect = _dialect(wanted)
    return sql_select.counted(
        relation,
        sql_select.travels_of(columns, wanted, label, dialect),
        wanted,
        keys,
        dialect,
        Compared(
            lambda item, condition: _condition(item, condition, utf8=wanted.utf8, by_bytes=True),
            lambda item, operator, text: _bound(item, operator, text, utf8=wanted.utf8),
            lambda item, since: _since(item, since, utf8=wanted.utf8),
        ),
    )


def _dialect(wanted: Wanted) -> Dialect[Column]:
    return Dialect(
        "Postgres",
        quote,
        Sql("CAST(NULL AS text)"),
        lambda column, declared: travel(column, declared, wanted.numeric_type, wanted.money_digits),
    )


def local(selected: Selected, name: str) -> Sql:
    """Return the SELECT that DuckDB runs, Postgres being attached as `name`."""
    remote = literal(selected.remote())
    return selected.local(sql("postgres_query({name}, {remote})", name=literal(name), remote=remote))


def _conditions(travels: Mapping[str, Travel[Column]], wanted: Wanted) -> Iterator[Sql]:
    cursor = sql_select.named(travels, wanted.cursor_field) if wanted.cursor_field else None
    if cursor and (between := _between(cursor, wanted)):
        yield between
    for condition in wanted.conditions:
        found = sql_select.named(travels, condition.column)
        if found and (pushed := _condition(found, condition, utf8=wanted.utf8)):
            yield pushed


def _between(item: Travel[Column], wanted: Wanted) -> Sql | None:
    """Rows between cursor or start and end, and those without a cursor; None for all."""
    bounds = [_bound(item, operator, text, utf8=wanted.utf8) for operator, text in ends(wanted.span)]
    if wanted.since and wanted.since.type != "JSON":
        bounds.append(_since(item, wanted.since, utf8=wanted.utf8))
    return within(quote(item.column.name), bounds)


def _since(item: Travel[Column], since: Cursor, *, utf8: bool) -> Sql | None:
    """Rows at or after the cursor; None where the warehouse has to compare."""
    if item.order in ("none", "boolean") or (item.order == "text" and not utf8):
        return None
    if not _is_like(item.order, since):
        # The column is another one now, or of another type: the warehouse says so.
        return None
    value = _BEFORE_CHRIST.sub(r"\1\2 BC", since.value)
    # In the column's own type, so that an index serves and no float is rounded on the way.
    kind = Sql("text" if item.order == "text" else item.column.type.name or "text")
    bound = sql("CAST({value} AS {kind})", value=escaped(value), kind=kind)
    return sql("{compared} >= {bound}", compared=_compared(item, by_bytes=True), bound=bound)


def _is_like(order: str, since: Cursor) -> bool:
    """Whether the cursor is a value of such columns."""
    match order:
        case "date" | "timestamp" | "timestamptz":
            return since.type.startswith(("DATE", "TIMESTAMP"))
        case "number":
            return NUMBER.fullmatch(since.value) is not None
        case "float":
            return since.type in ("FLOAT", "DOUBLE") or NUMBER.fullmatch(since.value) is not None
        case "uuid":
            return since.type == "UUID"
    return True


def _bound(item: Travel[Column], operator: str, text: str, *, utf8: bool) -> Sql | None:
    """What a start or an end asks of the column, or a little more; None where the warehouse has to compare."""
    value: Sql | None = None
    match item.order:
        case "date" | "timestamp" | "timestamptz":
            value = _moment(item.order, operator, text)
        case "number" if NUMBER.fullmatch(text):
            # Whole numbers are below 4.4 as they are below 5, and an index knows only whole ones.
            whole = Decimal(text).to_integral_value(ROUND_CEILING)
            exact = item.column.type.name in _BITS
            fits = not exact or abs(whole) < 2 ** _BITS[item.column.type.name or ""]
            kind = Sql(item.column.type.name or "numeric")
            number = Sql(f"{whole:f}" if exact else f"{Decimal(text):f}")
            value = sql("CAST({number} AS {kind})", number=literal(number), kind=kind) if fits else None
        case "text" if utf8:
            value = escaped(text)
    if value is None:
        return None
    return sql("{c} {o} {v}", c=_compared(item, by_bytes=True), o=Sql(operator), v=value)


def _moment(order: str, operator: str, text: str) -> Sql | None:
    """A start or an end as a time of Postgres: a column without a zone goes by the clock time alone."""
    found = ISO.fullmatch(text)
    if found is None:
        return None
    clock = f"{found['day']} {found['time'] or '00:00'}"
    if order != "timestamptz":
        return sql("CAST({clock} AS timestamp)", clock=literal(clock))
    if found["offset"]:
        return sql("CAST({text} AS timestamptz)", text=literal(clock + found["offset"]))
    # It is of the warehouse's zone, which is less than a day away.
    away = "- INTERVAL '1 day'" if operator == ">=" else "+ INTERVAL '1 day'"
    return sql("(CAST({text} AS timestamptz) {away})", text=literal(clock + "+00"), away=Sql(away))


def _condition(
    item: Travel[Column], condition: Condition, *, utf8: bool, by_bytes: bool = False
) -> Sql | None:
    ordered = condition.operator in ORDERED
    if ordered and item.order == "text" and not utf8:
        return None
    if not condition.values or (ordered and item.order in ("boolean", "uuid")):
        return None
    values = [_operand(item.order, value) for value in condition.values]
    if any(value is None for value in values):
        return None
    found = [value for value in values if value is not None]
    # A collation may take unlike texts for equal. What it takes for equal too many, the warehouse leaves out.
    compared = _compared(item, by_bytes=by_bytes or condition.operator not in ("=", "IN"))
    if condition.operator in ("IN", "NOT IN"):
        return sql("{c} {o} ({v})", c=compared, o=Sql(condition.operator), v=join(", ", found))
    return sql("{c} {o} {v}", c=compared, o=Sql(condition.operator.replace("!=", "<>")), v=found[0])


def _compared(item: Travel[Column], *, by_bytes: bool) -> Sql:
    c = quote(item.column.name)
    if item.order != "text":
        return c
    # Bytes decide here; a collation, a padding or a type of its own would decide otherwise there.
    if by_bytes:
        return sql('CAST({c} AS text) COLLATE "C"', c=c)
    return c if item.column.type.name in ("text", "varchar") else sql("CAST({c} AS text)", c=c)


def _operand(order: str, value: Value) -> Sql | None:
    """A filter's value as Postgres takes it, None where DuckDB might take it for something else."""
    if order == "number" and isinstance(value, int | Decimal) and not isinstance(value, bool):
        return literal(value)
    if order == "boolean" and isinstance(value, bool):
        return literal(value)
    if not isinstance(value, str):
        return None
    if order == "text":
        return escaped(value)
    forms = {"date": DAY, "timestamp": MOMENT, "timestamptz": _INSTANT, "uuid": _UUID}
    if order in forms and forms[order].fullmatch(value):
        return sql("CAST({value} AS {kind})", value=escaped(value), kind=Sql(_TYPES[order]))
    return None


def escaped(value: str) -> Sql:
    """Return a text as Postgres reads it whatever `standard_conforming_strings` says."""
    text = literal(value)
    return Sql(" E" + text.replace("\\", "\\\\")) if "\\" in value else text
