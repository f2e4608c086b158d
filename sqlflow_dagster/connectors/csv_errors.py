"""DuckDB's messages about a CSV file → the file, the line, what is wrong and the parameter to mend."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlflow_dagster.connectors.files import Readable
from sqlflow_dagster.connectors.paths import File

_LINE = re.compile(r"CSV Error on Line: (\d+)")
_FILE = re.compile(r"^\s*file ?= ?(.+?)\s*$", re.MULTILINE)
_VALUE = re.compile(
    r"(?P<file>[^\n]*?): the value '(?P<value>.*)' of column \"(?P<column>.*)\" is no ", re.DOTALL
)
_HINTS = (
    (
        "Expected Number of Columns",
        "mend the line, or set `bad_rows` to quarantine (or `null_padding` to true)",
    ),
    ("unterminated quote", "close the quote, or set `quote` to an empty text where quotes are plain text"),
    ("Value with unterminated quote", "close the quote, or set `quote`"),
    ("Maximum line size", "raise `max_line_bytes`"),
    ("Invalid unicode", "set `encoding` (latin-1, cp1252, utf-16 …), or have the file written as UTF-8"),
)


@dataclass(frozen=True, slots=True)
class Explainer:
    """Knows the files of one read."""

    files: tuple[File, ...]
    readable: Mapping[str, Readable] = field(default_factory=dict)

    def explain(self, message: str) -> str:
        """Return a message for people, or the given one where nothing is known to say better."""
        if found := _VALUE.search(message):
            return self._value(found, message)
        line = _LINE.search(message)
        if line is None:
            return self._whole(message)
        path = _FILE.search(message)
        name = self._name(path.group(1) if path else "")
        # The line itself may be several, where line breaks stand in quotes; the reason comes after it.
        said = [
            text for text in message[line.end() : message.find("\nPossible ")].splitlines() if text.strip()
        ]
        reason = said.pop() if said else ""
        hint = next((hint for text, hint in _HINTS if text.casefold() in reason.casefold()), "")
        shown = "\n".join(said).removeprefix("Original Line:").strip()[:200]
        return f"{name}:{line.group(1)}: {reason.strip()} ({shown!r})" + (f"; {hint}" if hint else "")

    def _whole(self, message: str) -> str:
        """A failure that DuckDB gives no line of."""
        names = ", ".join(list(self.readable)[:5])
        if "reached an invalid state" in message:
            return (
                f"{names}: the ends of lines differ within a file (\\n, \\r\\n, \\r), or a quote is misplaced; have it "
                "written with one of them, or put values with line breaks in quotes"
            )
        first = message.partition("\n")[0]
        return first if any(name in first for name in self.readable) else f"{names}: {first}"

    def _name(self, path: str) -> str:
        for name, item in self.readable.items():
            if str(item.path) == path:
                return name
        return path or ", ".join(self.readable)

    def _value(self, found: re.Match[str], message: str) -> str:
        text = message[found.start() :].removeprefix("Invalid Input Error: ")
        name = found.group("file").removeprefix("Invalid Input Error: ").strip()
        item = self.readable.get(name)
        line = _line_of(item, found.group("value")) if item else None
        where = f"{name}:{line}" if line else name
        return where + text[text.index(": the value ") :]


def _line_of(item: Readable, value: str) -> int | None:
    """The first line that holds the value as one of its fields, as text between two delimiters."""
    field_ = re.compile(rb'(?:^|[,;\t|"])' + re.escape(value.encode()) + rb'(?:$|[,;\t|"\r\n])', re.MULTILINE)
    return next((number for number, line in enumerate(item.lines(), 1) if field_.search(line)), None)
