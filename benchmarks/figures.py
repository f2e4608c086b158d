"""What a case yields, and how large the cases are."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

# A tenth of the large load, and the size that memory and increments are measured with.
_FEWER = 10


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the report: what was measured, what it had to reach, and how it came about.

    `met` is None where there is nothing to reach.

    `ratio` is what the next run is compared with: the same work beside `beside`, a baseline of the
    same run that is no code of ours, so that a faster machine changes both. None where there is none.
    """

    case: str
    measured: str
    limit: str
    met: bool | None
    detail: str
    ratio: float | None = None
    beside: str = ""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large the cases are. `folder` is scratch; `rounds` is how often each command runs.

    `rows` is the large load, `peer_rows` the one that other tools do too; `peers` is the Python of
    their environment, None where they are not installed.
    """

    folder: Path
    rows: int
    rounds: int
    peer_rows: int
    peers: Path | None = None

    @property
    def few_rows(self) -> int:
        """The smaller load, that memory is compared with."""
        return self.rows // _FEWER

    def scratch(self, name: str) -> Path:
        """Return a new empty folder for one case."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        return path


def verdict(value: float, limit: float) -> bool:
    """Return whether a value is within its limit, to the two digits that the report shows."""
    return round(value, 2) <= limit
