"""Runs whose process was killed are marked failed by the next one, so that none stays STARTED.

Each run is tagged with its host, process id and the process' start; a process id alone may have
been given to another process since.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

from dagster import DagsterInstance, DagsterRunStatus, RunsFilter

HOST, PID, STARTED = "sqlflow/host", "sqlflow/pid", "sqlflow/process_started"
_RUNNING = [DagsterRunStatus.STARTED, DagsterRunStatus.STARTING, DagsterRunStatus.CANCELING]


def tag_run(instance: DagsterInstance, run_id: str) -> None:
    """Note on a run which process executes it."""
    pid = os.getpid()
    instance.add_run_tags(
        run_id, {HOST: socket.gethostname(), PID: str(pid), STARTED: _process_started(pid) or ""}
    )


def mark_dead_runs(instance: DagsterInstance) -> list[str]:
    """Mark the running runs of dead processes of this host as failed, and return their ids."""
    here = RunsFilter(statuses=_RUNNING, tags={HOST: socket.gethostname()})
    dead = [run for run in instance.get_runs(here) if not _alive(run.tags)]
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
    return _process_started(int(pid)) in (tags.get(STARTED) or None, None)


def _process_started(pid: int) -> str | None:
    """The kernel's start time of a process, None where there is no /proc to tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The command's name may hold blanks and brackets; the 22nd field counts from the last one.
    return stat.rpartition(")")[2].split()[19]
