"""SQL texts → the syntax trees of DuckDB's own parser.

All texts are parsed in one call, which is five times cheaper than one call each. A PIVOT without a
list of values is several statements to DuckDB's serialiser; it is given one, which changes no table
and no name that it reads.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlflow_dagster.language.tokens import SqlToken, Unclosed, scan
from sqlflow_dagster.plan.deep import deeply
from sqlflow_dagster.sql import literal, sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_PARSE = (
    "SELECT json_serialize_sql(q, skip_null := true, skip_empty := true, skip_default := true)"
    " FROM (SELECT unnest(json_extract_string({texts}, '$[*]')) AS q)"
)
_NOT_A_QUERY = "Only SELECT statements"
_IN = " IN (1)"


@dataclass(frozen=True, slots=True)
class SyntaxTree:
    """One parsed text. `error` is DuckDB's message, empty where it parses; `statements` are nodes.

    `parsed` is the text with what was put in at the code points `inserted`. `wrong_at` is the code
    point of `sql` where an error is, None where DuckDB does not say.
    """

    sql: str
    parsed: str
    inserted: tuple[int, ...] = ()
    statements: tuple[dict[str, Any], ...] = ()
    error: str = ""
    wrong_at: int | None = None

    @property
    def not_a_query(self) -> bool:
        """Whether the text is some other statement: INSERT, COPY, SET …."""
        return self.error.startswith(_NOT_A_QUERY)

    def offset(self, location: int | None) -> int | None:
        """Return the code point of `sql` at a node's `query_location`, None where it has none.

        Locations of nodes count bytes; those of errors count code points.
        """
        text = self.parsed.encode()
        if location is None or location > len(text):
            return None
        return _before(self.inserted, len(text[:location].decode(errors="ignore")))


def syntax_trees(queries: Sequence[str]) -> list[SyntaxTree]:
    """Return the tree of each text, in order."""
    trees = [_tree(query, query, (), text) for query, text in zip(queries, _parse(queries), strict=True)]
    pivots = [i for i, tree in enumerate(trees) if tree.not_a_query and "pivot" in tree.sql.casefold()]
    filled = [_with_values(queries[index]) for index in pivots]
    for index, (parsed, inserted), text in zip(pivots, filled, _parse([f[0] for f in filled]), strict=True):
        trees[index] = _tree(queries[index], parsed, inserted, text)
    return trees


def _before(inserted: tuple[int, ...], place: int) -> int:
    """Turn a place in the text with values put in into one of the text as written."""
    return place - bisect_left(inserted, place) * len(_IN)


@cache
def _connection(_process: int) -> DuckDBPyConnection:
    """One for each process, and without threads of its own: neither survives a fork."""
    import duckdb  # noqa: PLC0415 - slow, and a plan of loads alone needs none

    return duckdb.connect(":memory:", config={"threads": 1})


def _parse(queries: Sequence[str]) -> list[str]:
    if not queries:
        return []
    # The texts go in as one literal: binding any value makes DuckDB import pandas, which takes
    # longer than all the parsing. A cursor is a connection of its own: threads may parse side by side.
    texts = literal(json.dumps([query.replace("\0", "\ufffd") for query in queries]))
    with _connection(os.getpid()).cursor() as cursor:
        return [row[0] for row in cursor.execute(sql(_PARSE, texts=texts)).fetchall()]


def _tree(query: str, parsed: str, inserted: tuple[int, ...], text: str) -> SyntaxTree:
    document = deeply(json.loads, text)
    if not document["error"]:
        nodes = tuple(statement["node"] for statement in document["statements"])
        return SyntaxTree(query, parsed, inserted, nodes)
    place = document.get("position")
    return SyntaxTree(
        query,
        parsed,
        inserted,
        error=str(document.get("error_message") or "it cannot be parsed"),
        wrong_at=None if place is None else _before(inserted, int(place)),
    )


def _with_values(query: str) -> tuple[str, tuple[int, ...]]:
    """Give each `ON column` of a PIVOT a list of values; also return where, in the result."""
    try:
        tokens = list(scan(query))
    except Unclosed:
        return query, ()
    text, last, places = "", 0, []
    for place in sorted(_ends_of_columns(tokens)):
        text += query[last:place]
        places.append(len(text))
        text += _IN
        last = place
    return text + query[last:], tuple(places)


def _ends_of_columns(tokens: Sequence[SqlToken]) -> Iterator[int]:
    for index, token in enumerate(tokens):
        if token.kind == "word" and token.text.upper() in ("PIVOT", "PIVOT_WIDER"):
            inside = _clause(tokens, index, token.depth)
            begun = next((i for i, t in enumerate(inside) if _word(t, token.depth) == "ON"), None)
            if begun is not None:
                yield from _ends(inside[begun + 1 :], token.depth)


def _clause(tokens: Sequence[SqlToken], index: int, depth: int) -> list[SqlToken]:
    clause: list[SqlToken] = []
    for token in tokens[index + 1 :]:
        if token.depth < depth or (token.kind == "close" and token.depth == depth - 1):
            break
        clause.append(token)
    return clause


def _ends(tokens: Sequence[SqlToken], depth: int) -> Iterator[int]:
    has_values, end = False, None
    for token in tokens:
        word = _word(token, depth)
        if word in ("USING", "GROUP", "ORDER", "LIMIT", "UNION", "JOIN", "WHERE"):
            break
        if token.text == "," and token.depth == depth:
            if end is not None and not has_values:
                yield end
            has_values, end = False, None
            continue
        has_values = has_values or word == "IN"
        end = token.end
    if end is not None and not has_values:
        yield end


def _word(token: SqlToken, depth: int) -> str:
    return token.text.upper() if token.kind == "word" and token.depth == depth else ""
