"""What a LOAD wants of its stream → the SELECT around each batch.

This is the one place where columns are chosen, values masked and rows filtered, before anything is
stored. What a connector pushes down to its source is only ever a matter of speed.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import LoadRefused
from sqlflow_dagster.sql import Sql, Value, fold, is_name, join, literal, quote, sql
from sqlflow_dagster.warehouse import comparison, types
from sqlflow_dagster.warehouse.shape import Shape

PROVENANCE = "_sqlflow_file"
OWNER = "_sqlflow_load"
_BATCH = "batch"


class Query(NamedTuple):
    """A SELECT, the values bound to its `$1`, `$2` …, and the columns that its relation has."""

    text: Sql
    values: list[Value]
    columns: tuple[str, ...]


class Field(NamedTuple):
    """A value inside a column, and its DuckDB type."""

    value: Sql
    kind: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of each batch is stored, and what it must have; `label` names the stream in messages.

    `owner` is what rows are marked with where they have to be told from those of other LOADs; then
    the file that each came from is kept too.
    """

    label: str
    shape: Shape
    since: Cursor | None
    cursor_field: str | None
    keys: tuple[str, ...]
    owner: str | None

    def select(
        self,
        connection: DuckDBPyConnection,
        relation: Sql,
        parameters: Sequence[Value],
        *,
        provenance: bool = False,
        untyped: Sequence[str] = (),
        bad: str | None = None,
        own: Sequence[str] = (),
    ) -> Query:
        """Return the SELECT that shapes a relation. `untyped` columns hold nothing but NULL.

        The columns `own` are the connector's, and kept as they are. Rows in which the column `bad`
        is not NULL are kept, whatever else is wanted, and so is that column.

        Raises LoadRefused where the relation lacks a column that is asked for.
        """
        # Without FROM: a subquery would rename a column that differs from another only in case.
        template = "DESCRIBE {relation}" if relation.startswith("(") else "DESCRIBE FROM {relation}"
        described = connection.execute(sql(template, relation=relation), list(parameters)).fetchall()
        self.check_names([row[0] for row in described])
        columns = {row[0]: row[1] for row in described}
        fields = self._fields(connection, relation, parameters, columns)
        self._refuse_missing(self._needed, [*columns, *fields])
        kept = {**self._kept(columns, provenance=provenance, untyped=untyped), **_aliased(fields)}
        columns |= {name: kind for name, (_value, kind) in fields.items()}
        kept |= {name: quote(_BATCH, name) for name in own}
        self._check_kept(kept, columns)
        values = list(parameters)
        conditions = [
            *self._conditions(connection, columns, fields, values),
            *self._bounds(connection, columns, fields),
        ]
        if bad:
            kept[bad] = quote(_BATCH, bad)
        if bad and conditions:
            # The value that a filter asks for may be the one that is bad.
            all_ = sql("({all} OR {bad} IS NOT NULL)", all=join(" AND ", conditions), bad=quote(_BATCH, bad))
            conditions = [all_]
        return Query(
            sql(
                "SELECT {columns} FROM {relation} AS {batch} WHERE {where}",
                columns=join(", ", kept.values()),
                relation=relation,
                batch=quote(_BATCH),
                where=join(" AND ", conditions) if conditions else Sql("TRUE"),
            ),
            values,
            tuple(columns),
        )

    def check_names(self, columns: Sequence[str]) -> None:
        """Raise LoadRefused for no columns, and for names that DuckDB cannot hold or tell apart."""
        if not columns:
            raise LoadRefused(f"{self.label}: the source gave no columns; a table needs one")
        for number, name in enumerate(columns, 1):
            if not is_name(name):
                raise LoadRefused(
                    f"{self.label}: column {number} is called {name!r}, which is empty or has a control character; "
                    "rename it at the source"
                )
        folded = Counter(fold(name) for name in columns)
        twice = sorted(name for name in columns if folded[fold(name)] > 1)
        if twice:
            raise LoadRefused(
                f"{self.label}: the columns {', '.join(twice)} are the same or differ only in case, which DuckDB "
                "does not tell apart; rename one at the source"
            )

    def check_named(self, seen: Collection[str]) -> tuple[str, ...]:
        """Return the columns that the parameters name and that are NULL now, or not there to be left out.

        A page may lack a column; raises LoadRefused for one that is never there: it is misspelt, or has another name
        now, and would be stored as it is.
        """
        shape, gone = self.shape, self._gone(seen)
        named = [*shape.columns, *(condition.column for condition in shape.conditions)]
        named += [] if shape.several else [*shape.exclude, *shape.mask]
        self._refuse_missing(named, [*seen, *gone])
        return gone

    def _gone(self, seen: Collection[str]) -> tuple[str, ...]:
        """The named columns that the source once had and has no more, where none that is there may be one of them."""
        shape, folded = self.shape, [fold(name) for name in seen]
        stored = {fold(name) for name in shape.stored}
        known = {*stored, *map(fold, shape.exclude)}
        gone = [name for name in shape.columns if fold(name) in stored]
        if stored and all(name in known or name.startswith("_sqlflow") for name in folded):
            gone += [name for name in shape.mask if fold(name) in stored]
            gone += [name for name in shape.exclude if not difflib.get_close_matches(fold(name), folded)]
        return tuple(name for name in dict.fromkeys(gone) if fold(name) not in folded)

    def _refuse_missing(self, named: Sequence[str], columns: Collection[str]) -> None:
        folded = {fold(name): name for name in columns}
        missing = [name for name in dict.fromkeys(named) if fold(name) not in folded]
        if missing:
            near = difflib.get_close_matches(fold(missing[0]), folded, n=1)
            hint = f"did you mean {folded[near[0]]!r}? " if near else ""
            raise LoadRefused(
                f"{self.label}: the source has no column {', '.join(map(repr, missing))}; {hint}"
                f"It has {', '.join(columns)}"
            )

    def _kept(
        self, columns: Mapping[str, str], *, provenance: bool, untyped: Sequence[str]
    ) -> dict[str, Sql]:
        chosen = {fold(name) for name in self.shape.columns} or {fold(name) for name in columns}
        chosen -= {fold(name) for name in self.shape.exclude}
        if provenance:
            chosen = chosen | {PROVENANCE} if self.owner else chosen - {PROVENANCE}
        mask = {fold(name): how for name, how in self.shape.mask.items()}
        kept = {
            name: _value(name, kind, mask.get(fold(name)), untyped=name in untyped)
            for name, kind in columns.items()
            if fold(name) in chosen
        }
        if self.owner:
            kept = {name: value for name, value in kept.items() if fold(name) != OWNER}
            kept[OWNER] = sql("{owner} AS {name}", owner=literal(self.owner), name=quote(OWNER))
        return kept

    def _check_kept(self, kept: Mapping[str, Sql], columns: Mapping[str, str]) -> None:
        if not kept:
            self._refuse_missing(self.shape.columns, columns)
            raise LoadRefused(f"{self.label}: `exclude_columns` leaves no column of {', '.join(columns)}")
        folded = {fold(name) for name in kept}
        lost = [name for name in self._needed if fold(name) not in folded]
        mask = {fold(name): how for name, how in self.shape.mask.items()}
        lost += [key for key in self.keys if mask.get(fold(key)) in ("redact", "null")]
        if self.cursor_field and fold(self.cursor_field) in mask:
            lost.append(self.cursor_field)
        if lost:
            raise LoadRefused(
                f"{self.label}: {', '.join(map(repr, lost))} is the key or the cursor, which must be stored to "
                "merge by; take it out of exclude_columns and mask, or into columns (a key may be hashed)"
            )

    def _conditions(
        self,
        connection: DuckDBPyConnection,
        columns: Mapping[str, str],
        fields: Mapping[str, Field],
        values: list[Value],
    ) -> Iterator[Sql]:
        """The filters; their values are added to `values` and bound. A column that is not there is NULL."""
        known = {fold(name): (quote(_BATCH, name), kind) for name, kind in columns.items()}
        known |= {fold(name): field for name, field in fields.items()}
        for condition in self.shape.conditions:
            column, kind = known.get(fold(condition.column), (Sql("NULL"), "VARCHAR"))
            try:
                compared, bound = comparison.condition(connection, column, kind, condition, len(values) + 1)
            except ValueError as error:
                raise LoadRefused(
                    f"{self.label}: {error}, which the column {condition.column!r} is; mend `filters`"
                ) from error
            values += bound
            yield compared

    def _bounds(
        self, connection: DuckDBPyConnection, columns: Mapping[str, str], fields: Mapping[str, Field]
    ) -> Iterator[Sql]:
        """From `since` and the start on, before the end; a NULL cursor is in no order and always read."""
        if self.cursor_field is None:
            return
        wanted = fold(self.cursor_field)
        column, kind = next((n, k) for n, k in columns.items() if fold(n) == wanted)
        value = fields[column].value if column in fields else quote(_BATCH, column)
        if self.since and self.since.type != "JSON":
            if not types.comparable(self.since.type, kind):
                raise LoadRefused(
                    f"{self.label}: the cursor column {column!r} was {self.since.type} and is {kind} now; "
                    "declare its type, or reset the cursor (`sqlflow cursors reset`)"
                )
            yield self._bound(connection, value, kind, ">=", self.since.value)
        if self.shape.start:
            yield self._bound(connection, value, kind, ">=", self.shape.start)
        if self.shape.end:
            yield self._bound(connection, value, kind, "<", self.shape.end)

    def _bound(
        self, connection: DuckDBPyConnection, column: Sql, kind: str, operator: str, value: str
    ) -> Sql:
        try:
            compared = comparison.bound(connection, column, kind, operator, value)
        except ValueError as error:
            raise LoadRefused(
                f"{self.label}: {error}, which the cursor column {self.cursor_field!r} is"
            ) from error
        return sql("({compared} OR {column} IS NULL)", compared=compared, column=column)

    @property
    def _needed(self) -> list[str]:
        """The columns without which rows cannot be merged."""
        return [*self.keys, *([self.cursor_field] if self.cursor_field else [])]

    def _fields(
        self,
        connection: DuckDBPyConnection,
        relation: Sql,
        parameters: Sequence[Value],
        columns: Mapping[str, str],
    ) -> dict[str, Field]:
        """Fields inside structs that are the key or the cursor, by their dotted names.

        Each is kept as a column of that name too, so that rows are merged by columns alone.
        """
        folded = {fold(name): name for name in columns}
        found: dict[str, Field] = {}
        for name in dict.fromkeys(self._needed):
            first, _dot, rest = name.partition(".")
            if (
                fold(name) in folded
                or not rest
                or not columns.get(folded.get(fold(first), ""), "").startswith("STRUCT")
            ):
                continue
            value = quote(_BATCH, folded[fold(first)], *rest.split("."))
            query = sql(
                "DESCRIBE SELECT {value} FROM {relation} AS {batch}",
                value=value,
                relation=relation,
                batch=quote(_BATCH),
            )
            try:
                row = connection.execute(query, list(parameters)).fetchone()
            except duckdb.BinderException:
                # There is no such field; what is missing is said of all names at once.
                continue
            if row:
                found[name] = Field(value, row[1])
        return found


def _aliased(fields: Mapping[str, Field]) -> dict[str, Sql]:
    return {
        name: sql("{value} AS {name}", value=field.value, name=quote(name)) for name, field in fields.items()
    }


def _value(name: str, kind: str, mask: str | None, *, untyped: bool) -> Sql:
    column, alias = quote(_BATCH, name), quote(name)
    match mask:
        case "hash":
            value = sql("sha256({text})", text=_told_alike(column, kind))
        case "redact":
            value = sql("CASE WHEN {column} IS NOT NULL THEN '***' END", column=column)
        case "null":
            value = sql("CAST(NULL AS {kind})", kind=Sql(kind))
        case _ if untyped:
            # DuckDB would call it INTEGER, and refuse the text that comes later.
            value = sql("CAST({column} AS VARCHAR)", column=column)
        case _:
            return column
    return sql("{value} AS {alias}", value=value, alias=alias)


def _told_alike(column: Sql, kind: str) -> Sql:
    """The text of a value without what its type adds: 1, 1.0 and 1.00 are one key, as are a day and its midnight."""
    text = sql("CAST({column} AS VARCHAR)", column=column)
    if kind in ("FLOAT", "DOUBLE") or (kind.startswith("DECIMAL") and not kind.endswith("]")):
        text = sql(r"regexp_replace(regexp_replace({text}, '(\.[0-9]*?)0+$', '\1'), '\.$', '')", text=text)
    if kind in ("TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"):
        text = sql("regexp_replace({text}, ' 00:00:00$', '')", text=text)
    return text
