"""A place in a query → the WITH queries that can be named there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sqlflow_dagster.language.tokens import SqlToken, scan


class Named(NamedTuple):
    """`name AS (query)` as written: `sql[start:end]`; `recursive` where its WITH says so."""

    name: str
    start: int
    end: int
    recursive: bool


def named_queries(sql: str, position: int) -> tuple[Named, ...]:
    """Return the WITH queries in scope at `position`, outer ones first; an inner hides an outer."""
    tokens = list(scan(sql))
    found: dict[str, Named] = {}
    for start in _scopes(tokens, position):
        for query in _list(tokens, start, position):
            found.pop(query.name, None)
            found[query.name] = query
    return tuple(found.values())


def identifier(token: SqlToken) -> str:
    """Return the name that a word or a quoted identifier stands for."""
    return token.text[1:-1].replace('""', '"') if token.kind == "quoted" else token.text


def _scopes(tokens: Sequence[SqlToken], position: int) -> list[int]:
    """Indexes of the first tokens of the brackets around `position`, the whole query's first."""
    scopes = [0]
    for index, token in enumerate(tokens):
        if token.start >= position:
            break
        if token.kind == "open":
            scopes.append(index + 1)
        elif token.kind == "close" and len(scopes) > 1:
            scopes.pop()
    return scopes


def _list(tokens: Sequence[SqlToken], index: int, position: int) -> list[Named]:
    found: list[Named] = []
    if _word(tokens, index) != "WITH":
        return found
    index += 1
    recursive = _word(tokens, index) == "RECURSIVE"
    index += recursive
    while index < len(tokens) and tokens[index].kind in ("word", "quoted"):
        name = tokens[index]
        close = _body_end(tokens, index)
        if close is None or tokens[close].end > position:
            break
        found.append(Named(identifier(name).casefold(), name.start, tokens[close].end, recursive))
        if close + 1 >= len(tokens) or tokens[close + 1].text != ",":
            break
        index = close + 2
    return found


def _body_end(tokens: Sequence[SqlToken], index: int) -> int | None:
    """The index of the bracket that closes the body of the query named at `index`."""
    depth = tokens[index].depth
    seen_as = False
    for place in range(index + 1, len(tokens)):
        token = tokens[place]
        if token.depth != depth:
            continue
        seen_as = seen_as or _word(tokens, place) == "AS"
        if seen_as and token.kind == "close":
            return place
    return None


def _word(tokens: Sequence[SqlToken], index: int) -> str:
    return tokens[index].text.upper() if index < len(tokens) and tokens[index].kind == "word" else ""
