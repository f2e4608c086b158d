"""PARAMS and OPTIONS objects: JSON, with comments, trailing commas and variables without quotes."""

from __future__ import annotations

import math
from typing import Any

from sqlflow_dagster.language.reader import Reader, Wrong, shown
from sqlflow_dagster.language.tokens import CLAUSE, JSON, Token
from sqlflow_dagster.language.tree import Bare, Object, Span

_DEEPEST = 60
_LONGEST_NUMBER = 400
_CONSTANTS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
_PYTHON = {"True": "true", "False": "false", "None": "null", "TRUE": "true", "FALSE": "false", "NULL": "null"}


def read_object(reader: Reader) -> Object:
    """Object = "{" [ member { "," member } [ "," ] ] "}" ;

    Raises Wrong.
    """
    reader.rules = JSON
    try:
        start = reader.peek().start
        spans: dict[str, Span] = {}
        value = _object(reader, 0, spans)
        return Object(value, spans, reader.span(start))
    finally:
        reader.rules = CLAUSE


def _object(reader: Reader, depth: int, spans: dict[str, Span] | None = None) -> dict[str, Any]:
    """Object = "{" [ member { "," member } [ "," ] ] "}" ; member = string ":" value ;"""
    opening = reader.expect("{", 'write { "name": value, … }')
    members: dict[str, Any] = {}
    while not reader.accept("}"):
        key = _key(reader, members, opening)
        reader.expect(":", 'write "name": value')
        start = reader.peek().start
        members[key] = _value(reader, depth + 1)
        if spans is not None:
            spans[key] = reader.span(start)
        _separator(reader, "}", opening)
    return members


def _key(reader: Reader, members: dict[str, Any], opening: Token) -> str:
    token = reader.peek()
    if token.kind != "text":
        _missing(reader, "}", opening)
        hint = f'write "{token.text}"' if token.kind == "name" else 'write { "name": value, … }'
        reader.wrong(f"expected a name in double quotes, found {shown(token)}", hint)
    reader.take()
    key = reader.value_of(token)
    if key in members:
        reader.wrong(f"{token.text} is given twice", "keep one of them", token)
    return key


def _separator(reader: Reader, closer: str, opening: Token) -> None:
    if reader.accept(",") or reader.peek().text == closer:
        return
    _missing(reader, closer, opening)
    reader.wrong(f"expected , or {closer}, found {shown(reader.peek())}", "separate the parts with commas")


def _missing(reader: Reader, closer: str, opening: Token) -> None:
    """Where the statement or the file ends too early, the opening bracket is what is wrong."""
    if reader.peek().kind == "end" or reader.peek().text == ";":
        reader.wrong(f"this {opening.text} is never closed", f"close it with {closer}", opening)


def _value(reader: Reader, depth: int) -> Any:
    """Value = object | "[" [ value { "," value } [ "," ] ] "]" | scalar ;"""
    token = reader.peek()
    if depth > _DEEPEST:
        reader.wrong(f"this is nested more than {_DEEPEST} deep", "flatten it")
    if token.kind == "mark" and token.text == "{":
        return _object(reader, depth)
    if token.kind == "mark" and token.text == "[":
        return _array(reader, depth)
    return _scalar(reader)


def _array(reader: Reader, depth: int) -> list[Any]:
    opening = reader.take()
    items: list[Any] = []
    while not reader.accept("]"):
        _missing(reader, "]", opening)
        items.append(_value(reader, depth + 1))
        _separator(reader, "]", opening)
    return items


def _scalar(reader: Reader) -> str | int | float | bool | None:
    """Scalar = string | number | "true" | "false" | "null" | variable ;"""
    token = reader.peek()
    if token.kind == "text":
        reader.take()
        return reader.value_of(token)
    if token.kind == "number":
        return number(reader.take())
    if token.kind == "name" and token.text in _CONSTANTS:
        reader.take()
        return _CONSTANTS[token.text]
    if token.kind == "name" and token.text.startswith("$"):
        reader.take()
        return Bare(token.text)
    reader.wrong(f"expected a value, found {shown(token)}", _hint(token))


def _hint(token: Token) -> str:
    if token.text in _PYTHON:
        return f"write {_PYTHON[token.text]}"
    if token.kind == "other" and token.text[0] == "'":
        return "strings of an object stand in double quotes"
    if token.kind == "name":
        return f'a string stands in double quotes: "{token.text}"'
    return "write a string in double quotes, a number, true, false, null, [ … ] or { … }"


def number(token: Token) -> int | float:
    """Return the value of a number token. Raises Wrong for one that no computer number can hold."""
    text = token.text
    try:
        value = int(text) if text.lstrip("+-").isdecimal() else float(text)
    except ValueError:  # Python refuses integers of several thousand digits
        value = math.inf
    if len(text) > _LONGEST_NUMBER or not math.isfinite(value):
        raise Wrong("this number is too large", "write it as a string", token.start, token.end)
    return value
