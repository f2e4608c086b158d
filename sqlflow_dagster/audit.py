"""A LOAD and its source → whether rows were lost between them, by counting both.

Of an incremental load all rows are counted that the next read will not bring again: those before the cursor, lookback
taken off. What becomes visible there later was missed, whenever it is counted. A whole read is counted before and
after; what was there both times has been read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlflow_dagster import health
from sqlflow_dagster.connectors.base import Connector, Stream
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import SQLFlowError
from sqlflow_dagster.health import Finding
from sqlflow_dagster.plan.nodes import Load
from sqlflow_dagster.project import state_key
from sqlflow_dagster.session import Session
from sqlflow_dagster.sql import Sql, literal, quote, sql
from sqlflow_dagster.warehouse import commits
from sqlflow_dagster.warehouse.load import Loaded, behind
from sqlflow_dagster.warehouse.tables import kind

_BEHIND = (
    "they were deleted here, or became visible there behind the cursor; load them by --full-refresh, and set "
    "lookback_window where rows come late"
)
_UNREAD = "they were there before the read and after it, and were not read; load it again"
_OTHER_WAY = "the source cannot count the very rows that are loaded"


@dataclass(frozen=True, slots=True)
class Audit:
    """One LOAD whose rows are counted."""

    session: Session
    step: Load
    connector: Connector[Any]
    stream: Stream

    def begin(self) -> int | str:
        """Return how many rows a whole read is to bring, or why that cannot be told."""
        return "" if self.step.incremental else self._count()

    def after(self, loaded: Loaded, before: int | str) -> Finding:
        """Return what a load has lost, `before` being what `begin` returned; nothing is raised."""
        if self.session.window is not None:
            return health.loss_audit(None, 0, "a partition's rows are not counted")
        if self.step.incremental:
            return self.up_to(loaded.cursor)
        return self._whole(loaded, before)

    def _whole(self, loaded: Loaded, before: int | str) -> Finding:
        rows = loaded.rows_read + loaded.quarantined
        if self.step.mode == "replace" and self.step.sole_writer:
            rows = min(rows, loaded.total_rows + loaded.quarantined)
        after = self._count()
        if isinstance(before, str) or isinstance(after, str):
            return health.loss_audit(None, rows, str(before if isinstance(before, str) else after))
        if rows < min(before, after):
            # Rows may have gone before the read and others come after it; then the source does not stand still.
            again = self._count()
            if not before == after == again:
                return health.loss_audit(
                    None,
                    rows,
                    f"the source changed while it was read: {before:,} rows, then {after:,}, {rows:,} read",
                )
        return health.loss_audit(min(before, after), rows, _UNREAD)

    def up_to(self, cursor: Cursor | None) -> Finding:
        """Return what of the rows before an incremental LOAD's cursor is missing; nothing is raised."""
        step, options = self.step, self.connector.options
        if self.stream.own_cursor:
            return health.loss_audit(None, 0, "its cursor is the connector's own, and no column")
        if not (step.sole_writer or options.row_provenance):
            return health.loss_audit(
                None,
                0,
                f"other statements write {step.table} too; set row_provenance to tell their rows apart",
            )
        if cursor is None:
            return health.loss_audit(0, 0)
        end = behind(cursor, options.lookback_window) if options.lookback_window else cursor
        # First here: what another run stores between the two is no loss.
        there = self._count(step.keys if step.mode == "upsert" else (), end)
        if isinstance(there, str):
            return health.loss_audit(None, 0, there)
        return health.loss_audit(there, self._stored(end), _BEHIND)

    def _count(self, keys: tuple[str, ...] = (), below: Cursor | None = None) -> int | str:
        """How many rows the source has, or why that cannot be told: the load itself is done."""
        try:
            found = self.connector.count(self.stream, keys, below)
        except SQLFlowError as error:
            return str(error)
        return _OTHER_WAY if found is None else found

    def _stored(self, end: Cursor) -> int:
        step = self.step
        own = sql("TRUE")
        if self.connector.options.row_provenance:
            key = state_key(self.session.project, step)
            own = sql("{owner} = {load}", owner=quote("_sqlflow_load"), load=literal(key.load))
        with self.session.project.warehouse.open() as connection:
            if kind(connection, step.table) is None:
                return 0
            row = connection.execute(
                sql(
                    "SELECT count(*) FROM {table} WHERE {cursor} < CAST({end} AS {type}) AND {own}",
                    table=quote(*step.table),
                    cursor=quote(step.cursor_field or ""),
                    end=literal(end.value),
                    type=Sql(end.type),
                    own=own,
                )
            ).fetchone()
        return int(row[0]) if row else 0


def now(session: Session, step: Load) -> Finding:
    """Return what an incremental LOAD has lost so far, without loading; nothing of the source or of ours is raised."""
    if not step.incremental:
        return health.loss_audit(None, 0, "of a LOAD that reads everything, each run says it")
    try:
        with session.project.warehouse.open() as connection:
            marker = commits.newest(connection, state_key(session.project, step))
        if marker is None:
            return health.loss_audit(None, 0, "it was never loaded")
        with session.project.connector(step.source, session.scope(step.source.scope)) as connector:
            stream = next((s for s in connector.streams() if s.name == step.stream), None)
            if stream is None:
                return health.loss_audit(None, 0, f"the source has no stream {step.stream!r} any more")
            return Audit(session, step, connector, stream).up_to(marker.cursor)
    except SQLFlowError as error:
        return health.loss_audit(None, 0, str(error))
