"""A text as the cursor → whether its order by letters is that of the numbers or times that it says."""

from __future__ import annotations

from duckdb import DuckDBPyConnection

from sqlflow_dagster.errors import LoadRefused
from sqlflow_dagster.sql import Sql, TableName, literal, quote, sql

# Numbers of so many digits are years, days and seconds since 1970, which have the same number of digits for long.
_FEWEST_DIGITS = 4
_NUMBER = r"[-+]?\d+([.]\d+)?"
_ALIKE = """
SELECT count({c}), bool_and(regexp_full_match({c}, {number})), bool_and(regexp_full_match({c}, '[0-9]+')),
  min(length({c})), max(length({c})), max({c}), arg_max({c}, TRY_CAST({c} AS DECIMAL(38, 9)))
FROM {rows}
"""
_TIMES = """
SELECT bool_and(TRY_CAST({c} AS TIMESTAMPTZ) IS NOT NULL), max({c}), arg_max({c}, TRY_CAST({c} AS TIMESTAMPTZ)),
  TRY_CAST(max({c}) AS TIMESTAMPTZ) < max(TRY_CAST({c} AS TIMESTAMPTZ))
FROM {rows}
"""


def check(connection: DuckDBPyConnection, table: TableName, rows: Sql, column: str) -> None:
    """Raise LoadRefused where rows would be missed because a text is compared by its letters."""
    parts = {"c": quote(column), "rows": rows, "number": literal(_NUMBER)}
    found = connection.execute(sql(_ALIKE, **parts)).fetchone()
    if found is None or not found[0]:
        return
    _, numbers, digits, shortest, longest, last, greatest = found
    if numbers:
        if not digits or shortest < longest or longest < _FEWEST_DIGITS:
            raise _refused(table, column, "numbers", last, greatest, "BIGINT" if digits else "DECIMAL(38, 9)")
        return
    found = connection.execute(sql(_TIMES, **parts)).fetchone()
    if found is None:
        return
    times, last, greatest, wrong = found
    if times and wrong:
        raise _refused(table, column, "times in several forms", last, greatest, "TIMESTAMPTZ")


def _refused(table: TableName, column: str, what: str, last: str, greatest: str, kind: str) -> LoadRefused:
    order = f"{last!r} comes after {greatest!r}" if last != greatest else "'9' comes after '10'"
    return LoadRefused(
        f"{table}: the cursor column {column!r} holds {what} as text, which are compared by their letters: {order}, "
        f'and rows would be missed; declare what it is, e.g. "types": {{"{column}": "{kind}"}}, CAST it in a `query`, '
        "or name another cursor_field"
    )
