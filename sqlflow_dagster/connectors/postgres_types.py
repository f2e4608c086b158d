"""A Postgres column → how it travels: the expression read there, the one stored here, and its DuckDB type.

Values travel in Postgres' binary format through DuckDB's postgres_scanner. This is what it does with
each type, and why some go as text instead:

- The types of `_NATIVE` arrive exactly. Values that DuckDB's type cannot hold are found by a *guard*,
  which is true for them at the source and stops the read with the parameter to set.
- `numeric(p, s)` is exact up to 38 digits, but `NaN` would arrive as 0: guarded. Without a precision, or
  beyond 38 digits, it would arrive as DOUBLE: it is text, or what `numeric_type` says.
- `timestamp` beyond the year 294246 would wrap around to before Christ: guarded.
- An array is a list; one of several dimensions, or whose first index is not 1, would be refused or lose
  its indexes: guarded, and text where the column is declared with several dimensions.
- `json` and `jsonb` arrive as text, which becomes JSON as it stands.
- `inet` would gain a `/32` when cast to text, `money` depends on the session, `"char"` may be a NUL byte.
- Everything else (enums, composites, ranges, hstore, geometry, types of extensions …) is the text that
  Postgres itself would show, and takes back.
- `bpchar(n)` comes without the blanks that pad it, as Postgres itself casts it to text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sqlflow_dagster.connectors import casts, exact_nested
from sqlflow_dagster.connectors.sql_select import Travel
from sqlflow_dagster.sql import Sql, literal, quote, sql

# What of a column can be compared at the source as DuckDB compares it here.
Order = Literal["number", "float", "text", "date", "timestamp", "timestamptz", "boolean", "uuid", "none"]

_NATIVE: Mapping[str, tuple[str, Order]] = {
    "bool": ("BOOLEAN", "boolean"),
    "int2": ("SMALLINT", "number"),
    "int4": ("INTEGER", "number"),
    "int8": ("BIGINT", "number"),
    "float4": ("FLOAT", "float"),
    "float8": ("DOUBLE", "float"),
    "text": ("VARCHAR", "text"),
    "varchar": ("VARCHAR", "text"),
    "bpchar": ("VARCHAR", "text"),
    "name": ("VARCHAR", "text"),
    "bytea": ("BLOB", "none"),
    "date": ("DATE", "date"),
    "timestamp": ("TIMESTAMP", "timestamp"),
    "timestamptz": ("TIMESTAMP WITH TIME ZONE", "timestamptz"),
    "time": ("TIME", "none"),
    "timetz": ("TIME WITH TIME ZONE", "none"),
    "interval": ("INTERVAL", "none"),
    "uuid": ("UUID", "uuid"),
}
_MOST_DIGITS = 38
# DuckDB counts microseconds from 1970 and Postgres from 2000, in 64 bits both.
_TOO_LATE = literal("294247-01-01")


@dataclass(frozen=True, slots=True)
class Type:
    """A type, domains resolved: its name in `pg_catalog` (None for others), its modifier, its elements."""

    name: str | None
    shown: str
    modifier: int = -1
    element: Type | None = None
    dimensions: int = 0


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table or query, and its type."""

    name: str
    type: Type

    @property
    def shown(self) -> str:
        """The type as Postgres shows it."""
        return self.type.shown


def travel(column: Column, declared: str | None, numeric_type: str, money_digits: int = 2) -> Travel[Column]:
    """Return how a column travels; `declared` is the type that the user wants, None for ours."""
    kind = column.type
    if declared is not None and not _is_own(kind, declared):
        return _declared(column, declared)
    if kind.element is not None:
        found = _list(column, kind.element)
    elif kind.name in _NATIVE:
        found = _native(column)
    elif kind.name == "numeric":
        found = _numeric(column, numeric_type)
    elif kind.name in ("json", "jsonb"):
        found = Travel(column, as_text(column), "JSON", sql("CAST({c} AS JSON)", c=quote(column.name)))
    elif kind.name == "oid":
        found = Travel(column, _cast(column, "int8"), "BIGINT")
    elif kind.name == "money":
        digits = f"(20,{money_digits})"
        found = Travel(column, _cast(column, f"numeric{digits}"), f"DECIMAL{digits}")
    else:
        order: Order = "text" if kind.shown == "citext" else "none"
        found = Travel(column, as_text(column), "VARCHAR", order=order)
    return found


def _is_own(kind: Type, declared: str) -> bool:
    """Whether a column has the declared type anyway."""
    spelled = {"TIMESTAMPTZ": "TIMESTAMP WITH TIME ZONE", "TIMETZ": "TIME WITH TIME ZONE"}.get(
        declared, declared
    )
    return kind.element is None and _NATIVE.get(kind.name or "", ("",))[0] == spelled


def as_text(column: Column) -> Sql:
    """Return the column as the text that Postgres itself would show."""
    # A cast of inet to text adds the length of its network, and format() does not.
    if column.type.name == "inet":
        return sql("CASE WHEN {c} IS NOT NULL THEN format('%s', {c}) END", c=quote(column.name))
    return _cast(column, "text")


def _cast(column: Column, kind: str) -> Sql:
    return sql("CAST({c} AS {kind})", c=quote(column.name), kind=Sql(kind))


def _native(column: Column) -> Travel[Column]:
    kind, order = _NATIVE[column.type.name or ""]
    c = quote(column.name)
    match column.type.name:
        case "timestamp" | "timestamptz":
            guard = sql("({c} >= {late} AND isfinite({c}))", c=c, late=_TOO_LATE)
            return Travel(column, c, kind, order=order, guard=guard, because="a time after the year 294246")
        case "interval":
            guard = sql("NOT isfinite({c})", c=c)
            return Travel(column, c, kind, guard=guard, because="an infinite interval")
    return Travel(column, c, kind, order=order)


def digits_of(modifier: int) -> tuple[int, int] | None:
    """Return precision and scale of a `numeric` by its modifier, None where it has none."""
    if modifier < 0:
        return None
    packed = modifier - 4
    # The scale has had 11 bits and a sign since Postgres 15.
    return packed >> 16 & 0xFFFF, ((packed & 0x7FF) ^ 1024) - 1024


def _decimal(modifier: int) -> tuple[int, int] | None:
    """Width and scale of the DECIMAL that holds every value of a `numeric`, None where there is none."""
    digits = digits_of(modifier)
    if digits is None:
        return None
    precision, scale = digits
    # Postgres allows scales below 0 and above the precision; DuckDB counts the zeros as digits.
    width = precision - scale if scale < 0 else max(precision, scale)
    return (width, max(scale, 0)) if width <= _MOST_DIGITS else None


def _numeric(column: Column, numeric_type: str) -> Travel[Column]:
    c, found = quote(column.name), _decimal(column.type.modifier)
    if found is None:
        if numeric_type == "VARCHAR":
            return Travel(column, as_text(column), "VARCHAR", digits=True)
        return _declared(column, numeric_type)
    width, scale = found
    remote = (
        c if (width, scale) == digits_of(column.type.modifier) else _cast(column, f"numeric({width},{scale})")
    )
    return Travel(
        column,
        remote,
        f"DECIMAL({width},{scale})",
        order="number",
        guard=sql("{c} = 'NaN'", c=c),
        because="NaN, which no DECIMAL can hold",
    )


def _list(column: Column, element: Type) -> Travel[Column]:
    """A list of what the elements arrive as; text where the column says that it has several dimensions."""
    if column.type.dimensions > 1 or element.name == "inet":
        return Travel(column, as_text(column), "VARCHAR")
    c = quote(column.name)
    guard = sql("(array_ndims({c}) > 1 OR array_lower({c}, 1) <> 1)", c=c)
    because = "an array of several dimensions, or whose first index is not 1"
    # The scanner breaks off at such an array itself, before the guard can say which column it is in.
    flat = sql("CASE WHEN array_ndims({c}) = 1 OR cardinality({c}) = 0 THEN {c} END", c=c)
    remote, local, kind = flat, None, "VARCHAR[]"
    decimal = _decimal(element.modifier) if element.name == "numeric" else None
    if element.name == "bytea":
        # The scanner does not know arrays of it; their text is hexadecimal, after `\x`.
        remote = sql("CAST({flat} AS text[])", flat=flat)
        local, kind = sql("list_transform({c}, lambda x: unhex(substr(x, 3)))", c=c), "BLOB[]"
    elif element.name and element.name in _NATIVE:
        kind = f"{_NATIVE[element.name][0]}[]"
        # An array of a domain is a type that the scanner does not know, and so is one of `name`.
        base = "text" if element.name == "name" else element.name
        remote = sql("CAST({flat} AS {base}[])", flat=flat, base=Sql(base))
    elif decimal:
        kind = f"DECIMAL({decimal[0]},{decimal[1]})[]"
        remote = sql("CAST({flat} AS {kind})", flat=flat, kind=Sql(f"numeric({decimal[0]},{decimal[1]})[]"))
    else:
        remote = sql("CAST({flat} AS text[])", flat=flat)
    if element.name == "bytea":
        # The scanner takes no list of them.
        remote = sql("CAST({flat} AS text[])", flat=flat)
        local = sql("list_transform({c}, lambda e: unhex(substr(e, 3)))", c=c)
    if element.name in ("json", "jsonb"):
        local, kind = sql("CAST({c} AS JSON[])", c=c), "JSON[]"
    inner = _guard_of_elements(c, element, decimal=decimal is not None)
    if inner:
        guard = sql("({guard} OR {inner})", guard=guard, inner=inner)
        because += "; or an element beyond what DuckDB holds"
    return Travel(column, remote, kind, local, guard=guard, because=because)


def _guard_of_elements(c: Sql, element: Type, *, decimal: bool) -> Sql | None:
    if decimal:
        return sql("'NaN' = ANY ({c})", c=c)
    match element.name:
        case "timestamp" | "timestamptz":
            late = "EXISTS (SELECT 1 FROM unnest({c}) AS e WHERE e >= {late} AND isfinite(e))"
            return sql(late, c=c, late=_TOO_LATE)
        case "interval":
            return sql("EXISTS (SELECT 1 FROM unnest({c}) AS e WHERE NOT isfinite(e))", c=c)
    return None


def _declared(column: Column, kind: str) -> Travel[Column]:
    """What the user declares, converted from text and exact, or by way of JSON where it has parts."""
    c = quote(column.name)
    if casts.is_text(kind):
        return Travel(column, as_text(column), "VARCHAR")
    if casts.is_scalar(kind):
        local = casts.converted(column.name, kind, guessed=False, where=literal("types"))
        return Travel(column, as_text(column), kind, local, order=_declared_order(column.type, kind))
    if column.type.element is not None and exact_nested.is_flat(kind):
        c = sql("CAST({c} AS text[])", c=c)
    return Travel(column, sql("CAST(to_json({c}) AS text)", c=c), kind, from_json(column.name, kind))


def from_json(name: str, kind: str) -> Sql:
    """Return the declared value of a column whose text is JSON, each part exact."""
    if exact_nested.is_nested(kind):
        return exact_nested.declared(name, kind)
    return sql("CAST(CAST({c} AS JSON) AS {kind})", c=quote(name), kind=Sql(kind))


def _declared_order(kind: Type, declared: str) -> Order:
    """Whether the column itself compares at the source as its declared type does here."""
    none: tuple[str, Order] = ("", "none")
    native, order = _NATIVE.get(kind.name or "", none)
    if kind.name == "numeric" or order == "number":
        return "number" if casts.is_exact_number(declared) else "none"
    return order if native == declared or (order == "timestamptz" and declared == "TIMESTAMPTZ") else "none"
