"""Layers of variables → the value that a name has: one precedence rule for all places."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.language.references import Reference, alone, fill, references
from sqlflow_dagster.language.tree import Bare

Scalar = str | int | float | bool | None
Layer = Mapping[str, Any]

_JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?", re.ASCII)
_CONSTANTS: dict[str, bool] = {"true": True, "false": False}
_MOST_DIGITS = 400
# Profiles may use variables in variables; text that grows beyond this is a mistake.
_LONGEST = 1_000_000


class UndefinedVariables(ProjectError):
    """Variables that no layer defines and that have no default; `names` lists them."""

    def __init__(self, names: Iterable[str]) -> None:
        """Keep the names, each once, in the order they were met."""
        self.names = tuple(dict.fromkeys(names))
        listed = ", ".join("${" + name + "}" for name in self.names)
        super().__init__(
            f"no value for {listed}: define it in the profile's `variables`, with SET, in `.env` or with --vars"
        )


@dataclass(frozen=True, slots=True)
class Variables:
    """The values that a statement sees, in layers that are read as they are and never copied.

    Highest first: run, profile, sets, builtin, dotenv, environ. Text in a profile may use
    variables; a name in its own text means the layers below. Text from anywhere else is a value,
    never read again.
    """

    run: Layer = field(default_factory=dict)
    profile: Layer = field(default_factory=dict)
    dotenv: Layer = field(default_factory=dict)
    environ: Layer = field(default_factory=dict)
    builtin: Layer = field(default_factory=dict)
    sets: Layer = field(default_factory=dict)

    def with_set(self, name: str, value: Scalar) -> Variables:
        """Return these variables after `SET name = value`; the value may use earlier ones.

        Raises UndefinedVariables where it uses one that has no value, unless a stronger layer
        defines `name` anyway.
        """
        if name in self.run or name in self.profile:
            return self
        return replace(self, sets={**self.sets, name: Values(self).expanded(value)})

    def lookup(self, name: str) -> Any:
        """Return the value of `name`, of the type it has in its layer. Raises UndefinedVariables."""
        return Values(self).of(Reference(name, None, 0, 0))

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, the strongest first."""
        return (self.run, self.profile, self.sets, self.builtin, self.dotenv, self.environ)


_TYPED = (False, True, True, True, False, False)  # which of `layers` tell text from numbers


class Values:
    """Looks variables up; a profile's text is worked out once."""

    def __init__(self, variables: Variables) -> None:
        """Begin with nothing worked out."""
        self._variables = variables
        self._profile: dict[str, Any] = {}

    def of(self, reference: Reference) -> Any:
        """Return a variable's value as its layer has it; defaults are text. Raises UndefinedVariables."""
        return self._found(reference, ())[0]

    def standing_alone(self, reference: Reference) -> Any:
        """Return a variable's value where no quotes say that it is text.

        Text that is exactly a JSON number, `true` or `false` becomes one, if it comes from where
        there are no types: the run, `.env`, the environment, a default without quotes.
        """
        value, is_typed = self._found(reference, ())
        return value if is_typed else typed(value)

    def text(self, reference: Reference) -> str:
        """Return a variable's value as text."""
        return as_text(self.of(reference))

    def lacks(self, reference: Reference) -> bool:
        """Whether a use of a variable has neither value nor default."""
        try:
            self.of(reference)
        except UndefinedVariables:
            return True
        return False

    def check(self, found: Sequence[Reference]) -> None:
        """Raise UndefinedVariables with the names of all that have no value."""
        names: list[str] = []
        for reference in found:
            try:
                self.of(reference)
            except UndefinedVariables as error:
                names += error.names
        if names:
            raise UndefinedVariables(names)

    def expanded(self, value: Any) -> Any:
        """Return a JSON value with its variables filled in. Raises UndefinedVariables naming all."""
        self.check([reference for text in _texts(value) for reference in references(text)])
        return self._expanded(value, ())

    def _expanded(self, value: Any, path: tuple[str, ...]) -> Any:
        if isinstance(value, Mapping):
            return {key: self._expanded(item, path) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._expanded(item, path) for item in value]
        if not isinstance(value, str) or "${" not in value:
            return value
        whole = alone(value)
        if whole:
            found, is_typed = self._found(whole, path)
            return typed(found) if isinstance(value, Bare) and not is_typed else found
        text = fill(value, lambda reference: as_text(self._found(reference, path)[0]))
        if len(text) > _LONGEST:
            raise ProjectError(
                f"the variables in {value[:60]!r} make more than {_LONGEST} characters of text"
            )
        return text

    def _found(self, reference: Reference, path: tuple[str, ...]) -> tuple[Any, bool]:
        """The value, and whether its layer tells text from numbers."""
        try:
            return self._in_layers(reference.name, path)
        except UndefinedVariables:
            if reference.default is None:
                raise
            return reference.default, reference.quoted

    def _in_layers(self, name: str, path: tuple[str, ...]) -> tuple[Any, bool]:
        in_itself = bool(path) and path[-1] == name
        for index, layer in enumerate(self._variables.layers):
            if name not in layer or (in_itself and index < 2):
                continue
            if index == 1:
                return self._of_profile(name, path), True
            return layer[name], _TYPED[index] or not isinstance(layer[name], str)
        raise UndefinedVariables([name])

    def _of_profile(self, name: str, path: tuple[str, ...]) -> Any:
        if name in path:
            circle = " -> ".join([*path[path.index(name) :], name])
            raise ProjectError(f"variables of the profile are defined by each other: {circle}; take one out")
        if name not in self._profile:
            self._profile[name] = self._expanded(self._variables.profile[name], (*path, name))
        return self._profile[name]


def typed(value: Any) -> Any:
    """Return text that is exactly a JSON number, `true` or `false` as that value."""
    if not isinstance(value, str):
        return value
    if value in _CONSTANTS:
        return _CONSTANTS[value]
    if len(value) > _MOST_DIGITS or not _JSON_NUMBER.fullmatch(value):
        return value
    number = json.loads(value)
    return number if math.isfinite(number) else value


def as_text(value: Any) -> str:
    """Return a value as it stands inside a text: `true`, `1.5`, nothing for NULL, `a,b` for a list."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(map(as_text, value))
    return str(value)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
