"""Rows of an EXPORT → a Postgres table, in one transaction: all of them, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from pydantic import BaseModel

from sqlflow_dagster.connectors.base import Place, Rows, Written
from sqlflow_dagster.connectors.postgres_client import (
    Connection,
    connect,
    servers,
    startup,
    translated,
    where,
)
from sqlflow_dagster.connectors.postgres_options import PostgresSinkOptions, server
from sqlflow_dagster.connectors.postgres_replace import rows_of, run
from sqlflow_dagster.connectors.postgres_wire import Wire, check_name, wires, without_nul
from sqlflow_dagster.connectors.postgres_writer import Writer
from sqlflow_dagster.connectors.silence import watched
from sqlflow_dagster.connectors.sql_sink import refused, target_of
from sqlflow_dagster.connectors.tables import Name
from sqlflow_dagster.errors import ExportFailed
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.rooms import room
from sqlflow_dagster.sql import Sql, join, quote, sql

_EXPORTS = quote("_sqlflow", "exports")
_GRANTS = (
    "INSERT, UPDATE, DELETE, SELECT on the table (or its ownership, to replace it) and CREATE on its schema (for "
    "`append`, CREATE on the database too, once)"
)


def write_table(rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
    """Store all rows in the table that the target and the options name, or nothing.

    Raises BadOption where no table is named; NotAllowed, RetryLater and ExportFailed as the server
    answers.
    """
    wanted, name = located(target, options)
    told = startup(
        server(wanted, place),
        wanted.timeout_seconds,
        session_settings=wanted.session_settings,
        lock_seconds=wanted.lock_timeout_seconds,
    )
    label = f"{name.schema}.{name.name}"
    resting: list[int] = []
    with (
        room(place.spool, "export") as folder,
        watched(servers(told), wanted.longest_silence(wanted.timeout_seconds), lambda: resting),
        _transaction(told, label) as connection,
    ):
        binary = folder / "rows.bin"
        writer = Writer(connection, name, wires(rows.columns, wanted.types), wanted, binary)
        writer.prepare()
        # The query may take its time: nobody waits for the server then.
        resting.append(connection.fileno())
        count = _encoded(rows, binary, writer.columns)
        resting.clear()
        if wanted.mode != "append" or not _done_before(connection, place.once):
            writer.write(count)
        size = binary.stat().st_size
    return Written(rows=count, bytes=size, target=f"{where(told)}#{label}")


def located(target: str, options: BaseModel) -> tuple[PostgresSinkOptions, Name]:
    """Return the options with the target's address in them, and the table. Raises BadOption for none."""
    wanted, name = target_of(target, cast("PostgresSinkOptions", options), lambda o: o.schema_ or "public")
    return wanted, Name(check_name(name.schema), check_name(name.name))


def _encoded(rows: Rows, binary: Path, columns: Sequence[Wire]) -> int:
    """Write the rows as Postgres' COPY reads them. Raises ExportFailed, which names the column of a NUL in a text."""

    def encode(value: Callable[[Wire], Sql]) -> int:
        select = join(", ", (sql("{v} AS {n}", v=value(wire), n=quote(wire.name)) for wire in columns))
        return rows.encode(binary, select, Sql("FORMAT postgres_binary"), ("postgres_scanner",))

    try:
        return encode(lambda wire: wire.value)
    except ExportFailed as error:
        if "NULL-byte" not in str(error):
            raise
    return encode(without_nul)


@contextmanager
def _transaction(told: dict[str, str], label: str) -> Iterator[Connection]:
    """One transaction that writes; it is committed where the block ends well."""
    connection = connect(told)
    try:
        with refused(translated(told, label), _GRANTS):
            yield connection
            failpoint("before_export_commit")
            connection.commit()
            failpoint("after_export_commit")
    finally:
        connection.close()


def _done_before(connection: Connection, once: str | None) -> bool:
    """Whether an earlier try of the same run added these rows; noted in their transaction if not."""
    if once is None:
        return False
    if not rows_of(connection, "SELECT to_regclass('_sqlflow.exports')")[0][0]:
        run(connection, Sql("CREATE SCHEMA IF NOT EXISTS _sqlflow"))
        made = (
            "CREATE TABLE IF NOT EXISTS {exports} (once text PRIMARY KEY, exported_at timestamptz NOT NULL)"
        )
        run(connection, sql(made, exports=_EXPORTS))
    # Another try of this run under way holds the key until it is over.
    note = "INSERT INTO _sqlflow.exports VALUES (%s, now()) ON CONFLICT DO NOTHING RETURNING 1"
    return not rows_of(connection, note, [once])
