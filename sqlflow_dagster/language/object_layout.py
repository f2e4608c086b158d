"""A PARAMS or OPTIONS object as written → the same object laid out; strings, numbers and comments untouched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from sqlflow_dagster.language.tokens import JSON, Token, block_end
from sqlflow_dagster.language.tree import Span

_WIDTH = 100
_INDENT = "    "
_LINE_END = re.compile(r"[\r\n]")


def laid_out(source: str, span: Span, indent: str, column: int) -> str:
    """Return the object at `span`, on one line where it fits, was not spread and has no comment.

    `indent` is that of its statement, `column` where it begins.
    """
    return _laid(_Reader(source, span).value(), indent, column)


@dataclass
class _Node:
    """An object or array; `spread` says that its first member stood on a new line.

    `closing` are the comments before its end.
    """

    opening: str
    spread: bool = False
    members: list[_Member] = field(default_factory=list)
    closing: list[str] = field(default_factory=list)


@dataclass
class _Member:
    """A value with its key, the comments on lines above it, and those behind it on its line."""

    key: str
    value: _Node | str
    above: list[str]
    behind: list[str] = field(default_factory=list)

    def takes_behind(self) -> bool:
        """Whether another comment may stand on its line."""
        return not (self.behind and self.behind[-1].startswith("--"))


class _Reader:
    def __init__(self, source: str, span: Span) -> None:
        self.source, self.position = source, span.start
        self.comments: list[str] = []  # those before the next token that no member has taken
        self.last: _Member | None = None  # the member that may take a comment behind it
        self.token = self._next()

    def _next(self) -> Token:
        """The next token; a comment on the last member's line goes behind that."""
        new_line = False
        while match := JSON.match(self.source, self.position):
            start, kind = self.position, match.lastgroup or ""
            self.position = block_end(self.source, start) if kind == "block" else match.end()
            if kind == "space":
                new_line = new_line or _LINE_END.search(match.group()) is not None
            elif kind in ("block", "comment"):
                self._comment(self.source[start : self.position].rstrip(), new_line=new_line)
            else:
                self.new_line = new_line
                return Token(kind, match.group(), start, self.position)
        return Token("end", "", self.position, self.position)

    def _comment(self, text: str, *, new_line: bool) -> None:
        behind = self.last if not new_line and not self.comments else None
        if behind and behind.takes_behind():
            behind.behind.append(text)
        else:
            self.comments.append(text)

    def _take(self) -> str:
        text = self.token.text
        self.token = self._next()
        return text

    def _taken_comments(self) -> list[str]:
        comments, self.comments = self.comments, []
        return comments

    def value(self) -> _Node | str:
        """Read a value that ends before `self.token`, but for the outermost, behind which nothing is read."""
        if self.token.kind != "mark" or self.token.text not in "{[":
            return self._take()
        node = _Node(self.token.text)
        closer = "}" if node.opening == "{" else "]"
        self.last = None
        self._take()
        node.spread = self.new_line
        while self.token.text != closer:
            node.members.append(self._member(node.opening))
        node.closing = self._taken_comments()
        self.last = None
        return node

    def _member(self, opening: str) -> _Member:
        above = self._taken_comments()
        self.last = None
        key = ""
        if opening == "{":
            key = f"{self._take()}: "
            self._take()
        member = _Member(key, "", above)
        if self.token.kind == "mark" and self.token.text in "{[":
            above += self._taken_comments()
            member.value = self.value()
            self.last = member
            self._take()
        else:
            above += self._taken_comments()
            self.last = member
            member.value = self._take()
        if self.token.text == ",":
            self._take()
        return member


def _laid(node: _Node | str, indent: str, column: int) -> str:
    if isinstance(node, str):
        return node
    closing = "}" if node.opening == "{" else "]"
    line = _on_one_line(node)
    if line is not None and (column + len(line) + 1 <= _WIDTH or not node.members):
        return line
    return "\n".join([node.opening, *_lines(node, indent + _INDENT), f"{indent}{closing}"])


def _lines(node: _Node, indent: str) -> Iterator[str]:
    for member in node.members:
        yield from (indent + comment for comment in member.above)
        comma = "" if member is node.members[-1] else ","
        text = _laid(member.value, indent, len(indent) + len(member.key))
        yield " ".join((f"{indent}{member.key}{text}{comma}", *member.behind))
    yield from (indent + comment for comment in node.closing)


def _on_one_line(node: _Node | str) -> str | None:
    """The node's text on one line, None where a part of it was spread over several or has a comment."""
    if isinstance(node, str):
        return node
    members = [(member.key, _on_one_line(member.value)) for member in node.members]
    commented = node.closing or any(member.above or member.behind for member in node.members)
    if commented or (members and node.spread) or any(text is None for _key, text in members):
        return None
    blank, closing = (" ", "}") if node.opening == "{" else ("", "]")
    if not members:
        return node.opening + closing
    return f"{node.opening}{blank}{', '.join(f'{key}{text}' for key, text in members)}{blank}{closing}"
