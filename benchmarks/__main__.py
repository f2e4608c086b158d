"""`python -m benchmarks`: run the cases, print the table, put them into `docs/benchmarks.md`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import peers, report
from benchmarks.cases import CASES
from benchmarks.figures import Figure, Sizes

_DEFAULTS = {"rows": 10_000_000, "peer_rows": 1_000_000, "rounds": 3}
_PEERS = Path(__file__).parents[1] / ".peers"


def main() -> int:
    """Return 0 where every figure was reached, or with --compare none became worse, else 1."""
    arguments = _arguments()
    if arguments.install_peers:
        failed = peers.install(_PEERS)
        for name, why in failed.items():
            print(f"{name} cannot be installed: {why}", file=sys.stderr)
        return 0
    before = report.committed()
    figures = _measure(arguments, before)
    report.show(figures)
    if arguments.compare:
        slower = report.slower(figures, before)
        print(
            "\n".join(["slower than committed:", *slower]) if slower else "nothing is slower than committed"
        )
        return 1 if slower else 0
    return 1 if any(figure.met is False for figure in figures) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"all by default: {', '.join(CASES)}")
    parser.add_argument("--rows", type=int, help="rows of the large load (10,000,000)")
    parser.add_argument("--peer-rows", type=int, help="rows of the load that other tools do too (1,000,000)")
    parser.add_argument("--rounds", type=int, help="how often each command is run (3)")
    parser.add_argument("--folder", type=Path, help="where input files are kept between runs")
    parser.add_argument("--no-page", action="store_true", help="leave docs/benchmarks.md as it is")
    parser.add_argument(
        "--compare", action="store_true", help="compare with docs/benchmarks.json as it was, of its sizes"
    )
    parser.add_argument(
        "--install-peers", action="store_true", help="only install the tools to compare with, into .peers"
    )
    arguments = parser.parse_args()
    arguments.cases = arguments.cases or list(CASES)
    if unknown := sorted(set(arguments.cases) - set(CASES)):
        parser.error(f"no such case: {', '.join(unknown)}")
    return arguments


def _measure(arguments: argparse.Namespace, before: report.Results) -> list[Figure]:
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="sqlflow_bench_") as scratch:
        folder = arguments.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in arguments.cases:
            known = before["cases"].get(name, {}) if arguments.compare else {}
            sizes = _sizes(arguments, known, folder.resolve())
            found = []
            for figure in CASES[name](sizes):
                print(report.line(figure), file=sys.stderr, flush=True)
                found.append(figure)
            if found and not arguments.no_page:
                report.write(name, found, sizes, os.getloadavg()[0])
            figures += found
    return figures


def _sizes(arguments: argparse.Namespace, known: Mapping[str, Any], folder: Path) -> Sizes:
    """The sizes asked for; in a comparison those that the `known` results of the case have."""
    chosen = {
        size: getattr(arguments, size) or known.get(size, default) for size, default in _DEFAULTS.items()
    }
    return Sizes(folder, **chosen, peers=_PEERS if _PEERS.exists() else None)


if __name__ == "__main__":
    sys.exit(main())
