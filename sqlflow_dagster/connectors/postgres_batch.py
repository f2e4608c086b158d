"""The last states of rows → a spooled file, and the SELECT that makes changes of its lines.

A line is a list of texts; the types come in the SELECT, and are those of a snapshot.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlflow_dagster.connectors import postgres_position
from sqlflow_dagster.connectors.base import Changes
from sqlflow_dagster.connectors.pgoutput import UNCHANGED
from sqlflow_dagster.connectors.postgres_logged import Logged
from sqlflow_dagster.connectors.postgres_position import Reached
from sqlflow_dagster.connectors.postgres_states import State, States
from sqlflow_dagster.connectors.postgres_texts import array_text, from_text, is_list
from sqlflow_dagster.connectors.postgres_types import Column, digits_of
from sqlflow_dagster.connectors.sql_select import Travel
from sqlflow_dagster.sql import Sql, fold, free_name, join, literal, quote, sql

CHANGE = "_sqlflow_change"
_TEXT = json.JSONEncoder(ensure_ascii=False, check_circular=False).encode
_SMALLEST_LINE = 16 * 2**20
# What stands before the values in each line.
_LEAD = ("gone", "id", "origin", "unchanged")


@dataclass(frozen=True, slots=True)
class Part:
    """Changes since a position, the table as it is now, and the file that they go through.

    `types` are the columns whose types the user declares; `deleted` is the column that marks rows that
    are gone, None where they are deleted; `label` is the table in messages.
    """

    before: Reached
    now: Logged
    states: States
    file: Path
    travels: Sequence[Travel[Column]]
    types: Collection[str]
    money_digits: int
    deleted: str | None
    label: str

    def spooled(self) -> tuple[Sql, Changes]:
        """Write the file, and return the SELECT over it and what its rows do.

        Raises SchemaChanged where the log does not tell what became of the columns, and SourceFailed
        for a list that its column cannot hold.
        """
        altered = postgres_position.altered(self.before, self.now, self.label)
        layouts = () if self.states.empty else self.states.layouts
        postgres_position.check_told(altered, layouts, self.label, emptied=self.states.emptied)
        texts = {t.column.name: _local(t, self) for t in self.travels if not dropped(t)}
        changes = Changes(
            column=CHANGE,
            emptied=self.states.emptied,
            deleted=self.deleted,
            renamed={new: old for new, old in altered.renamed.items() if new in texts},
            filled={
                name: _constant(self, name, value, texts)
                for name, value in altered.filled.items()
                if name in texts
            },
        )
        longest = _spool(self, altered.filled)
        return _lines(self, texts, longest), changes


def dropped(travel: Travel[Column]) -> bool:
    """Whether a column is excluded: it travels as NULL."""
    return travel.remote == "CAST(NULL AS text)"


def _local(travel: Travel[Column], part: Part) -> Sql:
    kind = travel.column.type
    declared = {fold(name) for name in part.types}
    by_default = kind.name == "numeric" and digits_of(kind.modifier) is None and travel.kind != "VARCHAR"
    chosen = fold(travel.column.name) in declared or by_default
    return from_text(travel, declared=chosen, money_digits=part.money_digits)


def _constant(part: Part, name: str, value: str | None, texts: Mapping[str, Sql]) -> Sql:
    """One value for all rows, by way of the column's own expression."""
    travel = next(travel for travel in part.travels if travel.column.name == name)
    if value is not None and is_list(travel):
        value = array_text(value, travel, part.label)
    return sql(
        "(SELECT CAST({text} AS {kind}) FROM (SELECT CAST({value} AS VARCHAR) AS {name}))",
        text=texts[name],
        kind=Sql(travel.kind),
        value=literal(value),
        name=quote(name),
    )


def _spool(part: Part, filled: Mapping[str, str | None]) -> int:
    """Write the states as lines of JSON, a list of texts each; return the bytes of the longest."""
    part.file.parent.mkdir(parents=True, exist_ok=True)
    writers = [_Writer.of(part, layout, filled) for layout in part.states.layouts]
    longest = 0
    with part.file.open("wb") as file:
        for number, state in part.states:
            line = writers[state.layout].line(number, state)
            longest = max(longest, len(line))
            file.write(line)
    return longest


@dataclass(frozen=True, slots=True)
class _Writer:
    """States of one layout of the table → lines: for each column its place, or what it is filled with."""

    columns: tuple[tuple[str, int | None, str | None, Callable[[str], str] | None], ...]

    @classmethod
    def of(cls, part: Part, layout: tuple[str, ...], filled: Mapping[str, str | None]) -> _Writer:
        now = postgres_position.names_of_now(part.before, part.now, layout, part.label)
        places = {name: place for place, name in enumerate(now) if name is not None}
        return cls(
            tuple(
                (
                    travel.column.name,
                    None if dropped(travel) else places.get(travel.column.name),
                    None if dropped(travel) else filled.get(travel.column.name),
                    _converter(travel, part.label),
                )
                for travel in part.travels
            )
        )

    def line(self, number: int | None, state: State) -> bytes:
        values: list[str | None] = []
        unchanged: list[str] = []
        for name, place, fill, convert in self.columns:
            value = fill if place is None else state.values[place]
            if value is UNCHANGED:
                unchanged.append(name)
                value = None
            elif convert and value is not None:
                value = convert(value)
            values.append(value)
        lead = (
            "1" if state.gone else "0",
            None if number is None else str(number),
            None if state.origin is None else str(state.origin),
            _TEXT(unchanged) if unchanged else None,
        )
        return _TEXT([*lead, *values]).encode() + b"\n"


def _converter(travel: Travel[Column], label: str) -> Callable[[str], str] | None:
    return (lambda text: array_text(text, travel, label)) if is_list(travel) else None


def _lines(part: Part, texts: Mapping[str, Sql], longest: int) -> Sql:
    """The SELECT over a spooled batch: each column in its type, and what became of the row."""
    taken = [travel.column.name for travel in part.travels]
    lead = {name: free_name(f"_sqlflow_{name}", taken) for name in _LEAD}
    names = [*lead.values(), *taken]
    split = join(
        ", ", (sql("line[{n}] AS {name}", n=literal(n), name=quote(name)) for n, name in enumerate(names, 1))
    )
    values = [
        sql(
            "{value} AS {name}",
            value=texts.get(travel.column.name, Sql("CAST(NULL AS VARCHAR)")),
            name=quote(travel.column.name),
        )
        for travel in part.travels
    ]
    gone = sql("({gone} = '1')", gone=quote(lead["gone"]))
    if part.deleted:
        values.append(sql("{gone} AS {deleted}", gone=gone, deleted=quote(part.deleted)))
    change = sql(
        "struct_pack(gone := {gone}, id := CAST({id} AS BIGINT), origin := CAST({origin} AS BIGINT),"
        " unchanged := CAST(CAST({unchanged} AS JSON) AS VARCHAR[])) AS {change}",
        gone=gone,
        id=quote(lead["id"]),
        origin=quote(lead["origin"]),
        unchanged=quote(lead["unchanged"]),
        change=quote(CHANGE),
    )
    return sql(
        "SELECT {values}, {change} FROM (SELECT {split} FROM read_json({file}, format = 'newline_delimited',"
        " records = false, columns = {{line: 'VARCHAR[]'}}, maximum_object_size = {longest}))",
        values=join(", ", values),
        change=change,
        split=split,
        file=literal(str(part.file)),
        longest=literal(max(_SMALLEST_LINE, longest + 2)),
    )
