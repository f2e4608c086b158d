"""Figures → a table on the terminal, the page `docs/benchmarks.md` and `docs/benchmarks.json`."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, Sizes

# What `docs/benchmarks.json` holds: of each case its sizes, machine, and figures.
Results = dict[str, Any]
PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
RESULTS = PAGE.with_suffix(".json")
# A ratio may be this much greater than the committed one before it counts as slower.
WORSE = 1.15
_MARKS = {True: "✔", False: "✘", None: "·"}

_HOW = """# Benchmarks

Written by `make bench`; do not edit. `benchmarks.json` beside it holds the same for `make bench-compare`, which
runs all of it again and fails where a ratio to a baseline of the same run is more than 15 % greater than here.

Each command is a process of its own, measured to its end with its children (`wait4`) by a launcher that is
smaller than any of them. Commands that are compared run in turn, every second round the
other way about. Medians are shown; a ratio is the median of the rounds' own ratios. Inputs and bytecode are warm.
Before the times of a load are taken, both ways are held to the same table: types, count, and the sum of a hash
of each column.

"By hand" is a Python process that opens a DuckDB file and runs one `CREATE TABLE AS` with the same declared
types and the same `memory_limit`. "Start" is `sqlflow run` of a pipeline with one table of one row: Python,
Dagster, the instance, and a run in it; the first line below shows it beside the same table made by an asset of
Dagster alone. The table has twelve columns (bigint, integer, decimal, five texts, two timestamps with time zone,
boolean, date), about 227 bytes a row as text; in Postgres and MariaDB one of the texts is JSON. Ratios without a
limit are there to be seen.

| | case | measured | to reach | how it came about |
|---|---|---|---|---|
{rows}

Machine: {machine}. Each line tells the load average after its case. Where that is above the number of
cores, others were at work on the machine: wall times and CPU seconds are then longer than they need be (a busy
sibling core and shared caches cost CPU time too), and only ratios are to be trusted.
Versions: {versions}.
"""


def line(figure: Figure) -> str:
    """Return a figure as one line, for whoever waits."""
    return f"{_MARKS[figure.met]} {figure.case}: {figure.measured} ({figure.detail})"


def show(figures: Sequence[Figure]) -> None:
    """Print the figures as a table."""
    table = Table("", "case", "measured", "to reach", "how it came about")
    for figure in figures:
        table.add_row(_MARKS[figure.met], figure.case, figure.measured, figure.limit, figure.detail)
    Console().print(table)


def write(name: str, figures: Sequence[Figure], sizes: Sizes, load: float) -> None:
    """Put the figures of a case in the place of its old ones, and write results and page anew.

    `load` is the load average while it ran.
    """
    found = committed()
    cases = found["cases"]
    cases[name] = {
        **{key: getattr(sizes, key) for key in ("rows", "peer_rows", "rounds")},
        "load": round(load, 1),
        "machine": f"{_processor()}, {os.cpu_count()} cores, {_memory()} memory, "
        f"{platform.system()} {platform.release()}",
        "versions": {
            "Python": platform.python_version(),
            **{package: version(package) for package in ("dagster", "duckdb", "sqlglot", "pyarrow")},
        },
        "figures": [asdict(figure) for figure in figures],
    }
    RESULTS.write_text(json.dumps({"cases": cases}, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(_page(cases))


def _page(cases: dict[str, Any]) -> str:
    rows = "\n".join(
        f"| {_MARKS[item['met']]} | {item['case']} | {item['measured']} | {item['limit']} | "
        f"{item['detail']}; {case['rounds']} rounds, load {case['load']} |"
        for case in cases.values()
        for item in case["figures"]
    )
    return _HOW.format(
        rows=rows,
        machine="; ".join(dict.fromkeys(case["machine"] for case in cases.values())),
        versions="; ".join(
            dict.fromkeys(
                ", ".join(f"{name} {number}" for name, number in case["versions"].items())
                for case in cases.values()
            )
        ),
    )


def committed() -> Results:
    """Return the results beside the page, without cases where there are none."""
    found: Results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"cases": {}}
    return found


def slower(figures: Sequence[Figure], before: Results) -> list[str]:
    """Return a line for each figure whose ratio is worse than the one `before`."""
    known = {item["case"]: item["ratio"] for case in before["cases"].values() for item in case["figures"]}
    return [
        f"{figure.case}: {figure.ratio:.2f} x {figure.beside}, committed {known[figure.case]:.2f} x"
        for figure in figures
        if figure.ratio and known.get(figure.case) and figure.ratio > WORSE * known[figure.case]
    ]


def _processor() -> str:
    for text in _proc("cpuinfo"):
        if text.startswith("model name"):
            return text.split(":", 1)[1].strip()
    return platform.machine()


def _memory() -> str:
    for text in _proc("meminfo"):
        if text.startswith("MemTotal"):
            return f"{int(text.split()[1]) / 1024**2:.0f} GiB"
    return "unknown"


def _proc(name: str) -> list[str]:
    path = Path("/proc") / name
    return path.read_text().splitlines() if path.exists() else []
