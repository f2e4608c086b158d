"""An IF's condition → true or false. Variables in it are values, never text to be read again."""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.language.tokens import Unclosed, scan
from sqlflow_dagster.language.variables import Variables, expand_text, expand_value

_COMPARISONS = ("==", "!=", "<>", "<=", ">=", "=", "<", ">")
_MARKS = re.compile(r"==|!=|<>|<=|>=|.", re.DOTALL)
_DEEPEST = 100


def evaluate(condition: str, variables: Variables) -> bool:
    """Return whether a condition holds.

    Two values compare as numbers where both read as numbers, as dates where both read as ISO
    dates, else as text; a boolean compares with `true` and `false` in any case. NULL and a
    variable that is undefined without a default are not the same: the second is an error.

    Raises ProjectError for a condition that is no condition, UndefinedVariables.
    """
    return _Condition(condition, variables).evaluate()


class _Condition:
    def __init__(self, text: str, variables: Variables) -> None:
        self.text = text
        self.variables = variables
        self.position = 0
        self.depth = 0
        try:
            self.tokens = _tokens(text)
        except Unclosed as error:
            raise ProjectError(f"this {error.what} in the condition {text!r} is never closed") from error

    def evaluate(self) -> bool:
        value = self.either()
        if self.position < len(self.tokens):
            self.wrong(f"{self.tokens[self.position][1]!r} does not belong here")
        return value

    def wrong(self, message: str) -> Any:
        raise ProjectError(f"the condition {self.text!r} cannot be read: {message}")

    def word(self, ahead: int = 0) -> str:
        index = self.position + ahead
        if index >= len(self.tokens):
            return ""
        kind, text = self.tokens[index]
        return text.upper() if kind in ("word", "mark") else ""

    def accept(self, *words: str) -> str:
        found = self.word()
        if found and found in words:
            self.position += 1
            return found
        return ""

    def either(self) -> bool:
        """either = both { "OR" both } ;"""
        value = self.both()
        while self.accept("OR"):
            value = self.both() or value
        return value

    def both(self) -> bool:
        """both = negated { "AND" negated } ;"""
        value = self.negated()
        while self.accept("AND"):
            value = self.negated() and value
        return value

    def negated(self) -> bool:
        """negated = "NOT" negated | comparison ;"""
        self.depth += 1
        if self.depth > _DEEPEST:
            self.wrong(f"it is nested more than {_DEEPEST} deep")
        value = not self.negated() if self.accept("NOT") else self.comparison()
        self.depth -= 1
        return value

    def comparison(self) -> bool:
        """comparison = "(" either ")" | value [ op value | [NOT] IN (…) | [NOT] BETWEEN … | IS [NOT] NULL ] ;"""
        if self.accept("("):
            value = self.either()
            return value if self.accept(")") else bool(self.wrong("a ) is missing"))
        left = self.value()
        if operator := self.accept(*_COMPARISONS):
            return _compare(operator, left, self.value())
        if self.accept("IS"):
            negated = bool(self.accept("NOT"))
            return (left is None) != negated if self.accept("NULL") else bool(self.wrong("write IS NULL"))
        negated = bool(self.accept("NOT"))
        if self.accept("IN"):
            return any([_compare("=", left, item) for item in self.items()]) != negated  # noqa: C419 - reads all
        if self.accept("BETWEEN"):
            low = self.value()
            if not self.accept("AND"):
                self.wrong("write BETWEEN low AND high")
            high = self.value()
            return (_compare(">=", left, low) and _compare("<=", left, high)) != negated
        if negated:
            self.wrong("NOT needs IN or BETWEEN here")
        return _truth(left, self.text)

    def items(self) -> list[Any]:
        if not self.accept("("):
            self.wrong("write IN ('a', 'b')")
        items = [self.value()]
        while self.accept(","):
            items.append(self.value())
        if not self.accept(")"):
            self.wrong("a ) is missing after IN's list")
        flat: list[Any] = []
        for item in items:
            flat += item if isinstance(item, list) else [item]
        return flat

    def value(self) -> Any:
        if self.position >= len(self.tokens):
            self.wrong("a value is missing at its end")
        kind, text = self.tokens[self.position]
        self.position += 1
        match kind:
            case "text":
                return expand_text(text[1:-1].replace(text[0] * 2, text[0]), self.variables)
            case "number":
                return text
            case "variable":
                return expand_value(text, self.variables)
            case "word":
                return {"TRUE": True, "FALSE": False, "NULL": None}.get(text.upper(), text)
        return self.wrong(f"{text!r} is no value")


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens: list[tuple[str, str]] = []
    last = -1
    for token in scan(text):
        kind = {"quoted": "text", "escaped": "text", "open": "mark", "close": "mark"}.get(
            token.kind, token.kind
        )
        piece = token.text
        if tokens and last == token.start and kind == "mark" and tokens[-1][1] + piece in _COMPARISONS:
            tokens[-1] = ("mark", tokens[-1][1] + piece)
        elif tokens and last == token.start and kind == "number" and tokens[-1] == ("mark", "-"):
            tokens[-1] = ("number", "-" + piece)
        else:
            tokens.append((kind, piece))
        last = token.end
    return tokens


def _truth(value: Any, text: str) -> bool:
    folded = str(value).strip().casefold()
    if folded in ("true", "1", "yes", "on"):
        return True
    if folded in ("false", "0", "no", "off", "", "none"):
        return False
    raise ProjectError(f"the condition {text!r} is neither true nor false: its value is {value!r}")


def _compare(operator: str, left: Any, right: Any) -> bool:
    if left is None or right is None:
        # As in SQL nothing is equal to NULL, but a person who writes `${x} == null` means IS NULL.
        return (left is right) == (operator in ("=", "==")) and operator in ("=", "==", "!=", "<>")
    a, b = _alike(left, right)
    match operator:
        case "=" | "==":
            return bool(a == b)
        case "!=" | "<>":
            return bool(a != b)
        case "<":
            return bool(a < b)
        case "<=":
            return bool(a <= b)
        case ">":
            return bool(a > b)
    return bool(a >= b)


def _alike(left: Any, right: Any) -> tuple[Any, Any]:
    if isinstance(left, bool) or isinstance(right, bool):
        return _shown(left).casefold(), _shown(right).casefold()
    for read in (_number, _moment):
        a, b = read(left), read(right)
        if a is not None and b is not None:
            return a, b
    return _shown(left), _shown(right)


def _shown(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(value)


def _number(value: Any) -> Decimal | None:
    try:
        number = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _moment(value: Any) -> datetime | None:
    text = str(value).strip()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if isinstance(value, date) and not isinstance(value, datetime):
        moment = datetime.fromisoformat(f"{text}T00:00:00")
    return moment.replace(tzinfo=None) if moment.tzinfo is None else moment
