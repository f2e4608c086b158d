"""A user's query → known to be one that only reads; DuckDB's errors → a line of it and a next step."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import duckdb
from duckdb import DuckDBPyConnection, StatementType

from sqlflow_dagster.errors import ProjectError, QueryFailed, WarehouseError
from sqlflow_dagster.language.tokens import SqlToken, Unclosed, scan
from sqlflow_dagster.sql import Sql, bound, quote, sql
from sqlflow_dagster.warehouse import tables
from sqlflow_dagster.warehouse.udf import BoundQuery, without_names

OURS = "_sqlflow"
# What DuckDB raises for a user's query. The second where a message quotes bytes that are no text.
Failure = (duckdb.Error, UnicodeDecodeError)

_HIDDEN = frozenset({"query", "query_table"})
_LINE = re.compile(r"^LINE (\d+):", re.MULTILINE)
_PARSE = "SELECT json_serialize_sql($1, skip_null := true, skip_empty := true, skip_default := true)"
_NEXT_STEPS: tuple[tuple[type[duckdb.Error], str], ...] = (
    (duckdb.ConversionException, "TRY_CAST gives NULL for what cannot be converted"),
    (
        duckdb.PermissionException,
        "queries read files only in data/ and the profile's allowed_directories; a SOURCE reads any other",
    ),
    (duckdb.OutOfMemoryException, "raise engines.duckdb.memory_limit in the profile, or free disk space"),
)


class Reference(NamedTuple):
    """A table that a query names without a schema, at `query[start]`."""

    name: str
    start: int


def check(connection: DuckDBPyConnection, query: str) -> None:
    """Raise ProjectError where the text is not one query, or reads what is not the user's to read.

    Raises QueryFailed where it does not parse.
    """
    try:
        tables.check_single(query)
        query = without_names(query)
    except Unclosed as error:
        raise ProjectError(f"the query has a {error.what} that is never closed") from error
    try:
        statements = connection.extract_statements(query)
    except Failure as error:
        raise failed("the query does not parse", BoundQuery(Sql(query)), error) from error
    # DuckDB unfolds a PIVOT without IN: a type is created, then there is the SELECT.
    unfolded = [s for s in statements if s.query == "" and s.type == StatementType.CREATE]
    queries = [s for s in statements if s.type == StatementType.SELECT]
    if len(queries) != 1 or len(statements) - len(_settings(statements)) != 1 + len(unfolded):
        raise ProjectError("only one query may stand here: SELECT, FROM, WITH, VALUES, PIVOT or TABLE")
    tree = _tree(connection, query)
    if tree is None:
        _check_words(list(scan(query)))
    else:
        _check_tree(tree)


def columns(connection: DuckDBPyConnection, query: Sql) -> dict[str, str] | None:
    """Return names and types of a query's result, None for a PIVOT whose columns only running it tells."""
    if len(connection.extract_statements(query)) != 1:
        return None
    return tables.columns(connection, sql("(\n{query}\n)", query=query))


def qualified(connection: DuckDBPyConnection, query: Sql, schemas: Sequence[str]) -> Sql:
    """Return the query with the schema before each bare table name, for a VIEW that all may read.

    DuckDB keeps a view's text and looks bare names up for each reader anew.
    """
    rows = connection.execute(
        "SELECT lower(table_schema), lower(table_name) FROM information_schema.tables"
        " WHERE table_catalog = current_catalog()"
    ).fetchall()
    text = str(query)
    for reference in sorted(references(connection, query), key=lambda found: found.start, reverse=True):
        homes = [s for s in schemas if (s.lower(), reference.name.lower()) in rows]
        if homes:
            text = f"{text[: reference.start]}{quote(homes[0])}.{text[reference.start :]}"
    return Sql(text)


def references(connection: DuckDBPyConnection, query: str) -> tuple[Reference, ...]:
    """Return the bare table names that a query reads, names of WITH left out."""
    tree = _tree(connection, query)
    found: dict[int, Reference] = {}
    for name, position in _bare_tables(tree, frozenset()):
        # DuckDB counts bytes.
        start = len(query.encode()[:position].decode(errors="ignore"))
        if query[start:].lstrip('"').casefold().startswith(name.casefold()):
            found[start] = Reference(name, start)
    return tuple(found.values())


def failed(where: str, bound: BoundQuery, error: Exception, lines_before: int = 0) -> WarehouseError:
    """Return the error for people: what failed, at which line of the query, and what may help.

    `lines_before` are those that stood before the user's text. Where a Python function raised,
    its own traceback is told.
    """
    if bound.tracebacks:
        return QueryFailed(f"{where}: a Python function failed:\n{bound.tracebacks[0]}")
    if isinstance(error, UnicodeDecodeError):
        return QueryFailed(
            f"{where}: the query failed at bytes that are no UTF-8 text; decode() them or use hex()"
        )
    if tables.is_disk_full(error):
        # Not the query's doing, so that trying again may help.
        return WarehouseError(f"{where}: {tables.DISK_FULL} ({error})")
    text = _LINE.sub(lambda match: _own_line(match, lines_before), str(error)).strip()
    steps = [step for kind, step in _NEXT_STEPS if isinstance(error, kind)]
    return QueryFailed("\n".join((f"{where}: {text}", *steps)))


def _own_line(match: re.Match[str], lines_before: int) -> str:
    line = int(match.group(1)) - lines_before
    # As wide as it was, for the caret below it.
    return f"LINE {line}:".ljust(len(match.group())) if line > 0 else match.group()


def _settings(statements: Sequence[Any]) -> list[Any]:
    """What DuckDB puts around an unfolded PIVOT; `tables.run` leaves it out."""
    around = (StatementType.TRANSACTION, StatementType.SET)
    return [s for s in statements if s.query == "" and s.type in around]


def _tree(connection: DuckDBPyConnection, query: str) -> Any:
    row = connection.execute(bound(_PARSE, [query])).fetchone()
    document = json.loads(row[0]) if row else {"error": True}
    return None if document["error"] else document["statements"]


def _check_tree(tree: Any) -> None:
    for node in _nodes(tree):
        if OURS in (str(node.get(key, "")).casefold() for key in ("schema_name", "catalog_name")):
            raise _refused()
        name = str(node.get("function", {}).get("function_name", "")).casefold()
        if node.get("type") == "TABLE_FUNCTION" and name in _HIDDEN:
            raise ProjectError(f"{name}() hides the tables it reads; name them in the query")


def _check_words(tokens: Sequence[SqlToken]) -> None:
    for token, after in pairwise(tokens):
        name = token.text.strip('"').casefold() if token.kind in ("word", "quoted") else ""
        if name == OURS and after.text == ".":
            raise _refused()
        if name in _HIDDEN and after.text == "(":
            raise ProjectError(f"{name}() hides the tables it reads; name them in the query")


def _refused() -> ProjectError:
    return ProjectError(f"the schema {OURS} is the product's own memory; queries cannot read it")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _bare_tables(node: Any, named: frozenset[str]) -> Iterator[tuple[str, int]]:
    """Name and position of each table; `named` are what WITH calls something else in this scope."""
    if isinstance(node, list):
        for item in node:
            yield from _bare_tables(item, named)
    if not isinstance(node, dict):
        return
    if "cte_name" in node:
        named |= {str(node["cte_name"]).casefold()}
    for entry in node.get("cte_map", {}).get("map", []):
        # A name is visible in the bodies after it; recursive ones name themselves.
        yield from _bare_tables(entry["value"].get("query"), named)
        named |= {entry["key"].casefold()}
    if node.get("type") == "BASE_TABLE" and not node.get("schema_name"):
        name = str(node.get("table_name", ""))
        if name.casefold() not in named and "query_location" in node:
            yield name, int(node["query_location"])
    for key, value in node.items():
        if key != "cte_map":
            yield from _bare_tables(value, named)
