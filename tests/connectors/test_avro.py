"""Avro files, written by fastavro: types, broken files, and fields that are no columns."""

from __future__ import annotations

import datetime as dt
import io
from decimal import Decimal

import fastavro
import pytest

from sqlflow_dagster.errors import SourceFailed

UTC = dt.UTC


def avro(kind, values, codec="null", **more):
    schema = {"type": "record", "name": "row", "fields": [{"name": "c", "type": kind}]}
    made = io.BytesIO()
    fastavro.writer(
        made, fastavro.parse_schema(schema), [{"c": value} for value in values], codec=codec, **more
    )
    return made.getvalue()


def logical(kind, called, /, **more):
    return {"type": kind, "logicalType": called, **more}


MOMENT = dt.datetime(2024, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("kind", "value", "type_", "text"),
    [
        ("long", 2**63 - 1, "BIGINT", "9223372036854775807"),
        ("int", -5, "INTEGER", "-5"),
        ("double", 1e300, "DOUBLE", "1e+300"),
        ("boolean", True, "BOOLEAN", "true"),
        (["null", "string"], None, "VARCHAR", None),
        ("bytes", b"\x00a", "BLOB", r"\x00a"),
        (logical("bytes", "decimal", precision=38, scale=2), Decimal("-123456789012345678901234567890123456.78"),
         "DECIMAL(38,2)", "-123456789012345678901234567890123456.78"),
        (logical("fixed", "decimal", precision=12, scale=2, name="f", size=8), Decimal("1.50"), "DECIMAL(12,2)", "1.50"),
        (logical("long", "timestamp-micros"), MOMENT, "TIMESTAMP WITH TIME ZONE", "2024-01-02 03:04:05.123456+00"),
        # A year that Python has no time of.
        (logical("long", "timestamp-micros"), 4 * 10**17, "TIMESTAMP WITH TIME ZONE", "14645-06-30 15:06:40+00"),
        (logical("long", "timestamp-millis"), MOMENT.replace(microsecond=0), "TIMESTAMP WITH TIME ZONE",
         "2024-01-02 03:04:05+00"),
        (logical("long", "local-timestamp-micros"), MOMENT.replace(tzinfo=None), "TIMESTAMP", "2024-01-02 03:04:05.123456"),
        (logical("int", "date"), dt.date(1, 1, 1), "DATE", "0001-01-01"),
        (logical("long", "time-micros"), dt.time(1, 2, 3, 4), "TIME", "01:02:03.000004"),
        ({"type": "enum", "name": "e", "symbols": ["A", "B"]}, "B", "VARCHAR", "B"),
        ({"type": "array", "items": "long"}, [1, 2], "BIGINT[]", "[1, 2]"),
        ({"type": "map", "values": "long"}, {"a": 1}, "MAP(VARCHAR, BIGINT)", "{a=1}"),
        ({"type": "record", "name": "x", "fields": [{"name": "a", "type": ["null", "int"]}]}, {"a": None},
         "STRUCT(a INTEGER)", "{'a': NULL}"),
    ],
    ids=lambda item: str(item)[:30],
)  # fmt: skip
def test_every_type_comes_exactly(folder, kind, value, type_, text):
    folder.write("a.avro", avro(kind, [value]))
    with folder.open("AVRO", path="a.avro") as source:
        from .conftest import Table

        table = Table()
        for batch in source.read(source.streams()[0], None):
            table.take(batch)
    assert table.result().columns == {"c": type_}
    assert table.connection.execute("SELECT c::VARCHAR FROM t").fetchall() == [(text,)]


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "zstandard", "bzip2", "xz"])
def test_every_codec_is_read(folder, codec):
    folder.write("a.avro", avro("long", range(1000), codec))
    assert len(folder.rows("AVRO", path="a.avro")) == 1000


@pytest.mark.fault
@pytest.mark.parametrize("left", [10, 0.3, 0.7, -1])
def test_a_file_that_was_cut_off_is_an_error(folder, left):
    whole = avro("long", range(10_000), "deflate")
    folder.write("a.avro", whole[: left if left < 0 or left > 1 else int(len(whole) * left)])
    with pytest.raises(SourceFailed, match=r"a\.avro: it is no whole Avro file"):
        folder.read("AVRO", path="a.avro")


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        (["null", "long", "string"], 1, "one of several types"),
        ({"type": "record", "name": "node", "fields": [{"name": "next", "type": ["null", "node"]}]}, {"next": None},
         "contains itself"),
        (logical("bytes", "decimal", precision=40, scale=2), Decimal(1), "40 digits"),
        ({"type": "record", "name": "empty", "fields": []}, {}, "without fields"),
    ],
    ids=["union", "recursive", "decimal", "no-fields"],
)  # fmt: skip
def test_a_field_that_is_no_column_is_refused_or_left_out(folder, kind, value, said):
    folder.write("a.avro", avro(kind, [value]))
    with pytest.raises(SourceFailed, match=f"'c'.*{said}"):
        folder.read("AVRO", path="a.avro")
    assert len(folder.rows("AVRO", path="a.avro", exclude_columns=["c"])) == 1


@pytest.mark.parametrize("kind", ["record", "error"])
def test_a_record_that_contains_itself_is_read_without_that_field(folder, kind):
    fields = [{"name": "v", "type": "int"}, {"name": "next", "type": ["null", "node"]}]
    made = io.BytesIO()
    rows = [{"v": 1, "next": {"v": 2, "next": None}}]
    fastavro.writer(made, {"type": kind, "name": "node", "fields": fields}, rows)
    folder.write("a.avro", made.getvalue())
    with pytest.raises(SourceFailed, match="'next' contains itself"):
        folder.read("AVRO", path="a.avro")
    found = folder.read("AVRO", path="a.avro", exclude_columns=["next"])
    assert found.rows[0][0] == 1


def test_files_of_several_schemas_are_one_table_by_name(folder):
    folder.write("in/day=1/a.avro", avro("long", [1]))
    schema = {
        "type": "record",
        "name": "row",
        "fields": [{"name": "c", "type": "int"}, {"name": "d", "type": "string"}],
    }
    made = io.BytesIO()
    fastavro.writer(made, schema, [{"c": 2, "d": "x"}])
    folder.write("in/day=2/b.avro", made.getvalue())
    found = folder.read("AVRO", path="in", types={"day": "INTEGER"})
    assert found.columns == {"c": "BIGINT", "day": "INTEGER", "d": "VARCHAR"}
    assert sorted(found.rows) == [(1, 1, None), (2, 2, "x")]
