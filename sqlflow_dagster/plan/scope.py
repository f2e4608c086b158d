"""Column names as a query writes them → the stored columns they mean.

Follows DuckDB's rules: a column of FROM comes before an alias of the same SELECT, an inner query
before an outer one, a table's column before a struct's field. `None` means "not certain".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlflow_dagster.sql import TableName, fold

# The stored columns that a value is made of; None where that is not certain.
Inputs = frozenset[tuple[TableName, str]] | None
NOTHING: Inputs = frozenset()

# Columns that a table has without declaring them, and functions that are called without brackets.
_ROW_IDS = frozenset({"rowid", "rowsort", "file_row_number", "filename", "snapshot_id"})
_BARE_FUNCTIONS = frozenset({
    "current_catalog", "current_database", "current_date", "current_localtime", "current_localtimestamp",
    "current_role", "current_schema", "current_time", "current_timestamp", "current_user", "localtime",
    "localtimestamp", "session_user", "user",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a relation; `name` is None where DuckDB makes it from the expression's text."""

    name: str | None
    inputs: Inputs


@dataclass(frozen=True, slots=True)
class Relation:
    """Something in FROM. `columns` is None where they are not known; `table` is set for stored ones."""

    alias: str
    columns: tuple[Column, ...] | None = None
    table: TableName | None = None
    schema: str = ""

    def named(self, alias: str, names: Sequence[str]) -> Relation:
        """Return it as `AS alias(names…)` makes it."""
        if names and self.columns is None:
            # Which columns take the new names cannot be known.
            return Relation(alias)
        columns = self.columns
        if columns is not None and names:
            renamed = [replace(column, name=name) for column, name in zip(columns, names, strict=False)]
            columns = (*renamed, *columns[len(renamed) :])
        return replace(self, alias=alias or self.alias, schema="" if alias else self.schema, columns=columns)

    def all(self) -> Inputs:
        """Return what the whole row is made of."""
        return None if self.columns is None else union(column.inputs for column in self.columns)


def union(parts: Iterable[Inputs]) -> Inputs:
    """Return all inputs together; one unknown part makes the whole unknown."""
    together: set[tuple[TableName, str]] = set()
    for part in parts:
        if part is None:
            return None
        together |= part
    return frozenset(together)


@dataclass(frozen=True, slots=True)
class Found:
    """A name that a scope has; `inputs` is None where several readings are possible."""

    inputs: Inputs


@dataclass(frozen=True, slots=True)
class Scope:
    """The names that an expression sees.

    `merged` are the columns of USING. `star` is what `*` stands for, None where that is not known.
    `murky` says that unqualified names cannot be told apart (NATURAL JOIN of unknown columns).
    """

    relations: tuple[Relation, ...] = ()
    merged: Mapping[str, Inputs] = field(default_factory=dict)
    star: tuple[Column, ...] | None = ()
    murky: bool = False
    aliases: Mapping[str, Inputs] = field(default_factory=dict)
    parent: Scope | None = None

    def resolve(self, parts: Sequence[str]) -> Inputs:
        """Return what a column reference means."""
        names = [fold(part) for part in parts]
        scope: Scope | None = self
        while scope is not None:
            found = scope.find(names)
            if found:
                return found.inputs
            scope = scope.parent
        return NOTHING if len(names) == 1 and names[0] in _BARE_FUNCTIONS else None

    def find(self, names: Sequence[str]) -> Found | None:
        """Return what this scope alone has under folded names, None where it surely has nothing."""
        if len(names) > 1:
            qualified = self._qualified(names)
            if qualified:
                return qualified
        return self._single(names[0], whole_row=len(names) == 1)

    def _qualified(self, names: Sequence[str]) -> Found | None:
        if len(names) > 2:
            full = [r for r in self.relations if r.schema == names[0] and fold(r.alias) == names[1]]
            if full:
                return _column(full, names[2]) or Found(None)
        owners = [r for r in self.relations if fold(r.alias) == names[0]]
        return _column(owners, names[1]) if owners else None

    def _single(self, name: str, *, whole_row: bool) -> Found | None:
        if self.murky:
            return Found(None)
        if name in self.merged:
            return Found(self.merged[name])
        hits = [hit for relation in self.relations if (hit := _known(relation, name))]
        if hits:
            # A second relation with that column would make the query ambiguous, hence invalid.
            return hits[0] if len(hits) == 1 else Found(None)
        vague = [relation for relation in self.relations if _may_hide(relation)]
        if vague:
            return self._vague(name, vague)
        if whole_row:
            rows = [relation for relation in self.relations if fold(relation.alias) == name]
            if rows:
                return Found(rows[0].all()) if len(rows) == 1 else Found(None)
        return self._alias(name)

    def _vague(self, name: str, vague: Sequence[Relation]) -> Found:
        only = vague[0] if len(vague) == 1 else None
        certain = (
            only is not None
            and only.table is not None
            and only.columns is None
            and self.parent is None
            and name not in self.aliases
            and name not in _BARE_FUNCTIONS | _ROW_IDS
            and all(fold(relation.alias) != name for relation in self.relations)
        )
        return Found(frozenset({(only.table, name)})) if certain and only and only.table else Found(None)

    def _alias(self, name: str) -> Found | None:
        if name not in self.aliases:
            return None
        if self.parent is not None and self.parent.resolves(name):
            return Found(None)
        return Found(self.aliases[name])

    def has_relation(self, alias: str) -> bool:
        """Whether this scope or one around it has something in FROM under that name."""
        mine = any(fold(relation.alias) == fold(alias) for relation in self.relations)
        return mine or (self.parent is not None and self.parent.has_relation(alias))

    def resolves(self, name: str) -> bool:
        """Whether this scope or one around it may have the name."""
        return self.find([name]) is not None or (self.parent is not None and self.parent.resolves(name))


def _known(relation: Relation, name: str) -> Found | None:
    hits = [c for c in relation.columns or () if c.name is not None and fold(c.name) == name]
    if not hits:
        return None
    return Found(hits[0].inputs if len(hits) == 1 else None)


def _may_hide(relation: Relation) -> bool:
    """Whether it may have columns under names that are not known."""
    return relation.columns is None or any(column.name is None for column in relation.columns)


def _column(owners: Sequence[Relation], name: str) -> Found | None:
    """The column `name` of the one relation in `owners`; None where it has none: a struct's field then."""
    if len(owners) > 1:
        return Found(None)
    owner = owners[0]
    known = _known(owner, name)
    if known:
        return known
    if owner.columns is None and owner.table is not None and name not in _ROW_IDS:
        return Found(frozenset({(owner.table, name)}))
    return Found(None) if _may_hide(owner) or name in _ROW_IDS else None
