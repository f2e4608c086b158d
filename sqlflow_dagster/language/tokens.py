"""Text → tokens, in two modes: our own clauses, and SQL bodies that are only measured.

Our clauses are read a token at a time with `Lexer`. A SQL body is never split for parsing: `scan`
walks over it, knowing strings, dollar quotes, comments and brackets, to find where it ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

VARIABLE = r"\$\{(?:[^{}'\"\n]|'[^'\n]*'|\"[^\"\n]*\")*\}|\$\{[^{}\n]*\}"
_NAME = rf"(?:[^\W\d]|{VARIABLE})(?:\w|{VARIABLE})*"

_CLAUSE = re.compile(
    rf"""
    (?P<space>\s+)
  | (?P<comment>--[^\n]*)
  | (?P<block>/\*)
  | (?P<text>'(?:[^']|'')*'|"(?:[^"\\]|\\.|"")*")
  | (?P<number>[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?(?![\w$]))
  | (?P<name>{_NAME})
  | (?P<mark>==|!=|<>|<=|>=|[][(){{}}=<>,.;:*])
  | (?P<open_text>['"])
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)

_SQL = re.compile(
    rf"""
    (?P<space>\s+)
  | (?P<comment>--[^\n]*)
  | (?P<block>/\*)
  | (?P<escaped>[eE]'(?:[^'\\]|\\.|'')*')
  | (?P<text>'(?:[^']|'')*')
  | (?P<quoted>"(?:[^"]|"")*")
  | (?P<variable>{VARIABLE})
  | (?P<dollar>\$(?P<tag>(?:[^\W\d]\w*)?)\$)
  | (?P<number>\d+(?:[\d_]*\.\d*)?(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?)
  | (?P<word>[^\W\d]\w*)
  | (?P<open>[(\[{{])
  | (?P<close>[)\]}}])
  | (?P<end>;)
  | (?P<broken>['"])
  | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)

_BLOCK_EDGE = re.compile(r"/\*|\*/")
_ESCAPE = re.compile(r"\\(.)|\"\"", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class Token(NamedTuple):
    """A token of our clauses: `kind` is text, number, name, mark, end (of file) or other."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """The token in capitals where it is a bare name, else nothing: for keywords."""
        return self.text.upper() if self.kind == "name" else ""


class SqlToken(NamedTuple):
    """A token of a SQL body; `depth` is the number of brackets open before it."""

    kind: str
    text: str
    start: int
    end: int
    depth: int


@dataclass(frozen=True, slots=True)
class Unclosed(Exception):  # noqa: N818 - it never leaves this room
    """A string, comment or dollar quote that the file's end cuts off, by its place."""

    what: str
    start: int


def block_end(text: str, start: int) -> int:
    """Return the offset after the comment that opens at `start`; comments nest."""
    depth = 0
    for edge in _BLOCK_EDGE.finditer(text, start):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    raise Unclosed("comment", start)


def next_token(text: str, position: int) -> Token:
    """Return the next token of our clauses at or after `position`, past blanks and comments."""
    while position < len(text):
        match = _CLAUSE.match(text, position)
        kind = match.lastgroup if match else None
        if match is None or kind is None:  # the last rule takes any character
            break
        if kind == "block":
            position = block_end(text, position)
        elif kind in ("space", "comment"):
            position = match.end()
        elif kind == "open_text":
            raise Unclosed("string", position)
        else:
            return Token(kind, match.group(), position, match.end())
    return Token("end", "", len(text), len(text))


def unquote(text: str) -> str:
    """Return the value of a string token of our clauses, quotes and escapes undone."""
    if text[0] == "'":
        return text[1:-1].replace("''", "'")
    return _ESCAPE.sub(
        lambda m: '"' if m.group(1) is None else _ESCAPES.get(m.group(1), m.group(1)), text[1:-1]
    )


def scan(text: str, position: int = 0, *, trivia: bool = False) -> Iterator[SqlToken]:
    """Yield the tokens of SQL from `position` to the `;` that ends it, or to the end of the text.

    Blanks and comments are yielded only with `trivia`. Raises Unclosed.
    """
    depth = 0
    while position < len(text):
        match = _SQL.match(text, position)
        if match is None:
            return
        kind, end = match.lastgroup or "", match.end()
        if kind == "tag":
            kind = "dollar"
        if kind == "end":
            return
        if kind == "block":
            kind, end = "comment", block_end(text, position)
        elif kind == "dollar":
            end = text.find(match.group(), match.end()) + len(match.group())
            if end < match.end():
                raise Unclosed("dollar quote", position)
        elif kind == "broken":
            raise Unclosed("string", position)
        if kind == "close":
            depth = max(0, depth - 1)
        if trivia or kind not in ("space", "comment"):
            yield SqlToken(kind, text[position:end], position, end, depth)
        if kind == "open":
            depth += 1
        position = end


def end_of_sql(text: str, position: int) -> int:
    """Return the offset of the `;` that ends the SQL at `position`, or of the end of the text."""
    last = position
    for token in scan(text, position, trivia=True):
        last = token.end
    return last
