"""Values as JSON has them → the DuckDB type that holds each of them as it is, and its text there.

Whole numbers of more than 64 bits are DECIMAL, those of more than 38 digits text; values of several
kinds are text, or JSON where a list or an object is among them. Text is a date or a time where all of
it is in ISO 8601, and never a number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from sqlflow_dagster.connectors import guess
from sqlflow_dagster.sql import fold, quote

_EXACT = 2**53
_KINDS: tuple[tuple[Any, str], ...] = (
    (bool, "truth"), (int, "whole"), (float, "float"), (Decimal, "decimal"), (str, "text"), (date, "date"),
    (time, "clock"), (Mapping, "object"), (list | tuple, "list"),
)  # fmt: skip
_SIMPLE = {
    "truth": "BOOLEAN", "text": "VARCHAR", "date": "DATE", "time": "TIMESTAMP", "zoned": "TIMESTAMPTZ",
    "clock": "TIME",
}  # fmt: skip
_TIMES = frozenset(("DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP_NS"))


def type_of(values: Sequence[Any]) -> str:
    """Return the type of a column; None says nothing, and nothing at all is VARCHAR."""
    known = [value for value in values if value is not None]
    kinds = {_kind(value) for value in known}
    if kinds == {"text"}:
        found = guess.type_of(known)
        return found if found in _TIMES else "VARCHAR"
    return _type(known, kinds, mixed="JSON" if kinds & {"list", "object"} else "VARCHAR")


def texts_of(values: Sequence[Any], kind: str) -> list[str | None]:
    """Return the texts from which DuckDB makes a column of that type; lists and objects are JSON."""
    if kind == "JSON":
        return [None if value is None else _json(value) for value in values]
    shape = _shape(values)
    return [_text(_filled(value, shape)) for value in values]


def _text(value: Any) -> str | None:
    match value:
        case None | str():
            return value
        case bool() | Mapping() | list() | tuple():
            return _json(value)
        case Decimal() if value.is_finite():
            return f"{value:f}"
        case _:
            return str(value)


def _json(value: Any) -> str:
    match value:
        case Mapping():
            pairs = (
                f"{json.dumps(str(key), ensure_ascii=False)}: {_json(item)}" for key, item in value.items()
            )
            return "{" + ", ".join(pairs) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_json, value)) + "]"
        case None | bool() | int() | float() | str():
            return json.dumps(value, ensure_ascii=False)
        case _:
            # DuckDB reads a JSON number with decimals as a DOUBLE, and a string digit by digit.
            return json.dumps(_text(value))


def _type(known: Sequence[Any], kinds: set[str], mixed: str) -> str:
    """The type of values that are not None, `mixed` where they have no other in common."""
    if kinds == {"object"}:
        return _struct(known)
    if kinds == {"list"}:
        items = [item for value in known for item in value if item is not None]
        return _type(items, {_kind(item) for item in items}, "JSON") + "[]"
    if kinds <= {"whole", "float"} and kinds:
        return _number(known, kinds)
    if kinds <= {"whole", "decimal"} and kinds:
        return _decimal(known)
    if len(kinds) == 1:
        return _SIMPLE.get(next(iter(kinds)), mixed)
    return "TIMESTAMP" if kinds == {"date", "time"} else mixed if kinds else "VARCHAR"


def _struct(known: Sequence[Mapping[str, Any]]) -> str:
    fields: dict[str, list[Any]] = {}
    for value in known:
        for key, item in value.items():
            fields.setdefault(str(key), []).append(item)
    if not _is_struct(fields):
        return "JSON"
    pairs = []
    for key, values in fields.items():
        items = [item for item in values if item is not None]
        pairs.append(f"{quote(key)} {_type(items, {_kind(item) for item in items}, 'JSON')}")
    return f"STRUCT({', '.join(pairs)})"


def _is_struct(fields: Mapping[str, Any]) -> bool:
    """Whether DuckDB can have these names in a struct: none empty, none different only in case."""
    distinct = len({fold(key) for key in fields}) == len(fields)
    return bool(fields) and distinct and all(map(_is_name, fields))


def _shape(values: Sequence[Any]) -> Any:
    """The keys that objects have among all values, on every level; None where they make no struct."""
    known = [value for value in values if value is not None]
    kinds = {_kind(value) for value in known}
    if kinds == {"list"}:
        return [_shape([item for value in known for item in value])]
    if kinds != {"object"}:
        return None
    keys = dict.fromkeys(str(key) for value in known for key in value)
    if not _is_struct(keys):
        return None
    return {key: _shape([value.get(key) for value in known]) for key in keys}


def _filled(value: Any, shape: Any) -> Any:
    """The value with all keys of its shape: a struct has them all."""
    if value is None or shape is None:
        return value
    if isinstance(shape, list):
        return [_filled(item, shape[0]) for item in value]
    return {key: _filled(value.get(key), part) for key, part in shape.items()}


def _is_name(text: str) -> bool:
    return bool(text) and all(ord(character) >= 32 and ord(character) != 127 for character in text)


def _number(known: Sequence[Any], kinds: set[str]) -> str:
    largest = max((abs(value) for value in known if isinstance(value, int)), default=0)
    if "float" in kinds:
        return "DOUBLE" if largest <= _EXACT else "VARCHAR"
    return "BIGINT" if largest < 2**63 else "DECIMAL(38,0)" if largest < 10**38 else "VARCHAR"


def _decimal(known: Sequence[Decimal | int]) -> str:
    """The decimal that has all digits of all values."""
    numbers = [Decimal(value) for value in known]
    if not all(number.is_finite() for number in numbers):
        return "VARCHAR"
    parts = [f"{abs(number):f}".partition(".") for number in numbers]
    whole, fraction = max(len(part[0]) for part in parts), max(len(part[2]) for part in parts)
    return f"DECIMAL({max(whole + fraction, 18)},{fraction})" if whole + fraction <= 38 else "VARCHAR"


def _kind(value: Any) -> str:
    if isinstance(value, datetime):
        return "time" if value.tzinfo is None else "zoned"
    return next((name for kind, name in _KINDS if isinstance(value, kind)), "other")
