"""A cursor and a distance → the cursor to read from again."""

from __future__ import annotations

import duckdb

from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import BadOption
from sqlflow_dagster.sql import Sql, literal, sql


def behind(cursor: Cursor, lookback: str) -> Cursor:
    """Return the cursor moved back by an interval text, or by a number for a numeric column.

    Raises BadOption where the column's type has no such distance.
    """
    kind = Sql(cursor.type)
    numeric = lookback.removesuffix(" seconds").strip()
    distance = (
        literal(int(numeric))
        if numeric.isdecimal() and not cursor.type.startswith(("DATE", "TIME"))
        else sql("CAST({text} AS INTERVAL)", text=literal(lookback))
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        try:
            row = connection.execute(
                sql(
                    "SELECT CAST(CAST(CAST({value} AS {kind}) - {distance} AS {kind}) AS VARCHAR)",
                    value=literal(cursor.value),
                    kind=kind,
                    distance=distance,
                )
            ).fetchone()
        except duckdb.Error as error:
            raise BadOption(
                f"lookback_window {lookback!r} cannot be taken from a cursor of type {cursor.type}",
                option="lookback_window",
            ) from error
    return Cursor(row[0], cursor.type) if row else cursor
