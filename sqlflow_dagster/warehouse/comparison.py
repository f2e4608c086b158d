"""A column, an operator and a value as people write it → SQL that compares without changing either.

DuckDB would round `4.4` to compare it with whole numbers, cut a time to compare it with a date, and
turn every text of a column into a number to compare it with `5`.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_CEILING, Decimal, InvalidOperation

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.sql import Condition, Sql, Value, join, literal, sql
from sqlflow_dagster.warehouse import types

_WIDEST = 38
_ORDERED = ("<", "<=", ">", ">=")


def condition(
    connection: DuckDBPyConnection, column: Sql, kind: str, wanted: Condition, first: int
) -> tuple[Sql, list[Value]]:
    """Return a filter on a column, and the values bound to its `$first` and those after.

    NULL is a value here: `= null` finds it, `!= null` all others. Raises ValueError for a value that is
    nothing of the column's type, and for a number in the order of texts.
    """
    if (
        wanted.operator in _ORDERED
        and kind in ("VARCHAR", "JSON")
        and isinstance(wanted.values[0], int | float | Decimal)
    ):
        raise ValueError(
            f"{wanted.values[0]} is a number, and would be compared letter by letter (declare the column's type, or "
            f"quote the value) with {kind}"
        )
    nulls = [value for value in wanted.values if value is None]
    values = [_value(connection, value, kind) for value in wanted.values if value is not None]
    places = [
        sql("CAST({place} AS {kind})", place=Sql(f"${first + index}"), kind=Sql(target))
        for index, (_value, target) in enumerate(values)
    ]
    bound = [value for value, _target in values]
    if any(target == "TIMESTAMP" for _value, target in values) and kind == "DATE":
        column = sql("CAST({c} AS TIMESTAMP)", c=column)
    return _compared(column, wanted.operator, places, null=bool(nulls)), bound


def bound(connection: DuckDBPyConnection, column: Sql, kind: str, operator: str, value: str) -> Sql:
    """Return `column >= value` or `column < value` for a text. Raises ValueError as `condition` does."""
    if types.is_integer(kind) and (number := _number(value)) is not None:
        # A whole number is below 4.4, or not, as it is below 5.
        value = str(number.to_integral_value(ROUND_CEILING))
    text, target = _value(connection, value, kind)
    # DuckDB finds a decimal type that holds both sides.
    if target != kind and not target.startswith("DECIMAL"):
        column = sql("CAST({c} AS {target})", c=column, target=Sql(target))
    return sql(
        "{c} {operator} CAST({value} AS {target})",
        c=column,
        operator=Sql(operator),
        value=literal(text),
        target=Sql(target),
    )


def is_ahead(connection: DuckDBPyConnection, cursor: Cursor | None, reached: Cursor | None) -> bool:
    """Whether a cursor lies ahead of the one that was reached. Raises ValueError for one that `bound` would refuse."""
    if cursor is None or reached is None:
        return False
    value = sql("CAST({value} AS {kind})", value=literal(reached.value), kind=Sql(reached.type))
    before = bound(connection, value, reached.type, "<", cursor.value)
    row = connection.execute(sql("SELECT {before}", before=before)).fetchone()
    return bool(row and row[0])


def _compared(column: Sql, operator: str, places: Sequence[Sql], *, null: bool) -> Sql:
    if operator in ("!=", "NOT IN"):
        some = sql("{c} NOT IN ({places})", c=column, places=join(", ", places))
        return some if places else sql("{c} IS NOT NULL", c=column)
    if operator in ("=", "IN"):
        some = sql("{c} IN ({places})", c=column, places=join(", ", places)) if places else Sql("FALSE")
        return sql("({some} OR {c} IS NULL)", some=some, c=column) if null else some
    if not places:
        return Sql("FALSE")
    return sql("{c} {o} {p}", c=column, o=Sql(operator), p=places[0])


def _value(connection: DuckDBPyConnection, value: Value, kind: str) -> tuple[Value, str]:
    """Return a value to bind and the type to compare it in."""
    text = ("true" if value else "false") if isinstance(value, bool) else str(value)
    for target in _targets(connection, text, kind):
        if _is(connection, text, target):
            return text, target
    raise ValueError(f"{text!r} is no {kind}")


def _targets(connection: DuckDBPyConnection, text: str, kind: str) -> tuple[str, ...]:
    number = _number(text)
    if kind == "DATE" and _has_time(connection, text):
        return ("TIMESTAMP",)
    if number is not None and types.is_integer(kind):
        whole = number == number.to_integral_value()
        return (kind, "HUGEINT", "DOUBLE") if whole else ("DOUBLE",)
    if number is not None and kind.startswith("DECIMAL"):
        return (_decimal(number), "DOUBLE")
    return (kind,)


def _is(connection: DuckDBPyConnection, text: str, target: str) -> bool:
    query = sql("SELECT TRY_CAST({text} AS {target}) IS NOT NULL", text=literal(text), target=Sql(target))
    try:
        row = connection.execute(query).fetchone()
    except duckdb.Error:
        # There is no such cast at all.
        return False
    return bool(row and row[0])


def _has_time(connection: DuckDBPyConnection, text: str) -> bool:
    query = sql(
        "SELECT TRY_CAST({t} AS TIMESTAMP) IS DISTINCT FROM CAST(TRY_CAST({t} AS DATE) AS TIMESTAMP)",
        t=literal(text),
    )
    row = connection.execute(query).fetchone()
    return bool(row and row[0])


def _number(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _decimal(number: Decimal) -> str:
    """A type that holds a number with all its digits, where one does."""
    _sign, digits, exponent = number.as_tuple()
    scale = max(0, -int(exponent))
    width = max(len(digits) + max(0, int(exponent)), scale, 1)
    return f"DECIMAL({width},{scale})" if width <= _WIDEST else "DOUBLE"
