"""SQL text → the PYTHON_FUNC calls in it."""

from __future__ import annotations

from dataclasses import dataclass

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.language.tokens import SqlToken, scan


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument as written: `name` for `name=value`, else None."""

    name: str | None
    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PythonCall:
    """`PYTHON_FUNC("module.function", args…)` at `sql[start:end]`; `table` where it stands in FROM."""

    function: str
    arguments: tuple[Argument, ...]
    table: bool
    start: int
    end: int


def python_calls(sql: str) -> tuple[PythonCall, ...]:
    """Return the outermost PYTHON_FUNC calls of a query, in order; strings and comments hold none.

    Raises ProjectError for a call without a function's name in quotes or without its bracket.
    """
    tokens = list(scan(sql))
    calls: list[PythonCall] = []
    index = 0
    while index < len(tokens):
        if tokens[index].kind == "word" and tokens[index].text.upper() == "PYTHON_FUNC":
            call, index = _call(sql, tokens, index)
            calls.append(call)
        else:
            index += 1
    return tuple(calls)


def _call(sql: str, tokens: list[SqlToken], index: int) -> tuple[PythonCall, int]:
    here = tokens[index]
    rest = tokens[index + 1 :]
    if len(rest) < 2 or rest[0].text != "(" or rest[1].kind not in ("text", "quoted"):
        raise ProjectError('write PYTHON_FUNC("module.function", arguments …)')
    close = next((i for i, t in enumerate(rest) if t.kind == "close" and t.depth == here.depth), None)
    if close is None:
        raise ProjectError("a PYTHON_FUNC( is never closed; add )")
    call = PythonCall(
        function=rest[1].text[1:-1],
        arguments=_arguments(sql, rest[2:close]),
        table=_in_from(tokens, index),
        start=here.start,
        end=rest[close].end,
    )
    return call, index + 1 + close + 1


def _arguments(sql: str, tokens: list[SqlToken]) -> tuple[Argument, ...]:
    if not tokens:
        return ()
    depth = tokens[0].depth
    groups: list[list[SqlToken]] = []
    for token in tokens:
        if token.text == "," and token.depth == depth:
            groups.append([])
        elif not groups:
            raise ProjectError("PYTHON_FUNC's arguments are separated by commas")
        else:
            groups[-1].append(token)
    return tuple(_argument(sql, group) for group in groups if group)


def _argument(sql: str, group: list[SqlToken]) -> Argument:
    name = None
    if len(group) > 2 and group[0].kind == "word" and group[1].text == "=" and group[2].text not in "=>":
        name, group = group[0].text, group[2:]
    start, end = group[0].start, group[-1].end
    return Argument(name, sql[start:end], start, end)


def _in_from(tokens: list[SqlToken], index: int) -> bool:
    """Whether the call at `index` is a table: after FROM or JOIN, or after a comma of a FROM."""
    depth = tokens[index].depth
    for token in reversed(tokens[:index]):
        if token.depth < depth:
            return False
        if token.depth > depth or token.kind != "word":
            continue
        word = token.text.upper()
        if word in ("FROM", "JOIN", "LATERAL"):
            return True
        if word in ("SELECT", "WHERE", "ON", "BY", "HAVING", "QUALIFY", "VALUES", "SET", "LIMIT"):
            return False
    return False
