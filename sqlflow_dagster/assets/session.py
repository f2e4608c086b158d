"""What Dagster knows of a run → the `Session` that its steps share."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from sqlflow_dagster.assets.cursors import RunStorage
from sqlflow_dagster.assets.dead_runs import begun_in_main_process, mark_dead_runs, tag_run
from sqlflow_dagster.assets.resources import KEY, SQLFlowResource
from sqlflow_dagster.assets.resumed import resumed
from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.plan.nodes import Pipeline
from sqlflow_dagster.project import Project
from sqlflow_dagster.session import Session
from sqlflow_dagster.settings import Scalar
from sqlflow_dagster.warehouse.shape import Window

log = logging.getLogger(__name__)

_TICK = ".dagster/scheduled_execution_time"
_ROOT_RUN = "dagster/root_run_id"
_TEMPORARY_HOME = ".tmp_dagster_home_"
# Runs that this process has begun, and (run, pipeline) whose variables it has checked.
_begun: set[str] = set()
_checked: set[tuple[str, str]] = set()
_warned: list[str] = []
# The tick of the first run of a retry chain, else when it was created.
_started: dict[str, datetime] = {}


def begin_run(context: dg.AssetExecutionContext) -> None:
    """Once a run and process: say whose run this is, end dead ones, and warn of a home that goes away."""
    run = context.run
    if run.run_id in _begun:
        return
    _begun.add(run.run_id)
    drives = not context.get_step_execution_context().retry_mode.deferred
    if drives:
        _warn_of_lost_home(context.instance)
    if begun_in_main_process(run.run_id):
        return
    tag_run(context.instance, run, own_process_drives=drives)
    for run_id in mark_dead_runs(context.instance):
        log.warning("the run %s was marked failed: its process is gone", run_id)


def sessions_of(
    context: dg.AssetExecutionContext,
    project: Project,
    pipeline: Pipeline,
    partitions: dg.PartitionsDefinition[Any] | None,
) -> list[Session]:
    """Return the sessions of a step: one, or where the run has more partitions than the profile puts into one, more.

    A step without `partitions` knows nothing of those that the run has for others.

    Raises ProjectError for variables in run config that shape the graph, are secret or no scalars, for a run that
    names no partition where the step has some, and for partitions that are no ranges of time.
    """
    resource: SQLFlowResource = getattr(context.resources, KEY)
    _check_variables(context.run.run_id, project, pipeline, resource.vars)
    profile = project.settings.profile.pipeline(pipeline.name)
    per_run = profile.partitions.per_run if profile.partitions else None
    run_id, store = resumed(context.instance, context.run), RunStorage(context.instance)
    return [
        Session(
            project=project,
            run_id=run_id,
            run_date=window.start[:10] if window else _run_date(context, _timezone(project, pipeline)),
            store=store,
            variables=resource.vars,
            full_refresh=resource.full_refresh,
            window=window,
            partition=partition,
        )
        for window, partition in (_windows(context, partitions, per_run) if partitions else [(None, None)])
    ]


def _check_variables(run_id: str, project: Project, pipeline: Pipeline, given: Mapping[str, Any]) -> None:
    if not given or (run_id, pipeline.name) in _checked:
        return
    for name, value in given.items():
        values = value if isinstance(value, list) else [value]
        if not all(isinstance(item, Scalar) for item in values):
            raise ProjectError(
                f"vars.{name}: a variable is text, a number, a boolean or a list of these, "
                f"not {type(value).__name__}"
            )
    project.check_run_variables(pipeline, given)
    _checked.add((run_id, pipeline.name))


def _windows(
    context: dg.AssetExecutionContext, partitions: dg.PartitionsDefinition[Any], per_run: int | None
) -> list[tuple[Window | None, str | None]]:
    """The windows and names of a run's partitions, `per_run` of them at a time."""
    if not context.has_partition_key and not context.has_partition_key_range:
        # A check by itself looks at the whole table.
        if not context.selected_asset_keys:
            return [(None, None)]
        raise ProjectError(
            "this step is one of partitions, and the run has none: name one by `sqlflow run --partition`, "
            "`dagster asset materialize --partition` or the tag `dagster/partition`, or run the pipeline's schedule"
        )
    if not isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        raise ProjectError(
            "partitions of a translator must be a TimeWindowPartitionsDefinition: a step replaces a range of time"
        )
    keys = context.partition_keys
    most = per_run or len(keys)
    return [_window(partitions, keys[begin : begin + most]) for begin in range(0, len(keys), most)]


def _window(partitions: dg.TimeWindowPartitionsDefinition, keys: Sequence[str]) -> tuple[Window, str]:
    """The window and name of partitions that follow each other."""
    first, last = (partitions.time_window_for_partition_key(key) for key in (keys[0], keys[-1]))
    name = keys[0] if len(keys) == 1 else f"{keys[0]}...{keys[-1]}"
    return Window(first.start.isoformat(sep=" "), last.end.isoformat(sep=" ")), name


def _timezone(project: Project, pipeline: Pipeline) -> ZoneInfo:
    schedule = project.settings.profile.pipeline(pipeline.name).schedule
    return ZoneInfo(schedule.timezone if schedule else "UTC")


def _run_date(context: dg.AssetExecutionContext, zone: ZoneInfo) -> str:
    """The schedule's tick, else the start, of the first run of a retry chain, in the schedule's time zone."""
    run = context.run
    root = run.root_run_id or run.tags.get(_ROOT_RUN, run.run_id)
    if root not in _started:
        record = context.instance.get_run_record_by_id(root)
        tick = run.tags.get(_TICK) or (record.dagster_run.tags.get(_TICK) if record else None)
        started = record.create_timestamp if record else datetime.now(UTC)
        started = datetime.fromisoformat(tick) if tick else started
        _started[root] = started if started.tzinfo else started.replace(tzinfo=UTC)
    return _started[root].astimezone(zone).date().isoformat()


def _warn_of_lost_home(instance: dg.DagsterInstance) -> None:
    lost = instance.is_ephemeral or _TEMPORARY_HOME in instance.root_directory
    if os.environ.get("DAGSTER_HOME") or not lost or _warned:
        return
    _warned.append("home")
    log.warning(
        "DAGSTER_HOME is not set, so this run's history and Dagster's copy of the cursors are not kept; the "
        "next run restores the cursors from the markers in the warehouse. Set it to a folder that stays"
    )
