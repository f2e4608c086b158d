"""The state of a project's LOADs: what is remembered, and how to go back.

Both memories are shown and both are moved: the marker beside the rows and Dagster's run storage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlflow_dagster.connectors.base import Estimate
from sqlflow_dagster.cursor import Cursor, Marker, Position, StateKey
from sqlflow_dagster.errors import ProjectError, SQLFlowError
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.plan.nodes import Load
from sqlflow_dagster.project import Project, state_key
from sqlflow_dagster.session import Store
from sqlflow_dagster.warehouse import commits, comparison


@dataclass(frozen=True, slots=True)
class State:
    """What the warehouse (`marker`) and run storage (`stored`, its text) remember of one LOAD."""

    key: StateKey
    load: Load
    marker: Marker | None
    stored: str | None


def keys(project: Project) -> tuple[tuple[Load, StateKey], ...]:
    """Return each LOAD of the project with the key of its state, in file order."""
    return tuple(
        (step, state_key(project, step))
        for pipeline in project.plan.pipelines
        for group in pipeline.groups
        for step in group.steps
        if isinstance(step, Load)
    )


def read(project: Project, store: Store) -> tuple[State, ...]:
    """Return the state of every LOAD of the project."""
    with project.warehouse.open() as connection:
        return tuple(
            State(key, step, commits.newest(connection, key), store.get(str(key)))
            for step, key in keys(project)
        )


def estimates(
    project: Project, pipeline: str | None = None
) -> Iterator[tuple[Load, Estimate | SQLFlowError]]:
    """Yield what the next read of each LOAD would take, where a listing tells, or why it cannot be told.

    Sources are contacted; nothing is read of them but listings, and nothing is stored.
    """
    loads = [(step, key) for step, key in keys(project) if pipeline in (None, step.pipeline)]
    markers: dict[StateKey, Marker | None] = {}
    if project.settings.database and project.settings.database.exists():
        with project.warehouse.open() as connection:
            markers = {key: commits.newest(connection, key) for _, key in loads}
    for step, key in loads:
        marker = markers.get(key)
        try:
            with project.connector(step.source, project.scope(step.source.scope)) as connector:
                connector.guard = connector.guard.once_only()
                found = connector.estimate(marker.cursor if marker and step.incremental else None)
        except SQLFlowError as error:
            yield step, error
            continue
        if found is not None:
            yield step, found


def reset(project: Project, store: Store, key: StateKey, to: str | None = None) -> Marker:
    """Begin a new epoch of a LOAD, and return its marker.

    Without `to` the next run reads everything and swaps the table. With `to`, a value of the
    cursor column, the next run deletes the rows from there on and reads them again.

    Raises ProjectError for `to` where there is no cursor column's value to go back from, or it is none of
    the column's type, or lies ahead of what was read.
    """
    with project.warehouse.open() as connection:
        newest = commits.newest(connection, key)
        cursor = _cursor(newest, to)
        try:
            ahead = newest and comparison.is_ahead(connection, cursor, newest.cursor)
        except ValueError as error:
            raise ProjectError(f"--to: {error}, which the cursor column is") from error
        if ahead and newest and newest.cursor:
            raise ProjectError(
                f"--to: {to} lies ahead of {newest.cursor.value}, up to where this LOAD has read, so that the rows "
                "between them would never be read; go back to a value before it"
            )
        position = Position(max(_epoch(newest), _epoch(_copy(store.get(str(key))))) + 1, 0)
        marker = Marker(
            position=position,
            cursor=cursor,
            run_id="reset",
            rows=0,
            schema_hash=newest.schema_hash if newest else "",
            complete=True,
            committed_at=datetime.now(UTC).isoformat(),
            # The value is one of the same column.
            cursor_field=newest.cursor_field if newest and cursor else None,
        )
        commits.append(connection, key, marker)
    failpoint("in_reset")
    store.set(str(key), marker.to_json())
    return marker


def compact(project: Project, keep: int) -> int:
    """Forget all but the newest `keep` markers of each LOAD, and return how many went; reading goes on as before."""
    with project.warehouse.open() as connection:
        return commits.compact(connection, keep)


def _cursor(newest: Marker | None, to: str | None) -> Cursor | None:
    if to is None:
        return None
    if newest is None or newest.cursor is None or newest.cursor.type == "JSON":
        raise ProjectError(
            "this LOAD has no cursor column's value to go back from; reset it without --to to read everything"
        )
    return Cursor(to, newest.cursor.type)


def _copy(stored: str | None) -> Marker | None:
    try:
        return Marker.from_json(stored) if stored else None
    except ValueError:
        # An unreadable copy says nothing of its epoch; the reset writes a readable one over it.
        return None


def _epoch(marker: Marker | None) -> int:
    return marker.position.epoch if marker else 0
