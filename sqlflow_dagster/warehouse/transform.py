"""A user's query → a table or view, in one transaction, by one of four modes.

The query runs on the locked-down connection; what stands around it is ours. A mode that is not
idempotent leaves a marker in its own transaction, so that a retry of the same run skips it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Literal

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.cursor import Marker, StateKey
from sqlflow_dagster.errors import ProjectError, QueryFailed, WarehouseError
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.sql import Sql, TableName, fold, join, quote, sql
from sqlflow_dagster.warehouse import commits, query, schema, stage, tables, window
from sqlflow_dagster.warehouse.duckdb import Warehouse
from sqlflow_dagster.warehouse.shape import Window
from sqlflow_dagster.warehouse.udf import BoundQuery, Functions
from sqlflow_dagster.warehouse.window import Bounds

_EVERYTHING = Sql("TRUE")
_UNFOLDED = quote("temp", "_sqlflow_unfolded")


@dataclass(frozen=True, slots=True)
class TransformSpec:
    """One CREATE: `sql` has its variables filled in.

    `start` is where a first INCREMENTAL begins, `window` the partition. `search_path` are the
    schemas that unqualified names are looked up in, in order. `statement` names the CREATE among all
    of the project. `full_refresh` takes the whole result in any mode, and builds the table anew;
    where it is not the `first` that writes the table, it adds to what the others have built anew.
    `later_loads` and `later_statements` write the same table after this one. `reads` are the tables that
    the query reads.
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
    schema_policy: schema.Policy = "guided"
    full_refresh: bool = False
    first: bool = True
    later_loads: tuple[StateKey, ...] = ()
    later_statements: tuple[str, ...] = ()
    reads: tuple[TableName, ...] = ()

    @property
    def everything(self) -> bool:
        """Whether the whole result is taken, in any mode; a partition never empties others."""
        return self.full_refresh and self.window is None

    @property
    def anew(self) -> bool:
        """Whether the table is to hold this result and nothing else."""
        return self.mode == "replace" or (self.everything and self.first)


@dataclass(frozen=True, slots=True)
class Transformed:
    """What became of a table: counts of rows, `total_rows` None for a view, and its columns' types.

    `emptied` are the markers of later LOADs whose rows went with the table. `read` are the columns that
    the tables read had before.
    """

    inserted: int
    deleted: int
    total_rows: int | None
    columns: Mapping[str, str]
    notices: tuple[str, ...] = ()
    skipped: bool = False
    schema_changes: tuple[str, ...] = ()
    emptied: Mapping[StateKey, Marker] = field(default_factory=dict)
    read: Mapping[TableName, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Change:
    """What a mode did."""

    inserted: int = 0
    deleted: int = 0
    schema_changes: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    skipped: bool = False


def transform(warehouse: Warehouse, spec: TransformSpec, functions: Functions) -> Transformed:
    """Store the query's result as `spec.mode` says, and return what changed.

    Raises QueryFailed with DuckDB's or the Python function's own words, or naming the key or value
    that breaks the mode's promise; ProjectError where the text is not one query. The table is then
    as it was.
    """
    if spec.view and spec.mode != "replace":
        raise ProjectError(f"{spec.table}: a VIEW stores no rows and has no MODE; make it a TABLE")
    with warehouse.open_locked_down(spec.search_path) as connection:
        query.check(connection, spec.sql)
        try:
            read = _columns_of(connection, spec.reads)
            connection.execute("BEGIN")
            tables.prepare(connection, spec.table)
            change = _mode(spec)(connection, spec, functions)
            emptied = _emptied(connection, spec, change)
            done = replace(_transformed(connection, spec, change), emptied=emptied, read=read)
        except query.Failure as error:
            raise query.failed(str(spec.table), BoundQuery(Sql(spec.sql)), error) from error
        failpoint("before_commit")
        try:
            connection.execute("COMMIT")
        except duckdb.Error as error:
            why = tables.DISK_FULL if tables.is_disk_full(error) else "nothing was stored, the commit failed"
            raise WarehouseError(f"{spec.table}: {why} ({error})") from error
        failpoint("after_commit")
        return done


def _columns_of(
    connection: DuckDBPyConnection, names: Sequence[TableName]
) -> dict[TableName, tuple[str, ...]]:
    """The columns of the tables that are there, and of the views that still fit their tables."""
    return {
        table: tuple(tables.columns(connection, quote(*table)))
        for table in names
        if tables.is_readable(connection, quote(*table))
    }


def _mode(spec: TransformSpec) -> Callable[[DuckDBPyConnection, TransformSpec, Functions], _Change]:
    if spec.view:
        return _view
    return {"replace": _replace, "append": _append, "upsert": _upsert, "incremental": _incremental}[spec.mode]


def _transformed(connection: DuckDBPyConnection, spec: TransformSpec, change: _Change) -> Transformed:
    known = tables.kind(connection, spec.table)
    return Transformed(
        inserted=change.inserted,
        deleted=change.deleted,
        total_rows=tables.count(connection, spec.table) if known == "TABLE" else None,
        columns=tables.columns(connection, quote(*spec.table)) if known else {},
        notices=change.notices,
        skipped=change.skipped,
        schema_changes=change.schema_changes,
    )


def _emptied(connection: DuckDBPyConnection, spec: TransformSpec, change: _Change) -> dict[StateKey, Marker]:
    """What later statements put into the table went with it: a retry of this run does them again."""
    if not spec.anew or change.skipped:
        return {}
    if spec.later_statements:
        tables.forget_done(connection, spec.later_statements, spec.run_id)
    return commits.empty(connection, spec.later_loads, datetime.now(UTC).isoformat())


def _view(connection: DuckDBPyConnection, spec: TransformSpec, functions: Functions) -> _Change:
    bound = functions.bind(connection, spec.sql)
    if bound.registered:
        raise ProjectError(
            f"{spec.table}: a VIEW cannot call PYTHON_FUNC, which lives only in a run; make it a TABLE"
        )
    text = query.qualified(connection, bound.text, spec.search_path)
    deleted = stage.drop(connection, spec.table, "TABLE")
    lead = sql("CREATE OR REPLACE VIEW {name} AS", name=quote(*spec.table))
    stage.run(connection, spec.table, BoundQuery(text), lead)
    return _Change(deleted=deleted)


def _replace(connection: DuckDBPyConnection, spec: TransformSpec, functions: Functions) -> _Change:
    bound = functions.bind(connection, spec.sql)
    if tables.kind(connection, spec.table) == "VIEW":
        # The query may read the view that its table replaces.
        stage.stage(connection, spec.table, bound)
        stage.drop(connection, spec.table, "VIEW")
        lead = "CREATE TABLE {name} AS FROM {rows}"
        connection.execute(sql(lead, name=quote(*spec.table), rows=stage.RESULT))
        return _Change(inserted=tables.count(connection, spec.table))
    deleted = tables.count(connection, spec.table) if tables.kind(connection, spec.table) else 0
    indexes = tables.indexes(connection, spec.table)
    lead = sql("CREATE OR REPLACE TABLE {name} AS", name=quote(*spec.table))
    stage.run(connection, spec.table, bound, lead)
    tables.recreate(connection, indexes)
    return _Change(inserted=tables.count(connection, spec.table), deleted=deleted)


def _append(connection: DuckDBPyConnection, spec: TransformSpec, functions: Functions) -> _Change:
    if tables.was_done(connection, spec.statement, spec.run_id, spec.partition):
        return _Change(skipped=True)
    stage.stage(connection, spec.table, functions.bind(connection, spec.sql))
    emptied, changes = stage.make_room(connection, spec.table, spec.schema_policy, anew=spec.anew)
    inserted = tables.insert(connection, spec.table, stage.RESULT, _EVERYTHING)
    tables.note_done(connection, spec.statement, spec.run_id, spec.partition)
    return _Change(inserted, emptied, changes)


def _upsert(connection: DuckDBPyConnection, spec: TransformSpec, functions: Functions) -> _Change:
    stage.stage(connection, spec.table, functions.bind(connection, spec.sql))
    notices = stage.check_keys(connection, spec.table, spec.keys)
    emptied, changes = stage.make_room(connection, spec.table, spec.schema_policy, anew=spec.anew)
    schema.liken(connection, quote(*spec.table), stage.RESULT, spec.keys)
    same = join(" AND ", (sql("t.{key} IS NOT DISTINCT FROM r.{key}", key=quote(key)) for key in spec.keys))
    statement = sql(
        "DELETE FROM {table} AS t USING {result} AS r WHERE {same}",
        table=quote(*spec.table),
        result=stage.RESULT,
        same=same,
    )
    deleted = tables.deleted(connection, statement)
    inserted = tables.insert(connection, spec.table, stage.RESULT, _EVERYTHING)
    return _Change(inserted, emptied + deleted, changes, notices)


def _incremental(connection: DuckDBPyConnection, spec: TransformSpec, functions: Functions) -> _Change:
    by = quote(spec.by or "")
    span = _window(connection, spec, functions)
    bound = functions.bind(connection, window.with_macros(connection, spec.sql, span))
    inside = span.condition(by)
    stage.stage(connection, spec.table, bound, sql("({inside}) OR {by} IS NULL", inside=inside, by=by))
    stage.check_no_nulls(connection, spec.table, spec.by or "")
    emptied, changes = stage.make_room(connection, spec.table, spec.schema_policy, anew=spec.anew)
    statement = sql("DELETE FROM {table} WHERE {inside}", table=quote(*spec.table), inside=inside)
    # In a full refresh there are only rows of the table's other statements.
    deleted = 0 if spec.everything else tables.deleted(connection, statement)
    inserted = tables.insert(connection, spec.table, stage.RESULT, _EVERYTHING)
    return _Change(inserted, emptied + deleted, changes, _ahead(connection, spec, span))


def _window(connection: DuckDBPyConnection, spec: TransformSpec, functions: Functions) -> Bounds:
    """The window of this run, in the type that the column has in the table, else in the result."""
    stored = tables.kind(connection, spec.table) == "TABLE" and not spec.everything
    kind = _type_of(spec, tables.columns(connection, quote(*spec.table))) if stored else None
    if kind is not None and spec.window is None:
        return window.next_bounds(connection, spec.table, spec.by or "", kind, spec.lookback, spec.start)
    if stored and kind is None:
        raise QueryFailed(
            f"{spec.table}: the stored table has no column {spec.by!r}; run it once with --full-refresh"
        )
    kind = kind or _type_in_result(connection, spec, functions)
    if spec.window:
        return window.partition_bounds(spec.window, kind)
    return Bounds(spec.start, None, kind)


def _type_in_result(connection: DuckDBPyConnection, spec: TransformSpec, functions: Functions) -> str:
    text = window.with_macros(connection, spec.sql, Bounds(None, None, "TIMESTAMP"))
    bound = functions.bind(connection, text)
    found = query.columns(connection, bound.text)
    if found is None:
        stage.run(
            connection, spec.table, bound, sql("CREATE OR REPLACE TEMP TABLE {name} AS", name=_UNFOLDED)
        )
        found = tables.columns(connection, _UNFOLDED)
    kind = _type_of(spec, found)
    if kind is None:
        raise QueryFailed(
            f"{spec.table}: INCREMENTAL BY {spec.by}: the query gives no such column; it gives {', '.join(found)}"
        )
    return kind


def _type_of(spec: TransformSpec, columns: Mapping[str, str]) -> str | None:
    wanted = fold(spec.by or "")
    return next((kind for name, kind in columns.items() if fold(name) == wanted), None)


def _ahead(connection: DuckDBPyConnection, spec: TransformSpec, span: Bounds) -> tuple[str, ...]:
    if spec.window or not window.is_far_ahead(connection, span):
        return ()
    notice = (
        f"{spec.table}: the newest {spec.by} is in the future, so only rows from {span.start} on are renewed; "
        "filter such rows out in the query, then run with --full-refresh"
    )
    return (notice,)
