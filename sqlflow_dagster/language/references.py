"""Text → the `${name|default}` in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.language.tokens import VARIABLE, SqlToken, Unclosed, scan

_FOUND = re.compile(rf"\$\$\{{|(?P<variable>{VARIABLE})|(?P<bad>\$\{{[^}}\n]{{0,40}}\}}?)")
_PARTS = re.compile(r"\$\{[ \t]*([A-Za-z_][\w.-]*)[ \t]*(?:\|(.*))?\}", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Reference:
    """One `${name|default}` at `text[start:end]`: `default` is None where there is none.

    `quoted` says that the default stood in quotes, and so is text whatever it reads as.
    """

    name: str
    default: str | None
    start: int
    end: int
    quoted: bool = False


def references(text: str) -> tuple[Reference, ...]:
    """Return the variables that a text uses, in order; `$${` is no use of one.

    Raises ProjectError for a `${` that begins no variable.
    """
    if "${" not in text:
        return ()
    return tuple(_reference(match) for match in _FOUND.finditer(text) if match.group() != "$${")


def sql_references(sql: str) -> tuple[Reference, ...]:
    """Return the variables that a SQL text uses outside comments, in order.

    Raises ProjectError for a `${` that begins no variable, and for an unclosed string.
    """
    if "${" not in sql:
        return ()
    return tuple(
        replace(reference, start=offset + reference.start, end=offset + reference.end)
        for token in scanned(sql)
        for offset, reference in _in_token(sql, token)
    )


def scanned(sql: str) -> tuple[SqlToken, ...]:
    """Return the tokens of a SQL text. Raises ProjectError for what is never closed."""
    try:
        return tuple(scan(sql))
    except Unclosed as error:
        raise ProjectError(
            f"this SQL holds a {error.what} that is never closed: {sql[error.start :][:40]}"
        ) from error


def fill(template: str, text_of: Callable[[Reference], str]) -> str:
    """Return the text with each variable replaced, and `${` where `$${` stands."""
    return _FOUND.sub(lambda match: "${" if match.group() == "$${" else text_of(_reference(match)), template)


def alone(text: str) -> Reference | None:
    """Return the variable that a text consists of, None where there is more or less in it."""
    match = _FOUND.fullmatch(text) if text.startswith("${") else None
    return _reference(match) if match and match["variable"] else None


def _in_token(sql: str, token: SqlToken) -> Iterator[tuple[int, Reference]]:
    if token.text == "$" and sql.startswith("${", token.start):
        _reference(_bad(sql, token.start))
    if "${" in token.text:
        offset = token.start + token.lead
        for reference in references(token.text[token.lead :]):
            yield offset, reference


def _bad(sql: str, start: int) -> re.Match[str]:
    match = _FOUND.match(sql, start)
    if match is None:  # `${` always matches
        raise ProjectError(f"{sql[start : start + 40]} is no variable")
    return match


def _reference(match: re.Match[str]) -> Reference:
    parts = _PARTS.fullmatch(match["variable"] or "")
    if parts is None:
        raise ProjectError(
            f"{match.group()} is no variable; write ${{name}} or ${{name|default}}, or $${{ for ${{"
        )
    default = parts[2].strip(" \t") if parts[2] is not None else None
    quoted = bool(default and len(default) > 1 and default[0] == default[-1] and default[0] in "'\"")
    if default and quoted:
        default = default[1:-1].replace(default[0] * 2, default[0])
    return Reference(parts[1], default, match.start(), match.end(), quoted)
