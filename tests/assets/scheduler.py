"""Dagster's scheduler for one tick in a process of its own: `scheduler.py definitions.py BEFORE TICK [DIES_AT]`.

It looks at the schedules at BEFORE and again at TICK, as the daemon does each minute, and dies where it is told to.
"""

from __future__ import annotations

import logging
import signal
import sys
from datetime import datetime

import dagster as dg
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._scheduler.scheduler import launch_scheduled_runs


def main(definitions: str, before: str, tick: str, dies_at: str = "") -> None:
    target = PythonFileTarget(definitions, attribute=None, working_directory=None, location_name=None)
    crash = {"p_schedule": {dies_at: signal.SIGKILL}} if dies_at else None
    with (
        dg.DagsterInstance.get() as instance,
        create_test_daemon_workspace_context(target, instance) as context,
    ):
        times: dict = {}
        for moment in (before, tick):
            now = datetime.fromisoformat(moment)
            ticked = launch_scheduled_runs(context, logging.getLogger(), now, times, debug_crash_flags=crash)
            for error in filter(None, ticked):
                raise RuntimeError(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
