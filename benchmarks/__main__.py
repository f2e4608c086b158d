"""`python -m benchmarks`: run the cases, print the table, write `docs/benchmarks.md`."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from benchmarks import report
from benchmarks.cases import CASES, Sizes


def main() -> int:
    """Return 0 where every figure was reached, else 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"all by default: {', '.join(CASES)}")
    parser.add_argument("--rows", type=int, default=10_000_000, help="rows of the large load")
    parser.add_argument("--rounds", type=int, default=3, help="how often each command is run")
    parser.add_argument("--folder", type=Path, help="where input files are kept between runs")
    parser.add_argument("--no-page", action="store_true", help="leave docs/benchmarks.md as it is")
    arguments = parser.parse_args()
    chosen = arguments.cases or list(CASES)
    if unknown := sorted(set(chosen) - set(CASES)):
        parser.error(f"no such case: {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="sqlflow_bench_") as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        sizes = Sizes(folder.resolve(), arguments.rows, arguments.rounds)
        figures = []
        for name in chosen:
            for figure in CASES[name](sizes):
                print(report.line(figure), file=sys.stderr, flush=True)
                figures.append(figure)
    report.show(figures)
    if not arguments.no_page and chosen == list(CASES):
        report.write(figures, sizes)
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
