"""Which tables a project has, who writes them, and what a name in a query means."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sqlflow_dagster.language.tree import Source
from sqlflow_dagster.plan.dependencies import TableRef
from sqlflow_dagster.plan.placed import File, Placed
from sqlflow_dagster.sql import OWN_SCHEMA, TableName, fold

# Schemas and names of DuckDB itself: readable, made by nobody.
_SYSTEM_SCHEMAS = frozenset({"information_schema", "pg_catalog"})
_SYSTEM_NAMES = ("duckdb_", "pg_", "sqlite_", "pragma_")
_MOST_LOOKS = 100


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why a name means no table; `message` is empty where an earlier error is the reason."""

    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Write:
    """One statement that writes a table; `order` counts the statements of its file."""

    pipeline: str
    table: TableName
    placed: Placed
    order: int


@dataclass
class Tables:
    """The tables that a project's files write."""

    files: Sequence[File]
    one_schema: str | None
    # Pipelines with a LOAD * whose streams are not known, or a name whose variable has no value: any
    # name may be a table of theirs.
    open_ended: set[str] = field(default_factory=set)
    _writes: dict[TableName, list[Write]] = field(default_factory=dict)
    _by_pipeline: dict[str, list[Write]] = field(default_factory=dict)
    _looks: int = 0
    _by_name: dict[str, dict[TableName, TableName]] = field(default_factory=dict)

    def add(self, write: Write) -> None:
        """Note that a statement writes a table."""
        folded = write.table.folded
        self._writes.setdefault(folded, []).append(write)
        self._by_pipeline.setdefault(write.pipeline, []).append(write)
        self._by_name.setdefault(folded.name, {}).setdefault(folded, write.table)

    def writes(self, table: TableName) -> Sequence[Write]:
        """Return the statements that write a table, in the order of files and lines."""
        return self._writes.get(table.folded, ())

    def of(self, pipeline: str) -> Sequence[Write]:
        """Return the statements of a pipeline that write tables, in order."""
        return self._by_pipeline.get(pipeline, ())

    def all(self) -> Iterable[Sequence[Write]]:
        """Return the statements that write each table."""
        return self._writes.values()

    def find(self, file: File, placed: Placed, ref: TableRef) -> TableName | Unknown | None:
        """Return the table that a name means, None for one of DuckDB's own.

        An unqualified name is the own pipeline's table, else the one other table of that name.
        Inside INCLUDE … AS alias it is first the table of the included file.
        """
        if ref.catalog:
            if ref.catalog.casefold() == "system":
                return None
            return Unknown("a table has at most two parts here", "write schema.table")
        if ref.schema:
            return self._qualified(file, ref)
        for name in dict.fromkeys((placed.prefix + ref.name, ref.name)):
            found = self._unqualified(file, name)
            if found:
                return found
        if fold(ref.name).startswith(_SYSTEM_NAMES):
            return None
        return self._unknown(file, placed, ref)

    def _unqualified(self, file: File, name: str) -> TableName | Unknown | None:
        candidates = self._by_name.get(fold(name), {})
        own = candidates.get(TableName(file.schema, name).folded)
        if own or not candidates:
            return own
        if self._may_make(file, name):
            # What could not be read may make the own table, which comes first.
            return Unknown("")
        if len(candidates) == 1:
            return next(iter(candidates.values()))
        listed = ", ".join(sorted(map(str, candidates.values())))
        return Unknown(f"the table {name!r} is ambiguous: there are {listed}", "write the schema before it")

    def _qualified(self, file: File, ref: TableRef) -> TableName | Unknown | None:
        schema = fold(ref.schema)
        if schema in _SYSTEM_SCHEMAS:
            return None
        if schema == OWN_SCHEMA:
            return Unknown(f"the schema {OWN_SCHEMA} is the product's own", "read the tables themselves")
        found = self._by_name.get(fold(ref.name), {}).get(TableName(schema, fold(ref.name)))
        if found:
            return found
        pipelines = {fold(other.name) for other in self.files}
        if self.one_schema and schema in pipelines and schema != fold(self.one_schema):
            return Unknown(
                f"there is no schema {ref.schema!r}: the profile puts all tables into {self.one_schema!r}",
                f"write {ref.name}, or {self.one_schema}.{ref.name}",
            )
        return self._unknown(file, None, ref)

    def _unknown(self, file: File, placed: Placed | None, ref: TableRef) -> Unknown:
        if self._unread(ref, placed.prefix if placed else ""):
            return Unknown("")
        shown = f"{ref.schema}.{ref.name}" if ref.schema else ref.name
        if placed is not None and fold(ref.name) in _sources(file):
            return Unknown(
                f"unknown table {shown!r}",
                f"it is a SOURCE: write LOAD {ref.name} FROM {ref.name}; before it",
            )
        near = self._near(ref.name)
        if not near:
            return Unknown(f"unknown table {shown!r}", "no LOAD or CREATE of the project makes it")
        own = sorted(self._by_name[near[0]].values(), key=lambda table: table.schema != file.schema)
        return Unknown(
            f"unknown table {shown!r}",
            f"did you mean {own[0].name if own[0].schema == file.schema else own[0]!s}?",
        )

    def _near(self, name: str) -> list[str]:
        """The nearest known name; looked for a hundred times at most, as each look compares all names."""
        self._looks += 1
        return difflib.get_close_matches(fold(name), self._by_name, n=1) if self._looks <= _MOST_LOOKS else []

    def _unread(self, ref: TableRef, prefix: str) -> bool:
        """Whether a file or statement that could not be read may make the table."""
        names = dict.fromkeys((prefix + ref.name, ref.name))
        return any(
            self._may_make(other, name)
            for other in self.files
            for name in names
            if not ref.schema or fold(ref.schema) == fold(other.schema)
        )

    def _may_make(self, file: File, name: str) -> bool:
        return file.name in self.open_ended or file.unread.may_make(name)


def _sources(file: File) -> set[str]:
    statements = (placed.statement for placed in file.placed)
    return {fold(item.name.text) for item in statements if isinstance(item, Source)}
