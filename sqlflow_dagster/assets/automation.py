"""A profile's schedules and partitions → Dagster's.

Where a pipeline has partitioned and other assets, each tick is one run of all of them: runs that begin at the same tick
have no order, and what one reads the other may not have stored yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import dagster as dg

from sqlflow_dagster.assets.names import legal_name, place
from sqlflow_dagster.assets.pipeline_job import PipelineJob
from sqlflow_dagster.errors import SettingsError
from sqlflow_dagster.plan.nodes import Export, Group, Load, Pipeline, Step, Transform
from sqlflow_dagster.project import Project
from sqlflow_dagster.settings import Partitions, Schedule

TimePartitions = dg.TimeWindowPartitionsDefinition
_KINDS: dict[str, Callable[..., TimePartitions]] = {
    "hour": dg.HourlyPartitionsDefinition,
    "day": dg.DailyPartitionsDefinition,
    "week": dg.WeeklyPartitionsDefinition,
    "month": dg.MonthlyPartitionsDefinition,
}
_BOUND = re.compile(r"\$\{partition_(?:start|end)[|}]")
_LAST_DAY_OF_ALL_MONTHS = 28
# A run's tags for the first and the last of its partitions.
_FIRST, _LAST = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
_LONGEST_BETWEEN_TICKS = timedelta(days=800)


@dataclass(frozen=True, slots=True)
class Job:
    """One job of a pipeline: its name, Dagster's definition, and the time partitions it has.

    `whole` are those of its assets, without partitions, that can be stored before there is any partition.
    """

    name: str
    definition: PipelineJob
    partitions: TimePartitions | None
    whole: tuple[dg.AssetKey, ...] | None = None


# --- partitions


def partitions_of(project: Project, pipeline: Pipeline) -> TimePartitions | None:
    """Return the time partitions that the profile gives a pipeline, None for none.

    Raises SettingsError for a start, end or time zone that cannot be read.
    """
    partitions = project.settings.profile.pipeline(pipeline.name).partitions
    if partitions is None:
        return None
    try:
        return _partitions(partitions)
    except (ValueError, ZoneInfoNotFoundError, dg.DagsterInvalidDefinitionError) as error:
        raise SettingsError(f"{place(project, pipeline)}.partitions: {error}") from error


@lru_cache(maxsize=256)
def _partitions(partitions: Partitions) -> TimePartitions:
    zone = ZoneInfo(partitions.timezone)
    start = _moment(partitions.start, zone)
    return _KINDS[partitions.every](
        start_date=start,
        end_date=_moment(partitions.end, zone) if partitions.end else None,
        timezone=partitions.timezone,
        **_offsets(partitions.every, start),
    )


def _offsets(every: str, start: datetime) -> dict[str, int]:
    """Partitions begin as the first one does: else a month from the 15th on would lose its first days."""
    offsets = {"minute_offset": start.minute}
    if every != "hour":
        offsets["hour_offset"] = start.hour
    if every == "week":
        offsets["day_offset"] = start.isoweekday() % 7
    if every == "month":
        if start.day > _LAST_DAY_OF_ALL_MONTHS:
            raise ValueError(f"start: there is not a day {start.day} in every month")
        offsets["day_offset"] = start.day
    return offsets


def _moment(text: str, zone: ZoneInfo) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment.astimezone(zone) if moment.tzinfo else moment.replace(tzinfo=zone)


def partitions_of_group(project: Project, pipeline: Pipeline, group: Group) -> TimePartitions | None:
    """Return the partitions of a group: those of its pipeline, if each step can replace a range of time.

    An EXPORT can where its target says the range.
    """
    partitions = partitions_of(project, pipeline)
    return partitions if partitions and all(map(_ranged, group.steps)) else None


def _ranged(step: Step) -> bool:
    match step:
        case Load():
            return step.incremental and step.cursor_field is not None
        case Transform():
            return step.mode == "incremental"
        case Export():
            return _BOUND.search(step.target) is not None


# --- schedules


def schedules(
    project: Project, pipeline: Pipeline, name: str, jobs: Sequence[Job]
) -> list[dg.ScheduleDefinition]:
    """Return the schedule of a pipeline, if the profile has one: of the last of its jobs, which has all assets.

    Raises SettingsError for a cron expression or time zone that Dagster refuses.
    """
    schedule = project.settings.profile.pipeline(pipeline.name).schedule
    if schedule is None or not jobs:
        return []
    try:
        return [_schedule(name, jobs[-1], schedule)]
    except dg.DagsterInvalidDefinitionError as error:
        raise SettingsError(f"{place(project, pipeline)}.schedule: {error}") from error


def _schedule(name: str, job: Job, schedule: Schedule) -> dg.ScheduleDefinition:
    status = dg.DefaultScheduleStatus.RUNNING if schedule.enabled else dg.DefaultScheduleStatus.STOPPED
    requests = _requests(job, job.partitions, schedule) if job.partitions else None
    return dg.ScheduleDefinition(
        name=legal_name(f"{name}_schedule"),
        job=job.definition,
        cron_schedule=schedule.cron,
        execution_timezone=schedule.timezone,
        default_status=status,
        execution_fn=requests,
    )


def _requests(
    job: Job, partitions: TimePartitions, schedule: Schedule
) -> Callable[[dg.ScheduleEvaluationContext], Iterator[dg.RunRequest | dg.SkipReason]]:
    def requests(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        keys = due_partitions(partitions, schedule, context.scheduled_execution_time)
        tick = context.scheduled_execution_time.isoformat()
        if keys and job.whole is not None:
            yield _request(tick, keys)
        elif keys:
            yield from (_request(tick, [key]) for key in keys)
        elif job.whole:
            yield dg.RunRequest(run_key=tick, asset_selection=job.whole)
        else:
            yield dg.SkipReason("no partition has ended yet")

    return requests


def _request(tick: str, keys: Sequence[str]) -> dg.RunRequest:
    """The one run of partitions that follow each other."""
    first, last = keys[0], keys[-1]
    if first == last:
        return dg.RunRequest(run_key=f"{tick}|{first}", partition_key=first)
    return dg.RunRequest(run_key=f"{tick}|{first}...{last}", tags={_FIRST: first, _LAST: last})


def due_partitions(partitions: TimePartitions, schedule: Schedule, tick: datetime) -> list[str]:
    """Return the partitions that ended since the tick before this one, else the one that ended last."""
    ended = list(partitions.get_partition_keys(current_time=tick))
    before = _tick_before(schedule, tick)
    known = len(partitions.get_partition_keys(current_time=before)) if before else 0
    return ended[known:] if before and known < len(ended) else ended[-1:]


def _tick_before(schedule: Schedule, tick: datetime) -> datetime | None:
    """The windows between a schedule's ticks are time partitions too: one that ends now began then."""
    ticks = TimePartitions(
        start=tick - _LONGEST_BETWEEN_TICKS,
        fmt="%Y-%m-%dT%H:%M:%S%z",
        cron_schedule=schedule.cron,
        timezone=schedule.timezone,
    )
    with dg.partition_loading_context(effective_dt=tick):
        window = ticks.get_last_partition_window()
    return window.start if window else None
