"""A step of a run → what the warehouse is to do, with what else writes the same table taken into account.

A table that several statements write is built anew by the first of them, and the others add to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlflow_dagster.connectors.base import Connector, Stream
from sqlflow_dagster.cursor import Start, StateKey
from sqlflow_dagster.errors import LoadRefused
from sqlflow_dagster.language.variables import expand_sql
from sqlflow_dagster.plan.nodes import Export, Load, Transform
from sqlflow_dagster.project import Project, state_key
from sqlflow_dagster.session import Session
from sqlflow_dagster.sql import fold
from sqlflow_dagster.warehouse.load import LoadSpec, behind
from sqlflow_dagster.warehouse.shape import Shape
from sqlflow_dagster.warehouse.transform import TransformSpec


def load_spec(
    session: Session, step: Load, connector: Connector[Any], stream: Stream, start: Start
) -> LoadSpec:
    """Return what a LOAD is to read and how it is stored."""
    options = connector.options
    since = None if session.full_refresh or not step.incremental else start.cursor
    if since:
        _check_column(step, stream, start)
    if since and options.lookback_window and not stream.own_cursor:
        since = behind(since, options.lookback_window)
    earlier, later = _other_writers(session.project, step)
    anew = session.full_refresh and not earlier and session.window is None
    return LoadSpec(
        key=state_key(session.project, step, session.partition),
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
            start=options.start_date if since is None else None,
            end=options.end_date,
            several=len(connector.streams()) > 1,
        ),
        schema_policy=options.schema_policy,
        run_id=session.run_id,
        sole_writer=step.sole_writer,
        row_provenance=options.row_provenance,
        incremental=step.incremental,
        ordered=stream.ordered,
        logged=stream.logged,
        window=session.window,
        anew=anew,
        others=_keys(session.project, later) if anew else (),
    )


def transform_spec(session: Session, step: Transform) -> TransformSpec:
    """Return what a CREATE is to store and how."""
    profile = session.project.settings.profile
    earlier, later = _other_writers(session.project, step)
    return TransformSpec(
        table=step.table,
        view=step.view,
        mode=step.mode,
        keys=step.keys,
        by=step.by,
        lookback=step.lookback,
        sql=expand_sql(step.sql, session.scope(step.scope)),
        window=session.window,
        start=profile.pipeline(step.pipeline).start,
        run_id=session.run_id,
        statement=_statement(session.project, step),
        search_path=search_path(session.project, step),
        partition=session.partition,
        schema_policy=profile.schema_policy,
        full_refresh=session.full_refresh,
        first=not earlier,
        later_loads=_keys(session.project, later),
        later_statements=tuple(
            _statement(session.project, other) for other in later if isinstance(other, Transform)
        ),
        reads=tuple(step.reads),
    )


def _check_column(step: Load, stream: Stream, start: Start) -> None:
    """Raise LoadRefused for a cursor of another column: what comes after it there may be before it here."""
    was, now = start.cursor_field, None if stream.own_cursor else step.cursor_field
    if was and fold(was) != fold(now or ""):
        raise LoadRefused(
            f"{step.table}: its rows were read in the order of {was!r}, and are to be read on in "
            f"{f'that of {now!r}' if now else 'another'}; read everything anew with --full-refresh"
        )


def search_path(project: Project, step: Transform | Export) -> tuple[str, ...]:
    """Return the schemas in which a step's unqualified names are looked up, in order."""
    own = project.settings.profile.one_schema or step.pipeline
    return tuple(dict.fromkeys((own, *(table.schema for table in step.reads))))


def _other_writers(
    project: Project, step: Load | Transform
) -> tuple[Sequence[Load | Transform], Sequence[Load | Transform]]:
    """The steps that write the same table before and after this one."""
    writers = project.writers(step)
    place = next((index for index, other in enumerate(writers) if other is step), 0)
    return writers[:place], writers[place + 1 :]


def _keys(project: Project, steps: Sequence[Load | Transform]) -> tuple[StateKey, ...]:
    return tuple(state_key(project, step) for step in steps if isinstance(step, Load))


def _statement(project: Project, step: Transform) -> str:
    """The name of a CREATE among all of the project; twins of one text are numbered."""
    earlier, _later = _other_writers(project, step)
    twins = sum(isinstance(e, Transform) and e.code_version == step.code_version for e in earlier)
    return f"{step.pipeline}.{step.table}.{step.code_version}" + (f".{twins + 1}" if twins else "")
