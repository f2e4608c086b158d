"""A profile's sensors → Dagster's: runs for new files, and for tables stored by other pipelines.

Each run key is made of what was seen and of the tick's number in the cursor: a tick that dies after
launching its run asks for the same run again, which Dagster knows; a file that changes back to what
it was before is a run of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime

import dagster as dg

from sqlflow_dagster.assets.automation import Job
from sqlflow_dagster.assets.names import Names, place
from sqlflow_dagster.assets.ops import GroupOp
from sqlflow_dagster.errors import SettingsError
from sqlflow_dagster.plan.nodes import Load, Pipeline, Source
from sqlflow_dagster.project import Project
from sqlflow_dagster.settings import NewFilesSensor, UpstreamSensor

_Requests = Iterator[dg.RunRequest | dg.SkipReason]


def sensors(
    project: Project, pipeline: Pipeline, jobs: Sequence[Job], ops: Mapping[str, Sequence[GroupOp]]
) -> list[dg.SensorDefinition]:
    """Return the sensors of a pipeline's job.

    Raises SettingsError for a source or table that there is not, and where all tables that are made from it
    are partitioned: a sensor does not know which partition to run.
    """
    wanted = project.settings.profile.pipeline(pipeline.name).sensors
    job = next((job for job in jobs if job.partitions is None), None)
    if not wanted or not jobs:
        return []
    if job is None:
        raise _partitioned(project, pipeline, pipeline.name)
    names = Names()
    made = []
    for sensor in wanted:
        if isinstance(sensor, NewFilesSensor):
            made.append(_new_files(project, pipeline, sensor, job, names, ops))
        else:
            made.append(_upstream(project, pipeline, sensor, job, names, ops))
    return made


def _partitioned(project: Project, pipeline: Pipeline, of: str) -> SettingsError:
    return SettingsError(
        f"{place(project, pipeline)}.sensors: all tables of {of} are partitioned, and a sensor "
        "does not know which partition to run; use a schedule"
    )


def next_key(cursor: str | None, seen: str) -> str | None:
    """Return the next run key and cursor, `number-digest of what is seen`; None where that is the same.

    A cursor that is no such text was typed in by a person, who wants a run.
    """
    number, _, before = (cursor or "").partition("-")
    digest = hashlib.sha256(seen.encode()).hexdigest()[:32]
    if before == digest:
        return None
    return f"{int(number) + 1 if number.isdecimal() else 1}-{digest}"


def _requests(context: dg.SensorEvaluationContext, seen: Iterable[str], nothing: str) -> _Requests:
    key = next_key(context.cursor, "\n".join(sorted(seen)))
    if key is None:
        yield dg.SkipReason(nothing)
        return
    yield dg.RunRequest(run_key=key)
    context.update_cursor(key)


def _new_files(
    project: Project,
    pipeline: Pipeline,
    sensor: NewFilesSensor,
    job: Job,
    names: Names,
    ops: Mapping[str, Sequence[GroupOp]],
) -> dg.SensorDefinition:
    source = _source(project, pipeline, sensor.source)
    readers = [op for op in ops[pipeline.name] if _reads(op, source)]
    if readers and all(op.partitions for op in readers):
        raise _partitioned(project, pipeline, f"the source {source.name}")

    def sense(context: dg.SensorEvaluationContext) -> _Requests:
        today = datetime.now(UTC).date().isoformat()
        scope = project.scope(source.scope, builtin={"run_date": today, "run_id": "sensor"})
        with project.connector(source, scope) as connector:
            # The next tick asks again: none waits, and Dagster ends those that take a minute.
            connector.guard = connector.guard.once_only()
            files = connector.new_files(None)
        if not files:
            yield dg.SkipReason("there are no files")
            return
        yield from _requests(context, files, f"no new files among {len(files)}")

    return dg.SensorDefinition(
        name=names.take(f"{job.name}_{source.name}_new_files"),
        job=job.definition,
        evaluation_fn=sense,
        minimum_interval_seconds=sensor.interval_seconds,
        default_status=_status(sensor.enabled),
        description=f"Runs {pipeline.name} when the source {source.name} has new or changed files.",
    )


def _upstream(
    project: Project,
    pipeline: Pipeline,
    sensor: UpstreamSensor,
    job: Job,
    names: Names,
    ops: Mapping[str, Sequence[GroupOp]],
) -> dg.SensorDefinition:
    keys = [_table(project, pipeline, name, ops) for name in sensor.assets]
    readers = [op for op in ops[pipeline.name] if _is_made_from(op, keys)]
    if readers and all(op.partitions for op in readers):
        raise _partitioned(
            project, pipeline, f"{pipeline.name} that are made from {', '.join(sensor.assets)}"
        )

    def sense(context: dg.SensorEvaluationContext) -> _Requests:
        records = context.instance.get_asset_records(keys)
        seen = [
            f"{record.asset_entry.asset_key.to_user_string()} {record.asset_entry.last_materialization_storage_id}"
            for record in records
            if record.asset_entry.last_materialization_storage_id is not None
        ]
        if not seen:
            yield dg.SkipReason("none of the tables was stored yet")
            return
        yield from _requests(context, seen, "nothing was stored since the last tick")

    return dg.SensorDefinition(
        name=names.take(f"{job.name}_upstream"),
        job=job.definition,
        evaluation_fn=sense,
        minimum_interval_seconds=sensor.interval_seconds,
        default_status=_status(sensor.enabled),
        description=f"Runs {pipeline.name} when {', '.join(sensor.assets)} were stored anew.",
    )


def _status(enabled: bool) -> dg.DefaultSensorStatus:
    return dg.DefaultSensorStatus.RUNNING if enabled else dg.DefaultSensorStatus.STOPPED


def _reads(op: GroupOp, source: Source) -> bool:
    return any(isinstance(step, Load) and step.source.name == source.name for step in op.group.steps)


def _is_made_from(op: GroupOp, keys: Sequence[dg.AssetKey]) -> bool:
    return any(dep.asset_key in keys for spec in op.specs for dep in spec.deps)


def _source(project: Project, pipeline: Pipeline, name: str) -> Source:
    for source in pipeline.sources:
        if source.name.casefold() == name.casefold():
            return source
    known = ", ".join(source.name for source in pipeline.sources) or "none"
    raise SettingsError(
        f"{place(project, pipeline)}.sensors: there is no source {name!r}; the pipeline has {known}"
    )


def _table(
    project: Project, pipeline: Pipeline, name: str, ops: Mapping[str, Sequence[GroupOp]]
) -> dg.AssetKey:
    """The key of `pipeline.table`, as the translator made it."""
    of, _, table = name.partition(".")
    home = next((groups for known, groups in ops.items() if known.casefold() == of.casefold()), ())
    tables = {step.table.name.casefold(): op.keys.of(step) for op in home for step in op.tables}
    if table.casefold() in tables:
        return tables[table.casefold()]
    known = ", ".join(f"{of}.{table}" for table in sorted(tables)) if home else ", ".join(ops)
    raise SettingsError(
        f"{place(project, pipeline)}.sensors: there is no table {name!r}; there is {known or 'none'}"
    )
