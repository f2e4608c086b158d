"""CREATE TABLE and VIEW: a query's result in its table, by mode, in one transaction."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqlflow_dagster.errors import ProjectError, QueryFailed
from sqlflow_dagster.sql import TableName
from sqlflow_dagster.warehouse.duckdb import Warehouse, WarehouseSettings
from sqlflow_dagster.warehouse.shape import Window
from sqlflow_dagster.warehouse.transform import TransformSpec, transform
from sqlflow_dagster.warehouse.udf import Functions

TABLE = TableName("p", "t")


class Bench:
    """A warehouse with the verbs of these tests; each `run` is a run of its own unless it names one."""

    def __init__(self, root, **given):
        self.root = root
        self.warehouse = Warehouse(WarehouseSettings(root / "w.duckdb", root / "state", **given))
        self.runs = itertools.count(1)

    def spec(self, sql, **changes):
        given = {
            "table": TABLE,
            "view": False,
            "mode": "replace",
            "keys": (),
            "by": None,
            "lookback": None,
            "sql": sql,
            "window": None,
            "start": None,
            "run_id": f"run-{next(self.runs)}",
            "statement": "p.t.1",
            "search_path": ("p", "other"),
            **changes,
        }
        return TransformSpec(**given)

    def run(self, sql, **changes):
        return transform(self.warehouse, self.spec(sql, **changes), Functions(self.root / "python_udfs"))

    def own(self, *statements):
        """Run SQL of ours and return the rows of the last statement."""
        with self.warehouse.open() as connection:
            for statement in statements:
                rows = connection.execute(statement).fetchall()
            return rows

    def rows(self, table="p.t"):
        return self.own(f"FROM {table} ORDER BY ALL")


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


# Replace and views


def test_a_table_is_built_anew_each_time(bench):
    assert bench.run("SELECT 1 AS a").inserted == 1
    done = bench.run("SELECT 'x' AS b UNION ALL SELECT 'y' -- two")
    assert (done.inserted, done.deleted, done.total_rows, done.columns) == (2, 1, 2, {"b": "VARCHAR"})
    assert bench.rows() == [("x",), ("y",)]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 AS a",
        "FROM (VALUES (1)) AS v(a)",
        "VALUES (1)",
        "(SELECT 1)",
        "WITH x AS (SELECT 1 AS a) FROM x",
        "WITH RECURSIVE x AS (SELECT 1 AS a UNION SELECT 1 FROM x) FROM x",
        "SELECT 1 AS a -- a comment; and no newline after it",
        "/* ; */ SELECT 1 AS a /* 'it''s */",
        "SELECT 1 AS a FROM (SELECT ';' AS b)",
        "SELECT $$;$$ IS NULL AS a, 1e6::INT AS b, E'\\'' AS c",
        "PIVOT (SELECT 'k' AS k, 1 AS v) ON k USING sum(v)",
        "WITH p AS (PIVOT (SELECT 'k' AS k, 1 AS v) ON k USING sum(v)) FROM p",
        "UNPIVOT (SELECT 1 AS a) ON a",
        "TABLE p.source",
        "DESCRIBE p.source",
        "SUMMARIZE p.source",
    ],
)
def test_any_kind_of_query_makes_a_table(bench, sql):
    bench.own("CREATE SCHEMA p", "CREATE TABLE p.source AS SELECT 1 AS a")
    assert bench.run(sql).total_rows == 1


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1; DROP TABLE p.old",
        "SELECT 1) ; DROP TABLE p.old; --",
        "SELECT 1 WITH NO DATA",
        "DROP TABLE p.old",
        "INSERT INTO p.old VALUES (2)",
        "DELETE FROM p.old",
        "COPY p.old TO '/tmp/x.csv'",
        "SET memory_limit = '1GB'",
        "EXPLAIN SELECT 1",
        "ATTACH 'x.duckdb'",
        "BEGIN",
        "",
        "-- nothing",
        "SELECT 1 /* open",
        "SELECT 'open",
        "PIVOT p.old ON a; PIVOT p.old ON a",
        "SELECT * FROM _sqlflow.statements",
        'SELECT (SELECT max(run_id) FROM "_SQLFLOW"."statements")',
        "SELECT * FROM w._sqlflow.statements",
        "SUMMARIZE _sqlflow.statements",
        "PIVOT _sqlflow.statements ON run_id",
        "FROM query('FROM _sqlflow.statements')",
        "FROM query_table('p.old')",
    ],
)
def test_only_one_query_that_reads_what_is_the_users_is_run(bench, sql):
    bench.own("CREATE SCHEMA p", "CREATE TABLE p.old AS SELECT 1 AS a")
    bench.run("SELECT 1 AS a", mode="append")
    with pytest.raises((ProjectError, QueryFailed)):
        bench.run(sql)
    assert bench.rows("p.old") == [(1,)]
    assert bench.rows() == [(1,)]


def test_the_table_may_read_itself(bench):
    bench.run("SELECT 1 AS a")
    bench.run("SELECT a + 1 AS a FROM t")
    assert bench.rows() == [(2,)]


@pytest.mark.parametrize("kinds", [(True, False), (False, True), (True, True)], ids=str)
def test_a_table_and_a_view_give_way_to_each_other(bench, kinds):
    for number, view in enumerate(kinds):
        done = bench.run(f"SELECT {number} AS a", view=view)
        assert done.total_rows == (None if view else 1)
    assert bench.rows() == [(1,)]


def test_a_schema_may_be_called_like_the_database_file(bench):
    for view in (False, True):
        given = {"table": TableName("w", "t"), "search_path": ("w",)}
        bench.run("SELECT 1 AS a", **given)
        bench.run("SELECT a FROM t", **{**given, "table": TableName("w", "u"), "view": view})
        assert bench.rows("w.u") == [(1,)]


def test_a_table_that_was_a_view_may_read_the_view(bench):
    bench.run("SELECT 1 AS a", view=True)
    bench.run("SELECT a + 1 AS a FROM p.t")
    assert bench.rows() == [(2,)]


@pytest.mark.parametrize("mode", ["append", "upsert", "incremental"])
def test_a_view_gives_way_to_a_table_of_any_mode(bench, mode):
    bench.run("SELECT 1 AS a", view=True)
    bench.run("SELECT a + 1 AS a FROM p.t", mode=mode, keys=("a",), by="a")
    assert bench.rows() == [(2,)]


@pytest.mark.parametrize(
    ("mode", "view"), [("replace", True), ("replace", False), ("append", False), ("upsert", False)], ids=str
)
def test_a_view_whose_tables_have_changed_can_be_made_anew(bench, mode, view):
    bench.own("CREATE SCHEMA p", "CREATE TABLE p.s AS SELECT 1 AS a")
    bench.run("SELECT a FROM p.s", view=True)
    bench.own("CREATE OR REPLACE TABLE p.s AS SELECT 2 AS b")
    with pytest.raises(QueryFailed, match='p.u: .*column "a" not found'):
        bench.run("FROM p.t", table=TableName("p", "u"))
    bench.run("SELECT b FROM p.s", view=view, mode=mode, keys=("b",))
    assert bench.rows() == [(2,)]


def test_what_depends_on_a_table_outlives_it(bench):
    bench.run("SELECT 1 AS a, 2 AS b")
    bench.own("CREATE VIEW p.v AS SELECT a FROM p.t", "CREATE UNIQUE INDEX i ON p.t (a)")
    bench.run("SELECT 5 AS a, 'new' AS c")
    assert bench.rows("p.v") == [(5,)]
    with pytest.raises(duckdb.ConstraintException):
        bench.own("INSERT INTO p.t VALUES (5, 'again')")


def test_a_view_means_the_same_tables_to_every_reader(bench):
    bench.own(
        "CREATE SCHEMA p",
        "CREATE SCHEMA other",
        "CREATE TABLE other.far AS SELECT 1 AS a",
        'CREATE TABLE p."Near by" AS SELECT 2 AS b',
        "CREATE TABLE p.x AS SELECT 3 AS c",
    )
    bench.run(
        "WITH x AS (SELECT 10 AS c) SELECT far.a, n.b, x.c, 'é' AS é, y.c AS d FROM far, \"near BY\" AS n, x, p.x AS y",
        view=True,
    )
    bench.own("CREATE TABLE main.far AS SELECT 99 AS a")
    assert bench.rows() == [(1, 2, 10, "é", 3)]


@pytest.mark.parametrize("mode", ["append", "upsert", "incremental"])
def test_a_view_has_no_mode(bench, mode):
    with pytest.raises(ProjectError, match="VIEW"):
        bench.run("SELECT 1 AS a", view=True, mode=mode)


def test_a_view_cannot_call_python(bench):
    (bench.root / "python_udfs").mkdir()
    (bench.root / "python_udfs" / "m.py").write_text("def f(a: int) -> int: return a")
    with pytest.raises(ProjectError, match="PYTHON_FUNC"):
        bench.run('SELECT PYTHON_FUNC("m.f", 1)', view=True)


# Errors


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT 1 AS a,\n  nowhere.b\nFROM p.source", ["LINE 2:   nowhere.b"]),
        ("SELECT *\nFROM p.source\n-- é\nJOIN p.sourc ON true", ["LINE 4:", "Did you mean", "source"]),
        ("SELECT 'x'::INTEGER", ["LINE 1: SELECT 'x'::INTEGER", "TRY_CAST"]),
        ("SELECT a::DATE FROM (VALUES ('soon')) AS v(a)", ["soon", "TRY_CAST"]),
        ("SELECT\n\n1 + FROM FROM", ["LINE 3:"]),
        ("FROM read_csv('/etc/passwd')", ["allowed_directories"]),
        ("SELECT error('my\nLINE 7: own')", ["own"]),
        ("SELECT $1", ["parameter"]),
    ],
)
@pytest.mark.parametrize("mode", ["replace", "append"])
def test_an_error_shows_the_line_of_the_query(bench, sql, words, mode):
    bench.run("SELECT 1 AS a")
    bench.own("CREATE TABLE p.source AS SELECT 1 AS a")
    with pytest.raises(QueryFailed) as failure:
        bench.run(sql, mode=mode)
    assert all(word in str(failure.value) for word in words), str(failure.value)
    assert bench.rows() == [(1,)]


def test_a_python_functions_traceback_is_the_error(bench):
    (bench.root / "python_udfs").mkdir()
    (bench.root / "python_udfs" / "m.py").write_text("def f(a: int) -> int:\n    raise ValueError('why')")
    with pytest.raises(QueryFailed, match="line 2, in f\n.*\nValueError: why"):
        bench.run('SELECT PYTHON_FUNC("m.f", 1) AS a')


# Append


def test_append_matches_by_name_and_adds_columns(bench):
    bench.run("SELECT 1 AS a, 2 AS b", mode="append")
    done = bench.run("SELECT 'c' AS c, 3 AS A", mode="append")
    assert done.schema_changes == ("column c was added as VARCHAR",)
    assert (done.inserted, done.deleted, done.total_rows) == (1, 0, 2)
    assert bench.rows() == [(1, 2, None), (3, None, "c")]


@pytest.mark.parametrize(
    ("first", "second", "expected"), [("1", "2.5", "2.5"), ("1::SMALLINT", "100000", "100000")]
)
def test_append_widens_and_never_rounds(bench, first, second, expected):
    bench.run(f"SELECT {first} AS a", mode="append")
    bench.run(f"SELECT {second} AS a", mode="append")
    assert bench.own("SELECT max(a)::VARCHAR FROM p.t") == [(expected,)]


def test_values_that_fit_no_common_type_are_refused(bench):
    bench.run("SELECT 1 AS a", mode="append")
    with pytest.raises(QueryFailed, match="CAST"):
        bench.run("SELECT 'x' AS a", mode="append")
    assert bench.rows() == [(1,)]


def test_a_strict_policy_refuses_new_columns(bench):
    bench.run("SELECT 1 AS a", mode="append", schema_policy="strict")
    with pytest.raises(QueryFailed, match="strict"):
        bench.run("SELECT 1 AS a, 2 AS b", mode="append", schema_policy="strict")
    assert bench.rows() == [(1,)]


@pytest.mark.parametrize(
    ("change", "skipped"),
    [
        ({}, True),
        ({"run_id": "two"}, False),
        ({"partition": "2024-01-02"}, False),
        ({"statement": "p.t.2"}, False),
    ],
    ids=["retry", "run", "partition", "statement"],
)
def test_only_a_retry_of_the_same_append_is_skipped(bench, change, skipped):
    same = {"mode": "append", "run_id": "one", "partition": "2024-01-01"}
    bench.run("SELECT 1 AS a", **same)
    done = bench.run("SELECT 1 AS a", **{**same, **change})
    assert done.skipped == skipped
    assert done.total_rows == len(bench.rows()) == (1 if skipped else 2)


def test_a_failed_append_leaves_no_marker(bench):
    with pytest.raises(QueryFailed):
        bench.run("SELECT 'x'::INT AS a", mode="append", run_id="one")
    assert not bench.run("SELECT 1 AS a", mode="append", run_id="one").skipped


# Upsert


def test_upsert_replaces_by_key_and_null_keys_match(bench):
    keys = {"mode": "upsert", "keys": ("A", "b")}
    bench.run("FROM (VALUES (1, NULL, 'x'), (1, 2, 'y'), (NULL, NULL, 'z')) AS v(a, b, c)", **keys)
    done = bench.run(
        "FROM (VALUES ('new', NULL, 1), ('newer', NULL, NULL), ('more', 9, 9)) AS v(c, b, a)", **keys
    )
    assert (done.inserted, done.deleted, done.total_rows) == (3, 2, 4)
    assert Counter(bench.rows()) == Counter(
        [(1, None, "new"), (1, 2, "y"), (9, 9, "more"), (None, None, "newer")]
    )


def test_upsert_finds_keys_of_other_types_among_keys_of_text(bench):
    bench.run("SELECT 'A' AS id, 1 AS v UNION ALL SELECT '7', 2", mode="upsert", keys=("id",))
    bench.run("SELECT 7 AS id, 3 AS v", mode="upsert", keys=("id",))
    assert bench.own("FROM p.t ORDER BY id") == [("7", 3), ("A", 1)]


def test_upsert_compares_keys_as_the_table_has_them(bench):
    bench.run(
        "SELECT unnest([9007199254740992, 9007199254740993]) AS id, 1 AS v", mode="upsert", keys=("id",)
    )
    bench.run("SELECT 9007199254740992::DOUBLE AS id, 2 AS v", mode="upsert", keys=("id",))
    assert bench.rows() == [(9007199254740992, 2), (9007199254740993, 1)]


@pytest.mark.parametrize(
    ("rows", "example", "kept"),
    [
        ("(1, 'x', 0), (1, 'x', 1)", "a = 1, b = x 2 times", [0, 1]),
        ("(NULL, 'x', 0), (NULL, 'x', 1)", "a = NULL, b = x", [5, 0, 1]),
    ],
    ids=["value", "null"],
)
def test_all_rows_of_a_key_take_its_place_and_a_notice_names_it(bench, rows, example, kept):
    bench.run("SELECT 1 AS a, 'x' AS b, 5 AS c", mode="upsert", keys=("a", "b"))
    for _ in range(2):
        done = bench.run(f"FROM (VALUES {rows}) AS v(a, b, c)", mode="upsert", keys=("a", "b"))
        assert any(example in notice for notice in done.notices)
    assert [c for *_, c in bench.rows()] == kept


def test_a_key_that_the_query_lacks_is_named(bench):
    with pytest.raises(QueryFailed, match="no column id, .*it gives a"):
        bench.run("SELECT 1 AS a", mode="upsert", keys=("id",))


# Incremental

DAYS = "FROM (VALUES (DATE '2024-01-01', 1), (DATE '2024-01-02', 2), (DATE '2024-01-03', 3)) AS v(d, n)"


def incremental(bench, sql, **changes):
    return bench.run(sql, **{"mode": "incremental", "by": "d", **changes})


def test_a_first_run_takes_all_or_begins_at_the_start(bench):
    assert incremental(bench, DAYS).inserted == 3
    assert incremental(bench, DAYS, table=TableName("p", "u"), start="2024-01-02").inserted == 2


def test_later_runs_replace_only_the_window(bench):
    incremental(bench, DAYS)
    done = incremental(bench, "SELECT d, n * 10 AS n FROM (" + DAYS + ")", lookback="1 DAY")
    assert (done.inserted, done.deleted, done.total_rows) == (2, 2, 3)
    assert [row[1] for row in bench.rows()] == [1, 20, 30]


def test_a_lookback_never_goes_before_the_start(bench):
    incremental(bench, DAYS, start="2024-01-03")
    incremental(bench, DAYS, start="2024-01-03", lookback="7 DAYS")
    assert [row[1] for row in bench.rows()] == [3]


def test_a_partition_replaces_its_own_days(bench):
    incremental(bench, DAYS)
    window = Window("2024-01-02T00:00:00+00:00", "2024-01-03T00:00:00+00:00")
    done = incremental(bench, "SELECT d, -n AS n FROM (" + DAYS + ")", window=window, full_refresh=True)
    assert (done.inserted, done.deleted) == (1, 1)
    assert [row[1] for row in bench.rows()] == [1, -2, 3]


@pytest.mark.parametrize(
    ("cast", "inside"),
    [
        ("{0}::TIMESTAMP", ["2024-01-02 00:00:00", "2024-01-02 23:59:59.999999"]),
        ("{0}::TIMESTAMPTZ", ["2024-01-01 23:00:00", "2024-01-02 22:59:59.999999"]),
        ("{0}::TIMESTAMP_NS", ["2024-01-02 00:00:00", "2024-01-02 23:59:59.999999"]),
        ("{0}::TIMESTAMP::DATE", ["2024-01-02 00:00:00", "2024-01-02 23:59:59.999999"]),
    ],
    ids=["naive", "zoned", "nanoseconds", "date"],
)
def test_a_partition_of_a_time_zone_goes_by_clock_time_where_the_column_has_none(bench, cast, inside):
    window = Window("2024-01-02T00:00:00+01:00", "2024-01-03T00:00:00+01:00")
    outside = ["2024-01-01 22:59:59.999999", "2024-01-03 00:00:00"]
    for at, expected in [*((i, 1) for i in inside), *((o, 0) for o in outside)]:
        sql = f"SELECT {cast.format(repr(at))} AS d WHERE d >= @start_dt AND d < @end_dt AND d BETWEEN @start_date AND @end_date"
        assert (
            incremental(
                bench, sql, window=window, table=TableName("p", f"t_{abs(hash((cast, at)))}")
            ).inserted
            == expected
        )


def test_a_day_is_in_the_partition_of_its_midnight(bench):
    for hour in range(23):
        window = Window(f"2024-01-02T{hour:02}:00:00+00:00", f"2024-01-02T{hour + 1:02}:00:00+00:00")
        assert incremental(bench, DAYS, window=window).inserted == (hour == 0)
    assert [row[1] for row in bench.rows()] == [2]


def test_null_in_the_column_is_an_error_and_nothing_is_stored(bench):
    incremental(bench, DAYS)
    with pytest.raises(QueryFailed, match="2 rows have NULL in 'd'"):
        incremental(bench, "FROM (VALUES (DATE '2030-01-01'), (NULL), (NULL)) AS v(d)")
    assert len(bench.rows()) == 3


@pytest.mark.parametrize(
    ("sql", "change", "message"),
    [
        ("SELECT 1 AS n", {}, "no such column; it gives n"),
        ("SELECT 'x' AS d", {"lookback": "1 DAY"}, "LOOKBACK 1 DAY.*VARCHAR"),
        ("SELECT 5 AS d", {"window": Window("2024-01-01", "2024-01-02")}, "date or time"),
        ("SELECT 5 AS d WHERE now() > @start_dt", {}, "macros.*INTEGER"),
    ],
    ids=["absent", "text", "partition", "macro"],
)
def test_a_column_that_cannot_do_it_is_named(bench, sql, change, message):
    def run_twice():
        for _ in range(2):
            incremental(bench, sql, **change)

    with pytest.raises(QueryFailed, match=message):
        run_twice()


def test_numbers_have_windows_too(bench):
    rows = "SELECT range AS d, {0} AS n FROM range(10)"
    incremental(bench, rows.format(1))
    done = incremental(bench, rows.format(2), lookback="3")
    assert (done.deleted, done.inserted) == (4, 4)
    assert sum(row[1] for row in bench.rows()) == 14


@pytest.mark.parametrize("kind", ["UBIGINT", "UTINYINT", "TINYINT"])
def test_a_lookback_beyond_the_least_number_takes_all(bench, kind):
    incremental(bench, f"SELECT 5::{kind} AS d, 1 AS n", lookback="200")
    done = incremental(bench, f"SELECT unnest([0, 5])::{kind} AS d, 2 AS n", lookback="200")
    assert (done.deleted, bench.rows()) == (1, [(0, 2), (5, 2)])


@pytest.mark.parametrize(("lookback", "deleted"), [("30 minutes", 1), ("2 hours", 2), ("1 day", 2)])
def test_a_lookback_beyond_midnight_takes_all(bench, lookback, deleted):
    rows = "SELECT unnest([TIME '00:15', TIME '01:00']) AS d, {0} AS n"
    incremental(bench, rows.format(1), lookback=lookback)
    done = incremental(bench, rows.format(2), lookback=lookback)
    assert (done.deleted, done.inserted) == (deleted, deleted)


def test_infinite_values_do_not_hold_the_window(bench):
    incremental(bench, "FROM (VALUES (DATE 'infinity', 0), (DATE '2024-01-01', 1)) AS v(d, n)")
    done = incremental(
        bench, "FROM (VALUES (DATE 'infinity', 0), (DATE '2024-01-01', 9), (DATE '2024-01-02', 2)) AS v(d, n)"
    )
    assert (done.deleted, done.inserted) == (2, 3)


def test_a_window_that_begins_in_the_future_is_told(bench):
    sql = "SELECT DATE '2999-01-01' AS d"
    incremental(bench, sql)
    assert "in the future" in incremental(bench, sql).notices[0]


def test_a_full_refresh_takes_all_again(bench):
    incremental(bench, DAYS)
    done = incremental(bench, "SELECT d, n::VARCHAR AS m FROM (" + DAYS + ") LIMIT 2", full_refresh=True)
    assert (done.inserted, done.deleted, done.total_rows, list(done.columns)) == (2, 3, 2, ["d", "m"])


MACROS = "SELECT typeof(@start_date) || ' ' || @START_DATE || ', ' || @end_date || ', ' || typeof(@start_dt) || ' ' || @start_dt"


@pytest.mark.parametrize(
    ("kind", "window", "expected"),
    [
        ("DATE", None, "DATE 0001-01-01, 9999-12-31, TIMESTAMP 0001-01-01 00:00:00"),
        ("TIMESTAMPTZ", None, "DATE 0001-01-01, 9999-12-31, TIMESTAMP WITH TIME ZONE 0001-01-01 00:00:00+00"),
        ("TIMESTAMP_NS", None, "DATE 1677-09-22, 2262-04-11, TIMESTAMP_NS 1677-09-22 00:00:00"),
        (
            "TIMESTAMP",
            Window("2024-01-02T06:00:00", "2024-01-02T12:00:00"),
            "DATE 2024-01-02, 2024-01-03, TIMESTAMP 2024-01-02 06:00:00",
        ),
        (
            "TIMESTAMP",
            Window("2024-01-02", "2024-01-03"),
            "DATE 2024-01-02, 2024-01-03, TIMESTAMP 2024-01-02 00:00:00",
        ),
    ],
    ids=["open", "zoned", "nanoseconds", "hours", "day"],
)
def test_macros_are_typed_literals_that_hold_the_whole_window(bench, kind, window, expected):
    at = "2024-01-02 07:00:00"
    incremental(bench, f"{MACROS} AS m, '@start_date' AS s, {kind} '{at}' AS d -- @end_dt", window=window)
    assert bench.own("SELECT m, s FROM p.t") == [(expected, "@start_date")]


START = datetime(2024, 1, 1)
moments = st.integers(0, 30).map(lambda hours: START + timedelta(hours=hours * 5))
sources = st.lists(st.tuples(moments, st.integers(0, 3)), max_size=12)
BODIES = {
    "plain": "SELECT * FROM source",
    "dates": "SELECT * FROM source WHERE d::DATE >= @start_date AND d < @end_date",
    "times": "SELECT * FROM source WHERE d BETWEEN @start_dt AND @end_dt",
}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["TIMESTAMP", "DATE", "TIMESTAMPTZ", "TIMESTAMP_NS"]),
    body=st.sampled_from(sorted(BODIES)),
    lookback=st.none() | st.integers(0, 60),
    runs=st.lists(st.tuples(sources, st.none() | moments), min_size=1, max_size=4),
)
def test_incremental_is_what_a_list_in_python_would_be(tmp_path_factory, kind, body, lookback, runs):
    """After each run: the old rows before the window, and the query's rows inside it."""
    bench = Bench(tmp_path_factory.mktemp("bench"))
    bench.own("CREATE SCHEMA p", f"CREATE TABLE p.source (d {kind}, n INTEGER)")
    stored: list[tuple[datetime, int]] = []

    def cut(moment):
        return moment.replace(hour=0) if kind == "DATE" else moment

    for source, partition in runs:
        result = [(cut(at), n) for at, n in source]
        rows = ", ".join(f"('{at}', {n})" for at, n in result) or "(NULL, NULL)"
        bench.own(
            "DELETE FROM p.source",
            f"INSERT INTO p.source VALUES {rows}",
            "DELETE FROM p.source WHERE d IS NULL",
        )
        low, high = datetime(1, 1, 1), datetime(9999, 1, 1)
        if partition:
            low, high = cut(partition), cut(partition + timedelta(days=1))
        elif stored:
            low = cut(max(at for at, _n in stored) - timedelta(hours=lookback or 0))
        incremental(
            bench,
            BODIES[body],
            lookback=None if lookback is None else f"{lookback} HOURS",
            window=Window(low.isoformat(), high.isoformat()) if partition else None,
        )
        inside = [row for row in result if low <= row[0] < high]
        stored = [row for row in stored if not low <= row[0] < high] + inside
        found = bench.own("SELECT d::TIMESTAMP, n FROM p.t")
        assert Counter(found) == Counter(stored)


CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_transform import Bench
Bench(Path(sys.argv[2])).run(sys.argv[3], mode=sys.argv[4], keys=("a",), by="a", run_id="same", view=sys.argv[5] == "view")
"""


@pytest.mark.parametrize("mode", ["replace", "append", "upsert", "incremental"])
@pytest.mark.parametrize("first", ["nothing", "table", "view"])
def test_a_killed_transform_changes_nothing_and_a_retry_does_it_once(bench, mode, first):
    if first != "nothing":
        bench.run(
            "SELECT 1 AS a, 'old' AS b",
            view=first == "view",
            mode="replace" if first == "view" else mode,
            keys=("a",),
            by="a",
        )
    here = str(Path(__file__).parent)
    sql = "SELECT 1 AS a, 'new' AS b UNION ALL SELECT 2, 'new'"
    command = [sys.executable, "-c", CHILD, here, str(bench.root), sql, mode, "table"]
    died = subprocess.run(command, env={**os.environ, "SQLFLOW_FAILPOINT": "before_commit:kill"}, check=False)
    assert died.returncode == -signal.SIGKILL
    if first == "nothing":
        assert bench.own("SELECT count(*) FROM duckdb_tables() WHERE schema_name IN ('p', '_sqlflow')") == [
            (0,)
        ]
    else:
        assert bench.rows() == [(1, "old")]
    for _ in range(2):
        subprocess.run(command, check=True)
        old = [(1, "old")] if mode == "append" and first == "table" else []
        assert sorted(bench.rows()) == sorted([(1, "new"), (2, "new"), *old])
