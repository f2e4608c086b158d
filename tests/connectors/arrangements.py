"""How the contract puts rows into the far side of each connector, and finds them there again.

To put a connector under the contract, add a class here: `params` name the far side, `put` makes it
hold exactly the rows given, `wide` makes one for the memory promise, `documented` what the SOURCE
statement of the module's docstring reads. The far side is written by others' code, never by ours.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import sqlite3
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import duckdb

from tests.object_store import KEY, SECRET

from .mysql.conftest import READER_PASSWORD as MYSQL_PASSWORD
from .postgres.conftest import READER_PASSWORD as POSTGRES_PASSWORD

COLUMNS = {
    "id": "BIGINT",
    "changed": "TIMESTAMP",
    "name": "VARCHAR",
    "amount": "DECIMAL(12,2)",
    "ok": "BOOLEAN",
    "day": "DATE",
}


def relation(rows):
    """A SELECT of rows of (id, changed, name, amount, ok, day), each as text or None."""
    typed = ", ".join(f"CAST({name} AS {kind}) AS {name}" for name, kind in COLUMNS.items())
    listed = ", ".join(f"({', '.join(map(_literal, row))})" for row in rows)
    nulls = f"({', '.join(['NULL'] * len(COLUMNS))})"
    return f"SELECT {typed} FROM (VALUES {listed or nulls}) AS t({', '.join(COLUMNS)}) WHERE {bool(rows)}"


def _literal(value):
    return "NULL" if value is None else "'" + str(value).replace("'", "''") + "'"


class Arrangement(ABC):
    """The far side of one connector; `split` says that it can lie in more than one file."""

    type: ClassVar[str]
    required: ClassVar[str]
    # An old name, the present one, and two values that both would take.
    renamed: ClassVar[tuple[str, str, Any, Any]]
    types: ClassVar[dict[str, str]] = COLUMNS
    # Whether a read needs no more memory for more rows.
    bounded: ClassVar[bool] = True
    # Whether it takes exports.
    writes: ClassVar[bool] = True

    def __init__(self, bench):
        self.bench = bench

    @property
    @abstractmethod
    def params(self) -> dict[str, Any]:
        """The SOURCE's parameters."""

    @abstractmethod
    def put(self, rows) -> None:
        """Make the far side hold these rows, in more than one page or file where it can."""

    @abstractmethod
    def wide(self, count: int) -> None:
        """Make the far side hold `count` rows of about 1,300 bytes; `id` is their number."""

    @abstractmethod
    def documented(self) -> dict[str, str]:
        """Make what the docstring's statement reads, and return what its table's columns then are."""

    @property
    @abstractmethod
    def target(self) -> str:
        """Where and how an EXPORT writes: what follows TO."""

    @property
    @abstractmethod
    def written(self) -> dict[str, Any]:
        """The parameters that read back what was exported."""

    # Targets that cannot be reached, and that may not be written to; None where there can be none.
    nowhere: Any = '"data/file/out.csv" TYPE CSV'
    forbidden: Any = '"/etc/sqlflow/out.csv" TYPE CSV'
    advice: ClassVar[str] = "add its folder to engines.duckdb.allowed_directories"
    # Whether the plan sees by a path that it may not be written to.
    planned: ClassVar[bool] = True

    def held(self):
        """What is at the far side: equal where nothing changed."""
        own = [self.bench.root / ".sqlflow", self.bench.root / "pipelines"]
        return {
            str(path): path.stat().st_mtime_ns
            for path in sorted(self.bench.root.rglob("*"))
            if not any(path.is_relative_to(folder) for folder in own)
        }

    def sql(self, *statements):
        """Run SQL in a DuckDB of the far side's own."""
        with duckdb.connect() as connection:
            for statement in statements:
                connection.execute(statement)


class Files(Arrangement):
    """Files of one format, written by DuckDB."""

    suffix: ClassVar[str]
    copy: ClassVar[str]
    required = "path"
    renamed = ("file_path", "path", "nowhere/else", "data/in")
    # What the text of a row is made of.
    text: ClassVar[str] = "range::VARCHAR"
    # Parameters that say what the format itself does not.
    says: ClassVar[dict[str, Any]] = {"types": COLUMNS}

    @property
    def folder(self):
        folder = self.bench.root / "data/in"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def params(self):
        return {"path": "data/in", **self.says}

    def put(self, rows):
        for file in self.folder.iterdir():
            file.unlink()
        half = len(rows) // 2
        for number, part in enumerate([rows[:half], rows[half:]] if half else [rows]):
            self.write(self.folder / f"{number}{self.suffix}", relation(part))

    def write(self, path, select):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.sql(f"COPY ({select}) TO '{path}' ({self.copy})")

    def wide(self, count):
        select = f"SELECT range AS id, repeat(md5({self.text}), 40) AS text FROM range({count})"
        self.write(self.folder / f"0{self.suffix}", select)

    @property
    def target(self):
        return f'"output/out{self.suffix}"'

    @property
    def nowhere(self):
        return f'"data/file/out{self.suffix}"'

    @property
    def forbidden(self):
        return f'"/etc/sqlflow/out{self.suffix}"'

    @property
    def written(self):
        return {"path": f"output/out{self.suffix}", **self.says}


class Csv(Files):
    type, suffix, copy = "CSV", ".csv", "FORMAT csv, HEADER"

    def documented(self):
        self.write(self.bench.root / "data/orders/1.csv", "SELECT 1 AS id, 2.5 AS amount")
        return {"id": "BIGINT", "amount": "DECIMAL(12,2)"}


class Tsv(Files):
    type, suffix, copy = "TSV", ".tsv", "FORMAT csv, HEADER, DELIMITER '\t'"

    def documented(self):
        self.write(self.bench.root / "data/orders.tsv", "SELECT 1 AS id")
        return {"id": "BIGINT"}


class Json(Files):
    type, suffix, copy = "JSON", ".json", "FORMAT json, ARRAY"

    def documented(self):
        self.bench.write("data/orders.json", '{"data": {"items": [{"id": 1}, {"id": 2}]}}')
        return {"id": "BIGINT"}


class Jsonl(Files):
    type, suffix, copy = "JSONL", ".jsonl", "FORMAT json"

    def documented(self):
        self.write(self.bench.root / "data/events/1.jsonl", "SELECT 1 AS id")
        return {"id": "BIGINT"}


class Parquet(Files):
    type, suffix, copy = "PARQUET", ".parquet", "FORMAT parquet, ROW_GROUP_SIZE 8192"
    says: ClassVar = {}

    def documented(self):
        self.write(self.bench.root / "data/orders/2026/1.parquet", "SELECT 1::TINYINT AS id")
        return {"id": "TINYINT"}


class Excel(Files):
    """Workbooks, written by openpyxl."""

    type, suffix = "EXCEL", ".xlsx"
    # A workbook holds each text once, beside its cells, and so does who reads it.
    text = "(range % 1000)::VARCHAR"

    def write(self, path, select):
        import openpyxl

        path.parent.mkdir(parents=True, exist_ok=True)
        book = openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet()
        with duckdb.connect() as connection:
            found = connection.execute(select)
            sheet.append([column[0] for column in found.description])
            while rows := found.fetchmany(1000):
                for row in rows:
                    sheet.append(row)
        book.save(path)

    def documented(self):
        import openpyxl

        book = openpyxl.Workbook()
        book.active.title = "2024"
        for row in ([], [], ["id", "amount"], [1, 2.5]):
            book.active.append(row)
        (self.bench.root / "data").mkdir(exist_ok=True)
        book.save(self.bench.root / "data/plan.xlsx")
        return {"id": "BIGINT", "amount": "DECIMAL(12,2)"}


class InMemory(Arrangement):
    type, required = "IN_MEMORY", "rows"
    renamed = ("name", "table", "nowhere", "contract")
    bounded = False
    params: ClassVar = {"table": "contract", "types": COLUMNS}
    target = '"memory://written"'
    nowhere = forbidden = None
    written: ClassVar = {"table": "written", "types": COLUMNS}

    def put(self, rows):
        from sqlflow_dagster import put_in_memory

        with duckdb.connect() as connection:
            found = connection.execute(relation(rows)).to_arrow_table()
        put_in_memory("contract", found.to_pylist())

    def wide(self, count):
        raise NotImplementedError

    def documented(self):
        return {"code": "VARCHAR", "name": "VARCHAR", "vat": "DECIMAL(3,2)"}


class DuckDB(Arrangement):
    type, required = "DUCKDB", "path"
    renamed = ("database", "path", "nowhere.duckdb", "data/far.duckdb")
    target = '"duckdb://output/out.duckdb/written"'
    nowhere = '"duckdb://data/file/out.duckdb/written"'
    forbidden = '"duckdb:////etc/sqlflow/out.duckdb/written"'
    written: ClassVar = {"path": "output/out.duckdb", "table": "written"}
    params: ClassVar = {"path": "data/far.duckdb", "table": "rows"}

    def put(self, rows):
        self.make("far", "rows", relation(rows))

    def make(self, file, table, select):
        path = self.bench.root / f"data/{file}.duckdb"
        path.parent.mkdir(exist_ok=True)
        schema = table.rpartition(".")[0] or "main"
        self.sql(
            f"ATTACH '{path}' AS far",
            f"CREATE SCHEMA IF NOT EXISTS far.{schema}",
            f"CREATE OR REPLACE TABLE far.{table} AS {select}",
        )

    def wide(self, count):
        self.make(
            "far", "rows", f"SELECT range AS id, repeat(md5(range::VARCHAR), 40) AS text FROM range({count})"
        )

    def documented(self):
        select = "SELECT 1 AS id, TIMESTAMP '2026-01-01' AS updated_at"
        self.make("crm", "sales.orders", select)
        self.make("crm", "customers", select)
        return {"id": "INTEGER", "updated_at": "TIMESTAMP"}


class Sqlite(Arrangement):
    type, required = "SQLITE", "path"
    renamed = ("database", "path", "nowhere.sqlite", "data/far.sqlite")
    target = '"sqlite://output/out.sqlite/written"'
    nowhere = '"sqlite://data/file/out.sqlite/written"'
    forbidden = '"sqlite:////etc/sqlflow/out.sqlite/written"'
    written: ClassVar = {"path": "output/out.sqlite", "table": "written", "types": COLUMNS}
    params: ClassVar = {"path": "data/far.sqlite", "table": "rows", "types": COLUMNS}

    def put(self, rows):
        self.make("far", "rows", COLUMNS, rows)

    def make(self, file, table, columns, rows):
        path = self.bench.root / f"data/{file}.sqlite"
        path.parent.mkdir(exist_ok=True)
        with contextlib.closing(sqlite3.connect(path)) as connection, connection:
            named = ", ".join(f"{name} {kind}" for name, kind in columns.items())
            connection.execute(f"DROP TABLE IF EXISTS {table}")
            connection.execute(f"CREATE TABLE {table} ({named})")
            places = ", ".join("?" for _ in columns)
            connection.executemany(f"INSERT INTO {table} VALUES ({places})", rows)

    def wide(self, count):
        with duckdb.connect() as connection:
            select = f"SELECT range, repeat(md5(range::VARCHAR), 40) FROM range({count})"
            rows = iter(connection.execute(select).fetchone, None)
            self.make("far", "rows", {"id": "INTEGER", "text": "TEXT"}, rows)

    def documented(self):
        for table in ("users", "orders"):
            rows = [(1, "2026-01-01 00:00:00")]
            self.make("app", table, {"id": "INTEGER", "updated_at": "TIMESTAMP"}, rows)
        return {"id": "BIGINT", "updated_at": "TIMESTAMP"}


class Postgres(Arrangement):
    """A database of a real server, which tests/connectors/postgres starts."""

    type, required = "POSTGRES", "cursor_field"
    # Its batches need a secret of the warehouse; the benchmarks measure whole loads.
    bounded = False
    renamed = ("table_name", "table", "nowhere", "rows")
    types: ClassVar = COLUMNS

    def __init__(self, bench, database):
        super().__init__(bench)
        self.database = database

    @property
    def params(self):
        return {"connection": self.database.url, "table": "rows"}

    def put(self, rows):
        self.make("rows", COLUMNS)
        with self.database.connect() as connection, connection.cursor() as cursor:
            places = ", ".join("%s" for _ in COLUMNS)
            cursor.executemany(f"INSERT INTO rows VALUES ({places})", rows)

    def make(self, table, columns):
        named = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        self.database.run(f"DROP TABLE IF EXISTS {table}", f"CREATE TABLE {table} ({named})")

    def wide(self, count):
        self.make("rows", {"id": "BIGINT", "text": "TEXT"})
        self.database.run(
            f"INSERT INTO rows SELECT n, repeat(md5(n::text), 40) FROM generate_series(0, {count - 1}) AS n"
        )

    def documented(self):
        self.make("orders", {"id": "BIGINT", "updated_at": "TIMESTAMP"})
        self.database.run("INSERT INTO orders VALUES (1, '2026-01-01')")
        self.bench.write(".env", f"DATABASE_URL={self.database.url}\n")
        return {"id": "BIGINT", "updated_at": "TIMESTAMP"}

    @property
    def target(self):
        return f'"{self.database.url}#public.written"'

    nowhere = '"postgresql://postgres@127.0.0.1:1/none#public.written"'
    advice = "GRANT "
    planned = False

    @property
    def forbidden(self):
        address = self.database.url.replace("postgres@", f"reader:{POSTGRES_PASSWORD}@")
        return f'"{address}#public.written"'

    def held(self):
        return self.database.run(
            "SELECT n.nspname, c.relname, c.oid FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
            " WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1, 2"
        )

    @property
    def written(self):
        return {"connection": self.database.url, "table": "written"}


class Avro(Files):
    """Avro files, written by fastavro."""

    type, suffix = "AVRO", ".avro"
    says: ClassVar = {}
    kinds: ClassVar = {
        "BIGINT": "long", "VARCHAR": "string", "BOOLEAN": "boolean",
        "TIMESTAMP": {"type": "long", "logicalType": "local-timestamp-micros"},
        "DECIMAL(12,2)": {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 2},
        "DATE": {"type": "int", "logicalType": "date"},
    }  # fmt: skip

    def write(self, path, select):
        import fastavro

        path.parent.mkdir(parents=True, exist_ok=True)
        with duckdb.connect() as connection, path.open("wb") as file:
            columns = connection.execute(f"DESCRIBE {select}").fetchall()
            fields = [{"name": name, "type": ["null", self.kinds[kind]]} for name, kind, *_ in columns]
            found = connection.execute(select)
            names = [name for name, *_ in columns]
            rows = (dict(zip(names, row, strict=True)) for row in iter(found.fetchone, None))
            fastavro.writer(file, {"type": "record", "name": "row", "fields": fields}, rows, codec="snappy")

    def documented(self):
        self.write(self.bench.root / "data/clicks/1.avro", "SELECT 1::BIGINT AS id")
        return {"id": "BIGINT"}


class S3(Arrangement):
    """Objects of a real store, which tests/object_store.py starts; Parquet, so that types are the far side's."""

    type, required = "S3", "bucket"
    renamed = ("prefix", "path_prefix", "nowhere/", "in/")

    def __init__(self, bench, bucket):
        super().__init__(bench)
        self.bucket = bucket

    @property
    def params(self):
        return {**self.bucket.params, "path_prefix": "in/"}

    def put(self, rows):
        self.bucket.empty()
        half = len(rows) // 2
        for number, part in enumerate([rows[:half], rows[half:]] if half else [rows]):
            self.write(f"in/{number}.parquet", relation(part))

    def write(self, key, select):
        path = self.bench.root.parent / "object"
        self.sql(f"COPY ({select}) TO '{path}' (FORMAT parquet, ROW_GROUP_SIZE 8192)")
        self.bucket.put(key, path)

    def wide(self, count):
        self.bucket.empty()
        self.write(
            "in/0.parquet", f"SELECT range AS id, repeat(md5(range::VARCHAR), 40) AS text FROM range({count})"
        )

    def documented(self):
        self.bench.write(".env", f"S3_ENDPOINT={self.bucket.store.url}\nS3_KEY={KEY}\nS3_SECRET={SECRET}\n")
        with contextlib.suppress(
            self.bucket.client.exceptions.BucketAlreadyOwnedByYou,
            self.bucket.client.exceptions.BucketAlreadyExists,
        ):
            self.bucket.client.create_bucket(Bucket="lake")
        lake = type(self.bucket)(self.bucket.store, "lake")
        lake.put("raw/sales/1.csv", "id,amount\n1,2.50\n")
        return {"id": "BIGINT", "amount": "DECIMAL(12,2)"}

    @property
    def target(self):
        options = {name: value for name, value in self.bucket.params.items() if name != "bucket"}
        return f'"s3://{self.bucket.name}/out/x.parquet" OPTIONS {json.dumps(options)}'

    advice = "ask for s3:PutObject"
    planned = False

    @property
    def nowhere(self):
        return self.target.replace(self.bucket.store.url, "http://127.0.0.1:1")

    @property
    def forbidden(self):
        return self.target.replace(KEY, "READER").replace(SECRET, "CANARY-reader")

    def held(self):
        uploads = self.bucket.client.list_multipart_uploads(Bucket=self.bucket.name).get("Uploads", [])
        return {key: self.bucket.get(key) for key in sorted(self.bucket.keys())}, uploads

    @property
    def written(self):
        return {**self.bucket.params, "key": "out/x.parquet"}


class MySQL(Postgres):
    """A database of a real MariaDB, which tests/connectors/mysql starts."""

    type = "MYSQL"

    def put(self, rows):
        made = {"TIMESTAMP": "datetime(6)", "VARCHAR": "varchar(200) CHARACTER SET utf8mb4"}
        self.make("rows", {name: made.get(kind, kind) for name, kind in COLUMNS.items()})
        with self.database.connect() as connection, connection.cursor() as cursor:
            places = ", ".join("%s" for _ in COLUMNS)
            cursor.executemany(f"INSERT INTO `rows` VALUES ({places})", rows)

    def make(self, table, columns):
        named = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        self.database.run(f"DROP TABLE IF EXISTS `{table}`", f"CREATE TABLE `{table}` ({named})")

    def wide(self, count):
        self.make("rows", {"id": "BIGINT", "text": "TEXT"})
        self.database.run(f"INSERT INTO `rows` SELECT seq, repeat(md5(seq), 40) FROM seq_0_to_{count - 1}")

    def documented(self):
        self.make("orders", {"id": "BIGINT", "updated_at": "DATETIME"})
        self.database.run("INSERT INTO orders VALUES (1, '2026-01-01')")
        self.bench.write(".env", f"MYSQL_URL={self.database.url}\n")
        return {"id": "BIGINT", "updated_at": "TIMESTAMP"}

    nowhere = '"mysql://root@127.0.0.1:1/none#written"'

    @property
    def target(self):
        return f'"{self.database.url}#written"'

    @property
    def forbidden(self):
        address = self.database.url.replace("root@", f"reader:{MYSQL_PASSWORD}@")
        return f'"{address}#written"'

    def held(self):
        return self.database.run(
            "SELECT TABLE_SCHEMA, TABLE_NAME, CREATE_TIME, TABLE_ROWS FROM information_schema.TABLES"
            " WHERE TABLE_SCHEMA = DATABASE() ORDER BY 1, 2"
        )


ARRANGEMENTS: list[type[Arrangement]] = [
    Csv, Tsv, Json, Jsonl, Parquet, Avro, Excel, InMemory, DuckDB, Sqlite, S3,
]  # fmt: skip
if importlib.util.find_spec("pgserver"):
    ARRANGEMENTS.append(Postgres)
ARRANGEMENTS.append(MySQL)
