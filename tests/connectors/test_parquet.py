"""Parquet files → rows of the same types."""

import json
from decimal import Decimal

import duckdb
import pytest

from sqlflow_dagster.errors import SourceFailed


def parquet(folder, name, query):
    (folder.root / name).parent.mkdir(parents=True, exist_ok=True)
    duckdb.sql(query).write_parquet(str(folder.root / name))


def test_parquet_keeps_its_types_and_matches_columns_by_name(folder):
    parquet(folder, "in/a.parquet", "SELECT 1::SMALLINT AS id, 4.15::DECIMAL(9,2) AS v, {'x': [1]} AS s")
    parquet(folder, "in/b.parquet", "SELECT 2.50::DECIMAL(9,2) AS v, 2::SMALLINT AS id, 'n' AS extra")
    result = folder.read("PARQUET", path="in")
    assert result.columns == {
        "id": "SMALLINT",
        "v": "DECIMAL(9,2)",
        "s": "STRUCT(x INTEGER[])",
        "extra": "VARCHAR",
    }
    assert [row[:2] for row in result.rows] == [(1, Decimal("4.15")), (2, Decimal("2.50"))]


def test_parquet_folders_are_columns_and_provenance_names_the_file(folder):
    parquet(folder, "in/month=01/a.parquet", "SELECT 1 AS id")
    parquet(folder, "in/month=12/a.parquet", "SELECT 2 AS id")
    assert folder.rows("PARQUET", path="in", row_provenance=True) == [
        (1, "01", "in/month=01/a.parquet"),
        (2, "12", "in/month=12/a.parquet"),
    ]


@pytest.mark.parametrize("cut", [5, 200])
def test_a_parquet_file_that_was_cut_off_is_an_error_that_names_it(folder, cut):
    parquet(folder, "a.parquet", "SELECT * FROM range(1000)")
    file = folder.root / "a.parquet"
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(SourceFailed, match=r"a\.parquet"):
        folder.read("PARQUET", path="a.parquet")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("9007199254740993::BIGINT", "0.5::DOUBLE"),
        ("16777217::INTEGER", "0.1::FLOAT"),
        ("true", "5::BIGINT"),
        ("TIMESTAMPTZ '2024-01-01 00:00:00+00'", "TIMESTAMP '2024-01-01'"),
        ("1.5::DECIMAL(20,2)", "0.5::DOUBLE"),
        ("1.5::DECIMAL(30,2)", "0.123::DECIMAL(38,30)"),
        ("{'x': 9007199254740993::BIGINT}", "{'x': 0.5::DOUBLE}"),
        ("[9007199254740993::BIGINT]", "[0.5::DOUBLE]"),
    ],
)
def test_types_that_change_each_others_values_are_an_error(folder, one, other):
    parquet(folder, "in/a.parquet", f"SELECT 1 AS id, {one} AS v")
    parquet(folder, "in/b.parquet", f"SELECT 2 AS id, {other} AS v")
    with pytest.raises(SourceFailed, match=r"the column 'v' is .* in in/[ab]\.parquet.*`types`"):
        folder.read("PARQUET", path="in")


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("1::INTEGER", "9007199254740993::BIGINT", "BIGINT"),
        ("-1::BIGINT", "18446744073709551615::UBIGINT", "HUGEINT"),
        ("1::INTEGER", "0.1::DOUBLE", "DOUBLE"),
        ("0.5::FLOAT", "0.1::DOUBLE", "DOUBLE"),
        ("1.55::DECIMAL(9,2)", "0.123::DECIMAL(9,3)", "DECIMAL(10,3)"),
        ("7::BIGINT", "0.12::DECIMAL(9,2)", "DECIMAL(21,2)"),
        ("DATE '2024-01-01'", "TIMESTAMP '2024-01-01 00:00:01.5'", "TIMESTAMP"),
        ("5", "'x'", "VARCHAR"),
        ("{'x': 1}", "{'y': 'a'}", "STRUCT(x INTEGER, y VARCHAR)"),
    ],
)
def test_types_that_one_type_holds_are_brought_together(folder, one, other, kind):
    parquet(folder, "in/a.parquet", f"SELECT {one} AS v")
    parquet(folder, "in/b.parquet", f"SELECT {other} AS v")
    result = folder.read("PARQUET", path="in")
    assert result.columns == {"v": kind}
    texts = duckdb.sql(
        f"SELECT CAST(({one})::{kind} AS VARCHAR), CAST(({other})::{kind} AS VARCHAR)"
    ).fetchone()
    assert duckdb.sql(
        f"SELECT list(CAST(v AS VARCHAR)) FROM (VALUES ($a::{kind}), ($b::{kind})) AS t(v)",
        params={"a": result.rows[0][0], "b": result.rows[1][0]},
    ).fetchone()[0] == list(texts)


def test_a_declared_type_is_exact_in_every_file_and_keeps_the_columns_order(folder):
    parquet(folder, "in/a.parquet", "SELECT 1 AS id, 9007199254740993::BIGINT AS v, 'x' AS t")
    parquet(folder, "in/b.parquet", "SELECT 2 AS id, 4.15::DOUBLE AS v, 'y' AS t")
    result = folder.read(
        "PARQUET", path="in", types={"V": "DECIMAL(20,2)", "gone": "DATE"}, row_provenance=True
    )
    assert list(result.columns) == ["id", "v", "t", "gone", "_sqlflow_file"]
    assert result.rows == [
        (1, Decimal("9007199254740993.00"), "x", None, "in/a.parquet"),
        (2, Decimal("4.15"), "y", None, "in/b.parquet"),
    ]
    with pytest.raises(SourceFailed, match=r"in/b\.parquet: the value '4.15' of column \"v\" is no BIGINT"):
        folder.read("PARQUET", path="in", types={"v": "BIGINT"})


def test_a_nested_value_that_a_declared_type_would_change_is_an_error(folder):
    parquet(folder, "a.parquet", "SELECT {'x': 4.7::DOUBLE} AS s")
    with pytest.raises(SourceFailed, match='a.parquet: the value .* of column "s" is no STRUCT'):
        folder.read("PARQUET", path="a.parquet", types={"s": "STRUCT(x INTEGER)"})
    assert folder.rows("PARQUET", path="a.parquet", types={"s": "STRUCT(x DECIMAL(9,1))"}) == [
        ({"x": Decimal("4.7")},)
    ]


def test_types_of_other_writers_come_as_they_are(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "u64": pa.array([2**64 - 1], pa.uint64()),
            "d": pa.array([Decimal("-1.5")], pa.decimal128(38, 10)),
            "ns": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
            "utc": pa.array([1_700_000_000_123_456], pa.timestamp("us", "Europe/Berlin")),
            "e": pa.array(["a"]).dictionary_encode(),
            "f16": pa.array([1.5], pa.float16()),
            "m": pa.array([[("k", [("j", 1)])]], pa.map_(pa.string(), pa.map_(pa.string(), pa.int32()))),
            "b": pa.array([b"\x00\xff"], pa.binary()),
            "day": pa.array([-719162], pa.date32()),
            "t": pa.array([1], pa.time64("ns")),
        }
    )
    pq.write_table(table, folder.root / "a.parquet")
    result = folder.read("PARQUET", path="a.parquet", exclude_columns=["t"])
    row = dict(zip(result.columns, result.rows[0], strict=True))
    assert (row["u64"], row["d"], row["e"], row["f16"], row["b"]) == (
        2**64 - 1,
        Decimal("-1.5"),
        "a",
        1.5,
        b"\x00\xff",
    )
    assert (result.columns["ns"], result.columns["utc"]) == ("TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE")
    assert row["day"].isoformat() == "0001-01-01"
    assert row["m"] == {"k": {"j": 1}}


def test_decimals_of_more_than_38_digits_are_an_error(folder):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"id": [1], "d": pa.array([Decimal("1" * 50)], pa.decimal256(60, 0))})
    pq.write_table(table, folder.root / "a.parquet")
    with pytest.raises(SourceFailed, match="a.parquet: the column 'd' has decimals of 60 digits"):
        folder.read("PARQUET", path="a.parquet")
    assert len(folder.rows("PARQUET", path="a.parquet", exclude_columns=["d"])) == 1


def test_nanoseconds_of_a_time_of_day_are_not_cut_without_a_word(folder, caplog):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"t": pa.array([1], pa.time64("ns"))}), folder.root / "a.parquet")
    folder.read("PARQUET", path="a.parquet")
    assert caplog.messages == ["a.parquet: times of day in 't' are cut to microseconds"]


def test_an_empty_parquet_file_gives_its_columns(folder):
    parquet(folder, "a.parquet", "SELECT 1::SMALLINT AS id WHERE false")
    result = folder.read("PARQUET", path="a.parquet")
    assert (result.columns, result.rows) == ({"id": "SMALLINT"}, [])


def test_odd_folders_of_partitions_are_columns_with_their_texts(folder):
    parquet(folder, "in/k=a%2Fb/j=01/m=__HIVE_DEFAULT_PARTITION__/n=1=2/x.parquet", "SELECT 1 AS id")
    result = folder.read("PARQUET", path="in", row_provenance=True)
    row = dict(zip(result.columns, result.rows[0], strict=True))
    assert {key: row[key] for key in "kjmn"} == {"k": "a/b", "j": "01", "m": None, "n": "1=2"}
    assert (row["id"], list(row)[-1]) == (1, "_sqlflow_file")


def test_a_folder_that_a_declared_type_would_change_is_an_error(folder):
    parquet(folder, "in/k=4.7/x.parquet", "SELECT 1 AS id")
    assert folder.rows("PARQUET", path="in", types={"k": "DECIMAL(4,1)"}) == [(1, Decimal("4.7"))]
    with pytest.raises(SourceFailed, match="'4.7' of column \"k\" is no INTEGER"):
        folder.read("PARQUET", path="in", types={"k": "INTEGER"})


def test_a_broken_page_is_an_error_that_names_the_file(folder):
    parquet(folder, "a.parquet", "SELECT range AS i FROM range(1000)")
    file = folder.root / "a.parquet"
    file.write_bytes(file.read_bytes()[:4] + b"\xff" * 40 + file.read_bytes()[44:])
    with pytest.raises(SourceFailed, match=r"^a\.parquet: "):
        folder.read("PARQUET", path="a.parquet")


@pytest.mark.parametrize(
    ("params", "stored"), [({"types": {"v": "JSON"}}, '{"a":1}'), ({"exclude_columns": ["v"]}, None)]
)
def test_a_variant_says_what_to_declare(bench, params, stored):
    def run(given):
        bench.pipeline(
            f"SOURCE s TYPE PARQUET PARAMS {json.dumps({'path': 'data/a.parquet', **given})};\nLOAD t FROM s;"
        )
        return bench.run()["t"]

    (bench.root / "data").mkdir()
    duckdb.execute(f"COPY (SELECT 1 AS i, {{'a': 1}}::VARIANT AS v) TO '{bench.root}/data/a.parquet'")
    assert "data/a.parquet: a column is a VARIANT" in str(run({}).error)
    assert run(params).error is None
    assert bench.query("FROM p.t") == [(1, stored) if stored else (1,)]


def test_a_file_without_the_key_of_the_others_is_an_error(folder):
    parquet(folder, "in/a.parquet", "SELECT 1 AS id, 'a' AS v")
    parquet(folder, "in/b.parquet", "SELECT 2 AS k, 'b' AS v UNION ALL SELECT 3, 'c'")
    with pytest.raises(SourceFailed, match=r"b\.parquet: it has no column 'id', which is the key"):
        folder.read("PARQUET", path="in", primary_key="ID")
    assert len(folder.rows("PARQUET", path="in")) == 3
