"""Text from outside → Markdown that shows it and does nothing else: no link, markup or HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ACTIVE = re.compile(r"([\\`*_{}\[\]()<>#!|~&])")
_BACKTICKS = re.compile(r"`+")


def text(words: str) -> str:
    """Return words on one line, with all that Markdown would act upon escaped."""
    return _ACTIVE.sub(r"\\\1", " ".join(words.split()))


def items(lines: Iterable[str]) -> str:
    """Return a list of texts."""
    return "\n".join(f"- {text(line)}" for line in lines)


def inline_code(words: str) -> str:
    """Return words as code inside a line."""
    line = " ".join(words.split())
    fence = "`" * (_longest(line) + 1)
    return f"{fence} {line} {fence}" if "`" in line else f"`{line}`"


def code_block(words: str, language: str) -> str:
    """Return words as a block of code, in a fence that they cannot close."""
    fence = "`" * max(3, _longest(words) + 1)
    return f"{fence}{language}\n{words}\n{fence}"


def _longest(words: str) -> int:
    return max((len(run) for run in _BACKTICKS.findall(words)), default=0)
