"""Exports to Avro: each value under a type that holds it, read back by two readers, or refused with a way out."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal

import duckdb
import fastavro
import pytest

from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.connectors.registry import find
from sqlflow_dagster.errors import BadOption, ExportFailed
from sqlflow_dagster.warehouse.duckdb import Warehouse, WarehouseSettings
from sqlflow_dagster.warehouse.result import rows
from sqlflow_dagster.warehouse.udf import Functions


@pytest.fixture
def export(folder):
    warehouse = Warehouse(
        WarehouseSettings(path=folder.root / "w.duckdb", state_directory=folder.root / ".sqlflow")
    )
    kind = find("AVRO")

    def exporting(query, target="a.avro", **options):
        with rows(warehouse, query, Functions(folder.root / "udfs")) as result:
            return kind.write(result, target, parse(kind.sink_options_type, options)[0], folder.place)

    return exporting


def schema(folder):
    """Avro's types of the columns, besides null."""
    with (folder.root / "a.avro").open("rb") as file:
        fields = fastavro.reader(file).writer_schema["fields"]
    return {field["name"]: field["type"][1] for field in fields}


def records(folder):
    """What the library that others have reads."""
    with (folder.root / "a.avro").open("rb") as file:
        return list(fastavro.reader(file))


# A type, a value, how our own reader has its type, and Avro's type.
VALUES = [
    ("BOOLEAN", "true", "BOOLEAN", "boolean"),
    ("TINYINT", "-128", "INTEGER", "int"),
    ("USMALLINT", "65535", "INTEGER", "int"),
    ("INTEGER", "-2147483648", "INTEGER", "int"),
    ("UINTEGER", "4294967295", "BIGINT", "long"),
    ("BIGINT", "-9223372036854775808", "BIGINT", "long"),
    ("UBIGINT", "18446744073709551615", "DECIMAL(20,0)", "decimal"),
    ("HUGEINT", "-99999999999999999999999999999999999999", "DECIMAL(38,0)", "decimal"),
    ("DECIMAL(9,2)", "4.10", "DECIMAL(9,2)", "decimal"),
    ("DECIMAL(38,18)", "-12345678901234567890.123456789012345678", "DECIMAL(38,18)", "decimal"),
    ("FLOAT", "0.1", "FLOAT", "float"),
    ("DOUBLE", "0.30000000000000004", "DOUBLE", "double"),
    ("DOUBLE", "nan", "DOUBLE", "double"),
    ("DOUBLE", "-inf", "DOUBLE", "double"),
    ("DATE", "0001-01-01", "DATE", "date"),
    ("DATE", "0044-03-15 (BC)", "DATE", "date"),
    ("DATE", "infinity", "DATE", "date"),
    ("TIME", "23:59:59.999999", "TIME", "time-micros"),
    ("TIMESTAMP", "2024-01-31 08:00:00.123456", "TIMESTAMP", "local-timestamp-micros"),
    ("TIMESTAMP", "-infinity", "TIMESTAMP", "local-timestamp-micros"),
    ("TIMESTAMP_S", "2024-01-31 08:00:00", "TIMESTAMP", "local-timestamp-micros"),
    ("TIMESTAMP_MS", "2024-01-31 08:00:00.123", "TIMESTAMP", "local-timestamp-micros"),
    ("TIMESTAMPTZ", "2024-01-31 06:00:00.123456+00", "TIMESTAMP WITH TIME ZONE", "timestamp-micros"),
    ("UUID", "c0b2d3f1-0000-4000-8000-000000000000", "VARCHAR", "uuid"),
    ("VARCHAR", "Ärger 漢字 😀", "VARCHAR", "string"),
    ("ENUM('a', 'b, (c')", "b, (c", "VARCHAR", "string"),
    ("JSON", '{"a": 1}', "VARCHAR", "string"),
    ("BLOB", "\\x00\\xFFa", "BLOB", "bytes"),
]


@pytest.mark.parametrize(("kind", "value", "found", "avro"), VALUES)
def test_values_come_back_as_they_were(folder, export, kind, value, found, avro):
    query = f"SELECT 1 AS i, '{value}'::{kind} AS v UNION ALL SELECT 2, NULL"
    assert export(query).rows == 2
    written = schema(folder)["v"]
    assert (written if isinstance(written, str) else written["logicalType"]) == avro
    with duckdb.connect() as connection, folder.open("AVRO", path="a.avro") as source:
        connection.execute("SET TimeZone = 'UTC'")
        # The file is there as long as the batch is.
        batches = source.read(source.streams()[0], None)
        batch = next(batches)
        read = batch.query(lambda asked: connection.execute(asked).fetchall())
        text = f"SELECT typeof(v), CAST(v AS VARCHAR) FROM ({read}) ORDER BY i"
        assert connection.execute(text).fetchall() == [(found, value), (found, None)]


NESTED = """
    SELECT {'a': [1, NULL, 3], 'b': {'c': 'x', 'd': [1.25::DECIMAL(9,2)]}} AS s, []::INTEGER[] AS e,
      MAP{'k': {'t': TIMESTAMP '2024-01-01 10:00:00', 'm': MAP{'n': [DATE '2024-01-02', NULL]}}} AS m,
      [MAP{'x': 1}, NULL, MAP{}::MAP(VARCHAR, INTEGER)] AS l, {'u': 'c0b2d3f1-0000-4000-8000-000000000000'::UUID} AS u,
      [{'f': TIMESTAMPTZ '2024-01-01 10:00:00+00'}, NULL] AS f, [1, 2]::INTEGER[2] AS two
    UNION ALL SELECT NULL, NULL, NULL, NULL, NULL, NULL, NULL
"""


def test_nested_values_are_records_arrays_and_maps(folder, export):
    assert export(NESTED).rows == 2
    found = records(folder)
    local = dt.datetime(2024, 1, 1, 10)
    assert found[0] == {
        "s": {"a": [1, None, 3], "b": {"c": "x", "d": [Decimal("1.25")]}},
        "e": [],
        "m": {"k": {"t": local, "m": {"n": [dt.date(2024, 1, 2), None]}}},
        "l": [{"x": 1}, None, {}],
        "u": {"u": uuid.UUID("c0b2d3f1-0000-4000-8000-000000000000")},
        "f": [{"f": local.replace(tzinfo=dt.UTC)}, None],
        "two": [1, 2],
    }
    assert set(found[1].values()) == {None}
    assert folder.rows("AVRO", path="a.avro")[0][:2] == (
        {"a": [1, None, 3], "b": {"c": "x", "d": [Decimal("1.25")]}},
        [],
    )


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT INTERVAL 1 DAY AS v", r"'v' is INTERVAL, which Avro cannot hold as it is; write CAST\(\"v\" AS VARCHAR\)"),
        ("SELECT TIMESTAMP_NS '2024-01-01 00:00:00' AS v", r"CAST\(\"v\" AS TIMESTAMP\), which cuts nanoseconds"),
        ("SELECT [TIMESTAMP_NS '2024-01-01 00:00:00'] AS v", "TIMESTAMP_NS"),
        ("SELECT TIMETZ '10:00:00+02' AS v", "TIME WITH TIME ZONE, which Avro cannot hold"),
        ("SELECT '101'::BIT AS v", "BIT, which Avro cannot hold"),
        ("SELECT 170141183460469231731687303715884105727::HUGEINT AS v", "DECIMAL"),
        ("SELECT MAP{1: 2} AS v", "the keys of an Avro map are text, and these are INTEGER"),
        ('SELECT 1 AS "Total revenue"', "'Total revenue' is no name that Avro allows.*write AS Total_revenue"),
        ('SELECT 1 AS "1st"', "write AS _1st"),
        ("SELECT {'a b': 1} AS v", "'a b' is no name"),
    ],
)  # fmt: skip
def test_what_avro_cannot_hold_is_refused_with_a_way_out_and_the_old_file_stays(folder, export, query, says):
    export("SELECT 7 AS old")
    with pytest.raises(ExportFailed, match=says):
        export(query)
    assert records(folder) == [{"old": 7}]
    assert sorted(path.name for path in folder.root.iterdir() if "a.avro" in path.name) == ["a.avro"]


@pytest.mark.parametrize(
    ("given", "codec"),
    [(None, "deflate"), ("none", "null"), ("null", "null"), ("snappy", "snappy"), ("zstd", "zstandard")],
)
def test_blocks_are_compressed_as_asked(folder, export, given, codec):
    export("SELECT range AS id FROM range(25000)", **({"compression": given} if given else {}))
    with (folder.root / "a.avro").open("rb") as file:
        reader = fastavro.reader(file)
        assert reader.metadata["avro.codec"] == codec
        assert [row["id"] for row in reader] == list(range(25_000))
    assert len(folder.rows("AVRO", path="a.avro")) == 25_000


@pytest.mark.parametrize("options", [{"compression": "bz2"}, {"partition_by": "id"}])
def test_options_of_other_formats_are_refused(export, options):
    with pytest.raises(BadOption):
        export("SELECT 1 AS id", **options)


def test_an_avro_object_of_a_store_is_written_and_read(bench, bucket):
    params = {name: value for name, value in bucket.params.items() if name != "bucket"}
    told = ", ".join(f'"{name}": "{value}"' for name, value in params.items())
    bench.pipeline(
        f'EXPORT SELECT range AS id, range::DECIMAL(9,2) AS v FROM range(5) TO "s3://{bucket.name}/a.avro" OPTIONS {{{told}}};'
    )
    bench.ok()
    bench.pipeline(
        f'SOURCE s TYPE S3 PARAMS {{"bucket": "{bucket.name}", "key": "a.avro", {told}}};\nLOAD t FROM s;'
    )
    bench.ok()
    assert bench.query("SELECT sum(id), sum(v) FROM p.t") == [(10, Decimal("10.00"))]
