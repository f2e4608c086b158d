"""SQL text → its pieces, each variable with the kind of place it stands in.

The places differ in what a value becomes there: a literal, part of a string, or a name. This module
knows SQL's words and nothing of values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from sqlflow_dagster.language.tokens import SqlToken, scan

Place = Literal["plain", "string", "value", "after string", "table", "column", "alias", "name", "glued"]

# After these a table is named; the first two begin a list whose commas do the same.
_BEFORE_A_TABLE = frozenset(("FROM", "JOIN", "INTO", "UPDATE", "TABLE"))
_LISTS = {"FROM": "table", "JOIN": "table", "BY": "column"}
_ENDS_A_LIST = frozenset(
    (
        *("SELECT", "WHERE", "GROUP", "HAVING", "QUALIFY", "WINDOW", "ORDER", "LIMIT", "OFFSET", "VALUES"),
        *("UNION", "EXCEPT", "INTERSECT", "SET", "RETURNING", "PARTITION"),
    )
)
# In these, FROM stands between values: EXTRACT(year FROM d).
_FROM_A_VALUE = frozenset(("EXTRACT", "SUBSTRING", "TRIM", "OVERLAY"))
_STRINGS = frozenset(("text", "escaped", "quoted", "dollar"))
_NAME_PARTS = frozenset(("word", "number", "variable"))


class Piece(NamedTuple):
    """`tokens` that stand together at one kind of place; only `glued` ones are several."""

    place: Place
    tokens: tuple[SqlToken, ...]


@dataclass(slots=True)
class _Level:
    """What is known inside one pair of brackets: the function before it, and the list that goes on."""

    function: str = ""
    list: str = ""


def pieces(sql: str) -> Iterator[Piece]:
    """Yield all of a SQL text in order, blanks and comments as `plain` too. Raises Unclosed.

    - `string`: quotes of any kind with a variable inside
    - `value`: a variable that stands alone; `after string`: where a literal would join a string
    - `table`, `column`, `alias`, `name`: a variable that names something (after FROM and the like,
      in GROUP BY and ORDER BY, after AS, beside a dot or after `::`)
    - `glued`: words and variables without a blank between, which are one name: `sales_${region}`
    """
    reader = _Reader()
    tokens = list(scan(sql, trivia=True))
    index = 0
    while index < len(tokens):
        end = _glued(tokens, index)
        yield reader.piece(tokens, index, end)
        index = end


def tables_expected(tokens: Sequence[SqlToken]) -> frozenset[int]:
    """Return the indices of the tokens that stand where a table is named; no token may be trivia."""
    reader = _Reader()
    found: set[int] = set()
    for index, token in enumerate(tokens):
        if reader.next == "table":
            found.add(index)
        reader.note(token)
    return frozenset(found)


def _glued(tokens: list[SqlToken], index: int) -> int:
    """The index after the tokens that make one name with the one at `index`."""
    end = index
    while end < len(tokens) and tokens[end].kind in _NAME_PARTS:
        end += 1
    has_variable = any(token.kind == "variable" for token in tokens[index:end])
    return end if has_variable else index + 1


class _Reader:
    def __init__(self) -> None:
        self.levels = [_Level()]
        self.before: tuple[str, str] = ("", "")  # kind and text, in capitals, of the last solid token
        self.word_before = ""
        self.next: Place = "value"

    def piece(self, tokens: list[SqlToken], start: int, end: int) -> Piece:
        token = tokens[start]
        if token.kind in ("space", "comment"):
            return Piece("plain", (token,))
        found = Piece(self._place(tokens, start, end), tuple(tokens[start:end]))
        self.note(
            token if end == start + 1 else SqlToken("variable", "", token.start, token.end, token.depth)
        )
        return found

    def _place(self, tokens: list[SqlToken], start: int, end: int) -> Place:
        token = tokens[start]
        if end > start + 1:
            return "glued"
        if token.kind in _STRINGS:
            return "string" if "${" in token.text else "plain"
        if token.kind != "variable":
            return "plain"
        neighbours = {tokens[i].kind for i in (start - 1, end) if 0 <= i < len(tokens)}
        if neighbours & _STRINGS or self.before[0] in ("text", "escaped"):
            return "after string"
        if self.before[1] in (".", "::") or (end < len(tokens) and tokens[end].text == "."):
            return "name"
        return self.next

    def note(self, token: SqlToken) -> None:
        word = token.text.upper() if len(token.text) < 12 else ""
        level = self.levels[-1]
        # What is said of the place before LATERAL or a bracket holds behind it.
        table_inside = self.next == "table" and word in ("LATERAL", "(")
        self.next = "table" if table_inside else "value"
        if token.kind == "open":
            function = self.before[1] if self.before[0] == "word" else ""
            self.levels.append(_Level(function, "table" if table_inside else ""))
        elif token.kind == "close" and len(self.levels) > 1:
            self.levels.pop()
        elif token.kind == "word":
            self._note_word(word, level)
        elif word == ",":
            self.next = {"table": "table", "column": "column"}.get(level.list, "value")  # type: ignore[assignment]
        elif word == ":" and self.before[1] == ":":
            word = "::"
        self.before = (token.kind, word)

    def _note_word(self, word: str, level: _Level) -> None:
        if word == "FROM" and (self.before[1] == "DISTINCT" or level.function in _FROM_A_VALUE):
            return
        if word in _ENDS_A_LIST:
            level.list = ""
        level.list = _LISTS.get(word, level.list)
        if word in _BEFORE_A_TABLE:
            self.next = "table"
        elif word == "BY":
            self.next = "column"
        elif word == "AS":
            self.next = "alias"
