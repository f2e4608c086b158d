"""A user's query → rows for an export, as a file of DuckDB's making or as Arrow batches."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.errors import ExportFailed
from sqlflow_dagster.rooms import room
from sqlflow_dagster.sql import Sql, literal, quote, sql
from sqlflow_dagster.warehouse import query, tables
from sqlflow_dagster.warehouse.duckdb import Warehouse, closing
from sqlflow_dagster.warehouse.extensions import load_extensions, private
from sqlflow_dagster.warehouse.udf import BoundQuery, Functions

if TYPE_CHECKING:
    import pyarrow as pa

_STORE = quote("_sqlflow_store")
_UNFOLDED = quote("temp", "_sqlflow_unfolded")


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one query while its connection is open; each reading runs the query."""

    columns: Mapping[str, str]
    _connection: DuckDBPyConnection
    _query: BoundQuery
    _spool: Path
    _readers: list[pa.RecordBatchReader] = field(default_factory=list)

    def copy_to(self, path: Path, options: Sql, columns: Sql | None = None) -> int:
        """Write the rows to `path` with COPY's `options` and return how many they are.

        The file is made in a folder of ours and then moved: users' SQL can write nowhere. `columns` is a
        SELECT list over the query's result. With PARTITION_BY, a folder is made, also for no rows.
        """
        made = self._spool / path.name
        selected = columns is not None and columns != "*"
        statement = sql(
            "COPY ({select}(\n{query}\n)) TO {path} ({options})",
            select=sql("SELECT {columns} FROM ", columns=columns) if selected and columns else Sql(""),
            query=self._query.text,
            path=literal(str(made)),
            options=options,
        )
        try:
            row = self._connection.execute(statement).fetchone()
        except query.Failure as error:
            raise _failed(self._query, error) from error
        if not made.exists():
            made.mkdir()
        if path.is_dir() and made.is_dir():
            shutil.rmtree(path)
        shutil.move(made, path)
        return int(row[0]) if row else 0

    def arrow(self, batch_rows: int) -> pa.RecordBatchReader:
        """Return the rows as Arrow record batches of at most `batch_rows` rows."""
        import pyarrow as pa  # noqa: PLC0415 - only where an export goes by Arrow

        try:
            reader = self._connection.execute(self._query.text).to_arrow_reader(batch_rows)
        except query.Failure as error:
            raise _failed(self._query, error, lines_before=0) from error
        self._readers.append(reader)
        return pa.RecordBatchReader.from_batches(reader.schema, _batches(reader, self._query))

    def store(self, path: Path) -> int:
        """Make a DuckDB file at `path` with the rows in its table `rows`, and return how many they are.

        Unlike Arrow and Parquet, it holds every type as it is.
        """
        made = self._spool / path.name
        attach = "ATTACH {path} AS {name} (STORAGE_VERSION 'latest')"
        tables.run(self._connection, sql(attach, path=literal(str(made)), name=_STORE))
        statement = sql(
            "CREATE TABLE {store}.main.rows AS (\n{query}\n)", store=_STORE, query=self._query.text
        )
        try:
            row = self._connection.execute(statement).fetchone()
        except query.Failure as error:
            raise _failed(self._query, error) from error
        finally:
            tables.run(self._connection, sql("DETACH {name}", name=_STORE))
        shutil.move(made, path)
        return int(row[0]) if row else 0

    def encode(self, path: Path, select: Sql, options: Sql, extensions: Sequence[str]) -> int:
        """Write `SELECT {select} FROM rows` to `path` with COPY's `options` and return the rows written.

        For formats of extensions, which are not let near users' SQL: the rows are stored apart first.
        """
        stored = path.with_name(f"{path.name}.duckdb")
        try:
            count = self.store(stored)
            with closing(private()) as connection:
                connection.execute(
                    "SET TimeZone = 'UTC'; SET memory_limit = '512MB'; SET enable_progress_bar = false"
                )
                load_extensions(connection, extensions)
                attach = "ATTACH {path} AS {name} (READ_ONLY)"
                connection.execute(sql(attach, path=literal(str(stored)), name=_STORE))
                connection.execute(
                    sql(
                        "COPY (SELECT {select} FROM {store}.main.rows) TO {path} ({options})",
                        select=select,
                        store=_STORE,
                        path=literal(str(path)),
                        options=options,
                    )
                )
        except duckdb.Error as error:
            raise ExportFailed(f"the rows cannot be written: {error}") from error
        finally:
            stored.unlink(missing_ok=True)
        return count

    def close(self) -> None:
        """End what was not read to its end: an open reader would hang the next connection."""
        for reader in self._readers:
            reader.close()


@contextmanager
def rows(
    warehouse: Warehouse, text: str, functions: Functions, search_path: Sequence[str] = ()
) -> Iterator[Result]:
    """Open the result of a user's query on the locked-down connection.

    Raises ExportFailed with DuckDB's or the Python function's own words where the query cannot be
    run; ProjectError where the text is not one query.
    """
    with (
        room(warehouse.settings.state_directory / "spool", "export") as spool,
        warehouse.open_locked_down(search_path, folders=[spool]) as connection,
    ):
        query.check(connection, text)
        bound = functions.bind(connection, text)
        try:
            columns = query.columns(connection, bound.text)
            if columns is None:
                bound, columns = _unfolded(connection, bound)
        except query.Failure as error:
            raise _failed(bound, error) from error
        result = Result(columns, connection, bound, spool)
        try:
            yield result
        finally:
            result.close()


def _unfolded(connection: DuckDBPyConnection, bound: BoundQuery) -> tuple[BoundQuery, dict[str, str]]:
    """Store the result of a query that DuckDB unfolds into several statements, to read it from there."""
    lead = "CREATE TEMP TABLE {name} AS (\n{query}\n)"
    tables.run(connection, sql(lead, name=_UNFOLDED, query=bound.text))
    return BoundQuery(sql("FROM {name}", name=_UNFOLDED)), tables.columns(connection, _UNFOLDED)


def _batches(reader: pa.RecordBatchReader, bound: BoundQuery) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa  # noqa: PLC0415

    try:
        yield from reader
    except (pa.ArrowException, OSError) as error:
        raise _failed(bound, error) from error


def _failed(bound: BoundQuery, error: Exception, lines_before: int = 1) -> ExportFailed:
    return ExportFailed(str(query.failed("the query", bound, error, lines_before)))
