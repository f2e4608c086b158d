"""A file's text, read a token at a time: what stands next, what must stand next, what is wrong there."""

from __future__ import annotations

import difflib
import re
from bisect import bisect_right
from collections.abc import Sequence
from typing import NoReturn

from sqlflow_dagster.errors import Problem
from sqlflow_dagster.language.strings import BadEscape, malformed, unquote
from sqlflow_dagster.language.tokens import CLAUSE, Token, Unclosed, Unfinished, next_token
from sqlflow_dagster.language.tree import Span

# A longer line is not shown under a problem: its column says enough, and many problems on one long
# line would make a report that is longer than the square of the file.
_LONGEST_SHOWN = 400
_CLOSERS: dict[Unfinished, str] = {
    "string": "close it with the same quote; a quote inside it is written twice",
    "comment": "close it with */; comments nest",
    "dollar quote": "close it with the same $…$ it opens with",
}


class Wrong(Exception):
    """A production does not fit here; carries what the Problem needs."""

    def __init__(self, message: str, hint: str, start: int, end: int, resume: int | None = None) -> None:
        """Keep what is wrong, what to write instead, the place, and where to read on if that is known."""
        super().__init__(message)
        self.message, self.hint, self.start, self.end, self.resume = message, hint, start, end, resume


class Places:
    """Offsets of a text → lines and columns, each found in the time of one binary search."""

    def __init__(self, text: str, path: str) -> None:
        """Find the lines once."""
        self.text, self.path = text, path
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def span(self, start: int, end: int) -> Span:
        """Return the place of `text[start:end]`."""
        line = bisect_right(self._lines, start)
        return Span(start, end, line, start - self._lines[line - 1] + 1)

    def problem(self, start: int, end: int, message: str, hint: str = "") -> Problem:
        """Return a Problem at `text[start:end]`."""
        span = self.span(start, end)
        return Problem(
            path=self.path,
            line=span.line,
            column=span.column,
            message=message,
            hint=hint,
            source_line=self._shown(span.line),
            length=max(1, end - start),
        )

    def _shown(self, line: int) -> str:
        begin = self._lines[line - 1]
        end = self._lines[line] - 1 if line < len(self._lines) else len(self.text)
        return self.text[begin:end].rstrip("\r") if end - begin <= _LONGEST_SHOWN else ""


class Reader:
    """Reads tokens; `rules` says in which mode. All that is not as expected raises Wrong."""

    def __init__(self, text: str, path: str) -> None:
        """Begin at the text's beginning, in the mode of our clauses."""
        self.text = text
        self.places = Places(text, path)
        self.position = 0
        self.rules = CLAUSE
        self.depth = 0  # IFs around the reader
        self.in_sql = False  # what a wrong statement has behind it: for where to go on
        self.unclosed = 0  # strings and quotes that the end of the file cut off
        self.problems: list[Problem] = []
        self.unread: list[Span] = []  # statements that did not parse
        self._peeked: tuple[int, re.Pattern[str], Token] | None = None

    def peek(self) -> Token:
        """Return the next token without taking it."""
        if self._peeked and self._peeked[0] == self.position and self._peeked[1] is self.rules:
            return self._peeked[2]
        try:
            token = next_token(self.text, self.position, self.rules)
        except Unclosed as error:
            raise unclosed(error) from error
        self._peeked = (self.position, self.rules, token)
        return token

    def take(self) -> Token:
        """Take the next token."""
        token = self.peek()
        self.position = token.end
        return token

    def accept(self, *wanted: str) -> Token | None:
        """Take the next token where it is one of these keywords or marks."""
        token = self.peek()
        if (token.word or (token.text if token.kind == "mark" else "")) in wanted:
            self.position = token.end
            return token
        return None

    def expect(self, wanted: str, hint: str) -> Token:
        """Take the next token, which must be this keyword or mark."""
        return self.accept(wanted) or self.wrong(f"expected {wanted}, found {shown(self.peek())}", hint)

    def report(self, error: Wrong) -> None:
        """Record a problem and go on."""
        self.problems.append(self.places.problem(error.start, error.end, error.message, error.hint))

    def wrong(self, message: str, hint: str = "", token: Token | None = None) -> NoReturn:
        """Raise Wrong at a token, by default the next one."""
        token = token or self.peek()
        if token.kind == "broken":
            raise Wrong(
                "this string is never closed on its line", _CLOSERS["string"], token.start, token.start + 1
            )
        raise Wrong(message, hint, token.start, token.end)

    def lose(self, start: int) -> None:
        """Record that what stands between `start` and here could not be read."""
        self.unread.append(self.span(start))

    def span(self, start: int, end: int | None = None) -> Span:
        """Return the place from `start` to `end`, by default to where the reader is."""
        return self.places.span(start, self.position if end is None else end)

    def value_of(self, token: Token) -> str:
        """Return the value of a string token; its escapes and its variables must be well-formed."""
        try:
            value = unquote(token.text)
        except BadEscape as error:
            escape = str(error)
            start = token.start + token.text.index(escape)
            hint = r'a backslash is written \\ and a newline \n inside "…"'
            raise Wrong(f"{escape} is no escape", hint, start, start + len(escape)) from error
        self.check_variables(value, token)
        return value

    def check_variables(self, value: str, token: Token) -> None:
        """Raise Wrong where the value of `token` holds a `${` that begins no variable."""
        bad = malformed(value)
        if bad:
            start = max(token.start, self.text.find(bad, token.start, token.end))
            raise Wrong(*not_a_variable(bad), start, min(token.end, start + len(bad)))


def not_a_variable(bad: str) -> tuple[str, str]:
    """Return the message and the hint for a `${` that begins no variable."""
    return f"{bad} is no variable", "write ${name} or ${name|default}; $${ stands for the characters ${"


def unclosed(error: Unclosed) -> Wrong:
    """Return what is wrong with a string, comment or dollar quote that never ends."""
    return Wrong(f"this {error.what} is never closed", _CLOSERS[error.what], error.start, error.start + 1)


def shown(token: Token) -> str:
    """Return a token as a message shows it."""
    if token.kind == "end":
        return "the end of the file"
    text = token.text if len(token.text) <= 40 else token.text[:39] + "…"
    return text.replace("\n", " ")


def nearest(word: str, known: Sequence[str]) -> str | None:
    """Return a hint that names the nearest of the known words, None where none is near."""
    # Longer words are near to none, and comparing them takes the square of their length.
    near = difflib.get_close_matches(word.upper(), known, n=1) if len(word) < 30 else []
    return f"did you mean {near[0]}?" if near else None
