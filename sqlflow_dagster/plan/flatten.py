"""A file → its statements in effect, in order: INCLUDE put in, SET kept, IF decided.

What shapes the graph is decided here from the variables that are known before a run: a value that
only a run has (`${run_date}` and what a SET makes of it) may stand in SQL, targets and parameters,
but neither in a condition nor in a name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlflow_dagster.errors import PipelineError, Problem, ProjectError
from sqlflow_dagster.language.conditions import evaluate
from sqlflow_dagster.language.parser import parse
from sqlflow_dagster.language.tree import (
    Create,
    Export,
    If,
    Include,
    Load,
    Object,
    Script,
    Set,
    Source,
    Span,
    Statement,
)
from sqlflow_dagster.language.variables import (
    UndefinedVariables,
    Variables,
    expand_text,
    expand_value,
    references,
)
from sqlflow_dagster.plan.nodes import Location, Template
from sqlflow_dagster.plan.report import Report

# What the built-in variables stand for while SQL and parameters are looked at before a run.
RUN_TIME: Mapping[str, str] = {
    "run_id": "run",
    "run_date": "2000-01-01",
    "partition_start": "2000-01-01",
    "partition_end": "2000-01-02",
}

Effective = Source | Load | Create | Export


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
    ) -> dict[str, Any] | None:
        """Return parameters with their values; None after noting at their keys what is wrong."""
        places = written.spans if written else {}
        filled: dict[str, Any] = {}
        for key, value in params.items():
            with noted(report, self.script, places.get(key, span)):
                filled[key] = expand_value(value, self.values.all)
        return filled if len(filled) == len(params) else None


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
        _refuse_late(template, values, "a name")
        return expand_text(template, values.known)
    return None


def _refuse_late(template: str, values: Values, place: str) -> None:
    late = [ref.name for ref in references(template) if ref.name in values.late]
    if late:
        raise ProjectError(
            f"${{{late[0]}}} has its value only when a run starts, too late for {place};"
            " use a variable of the profile, SET or --vars"
        )


@dataclass(frozen=True, slots=True)
class File:
    """One pipeline's file, its statements in effect.

    `unread` is text whose statements could not be taken in, so that names in it are not "unknown".
    """

    name: str
    path: Path
    schema: str
    placed: tuple[Placed, ...]
    description: str
    unread: str


def flatten(path: Path, root: Path, schema: str, variables: Variables, report: Report) -> File:
    """Return a pipeline's file with its statements in effect; what is wrong goes to the report."""
    flattener = _Flattener(root, report, _values(variables))
    text = flattener.file(path, "", None)
    return File(
        name=path.stem,
        path=path,
        schema=schema,
        placed=tuple(flattener.placed),
        description=_description(text),
        unread="\n".join(flattener.unread),
    )


@dataclass
class _Flattener:
    root: Path
    report: Report
    values: Values
    placed: list[Placed] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    open: list[Path] = field(default_factory=list)

    def file(self, path: Path, prefix: str, included_at: tuple[Script, Span] | None) -> str:
        """Take a file's statements in and return its text."""
        shown = _shown(path, self.root)
        try:
            text = path.read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            message = f"the file is not UTF-8 (byte {error.start}); save it as UTF-8"
            self.report.problems.append(Problem(shown, 1, 1, message))
            return ""
        except OSError as error:
            if included_at:
                self.report.problem(*included_at, f"{shown} cannot be read: {error.strerror}")
            else:
                self.report.problems.append(Problem(shown, 1, 1, f"cannot be read: {error.strerror}"))
            return ""
        try:
            script = parse(text, shown)
        except PipelineError as error:
            self.report.problems += error.problems
            self.unread.append(text)
            return text
        self.open.append(path)
        self.take(script.statements, script, path, prefix)
        self.open.pop()
        return text

    def take(self, statements: Sequence[Statement], script: Script, path: Path, prefix: str) -> None:
        for statement in statements:
            match statement:
                case Set():
                    self.set(statement, script)
                case If():
                    self.if_(statement, script, path, prefix)
                case Include():
                    self.include(statement, script, path, prefix)
                case _:
                    self.placed.append(Placed(statement, script, path, self.values, prefix))

    def set(self, statement: Set, script: Script) -> None:
        name = statement.name.text
        values = self.values
        with noted(self.report, script, statement.span):
            self.values = values.with_set(name, statement.value)
        if self.values is values:
            # It has a value for what follows: one error is enough.
            self.values = values.with_set(name, "")

    def if_(self, statement: If, script: Script, path: Path, prefix: str) -> None:
        for branch in statement.branches:
            holds = None
            with noted(self.report, script, branch.condition.span):
                _refuse_late(branch.condition.sql, self.values, "IF, which is decided before")
                holds = evaluate(branch.condition.sql, self.values.known)
            if holds is None:
                self.unread.append(script.text[statement.span.start : statement.span.end])
                return
            if holds:
                self.take(branch.body, script, path, prefix)
                return
        self.take(statement.otherwise, script, path, prefix)

    def include(self, statement: Include, script: Script, path: Path, prefix: str) -> None:
        span = statement.path.span
        written = fixed_text(self.report, script, self.values, statement.path.value, span)
        alias: str | None = ""
        if statement.alias:
            alias = fixed_text(self.report, script, self.values, statement.alias.text, statement.alias.span)
        if written is None or alias is None:
            return
        target = self.find(path.parent, written)
        if target is None:
            hint = "its path begins at this file's folder or at the project's root, and stays in the project"
            self.report.problem(script, span, f"INCLUDE {written!r}: no such file", hint)
        elif target in self.open:
            circle = [*self.open[self.open.index(target) :], target]
            chain = " -> ".join(_shown(step, self.root) for step in circle)
            self.report.problem(script, span, f"INCLUDE goes in a circle: {chain}", "take one of them out")
        else:
            self.file(target, f"{prefix}{alias}_" if alias else prefix, (script, span))

    def find(self, folder: Path, written: str) -> Path | None:
        for base in (folder, self.root):
            path = (base / written).resolve()
            if path.is_relative_to(self.root.resolve()) and path.is_file():
                return path
        return None


def _values(variables: Variables) -> Values:
    late = frozenset(RUN_TIME) - {*variables.run, *variables.profile}
    return Values(variables, replace(variables, builtin=RUN_TIME), late)


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


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


def _description(text: str) -> str:
    """The comment that opens a file, without its marks."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.lstrip().startswith("--"):
            break
        lines.append(line.strip().lstrip("-").strip())
    return "\n".join(lines).strip()
