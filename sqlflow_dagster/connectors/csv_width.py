"""Lines of a CSV file with more values than columns that DuckDB reads all the same.

It takes an empty value beyond the last column for a delimiter at the end of the line, as some programs write
one. Where other lines have none, the line has one too many before, and its values stand in other columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlflow_dagster.errors import SourceFailed

_PIECE = 2**17


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

    def of(self, path: Path) -> Iterator[bytes]:
        """Yield the pieces of a file. Raises as `checked` does."""
        return self.checked(lambda: _pieces(path))

    def checked(self, pieces: Callable[[], Iterable[bytes]]) -> Iterator[bytes]:
        """Yield the pieces of a file's text. Raises SourceFailed after the last one where a line has too many values.

        Few files have a line that ends with a delimiter and has so many of them, be it in quotes: the pieces of
        such a file are asked for again. Lines of a value of several lines are not looked at.
        """
        suspect = False
        for piece, text, ending in _whole(pieces()):
            suspect = suspect or any(self._long(text, ending))
            yield piece
        if suspect:
            self._look(pieces())

    def _long(self, text: bytes, ending: bytes) -> Iterator[tuple[int, int]]:
        """Where lines are that end with a delimiter and have as many of them as one value too many needs.

        The last one comes first: Python looks twice as fast from the end.
        """
        mark = self.delimiter.encode()
        found = text.rfind(mark + ending)
        while found >= 0:
            start, end = text.rfind(b"\n", 0, found) + 1, found + len(mark)
            if text.count(mark, start, end) >= self.width:
                yield start, end
            found = text.rfind(mark + ending, 0, start)

    def _look(self, pieces: Iterable[bytes]) -> None:
        """Look where texts begin and end, which is told by counting quotes."""
        quotes = number = 0
        for _, text, ending in _whole(pieces):
            done = 0
            for start, end in sorted(self._long(text, ending)):
                quotes += self._quotes(text[done:start])
                done = start
                if quotes % 2 == 0:
                    self._check(text[start:end], number + text.count(b"\n", 0, start) + 1)
            quotes += self._quotes(text[done:])
            number += text.count(b"\n")

    def _quotes(self, text: bytes) -> int:
        return text.count(self.quote.encode()) if self.quote else 0

    def _check(self, line: bytes, number: int) -> None:
        if number <= self.skip or (self.comment and line.startswith(self.comment.encode())):
            return
        parts = line.split(self.quote.encode()) if self.quote else [line]
        marks = sum(part.count(self.delimiter.encode()) for part in parts[::2])
        if len(parts) % 2 and marks >= self.width:
            raise SourceFailed(
                f"{self.file}:{number}: it has more values than the {self.width} columns, the last one empty, so "
                "that others would stand in other columns; mend the line, or set `null_padding` to true where lines "
                "may end with delimiters"
            )


def _pieces(path: Path) -> Iterator[bytes]:
    """Pieces that mostly end where a line does, which need not be cut."""
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            yield piece + stream.readline(_PIECE)


def _whole(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Yield each piece, the whole lines that end in it, and how the first line of all ends."""
    rest = ending = b""
    for piece in pieces:
        end = piece.rfind(b"\n") + 1
        text, rest = (rest + piece[:end], piece[end:]) if end else (b"", rest + piece)
        if text and not ending:
            ending = b"\r\n" if text[: text.find(b"\n")].endswith(b"\r") else b"\n"
        yield piece, text, ending
    if rest:
        ending = ending or b"\n"
        yield b"", rest + ending, ending
