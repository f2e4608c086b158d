"""Bytes of Postgres' logical replication, plug-in `pgoutput` → messages.

Protocol 1, values as text. The layout of each message is that of "Logical Replication Message
Formats" in Postgres' documentation. A message of a kind that is not known is an error: nothing that
the server says is passed over.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import Enum
from typing import Final

from sqlflow_dagster.errors import SourceFailed


class Unchanged(Enum):
    """The value of a large column that an update did not touch: the server does not send it."""

    UNCHANGED = 0


UNCHANGED: Final = Unchanged.UNCHANGED
Value = str | Unchanged | None
Values = tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Begin:
    """The transaction of this number begins; `end` is where its commit record lies."""

    end: int
    transaction: int


@dataclass(frozen=True, slots=True)
class Commit:
    """The transaction is over; `end` is the position behind it."""

    end: int


@dataclass(frozen=True, slots=True)
class RelationColumn:
    """A column as the log has it; `key` says that it is part of the replica identity."""

    name: str
    type: int
    modifier: int
    key: bool


@dataclass(frozen=True, slots=True)
class Relation:
    """What a table looks like from here on. `identity` is `d`, `n`, `f` or `i`, as in `pg_class`."""

    id: int
    schema: str
    name: str
    identity: str
    columns: tuple[RelationColumn, ...]


@dataclass(frozen=True, slots=True)
class Insert:
    """A new row."""

    relation: int
    new: Values


@dataclass(frozen=True, slots=True)
class Update:
    """A changed row. `old` is what it was: None, its key (`whole` False), or all of it."""

    relation: int
    old: Values | None
    whole: bool
    new: Values


@dataclass(frozen=True, slots=True)
class Delete:
    """A row that went: its key (`whole` False; other values None), or all of it."""

    relation: int
    old: Values
    whole: bool


@dataclass(frozen=True, slots=True)
class Truncate:
    """Tables that were emptied."""

    relations: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Other:
    """What changes no row: `Y` a type, `O` an origin, `M` a message that somebody wrote into the log."""

    kind: str


Message = Begin | Commit | Relation | Insert | Update | Delete | Truncate | Other

_BEGIN = struct.Struct(">QQI")
_COMMIT = struct.Struct(">BQQQ")
_COLUMN = struct.Struct(">Ii")
_INT32 = struct.Struct(">I")
_INT16 = struct.Struct(">H")
_TRUNCATE = struct.Struct(">IB")
_OTHERS = {ord(kind): Other(kind) for kind in "YOM"}


def decode(data: bytes) -> Message:
    """Return the message that the bytes are.

    Raises SourceFailed for bytes that are no message of this protocol, or that end too early.
    """
    try:
        return _decode(data)
    except (struct.error, IndexError, ValueError) as error:
        raise SourceFailed(
            f"a message of the replication log cannot be read ({error}); it begins with {data[:40]!r}"
        ) from error


def _decode(data: bytes) -> Message:  # noqa: PLR0911 - one return for each kind of message
    match chr(data[0]):
        case "I":
            _expect(data, 5, b"N")
            return Insert(_INT32.unpack_from(data, 1)[0], _values(data, 6)[0])
        case "U":
            return _update(data)
        case "D":
            _expect(data, 5, b"KO")
            return Delete(_INT32.unpack_from(data, 1)[0], _values(data, 6)[0], data[5:6] == b"O")
        case "B":
            end, _time, transaction = _BEGIN.unpack_from(data, 1)
            return Begin(end, transaction)
        case "C":
            return Commit(_COMMIT.unpack_from(data, 1)[2])
        case "R":
            return _relation(data)
        case "T":
            count, _options = _TRUNCATE.unpack_from(data, 1)
            return Truncate(struct.unpack_from(f">{count}I", data, 6))
    return _OTHERS[data[0]] if data[0] in _OTHERS else _unknown(data)


def _unknown(data: bytes) -> Other:
    raise ValueError(f"there is no kind {data[:1]!r}")


def _expect(data: bytes, place: int, kinds: bytes) -> None:
    if data[place] not in kinds:
        raise ValueError(f"{data[place : place + 1]!r} at byte {place}")


def _update(data: bytes) -> Update:
    relation: int = _INT32.unpack_from(data, 1)[0]
    _expect(data, 5, b"KON")
    if data[5:6] == b"N":
        return Update(relation, None, whole=False, new=_values(data, 6)[0])
    old, place = _values(data, 6)
    _expect(data, place, b"N")
    return Update(relation, old, whole=data[5:6] == b"O", new=_values(data, place + 1)[0])


def _relation(data: bytes) -> Relation:
    number: int = _INT32.unpack_from(data, 1)[0]
    schema, place = _text(data, 5)
    name, place = _text(data, place)
    identity = chr(data[place])
    count: int = _INT16.unpack_from(data, place + 1)[0]
    place += 3
    columns = []
    for _ in range(count):
        key = bool(data[place] & 1)
        column, place = _text(data, place + 1)
        kind, modifier = _COLUMN.unpack_from(data, place)
        place += _COLUMN.size
        columns.append(RelationColumn(column, kind, modifier, key))
    return Relation(number, schema or "pg_catalog", name, identity, tuple(columns))


def _text(data: bytes, place: int) -> tuple[str, int]:
    end = data.index(0, place)
    return data[place:end].decode(), end + 1


def _values(data: bytes, place: int) -> tuple[Values, int]:
    """A row's values from a place on, and where they end."""
    count: int = _INT16.unpack_from(data, place)[0]
    place += 2
    found: list[Value] = []
    length_at = _INT32.unpack_from
    for _ in range(count):
        kind = data[place]
        if kind == 116:  # t: text
            start = place + 5
            place = start + length_at(data, place + 1)[0]
            if place > len(data):
                raise ValueError("a value ends behind the message")
            found.append(data[start:place].decode())
            continue
        if kind == 110:  # n: NULL
            found.append(None)
        elif kind == 117:  # u: unchanged
            found.append(UNCHANGED)
        else:
            raise ValueError(f"a value of the kind {data[place : place + 1]!r}")
        place += 1
    return tuple(found), place
