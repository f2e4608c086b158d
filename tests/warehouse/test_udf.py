"""PYTHON_FUNC: a project's Python functions, called from its SQL."""

import sys
from datetime import date
from decimal import Decimal

import pytest

from sqlflow_dagster.errors import ProjectError, QueryFailed
from sqlflow_dagster.warehouse import query
from sqlflow_dagster.warehouse.duckdb import Warehouse, WarehouseSettings
from sqlflow_dagster.warehouse.modules import known_functions, module
from sqlflow_dagster.warehouse.udf import Functions


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "shop" / "python_udfs").mkdir(parents=True)
    return tmp_path / "shop" / "python_udfs"


@pytest.fixture
def call(folder, tmp_path):
    """Run a query that calls functions, on the locked-down connection, and return its rows."""
    warehouse = Warehouse(WarehouseSettings(tmp_path / "w.duckdb", tmp_path / "state"))

    def run(sql, code=None, name="m.py", setup=()):
        if code is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(code)
        with warehouse.open_locked_down() as connection:
            for statement in setup:
                connection.execute(statement)
            query.check(connection, sql)
            bound = Functions(folder).bind(connection, sql)
            try:
                return connection.execute(bound.text).to_arrow_table().to_pylist()
            except query.Failure as error:
                raise query.failed("t", bound, error) from error

    return run


def values(rows):
    return [tuple(row.values()) for row in rows]


@pytest.mark.parametrize(
    ("code", "sql", "expected"),
    [
        ("def f(a: str) -> str: return a.upper()", "'x'", "X"),
        ("def f(a: int) -> int: return a + 1", "41", 42),
        ("def f(a: int) -> int: return a + 1", "sum(41)", 42),
        ("def f(a: float) -> float: return a * 2", "0.25", 0.5),
        ("def f(a: float) -> float: return a * 2", "3", 6.0),
        ("def f(a: bool) -> bool: return not a", "true", False),
        ("def f(a: bytes) -> int: return len(a)", "'abc'::BLOB", 3),
        (
            "from datetime import *\ndef f(a: date) -> date: return a + timedelta(1)",
            "DATE '2024-02-28'",
            date(2024, 2, 29),
        ),
        ("from typing import *\ndef f(a: Optional[int]) -> Optional[int]: return a", "NULL", None),
        ("def f(a: int | None) -> str: return repr(a)", "NULL", "None"),
        ("def f(a: list[int]) -> list[str]: return [str(x) for x in a]", "[1, 2]", ["1", "2"]),
        ("def f(a) -> str: return type(a).__name__", "1.5::DECIMAL(5,2)", "Decimal"),
        ("from decimal import *\ndef f(a: Decimal) -> str: return str(a + 1)", "0.1::DOUBLE", "1.1"),
        ("def f(a: float, b: float = 2.0) -> float: return a * b", "3", 6.0),
        ("def f(a: float, b: float = 2.0) -> float: return a * b", "3, b = 4", 12.0),
        ("def f(*, a: int, b: int) -> int: return a - b", "b = 1, a = 5", 4),
        ("def f(*a: int) -> int: return sum(a)", "1, 2, 3", 6),
        ("def f(a: bool) -> str: return str(a)", "x = 'y'", "True"),
        ("def f() -> int: return 7", "", 7),
        ("from __future__ import annotations\ndef f(a: int) -> int: return a", "7", 7),
        ("import numpy as np\ndef f(a: int) -> int: return np.int64(a)", "7", 7),
        ("def f(a: int) -> int: return True", "7", 1),
        ("def f(a: int) -> int: return 2.0", "7", 2),
    ],
    ids=lambda value: str(value).replace("\n", " ")[:60] if isinstance(value, str) else None,
)
def test_type_hints_say_the_types(call, code, sql, expected):
    rows = call(
        f"SELECT PYTHON_FUNC(\"m.f\"{', ' if sql else ''}{sql}) AS r FROM (SELECT 'y' AS x) GROUP BY x", code
    )
    assert rows == [{"r": expected}]


def test_a_declared_type_wins_over_the_hint(call):
    code = (
        "from sqlflow_dagster.udf import python_scalar_udf\nfrom decimal import Decimal\n"
        "@python_scalar_udf(parameters=['DECIMAL(10,2)'], return_type='DECIMAL(12,3)')\n"
        "def f(a: Decimal) -> Decimal: return a / 8"
    )
    assert values(call('SELECT PYTHON_FUNC("m.f", 1.00)', code)) == [(Decimal("0.125"),)]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("def f(a: int) -> int: return 1.5", "whole number"),
        ("def f(a: int) -> int: return float('nan')", "whole number"),
        ("def f(a: int) -> int: raise ValueError('no such thing')", "no such thing"),
        ("def f(a: int) -> int: return g(a)\ndef g(a): return {}['lost']", "KeyError: 'lost'"),
    ],
    ids=["rounded", "nan", "raised", "deep"],
)
def test_what_a_function_raises_is_told_with_its_own_traceback(call, code, message):
    with pytest.raises(QueryFailed, match=message) as failure:
        call('SELECT PYTHON_FUNC("m.f", 1)', code)
    assert "sqlflow_dagster" not in str(failure.value)


def test_the_traceback_names_the_line(call, folder):
    with pytest.raises(QueryFailed) as failure:
        call('SELECT PYTHON_FUNC("m.f", 1)', "def f(a: int) -> int:\n    return 1 // (a - a)\n")
    assert f'File "{folder / "m.py"}", line 2, in f' in str(failure.value)


def test_nan_stays_apart_from_null(call):
    rows = call('SELECT isnan(PYTHON_FUNC("m.f", 1)) AS r', "def f(a: int) -> float: return float('nan')")
    assert rows == [{"r": True}]


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ('SELECT PYTHON_FUNC("m.untipped", 1)', "did you mean 'untyped'"),
        ('SELECT PYTHON_FUNC("n.f", 1)', "there are m"),
        ('SELECT PYTHON_FUNC("f", 1)', "write the module"),
        ('SELECT PYTHON_FUNC("../m.f", 1)', "no module"),
        ('SELECT PYTHON_FUNC("m.f")', "missing a required argument: 'a'"),
        ('SELECT PYTHON_FUNC("m.f", 1, 2)', "too many positional"),
        ('SELECT PYTHON_FUNC("m.f", a = 1, a = 2)', "given twice"),
        ('SELECT PYTHON_FUNC("m.untyped", 1)', "type hint"),
        ('SELECT PYTHON_FUNC("m.exact", 1)', "return_type"),
        ('SELECT * FROM PYTHON_FUNC("m.f", t)', "t"),
    ],
)
def test_a_call_that_does_not_fit_is_refused_by_name(call, sql, message):
    code = (
        "from decimal import Decimal\ndef f(a: int) -> int: return a\ndef untyped(a): return a\n"
        "def exact(a: int) -> Decimal: return a"
    )
    with pytest.raises((ProjectError, QueryFailed), match=message):
        call(sql, code)


def test_calls_are_found_inside_calls_and_not_in_text(call):
    inner = 'PYTHON_FUNC("python_udfs.m.f", 1)'
    sql = f"""SELECT PYTHON_FUNC("m.f", {inner} + 1), 'PYTHON_FUNC("x.y")' -- PYTHON_FUNC("x.y")"""
    assert values(call(sql, "def f(a: int) -> int: return a * 10")) == [(110, 'PYTHON_FUNC("x.y")')]


def test_functions_that_differ_only_by_case_are_two(call):
    code = "def f(a: int) -> int: return 1\ndef F(a: int) -> int: return 2"
    assert values(call('SELECT PYTHON_FUNC("m.f", 0), PYTHON_FUNC("m.F", 0)', code)) == [(1, 2)]


@pytest.mark.parametrize("hint", ["pa.Int64Array", "pa.ChunkedArray", "pa.Array"])
def test_arrow_functions_take_whole_columns(call, hint):
    code = f"""
import pyarrow as pa, pyarrow.compute as pc
from sqlflow_dagster.udf import python_scalar_udf
@python_scalar_udf(parameters=["BIGINT"], return_type="BIGINT")
def f(a: {hint}) -> pa.Int64Array:
    assert isinstance(a, {hint})
    return pc.multiply(a, 2)
"""
    rows = call('SELECT sum(PYTHON_FUNC("m.f", x)) AS r FROM range(5000) AS t(x)', code)
    assert rows == [{"r": 5000 * 4999}]


def test_arrow_hints_alone_say_the_types(call):
    code = "import pyarrow as pa\ndef f(a: pa.Int64Array) -> pa.DoubleArray: return a.cast('double')"
    assert values(call('SELECT PYTHON_FUNC("m.f", x) FROM (VALUES (1), (NULL)) AS t(x)', code)) == [
        (1.0,),
        (None,),
    ]


def test_an_arrow_result_is_not_rounded(call):
    code = "import pyarrow as pa\ndef f(a: pa.Int64Array) -> pa.Int64Array: return pa.array([1.5] * len(a))"
    with pytest.raises(QueryFailed, match="truncated"):
        call('SELECT PYTHON_FUNC("m.f", 1)', code)


SALES = [
    "CREATE TEMP TABLE sales AS SELECT * FROM (VALUES (1, 2.5::DECIMAL(5,2), DATE '2024-01-31', 'a'),"
    " (NULL, NULL, NULL, NULL)) AS t(id, price, day, name)"
]


@pytest.mark.parametrize(
    ("hint", "head"),
    [
        ("", ""),
        (": pd.DataFrame", "import pandas as pd"),
        (": 'pd.DataFrame'", "from typing import TYPE_CHECKING\nif TYPE_CHECKING: import pandas as pd"),
        (": pa.Table", "import pyarrow as pa"),
        (": pa.RecordBatchReader", "import pyarrow as pa"),
    ],
    ids=["none", "dataframe", "for-type-checkers", "table", "reader"],
)
def test_a_table_comes_back_as_it_went_in(call, hint, head):
    rows = call('SELECT * FROM PYTHON_FUNC("m.f", sales)', f"{head}\ndef f(t{hint}): return t", setup=SALES)
    assert rows == [
        {"id": 1, "price": Decimal("2.50"), "day": date(2024, 1, 31), "name": "a"},
        {"id": None, "price": None, "day": None, "name": None},
    ]


def test_pandas_calculates_with_decimals_and_gives_back_exact_ones(call):
    code = "def f(t): return t.assign(kind=str(t['price'].dtype), double=t['price'] * 2.0)"
    rows = call('SELECT price, kind, double FROM PYTHON_FUNC("m.f", sales) WHERE id = 1', code, setup=SALES)
    assert rows == [{"price": Decimal("2.50"), "kind": "float64", "double": 5.0}]


def test_a_decimal_that_no_float_tells_stays_one(call):
    setup = ["CREATE TEMP TABLE sales AS SELECT 12345678901234567890.12::DECIMAL(38,2) AS price"]
    code = "def f(t): return t.assign(kind=type(t['price'][0]).__name__)"
    rows = call('SELECT * FROM PYTHON_FUNC("m.f", sales)', code, setup=setup)
    assert rows == [{"price": Decimal("12345678901234567890.12"), "kind": "Decimal"}]


def test_columns_that_are_not_declared_are_kept(call):
    code = (
        "from sqlflow_dagster.udf import python_table_udf\n"
        "@python_table_udf(output_schema={'n': 'INTEGER'})\n"
        "def f(t): return t.assign(n=1)"
    )
    rows = call('SELECT * FROM PYTHON_FUNC("m.f", (SELECT 7 AS a))', code)
    assert rows == [{"n": 1, "a": 7}]


def test_a_reader_is_answered_a_batch_at_a_time(call):
    code = """
import pyarrow as pa
def f(t: pa.RecordBatchReader):
    schema = pa.schema([("n", pa.int64())])
    return pa.RecordBatchReader.from_batches(schema, (pa.record_batch([[len(b)]], schema) for b in t))
"""
    rows = call(
        'SELECT sum(n)::BIGINT AS n, count(*) > 1 AS many FROM PYTHON_FUNC("m.f", (FROM range(200000)))', code
    )
    assert rows == [{"n": 200_000, "many": True}]


@pytest.mark.parametrize(
    "sql",
    [
        'SELECT * FROM PYTHON_FUNC("m.f", sales, 10)',
        'SELECT * FROM PYTHON_FUNC("m.f", sales, k = 5 * 2)',
        'SELECT r.* FROM PYTHON_FUNC("m.f", (SELECT * FROM sales WHERE id > 0), k = 10) AS r',
        'WITH s AS (SELECT * FROM sales), "S 2" AS (FROM s) SELECT * FROM PYTHON_FUNC("m.f", "S 2", k = 10)',
        'FROM (WITH s AS (FROM sales) SELECT * FROM PYTHON_FUNC("m.f", s, k = 10))',
        'WITH s AS (FROM PYTHON_FUNC("m.f", sales, 4)) SELECT * FROM PYTHON_FUNC("m.f", s, k = 6)',
        'SELECT * FROM PYTHON_FUNC("m.f", PYTHON_FUNC("m.f", sales, 4), k = 6)',
    ],
)
def test_a_table_function_takes_tables_queries_and_with_names(call, sql):
    code = """
def f(t, k: int):
    t = t[t.id.notna()][["id"]]
    t["id"] = t["id"] + k
    return t
"""
    assert values(call(sql, code, setup=SALES)) == [(11,)]


def test_a_function_without_arguments_after_the_table_and_quoted_text(call):
    code = "def f(t, column='id', factor: float = 1): return t[[column]].head(1).assign(k=factor)"
    rows = call('SELECT * FROM PYTHON_FUNC("m.f", sales, column = "name", factor = 0.5)', code, setup=SALES)
    assert rows == [{"name": "a", "k": 0.5}]


DECLARED = """
import pandas as pd
from sqlflow_dagster.udf import python_table_udf
@python_table_udf(output_schema={schema}, required_columns={required})
def f(t: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({frame})
"""


@pytest.mark.parametrize(
    ("schema", "frame", "expected"),
    [
        ({"a": "INTEGER"}, {"a": [1.0, 2.0]}, [(1,), (2,)]),
        ({"A": "INTEGER", "b": "VARCHAR"}, {"b": [5], "a": [1]}, [(1, "5")]),
        ({"a": "DATE"}, {"a": ["2024-1-5"]}, [(date(2024, 1, 5),)]),
        ({"a": "DECIMAL(5,2)"}, {"a": ["1.25"]}, [(Decimal("1.25"),)]),
        ({"a": "BIGINT"}, {"a": []}, []),
        ({"a": "BIGINT"}, {"a": [None]}, [(None,)]),
    ],
    ids=["whole-doubles", "order-and-case", "text-date", "text-decimal", "empty", "null"],
)
def test_a_result_is_cast_to_its_declared_types(call, schema, frame, expected):
    code = DECLARED.format(schema=schema, required=["id"], frame=frame)
    assert values(call('SELECT * FROM PYTHON_FUNC("m.f", sales)', code, setup=SALES)) == expected


@pytest.mark.parametrize(
    ("schema", "required", "frame", "message"),
    [
        ({"a": "INTEGER"}, [], {"a": [1.5]}, "'a'.*'1.5' does not fit the declared INTEGER"),
        ({"a": "TINYINT"}, [], {"a": [300]}, "does not fit"),
        ({"a": "DATE"}, [], {"a": ["soon"]}, "'soon' does not fit the declared DATE"),
        ({"a": "DATE"}, [], {"b": ["x"]}, "lacks what its output_schema declares: a; it has b"),
        ({"a": "NONSENSE"}, [], {"a": [1]}, "NONSENSE"),
        ({"a": "INTEGER"}, ["id", "city"], {"a": [1]}, "requires the columns city"),
    ],
    ids=["rounded", "too-wide", "no-date", "columns", "type", "required"],
)
def test_a_result_that_does_not_fit_is_refused_by_column(call, schema, required, frame, message):
    with pytest.raises((QueryFailed, ProjectError), match=message):
        call(
            'SELECT * FROM PYTHON_FUNC("m.f", sales)',
            DECLARED.format(schema=schema, required=required, frame=frame),
            setup=SALES,
        )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise RuntimeError('bad day')", "bad day"),
        ("return 5", "returned int"),
        ("return None", "returned NoneType"),
        ("return __import__('pandas').DataFrame({'a': [1, 'x']})", "Conversion failed for column a"),
        ("return __import__('pandas').DataFrame([[1, 2]], columns=['a', 'a'])", "more than once"),
    ],
)  # fmt: skip
def test_a_failing_table_function_says_why(call, body, message):
    with pytest.raises(QueryFailed, match=message):
        call('SELECT * FROM PYTHON_FUNC("m.f", sales)', f"def f(t): {body}", setup=SALES)


def test_what_groupby_puts_into_the_index_are_columns(call):
    rows = call(
        'SELECT * FROM PYTHON_FUNC("m.f", sales)',
        "def f(t): return t.groupby('name')[['id']].sum()",
        setup=SALES,
    )
    assert rows == [{"name": "a", "id": 1}]


def test_whole_numbers_beside_nulls_stay_whole(call):
    big = 2**53 + 1
    rows = call(f'SELECT * FROM PYTHON_FUNC("m.f", (VALUES ({big}), (NULL)))', "def f(t): return t")
    assert values(rows) == [(big,), (None,)]


def test_files_import_each_other_and_the_first_sqlflow(call, folder):
    (folder / "helper.py").write_text("from .deep.numbers import two\ndef ten() -> int: return 5 * two")
    (folder / "deep").mkdir()
    (folder / "deep" / "numbers.py").write_text("two = 2")
    (folder.parent / "settings_of_shop.py").write_text("extra = 100")
    code = """
from sqlflow.udfs import python_scalar_udf
from sqlflow.udfs.decorators import python_table_udf
import sqlflow.udfs as u, python_udfs.helper as h, helper, settings_of_shop
from dataclasses import dataclass
@dataclass
class Point:
    x: "int"
@python_scalar_udf
def f(a: int) -> int:
    import json
    from helper import ten
    assert helper is h and u.python_scalar_udf is python_scalar_udf
    return Point(a).x + ten() + settings_of_shop.extra
"""
    before = set(sys.modules)
    assert values(call('SELECT PYTHON_FUNC("m.f", 1)', code)) == [(111,)]
    assert not {name.split(".")[0] for name in set(sys.modules) - before} & {
        "sqlflow",
        "helper",
        "m",
        "python_udfs",
    }


def test_packages_hold_functions(call):
    sql = 'SELECT PYTHON_FUNC("python_udfs.pack.f", 1), PYTHON_FUNC("pack.inner.g", 1)'
    call("SELECT 1", "from .inner import g as f", "pack/__init__.py")
    assert values(call(sql, "def g(a: int) -> int: return a + 1", "pack/inner.py")) == [(2, 2)]


def test_two_projects_with_modules_of_one_name_do_not_meet(tmp_path):
    for project in ("a", "b"):
        (tmp_path / project / "python_udfs").mkdir(parents=True)
        (tmp_path / project / "python_udfs" / "m.py").write_text(
            f"import other\ndef f(): return other.name + '{project}'"
        )
        (tmp_path / project / "python_udfs" / "other.py").write_text(f"name = '{project}'")
    functions = [Functions(tmp_path / project / "python_udfs").find("m.f") for project in ("a", "b", "a")]
    assert [function() for function in functions] == ["aa", "bb", "aa"]


def test_a_change_is_picked_up_and_an_unchanged_file_imported_once(folder):
    (folder / "m.py").write_text("import n\ndef f(): return n.value")
    (folder / "n.py").write_text("value = 1")
    functions = Functions(folder)
    assert functions.find("m.f") is Functions(folder).find("m.f")
    assert functions.find("m.f")() == 1
    (folder / "n.py").write_text("value = 2")
    assert functions.find("m.f")() == 2


@pytest.mark.parametrize(
    "code", ["raise OSError('no disk')", "def f(:", "import no_such_module_at_all", "import sys; sys.exit(3)"]
)
def test_a_file_that_cannot_be_imported_says_why(folder, code):
    (folder / "m.py").write_text(code)
    with pytest.raises(QueryFailed, match=r"m\.py.* cannot be imported"):
        module(folder, "m")
    (folder / "m.py").write_text("def f(): return 1")
    assert Functions(folder).find("m.f")() == 1


def test_known_functions_are_read_without_importing(folder):
    (folder / "m.py").write_text(
        "raise SystemExit\nfrom a import b as c\ndef f(): pass\ng = lambda: 1\n"
        "try:\n    def h(): pass\nexcept E: pass\n"
        "@python_scalar_udf(name='other')\ndef own(): pass"
    )
    (folder / "broken.py").write_text("def f(:")
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text("from .x import y")
    assert known_functions(folder) == {
        "broken": (),
        "m": ("c", "f", "g", "h", "own", "other"),
        "pack": ("y",),
    }


def test_a_declared_name_is_found(call):
    code = "from sqlflow.udfs import *\n@python_scalar_udf(name='other')\ndef f(a: int) -> int: return a"
    assert values(call('SELECT PYTHON_FUNC("m.other", 3)', code)) == [(3,)]
