"""Loads into one table: nothing lost, nothing doubled, an older row never over a newer one."""

import hashlib
import json
from decimal import Decimal

import pyarrow as pa
import pytest

from sqlflow_dagster.connectors.base import Attach
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import BadOption, CursorConflict, LoadRefused, SourceFailed
from sqlflow_dagster.sql import Condition, Sql, TableName
from sqlflow_dagster.warehouse import commits
from sqlflow_dagster.warehouse.load import behind
from sqlflow_dagster.warehouse.shape import Shape, Window

from .conftest import KEY, Depot, take

MERGE = {"keys": ("id",), "cursor_field": "ts"}
BY_CURSOR = {"cursor_field": "ts"}


def rows(*values, columns="id, ts, v"):
    """A SELECT of literal rows; `ts` is a day of January 2026."""
    listed = ", ".join(
        f"({i}, {f'TIMESTAMP {ts!r}' if ts else 'NULL::TIMESTAMP'}, {v})" for i, ts, v in values
    )
    return f"SELECT * FROM (VALUES {listed}) AS t({columns})"


def day(number):
    return f"2026-01-{number:02} 00:00:00"


def arrow(select, depot):
    with depot.warehouse.scratch() as connection:
        return connection.execute(select).to_arrow_table()


@pytest.fixture(params=["scan", "arrow", "json"])
def form(request, depot):
    """The same rows as each of the three kinds of batch."""

    def make(select):
        if request.param == "scan":
            return select
        if request.param == "arrow":
            return arrow(select, depot)
        with depot.warehouse.scratch() as connection:
            lines = connection.execute(f"SELECT to_json(t)::VARCHAR FROM ({select}) AS t").fetchall()
            types = {row[0]: row[1] for row in connection.execute(f"DESCRIBE {select}").fetchall()}
        return "".join(f"{line}\n" for (line,) in lines).encode(), types

    return make


def test_a_full_load_is_the_rows_that_were_read(depot, form):
    done = depot.load(form(rows((1, day(1), 10), (2, day(2), 20))), mode="replace")
    assert (done.rows_read, done.inserted, done.deleted, done.total_rows) == (2, 2, 0, 2)
    assert depot.query("SELECT id, ts::VARCHAR, v FROM sales.orders ORDER BY id") == [
        (1, day(1), 10),
        (2, day(2), 20),
    ]


def test_a_second_load_merges_by_key(depot, form):
    depot.load(form(rows((1, day(1), 10), (2, day(2), 20))), **MERGE)
    done = depot.load(form(rows((2, day(3), 21), (3, day(3), 30))), **MERGE)
    assert (done.inserted, done.updated, done.total_rows) == (1, 1, 3)
    assert depot.query("SELECT id, v FROM sales.orders ORDER BY id") == [(1, 10), (2, 21), (3, 30)]
    assert done.cursor == Cursor(day(3), "TIMESTAMP")


def test_keys_of_other_types_are_found_among_keys_of_text(depot):
    depot.load("SELECT 'A' AS id, 1 AS v UNION ALL SELECT '7', 2", keys=("id",))
    done = depot.load("SELECT 7 AS id, 3 AS v UNION ALL SELECT 8, 4", keys=("id",))
    assert (done.inserted, done.updated) == (1, 1)
    assert depot.query() == [("7", 3), ("8", 4), ("A", 1)]


def test_an_older_row_never_overwrites_a_newer_one(depot, form):
    depot.load(form(rows((1, day(9), 9))), **MERGE)
    done = depot.load(form(rows((1, day(8), 8))), since=Cursor(day(1), "TIMESTAMP"), **MERGE)
    assert (done.inserted, done.updated) == (0, 0)
    assert depot.query("SELECT v FROM sales.orders") == [(9,)]
    assert done.cursor.value == day(9)


def test_of_equal_cursors_the_last_read_wins(depot, form):
    depot.load(form(rows((1, day(1), 1), (1, day(1), 2))), **MERGE)
    assert depot.query("SELECT v FROM sales.orders") == [(2,)]
    depot.load(form(rows((1, day(1), 3), (1, day(1), 4))), **MERGE)
    assert depot.query("SELECT v FROM sales.orders") == [(4,)]


def test_the_last_read_wins_over_batches_of_one_read(depot):
    batches = [rows((1, day(1), n)) for n in range(5)]
    depot.load(*batches, **MERGE)
    assert depot.query("SELECT v FROM sales.orders") == [(4,)]


def test_a_row_at_the_boundary_that_is_as_it_was_counts_as_nothing(depot, form):
    depot.load(form(rows((1, day(1), 1), (2, day(2), 2))), **MERGE)
    done = depot.load(form(rows((1, day(1), 1), (2, day(2), 2))), **MERGE)
    assert (done.rows_read, done.inserted, done.updated, done.deleted) == (1, 0, 0, 0)


def test_a_late_row_at_the_boundary_is_loaded_without_a_key(depot, form):
    depot.load(form(rows((1, day(1), 1), (2, day(2), 2))), **BY_CURSOR)
    done = depot.load(form(rows((1, day(1), 1), (2, day(2), 2), (3, day(2), 3))), **BY_CURSOR)
    assert depot.query("SELECT id FROM sales.orders ORDER BY id") == [(1,), (2,), (3,)]
    assert done.total_rows == 3


def test_null_keys_match_each_other(depot, form):
    depot.load(form(rows(("NULL", day(1), 1), (2, day(1), 2))), **MERGE)
    depot.load(form(rows(("NULL", day(2), 3), ("NULL", day(3), 4))), **MERGE)
    assert depot.query("SELECT id, v FROM sales.orders ORDER BY ALL") == [(2, 2), (None, 4)]


def test_several_key_columns(depot):
    keyed = {"keys": ("id", "V"), "cursor_field": "ts"}
    depot.load(rows((1, day(1), 1), (1, day(1), 2)), **keyed)
    depot.load(rows((1, day(2), 2), (1, day(2), "NULL")), **keyed)
    assert depot.query("SELECT id, v, day(ts) FROM sales.orders ORDER BY ALL") == [
        (1, 1, 1),
        (1, 2, 2),
        (1, None, 2),
    ]


def test_a_null_cursor_is_merged_with_a_key_and_never_beats_a_dated_row(depot, form):
    depot.load(form(rows((1, day(1), 1), (2, None, 2))), **MERGE)
    depot.load(form(rows((1, None, 9), (2, None, 3))), **MERGE)
    assert depot.query("SELECT id, v FROM sales.orders ORDER BY id") == [(1, 1), (2, 3)]


def test_a_null_cursor_is_refused_without_a_key(depot, form):
    with pytest.raises(LoadRefused, match="primary_key"):
        depot.load(form(rows((1, day(1), 1), (2, None, 2))), **BY_CURSOR)
    assert depot.query("SELECT count(*) FROM duckdb_tables() WHERE table_name = 'orders'") == [(0,)]


def test_rows_of_the_future_are_loaded_without_moving_the_cursor(depot, form):
    done = depot.load(form(rows((1, day(1), 1), (2, "2999-01-01 00:00:00", 2))), **MERGE)
    assert done.cursor.value == day(1)
    assert done.future_rows == 1
    assert any("future" in notice for notice in done.notices)
    done = depot.load(form(rows((3, day(2), 3), (2, "2999-01-01 00:00:00", 2))), **MERGE)
    assert (done.cursor.value, done.total_rows) == (day(2), 3)


@pytest.mark.parametrize("value", ["'infinity'::TIMESTAMP", "'nan'::DOUBLE", "'inf'::DOUBLE"])
def test_what_nothing_is_greater_than_is_no_cursor(depot, value):
    other = "TIMESTAMP '2026-01-01'" if "TIMESTAMP" in value else "1.5::DOUBLE"
    done = depot.load(f"SELECT * FROM (VALUES (1, {value}), (2, {other})) AS t(id, ts)", **MERGE)
    assert done.cursor.value in ("2026-01-01 00:00:00", "1.5")
    assert done.total_rows == 2


@pytest.mark.parametrize(
    ("kind", "low", "high"),
    [
        ("TIMESTAMP_NS", "2026-01-01 00:00:00.123456788", "2026-01-01 00:00:00.123456789"),
        ("HUGEINT", "170141183460469231731687303715884105726", "170141183460469231731687303715884105727"),
        (
            "DECIMAL(38,10)",
            "1234567890123456789012345678.1234567889",
            "1234567890123456789012345678.1234567890",
        ),
        ("TIMESTAMP WITH TIME ZONE", "2026-01-01 00:00:00.000001+00", "2026-01-01 00:00:00.000002+00"),
        ("VARCHAR", "a'b", "a'c"),
        ("DATE", "0001-01-01", "2025-12-31"),
        ("UBIGINT", "18446744073709551614", "18446744073709551615"),
    ],
)
def test_a_cursor_keeps_every_digit(depot, kind, low, high):
    def read(value):
        text = value.replace("'", "''")
        return f"SELECT 1 AS id, CAST('{text}' AS {kind}) AS ts"

    depot.load(read(low), **MERGE)
    done = depot.load(read(high), **MERGE)
    assert done.cursor == Cursor(high, kind)
    assert depot.load(read(low), **MERGE).rows_read == 0


def test_a_full_refresh_swaps_the_table_and_its_views_and_indexes_stay(depot, form):
    depot.load(form(rows((1, day(1), 1), (2, day(2), 2))), mode="replace")
    with depot.warehouse.open() as connection:
        connection.execute("CREATE VIEW sales.seen AS SELECT sum(v) AS v FROM sales.orders")
        connection.execute("CREATE UNIQUE INDEX by_id ON sales.orders (id)")
    done = depot.load(form(rows((7, day(7), 7))), mode="replace")
    assert (done.inserted, done.deleted) == (1, 2)
    assert depot.query("FROM sales.seen") == [(7,)]
    assert depot.query("SELECT index_name FROM duckdb_indexes()") == [("by_id",)]
    assert depot.query("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'sales'") == [("orders",)]


def test_a_unique_index_of_a_user_does_not_hinder_a_merge(depot):
    depot.load(rows((1, day(1), 1), (2, day(2), 2)), **MERGE)
    with depot.warehouse.open() as connection:
        connection.execute("CREATE UNIQUE INDEX by_id ON sales.orders (id)")
    depot.load(rows((2, day(3), 3), (3, day(3), 3)), **MERGE)
    assert depot.query("SELECT id, v FROM sales.orders ORDER BY id") == [(1, 1), (2, 3), (3, 3)]
    changes = depot.load(rows((3, day(4), "4.5"), columns="id, ts, w"), **MERGE).schema_changes
    assert changes == ("column w was added as DECIMAL(2,1)",)
    assert depot.query("SELECT * EXCLUDE ts FROM sales.orders ORDER BY id")[2] == (3, None, Decimal("4.5"))
    assert depot.query("SELECT index_name FROM duckdb_indexes()") == [("by_id",)]


@pytest.mark.parametrize("failing", ["SELECT error('broken')", "SELECT * FROM read_csv('/nowhere.csv')"])
@pytest.mark.parametrize("mode", ["replace", "append"])
def test_a_failing_read_changes_nothing(depot, failing, mode):
    depot.load(rows((1, day(1), 1)), mode=mode)
    with pytest.raises(SourceFailed):
        depot.load(rows((2, day(2), 2)), failing, mode=mode)
    assert depot.query("SELECT id FROM sales.orders") == [(1,)]


def test_a_feeder_that_swallows_a_failed_batch_stores_nothing(depot):
    depot.load(rows((1, day(1), 1)), mode="replace")

    def feed(intake):
        intake.scan(Sql(rows((2, day(2), 2))))
        with pytest.raises(SourceFailed):
            intake.scan(Sql("SELECT error('broken')"))

    with pytest.raises(SourceFailed, match="not whole"):
        depot.load(feed=feed, mode="replace")
    assert depot.query("SELECT id FROM sales.orders") == [(1,)]


def test_an_error_of_the_feeder_changes_nothing_and_is_raised(depot):
    depot.load(rows((1, day(1), 1)), mode="replace")

    def feed(intake):
        intake.scan(Sql(rows((2, day(2), 2))))
        raise KeyError("theirs")

    with pytest.raises(KeyError):
        depot.load(feed=feed, mode="replace")
    assert depot.query("SELECT id FROM sales.orders") == [(1,)]
    assert depot.load(rows((3, day(3), 3)), mode="replace").total_rows == 1


@pytest.mark.parametrize(
    "nothing", [(), (rows((1, day(1), 1)) + " WHERE FALSE",)], ids=["no-batch", "no-rows"]
)
def test_a_clean_read_of_nothing_empties_a_replaced_table_and_keeps_its_types(depot, nothing):
    depot.load(rows((1, day(1), 1)), mode="replace")
    types = depot.types()
    done = depot.load(*nothing, mode="replace")
    assert (done.deleted, done.total_rows) == (1, 0)
    assert depot.types() == types


def test_an_empty_file_says_nothing_of_types(depot):
    depot.load("SELECT 1 AS id, 2.5 AS v", mode="replace")
    done = depot.load("SELECT '' AS id, '' AS v, '' AS w WHERE FALSE", mode="replace")
    assert depot.types() == {"id": "INTEGER", "v": "DECIMAL(2,1)", "w": "VARCHAR"}
    assert done.total_rows == 0


def test_an_empty_first_read_makes_the_table(depot, form):
    done = depot.load(form(rows((1, day(1), 1)) + " WHERE FALSE"), **MERGE)
    assert (done.total_rows, done.cursor, list(done.columns)) == (0, None, ["id", "ts", "v"])


def test_another_run_that_commits_first_is_a_conflict(depot):
    depot.load(rows((1, day(1), 1)), **MERGE)
    slow = depot.spec(**MERGE)
    depot.load(rows((2, day(2), 2)), **MERGE)
    with pytest.raises(CursorConflict):
        depot.load_as(slow, lambda intake: take(intake, [rows((3, day(3), 3))]))
    assert depot.query("SELECT id FROM sales.orders ORDER BY id") == [(1,), (2,)]


@pytest.mark.parametrize("changes", [{"mode": "append"}, {"keys": ("id",)}], ids=["append", "upsert"])
def test_a_retry_of_a_completed_run_does_nothing(depot, changes):
    depot.load(rows((1, day(1), 1)), run_id="same", **changes)
    done = depot.load(rows((1, day(1), 2)), run_id="same", **changes)
    assert (done.inserted, done.updated, done.total_rows) == (0, 0, 1)
    assert depot.query("SELECT v FROM sales.orders") == [(1,)]


def test_a_key_that_is_not_unique_in_a_full_load_is_counted(depot, form):
    done = depot.load(form(rows((1, day(1), 1), (1, day(3), 3), (1, day(2), 2), (2, day(1), 1))), **MERGE)
    assert depot.query("SELECT id, v FROM sales.orders ORDER BY id") == [(1, 3), (2, 1)]
    assert any("2 rows" in notice for notice in done.notices)
    assert (done.rows_read, done.inserted) == (4, 2)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"cursor_field": "when"}, r"'when'.*id, ts, v"),
        ({"keys": ("key",)}, r"'key'.*id, ts, v"),
        ({"shape": Shape(columns=("nope",))}, "'nope'"),
        ({"shape": Shape(conditions=(Condition("nope", "=", (1,)),))}, "'nope'"),
        ({"keys": ("id",), "shape": Shape(exclude=("ID",))}, "'id'.*exclude"),
        ({**MERGE, "shape": Shape(mask={"ts": "hash"})}, "'ts'"),
        ({**MERGE, "shape": Shape(start="yesterday")}, "'yesterday' is no TIMESTAMP"),
    ],
    ids=["cursor", "key", "column", "filter", "excluded-key", "masked-cursor", "start"],
)
def test_a_column_that_is_missing_is_named(depot, changes, match):
    with pytest.raises(LoadRefused, match=match):
        depot.load(rows((1, day(1), 1)), **changes)


def test_names_that_differ_only_in_case_are_refused(depot):
    table = pa.table([pa.array([1]), pa.array([2])], names=["a", "A"])
    for batch in (table, "SELECT 1 AS a, 2 AS A", (b'{"a": 1}', {"a": "INT", "A": "INT"})):
        with pytest.raises(LoadRefused, match=r"a, A|A, a"):
            depot.load(batch, mode="replace")


def test_only_what_is_wanted_is_stored(depot, form):
    shape = Shape(
        columns=("id", "v", "name", "card", "note"),
        exclude=("note",),
        mask={"name": "hash", "card": "redact"},
        conditions=(
            Condition("v", ">=", (2,)),
            Condition("id", "IN", (2, 3, 4)),
            Condition("note", "!=", ("it's",)),
        ),
    )
    select = (
        "SELECT * FROM (VALUES (1, 1, 'a', '4111', 'x'), (2, 2, 'Ann', '4111', 'x'), (3, 3, NULL, NULL, 'x'),"
        " (4, 4, 'b', '1', 'it''s')) AS t(id, v, name, card, note)"
    )
    depot.load(form(select), mode="replace", shape=shape)
    digest = "c9c4cd63fbd28b8b6a9e66e9c0b0ad0cfdc8e5cc8a0e5ff2fd38ee18f2b3bd16"
    found = depot.query("SELECT id, v, length(name), card FROM sales.orders ORDER BY id")
    assert found == [(2, 2, len(digest), "***"), (3, 3, None, None)]
    assert depot.query("SELECT name = sha256('Ann') FROM sales.orders WHERE id = 2") == [(True,)]


@pytest.mark.parametrize(
    "kind", ["BIGINT", "DOUBLE", "FLOAT", "DECIMAL(12,0)", "DECIMAL(12,2)", "DECIMAL(38,9)"]
)
def test_a_hashed_key_is_the_same_whatever_number_its_type_is(depot, kind):
    shape = Shape(mask={"id": "hash"})
    for number, each in enumerate(["INTEGER", kind, "VARCHAR"]):
        select = (
            f"SELECT {number} AS v, CAST(i AS {each}) AS id FROM (VALUES (10), (-7), (0), (NULL)) AS t(i)"
        )
        depot.load(select, shape=shape, mode="upsert", keys=("id",))
        assert depot.query("SELECT count(*), count(id), min(v) FROM sales.orders") == [(4, 3, number)]


def test_a_hashed_day_is_the_same_as_a_time(depot):
    for kind in ("DATE", "TIMESTAMP", "TIMESTAMP_NS", "VARCHAR"):
        depot.load(
            f"SELECT CAST(DATE '2026-01-02' AS {kind}) AS id",
            shape=Shape(mask={"id": "hash"}),
            keys=("id",),
            mode="upsert",
        )
    assert depot.query("SELECT count(*) FROM sales.orders") == [(1,)]


def test_a_hashed_number_keeps_the_digits_that_say_something(depot):
    values = "(1.5::DOUBLE, 1.50::DECIMAL(12,2), 1e20::DOUBLE, 100::DECIMAL(12,2), [1.0]::DECIMAL(3,1)[])"
    depot.load(
        f"SELECT * FROM (VALUES {values}) AS t(a, b, c, d, e)",
        mode="replace",
        shape=Shape(mask=dict.fromkeys("abcde", "hash")),
    )
    expected = [hashlib.sha256(text.encode()).hexdigest() for text in ("1.5", "1.5", "1e+20", "100", "[1.0]")]
    assert depot.query("SELECT * FROM sales.orders") == [tuple(expected)]


def test_bounds_of_the_first_read_are_half_open(depot, form):
    shape = Shape(start=day(2), end=day(4))
    depot.load(form(rows(*((n, day(n), n) for n in range(1, 6)))), shape=shape, **MERGE)
    assert depot.query("SELECT id FROM sales.orders ORDER BY id") == [(2,), (3,)]


def test_bounds_may_have_more_digits_than_the_column(depot, form):
    numbers = "SELECT n AS id, CAST(n AS DECIMAL(12,2)) AS at FROM range(8, 13) AS r(n)"
    load = {**MERGE, "cursor_field": "at", "shape": Shape(start="9.505", end="11.5")}
    depot.load(form(numbers), **load)
    assert depot.query("SELECT id FROM sales.orders ORDER BY id") == [(10,), (11,)]


def test_a_partition_replaces_its_range_and_moves_no_cursor(depot, form):
    depot.load(form(rows((1, day(1), 1), (2, day(2), 2), (3, day(3), 3))), **BY_CURSOR)
    window = Window(day(2), day(3))
    source = form(rows((1, day(1), 9), (4, day(2), 4), (5, day(2), 5), (3, day(3), 9)))
    done = depot.load(source, window=window, since=None, **BY_CURSOR)
    assert done.cursor is None
    assert depot.query("SELECT id, v FROM sales.orders ORDER BY id") == [(1, 1), (3, 3), (4, 4), (5, 5)]
    assert depot.load(window=window, since=None, **BY_CURSOR).deleted == 2


def test_a_rewind_deletes_what_lies_after_and_reads_it_again(depot):
    depot.load(rows((1, day(1), 1), (2, day(2), 2), (3, day(3), 3)), **MERGE)
    depot.load(rows((2, day(2), 9)), since=Cursor(day(2), "TIMESTAMP"), rewound=True, **MERGE)
    assert depot.query("SELECT id, v FROM sales.orders ORDER BY id") == [(1, 1), (2, 9)]


def test_files_read_anew_take_the_place_of_their_rows(depot):
    def file(name, *values):
        listed = ", ".join(f"({v})" for v in values)
        return f"SELECT v, '{name}' AS _sqlflow_file FROM (VALUES {listed}) AS t(v)"

    def feed(*batches):
        def run(intake):
            for batch, replaces in batches:
                intake.scan(Sql(batch), provenance=True, replaces=replaces)
            intake.position(Cursor("[]", "JSON"))

        return run

    given = {"row_provenance": True, "own_cursor": True, "incremental": True}
    depot.load(feed=feed((file("a", 1, 2), ()), (file("b", 3), ())), **given)
    done = depot.load(feed=feed((file("a", 9), ("a",)), (file("c", 4), ())), **given)
    assert depot.query("SELECT v FROM sales.orders ORDER BY v") == [(3,), (4,), (9,)]
    assert (done.inserted, done.deleted) == (2, 2)


def test_provenance_is_dropped_where_it_is_not_kept(depot):
    depot.load(
        feed=lambda i: i.scan(Sql("SELECT 1 AS v, 'a' AS _sqlflow_file"), provenance=True), mode="replace"
    )
    assert depot.types() == {"v": "INTEGER"}


def test_an_ordered_read_is_kept_up_to_its_last_checkpoint(depot):
    def feed(intake):
        for n in (1, 2, 3):
            intake.scan(Sql(rows((n, day(n), n))))
            if n < 3:
                intake.checkpoint(Cursor(day(n), "TIMESTAMP"))
        raise ConnectionError

    with pytest.raises(ConnectionError):
        depot.load(feed=feed, ordered=True, **MERGE)
    assert depot.query("SELECT id FROM sales.orders ORDER BY id") == [(1,), (2,)]
    with depot.warehouse.open() as connection:
        marker = commits.newest(connection, KEY)
    assert (marker.cursor.value, marker.complete) == (day(2), False)
    done = depot.load(rows((2, day(2), 2), (3, day(3), 3)), ordered=True, **MERGE)
    assert (done.total_rows, done.marker.complete) == (3, True)


def test_an_ordered_read_that_ends_at_a_checkpoint_keeps_its_cursor(depot):
    def feed(intake):
        intake.scan(Sql(rows((1, day(1), 1))))
        intake.checkpoint(Cursor(day(1), "TIMESTAMP"))

    done = depot.load(feed=feed, ordered=True, **MERGE)
    assert done.marker.complete
    assert done.cursor == Cursor(day(1), "TIMESTAMP")


def test_a_full_refresh_of_an_ordered_stream_keeps_the_old_rows_until_all_new_ones_are_there(depot):
    depot.load(rows((1, day(1), 1), (2, day(2), 2)), ordered=True, **MERGE)

    def feed(intake):
        intake.scan(Sql(rows((1, day(1), 9))))
        intake.checkpoint(Cursor(day(1), "TIMESTAMP"))
        raise ConnectionError

    with pytest.raises(ConnectionError):
        depot.load(feed=feed, ordered=True, since=None, **MERGE)
    assert depot.query("SELECT id, v FROM sales.orders ORDER BY id") == [(1, 1), (2, 2)]


def test_a_table_of_several_writers_is_never_swapped(depot):
    depot.load("SELECT 100 AS id, TIMESTAMP '2026-01-05' AS ts, 1 AS v", mode="append")
    other = KEY.__class__("shop", "dev", "sales", "other", "orders", "orders")
    depot.load(rows((1, day(1), 1)), key=other, sole_writer=False, **MERGE)
    assert depot.query("SELECT id FROM sales.orders ORDER BY id") == [(1,), (100,)]
    depot.load(rows((2, day(2), 1)), key=other, sole_writer=False, **MERGE)
    depot.load(rows((1, day(1), 1), (2, day(2), 1)), key=other, sole_writer=False, since=None, **MERGE)
    assert depot.query("SELECT id FROM sales.orders ORDER BY id") == [(1,), (2,), (100,)]


@pytest.mark.parametrize("since", [None, Cursor(day(1), "TIMESTAMP")], ids=["full", "incremental"])
def test_without_a_key_rows_of_other_writers_are_not_replaced(depot, since):
    shared = {"sole_writer": False, **BY_CURSOR}
    depot.load(rows((1, day(1), 1)), **shared)
    with pytest.raises(LoadRefused, match="primary_key"):
        depot.load(rows((2, day(2), 2)), since=since, **shared)
    assert depot.query("SELECT id FROM sales.orders") == [(1,)]


def test_a_view_in_the_place_of_the_table_is_refused(depot):
    with depot.warehouse.open() as connection:
        connection.execute("CREATE SCHEMA sales; CREATE VIEW sales.orders AS SELECT 1 AS id")
    with pytest.raises(LoadRefused, match="is a view"):
        depot.load(rows((1, day(1), 1)), mode="replace")


def test_odd_names_are_only_names(depot):
    table = TableName('my "odd" schema', "select; --")
    select = 'SELECT 1 AS "key; DROP TABLE x", 2 AS "a\'b"'
    for _ in range(2):
        depot.load(select, table=table, keys=("KEY; drop table X",))
    assert depot.query('FROM "my ""odd"" schema"."select; --"') == [(1, 2)]


def test_values_stay_exact(depot):
    select = (
        "SELECT 'infinity'::TIMESTAMPTZ AS a, '-infinity'::DATE AS b, 170141183460469231731687303715884105727 AS c,"
        " 12345678901234567890123456789012345.678::DECIMAL(38,3) AS d, '1970-01-01 00:00:00.123456789'::TIMESTAMP_NS"
        " AS e, 'nan'::DOUBLE AS f, '-0.0'::DOUBLE AS g, '9999-12-31 23:59:59.999999'::TIMESTAMP AS h,"
        " '0044-03-15 (BC)'::DATE AS i, [1, NULL] AS j, {'a': 'x'} AS k, MAP {'a': 1} AS l, ''::VARCHAR AS m,"
        " NULL::VARCHAR AS n, '\\x00\\xFF'::BLOB AS o, 1 AS id, TIMESTAMP '2026-01-01' AS ts"
    )
    for _ in range(2):
        depot.load(select, **MERGE)
        depot.load(select.replace("2026-01-01", "2026-01-02"), **MERGE)
    same = depot.query(
        f"SELECT COLUMNS(*)::VARCHAR FROM (SELECT * EXCLUDE ts FROM sales.orders) EXCEPT"
        f" SELECT COLUMNS(*)::VARCHAR FROM (SELECT * EXCLUDE ts FROM ({select}))"
    )
    assert same == []


def test_long_decimals_in_json_keep_every_digit(depot):
    line = (
        b'{"id": 1, "a": 12345678901234567.89, "b": 0.1, "c": "\\"a\\": 12345678901234567.89",'
        b' "s": {"x": 98765432109876543.21}}\n'
    )
    columns = {
        "id": "BIGINT",
        "a": "DECIMAL(38,2)",
        "b": "DECIMAL(38,20)",
        "c": "VARCHAR",
        "s": "STRUCT(x DECIMAL(38,2))",
    }
    depot.load((line, columns), mode="replace")
    assert depot.query("SELECT a::VARCHAR, b::VARCHAR, c, s.x::VARCHAR FROM sales.orders") == [
        (
            "12345678901234567.89",
            "0.10000000000000000000",
            '"a": 12345678901234567.89',
            "98765432109876543.21",
        )
    ]


def test_json_that_is_no_number_where_one_is_declared_is_refused(depot):
    with pytest.raises(SourceFailed):
        depot.load((b'{"id": 1}\n{"id": "x"}\n', {"id": "BIGINT"}), mode="replace")


def test_a_large_json_record_needs_no_setting(depot):
    line = b'{"id": 1, "a": "' + b"x" * 20_000_000 + b'"}\n'
    depot.load((line, {"id": "BIGINT", "a": "VARCHAR"}), mode="replace")
    assert depot.query("SELECT length(a) FROM sales.orders") == [(20_000_000,)]


def test_several_streams_load_on_threads(depot):
    from concurrent.futures import ThreadPoolExecutor

    def one(number):
        key = KEY.__class__("shop", "dev", "sales", "source", f"s{number}", f"t{number}")
        kind = rows((number, day(1), 1)) if number % 2 else arrow(rows((number, day(1), 1)), depot)
        return depot.load(kind, key=key, table=TableName("sales", f"t{number}"), mode="replace").total_rows

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(one, range(16))) == [1] * 16


@pytest.mark.parametrize(
    ("cursor", "lookback", "back"),
    [
        (Cursor("2026-03-01 00:00:00", "TIMESTAMP"), "1 day", "2026-02-28 00:00:00"),
        (
            Cursor("2026-03-01 00:00:00.5+00", "TIMESTAMP WITH TIME ZONE"),
            "3600 seconds",
            "2026-02-28 23:00:00.5+00",
        ),
        (Cursor("2026-03-01", "DATE"), "12 hours", "2026-02-28"),
        (Cursor("100", "BIGINT"), "30 seconds", "70"),
        (Cursor("5", "UBIGINT"), "30", "0"),
        (Cursor("08:15:00", "TIME"), "90 minutes", "06:45:00"),
        (Cursor("08:15:00", "TIME"), "9 hours", "00:00:00"),
        (Cursor("08:15:00", "TIME"), "1 day", "00:00:00"),
        (Cursor("1.50", "DECIMAL(10,2)"), "1", "0.50"),
    ],
)
def test_a_lookback_is_taken_off_in_the_cursors_own_type(cursor, lookback, back):
    assert behind(cursor, lookback) == Cursor(back, cursor.type)


@pytest.mark.parametrize(("kind", "lookback"), [("VARCHAR", "1 day"), ("BIGINT", "1 day"), ("DATE", "soon")])
def test_a_lookback_that_makes_no_sense_is_named(kind, lookback):
    with pytest.raises(BadOption, match="lookback_window"):
        behind(Cursor("2026", kind), lookback)


def test_a_cursor_with_a_zone_is_kept_in_utc(tmp_path):
    depot = Depot(tmp_path, {"timezone": "Europe/Berlin"})
    for hour in ("02:30:00+02", "02:30:00+01"):
        done = depot.load(f"SELECT 1 AS id, TIMESTAMPTZ '2025-10-26 {hour}' AS ts", **MERGE)
    assert done.cursor.value == "2025-10-26 01:30:00+00"
    assert done.updated == 1


def test_attached_databases_are_read_in_one_transaction_with_the_swap(depot, tmp_path):
    import sqlite3

    with sqlite3.connect(tmp_path / "s.db") as far:
        far.execute("CREATE TABLE t (a INTEGER)")
        far.execute("INSERT INTO t VALUES (7)")
    far.close()
    attach = [Attach(str(tmp_path / "s.db"), "far", "sqlite")]

    def feed(intake):
        for _ in range(2):
            intake.scan(Sql("SELECT * FROM far.t"), extensions=["sqlite"], attach=attach)

    for mode in ("replace", "append"):
        depot.load(feed=feed, mode=mode)
    assert depot.query() == [(7,)] * 4


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (["8", "9"], "'9' comes after '10'"),
        (["99", "1000"], "'99' comes after '1000'"),
        (["1.9", "1.10"], '{"u": "DECIMAL(38, 9)"}'),
        (["-1", "-2"], "compared by their letters"),
        (["2024-01-02T10:00:00Z", "2024-01-02T11:00:00+05:00", "2024-01-02 12:00:00Z"], "'2024-01-02T11:00:00+05:00' comes after"),
        (["02 Jan 2024", "2024-01-02T10:00:00Z"], None),
        (["2024", "2025"], None),
        (["20240131", "20240201"], None),
        (["1717171717", "1717171718"], None),
        (["00007", "00010"], None),
        (["2024-01-02T10:00:00Z", "2024-01-02T11:00:00Z"], None),
        (["a9", "a10"], None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_cursor_whose_letters_are_in_another_order_than_what_it_says_is_refused(bench, values, says):
    rows = [{"id": n, "u": value} for n, value in enumerate(values)]
    bench.write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    bench.pipeline(
        'SOURCE s TYPE JSONL PARAMS {"path": "a.jsonl", "sync_mode": "incremental", "cursor_field": "u", '
        '"primary_key": "id", "types": {"u": "VARCHAR"}};\nLOAD t FROM s;'
    )
    (outcome,) = bench.run().values()
    if says is None:
        assert outcome.error is None
    else:
        assert isinstance(outcome.error, LoadRefused), outcome
        assert says in str(outcome.error)
