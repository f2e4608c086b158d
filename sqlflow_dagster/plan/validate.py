"""Checks of a planned project that need more than one statement to see."""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from sqlflow_dagster.errors import Problem
from sqlflow_dagster.language import tree
from sqlflow_dagster.language.tokens import scan
from sqlflow_dagster.plan.bodies import Body
from sqlflow_dagster.plan.groups import Views
from sqlflow_dagster.plan.lineage import output_columns
from sqlflow_dagster.plan.loads import Wanted
from sqlflow_dagster.plan.nodes import Export, Group, Load, Pipeline, Step, Transform
from sqlflow_dagster.plan.placed import File, Placed
from sqlflow_dagster.plan.report import Report
from sqlflow_dagster.plan.tables import Tables
from sqlflow_dagster.plan.transforms import Read
from sqlflow_dagster.sql import TableName, fold

# Options that say where in a target the rows go.
_MODES = ("mode", "write_mode", "if_exists", "destination_sync_mode", "write_disposition", "load_method")
_PLACES = ("table", "schema", "bucket", "path", "path_prefix", "key")
# What names the window of a run in a query.
_WINDOW = re.compile(r"@(?:start|end)_(?:date|dt)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Planned:
    """A step with what it was made from. `order` counts the statements of its file."""

    step: Step
    placed: Placed
    order: int
    reads: tuple[Read, ...] = ()
    body: Body | None = None
    wanted: Wanted | None = None


def check_writers(tables: Tables, report: Report) -> None:
    """Refuse a table that two pipelines write: nothing would say which of them comes first."""
    for writes in tables.all():
        first = writes[0]
        for write in writes[1:]:
            if write.pipeline != first.pipeline:
                message = f"the table {write.table} is written by the pipeline {first.pipeline!r} too"
                hint = "one pipeline writes a table; rename it in one of them, or put both into one file"
                write.placed.problem(report, message, hint, _name_span(write.placed))


def check_creates(file: File, tables: Tables, report: Report) -> None:
    """Check each CREATE against what stands above it in its file, and its MODE."""
    made: dict[TableName, Placed] = {}
    for write in tables.of(file.name):
        statement, before = write.placed.statement, made.get(write.table.folded)
        if before is not None:
            _check_again(report, write.placed, before, write.table)
        if isinstance(statement, tree.Create):
            _check_mode(report, write.placed, statement)
        made[write.table.folded] = write.placed


def check_exports(planned: Sequence[Planned], report: Report) -> None:
    """Notice an EXPORT that replaces what another one of the file has written to its target."""
    first: dict[tuple[str, ...], Planned] = {}
    for item in planned:
        step, statement = item.step, item.placed.statement
        if not (isinstance(step, Export) and isinstance(statement, tree.Export) and _anew(step)):
            continue
        target = item.placed.text(report, step.target, statement.target.span) or ""
        place = target if "://" in target else posixpath.normpath(target)
        key = (step.type, place, *(str(step.options.get(name)) for name in _PLACES))
        other = first.setdefault(key, item)
        if other is not item:
            report.notices.append(
                f"{item.placed.script.path}:{step.location.line}: this EXPORT replaces what that of line "
                f"{other.step.location.line} writes to {step.target!r}; name another target, or export both at once"
            )


def _anew(step: Export) -> bool:
    given = [step.options[name] for name in _MODES if name in step.options]
    return not given or str(given[0]).lower() in ("replace", "overwrite", "w", "full-refresh", "truncate")


def _check_again(report: Report, placed: Placed, before: Placed, table: TableName) -> None:
    statement, line = placed.statement, before.statement.span.line
    was_view = isinstance(before.statement, tree.Create) and before.statement.view
    is_view = isinstance(statement, tree.Create) and statement.view
    if was_view != is_view:
        kinds = ("view", "table") if was_view else ("table", "view")
        message = f"{table.name!r} is a {kinds[0]} at line {line} and a {kinds[1]} here"
        placed.problem(report, message, "give one of them another name", _name_span(placed))
    elif isinstance(statement, tree.Create) and not statement.or_replace and _replaces(statement):
        message = f"{table.name!r} is made at line {line} already"
        hint = "write CREATE OR REPLACE, add MODE APPEND or UPSERT, or choose another name"
        placed.problem(report, message, hint, _name_span(placed))


def _replaces(statement: tree.Create) -> bool:
    return statement.mode is None or statement.mode.kind == "REPLACE"


def _check_mode(report: Report, placed: Placed, statement: tree.Create) -> None:
    mode = statement.mode
    if mode is None:
        return
    if statement.view:
        placed.problem(report, "a VIEW stores nothing and has no MODE", "make it a TABLE", mode.span)
    elif mode.kind == "UPSERT" and not mode.keys:
        placed.problem(report, "UPSERT needs a KEY", "write MODE UPSERT KEY (column)", mode.span)


def check_order(file: File, planned: Sequence[Planned], tables: Tables, report: Report) -> None:
    """Refuse a read of a table that its own file makes only later: the first run would find none."""
    for item in planned:
        for read in item.reads:
            writes = tables.writes(read.table)
            pipeline = item.step.pipeline
            if not writes or any(w.pipeline != pipeline or w.order < item.order for w in writes):
                continue
            if file.name in tables.open_ended or file.unread.may_make(read.table.name):
                continue
            if writes[0].order == item.order:
                message = f"{read.table.name!r} reads itself before anything has made it"
                hint = "make it above with CREATE TABLE or LOAD"
            else:
                line = writes[0].placed.statement.span.line
                message = f"{read.table.name!r} is read here and made only at line {line}"
                hint = "statements take effect in file order; move the one that makes it up"
            item.placed.problem(report, message, hint, read.span)


def check_views(planned: Sequence[Planned], report: Report) -> None:
    """Refuse a view that reads itself, by itself or through others."""
    views = Views()
    for item in planned:
        tables = views.read(item.step)
        if (
            views.take(item.step, tables)
            and isinstance(item.step, Transform)
            and item.step.table.folded in tables
        ):
            message = f"the view {item.step.table.name!r} would read itself"
            hint = "a view stores nothing; make it a TABLE, or give one of them another name"
            item.placed.problem(report, message, hint, _name_span(item.placed))


def check_loads(planned: Sequence[Planned], report: Report) -> None:
    """Refuse incremental loads that would disturb each other's rows or cursor."""
    seen: dict[tuple[str, str, TableName], int] = {}
    for item in planned:
        load, wanted = item.step, item.wanted
        if not isinstance(load, Load) or wanted is None or not load.incremental:
            continue
        key = (fold(load.source.name), fold(load.stream), load.table.folded)
        if key in seen:
            message = f"the stream {load.stream!r} is loaded incrementally into {load.table.name!r} twice"
            hint = f"line {seen[key]} does it already, and both would move one cursor; keep one LOAD"
            item.placed.problem(report, message, hint)
        seen.setdefault(key, load.location.line)
        facts = wanted.declared.facts
        provenance = facts is not None and facts.row_provenance
        if not (load.sole_writer or load.keys or provenance or wanted.stream.own_cursor):
            message = f"{load.table.name!r} has other writers too, and this incremental LOAD has no key"
            hint = 'give the source a "primary_key", or "row_provenance": true, so that it finds its own rows'
            item.placed.problem(report, message, hint)


def check_columns(schema: str, planned: Sequence[Planned], report: Report) -> list[Planned]:
    """Check KEY and INCREMENTAL BY columns against the query's result, where that is known.

    A table INCREMENTAL BY a column that its query reads but does not give is returned as one that
    is built anew: no window of it could be told.
    """
    if not any(isinstance(p.step, Transform) and (p.step.keys or p.step.by) for p in planned):
        return list(planned)
    known: dict[TableName, Sequence[str] | None] = {}
    settled: list[Planned] = []
    for item in planned:
        step = item.step
        if isinstance(step, Load):
            known[step.table] = None
        elif isinstance(step, Transform) and item.body:
            for table in step.reads:
                known.setdefault(table, None)
            path = list(dict.fromkeys((schema, *(table.schema for table in step.reads))))
            columns = output_columns(item.body.node, known, path)
            if columns is not None and _is_without_window(item.body, step, columns):
                item = replace(item, step=replace(step, mode="replace", by=None, lookback=None))  # noqa: PLW2901
                report.notices.append(
                    f"{item.placed.script.path}:{step.location.line}: the result of {step.table.name} does not "
                    f"have {step.by}, so the table is built anew in each run"
                )
            else:
                _check_step(report, item, columns)
            known[step.table] = columns if step.mode == "replace" else None
        settled.append(item)
    return settled


def _is_without_window(body: Body, step: Transform, columns: Sequence[str]) -> bool:
    """Whether a query reads the column that is to tell the time, but does not give it."""
    if step.by is None or _has(columns, step.by) or _WINDOW.search(body.text):
        return False
    words = (token.text.strip('"') for token in scan(body.text) if token.kind in ("word", "quoted"))
    return _has(words, step.by)


def _has(names: Iterable[str], wanted: str) -> bool:
    return any(fold(name) == fold(wanted) for name in names)


def _check_step(report: Report, item: Planned, columns: Sequence[str] | None) -> None:
    statement = item.placed.statement
    if columns is None or not isinstance(statement, tree.Create) or statement.mode is None:
        return
    have = {fold(column): column for column in columns}
    names = [*statement.mode.keys, *([statement.mode.by] if statement.mode.by else [])]
    for written in names:
        name = item.placed.fixed(report, written.text, written.span)
        if name is not None and fold(name) not in have:
            near = difflib.get_close_matches(fold(name), have, n=1)
            hint = f"did you mean {have[near[0]]}?" if near else f"it gives {', '.join(columns)}"
            message = f"the column {name!r} is not in the query's result"
            item.placed.problem(report, message, hint, written.span)


@dataclass
class _Search:
    """Depth-first search for one circle among groups, without recursion."""

    needs: Mapping[tuple[str, str], Sequence[tuple[str, str]]]
    done: set[tuple[str, str]] = field(default_factory=set)

    def circle(self) -> list[tuple[str, str]]:
        for start in self.needs:
            path: dict[tuple[str, str], None] = {}
            stack = [(start, False)]
            while stack:
                node, leaving = stack.pop()
                if leaving:
                    path.pop(node)
                    self.done.add(node)
                elif node in path:
                    nodes = list(path)
                    return nodes[nodes.index(node) :]
                elif node not in self.done:
                    path[node] = None
                    stack.append((node, True))
                    stack += [(other, False) for other in self.needs[node]]
        return []


def check_circles(pipelines: Sequence[Pipeline], shown: Mapping[str, str], report: Report) -> None:
    """Refuse pipelines whose tables need each other in a circle; inside one file circles are merged.

    `shown` are the pipelines' paths as messages have them.
    """
    groups = {(group.pipeline, group.name): group for p in pipelines for group in p.groups}
    owner = {
        step.table.folded: node
        for node, group in groups.items()
        for step in group.steps
        if isinstance(step, Load | Transform)
    }
    needs = {
        node: [owner[t] for t in _read(group) if t in owner and owner[t] != node]
        for node, group in groups.items()
    }
    circle = _Search(needs).circle()
    if not circle:
        return
    steps = [
        _step_that_needs(groups[node], set(_tables(groups[circle[(i + 1) % len(circle)]])))
        for i, node in enumerate(circle)
    ]
    places = ", ".join(f"{step.pipeline} at line {step.location.line} reads {table}" for step, table in steps)
    first = steps[0][0]
    report.problems.append(
        Problem(
            shown[first.pipeline],
            first.location.line,
            first.location.column,
            f"pipelines need each other in a circle: {places}",
            "put the statements of the circle into one file, or take one reading out",
        )
    )


def _read(group: Group) -> Iterable[TableName]:
    return dict.fromkeys(t.folded for step in group.steps if not isinstance(step, Load) for t in step.reads)


def _tables(group: Group) -> Iterable[TableName]:
    return (step.table.folded for step in group.steps if isinstance(step, Load | Transform))


def _step_that_needs(group: Group, tables: set[TableName]) -> tuple[Step, TableName]:
    return next(
        (step, table)
        for step in group.steps
        if not isinstance(step, Load)
        for table in step.reads
        if table.folded in tables
    )


def _name_span(placed: Placed) -> tree.Span | None:
    table = getattr(placed.statement, "table", None)
    return table.span if isinstance(table, tree.Table) else None
