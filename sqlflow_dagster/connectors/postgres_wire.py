"""A DuckDB column → the type that it has in Postgres, and the expression that writes it there exactly.

Rows go in Postgres' binary COPY format, which DuckDB's postgres_scanner writes. What that format does
not know goes as text that Postgres reads back, into a column of the right type by a cast there.

- Unsigned and huge integers take the next wider type; `HUGEINT` is `numeric`.
- `JSON`, and structs and maps as JSON, are `jsonb`: its binary form is a 1 and the text.
- A time before 4714 BC would come out as another one: it is refused. So is a part of a nanosecond.
- A list is an array; of elements that the format does not know, by way of Postgres' text for arrays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from sqlflow_dagster.connectors import json_sink
from sqlflow_dagster.errors import ExportFailed
from sqlflow_dagster.sql import Sql, fold, literal, quote, sql

_AS_IT_IS = {
    "BOOLEAN": "boolean", "SMALLINT": "smallint", "INTEGER": "integer", "BIGINT": "bigint", "FLOAT": "real",
    "DOUBLE": "double precision", "VARCHAR": "text", "BLOB": "bytea", "DATE": "date", "TIME": "time",
    "TIME WITH TIME ZONE": "timetz", "INTERVAL": "interval", "UUID": "uuid",
}  # fmt: skip
_WIDER = {"TINYINT": "SMALLINT", "UTINYINT": "SMALLINT", "USMALLINT": "INTEGER", "UINTEGER": "BIGINT"}
_TEXT_OF = {"HUGEINT": "numeric", "UHUGEINT": "numeric", "BIGNUM": "numeric", "BIT": "varbit"}
_TIMES = {
    "TIMESTAMP": "timestamp", "TIMESTAMP_S": "timestamp", "TIMESTAMP_MS": "timestamp",
    "TIMESTAMP WITH TIME ZONE": "timestamptz",
}  # fmt: skip
_ELEMENTS = {
    **{kind: name for kind, name in _AS_IT_IS.items() if kind != "VARCHAR"}, "VARCHAR": "varchar",
}  # fmt: skip
_LIMITED = re.compile(r"character varying\((\d+)\)")
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_NAME_BYTES = 63
# Digits behind the point that the format keeps: it counts them in fours, of which 38 make too many.
_SCALE = 36
_JSONB = "chr(1) || "


@dataclass(frozen=True, slots=True)
class Wire:
    """How a column goes: the DuckDB expression, its type on the way, and the one it has at the end.

    `base` is what `final` is a domain over, as far as it is one.
    """

    name: str
    value: Sql
    sent: str
    final: str
    base: str = ""


def wires(columns: Mapping[str, str], declared: Mapping[str, str]) -> list[Wire]:
    """Return how each column goes; `declared` are the Postgres types that the user wants.

    Raises ExportFailed for names that Postgres would cut off, and for columns declared but not there.
    """
    folded = {fold(name): kind for name, kind in declared.items()}
    unknown = [name for name in declared if fold(name) not in {fold(column) for column in columns}]
    if unknown:
        raise ExportFailed(
            f"types: the query gives no column {', '.join(unknown)}; it gives {', '.join(columns)}"
        )
    return [
        _final(check_name(name), _wire(name, kind), folded.get(fold(name))) for name, kind in columns.items()
    ]


def as_json(wire: Wire) -> Wire:
    """Return how a column goes that is to be `json`, which keeps its text, and not `jsonb`."""
    if wire.sent != "jsonb":
        return wire
    return replace(wire, value=Sql(wire.value.removeprefix(_JSONB)), sent="json")


def as_it_fits(wire: Wire) -> Wire:
    """Return how a text goes to a column that would cut off blanks at its end without a word."""
    limit = _LIMITED.fullmatch(wire.final)
    if limit is None or wire.sent != "text":
        return wire
    problem = literal(
        f'the column "{wire.name}" is {wire.final}, which cannot hold so many blanks at the end of a text; trim it in '
        "the query, or mend the table"
    )
    value = sql(
        "CASE WHEN length({v}) > {n} AND length(rtrim({v}, ' ')) <= {n} THEN error({problem}) ELSE {v} END",
        v=wire.value,
        n=Sql(limit[1]),
        problem=problem,
    )
    return replace(wire, value=value)


def without_nul(wire: Wire) -> Sql:
    """Return the column's value, or where it has a NUL an error that names the column."""
    problem = (
        f'the column "{wire.name}" holds a text with a NUL, which Postgres has not; take it out by replace(…)'
    )
    return sql(
        "CASE WHEN contains(CAST({v} AS VARCHAR), chr(0)) THEN error({problem}) ELSE {v} END",
        v=wire.value,
        problem=literal(problem),
    )


def check_name(name: str) -> str:
    """Return a name that Postgres keeps whole. Raises ExportFailed for a longer one."""
    if len(name.encode()) > _NAME_BYTES:
        raise ExportFailed(
            f"the name {name!r} is longer than Postgres keeps ({_NAME_BYTES} bytes); give a shorter one by AS"
        )
    return name


def _final(name: str, wire: Wire, declared: str | None) -> Wire:
    return Wire(name, wire.value, wire.sent, declared or wire.final)


def _wire(name: str, kind: str, value: Sql | None = None) -> Wire:
    """How a column goes, or the `value` of its name."""
    c = value or quote(name)
    decimal = _DECIMAL.fullmatch(kind)
    if kind in _AS_IT_IS:
        sent = _AS_IT_IS[kind]
        return Wire(name, c, sent, sent)
    if kind in _WIDER:
        sent = _AS_IT_IS[_WIDER[kind]]
        return Wire(name, sql("CAST({c} AS {kind})", c=c, kind=Sql(_WIDER[kind])), sent, sent)
    if decimal:
        sent = f"numeric({decimal[1]},{decimal[2]})"
        if int(decimal[2]) > _SCALE:
            return Wire(name, sql("CAST({c} AS VARCHAR)", c=c), "text", sent)
        return Wire(name, c, sent, sent)
    if kind == "TIMESTAMP_NS" or kind in _TIMES:
        value = _in_range(c, name, kind) if kind in _TIMES else _whole_microseconds(c, name)
        sent = _TIMES.get(kind, "timestamp")
        return Wire(name, value, sent, sent)
    return _array(name, kind.removesuffix("[]")) if kind.endswith("[]") else _by_text(name, kind)


def _by_text(name: str, kind: str) -> Wire:
    c = quote(name)
    if kind == "UBIGINT":
        return Wire(name, sql("CAST({c} AS DECIMAL(20,0))", c=c), "numeric(20,0)", "numeric(20,0)")
    if kind in _TEXT_OF:
        return Wire(name, sql("CAST({c} AS VARCHAR)", c=c), "text", _TEXT_OF[kind])
    if kind == "JSON" or kind.startswith(("STRUCT(", "MAP(", "UNION(")) or kind.endswith("]"):
        text = sql("CAST({c} AS VARCHAR)", c=c) if kind == "JSON" else json_sink.value(name, kind)
        return Wire(name, sql(_JSONB + "{text}", text=text), "jsonb", "jsonb")
    return Wire(name, sql("CAST({c} AS VARCHAR)", c=c), "text", "text")


def _array(name: str, element: str) -> Wire:
    c = quote(name)
    if element in _ELEMENTS:
        sent = f"{_ELEMENTS[element]}[]"
        return Wire(name, c, sent, sent.replace("varchar", "text"))
    if element in _WIDER or element in _TIMES or element == "TIMESTAMP_NS":
        each = _wire(name, element, Sql("x"))
        sent = f"{each.sent}[]"
        return Wire(name, sql("list_transform({c}, lambda x: {v})", c=c, v=each.value), sent, sent)
    one = _by_text("x", element) if not element.endswith("]") else None
    decimal = _DECIMAL.fullmatch(element)
    if one is None or (one.final == "jsonb" and element != "JSON"):
        return _by_text(name, f"{element}[]")
    final = f"numeric({decimal[1]},{decimal[2]})" if decimal else one.final
    # Each element in quotes, so that none is taken for NULL or for a bracket.
    text = sql(
        "'{{' || array_to_string(list_transform({c}, lambda x: CASE WHEN x IS NULL THEN 'NULL' ELSE '\"' ||"
        " replace(replace(CAST(x AS VARCHAR), '\\', '\\\\'), '\"', '\\\"') || '\"' END), ',') || '}}'",
        c=c,
    )
    return Wire(name, text, "text", f"{final}[]")


def _in_range(c: Sql, name: str, kind: str) -> Sql:
    problem = literal(f'the column "{name}" holds a time before 4714 BC, which Postgres does not have')
    return sql(
        "CASE WHEN {c} < CAST('4714-11-24 (BC) 00:00:00' AS {kind}) AND isfinite({c}) THEN error({problem})"
        " ELSE {c} END",
        c=c if kind in ("TIMESTAMP", "TIMESTAMP WITH TIME ZONE") else sql("CAST({c} AS TIMESTAMP)", c=c),
        kind=Sql("TIMESTAMP WITH TIME ZONE" if "ZONE" in kind else "TIMESTAMP"),
        problem=problem,
    )


def _whole_microseconds(c: Sql, name: str) -> Sql:
    problem = literal(
        f'the column "{name}" has nanoseconds, which Postgres does not keep; CAST it to TIMESTAMP, or to VARCHAR'
    )
    return sql(
        "CASE WHEN isfinite({c}) AND epoch_ns({c}) % 1000 <> 0 THEN error({problem}) ELSE CAST({c} AS TIMESTAMP) END",
        c=c,
        problem=problem,
    )
