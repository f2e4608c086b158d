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

from . import ledger
from .world import World

FAILPOINTS = (
    "after_fetch",
    "after_stage_write",
    "in_schema_alter",
    "before_commit",
    "after_commit",
    "after_commit_before_cursor_mirror",
    "after_cursor_before_materialization",
    "in_export",
)
IN_RESET = "in_reset"
IN_BACKFILL = "in a partition's run"
BY_DAGSTER = "in `dagster job execute`"
IN_FULL_REFRESH = "in a full refresh"
AT_RANDOM = "at a random moment"
_SERVER = Path(__file__).with_name("fork_server.py")
_REPOSITORY = Path(__file__).parents[2]
_PATIENCE_SECONDS = 120


@dataclass
class Tally:
    """What a campaign did: kills by place, and runs that ended before the kill came."""

    kills: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Run:
    """How a run is begun."""

    pipeline: str = "shop"
    full_refresh: bool = False
    partition: str | None = None
    by_dagster: bool = False

    def argv(self, world: World) -> list[str]:
        if self.by_dagster:
            config = world.root / "full_refresh.yaml"
            config.write_text("resources: {sqlflow: {config: {full_refresh: true}}}")
            more = ["-c", str(config)] if self.full_refresh else []
            definitions = str(_REPOSITORY / "definitions.py")
            return ["dagster", "job", "execute", "-f", definitions, "-j", self.pipeline, *more]
        more = ["--full-refresh"] if self.full_refresh else []
        more += ["--partition", self.partition] if self.partition else []
        return ["sqlflow", "run", self.pipeline, "--project", str(world.root), *more]


PLAIN = Run()


class Runner:
    """Starts `sqlflow` in children of a process that has loaded Dagster already."""

    def __init__(self, log: Path) -> None:
        self.log = log
        site = log.with_name(f"{log.name}_site")
        ledger.install(site)
        # How long the last run took that was left alone: random kills fall into that time.
        self.seconds = 0.0
        self._server = subprocess.Popen(
            [sys.executable, str(_SERVER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # The repository is importable without being installed.
            env={**os.environ, "PYTHONPATH": f"{_REPOSITORY}{os.pathsep}{site}"},
            cwd=_REPOSITORY,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stdin.close()
        self._server.wait(_PATIENCE_SECONDS)
        self._server.stdout.close()

    def run(
        self, world: World, how: Run = PLAIN, failpoint: str = "", kill_after: float | None = None
    ) -> int:
        """Return the exit status of one run, -9 where it was killed at the failpoint or after seconds."""
        return self.command(world, how.argv(world), failpoint, kill_after)

    def command(
        self, world: World, argv: list[str], failpoint: str = "", kill_after: float | None = None
    ) -> int:
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


def kill_at(
    world: World,
    runner: Runner,
    failpoint: str,
    passing: int,
    tally: Tally,
    how: Run = PLAIN,
    label: str = "",
) -> None:
    """Kill a run where it passes `failpoint` the `passing`-th time; a rarer place is not reached."""
    world.change(new_column=failpoint == "in_schema_alter")
    _go_back_sometimes(world, runner)
    status = runner.run(world, how, f"{failpoint}:kill:{passing}")
    (tally.kills if status == -signal.SIGKILL else tally.missed)[label or failpoint] += 1
    _restart(world, runner, status, how)


def kill_at_random(
    world: World, runner: Runner, tally: Tally, how: Run = PLAIN, label: str = AT_RANDOM
) -> None:
    """Kill a run at any moment of its life, and sometimes its restarts too."""
    world.change(new_column=world.random.random() < 0.1)
    _go_back_sometimes(world, runner)
    status = runner.run(world, how, kill_after=world.random.uniform(0, runner.seconds))
    (tally.kills if status == -signal.SIGKILL else tally.missed)[label] += 1
    while status and world.random.random() < 0.3:
        world.check_after_kill()
        status = runner.run(world, how, kill_after=world.random.uniform(0, runner.seconds))
        (tally.kills if status == -signal.SIGKILL else tally.missed)[label] += 1
    _restart(world, runner, status, how)


def kill_in_reset(world: World, runner: Runner, tally: Tally) -> None:
    """Kill `sqlflow cursors reset` between its two memories."""
    world.change()
    status = runner.command(world, _reset(world), f"{IN_RESET}:kill")
    (tally.kills if status == -signal.SIGKILL else tally.missed)[IN_RESET] += 1
    _restart(world, runner, status, PLAIN)


def kill_in_backfill(world: World, runner: Runner, tally: Tally) -> None:
    """Kill the run of one partition at a commit; the other partitions stay as they were."""
    partition = world.change_days()
    how = Run("days", partition=partition, full_refresh=world.random.random() < 0.3)
    place = world.random.choice(("after_stage_write", "before_commit", "after_commit"))
    status = runner.run(world, how, f"{place}:kill:{world.random.randint(1, 2)}")
    (tally.kills if status == -signal.SIGKILL else tally.missed)[IN_BACKFILL] += 1
    world.check_days_after_kill(partition)
    assert runner.run(world, how) == 0, runner.log.read_text()
    world.check_days(partition)


def finish(world: World, runner: Runner) -> None:
    """After one more run nothing is shown as living: not even what was killed before it named its process."""
    time.sleep(1.2)
    world.change()
    assert runner.run(world) == 0, runner.log.read_text()
    world.check_after_run()
    assert set(world.runs().values()) <= {"SUCCESS", "FAILURE"}, world.runs()


def _go_back_sometimes(world: World, runner: Runner) -> None:
    if world.random.random() < 0.2:
        assert runner.command(world, _reset(world)) == 0, runner.log.read_text()


def _reset(world: World) -> list[str]:
    table, to = world.somewhere_back()
    more = ["--to", to] if to else []
    return ["sqlflow", "cursors", "reset", f"shop.{table}", "--yes", "--project", str(world.root), *more]


def _restart(world: World, runner: Runner, status: int, how: Run) -> None:
    assert status in (0, -signal.SIGKILL), (status, runner.log.read_text())
    if status:
        world.check_after_kill()
    again = how if world.random.random() < 0.5 else PLAIN
    assert runner.run(world, again) == 0, runner.log.read_text()
    world.check_after_run()
    living = world.living_runs()
    assert not living, f"a run that ended is still shown as living: {living}"
