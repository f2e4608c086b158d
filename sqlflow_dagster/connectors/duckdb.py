"""Another DuckDB file: a table, several, or a query; attached read-only.

::

    SOURCE crm TYPE DUCKDB PARAMS {
      "path": "data/crm.duckdb",
      "tables": ["customers", "sales.orders"],
      "sync_mode": "incremental",
      "cursor_field": "updated_at",
      "primary_key": "id"
    };

`LOAD * FROM crm;` loads each table into one of its own. Types are those of the file. Patterns
(`"tables": "fact_*"`, `"schemas": "tenant_*"`) are looked up by `sqlflow discover`. Views and
queries run apart, where they can read nothing but the file itself. A file that is written to while
it is read is read again. `EXPORT … TO "duckdb://data/out.duckdb/schema.table"` is one transaction:
`replace` makes the table anew with the columns of the result and its indexes, without its constraints;
`append` adds rows once a run, retries included (`_sqlflow.exports` remembers it); `upsert` merges by `keys`.
A value that a column of a table already there would change is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, Field

from sqlflow_dagster.connectors import local_target
from sqlflow_dagster.connectors.base import Attach, Family, Health, Place, Rows, Scan, Span, Stream, Written
from sqlflow_dagster.connectors.discovered import Table
from sqlflow_dagster.connectors.local_database import (
    SOURCE,
    Footprint,
    LocalOptions,
    LocalSinkOptions,
    database,
    footprint,
)
from sqlflow_dagster.connectors.tables import Name, Tables
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import NotAllowed, RetryLater, SourceError, SourceFailed
from sqlflow_dagster.rooms import room
from sqlflow_dagster.sql import Sql, bound, fold, join, literal, quote, sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_KEPT = "_sqlflow_kept"
_QUERY = "_sqlflow_query"
_MAGIC = b"DUCK"
_OWN = "_sqlflow"


class DuckDBOptions(LocalOptions):
    """Which file, and which of its tables."""

    idle: ClassVar[Mapping[str, str]] = {
        "timeout_seconds": "it is not needed here, a file that is in use is tried again as `resilience` says"
    }


class DuckDBSinkOptions(LocalSinkOptions):
    """Which table of a DuckDB file is written, and how."""

    schema_: str | None = Field(None, alias="schema", min_length=1, description="The table's schema; `main`.")


class DuckDB(Tables[DuckDBOptions]):
    """A DuckDB file."""

    options_type = DuckDBOptions
    sink_options_type = DuckDBSinkOptions
    family: ClassVar[Family] = "database"
    counts = ("full_refresh", "incremental")
    default_schema = "main"

    def place_of_data(self) -> Mapping[str, str]:
        return {"path": self.options.path}

    def list_tables(self) -> Iterable[Table]:
        return _tables_of(self._path(), self.place.spool)

    def read(self, stream: Stream, since: Cursor | None) -> Iterator[Scan]:
        return self.read_within(stream, since, Span())

    def read_within(self, stream: Stream, since: Cursor | None, span: Span) -> Iterator[Scan]:
        path = self._path()
        before = footprint(path)
        name = self.table_of(stream)
        if name is not None and self._is_table(before, name):
            yield _scan(path, path, quote(SOURCE, *name))
        else:
            yield from self._apart(path, name, since, span)
        before.unchanged()

    def _apart(self, path: Path, name: Name | None, since: Cursor | None, span: Span) -> Iterator[Scan]:
        """The rows of a view or query, made in a file of their own by a connection that reaches no other."""
        with room(self.place.spool, "duckdb") as folder:
            kept = folder / "kept.duckdb"
            with opened(path, self.place.spool, keep=kept) as connection:
                relation = self._relation(connection, path, name)
                _keep(connection, relation, since, span, self.options.cursor_field)
            yield _scan(path, kept, quote(SOURCE, "main", "rows"))

    def _is_table(self, file: Footprint, name: Name) -> bool:
        """Whether it is a table and no view. Raises SourceFailed where it is neither."""
        tables = _tables_at(file, self.place.spool)
        wanted = (fold(name.schema), fold(name.name))
        for table in tables:
            if (fold(table.schema), fold(table.name)) == wanted:
                return table.kind == "table"
        there = ", ".join(f"{table.schema}.{table.name}" for table in tables[:10]) or "none"
        raise SourceFailed(f"{file.path}: there is no table {name.schema}.{name.name}; it has {there}")

    def count(self, stream: Stream, keys: Sequence[str] = (), below: Cursor | None = None) -> int | None:
        options = self.options
        if options.filters or options.start_date or options.end_date:
            return None
        before = sql("TRUE")
        if below:
            end = sql("CAST({end} AS {kind})", end=literal(below.value), kind=Sql(below.type))
            before = sql("coalesce({c} < {end}, FALSE)", c=quote(options.cursor_field or ""), end=end)
        path = self._path()
        with opened(path, self.place.spool) as connection:
            relation = self._relation(connection, path, self.table_of(stream))
            counted = sql("SELECT count(*) FROM {r} WHERE {before}", r=relation, before=before)
            if keys:
                counted = sql(
                    "SELECT count(*) FROM (SELECT 1 FROM {r} GROUP BY {keys} HAVING bool_and({before}))",
                    r=relation,
                    keys=join(", ", map(quote, keys)),
                    before=before,
                )
            row = connection.execute(counted).fetchone()
        return int(row[0]) if row else 0

    def check(self) -> Health:
        begin = time.perf_counter()
        try:
            tables = len(_tables_of(self._path(), self.place.spool))
        except (SourceError, NotAllowed) as error:
            return Health(ok=False, message=str(error))
        size = self._path().stat().st_size
        facts = {"tables": tables, "bytes": size, "latency": time.perf_counter() - begin}
        return self.looked_at(Health(ok=True, message=f"{tables} tables, {size:,} bytes", facts=facts))

    def look_at(self, stream: Stream) -> None:
        path, name = self._path(), self.table_of(stream)
        if name is not None and self._is_table(footprint(path), name):
            return
        with opened(path, self.place.spool) as connection:
            relation = self._relation(connection, path, name)
            connection.execute(sql("DESCRIBE SELECT * FROM {relation}", relation=relation))

    @classmethod
    def write(cls, rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
        """Store all rows in one transaction of the target's file."""
        from sqlflow_dagster.connectors.duckdb_sink import write_table  # noqa: PLC0415 - only exports need it

        return write_table(rows, target, options, place)

    @classmethod
    def check_words(cls, target: str, options: BaseModel, place: Place) -> None:
        from sqlflow_dagster.connectors.duckdb_sink import located_table  # noqa: PLC0415 - only exports need it

        located_table(target, options, place)

    @classmethod
    def check_target(cls, target: str, options: BaseModel, place: Place) -> Health:
        """Look at the file, and at the table where it is there."""
        from sqlflow_dagster.connectors.duckdb_sink import located_table  # noqa: PLC0415 - only exports need it

        where = located_table(target, options, place)
        return local_target.table_health(where, "main", lambda: _tables_of(where.path, place.spool))

    def _path(self) -> Path:
        path = database(self.place, self.options.path)
        with path.open("rb") as file:
            head = file.read(16)
        if head[8:12] != _MAGIC:
            other = "an SQLite one: use TYPE SQLITE" if head.startswith(b"SQLite") else "something else"
            raise SourceFailed(f"{self.options.path}: it is no DuckDB file but {other}")
        return path

    def _relation(self, connection: DuckDBPyConnection, path: Path, name: Name | None) -> Sql:
        """The view, or the user's query as one: it runs where it can reach nothing but the file."""
        if name is not None:
            return quote(SOURCE, *name)
        text = self.options.query or ""
        kinds = [statement.type.name for statement in connection.extract_statements(text)]
        if kinds != ["SELECT"]:
            raise SourceFailed(f"{path}: `query` holds {', '.join(kinds) or 'nothing'}; write one SELECT")
        names = [row[0] for row in connection.execute(sql("DESCRIBE {query}", query=Sql(text))).fetchall()]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise SourceFailed(
                f"{path}: the query gives {', '.join(twice)} more than once; give each a name by AS"
            )
        connection.execute(sql("CREATE TEMP VIEW {view} AS {query}", view=quote(_QUERY), query=Sql(text)))
        return quote("temp", "main", _QUERY)


@contextmanager
def opened(path: Path, spool: Path, keep: Path | None = None) -> Iterator[DuckDBPyConnection]:
    """Open a file read-only and apart from all other files; `keep` is attached for what is kept.

    Raises RetryLater where another program has it open for writing, SourceFailed where it cannot be
    opened, or SQL in the block fails.
    """
    import duckdb  # noqa: PLC0415 - slow

    explain = _explainer(path)
    with duckdb.connect(":memory:") as connection:
        try:
            connection.execute(
                sql("ATTACH {path} AS {name} (READ_ONLY)", path=literal(str(path)), name=quote(SOURCE))
            )
            if keep is not None:
                connection.execute(
                    sql(
                        "ATTACH {path} AS {name} (STORAGE_VERSION 'latest')",
                        path=literal(str(keep)),
                        name=quote(_KEPT),
                    )
                )
            connection.execute(sql("SET temp_directory = {path}", path=literal(str(spool))))
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET enable_progress_bar = false")
            connection.execute("SET python_enable_replacements = false")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            connection.execute(sql("USE {name}", name=quote(SOURCE)))
            yield connection
        except duckdb.Error as error:
            text = str(error)
            if is_locked(text):
                raise RetryLater(explain(text), after=5) from error
            raise SourceFailed(explain(text)) from error


def is_locked(text: str) -> bool:
    """Whether DuckDB's message says that another program, or another part of this one, writes the file."""
    return "Could not set lock" in text or "Unique file handle conflict" in text


def _explainer(path: Path) -> Callable[[str], str]:
    """Return what names the file, and who holds it, in DuckDB's messages."""

    def explain(text: str) -> str:
        if not is_locked(text):
            return f"{path}: {text.strip()}"
        holder = text.partition("Conflicting lock is held in ")[2].partition(". See")[0]
        who = f"another program ({holder})" if holder else "another part of this program"
        return f"{path}: {who} has it open for writing; close it there, or run again when it is done"

    return explain


@lru_cache(maxsize=8)
def _tables_at(file: Footprint, spool: Path) -> list[Table]:
    """The tables and views of a file as it is: each stream of a source asks for them."""
    return _tables_of(file.path, spool)


def _tables_of(path: Path, spool: Path) -> list[Table]:
    with opened(path, spool) as connection:
        return _tables(connection)


def _tables(connection: DuckDBPyConnection) -> list[Table]:
    columns: dict[tuple[str, str], dict[str, str]] = {}
    for schema, table, column, kind in connection.execute(
        bound(
            "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() WHERE database_name = $1"
            " AND NOT internal ORDER BY table_name, column_index",
            [SOURCE],
        )
    ).fetchall():
        columns.setdefault((schema, table), {})[column] = kind
    keys = {
        (schema, table): tuple(names)
        for schema, table, names in connection.execute(
            bound(
                "SELECT schema_name, table_name, constraint_column_names FROM duckdb_constraints()"
                " WHERE database_name = $1 AND constraint_type = 'PRIMARY KEY'",
                [SOURCE],
            )
        ).fetchall()
    }
    found = connection.execute(
        bound(
            "SELECT schema_name, table_name, 'table' FROM duckdb_tables() WHERE database_name = $1 AND NOT internal"
            " UNION ALL SELECT schema_name, view_name, 'view' FROM duckdb_views() WHERE database_name = $1"
            " AND NOT internal ORDER BY 1, 2",
            [SOURCE],
        )
    ).fetchall()
    return [
        Table(schema, name, keys.get((schema, name), ()), columns.get((schema, name), {}), kind)
        for schema, name, kind in found
        if schema != _OWN
    ]


def _scan(path: Path, file: Path, table: Sql) -> Scan:
    query = sql("FROM {table}", table=table)
    return Scan(query, attach=(Attach(str(file), SOURCE, "duckdb"),), explain=_explainer(path))


def _keep(
    connection: DuckDBPyConnection, relation: Sql, since: Cursor | None, span: Span, cursor_field: str | None
) -> None:
    """Store the rows of a view or query in the kept file, those before the cursor left out."""
    described = connection.execute(sql("DESCRIBE {relation}", relation=relation)).fetchall()
    columns = {fold(row[0]): row for row in described}
    parts = [_from(since, columns, cursor_field), *_within(span, columns.get(fold(cursor_field or "")))]
    connection.execute(
        sql(
            "CREATE TABLE {kept} AS SELECT * FROM {relation} WHERE {where}",
            kept=quote(_KEPT, "main", "rows"),
            relation=relation,
            where=join(" AND ", parts),
        )
    )


def _within(span: Span, column: tuple[str, ...] | None) -> Iterator[Sql]:
    """What is true inside a span of time, a day more on each side: it may be of another zone."""
    if column is None or not column[1].startswith(("DATE", "TIMESTAMP")):
        return
    for at, operator, more in ((span.start, ">=", "-"), (span.end, "<", "+")):
        if at:
            yield sql(
                "coalesce(TRY_CAST({c} AS TIMESTAMP) {o} TRY_CAST({b} AS TIMESTAMP) {more} INTERVAL 1 DAY, TRUE)",
                c=quote(column[0]),
                o=Sql(operator),
                b=literal(at),
                more=Sql(more),
            )


def _from(since: Cursor | None, columns: Mapping[str, tuple[str, ...]], cursor_field: str | None) -> Sql:
    """What is true from the cursor on; the warehouse compares again, so that this may be too much."""
    column = columns.get(fold(cursor_field)) if cursor_field else None
    if since is None or column is None or column[1] != since.type:
        return Sql("TRUE")
    return sql(
        "({column} >= CAST({value} AS {kind}) OR {column} IS NULL)",
        column=quote(column[0]),
        value=literal(since.value),
        kind=Sql(since.type),
    )
