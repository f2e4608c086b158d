"""Rows of an EXPORT → a table of an SQLite file, in one transaction of it.

| DuckDB | declared in SQLite | stored as |
|---|---|---|
| whole numbers of 64 bits | INTEGER | integer |
| BOOLEAN | BOOLEAN | 0, 1 |
| FLOAT, DOUBLE | REAL | real; NaN is refused, SQLite would make NULL of it |
| DECIMAL of 15 digits | DECIMAL(p,s) | number |
| DATE, TIME, TIMESTAMP, TIMESTAMPTZ | the same | text in ISO 8601, TIMESTAMPTZ with its offset |
| BLOB | BLOB | blob |
| all others | TEXT | text, lists and structs as JSON |

In a table that is there already, what its columns' types would change is refused.
"""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel

from sqlflow_dagster.connectors import json_sink, parameters
from sqlflow_dagster.connectors.base import Place, Rows, Written
from sqlflow_dagster.connectors.local_database import LocalSinkOptions, Target, located
from sqlflow_dagster.connectors.sqlite_types import Column
from sqlflow_dagster.errors import BadOption, ExportFailed, RetryLater
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.rooms import room
from sqlflow_dagster.sql import Sql, fold, join, quote, sql

_DIGITS = 15
_EXACT = 2**53
_INTEGERS = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER")
_ZONED = "TIMESTAMP WITH TIME ZONE"
_TIMES = {"DATE": "DATE", "TIME": "TIME", "TIMESTAMP": "TIMESTAMP", "TIMESTAMP_S": "TIMESTAMP",
          "TIMESTAMP_MS": "TIMESTAMP", "TIMESTAMP_NS": "TIMESTAMP", _ZONED: "TIMESTAMPTZ"}  # fmt: skip
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_BYTE = re.compile(rb"\\x([0-9A-F]{2})")
_LOOKS_LIKE_A_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_NEW = "_sqlflow_new"
_EXPORTS = "_sqlflow_exports"
_TIMEOUT_SECONDS = 30

Value = int | float | str | bytes | None
Maker = Callable[[Any], Value]


def write_table(rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
    """Store all rows in the table that the target names, or nothing.

    Raises BadOption for a target without a table, RetryLater where another program writes the file,
    and ExportFailed where the rows cannot be stored as they are.
    """
    wanted, where = cast("LocalSinkOptions", options), located_table(target, options, place)
    for name, kind in rows.columns.items():
        if "BIGNUM" in kind:
            raise ExportFailed(f"the column {name!r} is {kind}; CAST it to VARCHAR in the query")
    with room(place.spool, "export") as folder:
        lines = folder / "rows.jsonl"
        count = rows.copy_to(lines, json_sink.LINES, json_sink.row(rows.columns))
        with _writing(where) as connection:
            if wanted.mode != "append" or not _done_before(connection, place.once):
                _Writer(connection, where, rows.columns, count, wanted).write(lines)
    return Written(rows=count, bytes=None, target=str(where))


def located_table(target: str, options: BaseModel, place: Place) -> Target:
    """Return the table that the target and the options name. Raises BadOption where they do not agree."""
    wanted = cast("LocalSinkOptions", options)
    parameters.check_keys(wanted.mode, wanted.keys)
    where = located(place, target, wanted.table, ("sqlite",))
    if where.schema not in (None, "main"):
        raise BadOption(f"table: an SQLite file has no schemas, and {where.schema!r} is one", option="table")
    return where


@contextmanager
def _writing(where: Target) -> Iterator[sqlite3.Connection]:
    """A connection in one transaction that ends with the block."""
    new = not where.path.exists()
    committed = False
    try:
        where.path.parent.mkdir(parents=True, exist_ok=True)
        with closing(
            sqlite3.connect(where.path, timeout=_TIMEOUT_SECONDS, isolation_level=None)
        ) as connection:
            connection.execute("PRAGMA synchronous = FULL")
            # A view of the table that is swapped stays as it is written.
            connection.execute("PRAGMA legacy_alter_table = ON")
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            failpoint("before_export_commit")
            connection.execute("COMMIT")
            failpoint("after_export_commit")
            committed = True
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise RetryLater(f"{where.path}: another program holds it ({error})", after=5) from error
        raise ExportFailed(f"{where}: {error}; nothing was stored") from error
    except OSError as error:
        raise ExportFailed(f"{where}: {error.strerror or error}; nothing was stored") from error
    finally:
        if new and not committed:
            # Where nothing can be made, that has been said already.
            with suppress(OSError):
                where.path.unlink(missing_ok=True)


class _Writer:
    """One export into one table."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        where: Target,
        columns: Mapping[str, str],
        count: int,
        options: LocalSinkOptions,
    ) -> None:
        self._connection = connection
        self._where = where
        self._columns = columns
        self._count = count
        self._options = options
        self._table = quote(where.table)

    def write(self, lines: Path) -> None:
        kind = self._kind()
        if kind not in (None, "table"):
            raise ExportFailed(f"{self._where}: it is a {kind}; drop it, or write another table")
        self._check_keys()
        if kind is None:
            self._create(self._where.table)
            self._insert(self._where.table, lines, {})
        elif self._options.mode == "replace":
            self._swap(lines)
        else:
            self._merge(lines)

    def _kind(self) -> str | None:
        row = self._connection.execute(
            "SELECT type FROM sqlite_master WHERE type IN ('table', 'view') AND lower(name) = lower(?)",
            (self._where.table,),
        ).fetchone()
        return row[0] if row else None

    def _check_keys(self) -> None:
        known = {fold(name) for name in self._columns}
        missing = [key for key in self._options.keys if fold(key) not in known]
        if missing:
            raise ExportFailed(
                f"{self._where}: the query gives no column {', '.join(missing)}, which names a row"
            )

    def _create(self, name: str) -> None:
        columns = (
            sql("{name} {kind}", name=quote(column), kind=Sql(_declared(kind)))
            for column, kind in self._columns.items()
        )
        statement = sql("CREATE TABLE {table} ({columns})", table=quote(name), columns=join(", ", columns))
        self._connection.execute(statement)

    def _swap(self, lines: Path) -> None:
        """Make the table beside the old one, and put it in its place with what belonged to that."""
        belongings = self._connection.execute(
            "SELECT sql FROM sqlite_master WHERE type IN ('index', 'trigger') AND lower(tbl_name) = lower(?)"
            " AND sql IS NOT NULL",
            (self._where.table,),
        ).fetchall()
        self._create(_NEW)
        self._insert(_NEW, lines, {})
        self._connection.execute(sql("DROP TABLE {table}", table=self._table))
        self._connection.execute(
            sql("ALTER TABLE {new} RENAME TO {table}", new=quote(_NEW), table=self._table)
        )
        for (statement,) in belongings:
            self._connection.execute(statement)

    def _merge(self, lines: Path) -> None:
        found = self._connection.execute(
            "SELECT name, type, pk > 0 AND sum(pk > 0) OVER () = 1 AND upper(type) = 'INTEGER'"
            " FROM pragma_table_xinfo(?) WHERE hidden = 0",
            (self._where.table,),
        )
        there = {fold(name): Column(name, declared, bool(numbered)) for name, declared, numbered in found}
        lacking = [name for name in self._columns if fold(name) not in there]
        if lacking:
            raise ExportFailed(
                f"{self._where}: the table has no column {', '.join(lacking)}; add it there, or leave it out of "
                "the query"
            )
        if self._options.mode == "append":
            self._insert(self._where.table, lines, there)
            return
        self._create(_NEW)
        self._insert(_NEW, lines, {})
        self._check_twice()
        same = join(
            " AND ",
            (sql("s.{c} IS {table}.{c}", c=quote(key), table=self._table) for key in self._options.keys),
        )
        self._connection.execute(
            sql(
                "DELETE FROM {table} WHERE EXISTS (SELECT 1 FROM {new} AS s WHERE {same})",
                table=self._table,
                new=quote(_NEW),
                same=same,
            )
        )
        self._insert(self._where.table, lines, there)
        self._connection.execute(sql("DROP TABLE {new}", new=quote(_NEW)))

    def _check_twice(self) -> None:
        keys = join(", ", map(quote, self._options.keys))
        twice = self._connection.execute(
            sql(
                "SELECT {keys} FROM {new} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1",
                keys=keys,
                new=quote(_NEW),
            )
        ).fetchone()
        if twice:
            raise ExportFailed(
                f"{self._where}: the query gives the key {', '.join(map(str, twice))} more than once; keep one row "
                "by QUALIFY row_number() OVER (PARTITION BY …) = 1"
            )

    def _insert(self, table: str, lines: Path, there: Mapping[str, Column]) -> None:
        """Insert the rows; `there` are the columns of a table that was not made for them."""
        makers = [
            _guarded(_maker(name, kind), name, there.get(fold(name)), self._where)
            for name, kind in self._columns.items()
        ]
        statement = sql(
            "INSERT INTO {table} ({columns}) VALUES ({places})",
            table=quote(table),
            columns=join(", ", map(quote, self._columns)),
            places=join(", ", [Sql("?")] * len(makers)),
        )
        decoder = json.JSONDecoder(object_pairs_hook=tuple, parse_float=Decimal, parse_constant=str)
        with lines.open(encoding="utf-8", newline="\n") as stream:
            rows = (
                [make(value) for make, (_name, value) in zip(makers, decoder.decode(line), strict=True)]
                for line in stream
            )
            stored = self._connection.executemany(statement, rows).rowcount
        if (missing := self._count - stored) > 0:
            raise ExportFailed(
                f"{self._where}: a trigger or ON CONFLICT of the table kept {missing} of {self._count} rows out; mend "
                "it, or leave those rows out of the query; nothing was stored"
            )


def _declared(kind: str) -> str:
    if kind in _INTEGERS:
        return "INTEGER"
    if kind in ("FLOAT", "DOUBLE"):
        return "REAL"
    decimal = _DECIMAL.fullmatch(kind)
    if decimal and int(decimal[1]) <= _DIGITS:
        return kind
    return _TIMES.get(kind) or (kind if kind in ("BOOLEAN", "BLOB") else "TEXT")


def _maker(name: str, kind: str) -> Maker:
    """What makes SQLite's value of one of this type, as DuckDB writes it in JSON."""
    declared = _declared(kind)
    if declared == "INTEGER":
        return lambda value: cast("int | None", value)
    if declared == "BOOLEAN":
        return lambda value: None if value is None else int(value)
    if declared == "REAL" or declared.startswith("DECIMAL"):
        return lambda value: _number(name, value)
    if declared == "BLOB":
        return _blob
    if kind == "JSON":
        return lambda value: None if value is None else _json(value)
    return _text


def _number(name: str, value: Any) -> Value:
    if value is None or isinstance(value, int):
        return value
    number = float(value)
    if math.isnan(number):
        raise ExportFailed(
            f"the column {name!r} has NaN, of which SQLite makes NULL; replace it in the query"
        )
    return number


def _blob(value: Any) -> Value:
    if value is None:
        return None
    return _BYTE.sub(lambda match: bytes.fromhex(match[1].decode()), value.encode())


def _text(value: Any) -> Value:
    if value is None or isinstance(value, str):
        return value
    return _json(value)


def _json(value: Any) -> str:
    """A list, struct or long number as JSON, with all digits."""
    if isinstance(value, tuple):
        return "{" + ", ".join(f"{json.dumps(k, ensure_ascii=False)}: {_json(v)}" for k, v in value) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_json, value)) + "]"
    return f"{value:f}" if isinstance(value, Decimal) else json.dumps(value, ensure_ascii=False)


def _guarded(make: Maker, name: str, column: Column | None, where: Target) -> Maker:
    """A maker that refuses what the column of a table that is there would change."""
    if column is None:
        return make

    def guarded(raw: Any) -> Value:
        value = make(raw)
        if value is None and column.numbered:
            raise ExportFailed(
                f"{where}: its column {name!r} is the number of a row, which would be the next one for NULL; leave the "
                "column out of the query, or those rows"
            )
        if _changed(value, column.affinity):
            raise ExportFailed(
                f"{where}: its column {name!r} is {column.declared or 'of no type'}, which would change "
                f"{value!r}; CAST it in the query, or mend the table"
            )
        return value

    return guarded


def _changed(value: Value, affinity: str) -> bool:
    if isinstance(value, str):
        return affinity in ("integer", "real", "numeric") and bool(_LOOKS_LIKE_A_NUMBER.fullmatch(value))
    if isinstance(value, int):
        return affinity == "text" or (affinity == "real" and abs(value) > _EXACT)
    return isinstance(value, float) and affinity == "text"


def _done_before(connection: sqlite3.Connection, once: str | None) -> bool:
    """Whether an earlier try of the same run added these rows; noted in their transaction if not."""
    if once is None:
        return False
    table = quote(_EXPORTS)
    connection.execute(
        sql("CREATE TABLE IF NOT EXISTS {table} (once TEXT PRIMARY KEY, exported_at TEXT)", table=table)
    )
    if connection.execute(sql("SELECT 1 FROM {table} WHERE once = ?", table=table), (once,)).fetchone():
        return True
    connection.execute(sql("INSERT INTO {table} VALUES (?, datetime('now'))", table=table), (once,))
    return False
