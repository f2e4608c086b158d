"""A value of a nested type → SQL that makes another of each of its leaves, and of the value one of the same shape."""

from __future__ import annotations

from collections.abc import Callable

from sqlflow_dagster.connectors.nested import Items, Map, Struct, Type
from sqlflow_dagster.sql import Sql, join, literal, quote, sql

# Makes SQL of a leaf's value, its type, and where it stands, for people.
Make = Callable[[Sql, str, str], Sql]


def with_leaves(value: Sql, kind: Type, make: Make, place: str, *, keys: bool = True, depth: int = 0) -> Sql:
    """Return `value` with each leaf as `make` has it, and `value` itself where `make` gives each back as it is.

    `place` is where it stands, for people. The keys of maps are leaves too, unless `keys` is false.
    """
    each = quote(f"_sqlflow_e{depth}")
    match kind:
        case Struct(fields):
            parts = {name: _field(value, name) for name in fields}
            made = {
                name: with_leaves(parts[name], inner, make, f"{place}.{name}", keys=keys, depth=depth)
                for name, inner in fields.items()
            }
            pairs = (sql("{name} := {part}", name=quote(name), part=part) for name, part in made.items())
            template = "CASE WHEN {value} IS NOT NULL THEN struct_pack({pairs}) END"
            return value if made == parts else sql(template, value=value, pairs=join(", ", pairs))
        case Items(item):
            inner = with_leaves(each, item, make, place, keys=keys, depth=depth + 1)
            template = "list_transform({value}, lambda {each}: {inner})"
            return value if inner == each else sql(template, value=value, each=each, inner=inner)
        case Map(of, key):
            parts = {"key": _field(each, "key"), "of": _field(each, "value")}
            made = {"of": with_leaves(parts["of"], of, make, place, keys=keys, depth=depth + 1)}
            made["key"] = (
                with_leaves(parts["key"], key, make, place, depth=depth + 1) if keys else parts["key"]
            )
            template = (
                "map_from_entries("
                "list_transform(map_entries({value}), lambda {each}: {{'key': {key}, 'value': {of}}}))"
            )
            return value if made == parts else sql(template, value=value, each=each, **made)
        case str():
            return make(value, kind, place)


def _field(value: Sql, name: str) -> Sql:
    return sql("struct_extract({value}, {name})", value=value, name=literal(name))
