"""The parameters of every source: what is wanted of a stream is what is stored, whatever its values are."""

import pytest

from sqlflow_dagster.connectors.base import Stream
from sqlflow_dagster.connectors.options import SourceOptions, parse
from sqlflow_dagster.errors import BadOption, LoadRefused, PipelineError, SQLFlowError
from sqlflow_dagster.sql import Sql
from sqlflow_dagster.warehouse.selection import Wanted
from sqlflow_dagster.warehouse.shape import Shape

PAGE = """SELECT * FROM (VALUES
  (1, 'a', 10.5, DATE '2026-01-01', TIMESTAMP '2026-01-01 10:00:00', true),
  (2, 'B', NULL, DATE '2026-01-02', TIMESTAMP '2026-01-02 00:00:00', false),
  (3, NULL, 30.0, NULL, NULL, NULL),
  (4, 'O''Brien', -4, DATE '2026-01-04', TIMESTAMP '2026-01-04 23:59:59.999999', true),
  (5, '5', 5, DATE '2026-01-05', TIMESTAMP '2026-01-05 00:00:00', false)
) AS t(id, name, amount, day, seen, ok)"""


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ({"id": 3}, [3]),
        ({"id": "3"}, [3]),
        ({"id": "= 3"}, [3]),
        ({"id": {"=": "3"}}, [3]),
        ({"id": "!= 3"}, [1, 2, 4, 5]),
        ({"id": "<> 3"}, [1, 2, 4, 5]),
        ({"id": ">= 3"}, [3, 4, 5]),
        ({"id": ">3"}, [4, 5]),
        ({"id": "< 3"}, [1, 2]),
        ({"id": "<= 3"}, [1, 2, 3]),
        ({"id": {">": 1, "<": 4}}, [2, 3]),
        ({"id": {"between": [2, 4]}}, [2, 3, 4]),
        ({"id": [1, 5, 9]}, [1, 5]),
        ({"id": ["1", "5"]}, [1, 5]),
        ({"id": {"not in": [1, 2, 3]}}, [4, 5]),
        ({"name": "a"}, [1]),
        ({"name": "A"}, []),
        ({"name": "O'Brien"}, [4]),
        ({"name": 5}, [5]),
        ({"name": [5, "a"]}, [1, 5]),
        ({"name": ["a", "O'Brien"]}, [1, 4]),
        ({"name": None}, [3]),
        ({"name": "= null"}, [3]),
        ({"name": "!= null"}, [1, 2, 4, 5]),
        ({"name": {"!=": None}}, [1, 2, 4, 5]),
        ({"name": "> 'O'"}, [1, 4]),
        ({"name": ["a", None]}, [1, 3]),
        ({"name": {"not in": ["a", None]}}, [2, 4, 5]),
        ({"amount": ">= 10.5"}, [1, 3]),
        ({"amount": 30}, [3]),
        ({"amount": "-4"}, [4]),
        ({"amount": {"<": 10}}, [4, 5]),
        ({"day": "2026-01-02"}, [2]),
        ({"day": "> 2026-01-02"}, [4, 5]),
        ({"day": ["2026-01-01", "2026-01-05"]}, [1, 5]),
        ({"seen": ">= 2026-01-02"}, [2, 4, 5]),
        ({"seen": {">=": "2026-01-02T00:00:00", "<": "2026-01-05"}}, [2, 4]),
        ({"ok": True}, [1, 4]),
        ({"ok": False}, [2, 5]),
        ({"ok": "true"}, [1, 4]),
        ({"ok": None}, [3]),
        ({"ID": 3}, [3]),
        ({"id": "> 1", "name": "!= null", "ok": True}, [4]),
        ({"name": "x' OR '1'='1"}, []),
        ({"name": "a'; DROP TABLE t; --"}, []),
        ({"name": "= x' OR 1=1 --"}, []),
        ({"name": ["x') OR (1=1"]}, []),
    ],
    ids=str,
)
def test_filters_choose_rows(calculator, filters, ids):
    shape = Shape(conditions=parse(SourceOptions, {"filters": filters})[0].filters)
    query = Wanted("s", shape, None, None, (), None).select(calculator, Sql(f"({PAGE})"), ())
    assert [row[0] for row in calculator.execute(query.text, query.values).fetchall()] == ids


def test_filters_choose_rows_of_every_kind_of_batch(each_kind):
    each_kind.ok(PAGE, PAGE.replace("(1,", "(11,"), filters={"name": ["a", None], "id": "< 3"})
    assert [row[0] for row in each_kind.rows()] == [1]


@pytest.mark.parametrize(
    ("filters", "what"),
    [
        ({"id": "three"}, "'three'"),
        ({"day": "> soon"}, "'soon'"),
        ({"name": ">= 3"}, "3 is a number, and would be compared letter by letter"),
        ({"nmae": "a"}, "'nmae'"),
        ({'id" OR 1=1 --': 1}, "OR"),
    ],
    ids=["no-number", "no-date", "number-and-text", "no-column", "injected-column"],
)
def test_a_filter_that_cannot_be_compared_is_refused_and_the_table_stays(each_kind, filters, what):
    each_kind.ok(PAGE)
    error = each_kind.load(PAGE, filters=filters).error
    assert isinstance(error, LoadRefused)
    assert what in str(error)
    assert len(each_kind.rows()) == 5


def test_columns_are_chosen_and_left_out_whatever_their_case(each_kind):
    each_kind.ok(PAGE, columns=["ID", "name", "day"], exclude_columns="DAY")
    assert list(each_kind.types()) == ["id", "name"]


@pytest.mark.parametrize("option", ["columns", "exclude_columns", "mask"])
def test_a_column_that_the_source_has_not_is_refused_with_the_nearest_name(each_kind, option):
    each_kind.ok(PAGE)
    error = each_kind.load(PAGE, **{option: ["nmae"]}).error
    assert isinstance(error, LoadRefused)
    assert "'nmae'" in str(error)
    assert "'name'" in str(error)
    assert len(each_kind.rows()) == 5


@pytest.mark.parametrize("option", ["exclude_columns", "mask"])
def test_a_column_may_be_missing_in_some_pages(each_kind, option):
    each_kind.ok("SELECT 1 AS id, 'secret' AS card", "SELECT 2 AS id", **{option: ["card"]})
    found = [row[0] for row in each_kind.rows()]
    assert found == [1, 2]
    assert "secret" not in str(each_kind.rows())


def test_one_of_several_streams_may_lack_what_is_masked_or_left_out(hostile):
    hostile.far.streams = [Stream("t"), Stream("other")]
    hostile.ok("SELECT 1 AS id", exclude_columns=["card"], mask=["email"])
    assert hostile.rows() == [(1,)]


def test_a_mask_is_the_same_for_the_same_value_and_tells_nothing(each_kind):
    page = "SELECT * FROM (VALUES (1, 'Ann', '4111'), (2, 'Ann', NULL), (3, NULL, '')) AS t(id, name, card)"
    given = {"mask": {"NAME": "hash", "card": "redact"}, "primary_key": "id"}
    each_kind.ok(page, mode="MODE APPEND", **given)
    each_kind.ok(page, mode="MODE APPEND", **given)
    rows = each_kind.rows("SELECT id, name, card FROM p.t ORDER BY id")
    assert len({row[1] for row in rows if row[1]}) == 1
    assert [row[2] for row in rows] == ["***", "***", None, None, "***", "***"]
    assert "Ann" not in str(rows)
    stored = (each_kind.bench.root / "data/warehouse.duckdb").read_bytes()
    assert b"4111" not in stored
    assert b"Ann" not in stored


@pytest.mark.parametrize(
    ("bounds", "ids"),
    [
        ({"start_date": "2026-01-02"}, [2, 4, 5]),
        ({"end_date": "2026-01-04"}, [1, 2]),
        ({"start_date": "2026-01-02", "end_date": "2026-01-05"}, [2, 4]),
        ({"start_date": "2026-01-01T10:00:00", "end_date": "2026-01-04T23:59:59.999999"}, [1, 2]),
        ({"start_date": "2026-01-01T10:00:00.000001"}, [2, 4, 5]),
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", ["full_refresh", "incremental"])
def test_dates_bound_the_first_sync_half_open(hostile, bounds, ids, mode):
    page = PAGE + " WHERE seen IS NOT NULL"
    hostile.ok(page, sync_mode=mode, cursor_field="seen", **bounds)
    assert [row[0] for row in hostile.rows()] == ids


@pytest.mark.parametrize(
    ("bounds", "ids"),
    [
        ({"start_date": "2026-01-02T12:00:00"}, [4, 5]),
        ({"end_date": "2026-01-04T00:00:01"}, [1, 2, 4]),
        ({"end_date": "2026-01-04T00:00:00"}, [1, 2]),
    ],
    ids=str,
)
def test_a_time_bounds_a_column_of_dates_by_its_midnights(hostile, bounds, ids):
    hostile.ok(PAGE + " WHERE day IS NOT NULL", cursor_field="day", **bounds)
    assert [row[0] for row in hostile.rows()] == ids


def test_numbers_bound_a_column_of_numbers(hostile):
    hostile.ok(PAGE, cursor_field="id", start_date="2", end_date="4")
    assert [row[0] for row in hostile.rows()] == [2, 3]
    hostile.ok(PAGE, cursor_field="id", start_date="1.5", end_date="4.4")
    assert [row[0] for row in hostile.rows()] == [2, 3, 4]


def test_later_syncs_go_on_from_the_cursor_up_to_the_end(hostile):
    given = {
        "sync_mode": "incremental",
        "cursor_field": "seen",
        "primary_key": "id",
        "start_date": "2026-01-02",
    }
    page = PAGE + " WHERE seen IS NOT NULL"
    hostile.ok(page, end_date="2026-01-04", **given)
    outcome = hostile.ok(page, end_date="2026-01-05", **given)
    assert [row[0] for row in hostile.rows()] == [2, 4]
    assert outcome.cursor_before.value == "2026-01-02 00:00:00"


@pytest.mark.parametrize("bound", ["start_date", "end_date"])
def test_bounds_without_a_cursor_are_refused(hostile, bound):
    with pytest.raises(PipelineError, match=f"{bound}: .*cursor_field"):
        hostile.load(PAGE, **{bound: "2026-01-01"})


@pytest.mark.parametrize(
    "key", [{}, {"primary_key": "id"}, {"primary_key": [["data", "key"]]}], ids=["none", "column", "nested"]
)
def test_the_cursor_may_be_a_field_inside_a_struct(each_kind, key):
    def page(*rows):
        return " UNION ALL ".join(
            f"SELECT {i} AS id, {{'key': {i}, 'at': TIMESTAMP '2026-01-0{day}', 'v': {v}}} AS data"
            for i, day, v in rows
        )

    given = {"sync_mode": "incremental", "cursor_field": ["DATA", "at"], **key}
    each_kind.ok(page((1, 1, 1), (2, 2, 2)), **given)
    outcome = each_kind.ok(page((1, 1, 9), (2, 2, 3), (3, 2, 3)), page((4, 4, 4)), **given)
    assert outcome.rows == 3
    assert each_kind.rows("SELECT id, data.v FROM p.t ORDER BY id") == [(1, 1), (2, 3), (3, 3), (4, 4)]
    assert outcome.cursor_after.value == "2026-01-04 00:00:00"


@pytest.mark.parametrize("key", ["id, name", ["id", "name"], [["id"], ["name"]]], ids=str)
def test_a_key_of_several_columns_in_every_form(each_kind, key):
    page = "SELECT * FROM (VALUES (1, 'a', 1), (1, 'b', 2), (NULL, 'a', 3)) AS t(id, name, v)"
    each_kind.ok(page, primary_key=key, destination_sync_mode="append_dedup")
    each_kind.ok(page.replace(", 3)", ", 4)"), page, primary_key=key, destination_sync_mode="append_dedup")
    assert each_kind.rows("SELECT v FROM p.t ORDER BY v") == [(1,), (2,), (3,)]


@pytest.mark.parametrize(
    ("params", "same"),
    [
        ({"replication_method": "FULL_TABLE"}, {"sync_mode": "full_refresh"}),
        (
            {"replication_method": "INCREMENTAL", "replication_key": "seen"},
            {"sync_mode": "incremental", "cursor_field": "seen"},
        ),
        ({"write_mode": "append"}, {"destination_sync_mode": "append"}),
        ({"key_properties": ["id"]}, {"primary_key": "id"}),
        ({"unique_key": "id"}, {"primary_key": "id"}),
    ],
    ids=str,
)
def test_names_of_other_tools_mean_the_same(params, same):
    assert parse(SourceOptions, params)[0] == parse(SourceOptions, same)[0]


@pytest.mark.parametrize(
    ("destination", "mode"),
    [
        ("overwrite", "MODE APPEND"),
        ("append", "MODE REPLACE"),
        ("append", "MODE UPSERT KEY (id)"),
        ("append_dedup", "MODE APPEND"),
    ],
)
def test_a_mode_that_contradicts_the_source_is_refused(hostile, destination, mode):
    with pytest.raises(PipelineError, match="contradicts"):
        hostile.load(PAGE, mode=mode, destination_sync_mode=destination, primary_key="id")


@pytest.mark.parametrize("lookback", ["P2D", "2 days", 172800, "48h"])
def test_a_lookback_reads_again_what_lies_behind_the_cursor(hostile, lookback):
    given = {
        "sync_mode": "incremental",
        "cursor_field": "seen",
        "primary_key": "id",
        "lookback_window": lookback,
    }
    page = "SELECT * FROM (VALUES (1, TIMESTAMP '2026-01-01', {0}), (2, TIMESTAMP '2026-01-02', {0}), (3, TIMESTAMP '2026-01-04', {0})) AS t(id, seen, v)"
    hostile.ok(page.format(1), **given)
    outcome = hostile.ok(page.format(2), **given)
    assert hostile.rows("SELECT id, v FROM p.t ORDER BY id") == [(1, 1), (2, 2), (3, 2)]
    assert outcome.cursor_after.value == "2026-01-04 00:00:00"


def test_an_error_of_a_parameter_is_one_of_ours(hostile):
    for params in (
        {"filters": 5},
        {"mask": {"id": "rot13"}},
        {"lookback_window": "soon"},
        {"primary_key": 5},
    ):
        with pytest.raises(PipelineError):
            hostile.load(PAGE, **params)
    assert issubclass(BadOption, SQLFlowError)
