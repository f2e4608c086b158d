"""What of a relation is wanted → the SELECT that MySQL runs, and the one around it that DuckDB runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sqlflow_dagster.connectors import sql_select
from sqlflow_dagster.connectors.mysql_types import Choices, Column, travel
from sqlflow_dagster.connectors.sql_select import (
    DAY,
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
from sqlflow_dagster.errors import SchemaChanged
from sqlflow_dagster.sql import Condition, Sql, Value, backquote, join, literal, sql

_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)(?:Z|\+00(?::?00)?)")
# The first time of each type.
_FIRST = {
    "date": Sql("DATE'0001-01-01'"),
    "timestamp": Sql("TIMESTAMP'0001-01-01 00:00:00'"),
    "timestamptz": Sql("TIMESTAMP'1970-01-01 00:00:01'"),
}
Selected = sql_select.Selected[Column]


@dataclass(frozen=True, slots=True)
class Wanted(sql_select.Wanted):
    """What of a relation is to be read, and what the user decides for all of its columns."""

    choices: Choices = field(default_factory=Choices)


def select(relation: Sql, columns: Sequence[Column], wanted: Wanted, label: str) -> Selected:
    """Return the SELECTs of a relation, `label` its name in messages.

    Raises BadOption for columns in `types` that are not there, and SchemaChanged where the cursor
    column is gone or cannot be compared.
    """
    dialect = _dialect(wanted)
    travels = sql_select.travels_of(columns, wanted, label, dialect)
    _check_cursor(travels, wanted.cursor_field or "", label)
    return sql_select.selected(relation, travels, wanted, _conditions(travels, wanted), label, dialect)


def counted(
    relation: Sql, columns: Sequence[Column], wanted: Wanted, label: str, keys: Sequence[str]
) -> Sql | None:
    """Return the SELECT that counts what is wanted, `since` being what cursors are below; None where it cannot be told.

    Only what MySQL compares exactly as DuckDB does is counted.
    """
    dialect = _dialect(wanted)
    return sql_select.counted(
        relation,
        sql_select.travels_of(columns, wanted, label, dialect),
        wanted,
        keys,
        dialect,
        Compared(
            lambda item, condition: _condition(item, condition, by_bytes=True),
            _bound,
            # A date that is none has no cursor here, and is before all of them there.
            lambda item, since: None if item.nulled else _since(item, since),
        ),
    )


def _check_cursor(travels: Mapping[str, Travel[Column]], cursor: str, label: str) -> None:
    item = sql_select.named(travels, cursor)
    if item and item.column.type == "enum":
        raise SchemaChanged(
            f"{label}: the cursor column {cursor!r} is an enum, which MySQL orders by the places of its values and "
            "DuckDB by their letters, so that rows would be missed; name another cursor_field, or read it by a `query` "
            f"that gives the places: SELECT {backquote(item.column.name)} + 0 AS place, …"
        )


def _dialect(wanted: Wanted) -> Dialect[Column]:
    return Dialect(
        "MySQL",
        backquote,
        Sql("CAST(NULL AS CHAR)"),
        lambda column, declared: travel(column, declared, wanted.choices),
    )


def local(selected: Selected, name: str, remote: Sql) -> Sql:
    """Return the SELECT that DuckDB runs over `remote`, MySQL being attached as `name`."""
    rows = "mysql_query({name}, {remote}, stream_results = TRUE)"
    return selected.local(sql(rows, name=literal(name), remote=literal(remote)))


def _conditions(travels: Mapping[str, Travel[Column]], wanted: Wanted) -> Iterator[Sql]:
    cursor = sql_select.named(travels, wanted.cursor_field) if wanted.cursor_field else None
    if cursor and (between := _between(cursor, wanted)):
        yield between
    for condition in wanted.conditions:
        found = sql_select.named(travels, condition.column)
        if found and (pushed := _condition(found, condition)):
            yield pushed


def _between(item: Travel[Column], wanted: Wanted) -> Sql | None:
    """Rows between cursor or start and end, and those without a cursor; None for all."""
    bounds = [_bound(item, operator, text) for operator, text in ends(wanted.span)]
    if wanted.since:
        bounds.append(_since(item, wanted.since))
    c, others = backquote(item.column.name), item.nulled
    if item.guard and item.order in _FIRST:
        # 0000-00-00 comes before all days, and has to be met by the guard.
        others = sql("{c} < {first}", c=c, first=_FIRST[item.order])
    return within(c, bounds, others)


def _since(item: Travel[Column], since: Cursor) -> Sql | None:
    """Rows at or after the cursor; None where the warehouse has to compare."""
    if item.order in ("number", "text"):
        return _bound(item, ">=", since.value)
    bound = _operand(item.order, since.value)
    return sql("{c} >= {bound}", c=backquote(item.column.name), bound=bound) if bound else None


def _bound(item: Travel[Column], operator: str, value: str) -> Sql | None:
    """What a start or an end asks of the column, or a little more; None where the warehouse has to compare."""
    c, bound = backquote(item.column.name), None
    if item.order in _FIRST:
        bound = _end(item.order, operator, value)
    elif item.order == "number" and NUMBER.fullmatch(value):
        bound = Sql(value)
    elif item.order == "text":
        c, bound = _bytes(c), _hex(value)
    return sql("{c} {o} {bound}", c=c, o=Sql(operator), bound=bound) if bound else None


def _end(order: str, operator: str, value: str) -> Sql | None:
    """A start or an end as a time of MySQL: a column without a zone goes by the clock time alone."""
    try:
        at = datetime.fromisoformat(value)
        if order == "timestamptz" and at.tzinfo:
            at = at.astimezone(UTC)
        elif order == "timestamptz":
            # It is of the warehouse's zone, which is less than a day away.
            at += timedelta(days=-1 if operator == ">=" else 1)
    except (ValueError, OverflowError):
        return None
    return _moment(at.replace(tzinfo=None).isoformat(" "))


def _condition(item: Travel[Column], condition: Condition, *, by_bytes: bool = False) -> Sql | None:
    if item.nulled or not condition.values:
        return None
    ordered = condition.operator in ORDERED
    if ordered and item.order == "boolean":
        return None
    values = [_operand(item.order, value) for value in condition.values]
    found = [value for value in values if value is not None]
    if len(found) != len(values):
        return None
    c = backquote(item.column.name)
    if item.order == "text" and (by_bytes or condition.operator not in ("=", "IN")):
        # A collation takes unlike texts for equal, and orders them in its own way: bytes decide. What it
        # takes for equal too many, the warehouse leaves out.
        c, found = _bytes(c), [_hex(str(value)) for value in condition.values]
    if condition.operator in ("IN", "NOT IN"):
        return sql("{c} {o} ({v})", c=c, o=Sql(condition.operator), v=join(", ", found))
    return sql("{c} {o} {v}", c=c, o=Sql(condition.operator.replace("!=", "<>")), v=found[0])


def _operand(order: str, value: Value) -> Sql | None:
    """A value as MySQL takes it, None where DuckDB might take it for something else."""
    if order == "number" and isinstance(value, int | Decimal) and not isinstance(value, bool):
        return literal(value)
    if order == "boolean" and isinstance(value, bool):
        return Sql("1" if value else "0")
    return _text_operand(order, value) if isinstance(value, str) else None


def _text_operand(order: str, value: str) -> Sql | None:
    if order == "text":
        return text(value)
    if order == "date" and DAY.fullmatch(value):
        return sql("DATE{value}", value=literal(value))
    if order == "timestamp" and MOMENT.fullmatch(value):
        return _moment(value)
    if order == "timestamptz" and (instant := _INSTANT.fullmatch(value)):
        return _moment(instant[1])
    return None


def _moment(value: str) -> Sql:
    """A time as MySQL reads it, in the session's zone, which is UTC."""
    value = value.replace("T", " ")
    value += " 00:00:00" if DAY.fullmatch(value) else ":00" if value.count(":") == 1 else ""
    return sql("TIMESTAMP{value}", value=literal(value))


def _bytes(c: Sql) -> Sql:
    return sql("CAST(CONVERT({c} USING utf8mb4) AS BINARY)", c=c)


def _hex(value: str) -> Sql:
    return Sql(f"X'{value.encode().hex()}'")


def text(value: str) -> Sql:
    """Return a text as MySQL reads it in each of its modes."""
    return sql("_utf8mb4 {value}", value=_hex(value) if "\\" in value or "\0" in value else literal(value))
