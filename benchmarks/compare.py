"""Rounds of several ways to do the same → figures beside what is typed by hand, and beside other tools."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from benchmarks import inputs
from benchmarks.figures import Figure, Sizes, verdict
from benchmarks.measure import Command, Runs, once, paired

# A tool that takes longer is run once.
_SLOW_SECONDS = 60
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Way:
    """A way to load the table: its command, the file it makes with its table in it, and the folder of all its state."""

    command: Command
    database: Path
    table: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools that did the work: `able` to be run again, `slow` ones with their one run, and why others did not."""

    able: Sequence[Way]
    slow: Mapping[str, Runs]
    left_out: Mapping[str, str]

    def none(self) -> bool:
        """Whether there is nothing to compare with."""
        return not self.able and not self.slow


def started(scratch: Path) -> Command:
    """Return `sqlflow run` of one row: what a run takes before it has work to do."""
    folder = scratch / "start"
    project = inputs.project(folder / "project", {"start": inputs.ONE_TABLE})
    return Command(
        "start", inputs.run("start", project), inputs.environment(folder), lambda: inputs.forget(project)
    )


def python_of(sizes: Sizes, name: str) -> Path | None:
    """Return the Python of a tool's environment, None where it is not installed."""
    if sizes.peers is None or not (sizes.peers / name / ".ready").exists():
        return None
    return sizes.peers / name / "bin" / "python"


def beside_hand(
    case: str, runs: Mapping[str, Runs], limit: float | None, beside: str = "by hand", more: str = ""
) -> Figure:
    """Compare `sqlflow run` without its `start` with the command called `beside`, by wall time."""
    hand, ours, start = runs[beside], runs["sqlflow run"], runs["start"]
    wall = paired(lambda h, o, s: (o.wall - s.wall) / h.wall, hand, ours, start)
    cpu = paired(lambda h, o, s: (o.cpu - s.cpu) / h.cpu, hand, ours, start)
    return Figure(
        case,
        f"{wall:.2f} x {beside}",
        f"≤ {limit} x, Dagster's start aside" if limit else "",
        verdict(wall, limit) if limit else None,
        f"wall {ours.wall:.2f} s, {beside} {hand.wall:.2f}, start {start.wall:.2f}; "
        f"CPU {ours.cpu:.2f} s, {beside} {hand.cpu:.2f}, start {start.cpu:.2f}: {cpu:.2f} x; "
        f"MiB {ours.rss:.0f}, {hand.rss:.0f}" + (f"; {more}" if more else ""),
        ratio=cpu,
        beside=beside,
    )


def beside_tools(
    case: str,
    runs: Mapping[str, Runs],
    tools: Tools,
    limit: float,
    *,
    hand: str = "by hand",
    by_cpu: bool = False,
    start: bool = False,
    never_slower: bool = False,
) -> Iterator[Figure]:
    """Compare whole processes by their wall time, or `by_cpu`; with `start` ours without Dagster's start.

    With `never_slower` ours is to be no slower than the best with Dagster's start.
    """
    if tools.none():
        return
    found = {**runs, **tools.slow}
    names = [*(way.command.name for way in tools.able), *tools.slow]
    ours = runs["sqlflow run"]

    def measure(name: str) -> float:
        return found[name].cpu if by_cpu else found[name].wall

    best = min(names, key=measure)
    own = measure("sqlflow run") - (measure("start") if start else 0)
    share = own / measure(best)
    in_time = not never_slower or ours.wall <= found[best].wall
    yield Figure(
        f"{case}, beside other tools",
        f"{share:.2f} x {best}" + (" by CPU" if by_cpu else ""),
        f"≤ {limit} x the best"
        + (" without Dagster's start" if start else "")
        + (", never slower with it" if never_slower else ""),
        verdict(share, limit) and in_time,
        "CPU s (wall, MiB): "
        + ", ".join(f"{name} {_shown(each)}" for name, each in found.items())
        + "".join(f"; {name} left out: {why}" for name, why in tools.left_out.items()),
        ratio=ours.cpu / runs[hand].cpu,
        beside=hand,
    )


def try_out(ways: Iterable[Way], log: Path, check: Callable[[Way], None]) -> Tools:
    """Run each tool once and hold what it made to `check`, which raises RuntimeError."""
    able, slow, left_out = [], {}, {}
    for way in ways:
        try:
            first = once(way.command, log)
            check(way)
        except (RuntimeError, duckdb.Error) as error:
            left_out[way.command.name] = str(error)[-_SHOWN:].replace("\n", " ").replace("|", "/")
        else:
            if first.wall > _SLOW_SECONDS:
                slow[way.command.name] = Runs((first,))
            else:
                able.append(way)
    return Tools(able, slow, left_out)


def holds(way: Way, rows: int, first: int) -> None:
    """Hold a table to rows numbered from `first` on, whatever types a tool gave them; RuntimeError."""
    with duckdb.connect(str(way.database), read_only=True) as connection:
        found = connection.execute(
            f"SELECT count(*), sum(CAST(id AS HUGEINT)), count(note) FROM {way.table}"
        ).fetchone()
    if found != (rows, rows * (2 * first + rows - 1) // 2, rows):
        raise RuntimeError(f"{way.table} is not what was given: {json.dumps(found, default=str)}")


def _shown(found: Runs) -> str:
    return f"{found.cpu:.1f} ({found.wall:.1f}, {found.rss:.0f})"
