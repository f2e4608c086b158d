"""Tables that live as long as this process: what tests put in, and what EXPORT puts there.

They are rows of Python values. Another process, such as a run that Dagster starts, has its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import Lock
from typing import Any

from sqlflow_dagster.errors import SourceFailed

_lock = Lock()
_tables: dict[str, list[dict[str, Any]]] = {}


def put_in_memory(name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Make a table of this process that `SOURCE … TYPE IN_MEMORY PARAMS {"table": name}` reads.

    A table of that name is replaced. Names are told apart without regard to case.
    """
    taken = [dict(row) for row in rows]
    with _lock:
        _tables[name.casefold()] = taken


def add_in_memory(name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to a table of this process, which is made where it is missing."""
    taken = [dict(row) for row in rows]
    with _lock:
        _tables[name.casefold()] = [*_tables.get(name.casefold(), []), *taken]


def in_memory_rows(name: str) -> list[dict[str, Any]]:
    """Return a copy of a table's rows, in the order in which they were put there.

    After an EXPORT: whole numbers are int, decimals Decimal, dates and times those of `datetime`
    (TIMESTAMPTZ with a time zone), lists and structs list and dict. Raises SourceFailed where this
    process has no such table.
    """
    with _lock:
        rows = _tables.get(name.casefold())
        if rows is None:
            there = ", ".join(sorted(_tables)) or "none"
            raise SourceFailed(
                f"this process has no table {name!r} in memory; it has {there}. Such tables end with the process "
                "that put them there"
            )
        return [dict(row) for row in rows]
