"""Text → tokens, in three modes: our own clauses, JSON objects, and SQL bodies that are only measured.

Our clauses and objects are read a token at a time with `next_token`. A SQL body is never split for
parsing: `scan` walks over it, knowing strings, dollar quotes, comments and brackets as DuckDB does,
to find where it ends and in what kind of place a variable stands.

A well-formed `${name|default}` is one unit everywhere: a quote in its default ends no string. All
repetitions are possessive, so that no text makes a pattern go back and forth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

_DEFAULT = r"""(?:(?:'(?:[^'\n]|'')*+'|"(?:[^"\n]|"")*+")[ \t]*+|[^{}\n]*+)"""
VARIABLE = rf"\$\{{[ \t]*+[A-Za-z_][\w.-]*+[ \t]*+(?:\|[ \t]*+{_DEFAULT})?\}}"
# What may stand in any string: an escaped `${`, a variable, a dollar sign that is neither.
_UNIT = rf"\$\$\{{|{VARIABLE}|\$"

_CLAUSE_TEXT = rf"""'(?:[^'\n$]|''|{_UNIT})*+'|"(?:[^"\\\n$]|\\.|""|{_UNIT})*+\""""
_JSON_TEXT = rf'"(?:[^"\\\n$]|\\.|{_UNIT})*+"'

_TRIVIA = r"""
    (?P<space>\s++)
  | (?P<comment>--[^\n\r]*+)
  | (?P<block>/\*)
"""

CLAUSE = re.compile(
    rf"""{_TRIVIA}
  | (?P<text>{_CLAUSE_TEXT})
  | (?P<number>[-+]?(?:\d++(?:\.\d*+)?|\.\d++)(?:[eE][-+]?\d++)?(?![\w$.]))
  | (?P<name>(?:[A-Za-z_]|{VARIABLE})(?:[A-Za-z0-9_]|{VARIABLE})*+)
  | (?P<mark>==|[][(){{}}=<>,.;:*])
  | (?P<broken>['"][^\n]*+)
  | (?P<other>[\w$.+-]++|.)
    """,
    re.VERBOSE | re.DOTALL,
)

JSON = re.compile(
    rf"""{_TRIVIA}
  | (?P<text>{_JSON_TEXT})
  | (?P<number>-?(?:0|[1-9]\d*+)(?:\.\d++)?(?:[eE][-+]?\d++)?(?![\w$.]))
  | (?P<name>{VARIABLE}|[A-Za-z_][A-Za-z0-9_]*+)
  | (?P<mark>[][{{}},:;])
  | (?P<broken>"[^\n]*+)
  | (?P<other>'[^'\n]*+'|[\w$.+-]++|.)
    """,
    re.VERBOSE | re.DOTALL,
)

# DuckDB takes any character beyond ASCII into a name, and `$` after its beginning.
_START = r"[^\x00-\x40\x5b-\x5e\x60\x7b-\x7f\s]"
_REST = r"[^\x00-\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\x7f\s]"
_ESCAPED_REST = rf"(?:[^'\\$]|\\[\s\S]|''|{_UNIT})*+'"

SQL = re.compile(
    rf"""{_TRIVIA}
  | (?P<escaped>[eE]'{_ESCAPED_REST})
  | (?P<word>{_START}(?:{_REST}|\$(?!\{{))*+)
  | (?P<text>'(?:[^'$]|''|{_UNIT})*+')
  | (?P<quoted>"(?:[^"$]|""|{_UNIT})*+")
  | (?P<number>\d[\d_]*+(?:\.(?!\.)[\d_]*+)?(?:[eE][-+]?\d++)?|\.\d++(?:[eE][-+]?\d++)?)
  | (?P<dollar>\$(?:{_START}{_REST}*+)?\$)
  | (?P<variable>{VARIABLE})
  | (?P<open>[(\[{{])
  | (?P<close>[)\]}}])
  | (?P<end>;)
  | (?P<broken>[eE]?['"])
  | (?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)

_CONTINUED = re.compile(f"'{_ESCAPED_REST}")
# A name of ours in double quotes: DuckDB's rule, without backslashes.
QUOTED_NAME = re.compile(rf'"(?:[^"\n$]|""|{_UNIT})*+"')
_BLOCK_EDGE = re.compile(r"/\*|\*/")

Unfinished = Literal["string", "comment", "dollar quote"]


class Token(NamedTuple):
    """A token of our clauses: `kind` is text, number, name, mark, broken, other, or end (of file)."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """The token in capitals where it is a bare name, else nothing: for keywords."""
        return self.text.upper() if self.kind == "name" else ""


class SqlToken(NamedTuple):
    """A token of a SQL body.

    `kind` is word, text, escaped (`E'…'`), quoted (`"…"`), dollar, number, variable, open, close,
    mark, and with trivia space and comment. `depth` is the number of brackets around it.
    """

    kind: str
    text: str
    start: int
    end: int
    depth: int

    @property
    def lead(self) -> int:
        """The length of the `$tag$` that opens a dollar quote, 0 for all else.

        The `$$` before `${` may be an opening tag, and is then no escape.
        """
        return self.text.index("$", 1) + 1 if self.kind == "dollar" else 0


@dataclass(frozen=True, slots=True)
class Unclosed(Exception):
    """A string, comment or dollar quote that the file's end cuts off, by its place."""

    what: Unfinished
    start: int


def block_end(text: str, start: int) -> int:
    """Return the offset after the comment that opens at `start`; comments nest. Raises Unclosed."""
    depth = 0
    for edge in _BLOCK_EDGE.finditer(text, start):
        depth += 1 if edge.group() == "/*" else -1
        if depth == 0:
            return edge.end()
    raise Unclosed("comment", start)


def next_token(text: str, position: int, rules: re.Pattern[str] = CLAUSE) -> Token:
    """Return the next token at or after `position`, past blanks and comments. Raises Unclosed.

    `rules` is CLAUSE or JSON. A string that its line's end cuts off is a token of kind broken, and
    reaches there.
    """
    while match := rules.match(text, position):
        kind = match.lastgroup or ""
        if kind == "block":
            position = block_end(text, position)
        elif kind in ("space", "comment"):
            position = match.end()
        else:
            return Token(kind, match.group(), position, match.end())
    return Token("end", "", len(text), len(text))


def scan(text: str, position: int = 0, *, trivia: bool = False) -> Iterator[SqlToken]:
    """Yield the tokens of SQL from `position` to the `;` that ends it, or to the end of the text.

    Blanks and comments are yielded only with `trivia`. Raises Unclosed.
    """
    depth = 0
    # `E'a'`, a line's end, `'b'` is one string, and its second part knows backslashes too.
    continued = on_new_line = False
    while match := SQL.match(text, position):
        kind, end = match.lastgroup or "", match.end()
        if kind == "end":
            return
        if kind in ("space", "comment"):
            on_new_line = on_new_line or "\n" in match.group() or "\r" in match.group()
        else:
            if kind in ("text", "broken") and continued and on_new_line and text[position] == "'":
                kind, end = _continuation(text, position)
            continued, on_new_line = kind == "escaped", False
        if kind in ("block", "dollar", "broken"):
            kind, end = _long(text, match)
        if kind == "close":
            depth = max(0, depth - 1)
        if trivia or kind not in ("space", "comment"):
            yield SqlToken(kind, text[position:end], position, end, depth)
        if kind == "open":
            depth += 1
        position = end


def _continuation(text: str, position: int) -> tuple[str, int]:
    match = _CONTINUED.match(text, position)
    if match is None:
        raise Unclosed("string", position)
    return "escaped", match.end()


def _long(text: str, match: re.Match[str]) -> tuple[str, int]:
    """Kind and end of what no pattern can measure."""
    if match.lastgroup == "block":
        return "comment", block_end(text, match.start())
    if match.lastgroup == "broken":
        raise Unclosed("string", match.start())
    close = text.find(match.group(), match.end())
    if close < 0:
        raise Unclosed("dollar quote", match.start())
    return "dollar", close + len(match.group())
