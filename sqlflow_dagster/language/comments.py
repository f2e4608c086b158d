"""Where the comments of a `.sf` file stand: between statements, among a statement's words, behind a body."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from sqlflow_dagster.language.tokens import CLAUSE, QUOTED_NAME, Token, block_end, next_token
from sqlflow_dagster.language.tree import (
    Create,
    Export,
    Include,
    Load,
    Mode,
    Name,
    Object,
    Query,
    Set,
    Source,
    Span,
    Statement,
    Table,
    Text,
)

_TRIVIA = re.compile(r"\s++|(?P<comment>--[^\n\r]*+)|(?P<block>/\*)")
_MAY_COMMENT = re.compile(r"--|/\*")


def comments(source: str, start: int, end: int) -> Iterator[str]:
    """Yield the comments in `source[start:end]`, which holds words of ours and no quoted name."""
    if not _MAY_COMMENT.search(source, start, end):
        return
    while start < end and (match := CLAUSE.match(source, start)):
        stop = block_end(source, start) if match.lastgroup == "block" else match.end()
        if match.lastgroup in ("block", "comment"):
            yield source[start:stop].rstrip()
        start = stop


def trivia(source: str, start: int, end: int) -> Iterator[tuple[str, str]]:
    """Yield `space` or `comment` and the text of each that `source[start:end]` begins with."""
    while start < end and (match := _TRIVIA.match(source, start, end)):
        stop = block_end(source, start) if match["block"] else match.end()
        yield ("space" if match.lastgroup is None else "comment"), source[start:stop]
        start = stop


def among_words(source: str, statement: Statement) -> tuple[list[str], list[str]]:
    """Return the comments among a statement's own words, and those after its last word."""
    position = statement.span.start
    inside: list[str] = []
    for part in _parts(statement):
        inside += comments(source, position, part.span.start)
        position = behind(source, part.span.end) if isinstance(part, Query) else part.span.end
        if isinstance(statement, Load) and part is statement.stream:
            inside += [text for kind, text in stream_tokens(source, part.span) if kind == "comment"]
    end = _last_word(source, position, statement.span.end)
    inside += comments(source, position, end)
    return inside, list(comments(source, end, statement.span.end))


def behind(source: str, position: int) -> int:
    """Return where the comments end that follow a body, which ends at `position`."""
    end = position
    for kind, text in trivia(source, position, next_token(source, position).start):
        position += len(text)
        end = position if kind == "comment" else end
    return end


def stream_tokens(source: str, span: Span) -> Iterator[tuple[str, str]]:
    """Yield the names, dots and comments of a stream; in its quoted names a backslash is no escape."""
    position = span.start
    while position < span.end:
        for kind, text in trivia(source, position, span.end):
            yield kind, text
            position += len(text)
        if position < span.end:
            quoted_name = QUOTED_NAME.match(source, position)
            end = quoted_name.end() if quoted_name else next_token(source, position).end
            yield "name", source[position:end]
            position = end


def _last_word(source: str, position: int, end: int) -> int:
    """Where the last token between `position` and the `;` before `end` stops."""
    last = position
    token: Token
    while (token := next_token(source, last)).end < end:
        last = token.end
    return last


def _parts(statement: Statement) -> Sequence[Name | Text | Object | Query]:
    """What a statement is made of beside words of ours, in order."""
    found: Sequence[Name | Text | Object | Query | None] = ()
    match statement:
        case Source(name, params=params):
            found = [name, statement.type or statement.profile, params]
        case Load(table, source, stream, mode):
            found = [*_names(table), source, stream, *_columns(mode)]
        case Create(table, mode=mode, query=query):
            found = [*_names(table), *_columns(mode), query]
        case Export(what, target, kind, options):
            found = [*(_names(what) if isinstance(what, Table) else [what]), target, kind, options]
        case Set(name):
            found = [name]
        case Include(path, alias):
            found = [path, alias]
    return [part for part in found if part]


def _names(table: Table | None) -> Sequence[Name]:
    return table.parts if table else ()


def _columns(mode: Mode | None) -> Sequence[Name]:
    return (*mode.keys, *([mode.by] if mode.by else [])) if mode else ()
