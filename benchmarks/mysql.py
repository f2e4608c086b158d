"""A table of a real MariaDB server into DuckDB and back; by DuckDB's own scanner and by programs of pymysql."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import duckdb

from benchmarks import inputs
from benchmarks.compare import Way, beside_hand, started
from benchmarks.figures import Figure, Sizes
from benchmarks.loads import same_rows
from benchmarks.measure import Command, interleaved, once
from tests.connectors.mysql.conftest import Server, new_server

_SCANNER_LIMIT = 1.15
_PYMYSQL_LIMIT = 0.6
_EXPORT_LIMIT = 1.3
_DATABASE = "bench"
_COLUMNS = "id, customer, amount, status, note, city, email, created_at, updated_at, paid, attrs, day"
_TABLE = """
CREATE TABLE items (
  id bigint PRIMARY KEY, customer int, amount decimal(12,2), status varchar(20), note varchar(100), city varchar(50),
  email varchar(100), created_at datetime, updated_at datetime(6), paid boolean, attrs json, day date,
  INDEX (updated_at)
) CHARACTER SET utf8mb4
"""
_ROWS = """
INSERT INTO items SELECT
  seq, seq * 7919 % 100000, seq * 31 % 10000000 / 100, ELT(1 + seq % 4, 'new', 'paid', 'sent', 'returned'),
  CONCAT('order note ', MD5(seq)), CONCAT('city ', seq % 500), CONCAT('user', seq, '@example.com'),
  TIMESTAMP'2024-01-01 00:00:00' + INTERVAL seq SECOND, TIMESTAMP'2024-01-01 00:00:00' + INTERVAL seq SECOND,
  seq % 3 = 0, JSON_OBJECT('source', 'web', 'items', seq % 10, 'tags', JSON_ARRAY('a', 'b')),
  DATE'2024-01-01' + INTERVAL seq % 1000 DAY
FROM seq_1_to_{rows}
"""
_BY_SCANNER = """
import sys
import duckdb
database, scanner, port, limit, columns = sys.argv[1:]
# It may take JSON's own collation, which is binary, for bytes.
columns = columns.replace("attrs", "CONVERT(attrs USING utf8mb4) AS attrs")
with duckdb.connect(database) as connection:
    connection.execute(f"LOAD '{scanner}'")
    connection.execute(f"SET memory_limit = '{limit}'")
    connection.execute(f"ATTACH 'host=127.0.0.1 port={port} user=root database=bench' AS my (TYPE mysql, READ_ONLY)")
    connection.execute(
        f"CREATE OR REPLACE TABLE items AS SELECT * REPLACE (CAST(attrs AS JSON) AS attrs) "
        f"FROM mysql_query('my', 'SELECT {columns} FROM items', stream_results = TRUE)"
    )
"""
_BY_PYMYSQL = """
import sys
import duckdb, pyarrow as pa, pymysql, pymysql.cursors
database, port, limit, columns = sys.argv[1:]
names = columns.split(", ")
schema = pa.schema(list(zip(names, [
    pa.int64(), pa.int32(), pa.decimal128(12, 2), pa.string(), pa.string(), pa.string(), pa.string(),
    pa.timestamp("us"), pa.timestamp("us"), pa.bool_(), pa.string(), pa.date32(),
])))
far = pymysql.connect(
    host="127.0.0.1", port=int(port), user="root", database="bench", charset="utf8mb4",
    cursorclass=pymysql.cursors.SSCursor,
)
with duckdb.connect(database) as connection, far.cursor() as cursor:
    connection.execute(f"SET memory_limit = '{limit}'")
    connection.execute(
        "CREATE OR REPLACE TABLE items (id BIGINT, customer INTEGER, amount DECIMAL(12,2), status VARCHAR, "
        "note VARCHAR, city VARCHAR, email VARCHAR, created_at TIMESTAMP, updated_at TIMESTAMP, "
        "paid BOOLEAN, attrs JSON, day DATE)"
    )
    connection.execute("BEGIN")
    cursor.execute(f"SELECT {columns} FROM items")
    while rows := cursor.fetchmany(20_000):
        columns_of = [list(column) for column in zip(*rows)]
        columns_of[9] = [bool(value) for value in columns_of[9]]
        batch = pa.table([pa.array(c, f.type) for c, f in zip(columns_of, schema)], schema=schema)
        connection.execute("INSERT INTO items FROM batch")
    connection.execute("COMMIT")
far.close()
"""
_EXPORTED_BY_HAND = """
import sys
import duckdb, pymysql
database, port, file = sys.argv[1:]
with duckdb.connect(database, read_only=True) as connection:
    connection.execute(f"COPY (FROM load.items) TO '{file}' (FORMAT csv, HEADER false, NULLSTR '\\\\N')")
far = pymysql.connect(
    host="127.0.0.1", port=int(port), user="root", database="bench", charset="utf8mb4", local_infile=True
)
with far.cursor() as cursor:
    cursor.execute("DROP TABLE IF EXISTS by_hand")
    cursor.execute(
        "CREATE TABLE by_hand (id bigint, customer int, amount decimal(12,2), status longtext, note longtext, "
        "city longtext, email longtext, created_at datetime(6), updated_at datetime(6), paid varchar(5), attrs json, "
        "day date) CHARACTER SET utf8mb4"
    )
    cursor.execute(
        f"LOAD DATA LOCAL INFILE '{file}' INTO TABLE by_hand CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' "
        "OPTIONALLY ENCLOSED BY '\\"' ESCAPED BY ''"
    )
far.commit()
far.close()
"""


def mysql(sizes: Sizes) -> Iterator[Figure]:
    """Load and export through a server on this machine."""
    scratch = sizes.scratch("mysql")
    # A socket's path may not be long.
    place = Path(tempfile.mkdtemp(prefix="sqlflow-bench-my-", dir="/tmp"))
    server = new_server(place, "--innodb-buffer-pool-size=256M", "--local-infile=ON")
    server.make()
    server.start()
    try:
        server.run(f"CREATE DATABASE {_DATABASE} CHARACTER SET utf8mb4")
        server.run(_TABLE, _ROWS.format(rows=sizes.peer_rows), "ANALYZE TABLE items", database=_DATABASE)
        ours = _ours(server, scratch)
        yield from _loaded(server, sizes, scratch, ours)
        yield from _exported(server, sizes, scratch, ours)
    finally:
        server.stop()
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(scratch, ignore_errors=True)


def _loaded(server: Server, sizes: Sizes, scratch: Path, ours: Way) -> Iterator[Figure]:
    hands = [
        _program("mysql_scanner", scratch, _BY_SCANNER, str(_scanner()), str(server.port)),
        _program("pymysql", scratch, _BY_PYMYSQL, str(server.port)),
    ]
    for way in (ours, *hands):
        once(way.command, scratch / "log")
    for way in hands:
        same_rows(way.database, way.table, ours.database, ours.table, sizes.peer_rows)
    commands = (ours.command, *(way.command for way in hands), started(scratch))
    runs = interleaved(commands, sizes.rounds, scratch / "log")
    case = f"MariaDB, {sizes.peer_rows:,} rows of 12 columns into DuckDB"
    yield beside_hand(case, runs, _SCANNER_LIMIT, "mysql_scanner")
    yield beside_hand(f"{case}, beside a program", runs, _PYMYSQL_LIMIT, "pymysql")


def _exported(server: Server, sizes: Sizes, scratch: Path, ours: Way) -> Iterator[Figure]:
    """Compare an export with a CSV file of DuckDB's that a program sends by LOAD DATA LOCAL."""
    project = ours.database.parents[1]
    target = f'"{server.url(_DATABASE)}#by_sqlflow" OPTIONS {{"mode": "replace"}}'
    inputs.project(project, {"out": f"EXPORT SELECT * FROM load.items TO {target};\n"})
    env = ours.command.env
    once(ours.command, scratch / "log")
    words = [
        sys.executable,
        "-c",
        _EXPORTED_BY_HAND,
        str(ours.database),
        str(server.port),
        str(scratch / "out.csv"),
    ]
    commands = (
        Command("LOAD DATA", words, env),
        Command("sqlflow run", inputs.run("out", project), env),
        started(scratch),
    )
    for command in commands[:2]:
        once(command, scratch / "log")
    runs = interleaved(commands, sizes.rounds, scratch / "log")
    sums = "SELECT COUNT(*), SUM(id), SUM(amount), SUM(CRC32(note)), MAX(updated_at) FROM {}"
    found = [server.run(sums.format(name), database=_DATABASE) for name in ("by_hand", "by_sqlflow", "items")]
    if found[0] != found[1] or found[1] != found[2]:
        raise RuntimeError(f"the two exports differ: {found}")
    yield beside_hand(f"Export of {sizes.peer_rows:,} rows to MariaDB", runs, _EXPORT_LIMIT, "LOAD DATA")


def _ours(server: Server, scratch: Path) -> Way:
    folder = scratch / "ours"
    pipeline = (
        f'SOURCE my TYPE MYSQL PARAMS {{ "connection": "{server.url(_DATABASE)}", "table": "items" }};\n'
        "LOAD items FROM my;\n"
    )
    project = inputs.project(folder / "project", {"load": pipeline})
    words, env = inputs.run("load", project), inputs.environment(folder)
    command = Command("sqlflow run", words, env, lambda: inputs.forget(project))
    return Way(command, project / "data/warehouse.duckdb", "load.items", folder)


def _program(name: str, scratch: Path, text: str, *told: str) -> Way:
    """A program that a person would type."""
    folder = scratch / name
    folder.mkdir(exist_ok=True)
    typed = folder / "typed.duckdb"
    words = [sys.executable, "-c", text, str(typed), *told, inputs.MEMORY_LIMIT, _COLUMNS]
    return Way(Command(name, words, inputs.environment(folder)), typed, "items", folder)


def _scanner() -> Path:
    package = find_spec("duckdb_extension_mysql_scanner")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("pip install duckdb-extension-mysql-scanner, to compare with it")
    folder = Path(package.submodule_search_locations[0], "extensions", f"v{duckdb.__version__}")
    return folder / "mysql_scanner.duckdb_extension"
