"""Runs whose process was killed are marked failed by the next one, so that none stays STARTED.

Each run is tagged with the host, the id and the start of the process that drives it; a process id
alone may have been given to another process since.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Mapping
from pathlib import Path

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

RUN, HOST, PID, STARTED = "sqlflow/run", "sqlflow/host", "sqlflow/pid", "sqlflow/process_started"
_UNFINISHED = [
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
_BOOT = Path("/proc/sys/kernel/random/boot_id")


def process_tags(run_id: str, pid: int | None = None) -> dict[str, str]:
    """Return the tags that say which process drives a run; this one unless `pid` is given."""
    pid = pid or os.getpid()
    # A retry of the run takes over its tags, so they also say whose they are.
    return {RUN: run_id, HOST: socket.gethostname(), PID: str(pid), STARTED: _process_started(pid) or ""}


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
    here = RunsFilter(statuses=_UNFINISHED, tags={HOST: socket.gethostname()})
    dead = [
        run for run in instance.get_runs(here) if run.tags.get(RUN) == run.run_id and not _alive(run.tags)
    ]
    for run in dead:
        instance.report_run_failed(
            run,
            f"the process {run.tags[PID]} that executed this run is gone; nothing is lost: "
            "the next run goes on from the cursors in the warehouse",
        )
    return [run.run_id for run in dead]


def _alive(tags: Mapping[str, str]) -> bool:
    pid = tags.get(PID, "")
    if not pid.isdecimal():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    found = _stat(int(pid))
    if found is None:
        return True
    state, started = found
    # A killed process whose parent has not asked for its status yet is still listed.
    return state not in "ZX" and started == tags.get(STARTED)


def _process_started(pid: int) -> str | None:
    """The boot and the time since it at which a process started, None where there is no /proc to tell."""
    found = _stat(pid)
    return found[1] if found else None


def _stat(pid: int) -> tuple[str, str] | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
        boot = _BOOT.read_text("ascii").strip()
    except OSError:
        return None
    # The command's name may hold blanks and brackets: the fields count from the last one.
    fields = stat.rpartition(")")[2].split()
    return fields[0], f"{boot[:8]}:{fields[19]}"
