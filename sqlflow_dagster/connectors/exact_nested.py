"""A column of text and the nested type that a user declares for it → SQL that converts exactly or raises.

DuckDB's own casts round (`1.7` as INTEGER is 2), and that from JSON makes a double of a long number on the way.
Here the numbers of JSON become strings first, all parts are read as text, and each is converted as `casts` does it; the
cast still refuses a missing field, an unknown one, and what is no list or no object.
"""

from __future__ import annotations

import re

from sqlflow_dagster.connectors import casts, json_numbers, nested
from sqlflow_dagster.connectors.nested import Items, Map, Struct
from sqlflow_dagster.errors import BadOption
from sqlflow_dagster.sql import Sql, join, literal, quote, sql

# Tells a number from a string where a part is itself JSON, or text; no string begins so by chance.
_MARK = "_sqlflow_number:"
_MARKED = rf'"{_MARK}(-?[0-9][0-9.eE+-]*)"'


def declared(name: str, kind: str) -> Sql:
    """Return the value of the declared type `kind` in the column `name`, whose text is JSON.

    Raises BadOption for a text that is no type.
    """
    return _exact(
        name,
        kind,
        sql("CAST({numbers} AS JSON)", numbers=json_numbers.quoted(quote(name), mark=_MARK)),
        literal("types"),
    )


def from_text(name: str, kind: str, where: Sql) -> Sql:
    """Return the value of the declared type `kind` in the column `name`, whose text is JSON, or as DuckDB shows values.

    `where` names the place in messages. Blank text is NULL. Raises BadOption for a text that is no type.
    """
    return _exact(name, kind, sql("nullif(trim({c}), '')", c=quote(name)), where)


def _exact(name: str, kind: str, source: Sql, where: Sql) -> Sql:
    try:
        parts = nested.parsed(kind)
    except (ValueError, IndexError):
        raise BadOption(f"types: {kind!r} is no type", option="types") from None
    root = quote("_sqlflow_root")
    return sql(
        # A list of one, so that the text is read once, whatever the number of its parts.
        "CAST(list_transform([CAST({source} AS {texts})], lambda {root}: {value})[1] AS {kind})",
        source=source,
        texts=Sql(nested.name_of(nested.changed(parts, lambda _leaf: "VARCHAR"))),
        root=root,
        value=_value(root, parts, name, where, 0),
        kind=Sql(kind),
    )


def shown(message: str) -> str:
    """Return DuckDB's message about a value with its numbers as they stand there."""
    return re.sub(_MARKED, r"\1", message)


def is_nested(kind: str) -> bool:
    """Whether the type is of lists, objects or maps."""
    return kind.endswith("]") or kind.upper().startswith(("STRUCT(", "MAP("))


def is_flat(kind: str) -> bool:
    """Whether the type is of lists alone, whose values can be read from text without loss."""
    return casts.is_scalar(kind.replace("[]", ""))


def _value(text: Sql, kind: nested.Type, place: str, where: Sql, depth: int) -> Sql:
    """The value whose parts `text` has as texts; `place` is where it stands, for people."""
    match kind:
        case Struct(fields):
            packed = join(
                ", ",
                (
                    sql(
                        "{name} := {value}",
                        name=quote(name),
                        value=_value(_field(text, name), inner, f"{place}.{name}", where, depth),
                    )
                    for name, inner in fields.items()
                ),
            )
            return sql(
                "CASE WHEN {text} IS NOT NULL THEN struct_pack({packed}) END", text=text, packed=packed
            )
        case Items(item):
            each = quote(f"_sqlflow_e{depth}")
            return sql(
                "list_transform({text}, lambda {each}: {value})",
                text=text,
                each=each,
                value=_value(each, item, place, where, depth + 1),
            )
        case Map(value, key):
            each = quote(f"_sqlflow_e{depth}")
            pair = {
                part: _value(_field(each, part), inner, place, where, depth + 1)
                for part, inner in (("key", key), ("value", value))
            }
            return sql(
                "map_from_entries("
                "list_transform(map_entries({text}), lambda {each}: {{'key': {key}, 'value': {value}}}))",
                text=text,
                each=each,
                **pair,
            )
        case str():
            return _leaf(text, casts.type_name(kind), place, where)


def _field(value: Sql, name: str) -> Sql:
    return sql("struct_extract({value}, {name})", value=value, name=literal(name))


def _leaf(text: Sql, kind: str, place: str, where: Sql) -> Sql:
    bare = sql("regexp_replace({text}, {mark}, '')", text=text, mark=literal(f"^{_MARK}"))
    if casts.is_scalar(kind) and not casts.is_text(kind):
        return casts.converted(place, kind, guessed=False, where=where, text=bare)
    whole = sql(
        "regexp_replace({bare}, {marked}, {by}, 'g')", bare=bare, marked=literal(_MARKED), by=literal(r"\1")
    )
    return sql("CAST({whole} AS {kind})", whole=whole, kind=Sql(kind))
