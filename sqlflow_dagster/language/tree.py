"""The syntax tree of a `.sf` file: what was written, before any variable has a value.

Offsets are code points into `Script.text`; lines and columns count from 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from sqlflow_dagster.errors import Problem

ModeKind = Literal["REPLACE", "APPEND", "UPSERT", "INCREMENTAL"]


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a file: `text[start:end]`, beginning at `line`:`column`."""

    start: int
    end: int
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Name:
    """An identifier, unquoted; dotted table names are several. It may hold `${…}`."""

    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class Text:
    """A string of our own clauses, quotes and escapes undone; `${…}` still in it."""

    value: str
    span: Span


@dataclass(frozen=True, slots=True)
class Query:
    """A SQL body, byte for byte as written."""

    sql: str
    span: Span


class Bare(str):
    """One `${…}` written without quotes: text that reads as a number or boolean becomes one."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Object:
    """A PARAMS or OPTIONS object: parsed JSON whose strings still hold `${…}`.

    `spans` maps a top-level key to the place of its value, for error messages.
    """

    value: dict[str, Any]
    spans: dict[str, Span]
    span: Span


@dataclass(frozen=True, slots=True)
class Table:
    """A table as written: one name, or schema and name."""

    parts: tuple[Name, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Mode:
    """MODE of a LOAD or CREATE: keys with UPSERT, `by` and `lookback` with INCREMENTAL.

    `lookback` is a DuckDB interval text such as `7 DAYS`.
    """

    kind: ModeKind
    span: Span
    keys: tuple[Name, ...] = ()
    by: Name | None = None
    lookback: str | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """`SOURCE name TYPE type PARAMS {…}` or `SOURCE name FROM "profile name" OPTIONS {…}`."""

    name: Name
    span: Span
    type: Name | None = None
    profile: Text | None = None
    params: Object | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """`LOAD table FROM source[.stream] [MODE …]`; `table` is None for `LOAD *`."""

    table: Table | None
    source: Name
    stream: Name | None
    mode: Mode | None
    span: Span


@dataclass(frozen=True, slots=True)
class Create:
    """`CREATE [OR REPLACE] TABLE|VIEW table [MODE …] AS query`."""

    table: Table
    view: bool
    or_replace: bool
    mode: Mode | None
    query: Query
    span: Span


@dataclass(frozen=True, slots=True)
class Export:
    """`EXPORT query|table TO target [TYPE type] [OPTIONS {…}]`."""

    what: Query | Table
    target: Text | Name
    type: Name | None
    options: Object | None
    span: Span


@dataclass(frozen=True, slots=True)
class Set:
    """`SET name = value`: the value is a string template, number, boolean or None."""

    name: Name
    value: str | int | float | bool | None
    span: Span


@dataclass(frozen=True, slots=True)
class Include:
    """`INCLUDE "file" [AS alias]`."""

    path: Text
    alias: Name | None
    span: Span


@dataclass(frozen=True, slots=True)
class Branch:
    """One `IF`/`ELSEIF` arm: the condition's text as written and what follows THEN."""

    condition: Query
    body: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class If:
    """`IF … THEN … [ELSEIF … THEN …] [ELSE …] END IF`."""

    branches: tuple[Branch, ...]
    otherwise: tuple[Statement, ...]
    span: Span


Statement = Source | Load | Create | Export | Set | Include | If


@dataclass(frozen=True, slots=True)
class Script:
    """One parsed file. `path` is shown in messages; `text` is the whole file without a BOM.

    `problems` are the errors of its grammar in file order, `unread` the places of the statements
    that they kept from being read.
    """

    path: str
    text: str
    statements: tuple[Statement, ...]
    problems: tuple[Problem, ...] = ()
    unread: tuple[Span, ...] = ()
