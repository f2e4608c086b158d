"""Rows in the pipeline or in the process → typed rows, and results that a test can look at."""

import datetime as dt
from decimal import Decimal

import pytest

from sqlflow_dagster import in_memory_rows, put_in_memory
from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.connectors.registry import find
from sqlflow_dagster.errors import BadOption, ExportFailed, SourceFailed


def column(folder, *values, **params):
    result = folder.read("IN_MEMORY", rows=[{"v": value} for value in values], **params)
    return result.columns["v"], [row[0] for row in result.rows]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, -2, None], "BIGINT", [1, -2, None]),
        ([2**63 - 1], "BIGINT", [2**63 - 1]),
        ([2**63, 10**38 - 1], "DECIMAL(38,0)", [Decimal(2**63), Decimal(10**38 - 1)]),
        ([10**38], "VARCHAR", [str(10**38)]),
        ([1, 0.1], "DOUBLE", [1.0, 0.1]),
        ([2**60 + 1, 0.1], "VARCHAR", [str(2**60 + 1), "0.1"]),
        ([True, None], "BOOLEAN", [True, None]),
        ([True, 1], "VARCHAR", ["true", "1"]),
        (["a", ""], "VARCHAR", ["a", ""]),
        (["1", "007"], "VARCHAR", ["1", "007"]),
        (["1"], "VARCHAR", ["1"]),
        (["true"], "VARCHAR", ["true"]),
        (["2024-01-31"], "DATE", [dt.date(2024, 1, 31)]),
        (["2024-01-31", "2024-01-31 08:00:00"], "TIMESTAMP", [dt.datetime(2024, 1, 31), dt.datetime(2024, 1, 31, 8)]),
        (["2024-01-31", "soon"], "VARCHAR", ["2024-01-31", "soon"]),
        ([None, None], "VARCHAR", [None, None]),
        ([{"a": 1}, {"b": ["x", None]}, None], "STRUCT(a BIGINT, b VARCHAR[])", [{"a": 1, "b": None}, {"a": None, "b": ["x", None]}, None]),
        ([{"n": 12345678901234567890123}], "STRUCT(n DECIMAL(38,0))", [{"n": Decimal(12345678901234567890123)}]),
        ([[1, "x"], []], "JSON[]", [["1", '"x"'], []]),
        ([[], None], "VARCHAR[]", [[], None]),
        ([1, {"a": 1}, "x"], "JSON", ["1", '{"a": 1}', '"x"']),
        ([{"a": 1, "A": 2}], "JSON", ['{"a": 1, "A": 2}']),
        (["a\r\n\"b\",\t'c'", "\N{GRINNING FACE}"], "VARCHAR", ["a\r\n\"b\",\t'c'", "\N{GRINNING FACE}"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_column_has_the_type_that_keeps_its_values(folder, values, kind, expected):
    assert column(folder, *values) == (kind, expected)


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["4.15", 2, None], "DECIMAL(9,2)", [Decimal("4.15"), Decimal(2), None]),
        (["0.12345678901234567890"], "DECIMAL(38,20)", [Decimal("0.12345678901234567890")]),
        ([5, "007"], "VARCHAR", ["5", "007"]),
        ([2**100], "HUGEINT", [2**100]),
        ([{"a": 1}], "STRUCT(a DOUBLE)", [{"a": 1.0}]),
        (["abc"], "BLOB", [b"abc"]),
    ],
    ids=str,
)
def test_a_declared_type_is_exact(folder, values, kind, expected):
    assert column(folder, *values, types={"v": kind}) == (kind, expected)


@pytest.mark.parametrize(
    ("value", "kind"), [(4.7, "INTEGER"), ("4.155", "DECIMAL(9,2)"), ("x", "DATE"), (2**63, "BIGINT")]
)
def test_a_value_that_a_declared_type_would_change_is_an_error_that_names_its_row(folder, value, kind):
    with pytest.raises(
        SourceFailed, match=rf"data, row 2: the value '{value}' of column \"v\"|out of range|{value}"
    ):
        column(folder, None, value, types={"v": kind})


def test_columns_are_those_of_all_rows_and_of_the_types(folder):
    result = folder.read("IN_MEMORY", rows=[{"a": 1}, {"B": 2}, {"b": 3, "A": 4}], types={"c": "DATE"})
    assert result.columns == {"a": "BIGINT", "B": "BIGINT", "c": "DATE"}
    assert result.rows == [(1, None, None), (None, 2, None), (4, 3, None)]


def test_no_rows_are_the_declared_columns(folder):
    assert folder.read("IN_MEMORY", rows=[], types={"a": "DATE"}).columns == {"a": "DATE"}
    assert folder.read("IN_MEMORY", data=[]).rows == []


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({}, "rows: give one of rows, tables and table"),
        ({"rows": [], "table": "x"}, "table: give one of"),
        ({"rows": [1]}, r"rows\.0: "),
        ({"rows": {"a": 1}}, "rows: "),
        (
            {"rows": [{"a": 1, "A": 2}]},
            "rows: row 1 of 'data' has two columns whose names differ only in case",
        ),
        ({"tables": {"t": [{"a": 1}]}, "types": {"b": "DATE"}}, "types: no row has the column 'b'"),
        ({"rows": [], "types": {"a": "NO TYPE);"}}, "types: "),
        ({"row": []}, "did you mean 'rows'"),
    ],
)
def test_wrong_parameters_are_refused(params, match):
    with pytest.raises(BadOption, match=match):
        parse(find("IN_MEMORY").options_type, params)


def test_a_table_of_the_process_is_read_and_a_missing_one_is_named(folder):
    put_in_memory(
        "Orders", [{"id": 1, "amount": Decimal("4.150"), "at": dt.datetime(2024, 1, 31, 8, tzinfo=dt.UTC)}]
    )
    result = folder.read("IN_MEMORY", table="orders")
    assert result.columns == {"id": "BIGINT", "amount": "DECIMAL(18,3)", "at": "TIMESTAMP WITH TIME ZONE"}
    assert result.rows[0][1] == Decimal("4.150")
    with pytest.raises(SourceFailed, match="this process has no table 'gone' in memory; it has .*orders"):
        folder.read("IN_MEMORY", table="gone")
    with folder.open("IN_MEMORY", table="gone") as source:
        assert not source.check().ok


def test_rows_that_were_put_are_a_copy():
    rows = [{"a": 1}]
    put_in_memory("copied", rows)
    rows[0]["a"] = 2
    in_memory_rows("copied")[0]["a"] = 3
    assert in_memory_rows("copied") == [{"a": 1}]


# Whole runs.

INCREMENTAL = """
SOURCE s TYPE IN_MEMORY PARAMS {"table": "feed", "sync_mode": "incremental", "cursor_field": "at", %s};
LOAD t FROM s;
"""


@pytest.mark.parametrize(
    "key", ['"primary_key": "id"', '"columns": ["id", "at", "v"]'], ids=["key", "no key"]
)
def test_rows_are_read_from_the_cursor_on_and_none_twice(bench, key):
    bench.pipeline(INCREMENTAL % key)
    put_in_memory("feed", [{"id": 1, "at": "2024-01-01", "v": None}, {"id": 2, "at": "2024-01-02", "v": "b"}])
    assert bench.ok()["t"].rows == 2
    put_in_memory("feed", [*in_memory_rows("feed"), {"id": 3, "at": "2024-01-02", "v": "c"}])
    assert bench.ok()["t"].rows == 2
    bench.ok()
    assert bench.query("SELECT id, v FROM p.t ORDER BY id") == [(1, None), (2, "b"), (3, "c")]


def test_each_stream_is_a_table(bench):
    bench.pipeline(
        'SOURCE s TYPE IN_MEMORY PARAMS {"tables": {"a": [{"x": 1}], "b": [{"y": "z"}]}};\nLOAD * FROM s;'
    )
    assert set(bench.ok()) == {"a", "b"}
    assert bench.query("SELECT * FROM p.a, p.b") == [(1, "z")]


def test_an_export_is_kept_in_the_process(bench):
    bench.pipeline(
        "CREATE TABLE t AS SELECT 1 AS id, NULL AS n, '' AS e, 4.10::DECIMAL(9,2) AS d, 1180591620717411303424::HUGEINT AS h, DATE '2024-01-31' AS day,"
        " TIMESTAMPTZ '2024-01-31 08:00:00+02' AS at, {'a': [1, NULL]} AS s, 2::UBIGINT AS u;\n"
        'EXPORT t TO "memory://result";\nEXPORT t TO "log" TYPE IN_MEMORY OPTIONS {"mode": "append"};'
    )
    bench.ok()
    bench.ok()
    (row,) = in_memory_rows("result")
    assert row == {
        "id": 1, "n": None, "e": "", "d": Decimal("4.10"), "h": 2**70, "day": dt.date(2024, 1, 31),
        "at": dt.datetime(2024, 1, 31, 6, tzinfo=dt.UTC), "s": {"a": [1, None]}, "u": 2,
    }  # fmt: skip
    assert type(row["h"]) is int
    assert len(in_memory_rows("log")) == 2


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("1::UHUGEINT", "the column 'v' is UHUGEINT; CAST it"),
        ("[1::BIGNUM]", "the column 'v' is BIGNUM"),
        ("'infinity'::DATE", "the column 'v' has a date that Python does not know"),
        ("'infinity'::TIMESTAMP", "the column 'v' has a date that Python does not know"),
    ],
)
def test_what_python_cannot_hold_is_refused_and_the_old_table_stays(bench, value, match):
    put_in_memory("kept", [{"a": 1}])
    bench.pipeline(f'EXPORT SELECT {value} AS v TO "memory://kept";')
    with pytest.raises(ExportFailed, match=match):
        bench.ok()
    assert in_memory_rows("kept") == [{"a": 1}]
