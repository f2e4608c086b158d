"""A file → its statements in effect, in order: INCLUDE put in, SET kept, IF decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlflow_dagster.errors import Problem
from sqlflow_dagster.language.conditions import evaluate
from sqlflow_dagster.language.parser import read
from sqlflow_dagster.language.tree import If, Include, Script, Set, Span, Statement
from sqlflow_dagster.language.variables import Variables
from sqlflow_dagster.plan.placed import File, Placed, Values, fixed_text, noted, refuse_late, values_of
from sqlflow_dagster.plan.report import Report
from sqlflow_dagster.plan.unread import Unread


def flatten(path: Path, root: Path, schema: str, variables: Variables, report: Report) -> File:
    """Return a pipeline's file with its statements in effect; what is wrong goes to the report."""
    flattener = _Flattener(root, report, values_of(variables))
    text = flattener.file(path, "", None)
    return File(
        name=path.stem,
        path=path,
        schema=schema,
        placed=tuple(flattener.placed),
        description=_description(text),
        unread=flattener.unread,
        paths=frozenset(flattener.paths),
    )


@dataclass
class _Flattener:
    root: Path
    report: Report
    values: Values
    placed: list[Placed] = field(default_factory=list)
    unread: Unread = field(default_factory=Unread)
    open: list[Path] = field(default_factory=list)
    paths: set[str] = field(default_factory=set)

    def file(self, path: Path, prefix: str, included_at: tuple[Script, Span] | None) -> str:
        """Take a file's statements in and return its text."""
        shown = _shown(path, self.root)
        self.paths.add(shown)
        text = self.text(path, shown, included_at)
        if text is None:
            self.unread.anything = self.unread.any_table = True
            return ""
        script = read(text, shown)
        self.report.unread.setdefault(shown, []).append(self.unread)
        self.report.problems += script.problems
        for span in script.unread:
            self.unread.add(script.text[span.start : span.end], prefix)
        self.open.append(path)
        self.take(script.statements, script, path, prefix)
        self.open.pop()
        return text

    def text(self, path: Path, shown: str, included_at: tuple[Script, Span] | None) -> str | None:
        """Return a file's text, None after noting why it cannot be read."""
        try:
            return path.read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            message = f"the file is not UTF-8 (byte {error.start}); save it as UTF-8"
            self.report.problems.append(Problem(shown, 1, 1, message))
        except OSError as error:
            if included_at:
                self.report.problem(*included_at, f"{shown} cannot be read: {error.strerror}")
            else:
                self.report.problems.append(Problem(shown, 1, 1, f"cannot be read: {error.strerror}"))
        return None

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
            # It has no value for what follows, and that is no error of its own.
            self.unread.add(name)

    def if_(self, statement: If, script: Script, path: Path, prefix: str) -> None:
        for branch in statement.branches:
            holds = None
            with noted(self.report, script, branch.condition.span):
                refuse_late(branch.condition.sql, self.values, "IF, which is decided before")
                holds = evaluate(branch.condition.sql, self.values.known)
            if holds is None:
                self.unread.add(script.text[statement.span.start : statement.span.end], prefix)
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
        target = self.find(path.parent, written) if written is not None else None
        if target is None or target in self.open or alias is None:
            self.unread.anything = self.unread.any_table = True
        if written is None or alias is None:
            return
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


def _shown(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _description(text: str) -> str:
    """The comment that opens a file, without its marks."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.lstrip().startswith("--"):
            break
        lines.append(line.strip().lstrip("-").strip())
    return "\n".join(lines).strip()
