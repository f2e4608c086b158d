"""Tables, views and queries of another DuckDB file, and exports into one."""

import subprocess
import sys
from contextlib import contextmanager

import duckdb
import pytest

from sqlflow_dagster.errors import (
    BadOption,
    ExportFailed,
    NotAllowed,
    PipelineError,
    RetryLater,
    SourceFailed,
)
from sqlflow_dagster.project import load_project

SHOP = """
CREATE TABLE orders (id INTEGER PRIMARY KEY, changed TIMESTAMP, amount DECIMAL(9,2));
INSERT INTO orders VALUES (1, '2026-01-01', 1.10), (2, '2026-01-02', 2.20), (3, NULL, NULL);
CREATE SCHEMA sales;
CREATE TABLE sales.fact_a AS SELECT 1 AS x;
CREATE TABLE sales.fact_b AS SELECT 2 AS x;
CREATE VIEW totals AS SELECT count(*) AS n, max(changed) AS changed FROM orders;
"""


def write(root, statements, name="data/shop.duckdb"):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(path)) as connection:
        connection.execute(statements)
    return path


@pytest.fixture
def shop(folder):
    write(folder.root, SHOP)
    return folder


def read(folder, since=None, **params):
    return folder.read("DUCKDB", since, **{"path": "data/shop.duckdb", **params})


@contextmanager
def held(path, *, read_only=False):
    """Another process that has the file open."""
    code = f"import duckdb, sys; c = duckdb.connect({str(path)!r}, read_only={read_only}); print(1, flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        process.stdout.readline()
        yield process
        process.stdin.close()


def test_a_table_keeps_its_types(shop):
    result = read(shop, table="orders")
    assert result.columns == {"id": "INTEGER", "changed": "TIMESTAMP", "amount": "DECIMAL(9,2)"}
    assert len(result.rows) == 3


EXOTIC = (
    "SELECT 170141183460469231731687303715884105727::HUGEINT AS h, 340282366920938463463374607431768211455::UHUGEINT AS u,"
    " '101'::BIT AS b, 'infinity'::TIMESTAMP AS t, '12:00:00+02'::TIMETZ AS tz, TIMESTAMP_NS '2024-01-01 00:00:00.123456789' AS ns,"
    " {'a': [MAP {'k': 1::DECIMAL(38,3)}]} AS s, 'a'::ENUM('a','b') AS e, union_value(k := 1) AS v, '99999999999999999999999999999999999999999999'::BIGNUM AS n,"
    " INTERVAL '1 month 2 days' AS i, '\\x00\\xff'::BLOB AS bl, uuid() AS id, chr(0) || 'x' AS z"
)


@pytest.mark.parametrize("how", ["table", "view", "query"])
def test_every_type_survives(folder, how):
    path = write(folder.root, f"CREATE TABLE t AS {EXOTIC}; CREATE VIEW v AS FROM t;")
    with duckdb.connect(str(path), read_only=True) as connection:
        described = connection.execute("DESCRIBE t").fetchall()
        expected = connection.execute("SELECT t::VARCHAR FROM t").fetchall()
    params = {"table": {"table": "t"}, "view": {"table": "v"}, "query": {"query": "SELECT * FROM t;"}}[how]
    with folder.open("DUCKDB", path="data/shop.duckdb", **params) as source, duckdb.connect() as warehouse:
        for scan in source.read(source.streams()[0], None):
            (attach,) = scan.attach
            warehouse.execute(f"ATTACH '{attach.url}' AS {attach.name} (READ_ONLY)")
            warehouse.execute(f"CREATE TABLE t AS {scan.query}")
        assert warehouse.execute("DESCRIBE t").fetchall() == described
        assert warehouse.execute("SELECT t::VARCHAR FROM t").fetchall() == expected


def test_a_view_and_a_query_are_read(shop):
    assert read(shop, table="totals").rows[0][0] == 3
    assert read(
        shop, query="SELECT x FROM sales.fact_a UNION ALL FROM sales.fact_b -- all\n; -- and no more"
    ).rows == [
        (1,),
        (2,),
    ]


@pytest.mark.parametrize(
    ("params", "match"),
    [
        (
            {"table": "gone"},
            r"there is no table main\.gone; it has main\.orders, main\.totals, sales\.fact_a",
        ),
        ({"query": "SELECT nope FROM orders"}, "nope"),
        ({"query": "SELECT 1 AS a, 2 AS a"}, "the query gives a more than once"),
        ({"query": "SELECT 1; SELECT 2"}, "`query` holds SELECT, SELECT; write one SELECT"),
        ({"query": "-- none"}, "`query` holds nothing"),
        ({"query": "SELECT"}, "Parser Error"),
        ({"query": "DROP TABLE orders"}, "`query` holds DROP"),
        ({"query": "FROM read_text('sqlflow.yml')"}, "file system operations are disabled"),
        ({"query": "SELECT 1) ; ATTACH 'x.duckdb' AS x; FROM (SELECT 1"}, "error|disabled|Parser"),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_the_file(shop, params, match):
    shop.write("sqlflow.yml", "secret: 1")
    with pytest.raises(SourceFailed, match=rf"(?s)shop\.duckdb.*({match})"):
        read(shop, **params)
    assert not (shop.root / "x.duckdb").exists()


def test_a_view_that_reads_other_files_is_refused(folder, tmp_path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    write(folder.root, f"CREATE VIEW evil AS FROM read_csv('{tmp_path}/secret.csv')")
    with pytest.raises(SourceFailed, match="file system operations are disabled"):
        read(folder, table="evil")


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda _folder: None, "there is no such file; .* has nothing"),
        (
            lambda folder: folder.write("data/shop.duckdb", b"SQLite format 3\0" * 20),
            "an SQLite one: use TYPE SQLITE",
        ),
        (lambda folder: folder.write("data/shop.duckdb", "id,v\n1,2\n"), "no DuckDB file but something else"),
        (
            lambda folder: folder.write("data/shop.duckdb", b"\0" * 8 + b"DUCK" + b"\1" * 20_000),
            "shop.duckdb",
        ),
    ],
    ids=["missing", "sqlite", "csv", "garbage"],
)
def test_what_is_no_duckdb_file_is_an_error_that_names_it(folder, make, match):
    make(folder)
    with pytest.raises(SourceFailed, match=match):
        read(folder, table="t")
    with folder.open("DUCKDB", path="data/shop.duckdb", table="t") as source:
        assert not source.check().ok


def test_a_file_outside_the_project_is_refused(folder, tmp_path):
    write(tmp_path, "CREATE TABLE t AS SELECT 1 AS a", "other.duckdb")
    with pytest.raises(NotAllowed, match="outside the project"):
        read(folder, path="../other.duckdb", table="t")


def test_a_file_that_another_program_writes_is_named_with_it(shop):
    with (
        held(shop.root / "data/shop.duckdb") as process,
        pytest.raises(RetryLater, match=rf"shop\.duckdb: another program \(.*{process.pid}\)"),
    ):
        read(shop, table="orders")
    with held(shop.root / "data/shop.duckdb", read_only=True):
        assert len(read(shop, table="orders").rows) == 3


def test_a_file_that_is_written_to_while_it_is_read_fails_the_read(shop):
    with shop.open("DUCKDB", path="data/shop.duckdb", table="orders") as source:
        batches = source.read(source.streams()[0], None)
        next(batches)
        write(shop.root, "INSERT INTO orders VALUES (9, NULL, NULL)")
        with pytest.raises(RetryLater, match="was written to while it was read"):
            next(batches)


def test_rows_of_a_log_that_was_left_behind_are_read(folder):
    path = write(folder.root, "CREATE TABLE t (a INTEGER)")
    code = f"import duckdb, os; c = duckdb.connect({str(path)!r}); c.execute('INSERT INTO t VALUES (7)'); os._exit(9)"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert path.with_name("shop.duckdb.wal").exists()
    assert read(folder, table="t").rows == [(7,)]


def test_a_source_says_how_it_is_and_leaves_no_spool(shop):
    with shop.open("DUCKDB", path="data/shop.duckdb", table="orders") as source:
        health = source.check()
    assert (health.ok, health.facts["tables"]) == (True, 4)
    read(shop, query="SELECT 1 AS a")
    assert list((shop.root / ".sqlflow/spool").iterdir()) == []


# Whole runs.

INCREMENTAL = """
SOURCE shop TYPE DUCKDB PARAMS {
  "path": "data/shop.duckdb", "%s": "%s", "sync_mode": "incremental", "cursor_field": "changed", "primary_key": "id"
};
LOAD orders FROM shop;
"""


@pytest.mark.parametrize(
    ("what", "which"),
    [("table", "orders"), ("query", "SELECT * FROM orders WHERE id < 100")],
    ids=["table", "query"],
)
def test_rows_from_the_cursor_on_are_loaded_once(bench, what, which):
    write(bench.root, SHOP)
    bench.pipeline(INCREMENTAL % (what, which))
    assert bench.ok()["orders"].cursor_after.value == "2026-01-02 00:00:00"
    write(
        bench.root,
        "INSERT INTO orders VALUES (4, '2026-01-02', 4), (5, '2025-01-01', 5); UPDATE orders SET amount = 9 WHERE id = 2",
    )
    assert bench.ok()["orders"].rows == 3  # the boundary, the new one, and the one without a cursor
    bench.ok()
    assert bench.query("SELECT id, amount::VARCHAR FROM p.orders ORDER BY id") == [
        (1, "1.10"), (2, "9.00"), (3, None), (4, "4.00"),
    ]  # fmt: skip


def test_every_table_is_loaded_into_one_of_its_own(bench):
    write(bench.root, SHOP)
    bench.pipeline(
        'SOURCE shop TYPE DUCKDB PARAMS {"path": "data/shop.duckdb", "tables": "*.*", "exclude_tables": "totals"};\nLOAD * FROM shop;'
    )
    project = load_project(bench.root, undiscovered=True)
    (source,) = project.plan.undiscovered
    assert [stream.name for stream in project.discover(source)] == [
        "orders",
        "sales__fact_a",
        "sales__fact_b",
    ]
    assert {name: outcome.rows for name, outcome in bench.ok().items()} == {
        "orders": 3,
        "sales__fact_a": 1,
        "sales__fact_b": 1,
    }


def test_columns_filters_and_masks_hold(bench):
    write(bench.root, SHOP)
    bench.pipeline(
        'SOURCE shop TYPE DUCKDB PARAMS {"path": "data/shop.duckdb", "table": "orders", "columns": ["id", "changed"], "mask": ["changed"], "filters": {"id": ">= 2"}};\nLOAD orders FROM shop;'
    )
    bench.ok()
    assert bench.query("SELECT id, length(changed) FROM p.orders ORDER BY id") == [(2, 64), (3, None)]


def test_the_warehouse_itself_is_refused(bench):
    write(bench.root, SHOP)
    bench.pipeline(
        'SOURCE shop TYPE DUCKDB PARAMS {"path": "data/shop.duckdb", "table": "orders"};\nLOAD o FROM shop;'
    )
    bench.ok()
    bench.pipeline(
        'SOURCE me TYPE DUCKDB PARAMS {"path": "data/../data/warehouse.duckdb", "table": "p.o"};\nLOAD o FROM me;'
    )
    assert isinstance(error := bench.run()["o"].error, BadOption)
    assert "the project's own warehouse" in str(error)
    bench.pipeline('EXPORT SELECT 1 AS a TO "duckdb://data/warehouse.duckdb/t";')
    with pytest.raises(PipelineError, match="the project's own warehouse"):
        bench.run()


# Exports.


def export(bench, query, target="duckdb://data/out.duckdb/t", options="", **session):
    bench.pipeline(f'EXPORT {query} TO "{target}" {options};')
    (outcome,) = bench.ok(**session).values()
    return outcome


def look(bench, query="FROM t", name="data/out.duckdb"):
    with duckdb.connect(str(bench.root / name), read_only=True) as connection:
        return connection.execute(query).fetchall()


def test_an_export_makes_the_table_with_every_type(bench):
    assert export(bench, EXOTIC).rows == 1
    columns = {row[0]: row[1] for row in look(bench, "DESCRIBE t")}
    assert columns["h"] == "HUGEINT"
    assert columns["s"] == "STRUCT(a MAP(VARCHAR, DECIMAL(38,3))[])"
    assert columns["n"] == "BIGNUM"
    assert look(bench, "SELECT h, u::VARCHAR, n::VARCHAR, z FROM t") == [
        (2**127 - 1, str(2**128 - 1), "9" * 44, "\0x"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("target", "options", "query"),
    [
        ("duckdb://data/out.duckdb/s/t", "", "FROM s.t"),
        ("duckdb://data/out.duckdb/s.t", "", "FROM s.t"),
        ("duckdb:///data/out.duckdb/t", 'OPTIONS {"mode": "OVERWRITE"}', "FROM t"),
        ("data/out.duckdb", 'OPTIONS {"table": "s.t"}', "FROM s.t"),
        ("data/out.duckdb/t", "TYPE DUCKDB", "FROM t"),
        ("data/out.duckdb#t", 'TYPE DUCKDB OPTIONS {"schema": "s"}', "FROM s.t"),
        ("data/out.db/t", "TYPE DUCKDB", "FROM t"),
        ("deep/er/out", 'TYPE DUCKDB OPTIONS {"table_name": "t"}', "FROM t"),
    ],
)
def test_a_target_names_file_and_table(bench, target, options, query):
    export(bench, "SELECT 1 AS a", target, options)
    name = next(file for file in ("data/out.duckdb", "data/out.db", "deep/er/out") if file in target)
    assert look(bench, query, name) == [(1,)]


def test_replace_keeps_indexes_and_views(bench):
    export(bench, "SELECT 1 AS a")
    write(
        bench.root, "CREATE INDEX i ON t (a); CREATE VIEW v AS SELECT max(a) AS m FROM t", "data/out.duckdb"
    )
    export(bench, "SELECT 2 AS a, 'x' AS b")
    assert look(bench) == [(2, "x")]
    assert look(bench, "FROM v") == [(2,)]
    assert look(bench, "SELECT index_name FROM duckdb_indexes()") == [("i",)]


def test_append_adds_once_for_every_run(bench):
    for run in ("a", "a", "b"):
        export(bench, "SELECT 1 AS a", options='OPTIONS {"mode": "append"}', run_id=run)
    assert look(bench) == [(1,), (1,)]


def test_upsert_replaces_rows_by_key(bench):
    write(
        bench.root,
        "CREATE TABLE t (id INTEGER, v VARCHAR, n INTEGER); INSERT INTO t VALUES (1, 'a', 7), (2, 'b', 7), (NULL, 'n', 7)",
        "data/out.duckdb",
    )
    export(
        bench,
        "SELECT * FROM (VALUES (2, 'bb'), (3, 'c'), (NULL, 'nn')) AS x(id, v)",
        options='OPTIONS {"mode": "upsert", "key": "id"}',
    )
    assert look(bench, "FROM t ORDER BY id") == [
        (1, "a", 7),
        (2, "bb", None),
        (3, "c", None),
        (None, "nn", None),
    ]


@pytest.mark.parametrize(
    ("query", "options", "match"),
    [
        (
            "SELECT 4.7 AS id, 'x' AS v",
            '{"mode": "append"}',
            "its column 'id' is INTEGER, which cannot hold the DECIMAL",
        ),
        ("SELECT 'x' AS id, 'x' AS v", '{"mode": "append"}', "cannot hold the VARCHAR 'x'"),
        ("SELECT 1 AS id, 'x' AS w", '{"mode": "append"}', "the table has no column w"),
        ("SELECT 1 AS id, NULL AS v", '{"mode": "append"}', "NOT NULL"),
        (
            "SELECT 1 AS id, 'x' AS v FROM range(2)",
            '{"mode": "upsert", "primary_key": ["id"]}',
            "gives the key 1 more than once",
        ),
        ("SELECT 1 AS id, 'x' AS v", '{"mode": "upsert", "primary_key": ["k"]}', "gives no column k"),
        ("SELECT error('broken') AS id, 'x' AS v", "{}", "broken"),
        ("SELECT 1 AS id, 'x' AS v", '{"table": "view"}', "it is a view"),
    ],
)
def test_what_does_not_fit_is_refused_and_the_table_is_as_it_was(bench, query, options, match):
    write(
        bench.root,
        "CREATE TABLE t (id INTEGER, v VARCHAR NOT NULL); INSERT INTO t VALUES (1, 'a'); CREATE VIEW \"view\" AS FROM t",
        "data/out.duckdb",
    )
    target = "data/out.duckdb" if "table" in options else "data/out.duckdb/t"
    bench.pipeline(f'EXPORT {query} TO "{target}" TYPE DUCKDB OPTIONS {options};')
    with pytest.raises(ExportFailed, match=match):
        bench.ok()
    assert look(bench) == [(1, "a")]


@pytest.mark.parametrize(
    ("target", "options", "match"),
    [
        ("data/out.duckdb", "{}", "names no table; write e.g. duckdb://data/out.duckdb/orders"),
        ("duckdb://data/out.duckdb/s/t", '{"schema": "u"}', "in the schema 's' already"),
        ("duckdb://data/out.duckdb/t", '{"table": "u"}', "names the table 't' already"),
        ("duckdb://data/out.duckdb/t", '{"mode": "upsert"}', "keys: mode `upsert` needs"),
        ("duckdb://data/out.duckdb/t", '{"primary_key": "id"}', "keys: mode `replace` does not"),
    ],
)
def test_wrong_options_are_refused(bench, target, options, match):
    bench.pipeline(f'EXPORT SELECT 1 AS id TO "{target}" OPTIONS {options};')
    with pytest.raises(PipelineError, match=match):
        bench.ok()
    assert not (bench.root / "data/out.duckdb").exists()


def test_a_failing_export_leaves_no_new_file(bench):
    bench.pipeline("EXPORT SELECT error('broken') AS a TO \"duckdb://data/out.duckdb/t\";")
    with pytest.raises(ExportFailed, match="broken"):
        bench.ok()
    assert not (bench.root / "data/out.duckdb").exists()


def test_a_target_that_another_program_has_open_is_named(bench):
    export(bench, "SELECT 1 AS a")
    bench.pipeline('EXPORT SELECT 2 AS a TO "duckdb://data/out.duckdb/t";')
    with (
        held(bench.root / "data/out.duckdb"),
        pytest.raises(RetryLater, match=r"out\.duckdb: another program has it open"),
    ):
        bench.ok()
    assert look(bench) == [(1,)]
