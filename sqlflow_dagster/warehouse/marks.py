"""Which LOADs have marked all of their rows in a table: `_sqlflow.marked_loads`.

A LOAD with `row_provenance` marks each row with its own name. Rows that it stored before it did so
look like those of other statements, so that it cannot replace its own in a table that it shares.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from duckdb import DuckDBPyConnection

from sqlflow_dagster.sql import Sql, bound, fold, literal, quote, sql
from sqlflow_dagster.warehouse import commits, tables, types
from sqlflow_dagster.warehouse.selection import OWNER

if TYPE_CHECKING:
    from sqlflow_dagster.warehouse.spec import LoadSpec

_MARKED = quote("_sqlflow", "marked_loads")


def own(spec: LoadSpec) -> Sql:
    """Return what is true for the rows that a LOAD has marked as its own."""
    return sql("{owner} = {load}", owner=quote(OWNER), load=literal(spec.key.load))


def note(connection: DuckDBPyConnection, spec: LoadSpec, *, anew: bool) -> None:
    """Note, in the caller's transaction and before rows go in, whether all rows of a LOAD are marked.

    `anew` says that the table is built from nothing.
    """
    if not spec.row_provenance:
        if _exists(connection):
            connection.execute(sql("DELETE FROM {marked} WHERE {this}", marked=_MARKED, this=_this(spec)))
        return
    if not are_all(connection, spec) and (anew or not _has_unmarked(connection, spec)):
        commits.prepare(connection)
        connection.execute(
            sql(
                "CREATE TABLE IF NOT EXISTS {marked} (table_schema VARCHAR, table_name VARCHAR, load VARCHAR)",
                marked=_MARKED,
            )
        )
        connection.execute(
            bound("INSERT INTO {marked} VALUES ($1, $2, $3)", [*spec.table, spec.key.load], marked=_MARKED)
        )


def are_all(connection: DuckDBPyConnection, spec: LoadSpec) -> bool:
    """Whether all rows that a LOAD has in its table are known to be marked."""
    if not spec.row_provenance or not _exists(connection):
        return False
    query = sql("SELECT 1 FROM {marked} WHERE {this}", marked=_MARKED, this=_this(spec))
    return connection.execute(query).fetchone() is not None


def _has_unmarked(connection: DuckDBPyConnection, spec: LoadSpec) -> bool:
    """Whether there are rows that may be of this LOAD, from before it marked them."""
    table = quote(*spec.table)
    marked = OWNER in {fold(name) for name in tables.columns(connection, table)}
    unmarked = sql("{owner} IS NULL", owner=quote(OWNER)) if marked else Sql("TRUE")
    return types.any_row(connection, table, unmarked) and commits.has_rows(connection, spec.key)


def _this(spec: LoadSpec) -> Sql:
    return bound("table_schema = $1 AND table_name = $2 AND load = $3", [*spec.table, spec.key.load])


def _exists(connection: DuckDBPyConnection) -> bool:
    return tables.exists(connection, _MARKED)
