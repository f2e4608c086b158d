"""Rows of an EXPORT → a MySQL table: all of them, or nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import cast

from pydantic import BaseModel

from sqlflow_dagster.connectors.base import Place, Rows, Written
from sqlflow_dagster.connectors.mysql_client import Connection, connect, rows_of, translated, where
from sqlflow_dagster.connectors.mysql_fill import spool
from sqlflow_dagster.connectors.mysql_options import MySQLSinkOptions, server
from sqlflow_dagster.connectors.mysql_wire import check_name, wires
from sqlflow_dagster.connectors.mysql_writer import Writer
from sqlflow_dagster.connectors.sql_sink import refused, target_of
from sqlflow_dagster.connectors.tables import Name
from sqlflow_dagster.errors import BadOption
from sqlflow_dagster.rooms import room
from sqlflow_dagster.sql import literal, sql

_GRANTS = "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, ALTER and CREATE TEMPORARY TABLES on its database"


def write_table(rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
    """Store all rows in the table that the target and the options name, or nothing.

    Raises BadOption where no table is named; NotAllowed, RetryLater and ExportFailed as the server
    answers.
    """
    wanted, name = located(target, options)
    told = server(wanted, place)
    label = f"{name.schema}.{name.name}"
    with (
        room(place.spool, "export") as folder,
        _connection(told, wanted, label) as connection,
    ):
        writer = Writer(connection, name, wires(rows.columns, wanted.types), wanted, place.once)
        writer.prepare()
        spooled = spool(connection, rows, writer.columns, folder / "rows.txt")
        size = spooled.path.stat().st_size
        writer.write(spooled)
    return Written(rows=spooled.count, bytes=size, target=f"{where(told)}#{label}")


def located(target: str, options: BaseModel) -> tuple[MySQLSinkOptions, Name]:
    """Return the options with the target's address in them, and the table. Raises BadOption for none."""
    wanted, name = target_of(
        target, cast("MySQLSinkOptions", options), lambda o: o.parts().get("database", "")
    )
    if not name.schema:
        raise BadOption(f"database: {name.name} is in none; write `database.{name.name}`", option="database")
    return wanted, Name(check_name(name.schema), check_name(name.name))


@contextmanager
def _connection(told: dict[str, str], options: MySQLSinkOptions, label: str) -> Iterator[Connection]:
    """One connection that writes; what it has not committed is gone with it."""
    # The database may have to be made first; every name has its own in it.
    with refused(translated(told, label), _GRANTS):
        silence = options.longest_silence(options.timeout_seconds)
        connection = connect({k: v for k, v in told.items() if k != "database"}, silence, sends_files=True)
    try:
        with refused(translated(told, label), _GRANTS):
            wait = max(1, int(options.lock_timeout_seconds))
            settings = "SET SESSION innodb_lock_wait_timeout = {n}, lock_wait_timeout = {n}"
            rows_of(connection, sql(settings, n=literal(wait)))
            yield connection
    finally:
        # A broken one has nothing to roll back any more.
        with suppress(OSError):
            connection._force_close()  # noqa: SLF001 - `close` says goodbye, for which a broken one waits
