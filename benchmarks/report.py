"""Figures → a table on the terminal and the page `docs/benchmarks.md`."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.cases import Figure, Sizes

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def line(figure: Figure) -> str:
    """Return a figure as one line, for whoever waits."""
    return f"{_mark(figure)} {figure.case}: {figure.measured} ({figure.detail})"


def show(figures: Sequence[Figure]) -> None:
    """Print the figures as a table."""
    table = Table("", "case", "measured", "to reach", "detail")
    for figure in figures:
        table.add_row(_mark(figure), figure.case, figure.measured, figure.limit, figure.detail)
    Console().print(table)


def write(figures: Sequence[Figure], sizes: Sizes, path: Path = PAGE) -> None:
    """Write the figures, the machine and the versions to a page."""
    rows = "\n".join(
        f"| {_mark(figure)} | {figure.case} | {figure.measured} | {figure.limit} | {figure.detail} |"
        for figure in figures
    )
    versions = ", ".join(f"{name} {version(name)}" for name in ("dagster", "duckdb", "sqlglot", "pyarrow"))
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"""# Benchmarks

Written by `make bench`; do not edit. Each command is a process of its own, measured to its end with
its children (`wait4`). Commands that are compared run in turn, {sizes.rounds} times; medians are shown.
Before the times of a load are taken, both ways are held to the same table (count, sums, largest cursor).

"By hand" is a Python process that opens a DuckDB file and runs one `CREATE TABLE AS` with the same declared
types and the same `memory_limit`. "Start" is `sqlflow run` of a pipeline with one table of one row: Python,
Dagster, the instance, and a run in it. The input has six columns (bigint, integer, decimal, two texts,
timestamp).

| | case | measured | to reach | detail |
|---|---|---|---|---|
{rows}

Machine: {_processor()}, {os.cpu_count()} cores, {_memory()} memory, {platform.system()} {platform.release()}.
Versions: Python {platform.python_version()}, {versions}.
"""
    )


def _mark(figure: Figure) -> str:
    return "✔" if figure.met else "✘"


def _processor() -> str:
    for line in _proc("cpuinfo"):
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _memory() -> str:
    for line in _proc("meminfo"):
        if line.startswith("MemTotal"):
            return f"{int(line.split()[1]) / 1024**2:.0f} GiB"
    return "unknown"


def _proc(name: str) -> list[str]:
    path = Path("/proc") / name
    return path.read_text().splitlines() if path.exists() else []
