"""How far a stream was read, and under which name that is remembered.

The values here are what the warehouse writes beside the rows, what Dagster's run storage keeps as
its copy, and what a connector is asked to read on from. They carry text, never Python datetimes:
`infinity` and nanoseconds do not survive those.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple, Self


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position in a stream: text and the SQL type it is to be compared in.

    A position that only its connector can read (a set of files, a log sequence number with a
    time line) has the type `JSON`.
    """

    value: str
    type: str


class Position(NamedTuple):
    """Where a marker stands among those of its key; the newest is the greatest.

    `epoch` grows with every reset or rewind, `seq` with every commit.
    """

    epoch: int
    seq: int


@dataclass(frozen=True, slots=True)
class StateKey:
    """The name under which the state of one LOAD is kept."""

    project: str
    environment: str
    pipeline: str
    source: str
    stream: str
    table: str
    partition: str | None = None

    @property
    def load(self) -> str:
        """The LOAD among all that write its table, e.g. `sales/pg.orders`: what its rows are marked with."""
        return f"{_escape(self.pipeline)}/{_escape(self.source)}.{_escape(self.stream)}"

    def __str__(self) -> str:
        """Return the key in run storage, e.g. `sqlflow/v1/shop/dev/sales/pg.orders>orders`."""
        parts = (self.project, self.environment, self.pipeline)
        # The separators are escaped in the parts, so that two keys never meet in one text.
        lead = "/".join(_escape(part) for part in ("sqlflow", "v1", *parts))
        tail = f"{_escape(self.source)}.{_escape(self.stream)}>{_escape(self.table)}"
        return f"{lead}/{tail}" + (f"/{_escape(self.partition)}" if self.partition else "")


@dataclass(frozen=True, slots=True)
class Marker:
    """One committed load of one state key, as the warehouse and run storage remember it.

    `complete` is False for a checkpoint inside a read. `committed_at` is UTC, ISO 8601. `cursor_field` is
    the column that the cursor is a value of, None where it is of no column.
    """

    position: Position
    cursor: Cursor | None
    run_id: str
    rows: int
    schema_hash: str
    complete: bool
    committed_at: str
    cursor_field: str | None = None

    def to_json(self) -> str:
        """Return the document that run storage keeps; `from_json` reads it back."""
        return json.dumps({"version": 1, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote.

        Raises ValueError where the text is not such a document or of a version we do not know.
        """
        try:
            document = json.loads(text)
            if document.pop("version") != 1:
                raise ValueError("the cursor document has a version this release does not know")
            cursor = document.pop("cursor")
            return cls(
                position=Position(*document.pop("position")),
                cursor=Cursor(**cursor) if cursor else None,
                **document,
            )
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"not a cursor document: {text[:80]!r}") from error


def _escape(part: str) -> str:
    return "".join(f"%{ord(c):02X}" if c in "%/.>" or ord(c) < 32 else c for c in part)


@dataclass(frozen=True, slots=True)
class Start:
    """Where a LOAD begins, after the warehouse and run storage were compared.

    `found` is the newest marker's position, which the commit must still find there. `epoch` is the
    one to commit under. `cursor` None means reading everything and, where the LOAD is its table's
    only writer, swapping it. `rewound` says that rows after `cursor` are to be deleted first.
    `repair` is what run storage should hold now, None where it does already. `unreadable` says that
    what it holds is no document of this release. `cursor_field` is the marker's.
    """

    found: Position | None
    epoch: int
    cursor: Cursor | None
    rewound: bool = False
    repair: Marker | None = None
    notice: str | None = None
    unreadable: bool = False
    cursor_field: str | None = None


def reconcile(marker: Marker | None, stored: str | None) -> Start:
    """Return where to start, given the warehouse's newest marker and run storage's text.

    The marker is written in the transaction of its rows, so it is right about them; run storage is
    right only about a reset that is newer than the warehouse (one restored from a backup).
    """
    try:
        copy = Marker.from_json(stored) if stored else None
    except ValueError as error:
        notice = f"run storage held an unreadable cursor ({error}); it was repaired"
        return replace(_from_marker(marker, None, notice), unreadable=True)
    if marker is None and copy is None:
        return Start(found=None, epoch=0, cursor=None)
    if copy is not None and (marker is None or copy.position.epoch > marker.position.epoch):
        return Start(
            found=marker.position if marker else None,
            # Above the copy's, so that positions only ever grow.
            epoch=copy.position.epoch + 1,
            cursor=None,
            notice="the warehouse is older than the cursor in run storage (restored or replaced): "
            "everything is read again",
        )
    return _from_marker(marker, copy, _difference(marker, copy))


def _from_marker(marker: Marker | None, copy: Marker | None, notice: str | None) -> Start:
    if marker is None:
        return Start(found=None, epoch=0, cursor=None, notice=notice)
    return Start(
        found=marker.position,
        epoch=marker.position.epoch,
        cursor=marker.cursor,
        # A marker without a commit (seq 0) is a reset, or with a cursor a rewind.
        rewound=marker.position.seq == 0 and marker.cursor is not None,
        repair=None if copy == marker else marker,
        notice=notice,
        cursor_field=marker.cursor_field,
    )


def _difference(marker: Marker | None, copy: Marker | None) -> str | None:
    if marker == copy or marker is None:
        return None
    if copy is None:
        return "run storage had no cursor; it was restored from the warehouse"
    if copy.position < marker.position:
        return "run storage was behind the warehouse; its cursor was moved on"
    if copy.position > marker.position:
        return "the warehouse is behind run storage (restored from a backup); its own cursor is used"
    return (
        "the cursor in run storage was edited; the warehouse's is used (`sqlflow cursors reset` moves both)"
    )
