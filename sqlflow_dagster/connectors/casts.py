"""A text column and the type it is to have → SQL that converts exactly or raises.

DuckDB's own casts from text round (`4.7` as INTEGER is 5, `4.155` as DECIMAL(9,2) is 4.16), drop
leading zeros and drop the offset of a time. Here a value that its type cannot hold as it stands is
an error that shows the value and names the file. A number that comes back from its type as it was
written is exact: most values pass this first, cheap test, the others one of patterns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlflow_dagster.sql import Sql, literal, quote, sql

_INTEGERS = {
    "TINYINT", "INT1", "SMALLINT", "INT2", "SHORT", "INTEGER", "INT", "INT4", "SIGNED", "BIGINT", "INT8",
    "LONG", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT",
}  # fmt: skip
_TEXTS = {"VARCHAR", "TEXT", "STRING", "CHAR", "BPCHAR"}
_FLOATS = {"DOUBLE", "FLOAT8", "FLOAT", "FLOAT4", "REAL"}
_OTHER_NAMES = {
    "INT64": "BIGINT", "INT32": "INTEGER", "INT16": "SMALLINT", "FLOAT64": "DOUBLE", "FLOAT32": "FLOAT",
    "OBJECT": "VARCHAR", "STR": "VARCHAR", "BOOL": "BOOLEAN", "NUMBER": "DOUBLE", "NUMERIC": "DECIMAL",
    "DATETIME": "TIMESTAMP", "DATETIME64[NS]": "TIMESTAMP", "TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ",
    "TIMESTAMP WITHOUT TIME ZONE": "TIMESTAMP", "STRING": "VARCHAR", "TEXT": "VARCHAR", "INT": "INTEGER",
}  # fmt: skip
_ZONED = {"TIMESTAMPTZ", "TIMESTAMP WITH TIME ZONE"}
_TIMES = {"DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIME", "BOOLEAN"}
_DECIMAL = re.compile(r"DECIMAL\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?")
_SAFE = re.compile(r"[\w\s,()\[\]\".]+")
_DATE = r"[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}"
_CLOCK_TO_SECONDS = r"[0-9]{1,2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6}0*)?"
_CLOCK = r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6}0*)?)?"
_FRACTIONS = {"TIMESTAMP_S": 0, "TIMESTAMP_MS": 3, "TIMESTAMP_NS": 9}
_OFFSET = r"(Z|z|[+-][0-9]{2}(:?[0-9]{2})?)"


def declared(value: Any) -> Any:
    """Return column → DuckDB type for what `types` may be: an object, or a list of name and type.

    Raises ValueError for a text that is no type.
    """
    if value is None:
        return {}
    if isinstance(value, list | tuple):
        value = {item.get("name"): item.get("type") for item in value if isinstance(item, Mapping)}
    if not isinstance(value, Mapping):
        raise ValueError('write an object such as {"id": "BIGINT", "amount": "DECIMAL(12,2)"}')  # noqa: TRY004
    return {str(column): type_name(kind) for column, kind in value.items()}


def type_name(text: Any) -> str:
    """Return a DuckDB type, also for pandas' names. Raises ValueError for what cannot be one."""
    name = " ".join(str(text).split())
    name = _OTHER_NAMES.get(name.upper(), name)
    depth = 0
    for character in name:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            break
    if depth != 0 or not _SAFE.fullmatch(name) or not name[0].isalpha():
        raise ValueError(f"{text!r} is no type; write e.g. 'VARCHAR', 'BIGINT' or 'DECIMAL(12,2)'")
    # A struct's fields keep their case.
    return name if '"' in name or any(word in name.upper() for word in ("STRUCT", "UNION")) else name.upper()


def is_text(kind: str) -> bool:
    """Whether a column of this type takes text as it stands."""
    return kind.partition("(")[0].strip() in _TEXTS


def is_scalar(kind: str) -> bool:
    """Whether values of this type can be read from text without loss."""
    return is_text(kind) or _is_number(kind) or kind in _TIMES or kind in _FRACTIONS


def is_exact_number(kind: str) -> bool:
    """Whether the type is of whole or decimal numbers, without rounding."""
    return kind in _INTEGERS or _DECIMAL.fullmatch(kind) is not None


def converted(
    column: str,
    kind: str,
    *,
    guessed: bool,
    where: Sql,
    formats: tuple[str, ...] = (),
    decimal_comma: bool = False,
    text: Sql | None = None,
    tried: Sql | None = None,
    wide: bool = False,
    raising: bool = True,
) -> Sql:
    """Return the expression that turns the text column `column`, or the text `text`, into `kind`.

    `guessed` says that the type was read off the data, so that forms which the type would change
    (`007`, `+49`) are errors too. `where` names the place in the message. `formats` are strptime
    patterns of dates and times. Blank text is NULL. `tried` is a column that holds what `attempt`
    says, so that a number is read once only. `wide` says that there are very many columns.
    Without `raising` a value that does not fit is NULL.
    """
    text = text or quote(column)
    if is_text(kind):
        return text
    if decimal_comma and _is_number(kind):
        text = sql("replace(replace({text}, '.', ''), ',', '.')", text=text)
    hint = literal(
        f' of column "{column}" is no {kind}'
        + (", which the other values are; declare its type in `types`" if guessed else "")
    )
    problem = sql(
        "error(concat({where}, ': the value ''', {text}, '''', {hint}))", where=where, text=text, hint=hint
    )
    if not raising:
        problem = Sql("NULL")
    if formats and kind in ("DATE", "TIMESTAMP", "TIMESTAMPTZ"):
        return _parsed(text, kind, formats, problem)
    template = "CAST({text} AS {kind})" if raising else "TRY_CAST({text} AS {kind})"
    cast = sql(template, text=text, kind=Sql(kind))
    tests = _tests(kind, guessed=guessed)
    if wide:
        # DuckDB's optimizer takes the square of the number of conjunctions; the tests without any are whole.
        tests = [test for test in tests if " AND " not in test]
    cases = "".join(f" WHEN {test} THEN {{cast}}" for test in tests)
    if _is_exact_number(kind):
        cases = " WHEN CAST({tried} AS VARCHAR) = {text} THEN {tried}" + cases
    if kind in _ZONED:
        cases += f" WHEN {_zoned_test(guessed=guessed)} THEN {{completed}}"
    # The cases are written here, and only their parts come from outside.
    return sql(
        "CASE" + cases + " WHEN strlen(trim({text})) > 0 THEN {problem} END",
        text=text,
        cast=cast,
        completed=sql(template, text=_completed(text), kind=Sql(kind)),
        tried=tried or sql("TRY_CAST({text} AS {kind})", text=text, kind=Sql(kind)),
        problem=problem,
    )


def keeps(column: str, kind: str) -> Sql:
    """Return the test whether the text of a column is one that `kind` holds as it stands."""
    tests = " OR ".join(_tests(kind, guessed=True))
    # Only the tests' own text comes from here.
    return sql(
        f"(({tests}) AND TRY_CAST({{text}} AS {{kind}}) IS NOT NULL)", text=quote(column), kind=Sql(kind)
    )


def same(column: str, found: str, kind: str, where: Sql) -> Sql:
    """Return the expression that casts a column of the type `found`, and raises where that changes a value."""
    value = quote(column)
    cast = sql("TRY_CAST({value} AS {kind})", value=value, kind=Sql(kind))
    problem = sql(
        "error(concat({where}, {text}, CAST({value} AS VARCHAR), {hint}))",
        where=where,
        text=literal(": the value '"),
        value=value,
        hint=literal(f'\' of column "{column}" is no {kind}'),
    )
    return sql(
        "CASE WHEN TRY_CAST({cast} AS {found}) IS NOT DISTINCT FROM {value} THEN {cast} ELSE {problem} END",
        cast=cast,
        found=Sql(found),
        value=value,
        problem=problem,
    )


def attempt(column: str, kind: str, *, decimal_comma: bool = False) -> Sql | None:
    """Return the expression to compute once for `converted`, None where that has no use for one."""
    if decimal_comma or not _is_exact_number(kind):
        return None
    return sql("TRY_CAST({text} AS {kind})", text=quote(column), kind=Sql(kind))


def _is_exact_number(kind: str) -> bool:
    return kind in _INTEGERS or _DECIMAL.fullmatch(kind) is not None


def _is_number(kind: str) -> bool:
    return kind in _FLOATS or _is_exact_number(kind)


def _tests(kind: str, *, guessed: bool) -> list[str]:
    """SQL tests of `{text}`, the cheapest first; a value that passes one is exact in `kind`."""
    decimal = _DECIMAL.fullmatch(kind)
    if kind in _INTEGERS:
        return _integer_tests(guessed=guessed)
    if decimal:
        scale = int(decimal.group(2) or 0) if decimal.group(1) else 3
        return _decimal_tests(scale, guessed=guessed)
    if kind in _FLOATS:
        return [*_KEPT_TESTS, _NO_NUMBER] if guessed else [*_FLOAT_TESTS, _NO_NUMBER]
    return _time_tests(kind, guessed=guessed)


def _integer_tests(*, guessed: bool) -> list[str]:
    return [_matches(r"\s*(0|-?[1-9][0-9]*)\s*" if guessed else r"\s*[+-]?[0-9]+(\.0*)?\s*")]


def _decimal_tests(scale: int, *, guessed: bool) -> list[str]:
    whole = "(0|[1-9][0-9]*)" if guessed else "[0-9]+"
    sign = "-?" if guessed else "[+-]?"
    fraction = rf"\.[0-9]{{0,{scale}}}0*"
    return [_matches(rf"\s*{sign}({whole}({fraction})?|{fraction})\s*")]


def _time_tests(kind: str, *, guessed: bool) -> list[str]:
    if kind == "DATE":
        midnight = r"[ T]0?0:00(:00(\.0*)?)?"
        return [
            "{text} GLOB '[0-9]???-??-??'",
            _matches(rf"\s*{_DATE}({midnight})?\s*|-?infinity|{_DATE} \(BC\)"),
        ]
    # A time that says it is UTC is no naive one, unless somebody says so.
    utc = "" if guessed else r"(Z|z|[+-]00(:?00)?)?"
    if kind in _FRACTIONS:
        clock = rf"[0-9]{{1,2}}:[0-9]{{2}}(:[0-9]{{2}}(\.[0-9]{{0,{_FRACTIONS[kind]}}}0*)?)?"
        return [_matches(rf"\s*{_DATE}([ T]{clock}{utc})?\s*")]
    if kind == "TIMESTAMP":
        # A digit at the end: DuckDB drops the Z of `2024-01-31 08:00:0Z`.
        return [
            "{text} GLOB '[0-9]???-??-?????:??:?[0-9]'",
            _matches(rf"\s*{_DATE}([ T]{_CLOCK}{utc})?\s*|-?infinity"),
        ]
    if kind in _ZONED:
        return [
            "{text} GLOB '[0-9]???-??-?????:??:??[-+Z]*'",
            _matches(rf"\s*{_DATE}[ T]{_CLOCK_TO_SECONDS}{_OFFSET}\s*"),
        ]
    if kind == "TIME":
        return [_matches(rf"\s*{_CLOCK}\s*")]
    # Other types write back what they took, or refuse it in their own words.
    return ["strlen({text}) > 0"]


def _zoned_test(*, guessed: bool) -> str:
    """The test of moments that DuckDB reads once they are completed, or that are none of the day's clock."""
    offset = _OFFSET if guessed else _OFFSET + "?"
    others = "" if guessed else rf"|{_DATE}|-?infinity"
    return _matches(rf"\s*{_DATE}[ T]{_CLOCK} ?{offset}\s*{others}")


def _completed(text: Sql) -> Sql:
    """A moment as DuckDB reads it: with seconds, and without a blank before its offset (`08:15 +0200`)."""
    closed = sql(
        "regexp_replace({text}, {blank}, {offset})",
        text=text,
        blank=literal(rf" {_OFFSET}\s*$"),
        offset=literal(r"\1"),
    )
    minutes = literal(rf"([ T][0-9]{{1,2}}:[0-9]{{2}})({_OFFSET}?\s*)$")
    return sql(
        "regexp_replace({text}, {minutes}, {with_seconds})",
        text=closed,
        minutes=minutes,
        with_seconds=literal(r"\1:00\2"),
    )


def _matches(pattern: str) -> str:
    escaped = pattern.replace("{", "{{").replace("}", "}}")
    return f"regexp_full_match({{text}}, '{escaped}')"


def _plain(text: str) -> str:
    """A number's text without what says nothing; guess.py has the same for Python."""
    zeros = rf"regexp_replace(lower(trim({text})), '(\.[0-9]*?)0+(e|$)', '\1\2')"
    exponent = rf"regexp_replace({zeros}, 'e\+?(-?)0*([0-9])', 'e\1\2')"
    return rf"regexp_replace({exponent}, '\.(e|$)', '\1')"


def digits_differ(text: Sql) -> Sql:
    """Return the test whether the number written as `text` has other digits as a DOUBLE, or is none there."""
    return sql(f"{_plain('{text}')} IS DISTINCT FROM {_plain(_AS_DOUBLE)}", text=text)


_AS_DOUBLE = "CAST(TRY_CAST({text} AS DOUBLE) AS VARCHAR)"
# A declared DOUBLE is what the user wants of any number; a guessed one is to have all of its digits.
_FLOAT_TESTS = [
    _matches(r"\s*[+-]?[0-9]{1,30}(\.[0-9]*)?\s*"),
    "isfinite(TRY_CAST({text} AS DOUBLE))",
]
# Fifteen digits are always kept.
_FIFTEEN = "|".join(
    rf"(0|[1-9][0-9]{{0,{n - 1}}})(\.[0-9]{{0,{15 - n}}})?" for n in (1, 3, 5, 7, 9, 11, 13, 15)
)
_KEPT_TESTS = [
    _matches(rf"\s*-?({_FIFTEEN}|\.[0-9]{{1,15}})([eE][+-]?[0-9]{{1,2}})?\s*"),
    f"{_plain('{text}')} = {_plain(_AS_DOUBLE)}",
]
_NO_NUMBER = "lower(trim({text})) IN ('nan', 'inf', '-inf', 'infinity', '-infinity')"


def _parsed(text: Sql, kind: str, formats: tuple[str, ...], problem: Sql) -> Sql:
    patterns = Sql("[" + ", ".join(literal(item) for item in formats) + "]")
    parsed = sql("try_strptime(trim({text}), {patterns})", text=text, patterns=patterns)
    return sql(
        "CASE WHEN {parsed} IS NOT NULL THEN CAST({parsed} AS {kind})"
        " WHEN strlen(trim({text})) > 0 THEN {problem} END",
        parsed=parsed,
        kind=Sql(kind),
        text=text,
        problem=problem,
    )
