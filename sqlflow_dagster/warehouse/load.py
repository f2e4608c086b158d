"""One read of a stream → its table and its marker, in one transaction.

A first or full load that DuckDB reads itself builds the table anew under the lock and swaps it. Any
other stages its rows outside the lock, and merges them under it. Whatever goes wrong before the
commit leaves table and cursor as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TypeVar

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.cursor import Cursor, Marker, Position, StateKey
from sqlflow_dagster.errors import CursorConflict, LoadRefused, SourceFailed, SQLFlowError, WarehouseError
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.sql import Sql, quote, sql
from sqlflow_dagster.warehouse import commits, marks, merge, quarantine, room, schema, tables
from sqlflow_dagster.warehouse.duckdb import STAGE, Warehouse, written_by_commit
from sqlflow_dagster.warehouse.extensions import private
from sqlflow_dagster.warehouse.intake import Intake
from sqlflow_dagster.warehouse.lookback import behind
from sqlflow_dagster.warehouse.schema import Change
from sqlflow_dagster.warehouse.spec import Loaded, LoadSpec

__all__ = ["Intake", "LoadSpec", "Loaded", "behind", "connected", "load"]

_T = TypeVar("_T")
_STAGED = quote(STAGE, "main", "_sqlflow_rows")


def connected(warehouse: Warehouse) -> AbstractContextManager[DuckDBPyConnection]:
    """Connect to a database in memory for one `load`, and what is looked up before; it is closed at the end."""
    return warehouse.scratch(private())


def load(
    warehouse: Warehouse,
    connection: DuckDBPyConnection,
    spec: LoadSpec,
    feed: Callable[[Intake], None],
    partly: Callable[[Loaded], None] = lambda _: None,
) -> Loaded:
    """Store what `feed` puts into the intake, move the cursor, and return what was done.

    `connection` is of `connected`, and the warehouse file is not attached to it. A load that this run
    has completed before is not done again: its marker is returned, and no rows. A failing `feed` changes
    nothing but for the checkpoints of an ordered stream; `partly` is told what those stored, before its
    error is raised.

    Raises CursorConflict where another run committed first; LoadRefused where the rows break a
    promise; WarehouseError where they cannot be stored; SourceFailed where DuckDB could not read
    the source; and what `feed` raises.
    """
    with ExitStack() as held:
        work = _Load(warehouse, spec, connection, held)
        try:
            feed(work.intake)
            if work.intake.broken:
                raise SourceFailed(f"{spec.table}: a batch could not be read, so that the read is not whole")
            failpoint("after_stage_write")
            work.commit(complete=True)
        except SQLFlowError:
            if work.marker:
                partly(replace(work.result(), rows_read=work.stored_of))
            raise
        return work.result()


@dataclass
class _Load:
    """One load in progress: where its rows are, and what its commits have done so far."""

    warehouse: Warehouse
    spec: LoadSpec
    connection: DuckDBPyConnection
    held: ExitStack
    direct: bool = False
    # Of the rows read, those that are committed.
    stored_of: int = 0
    found: Position | None = None
    fresh: bool = False
    marker: Marker | None = None
    counts: merge.Counts = field(default_factory=merge.Counts)
    quarantined: int = 0
    future_rows: int = 0
    total_rows: int = 0
    columns: Mapping[str, str] = field(default_factory=dict)
    changes: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    emptied: dict[StateKey, Marker] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.found, self.fresh = self.spec.started_from, self.spec.fresh
        self.intake = Intake(
            connection=self.connection,
            memory_limit=self.warehouse.settings.memory_limit,
            wanted=self.spec.wanted,
            policy=self.spec.schema_policy,
            spool=self.warehouse.settings.state_directory / "spool",
            place=self._place,
            commit=self._checkpoint if self.spec.in_parts else None,
            in_order=bool(self.spec.keys),
        )

    def result(self) -> Loaded:
        """What was done, after the last commit."""
        if self.marker is None:
            raise WarehouseError(f"{self.spec.table}: the load ended without a marker")
        return Loaded(
            rows_read=self.intake.read,
            inserted=self.counts.inserted,
            updated=self.counts.updated,
            deleted=self.counts.deleted,
            quarantined=self.quarantined,
            total_rows=self.total_rows,
            cursor=self.marker.cursor,
            marker=self.marker,
            columns=self.columns,
            schema_changes=tuple(self.changes),
            future_rows=self.future_rows,
            bytes=self.intake.size,
            notices=tuple(self.notices),
            emptied=self.emptied,
        )

    def commit(self, *, complete: bool) -> None:
        """Commit all that came since the last commit."""
        if self.intake.seen:
            gone = self.intake.wanted.check_named(self.intake.seen)
            if gone:
                self.notices.append(f"the source has no column {', '.join(gone)} any more")
        if self.direct:
            self._guarded(lambda: self._store(complete=complete))
            return
        prepared = self._guarded(lambda: merge.prepare(self.connection, self.intake, self.spec))
        with self.warehouse.mounted(self.connection):
            self._guarded(lambda: self._store(complete=complete, prepared=prepared))

    def _checkpoint(self) -> None:
        self.commit(complete=False)
        self.intake.emptied()

    def _place(self, native: bool) -> Sql:
        """The table that batches go to: the target to be, where DuckDB reads all of it in one go."""
        if native and self.spec.whole and not self.spec.in_parts and self._begin_anew():
            return quote(self.spec.table.schema, f"_sqlflow_new_{self.spec.table.name}")
        self.held.enter_context(self.warehouse.staged(self.connection))
        return _STAGED

    def _begin_anew(self) -> bool:
        """Take the lock and begin the transaction, where the table is built anew."""
        with ExitStack() as mounting:
            mounting.enter_context(self.warehouse.mounted(self.connection))
            if not self.fresh and tables.kind(self.connection, self.spec.table):
                return False
            self.connection.execute("BEGIN")
            self._compare()
            tables.prepare(self.connection, self.spec.table)
            self.direct = self.fresh = True
            self.held.enter_context(mounting.pop_all())
        return True

    def _store(self, *, complete: bool, prepared: merge.Prepared | None = None) -> None:
        old = self._compare()
        if complete and self._done_before():
            return
        if prepared is None:
            prepared = merge.prepare(self.connection, self.intake, self.spec)
        rows = self.intake.rows if self.intake.started else None
        changed = self.intake.changes
        changes = (
            merge.plan(self.connection, rows, self.spec, fresh=self.fresh, changed=changed) if rows else ()
        )
        if not self.direct:
            self.connection.execute("BEGIN")
        tables.prepare(self.connection, self.spec.table)
        counts = self._write(rows, changes, old)
        marker = self._marker(prepared, old, complete=complete, rows=counts.inserted + counts.updated)
        commits.append(self.connection, self.spec.key, marker)
        if self.fresh:
            self.emptied |= commits.empty(self.connection, self.spec.others, marker.committed_at)
        aside = quarantine.store(self.connection, self.spec.table, self.spec.run_id, marker.committed_at)
        if self.columns:
            schema.note_version(self.connection, self.spec.table, self.columns, marker.committed_at)
        failpoint("before_commit")
        with written_by_commit(self.connection):
            self.connection.execute("COMMIT")
        failpoint("after_commit")
        quarantine.clear(self.connection)
        self.found, self.marker, self.fresh = marker.position, marker, False
        self.stored_of = self.intake.read
        self.counts += counts
        self.quarantined += aside
        if aside:
            self.notices.append(f"{aside} rows could not be stored and are in _sqlflow.quarantine")
        self.future_rows += prepared.future_rows
        self.notices += prepared.notices
        self.changes += [change.text for change in changes]

    def _compare(self) -> Marker | None:
        """The newest marker, which must be the one this read started from."""
        newest = commits.newest(self.connection, self.spec.key)
        if (newest.position if newest else None) != self.found:
            raise CursorConflict(f"{self.spec.table}: another run moved the cursor of this LOAD")
        return newest

    def _done_before(self) -> bool:
        """Whether an earlier try of this run did it all: then its marker is the result."""
        done = commits.completed_by(self.connection, self.spec.key, self.spec.run_id)
        if done is None:
            return False
        self.marker = done
        self._look()
        self.notices.append("an earlier try of this run had loaded it")
        return True

    def _write(self, rows: Sql | None, changes: tuple[Change, ...], old: Marker | None) -> merge.Counts:
        connection, spec = self.connection, self.spec
        if rows is None:
            counts = self._nothing_came()
        elif self.fresh:
            marks.note(connection, spec, anew=True)
            counts = merge.swap(connection, rows, changes, spec, direct=self.direct)
        else:
            self._refuse_twice(old)
            later_part = self.marker is not None
            counts = merge.into(
                connection,
                rows,
                changes,
                self.intake.replaces,
                spec,
                later_part=later_part,
                changed=self.intake.changes,
            )
        self._look()
        return counts

    def _nothing_came(self) -> merge.Counts:
        """The source gave no batch at all: what is replaced is emptied, all else is as it was."""
        spec, connection = self.spec, self.connection
        if tables.kind(connection, spec.table) != "TABLE":
            return merge.Counts()
        if not self.fresh:
            return merge.Counts(deleted=room.empty(connection, spec) if spec.window or spec.whole else 0)
        statement = sql("DELETE FROM {table}", table=quote(*spec.table))
        return merge.Counts(deleted=tables.deleted(connection, statement))

    def _refuse_twice(self, old: Marker | None) -> None:
        """A whole read cannot be added to a table that has its rows from before, and others'."""
        spec = self.spec
        if not (spec.incremental and spec.whole and spec.mode == "append") or old is None or self.marker:
            return
        if spec.row_provenance:
            return
        if commits.rows(self.connection, spec.key):
            raise LoadRefused(
                f"{spec.table}: other statements write this table too, so that reading all of this LOAD again would "
                "double its rows; run the pipeline with --full-refresh, which builds the table anew from all of "
                'them, or give the source a "primary_key"'
            )

    def _look(self) -> None:
        if tables.kind(self.connection, self.spec.table):
            self.columns = tables.columns(self.connection, quote(*self.spec.table))
            self.total_rows = tables.count(self.connection, self.spec.table)

    def _marker(self, prepared: merge.Prepared, old: Marker | None, *, complete: bool, rows: int) -> Marker:
        spec = self.spec
        same_epoch = old is not None and old.position.epoch == spec.epoch
        cursor = self._cursor(prepared, old if same_epoch else None)
        return Marker(
            position=Position(spec.epoch, old.position.seq + 1 if old and same_epoch else 1),
            cursor=cursor,
            run_id=spec.run_id,
            rows=rows,
            schema_hash=schema.hash_of(self.columns),
            complete=complete,
            committed_at=datetime.now(UTC).isoformat(),
            cursor_field=spec.cursor_field if cursor and not spec.own_cursor else None,
        )

    def _cursor(self, prepared: merge.Prepared, old: Marker | None) -> Cursor | None:
        """The greatest cursor stored; it never goes back, but where everything was read again."""
        spec = self.spec
        if spec.window or not spec.incremental:
            return None
        before = old.cursor if old and not (spec.whole and self.marker is None) else None
        if spec.own_cursor:
            return self.intake.reached or before
        return merge.later(self.connection, before, prepared.cursor)

    def _guarded(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except duckdb.Error as error:
            raise WarehouseError(f"{self.spec.table}: {_explained(error)}") from error


def _explained(error: duckdb.Error) -> str:
    text = str(error)
    if tables.is_disk_full(error):
        return f"{tables.DISK_FULL} ({text})"
    if isinstance(error, duckdb.OutOfMemoryException):
        return f"{text}; raise engines.duckdb.memory_limit"
    return text
