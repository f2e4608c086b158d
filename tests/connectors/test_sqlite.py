"""Tables, views and queries of an SQLite file, whatever their columns hold, and exports into one."""

import datetime as dt
import sqlite3
import subprocess
import sys
from contextlib import closing
from decimal import Decimal

import pytest

from sqlflow_dagster.connectors import sqlite_where
from sqlflow_dagster.connectors.base import Span
from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.connectors.registry import find
from sqlflow_dagster.connectors.sqlite_types import Column
from sqlflow_dagster.errors import (
    BadOption,
    ExportFailed,
    NotAllowed,
    PipelineError,
    RetryLater,
    SourceFailed,
)
from sqlflow_dagster.project import load_project
from sqlflow_dagster.sql import quote


def write(root, statements, name="data/app.sqlite"):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)
    return path


def read(folder, since=None, **params):
    return folder.read("SQLITE", since, **{"path": "data/app.sqlite", **params})


def column(folder, declared, *values, **params):
    """The type and the values of a column that holds these literals."""
    rows = ", ".join(f"({value})" for value in values)
    write(
        folder.root,
        f"DROP TABLE IF EXISTS t; CREATE TABLE t (c {declared});"
        + (f"INSERT INTO t VALUES {rows}" if rows else ""),
    )
    result = read(folder, table="t", **params)
    return result.columns["c"], [row[0] for row in result.rows]


@pytest.mark.parametrize(
    ("declared", "values", "kind", "expected"),
    [
        ("INTEGER", ["1", "NULL", "-9223372036854775808", "9223372036854775807"], "BIGINT", [1, None, -(2**63), 2**63 - 1]),
        ("INTEGER", ["1", "'x'"], "VARCHAR", ["1", "x"]),
        ("INTEGER", ["1", "4.7"], "DOUBLE", [1.0, 4.7]),
        ("INTEGER", ["9007199254740993", "4.7"], "VARCHAR", ["9007199254740993", "4.7"]),
        ("TINYINT", ["300"], "BIGINT", [300]),
        ("REAL", ["1", "0.1", "1e300", "5e-324", "9e999"], "DOUBLE", [1.0, 0.1, 1e300, 5e-324, float("inf")]),
        ("REAL", ["0.1", "'n/a'"], "VARCHAR", ["0.1", "n/a"]),
        ("NUMERIC", ["12345678901234567"], "BIGINT", [12345678901234567]),
        ("NUMERIC", ["12345678901234567", "0.5"], "VARCHAR", ["12345678901234567", "0.5"]),
        ("DECIMAL(10,2)", ["4.10", "7", "NULL"], "DECIMAL(10,2)", [Decimal("4.10"), Decimal(7), None]),
        ("DECIMAL(10,2)", ["4.155"], "DOUBLE", [4.155]),
        ("DECIMAL(4,2)", ["123"], "BIGINT", [123]),
        ("DECIMAL(4,2)", ["123.5"], "DOUBLE", [123.5]),
        ("DECIMAL(18,2)", ["12345678901234567"], "BIGINT", [12345678901234567]),
        ("decimal(20, 0)", ["12345678901234567"], "DECIMAL(20,0)", [Decimal(12345678901234567)]),
        ("BOOLEAN", ["0", "1", "NULL"], "BOOLEAN", [False, True, None]),
        ("BOOLEAN", ["0", "2"], "BIGINT", [0, 2]),
        ("BOOLEAN", ["'true'"], "VARCHAR", ["true"]),
        ("TEXT", ["'007'", "''", "NULL", "5"], "VARCHAR", ["007", "", None, "5"]),
        ("TEXT", ["'2024-01-31'"], "VARCHAR", ["2024-01-31"]),
        ("VARCHAR(2)", ["'longer'"], "VARCHAR", ["longer"]),
        ("TEXT", ["'a' || char(0) || 'b'", "'\N{GRINNING FACE}'"], "VARCHAR", ["a\0b", "\N{GRINNING FACE}"]),
        ("DATE", ["'2024-01-31'", "NULL"], "DATE", [dt.date(2024, 1, 31), None]),
        ("DATE", ["'2024-01-31'", "'2024-01-31 08:15:00'"], "TIMESTAMP", [dt.datetime(2024, 1, 31), dt.datetime(2024, 1, 31, 8, 15)]),
        ("DATE", ["1706688000"], "BIGINT", [1706688000]),
        ("DATE", ["2460340.5"], "DOUBLE", [2460340.5]),
        ("DATE", ["'2024-01-31'", "1706688000"], "VARCHAR", ["2024-01-31", "1706688000"]),
        ("DATE", ["'31.01.2024'"], "VARCHAR", ["31.01.2024"]),
        ("DATE", ["'2024-02-30'"], "VARCHAR", ["2024-02-30"]),
        ("DATETIME", ["'2024-01-31'", "'2024-01-31T08:15:00.5'"], "TIMESTAMP", [dt.datetime(2024, 1, 31), dt.datetime(2024, 1, 31, 8, 15, 0, 500_000)]),
        ("DATETIME", ["'2024-01-31T08:15:00+02:00'", "'2024-01-31 08:15:00Z'"], "TIMESTAMP WITH TIME ZONE", [dt.datetime(2024, 1, 31, 6, 15, tzinfo=dt.UTC), dt.datetime(2024, 1, 31, 8, 15, tzinfo=dt.UTC)]),
        ("DATETIME", ["'2024-01-31T08:15:00+02:00'", "'2024-01-31 08:15'"], "VARCHAR", ["2024-01-31T08:15:00+02:00", "2024-01-31 08:15"]),
        ("TIMESTAMP", ["'2024-01-31 08:15:00.123456789'"], "VARCHAR", ["2024-01-31 08:15:00.123456789"]),
        ("TIME", ["'08:15:00'"], "TIME", [dt.time(8, 15)]),
        ("BLOB", ["x'00ff'", "NULL", "x''"], "BLOB", [b"\0\xff", None, b""]),
        ("BLOB", ["'text'"], "VARCHAR", ["text"]),
        ("", ["1"], "BIGINT", [1]),
        ("", ["1", "0.25", "'x'"], "VARCHAR", ["1", "0.25", "x"]),
        ("UUID", ["'a'"], "VARCHAR", ["a"]),
        ("INTEGER", [], "BIGINT", []),
        ("DECIMAL(10,2)", [], "DECIMAL(10,2)", []),
        ("DATETIME", ["NULL"], "TIMESTAMP", [None]),
        ("BOOLEAN", [], "BOOLEAN", []),
    ],
    ids=str,
)  # fmt: skip
def test_a_column_has_the_type_of_its_values(folder, declared, values, kind, expected):
    found, rows = column(folder, declared, *values)
    assert found == kind
    assert [row.astimezone(dt.UTC) if kind.endswith("ZONE") else row for row in rows] == expected


def test_every_double_survives(folder):
    import random
    import struct

    random.seed(7)
    numbers = [struct.unpack("<d", random.randbytes(8))[0] for _ in range(3_000)]
    numbers = [number for number in numbers if number == number]  # noqa: PLR0124 - SQLite has no NaN
    with closing(sqlite3.connect(folder.write("data/app.sqlite", b""))) as connection:
        connection.execute("CREATE TABLE t (c REAL)")
        connection.executemany("INSERT INTO t VALUES (?)", [(number,) for number in numbers])
        connection.commit()
    assert [row[0] for row in read(folder, table="t").rows] == numbers


def test_blobs_among_other_values_are_refused(folder):
    with pytest.raises(
        SourceFailed, match=r"app\.sqlite, t: the column 'c' has BLOBs and other values; leave it out"
    ):
        column(folder, "BLOB", "x'00'", "'text'")


def test_text_that_is_not_utf8_is_an_error_that_says_what_to_do(folder):
    with pytest.raises(
        SourceFailed, match=r"app\.sqlite, t: a text is not UTF-8; read its column by a `query`"
    ):
        column(folder, "TEXT", "CAST(x'ff41' AS TEXT)")


@pytest.mark.parametrize(
    ("declared", "value", "kind", "expected"),
    [
        ("TEXT", "'4.15'", "DECIMAL(9,2)", Decimal("4.15")),
        ("TEXT", "'2024-01-31 08:15:00'", "TIMESTAMP", dt.datetime(2024, 1, 31, 8, 15)),
        ("INTEGER", "1", "VARCHAR", "1"),
        ("REAL", "4.1", "DECIMAL(9,2)", Decimal("4.10")),
        ("TEXT", """'{"a": [4.10, null]}'""", "STRUCT(a DECIMAL(9,2)[])", {"a": [Decimal("4.10"), None]}),
    ],
)
def test_a_declared_type_is_exact(folder, declared, value, kind, expected):
    assert column(folder, declared, value, types={"C": kind}) == (kind, [expected])


@pytest.mark.parametrize(("value", "kind"), [("4.7", "INTEGER"), ("4.155", "DECIMAL(9,2)"), ("'x'", "DATE")])
def test_a_value_that_a_declared_type_would_change_is_an_error(folder, value, kind):
    with pytest.raises(
        SourceFailed, match=rf"app\.sqlite, t: the value '{value.strip(chr(39))}' of column \"c\" is no"
    ):
        column(folder, "", value, types={"c": kind})


def test_a_part_of_json_that_a_declared_type_would_change_is_an_error(folder):
    with pytest.raises(SourceFailed, match=r"app\.sqlite, t: the value '4\.7' of column \"c\.a\" is no INT"):
        column(folder, "TEXT", """'{"a": 4.7}'""", types={"c": "STRUCT(a INTEGER)"})


SHOP = """
CREATE TABLE orders (id INTEGER PRIMARY KEY, changed DATETIME, amount DECIMAL(9,2), "we""ird 'n" TEXT);
INSERT INTO orders VALUES (1, '2026-01-01 10:00:00', 1.1, 'a'), (2, '2026-01-02 10:00:00', 2.2, 'b'), (3, NULL, NULL, NULL);
CREATE TABLE fact_a (x INTEGER, y INTEGER AS (x + 1));
INSERT INTO fact_a VALUES (1);
CREATE VIEW totals AS SELECT count(*) AS n, max(changed) AS changed FROM orders;
"""


@pytest.fixture
def shop(folder):
    write(folder.root, SHOP)
    return folder


def test_tables_views_and_queries_are_read(shop):
    result = read(shop, table="orders")
    assert result.columns == {
        "id": "BIGINT",
        "changed": "TIMESTAMP",
        "amount": "DECIMAL(9,2)",
        "we\"ird 'n": "VARCHAR",
    }
    assert read(shop, table="fact_a").rows == [(1, 2)]
    assert read(shop, table="totals").rows == [(3, "2026-01-02 10:00:00")]
    assert read(shop, query="SELECT id + 1 AS i FROM orders WHERE id < 2 -- one\n;").rows == [(2,)]
    assert list(read(shop, table="orders", columns=["ID"]).columns) == ["id"]


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"table": "gone"}, "there is no such table; it has fact_a, orders, totals"),
        ({"query": "SELECT nope FROM orders"}, "no such column: nope"),
        ({"query": "DELETE FROM orders"}, "syntax error"),
        ({"table": "orders", "types": {"gone": "DATE"}}, "`types` has the column 'gone'"),
        (
            {"table": "orders", "columns": ["gone", "nil"]},
            "`columns` has 'gone', 'nil', none of which is there",
        ),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_the_file(shop, params, match):
    with pytest.raises(SourceFailed, match=rf"(?s)app\.sqlite.*{match}"):
        read(shop, **params)
    assert len(read(shop, table="orders").rows) == 3


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda _folder: None, "there is no such file; .* has nothing"),
        (
            lambda folder: folder.write("data/app.sqlite", b"\0" * 8 + b"DUCK" + b"\0" * 20),
            "a DuckDB one: use TYPE DUCKDB",
        ),
        (lambda folder: folder.write("data/app.sqlite", "id,v\n1,2\n"), "no SQLite file but something else"),
        (
            lambda folder: folder.write("data/app.sqlite", b"SQLite format 3\0" + b"\1" * 20_000),
            r"app\.sqlite",
        ),
        (lambda folder: folder.write("data/app.sqlite", b""), "there is no such table; it has none"),
    ],
    ids=["missing", "duckdb", "csv", "garbage", "empty"],
)
def test_what_is_no_sqlite_file_is_an_error_that_names_it(folder, make, match):
    make(folder)
    with pytest.raises(SourceFailed, match=match):
        read(folder, table="t")


def test_a_file_outside_the_project_is_refused(folder, tmp_path):
    write(tmp_path, "CREATE TABLE t (a)", "other.sqlite")
    with pytest.raises(NotAllowed, match="outside the project"):
        read(folder, path="../other.sqlite", table="t")


def test_a_file_that_is_written_to_while_it_is_read_fails_the_read(shop):
    with shop.open("SQLITE", path="data/app.sqlite", table="orders") as source:
        batches = source.read(source.streams()[0], None)
        next(batches)
        write(shop.root, "INSERT INTO orders (id) VALUES (9)")
        with pytest.raises(RetryLater, match="was written to while it was read"):
            next(batches)


def test_a_file_that_another_program_holds_is_named(shop):
    code = f"import sqlite3, sys; c = sqlite3.connect({str(shop.root / 'data/app.sqlite')!r}, isolation_level=None); c.execute('BEGIN EXCLUSIVE'); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        with (
            shop.open("SQLITE", path="data/app.sqlite", timeout_seconds=0.05) as source,
            pytest.raises(RetryLater, match=r"app\.sqlite: another program holds it"),
        ):
            source.discover()
        with pytest.raises(RetryLater, match="another program holds it"):
            read(shop, table="orders", timeout_seconds=0.05)
        process.stdin.close()


def test_a_file_with_a_log_is_read_as_it_is(folder):
    path = write(folder.root, "PRAGMA journal_mode = WAL; CREATE TABLE t (a INTEGER);")
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("INSERT INTO t VALUES (7)")
        writer.commit()
        assert path.with_name("app.sqlite-wal").stat().st_size
        assert read(folder, table="t").rows == [(7,)]


def test_a_source_says_how_it_is(shop):
    with shop.open("SQLITE", path="data/app.sqlite", table="orders") as source:
        health = source.check()
    assert (health.ok, health.facts["tables"]) == (True, 3)


@pytest.mark.parametrize(
    ("params", "match"),
    [
        ({"schemas": "main"}, "schemas: an SQLite file has no schemas"),
        ({"query": "SELECT 1; SELECT 2"}, "query: write one SELECT"),
        ({"query": "SELECT 1) ; DELETE FROM orders; SELECT * FROM (SELECT 1"}, "query: write one SELECT"),
        ({"query": "-- nothing"}, "query: write one SELECT"),
        ({"query": "SELECT 1", "table": "t"}, "give only one of"),
    ],
)
def test_wrong_parameters_are_refused(params, match):
    with pytest.raises(BadOption, match=match):
        parse(find("SQLITE").options_type, {"path": "a.sqlite", **params})


@pytest.mark.parametrize(
    "params",
    [
        {"path": "sqlite:///data/app.sqlite"},
        {"path": "sqlite:///{root}/data/app.sqlite"},
        {"database": "data/app.sqlite"},
    ],
)
def test_a_file_may_be_a_url(shop, params):
    params = {name: value.replace("{root}", str(shop.root)) for name, value in params.items()}
    with shop.open("SQLITE", table="fact_a", **params) as source:
        assert source.check().ok


def test_semicolons_and_comments_around_a_query_are_fine(shop):
    query = "/* ; */ SELECT ';' AS a, 1 AS b -- one;\n ; -- and that is all"
    assert read(shop, query=query).rows == [(";", 1)]


# Whole runs.

INCREMENTAL = """
SOURCE app TYPE SQLITE PARAMS {
  "path": "data/app.sqlite", "%s": "%s", "sync_mode": "incremental", "cursor_field": "%s", "primary_key": "id"
};
LOAD orders FROM app;
"""


@pytest.mark.parametrize(
    ("declared", "values", "how"),
    [
        ("DATETIME", ["'2026-01-01 10:00:00'", "'2026-01-02 10:00:00'", "'2026-01-02 10:00:00'", "'2025-01-01'"], "table"),
        ("DATETIME", ["'2026-01-01T10:00:00+02:00'", "'2026-01-02T23:30:00-02:00'", "'2026-01-03T01:30:00Z'", "'2025-01-01T00:00:00Z'"], "table"),
        ("DATE", ["'2026-01-01'", "'2026-01-02'", "'2026-01-02'", "'2025-01-01'"], "table"),
        ("INTEGER", ["9", "10", "10", "1"], "table"),
        ("TEXT", ["'2026-01-01'", "'2026-01-02'", "'2026-01-02'", "'2025-01-01'"], "query"),
        ("REAL", ["9.5", "10.5", "10.5", "1.5"], "table"),
        ("", ["9", "10", "10", "1"], "query"),
    ],
)  # fmt: skip
def test_rows_from_the_cursor_on_are_loaded_once(bench, declared, values, how):
    old, last, equal, early = values
    write(
        bench.root,
        f"CREATE TABLE orders (id INTEGER, changed {declared}, v TEXT); INSERT INTO orders VALUES (1, {old}, 'a'), (2, {last}, 'b'), (3, NULL, 'n')",
    )
    bench.pipeline(
        INCREMENTAL
        % (how, {"table": "orders", "query": "SELECT * FROM orders WHERE id < 100"}[how], "changed")
    )
    assert bench.ok()["orders"].rows == 3
    write(bench.root, f"INSERT INTO orders VALUES (4, {equal}, 'd'), (5, {early}, 'late')")
    assert bench.ok()["orders"].rows == 3  # the boundary, the new one, and the one without a cursor
    bench.ok()
    assert bench.query("SELECT id, v FROM p.orders ORDER BY id") == [(1, "a"), (2, "b"), (3, "n"), (4, "d")]


def test_every_table_is_loaded_into_one_of_its_own(bench):
    write(bench.root, SHOP)
    bench.pipeline(
        'SOURCE app TYPE SQLITE PARAMS {"path": "data/app.sqlite", "tables": "*"};\nLOAD * FROM app;'
    )
    project = load_project(bench.root, undiscovered=True)
    (source,) = project.plan.undiscovered
    streams = project.discover(source)
    assert [stream.name for stream in streams] == ["fact_a", "orders", "totals"]
    assert streams[1].primary_key == ("id",)
    assert {name: outcome.rows for name, outcome in bench.ok().items()} == {
        "fact_a": 1,
        "orders": 3,
        "totals": 1,
    }


def test_filters_and_masks_hold(bench):
    write(bench.root, SHOP)
    bench.pipeline(
        'SOURCE app TYPE SQLITE PARAMS {"path": "data/app.sqlite", "table": "orders", "columns": ["id", "changed"], "mask": ["changed"], "filters": {"id": {">=": 2, "<": 9}, "amount": ">= 2"}};\nLOAD orders FROM app;'
    )
    bench.ok()
    assert bench.query("SELECT id, length(changed) FROM p.orders ORDER BY id") == [(2, 64)]


# Exports.


def export(bench, query, target="sqlite://data/out.sqlite/t", options="", **session):
    bench.pipeline(f'EXPORT {query} TO "{target}" {options};')
    (outcome,) = bench.ok(**session).values()
    return outcome


def look(bench, query="SELECT * FROM t", name="data/out.sqlite"):
    with closing(sqlite3.connect(bench.root / name)) as connection:
        return connection.execute(query).fetchall()


STORED = {
    "i": ("42", "INTEGER", 42), "b": ("9223372036854775807", "INTEGER", 2**63 - 1), "u": ("18446744073709551615::UBIGINT", "TEXT", str(2**64 - 1)),
    "h": ("170141183460469231731687303715884105727", "TEXT", str(2**127 - 1)),
    "d": ("4.10::DECIMAL(9,2)", "DECIMAL(9,2)", 4.1), "w": ("12345678901234567.89::DECIMAL(20,2)", "TEXT", "12345678901234567.89"),
    "f": ("0.1::DOUBLE", "REAL", 0.1), "inf": ("'inf'::DOUBLE", "REAL", float("inf")), "yes": ("true", "BOOLEAN", 1), "n": ("NULL::VARCHAR", "TEXT", None),
    "e": ("''", "TEXT", ""), "t": ("'007'", "TEXT", "007"), "z": ("chr(0) || 'x'", "TEXT", "\0x"),
    "day": ("DATE '2024-01-31'", "DATE", "2024-01-31"), "ts": ("TIMESTAMP '2024-01-31 08:15:00.5'", "TIMESTAMP", "2024-01-31 08:15:00.5"),
    "tz": ("TIMESTAMPTZ '2024-01-31 08:15:00+02'", "TIMESTAMPTZ", "2024-01-31 06:15:00+00"), "c": ("TIME '08:15:00'", "TIME", "08:15:00"),
    "bl": ("'\\x00\\x5C\\xffa'::BLOB", "BLOB", b"\0\\\xffa"), "s": ("{'a': [1.50::DECIMAL(9,2), NULL]}", "TEXT", '{"a": [1.5, null]}'),
    "j": ("'\"x\"'::JSON", "TEXT", '"x"'), "iv": ("INTERVAL '1 day'", "TEXT", "1 day"),
}  # fmt: skip


def test_every_type_is_stored_as_it_is(bench):
    export(bench, "SELECT " + ", ".join(f'{value} AS "{name}"' for name, (value, _, _) in STORED.items()))
    assert dict(look(bench, "SELECT name, type FROM pragma_table_info('t')")) == {
        n: kind for n, (_, kind, _) in STORED.items()
    }
    (row,) = look(bench)
    assert dict(zip(STORED, row, strict=True)) == {name: value for name, (_, _, value) in STORED.items()}


def test_what_was_written_is_read_back(bench):
    bench.pipeline(
        "CREATE TABLE t AS SELECT range AS id, range / 7 AS f, (range / 4)::DECIMAL(9,2) AS d, range % 2 = 0 AS yes, DATE '2024-01-01' + range::INT AS day,"
        " TIMESTAMP '2024-01-01' + to_seconds(range) AS ts, TIMESTAMPTZ '2024-01-01 00:00:00+00' + to_seconds(range) AS tz, TIME '00:00:00' AS c, 'x' || range AS t,"
        " 'a'::BLOB AS b, CASE WHEN range % 3 = 0 THEN '' END AS e FROM range(500);\n"
        'EXPORT t TO "sqlite://out/a.sqlite/t";'
    )
    bench.ok()
    bench.pipeline(
        'SOURCE s TYPE SQLITE PARAMS {"path": "out/a.sqlite", "table": "t"};\nLOAD back FROM s;', "q"
    )
    bench.ok("q")
    assert bench.query("SELECT count(*) FROM (FROM p.t EXCEPT ALL FROM q.back)") == [(0,)]
    assert bench.query("SELECT count(*) FROM q.back") == [(500,)]
    assert bench.query("SELECT column_type FROM (DESCRIBE p.t)") == bench.query(
        "SELECT column_type FROM (DESCRIBE q.back)"
    )


def test_replace_keeps_indexes_triggers_and_views(bench):
    export(bench, "SELECT 1 AS a")
    write(
        bench.root,
        "CREATE INDEX i ON t (a); CREATE VIEW v AS SELECT max(a) FROM t; CREATE TABLE log (a);"
        "CREATE TRIGGER g AFTER DELETE ON t BEGIN INSERT INTO log VALUES (old.a); END;",
        "data/out.sqlite",
    )
    export(bench, "SELECT 2 AS a, 'x' AS b")
    assert look(bench) == [(2, "x")]
    assert look(bench, "SELECT * FROM v") == [(2,)]
    assert look(bench, "SELECT name FROM sqlite_master WHERE type IN ('index', 'trigger') ORDER BY 1") == [
        ("g",),
        ("i",),
    ]
    assert look(bench, "SELECT * FROM log") == []


def test_append_adds_once_for_every_run(bench):
    for run in ("a", "a", "b"):
        export(bench, "SELECT 1 AS a", options='OPTIONS {"mode": "append"}', run_id=run)
    assert look(bench) == [(1,), (1,)]
    bench.pipeline('SOURCE s TYPE SQLITE PARAMS {"path": "data/out.sqlite"};\nLOAD * FROM s;', "q")
    project = load_project(bench.root, undiscovered=True)
    assert [stream.name for source in project.plan.undiscovered for stream in project.discover(source)] == [
        "t"
    ]


def test_upsert_replaces_rows_by_key(bench):
    write(
        bench.root,
        "CREATE TABLE t (id INTEGER, v TEXT, n INTEGER DEFAULT 7); INSERT INTO t VALUES (1, 'a', 1), (2, 'b', 2), (NULL, 'n', 3)",
        "data/out.sqlite",
    )
    export(
        bench,
        "SELECT * FROM (VALUES (2, 'bb'), (3, 'c'), (NULL, 'nn')) AS x(id, v)",
        options='OPTIONS {"mode": "upsert", "key": "id"}',
    )
    assert look(bench, "SELECT * FROM t ORDER BY id") == [
        (None, "nn", 7),
        (1, "a", 1),
        (2, "bb", 7),
        (3, "c", 7),
    ]
    assert look(bench, "SELECT name FROM sqlite_master") == [("t",)]


@pytest.mark.parametrize(
    ("query", "options", "match"),
    [
        ("SELECT '007' AS id, 'x' AS v", '{"mode": "append"}', "its column 'id' is INTEGER, which would change '007'"),
        ("SELECT 1 AS id, 5 AS v", '{"mode": "append"}', "its column 'v' is TEXT, which would change 5"),
        ("SELECT 9007199254740993 AS r, 'x' AS v", '{"mode": "append"}', "its column 'r' is REAL, which would change 9007199254740993"),
        ("SELECT 1 AS id, 'x' AS w", '{"mode": "append"}', "the table has no column w"),
        ("SELECT 1 AS id, NULL::VARCHAR AS v", '{"mode": "append"}', "NOT NULL constraint failed"),
        ("SELECT 1 AS id, 'x' AS v FROM range(2)", '{"mode": "upsert", "primary_key": ["id"]}', "gives the key 1 more than once"),
        ("SELECT 1 AS id, 'x' AS v", '{"mode": "upsert", "primary_key": ["k"]}', "gives no column k"),
        ("SELECT 'nan'::DOUBLE AS r", "{}", "the column 'r' has NaN"),
        ("SELECT 1::BIGNUM AS id", "{}", "the column 'id' is BIGNUM"),
        ("SELECT error('broken') AS id", "{}", "broken"),
        ("SELECT 1 AS id", '{"table": "view"}', "it is a view"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_the_table_is_as_it_was(bench, query, options, match):
    write(
        bench.root,
        "CREATE TABLE t (id INTEGER, v TEXT NOT NULL, r REAL); INSERT INTO t VALUES (1, 'a', 0); CREATE VIEW \"view\" AS SELECT 1",
        "data/out.sqlite",
    )
    target = "data/out.sqlite" if "table" in options else "data/out.sqlite/t"
    bench.pipeline(f'EXPORT {query} TO "{target}" TYPE SQLITE OPTIONS {options};')
    with pytest.raises(ExportFailed, match=match):
        bench.ok()
    assert look(bench) == [(1, "a", 0)]


@pytest.mark.parametrize("options", ['{"mode": "append"}', '{"mode": "upsert", "key": "id"}'])
@pytest.mark.parametrize(
    ("made", "query", "match"),
    [
        ("CREATE TABLE t (id INT, v TEXT UNIQUE ON CONFLICT IGNORE)", "SELECT 2 AS id, 'a' AS v", "kept 1 of 1 rows out"),
        ("CREATE TABLE t (id INT, v TEXT); CREATE TRIGGER k BEFORE INSERT ON t WHEN NEW.id = 2 BEGIN SELECT RAISE(IGNORE); END",
         "SELECT id, 'b' AS v FROM (VALUES (2), (3)) AS x(id)", "a trigger or ON CONFLICT of the table kept 1 of 2 rows out"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT)", "SELECT NULL::INT AS id, 'b' AS v", "column 'id' is the number of a row"),
    ],
    ids=["conflict", "trigger", "number"],
)  # fmt: skip
def test_a_row_that_the_table_would_leave_out_or_number_is_refused(bench, made, query, match, options):
    write(bench.root, f"{made}; INSERT INTO t VALUES (1, 'a')", "data/out.sqlite")
    bench.pipeline(f'EXPORT {query} TO "data/out.sqlite/t" TYPE SQLITE OPTIONS {options};')
    with pytest.raises(ExportFailed, match=match):
        bench.ok()
    assert look(bench) == [(1, "a")]


def test_the_table_itself_may_number_its_rows_and_note_them(bench):
    write(
        bench.root,
        "CREATE TABLE t (id INTEGER PRIMARY KEY, v TEXT); CREATE TABLE log (v); INSERT INTO log VALUES ('a');"
        " CREATE TRIGGER k AFTER INSERT ON t BEGIN INSERT INTO log VALUES (NEW.v); UPDATE log SET v = 'x'; END",
        "data/out.sqlite",
    )
    export(bench, "SELECT v FROM (VALUES ('a'), ('b')) AS x(v)", options='OPTIONS {"mode": "append"}')
    assert look(bench) == [(1, "a"), (2, "b")]
    assert len(look(bench, "SELECT * FROM log")) == 3


def test_a_target_with_a_schema_is_refused_and_a_failing_export_leaves_no_file(bench):
    bench.pipeline('EXPORT SELECT 1 AS a TO "sqlite://data/out.sqlite/s/t";')
    with pytest.raises(PipelineError, match="has no schemas, and 's' is one"):
        bench.ok()
    bench.pipeline("EXPORT SELECT 'nan'::DOUBLE AS a TO \"sqlite://data/out.sqlite/t\";")
    with pytest.raises(ExportFailed, match="NaN"):
        bench.ok()
    assert not (bench.root / "data/out.sqlite").exists()


DAYS = [
    "'2026-01-05'", "'2026-01-11'", "'2026-01-11 10:00:00'", "'2026-01-11T23:59:59+02:00'", "'2026-01-20'",
    "'2026/01/11'", "'2026-1-11'", "' 2026-01-11'", "'2026-03-01'", "'2025-12-31'", "'2027-01-11'", "NULL",
]  # fmt: skip


def within(folder, declared, values, start, end, **params):
    """The values that are read of a range, and those that a comparison in the warehouse's way would keep of all."""
    write(
        folder.root,
        f"CREATE TABLE t (c {declared}); INSERT INTO t VALUES {', '.join(f'({v})' for v in values)}",
    )
    options = {"table": "t", "sync_mode": "incremental", "cursor_field": "c", **params}
    return [row[0] for row in read(folder, span=Span(start, end), **options).rows]


@pytest.mark.parametrize("declared", ["DATE", "DATETIME", "TEXT"])
def test_a_range_of_days_leaves_out_what_lies_outside_for_sure(folder, declared):
    found = within(folder, declared, DAYS, "2026-01-11 00:00:00+00:00", "2026-01-12 00:00:00+00:00")
    outside = ("2026-01-05", "2026-01-20", "2026-03", "2025", "2027")
    assert (len(found), [value for value in found if str(value).startswith(outside)]) == (7, [])


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2", "4", [2, 3, None]),
        (None, "2.5", [1, 2, None]),
        ("3.5", None, [4, 5, None]),
        ("x", "y", [1, 2, 3, 4, 5, None]),
    ],
)
def test_a_range_of_numbers_leaves_out_the_others(folder, start, end, expected):
    found = within(folder, "INTEGER", ["1", "2", "3", "4", "5", "NULL"], start, end)
    # The end itself may come, and is left out by the warehouse.
    assert [value for value in found if str(value) != end] == [
        value for value in expected if str(value) != end
    ]


@pytest.mark.parametrize(
    ("declared", "values", "params"),
    [
        ("", ["9", "10", "'x'"], {}),
        ("TEXT", ["9", "10", "100"], {}),
        ("TEXT", ["'11.01.2026'", "'12.02.2026'"], {"types": {"c": "VARCHAR"}}),
        ("DATE", ["X'00'", "X'01'"], {}),
        ("DATE", ["1767225600", "1769904000"], {}),
    ],
    ids=["numbers among texts", "numbers as texts", "another type", "BLOBs", "numbers of seconds"],
)
def test_what_has_no_place_in_a_range_is_left_to_the_warehouse(folder, declared, values, params):
    bounds = ("2", "3") if declared == "" or "9" in values else ("2026-01-01", "2026-02-01")
    assert len(within(folder, declared, values, *bounds, **params)) == len(values)


def test_a_range_is_looked_up_in_an_index(folder):
    path = write(
        folder.root, "CREATE TABLE t (c DATE, n INTEGER); CREATE INDEX i ON t (c); CREATE INDEX j ON t (n);"
    )
    span = Span("2026-01-11", "2026-01-12")
    times = sqlite_where.within(None, Column("c", "DATE"), quote("t"), span)
    numbers = sqlite_where.within(
        lambda _: [("integer",)], Column("n", "INTEGER"), quote("t"), Span("1", "2")
    )
    with closing(sqlite3.connect(path)) as connection:
        for where in (times, numbers):
            plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT * FROM t WHERE {where}").fetchall()
            assert not [row for row in plan if row[3].startswith("SCAN")], plan


def test_a_target_that_keeps_a_log_is_looked_at_without_making_one(folder):
    path = folder.root / "out.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            "PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER); CREATE VIEW v AS SELECT 1"
        )
    kind = find("SQLITE")
    options = parse(kind.sink_options_type, {})[0]
    found = kind.check_target("sqlite://out.sqlite/t", options, folder.place)
    assert (found.ok, found.facts["table_exists"]) == (True, True)
    assert "it is a view" in kind.check_target("sqlite://out.sqlite/v", options, folder.place).message
    assert [entry.name for entry in folder.root.iterdir()] == ["out.sqlite"]
