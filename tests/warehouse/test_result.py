"""The result of an EXPORT's query, as a file of DuckDB's making or as Arrow batches."""

from __future__ import annotations

import pytest

from sqlflow_dagster.errors import ExportFailed, ProjectError, QueryFailed
from sqlflow_dagster.sql import Sql
from sqlflow_dagster.warehouse.result import rows
from sqlflow_dagster.warehouse.udf import Functions

from .conftest import Depot


@pytest.fixture
def depot(tmp_path):
    depot = Depot(tmp_path, {"allowed_directories": (tmp_path / "data",)})
    depot.load("SELECT range::INTEGER AS n, 'é, \"x\"' AS t FROM range(1000)", mode="replace")
    (tmp_path / "python_udfs").mkdir()
    (tmp_path / "python_udfs" / "m.py").write_text(
        "from pathlib import Path\n"
        "def f(n: int) -> int:\n    assert n != 999, 'too far'\n    return n\n"
        "def g(t):\n    with Path('calls').open('a') as file: file.write('x')\n    return t\n"
    )
    return depot


def opened(depot, sql):
    return rows(depot.warehouse, sql, Functions(depot.root / "python_udfs"), ["sales"])


@pytest.mark.parametrize(
    ("sql", "options", "expected"),
    [
        ("SELECT n, t FROM orders WHERE n < 1", "FORMAT csv, HEADER", b'n,t\n0,"\xc3\xa9, ""x"""\n'),
        ("SELECT n, t FROM orders WHERE false -- none", "FORMAT csv, HEADER", b"n,t\n"),
        ("VALUES (1), (2)", "FORMAT csv, HEADER false", b"1\n2\n"),
        (
            "PIVOT (FROM orders WHERE n < 2) ON n USING count(*)",
            "FORMAT csv, HEADER",
            b't,0,1\n"\xc3\xa9, ""x""",1,1\n',
        ),
        ("SELECT n FROM sales.orders ORDER BY n DESC LIMIT 1", "FORMAT json", b'{"n":999}\n'),
    ],
    ids=["rows", "empty", "values", "pivot", "json"],
)
def test_a_file_holds_the_result(depot, tmp_path, sql, options, expected):
    target = tmp_path / "out.csv"
    target.write_text("old")
    with opened(depot, sql) as result:
        assert result.copy_to(target, Sql(options)) == expected.count(b"\n") - (
            b"HEADER" in options.encode() and "false" not in options
        )
    assert target.read_bytes() == expected
    assert list((tmp_path / ".sqlflow" / "spool").iterdir()) == []


def test_columns_are_known_before_anything_is_read(depot):
    with opened(depot, "SELECT n, t, n / 2 AS half, NULL AS nothing FROM orders WHERE false") as result:
        assert result.columns == {"n": "INTEGER", "t": "VARCHAR", "half": "DOUBLE", "nothing": "INTEGER"}


def test_arrow_batches_are_no_larger_than_asked(depot):
    with opened(depot, "FROM orders ORDER BY n") as result:
        batches = list(result.arrow(300))
    assert all(len(batch) <= 300 for batch in batches)
    assert [n for batch in batches for n in batch.column("n").to_pylist()] == list(range(1000))


def test_an_empty_result_has_its_schema(depot):
    with opened(depot, "FROM orders WHERE false") as result:
        reader = result.arrow(10)
        assert reader.schema.names == ["n", "t"]
        assert reader.read_all().num_rows == 0


def test_a_reader_left_open_does_not_hold_the_warehouse(depot):
    with opened(depot, "FROM range(1000000)") as result:
        next(result.arrow(10))
    assert depot.query("SELECT count(*) FROM sales.orders") == [(1000,)]


@pytest.mark.parametrize("way", ["copy", "arrow"])
@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT\n  n, nowhere\nFROM orders", "LINE 2:   n, nowhere"),
        ("SELECT t::INTEGER FROM orders", "TRY_CAST"),
        ('SELECT PYTHON_FUNC("m.f", n) FROM orders', "line 3, in f\n(.*\n)*AssertionError: too far"),
    ],
    ids=["name", "value", "function"],
)
def test_a_failing_query_is_told_and_writes_nothing(depot, tmp_path, sql, message, way):
    def export():
        with opened(depot, sql) as result:
            if way == "copy":
                result.copy_to(tmp_path / "out.csv", Sql("FORMAT csv"))
            else:
                result.arrow(10).read_all()

    with pytest.raises(ExportFailed, match=message):
        export()
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1) TO '/tmp/x.csv'; --",
        "SELECT 1; SELECT 2",
        "COPY (SELECT 1) TO 'x.csv'",
        "FROM _sqlflow.commits",
        "DROP TABLE orders",
    ],
)
def test_only_a_query_is_run(depot, sql):
    with pytest.raises((ProjectError, QueryFailed)), opened(depot, sql):
        pass
    assert len(depot.query()) == 1000


def test_a_table_function_is_called_once(depot, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with opened(depot, 'FROM PYTHON_FUNC("m.g", (FROM orders LIMIT 3))') as result:
        assert list(result.columns) == ["n", "t"]
        assert result.copy_to(tmp_path / "out.csv", Sql("FORMAT csv")) == 3
    assert (tmp_path / "calls").read_text() == "x"
