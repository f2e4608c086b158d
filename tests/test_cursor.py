"""State keys, markers, and which of two memories decides where a LOAD begins."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlflow_dagster.cursor import Cursor, Marker, Position, StateKey, reconcile

MARKER = Marker(
    position=Position(1, 4),
    cursor=Cursor("2026-01-01 00:00:00+00", "TIMESTAMP WITH TIME ZONE"),
    run_id="run",
    rows=3,
    schema_hash="abc",
    complete=True,
    committed_at="2026-01-01T00:00:00+00:00",
)


def at(epoch: int, seq: int, value: str = "7") -> Marker:
    return replace(MARKER, position=Position(epoch, seq), cursor=Cursor(value, "BIGINT"))


def test_a_state_key_reads_as_documented():
    key = StateKey("shop", "dev", "sales", "pg", "orders", "orders_raw", "2026-01-01")
    assert str(key) == "sqlflow/v1/shop/dev/sales/pg.orders>orders_raw/2026-01-01"


@given(
    st.lists(st.tuples(*[st.text("ab./>%", min_size=1, max_size=3)] * 6), min_size=2, max_size=2, unique=True)
)
def test_two_state_keys_never_share_a_text(pair):
    one, other = (str(StateKey(*parts)) for parts in pair)
    assert one != other


@pytest.mark.parametrize("cursor", [MARKER.cursor, None], ids=["cursor", "none"])
def test_a_marker_survives_its_document(cursor):
    marker = replace(MARKER, cursor=cursor)
    assert Marker.from_json(marker.to_json()) == marker


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", "null", "7", "{", '{"version": 2}', '{"version": 1}'], ids=repr
)
def test_an_unreadable_document_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"document|Expecting"):
        Marker.from_json(text)


def test_the_first_load_starts_with_nothing():
    start = reconcile(None, None)
    assert (start.found, start.epoch, start.cursor, start.repair, start.notice) == (None, 0, None, None, None)


def test_equal_memories_need_no_repair():
    start = reconcile(MARKER, MARKER.to_json())
    assert (start.found, start.cursor, start.repair, start.notice) == (
        MARKER.position,
        MARKER.cursor,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("stored", "notice"),
    [
        (None, "restored from the warehouse"),
        (at(1, 3).to_json(), "was behind"),
        (at(1, 9).to_json(), "behind run storage"),
        (at(1, 4, "99").to_json(), "was edited"),
        ("garbage", "unreadable"),
    ],
    ids=["absent", "behind", "ahead", "edited", "unreadable"],
)
def test_the_marker_wins_and_run_storage_is_repaired(stored, notice):
    marker = at(1, 4)
    start = reconcile(marker, stored)
    assert (start.found, start.epoch, start.cursor, start.repair) == (
        Position(1, 4),
        1,
        marker.cursor,
        marker,
    )
    assert notice in start.notice


def test_a_newer_epoch_in_run_storage_reads_everything_again_under_a_newer_one():
    start = reconcile(at(1, 4), at(2, 7).to_json())
    assert (start.found, start.epoch, start.cursor) == (Position(1, 4), 3, None)


def test_a_replaced_warehouse_reads_everything_again():
    start = reconcile(None, at(2, 7).to_json())
    assert (start.found, start.epoch, start.cursor) == (None, 3, None)
    assert "replaced" in start.notice


def test_a_rewind_is_told_from_a_reset():
    assert reconcile(at(2, 0), at(2, 0).to_json()).rewound
    reset = replace(at(2, 0), cursor=None)
    assert not reconcile(reset, reset.to_json()).rewound


def test_a_document_is_json_that_people_can_read():
    assert json.loads(MARKER.to_json())["cursor"] == {
        "value": "2026-01-01 00:00:00+00",
        "type": "TIMESTAMP WITH TIME ZONE",
    }
