"""One step: read since the cursor → load → move the cursor | SQL → table | query → export.

The spine. It knows neither Dagster nor DuckDB: the session brings a `Store` for the users' copy of
the cursors, and the warehouse does the storing. The order inside a load is what makes it exact:
rows and marker in one transaction, then run storage, then the outcome.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from sqlflow_dagster.audit import Audit
from sqlflow_dagster.connectors.base import (
    Arrow,
    Batch,
    Connector,
    JsonLines,
    Scan,
    Span,
    Stream,
    Unmoved,
    Written,
)
from sqlflow_dagster.cursor import Marker, Start, StateKey, reconcile
from sqlflow_dagster.errors import (
    Canceled,
    CursorConflict,
    RunStorageFailed,
    SourceError,
    SourceFailed,
    SQLFlowError,
)
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.language.variables import expand_sql
from sqlflow_dagster.parts import Part, with_parts
from sqlflow_dagster.plan.lineage import column_lineage
from sqlflow_dagster.plan.nodes import Export, Load, Step, Transform
from sqlflow_dagster.resilience.counts import counting
from sqlflow_dagster.session import Outcome, Session, state_key
from sqlflow_dagster.specs import load_spec, search_path, transform_spec
from sqlflow_dagster.sql import TableName, quote
from sqlflow_dagster.warehouse import commits
from sqlflow_dagster.warehouse.intake import Intake
from sqlflow_dagster.warehouse.load import Loaded, LoadSpec, load
from sqlflow_dagster.warehouse.result import rows
from sqlflow_dagster.warehouse.tables import columns, kind
from sqlflow_dagster.warehouse.transform import transform
from sqlflow_dagster.warehouse.udf import Functions

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_MOST_STREAMS_AT_ONCE = 8
_MOST_CONFLICTS = 5
_SECONDS_BETWEEN_INTERRUPTS = 0.1


def run_steps(session: Session, steps: Sequence[Step]) -> Iterator[Outcome]:
    """Yield an outcome for each step as it is done.

    Loads of one source into tables of their own run side by side, and all are tried. Any other
    steps run in order, and none after the first that failed.
    """
    if _independent(steps):
        yield from _side_by_side(session, [step for step in steps if isinstance(step, Load)])
        return
    for step in steps:
        outcome = run_step(session, step)
        yield outcome
        if outcome.error:
            return


def run_step(session: Session, step: Step) -> Outcome:
    """Run one step; an error of ours is in the outcome, any other exception is raised."""
    match step:
        case Load():
            # To its end: a generator that is left early ends what it has under way.
            (outcome,) = _side_by_side(session, [step])
            return outcome
        case Transform():
            return _interruptible(session, step, lambda: _transform(session, step))
        case Export():
            return _interruptible(session, step, lambda: _export(session, step))


def _interruptible(session: Session, step: Step, work: Callable[[], Outcome]) -> Outcome:
    """Work in a thread: DuckDB does not look for signals while it executes in the main one."""
    with ThreadPoolExecutor(1, "sqlflow") as threads:
        task = threads.submit(_timed, step, work)
        try:
            return task.result()
        # A canceled run raises here whatever Dagster or Python chose for it, and it is raised again.
        except BaseException:
            _stop(session, [task])
            raise


def _independent(steps: Sequence[Step]) -> bool:
    loads = [step for step in steps if isinstance(step, Load)]
    tables = {load.table.folded for load in loads}
    return len(loads) == len(steps) == len(tables) and len({load.source.name for load in loads}) == 1


def _side_by_side(session: Session, loads: Sequence[Load]) -> Iterator[Outcome]:
    try:
        states = _states(session, loads)
        connector = session.project.connector(loads[0].source, session.scope(loads[0].source.scope))
    except SQLFlowError as error:
        yield from (Outcome(load, error=error) for load in loads)
        return
    most = min(len(loads), _MOST_STREAMS_AT_ONCE)
    with connector, ThreadPoolExecutor(most, "sqlflow") as threads:
        session.guards.append(connector.guard)
        tasks = [
            threads.submit(_timed, load, partial(_load, session, load, connector, state))
            for load, state in zip(loads, states, strict=True)
        ]
        broken: list[Future[Outcome]] = []
        try:
            for task in as_completed(tasks):
                if task.exception() is None:
                    yield task.result()
                else:
                    broken.append(task)
        # As in `_interruptible`; the streams that were not begun are not.
        except BaseException:
            _stop(session, tasks)
            raise
        # Raised last, so that what the other streams stored is known first.
        for task in broken:
            task.result()


def _stop(session: Session, tasks: Sequence[Future[Outcome]]) -> None:
    """End what is under way: what was committed stays, the rest is undone."""
    session.stopped.set()
    for guard in session.guards:
        guard.stop()
    for task in tasks:
        task.cancel()
    while wait(tasks, timeout=_SECONDS_BETWEEN_INTERRUPTS).not_done:
        session.project.warehouse.interrupt()


def _timed(step: Step, work: Callable[[], Outcome]) -> Outcome:
    begin = time.perf_counter()
    with counting() as counter:
        try:
            outcome = work()
        except SQLFlowError as error:
            outcome = Outcome(step, error=error)
    return replace(outcome, seconds=time.perf_counter() - begin, calls=counter.calls)


@dataclass(frozen=True, slots=True)
class _State:
    """What the warehouse says of a LOAD: its newest marker, the one by which this run has done it, its table."""

    marker: Marker | None
    done: Marker | None
    stored: bool


def _states(session: Session, loads: Sequence[Load]) -> list[_State]:
    """Look LOADs up in the warehouse, which is opened once: that takes longer the more tables it has."""
    with session.project.warehouse.open() as connection:
        keys = [state_key(session.project, load, session.partition) for load in loads]
        return [
            _State(
                marker=commits.newest(connection, key),
                done=commits.completed_by(connection, key, session.run_id),
                stored=kind(connection, load.table) is not None,
            )
            for load, key in zip(loads, keys, strict=True)
        ]


def _load(session: Session, step: Load, connector: Connector[Any], state: _State) -> Outcome:
    """Load; where waiting mends what went wrong, again from the newest cursor."""
    parts: list[Part] = []
    first = [state]

    def once() -> Outcome:
        (now,) = [first.pop()] if first else _states(session, [step])
        return _load_once(session, step, connector, parts, now)

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
    session: Session, step: Load, connector: Connector[Any], parts: list[Part], state: _State
) -> Outcome:
    key = state_key(session.project, step, session.partition)
    marker, done, stored = state.marker, state.done, state.stored
    start = _reconciled(session, key, marker)
    if start.cursor and not stored:
        start = _without_table(step, start)
    if done and stored:
        return Outcome(
            step, rows=done.rows, cursor_after=done.cursor, skipped=True, repaired=start.repair is not None
        )
    stream = _stream(step, connector, key)
    spec = load_spec(session, step, connector, stream, start)
    audit = Audit(session, step, connector, stream) if step.loss_audit else None
    before = audit.begin() if audit else ""
    try:
        loaded = _asked(
            connector,
            lambda: load(
                session.project.warehouse,
                spec,
                lambda intake: _feed(session, intake, connector, stream, spec),
                lambda loaded: parts.append(Part(start, loaded)),
            ),
        )
    except SourceFailed as error:
        if stream.logged and _moved_by_another(session, key, marker):
            raise CursorConflict(f"{step.table}: another run moved the source's position on") from error
        raise
    failpoint("after_commit_before_cursor_mirror")
    notices = _mirror(session, {key: loaded.marker, **loaded.emptied})
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


def _reconciled(session: Session, key: StateKey, marker: Marker | None) -> Start:
    copy = session.store.get(str(key))
    start = reconcile(marker, copy)
    if start.unreadable and copy:
        # Kept for whoever wrote it, e.g. a later release; nothing of ours reads it.
        session.store.set(f"{key}>unreadable", copy)
    if start.notice:
        log.warning("%s: %s", key, start.notice)
    if start.repair:
        session.store.set(str(key), start.repair.to_json())
    return start


def _without_table(step: Load, start: Start) -> Start:
    """The cursor tells of rows that went with the table: someone dropped it."""
    notice = f"the table {step.table} is gone, and its cursor is not; everything is read again"
    log.warning("%s", notice)
    return replace(start, cursor=None, rewound=False, notice=notice)


def _mirror(session: Session, markers: Mapping[StateKey, Marker]) -> tuple[str, ...]:
    """Copy markers to run storage, one key a call; return what went wrong, which is no failure of the load."""
    try:
        for key, marker in markers.items():
            session.store.set(str(key), marker.to_json())
    except RunStorageFailed as error:
        log.warning("%s", error)
        return (f"{error}. The rows are stored, and the next run writes the cursor's copy",)
    return ()


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


def _transform(session: Session, step: Transform) -> Outcome:
    spec = transform_spec(session, step)
    before = _schemas(session, step)
    done = transform(session.project.warehouse, spec, _functions(session))
    notices = _mirror(session, done.emptied)
    return Outcome(
        step,
        rows=done.inserted,
        inserted=done.inserted,
        deleted=done.deleted,
        total_rows=done.total_rows,
        columns=done.columns,
        schema_changes=done.schema_changes,
        lineage=column_lineage(spec.sql, before, spec.search_path, tuple(done.columns)),
        notices=(*done.notices, *notices),
        skipped=done.skipped,
    )


def _export(session: Session, step: Export) -> Outcome:
    scope = session.scope(step.scope)
    kind, options, target, place = session.project.sink(step, scope)
    guard = session.project.sink_guard(step, kind, options)
    once = "/".join((session.run_id, step.pipeline, step.name, session.partition or ""))

    def write() -> Written:
        with rows(
            session.project.warehouse,
            expand_sql(step.sql, scope),
            _functions(session),
            search_path(session.project, step),
        ) as result:
            return kind.write(result, target, options, replace(place, once=once, guard=guard))

    session.guards.append(guard)
    written = guard.retry(write) if kind.by_request else guard.call(write)
    return Outcome(step, rows=written.rows, bytes=written.bytes, target=written.target)


def _schemas(session: Session, step: Transform) -> dict[TableName, tuple[str, ...]]:
    """The columns of the tables that a query reads, as they are before it runs."""
    with session.project.warehouse.open() as connection:
        return {
            table: tuple(columns(connection, quote(*table)))
            for table in step.reads
            if kind(connection, table)
        }


def _functions(session: Session) -> Functions:
    settings = session.project.settings
    return Functions(settings.root / settings.profile.paths.python_udfs)
