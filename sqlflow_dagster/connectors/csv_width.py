"""Lines of a CSV file with more values than columns that DuckDB reads all the same.

It takes an empty value beyond the last column for a delimiter at the end of the line, as some programs write
one. Where other lines have none, the line has one too many before, and its values stand in other columns.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlflow_dagster.errors import SourceFailed

_PIECE = 2**17
_OVERLAP = 2**12
# Longer ones are not looked at: a quote that is never closed would hold the whole file.
_LONGEST_RECORD = 2**22


@dataclass(frozen=True, slots=True)
class Lines:
    """How the lines of a file are written; the first `skip` of them are none of the table."""

    file: str
    delimiter: str
    quote: str
    escape: str
    comment: str
    width: int
    skip: int

    def ends_all(self, rows: Sequence[Sequence[str]]) -> bool:
        """Whether all rows end with a delimiter, so that none of their values is in another column."""
        return bool(rows) and all(len(row) == self.width + 1 and not row[-1] for row in rows)

    def of(self, path: Path) -> Iterator[object]:
        """Go through a file, piece after piece. Raises as `checked` does."""
        if (yield from self._any_ends(path)):
            yield from self.checked(lambda: _pieces(path))

    def _any_ends(self, path: Path) -> Generator[None, None, bool]:
        """Return whether any line ends with a delimiter: in a file of which none does, all of them can be told so.

        Nothing is copied and no line is looked for, which takes a third less time.
        """
        mark = self.delimiter.encode()
        piece, kept = bytearray(_PIECE), 0
        with path.open("rb", buffering=0) as stream, memoryview(piece) as view:
            while size := stream.readinto(view[kept:]):
                end = kept + size
                if any(
                    piece.find(ending, 0, end) >= 0 and piece.rfind(mark + ending, 0, end) >= 0
                    for ending in (b"\n", b"\r")
                ):
                    return True
                kept = min(len(mark), end)
                piece[:kept] = piece[end - kept : end]
                yield
        # The last line may have no ending.
        return piece[:kept].endswith(mark)

    def checked(self, pieces: Callable[[], Iterable[bytes]]) -> Iterator[bytes]:
        """Yield the pieces of a file's text. Raises SourceFailed after the last one where a line has too many values.

        Few files have a line that ends with a delimiter and has so many of them, be it in quotes: the pieces of
        such a file are asked for again.
        """
        suspect, before = False, b""
        mark = self.delimiter.encode()
        for piece, text in _whole(pieces()):
            if not suspect and text.rfind(mark + b"\n") >= 0:
                lines = self._long(before + text)
                suspect = any(start >= len(before) for start, _ in lines)
            # Most texts of several lines that end in the next piece begin here.
            before = text[text.rfind(b"\n", 0, max(0, len(text) - _OVERLAP)) + 1 :]
            yield piece
        if suspect:
            self._look(pieces())

    def _long(self, text: bytes) -> Iterator[tuple[int, int]]:
        """Where lines are that end with a delimiter and have as many of them as one value too many needs.

        So may lines in which a text of several lines ends. The last one comes first: Python looks twice as fast
        from the end.
        """
        mark = self.delimiter.encode()
        found = text.rfind(mark + b"\n")
        while found >= 0:
            start, end = text.rfind(b"\n", 0, found) + 1, found + len(mark)
            if text.count(mark, start, end) >= self.width or self._ends_long(text, start, end):
                yield start, end
            found = text.rfind(mark + b"\n", 0, start)

    def _ends_long(self, text: bytes, start: int, end: int) -> bool:
        """Whether a text of several lines may end in a line, and its record have as many delimiters."""
        if self._quotes(text[start:end]) % 2 == 0:
            return False
        begin = self._begin(text, start)
        # What begins before this text may have any number of them.
        return begin == 0 or self._marks(text[begin:end]) >= self.width

    def _look(self, pieces: Iterable[bytes]) -> None:
        """Look where records begin and end, which is told by counting quotes."""
        number, rest = 0, b""
        for _, whole in _whole(pieces):
            text = rest + whole
            quotes = done = 0
            for start, end in sorted(self._long(text)):
                quotes, done = quotes + self._quotes(text[done:start]), start
                if (quotes + self._quotes(text[start:end])) % 2 == 0:
                    begin = self._begin(text, start) if quotes % 2 else start
                    if self._marks(text[begin:end]) >= self.width and self._has_one_too_many(text[begin:end]):
                        self._refuse(text[begin:end], number + text.count(b"\n", 0, begin) + 1)
            open_ = (quotes + self._quotes(text[done:])) % 2
            rest = text[self._begin(text, len(text)) :] if open_ else b""
            if len(rest) > _LONGEST_RECORD:
                return
            number += text.count(b"\n") - rest.count(b"\n")

    def _begin(self, text: bytes, end: int) -> int:
        """Where the line is in which the text begins that is open at the line that begins at `end`."""
        while end > 0:
            start = text.rfind(b"\n", 0, end - 1) + 1
            if self._quotes(text[start:end]) % 2:
                return start
            end = start
        return 0

    def _quotes(self, text: bytes) -> int:
        return self._bare(text).count(self.quote.encode()) if self.quote else 0

    def _marks(self, record: bytes) -> int:
        """How many delimiters are between values, where quotes stand around them alone."""
        parts = self._bare(record).split(self.quote.encode()) if self.quote else [record]
        return sum(part.count(self.delimiter.encode()) for part in parts[::2])

    def _bare(self, text: bytes) -> bytes:
        """A text without characters that are escaped."""
        if self.escape in ("", self.quote):
            return text
        return re.sub(re.escape(self.escape).encode() + rb"[^\n]", b"", text)

    def _refuse(self, record: bytes, number: int) -> None:
        if number <= self.skip or (self.comment and record.startswith(self.comment.encode())):
            return
        raise SourceFailed(
            f"{self.file}:{number}: it has more values than the {self.width} columns, the last one empty, so "
            "that others would stand in other columns; mend the line, or set `null_padding` to true where lines "
            "may end with delimiters"
        )

    def _has_one_too_many(self, record: bytes) -> bool:
        """Whether it is so to Python's reader too, which takes a quote within a value for what it is."""
        doubled = self.escape in ("", self.quote)
        one = len(self.delimiter) == 1
        text = record.decode("utf-8", "replace")
        reader = csv.reader(
            io.StringIO(text if one else text.replace(self.delimiter, "\x1f"), newline=""),
            delimiter=self.delimiter if one else "\x1f",
            quotechar=self.quote or None,
            quoting=csv.QUOTE_MINIMAL if self.quote else csv.QUOTE_NONE,
            doublequote=doubled,
            escapechar=None if doubled else self.escape,
        )
        values = next(reader, [])
        return len(values) > self.width and not values[-1]


def _pieces(path: Path) -> Iterator[bytes]:
    """Pieces that mostly end where a line does, which need not be cut."""
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            yield piece + stream.readline(_PIECE)


def _whole(pieces: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield each piece, and the whole lines that end in it, all made to end with a line feed."""
    rest = b""
    for piece in pieces:
        text = rest + piece
        if b"\r" in text:
            # What follows the last character may belong to it.
            last = text[-1:] if text.endswith(b"\r") else b""
            text = text.removesuffix(last).replace(b"\r\n", b"\n").replace(b"\r", b"\n") + last
        end = text.rfind(b"\n") + 1
        text, rest = text[:end], text[end:]
        yield piece, text
    if rest:
        yield b"", rest.removesuffix(b"\r") + b"\n"
