"""A project → Dagster definitions: assets, jobs, schedules, sensors and the resource."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import dagster as dg

from sqlflow_dagster.assets import automation, markdown, sensors
from sqlflow_dagster.assets.freshness import of_any_partitions
from sqlflow_dagster.assets.names import Keys, Names, keys_of
from sqlflow_dagster.assets.ops import GroupOp, group_asset
from sqlflow_dagster.assets.pipeline_job import pipeline_job
from sqlflow_dagster.assets.resources import KEY, SQLFlowResource
from sqlflow_dagster.assets.translator import SQLFlowTranslator, StepData
from sqlflow_dagster.collector import paused
from sqlflow_dagster.errors import SettingsError
from sqlflow_dagster.plan.nodes import Group, Pipeline
from sqlflow_dagster.project import Project, load_project
from sqlflow_dagster.settings import Scalar

log = logging.getLogger(__name__)

# One for all projects: Dagster merges definitions only where a key stands for one and the same thing.
_RESOURCE = SQLFlowResource(vars={}, full_refresh=False)


@paused()
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
    _check_profile(planned)
    ops = _ops(planned, translator or SQLFlowTranslator())
    names = Names()
    named = _job_names(planned, names)
    jobs: list[automation.Job] = []
    schedules: list[dg.ScheduleDefinition] = []
    sensing: list[dg.SensorDefinition] = []
    for pipeline in planned.plan.pipelines:
        made = _jobs(planned, pipeline, named[pipeline.name], ops[pipeline.name])
        jobs += made
        schedules += automation.schedules(planned, pipeline, named[pipeline.name].own, made)
        sensing += sensors.sensors(planned, pipeline, made, ops)
    return dg.Definitions(
        assets=_definitions(ops, names),
        jobs=[job.definition for job in jobs],
        schedules=schedules,
        sensors=sensing,
        resources={KEY: _RESOURCE},
        executor=executor,
    )


@paused()
def sqlflow_assets(
    project: Project | Path | str,
    *,
    profile: str | None = None,
    variables: Mapping[str, Scalar] | None = None,
    translator: SQLFlowTranslator | None = None,
) -> list[dg.AssetsDefinition]:
    """Return a project's assets alone, one definition a group; they need the resource `sqlflow`."""
    ops = _ops(_planned(project, profile, variables), translator or SQLFlowTranslator())
    return _definitions(ops, Names())


def build_pipeline_specs(
    project: Project | Path | str,
    pipeline: str,
    *,
    profile: str | None = None,
    variables: Mapping[str, Scalar] | None = None,
    translator: SQLFlowTranslator | None = None,
) -> Sequence[dg.AssetSpec]:
    """Return the specs of one pipeline's assets, for use in definitions of one's own.

    Raises SettingsError where there is no such pipeline.
    """
    planned = _planned(project, profile, variables)
    if planned.plan.pipeline(pipeline) is None:
        known = ", ".join(p.name for p in planned.plan.pipelines) or "none"
        raise SettingsError(f"there is no pipeline {pipeline!r}; the project has {known}")
    ops = _ops(planned, translator or SQLFlowTranslator())
    return [spec for op in ops[pipeline] for spec in op.specs]


@dataclass(frozen=True, slots=True)
class _JobNames:
    """A pipeline's job; and where only some assets are partitioned, the job of these, and that of all."""

    own: str
    partitions: str
    all: str


def job_names(project: Project) -> Mapping[str, str]:
    """Return the name of each pipeline's job: the pipeline's, with what Dagster refuses replaced."""
    return {pipeline: names.own for pipeline, names in _job_names(project, Names()).items()}


def partition_job_names(project: Project) -> Mapping[str, str]:
    """Return the name of each pipeline's job of its partitioned assets, where the others have a job too."""
    return {pipeline: names.partitions for pipeline, names in _job_names(project, Names()).items()}


def _job_names(project: Project, names: Names) -> dict[str, _JobNames]:
    # No pipeline loses its name to the job of another one.
    own = {pipeline.name: names.take(pipeline.name) for pipeline in project.plan.pipelines}
    return {
        pipeline: _JobNames(name, names.take(f"{name}_partitions"), names.take(f"{name}_all"))
        for pipeline, name in own.items()
    }


def _planned(
    project: Project | Path | str, profile: str | None, variables: Mapping[str, Scalar] | None
) -> Project:
    if isinstance(project, Project):
        return project
    planned = load_project(project, profile, variables)
    for notice in planned.plan.notices:
        log.warning("%s", notice)
    return planned


# --- assets


@dataclass(frozen=True, slots=True)
class _Draft:
    """A step's spec as the translator made it, and the key it has without one."""

    key: dg.AssetKey
    spec: dg.AssetSpec


def _ops(project: Project, translator: SQLFlowTranslator) -> dict[str, list[GroupOp]]:
    """Each pipeline's groups with their assets' specs. What depends on a key that the translator changed follows."""
    keys = keys_of(project)
    drafts = [
        (pipeline, group, _drafts(project, pipeline, group, keys, translator))
        for pipeline in project.plan.pipelines
        for group in pipeline.groups
    ]
    changed = {d.key: d.spec.key for *_, made in drafts for d in made if d.spec.key != d.key}
    final = keys.renamed(changed) if changed else keys
    ops: dict[str, list[GroupOp]] = {pipeline.name: [] for pipeline in project.plan.pipelines}
    partitioned: set[dg.AssetKey] = set()
    for pipeline, group, made in drafts:
        specs = [_redirected(draft.spec, changed) if changed else draft.spec for draft in made]
        merged = _merged(specs, automation.partitions_of_group(project, pipeline, group))
        partitioned |= {spec.key for spec in merged if spec.partitions_def}
        ops[pipeline.name].append(GroupOp(project, pipeline, group, final, merged))
    if partitioned:
        for groups in ops.values():
            groups[:] = [
                replace(op, specs=tuple(of_any_partitions(spec, partitioned) for spec in op.specs))
                for op in groups
            ]
    return ops


def _drafts(
    project: Project, pipeline: Pipeline, group: Group, keys: Keys, translator: SQLFlowTranslator
) -> list[_Draft]:
    return [
        _Draft(keys.of(step), translator.get_asset_spec(StepData(project, pipeline, group, step, keys)))
        for step in group.steps
    ]


def _redirected(spec: dg.AssetSpec, changed: Mapping[dg.AssetKey, dg.AssetKey]) -> dg.AssetSpec:
    if not any(dep.asset_key in changed for dep in spec.deps):
        return spec
    return spec.replace_attributes(
        deps=[
            dg.AssetDep(changed[dep.asset_key], partition_mapping=dep.partition_mapping)
            if dep.asset_key in changed
            else dep
            for dep in spec.deps
        ]
    )


def _merged(
    specs: Sequence[dg.AssetSpec], partitions: dg.PartitionsDefinition[Any] | None
) -> tuple[dg.AssetSpec, ...]:
    """One spec an asset: that of the last step that writes it, with the dependencies of all of them.

    Inside the group an asset depends only on those that are done before it: where two tables are
    made from each other in turns, Dagster would see a circle.
    """
    last: dict[dg.AssetKey, dg.AssetSpec] = {}
    needs: dict[dg.AssetKey, dict[dg.AssetKey, dg.AssetDep]] = {}
    for spec in specs:
        last.pop(spec.key, None)
        last[spec.key] = spec
        needs.setdefault(spec.key, {}).update({dep.asset_key: dep for dep in spec.deps})
    if len(last) == len(specs) and partitions is None:
        return tuple(specs)
    place = {key: index for index, key in enumerate(last)}
    merged = []
    for key, spec in last.items():
        deps = [dep for other, dep in needs[key].items() if place.get(other, -1) < place[key]]
        merged.append(spec.replace_attributes(deps=deps, partitions_def=spec.partitions_def or partitions))
    return tuple(merged)


def _definitions(ops: Mapping[str, Sequence[GroupOp]], names: Names) -> list[dg.AssetsDefinition]:
    return [
        group_asset(op, names.take(f"{pipeline}__{op.group.name}"))
        for pipeline, groups in ops.items()
        for op in groups
    ]


# --- jobs


def _jobs(
    project: Project, pipeline: Pipeline, names: _JobNames, ops: Sequence[GroupOp]
) -> list[automation.Job]:
    """The pipeline's job; where some assets are partitioned, one for them, one for the others, and one for all."""
    specs = [spec for op in ops for spec in op.specs]
    whole = [spec.key for spec in specs if spec.partitions_def is None]
    parts = [spec.key for spec in specs if spec.partitions_def is not None]
    description = markdown.text(pipeline.description) or None
    jobs = [automation.Job(names.own, pipeline_job(names.own, whole, description), None)] if whole else []
    if not parts:
        return jobs
    partitions = automation.partitions_of(project, pipeline)
    name = names.partitions if whole else names.own
    jobs.append(automation.Job(name, pipeline_job(name, parts, description), partitions))
    if whole:
        job = pipeline_job(names.all, [*whole, *parts], description)
        jobs.append(automation.Job(names.all, job, partitions, _before_any(specs)))
    return jobs


def _before_any(specs: Sequence[dg.AssetSpec]) -> tuple[dg.AssetKey, ...]:
    """The assets that neither are partitioned nor made from one that is."""
    late: set[dg.AssetKey] = set()
    for spec in specs:
        if spec.partitions_def or any(dep.asset_key in late for dep in spec.deps):
            late.add(spec.key)
    return tuple(spec.key for spec in specs if spec.key not in late)


def _check_profile(project: Project) -> None:
    known = {pipeline.name for pipeline in project.plan.pipelines}
    for name in project.settings.profile.pipelines:
        if name not in known:
            raise SettingsError(
                f"profiles/{project.settings.environment}.yml: pipelines.{name}: there is no such pipeline; "
                f"the project has {', '.join(sorted(known)) or 'none'}"
            )
