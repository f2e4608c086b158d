"""Rows of an EXPORT → a table of a DuckDB file, in one transaction of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

from pydantic import BaseModel

from sqlflow_dagster.connectors import parameters
from sqlflow_dagster.connectors.base import Place, Rows, Written
from sqlflow_dagster.connectors.duckdb import is_locked
from sqlflow_dagster.connectors.local_database import LocalSinkOptions, Target, located
from sqlflow_dagster.errors import BadOption, ExportFailed, RetryLater
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.rooms import room
from sqlflow_dagster.sql import Sql, bound, fold, join, literal, quote, sql

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

_TARGET = "_sqlflow_target"
_ROWS = quote("_sqlflow_rows", "main", "rows")
_EXPORTS = quote(_TARGET, "_sqlflow", "exports")


def write_table(rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
    """Store all rows in the table that the target names, or nothing.

    Raises BadOption for a target without a table, RetryLater where another program writes the file,
    and ExportFailed where the rows cannot be stored as they are.
    """
    wanted, where = cast("LocalSinkOptions", options), located_table(target, options, place)
    with room(place.spool, "export") as folder:
        made = folder / "rows.duckdb"
        count = rows.store(made)
        with _writing(where, made) as connection:
            if wanted.mode != "append" or not _done_before(connection, place.once):
                _Writer(connection, where, rows.columns, wanted).write()
    return Written(rows=count, bytes=None, target=str(where))


def located_table(target: str, options: BaseModel, place: Place) -> Target:
    """Return the table that the target and the options name. Raises BadOption where they do not agree."""
    wanted = cast("LocalSinkOptions", options)
    parameters.check_keys(wanted.mode, wanted.keys)
    where = located(place, target, wanted.table, ("duckdb",))
    if schema := getattr(wanted, "schema_", None):
        if where.schema:
            raise BadOption(f"schema: the table is in the schema {where.schema!r} already", option="schema")
        where = replace(where, schema=schema)
    return where


@contextmanager
def _writing(where: Target, made: Path) -> Iterator[DuckDBPyConnection]:
    """A connection with the target's file and the rows, in one transaction that ends with the block."""
    import duckdb  # noqa: PLC0415 - slow

    new = not where.path.exists()
    committed = False
    try:
        where.path.parent.mkdir(parents=True, exist_ok=True)
        with duckdb.connect(":memory:") as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET enable_progress_bar = false")
            attach = "ATTACH {path} AS {name}"
            connection.execute(sql(attach, path=literal(str(where.path)), name=quote(_TARGET)))
            attach += " (READ_ONLY)"
            connection.execute(sql(attach, path=literal(str(made)), name=quote("_sqlflow_rows")))
            connection.execute("BEGIN")
            yield connection
            failpoint("before_export_commit")
            connection.execute("COMMIT")
            failpoint("after_export_commit")
            committed = True
    except duckdb.Error as error:
        if is_locked(str(error)):
            raise RetryLater(
                f"{where.path}: another program has it open ({error}); close it there", after=5
            ) from error
        raise ExportFailed(f"{where}: {error}; nothing was stored") from error
    except OSError as error:
        raise ExportFailed(f"{where}: {error.strerror or error}; nothing was stored") from error
    finally:
        if new and not committed:
            # Where nothing can be made, that has been said already.
            with suppress(OSError):
                where.path.unlink(missing_ok=True)
                where.path.with_name(where.path.name + ".wal").unlink(missing_ok=True)


class _Writer:
    """One export into one table."""

    def __init__(
        self,
        connection: DuckDBPyConnection,
        where: Target,
        columns: Mapping[str, str],
        options: LocalSinkOptions,
    ) -> None:
        self._connection = connection
        self._where = where
        self._columns = columns
        self._options = options
        self._schema = where.schema or "main"
        self._table = quote(_TARGET, self._schema, where.table)

    def write(self) -> None:
        connection = self._connection
        kind = self._kind()
        if kind == "view":
            raise ExportFailed(f"{self._where}: it is a view; drop it, or write another table")
        if self._where.schema:
            connection.execute(sql("CREATE SCHEMA IF NOT EXISTS {name}", name=quote(_TARGET, self._schema)))
        self._check_keys()
        if kind is None or self._options.mode == "replace":
            self._replace(connection)
            return
        self._check_fits()
        if self._options.mode == "upsert":
            connection.execute(
                sql(
                    "DELETE FROM {table} AS t USING {rows} AS s WHERE {same}",
                    table=self._table,
                    rows=_ROWS,
                    same=join(
                        " AND ",
                        (sql("t.{c} IS NOT DISTINCT FROM s.{c}", c=quote(c)) for c in self._options.keys),
                    ),
                )
            )
        connection.execute(sql("INSERT INTO {table} BY NAME FROM {rows}", table=self._table, rows=_ROWS))

    def _replace(self, connection: DuckDBPyConnection) -> None:
        indexes = connection.execute(
            bound(
                "SELECT sql FROM duckdb_indexes() WHERE database_name = $1 AND lower(schema_name) = lower($2)"
                " AND lower(table_name) = lower($3) AND sql IS NOT NULL",
                [_TARGET, self._schema, self._where.table],
            )
        ).fetchall()
        connection.execute(
            sql("CREATE OR REPLACE TABLE {table} AS FROM {rows}", table=self._table, rows=_ROWS)
        )
        connection.execute(sql("USE {schema}", schema=quote(_TARGET, self._schema)))
        for (index,) in indexes:
            connection.execute(index)

    def _kind(self) -> str | None:
        row = self._connection.execute(
            bound(
                "SELECT 'table' FROM duckdb_tables() WHERE database_name = $1 AND lower(schema_name) = lower($2)"
                " AND lower(table_name) = lower($3) UNION ALL SELECT 'view' FROM duckdb_views() WHERE database_name"
                " = $1 AND lower(schema_name) = lower($2) AND lower(view_name) = lower($3)",
                [_TARGET, self._schema, self._where.table],
            )
        ).fetchone()
        return row[0] if row else None

    def _check_keys(self) -> None:
        keys: Sequence[str] = self._options.keys
        if not keys:
            return
        known = {fold(name) for name in self._columns}
        missing = [key for key in keys if fold(key) not in known]
        if missing:
            raise ExportFailed(
                f"{self._where}: the query gives no column {', '.join(missing)}, which names a row"
            )
        listed = join(", ", map(quote, keys))
        twice = self._connection.execute(
            sql(
                "SELECT {keys} FROM {rows} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1",
                keys=listed,
                rows=_ROWS,
            )
        ).fetchone()
        if twice:
            raise ExportFailed(
                f"{self._where}: the query gives the key {', '.join(map(str, twice))} more than once; keep one row "
                "by QUALIFY row_number() OVER (PARTITION BY …) = 1"
            )

    def _check_fits(self) -> None:
        """Refuse columns that the table lacks, and values that its types would change."""
        described = self._connection.execute(sql("DESCRIBE {table}", table=self._table)).fetchall()
        there = {fold(row[0]): row[1] for row in described}
        lacking = [name for name in self._columns if fold(name) not in there]
        if lacking:
            raise ExportFailed(
                f"{self._where}: the table has no column {', '.join(lacking)}; add it there, or leave it out of "
                "the query"
            )
        own = self._connection.execute(sql("DESCRIBE {rows}", rows=_ROWS)).fetchall()
        for name, kind, *_rest in own:
            target = there[fold(name)]
            if kind != target:
                self._check_values(name, kind, target)

    def _check_values(self, name: str, kind: str, target: str) -> None:
        row = self._connection.execute(
            sql(
                "SELECT CAST({c} AS VARCHAR) FROM {rows} WHERE {c} IS NOT NULL AND CAST({c} AS VARCHAR) IS DISTINCT"
                " FROM CAST(TRY_CAST(TRY_CAST({c} AS {target}) AS {kind}) AS VARCHAR) LIMIT 1",
                c=quote(name),
                rows=_ROWS,
                target=Sql(target),
                kind=Sql(kind),
            )
        ).fetchone()
        if row:
            raise ExportFailed(
                f"{self._where}: its column {name!r} is {target}, which cannot hold the {kind} {row[0]!r} as it is; "
                "CAST it in the query, or mend the table"
            )


def _done_before(connection: DuckDBPyConnection, once: str | None) -> bool:
    """Whether an earlier try of the same run added these rows; noted in their transaction if not."""
    if once is None:
        return False
    connection.execute(sql("CREATE SCHEMA IF NOT EXISTS {name}", name=quote(_TARGET, "_sqlflow")))
    connection.execute(
        sql("CREATE TABLE IF NOT EXISTS {exports} (once VARCHAR, exported_at TIMESTAMPTZ)", exports=_EXPORTS)
    )
    find = bound("SELECT 1 FROM {exports} WHERE once = $1", [once], exports=_EXPORTS)
    if connection.execute(find).fetchone():
        return True
    connection.execute(bound("INSERT INTO {exports} VALUES ($1, now())", [once], exports=_EXPORTS))
    return False
