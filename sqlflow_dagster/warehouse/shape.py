"""What of a source's rows is wanted, and how it is to look, before anything is stored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlflow_dagster.sql import Condition


@dataclass(frozen=True, slots=True)
class Window:
    """A partition: from `start` on, before `end`; ISO 8601 text."""

    start: str
    end: str


@dataclass(frozen=True, slots=True)
class Shape:
    """Columns to keep and to leave out, what to mask, rows to keep, and bounds of the cursor column.

    `several` says that this holds for several streams, of which one may lack what another has. `stored` are columns
    of the table that rows are added to, each of which the source had once.
    """

    columns: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    mask: Mapping[str, str] = field(default_factory=dict)
    conditions: tuple[Condition, ...] = ()
    start: str | None = None
    end: str | None = None
    several: bool = False
    stored: tuple[str, ...] = ()
