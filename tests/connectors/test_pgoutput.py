"""Bytes of pgoutput become messages, as Postgres' documentation lays them out; anything else is an error."""

from __future__ import annotations

import struct

import pytest

from sqlflow_dagster.connectors.pgoutput import (
    UNCHANGED,
    Begin,
    Commit,
    Delete,
    Insert,
    Other,
    Relation,
    RelationColumn,
    Truncate,
    Update,
    decode,
)
from sqlflow_dagster.connectors.postgres_states import States
from sqlflow_dagster.errors import SchemaChanged, SourceFailed


def row(*values):
    """A tuple: text, None, or UNCHANGED."""
    parts = [struct.pack(">H", len(values))]
    for value in values:
        if value is None:
            parts.append(b"n")
        elif value is UNCHANGED:
            parts.append(b"u")
        else:
            parts.append(b"t" + struct.pack(">I", len(value.encode())) + value.encode())
    return b"".join(parts)


def head(kind, relation=7):
    return kind + struct.pack(">I", relation)


RELATION = (
    head(b"R") + b"public\0orders\0d" + struct.pack(">H", 2)
    + b"\1id\0" + struct.pack(">Ii", 23, -1) + b"\0n\xc3\xa4me\0" + struct.pack(">Ii", 1043, 104)
)  # fmt: skip
MESSAGES = {
    "begin": (b"B" + struct.pack(">QQI", 2**40, 5, 9), Begin(2**40, 9)),
    "commit": (b"C" + struct.pack(">BQQQ", 0, 1, 2**63, 5), Commit(2**63)),
    "relation": (
        RELATION,
        Relation(7, "public", "orders", "d", (RelationColumn("id", 23, -1, key=True), RelationColumn("näme", 1043, 104, key=False))),
    ),
    "system relation": (
        head(b"R") + b"\0t\0f" + struct.pack(">H", 0),
        Relation(7, "pg_catalog", "t", "f", ()),
    ),
    "insert": (head(b"I") + b"N" + row("1", None, "", "é\n"), Insert(7, ("1", None, "", "é\n"))),
    "update": (head(b"U") + b"N" + row("1", UNCHANGED), Update(7, None, whole=False, new=("1", UNCHANGED))),
    "update of the key": (
        head(b"U") + b"K" + row("1", None) + b"N" + row("2", UNCHANGED),
        Update(7, ("1", None), whole=False, new=("2", UNCHANGED)),
    ),
    "update with all": (
        head(b"U") + b"O" + row("1", "a") + b"N" + row("1", "b"),
        Update(7, ("1", "a"), whole=True, new=("1", "b")),
    ),
    "delete": (head(b"D") + b"K" + row("1", None), Delete(7, ("1", None), whole=False)),
    "delete with all": (head(b"D") + b"O" + row("1", "a"), Delete(7, ("1", "a"), whole=True)),
    "truncate": (b"T" + struct.pack(">IBII", 2, 1, 7, 8), Truncate((7, 8))),
    "type": (head(b"Y") + b"public\0mood\0", Other("Y")),
    "origin": (b"O" + struct.pack(">Q", 5) + b"far\0", Other("O")),
    "message": (b"M\1" + struct.pack(">Q", 5) + b"hb\0" + struct.pack(">I", 1) + b"x", Other("M")),
}  # fmt: skip


@pytest.mark.parametrize(("data", "message"), MESSAGES.values(), ids=MESSAGES)
def test_each_message_is_read(data, message):
    assert decode(data) == message


@pytest.mark.parametrize(
    "data", [data for data, message in MESSAGES.values() if not isinstance(message, Other)], ids=repr
)
def test_a_message_that_is_cut_off_anywhere_is_an_error(data):
    for end in range(len(data)):
        with pytest.raises(SourceFailed, match="a message of the replication log cannot be read"):
            decode(data[:end])


@pytest.mark.parametrize(
    "data",
    [
        b"Z",
        head(b"I") + b"X" + row("1"),
        head(b"D") + b"N" + row("1"),
        head(b"U") + b"K" + row("1") + b"K" + row("2"),
        head(b"I") + b"N" + struct.pack(">H", 1) + b"b\0\0\0\1x",
        head(b"I") + b"N" + struct.pack(">H", 1) + b"t" + struct.pack(">I", 2) + b"\xff\xfe",
        head(b"I") + b"N" + struct.pack(">H", 1) + b"t" + struct.pack(">I", 2**31) + b"x",
    ],
    ids=["kind", "insert", "delete", "update", "binary", "no UTF-8", "length"],
)
def test_what_is_no_message_is_an_error(data):
    with pytest.raises(SourceFailed):
        decode(data)


@pytest.fixture(params=[1, 2**20], ids=["on disk", "in memory"])
def states(request, tmp_path):
    made = States(tmp_path / "spool/states.sqlite", ("id",), request.param)
    made.begin(decode(RELATION))
    yield made
    made.close()
    assert not (tmp_path / "spool/states.sqlite").exists()


def last(states):
    return [(number, state.gone, state.values, state.origin) for number, state in states]


def test_states_are_those_of_the_last_change_in_the_order_of_it(states):
    for change in (
        Insert(7, ("1", "a")),
        Insert(7, ("2", "b")),
        Update(7, None, whole=False, new=("1", UNCHANGED)),
        Delete(7, ("3", None), whole=False),
    ):
        states.apply(change, 50)
    assert last(states) == [
        (None, False, ("2", "b"), None),
        (None, False, ("1", "a"), None),
        (None, True, ("3", UNCHANGED), None),
    ]


def test_a_value_that_did_not_change_is_looked_for_under_the_key_it_had_first(states):
    for change in (
        Update(7, ("1", None), whole=False, new=("2", UNCHANGED)),
        Update(7, ("2", None), whole=False, new=("3", UNCHANGED)),
        Insert(7, ("1", "other")),
    ):
        states.apply(change, 50)
    assert last(states) == [
        (None, True, ("2", UNCHANGED), 1),
        (None, False, ("3", UNCHANGED), 1),
        (1, False, ("1", "other"), None),
    ]


def test_truncate_forgets_what_came_before_it(states):
    states.apply(Insert(7, ("1", "a")), 50)
    states.apply(Truncate((7,)), 50)
    assert states.emptied
    assert states
    assert last(states) == []
    states.apply(Insert(7, ("2", "b")), 50)
    assert last(states) == [(None, False, ("2", "b"), None)]


def test_a_key_that_the_log_does_not_have_is_an_error(tmp_path):
    with pytest.raises(SchemaChanged, match="the key column nix is gone"):
        States(tmp_path / "s", ("nix",), 1).begin(decode(RELATION))
