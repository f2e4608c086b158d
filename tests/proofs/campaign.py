"""Kill a run, look at what it left, run again, compare with the truth; many times over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from .world import World

FAILPOINTS = (
    "after_fetch",
    "after_stage_write",
    "in_schema_alter",
    "before_commit",
    "after_commit",
    "after_commit_before_cursor_mirror",
    "after_cursor_before_materialization",
)
AT_RANDOM = "at a random moment"
_SERVER = Path(__file__).with_name("fork_server.py")
_PATIENCE_SECONDS = 120


@dataclass
class Tally:
    """What a campaign did: kills by place, and runs that ended before the kill came."""

    kills: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)


class Runner:
    """Starts `sqlflow` in children of a process that has loaded Dagster already."""

    def __init__(self, log: Path) -> None:
        self.log = log
        # How long the last run took that was left alone: random kills fall into that time.
        self.seconds = 0.0
        self._server = subprocess.Popen(
            [sys.executable, str(_SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # The repository is importable without being installed.
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stdin.close()
        self._server.wait(_PATIENCE_SECONDS)
        self._server.stdout.close()

    def run(self, world: World, failpoint: str = "", kill_after: float | None = None) -> int:
        """Return the exit status of one run, -9 where it was killed at the failpoint or after seconds."""
        argv = ["run", "shop", "--project", str(world.root)]
        env = {**world.environment, "SQLFLOW_FAILPOINT": failpoint}
        self._server.stdin.write(json.dumps({"argv": argv, "env": env, "log": str(self.log)}) + "\n")
        self._server.stdin.flush()
        pid, begin = self._answer()["pid"], time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        status = self._answer()["status"]
        if status == 0:
            self.seconds = time.monotonic() - begin
        return status

    def _answer(self) -> dict[str, int]:
        line = self._server.stdout.readline()
        assert line, "the fork server ended"
        return json.loads(line)


def first_run(world: World, runner: Runner) -> None:
    """Load the first rows without a kill."""
    world.change()
    assert runner.run(world) == 0, runner.log.read_text()
    world.check_after_run()


def kill_at(world: World, runner: Runner, failpoint: str, passing: int, tally: Tally) -> None:
    """Kill a run where it passes `failpoint` the `passing`-th time; a rarer place is not reached."""
    world.change(new_column=failpoint == "in_schema_alter")
    status = runner.run(world, f"{failpoint}:kill:{passing}")
    (tally.kills if status == -signal.SIGKILL else tally.missed)[failpoint] += 1
    _restart(world, runner, status)


def kill_at_random(world: World, runner: Runner, tally: Tally) -> None:
    """Kill a run at any moment of its life, and sometimes its restarts too."""
    world.change(new_column=world.random.random() < 0.1)
    status = runner.run(world, kill_after=world.random.uniform(0, runner.seconds))
    (tally.kills if status == -signal.SIGKILL else tally.missed)[AT_RANDOM] += 1
    while status and world.random.random() < 0.3:
        world.check_after_kill()
        status = runner.run(world, kill_after=world.random.uniform(0, runner.seconds))
        (tally.kills if status == -signal.SIGKILL else tally.missed)[AT_RANDOM] += 1
    _restart(world, runner, status)


def _restart(world: World, runner: Runner, status: int) -> None:
    assert status in (0, -signal.SIGKILL), (status, runner.log.read_text())
    if status:
        world.check_after_kill()
    assert runner.run(world) == 0, runner.log.read_text()
    world.check_after_run()
    runs = Counter(world.runs().values())
    assert set(runs) <= {"SUCCESS", "FAILURE"}, f"a run that ended is still shown as living: {runs}"
