"""What is wrong in a project's files, collected while planning and raised at the end as one error."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sqlflow_dagster.errors import PipelineError, Problem, ProjectError
from sqlflow_dagster.language.parser import offset_problem
from sqlflow_dagster.language.tree import Script, Span
from sqlflow_dagster.language.variables import sql_references
from sqlflow_dagster.plan.nodes import Source
from sqlflow_dagster.plan.unread import Unread

_HOW_TO_DEFINE = (
    "define it in the profile's `variables`, with SET, in `.env` or with --vars,"
    " or give a default: ${name|default}"
)


class _Use(NamedTuple):
    path: str
    start: int
    end: int


@dataclass
class Report:
    """Collects problems, uses of variables that have no value, notices, and what is to be discovered.

    With `undiscovered_is_fine` a LOAD whose streams are not known yet is left out and noticed;
    without, it is a problem.
    """

    undiscovered_is_fine: bool = False
    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    undiscovered: list[Source] = field(default_factory=list)
    # By a file's path: what the pipelines that use it could not take in.
    unread: dict[str, list[Unread]] = field(default_factory=dict)
    _undefined: dict[str, dict[_Use, None]] = field(default_factory=dict)
    # Those that a statement in error may have set: no error of their own.
    _caused: dict[str, dict[_Use, None]] = field(default_factory=dict)
    _scripts: dict[str, Script] = field(default_factory=dict)

    def problem(self, script: Script, span: Span, message: str, hint: str = "") -> None:
        """Note a problem at a place of a file."""
        self.problems.append(offset_problem(script, span.start, span.end, message, hint))

    def undefined(self, names: Iterable[str], script: Script, span: Span) -> None:
        """Note a place that uses variables without a value; each is shown where its `${…}` stands."""
        self._scripts[script.path] = script
        unread = self.unread.get(script.path, ())
        for name in names:
            caused = any(text.may_set(name) for text in unread)
            noted = self._caused if caused else self._undefined
            noted.setdefault(name, {}).update(dict.fromkeys(_places_of(name, script, span)))

    def raise_if_any(self, paths: Collection[str] | None = None) -> None:
        """Raise PipelineError with everything found, in the order of files and lines.

        With `paths` what was found in other files is let be.
        """
        found = [*self.problems, *self._missing(self._undefined, paths)]
        found = [problem for problem in found if paths is None or str(problem.path) in paths]
        if not found:
            found = self._missing(self._caused, paths)
        if found:
            unique = dict.fromkeys(found)
            raise PipelineError(sorted(unique, key=lambda p: (str(p.path), p.line, p.column)))

    def wrong_paths(self) -> set[str]:
        """Return the paths of the files in which something is wrong."""
        undefined = (*self._undefined.values(), *self._caused.values())
        return {str(problem.path) for problem in self.problems} | {u.path for uses in undefined for u in uses}

    def _missing(
        self, noted: Mapping[str, Mapping[_Use, None]], paths: Collection[str] | None
    ) -> list[Problem]:
        """One problem for all variables without a value: they are mended in one place."""
        there = {
            name: [use for use in uses if paths is None or use.path in paths] for name, uses in noted.items()
        }
        undefined = {name: uses for name, uses in there.items() if uses}
        if not undefined:
            return []
        listed = "; ".join(
            f"${{{name}}} ({', '.join(self._shown(use) for use in sorted(uses))})"
            for name, uses in sorted(undefined.items())
        )
        first = min(use for uses in undefined.values() for use in uses)
        return [self._at(first, f"no value for {listed}", _HOW_TO_DEFINE)]

    def _shown(self, use: _Use) -> str:
        place = self._at(use)
        return f"{place.path}:{place.line}:{place.column}"

    def _at(self, use: _Use, message: str = "", hint: str = "") -> Problem:
        return offset_problem(self._scripts[use.path], use.start, use.end, message, hint)


def _places_of(name: str, script: Script, span: Span) -> list[_Use]:
    """Where `${name}` stands in a piece of a file; the whole piece where another value brings it in."""
    text = script.text[span.start : span.end]
    try:
        found = [ref for ref in sql_references(text) if ref.name == name and ref.default is None]
    except ProjectError:
        found = []
    return [_Use(script.path, span.start + ref.start, span.start + ref.end) for ref in found] or [
        _Use(script.path, span.start, span.end)
    ]
