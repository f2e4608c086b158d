"""A pipeline's job, run in this process on the instance of DAGSTER_HOME: what `sqlflow run` is.

Dagster's own console log is replaced by a callback, so that the caller decides what a person sees.
"""

from __future__ import annotations

import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from dagster import DagsterEvent, DagsterEventType, DagsterInstance

from sqlflow_dagster.assets.build import build_definitions, job_names, partition_job_names
from sqlflow_dagster.assets.dead_runs import mark_dead_runs
from sqlflow_dagster.assets.processes import process_tags
from sqlflow_dagster.assets.resources import KEY
from sqlflow_dagster.assets.revisions import read_once
from sqlflow_dagster.collector import resumed
from sqlflow_dagster.errors import SettingsError
from sqlflow_dagster.project import Project
from sqlflow_dagster.warehouse.lock import lock_for

if TYPE_CHECKING:
    from dagster_shared.error import SerializableErrorInfo

_LOGGER = "sqlflow_progress"
_SECONDS_TO_CREATE_AN_INSTANCE = 120
# How the names of the errors begin that Dagster puts around the one that a step raised.
_AROUND = ("Dagster", "RetryRequested")
# Before the text of an error that was raised on purpose.
_OURS = re.compile(r"^(?:dagster|sqlflow_dagster)\.[\w.]+: ")


@dataclass(frozen=True, slots=True)
class Progress:
    """One thing that happened in a run.

    `subject` is the asset's key for `stored`, else the step's name. `facts` are the metadata of a
    materialization by name; `text` is the error, `wait` the seconds until Dagster tries again.
    """

    kind: Literal["started", "stored", "retrying", "failed"]
    subject: str
    text: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    wait: float = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """What became of a run: what was stored, in order, what failed at last, and what was not stored.

    `dead_runs` are earlier runs that were marked failed because their process is gone; `others` are the pipeline's
    assets that run by partition where this run had none, and without where it had one.
    """

    run_id: str
    success: bool
    seconds: float
    stored: tuple[Progress, ...]
    failed: tuple[Progress, ...]
    not_stored: tuple[str, ...]
    dead_runs: tuple[str, ...]
    others: tuple[str, ...]


@contextmanager
def open_instance() -> Iterator[DagsterInstance]:
    """Open the instance of DAGSTER_HOME; several processes may begin a new one at the same time."""
    home = Path(os.environ["DAGSTER_HOME"])
    with read_once():
        with lock_for(home / ".sqlflow" / "instance").held(_SECONDS_TO_CREATE_AN_INSTANCE):
            instance = DagsterInstance.get()
            # Each of these makes its tables when it is first asked for.
            _ = instance.run_storage, instance.event_log_storage, instance.schedule_storage
        with instance:
            yield instance


def run_pipeline(
    project: Project,
    pipeline: str,
    *,
    full_refresh: bool = False,
    partition: str | None = None,
    watch: Callable[[Progress], None] = lambda _: None,
) -> Finished:
    """Run a pipeline's job and return what became of it; `watch` is called as things happen.

    Runs of dead processes are marked failed first. A failed step is in the result, not raised. At a
    KeyboardInterrupt the run is marked canceled and the interrupt goes on, while a step may still
    be at work in its thread: the process is to end then.

    Raises SettingsError where there is no such pipeline or partition.
    """
    _check(project, pipeline)
    happened: list[Progress] = []

    def note(item: Progress) -> None:
        happened.append(item)
        watch(item)

    job, others = _job(project, pipeline, partition, note)
    with open_instance() as instance:
        dead = mark_dead_runs(instance)
        begin = time.perf_counter()
        with resumed():
            result = _executed(job, instance, full_refresh=full_refresh, partition=partition)
        seconds = time.perf_counter() - begin
    stored = tuple(item for item in happened if item.kind == "stored")
    wanted = _assets_of(job)
    return Finished(
        run_id=result.run_id,
        success=result.success,
        seconds=seconds,
        stored=stored,
        failed=tuple(item for item in happened if item.kind == "failed"),
        not_stored=tuple(sorted(wanted - {item.subject for item in stored})),
        dead_runs=tuple(dead),
        others=tuple(sorted(set().union(*map(_assets_of, others)))),
    )


def _executed(
    job: dg.JobDefinition, instance: DagsterInstance, *, full_refresh: bool, partition: str | None
) -> dg.ExecuteInProcessResult:
    """Run the job in a thread, so that an interrupt need not wait until a query of hours has ended."""
    run_id = str(uuid.uuid4())
    thread = ThreadPoolExecutor(1, "sqlflow_run")
    task = thread.submit(
        job.execute_in_process,
        instance=instance,
        raise_on_error=False,
        run_id=run_id,
        # From the run's first entry on: a process killed before its first step is found dead too.
        tags=process_tags(run_id),
        partition_key=partition,
        run_config={
            "resources": {KEY: {"config": {"full_refresh": full_refresh}}},
            "loggers": {_LOGGER: {}},
        },
    )
    try:
        return task.result()
    except KeyboardInterrupt:
        run = instance.get_run_by_id(run_id)
        if run and not run.is_finished:
            instance.report_run_canceled(run, "stopped by Ctrl-C or a signal; what was stored stays")
        raise
    finally:
        thread.shutdown(wait=False)


def _check(project: Project, pipeline: str) -> None:
    found = project.plan.pipeline(pipeline)
    if found is None:
        known = ", ".join(p.name for p in project.plan.pipelines) or "none"
        raise SettingsError(f"there is no pipeline {pipeline!r}; the project has {known}")
    if not found.groups:
        raise SettingsError(f"{found.path.name} has nothing to run: no LOAD, CREATE or EXPORT is reached")


def _job(
    project: Project, pipeline: str, partition: str | None, note: Callable[[Progress], None]
) -> tuple[dg.JobDefinition, list[dg.JobDefinition]]:
    """The pipeline's job, with a partition the one that has partitions; and the other one, if any."""
    definitions = dg.Definitions.merge(
        build_definitions(project, executor=dg.in_process_executor),
        dg.Definitions(loggers={_LOGGER: _logger(note)}),
    )
    names = job_names(project)[pipeline], partition_job_names(project)[pipeline]
    # Dagster resolves a job against all assets: those of other pipelines are left alone.
    repository = definitions.get_repository_def()
    jobs = [repository.get_job(n) for n in names if repository.has_job(n)]
    chosen = next((job for job in jobs if (job.partitions_def is not None) == (partition is not None)), None)
    if chosen is None and partition is None:
        raise SettingsError(f"{pipeline} runs by partition; name one, e.g. --partition 2026-01-31")
    if chosen is None:
        raise SettingsError(
            f"{pipeline} has no partitions: leave --partition out, or give it `partitions` in the profile"
        )
    partitions = chosen.partitions_def
    if partition is not None and partitions and not partitions.has_partition_key(partition):
        newest = partitions.get_last_partition_key()
        raise SettingsError(f"{pipeline} has no partition {partition!r}; the newest one is {newest}")
    return chosen, [job for job in jobs if job is not chosen]


def _assets_of(job: dg.JobDefinition) -> set[str]:
    return {key.to_user_string() for key in job.asset_layer.executable_asset_keys}


def _logger(note: Callable[[Progress], None]) -> dg.LoggerDefinition:
    @dg.logger
    def progress_logger(_: Any) -> logging.Logger:
        # Its own, not one of the process: the next run brings another callback.
        logger = logging.Logger(_LOGGER, logging.DEBUG)  # noqa: LOG001
        logger.addHandler(_Handler(note))
        return logger

    return progress_logger


class _Handler(logging.Handler):
    def __init__(self, note: Callable[[Progress], None]) -> None:
        super().__init__()
        self._note = note

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "dagster_meta", {}).get("dagster_event")
        item = _progress(event) if event else None
        if item:
            self._note(item)


def _progress(event: DagsterEvent) -> Progress | None:
    step = event.step_key or ""
    match event.event_type:
        case DagsterEventType.STEP_START:
            return Progress("started", step)
        case DagsterEventType.ASSET_MATERIALIZATION:
            made = event.step_materialization_data.materialization
            facts = {name: entry.value for name, entry in made.metadata.items()}
            return Progress("stored", made.asset_key.to_user_string(), facts=facts)
        case DagsterEventType.STEP_UP_FOR_RETRY:
            data = event.step_retry_data
            return Progress("retrying", step, _reason(data.error), wait=data.seconds_to_wait or 0)
        case DagsterEventType.STEP_FAILURE:
            failure = event.step_failure_data
            said = failure.user_failure_data and failure.user_failure_data.description
            return Progress("failed", step, said.strip() if said else _reason(failure.error))
    return None


def _reason(error: SerializableErrorInfo | None) -> str:
    """What was wrong, in the words of the error that a step raised, without Dagster's around it."""
    while error and error.cause and (error.cls_name or "").startswith(_AROUND):
        error = error.cause
    if error is None:
        return "the step failed; the run's log in the web UI says more"
    return _OURS.sub("", error.message).strip()
