"""LOAD DATA LOCAL stores what INSERT stores, and refuses what INSERT refuses, for every value in every type."""

from __future__ import annotations

import contextlib

import duckdb
import pytest

from sqlflow_dagster.connectors.mysql_client import connect, send_file
from sqlflow_dagster.connectors.mysql_fill import fill, spool
from sqlflow_dagster.connectors.mysql_wire import Target, Wire
from sqlflow_dagster.errors import ExportFailed
from sqlflow_dagster.sql import Sql, backquote

VALUES = [
    "true", "false", "'-128'::TINYINT", "5::TINYINT", "0", "1", "70", "2005", "'-2147483648'::INTEGER", "18446744073709551615::UBIGINT",
    "'170141183460469231731687303715884105727'::HUGEINT", "5.00::DECIMAL(10,2)", "'-1.25'::DECIMAL(10,2)",
    "1.500000000::DECIMAL(38,9)", "'0.1'::FLOAT", "'3.4e38'::FLOAT", "0.1::DOUBLE", "0.145::DOUBLE", "2.5::DOUBLE", "2.0::DOUBLE",
    "1e-300::DOUBLE", "1.7976931348623157e308::DOUBLE", "'-0'::DOUBLE", "'nan'::DOUBLE", "123456789012345680::DOUBLE",
    "DATE '2024-02-29'", "DATE '0001-01-01'", "TIMESTAMP '2024-01-01 10:11:12.123456'", "TIMESTAMP '2040-01-01 00:00:00'",
    "TIMESTAMPTZ '2024-01-01 02:00:00+02'", "TIME '23:59:59.999999'", "TIME '10:00:00'",
    "''", r"'\N'", r"'\'", r"'\\N'", "'NULL'", "'a' || chr(9) || 'b'", "chr(9)", "'x' || chr(10) || chr(13) || chr(0) || '\\'",
    "chr(10)", "'q'''", "'5'", "'x'", "'é✓'", "'😀'", "'5 '", "' 5'", "'+5'", "'005.50'", "'X,x'", "repeat('x', 300)",
    "''::BLOB", r"'\x00\xFF\x0A\x09\x5C\x27'::BLOB", "'ab'::BLOB", "'101'::BIT", "'00000101'::BIT",
    """'{"a": "x\\ty"}'::JSON""", "'[]'::JSON", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::UUID", "['a', NULL, 'q''']", "NULL::INTEGER",
    "NULL::VARCHAR", "NULL::BLOB",
]  # fmt: skip
TYPES = [
    "tinyint", "tinyint unsigned", "int", "int unsigned", "bigint", "bigint unsigned", "year", "bit(1)", "bit(8)", "bit(64)",
    "decimal(10,2)", "decimal(38,20)", "decimal(65,30)", "float", "double", "date", "datetime", "datetime(6)", "timestamp(6) null",
    "time", "time(6)", "char(5)", "varchar(10)", "varchar(10) character set latin1", "tinytext", "longtext",
    "enum('x','5','1')", "set('x','5','X')", "binary(4)", "varbinary(10)", "tinyblob", "longblob", "json", "uuid", "inet6",
    "int not null", "varchar(9) not null", "timestamp not null default '2000-01-01'",
]  # fmt: skip


class OneRow:
    """A row of one value, as the warehouse hands it on."""

    def __init__(self, value):
        self.connection = duckdb.connect()
        self.connection.execute(f"SET TimeZone = 'UTC'; CREATE VIEW v AS SELECT {value} AS c")
        self.kind = str(self.connection.table("v").types[0])

    def copy_to(self, path, options, columns=None):
        self.connection.execute(f"COPY (SELECT {columns} FROM v) TO '{path}' ({options})")
        return 1


@pytest.fixture
def writing(project):
    """A connection as an export has it."""
    told = {"host": "127.0.0.1", "port": str(project.database.server.port), "username": "root",
            "connect_timeout": "10", "database": project.database.name}  # fmt: skip
    with contextlib.closing(connect(told, 60, sends_files=True)) as connection:
        yield connection
    project.database.run("SET GLOBAL local_infile = ON")


def stored(connection, row, kind, path):
    """The bytes that a value has in a column after an export, or why it has none."""
    table = Sql("t_of_type")
    with connection.cursor() as cursor:
        cursor.execute("START TRANSACTION")
        try:
            rows = spool(connection, row, [Wire("c", row.kind, Target(kind), "c")], path)
            fill(connection, table, rows, "t", undoable=True)
        except (ExportFailed, duckdb.Error, connection.Error) as error:
            # DuckDB shows the query too.
            return str(error).partition("\n\nLINE")[0]
        else:
            cursor.execute("SELECT HEX(c), c IS NULL, CAST(c AS CHAR) FROM t_of_type")
            return cursor.fetchall()
        finally:
            cursor.execute("ROLLBACK")


@pytest.mark.parametrize("kind", TYPES)
def test_what_is_loaded_is_what_would_be_inserted(project, writing, tmp_path, kind):
    project.database.run(f"CREATE TABLE t_of_type (c {kind})")
    rows = [OneRow(value) for value in VALUES]
    found = {}
    for local_infile in ("ON", "OFF"):
        project.database.run(f"SET GLOBAL local_infile = {local_infile}")
        found[local_infile] = [stored(writing, row, kind, tmp_path / "rows") for row in rows]
    unlike = [each for each in zip(VALUES, found["ON"], found["OFF"], strict=True) if each[1] != each[2]]
    assert unlike == []
    # Some of the values go into each of the types.
    assert any(isinstance(each, tuple) for each in found["ON"])


@pytest.mark.parametrize(("value", "made"), [("NULL::INTEGER", "1"), ("0", "0"), ("5", "5")])
def test_a_number_that_the_table_makes_is_made_by_either(project, writing, tmp_path, value, made):
    found = []
    for local_infile in ("ON", "OFF"):
        project.database.run(
            f"SET GLOBAL local_infile = {local_infile}",
            "CREATE OR REPLACE TABLE t_of_type (c int PRIMARY KEY AUTO_INCREMENT)",
        )
        found.append(stored(writing, OneRow(value), "int", tmp_path / "rows"))
    assert found[0] == found[1] == ((made, 0, made),)


def test_rows_of_all_usual_types_need_no_second_way(project, caplog):
    caplog.set_level("INFO")
    usual = [value for value in VALUES if "nan" not in value and "2040" not in value]
    columns = ", ".join(f"{value} AS c{n}" for n, value in enumerate(usual))
    project.bench.pipeline(f'EXPORT SELECT {columns} TO "{project.database.url}#t";')
    for _ in ("into a table of ours", "into one that is there"):
        project.bench.ok()
    assert "rows go as INSERT" not in caplog.text


LOADED = [
    ("replace", "CREATE TABLE t (n int PRIMARY KEY)", 1), ("append", "CREATE TABLE t (n int)", 1),
    ("upsert", "CREATE TABLE t (n int PRIMARY KEY)", 1), ("replace", None, 1), ("upsert", None, 1),
    ("replace", "CREATE TABLE t (n int) ENGINE = MyISAM", 0),
    ("append", "CREATE TABLE t (n int); CREATE TRIGGER g BEFORE INSERT ON t FOR EACH ROW SET NEW.n = NEW.n", 0),
]  # fmt: skip


@pytest.mark.parametrize(("mode", "made", "loads"), LOADED)
def test_rows_are_loaded_where_that_can_be_undone(project, mode, made, loads):
    database = project.database
    if made:
        database.run(*made.split("; "))
    keys = ', "keys": "n"' if mode == "upsert" else ""
    options = f'{{"table": "t", "mode": "{mode}"{keys}}}'
    project.bench.pipeline(f'EXPORT SELECT 7 AS n UNION ALL SELECT 8 TO "{database.url}" OPTIONS {options};')

    def loaded():
        return int(database.run("SHOW GLOBAL STATUS LIKE 'Com_load'")[0][1])

    before = loaded()
    project.bench.ok()
    assert loaded() - before == loads
    assert database.run("SELECT n FROM t ORDER BY n") == [(7,), (8,)]


@pytest.mark.parametrize("mode", ["replace", "append"])
@pytest.mark.parametrize("local_infile", ["ON", "OFF"])
@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("c int PRIMARY KEY", "(1), (2), (1)", "Duplicate entry '1' for key 'PRIMARY'"),
        ("c tinyint", "(1), (2), (300)", "Out of range value for column 'c' at row 3"),
        ("c tinytext", "('a'), (repeat('x', 300))", "Data too long for column 'c' at row 2"),
        ("c int CHECK (c < 3)", "(1), (2), (3)", "CONSTRAINT"),
        ("c int NOT NULL", "(1), (NULL)", "Column 'c' cannot be null"),
    ],
    ids=["duplicate key", "out of range", "too long", "check", "null"],
)
def test_one_bad_row_among_good_ones_stores_none(project, mode, local_infile, column, values, message):
    database = project.database
    database.run(f"SET GLOBAL local_infile = {local_infile}", f"CREATE TABLE t ({column}, KEY (c))")
    project.bench.pipeline(
        f'EXPORT SELECT c FROM (VALUES {values}) AS v(c) TO "{database.url}" OPTIONS {{"table": "t", "mode": "{mode}"}};'
    )
    (outcome,) = project.bench.run().values()
    database.run("SET GLOBAL local_infile = ON")
    assert isinstance(outcome.error, ExportFailed)
    assert message in str(outcome.error)
    assert database.run("SELECT count(*) FROM t") == [(0,)]


def test_many_rows_are_loaded_as_they_are(project):
    """More than one piece of the file, and lines that end anywhere in one."""
    project.bench.pipeline(
        "CREATE TABLE s AS SELECT range AS n, repeat('é\\' || chr(9), (range % 50)::INT) AS c, range / 7 AS d "
        f'FROM range(40000);\nEXPORT SELECT * FROM s TO "{project.database.url}#t";'
    )
    project.bench.ok()
    project.pipeline(table="t")
    project.bench.pipeline(project.source(table="t") + "LOAD back FROM my;", name="back")
    project.bench.ok("back")
    assert project.query("(FROM p.s EXCEPT FROM back.back) UNION ALL (FROM back.back EXCEPT FROM p.s)") == []


def test_no_other_file_is_sent_whatever_the_server_asks_for(project, writing, tmp_path):
    ours, others = tmp_path / "ours", tmp_path / "others"
    ours.write_text("ours\n")
    others.write_text("others\n")
    project.database.run("CREATE TABLE t (c text)")
    statement = Sql(f"LOAD DATA LOCAL INFILE '{others}' INTO TABLE {backquote('t')}")
    assert send_file(writing, statement, ours) == (1, 0)
    with writing.cursor() as cursor, pytest.raises(RuntimeError, match="local_infile option is false"):
        cursor.execute(statement)
    assert project.database.run("SELECT c FROM t") == [("ours",)]
