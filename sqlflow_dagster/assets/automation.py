"""A profile's schedules, sensors and partitions → Dagster's; one job for each pipeline."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from sqlflow_dagster.assets.translator import legal_name
from sqlflow_dagster.errors import SettingsError
from sqlflow_dagster.plan.nodes import Pipeline, Source
from sqlflow_dagster.project import Project
from sqlflow_dagster.settings import NewFilesSensor, Partitions, UpstreamSensor

Job = Any  # what define_asset_job returns has no public name


def pipeline_job(name: str, keys: Sequence[dg.AssetKey], description: str) -> Job:
    """Return the job that runs all assets of a pipeline."""
    return dg.define_asset_job(
        legal_name(name), selection=dg.AssetSelection.assets(*keys), description=description or None
    )


def partitions_of(partitions: Partitions | None) -> dg.PartitionsDefinition[Any] | None:
    """Return the time partitions of a profile, None where it has none."""
    if partitions is None:
        return None
    kinds = {
        "hour": (dg.HourlyPartitionsDefinition, "%Y-%m-%d-%H:%M"),
        "day": (dg.DailyPartitionsDefinition, "%Y-%m-%d"),
        "week": (dg.WeeklyPartitionsDefinition, "%Y-%m-%d"),
        "month": (dg.MonthlyPartitionsDefinition, "%Y-%m-%d"),
    }
    kind, fmt = kinds[partitions.every]
    start = partitions.start
    if partitions.every == "hour" and len(start) == len("2026-01-01"):
        start = f"{start}-00:00"
    made: dg.PartitionsDefinition[Any] = kind(
        start_date=start, end_date=partitions.end, timezone=partitions.timezone, fmt=fmt
    )
    return made


def schedules(project: Project, pipeline: Pipeline, job: Job) -> list[dg.ScheduleDefinition]:
    """Return the schedule of a pipeline's job, if the profile has one."""
    schedule = project.settings.profile.pipeline(pipeline.name).schedule
    if schedule is None:
        return []
    return [
        dg.ScheduleDefinition(
            name=legal_name(f"{pipeline.name}_schedule"),
            job=job,
            cron_schedule=schedule.cron,
            execution_timezone=schedule.timezone,
            default_status=dg.DefaultScheduleStatus.RUNNING
            if schedule.enabled
            else dg.DefaultScheduleStatus.STOPPED,
        )
    ]


def sensors(project: Project, pipeline: Pipeline, job: Job) -> list[dg.SensorDefinition]:
    """Return the sensors of a pipeline's job."""
    made = []
    for sensor in project.settings.profile.pipeline(pipeline.name).sensors:
        if isinstance(sensor, NewFilesSensor):
            made.append(_new_files(project, pipeline, sensor, job))
        else:
            made.append(_upstream(pipeline, sensor, job))
    return made


def _status(enabled: bool) -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if enabled else dg.DefaultSensorStatus.STOPPED


def _new_files(project: Project, pipeline: Pipeline, sensor: NewFilesSensor, job: Job) -> dg.SensorDefinition:
    source = _source(pipeline, sensor.source)

    def sense(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        with project.connector(source, project.scope(source.scope)) as connector:
            files = connector.new_files(None)
        if not files:
            yield dg.SkipReason("there are no files")
            return
        # The files' names, sizes and times make the run key: a tick that is lost after launching
        # its run launches the same key again, which Dagster takes for the run it has.
        key = hashlib.sha256("\n".join(sorted(files)).encode()).hexdigest()[:32]
        if key == context.cursor:
            yield dg.SkipReason(f"no new files among {len(files)}")
            return
        yield dg.RunRequest(run_key=key)
        context.update_cursor(key)

    return dg.SensorDefinition(
        name=legal_name(f"{pipeline.name}_{sensor.source}_new_files"),
        job=job,
        evaluation_fn=sense,
        minimum_interval_seconds=sensor.interval_seconds,
        default_status=_status(sensor.enabled),
        description=f"Runs {pipeline.name} when the source {sensor.source} has new or changed files.",
    )


def _upstream(pipeline: Pipeline, sensor: UpstreamSensor, job: Job) -> dg.SensorDefinition:
    keys = [dg.AssetKey(name.split(".")) for name in sensor.assets]

    def sense(context: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        records = context.instance.get_asset_records(keys)
        stored = {
            record.asset_entry.asset_key.to_user_string(): record.asset_entry.last_materialization_storage_id
            for record in records
        }
        cursor = json.dumps(stored, sort_keys=True)
        if not any(stored.values()) or cursor == context.cursor:
            yield dg.SkipReason("nothing was stored since the last tick")
            return
        yield dg.RunRequest(run_key=hashlib.sha256(cursor.encode()).hexdigest()[:32])
        context.update_cursor(cursor)

    return dg.SensorDefinition(
        name=legal_name(f"{pipeline.name}_upstream"),
        job=job,
        evaluation_fn=sense,
        minimum_interval_seconds=sensor.interval_seconds,
        default_status=_status(sensor.enabled),
        description=f"Runs {pipeline.name} when {', '.join(sensor.assets)} were stored anew.",
    )


def _source(pipeline: Pipeline, name: str) -> Source:
    for source in pipeline.sources:
        if source.name.casefold() == name.casefold():
            return source
    known = ", ".join(source.name for source in pipeline.sources) or "none"
    raise SettingsError(
        f"pipelines.{pipeline.name}.sensors: there is no source {name!r}; the pipeline has {known}"
    )
