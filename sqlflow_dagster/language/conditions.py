"""An IF's condition → true or false. Variables in it are values, never text to be read again."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import eq, ge, gt, le, lt, ne
from typing import Any, NoReturn

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.language.tokens import SqlToken, Unclosed, scan
from sqlflow_dagster.language.variables import (
    UndefinedVariables,
    Variables,
    expand_text,
    missing,
    standing_alone,
    typed,
)

_OPERATORS: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": eq,
    "=": eq,
    "!=": ne,
    "<>": ne,
    "<": lt,
    "<=": le,
    ">": gt,
    ">=": ge,
}
_CONSTANTS: dict[str, bool | None] = {"TRUE": True, "FALSE": False, "NULL": None}
_TRUTHS = {"true": True, "false": False, "yes": True, "no": False, "on": True, "off": False, "": False}
_KEYWORDS = frozenset(("AND", "OR", "NOT", "IN", "BETWEEN", "IS", "THEN"))
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d.*)?", re.DOTALL)
_DEEPEST = 50

Test = Callable[[Variables], bool]
Operand = Callable[[Variables], Any]


@dataclass(frozen=True, slots=True)
class Fault(Exception):
    """What is wrong at `condition[start:end]`, and what to write instead."""

    message: str
    hint: str
    start: int
    end: int


def fault(condition: str) -> Fault | None:
    """Return what is wrong with a condition's grammar, None where it can be decided."""
    try:
        _Reader(condition).read()
    except Fault as error:
        return error
    return None


def evaluate(condition: str, variables: Variables) -> bool:
    """Return whether a condition holds.

    A number compares as a number with text that reads as one (`007` does not), a boolean with
    `true` and `false` in any case, two ISO dates as dates, other text as text. `== null` asks
    whether a value is NULL; every other comparison with NULL is false. A value alone must be a
    boolean, 1, 0, or text such as `yes` and `off`.

    Raises UndefinedVariables naming all variables without a value, ProjectError for a condition
    that cannot be read or for values that have no order.
    """
    try:
        test = _Reader(condition).read()
    except Fault as error:
        raise ProjectError(
            f"the condition {condition!r} cannot be read: {error.message}; {error.hint}"
        ) from error
    undefined = missing(condition, variables)
    if undefined:
        raise UndefinedVariables([reference.name for reference in undefined])
    return test(variables)


class _Reader:
    """Reads a condition into one function that decides it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.depth = 0
        try:
            self.tokens = _tokens(text)
        except Unclosed as error:
            hint = "close it"
            raise Fault(f"this {error.what} is never closed", hint, error.start, error.start + 1) from error

    def read(self) -> Test:
        """Condition = either ;"""
        test = self.either()
        if self.position < len(self.tokens):
            word = self.tokens[self.position].text
            hint = "join comparisons with AND or OR"
            self.wrong(f"{word} does not belong here", {"&&": "write AND", "||": "write OR"}.get(word, hint))
        return test

    def either(self) -> Test:
        """Either = both { "OR" both } ;"""
        tests = [self.both()]
        while self.accept("OR"):
            tests.append(self.both())
        return tests[0] if len(tests) == 1 else lambda variables: any(test(variables) for test in tests)

    def both(self) -> Test:
        """Both = negated { "AND" negated } ;"""
        tests = [self.negated()]
        while self.accept("AND"):
            tests.append(self.negated())
        return tests[0] if len(tests) == 1 else lambda variables: all(test(variables) for test in tests)

    def negated(self) -> Test:
        """Negated = "NOT" negated | "(" either ")" | comparison ;"""
        self.depth += 1
        if self.depth > _DEEPEST:
            self.wrong(f"this is nested more than {_DEEPEST} deep", "take brackets out")
        try:
            if self.accept("NOT"):
                inner = self.negated()
                return lambda variables: not inner(variables)
            if self.accept("("):
                inner = self.either()
                self.expect(")", "close the bracket with )")
                return inner
            return self.comparison()
        finally:
            self.depth -= 1

    def comparison(self) -> Test:
        """Comparison = value [ operator value | "IS" [ "NOT" ] "NULL" | [ "NOT" ] ( in | between ) ] ;"""
        left = self.value()
        if operator := self.accept(*_OPERATORS):
            right = self.value()
            return lambda variables: _compare(operator, left(variables), right(variables))
        if self.accept("IS"):
            negated = bool(self.accept("NOT"))
            self.expect("NULL", "write IS NULL or IS NOT NULL")
            return lambda variables: (left(variables) is None) != negated
        negated = bool(self.accept("NOT"))
        if self.accept("IN"):
            items = self.items()
            return lambda variables: _among(left(variables), [i(variables) for i in items]) != negated
        if self.accept("BETWEEN"):
            low, high = self.bounds()
            return lambda v: _between(left(v), low(v), high(v)) != negated
        if negated:
            self.wrong("NOT needs IN or BETWEEN here", "write value NOT IN ('a', 'b')")
        return lambda variables: _truth(left(variables))

    def items(self) -> list[Operand]:
        """Items = "(" value { "," value } ")" ;"""
        self.expect("(", "write IN ('a', 'b')")
        items = [self.value()]
        while self.accept(","):
            items.append(self.value())
        self.expect(")", "write IN ('a', 'b')")
        return items

    def bounds(self) -> tuple[Operand, Operand]:
        """Bounds = value "AND" value ;"""
        low = self.value()
        self.expect("AND", "write BETWEEN low AND high")
        return low, self.value()

    def value(self) -> Operand:
        """Value = string | number | "TRUE" | "FALSE" | "NULL" | [ "DATE" | "TIMESTAMP" ] string | variable ;"""
        token = self.peek()
        self.position += 1
        if token is None:
            self.position -= 1
            self.wrong("a value is missing", "write ${name} == 'value'")
        match token.kind:
            case "text" | "quoted":
                template = token.text[1:-1].replace(token.text[0] * 2, token.text[0])
                return lambda variables: expand_text(template, variables)
            case "number":
                number = _literal(token.text)
                return lambda _variables: number
            case "variable":
                return lambda variables: standing_alone(token.text, variables)
            case "word" if token.text.upper() in _CONSTANTS:
                return lambda _variables: _CONSTANTS[token.text.upper()]
            case "word" if token.text.upper() in ("DATE", "TIMESTAMP") and self._before_text():
                return self.value()
        self.position -= 1
        hint = "write ${name} == 'value'"
        if token.kind == "word" and token.text.upper() not in _KEYWORDS:
            hint = f"write ${{{token.text}}} for a variable, '{token.text}' for text"
        self.wrong(f"{token.text} is no value", hint)

    def peek(self) -> SqlToken | None:
        """Return the next token, None at the end."""
        return self.tokens[self.position] if self.position < len(self.tokens) else None

    def accept(self, *wanted: str) -> str:
        """Take the next token where it is one of these words or marks; it comes back in capitals."""
        token = self.peek()
        if token and token.kind in ("word", "mark", "open", "close") and token.text.upper() in wanted:
            self.position += 1
            return token.text.upper()
        return ""

    def expect(self, wanted: str, hint: str) -> None:
        """Take the next token, which must be this one."""
        if not self.accept(wanted):
            token = self.peek()
            self.wrong(f"expected {wanted}, found {token.text if token else 'the end'}", hint)

    def wrong(self, message: str, hint: str) -> NoReturn:
        """Raise Fault at the next token, or at the last one where there is none."""
        token = self.peek() or (self.tokens[-1] if self.tokens else None)
        start, end = (token.start, token.end) if token else (0, 1)
        raise Fault(message, hint, start, end)

    def _before_text(self) -> bool:
        token = self.peek()
        return token is not None and token.kind in ("text", "quoted")


def _tokens(text: str) -> list[SqlToken]:
    """The tokens, with `<=` and the like as one, and the sign of a number as part of it."""
    tokens: list[SqlToken] = []
    for token in scan(text):
        last = tokens[-1] if tokens else None
        if last and last.end == token.start and last.kind == "mark" and _belong(tokens, token):
            tokens[-1] = SqlToken(token.kind, last.text + token.text, last.start, token.end, token.depth)
        else:
            tokens.append(token)
    return tokens


def _belong(tokens: list[SqlToken], token: SqlToken) -> bool:
    last = tokens[-1].text
    if token.kind == "number":
        return last in ("-", "+") and (len(tokens) < 2 or tokens[-2].kind in ("mark", "open", "word"))
    return token.kind == "mark" and (last + token.text in _OPERATORS or last + token.text in ("&&", "||"))


def _literal(text: str) -> int | float:
    value = typed(text.replace("_", ""))
    return float(value) if isinstance(value, str) else value  # `.5` and `1.` are no JSON


def _truth(value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return bool(value)
    if isinstance(value, int | float) and value in (0, 1):
        return value == 1
    known = _TRUTHS.get(str(value).strip().casefold())
    if known is None:
        raise ProjectError(f"{value!r} is neither true nor false; compare it, as in ${{name}} == 'value'")
    return known


def _among(value: Any, items: list[Any]) -> bool:
    flat = [part for item in items for part in (item if isinstance(item, list | tuple) else [item])]
    return any(_compare("=", value, item) for item in flat)


def _between(value: Any, low: Any, high: Any) -> bool:
    return _compare(">=", value, low) and _compare("<=", value, high)


def _compare(operator: str, left: Any, right: Any) -> bool:
    compare = _OPERATORS[operator]
    if left is None or right is None:
        return bool(compare(left is None, right is None)) if compare in (eq, ne) else False
    a, b = _alike(left, right)
    if compare in (eq, ne):
        return bool(compare(a, b))
    if _kind(a) != _kind(b) or isinstance(a, list | tuple):
        raise ProjectError(f"{left!r} and {right!r} have no order; compare numbers, dates or texts")
    return bool(compare(a, b))


def _alike(left: Any, right: Any) -> tuple[Any, Any]:
    """Both values in a type in which they can be compared, or as they are where there is none."""
    if isinstance(left, bool) or isinstance(right, bool):
        return _boolean(left), _boolean(right)
    if not (isinstance(left, str) and isinstance(right, str)):
        return typed(left), typed(right)
    moments = _moment(left), _moment(right)
    return (left, right) if None in moments else moments


def _kind(value: Any) -> type:
    return float if isinstance(value, int | float) and not isinstance(value, bool) else type(value)


def _boolean(value: Any) -> Any:
    if isinstance(value, int | float) and value in (0, 1):
        return value == 1
    return (
        {"true": True, "false": False}.get(value.strip().casefold(), value)
        if isinstance(value, str)
        else value
    )


def _moment(text: str) -> datetime | None:
    if not _DATE.fullmatch(text.strip()):
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
