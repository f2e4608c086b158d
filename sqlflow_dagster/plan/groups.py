"""A pipeline's steps → groups in the order they run: what has to be one op, and nothing more.

Each step is a node; file order gives the edges. Steps that write one table or target are one group,
and so are the loads of one SOURCE. A write after a read joins the reader too: Dagster has no edge
that orders without saying that data flowed. What then still runs in a circle is merged.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from sqlflow_dagster.plan.nodes import Export, Group, Load, Step
from sqlflow_dagster.sql import TableName, fold

# What a step writes: a table, or where an export goes.
_Place = TableName | str


def group_steps(pipeline: str, steps: Sequence[Step], isolated: Collection[str] = ()) -> tuple[Group, ...]:
    """Return the groups of a pipeline, each after those it needs, else by file order.

    `steps` are in file order. Streams of a source whose folded name is in `isolated` are not
    joined. The time grows with the steps and what they read, not faster.
    """
    union = _Union(len(steps))
    for one, other in _joined(steps, isolated):
        union.join(one, other)
    needs = list(_needs(steps))
    for circle in _circles(_between_groups(needs, union)):
        for member in circle[1:]:
            union.join(circle[0], member)
    members: dict[int, list[int]] = {}
    for index in range(len(steps)):
        members.setdefault(union.root(index), []).append(index)
    order = _sorted(_between_groups(needs, union))
    names: set[str] = set()
    return tuple(_group(pipeline, [steps[i] for i in members[root]], names) for root in order)


class _Union:
    """Disjoint sets of step numbers; a set's root is its first step."""

    def __init__(self, size: int) -> None:
        self.parents = list(range(size))

    def root(self, index: int) -> int:
        while self.parents[index] != index:
            self.parents[index] = self.parents[self.parents[index]]
            index = self.parents[index]
        return index

    def join(self, one: int, other: int) -> None:
        a, b = self.root(one), self.root(other)
        self.parents[max(a, b)] = min(a, b)


def _written(step: Step) -> _Place:
    if not isinstance(step, Export):
        return step.table.folded
    # One target may hold several things: tables of a database, sheets of a workbook.
    inside = {
        key: step.options[key] for key in ("table", "sheet", "sheet_name", "range") if key in step.options
    }
    return json.dumps([step.target, inside], sort_keys=True)


class Views:
    """A view stores nothing: who reads it reads what is below it, as that is then."""

    def __init__(self) -> None:
        """Begin without any."""
        self.below: dict[TableName, frozenset[TableName]] = {}

    def read(self, step: Step) -> frozenset[TableName]:
        """Return what a step reads, through views too."""
        if isinstance(step, Load):
            return frozenset()
        tables = {table.folded for table in step.reads}
        return frozenset(tables).union(*(self.below.get(table, frozenset()) for table in tables))

    def take(self, step: Step, tables: frozenset[TableName]) -> bool:
        """Note a step that makes a view; return whether it is one."""
        if isinstance(step, Load | Export):
            return False
        self.below.pop(step.table.folded, None)
        if step.view:
            self.below[step.table.folded] = tables
        return step.view


def _joined(steps: Sequence[Step], isolated: Collection[str]) -> Iterator[tuple[int, int]]:
    """Pairs of steps that are one group whatever else there is."""
    sources: dict[str, int] = {}
    writer: dict[_Place, int] = {}
    readers: dict[_Place, list[int]] = {}
    views = Views()
    for index, step in enumerate(steps):
        if isinstance(step, Load) and fold(step.source.name) not in isolated:
            yield sources.setdefault(fold(step.source.name), index), index
        tables = views.read(step)
        if not views.take(step, tables):
            # Making a view reads no rows, so a later write need not wait for it.
            for table in tables:
                readers.setdefault(table, []).append(index)
        place = _written(step)
        yield writer.get(place, index), index
        writer[place] = index
        for reader in readers.pop(place, ()):
            yield reader, index


def _needs(steps: Sequence[Step]) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Each step and the last writers of what it reads."""
    writer: dict[_Place, int] = {}
    views = Views()
    for index, step in enumerate(steps):
        tables = views.read(step)
        views.take(step, tables)
        yield index, tuple(writer[table] for table in tables if table in writer)
        writer[_written(step)] = index


def _between_groups(needs: Iterable[tuple[int, tuple[int, ...]]], union: _Union) -> dict[int, set[int]]:
    """Group -> the other groups it needs; groups by their root, in file order."""
    groups: dict[int, set[int]] = {}
    for index, others in needs:
        own = union.root(index)
        groups.setdefault(own, set()).update(root for other in others if (root := union.root(other)) != own)
    return groups


def _circles(needs: Mapping[int, set[int]]) -> list[list[int]]:
    """Strongly connected components of several members."""
    search = _Components(needs)
    for start in needs:
        if start not in search.number:
            search.visit(start)
    return search.found


class _Components:
    """Tarjan's algorithm, without recursion: a pipeline may be thousands of statements long."""

    def __init__(self, needs: Mapping[int, set[int]]) -> None:
        self.needs = needs
        self.number: dict[int, int] = {}
        self.low: dict[int, int] = {}
        self.waiting: dict[int, None] = {}
        self.path: list[tuple[int, Iterator[int]]] = []
        self.found: list[list[int]] = []

    def visit(self, start: int) -> None:
        self.enter(start)
        while self.path:
            node, rest = self.path[-1]
            other = next(rest, None)
            if other is None:
                self.leave()
            elif other not in self.number:
                self.enter(other)
            elif other in self.waiting:
                self.low[node] = min(self.low[node], self.number[other])

    def enter(self, node: int) -> None:
        self.number[node] = self.low[node] = len(self.number)
        self.waiting[node] = None
        self.path.append((node, iter(self.needs[node])))

    def leave(self) -> None:
        node, _ = self.path.pop()
        if self.path:
            above = self.path[-1][0]
            self.low[above] = min(self.low[above], self.low[node])
        if self.low[node] == self.number[node]:
            component = [self.waiting.popitem()[0]]
            while component[-1] != node:
                component.append(self.waiting.popitem()[0])
            if len(component) > 1:
                self.found.append(component)


def _sorted(needs: Mapping[int, set[int]]) -> list[int]:
    """Groups after those they need, else by file order."""
    missing = {group: len(others) for group, others in needs.items()}
    needed_by: dict[int, list[int]] = {}
    for group, others in needs.items():
        for other in others:
            needed_by.setdefault(other, []).append(group)
    ready = [group for group, count in missing.items() if count == 0]
    heapq.heapify(ready)
    order: list[int] = []
    while ready:
        group = heapq.heappop(ready)
        order.append(group)
        for waiting in needed_by.get(group, ()):
            missing[waiting] -= 1
            if missing[waiting] == 0:
                heapq.heappush(ready, waiting)
    return order


def _group(pipeline: str, steps: list[Step], taken: set[str]) -> Group:
    kind = _kind(steps)
    name = wanted = _name(steps, kind)
    number = 2
    while name.casefold() in taken:
        name, number = f"{wanted}_{number}", number + 1
    taken.add(name.casefold())
    return Group(pipeline, name, kind, tuple(steps))


def _kind(steps: Sequence[Step]) -> Literal["source", "table", "export", "merged"]:
    loads = [step for step in steps if isinstance(step, Load)]
    one_source = len({fold(load.source.name) for load in loads}) == 1
    if one_source and len(loads) == len(steps) == len({load.table.folded for load in loads}):
        return "source"
    if len(steps) > 1:
        return "merged"
    return "export" if isinstance(steps[0], Export) else "table"


def _name(steps: Sequence[Step], kind: str) -> str:
    first = steps[0]
    if kind == "source" and isinstance(first, Load):
        return _slug(first.source.name)
    tables = [step.table.name for step in steps if not isinstance(step, Export)]
    if tables:
        return _slug(tables[0])
    return f"export_{_slug(first.name)}" if isinstance(first, Export) else "group"


def _slug(text: str) -> str:
    """A name that Dagster takes for an op: ASCII letters, digits and underscores."""
    return re.sub(r"\W+", "_", text, flags=re.ASCII).strip("_") or "group"
