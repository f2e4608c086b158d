"""Commands → what each took in every round: wall time, CPU time, peak memory, children included."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LAUNCHER = Path(__file__).with_name("launcher.py")
_SHOWN_LINES = 30


@dataclass(frozen=True, slots=True)
class Usage:
    """What one process and those it waited for took: seconds, and the largest resident set in MiB.

    `output` is what it printed.
    """

    wall: float
    cpu: float
    rss: float
    output: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """A process to measure. `before` puts things back to the same start and is not measured."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    before: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class Runs:
    """All rounds of one command, in order; the properties are medians."""

    rounds: tuple[Usage, ...]

    @property
    def wall(self) -> float:
        """Seconds."""
        return statistics.median(run.wall for run in self.rounds)

    @property
    def cpu(self) -> float:
        """Seconds."""
        return statistics.median(run.cpu for run in self.rounds)

    @property
    def rss(self) -> float:
        """MiB."""
        return statistics.median(run.rss for run in self.rounds)


def once(command: Command, log: Path) -> Usage:
    """Run a command to its end; what it prints goes to `log`. Raises RuntimeError where it fails."""
    command.before()
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(_LAUNCHER), str(log), *command.argv],
        env=dict(command.env),
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command.name} cannot be started: {done.stderr.decode()[-500:]}")
    found = json.loads(done.stdout)
    output = log.read_text(errors="replace")
    if status := found.pop("status"):
        tail = "\n".join(output.splitlines()[-_SHOWN_LINES:])
        raise RuntimeError(f"{command.name} ended with {status}:\n{tail}")
    return Usage(**found, output=output)


def interleaved(commands: Sequence[Command], rounds: int, log: Path) -> dict[str, Runs]:
    """Run the commands in turn, `rounds` times, so that a busy minute hits all alike.

    Every second round goes the other way about, so that none always comes after the same other.
    """
    runs: dict[str, list[Usage]] = {command.name: [] for command in commands}
    for number in range(rounds):
        for command in commands if number % 2 == 0 else reversed(commands):
            runs[command.name].append(once(command, log))
    return {name: Runs(tuple(found)) for name, found in runs.items()}


def paired(ratio: Callable[..., float], *runs: Runs) -> float:
    """Return the median over the rounds of a ratio of the runs of one round."""
    return statistics.median(ratio(*round_) for round_ in zip(*(found.rounds for found in runs), strict=True))
