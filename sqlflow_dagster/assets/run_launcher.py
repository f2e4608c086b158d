"""Dagster's own launcher of runs, which also tells the daemon's run monitoring which of them are dead.

In `dagster.yaml`::

    run_launcher:
      module: sqlflow_dagster.assets.run_launcher
      class: LocalRunLauncher
"""

from __future__ import annotations

import json
import re

import dagster as dg
from dagster import DagsterEventType, DagsterRun
from dagster._core.launcher import CheckRunHealthResult, WorkerStatus

from sqlflow_dagster.assets.processes import PID, is_dead, is_gone, says

_LAUNCHED_FROM = ".dagster/grpc_info"
_PROCESS = re.compile(r"Started process for run \(pid: (\d+)\)")


class LocalRunLauncher(dg.DefaultRunLauncher):
    """Launches runs as Dagster does by default, and knows the process of each.

    Dagster's own has no word on a run whose code server died with it: the run stays STARTED until
    `max_runtime_seconds`. This one reads the run's tags, and where a run was killed before its first
    step, the process id that its code server on this machine had written.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether run monitoring may ask; it may."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Return FAILED for a run whose process on this host is gone, RUNNING for any other."""
        pid = self._dead_pid(run)
        if pid is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"the process {pid} that executed this run is gone")

    def _dead_pid(self, run: DagsterRun) -> str | None:
        """The process of a run if it is gone: the one in its tags, else one a code server of here started."""
        if says(run.run_id, run.tags):
            return run.tags[PID] if is_dead(run.tags) else None
        launched_from = json.loads(run.tags.get(_LAUNCHED_FROM, "{}"))
        if launched_from.get("host") != "localhost":
            return None
        entries = self._instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
        found = [match[1] for entry in entries if (match := _PROCESS.search(entry.message))]
        return found[-1] if found and is_gone(int(found[-1])) else None
