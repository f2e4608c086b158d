"""A user's query → a table or view, in one transaction, by one of four modes.

The query runs on the locked-down connection; what stands around it is ours. A mode that is not
idempotent leaves a marker in its own transaction, so that a retry of the same run skips it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.errors import ProjectError, QueryFailed
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.sql import Sql, TableName, join, quote, sql
from sqlflow_dagster.warehouse import tables
from sqlflow_dagster.warehouse.duckdb import Warehouse
from sqlflow_dagster.warehouse.shape import Window
from sqlflow_dagster.warehouse.udf import BoundQuery, Functions
from sqlflow_dagster.warehouse.window import Bounds, bounds, with_macros

_RESULT = quote("temp", "_sqlflow_result")


@dataclass(frozen=True, slots=True)
class TransformSpec:
    """One CREATE: `sql` has its variables filled in. `start` is where a first INCREMENTAL begins.

    `search_path` are the schemas that unqualified names are looked up in, in order.
    """

    table: TableName
    view: bool
    mode: Literal["replace", "append", "upsert", "incremental"]
    keys: tuple[str, ...]
    by: str | None
    lookback: str | None
    sql: str
    window: Window | None
    start: str | None
    run_id: str
    statement: str
    search_path: tuple[str, ...] = ()
    partition: str | None = None


@dataclass(frozen=True, slots=True)
class Transformed:
    """What became of a table: counts of rows, `total_rows` None for a view, and its columns' types."""

    inserted: int
    deleted: int
    total_rows: int | None
    columns: Mapping[str, str]
    notices: tuple[str, ...] = ()
    skipped: bool = False


def transform(warehouse: Warehouse, spec: TransformSpec, functions: Functions) -> Transformed:
    """Store the query's result as `spec.mode` says, and return what changed.

    Raises QueryFailed with DuckDB's or the Python function's own words; the table is as it was.
    """
    tables.check_single(spec.sql)
    with warehouse.open_locked_down(spec.search_path) as connection:
        try:
            connection.execute("BEGIN")
            tables.prepare(connection, spec.table)
            done = _store(connection, spec, functions)
            failpoint("before_commit")
            connection.execute("COMMIT")
        except duckdb.Error as error:
            raise QueryFailed(f"{spec.table}: {error}") from error
        return done


def _store(connection: DuckDBPyConnection, spec: TransformSpec, functions: Functions) -> Transformed:
    if spec.mode == "append" and tables.was_done(connection, spec.statement, spec.run_id, spec.partition):
        return _done(connection, spec, 0, 0, skipped=True)
    if spec.mode == "replace":
        return _replace(connection, spec, functions)
    span = bounds(connection, spec.table, spec.by or "", spec.lookback, spec.window, spec.start)
    text = with_macros(spec.sql, span) if spec.mode == "incremental" else spec.sql
    _run(
        connection,
        functions.bind(connection, text),
        spec,
        sql("CREATE OR REPLACE TEMP TABLE {result} AS ", result=_RESULT),
    )
    changes = tables.fit(connection, spec.table, _RESULT)
    match spec.mode:
        case "append":
            deleted, where = 0, Sql("TRUE")
            tables.note_done(connection, spec.statement, spec.run_id, spec.partition)
        case "upsert":
            deleted, where = _delete_keys(connection, spec), Sql("TRUE")
        case _:
            deleted, where = _delete_window(connection, spec, span)
    inserted = tables.insert(connection, spec.table, _RESULT, where)
    connection.execute(sql("DROP TABLE {result}", result=_RESULT))
    return _done(connection, spec, inserted, deleted, notices=changes)


def _replace(connection: DuckDBPyConnection, spec: TransformSpec, functions: Functions) -> Transformed:
    before = tables.kind(connection, spec.table)
    deleted = tables.count(connection, spec.table) if before == "TABLE" else 0
    indexes = tables.indexes(connection, spec.table) if not spec.view else []
    bound = functions.bind(connection, spec.sql)
    if spec.view and bound.registered:
        raise ProjectError(
            f"{spec.table}: a VIEW cannot call PYTHON_FUNC, which lives only in a run; use TABLE"
        )
    wanted = Sql("VIEW" if spec.view else "TABLE")
    name = quote(*spec.table)
    if before and before != wanted:
        # A self-reading query needs the old kind until the new one is made.
        aside = quote(spec.table.schema, "_sqlflow_new")
        _run(connection, bound, spec, sql("CREATE {kind} {name} AS ", kind=wanted, name=aside))
        connection.execute(sql("DROP {kind} {name}", kind=Sql(before), name=name))
        connection.execute(
            sql(
                "ALTER {kind} {aside} RENAME TO {name}", kind=wanted, aside=aside, name=quote(spec.table.name)
            )
        )
    else:
        _run(connection, bound, spec, sql("CREATE OR REPLACE {kind} {name} AS ", kind=wanted, name=name))
    lost = tables.recreate(connection, indexes)
    inserted = 0 if spec.view else tables.count(connection, spec.table)
    return _done(connection, spec, inserted, deleted, notices=lost)


def _run(connection: DuckDBPyConnection, bound: BoundQuery, spec: TransformSpec, lead: Sql) -> None:
    try:
        tables.run(connection, Sql(lead + bound.text))
    except duckdb.Error as error:
        explained = bound.explain(error)
        raise QueryFailed(f"{spec.table}: {explained}") from error


def _delete_keys(connection: DuckDBPyConnection, spec: TransformSpec) -> int:
    keys = join(", ", (quote(key) for key in spec.keys))
    twice = connection.execute(
        sql(
            "SELECT concat_ws(', ', {keys}) FROM {result} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1",
            keys=keys,
            result=_RESULT,
        )
    ).fetchone()
    if twice:
        raise QueryFailed(
            f"{spec.table}: the query gives the key {', '.join(spec.keys)} = {twice[0]} more than once; "
            "aggregate it, or keep one row by QUALIFY row_number() OVER (PARTITION BY …) = 1"
        )
    same = join(
        " AND ",
        (sql("t.{key} IS NOT DISTINCT FROM r.{key}", key=quote(key)) for key in spec.keys),
    )
    return tables.deleted(
        connection,
        sql(
            "DELETE FROM {table} AS t USING {result} AS r WHERE {same}",
            table=quote(*spec.table),
            result=_RESULT,
            same=same,
        ),
    )


def _delete_window(connection: DuckDBPyConnection, spec: TransformSpec, span: Bounds) -> tuple[int, Sql]:
    by = quote(spec.by or "")
    empty = connection.execute(
        sql("SELECT count(*) FROM {result} WHERE {by} IS NULL", result=_RESULT, by=by)
    ).fetchone()
    if empty and empty[0]:
        raise QueryFailed(
            f"{spec.table}: {empty[0]} rows have NULL in {spec.by!r}, which INCREMENTAL BY goes by; "
            "filter them out or give them a value"
        )
    where = span.condition(by)
    deleted = tables.deleted(
        connection, sql("DELETE FROM {table} WHERE {where}", table=quote(*spec.table), where=where)
    )
    return deleted, where


def _done(
    connection: DuckDBPyConnection,
    spec: TransformSpec,
    inserted: int,
    deleted: int,
    *,
    notices: tuple[str, ...] = (),
    skipped: bool = False,
) -> Transformed:
    return Transformed(
        inserted=inserted,
        deleted=deleted,
        total_rows=None if spec.view else tables.count(connection, spec.table),
        columns=tables.columns(connection, quote(*spec.table)),
        notices=notices,
        skipped=skipped,
    )
