"""Exports to files: what is written is read back as it was, or the old file is still there."""

import contextlib
import ctypes
import json
import os
import resource
import subprocess
import sys
import textwrap
import threading
from decimal import Decimal

import pyarrow.parquet as pq
import pytest

from sqlflow_dagster.connectors import registry
from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.errors import BadOption, ExportFailed, NotAllowed, SQLFlowError
from sqlflow_dagster.sql import literal, quote
from sqlflow_dagster.warehouse.duckdb import Warehouse, WarehouseSettings
from sqlflow_dagster.warehouse.result import rows
from sqlflow_dagster.warehouse.udf import Functions

FORMATS = ["CSV", "TSV", "JSON", "JSONL", "PARQUET", "AVRO"]
SUFFIX = {"CSV": "csv", "TSV": "tsv", "JSON": "json", "JSONL": "jsonl", "PARQUET": "parquet", "AVRO": "avro"}


@pytest.fixture
def shop(folder):
    """A project that can write the result of a query to a file."""
    folder.warehouse = Warehouse(
        WarehouseSettings(path=folder.root / "data/w.duckdb", state_directory=folder.root / ".sqlflow")
    )
    (folder.root / "data").mkdir()

    def export(query, type_, target, **options):
        kind = registry.find(type_)
        given = parse(kind.sink_options_type, options)[0]
        with rows(folder.warehouse, query, Functions(folder.root / "udfs")) as result:
            return kind.write(result, target, given, folder.place)

    folder.export = export
    return folder


TEXTS = [
    "",
    None,
    "a,b",
    'say "x"',
    "two\nlines",
    "tab\there",
    "cr\r\nlf",
    "  padded ",
    "NULL",
    "'",
    "\\n",
    "Ärger 漢字 😀",
    ";",
]


@pytest.mark.parametrize("type_", FORMATS)
def test_texts_come_back_as_they_were(shop, type_):
    values = ", ".join(
        f"({i}, {'NULL' if t is None else chr(39) + t.replace(chr(39), chr(39) * 2) + chr(39)})"
        for i, t in enumerate(TEXTS)
    )
    target = f"out/a.{SUFFIX[type_]}"
    written = shop.export(f"SELECT * FROM (VALUES {values}) AS v(i, t)", type_, target)
    assert (written.rows, written.bytes) == (len(TEXTS), (shop.root / target).stat().st_size)
    assert [row[1] for row in shop.rows(type_, path=target, types={"t": "VARCHAR"})] == TEXTS


VALUES = {
    "DECIMAL(38,18)": "12345678901234567890.123456789012345678",
    "DECIMAL(9,2)": "4.10",
    "BIGINT": "-9223372036854775808",
    "UBIGINT": "18446744073709551615",
    "DOUBLE": "0.30000000000000004",
    "FLOAT": "0.1",
    "BOOLEAN": "true",
    "DATE": "0001-01-01",
    "TIMESTAMP": "2024-01-31 08:00:00.123456",
    "TIMESTAMPTZ": "2024-01-31 06:00:00.123456+00",
    "TIMESTAMP_NS": "2024-01-31 08:00:00.123456789",
    "TIME": "23:59:59.999999",
    "UUID": "c0b2d3f1-0000-4000-8000-000000000000",
    "HUGEINT": "99999999999999999999999999999999999999",
    "INTERVAL": "1 month 2 days 00:00:03.123456",
    "BLOB": "\\x00\\xFFa",
}
ODD = {
    "DOUBLE": ["nan", "inf", "-inf", "-0.0", "5e-324"],
    "DATE": ["infinity", "-infinity", "0044-03-15 (BC)", "9999-12-31"],
    "TIMESTAMP": ["infinity", "-infinity"],
    "TIMESTAMPTZ": ["infinity"],
    "INTERVAL": ["-1 day"],
    "HUGEINT": ["-1"],
}
CASES = [*VALUES.items()] + [(k, v) for k, vs in ODD.items() for v in vs]


@pytest.mark.parametrize("type_", ["CSV", "JSONL", "PARQUET"])
@pytest.mark.parametrize(("kind", "value"), CASES)
def test_values_come_back_as_they_were(shop, type_, kind, value):
    target = f"a.{SUFFIX[type_]}"
    shop.export(f"SELECT 1 AS i, '{value}'::{kind} AS v UNION ALL SELECT 2, NULL", type_, target)
    # Parquet has its types; elsewhere they are said, and what has no such type is its text.
    types = {} if type_ == "PARQUET" else {"v": kind}
    with contextlib.closing(__import__("duckdb").connect()) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        with shop.open(type_, path=target, types=types) as source:
            for batch in source.read(source.streams()[0], None):
                query = (
                    batch.query(lambda q: connection.execute(q).fetchall())
                    if callable(batch.query)
                    else batch.query
                )
                found = connection.execute(f"SELECT CAST(v AS VARCHAR) FROM ({query}) ORDER BY i").fetchall()
    assert found == [(value,), (None,)]


@pytest.mark.parametrize("type_", ["JSON", "JSONL", "PARQUET", "AVRO"])
def test_nested_values_come_back_as_they_were(shop, type_):
    query = "SELECT {'a': [1, NULL, 3], 'b': {'c': 'x', 'd': [1.25::DECIMAL(9,2)]}} AS s, [] AS e, MAP{'k': 1.5::DOUBLE} AS m"
    target = f"a.{SUFFIX[type_]}"
    shop.export(query, type_, target)
    (row,) = shop.rows(type_, path=target)
    assert row[0] == {"a": [1, None, 3], "b": {"c": "x", "d": [1.25]}}
    assert row[1] == []
    assert row[2] in ({"k": 1.5}, {"key": ["k"], "value": [1.5]})


ODD_NUMBERS = """SELECT '{"a": 1.50, "b": 12345678901234567890.123456789, "c": [1e400, NaN, "1.10, NaN", -inf]}'::JSON AS j,
    'NaN'::DOUBLE AS n, [1.5, '-inf'::DOUBLE, NULL] AS l, {'x': 'inf'::FLOAT, 'j': '0.1000000000000000000001'::JSON} AS s,
    MAP {'k': 'nan'::DOUBLE} AS m, NULL::DOUBLE AS d, NULL::STRUCT(x DOUBLE) AS e, 'null'::JSON AS z"""


@pytest.mark.parametrize("type_", ["JSON", "JSONL"])
def test_json_has_each_digit_and_no_number_that_json_has_not(shop, type_):
    shop.export(ODD_NUMBERS, type_, f"out/a.{SUFFIX[type_]}")
    text = (shop.root / f"out/a.{SUFFIX[type_]}").read_text()
    read = json.loads(text, parse_float=str, parse_constant=pytest.fail)
    row = read[0] if type_ == "JSON" else read
    big = ["1e400", "NaN", "1.10, NaN", "-inf"]
    assert row["j"] == {"a": row["j"]["a"], "b": "12345678901234567890.123456789", "c": big}
    assert (row["n"], row["l"], row["m"]) == ("NaN", ["1.5", "-Infinity", None], {"k": "NaN"})
    assert row["s"] == {"x": "Infinity", "j": "0.1000000000000000000001"}
    assert (float(row["j"]["a"]), row["d"], row["e"], row["z"]) == (1.5, None, None, None)


@pytest.mark.parametrize("given", ["v", ["v"], "v, w"])
def test_columns_to_quote_are_one_name_or_several(shop, given):
    shop.export("SELECT 1 AS i, 'x' AS v, 2 AS w", "CSV", "a.csv", force_quote=given)
    last = '"2"' if given == "v, w" else "2"
    assert (shop.root / "a.csv").read_text().splitlines()[1] == f'1,"x",{last}'


@pytest.mark.parametrize("number", ["1.10", "-0.0", "5.0", "-0", "2e3", "1E+05", "1.50e-7", "100", "0"])
@pytest.mark.parametrize(
    "form", ['{{"a": {0}, "b": "1.10 e1"}}', "[1, [{0}],{0} ]", '{{"a":{0},"b":1}}', "{0}"]
)
def test_numbers_inside_json_are_written_as_they_stand(shop, form, number):
    text = form.format(number)
    shop.export(f"SELECT '{text}'::JSON AS j", "JSONL", "a.jsonl")
    written = (shop.root / "a.jsonl").read_text()
    plain = json.loads(text, parse_float=str, parse_int=str)
    assert json.loads(written, parse_float=str, parse_int=str) == {"j": plain}


@pytest.mark.parametrize("value", ["0.1", "-1e-45", "3.4028235e38", "16777216", "123456.79", "-0.0"])
def test_json_has_the_shortest_text_of_a_float(shop, value):
    shop.export(f"SELECT {value}::FLOAT AS f, [{value}::FLOAT] AS l", "JSONL", "a.jsonl")
    row = json.loads((shop.root / "a.jsonl").read_text())
    assert (repr(row["f"]), row["l"]) == (repr(float(value)), [float(value)])
    (read,) = shop.rows("JSONL", path="a.jsonl", types={"f": "FLOAT"})
    assert read[0] == ctypes.c_float(float(value)).value


def test_parquet_refuses_what_nobody_could_read_back(shop):
    with pytest.raises(ExportFailed, match="the column 'l' is a UNION"):
        shop.export("SELECT [union_value(n := 1)] AS l", "PARQUET", "a.parquet")


@pytest.mark.parametrize(("type_", "target"), [("EXCEL", "out/a.xlsx"), ("SQLITE", "out/a.sqlite/t")])
def test_long_numbers_inside_json_keep_their_digits_in_cells_and_tables_too(shop, type_, target):
    number = "12345678901234567890.123456789"
    shop.export(f"SELECT '{{\"a\": {number}}}'::JSON AS j", type_, target)
    path = {"path": target.removesuffix("/t"), **({"table": "t"} if type_ == "SQLITE" else {})}
    assert number in str(shop.read(type_, **path).rows[0][0])


def test_times_are_written_in_the_format_that_is_asked_for_inside_lists_too(shop):
    query = "SELECT DATE '2026-02-03' AS d, [DATE '2026-02-03', NULL] AS l, TIMESTAMP_NS '2026-02-03 04:05:06' AS t"
    shop.export(query, "JSONL", "out/a.jsonl", date_format="%d.%m.%Y", timestamp_format="%H:%M")
    text = (shop.root / "out/a.jsonl").read_text()
    assert text == '{"d":"03.02.2026","l":["03.02.2026",null],"t":"04:05"}\n'


def test_parquet_keeps_whole_numbers_that_it_would_round_also_in_nested_values(shop):
    big = "99999999999999999999999999999999999999"
    shop.export(
        f"SELECT [{{'x': {big}::HUGEINT}}] AS v, MAP{{'k': {big}::HUGEINT}} AS m", "PARQUET", "a.parquet"
    )
    assert pq.read_table(shop.root / "a.parquet").to_pylist() == [
        {"v": [{"x": Decimal(big)}], "m": [("k", Decimal(big))]}
    ]
    with pytest.raises(ExportFailed, match="DECIMAL"):
        shop.export("SELECT 170141183460469231731687303715884105727::HUGEINT AS v", "PARQUET", "a.parquet")


@pytest.mark.parametrize("type_", FORMATS)
def test_an_empty_result_replaces_the_file_and_keeps_its_columns(shop, type_):
    target = f"a.{SUFFIX[type_]}"
    shop.export("SELECT 1 AS id, 'x' AS v", type_, target)
    assert shop.export("SELECT 1 AS id, 'x' AS v WHERE false", type_, target).rows == 0
    result = shop.read(type_, path=target, types={"id": "INTEGER"})
    assert (next(iter(result.columns)), result.rows) == ("id", [])


def test_options_of_csv_are_followed(shop):
    query = "SELECT DATE '2024-01-31' AS d, NULL AS n, 'NA' AS t, 'x' AS q, '' AS e"
    shop.export(
        query,
        "CSV",
        "a.csv",
        delimiter=";",
        null_value="NA",
        date_format="%d.%m.%Y",
        force_quote=["q"],
        header=False,
    )
    assert (shop.root / "a.csv").read_text() == '31.01.2024;NA;"NA";"x";\n'


@pytest.mark.parametrize("type_", [*FORMATS, "EXCEL"])
@pytest.mark.parametrize("mode", ["overwrite", "REPLACE", "w"])
def test_options_that_say_what_an_export_of_a_file_does_anyway_are_taken(shop, type_, mode):
    target = f"a.{SUFFIX.get(type_, 'xlsx')}"
    text = {"encoding": "UTF8"} if type_ in ("CSV", "TSV", "JSON", "JSONL") else {}
    for _run in (1, 2):
        shop.export("SELECT 'Ä' AS v", type_, target, mode=mode, index=False, **text)
    result = shop.read(type_, path=target)
    assert (list(result.columns), result.rows) == (["v"], [("Ä",)])


@pytest.mark.parametrize("type_", [*FORMATS, "EXCEL"])
@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("mode", "append", "mode: a file is written anew each time; for `append`, keep the rows in a table"),
        ("write_mode", "a", "for `append`"),
        ("if_exists", "upsert", "for `upsert`"),
        ("mode", "x", "mode: input should be 'replace'"),
        ("index", True, r"index: an export has no numbers of rows; select row_number\(\)"),
        ("encoding", "latin-1", "encoding"),
    ],
)
def test_options_that_a_file_cannot_follow_are_refused(shop, type_, option, value, says):
    with pytest.raises(BadOption, match=says):
        shop.export("SELECT 1 AS id", type_, f"a.{SUFFIX.get(type_, 'xlsx')}", **{option: value})


@pytest.mark.parametrize("size", [1, 100, 3000])
def test_row_groups_of_any_size_are_taken(shop, size):
    shop.export("SELECT range AS id FROM range(5000)", "PARQUET", "a.parquet", row_group_size=size)
    assert shop.rows("PARQUET", path="a.parquet") == [(i,) for i in range(5000)]


@pytest.mark.parametrize("type_", ["POSTGRES", "MYSQL", "SQLITE", "DUCKDB"])
@pytest.mark.parametrize(
    ("written", "mode"), [("overwrite", "replace"), ("merge", "upsert"), ("append", "append")]
)
def test_modes_of_exports_to_tables_have_the_names_that_others_give_them(type_, written, mode):
    given = parse(registry.find(type_).sink_options_type, {"table": "t", "keys": "id", "mode": written})[0]
    assert given.mode == mode


@pytest.mark.parametrize(
    ("type_", "options"),
    [
        ("POSTGRES", {"target_table": "t", "batch_size": 1000, "min_connections": 1, "max_connections": 5}),
        ("S3", {"bucket": "b", "part_size": 5_242_880, "use_multipart": True}),
    ],
)
def test_options_of_the_first_exporters_that_need_no_honouring_are_told(type_, options):
    _given, notices = parse(registry.find(type_).sink_options_type, options)
    idle = [name for name in options if name not in ("target_table", "bucket")]
    assert [notice.partition(":")[0] for notice in notices] == idle


@pytest.mark.parametrize("type_", ["CSV", "JSONL"])
@pytest.mark.parametrize("suffix", ["gz", "zst", "bz2", "xz", "lz4", "br"])
def test_a_target_is_compressed_as_its_suffix_says(shop, type_, suffix):
    target = f"a.{SUFFIX[type_]}.{suffix}"
    written = shop.export("SELECT range AS id, 'x' || range AS v FROM range(10000)", type_, target)
    assert written.bytes < 100_000
    assert shop.rows(type_, path=target) == [(i, f"x{i}") for i in range(10_000)]
    assert [path.name for path in shop.root.iterdir() if path.name.startswith(".a")] == []


def test_the_compression_that_is_asked_for_is_used(shop):
    shop.export("SELECT 1 AS id", "CSV", "a.csv", compression="bzip2")
    assert (shop.root / "a.csv").read_bytes()[:3] == b"BZh"
    assert shop.rows("CSV", path="a.csv", compression="bz2") == [(1,)]


@pytest.mark.parametrize(
    ("type_", "target", "says"),
    [
        ("CSV", "a.csv.snappy", "snappy files are not written"),
        ("CSV", "a.csv.zip", "zip files are not written"),
        ("PARQUET", "a.parquet.gz", "compressed inside"),
        ("AVRO", "a.avro.gz", "compressed inside"),
        ("CSV", "data", "is a folder"),
    ],
)
def test_what_cannot_be_written_as_asked_is_refused(shop, type_, target, says):
    with pytest.raises(BadOption, match=says):
        shop.export("SELECT 1 AS id", type_, target)
    assert not (shop.root / target).is_file()


@pytest.mark.parametrize("target", ["../a.csv", "/tmp/a.csv", "link/a.csv", "file:///etc/a.csv"])
def test_nothing_is_written_outside_the_project(shop, tmp_path, target):
    (shop.root / "link").symlink_to(tmp_path)
    with pytest.raises(NotAllowed):
        shop.export("SELECT 1 AS id", "CSV", target)
    assert not list(tmp_path.glob("*.csv"))


@contextlib.contextmanager
def file_size_limit(limit):
    """As a full disk: writing beyond `limit` bytes fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("target", ["a.csv", "a.csv.gz", "a.csv.xz", "a.parquet", "a.jsonl", "a.avro"])
def test_a_full_disk_leaves_the_old_file(shop, target):
    type_ = {value: key for key, value in SUFFIX.items()}[target.split(".")[1]]
    shop.export("SELECT 1 AS id", type_, target)
    before = (shop.root / target).read_bytes()
    query = "SELECT md5(range::VARCHAR) || uuid()::VARCHAR AS id FROM range(200000)"
    with file_size_limit(2_000_000), pytest.raises(SQLFlowError):
        shop.export(query, type_, target)
    assert (shop.root / target).read_bytes() == before
    assert [path.name for path in shop.root.iterdir() if "part" in path.name or "plain" in path.name] == []
    assert list((shop.root / ".sqlflow/spool").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_an_error(shop):
    shop.write("out", "a file")
    with pytest.raises(ExportFailed, match="the file that was there is untouched"):
        shop.export("SELECT 1 AS id", "CSV", "out/a.csv")


def test_a_query_that_fails_midway_leaves_the_old_file(shop):
    shop.export("SELECT 1 AS id", "CSV", "a.csv")
    with pytest.raises(ExportFailed, match="too far"):
        shop.export(
            "SELECT CASE WHEN range > 500000 THEN error('too far') ELSE range END AS id FROM range(1000000)",
            "CSV",
            "a.csv",
        )
    assert (shop.root / "a.csv").read_text() == "id\n1\n"


def test_a_kill_before_the_file_is_in_its_place_leaves_the_old_one(shop):
    for target in ("a.csv", "parts"):
        options = {"partition_by": "id"} if target == "parts" else {}
        shop.export("SELECT 1 AS id, 2 AS v", "CSV", target, **options)
        code = f"""
            from pathlib import Path
            from sqlflow_dagster.connectors import registry
            from sqlflow_dagster.connectors.base import Place
            from sqlflow_dagster.connectors.options import parse
            from sqlflow_dagster.warehouse.duckdb import Warehouse, WarehouseSettings
            from sqlflow_dagster.warehouse.result import rows
            from sqlflow_dagster.warehouse.udf import Functions
            root = Path({str(shop.root)!r})
            warehouse = Warehouse(WarehouseSettings(path=root / "data/k.duckdb", state_directory=root / ".sqlflow"))
            kind = registry.find("CSV")
            with rows(warehouse, "SELECT 9 AS id, 9 AS v", Functions(root)) as result:
                kind.write(result, {target!r}, parse(kind.sink_options_type, {options!r})[0], Place(root, root / ".sqlflow/spool"))
        """
        env = {**os.environ, "SQLFLOW_FAILPOINT": "in_export:kill"}
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)], env=env, check=False, capture_output=True
        )
        assert done.returncode == -9, done.stderr.decode()
        assert shop.rows("CSV", path=target)[0][:1] in [(1,), (2,)]
        assert len(list(shop.root.glob(f".{target}-*"))) == 2
        assert shop.export("SELECT 3 AS id, 4 AS v", "CSV", target, **options).rows == 1
        # What was killed is gone with the next export of the same target.
        assert list(shop.root.glob(f".{target}*")) == []


def test_exports_to_one_target_at_once_leave_one_whole_file(shop):
    def export(number):
        warehouse = Warehouse(
            WarehouseSettings(
                path=shop.root / f"data/{number}.duckdb", state_directory=shop.root / f".s{number}"
            )
        )
        kind = registry.find("CSV")
        for _ in range(5):
            with rows(warehouse, f"SELECT {number} AS id FROM range(2000)", Functions(shop.root)) as result:
                kind.write(result, "a.csv", parse(kind.sink_options_type, {})[0], shop.place)

    threads = [threading.Thread(target=export, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = shop.rows("CSV", path="a.csv")
    assert len(found) == 2_000
    assert len(set(found)) == 1


@pytest.mark.parametrize("type_", ["CSV", "PARQUET"])
def test_partitions_are_folders_that_come_back_as_columns(shop, type_):
    values = [("a", 1), ("b/c", 2), (None, 3), ("007", 4), ("x=y", 5), ("Ärger", 6), ("a b", 7)]
    table = ", ".join(f"({'NULL' if k is None else repr(k)}, {v})" for k, v in values)
    written = shop.export(f"SELECT * FROM (VALUES {table}) AS t(k, v)", type_, "out", partition_by="k")
    assert (written.rows, written.target) == (7, str(shop.root / "out"))
    found = shop.read(type_, path="out")
    order = list(found.columns)
    assert sorted((row[order.index("v")], row[order.index("k")]) for row in found.rows) == [
        (v, k) for k, v in values
    ]


@pytest.mark.parametrize("type_", ["CSV", "PARQUET"])
@pytest.mark.parametrize("name", ["k", "a key", "k=%", "Ä"])
def test_odd_values_and_names_of_partitions_come_back(shop, type_, name):
    values = ["a=b", "a/b", "50%", "%41", "a b", " ", "a+b", "", "..", "a\nb", "x:y*?", "'", "日本", None]
    table = ", ".join(f"({'NULL' if k is None else literal(k)}, {v})" for v, k in enumerate(values))
    shop.export(
        f"SELECT k AS {quote(name)}, v FROM (VALUES {table}) AS t(k, v)", type_, "out", partition_by=name
    )
    found = shop.read(type_, path="out")
    order = list(found.columns)
    assert sorted((row[order.index("v")], row[order.index(name)]) for row in found.rows) == list(
        enumerate(values)
    )
    for number, value in enumerate(values):
        filtered = shop.read(type_, path="out", partition_filter={name: [value]})
        assert [row[order.index("v")] for row in filtered.rows] == [number], value


@pytest.mark.parametrize("type_", ["CSV", "PARQUET"])
@pytest.mark.parametrize("kind", ["VARCHAR", "ENUM ('a', '__HIVE_DEFAULT_PARTITION__')"])
def test_a_text_that_stands_for_null_in_names_of_partitions_is_refused(shop, type_, kind):
    shop.export("SELECT 1 AS k, 2 AS v", type_, "out", partition_by="k")
    rows = f"SELECT CAST(k AS {kind}) AS k, v FROM (VALUES ('__HIVE_DEFAULT_PARTITION__', 8), (NULL, 4)) AS t(k, v)"
    with pytest.raises(ExportFailed, match="a value of k is the text __HIVE_DEFAULT_PARTITION__"):
        shop.export(rows, type_, "out", partition_by="k")
    assert [path.name for path in (shop.root / "out").iterdir()] == ["k=1"]
    assert shop.export(rows, type_, "one").rows == 2


@pytest.mark.parametrize("text", ["'x'", "'ä'"])
def test_a_value_too_long_for_the_name_of_a_folder_is_refused(shop, text):
    each = {"'x'": 1, "'ä'": 6}[text]
    fits = (255 - len("k=")) // each
    shop.export(f"SELECT repeat({text}, {fits}) AS k, 1 AS v", "CSV", "out", partition_by=["k"])
    assert len(shop.rows("CSV", path="out")[0][1]) == fits
    with pytest.raises(ExportFailed, match="a value of k is longer than the name of a folder may be"):
        shop.export(f"SELECT repeat({text}, {fits + 1}) AS k, 1 AS v", "CSV", "out", partition_by=["k"])


def test_a_new_export_of_partitions_takes_the_place_of_the_old_one_whole(shop):
    shop.export("SELECT 1 AS k, 2 AS v UNION ALL SELECT 2, 2", "PARQUET", "out", partition_by=["k"])
    shop.export("SELECT 3 AS k, 2 AS v", "PARQUET", "out", partition_by=["k"])
    assert [path.name for path in (shop.root / "out").iterdir()] == ["k=3"]
    with pytest.raises(ExportFailed):
        shop.export("SELECT 4 AS k, error('no') AS v", "PARQUET", "out", partition_by=["k"])
    assert [path.name for path in (shop.root / "out").iterdir()] == ["k=3"]
    assert shop.export("SELECT 4 AS k, 5 AS v WHERE false", "PARQUET", "out", partition_by=["k"]).rows == 0
    assert list((shop.root / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "target", "says"),
    [
        ({"partition_by": "nope"}, "out", "the query gives no column nope"),
        ({"partition_by": ["k", "v"]}, "out", "no column would be left"),
        ({"partition_by": "k", "compression": "bz2"}, "out", "none, gzip or zstd"),
        ({"partition_by": "k"}, "a.txt", "is a file"),
        ({"partition_by": "k", "type_": "JSON"}, "out", "written as one file"),
        ({"partition_by": "k"}, "data", "would be removed"),
    ],
)
def test_partitions_that_cannot_be_written_are_refused(shop, options, target, says):
    shop.write("a.txt", "x")
    shop.write("data/x.csv", "x")
    with pytest.raises(BadOption, match=says):
        shop.export("SELECT 1 AS k, 2 AS v", **{"type_": "CSV", "target": target, **options})
    assert (shop.root / "data/x.csv").exists()
