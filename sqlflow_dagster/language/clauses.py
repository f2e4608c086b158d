"""The small parts that statements share: names, tables, strings, MODE with its keys and LOOKBACK."""

from __future__ import annotations

import re

from sqlflow_dagster.language.objects import number
from sqlflow_dagster.language.reader import Reader, Wrong, nearest, shown
from sqlflow_dagster.language.tokens import QUOTED_NAME, VARIABLE, Token
from sqlflow_dagster.language.tree import Bare, Mode, ModeKind, Name, Table, Text
from sqlflow_dagster.sql import fold

LOAD_MODES = ("REPLACE", "APPEND", "UPSERT")
TRANSFORM_MODES = (*LOAD_MODES, "INCREMENTAL")

_UNITS = ["MICROSECOND", "MILLISECOND", "SECOND", "MINUTE", "HOUR", "DAY", "WEEK", "MONTH", "QUARTER", "YEAR"]
_UNIT = re.compile(rf"(?:{'|'.join(_UNITS)})S?", re.IGNORECASE)
_INTERVAL = re.compile(rf"\d+\s+{_UNIT.pattern}(?:\s+\d+\s+{_UNIT.pattern})*", re.IGNORECASE)
_ONE_VARIABLE = re.compile(VARIABLE)
_NAME_VARIABLE = re.compile(rf'(\$\$\{{|{VARIABLE})|""')
# What may be glued to a bare name only by mistake: `my-source`, `größe`.
_GLUED = re.compile(r"(?!--|/\*)[^\s.;,()\[\]{}=<>:*'\"]+")
_CONSTANTS: dict[str, bool | None] = {"TRUE": True, "FALSE": False, "NULL": None}


def name(reader: Reader, what: str) -> Name:
    """Name = letter { letter | digit | variable } | '"' … '"' ;"""
    token = reader.peek()
    if reader.text.startswith('"', token.start):
        return _quoted_name(reader, token)
    if token.kind == "name":
        glued = _GLUED.match(reader.text, token.end)
        if glued:
            text = reader.text[token.start : glued.end()]
            raise Wrong(
                f"{text} is no bare name", f'write "{text}" in double quotes', token.start, glued.end()
            )
        reader.take()
        return Name(token.text, reader.span(token.start))
    hint = "a name is letters, digits and _, or stands in double quotes"
    if token.kind == "text":
        hint = f'a name stands in double quotes: "{token.text[1:-1]}"'
    reader.wrong(f"expected {what}, found {shown(token)}", hint)


def _quoted_name(reader: Reader, token: Token) -> Name:
    match = QUOTED_NAME.match(reader.text, token.start)
    if match is None:
        raise Wrong("this name is never closed on its line", 'close it with "', token.start, token.start + 1)
    text = _NAME_VARIABLE.sub(lambda m: m.group(1) or '"', match.group()[1:-1])
    written = Token("text", match.group(), match.start(), match.end())
    if not text or any(ord(c) < 32 or ord(c) == 127 for c in text):
        reader.wrong("a name cannot be empty or hold control characters", "rename it", written)
    reader.check_variables(text, written)
    reader.position = match.end()
    return Name(text, reader.span(token.start))


def table(reader: Reader) -> Table:
    """Table = name [ "." name ] ;"""
    parts = [name(reader, "a table's name")]
    while reader.accept("."):
        parts.append(name(reader, "a table's name after the dot"))
    span = reader.span(parts[0].span.start)
    if len(parts) > 2:
        raise Wrong("a table's name has at most two parts", "write schema.table", span.start, span.end)
    return Table(tuple(parts), span)


def stream(reader: Reader) -> Name:
    """Stream = name { "." name } ; the parts are one name with dots in it, such as public.orders."""
    first = name(reader, "a stream's name after the dot")
    text = first.text
    while reader.accept("."):
        text += "." + name(reader, "a stream's name after the dot").text
    return Name(text, reader.span(first.span.start))


def string(reader: Reader, what: str, hint: str) -> Text:
    """String = "'" … "'" | '"' … '"' ;"""
    token = reader.peek()
    if token.kind != "text":
        reader.wrong(f"expected {what}, found {shown(token)}", hint)
    reader.take()
    return Text(reader.value_of(token), reader.span(token.start))


def value(reader: Reader) -> str | int | float | bool | None:
    """Value = string | number | "TRUE" | "FALSE" | "NULL" | name ; a bare name is text."""
    token = reader.take()
    match token.kind:
        case "text":
            found: str | int | float | bool | None = reader.value_of(token)
        case "number":
            found = number(token)
        case "name" if token.word in _CONSTANTS:
            found = _CONSTANTS[token.word]
        case "name":
            found = Bare(token.text) if _ONE_VARIABLE.fullmatch(token.text) else token.text
        case _:
            reader.wrong(f"expected a value, found {shown(token)}", 'write SET name = "value";', token)
    rest = _GLUED.match(reader.text, reader.position)
    if rest:
        text = reader.text[token.start : rest.end()]
        raise Wrong(f"{text} is no value as it stands", f'write "{text}"', token.start, rest.end())
    return found


def mode(reader: Reader, allowed: tuple[str, ...], *, keyless: bool = False) -> Mode:
    """Mode = "REPLACE" | "APPEND" | "UPSERT" "KEY" keys | "INCREMENTAL" "BY" column [ "LOOKBACK" lookback ] ;

    With `keyless` UPSERT may do without: the source's primary key is the key then.
    """
    token = reader.peek()
    if token.word not in allowed:
        hint = "INCREMENTAL BY is a mode of CREATE TABLE; a LOAD is incremental by its source's sync_mode"
        if token.word != "INCREMENTAL":
            hint = nearest(token.word, allowed) or f"write one of {', '.join(allowed)}"
        reader.wrong(f"expected a mode, found {shown(token)}", hint)
    reader.take()
    kind: ModeKind = token.word  # type: ignore[assignment]  # `allowed` holds only these
    if kind == "UPSERT" and not (keyless and reader.peek().text in (";", "")):
        reader.expect("KEY", "write MODE UPSERT KEY (column, …)")
        return Mode(kind, keys=keys(reader), span=reader.span(token.start))
    if kind == "INCREMENTAL":
        reader.expect("BY", "write MODE INCREMENTAL BY column")
        by = name(reader, "the column that tells the time")
        back = lookback(reader) if reader.accept("LOOKBACK") else None
        return Mode(kind, by=by, lookback=back, span=reader.span(token.start))
    return Mode(kind, reader.span(token.start, token.end))


def keys(reader: Reader) -> tuple[Name, ...]:
    """Keys = "(" column { "," column } [ "," ] ")" | column { "," column } ;"""
    bracket = reader.accept("(")
    columns = [name(reader, "a key column")]
    while reader.accept(","):
        if bracket and reader.peek().text == ")":
            break
        columns.append(name(reader, "a key column"))
    if bracket:
        reader.expect(")", "write KEY (column, …)")
    for index, column in enumerate(columns):
        if fold(column.text) in (fold(other.text) for other in columns[:index]):
            span = column.span
            raise Wrong(f"the key column {column.text} is given twice", "keep one", span.start, span.end)
    return tuple(columns)


def lookback(reader: Reader) -> str:
    """Lookback = number unit | string | variable [ unit ] ; units are SECONDS to YEARS.

    A number by itself is for a column of numbers, and stands in quotes: without them its unit was forgotten.
    """
    token = reader.take()
    text = reader.value_of(token).strip() if token.kind == "text" else token.text
    if token.kind != "text" and _UNIT.fullmatch(reader.peek().word):
        text = f"{text} {reader.take().word}"
    if "${" in text and token.kind in ("text", "name"):
        return text
    if token.kind == "text" and text.isdecimal():
        return text
    if not _INTERVAL.fullmatch(text):
        end = reader.peek().end if token.kind == "number" and reader.peek().kind == "name" else token.end
        raise Wrong(
            "LOOKBACK needs a whole number and a unit",
            "write LOOKBACK 7 DAYS, or LOOKBACK '12 hours'; for a column of numbers LOOKBACK '100'",
            token.start,
            end,
        )
    return " ".join(text.upper().split())
