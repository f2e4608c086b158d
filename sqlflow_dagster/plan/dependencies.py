"""A query's syntax tree → the tables it reads, as DuckDB's binder would look them up."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlflow_dagster.plan.deep import deeply
from sqlflow_dagster.sql import fold

# Functions whose tables stand in a value, where no parser sees them.
_HIDING = frozenset({"query", "query_table", "json_execute_serialized_sql"})
_FILE = re.compile(r"[/*]|://|\.(csv|tsv|jsonl?|ndjson|parquet|xlsx)(\.\w+)?$", re.IGNORECASE)

Node = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TableRef:
    """A table as a query names it. `position` is DuckDB's; `bare` says that it has no alias."""

    name: str
    schema: str = ""
    catalog: str = ""
    position: int | None = None
    bare: bool = True


@dataclass(frozen=True, slots=True)
class Hidden:
    """A function that hides what it reads."""

    function: str
    position: int | None


@dataclass(frozen=True, slots=True)
class Reads:
    """What a query reads: stored tables, in order, and functions that hide others.

    `files` are names that mean files where no table has them.
    """

    tables: tuple[TableRef, ...] = ()
    hidden: tuple[Hidden, ...] = ()
    files: tuple[TableRef, ...] = ()


def reads(node: Node) -> Reads:
    """Return what a parsed query reads. Names of WITH, files and table functions are no tables."""
    return deeply(_reads, node)


def _reads(node: Node) -> Reads:
    walk = _Walk()
    walk.visit(node, frozenset())
    return Reads(tuple(walk.tables), tuple(walk.hidden), tuple(walk.files))


@dataclass
class _Walk:
    tables: list[TableRef] = field(default_factory=list)
    hidden: list[Hidden] = field(default_factory=list)
    files: list[TableRef] = field(default_factory=list)

    def visit(self, node: Any, ctes: frozenset[str]) -> None:
        """Collect below `node`; `ctes` are the names that WITH gives in this scope."""
        if isinstance(node, list):
            for item in node:
                if isinstance(item, (dict, list)):
                    self.visit(item, ctes)
            return
        if "cte_map" in node:
            ctes = self.with_(node["cte_map"].get("map", []), ctes)
        kind = node.get("type")
        if kind == "BASE_TABLE":
            self.table(node, ctes)
        elif kind == "TABLE_FUNCTION":
            self.function(node["function"], ctes)
        elif kind == "RECURSIVE_CTE_NODE":
            # Only the right side sees the name: the left one reads a stored table of that name.
            self.visit(node["left"], ctes)
            self.visit(node["right"], ctes | {fold(str(node.get("cte_name", "")))})
            return
        for key, value in node.items():
            if key != "cte_map" and isinstance(value, (dict, list)):
                self.visit(value, ctes)

    def with_(self, entries: list[Node], ctes: frozenset[str]) -> frozenset[str]:
        for entry in entries:
            # A body sees the names before it, and not its own.
            self.visit(entry["value"]["query"], ctes)
            ctes |= {fold(entry["key"])}
        return ctes

    def table(self, node: Node, ctes: frozenset[str]) -> None:
        ref = TableRef(
            name=str(node["table_name"]),
            schema=str(node.get("schema_name", "")),
            catalog=str(node.get("catalog_name", "")),
            position=node.get("query_location"),
            bare=not node.get("alias"),
        )
        recurring = ref.schema.casefold() == "recurring" and fold(ref.name) in ctes
        named_by_with = not ref.schema and fold(ref.name) in ctes
        if recurring or named_by_with:
            return
        is_file = not ref.schema and _FILE.search(ref.name)
        (self.files if is_file else self.tables).append(ref)

    def function(self, function: Node, ctes: frozenset[str]) -> None:
        name = str(function.get("function_name", "")).casefold()
        if name in _HIDING:
            self.hidden.append(Hidden(name, function.get("query_location")))
        if name == "python_func":
            # PYTHON_FUNC("module.function", table, name = value): a name by itself is a table.
            for argument in function.get("children", [])[1:]:
                self.argument(argument, ctes)

    def argument(self, node: Node, ctes: frozenset[str]) -> None:
        names = [str(name) for name in node.get("column_names", [])]
        if node.get("class") == "COLUMN_REF" and 1 <= len(names) <= 2:
            schema = names[0] if len(names) == 2 else ""
            if schema or fold(names[-1]) not in ctes:
                self.tables.append(TableRef(names[-1], schema, "", node.get("query_location"), bare=False))
