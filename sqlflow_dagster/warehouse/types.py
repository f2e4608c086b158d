"""Two types of a column → whether values of one are the same in the other, and a type that holds both.

Questions about values are asked of the values: a type fits where each comes back from it as it was.
"""

from __future__ import annotations

import re

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.sql import Sql, literal, quote, sql

_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
_UNSIGNED = ("UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "UHUGEINT")
_NUMBERS = frozenset({*_INTEGERS, *_UNSIGNED, "DECIMAL", "FLOAT", "DOUBLE", "BIGNUM"})
_NAIVE = frozenset({"DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"})
_MOMENT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
# What follows it in the text of each type.
_MOMENTS = {"TIMESTAMP": "", "TIMESTAMP WITH TIME ZONE": "(Z|[+-][0-9]{2}(:[0-9]{2})?)"}
_SCALARS = frozenset({"number", "naive", "TIMESTAMP WITH TIME ZONE", "TIME", "BOOLEAN"})
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_WIDEST_DECIMAL = 38


def comparable(one: str, other: str) -> bool:
    """Whether a cursor of one type can be compared with a column of the other."""
    times = {"naive", "TIMESTAMP WITH TIME ZONE"}
    return _family(one) == _family(other) or {_family(one), _family(other)} <= times


def is_time(kind: str) -> bool:
    """Whether values of the type are points in time."""
    return _family(kind) in ("naive", "TIMESTAMP WITH TIME ZONE")


def is_float(kind: str) -> bool:
    """Whether the type has NaN and infinities."""
    return kind in ("FLOAT", "DOUBLE")


def is_integer(kind: str) -> bool:
    """Whether the type is of whole numbers."""
    return kind in _INTEGERS or kind in _UNSIGNED


def always_fits(kind: str, target: str) -> bool:
    """Whether any value of `kind` is itself in `target`, by their names alone."""
    if kind == target:
        return True
    return any(
        kind in order and target in order and order.index(kind) <= order.index(target)
        for order in (_INTEGERS, _UNSIGNED, ("FLOAT", "DOUBLE"))
    )


def fits(connection: DuckDBPyConnection, rows: Sql, column: str, kind: str, target: str) -> bool:
    """Whether every value of a column, which is of type `kind`, is itself in the type `target`.

    Text holds anything, and text fits where it reads as a value reads. Numbers, dates, truth values
    and times with a zone do not stand for one another, even where a cast would do it.
    """
    if always_fits(kind, target):
        return True
    if is_empty(connection, rows, column):
        return True
    return target == "VARCHAR" or not any_row(connection, rows, misfit(connection, column, kind, target))


def misfit(connection: DuckDBPyConnection, column: str, kind: str, target: str) -> Sql:
    """Return what is true for the rows whose value does not come back from the type `target`."""
    if kind == "JSON" and _family(target) in _SCALARS:
        return _json_misfit(column, target)
    unlike = kind != "VARCHAR" and _family(kind) != _family(target)
    if unlike or not _castable(connection, kind, target):
        return sql("{c} IS NOT NULL", c=quote(column))
    other = sql(
        "({c} IS NOT NULL AND CAST({c} AS VARCHAR) IS DISTINCT FROM"
        " CAST(TRY_CAST(TRY_CAST({c} AS {target}) AS {kind}) AS VARCHAR))",
        c=quote(column),
        target=Sql(target),
        kind=Sql(kind),
    )
    if kind == "VARCHAR" and target in _MOMENTS:
        return sql(
            "({other} AND NOT {moment})", other=other, moment=_is_moment(quote(column), column, target)
        )
    return other


def _is_moment(text: Sql, column: str, target: str) -> Sql:
    """What is true where a text is a time of the type `target` in ISO 8601, with an offset where that has one."""
    return sql(
        "(regexp_full_match({text}, {form}) AND TRY_CAST({c} AS {target}) IS NOT NULL)",
        text=text,
        form=literal(_MOMENT + _MOMENTS[target]),
        c=quote(column),
        target=Sql(target),
    )


def _json_misfit(column: str, target: str) -> Sql:
    """What is true for the rows whose JSON is another value than the one of type `target` that it reads as."""
    text = sql("({c} ->> '$')", c=quote(column))
    if target in _MOMENTS:
        return sql(
            "({c} IS NOT NULL AND NOT {moment})", c=quote(column), moment=_is_moment(text, column, target)
        )
    # Numbers without the zeros that say nothing.
    same = r"regexp_replace(regexp_replace({text}, '(\.[0-9]*?)0+$', '\1'), '\.$', '')"
    return sql(
        "({c} IS NOT NULL AND {text} IS DISTINCT FROM {back})",
        c=quote(column),
        text=sql(same, text=text),
        back=sql(same, text=sql("CAST(TRY_CAST({c} AS {to}) AS VARCHAR)", c=quote(column), to=Sql(target))),
    )


def is_nested(kind: str) -> bool:
    """Whether the type is of lists, objects or maps."""
    return _family(kind) in ("list", "STRUCT", "MAP")


def json_misfit(column: str, target: str) -> Sql:
    """Return what is true for the rows whose JSON says something that the nested type `target` does not hold as it is.

    What it does not say may be NULL: `TRY_CAST` makes the others values of the type.
    """
    return sql(
        "({c} IS NOT NULL AND json_type({c}) <> 'NULL'"
        " AND NOT coalesce(json_contains(to_json(TRY_CAST({c} AS {target})), {c}), false))",
        c=quote(column),
        target=Sql(target),
    )


def _castable(connection: DuckDBPyConnection, kind: str, target: str) -> bool:
    """Whether there is a cast there and back; e.g. none between structs without a common field."""
    there = sql("TRY_CAST(CAST(NULL AS {kind}) AS {target})", kind=Sql(kind), target=Sql(target))
    try:
        connection.execute(sql("SELECT TRY_CAST({there} AS {kind})", there=there, kind=Sql(kind)))
    except duckdb.BinderException:
        return False
    return True


def wider(connection: DuckDBPyConnection, one: str, other: str) -> tuple[str, ...]:
    """Return types that may hold the values of both, the likeliest first; none for unlike ones.

    What DuckDB itself would make of the two, and a decimal with the digits of both.
    """
    if _family(one) != _family(other) and not _is_enum(one) and not _is_enum(other):
        return ()
    found: list[str] = []
    try:
        row = connection.execute(
            sql(
                "SELECT typeof(COALESCE(CAST(NULL AS {one}), CAST(NULL AS {other})))",
                one=Sql(one),
                other=Sql(other),
            )
        ).fetchone()
    except duckdb.BinderException:
        # DuckDB says so where the two have nothing in common.
        row = None
    if row:
        found.append(str(row[0]))
    decimal = _both_decimals(one, other)
    return tuple(dict.fromkeys([*found, decimal] if decimal else found))


def is_empty(connection: DuckDBPyConnection, rows: Sql, column: str) -> bool:
    """Whether a column holds nothing but NULL."""
    return not any_row(connection, rows, sql("{c} IS NOT NULL", c=quote(column)))


def has_no_rows(connection: DuckDBPyConnection, rows: Sql) -> bool:
    """Whether a relation is empty."""
    return not any_row(connection, rows, Sql("TRUE"))


def any_row(connection: DuckDBPyConnection, rows: Sql, condition: Sql) -> bool:
    """Whether the condition is true for a row."""
    found = connection.execute(
        sql("SELECT 1 FROM {rows} WHERE {condition} LIMIT 1", rows=rows, condition=condition)
    ).fetchone()
    return found is not None


def _family(kind: str) -> str:
    base = kind.partition("(")[0]
    if kind.endswith("]"):
        return "list"
    if base in _NUMBERS:
        return "number"
    return "naive" if base in _NAIVE else base


def _is_enum(kind: str) -> bool:
    return kind.startswith("ENUM(") and not kind.endswith("]")


def _both_decimals(one: str, other: str) -> str | None:
    left, right = _DECIMAL.fullmatch(one), _DECIMAL.fullmatch(other)
    if left is None or right is None:
        return None
    scale = max(int(left[2]), int(right[2]))
    digits = max(int(left[1]) - int(left[2]), int(right[1]) - int(right[2]))
    return f"DECIMAL({digits + scale},{scale})" if digits + scale <= _WIDEST_DECIMAL else None
