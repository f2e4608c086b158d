"""Sampled values of a text column → the DuckDB type that holds every one of them as it stands.

Whole numbers without leading zeros become BIGINT, numbers with decimals DECIMAL (so that sums of
money are exact), numbers with exponents or more than nine decimals DOUBLE where that writes the
same digits back. Dates and times are taken in ISO 8601 only: `01/02/2024` is two dates. All else,
`00123` and `+49…` first, stays text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from math import isfinite

_WHOLE = re.compile(r"(?:[ \t]*(?:0|-?[1-9][0-9]*)[ \t]*\n)*")
_FIXED = re.compile(r"(?:[ \t]*-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)[ \t]*\n)*")
_FLOATING = re.compile(
    r"(?:[ \t]*(?:-?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?|-?inf|nan)[ \t]*\n)*",
    re.IGNORECASE,
)
_LOGICAL = re.compile(r"(?:(?:true|false)\n)*", re.IGNORECASE)
_DAY = re.compile(r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}\n)*")
_MOMENT = re.compile(
    r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[ T][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?)?\n)*"
)
_FINE_MOMENT = re.compile(r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?\n)*")
_ZONED = re.compile(
    r"(?:[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?"
    r" ?(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)\n)*"
)
_CLOCK = re.compile(r"(?:[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?\n)*")
_LONG_EXPONENT = re.compile(r"[eE][+-]?[0-9]{3}")
_BIGINT = 2**63 - 1
_FEW = 200
_SCALES = (2, 4, 6, 9)


def type_of(values: Iterable[str]) -> str:
    """Return the type that all of the values have; blank ones say nothing."""
    distinct = [value for value in set(values) if value and not value.isspace()]
    if len(distinct) > 2 * _FEW and _type(distinct[:_FEW]) == "VARCHAR":
        # What some of the values have no type for, all of them have none for.
        return "VARCHAR"
    return _type(distinct)


def _type(distinct: Sequence[str]) -> str:
    joined = "\n".join(distinct) + "\n"
    if not distinct or joined.count("\n") > len(distinct):
        return "VARCHAR"
    if _WHOLE.fullmatch(joined):
        return _whole(distinct)
    if _FIXED.fullmatch(joined):
        return _fixed([value.strip() for value in distinct])
    if _FLOATING.fullmatch(joined):
        return "DOUBLE" if all(map(_kept, distinct)) else "VARCHAR"
    if _LOGICAL.fullmatch(joined):
        return "BOOLEAN"
    return _time(joined, distinct)


def _whole(values: Sequence[str]) -> str:
    numbers = [int(value) for value in values if len(value) < 45]
    if len(numbers) < len(values):
        return "VARCHAR"
    largest = max(map(abs, numbers))
    if largest <= _BIGINT:
        return "BIGINT"
    # HUGEINT would leave Parquet and Arrow as a DOUBLE.
    return "DECIMAL(38,0)" if largest < 10**38 else "VARCHAR"


def _fixed(values: Sequence[str]) -> str:
    whole = fraction = 0
    for value in values:
        left, _point, right = value.lstrip("-").partition(".")
        whole, fraction = max(whole, len(left)), max(fraction, len(right))
    scale = next((scale for scale in _SCALES if scale >= fraction), fraction)
    if fraction <= _SCALES[-1]:
        if whole + scale <= 18:
            return f"DECIMAL(18,{scale})"
        if whole + scale <= 38:
            return f"DECIMAL(38,{scale})"
    if all(_same_digits(value) for value in values):
        return "DOUBLE"
    return f"DECIMAL(38,{fraction})" if whole + fraction <= 38 else "VARCHAR"


def _same_digits(text: str) -> bool:
    """Whether a DOUBLE keeps all digits: 15 always fit, 17 do where Python writes the same back."""
    digits = text.lstrip("-").replace(".", "").strip("0")
    return len(digits) <= 15 or repr(float(text)).lstrip("-") == text.lstrip("-")


def _kept(text: str) -> bool:
    """Whether a DOUBLE writes the same digits back; the conversion asks every value the same (casts.py)."""
    number = float(text)
    if not isfinite(number):
        return not any(map(str.isdigit, text))
    digits = text.lower().partition("e")[0].strip().lstrip("-").replace(".", "").lstrip("0")
    small = not _LONG_EXPONENT.search(text)
    return (len(digits) <= 15 and small) or _plain(text) == _plain(repr(number))


def _plain(text: str) -> str:
    """A number's text without zeros at its end, and without signs and zeros of its exponent."""
    text = re.sub(r"(\.[0-9]*?)0+(e|$)", r"\1\2", text.strip().lower())
    text = re.sub(r"e\+?(-?)0*([0-9])", r"e\1\2", text)
    return re.sub(r"\.(e|$)", r"\1", text)


def _time(joined: str, distinct: Sequence[str]) -> str:
    if _DAY.fullmatch(joined):
        return "DATE" if all(map(_is_day, distinct)) else "VARCHAR"
    for pattern, kind in ((_MOMENT, "TIMESTAMP"), (_ZONED, "TIMESTAMPTZ"), (_FINE_MOMENT, "TIMESTAMP_NS")):
        if pattern.fullmatch(joined):
            return kind if all(map(_is_moment, distinct)) else "VARCHAR"
    if _CLOCK.fullmatch(joined):
        return "TIME" if all(_is_moment(f"2000-01-01T{value}") for value in distinct) else "VARCHAR"
    return "VARCHAR"


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_moment(text: str) -> bool:
    try:
        datetime.fromisoformat(text.replace(" +", "+").replace(" -", "-").replace(" Z", "Z"))
    except ValueError:
        return False
    return True
