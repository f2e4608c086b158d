"""A cursor and a distance → the cursor to read from again."""

from __future__ import annotations

import duckdb

from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import BadOption
from sqlflow_dagster.sql import Sql, literal, sql
from sqlflow_dagster.warehouse import types


def behind(cursor: Cursor, lookback: str) -> Cursor:
    """Return the cursor moved back by an interval text, or by a number for a numeric column.

    Raises BadOption where the column's type has no such distance.
    """
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        try:
            row = connection.execute(_query(cursor, lookback)).fetchone()
        except duckdb.Error as error:
            raise BadOption(
                f"lookback_window {lookback!r} cannot be taken from a cursor of type {cursor.type}",
                option="lookback_window",
            ) from error
    return Cursor(row[0], cursor.type) if row else cursor


def _query(cursor: Cursor, lookback: str) -> Sql:
    kind, value = Sql(cursor.type), literal(cursor.value)
    number = lookback.removesuffix(" seconds").strip()
    if cursor.type == "TIME":
        # DuckDB goes round the clock: before 00:00 comes 23:59.
        return sql(
            "SELECT CAST(CASE WHEN epoch({distance}) <= epoch({value}) THEN {value} - {distance}"
            " ELSE TIME '00:00:00' END AS VARCHAR)",
            value=sql("CAST({value} AS TIME)", value=value),
            distance=sql("CAST({text} AS INTERVAL)", text=literal(lookback)),
        )
    if types.is_time(cursor.type) or not number.isdecimal():
        return sql(
            "SELECT CAST(CAST(CAST({value} AS {kind}) - CAST({distance} AS INTERVAL) AS {kind}) AS VARCHAR)",
            value=value,
            kind=kind,
            distance=literal(lookback),
        )
    # No unsigned number lies below zero, and all of them do not lie before it.
    least = sql("CAST(0 AS {kind})", kind=kind) if cursor.type.startswith("U") else Sql("NULL")
    return sql(
        "SELECT CAST(coalesce(TRY_CAST(CAST({value} AS {wide}) - {distance} AS {kind}), {least}) AS VARCHAR)",
        value=value,
        wide=Sql("HUGEINT") if types.is_integer(cursor.type) else kind,
        distance=literal(int(number)),
        kind=kind,
        least=least,
    )
