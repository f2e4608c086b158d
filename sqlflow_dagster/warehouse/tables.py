"""Tables of the warehouse: what they are, and rows put into them without losing anything of a value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.language.tokens import scan
from sqlflow_dagster.sql import Sql, TableName, bound, fold, join, literal, quote, sql

DISK_FULL = "the disk is full, nothing was stored; make room, then run again"
_STATEMENTS = quote("_sqlflow", "statements")


def check_single(query: str) -> None:
    """Raise ProjectError where a `;` ends a query before its text ends: one may stand in a statement."""
    end = 0
    for token in scan(query, trivia=True):
        end = token.end
    if end != len(query):
        raise ProjectError("one query may stand in a statement, and a ; ends it")


def run(connection: DuckDBPyConnection, statement: Sql) -> None:
    """Run a statement, in the caller's transaction.

    DuckDB unfolds a PIVOT without IN into several, and wraps them in a transaction or a setting of
    their own, which a locked connection refuses and the caller's transaction makes needless.
    """
    for part in connection.extract_statements(statement):
        if part.type not in (duckdb.StatementType.TRANSACTION, duckdb.StatementType.SET):
            connection.execute(part)


def is_disk_full(error: Exception) -> bool:
    """Whether an error of DuckDB says that a file could not grow."""
    return any(words in str(error) for words in ("No space left", "File too large"))


def prepare(connection: DuckDBPyConnection, table: TableName) -> None:
    """Make the schema of `table` where it is missing."""
    connection.execute(sql("CREATE SCHEMA IF NOT EXISTS {schema}", schema=quote(table.schema)))


def exists(connection: DuckDBPyConnection, relation: Sql) -> bool:
    """Whether there is a table or view.

    DuckDB's own lists of tables would ask each attached database for all of its tables and columns,
    which takes long for a server that has many, and fails for one with names that differ in case only.
    A query would take `p."x.csv"` for a file where there is no such table; the function cannot read a
    quoted quote.
    """
    if '""' in relation:
        asked = sql("SELECT 1 FROM {relation} LIMIT 0", relation=relation)
    else:
        asked = sql("FROM pragma_table_info({name}) LIMIT 0", name=literal(str(relation)))
    try:
        connection.execute(asked)
    except duckdb.CatalogException:
        return False
    except duckdb.BinderException:
        # A view of columns that its tables have no more.
        return True
    return True


def is_readable(connection: DuckDBPyConnection, relation: Sql) -> bool:
    """Whether there is a table, or a view whose query still fits its tables."""
    if not exists(connection, relation):
        return False
    try:
        connection.execute(sql("SELECT 1 FROM {relation} LIMIT 0", relation=relation))
    except (duckdb.CatalogException, duckdb.BinderException):
        return False
    return True


def kind(connection: DuckDBPyConnection, table: TableName) -> str | None:
    """Return `TABLE` or `VIEW`, None where there is neither."""
    if not exists(connection, quote(*table)):
        return None
    if _has_row_ids(connection, quote(*table)):
        return "TABLE"
    row = connection.execute(
        bound(
            "SELECT table_type FROM information_schema.tables WHERE table_catalog = current_catalog()"
            " AND lower(table_schema) = lower($1) AND lower(table_name) = lower($2)",
            table,
        )
    ).fetchone()
    if row is None:
        return None
    return "VIEW" if row[0] == "VIEW" else "TABLE"


def _has_row_ids(connection: DuckDBPyConnection, relation: Sql) -> bool:
    """Whether a relation is certainly a table: a view has no row ids, but may have a column of that name."""
    try:
        connection.execute(sql("SELECT rowid FROM {relation} LIMIT 0", relation=relation))
    except duckdb.BinderException:
        return False
    return "rowid" not in {fold(name) for name in columns(connection, relation)}


def columns(connection: DuckDBPyConnection, relation: Sql) -> dict[str, str]:
    """Return the names and DuckDB types of a relation's columns, in order."""
    rows = connection.execute(sql("DESCRIBE FROM {relation}", relation=relation)).fetchall()
    return {row[0]: row[1] for row in rows}


def count(connection: DuckDBPyConnection, table: TableName) -> int:
    """Return the number of rows."""
    return _number(connection.execute(sql("SELECT count(*) FROM {table}", table=quote(*table))).fetchone())


def deleted(connection: DuckDBPyConnection, statement: Sql) -> int:
    """Run a statement that changes rows and return how many it changed."""
    return _number(connection.execute(statement).fetchone())


def insert(connection: DuckDBPyConnection, table: TableName, rows: Sql, where: Sql) -> int:
    """Insert the rows of a relation by name and return how many they are."""
    statement = sql(
        "INSERT INTO {table} BY NAME SELECT * FROM {rows} WHERE {where}",
        table=quote(*table),
        rows=rows,
        where=where,
    )
    return _number(connection.execute(statement).fetchone())


def indexes(connection: DuckDBPyConnection, table: TableName) -> list[str]:
    """Return the statements that make the table's indexes."""
    rows = connection.execute(
        bound(
            "SELECT sql FROM duckdb_indexes() WHERE database_name = current_catalog()"
            " AND lower(schema_name) = lower($1) AND lower(table_name) = lower($2) AND sql IS NOT NULL",
            table,
        )
    ).fetchall()
    return [row[0] for row in rows]


def recreate(connection: DuckDBPyConnection, statements: list[str]) -> tuple[str, ...]:
    """Make indexes again on a table that was swapped; they are in the same transaction."""
    for statement in statements:
        connection.execute(statement)
    return ()


def was_done(connection: DuckDBPyConnection, statement: str, run_id: str, partition: str | None) -> bool:
    """Whether a try of the same run stored this statement's result already."""
    _make_statements(connection)
    row = connection.execute(
        bound(
            "SELECT 1 FROM {statements} WHERE statement = $1 AND run_id = $2 AND partition IS NOT DISTINCT FROM $3",
            [statement, run_id, partition],
            statements=_STATEMENTS,
        )
    ).fetchone()
    return row is not None


def note_done(connection: DuckDBPyConnection, statement: str, run_id: str, partition: str | None) -> None:
    """Remember, in the caller's transaction, that this run stored the statement's result."""
    _make_statements(connection)
    connection.execute(
        bound(
            "INSERT INTO {statements} VALUES ($1, $2, $3, now())",
            [statement, run_id, partition],
            statements=_STATEMENTS,
        )
    )


def forget_done(connection: DuckDBPyConnection, statements: Sequence[str], run_id: str) -> None:
    """Have this run store the statements' results again: what they had stored is gone."""
    _make_statements(connection)
    connection.execute(
        sql(
            "DELETE FROM {done} WHERE run_id = {run_id} AND statement IN ({statements})",
            done=_STATEMENTS,
            run_id=literal(run_id),
            statements=join(", ", map(literal, statements)),
        )
    )


def _make_statements(connection: DuckDBPyConnection) -> None:
    connection.execute(sql("CREATE SCHEMA IF NOT EXISTS {schema}", schema=quote("_sqlflow")))
    connection.execute(
        sql(
            "CREATE TABLE IF NOT EXISTS {statements}"
            " (statement VARCHAR, run_id VARCHAR, partition VARCHAR, committed_at TIMESTAMPTZ)",
            statements=_STATEMENTS,
        )
    )


def _number(row: tuple[Any, ...] | None) -> int:
    return int(row[0]) if row else 0
