"""One LOAD: read since the cursor → rows and marker in the warehouse → the cursor's copy → an outcome.

The order is what makes it exact: rows and marker in one transaction, then run storage, then the outcome. What waiting
mends is tried again from the newest cursor, and so is what another run was quicker with.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from sqlflow_dagster.audit import Audit
from sqlflow_dagster.connectors.base import Arrow, Batch, Connector, JsonLines, Scan, Span, Stream, Unmoved
from sqlflow_dagster.cursor import Marker, Start, StateKey, reconcile
from sqlflow_dagster.errors import Canceled, CursorConflict, SourceError, SourceFailed
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.parts import Part, with_parts
from sqlflow_dagster.plan.nodes import Load
from sqlflow_dagster.project import state_key
from sqlflow_dagster.session import Outcome, Session
from sqlflow_dagster.specs import load_spec
from sqlflow_dagster.warehouse import commits
from sqlflow_dagster.warehouse.duckdb import Connection
from sqlflow_dagster.warehouse.intake import Intake
from sqlflow_dagster.warehouse.load import Loaded, LoadSpec, connected, load
from sqlflow_dagster.warehouse.schema import columns_of

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_MOST_CONFLICTS = 5


@dataclass(frozen=True, slots=True)
class State:
    """What is known of a LOAD: run storage's copy of its marker, and what the warehouse says.

    `marker` is the newest one, `done` the one by which this run has done it, and `stored` are the columns that the
    table has, None where it is not there.
    """

    copy: str | None
    marker: Marker | None
    done: Marker | None
    stored: Mapping[str, str] | None


def states(session: Session, loads: Sequence[Load]) -> list[State]:
    """Look LOADs up in the warehouse, which is opened once: that takes longer the more tables it has."""
    with session.project.warehouse.open() as connection:
        return [_state(session, load, connection) for load in loads]


def _state(session: Session, step: Load, connection: Connection) -> State:
    key = state_key(session.project, step, session.partition)
    return State(
        # First, so that what another run commits in the meantime is never newer here than in the warehouse.
        copy=session.store.get(str(key)),
        marker=commits.newest(connection, key),
        done=commits.completed_by(connection, key, session.run_id),
        stored=columns_of(connection, step.table),
    )


def load_stream(
    session: Session, step: Load, connector: Connector[Any], state: State | None = None
) -> Outcome:
    """Load; where waiting mends what went wrong, again from the newest cursor.

    `state` is where it stands, if that has been looked up. Raises what the last try ended with, an error of ours.
    """
    parts: list[Part] = []
    first = [state]

    def once() -> Outcome:
        return _load_once(session, step, connector, parts, first.pop() if first else None)

    outcome = connector.guard.retry(lambda: _without_conflict(step, once), connector.recover)
    return with_parts(outcome, parts)


def _without_conflict(step: Load, once: Callable[[], Outcome]) -> Outcome:
    for _ in range(_MOST_CONFLICTS):
        try:
            return once()
        except CursorConflict:
            log.info("%s: another run committed first; reading again from its cursor", step.table)
    raise SourceFailed(
        f"{step.table}: other runs kept committing to this LOAD while it was read; run it in one place"
    )


def _load_once(
    session: Session, step: Load, connector: Connector[Any], parts: list[Part], state: State | None
) -> Outcome:
    warehouse, key = session.project.warehouse, state_key(session.project, step, session.partition)
    with ExitStack() as held:
        connection = held.enter_context(connected(warehouse))
        if state is None:
            with warehouse.mounted(connection):
                state = _state(session, step, connection)
        start = _start(session, step, key, state)
        if state.done and state.stored is not None:
            done, repaired = state.done, start.repair is not None
            return Outcome(step, rows=done.rows, cursor_after=done.cursor, skipped=True, repaired=repaired)
        stream, spec = _planned(session, step, connector, start, state)
        audit = Audit(session, step, connector, stream) if step.loss_audit else None
        before = audit.begin() if audit else ""
        try:
            loaded = _asked(
                connector,
                lambda: load(
                    warehouse,
                    connection,
                    spec,
                    lambda intake: _feed(session, intake, connector, stream, spec),
                    lambda loaded: parts.append(Part(start, loaded)),
                ),
            )
        except SourceFailed as error:
            # A database that broke holds the file until it is closed.
            held.close()
            if stream.logged and _moved_by_another(session, key, state.marker):
                raise CursorConflict(f"{step.table}: another run moved the source's position on") from error
            raise
    failpoint("after_commit_before_cursor_mirror")
    notices = session.mirror({key: loaded.marker, **loaded.emptied})
    facts, unconfirmed = _confirmed(connector, stream, loaded)
    failpoint("after_cursor_before_materialization")
    outcome = replace(_loaded(step, start, loaded, (*notices, *unconfirmed)), facts=facts)
    return replace(outcome, audit=audit.after(loaded, before)) if audit else outcome


def _moved_by_another(session: Session, key: StateKey, marker: Marker | None) -> bool:
    with session.project.warehouse.open() as connection:
        newest = commits.newest(connection, key)
    return newest is not None and newest != marker and newest.run_id != session.run_id


def _asked(connector: Connector[Any], read: Callable[[], Loaded]) -> Loaded:
    """A read counts as one request, unless the connector counts those it makes."""
    return read() if connector.by_request else connector.guard.once(read)


def _planned(
    session: Session, step: Load, connector: Connector[Any], start: Start, state: State
) -> tuple[Stream, LoadSpec]:
    """What is read, and how its rows are stored in the table as it is."""
    stream = _stream(step, connector, state_key(session.project, step, session.partition))
    spec = load_spec(session, step, connector, stream, start)
    if state.stored and not spec.fresh:
        stream = replace(stream, stored=state.stored)
        if spec.schema_policy != "strict":
            spec = replace(spec, shape=replace(spec.shape, stored=tuple(state.stored)))
    return stream, spec


def _start(session: Session, step: Load, key: StateKey, state: State) -> Start:
    """Where the read begins, after run storage and the warehouse have been brought together."""
    start = reconcile(state.marker, state.copy)
    if start.unreadable and state.copy:
        # Kept for whoever wrote it, e.g. a later release; nothing of ours reads it.
        session.store.set(f"{key}>unreadable", state.copy)
    if start.notice:
        log.warning("%s: %s", key, start.notice)
    if start.repair:
        session.store.set(str(key), start.repair.to_json())
    return _without_table(step, start) if start.cursor and state.stored is None else start


def _without_table(step: Load, start: Start) -> Start:
    """The cursor tells of rows that went with the table: someone dropped it."""
    notice = f"the table {step.table} is gone, and its cursor is not; everything is read again"
    log.warning("%s", notice)
    return replace(start, cursor=None, rewound=False, notice=notice)


def _confirmed(
    connector: Connector[Any], stream: Stream, loaded: Loaded
) -> tuple[Mapping[str, str | int], tuple[str, ...]]:
    """Tell the far side what is stored for good; return its facts, and what went wrong, which is no failure."""
    if not stream.logged or loaded.cursor is None:
        return {}, ()
    try:
        return connector.confirm(stream, loaded.cursor), ()
    except SourceError as error:
        log.warning("%s", error)
        return {}, (f"{error}. The rows are stored, and the next run tells the source so",)


def _stream(step: Load, connector: Connector[Any], key: StateKey) -> Stream:
    for stream in connector.streams():
        if stream.name == step.stream and stream.logged:
            return replace(stream, primary_key=step.keys, reader=str(key))
        if stream.name == step.stream:
            return replace(stream, needs=(*step.keys, *filter(None, (step.cursor_field,))))
    raise SourceFailed(f"{step.source.name} has no stream {step.stream!r} any more; list its streams")


def _feed(
    session: Session, intake: Intake, connector: Connector[Any], stream: Stream, spec: LoadSpec
) -> None:
    batches = connector.read_within(stream, spec.since, Span(*spec.bounds))
    try:
        for batch in _until_stopped(session, batches):
            _take(session, intake, batch)
            if batch.position:
                intake.position(batch.position)
                if stream.ordered:
                    intake.checkpoint(batch.position)
    finally:
        # A read that broke frees its connection now, not when its error is forgotten.
        if isinstance(batches, Generator):
            batches.close()


def _until_stopped(session: Session, items: Iterable[_T]) -> Iterator[_T]:
    for item in items:
        if session.stopped.is_set():
            raise Canceled("the run was canceled; what was committed stays")
        yield item


def _take(session: Session, intake: Intake, batch: Batch) -> None:
    match batch:
        case Scan():
            intake.scan(
                batch.query,
                batch.parameters,
                extensions=batch.extensions,
                attach=batch.attach,
                attach_late=batch.attach_late,
                rejects=batch.rejects,
                provenance=batch.provenance,
                replaces=batch.replaces,
                horizon=batch.horizon,
                left_out=batch.left_out,
                own=batch.own,
                changes=batch.changes,
                serial=batch.serial,
                scattered=batch.scattered,
                explain=batch.explain,
            )
        case Arrow():
            intake.arrow(batch.reader)
        case Unmoved():
            pass
        case JsonLines():
            intake.json_lines(_until_stopped(session, batch.chunks), batch.columns)


def _loaded(step: Load, start: Start, loaded: Loaded, notices: tuple[str, ...]) -> Outcome:
    return Outcome(
        step,
        rows=loaded.rows_read,
        inserted=loaded.inserted,
        updated=loaded.updated,
        deleted=loaded.deleted,
        quarantined=loaded.quarantined,
        total_rows=loaded.total_rows,
        bytes=loaded.bytes,
        cursor_before=start.cursor,
        cursor_after=loaded.cursor,
        columns=loaded.columns,
        schema_changes=loaded.schema_changes,
        notices=(*((start.notice,) if start.notice else ()), *loaded.notices, *notices),
        repaired=start.repair is not None,
    )
