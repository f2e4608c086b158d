"""What one LOAD of one run is to do, and what it did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from sqlflow_dagster.cursor import Cursor, Marker, Position, StateKey
from sqlflow_dagster.sql import TableName
from sqlflow_dagster.warehouse.schema import Policy
from sqlflow_dagster.warehouse.selection import Wanted
from sqlflow_dagster.warehouse.shape import Shape, Window


@dataclass(frozen=True, slots=True)
class LoadSpec:
    """One LOAD of one run.

    `since` is where the read begins, lookback taken off; None reads everything. `started_from` is the
    marker's position that the commit must still find, `epoch` the one to commit under. `rewound` says
    that rows at or after `since` go before the merge. `ordered` allows commits inside the read,
    `logged` only for the changes after the first one. `anew` has a whole read take the place of the
    table in any mode; `others` are the keys of the table's other LOADs, whose rows go then and come
    again with their next load.
    """

    key: StateKey
    table: TableName
    mode: Literal["replace", "append", "upsert"]
    keys: tuple[str, ...]
    cursor_field: str | None
    own_cursor: bool
    since: Cursor | None
    started_from: Position | None
    epoch: int
    shape: Shape
    schema_policy: Policy
    run_id: str
    sole_writer: bool
    row_provenance: bool
    incremental: bool
    ordered: bool = False
    logged: bool = False
    rewound: bool = False
    window: Window | None = None
    anew: bool = False
    others: tuple[StateKey, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether all of the stream is read."""
        return self.since is None and self.window is None

    @property
    def fresh(self) -> bool:
        """Whether the table is built anew, not added to."""
        kept = self.mode != "replace" and not (self.incremental and self.sole_writer)
        return self.whole and (self.anew or not kept)

    @property
    def boundary(self) -> bool:
        """Whether rows at or after `since` are replaced by those read: incremental without a key."""
        return (
            self.incremental
            and self.mode != "upsert"
            and self.cursor_field is not None
            and not self.own_cursor
            and self.window is None
        )

    @property
    def reset(self) -> bool:
        """Whether this whole read was asked for, and so the types that it brings."""
        return self.whole and (self.anew or (self.started_from is not None and self.started_from.seq == 0))

    @property
    def in_parts(self) -> bool:
        """Whether the read may be committed in parts.

        Not where it takes the place of rows: they stay until all of the new ones are there.
        """
        if not self.ordered or not self.incremental or self.window or self.rewound:
            return False
        if self.logged:
            return self.since is not None
        return self.since is not None or (self.started_from is None and not self.others)

    @property
    def bounds(self) -> tuple[str | None, str | None]:
        """Where the cursor column of what is taken begins, and before what it ends."""
        return (self.window.start, self.window.end) if self.window else (self.shape.start, self.shape.end)

    @property
    def wanted(self) -> Wanted:
        """What is to be taken of each batch."""
        start, end = self.bounds
        shape = replace(self.shape, start=start, end=end)
        return Wanted(
            label=f"{self.key.source}.{self.key.stream}",
            shape=shape,
            since=None if self.window else self.since,
            cursor_field=self.cursor_field,
            keys=self.keys if self.mode == "upsert" else (),
            owner=self.key.load if self.row_provenance else None,
        )


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a load did. `columns` maps names to DuckDB types; `bytes` is None where unknown.

    `emptied` are the markers of other LOADs whose rows went with the table.
    """

    rows_read: int
    inserted: int
    updated: int
    deleted: int
    quarantined: int
    total_rows: int
    cursor: Cursor | None
    marker: Marker
    columns: Mapping[str, str]
    schema_changes: tuple[str, ...] = ()
    future_rows: int = 0
    bytes: int | None = None
    notices: tuple[str, ...] = ()
    emptied: Mapping[StateKey, Marker] = field(default_factory=dict)
