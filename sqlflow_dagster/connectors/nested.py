"""DuckDB's name of a type ↔ its parts: structs, lists, maps, and the leaves in them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from sqlflow_dagster.sql import quote

_TOKEN = re.compile(r'"(?:[^"]|"")*"|\[\d*\]|[(),]|[^\s(),"\[\]]+|\s+', re.DOTALL)


_NUMBERS = ("BIGINT", "UBIGINT", "HUGEINT", "DOUBLE")


@dataclass(frozen=True, slots=True)
class Struct:
    """An object with known fields, in order."""

    fields: Mapping[str, Type]


@dataclass(frozen=True, slots=True)
class Items:
    """A list of values of one type."""

    item: Type


@dataclass(frozen=True, slots=True)
class Map:
    """An object with any keys, and values of one type."""

    value: Type
    key: Type = "VARCHAR"


Type: TypeAlias = str | Struct | Items | Map


@dataclass(frozen=True, slots=True)
class Leaf:
    """A type without parts, and where it stands: a JSON path, which may stand for `many` places."""

    path: str
    kind: str
    many: bool = False

    def field(self, name: str) -> Leaf:
        """Return the place of a field of what stands here."""
        return Leaf(f"{self.path}.{json.dumps(name, ensure_ascii=False)}", "", self.many)


_ROOT = Leaf("$", "")


def parsed(text: str) -> Type:
    """Return the parts of a type. Raises ValueError for an object with a field that has no name."""
    tokens = [token for token in _TOKEN.findall(text) if token.strip()]
    found, end = _type(tokens, 0)
    if end != len(tokens):
        raise ValueError(f"{text[:80]!r} is no type")
    return found


def name_of(kind: Type) -> str:
    """Return DuckDB's name of a type."""
    match kind:
        case Struct(fields):
            return f"STRUCT({', '.join(f'{quote(name)} {name_of(inner)}' for name, inner in fields.items())})"
        case Items(item):
            return f"{name_of(item)}[]"
        case Map(value, key):
            return f"MAP({name_of(key)}, {name_of(value)})"
        case _:
            return kind


def leaves(kind: Type) -> list[Leaf]:
    """Return the leaves of a type, in order."""
    found: list[Leaf] = []

    def note(leaf: Leaf) -> str:
        found.append(leaf)
        return leaf.kind

    changed(kind, note)
    return found


def changed(kind: Type, change: Callable[[Leaf], str], at: Leaf = _ROOT) -> Type:
    """Return the type with each leaf as `change` makes it."""
    match kind:
        case Struct(fields):
            return Struct({name: changed(inner, change, at.field(name)) for name, inner in fields.items()})
        case Items(item):
            return Items(changed(item, change, Leaf(f"{at.path}[*]", "", many=True)))
        case Map(value, key):
            return Map(
                changed(value, change, Leaf(f"{at.path}.*", "", many=True)), changed(key, change, _ROOT)
            )
        case _:
            return change(Leaf(at.path, kind, at.many))


def merged(one: Type, other: Type) -> Type:
    """Return the type that holds values of both; JSON where they are unlike."""
    match one, other:
        case Struct(left), Struct(right):
            both = {name: merged(kind, right[name]) if name in right else kind for name, kind in left.items()}
            return Struct(both | {name: kind for name, kind in right.items() if name not in left})
        case (Items(left), Items(right)):
            return Items(merged(left, right))
        case (Map(left, key), Map(right, other_key)) if key == other_key:
            return Map(merged(left, right), key)
        case _ if one == other:
            return one
        case str(), str() if {one, other} <= set(_NUMBERS):
            return "DOUBLE" if "DOUBLE" in (one, other) else "HUGEINT"
        case _:
            return "JSON"


def _type(tokens: list[str], at: int) -> tuple[Type, int]:
    word = tokens[at].upper()
    found: Type
    if word == "STRUCT":
        found, at = _struct(tokens, at + 2)
    elif word == "MAP" and tokens[at + 1 : at + 2] == ["("]:
        key, at = _type(tokens, at + 2)
        value, at = _type(tokens, at + 1)
        found, at = Map(value, key), at + 1
    else:
        words = []
        while at < len(tokens) and tokens[at] not in (",", ")") and not tokens[at].startswith("["):
            end = tokens.index(")", at) + 1 if tokens[at] == "(" else at + 1
            words.append("".join(tokens[at:end]))
            at = end
        found = " ".join(words).replace(" (", "(")
    while at < len(tokens) and tokens[at].startswith("["):
        found, at = Items(found), at + 1
    return found, at


def _struct(tokens: list[str], at: int) -> tuple[Struct, int]:
    fields: dict[str, Type] = {}
    while tokens[at] != ")":
        name = tokens[at]
        # DuckDB writes a struct without names where the name of one field is empty.
        if tokens[at + 1] in (",", ")") or tokens[at + 1].startswith(("[", "(")):
            raise ValueError("an object has a field whose name is empty")
        bare = name[1:-1].replace('""', '"') if name.startswith('"') else name
        fields[bare], at = _type(tokens, at + 1)
        at += tokens[at] == ","
    return Struct(fields), at + 1
