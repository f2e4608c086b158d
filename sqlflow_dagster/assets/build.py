"""A project → Dagster definitions: assets, jobs, schedules, sensors and the resource."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from sqlflow_dagster.assets import automation
from sqlflow_dagster.assets.ops import GroupOp, group_asset
from sqlflow_dagster.assets.resources import KEY, SQLFlowResource
from sqlflow_dagster.assets.translator import SQLFlowTranslator, StepData, asset_key
from sqlflow_dagster.errors import SettingsError
from sqlflow_dagster.plan.nodes import Export, Group, Load, Pipeline, Transform
from sqlflow_dagster.project import Project, load_project
from sqlflow_dagster.settings import Scalar
from sqlflow_dagster.sql import TableName

log = logging.getLogger(__name__)


def build_definitions(
    project: Project | Path | str,
    *,
    profile: str | None = None,
    variables: Mapping[str, Scalar] | None = None,
    translator: SQLFlowTranslator | None = None,
    executor: dg.ExecutorDefinition | None = None,
) -> dg.Definitions:
    """Return the definitions of a project: its assets, one job a pipeline, schedules and sensors.

    `executor` None sets none, so that the definitions merge with others; ask for
    `dg.in_process_executor` where these are all there is. Nothing outside is contacted.

    Raises PipelineError or SettingsError for what is wrong in the project's files.
    """
    planned = _planned(project, profile, variables)
    jobs: list[Any] = []
    schedules: list[dg.ScheduleDefinition] = []
    sensors: list[dg.SensorDefinition] = []
    for pipeline in planned.plan.pipelines:
        whole, parts = _keys(planned, pipeline)
        made = [
            automation.pipeline_job(name, keys, pipeline.description)
            for name, keys in ((pipeline.name, whole), (_partitioned_name(pipeline, whole), parts))
            if keys
        ]
        jobs += made
        if made:
            schedules += automation.schedules(planned, pipeline, made[0])
            sensors += automation.sensors(planned, pipeline, made[0])
    _check_profile(planned)
    return dg.Definitions(
        assets=sqlflow_assets(planned, translator=translator),
        jobs=jobs,
        schedules=schedules,
        sensors=sensors,
        resources={KEY: SQLFlowResource(vars={}, full_refresh=False)},
        executor=executor,
    )


def sqlflow_assets(
    project: Project | Path | str,
    *,
    profile: str | None = None,
    variables: Mapping[str, Scalar] | None = None,
    translator: SQLFlowTranslator | None = None,
) -> list[dg.AssetsDefinition]:
    """Return a project's assets alone, one definition a group; they need the resource `sqlflow`."""
    planned = _planned(project, profile, variables)
    translator = translator or SQLFlowTranslator()
    owners = _owners(planned)
    return [
        group_asset(
            GroupOp(planned, pipeline, group, owners), translator, _partitions(planned, pipeline, group)
        )
        for pipeline in planned.plan.pipelines
        for group in pipeline.groups
    ]


def build_pipeline_specs(
    project: Project | Path | str, pipeline: str, *, translator: SQLFlowTranslator | None = None
) -> Sequence[dg.AssetSpec]:
    """Return the specs of one pipeline's assets, for use in definitions of one's own."""
    planned = _planned(project, None, None)
    found = planned.plan.pipeline(pipeline)
    if found is None:
        known = ", ".join(p.name for p in planned.plan.pipelines)
        raise SettingsError(f"there is no pipeline {pipeline!r}; the project has {known}")
    translator = translator or SQLFlowTranslator()
    owners = _owners(planned)
    return [
        translator.get_asset_spec(StepData(planned, found, group, step, owners))
        for group in found.groups
        for step in group.steps
    ]


def _planned(
    project: Project | Path | str, profile: str | None, variables: Mapping[str, Scalar] | None
) -> Project:
    if isinstance(project, Project):
        return project
    planned = load_project(project, profile, variables)
    for notice in planned.plan.notices:
        log.warning(notice)
    return planned


def _owners(project: Project) -> dict[TableName, dg.AssetKey]:
    one_schema = project.settings.profile.one_schema
    return {
        step.table.folded: asset_key(step, one_schema)
        for pipeline in project.plan.pipelines
        for group in pipeline.groups
        for step in group.steps
        if not isinstance(step, Export)
    }


def _keys(project: Project, pipeline: Pipeline) -> tuple[list[dg.AssetKey], list[dg.AssetKey]]:
    """The pipeline's asset keys: those without partitions, and those with."""
    one_schema = project.settings.profile.one_schema
    whole: dict[dg.AssetKey, None] = {}
    parts: dict[dg.AssetKey, None] = {}
    for group in pipeline.groups:
        side = parts if _partitions(project, pipeline, group) else whole
        side.update(dict.fromkeys(asset_key(step, one_schema) for step in group.steps))
    return list(whole), list(parts)


def _partitioned_name(pipeline: Pipeline, whole: list[dg.AssetKey]) -> str:
    """Partitioned and other assets never share a job; the pipeline's own name goes to the first."""
    return f"{pipeline.name}_partitions" if whole else pipeline.name


def _partitions(project: Project, pipeline: Pipeline, group: Group) -> dg.PartitionsDefinition[Any] | None:
    """A group has partitions when each of its steps can replace a range of time."""
    partitions = project.settings.profile.pipeline(pipeline.name).partitions
    if partitions is None:
        return None
    ranged = all(
        (isinstance(step, Load) and step.incremental and step.cursor_field is not None)
        or (isinstance(step, Transform) and step.mode == "incremental")
        for step in group.steps
    )
    return automation.partitions_of(partitions) if ranged else None


def _check_profile(project: Project) -> None:
    known = {pipeline.name for pipeline in project.plan.pipelines}
    for name in project.settings.profile.pipelines:
        if name not in known:
            raise SettingsError(
                f"profiles/{project.settings.environment}.yml: pipelines.{name}: there is no such pipeline; "
                f"the project has {', '.join(sorted(known)) or 'none'}"
            )
