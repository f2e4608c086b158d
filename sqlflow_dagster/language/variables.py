"""`${name}` → its value, with a safe way in for each place: text, JSON, SQL.

Precedence, highest first: run (`--vars`, Dagster's run config), profile, SET, built-in, `.env`,
process environment, the default after `|`.

Profiles, SET and PARAMS carry types, so text in them stays text. The command line, `.env`, the
environment and defaults without quotes know only text: where such a value stands alone in SQL, in a
condition, or without quotes in PARAMS and SET, text that is exactly a JSON number, `true` or `false`
becomes one. `007` is no JSON number and stays text.
"""

from __future__ import annotations

import re
from typing import Any

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.language.positions import Piece, pieces
from sqlflow_dagster.language.references import Reference, alone, fill, references, sql_references
from sqlflow_dagster.language.scope import Scalar, UndefinedVariables, Values, Variables, as_text, typed
from sqlflow_dagster.language.tokens import SqlToken
from sqlflow_dagster.sql import join, literal, quote

__all__ = [
    "Reference",
    "Scalar",
    "UndefinedVariables",
    "Variables",
    "expand_sql",
    "expand_text",
    "expand_value",
    "missing",
    "references",
    "sql_references",
    "standing_alone",
    "typed",
]

_NAME = r'(?:[^\W\d][\w$]*|"(?:[^"\x00-\x1f\x7f]|"")+")'
_NAMES = re.compile(rf"{_NAME}(?:\.{_NAME})*")
_EACH_NAME = re.compile(_NAME)


def missing(sql: str, variables: Variables) -> tuple[Reference, ...]:
    """Return the uses of variables in a SQL text or condition that have no value. Raises ProjectError."""
    values = Values(variables)
    return tuple(reference for reference in sql_references(sql) if values.lacks(reference))


def standing_alone(text: str, variables: Variables) -> Any:
    """Return the value of a text that is one `${name}`, typed as the module says.

    Raises UndefinedVariables.
    """
    reference = alone(text)
    return text if reference is None else Values(variables).standing_alone(reference)


def expand_text(template: str, variables: Variables) -> str:
    """Return a text with its variables' values in it. Raises UndefinedVariables naming all."""
    values = Values(variables)
    values.check(references(template))
    return fill(template, values.text)


def expand_value(value: Any, variables: Variables) -> Any:
    """Return a JSON value with its variables filled in; keys are kept as they are.

    A string that is one `${name}` and nothing else takes the value's type; text stays text, unless
    the variable stood there without quotes. Raises UndefinedVariables naming all.
    """
    return Values(variables).expanded(value)


def expand_sql(sql: str, variables: Variables) -> str:
    """Return SQL with its variables' values in it; no value can end the place it stands in.

    - Standing alone, a value becomes a literal of its type, a list several with commas between.
    - Inside quotes of any kind it is text, escaped for them.
    - It is a name, checked and quoted, after FROM, JOIN, INTO, UPDATE, TABLE and AS, after the
      commas of FROM, beside a dot, after `::`, glued to a word (`sales_${region}`), and where it
      is text in GROUP BY, ORDER BY and PARTITION BY.
    - In comments nothing is filled in.

    Raises UndefinedVariables naming all that have no value, ProjectError for a value that cannot
    stand where it is used.
    """
    if "${" not in sql:
        return sql
    values = Values(variables)
    values.check(sql_references(sql))
    parts: list[str] = []
    end = 0
    for piece in pieces(sql):
        parts.append(_in_sql(piece, values))
        end = piece.tokens[-1].end
    return "".join(parts) + sql[end:]


def _in_sql(piece: Piece, values: Values) -> str:
    token = piece.tokens[0]
    match piece.place:
        case "plain":
            return token.text
        case "string":
            return _in_quotes(token, values)
        case "glued":
            return _glued(piece, values)
    reference = alone(token.text)
    if reference is None:
        raise ProjectError(f"{token.text} is no variable; write ${{name}} or ${{name|default}}")
    value = values.standing_alone(reference)
    if piece.place == "alias":
        return quote(as_text(value))
    if piece.place in ("table", "name") or (piece.place == "column" and isinstance(value, str)):
        return _name(token.text, value)
    if piece.place == "after string":
        raise ProjectError(f"{token.text} stands beside a string; write || or AS between, or put it inside")
    return _literal(value)


def _literal(value: Any) -> str:
    if isinstance(value, list | tuple):
        # As IN (NULL): in an empty list there is nothing.
        return join(", ", (literal(_plain(item)) for item in value)) or literal(None)
    text = literal(_plain(value))
    # `x -${n}` with -1 must not become `x --1`, which is a comment.
    return f"({text})" if text.startswith("-") else text


def _plain(value: Any) -> Scalar:
    return value if value is None or isinstance(value, str | int | float) else as_text(value)


def _in_quotes(token: SqlToken, values: Values) -> str:
    tag = token.text[: token.lead]
    filled = fill(token.text[token.lead :], lambda reference: _escaped(token.kind, values.text(reference)))
    if tag and filled.index(tag) + len(tag) != len(filled):
        raise ProjectError(f"a variable's value would end the text between {tag} and {tag}; use '…' there")
    return tag + filled


def _escaped(kind: str, value: str) -> str:
    if "\0" in value:
        raise ProjectError("a variable's value holds a NUL character, which SQL cannot carry")
    match kind:
        case "text":
            return value.replace("'", "''")
        case "escaped":
            return value.replace("\\", "\\\\").replace("'", "''")
        case "quoted":
            return quote(value)[1:-1] if value else ""
    return value


def _glued(piece: Piece, values: Values) -> str:
    written = "".join(token.text for token in piece.tokens)
    name = fill(written, values.text)
    if name.startswith('"') or not _EACH_NAME.fullmatch(name):
        raise ProjectError(
            f"{written} is one name, and with its variables' values no valid one; put blanks around a value"
        )
    return quote(name)


def _name(written: str, value: Any) -> str:
    text = as_text(value)
    if not _NAMES.fullmatch(text):
        raise ProjectError(
            f"{written} names something here, and its value is no valid name; '{written}' in quotes is text"
        )
    return quote(*(_unquoted(name) for name in _EACH_NAME.findall(text)))


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
