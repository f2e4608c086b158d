"""Lines of a CSV file with more values than columns that DuckDB reads all the same.

It takes an empty value beyond the last column for a delimiter at the end of the line, as some programs write
one. Where other lines have none, the line has one too many before, and its values stand in other columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlflow_dagster.errors import SourceFailed

_PIECE = 2**23


@dataclass(frozen=True, slots=True)
class Lines:
    """How the lines of a file are written; the first `skip` of them are none of the table."""

    file: str
    delimiter: str
    quote: str
    comment: str
    width: int
    skip: int

    def ends_all(self, rows: Sequence[Sequence[str]]) -> bool:
        """Whether all rows end with a delimiter, so that none of their values is in another column."""
        return bool(rows) and all(len(row) == self.width + 1 and not row[-1] for row in rows)

    def check(self, path: Path) -> None:
        """Raise SourceFailed where a line of the file has too many values."""
        with path.open("rb") as stream:
            for _ in self.checked(lambda: iter(lambda: stream.read(_PIECE), b"")):
                pass

    def checked(self, pieces: Callable[[], Iterable[bytes]]) -> Iterator[bytes]:
        """Yield the pieces of a file's text. Raises SourceFailed where a line has too many values.

        Lines of a value of several lines are not looked at.
        """
        look = _Look(self)
        rest = b""
        for piece in pieces():
            text = rest + piece
            end = text.rfind(b"\n") + 1
            look.at(text[:end])
            rest = text[end:]
            yield piece
        look.at(rest, last=True)


class _Look:
    """Goes through a text in pieces of whole lines."""

    def __init__(self, lines: Lines) -> None:
        self._lines = lines
        self._mark, self._quote = lines.delimiter.encode(), lines.quote.encode()
        self._remark = lines.comment.encode()
        self._ending = b""
        self._quotes = self._number = 0

    def at(self, text: bytes, *, last: bool = False) -> None:
        if not self._ending:
            returns = text[: text.find(b"\n")].endswith(b"\r")
            self._ending = self._mark + (b"\r\n" if returns else b"\n")
        text = text + self._ending[len(self._mark) :] if last else text
        done, found = 0, text.find(self._ending)
        while found >= 0:
            start, end = text.rfind(b"\n", 0, found) + 1, found + len(self._mark)
            line = text[start:end]
            if line.count(self._mark) >= self._lines.width and not self._is_remark(line):
                self._quotes += self._quoted(text, done, start)
                done = start
                self._check(line, self._number + text.count(b"\n", 0, start) + 1)
            found = text.find(self._ending, end)
        self._quotes += self._quoted(text, done, len(text))
        self._number += text.count(b"\n")

    def _quoted(self, text: bytes, start: int, end: int) -> int:
        return text.count(self._quote, start, end) if self._quote else 0

    def _is_remark(self, line: bytes) -> bool:
        return bool(self._remark) and line.startswith(self._remark)

    def _check(self, line: bytes, number: int) -> None:
        parts = line.split(self._quote) if self._quote else [line]
        whole = not self._quotes % 2 and len(parts) % 2
        lines = self._lines
        if (
            whole
            and number > lines.skip
            and sum(part.count(self._mark) for part in parts[::2]) >= lines.width
        ):
            raise SourceFailed(
                f"{lines.file}:{number}: it has more values than the {lines.width} columns, the last one empty, so "
                "that others would stand in other columns; mend the line, or set `null_padding` to true where lines "
                "may end with delimiters"
            )
