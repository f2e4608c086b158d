"""One step: read since the cursor → load → move the cursor | SQL → table | query → export.

The spine. It knows neither Dagster nor DuckDB: the session brings a `Store` for the users' copy of
the cursors, and the warehouse does the storing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from dataclasses import replace
from functools import partial

from sqlflow_dagster.connectors.base import Written
from sqlflow_dagster.errors import SQLFlowError
from sqlflow_dagster.language.variables import expand_sql
from sqlflow_dagster.loading import load_stream, states
from sqlflow_dagster.parts import of_partitions
from sqlflow_dagster.plan.lineage import column_lineage
from sqlflow_dagster.plan.nodes import Export, Load, Step, Transform
from sqlflow_dagster.resilience.counts import counting
from sqlflow_dagster.session import Outcome, Session
from sqlflow_dagster.specs import search_path, transform_spec
from sqlflow_dagster.warehouse.result import rows
from sqlflow_dagster.warehouse.transform import transform
from sqlflow_dagster.warehouse.udf import Functions

_MOST_STREAMS_AT_ONCE = 8
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


def run_partitions(sessions: Sequence[Session], steps: Sequence[Step]) -> Iterator[Outcome]:
    """Yield an outcome for each step as it is done for the last session; they differ in their partition only.

    After a session in which a step failed there is none.
    """
    done: dict[int, list[Outcome]] = {id(step): [] for step in steps}
    for session in sessions:
        broken = False
        for outcome in run_steps(session, steps):
            broken |= outcome.error is not None
            done[id(outcome.step)].append(outcome)
            if outcome.error:
                yield outcome
            elif session is sessions[-1]:
                yield of_partitions(done[id(outcome.step)])
        if broken:
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
        # One looks itself up.
        found = states(session, loads) if len(loads) > 1 else [None]
        connector = session.project.connector(loads[0].source, session.scope(loads[0].source.scope))
    except SQLFlowError as error:
        yield from (Outcome(load, error=error) for load in loads)
        return
    most = min(len(loads), _MOST_STREAMS_AT_ONCE)
    with connector, ThreadPoolExecutor(most, "sqlflow") as threads:
        session.guards.append(connector.guard)
        tasks = [
            threads.submit(_timed, load, partial(load_stream, session, load, connector, state))
            for load, state in zip(loads, found, strict=True)
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


def _transform(session: Session, step: Transform) -> Outcome:
    spec = transform_spec(session, step)
    done = transform(session.project.warehouse, spec, _functions(session))
    notices = session.mirror(done.emptied)
    return Outcome(
        step,
        rows=done.inserted,
        inserted=done.inserted,
        deleted=done.deleted,
        total_rows=done.total_rows,
        columns=done.columns,
        schema_changes=done.schema_changes,
        lineage=column_lineage(spec.sql, done.read, spec.search_path, tuple(done.columns)),
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


def _functions(session: Session) -> Functions:
    settings = session.project.settings
    return Functions(settings.root / settings.profile.paths.python_udfs, session.stopped)
