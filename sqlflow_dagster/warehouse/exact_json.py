"""JSON text whose long decimals survive: DuckDB reads a number with a fraction as a double.

A double holds 15 digits. Where a column is a wider decimal, its long numbers are put in quotes: a
string is read as a decimal digit by digit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_DIGITS_OF_A_DOUBLE = 15
_DECIMAL = re.compile(r"DECIMAL\((\d+)")
_LONG = re.compile(rb"[0-9.]{16,}")


class Exact:
    """Puts the long decimals of certain columns in quotes; for others it returns the text as it is."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        """Look for columns with decimals, also inside nested ones, whose field names are then unknown."""
        wide = [name for name, kind in columns.items() if _is_wide(kind)]
        nested = any(not columns[name].startswith("DECIMAL(") for name in wide)
        key = rb'"[^"\\]+"' if nested else b"|".join(re.escape(_as_json(name)) for name in wide)
        self._number = (
            re.compile(rb"(?<!\\)((?:" + key + rb")\s*:\s*)(-?\d+\.\d+(?:[eE][-+]?\d+)?)") if wide else None
        )

    def quoted(self, chunk: bytes) -> bytes:
        """Return the chunk with those numbers in quotes."""
        if self._number is None or not _LONG.search(chunk):
            return chunk
        return self._number.sub(_in_quotes, chunk)


def _in_quotes(match: re.Match[bytes]) -> bytes:
    key, number = match[1], match[2]
    if sum(48 <= character <= 57 for character in number) <= _DIGITS_OF_A_DOUBLE:
        return match[0]
    return key + b'"' + number + b'"'


def _is_wide(kind: str) -> bool:
    return any(int(digits) > _DIGITS_OF_A_DOUBLE for digits in _DECIMAL.findall(kind))


def _as_json(name: str) -> bytes:
    return b'"' + name.encode() + b'"'
