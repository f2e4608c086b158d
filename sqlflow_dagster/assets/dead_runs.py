"""Runs whose process was killed are marked failed, so that none is shown as living for ever.

Each run notes its process as soon as code of ours is reached in it. A run that was killed before
that is recognised by having shown no sign of life for the time that runs have to start.
"""

from __future__ import annotations

import multiprocessing
import os
import time

from dagster import DagsterEventType, DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from sqlflow_dagster.assets.processes import PID, is_dead, process_tags, says

_UNFINISHED = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
# What Dagster writes of a run before it makes its resources, which is where a run notes its process.
_BEFORE_RESOURCES = {DagsterEventType.RUN_START, DagsterEventType.RESOURCE_INIT_STARTED}
_BEFORE_RESOURCES |= {
    DagsterEventType.ASSET_MATERIALIZATION_PLANNED,
    DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED,
}
_IN_PROCESS = "Executing steps in process"
PIPELINE_TAG = "sqlflow/pipeline"
_begun_here: set[str] = set()
_GONE = "nothing is lost: the next run goes on from the cursors in the warehouse"


def begin_in_main_process(instance: DagsterInstance, run: DagsterRun) -> list[str]:
    """At the start of a run that nobody but its own process watches: tag it, and end dead ones.

    Such are the runs of `dagster job execute`, `dagster asset materialize` and `materialize()`. In a
    process that another one started, what drives the run is known only in a step.
    """
    if multiprocessing.parent_process() is not None:
        return []
    _begun_here.add(run.run_id)
    if all(run.tags.get(name) == value for name, value in process_tags(run.run_id).items()):
        # It was tagged as it was created, by `sqlflow run`, which has looked for dead ones too.
        return []
    tag_run(instance, run, own_process_drives=True)
    return mark_dead_runs(instance)


def begun_in_main_process(run_id: str) -> bool:
    """Whether `begin_in_main_process` has seen this run."""
    return run_id in _begun_here


def tag_run(instance: DagsterInstance, run: DagsterRun, *, own_process_drives: bool) -> None:
    """Note on a run which process drives it, where that can be known from here.

    Under the multiprocess executor that is the parent of the process that runs a step; under one
    that spreads steps over hosts it is unknown, and the executor's own monitoring is in charge.
    """
    parent = multiprocessing.parent_process()
    pid = os.getpid() if own_process_drives else parent.pid if parent else None
    if pid is None:
        return
    tags = process_tags(run.run_id, pid)
    if any(run.tags.get(name) != value for name, value in tags.items()):
        instance.add_run_tags(run.run_id, tags)


def mark_dead_runs(instance: DagsterInstance) -> list[str]:
    """Mark the unfinished runs of dead processes of this host as failed, and return their ids."""
    marked = []
    for record in instance.get_run_records(RunsFilter(statuses=_UNFINISHED)):
        run = record.dagster_run
        if says(run.run_id, run.tags):
            reason = (
                f"the process {run.tags[PID]} that executed this run is gone" if is_dead(run.tags) else ""
            )
        else:
            begun = record.create_timestamp.timestamp()
            reason = _never_began(instance, run, begun)
        if reason:
            instance.report_run_failed(run, f"{reason}; {_GONE}")
            marked.append(run.run_id)
    return marked


def _never_began(instance: DagsterInstance, run: DagsterRun, created: float) -> str:
    """Why a run that never named its process is dead, empty where it may live.

    One that a daemon launched is the daemon's to watch. One that waits for a slot, or whose steps
    run elsewhere, has written more than is looked for here.
    """
    patience = instance.run_monitoring_start_timeout_seconds or 180
    if run.remote_job_origin is not None or time.time() - created < patience:
        return ""
    entries = instance.all_logs(run.run_id)
    if any(time.time() - entry.timestamp < patience for entry in entries):
        return ""
    for event in (entry.dagster_event for entry in entries if entry.dagster_event):
        in_process = (event.message or "").startswith(_IN_PROCESS)
        if event.event_type not in _BEFORE_RESOURCES and not in_process:
            return ""
    return f"this run was begun and has not reached a step in {patience} s" if _is_ours(instance, run) else ""


def _is_ours(instance: DagsterInstance, run: DagsterRun) -> bool:
    if run.job_snapshot_id is None or not instance.has_job_snapshot(run.job_snapshot_id):
        return False
    nodes = instance.get_job_snapshot(run.job_snapshot_id).node_defs_snapshot
    return any(PIPELINE_TAG in op.tags for op in nodes.op_def_snaps)
