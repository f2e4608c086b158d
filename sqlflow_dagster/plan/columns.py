"""Columns of results: set operations, USING, new names, and names that are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sqlflow_dagster import sql
from sqlflow_dagster.plan.scope import NOTHING, Column, Inputs, Relation, Scope, union

# The columns of a result; None where their number or order is not known.
Columns = tuple[Column, ...] | None


def combined(kind: str, results: Sequence[Columns]) -> Columns:
    """Return the columns of UNION, INTERSECT and EXCEPT: by position, or by name."""
    known = [result for result in results if result is not None]
    if len(known) != len(results) or not known:
        return None
    if kind == "UNION_BY_NAME":
        return _by_name(known)
    if len({len(result) for result in known}) != 1:
        return None
    if kind == "EXCEPT":
        return known[0]
    return tuple(
        Column(cells[0].name, union(cell.inputs for cell in cells)) for cells in zip(*known, strict=True)
    )


def merged(name: str, kind: str | None, left: Scope, right: Scope) -> Inputs:
    """Return the value of a column of USING: the left one's, but for RIGHT and FULL joins."""
    if kind == "RIGHT":
        return right.resolve([name])
    if kind in ("FULL", "OUTER"):
        return union([left.resolve([name]), right.resolve([name])])
    return left.resolve([name])


def renamed(columns: Columns, names: Sequence[str]) -> Columns:
    """Return the columns as `AS t(names…)` makes them."""
    return Relation("", columns).named("", names).columns


def without_twins(columns: Sequence[Column]) -> tuple[Column, ...]:
    """Return the columns; of those with one name the first keeps it, as DuckDB numbers the others."""
    seen: set[str] = set()
    result = []
    for column in columns:
        twin = column.name is not None and fold(column.name) in seen
        seen.add(fold(column.name))
        result.append(replace(column, name=None) if twin else column)
    return tuple(result)


def has(columns: Sequence[Column], name: str) -> bool:
    """Return whether one of the columns has that name."""
    return any(same(column.name, name) for column in columns)


def same(name: str | None, other: str) -> bool:
    """Return whether two names mean one column."""
    return name is not None and fold(name) == fold(other)


def fold(name: str | None) -> str:
    """Return a name in the case that comparisons use; nothing for a column without one."""
    return sql.fold(name or "")


def _by_name(results: Sequence[tuple[Column, ...]]) -> Columns:
    together: dict[str, Column] = {}
    for column in (column for result in results for column in result):
        if column.name is None:
            return None
        before = together.get(fold(column.name), Column(column.name, NOTHING))
        together[fold(column.name)] = replace(before, inputs=union([before.inputs, column.inputs]))
    return tuple(together.values())
