"""A Postgres column as the text that the replication log has → its DuckDB value, as a snapshot reads it.

The log says of each value what Postgres itself would show, in a session with ISO dates, UTC and C's money.
`travel` decides what a column becomes; here is how its text gets there, so that a row is the same whether it
was read or logged.
"""

from __future__ import annotations

import json
import re
from typing import Any

from sqlflow_dagster.connectors import casts
from sqlflow_dagster.connectors.postgres_types import Column, Type, from_json
from sqlflow_dagster.connectors.sql_select import Travel
from sqlflow_dagster.errors import BadOption, SourceFailed
from sqlflow_dagster.sql import Sql, literal, quote, sql

_PLAIN = frozenset({"bool", "int2", "int4", "int8", "float4", "float8", "time", "timetz", "uuid", "oid"})
_TEXTS = frozenset({"text", "varchar", "name"})
_TIMES = frozenset({"date", "timestamp", "timestamptz"})
_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|([{}])|([^{},;"]+)', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ELEMENT = "_sqlflow_e"
# DuckDB reads none of the signs of `-1 years +2 days`, and fewer hours than there may be.
_INTERVAL = (
    "to_months({years} * 12 + {months}) + to_days({days}) + to_microseconds({sign} * ("
    "{hours} * 3600000000 + {minutes} * 60000000 + CAST(CAST({seconds} AS DECIMAL(9,6)) * 1000000 AS BIGINT)))"
)


def from_text(travel: Travel[Column], *, declared: bool, money_digits: int) -> Sql:
    """Return the expression over the text column that gives a column's value; `declared` by the user.

    A list comes as the text that `array_text` makes.

    Raises BadOption where a declared type cannot be had from the log.
    """
    column, kind = quote(travel.column.name), travel.column.type
    if declared:
        return _declared(travel)
    if is_list(travel):
        element = kind.element or kind
        inner = _value(quote(_ELEMENT), element, travel.kind.removesuffix("[]"), money_digits)
        return sql(
            "list_transform(CAST(CAST({c} AS JSON) AS VARCHAR[]), lambda {e}: {inner})",
            c=column,
            e=quote(_ELEMENT),
            inner=inner,
        )
    value = _value(column, kind, travel.kind, money_digits)
    if kind.name == "numeric" and travel.kind.startswith("DECIMAL"):
        return sql(
            "CASE WHEN {c} = 'NaN' THEN {problem} ELSE {v} END", c=column, problem=_error(travel), v=value
        )
    return value


def is_list(travel: Travel[Column]) -> bool:
    """Whether the log's text of a column has to go through `array_text`."""
    return travel.column.type.element is not None and not casts.is_text(travel.kind)


def array_text(text: str, travel: Travel[Column], label: str) -> str:
    """Return an array's text as JSON text: a list of texts and nulls.

    Raises SourceFailed for an array that no list of this column's type holds.
    """
    element = travel.column.type.element
    delimiter = ";" if element and element.shown == "box" else ","
    found = _array(text, delimiter) if text.startswith("{") else None
    nested = found is not None and any(isinstance(item, list) for item in found)
    if found is None or (nested and not travel.kind.endswith("[][]")):
        name = travel.column.name
        raise SourceFailed(
            f"{label}: the column {name!r} holds an array of several dimensions, or whose first index is not 1, so "
            f'that it is no {travel.kind}; set "types": {{"{name}": "VARCHAR"}} to load it as Postgres writes it, '
            "then run with --full-refresh"
        )
    return json.dumps(found, ensure_ascii=False)


def _array(text: str, delimiter: str) -> list[Any]:
    body = text[1:-1]
    if not body:
        return []
    if '"' not in body and "{" not in body:
        return [None if item == "NULL" else item for item in body.split(delimiter)]
    stack: list[list[Any]] = [[]]
    pattern = _TOKEN if delimiter == "," else re.compile(_TOKEN.pattern.replace("{},;", "{};"), re.DOTALL)
    for quoted, brace, bare in pattern.findall(text):
        if brace == "{":
            stack.append([])
        elif brace:
            stack[-2].append(stack.pop())
        elif bare:
            stack[-1].append(None if bare == "NULL" else bare)
        else:
            stack[-1].append(_ESCAPED.sub(r"\1", quoted))
    found: list[Any] = stack[0][0]
    return found


def _declared(travel: Travel[Column]) -> Sql:
    name, kind = travel.column.name, travel.kind
    if casts.is_text(kind) or casts.is_scalar(kind):
        return casts.converted(name, kind, guessed=False, where=literal("types"))
    if travel.column.type.name in ("json", "jsonb") or travel.column.type.element is not None:
        return from_json(name, kind)
    raise BadOption(
        f"types: the log has {name!r} as Postgres writes a {travel.column.type.shown}, which cannot be read as "
        f"{kind}; leave it VARCHAR, and take it apart in a CREATE TABLE … AS",
        option="types",
    )


def _value(text: Sql, kind: Type, wanted: str, money_digits: int) -> Sql:  # noqa: PLR0911 - one for each family
    """One value of a type; `wanted` is what it becomes."""
    name = kind.name
    if name in _PLAIN or (wanted.startswith("DECIMAL") and name == "numeric"):
        return sql("CAST({c} AS {kind})", c=text, kind=Sql(wanted))
    if name == "bpchar":
        return sql("rtrim({c}, ' ')", c=text)
    if name in _TIMES:
        before = sql("regexp_replace({c}, '^(\\S+)(.*) BC$', '\\1 (BC)\\2')", c=text)
        return sql("CAST({c} AS {kind})", c=before, kind=Sql(wanted))
    if name == "bytea":
        return sql("unhex(substr({c}, 3))", c=text)
    if name == "interval":
        return sql("CASE WHEN {c} IS NOT NULL THEN {v} END", c=text, v=_interval(text))
    if name in ("json", "jsonb"):
        return sql("CAST({c} AS JSON)", c=text)
    if name == "money" and wanted.startswith("DECIMAL"):
        return _money(text, wanted, money_digits)
    if name == "numeric" and wanted == "DOUBLE":
        return sql("CAST({c} AS DOUBLE)", c=text)
    return text


def _interval(text: Sql) -> Sql:
    def part(pattern: str, kind: str) -> Sql:
        return sql(
            "CAST(coalesce(nullif(regexp_extract({c}, {p}, 1), ''), '0') AS {kind})",
            c=text,
            p=literal(pattern),
            kind=Sql(kind),
        )

    return sql(
        _INTERVAL,
        years=part(r"([+-]?\d+) years?", "INTEGER"),
        months=part(r"([+-]?\d+) mons?", "INTEGER"),
        days=part(r"([+-]?\d+) days?", "INTEGER"),
        sign=sql("CASE WHEN regexp_matches({c}, '-\\d+:\\d') THEN -1 ELSE 1 END", c=text),
        hours=part(r"(\d+):\d\d:", "BIGINT"),
        minutes=part(r"\d+:(\d\d):", "BIGINT"),
        seconds=part(r"\d+:\d\d:(\d\d(?:\.\d+)?)$", "VARCHAR"),
    )


def _money(text: Sql, wanted: str, digits: int) -> Sql:
    """C writes two digits behind the point, whatever the server's own money has there."""
    signed = sql(
        "(CASE WHEN {c} LIKE '%-%' THEN '-' ELSE '' END || repeat('0', greatest(0, {least} - length({d}))) || {d})",
        c=text,
        d=sql("regexp_replace({c}, '[^0-9]', '', 'g')", c=text),
        least=literal(digits + 1),
    )
    return sql(
        "CAST(left({s}, length({s}) - {n}) || '.' || right({s}, {n}) AS {kind})",
        s=signed,
        n=literal(digits),
        kind=Sql(wanted),
    )


def _error(travel: Travel[Column]) -> Sql:
    name = travel.column.name
    return sql(
        "CAST(error({text}) AS {kind})",
        text=literal(
            f"the column {name!r} holds NaN, so that it is no {travel.kind}; set "
            f'"types": {{"{name}": "VARCHAR"}} to load it as Postgres writes it, then run with --full-refresh'
        ),
        kind=Sql(travel.kind),
    )
