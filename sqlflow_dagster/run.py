"""One step: read since the cursor → load → move the cursor | SQL → table | query → export.

The spine. It knows neither Dagster nor DuckDB: the session brings a `Store` for the users' copy of
the cursors, and the warehouse does the storing. The order inside a load is what makes it exact:
rows and marker in one transaction, then run storage, then the outcome.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sqlflow_dagster.connectors.base import Arrow, Batch, Connector, JsonLines, Scan, Stream
from sqlflow_dagster.cursor import Cursor, Marker, Start, StateKey, reconcile
from sqlflow_dagster.errors import CursorConflict, SourceFailed, SQLFlowError
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.language.variables import Variables, expand_sql
from sqlflow_dagster.plan.lineage import column_lineage
from sqlflow_dagster.plan.nodes import Export, Lineage, Load, Step, Transform
from sqlflow_dagster.project import Project
from sqlflow_dagster.settings import Scalar
from sqlflow_dagster.sql import TableName, quote
from sqlflow_dagster.warehouse import commits
from sqlflow_dagster.warehouse.intake import Intake
from sqlflow_dagster.warehouse.load import Loaded, LoadSpec, behind, load
from sqlflow_dagster.warehouse.result import rows
from sqlflow_dagster.warehouse.shape import Shape, Window
from sqlflow_dagster.warehouse.tables import columns, kind
from sqlflow_dagster.warehouse.transform import TransformSpec, transform
from sqlflow_dagster.warehouse.udf import Functions

log = logging.getLogger(__name__)

_MOST_STREAMS_AT_ONCE = 8
_MOST_CONFLICTS = 5


class Store(Protocol):
    """The users' copy of the cursors; Dagster's run storage in production."""

    def get(self, key: str) -> str | None:
        """Return the text under `key`, None where there is none."""

    def set(self, key: str, value: str) -> None:
        """Store the text under `key`."""


@dataclass(frozen=True, slots=True)
class Session:
    """What all steps of one run share.

    `run_date` is an ISO date: the partition's, else the schedule's tick, else the start of the
    first run of a retry chain. `window` is the partition.
    """

    project: Project
    run_id: str
    run_date: str
    store: Store
    variables: Mapping[str, Scalar] = field(default_factory=dict)
    full_refresh: bool = False
    window: Window | None = None
    partition: str | None = None

    def scope(self, values: Mapping[str, Any]) -> Variables:
        """Return the variables that a statement sees in this run."""
        builtin: dict[str, Scalar] = {"run_id": self.run_id, "run_date": self.run_date}
        if self.window:
            builtin |= {"partition_start": self.window.start, "partition_end": self.window.end}
        return self.project.scope(values, self.variables, builtin)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one step. With `error` set, nothing of it was stored.

    `skipped` says that an earlier try of the same run had done it. `columns` maps names to DuckDB
    types. `seconds` is wall time. `repaired` says that run storage and warehouse had to be brought
    together.
    """

    step: Step
    error: SQLFlowError | None = None
    rows: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    quarantined: int = 0
    total_rows: int | None = None
    bytes: int | None = None
    seconds: float = 0.0
    cursor_before: Cursor | None = None
    cursor_after: Cursor | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    schema_changes: tuple[str, ...] = ()
    lineage: tuple[Lineage, ...] = ()
    notices: tuple[str, ...] = ()
    repaired: bool = False
    skipped: bool = False
    target: str | None = None


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
            return next(_side_by_side(session, [step]))
        case Transform():
            return _timed(step, lambda: _transform(session, step))
        case Export():
            return _timed(step, lambda: _export(session, step))


def _independent(steps: Sequence[Step]) -> bool:
    loads = [step for step in steps if isinstance(step, Load)]
    tables = {load.table.folded for load in loads}
    return len(loads) == len(steps) == len(tables) and len({load.source.name for load in loads}) == 1


def _side_by_side(session: Session, loads: Sequence[Load]) -> Iterator[Outcome]:
    try:
        connector = session.project.connector(loads[0].source, session.scope(loads[0].source.scope))
    except SQLFlowError as error:
        yield from (Outcome(load, error=error) for load in loads)
        return
    with connector, ThreadPoolExecutor(min(len(loads), _MOST_STREAMS_AT_ONCE), "sqlflow") as threads:
        tasks = [
            threads.submit(_timed, load, lambda load=load: _load(session, load, connector)) for load in loads
        ]
        broken: list[Future[Outcome]] = []
        for task in as_completed(tasks):
            if task.exception() is None:
                yield task.result()
            else:
                broken.append(task)
        # Raised last, so that what the other streams stored is known first.
        for task in broken:
            task.result()


def _timed(step: Step, work: Any) -> Outcome:
    begin = time.perf_counter()
    try:
        outcome: Outcome = work()
    except SQLFlowError as error:
        outcome = Outcome(step, error=error)
    return replace(outcome, seconds=time.perf_counter() - begin)


def _load(session: Session, step: Load, connector: Connector[Any]) -> Outcome:
    for _ in range(_MOST_CONFLICTS):
        try:
            return _load_once(session, step, connector)
        except CursorConflict:
            log.info("%s: another run committed first; reading again from its cursor", step.table)
    raise SourceFailed(
        f"{step.table}: other runs kept committing to this LOAD while it was read; run it in one place"
    )


def _load_once(session: Session, step: Load, connector: Connector[Any]) -> Outcome:
    key = state_key(session.project, step, session.partition)
    with session.project.warehouse.open() as connection:
        marker = commits.newest(connection, key)
        done = commits.completed_by(connection, key, session.run_id)
    start = _reconciled(session, key, marker)
    if done:
        return Outcome(
            step, rows=done.rows, cursor_after=done.cursor, skipped=True, repaired=start.repair is not None
        )
    stream = _stream(step, connector)
    spec = _spec(session, step, connector, stream, start, key)
    loaded = load(
        session.project.warehouse, spec, lambda intake: _feed(intake, connector, stream, spec.since)
    )
    failpoint("after_commit_before_cursor_mirror")
    session.store.set(str(key), loaded.marker.to_json())
    failpoint("after_cursor_before_materialization")
    return _loaded(step, start, loaded)


def state_key(project: Project, step: Load, partition: str | None = None) -> StateKey:
    """Return the name under which the state of a LOAD is kept."""
    settings = project.settings
    return StateKey(
        project=settings.project,
        environment=settings.environment,
        pipeline=step.pipeline,
        source=step.source.name,
        stream=step.stream,
        table=step.table.name,
        partition=partition,
    )


def _reconciled(session: Session, key: StateKey, marker: Marker | None) -> Start:
    start = reconcile(marker, session.store.get(str(key)))
    if start.notice:
        log.warning("%s: %s", key, start.notice)
    if start.repair:
        session.store.set(str(key), start.repair.to_json())
    return start


def _stream(step: Load, connector: Connector[Any]) -> Stream:
    for stream in connector.streams():
        if stream.name == step.stream:
            return stream
    raise SourceFailed(f"{step.source.name} has no stream {step.stream!r} any more; list its streams")


def _spec(
    session: Session, step: Load, connector: Connector[Any], stream: Stream, start: Start, key: StateKey
) -> LoadSpec:
    options = connector.options
    since = None if session.full_refresh or not step.incremental else start.cursor
    if since and options.lookback_window and not stream.own_cursor:
        since = behind(since, options.lookback_window)
    first = since is None
    return LoadSpec(
        key=key,
        table=step.table,
        mode=step.mode,
        keys=step.keys,
        cursor_field=step.cursor_field,
        own_cursor=stream.own_cursor,
        since=since,
        started_from=start.found,
        epoch=start.epoch,
        rewound=start.rewound,
        shape=Shape(
            columns=options.columns,
            exclude=options.exclude_columns,
            mask=options.mask,
            conditions=options.filters,
            start=options.start_date if first else None,
            end=options.end_date,
        ),
        schema_policy=options.schema_policy or session.project.settings.profile.schema_policy,
        run_id=session.run_id,
        sole_writer=step.sole_writer,
        row_provenance=options.row_provenance,
        incremental=step.incremental,
        ordered=stream.ordered,
        window=session.window,
    )


def _feed(intake: Intake, connector: Connector[Any], stream: Stream, since: Cursor | None) -> None:
    for batch in connector.read(stream, since):
        _take(intake, batch)
        if batch.position:
            intake.position(batch.position)
            if stream.ordered:
                intake.checkpoint(batch.position)


def _take(intake: Intake, batch: Batch) -> None:
    match batch:
        case Scan():
            intake.scan(
                batch.query,
                batch.parameters,
                extensions=batch.extensions,
                attach=batch.attach,
                rejects=batch.rejects,
                provenance=batch.provenance,
                replaces=batch.replaces,
            )
        case Arrow():
            intake.arrow(batch.reader)
        case JsonLines():
            intake.json_lines(batch.chunks, batch.columns)


def _loaded(step: Load, start: Start, loaded: Loaded) -> Outcome:
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
        notices=(*((start.notice,) if start.notice else ()), *loaded.notices),
        repaired=start.repair is not None,
    )


def _transform(session: Session, step: Transform) -> Outcome:
    spec = TransformSpec(
        table=step.table,
        view=step.view,
        mode=step.mode,
        keys=step.keys,
        by=step.by,
        lookback=step.lookback,
        sql=expand_sql(step.sql, session.scope(step.scope)),
        window=session.window,
        start=session.project.settings.profile.pipeline(step.pipeline).start,
        run_id=session.run_id,
        statement=f"{step.pipeline}.{step.table}.{step.code_version}",
        search_path=_search_path(session, step),
        partition=session.partition,
    )
    before = _schemas(session, step)
    done = transform(session.project.warehouse, spec, _functions(session))
    return Outcome(
        step,
        rows=done.inserted,
        inserted=done.inserted,
        deleted=done.deleted,
        total_rows=done.total_rows,
        columns=done.columns,
        lineage=column_lineage(spec.sql, before, spec.search_path, tuple(done.columns)),
        notices=done.notices,
        skipped=done.skipped,
    )


def _export(session: Session, step: Export) -> Outcome:
    scope = session.scope(step.scope)
    kind, options, target, place = session.project.sink(step, scope)
    with rows(
        session.project.warehouse,
        expand_sql(step.sql, scope),
        _functions(session),
        _search_path(session, step),
    ) as result:
        written = kind.write(result, target, options, place)
    return Outcome(step, rows=written.rows, bytes=written.bytes, target=written.target)


def _schemas(session: Session, step: Transform) -> dict[TableName, tuple[str, ...]]:
    """The columns of the tables that a query reads, as they are before it runs."""
    with session.project.warehouse.open() as connection:
        return {
            table: tuple(columns(connection, quote(*table)))
            for table in step.reads
            if kind(connection, table)
        }


def _search_path(session: Session, step: Transform | Export) -> tuple[str, ...]:
    own = session.project.settings.profile.one_schema or step.pipeline
    return tuple(dict.fromkeys((own, *(table.schema for table in step.reads))))


def _functions(session: Session) -> Functions:
    settings = session.project.settings
    return Functions(settings.root / settings.profile.paths.python_udfs)
