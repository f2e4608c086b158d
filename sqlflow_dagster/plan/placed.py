"""A statement in effect: where it was written, what variables it sees, and what is wrong with them.

What shapes the graph is decided from the variables that are known before a run: a value that only
a run has (`${run_date}` and what a SET makes of it) may stand in SQL, targets and parameters, but
neither in a condition nor in a name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.language.tree import Create, Export, Load, Object, Script, Source, Span
from sqlflow_dagster.language.variables import (
    UndefinedVariables,
    Variables,
    expand_text,
    expand_value,
    references,
)
from sqlflow_dagster.plan.nodes import Location, Template
from sqlflow_dagster.plan.report import Report
from sqlflow_dagster.plan.unread import Unread

# What the built-in variables stand for while SQL and parameters are looked at before a run.
RUN_TIME: Mapping[str, str] = {
    "run_id": "run",
    "run_date": "2000-01-01",
    "partition_start": "2000-01-01",
    "partition_end": "2000-01-02",
}

Effective = Source | Load | Create | Export


def values_of(variables: Variables) -> Values:
    """Return the values that a file begins with."""
    late = frozenset(RUN_TIME) - {*variables.run, *variables.profile}
    return Values(variables, replace(variables, builtin=RUN_TIME), late)


@dataclass(frozen=True, slots=True)
class Values:
    """The variables that a statement sees.

    `known` has what is fixed before a run, `all` has stand-ins for the rest as well; `late` names
    what only a run knows. `scope` are the SETs as they go into the plan.
    """

    known: Variables
    all: Variables
    late: frozenset[str]
    scope: Mapping[str, Template] = field(default_factory=dict)

    def with_set(self, name: str, value: Template) -> Values:
        """Return the values after `SET name = value`. Raises UndefinedVariables."""
        everything = self.all.with_set(name, value)
        overridden = name in self.all.run or name in self.all.profile
        late = isinstance(value, str) and any(ref.name in self.late for ref in references(value))
        if late and not overridden:
            known, names = self.known, self.late | {name}
        else:
            known, names = self.known.with_set(name, value), self.late - {name}
        return Values(known, everything, names, self._extended(name, value))

    def _extended(self, name: str, value: Template) -> dict[str, Template]:
        """The scope with one more SET. A name set again keeps its old value for those that used it."""
        scope = dict(self.scope)
        users = [*scope.values(), value] if name in scope else []
        if any(isinstance(text, str) and _uses(text, name) for text in users):
            old = next(f"{name}.{n}" for n in range(1, len(scope) + 2) if f"{name}.{n}" not in scope)
            scope = {old if key == name else key: _renamed(text, name, old) for key, text in scope.items()}
            value = _renamed(value, name, old)
        scope.pop(name, None)
        scope[name] = value
        return scope


@dataclass(frozen=True, slots=True)
class Placed:
    """A statement in effect: where it was written, what variables it sees, and its names' prefix."""

    statement: Effective
    script: Script
    path: Path
    values: Values
    prefix: str = ""

    @property
    def location(self) -> Location:
        """Return the statement's place."""
        span = self.statement.span
        return Location(self.path, span.line, span.column)

    @property
    def head(self) -> Span:
        """The statement's first word: where problems of the whole statement are shown."""
        span = self.statement.span
        return replace(span, end=min(span.end, span.start + len(type(self.statement).__name__)))

    def problem(self, report: Report, message: str, hint: str = "", span: Span | None = None) -> None:
        """Note a problem of this statement, at `span` or at its beginning."""
        report.problem(self.script, span or self.head, message, hint)

    def fixed(self, report: Report, template: str, span: Span) -> str | None:
        """Return a text that shapes the graph; None after noting why it has no value."""
        return fixed_text(report, self.script, self.values, template, span)

    def text(self, report: Report, template: str, span: Span) -> str | None:
        """Return a text with stand-ins for what only a run knows; None after noting what is wrong."""
        with noted(report, self.script, span):
            return expand_text(template, self.values.all)
        return None

    def parameters(
        self, report: Report, params: Mapping[str, Any], written: Object | None, span: Span
    ) -> Filled:
        """Return parameters with their values, after noting at their keys which have none."""
        places = written.spans if written else {}
        filled: dict[str, Any] = {}
        for key, value in params.items():
            with noted(report, self.script, places.get(key, span)):
                filled[key] = expand_value(value, self.values.all)
        missing = frozenset(params) - frozenset(filled)
        return Filled({key: filled.get(key, "missing") for key in params}, missing)


@dataclass(frozen=True, slots=True)
class Filled:
    """Parameters with values; those in `missing` have a stand-in, and their error is noted."""

    values: Mapping[str, Any]
    missing: frozenset[str]


@dataclass(frozen=True, slots=True)
class noted:  # noqa: N801 - used as a statement: `with noted(…)`
    """Note what is wrong with a text's variables, at its place, and go on after the block."""

    report: Report
    script: Script
    span: Span

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> bool:
        """Take an error of the project in; any other goes on."""
        if isinstance(error, UndefinedVariables):
            self.report.undefined(error.names, self.script, self.span)
        elif isinstance(error, ProjectError):
            self.report.problem(self.script, self.span, str(error))
        else:
            return False
        return True


def fixed_text(report: Report, script: Script, values: Values, template: str, span: Span) -> str | None:
    """Return a text that shapes the graph; None after noting why it has no value."""
    with noted(report, script, span):
        refuse_late(template, values, "a name")
        return expand_text(template, values.known)
    return None


def refuse_late(template: str, values: Values, place: str) -> None:
    """Raise ProjectError where a text that shapes the graph uses what only a run knows."""
    late = [ref.name for ref in references(template) if ref.name in values.late]
    if late:
        raise ProjectError(
            f"${{{late[0]}}} has its value only when a run starts, too late for {place};"
            " use a variable of the profile, SET or --vars"
        )


@dataclass(frozen=True, slots=True)
class File:
    """One pipeline's file, its statements in effect.

    `unread` is what could not be taken in, so that what it may have made is not called unknown.
    `paths` are its own and those of the files it includes, as messages have them.
    """

    name: str
    path: Path
    schema: str
    placed: tuple[Placed, ...]
    description: str
    unread: Unread
    paths: frozenset[str]


def _uses(text: str, name: str) -> bool:
    return any(ref.name == name for ref in references(text))


def _renamed(text: Template, name: str, new: str) -> Template:
    """The template with `${name}` called `${new}`."""
    if not isinstance(text, str):
        return text
    for ref in reversed(references(text)):
        if ref.name == name:
            written = text[ref.start : ref.end].replace(name, new, 1)
            # A variable without quotes stays one: the kind of text is kept.
            text = type(text)(text[: ref.start] + written + text[ref.end :])
    return text
