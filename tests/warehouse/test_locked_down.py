"""Users' SQL reaches nothing but the tables and the folders it is allowed."""

import duckdb
import pytest

from .conftest import Depot


@pytest.fixture
def house(tmp_path):
    for folder in ("data", "allowed", "python_udfs", "db"):
        (tmp_path / folder).mkdir()
    (tmp_path / ".env").write_text("PASSWORD=canary\n")
    (tmp_path / "python_udfs/f.py").write_text("x = 1\n")
    (tmp_path / "allowed/ok.csv").write_text("a\n1\n")
    (tmp_path / "allowed/link").symlink_to(tmp_path / ".env")
    duckdb.connect(str(tmp_path / "db/other.duckdb")).close()
    depot = Depot(tmp_path, {"allowed_directories": (tmp_path / "allowed",), "memory_limit": "128MB"})
    depot.load("SELECT 1 AS a", mode="replace")
    return depot


ESCAPES = [
    "FROM read_text('{root}/.env')",
    "FROM read_text('{root}/allowed/../.env')",
    "FROM read_text('{root}//.env')",
    "FROM '{root}/.env'",
    "FROM read_csv('{root}/.env')",
    "FROM read_blob('{root}/python_udfs/f.py')",
    "FROM read_json('/proc/self/environ')",
    "FROM read_csv('/etc/passwd')",
    "FROM sniff_csv('/etc/passwd')",
    "FROM parquet_metadata('/etc/passwd')",
    "FROM parquet_schema('/etc/passwd')",
    "FROM glob('/*')",
    "FROM glob('{root}/*')",
    "FROM glob('{root}/allowed/../*')",
    "FROM read_csv('https://127.0.0.1:1/x.csv')",
    "FROM read_csv('s3://bucket/x.csv')",
    "FROM read_duckdb('{root}/db/other.duckdb')",
    "FROM postgres_scan('host=127.0.0.1', 'public', 't')",
    "FROM sqlite_scan('{root}/x.db', 't')",
    "FROM frame",
    "SELECT getenv('HOME')",
    "SELECT * FROM query('FROM read_text(''{root}/.env'')')",
    "SELECT * FROM query_table('{root}/.env')",
    "COPY (SELECT 1) TO '{root}/python_udfs/x.py'",
    "COPY (SELECT 1) TO '{root}/db/x.csv'",
    "COPY sales.orders FROM '{root}/.env'",
    "COPY (SELECT 1) TO '/dev/stdout'",
    "EXPORT DATABASE '{root}/out'",
    "IMPORT DATABASE '{root}/db'",
    "ATTACH '{root}/db/other.duckdb'",
    "ATTACH '{root}/new.duckdb'",
    "ATTACH 'host=127.0.0.1' AS p (TYPE postgres)",
    "INSTALL httpfs",
    "LOAD httpfs",
    "LOAD '{root}/x.duckdb_extension'",
    "SET enable_external_access = true",
    "SET GLOBAL memory_limit = '10GB'",
    "SET lock_configuration = false",
    "SET allowed_directories = ['/']",
    "SET python_enable_replacements = true",
    "RESET lock_configuration",
    "PRAGMA temp_directory = '/tmp'",
    "PRAGMA enable_profiling = 'json'",
    "PRAGMA profiling_output = '{root}/profile.json'",
    "SET log_query_path = '{root}/log'",
    "CREATE PERSISTENT SECRET s (TYPE s3, KEY_ID 'x')",
    "CREATE MACRO peek(x) AS TABLE FROM read_text(x); FROM peek('{root}/.env')",
]


@pytest.mark.parametrize("escape", ESCAPES)
def test_no_way_out(house, escape):
    frame = duckdb.sql("SELECT 1 AS secret").to_arrow_table()  # noqa: F841 - a replacement scan would find it
    before = sorted(str(path) for path in house.root.rglob("*") if ".lock" not in path.name)
    with house.warehouse.open_locked_down() as connection:
        with pytest.raises(duckdb.Error) as caught:
            connection.execute(escape.format(root=house.root)).fetchall()
        assert "canary" not in str(caught.value)
    assert sorted(str(path) for path in house.root.rglob("*") if ".lock" not in path.name) == before


def test_a_link_in_an_allowed_folder_is_as_far_as_its_owner_let_it(house):
    """DuckDB follows links; the folder's owner made it, and users' SQL can make none."""
    with house.warehouse.open_locked_down() as connection:
        assert connection.execute("FROM read_csv($1)", [str(house.root / "allowed/ok.csv")]).fetchall() == [
            (1,)
        ]


def test_tables_are_read_and_written(house):
    with house.warehouse.open_locked_down(["sales"]) as connection:
        connection.execute("CREATE TABLE twice AS SELECT a * 2 AS a FROM orders")
    assert house.query("FROM sales.twice") == [(2,)]


def test_more_than_memory_spills(house):
    with house.warehouse.open_locked_down() as connection:
        connection.execute(
            "CREATE TEMP TABLE t AS SELECT range AS i, md5(range::VARCHAR) AS m FROM range(3000000)"
        )
        assert connection.execute("SELECT count(*) FROM (FROM t ORDER BY m LIMIT 2999999)").fetchall() == [
            (2999999,)
        ]
    assert not house.warehouse.path.with_name("w.duckdb.tmp").exists()


def test_the_time_zone_of_the_project_holds(tmp_path):
    depot = Depot(tmp_path, {"timezone": "Asia/Tokyo"})
    for opened in (depot.warehouse.open, depot.warehouse.open_locked_down, depot.warehouse.scratch):
        with opened() as connection:
            assert connection.execute("SELECT TIMESTAMPTZ '2026-01-01 00:00:00+00'::VARCHAR").fetchall() == [
                ("2026-01-01 09:00:00+09",)
            ]


@pytest.mark.parametrize("name", ["memory.duckdb", "temp.duckdb", "system.duckdb", 'o\'dd "n".db', "a.b.c"])
def test_any_file_name_will_do(tmp_path, name):
    depot = Depot(tmp_path)
    depot.warehouse.path = tmp_path / "data" / name
    depot.load("SELECT 1 AS a", mode="replace")
    depot.load("SELECT 2 AS a", mode="append")
    with depot.warehouse.open_locked_down(["sales"]) as connection:
        assert connection.execute("SELECT a FROM orders ORDER BY a").fetchall() == [(1,), (2,)]


def test_no_connection_draws_progress_on_standard_output(tmp_path):
    depot = Depot(tmp_path)
    for opened in (depot.warehouse.open, depot.warehouse.open_locked_down, depot.warehouse.scratch):
        with opened() as connection:
            query = "SELECT current_setting('enable_progress_bar')"
            assert connection.execute(query).fetchall() == [(False,)]
