"""The columns of an EXPORT → the text of one JSON object a row, in which no number loses a digit.

DuckDB makes a double of each number inside a column of JSON, and writes `NaN` and `Infinity`, which JSON has not. Here
numbers that are too long for a double stand as they are, and those are the texts `"NaN"`, `"Infinity"`, `"-Infinity"`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from sqlflow_dagster.connectors import exact_nested, json_numbers, nested
from sqlflow_dagster.connectors.nested_sql import with_leaves
from sqlflow_dagster.sql import Sql, join, literal, quote, sql

_NO_FORMATS: Mapping[str, str | None] = {}
# COPY's options for lines of such text: no character of it is changed.
LINES = sql(
    "FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER {line}",
    line=literal("\n"),
)
ARRAY = sql(
    "{lines}, PREFIX {before}, SUFFIX {after}, NEW_LINE {between}",
    lines=LINES,
    before=literal("[\n\t"),
    after=literal("\n]\n"),
    between=literal(",\n\t"),
)


def row(columns: Mapping[str, str], formats: Mapping[str, str | None] = _NO_FORMATS) -> Sql:
    """Return the text of a row's object; `formats` are those of DATE and TIMESTAMP, in strftime's letters."""
    pairs = [
        sql("{key}: {value}", key=literal(name), value=_value(name, kind, formats))
        for name, kind in columns.items()
    ]
    return _text(sql("{{{pairs}}}", pairs=join(", ", pairs)), columns.values())


def value(name: str, kind: str) -> Sql:
    """Return the text of a column's value as JSON, in which NaN and Infinity stay what no JSON reader takes."""
    return _text(_value(name, kind, _NO_FORMATS, named=False), [kind])


def _text(value: Sql, kinds: Iterable[str]) -> Sql:
    text = sql("CAST(to_json({value}) AS VARCHAR)", value=value)
    # Numbers inside JSON went through DuckDB as marked texts.
    return exact_nested.unmarked(text) if any("JSON" in kind for kind in kinds) else text


def _value(name: str, kind: str, formats: Mapping[str, str | None], *, named: bool = True) -> Sql:
    """The value to make JSON of; `named` says that NaN and Infinity become their names."""

    def leaf(value: Sql, kind: str, _place: str) -> Sql:
        if kind == "JSON":
            return _as_it_stands(value, named=named)
        if kind == "FLOAT":
            # As a double it would have digits that the float has not: 0.10000000149011612.
            value = sql("CAST(CAST({value} AS VARCHAR) AS DOUBLE)", value=value)
        if kind in ("FLOAT", "DOUBLE"):
            return _number(value) if named else value
        asked = formats.get("TIMESTAMP" if kind.startswith("TIMESTAMP") else kind)
        return sql("strftime({value}, {asked})", value=value, asked=literal(asked)) if asked else value

    try:
        parts = nested.parsed(kind)
    except ValueError:
        return quote(name)
    return with_leaves(quote(name), parts, leaf, name, keys=False)


def _as_it_stands(value: Sql, *, named: bool) -> Sql:
    # The patterns of numbers want something after each.
    text = sql("(CAST({value} AS VARCHAR) || ' ')", value=value)
    return sql(
        "CASE WHEN {odd} THEN CAST({marked} AS JSON) ELSE {value} END",
        odd=json_numbers.may_change(text),
        marked=exact_nested.marked(json_numbers.finite(text) if named else text),
        value=value,
    )


def _number(value: Sql) -> Sql:
    return sql(
        "CASE WHEN isfinite({value}) THEN to_json({value}) WHEN isnan({value}) THEN to_json('NaN')"
        " WHEN {value} > 0 THEN to_json('Infinity') WHEN {value} < 0 THEN to_json('-Infinity') END",
        value=value,
    )
