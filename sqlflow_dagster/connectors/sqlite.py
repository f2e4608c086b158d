"""An SQLite file: a table, several, or a query; attached read-only.

::

    SOURCE app TYPE SQLITE PARAMS {
      "path": "data/app.sqlite",
      "tables": ["users", "orders"],
      "sync_mode": "incremental",
      "cursor_field": "updated_at",
      "primary_key": "id"
    };

`LOAD * FROM app;` loads each table into one of its own. Patterns (`"tables": "fact_*"`) are looked up
by `sqlflow discover`. SQLite's declared types bind nobody, so that each column has the type of its
values and no value is changed: whole numbers BIGINT (BOOLEAN where declared and only 0 and 1), others
DOUBLE, or DECIMAL(p,s) where declared and exact; text VARCHAR, or DATE, TIMESTAMP, TIMESTAMPTZ, TIME where
declared and all in ISO 8601; numbers among text VARCHAR; a number in a date column stays a number; BLOBs
among other values are refused. `types` declares others. What is read is one statement of SQLite.
`EXPORT … TO "sqlite://data/out.sqlite/table"` is one transaction: `replace` makes the table anew and swaps
it, with its indexes and triggers; `append` adds rows once a run, retries included (`_sqlflow_exports`
remembers it); `upsert` merges by `keys`. Decimals of more than 15 digits and whole numbers of more than 64
bits are stored as text; a value that a column of a table already there would change is refused.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar
from urllib.parse import quote as escaped

from pydantic import BaseModel, BeforeValidator, Field

from sqlflow_dagster.connectors import casts, local_target, sqlite_types, sqlite_where
from sqlflow_dagster.connectors.base import (
    Ask,
    Attach,
    Family,
    Health,
    Place,
    Rows,
    Scan,
    Span,
    Stream,
    Written,
)
from sqlflow_dagster.connectors.discovered import Table
from sqlflow_dagster.connectors.local_database import (
    SOURCE,
    LocalOptions,
    LocalSinkOptions,
    database,
    footprint,
)
from sqlflow_dagster.connectors.sqlite_types import Column, query_sql
from sqlflow_dagster.connectors.tables import Name, Tables
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import NotAllowed, RetryLater, SourceError, SourceFailed
from sqlflow_dagster.sql import Sql, fold, join, literal, quote, sql

_MAGIC = b"SQLite format 3\0"
# The byte that says that changes go to a log first.
_LOGS = b"\2"
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


class SqliteOptions(LocalOptions):
    """Which file, and which of its tables."""

    aliases: ClassVar[Mapping[str, str]] = {"column_types": "types", "dtypes": "types"}
    refused: ClassVar[Mapping[str, str]] = {"schemas": "an SQLite file has no schemas"}

    types: Annotated[Mapping[str, str], BeforeValidator(casts.declared)] = Field(
        default_factory=dict, description="DuckDB types by column; by default those of the values."
    )

    def problems(self) -> list[str]:
        several = self.query is not None and len(_statements(self.query)) != 1
        return [*super().problems(), *(["query: write one SELECT"] if several else [])]


class SqliteSinkOptions(LocalSinkOptions):
    """Which table of an SQLite file is written, and how."""


class Sqlite(Tables[SqliteOptions]):
    """An SQLite file."""

    options_type = SqliteOptions
    sink_options_type = SqliteSinkOptions
    family: ClassVar[Family] = "database"
    counts = ("full_refresh",)
    default_schema = "main"

    def place_of_data(self) -> Mapping[str, str]:
        return {"path": self.options.path}

    def list_tables(self) -> Iterable[Table]:
        with opened(self._path(), self.options.timeout_seconds) as connection:
            return _tables(connection)

    def read(self, stream: Stream, since: Cursor | None) -> Iterator[Scan]:
        return self.read_within(stream, since, Span())

    def read_within(self, stream: Stream, since: Cursor | None, span: Span) -> Iterator[Scan]:
        path = self._path()
        with opened(path, self.options.timeout_seconds) as connection:
            # Waits for a writer, and meets what is no database, before the warehouse does.
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
        before = footprint(path)
        reading = _Reading(path, self.table_of(stream), self.options, since, span)
        yield Scan(
            reading.query,
            extensions=("sqlite_scanner",),
            attach=(Attach(str(path), SOURCE, "sqlite"),),
            explain=reading.explain,
        )
        before.unchanged()

    def count(self, stream: Stream, keys: Sequence[str] = (), below: Cursor | None = None) -> int | None:
        options = self.options
        # Its values have types of their own, and are compared with a cursor by the warehouse.
        if keys or below or options.filters or options.start_date or options.end_date:
            return None
        counted = sql("SELECT count(*) FROM {relation}", relation=self._relation(stream))
        with opened(self._path(), options.timeout_seconds) as connection:
            row = connection.execute(counted).fetchone()
        return int(row[0])

    def check(self) -> Health:
        begin = time.perf_counter()
        try:
            path = self._path()
            with opened(path, self.options.timeout_seconds) as connection:
                tables = len(_tables(connection))
        except (SourceError, NotAllowed) as error:
            return Health(ok=False, message=str(error))
        size = path.stat().st_size
        facts = {"tables": tables, "bytes": size, "latency": time.perf_counter() - begin}
        return self.looked_at(Health(ok=True, message=f"{tables} tables, {size:,} bytes", facts=facts))

    def look_at(self, stream: Stream) -> None:
        with opened(self._path(), self.options.timeout_seconds) as connection:
            connection.execute(sql("SELECT * FROM {relation} LIMIT 0", relation=self._relation(stream)))

    @classmethod
    def write(cls, rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
        """Store all rows in one transaction of the target's file."""
        from sqlflow_dagster.connectors.sqlite_sink import write_table  # noqa: PLC0415 - only exports need it

        return write_table(rows, target, options, place)

    @classmethod
    def check_words(cls, target: str, options: BaseModel, place: Place) -> None:
        from sqlflow_dagster.connectors.sqlite_sink import located_table  # noqa: PLC0415 - only exports need it

        located_table(target, options, place)

    @classmethod
    def check_target(cls, target: str, options: BaseModel, place: Place) -> Health:
        """Look at the file, and at the table where it is there."""
        from sqlflow_dagster.connectors.sqlite_sink import located_table  # noqa: PLC0415 - only exports need it

        where = located_table(target, options, place)
        return local_target.table_health(where, "main", lambda: _tables_of(where.path))

    def _relation(self, stream: Stream) -> Sql:
        name = self.table_of(stream)
        return (
            quote(name.name)
            if name
            else sql("({query}\n)", query=Sql(_statements(self.options.query or "")[0]))
        )

    def _path(self) -> Path:
        path = database(self.place, self.options.path)
        with path.open("rb") as file:
            head = file.read(16)
        # SQLite itself takes an empty file for an empty database.
        if head and head != _MAGIC:
            other = "a DuckDB one: use TYPE DUCKDB" if head[8:12] == b"DUCK" else "something else"
            raise SourceFailed(f"{self.options.path}: it is no SQLite file but {other}, or it is encrypted")
        return path


@contextmanager
def opened(path: Path, timeout: float | None, *, still: bool = False) -> Iterator[sqlite3.Connection]:
    """Open a file read-only; a `still` one is known not to be written meanwhile.

    Raises RetryLater where another program holds it for longer than the timeout, SourceFailed where it
    cannot be read.
    """
    address = f"file:{escaped(str(path))}?mode=ro{'&immutable=1' if still else ''}"
    try:
        with closing(sqlite3.connect(address, uri=True, timeout=timeout or 5)) as connection:
            yield connection
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise RetryLater(f"{path}: another program holds it ({error})", after=5) from error
        raise SourceFailed(f"{path}: {error}") from error


def _tables_of(path: Path) -> list[Table]:
    """The tables of a file beside which nothing is made."""
    with path.open("rb") as file:
        logs = file.read(19)[18:] == _LOGS
    # Who opens such a file for reading makes its log, unless told that nobody writes: then there is one.
    still = logs and not path.with_name(f"{path.name}-wal").exists()
    with opened(path, None, still=still) as connection:
        return _tables(connection)


def _tables(connection: sqlite3.Connection) -> list[Table]:
    """The tables and views, those apart that are parts of virtual tables."""
    found = connection.execute(
        "SELECT name, type FROM pragma_table_list WHERE schema = 'main' AND type <> 'shadow'"
        " AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name NOT LIKE '\\_sqlflow\\_%' ESCAPE '\\' ORDER BY name"
    ).fetchall()
    tables = []
    for name, kind in found:
        columns = connection.execute(
            "SELECT name, type, pk FROM pragma_table_xinfo(?) WHERE hidden <> 1", (name,)
        ).fetchall()
        keys = sorted((pk, column) for column, _type, pk in columns if pk)
        tables.append(
            Table(
                "main",
                name,
                tuple(column for _pk, column in keys),
                {column: Column(column, declared).unseen for column, declared, _pk in columns},
                "view" if kind == "view" else "table",
            )
        )
    return tables


@dataclass(frozen=True, slots=True)
class _Reading:
    """One read of a table or of the query: the SELECT that gives its rows, asked for when they are read."""

    path: Path
    name: Name | None
    options: SqliteOptions
    since: Cursor | None
    span: Span

    def query(self, ask: Ask) -> Sql:
        """Return the SELECT of all rows from the cursor on, each value as it is."""
        columns = self._wanted(self._columns(ask))
        if not columns:
            missing = ", ".join(map(repr, self.options.columns))
            raise SourceFailed(f"{self._label}: `columns` has {missing}, none of which is there")
        relation = sql("{table} WHERE {where}", table=self._from(), where=self._where(ask, columns))
        declared = {fold(name): kind for name, kind in self.options.types.items()}
        unknown = [name for name in self.options.types if fold(name) not in {fold(c.name) for c in columns}]
        if unknown:
            raise SourceFailed(f"{self._label}: `types` has the column {unknown[0]!r}, which is not there")
        seen = sqlite_types.types(
            ask, self._label, [c for c in columns if fold(c.name) not in declared], relation
        )
        types = {column: declared.get(fold(column.name)) or seen[column.name] for column in columns}
        inner = sql(
            "SELECT {texts} FROM {relation}",
            texts=join(", ", (sqlite_types.text_sql(column, kind) for column, kind in types.items())),
            relation=relation,
        )
        values = (
            sql(
                "{value} AS {name}",
                value=sqlite_types.value_sql(
                    column, kind, guessed=fold(column.name) not in declared, label=self._label
                ),
                name=quote(column.name),
            )
            for column, kind in types.items()
        )
        return sql("SELECT {values} FROM {query}", values=join(", ", values), query=query_sql(inner))

    def explain(self, message: str) -> str:
        """Return DuckDB's message with the file's name and what to do."""
        if "Invalid unicode" in message:
            return f"{self._label}: a text is not UTF-8; read its column by a `query`, e.g. as hex(…)"
        return f"{self._label}: {message.strip()}"

    @property
    def _label(self) -> str:
        return f"{self.path.name}, {self.name.name if self.name else 'query'}"

    def _columns(self, ask: Ask) -> list[Column]:
        if self.name is None:
            described = ask(
                sql(
                    "DESCRIBE FROM {query}",
                    query=query_sql(sql("SELECT * FROM {table} LIMIT 0", table=self._from())),
                )
            )
            return [Column(row[0], "") for row in described]
        inner = sql(
            "SELECT name, type FROM pragma_table_xinfo({name}) WHERE hidden <> 1",
            name=literal(self.name.name),
        )
        found = ask(sql("FROM {query}", query=query_sql(inner)))
        if not found or self.name.schema != "main":
            raise SourceFailed(f"{self._label}: there is no such table; it has {self._others(ask)}")
        return [Column(name, declared) for name, declared in found]

    def _others(self, ask: Ask) -> str:
        inner = Sql("SELECT name FROM sqlite_master WHERE type IN ('table', 'view') ORDER BY name LIMIT 10")
        return ", ".join(row[0] for row in ask(sql("FROM {query}", query=query_sql(inner)))) or "none"

    def _from(self) -> Sql:
        if self.name is not None:
            return quote(self.name.name)
        # The user's own SELECT, which SQLite runs on a file that is open for reading only.
        return sql("(\n{query}\n)", query=Sql(_statements(self.options.query or "")[0]))

    def _wanted(self, columns: Sequence[Column]) -> list[Column]:
        """The columns that are loaded or compared."""
        options = self.options
        if not options.columns:
            return list(columns)
        named = [*options.columns, *options.primary_key, *options.mask, *options.types]
        named += [condition.column for condition in options.filters]
        named += [options.cursor_field] if options.cursor_field else []
        wanted = {fold(name) for name in named}
        return [column for column in columns if fold(column.name) in wanted]

    def _where(self, ask: Ask, columns: Sequence[Column]) -> Sql:
        """What SQLite may leave out: rows that the warehouse, which compares again, would drop in any case."""
        by_name = {fold(column.name): column for column in columns}
        parts = [Sql("TRUE")]
        column = by_name.get(fold(self.options.cursor_field or ""))
        if column and self.since:
            parts.append(sqlite_where.since(column, self.since))
        if column and self.span != Span() and fold(column.name) not in map(fold, self.options.types):
            parts.append(sqlite_where.within(ask, column, self._from(), self.span))
        for condition in self.options.filters:
            column = by_name.get(fold(condition.column))
            if column and column.affinity != "text":
                parts.append(sqlite_where.filtered(column, condition))
        return join(" AND ", parts)


def _statements(text: str) -> list[str]:
    """The statements of a text, without the semicolons that end them."""
    found, begin = [], 0
    for end in (match.start() for match in re.finditer(";", text)):
        if sqlite3.complete_statement(text[begin : end + 1]):
            found.append(text[begin:end])
            begin = end + 1
    return [part for part in (*found, text[begin:]) if _COMMENT.sub("", part).strip()]
