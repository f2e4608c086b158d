"""A user's query → rows for an export, as a file of DuckDB's making or as Arrow batches."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.errors import ExportFailed
from sqlflow_dagster.sql import Sql, literal, quote, sql
from sqlflow_dagster.warehouse import tables
from sqlflow_dagster.warehouse.duckdb import Warehouse
from sqlflow_dagster.warehouse.udf import BoundQuery, Functions

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one query while its connection is open; read once."""

    connection: DuckDBPyConnection
    query: BoundQuery
    columns: Mapping[str, str]
    spool: Path

    def copy_to(self, path: Path, options: Sql) -> int:
        """Write the rows to `path` with COPY's `options` and return how many they are.

        The file is made in a folder of ours and then moved: users' SQL can write nowhere.
        """
        made = self.spool / path.name
        statement = sql(
            "COPY ({query}\n) TO {path} ({options})",
            query=Sql(self.query.text),
            path=literal(str(made)),
            options=options,
        )
        try:
            row = self.connection.execute(statement).fetchone()
        except duckdb.Error as error:
            raise ExportFailed(str(self.query.explain(error))) from error
        if path.is_dir() and made.is_dir():
            shutil.rmtree(path)
        shutil.move(made, path)
        return int(row[0]) if row else 0

    def arrow(self, batch_rows: int) -> pa.RecordBatchReader:
        """Return the rows as Arrow record batches of at most `batch_rows` rows."""
        try:
            return self.connection.execute(self.query.text).to_arrow_reader(batch_rows)
        except duckdb.Error as error:
            raise ExportFailed(str(self.query.explain(error))) from error


@contextmanager
def rows(
    warehouse: Warehouse, query: str, functions: Functions, search_path: Sequence[str] = ()
) -> Iterator[Result]:
    """Open the result of a user's query on the locked-down connection.

    Raises ExportFailed with DuckDB's words where the query cannot be run.
    """
    tables.check_single(query)
    folder = warehouse.settings.state_directory / "spool"
    folder.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="export-", dir=folder) as spool,
        warehouse.open_locked_down(search_path, folders=[Path(spool)]) as connection,
    ):
        bound = functions.bind(connection, query)
        try:
            if len(connection.extract_statements(bound.text)) > 1:
                bound.text = _kept(connection, bound.text)
            columns = tables.columns(connection, Sql(f"({bound.text}\n)"))
        except duckdb.Error as error:
            raise ExportFailed(str(bound.explain(error))) from error
        yield Result(connection, bound, columns, Path(spool))


def _kept(connection: DuckDBPyConnection, query: str) -> str:
    """Store the result of a query that DuckDB unfolds into several statements, and return how to read it."""
    name = quote("temp", "_sqlflow_result")
    tables.run(connection, Sql(sql("CREATE TEMP TABLE {name} AS ", name=name) + query))
    return sql("FROM {name}", name=name)
