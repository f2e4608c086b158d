"""A user's query → its result, staged, and checked against what its table promises."""

from __future__ import annotations

from collections.abc import Sequence

from duckdb import DuckDBPyConnection

from sqlflow_dagster.errors import LoadRefused, QueryFailed
from sqlflow_dagster.sql import Sql, TableName, fold, join, literal, quote, sql
from sqlflow_dagster.warehouse import query, schema, tables
from sqlflow_dagster.warehouse.udf import BoundQuery

RESULT = quote("temp", "_sqlflow_result")
_EVERYTHING = Sql("TRUE")
# DuckDB takes these as a query only inside another.
_DESCRIBING = ("DESCRIBE", "DESC", "SUMMARIZE", "SHOW")


def run(
    connection: DuckDBPyConnection, table: TableName, bound: BoundQuery, lead: Sql, tail: Sql | None = None
) -> None:
    """Run a query inside a statement of ours; its text stays as written, on lines of its own.

    Raises QueryFailed for `table` with the line of the query.
    """
    first = bound.text.lstrip().partition(" ")[0].upper()
    select = " SELECT * FROM" if first in _DESCRIBING and not lead.endswith("FROM") else ""
    statement = sql(
        "{lead}{select} (\n{body}\n) {tail}",
        lead=lead,
        select=Sql(select),
        body=bound.text,
        tail=tail or Sql(""),
    )
    try:
        tables.run(connection, statement)
    except query.Failure as error:
        raise query.failed(str(table), bound, error, lines_before=1) from error


def stage(
    connection: DuckDBPyConnection, table: TableName, bound: BoundQuery, wanted: Sql = _EVERYTHING
) -> None:
    """Keep the rows of the result that are wanted as `RESULT`, before anything of the table is touched."""
    lead = sql("CREATE OR REPLACE TEMP TABLE {name} AS SELECT * FROM", name=RESULT)
    run(connection, table, bound, lead, sql("WHERE {wanted}", wanted=wanted))


def make_room(
    connection: DuckDBPyConnection, table: TableName, policy: schema.Policy, *, anew: bool
) -> tuple[int, tuple[str, ...]]:
    """Make the table able to hold `RESULT`; return how many rows went, and what changed in words.

    A view of that name gives way to the table. `anew` builds the table from nothing.

    Raises QueryFailed where the policy does not allow what would have to change.
    """
    known = tables.kind(connection, table)
    if known is None or known == "VIEW" or anew:
        return _rebuilt(connection, table), ()
    # There is no place aside for rows of a query that do not fit: its SQL can be mended.
    allowed: schema.Policy = "strict" if policy == "strict" else "guided"
    try:
        changes = schema.plan(connection, quote(*table), RESULT, allowed, str(table))
    except LoadRefused as error:
        raise QueryFailed(f"{error}. CAST the column in the query, or run with --full-refresh") from error
    schema.apply(connection, quote(*table), changes)
    return 0, tuple(change.text for change in changes)


def drop(connection: DuckDBPyConnection, table: TableName, kind: str) -> int:
    """Drop the table or view where it is of that kind; return how many rows went with it."""
    if tables.kind(connection, table) != kind:
        return 0
    rows = tables.count(connection, table) if kind == "TABLE" else 0
    connection.execute(sql("DROP {kind} {table}", kind=Sql(kind), table=quote(*table)))
    return rows


def check_keys(connection: DuckDBPyConnection, table: TableName, keys: Sequence[str]) -> tuple[str, ...]:
    """Return a notice where several rows of `RESULT` have one key: they replace that key's rows together.

    Raises QueryFailed where it lacks a key column.
    """
    found = tables.columns(connection, RESULT)
    known = {fold(name) for name in found}
    missing = [key for key in keys if fold(key) not in known]
    if missing:
        raise QueryFailed(
            f"{table}: the query gives no column {', '.join(missing)}, which is its KEY; "
            f"it gives {', '.join(found)}"
        )
    parts = (
        sql("{name} || coalesce(CAST({key} AS VARCHAR), 'NULL')", name=literal(f"{key} = "), key=quote(key))
        for key in keys
    )
    twice = connection.execute(
        sql(
            "SELECT concat_ws(', ', {parts}), count(*) FROM {result} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1",
            parts=join(", ", parts),
            keys=join(", ", (quote(key) for key in keys)),
            result=RESULT,
        )
    ).fetchone()
    if not twice:
        return ()
    notice = (
        f"the query gives the key {twice[0]} {twice[1]} times, and all of its rows are stored; for one row a key "
        "aggregate it, or keep one by QUALIFY row_number() OVER (PARTITION BY …) = 1"
    )
    return (notice,)


def check_no_nulls(connection: DuckDBPyConnection, table: TableName, by: str) -> None:
    """Raise QueryFailed where `RESULT` has a NULL in the column that INCREMENTAL BY names."""
    row = connection.execute(
        sql("SELECT count(*) FROM {result} WHERE {by} IS NULL", result=RESULT, by=quote(by))
    ).fetchone()
    if row and row[0]:
        raise QueryFailed(
            f"{table}: {row[0]} rows have NULL in {by!r}, which INCREMENTAL BY goes by; "
            "filter them out or give them a value"
        )


def _rebuilt(connection: DuckDBPyConnection, table: TableName) -> int:
    indexes = tables.indexes(connection, table)
    emptied = drop(connection, table, "VIEW") + drop(connection, table, "TABLE")
    lead = "CREATE TABLE {table} AS FROM {rows} LIMIT 0"
    connection.execute(sql(lead, table=quote(*table), rows=RESULT))
    tables.recreate(connection, indexes)
    return emptied
