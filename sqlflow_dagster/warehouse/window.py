"""INCREMENTAL BY → the half-open window that one run replaces, and the macros that name it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.errors import QueryFailed
from sqlflow_dagster.language.tokens import SqlToken, scan
from sqlflow_dagster.sql import Sql, TableName, join, literal, quote, sql
from sqlflow_dagster.warehouse.shape import Window

# What an open end reads as in the macros: beyond any data, and safe to calculate with.
_EARLIEST, _LATEST = "0001-01-01", "9999-12-31"
_EARLIEST_NS, _LATEST_NS = "1677-09-22", "2262-04-11"
_MACROS = frozenset({"start_date", "end_date", "start_dt", "end_dt"})
_FINITE = ("DATE", "TIMESTAMP", "FLOAT", "DOUBLE")


@dataclass(frozen=True, slots=True)
class Bounds:
    """`[start, end)` of one column as text of the SQL type `type`; None is open."""

    start: str | None
    end: str | None
    type: str

    def condition(self, column: Sql) -> Sql:
        """Return what is true for a row inside the window."""
        parts = [
            sql(
                "{column} {operator} CAST({bound} AS {type})",
                column=column,
                operator=Sql(operator),
                bound=literal(bound),
                type=Sql(self.type),
            )
            for operator, bound in ((">=", self.start), ("<", self.end))
            if bound is not None
        ]
        return join(" AND ", parts) if parts else Sql("TRUE")


def next_bounds(
    connection: DuckDBPyConnection,
    table: TableName,
    by: str,
    kind: str,
    lookback: str | None,
    start: str | None,
) -> Bounds:
    """Return the window of a run without partitions: from max(by) less the lookback on.

    A table without rows takes all, from `start` on, and so does one whose lookback goes beyond the
    numbers or the times of day of its type; no run goes before `start`. Infinite values do not move
    the window. `kind` is the type of `by` in the table.

    Raises QueryFailed where the lookback or `start` is no distance or point of that type.
    """
    newest = sql("max({by})", by=quote(by))
    if kind.startswith(_FINITE):
        newest = sql("{newest} FILTER (WHERE isfinite({by}))", newest=newest, by=quote(by))
    first = sql("CAST({start} AS {kind})", start=literal(start), kind=Sql(kind))
    query = sql(
        "SELECT CAST(greatest(TRY_CAST({earlier} AS {kind}), {first}) AS VARCHAR) FROM {table}"
        if lookback
        else "SELECT CAST(greatest({newest}, {first}) AS VARCHAR) FROM {table}",
        newest=newest,
        earlier=_earlier(newest, lookback or "", kind),
        first=first,
        kind=Sql(kind),
        table=quote(*table),
    )
    try:
        row = connection.execute(query).fetchone()
    except (duckdb.BinderException, duckdb.ConversionException) as error:
        what = f"LOOKBACK {lookback}" if lookback else f"the start {start!r}"
        raise QueryFailed(
            f"{table}: {what} does not fit the column {by!r}, which is {kind}; "
            "CAST it to a date or time in the query, or give a number for a numeric column (LOOKBACK '100')"
        ) from error
    return Bounds(row[0] if row else None, None, kind)


def is_far_ahead(connection: DuckDBPyConnection, span: Bounds) -> bool:
    """Whether a window begins more than a day after now, so that present rows are out of it."""
    if span.start is None or not span.type.startswith(("DATE", "TIMESTAMP")):
        return False
    row = connection.execute(
        sql(
            "SELECT CAST(CAST({start} AS {type}) AS TIMESTAMP) > CAST(now() AS TIMESTAMP) + INTERVAL 1 DAY",
            start=literal(span.start),
            type=Sql(span.type),
        )
    ).fetchone()
    return bool(row and row[0])


def partition_bounds(partition: Window, kind: str) -> Bounds:
    """Return a partition's window for a column of type `kind`.

    A column without a time zone is compared with the partition's own clock time, and a date as its
    midnight.

    Raises QueryFailed where the column is no date or time.
    """
    if kind == "TIMESTAMP WITH TIME ZONE":
        return Bounds(partition.start, partition.end, kind)
    if not kind.startswith(("DATE", "TIMESTAMP")):
        raise QueryFailed(
            f"a partition needs INCREMENTAL BY a date or time, and this column is {kind}; CAST it in the query"
        )
    # DuckDB's TIMESTAMP leaves an offset out, as is wanted here; its TIMESTAMP_NS applies it.
    return Bounds(partition.start, partition.end, "TIMESTAMP")


def has_macros(query: str) -> bool:
    """Whether a query uses one of `@start_date`, `@end_date`, `@start_dt` and `@end_dt`."""
    return next(_macros(query), None) is not None


def with_macros(connection: DuckDBPyConnection, query: str, span: Bounds) -> str:
    """Return the query with its macros as typed literals; strings and comments are left alone.

    `@start_date` is the day that the window begins in, `@end_date` the first day after it, the
    others are the exact times: TIMESTAMPTZ where the column is one. An open beginning reads as
    0001-01-01 and an open end as 9999-12-31; for a TIMESTAMP_NS column as the ends of its range.

    Raises QueryFailed where the column is no date or time.
    """
    if not has_macros(query):
        return query
    values = _values(connection, span)
    parts: list[str] = []
    position = 0
    for at, name in _macros(query):
        parts += [query[position : at.start], values[name.text.casefold()]]
        position = name.end
    return "".join(parts) + query[position:]


def _macros(query: str) -> Iterator[tuple[SqlToken, SqlToken]]:
    """Yield the `@` and the name of each macro."""
    before: SqlToken | None = None
    for token in scan(query):
        if (
            before is not None
            and before.text == "@"
            and before.end == token.start
            and token.text.casefold() in _MACROS
        ):
            yield before, token
        before = token


def _values(connection: DuckDBPyConnection, span: Bounds) -> dict[str, Sql]:
    nanoseconds = span.type == "TIMESTAMP_NS"
    zoned = span.type == "TIMESTAMP WITH TIME ZONE"
    exact = Sql("TIMESTAMPTZ" if zoned else "TIMESTAMP_NS" if nanoseconds else "TIMESTAMP")
    start = _time(span.start, span.type, _EARLIEST_NS if nanoseconds else _EARLIEST, exact)
    end = _time(span.end, span.type, _LATEST_NS if nanoseconds else _LATEST, exact)
    try:
        row = connection.execute(
            sql(
                "SELECT CAST(CAST({start} AS DATE) AS VARCHAR),"
                " CAST(CAST({end} AS DATE) + CAST({end} > CAST({end} AS DATE) AS INTEGER) AS VARCHAR),"
                " CAST({start} AS VARCHAR), CAST({end} AS VARCHAR)",
                start=start,
                end=end,
            )
        ).fetchone()
    except (duckdb.ConversionException, duckdb.BinderException) as error:
        raise QueryFailed(
            f"the macros @start_date, @end_date, @start_dt and @end_dt need INCREMENTAL BY a date or time, and "
            f"this column is {span.type}; leave them out: rows outside the window are filtered in any case"
        ) from error
    kinds = (Sql("DATE"), Sql("DATE"), exact, exact)
    names = ("start_date", "end_date", "start_dt", "end_dt")
    return {
        name: sql("CAST({text} AS {kind})", text=literal(text), kind=kind)
        for name, text, kind in zip(names, row or (), kinds, strict=True)
    }


def _time(bound: str | None, kind: str, open_end: str, exact: Sql) -> Sql:
    if bound is None:
        return sql("CAST({text} AS {exact})", text=literal(open_end), exact=exact)
    value = sql("CAST({text} AS {kind})", text=literal(bound), kind=Sql(kind))
    return sql("CAST({value} AS {exact})", value=value, exact=exact)


def _earlier(newest: Sql, lookback: str, kind: str) -> Sql:
    distance = _distance(lookback, kind)
    # DuckDB goes round the clock: before 00:00 comes 23:59.
    template = "CASE WHEN epoch({distance}) <= epoch({newest}) THEN {newest} - {distance} END"
    return sql(
        template if kind.startswith("TIME") and not kind.startswith("TIMESTAMP") else "{newest} - {distance}",
        newest=newest,
        distance=distance,
    )


def _distance(lookback: str, kind: str) -> Sql:
    """`7 DAYS` is an interval; a bare number is one only where the column is a number."""
    number = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*", lookback)
    if number and not kind.startswith(("DATE", "TIME", "VARCHAR")):
        return sql("CAST({number} AS DECIMAL(38, 9))", number=literal(number.group(1)))
    return sql("CAST({text} AS INTERVAL)", text=literal(lookback))
