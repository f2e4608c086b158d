"""The plan: what will run, in which group, and who needs whom.

A plan holds no secret: PARAMS, OPTIONS, SQL and targets are kept as written, with `${…}` in them,
and get their values when a step runs. Only what shapes the graph has been decided.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sqlflow_dagster.sql import TableName

LoadMode = Literal["replace", "append", "upsert"]
TransformMode = Literal["replace", "append", "upsert", "incremental"]
Template = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Location:
    """A place in a file; `line` and `column` count from 1."""

    path: Path
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Source:
    """A declared source: its connector type and its parameters as written, profile merged in."""

    pipeline: str
    name: str
    type: str
    # A password may be written out in it.
    params: Mapping[str, Any] = field(repr=False)
    location: Location
    # Changes with type and parameters as written, values of `${…}` aside.
    code_version: str = ""
    # SET values that this statement sees, unexpanded, in the order they were set.
    scope: Mapping[str, Template] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Load:
    """One stream into one table.

    `incremental` says that it reads on from its cursor. `sole_writer` says that no other statement
    of the project writes the table, so that a full load may swap it.
    """

    pipeline: str
    source: Source
    stream: str
    table: TableName
    mode: LoadMode
    incremental: bool
    keys: tuple[str, ...]
    cursor_field: str | None
    sole_writer: bool
    location: Location
    why: str  # one line for `sqlflow plan`: why it is full or incremental
    loss_audit: bool = False
    quarantines: bool = False  # whether rows that do not fit are set aside


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where one output column comes from; `None` where that is not certain."""

    column: str
    inputs: tuple[tuple[TableName, str], ...] | None


@dataclass(frozen=True, slots=True)
class Transform:
    """One CREATE TABLE/VIEW: `sql` is the body as written."""

    pipeline: str
    table: TableName
    view: bool
    mode: TransformMode
    keys: tuple[str, ...]
    by: str | None
    lookback: str | None
    sql: str
    reads: tuple[TableName, ...]
    scope: Mapping[str, Template]
    location: Location
    code_version: str


@dataclass(frozen=True, slots=True)
class Export:
    """One EXPORT: `sql` is a query (a table's name became `FROM "schema"."table"`)."""

    pipeline: str
    name: str  # slug of the unexpanded target, unique in the pipeline
    sql: str
    target: str
    type: str
    options: Mapping[str, Any] = field(repr=False)
    # Parameters of the profile's connector where TO names one, else empty.
    params: Mapping[str, Any] = field(repr=False)
    reads: tuple[TableName, ...]
    scope: Mapping[str, Template]
    location: Location
    code_version: str


Step = Load | Transform | Export


@dataclass(frozen=True, slots=True)
class Group:
    """Steps that become one op, in the order they take effect.

    A `source` group may run a subset of its steps; a `merged` one runs all, in order. The asset of
    a table that several steps write is done when the last of them is.
    """

    pipeline: str
    name: str
    kind: Literal["source", "table", "export", "merged"]
    steps: tuple[Step, ...]

    @property
    def can_subset(self) -> bool:
        """Whether Dagster may ask for some of the group's assets only."""
        return self.kind == "source"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One `.sf` file, planned."""

    name: str
    path: Path
    groups: tuple[Group, ...]
    sources: tuple[Source, ...]
    description: str = ""  # the comment at the top of the file


@dataclass(frozen=True, slots=True)
class Plan:
    """All pipelines of a project, by name in file-name order.

    `undiscovered` are sources whose loads are left out, as their streams are not known yet;
    `left_out` names the pipelines that nobody asked for and that have problems.
    """

    pipelines: tuple[Pipeline, ...]
    notices: tuple[str, ...] = ()
    undiscovered: tuple[Source, ...] = ()
    left_out: tuple[str, ...] = ()

    def pipeline(self, name: str) -> Pipeline | None:
        """Return the pipeline of that name, None where there is none."""
        return next((p for p in self.pipelines if p.name == name), None)
