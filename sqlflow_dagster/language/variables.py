"""`${name}` → its value: one precedence rule, and for each place a safe way in.

Precedence, highest first: run (`--vars`, Dagster's run config), profile, SET, `.env`, process
environment, the default after `|`. Built-in names come before all of them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.language.tokens import VARIABLE, SqlToken, scan
from sqlflow_dagster.sql import literal, quote

Scalar = str | int | float | bool | None
Layer = Mapping[str, Any]

_REFERENCE = re.compile(rf"(?P<escape>\$\$\{{)|(?P<reference>{VARIABLE})")
_INSIDE = re.compile(r"\$\{\s*(?P<name>[^\W\d][\w.]*)\s*(?:\|(?P<default>.*))?\}\Z", re.DOTALL)
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?\Z")
_IDENTIFIER = re.compile(r"[^\W\d]\w*\Z")
_BEFORE_A_TABLE = frozenset({"FROM", "JOIN", "INTO", "UPDATE", "TABLE", "VIEW"})
_DEEPEST = 50


class UndefinedVariables(ProjectError):
    """Variables that no layer defines and that have no default; `names` lists them."""

    def __init__(self, names: Sequence[str]) -> None:
        """Keep the names, in the order they were met."""
        listed = ", ".join("${" + name + "}" for name in names)
        super().__init__(
            f"no value for {listed}: define it in the profile's `variables`, with SET, in `.env` or with --vars"
        )
        self.names = tuple(names)


@dataclass(frozen=True, slots=True)
class Reference:
    """One `${name|default}` in a text: `default` is None where there is none."""

    name: str
    default: str | None
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Variables:
    """The values that a statement sees. Layers are read as they are, never copied."""

    run: Layer = field(default_factory=dict)
    profile: Layer = field(default_factory=dict)
    dotenv: Layer = field(default_factory=dict)
    environ: Layer = field(default_factory=dict)
    builtin: Layer = field(default_factory=dict)
    sets: Layer = field(default_factory=dict)

    def with_set(self, name: str, value: Scalar) -> Variables:
        """Return these variables after `SET name = value`; the value may use earlier ones."""
        expanded = expand_value(value, self) if isinstance(value, str) else value
        return replace(self, sets={**self.sets, name: expanded})

    def layers(self) -> tuple[Layer, ...]:
        """Return the layers, the one that wins first."""
        return (self.builtin, self.run, self.profile, self.sets, self.dotenv, self.environ)

    def defined(self, name: str) -> bool:
        """Whether any layer has the name."""
        return any(name in layer for layer in self.layers())

    def lookup(self, name: str) -> Any:
        """Return the value of `name`. Raises UndefinedVariables."""
        return self._lookup(name, ())

    def _lookup(self, name: str, path: tuple[str, ...]) -> Any:
        for layer in self.layers():
            if name in layer:
                value = layer[name]
                # A profile's value may use variables too, e.g. those of the environment; a SET's
                # are filled in already, and the environment's text is never read as a template.
                if layer is self.profile and isinstance(value, str) and "${" in value:
                    return self._template(name, value, path)
                return value
        raise UndefinedVariables([name])

    def _template(self, name: str, text: str, path: tuple[str, ...]) -> Any:
        if len(path) > _DEEPEST:
            raise ProjectError(f"the variable ${{{name}}} is defined by itself: {' -> '.join(path[:5])} …")
        if name in path:
            # `date: ${DATE}` and `date: ${date}` alike: the name means the layers below.
            below = replace(self, run={}, profile={k: v for k, v in self.profile.items() if k != name})
            return below._lookup(name, path)  # noqa: SLF001 - itself
        return _fill(text, lambda reference: self._resolve(reference, (*path, name)))

    def _resolve(self, reference: Reference, path: tuple[str, ...]) -> Any:
        if self.defined(reference.name):
            try:
                return self._lookup(reference.name, path)
            except UndefinedVariables:
                if reference.default is None:
                    raise
        if reference.default is None:
            raise UndefinedVariables([reference.name])
        return _default(reference.default)


def references(text: str) -> tuple[Reference, ...]:
    """Return the variables that a text uses, in order; `$${` is no use of one."""
    return tuple(
        _reference(match) for match in _REFERENCE.finditer(text) if match.group("reference") is not None
    )


def expand_text(template: str, variables: Variables) -> str:
    """Return a text with its variables' values in it. Raises UndefinedVariables naming all."""
    return _text(_checked(template, variables, lambda: _fill(template, _value_of(variables), as_text=True)))


def expand_value(value: Any, variables: Variables) -> Any:
    """Return a JSON value with its variables filled in; keys are kept as they are.

    A string that is one `${name}` and nothing else takes the value's type: text that reads as a
    number, true, false or null becomes one.
    """
    missing: list[str] = []
    filled = _expand(value, variables, missing)
    if missing:
        raise UndefinedVariables(list(dict.fromkeys(missing)))
    return filled


def expand_sql(sql: str, variables: Variables) -> str:
    """Return SQL with its variables' values in it; no value can end the place it stands in.

    Standing alone a value becomes a literal of its type (text that reads as a JSON number, true or
    false becomes one; `007` stays text). Inside a quoted string it is escaped text. After FROM,
    JOIN, INTO, UPDATE or TABLE, beside a dot, glued to a word, and inside double quotes it is an
    identifier and must be a valid one.

    Raises UndefinedVariables naming all missing ones, ProjectError for a value that cannot be an
    identifier.
    """
    return _checked(sql, variables, lambda: _expand_sql(sql, variables))


def is_alone(text: str) -> Reference | None:
    """Return the variable that a text consists of, None where there is more or less in it."""
    found = references(text)
    return found[0] if len(found) == 1 and found[0].end - found[0].start == len(text) else None


def typed(value: Any) -> Any:
    """Return text that reads as a JSON number, true, false or null as that value."""
    if not isinstance(value, str):
        return value
    if value in ("true", "false", "null"):
        return {"true": True, "false": False, "null": None}[value]
    if not _JSON_NUMBER.match(value):
        return value
    number = json.loads(value)
    return number if isinstance(number, int) or math.isfinite(number) else value


def _checked(text: str, variables: Variables, work: Callable[[], Any]) -> Any:
    missing: list[str] = []
    for reference in references(text):
        try:
            _value_of(variables)(reference)
        except UndefinedVariables as error:
            missing += error.names
    if missing:
        raise UndefinedVariables(list(dict.fromkeys(missing)))
    return work()


def _value_of(variables: Variables) -> Callable[[Reference], Any]:
    return lambda reference: variables._resolve(reference, ())  # noqa: SLF001 - this module's


def _reference(match: re.Match[str]) -> Reference:
    inside = _INSIDE.match(match.group("reference"))
    if inside is None:
        raise ProjectError(f"{match.group()!r} is no variable; write ${{name}} or ${{name|default}}")
    return Reference(inside.group("name"), inside.group("default"), match.start(), match.end())


def _default(text: str) -> str:
    text = text.strip()
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1].replace(text[0] * 2, text[0])
    return text


def _fill(template: str, value_of: Callable[[Reference], Any], *, as_text: bool = False) -> Any:
    alone = None if as_text else is_alone(template)
    if alone:
        return value_of(alone)

    def fill(match: re.Match[str]) -> str:
        return "${" if match.group("escape") else _text(value_of(_reference(match)))

    return _REFERENCE.sub(fill, template)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return str(value)


def _expand(value: Any, variables: Variables, missing: list[str]) -> Any:
    if isinstance(value, Mapping):
        return {key: _expand(item, variables, missing) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_expand(item, variables, missing) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    try:
        filled = _checked(value, variables, lambda: _fill(value, _value_of(variables)))
    except UndefinedVariables as error:
        missing += error.names
        return value
    return typed(filled) if is_alone(value) else filled


def _expand_sql(sql: str, variables: Variables) -> str:
    parts: list[str] = []
    tokens = list(scan(sql, trivia=True))
    for index, token in enumerate(tokens):
        if "${" not in token.text or token.kind == "comment":
            parts.append(token.text)
        elif token.kind == "variable":
            parts.append(_in_sql(sql, tokens, index, variables))
        else:
            parts.append(_in_quotes(token, variables))
    end = tokens[-1].end if tokens else 0
    return "".join(parts) + sql[end:]


def _in_quotes(token: SqlToken, variables: Variables) -> str:
    value_of = _value_of(variables)

    def fill(match: re.Match[str]) -> str:
        if match.group("escape"):
            return "${"
        return _escaped(token, _text(value_of(_reference(match))))

    return _REFERENCE.sub(fill, token.text)


def _escaped(token: SqlToken, value: str) -> str:
    if "\0" in value:
        raise ProjectError("a variable's value holds a NUL character, which SQL cannot carry")
    match token.kind:
        case "text":
            return value.replace("'", "''")
        case "escaped":
            return value.replace("\\", "\\\\").replace("'", "''")
        case "quoted":
            quote(value or "?")  # refuses control characters
            return value.replace('"', '""')
    tag = token.text[: token.text.index("$", 1) + 1]
    if "$" in value:
        raise ProjectError(f"a variable's value holds `$`, which may end the text between {tag} and {tag}")
    return value


def _in_sql(sql: str, tokens: list[SqlToken], index: int, variables: Variables) -> str:
    token = tokens[index]
    match = _REFERENCE.match(token.text)
    if match is None or match.group("escape"):
        raise ProjectError(f"{token.text!r} is no variable; write ${{name}} or ${{name|default}}")
    value = _value_of(variables)(_reference(match))
    glued = _glued(tokens, index)
    if glued:
        if not re.fullmatch(r"\w+", _text(value)):
            raise ProjectError(
                f"{token.text} is part of a name, and its value {_text(value)!r} is no part of one"
            )
        return _text(value)
    if _names_a_thing(sql, tokens, index):
        return _identifier(token.text, value)
    if isinstance(value, list | tuple):
        return ", ".join(literal(typed(item)) for item in value)
    return literal(typed(value))


def _glued(tokens: list[SqlToken], index: int) -> bool:
    around = [*tokens[max(0, index - 1) : index], *tokens[index + 1 : index + 2]]
    return any(token.kind in ("word", "number", "variable") for token in around)


def _names_a_thing(sql: str, tokens: list[SqlToken], index: int) -> bool:
    if sql[: tokens[index].start].endswith(".") or sql.startswith(".", tokens[index].end):
        return True
    before = next(_solid_before(tokens, index), None)
    return before is not None and before.kind == "word" and before.text.upper() in _BEFORE_A_TABLE


def _solid_before(tokens: list[SqlToken], index: int) -> Iterator[SqlToken]:
    return (t for t in reversed(tokens[:index]) if t.kind not in ("space", "comment"))


def _identifier(shown: str, value: Any) -> str:
    text = _text(value)
    names = text.split(".")
    if not all(_IDENTIFIER.match(name) for name in names):
        raise ProjectError(f"{shown} names a table or column here, and its value {text!r} is no valid name")
    return quote(*names)
