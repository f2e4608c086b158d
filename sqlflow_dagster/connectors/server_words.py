"""A message of DuckDB, a driver or a server → whether it is about values, and its words without names and values."""

from __future__ import annotations

import re

_OF_VALUES = re.compile(r"(Invalid Input|Conversion|Out of Range) Error: ")
# An apostrophe inside a word is none that quotes.
_QUOTED = re.compile(r"""(?<!\w)(["'`])(?:(?!\1).)*\1""", re.DOTALL)


def is_about_values(message: str) -> bool:
    """Return whether DuckDB could not take a value: then no word of it says how the far side is."""
    return _OF_VALUES.match(message) is not None


def unquoted(message: str) -> str:
    """Return a message with nothing between its quotes: a host may be called `ssl`, and a value `timeout`."""
    return _QUOTED.sub(r"\1\1", message)
