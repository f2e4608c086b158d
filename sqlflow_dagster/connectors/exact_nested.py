"""A column of text and the nested type that a user declares for it → SQL that converts exactly or raises.

DuckDB's own casts round (`1.7` as INTEGER is 2), and that from JSON makes a double of a long number on the way.
Here the numbers of JSON become strings first, all parts are read as text, and each is converted as `casts` does it; the
cast still refuses a missing field, an unknown one, and what is no list or no object.
"""

from __future__ import annotations

import re

from sqlflow_dagster.connectors import casts, json_numbers, nested
from sqlflow_dagster.connectors.nested_sql import with_leaves
from sqlflow_dagster.errors import BadOption
from sqlflow_dagster.sql import Sql, literal, quote, sql

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
        sql("CAST({numbers} AS JSON)", numbers=marked(quote(name))),
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

    def leaf(text: Sql, kind: str, place: str) -> Sql:
        return _leaf(text, casts.type_name(kind), place, where)

    root = quote("_sqlflow_root")
    return sql(
        # A list of one, so that the text is read once, whatever the number of its parts.
        "CAST(list_transform([CAST({source} AS {texts})], lambda {root}: {value})[1] AS {kind})",
        source=source,
        texts=Sql(nested.name_of(nested.changed(parts, lambda _leaf: "VARCHAR"))),
        root=root,
        value=with_leaves(root, parts, leaf, name),
        kind=Sql(kind),
    )


def marked(text: Sql) -> Sql:
    """Return the text of JSON with its numbers as strings that are told from others."""
    return json_numbers.quoted(text, mark=_MARK)


def unmarked(text: Sql) -> Sql:
    """Return the text of JSON with marked numbers as they stood there."""
    return sql(
        "regexp_replace({text}, {marked}, {by}, 'g')", text=text, marked=literal(_MARKED), by=literal(r"\1")
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


def _leaf(text: Sql, kind: str, place: str, where: Sql) -> Sql:
    bare = sql("regexp_replace({text}, {mark}, '')", text=text, mark=literal(f"^{_MARK}"))
    if casts.is_scalar(kind) and not casts.is_text(kind):
        return casts.converted(place, kind, guessed=False, where=where, text=bare)
    return sql("CAST({whole} AS {kind})", whole=unmarked(bare), kind=Sql(kind))
