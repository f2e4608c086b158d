"""JSON numbers that a DOUBLE cannot hold → found, and read digit by digit.

DuckDB's JSON reader makes a double of every number with a fraction or an exponent, and of whole
numbers beyond 64 bits. A double holds 15 to 17 digits. Here the text of the records is searched for
longer ones; where there are any, the numbers are put in quotes before the text is parsed, since
strings are converted digit by digit. The patterns know strings from numbers, so that digits inside
a text are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlflow_dagster.connectors import casts
from sqlflow_dagster.connectors.nested import Leaf
from sqlflow_dagster.sql import Sql, join, literal, sql

Ask = Callable[[Sql], list[tuple[Any, ...]]]

_STRING = r'"(?:[^"\\]|\\.)*"'
# The end of the text matches too, so that a match never begins inside a string.
_EVERY_NUMBER = rf'((?:{_STRING}|[^"0-9-]|-I)*)(-?[0-9][0-9.eE+-]*|$)'
_SHORT = r"-?(?:[0-9]+|[0-9.]{1,16}(?:[eE][+-]?[0-9]{1,2})?)[\s,\]}]"
_LONG_NUMBER = rf'((?:{_STRING}|[^"0-9-]|-I|{_SHORT})*)(-?[0-9][0-9.eE+-]*|$)'
# DuckDB takes these for numbers, in any case of their letters.
_NO_NUMBER = "-?(?i:nan|inf(?:inity)?)"
# What to_json writes otherwise: many digits, an exponent, zeros at the end of a fraction, -0, and those.
_CHANGED = rf"[0-9.]{{16}}|[0-9][eE][+-]?[0-9]|\.[0-9]*0[\s,\]}}]|-0[\s,\]}}]|{_NO_NUMBER}"
_EVERY_NO_NUMBER = rf'((?:{_STRING}|null|[^"nNiI-]|-[0-9])*)({_NO_NUMBER}|$)'
# Sixteen digits may be too many for a double, and so may an exponent of three. Of an object's text, what stands
# after one of these three is a number, unless it is inside a string.
_SUSPICIOUS = r"[:,\[]\s*(-?[0-9](?:[0-9.]{15,}(?:[eE][+-]?[0-9]+)?|[0-9.]*[eE][+-]?[0-9]{3,}))"


@dataclass(frozen=True, slots=True)
class Digits:
    """What the numbers at one place need: digits before and after the point; None for exponents."""

    whole: int
    fraction: int
    plain: bool

    @property
    def kind(self) -> str:
        """The type that holds all of them as they are written."""
        if self.plain and self.whole + self.fraction <= 38:
            return f"DECIMAL(38,{self.fraction})"
        return "VARCHAR"


def quoted(text: Sql, mark: str = "") -> Sql:
    """Return the record's text with every number in quotes, `mark` before it."""
    return _replaced(text, _EVERY_NUMBER, mark)


def finite(text: Sql) -> Sql:
    """Return the record's text with NaN and Infinity, which DuckDB takes for numbers, in quotes."""
    return _replaced(text, _EVERY_NO_NUMBER)


def may_change(text: Sql) -> Sql:
    """Return whether DuckDB may write a number in the text otherwise than it stands there."""
    return sql("regexp_matches({text}, {any})", text=text, any=literal(_CHANGED))


def long_quoted(text: Sql) -> Sql:
    """Return the record's text with those numbers in quotes that have more than 16 digits."""
    return _replaced(text, _LONG_NUMBER)


def any_inexact(ask: Ask, records: Sql) -> bool:
    """Whether any number in `records` (a relation with the column `json`) may be too long for a double."""
    return bool(
        ask(
            sql(
                "SELECT 1 FROM (SELECT unnest(regexp_extract_all(json, {token}, 1)) AS t FROM {records}"
                " WHERE {suspicious}) WHERE {inexact} LIMIT 1",
                token=literal(_SUSPICIOUS),
                records=records,
                suspicious=_suspicious(),
                inexact=_inexact(Sql("t")),
            )
        )
    )


def digits(ask: Ask, records: Sql, leaves: Sequence[Leaf]) -> Mapping[str, Digits]:
    """Return, by path, the leaves of type DOUBLE whose numbers are too long for one."""
    found = ask(
        sql(
            "SELECT {any} FROM (SELECT {texts} AS q FROM {records} WHERE {suspicious})",
            any=join(
                ", ",
                (
                    sql(
                        "coalesce(bool_or(list_bool_or(list_transform({all}, lambda t: {inexact}))), false)",
                        all=_texts(leaf),
                        inexact=_inexact(Sql("t")),
                    )
                    for leaf in leaves
                ),
            ),
            texts=quoted(Sql("json")),
            records=records,
            suspicious=_suspicious(),
        )
    )[0]
    inexact = [leaf for leaf, is_so in zip(leaves, found, strict=True) if is_so]
    return _measured(ask, records, inexact) if inexact else {}


def _measured(ask: Ask, records: Sql, leaves: Sequence[Leaf]) -> Mapping[str, Digits]:
    parts = (
        sql(
            "coalesce(max(list_max(list_transform({all}, lambda t: strlen(regexp_extract(t, {whole}, 1))))), 0),"
            " coalesce(max(list_max(list_transform({all}, lambda t: strlen(regexp_extract(t, {rest}, 1))))), 0),"
            " coalesce(bool_and(list_bool_and(list_transform({all}, lambda t: regexp_full_match(t, {plain})))), true)",
            all=_texts(leaf),
            whole=literal("^-?0*([0-9]*)"),
            rest=literal(r"\.([0-9]*)"),
            plain=literal(r"-?[0-9]+(?:\.[0-9]+)?"),
        )
        for leaf in leaves
    )
    row = ask(
        sql(
            "SELECT {parts} FROM (SELECT {texts} AS q FROM {records})",
            parts=join(", ", parts),
            texts=quoted(Sql("json")),
            records=records,
        )
    )[0]
    return {
        leaf.path: Digits(int(row[3 * index]), int(row[3 * index + 1]), plain=bool(row[3 * index + 2]))
        for index, leaf in enumerate(leaves)
    }


def any_inexact_inside(ask: Ask, records: Sql) -> bool:
    """Whether a number with a fraction or an exponent is too long, wherever it stands."""
    return bool(
        ask(
            sql(
                "SELECT 1 FROM (SELECT unnest(regexp_extract_all(json, {token}, 1)) AS t FROM {records}"
                " WHERE {suspicious}) WHERE NOT regexp_full_match(t, '-?[0-9]+') AND {inexact} LIMIT 1",
                token=literal(_SUSPICIOUS),
                records=records,
                suspicious=_suspicious(),
                inexact=_inexact(Sql("t")),
            )
        )
    )


def _texts(leaf: Leaf) -> Sql:
    extracted = sql("json_extract_string(q, {path})", path=literal(leaf.path))
    if not leaf.many:
        extracted = sql("[{extracted}]", extracted=extracted)
    return sql("list_filter({extracted}, lambda t: t IS NOT NULL)", extracted=extracted)


def _replaced(text: Sql, pattern: str, mark: str = "") -> Sql:
    # The match at the end of the text leaves a pair of quotes there, with no number in it.
    return sql(
        "left(regexp_replace({text}, {pattern}, {by}, 'gs'), -{left})",
        left=literal(len(mark) + 2),
        text=text,
        pattern=literal(pattern),
        by=literal(rf'\1"{mark}\2"'),
    )


def _suspicious() -> Sql:
    return sql("regexp_matches(json, {pattern})", pattern=literal(_SUSPICIOUS))


def _inexact(text: Sql) -> Sql:
    """Whether the number written as `text` has other digits as a double."""
    return sql(
        "CASE WHEN regexp_full_match({text}, '-?[0-9]+')"
        " THEN NOT coalesce(abs(TRY_CAST({text} AS HUGEINT)) <= 9007199254740992, false)"
        " ELSE {differ} END",
        text=text,
        differ=casts.digits_differ(text),
    )
