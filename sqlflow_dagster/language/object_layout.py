"""A PARAMS or OPTIONS object as written → the same object laid out, its strings and numbers untouched."""

from __future__ import annotations

import re

from sqlflow_dagster.language.tokens import JSON, Token, next_token
from sqlflow_dagster.language.tree import Span

_WIDTH = 100
_INDENT = "    "
_LINE_END = re.compile(r"[\r\n]")


def laid_out(source: str, span: Span, indent: str, column: int) -> str:
    """Return the object at `span`, on one line where it fits and was not spread over several.

    `indent` is that of its statement, `column` where it begins.
    """
    return _laid(_Reader(source, span).node(), indent, column)


class _Node:
    """An object or array: its members with their keys, and whether its first stood on a new line."""

    def __init__(self, opening: str, spread: bool) -> None:
        self.opening, self.spread = opening, spread
        self.items: list[tuple[str, _Node | str]] = []


class _Reader:
    def __init__(self, source: str, span: Span) -> None:
        self.source, self.position = source, span.start

    def _take(self) -> Token:
        token = next_token(self.source, self.position, JSON)
        self.position = token.end
        return token

    def node(self) -> _Node | str:
        token = self._take()
        if token.kind != "mark" or token.text not in "{[":
            return token.text
        following = next_token(self.source, self.position, JSON)
        node = _Node(token.text, bool(_LINE_END.search(self.source, self.position, following.start)))
        closer = "}" if token.text == "{" else "]"
        while next_token(self.source, self.position, JSON).text != closer:
            key = ""
            if token.text == "{":
                key = f"{self._take().text}: "
                self._take()
            node.items.append((key, self.node()))
            if next_token(self.source, self.position, JSON).text == ",":
                self._take()
        self._take()
        return node


def _laid(node: _Node | str, indent: str, column: int) -> str:
    if isinstance(node, str):
        return node
    closing = "}" if node.opening == "{" else "]"
    if not node.items:
        return node.opening + closing
    line = _on_one_line(node)
    if line is not None and column + len(line) + 1 <= _WIDTH:
        return line
    inner = indent + _INDENT
    members = (inner + key + _laid(value, inner, len(inner) + len(key)) for key, value in node.items)
    return f"{node.opening}\n" + ",\n".join(members) + f"\n{indent}{closing}"


def _on_one_line(node: _Node | str) -> str | None:
    """The node's text on one line, None where a part of it was spread over several."""
    if isinstance(node, str):
        return node
    members = [(key, _on_one_line(value)) for key, value in node.items]
    if (node.items and node.spread) or any(text is None for _key, text in members):
        return None
    blank, closing = (" ", "}") if node.opening == "{" else ("", "]")
    if not members:
        return node.opening + closing
    return f"{node.opening}{blank}{', '.join(f'{key}{text}' for key, text in members)}{blank}{closing}"
