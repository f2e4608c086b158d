"""INCREMENTAL BY → the half-open window that one run replaces, and the macros that name it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.errors import QueryFailed
from sqlflow_dagster.language.tokens import scan
from sqlflow_dagster.sql import Sql, TableName, join, literal, quote, sql
from sqlflow_dagster.warehouse import tables
from sqlflow_dagster.warehouse.shape import Window

_MACROS = {
    "start_date": ("DATE", 0),
    "end_date": ("DATE", 1),
    "start_dt": ("TIMESTAMP", 0),
    "end_dt": ("TIMESTAMP", 1),
}
# What an open end reads as in the macros: far enough for any data, and safe to calculate with.
_EARLIEST, _LATEST = "0001-01-01", "9999-12-31"


@dataclass(frozen=True, slots=True)
class Bounds:
    """`[start, end)` as text of the column's own type; None is open."""

    start: str | None
    end: str | None
    type: str | None

    def condition(self, column: Sql) -> Sql:
        """Return what is true for a row inside the window."""
        parts = [
            sql(
                "{column} {operator} {bound}", column=column, operator=Sql(operator), bound=self._typed(bound)
            )
            for operator, bound in ((">=", self.start), ("<", self.end))
            if bound is not None
        ]
        return join(" AND ", parts) if parts else Sql("TRUE")

    def _typed(self, text: str) -> Sql:
        if self.type is None:
            return literal(text)
        return sql("CAST({text} AS {type})", text=literal(text), type=Sql(self.type))


def bounds(
    connection: DuckDBPyConnection,
    table: TableName,
    by: str,
    lookback: str | None,
    window: Window | None,
    start: str | None,
) -> Bounds:
    """Return the window of this run: the partition, else from max(by) less the lookback on, else all.

    Raises QueryFailed where a lookback in time meets a column that is no time.
    """
    known = tables.columns(connection, quote(*table)) if tables.kind(connection, table) else {}
    column = next((name for name in known if name.casefold() == by.casefold()), None)
    kind = known.get(column) if column else None
    if window:
        return Bounds(window.start, window.end, kind)
    if column is None or kind is None:
        return Bounds(start, None, None)
    newest = sql("max({column})", column=quote(column))
    if lookback:
        newest = sql("{newest} - CAST({lookback} AS INTERVAL)", newest=newest, lookback=literal(lookback))
    query = sql(
        "SELECT CAST(CAST({newest} AS {type}) AS VARCHAR) FROM {table}",
        newest=newest,
        type=Sql(kind),
        table=quote(*table),
    )
    try:
        row = connection.execute(query).fetchone()
    except duckdb.BinderException as error:
        raise QueryFailed(
            f"{table}: LOOKBACK {lookback} cannot be taken from {by!r}, which is {kind}; use a date or time"
        ) from error
    return Bounds(row[0] if row and row[0] is not None else start, None, kind)


def with_macros(query: str, span: Bounds) -> str:
    """Return the body with `@start_date`, `@end_date`, `@start_dt` and `@end_dt` as typed literals.

    On a first run without a start they reach from year 1, and without an end to year 9999. Strings
    and comments are left alone.
    """
    parts: list[str] = []
    position = 0
    previous = None
    for token in scan(query):
        if previous is not None and previous.text == "@" and previous.end == token.start:
            macro = _MACROS.get(token.text.casefold())
            if macro:
                parts += [query[position : previous.start], _literal(*macro, span)]
                position = token.end
        previous = token
    return "".join(parts) + query[position:]


def _literal(kind: str, end: int, span: Bounds) -> Sql:
    bound = (span.end or _LATEST) if end else (span.start or _EARLIEST)
    if kind == "DATE" and re.match(r"\d{4}-\d\d-\d\d", bound):
        bound = bound[:10]
    return sql("CAST({bound} AS {kind})", bound=literal(bound), kind=Sql(kind))
