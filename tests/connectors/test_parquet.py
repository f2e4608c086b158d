"""Parquet files → rows of the same types."""

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
