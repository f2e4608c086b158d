"""What the steps of one run share, and what became of each of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Protocol

from sqlflow_dagster.cursor import Cursor, Marker, StateKey
from sqlflow_dagster.errors import RunStorageFailed, SQLFlowError
from sqlflow_dagster.health import Finding
from sqlflow_dagster.language.variables import Variables
from sqlflow_dagster.plan.nodes import Lineage, Step
from sqlflow_dagster.project import Project
from sqlflow_dagster.resilience.counts import Calls
from sqlflow_dagster.resilience.guard import Guard
from sqlflow_dagster.settings import Scalar
from sqlflow_dagster.warehouse.shape import Window

log = logging.getLogger(__name__)


class Store(Protocol):
    """The users' copy of the cursors; Dagster's run storage in production."""

    def get(self, key: str) -> str | None:
        """Return the text under `key`, None where there is none."""

    def set(self, key: str, value: str) -> None:
        """Store the text under `key`."""


@dataclass(frozen=True, slots=True)
class Session:
    """What all steps of one run share.

    `run_id` is the run's, but where it goes on with what a failed run left undone, that one's.
    `run_date` is an ISO date: the partition's, else the schedule's tick, else the start of the first run
    of a retry chain. `window` is the partition. `stopped` is set when the run is canceled, and the
    `guards`, which may be waiting for a far side, are told.
    """

    project: Project
    run_id: str
    run_date: str
    store: Store
    variables: Mapping[str, Scalar] = field(default_factory=dict)
    full_refresh: bool = False
    window: Window | None = None
    partition: str | None = None
    stopped: Event = field(default_factory=Event)
    guards: list[Guard] = field(default_factory=list)

    def scope(self, values: Mapping[str, Any]) -> Variables:
        """Return the variables that a statement sees in this run."""
        builtin: dict[str, Scalar] = {"run_id": self.run_id, "run_date": self.run_date}
        if self.window:
            builtin |= {"partition_start": self.window.start, "partition_end": self.window.end}
        return self.project.scope(values, self.variables, builtin)

    def mirror(self, markers: Mapping[StateKey, Marker]) -> tuple[str, ...]:
        """Copy markers to run storage, one key a call; return what went wrong, which is no failure of their step."""
        try:
            for key, marker in markers.items():
                self.store.set(str(key), marker.to_json())
        except RunStorageFailed as error:
            log.warning("%s", error)
            return (f"{error}. The rows are stored, and the next run writes the cursor's copy",)
        return ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one step. With `error` set, nothing of it was stored.

    `skipped` says that an earlier try of the same run had done it. `columns` maps names to DuckDB
    types. `seconds` is wall time. `calls` are those to the outside. `repaired` says that run
    storage and warehouse had to be brought together. `facts` are what the far side said afterwards.
    `audit` says whether rows were lost, where that was asked for.
    """

    step: Step
    error: SQLFlowError | None = None
    rows: int = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    quarantined: int = 0
    total_rows: int | None = None
    bytes: int | None = None
    seconds: float = 0.0
    calls: Calls = field(default_factory=Calls)
    cursor_before: Cursor | None = None
    cursor_after: Cursor | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    schema_changes: tuple[str, ...] = ()
    lineage: tuple[Lineage, ...] = ()
    notices: tuple[str, ...] = ()
    repaired: bool = False
    skipped: bool = False
    target: str | None = None
    facts: Mapping[str, str | int] = field(default_factory=dict)
    audit: Finding | None = None
