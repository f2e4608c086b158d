"""SQL text → the PYTHON_FUNC calls in it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.language.positions import tables_expected
from sqlflow_dagster.language.references import scanned
from sqlflow_dagster.language.tokens import SqlToken

_PYTHON_FUNC = re.compile("PYTHON_FUNC", re.IGNORECASE)
_NAMING = ("=", ":=", "=>")


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

    Calls inside an argument are found by asking again for the argument's text. Raises ProjectError
    for a call without a function's name in quotes, and for what is never closed.
    """
    if _PYTHON_FUNC.search(sql) is None:
        return ()
    tokens = scanned(sql)
    tables = tables_expected(tokens)
    calls: list[PythonCall] = []
    index = 0
    while index < len(tokens):
        if tokens[index].kind == "word" and tokens[index].text.upper() == "PYTHON_FUNC":
            call, index = _call(sql, tokens, index, table=index in tables)
            calls.append(call)
        else:
            index += 1
    return tuple(calls)


def _call(sql: str, tokens: Sequence[SqlToken], index: int, *, table: bool) -> tuple[PythonCall, int]:
    """The call that begins at `index`, and the index after it."""
    opening = tokens[index + 1].text if index + 1 < len(tokens) else ""
    function = tokens[index + 2] if index + 2 < len(tokens) else None
    if opening != "(" or function is None or function.kind not in ("text", "quoted"):
        raise ProjectError('PYTHON_FUNC needs a function\'s name first: PYTHON_FUNC("module.function", …)')
    close = index + 3
    depth = tokens[index].depth
    while close < len(tokens) and not (tokens[close].kind == "close" and tokens[close].depth == depth):
        close += 1
    if close == len(tokens):
        raise ProjectError(f"PYTHON_FUNC({function.text} … is never closed; add )")
    call = PythonCall(
        function=function.text[1:-1].replace(function.text[0] * 2, function.text[0]),
        arguments=_arguments(sql, tokens[index + 3 : close]),
        table=table,
        start=tokens[index].start,
        end=tokens[close].end,
    )
    return call, close + 1


def _arguments(sql: str, tokens: Sequence[SqlToken]) -> tuple[Argument, ...]:
    groups: list[list[SqlToken]] = []
    for token in tokens:
        if token.text == "," and token.depth == tokens[0].depth:
            groups.append([])
        elif not groups:
            raise ProjectError(
                f"expected a comma after the name of PYTHON_FUNC's function, found {token.text}"
            )
        else:
            groups[-1].append(token)
    if not all(groups):
        raise ProjectError("PYTHON_FUNC has a comma with no argument after it; take it out")
    return tuple(_argument(sql, group) for group in groups)


def _argument(sql: str, group: list[SqlToken]) -> Argument:
    """One argument; `name = value`, `name := value` and `name => value` name it."""
    name = None
    marks = "".join(token.text for token in group[1:3] if token.kind == "mark")
    if group[0].kind == "word" and marks in _NAMING and len(group) > len(marks) + 1:
        name, group = group[0].text, group[len(marks) + 1 :]
    start, end = group[0].start, group[-1].end
    return Argument(name, sql[start:end], start, end)
