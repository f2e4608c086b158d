"""A group of steps → one multi_asset, and what happens when Dagster runs it."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import AssetExecutionContext  # Dagster reads the annotation, and knows it by this name

from sqlflow_dagster.assets.cursors import RunStorage
from sqlflow_dagster.assets.dead_runs import mark_dead_runs, tag_run
from sqlflow_dagster.assets.freshness import retry_policy
from sqlflow_dagster.assets.metadata import metadata_of
from sqlflow_dagster.assets.resources import KEY, SQLFlowResource
from sqlflow_dagster.assets.translator import SQLFlowTranslator, StepData, asset_key, legal_name
from sqlflow_dagster.errors import (
    LoadRefused,
    NotAllowed,
    ProjectError,
    QueryFailed,
    RetryLater,
    SQLFlowError,
)
from sqlflow_dagster.plan.nodes import Group, Load, Pipeline, Step
from sqlflow_dagster.project import Project
from sqlflow_dagster.run import Outcome, Session, run_steps
from sqlflow_dagster.sql import TableName
from sqlflow_dagster.warehouse.shape import Window

log = logging.getLogger(__name__)

# Waiting does not mend these: a retry would only say the same again.
_FINAL = (ProjectError, NotAllowed, LoadRefused, QueryFailed)
_QUARANTINE = "no_rows_quarantined"
_TICK = "dagster/scheduled_execution_time"
_ROOT_RUN = "dagster/root_run_id"
_seen_runs: set[str] = set()


@dataclass(frozen=True, slots=True)
class GroupOp:
    """What one multi_asset runs."""

    project: Project
    pipeline: Pipeline
    group: Group
    owners: Mapping[TableName, dg.AssetKey]

    def key(self, step: Step) -> dg.AssetKey:
        """Return the key of the asset that a step makes."""
        return asset_key(step, self.project.settings.profile.one_schema)


def group_asset(
    op: GroupOp, translator: SQLFlowTranslator, partitions: dg.PartitionsDefinition[Any] | None
) -> dg.AssetsDefinition:
    """Return the multi_asset of a group."""
    profile = op.project.settings.profile.pipeline(op.pipeline.name)
    specs = _specs(op, translator, partitions)

    @dg.multi_asset(
        name=legal_name(f"{op.pipeline.name}__{op.group.name}"),
        specs=specs,
        check_specs=[
            dg.AssetCheckSpec(
                _QUARANTINE, asset=op.key(step), description="No row of the last load was set aside."
            )
            for step in _last_loads(op)
        ],
        can_subset=op.group.can_subset,
        retry_policy=retry_policy(profile.retry),
        required_resource_keys={KEY},
        op_tags={"sqlflow/pipeline": legal_name(op.pipeline.name)},
    )
    def run(context: AssetExecutionContext) -> Iterator[Any]:
        yield from execute(context, op)

    return run


def _specs(
    op: GroupOp, translator: SQLFlowTranslator, partitions: dg.PartitionsDefinition[Any] | None
) -> list[dg.AssetSpec]:
    """One spec an asset: that of the last step writing it, with the others' dependencies."""
    specs: dict[dg.AssetKey, dg.AssetSpec] = {}
    for step in op.group.steps:
        spec = translator.get_asset_spec(StepData(op.project, op.pipeline, op.group, step, dict(op.owners)))
        if spec.key in specs:
            deps = {dep.asset_key for dep in (*specs[spec.key].deps, *spec.deps)}
            spec = spec.replace_attributes(deps=sorted(deps - {spec.key}))
        specs[spec.key] = spec.replace_attributes(partitions_def=partitions) if partitions else spec
    return list(specs.values())


def _last_loads(op: GroupOp) -> list[Step]:
    last = {op.key(step): step for step in op.group.steps}
    return [step for step in last.values() if isinstance(step, Load)]


def execute(context: AssetExecutionContext, op: GroupOp) -> Iterator[Any]:
    """Yield a result for each asset as it is stored; at the end fail if any of them did."""
    _first_step(context)
    session = _session(context, op)
    selected = context.selected_asset_keys
    steps = [step for step in op.group.steps if op.key(step) in selected]
    waiting = [op.key(step) for step in steps]
    failed: list[Outcome] = []
    for outcome in run_steps(session, steps):
        key = op.key(outcome.step)
        waiting.remove(key)
        if outcome.error:
            failed.append(outcome)
            context.log.error("%s: %s", key.to_user_string(), outcome.error)
        elif key not in waiting:
            yield _result(op, key, outcome)
    if failed:
        raise _failure(failed, op.project)


def _result(op: GroupOp, key: dg.AssetKey, outcome: Outcome) -> dg.MaterializeResult[Any]:
    checks = []
    if isinstance(outcome.step, Load):
        checks.append(
            dg.AssetCheckResult(
                check_name=_QUARANTINE,
                asset_key=key,
                passed=outcome.quarantined == 0,
                severity=dg.AssetCheckSeverity.WARN,
                metadata={"rows": outcome.quarantined},
            )
        )
    return dg.MaterializeResult(asset_key=key, metadata=metadata_of(outcome, op.owners), check_results=checks)


def _failure(failed: Sequence[Outcome], project: Project) -> Exception:
    errors = [outcome.error for outcome in failed if outcome.error]
    text = "\n".join(map(str, errors))
    later = [error.after for error in errors if isinstance(error, RetryLater) and error.after]
    final = all(isinstance(error, _FINAL) for error in errors)
    policy = project.settings.profile.pipeline(failed[0].step.pipeline).retry
    if later and policy:
        return dg.RetryRequested(max_retries=policy.max_retries, seconds_to_wait=max(later))
    failure = dg.Failure(description=text, allow_retries=not final)
    failure.__cause__ = errors[0]
    return failure


def _first_step(context: AssetExecutionContext) -> None:
    """Once a run and process: say whose run this is, end dead ones, and warn of a lost home."""
    if context.run.run_id in _seen_runs:
        return
    _seen_runs.add(context.run.run_id)
    if "DAGSTER_HOME" not in os.environ and context.instance.is_ephemeral:
        log.warning(
            "DAGSTER_HOME is not set: this run's history is not kept, and the cursors are restored "
            "from the warehouse by the next run; set it to a folder that stays"
        )
    tag_run(context.instance, context.run.run_id)
    for run_id in mark_dead_runs(context.instance):
        log.warning("the run %s was marked failed: its process is gone", run_id)


def _session(context: AssetExecutionContext, op: GroupOp) -> Session:
    resource: SQLFlowResource = getattr(context.resources, KEY)
    try:
        op.project.check_run_variables(op.pipeline, resource.vars)
    except SQLFlowError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
    window, partition = None, None
    if context.has_partition_key:
        span = context.partition_time_window
        window = Window(span.start.isoformat(sep=" "), span.end.isoformat(sep=" "))
        partition = context.partition_key
    return Session(
        project=op.project,
        run_id=context.run.run_id,
        run_date=window.start[:10] if window else _run_date(context),
        store=RunStorage(context.instance),
        variables=resource.vars,
        full_refresh=resource.full_refresh,
        window=window,
        partition=partition,
    )


def _run_date(context: AssetExecutionContext) -> str:
    """The schedule's tick, else the start of the first run of a retry chain; UTC."""
    tags = context.run.tags
    tick = tags.get(_TICK)
    if tick:
        return datetime.fromisoformat(tick).astimezone(UTC).date().isoformat()
    record = context.instance.get_run_record_by_id(tags.get(_ROOT_RUN, context.run.run_id))
    started = record.create_timestamp if record else datetime.now(UTC)
    return started.astimezone(UTC).date().isoformat()
