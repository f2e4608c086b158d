"""Syntax tree → `.sf` text that parses to the same tree; and `format_script`, which keeps a file's own text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from sqlflow_dagster.language.layout import format_script, mode_text
from sqlflow_dagster.language.strings import quoted
from sqlflow_dagster.language.tokens import VARIABLE
from sqlflow_dagster.language.tree import (
    Bare,
    Create,
    Export,
    If,
    Include,
    Load,
    Name,
    Query,
    Set,
    Source,
    Statement,
    Table,
    Text,
)

__all__ = ["format_script", "render"]

_BARE = re.compile(rf"(?:[A-Za-z_]|{VARIABLE})(?:[A-Za-z0-9_]|{VARIABLE})*+")
_VARIABLES = re.compile(rf"(\$\$\{{|{VARIABLE})")
# Before TO or at the beginning of an EXPORT these would be read as SQL.
_READ_AS_SQL = frozenset(("AS", "TO", "SIMILAR", "SELECT", "FROM", "WITH", "VALUES", "TABLE"))
_WIDTH = 80
_INDENT = "    "


def render(statements: Sequence[Statement]) -> str:
    """Return the text of statements, a blank line between them; spans and comments have no part in it."""
    return "\n\n".join(_statement(statement) for statement in statements) + "\n" if statements else ""


def _statement(statement: Statement) -> str:
    match statement:
        case Source():
            text = _source(statement)
        case Load(table, source, stream, mode):
            place = f"{_name(source)}.{_name(stream)}" if stream else _name(source)
            text = f"LOAD {_table(table) if table else '*'} FROM {place}{mode_text(mode, _name)}"
        case Create():
            kind = ("OR REPLACE " if statement.or_replace else "") + ("VIEW" if statement.view else "TABLE")
            head = f"CREATE {kind} {_table(statement.table)}{mode_text(statement.mode, _name)} AS"
            text = f"{head}\n{_query(statement.query)}"
        case Export():
            text = _export(statement)
        case Set(name, value):
            text = f"SET {_name(name)} = {_scalar(value, 'NULL')}"
        case Include(path, alias):
            text = f"INCLUDE {quoted(path.value)}{f' AS {_name(alias)}' if alias else ''}"
        case If():
            text = "\n".join(_if(statement))
    return f"{text};"


def _source(source: Source) -> str:
    head = f"SOURCE {_name(source.name)}"
    if source.profile:
        options = f" OPTIONS {_json(source.params.value)}" if source.params else ""
        return f"{head} FROM {quoted(source.profile.value)}{options}"
    kind = _name(source.type) if source.type else ""
    return f"{head} TYPE {kind} PARAMS {_json(source.params.value if source.params else {})}"


def _export(export: Export) -> str:
    what = _table(export.what) if isinstance(export.what, Table) else _query(export.what)
    target = quoted(export.target.value) if isinstance(export.target, Text) else export.target.text
    kind = f" TYPE {_name(export.type)}" if export.type else ""
    options = f" OPTIONS {_json(export.options.value)}" if export.options else ""
    between = "\n" if isinstance(export.what, Query) else " "
    return f"EXPORT{between}{what}{between}TO {target}{kind}{options}"


def _if(statement: If) -> Iterator[str]:
    for index, branch in enumerate(statement.branches):
        yield f"{'ELSE IF' if index else 'IF'} {_query(branch.condition)} THEN"
        yield from map(_indented, branch.body)
    if statement.otherwise:
        yield "ELSE"
        yield from map(_indented, statement.otherwise)
    yield "END IF"


def _indented(statement: Statement) -> str:
    # Only the first line: the lines of a SQL body are as they are.
    return _INDENT + _statement(statement)


def _query(query: Query) -> str:
    last_line = query.sql.rpartition("\n")[2]
    return query.sql + ("\n" if "--" in last_line else "")


def _name(name: Name) -> str:
    if _BARE.fullmatch(name.text) and name.text.upper() not in _READ_AS_SQL:
        return name.text
    parts = _VARIABLES.split(name.text)
    return '"' + "".join(part if i % 2 else part.replace('"', '""') for i, part in enumerate(parts)) + '"'


def _table(table: Table) -> str:
    return ".".join(map(_name, table.parts))


def _scalar(value: Any, null: str) -> str:
    if value is None:
        return null
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Bare):
        return str(value)
    return quoted(value) if isinstance(value, str) else repr(value)


def _json(value: Any, indent: str = "") -> str:
    if not isinstance(value, dict | list) or not value:
        return _scalar(value, "null") if not isinstance(value, dict | list) else "{}" if value == {} else "[]"
    inner = indent + _INDENT
    if isinstance(value, dict):
        opening, closing = "{", "}"
        items = [f"{quoted(key)}: {_json(item, inner)}" for key, item in value.items()]
    else:
        opening, closing = "[", "]"
        items = [_json(item, inner) for item in value]
    blank = " " if opening == "{" else ""
    line = f"{opening}{blank}{', '.join(items)}{blank}{closing}"
    if "\n" not in line and len(line) + len(indent) <= _WIDTH:
        return line
    return f"{opening}\n" + ",\n".join(inner + item for item in items) + f"\n{indent}{closing}"
