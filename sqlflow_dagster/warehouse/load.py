"""One read of a stream → its table and its marker, in one transaction.

A first or full load builds the table anew under the lock and swaps it. Any other stages its rows
outside the lock, and merges them under it. Whatever goes wrong before the commit leaves table and
cursor as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.cursor import Cursor, Marker, Position, StateKey
from sqlflow_dagster.errors import BadOption, CursorConflict, WarehouseError
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.sql import Sql, TableName, literal, quote, sql
from sqlflow_dagster.warehouse import commits, merge, schema, tables
from sqlflow_dagster.warehouse.duckdb import STAGE, Warehouse
from sqlflow_dagster.warehouse.intake import Intake, Wanted
from sqlflow_dagster.warehouse.shape import Shape, Window

_STAGED = quote(STAGE, "main", "rows")
_QUARANTINE = quote("_sqlflow", "quarantine")


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """One LOAD of one run.

    `since` is where the read begins, lookback taken off; None reads everything. `started_from` is
    the marker's position that the commit must still find, `epoch` the one to commit under.
    `rewound` says that rows at or after `since` go before the merge. `ordered` allows commits
    inside the read.
    """

    key: StateKey
    table: TableName
    mode: Literal["replace", "append", "upsert"]
    keys: tuple[str, ...]
    cursor_field: str | None
    own_cursor: bool
    since: Cursor | None
    started_from: Position | None
    epoch: int
    shape: Shape
    schema_policy: schema.Policy
    run_id: str
    sole_writer: bool
    row_provenance: bool
    incremental: bool
    ordered: bool = False
    rewound: bool = False
    window: Window | None = None

    @property
    def fresh(self) -> bool:
        """Whether the table is built anew, not added to."""
        if self.window:
            return False
        return self.mode == "replace" or (self.incremental and self.since is None and self.sole_writer)

    @property
    def boundary(self) -> bool:
        """Whether rows at or after `since` are replaced by those read: incremental without a key."""
        return (
            self.incremental
            and self.mode == "append"
            and self.cursor_field is not None
            and not self.own_cursor
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did. `columns` maps names to DuckDB types; `bytes` is None where unknown."""

    rows_read: int
    inserted: int
    updated: int
    deleted: int
    quarantined: int
    total_rows: int
    cursor: Cursor | None
    marker: Marker
    columns: Mapping[str, str]
    schema_changes: tuple[str, ...] = ()
    future_rows: int = 0
    bytes: int | None = None
    notices: tuple[str, ...] = ()


@dataclass
class _Progress:
    """What the commits of one load have done so far."""

    found: Position | None
    fresh: bool
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    quarantined: int = 0
    future_rows: int = 0
    marker: Marker | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    total_rows: int = 0
    schema_changes: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def load(warehouse: Warehouse, spec: LoadSpec, feed: Callable[[Intake], None]) -> Loaded:
    """Store what `feed` puts into the intake, move the cursor, and return what was done.

    Raises CursorConflict where another run committed first; LoadRefused where the rows break a
    promise; what `feed` raises. In each case nothing of this read is stored, but for the
    checkpoints of an ordered stream.
    """
    progress = _Progress(found=spec.started_from, fresh=spec.fresh)
    with _rows(warehouse, spec) as (connection, rows, direct):
        intake = Intake(
            connection=connection,
            rows=rows,
            wanted=_wanted(spec),
            label=f"{spec.key.source}.{spec.key.stream}",
            spool=warehouse.settings.state_directory / "spool",
        )
        committer = _Committer(warehouse, spec, connection, intake, progress, direct=direct)
        if spec.ordered:
            intake.commit = committer.checkpoint
        feed(intake)
        failpoint("after_stage_write")
        committer.commit(complete=True)
    marker = progress.marker
    if marker is None:
        raise WarehouseError(f"{spec.table}: the load ended without a marker")
    return Loaded(
        rows_read=intake.read,
        inserted=progress.inserted,
        updated=progress.updated,
        deleted=progress.deleted,
        quarantined=progress.quarantined,
        total_rows=progress.total_rows,
        cursor=marker.cursor,
        marker=marker,
        columns=progress.columns,
        schema_changes=tuple(progress.schema_changes),
        future_rows=progress.future_rows,
        notices=(*intake.notices, *progress.notices),
    )


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


def _wanted(spec: LoadSpec) -> Wanted:
    shape = spec.shape
    if spec.window:
        shape = Shape(
            shape.columns, shape.exclude, shape.mask, shape.conditions, spec.window.start, spec.window.end
        )
    return Wanted(
        shape=shape,
        since=None if spec.window else spec.since,
        cursor_field=spec.cursor_field,
        keys=spec.keys,
        row_provenance=spec.row_provenance,
        null_cursors=bool(spec.keys),
    )


@contextmanager
def _rows(warehouse: Warehouse, spec: LoadSpec) -> Iterator[tuple[DuckDBPyConnection, Sql, bool]]:
    """The connection and the table that the batches go to: the target itself where it is built anew."""
    if spec.fresh and not spec.ordered:
        with warehouse.open() as connection:
            connection.execute("BEGIN")
            tables.prepare(connection, spec.table)
            yield connection, quote(spec.table.schema, f"_sqlflow_new_{spec.table.name}"), True
        return
    with warehouse.scratch() as connection, warehouse.staged(connection):
        yield connection, _STAGED, False


@dataclass
class _Committer:
    """Brings what the intake holds into the target, with a marker, in one transaction."""

    warehouse: Warehouse
    spec: LoadSpec
    connection: DuckDBPyConnection
    intake: Intake
    progress: _Progress
    direct: bool

    def checkpoint(self, _cursor: Cursor | None) -> None:
        """Commit a part of an ordered read."""
        self.commit(complete=False)
        self.intake.emptied()

    def commit(self, *, complete: bool) -> None:
        """Commit all that came since the last commit."""
        prepared = merge.prepare(self.connection, self.intake, self.spec)
        self.progress.notices += prepared.notices
        self.progress.future_rows += prepared.future_rows
        if self.direct:
            self._transaction(prepared, complete=complete)
            return
        with self.warehouse.mounted(self.connection):
            self.connection.execute("BEGIN")
            self._transaction(prepared, complete=complete)

    def _transaction(self, prepared: merge.Prepared, *, complete: bool) -> None:
        connection, spec = self.connection, self.spec
        try:
            old = self._compare()
            tables.prepare(connection, spec.table)
            commits.prepare(connection)
            counts = self._store()
            marker = self._marker(prepared, old, complete=complete, rows=counts.inserted + counts.updated)
            self._quarantine(marker)
            commits.append(connection, spec.key, marker)
            if self.progress.columns:
                schema.note_version(connection, spec.table, self.progress.columns, marker.committed_at)
            failpoint("before_commit")
            connection.execute("COMMIT")
        except duckdb.Error as error:
            raise WarehouseError(f"{spec.table}: {error}") from error
        failpoint("after_commit")
        self.progress.found = marker.position
        self.progress.marker = marker
        self.progress.fresh = False

    def _compare(self) -> Marker | None:
        """The newest marker, which must be the one this read started from."""
        newest = commits.newest(self.connection, self.spec.key)
        if (newest.position if newest else None) != self.progress.found:
            raise CursorConflict(f"{self.spec.table}: another run moved the cursor of this LOAD")
        return newest

    def _store(self) -> merge.Counts:
        connection, spec, progress = self.connection, self.spec, self.progress
        if not self.intake.started:
            counts = self._nothing_came()
        elif progress.fresh:
            counts, changes = merge.swap(connection, self.intake.rows, spec, direct=self.direct)
            progress.schema_changes += changes
        else:
            counts, changes = merge.into(connection, self.intake, spec)
            progress.schema_changes += changes
        progress.inserted += counts.inserted
        progress.updated += counts.updated
        progress.deleted += counts.deleted
        if tables.kind(connection, spec.table):
            progress.columns = tables.columns(connection, quote(*spec.table))
            progress.total_rows = tables.count(connection, spec.table)
        return counts

    def _nothing_came(self) -> merge.Counts:
        """The source gave no batch at all: a table built anew is emptied, any other is as it was."""
        if not self.progress.fresh or tables.kind(self.connection, self.spec.table) is None:
            return merge.Counts()
        statement = sql("DELETE FROM {table}", table=quote(*self.spec.table))
        return merge.Counts(deleted=tables.deleted(self.connection, statement))

    def _marker(self, prepared: merge.Prepared, old: Marker | None, *, complete: bool, rows: int) -> Marker:
        spec = self.spec
        same_epoch = old is not None and old.position.epoch == spec.epoch
        seq = old.position.seq + 1 if old and same_epoch else 1
        return Marker(
            position=Position(spec.epoch, seq),
            cursor=self._cursor(prepared, old if same_epoch else None),
            run_id=spec.run_id,
            rows=rows,
            schema_hash=schema.hash_of(self.progress.columns),
            complete=complete,
            committed_at=datetime.now(UTC).isoformat(),
        )

    def _cursor(self, prepared: merge.Prepared, old: Marker | None) -> Cursor | None:
        spec = self.spec
        before = old.cursor if old else None
        if spec.window or not spec.incremental:
            return None
        if spec.own_cursor:
            return self.intake.reached or before
        if spec.since is None and self.progress.marker is None:
            return prepared.cursor
        return merge.later(self.connection, before, prepared.cursor)

    def _quarantine(self, marker: Marker) -> None:
        rejected = self.intake.rejected
        if not rejected:
            return
        connection, table = self.connection, self.spec.table
        connection.execute(
            sql(
                "CREATE TABLE IF NOT EXISTS {quarantine} (table_schema VARCHAR, table_name VARCHAR,"
                " run_id VARCHAR, reason VARCHAR, place VARCHAR, raw VARCHAR, committed_at VARCHAR)",
                quarantine=_QUARANTINE,
            )
        )
        connection.executemany(
            sql("INSERT INTO {quarantine} VALUES ($1, $2, $3, $4, $5, $6, $7)", quarantine=_QUARANTINE),
            [[*table, marker.run_id, *bad, marker.committed_at] for bad in rejected],
        )
        self.progress.quarantined += len(rejected)
        rejected.clear()
