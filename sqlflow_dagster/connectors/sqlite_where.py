"""Rows that are wanted → what SQLite may leave out: its order is that of values, whatever a column is declared to be.

Numbers come before texts, and texts before BLOBs. The warehouse compares again, so that each condition may
keep too much.
"""

from __future__ import annotations

from datetime import date, timedelta

from sqlflow_dagster.connectors.base import Ask, Span
from sqlflow_dagster.connectors.sql_select import ISO, NUMBER
from sqlflow_dagster.connectors.sqlite_types import Column, query_sql
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.sql import Condition, Sql, join, literal, quote, sql

_NUMBERS = ("BIGINT", "INTEGER", "SMALLINT", "TINYINT", "HUGEINT", "DOUBLE", "FLOAT")
_TIMES = ("DATE", "TIMESTAMP")
# A time zone moves a day by less than this.
_SLACK = timedelta(days=2)
# Numbers, and texts that a blank begins; BLOBs; NULL: they are in no order with times. A literal that reads as a number
# would become one; without `unlikely` an index is held for too dear.
_OTHERS = "unlikely({c} < '/') OR unlikely({c} >= x'') OR {c} IS NULL"
_PADDED = "[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"


def since(column: Column, cursor: Cursor) -> Sql:
    """Return what is true from the cursor on, and for what is in another order."""
    c = quote(column.name)
    if cursor.type in _NUMBERS or cursor.type.startswith("DECIMAL"):
        # A column of TEXT compares numbers as text.
        if column.affinity == "text":
            return Sql("TRUE")
        value = sql("CAST({value} AS NUMERIC)", value=literal(cursor.value))
        return sql("({c} >= {value} OR {c} IS NULL)", c=c, value=value)
    if cursor.type == "VARCHAR":
        value = literal(cursor.value)
    elif cursor.type.startswith(_TIMES) and (day := _day(cursor.value)):
        value = literal(day)
    else:
        return Sql("TRUE")
    return sql("({c} COLLATE BINARY >= {value} OR {others})", c=c, value=value, others=sql(_OTHERS, c=c))


def within(ask: Ask, column: Column, relation: Sql, span: Span) -> Sql:
    """Return what is true inside a span, and for what is in another order; `relation` has the column."""
    c = quote(column.name)
    if column.times or column.affinity == "text":
        others, parts = sql(_OTHERS, c=c), _times_within(c, span)
    elif _has_numbers_alone(ask, c, relation):
        others, parts = sql("{c} IS NULL", c=c), _numbers_within(c, span)
    else:
        return Sql("TRUE")
    return sql("({all} OR {others})", all=join(" AND ", parts), others=others) if parts else Sql("TRUE")


def filtered(column: Column, condition: Condition) -> Sql:
    """Return what a filter asks of numbers."""
    value = condition.values[0]
    if (
        condition.operator in ("IN", "NOT IN", "!=")
        or isinstance(value, bool)
        or not isinstance(value, int | float)
    ):
        return Sql("TRUE")
    return sql(
        "({c} {operator} {value} OR typeof({c}) NOT IN ('integer', 'real'))",
        c=quote(column.name),
        operator=Sql(condition.operator),
        value=Sql(repr(value)),
    )


def _times_within(c: Sql, span: Span) -> list[Sql]:
    """Days are texts of one order where their parts are padded, and their years are in any form."""
    found = []
    if day := _day_off(span.start, -_SLACK):
        found.append(sql("{c} COLLATE BINARY >= {day}", c=c, day=literal(day.isoformat())))
    if day := _day_off(span.end, _SLACK):
        found.append(sql("{c} COLLATE BINARY < {year}", c=c, year=literal(f"{day.year:04}:")))
        padded = "({c} COLLATE BINARY < {day} OR {c} NOT GLOB {padded})"
        found.append(sql(padded, c=c, day=literal(day.isoformat()), padded=literal(_PADDED)))
    return found


def _numbers_within(c: Sql, span: Span) -> list[Sql]:
    # Of two numbers that are one as floats the smaller may lie before the end.
    return [
        sql("{c} {o} CAST({value} AS NUMERIC)", c=c, o=Sql(operator), value=literal(text))
        for operator, text in ((">=", span.start), ("<=", span.end))
        if text and NUMBER.fullmatch(text)
    ]


def _has_numbers_alone(ask: Ask, c: Sql, relation: Sql) -> bool:
    """Whether no text is among the values: there the warehouse compares numbers as texts too."""
    last = sql("SELECT typeof(max({c})) FROM {relation}", c=c, relation=relation)
    ((kind,),) = ask(sql("FROM {query}", query=query_sql(last)))
    return kind in ("integer", "real")


def _day(text: str) -> str | None:
    """A day early enough that no text of a later time, in whichever zone, comes before it."""
    try:
        return (date.fromisoformat(text[:10]) - _SLACK).isoformat() if text[10:11] in ("", " ") else None
    except (ValueError, OverflowError):
        return None


def _day_off(text: str | None, slack: timedelta) -> date | None:
    """The day of an end, and so much off; None where there is none."""
    try:
        return date.fromisoformat(text[:10]) + slack if text and ISO.fullmatch(text) else None
    except (ValueError, OverflowError):
        return None
