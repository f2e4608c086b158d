"""A command → its wall time, CPU time and peak memory, children included."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LAUNCHER = Path(__file__).with_name("launcher.py")


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process and those it waited for took: seconds, and the largest resident set in MiB."""

    wall: float
    cpu: float
    rss: float


@dataclass(frozen=True, slots=True)
class Command:
    """A process to measure. `before` puts things back to the same start and is not measured."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    before: Callable[[], None] = lambda: None


def once(command: Command, log: Path) -> Usage:
    """Run a command to its end; what it prints goes to `log`. Raises RuntimeError where it fails."""
    command.before()
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(_LAUNCHER), str(log), *command.argv],
        env=dict(command.env),
        capture_output=True,
        check=True,
    )
    found = json.loads(done.stdout)
    if status := found.pop("status"):
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:])
        raise RuntimeError(f"{command.name} ended with {status}:\n{tail}")
    return Usage(**found)


def interleaved(commands: Sequence[Command], rounds: int, log: Path) -> dict[str, Usage]:
    """Run the commands in turn, `rounds` times, so that a busy minute hits all alike; return medians."""
    runs: dict[str, list[Usage]] = {command.name: [] for command in commands}
    for _ in range(rounds):
        for command in commands:
            runs[command.name].append(once(command, log))
    return {name: _median(found) for name, found in runs.items()}


def _median(runs: Sequence[Usage]) -> Usage:
    return Usage(
        wall=statistics.median(run.wall for run in runs),
        cpu=statistics.median(run.cpu for run in runs),
        rss=statistics.median(run.rss for run in runs),
    )
