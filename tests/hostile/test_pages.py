"""Pages that come and go: what dies between them, what repeats, and where a read goes on."""

import json
import math

import pyarrow as pa
import pytest

from sqlflow_dagster.connectors.base import Arrow, JsonLines, Stream
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import LoadRefused, NotAllowed, RetryLater, SourceError, SourceFailed

BY_TS = {"sync_mode": "incremental", "cursor_field": "ts"}
KEYED = {**BY_TS, "primary_key": "id"}
EITHER = pytest.mark.parametrize("given", [KEYED, BY_TS], ids=["with-key", "without-key"])


def page(*rows, columns="id, ts, v"):
    listed = ", ".join(map(str, rows)).replace("None", "NULL::INTEGER")
    return f"SELECT * FROM (VALUES {listed}) AS t({columns})"


def dying(schema, batches, error):
    """An Arrow reader that raises after some batches."""

    def each():
        yield from batches
        raise error

    return Arrow(pa.RecordBatchReader.from_batches(schema, each()))


def lines_that_die(error):
    yield b'{"id": 9, "ts": 9, "v": 9}\n{"id": 10, "ts'
    raise error


@pytest.mark.parametrize(
    "error",
    [
        RetryLater("slow down", after=7),
        NotAllowed("scope read_orders is missing"),
        SourceFailed("cut"),
        OSError("reset"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("where", ["between", "arrow", "json"])
def test_a_read_that_dies_keeps_table_and_cursor_and_the_class_of_its_error(hostile, where, error):
    hostile.ok(page((1, 1, 1)), **KEYED)
    before = dict(hostile.bench.shelf.values)
    whole = pa.table({"id": [9], "ts": [9], "v": [9]})
    batch = {
        "between": error,
        "arrow": dying(whole.schema, whole.to_batches(), error),
        "json": JsonLines(lines_that_die(error), {"id": "BIGINT", "ts": "BIGINT", "v": "BIGINT"}),
    }[where]
    if isinstance(error, OSError) and where != "arrow":
        with pytest.raises(OSError, match="reset"):
            hostile.load(page((2, 2, 2)), batch, **KEYED)
    else:
        raised = hostile.load(page((2, 2, 2)), batch, **KEYED, max_retries=0).error
        assert type(raised) is (SourceFailed if isinstance(error, OSError) else type(error))
        assert str(error) in str(raised)
        assert getattr(raised, "after", None) == getattr(error, "after", None)
    assert hostile.rows() == [(1, 1, 1)]
    assert hostile.bench.shelf.values == before
    hostile.ok(page((2, 2, 2)), **KEYED)
    assert hostile.rows() == [(1, 1, 1), (2, 2, 2)]


@EITHER
def test_a_restart_from_each_checkpoint_reaches_the_same_table(hostile, given):
    """Ordered pages, one of which ends between rows of one cursor."""
    hostile.far.streams = [Stream("data", ordered=True)]
    source = [(1, 1, 1), (2, 1, 2), (3, 2, 3), (4, 2, 4), (5, 3, 5), (6, 4, 6), (7, 4, 7)]

    def answer(dies_after):
        def read(_stream, since):
            rows = [row for row in source if since is None or row[1] >= int(since.value)]
            for number in range(0, len(rows), 2):
                if number // 2 == dies_after:
                    yield SourceFailed("cut")
                part = rows[number : number + 2]
                yield hostile.batch(page(*part), position=Cursor(str(part[-1][1]), "INTEGER"))

        return read

    for dies_after in (1, 2, 1, 3, 1, 2, 1, None):
        hostile.far.answer = answer(dies_after)
        hostile.load(**given)
        stored = hostile.rows()
        assert stored == source[: len(stored)]
    assert stored == source
    source.append((8, 4, 8))
    hostile.far.answer = answer(1)
    hostile.load(**given)
    hostile.far.answer = answer(None)
    hostile.ok(**given)
    assert hostile.rows() == source


@EITHER
def test_what_came_in_parts_within_a_later_read_is_all_there(hostile, given):
    """The rows from the boundary on give way once in a read, not at each of its checkpoints."""
    hostile.far.streams = [Stream("data", ordered=True)]
    hostile.ok(page((1, 1, 1), (2, 2, 2)), **given)
    at = [Cursor(str(n), "INTEGER") for n in range(10)]
    pages = [
        hostile.batch(page((2, 2, 20)), position=at[2]),
        hostile.batch(page((3, 3, 3)), position=at[3]),
        hostile.batch(page((4, 4, 4)), position=at[4]),
    ]
    outcome = hostile.ok(*pages, **given)
    assert hostile.rows() == [(1, 1, 1), (2, 2, 20), (3, 3, 3), (4, 4, 4)]
    assert outcome.total_rows == 4


def test_a_key_that_comes_twice_over_pages_is_one_row(each_kind):
    each_kind.ok(page((1, 1, 1), (2, 1, 2)), page((1, 2, 3)), page((1, 1, 4)), **KEYED)
    assert each_kind.rows() == [(1, 2, 3), (2, 1, 2)]


def test_null_cursors_are_read_again_and_merged(each_kind):
    nulls = page((1, 1, 1), (2, None, 2))
    each_kind.ok(nulls, **KEYED)
    outcome = each_kind.ok(nulls, page((3, None, 3)), **KEYED)
    assert each_kind.rows() == [(1, 1, 1), (2, None, 2), (3, None, 3)]
    assert outcome.cursor_after.value == "1"


@EITHER
def test_a_page_that_goes_back_in_time_moves_no_cursor_back(each_kind, given):
    each_kind.ok(page((1, 5, 1)), page((2, 3, 2)), **given)
    outcome = each_kind.ok(page((1, 5, 1)), page((3, 4, 3)), page((4, 6, 4)), page((5, 5, 5)), **given)
    assert outcome.cursor_after.value == "6"
    assert [row[0] for row in each_kind.rows()] == [1, 2, 4, 5]


@EITHER
def test_equal_cursors_everywhere_lose_and_double_nothing(each_kind, given):
    rows = [(number, 7, number) for number in range(1, 6)]
    each_kind.ok(page(*rows[:3]), **given)
    each_kind.ok(page(*rows[:2]), page(*rows[2:]), **given)
    each_kind.ok(page(*rows), **given)
    assert each_kind.rows() == rows


@pytest.mark.parametrize("kind", ["TIMESTAMP", "DATE", "TIMESTAMPTZ", "TIMESTAMP_NS", "DOUBLE"])
def test_what_lies_in_the_future_is_loaded_and_moves_no_cursor(each_kind, kind):
    now, later = ("1.5", "'inf'") if kind == "DOUBLE" else ("'2026-01-01'", "'2200-01-01'")
    select = f"SELECT {{0}} AS id, {{1}}::{kind} AS ts, {{0}} AS v"
    for _ in range(2):
        outcome = each_kind.ok(select.format(1, now), select.format(2, later), select.format(3, now), **KEYED)
        assert outcome.cursor_after.value.startswith(("2026-01-01", "1.5"))
        assert outcome.total_rows == 3
    assert any("future" in notice for notice in outcome.notices)


def test_infinite_and_missing_numbers_are_kept(hostile):
    for kind in ("scan", "arrow"):
        hostile.kind = kind
        hostile.ok(
            "SELECT 'nan'::DOUBLE AS a, '-inf'::DOUBLE AS b, 'infinity'::TIMESTAMP AS c, -0.0::DOUBLE AS d"
        )
        assert hostile.rows("SELECT a::VARCHAR, b::VARCHAR, c::VARCHAR, d::VARCHAR FROM p.t") == [
            ("nan", "-inf", "infinity", "-0.0")
        ]


EMPTY = "SELECT 1 AS id, 1 AS ts, 1 AS v WHERE false"


@EITHER
def test_an_empty_page_is_no_rows_and_no_error(each_kind, given):
    each_kind.ok(EMPTY, **given)
    assert list(each_kind.types()) == ["id", "ts", "v"]
    outcome = each_kind.ok(EMPTY, page((1, 1, 1)), EMPTY, page((2, 2, 2)), **given)
    assert outcome.cursor_after.value == "2"
    outcome = each_kind.ok(EMPTY, EMPTY, **given)
    assert (outcome.rows, outcome.cursor_after.value) == (0, "2")
    # Without a key, what is at the boundary is what the source still has there.
    assert [row[0] for row in each_kind.rows()] == ([1, 2] if given is KEYED else [1])


@EITHER
def test_no_page_at_all_changes_nothing(hostile, given):
    assert hostile.ok(**given).rows == 0
    hostile.ok(page((1, 1, 1)), **given)
    assert hostile.ok(**given).cursor_after.value == "1"
    assert hostile.rows() == [(1, 1, 1)]


def test_a_cell_of_a_hundred_megabytes(each_kind):
    each_kind.ok("SELECT 1 AS id, repeat('x', 100000000) AS v", "SELECT 2 AS id, 'y' AS v", primary_key="id")
    assert each_kind.rows("SELECT id, length(v) FROM p.t ORDER BY id") == [(1, 100_000_000), (2, 1)]


def test_a_reader_is_closed_and_its_connector_too(hostile, hostile_package):
    closed = []
    table = pa.table({"id": [1]})

    class Reader:
        """What a driver hands out: record batches, and something to be closed."""

        schema = table.schema

        def __init__(self):
            self.reader = table.to_reader()

        def __arrow_c_stream__(self, requested_schema=None):
            return self.reader.__arrow_c_stream__(requested_schema)

        def __iter__(self):
            return iter(self.reader)

        def close(self):
            closed.append(1)

    hostile.ok(Arrow(Reader()))
    hostile.load(Arrow(Reader()), SourceFailed("cut"))
    before = hostile.far.closed
    hostile.load(SourceFailed("cut"))
    assert closed == [1, 1]
    assert hostile.far.closed > before


def test_numbers_that_json_cannot_hold_stay_text_or_are_refused(hostile):
    lines = json.dumps({"id": 1, "x": math.nan}).encode() + b"\n"
    error = hostile.load(JsonLines([lines], {"id": "BIGINT", "x": "DOUBLE"})).error
    assert error is None or isinstance(error, SourceError | LoadRefused)
