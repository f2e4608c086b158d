"""MySQL and MariaDB: tables, views and queries, read in one snapshot with every value exact; tables written whole.

::

    SOURCE shop TYPE MYSQL PARAMS {
      "connection": "${MYSQL_URL}", "table": "orders",
      "sync_mode": "incremental", "cursor_field": "updated_at", "primary_key": "id"
    };

`tables` and `schemas` (databases, to MySQL) take patterns, and then each table is a stream: `LOAD * FROM
shop;`. A stream is called like its table, with `database__` before it outside the connection's database.

An EXPORT writes to `mysql://host/database#table`, or to a connector of the profile, by `mode`.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import ClassVar

from pydantic import BaseModel

from sqlflow_dagster.connectors import mysql_catalog as catalog
from sqlflow_dagster.connectors import mysql_health
from sqlflow_dagster.connectors.base import Attach, Family, Health, Place, Rows, Scan, Span, Stream, Written
from sqlflow_dagster.connectors.discovered import Table
from sqlflow_dagster.connectors.mysql_client import (
    Connection,
    Connections,
    Explain,
    rows_of,
    servers_mode,
    translated,
    where,
)
from sqlflow_dagster.connectors.mysql_options import MySQLOptions, MySQLSinkOptions, server
from sqlflow_dagster.connectors.mysql_select import Selected, Wanted, counted, local, select
from sqlflow_dagster.connectors.mysql_types import Choices, Column
from sqlflow_dagster.connectors.pool import Slot
from sqlflow_dagster.connectors.silence import watched
from sqlflow_dagster.connectors.sql_source import ServerTables, label_of
from sqlflow_dagster.connectors.tables import Name
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import BadOption, SourceFailed, SQLFlowError
from sqlflow_dagster.sql import Sql, backquote, literal, sql

log = logging.getLogger(__name__)

_ATTACHED = "_sqlflow_mysql"
# What goes into a secret of DuckDB, and not into the text of a statement.
_SECRET = {
    "host": "HOST", "port": "PORT", "socket": "SOCKET", "database": "DATABASE", "username": "USER",
    "password": "PASSWORD", "ssl_cert": "SSL_CERT", "ssl_key": "SSL_KEY",
}  # fmt: skip


class MySQL(ServerTables[MySQLOptions]):
    """A MySQL or MariaDB server."""

    options_type = MySQLOptions
    sink_options_type = MySQLSinkOptions
    family: ClassVar[Family] = "database"
    counts = ("full_refresh", "incremental")

    @property
    def default_schema(self) -> str:
        return self.options.parts().get("database", "")

    @cached_property
    def _told(self) -> dict[str, str]:
        return server(self.options, self.place)

    @cached_property
    def _connections(self) -> Connections:
        options = self.options
        return Connections(self._told, options.min_connections, options.max_connections, self._longest)

    @property
    def _longest(self) -> float:
        return self.options.longest_silence(self.options.timeout_seconds)

    @contextmanager
    def _slot(self) -> Iterator[tuple[Slot, Sequence[object]]]:
        """Leave for one connection, which is closed when the server says nothing for too long.

        With it come the servers that were given up so.
        """
        servers = [] if "socket" in self._told else [(self._told["host"], int(self._told["port"]))]
        with (
            watched(servers, self._longest, self._connections.idle) as silent,
            self._connections.slot() as slot,
        ):
            yield slot, silent

    def place_of_data(self) -> Mapping[str, str]:
        parts = self.options.parts()
        return {
            name: parts[name] for name in ("host", "port", "socket", "database", "username") if name in parts
        }

    def list_tables(self) -> list[Table]:
        with self._slot() as (slot, _), slot.transaction() as connection:
            return catalog.list_tables(connection, self._choices)

    def read(self, stream: Stream, since: Cursor | None) -> Iterator[Scan]:
        return self.read_within(stream, since, Span())

    def read_within(self, stream: Stream, since: Cursor | None, span: Span) -> Iterator[Scan]:
        table = self.table_of(stream)
        label = label_of(stream, table)
        with self._slot() as (slot, silent):
            with slot.transaction() as connection:
                selected, horizon = self._prepared(connection, table, since, span, label)
                remote = self._limited(connection, selected)
            yield Scan(
                local(selected, _ATTACHED, remote),
                extensions=("mysql_scanner",),
                attach=(self._attach,),
                horizon=horizon,
                left_out=selected.left_out,
                serial=True,
                explain=Explain(
                    self._told, label, remote, self.options.timeout_seconds, silent, self._longest
                ),
            )

    def count(self, stream: Stream, keys: Sequence[str] = (), below: Cursor | None = None) -> int | None:
        options = self.options
        table = self.table_of(stream)
        label = label_of(stream, table)
        with self._slot() as (slot, _), slot.transaction() as connection:
            relation, columns, own = self._relation(connection, table, label)
            span = Span(options.start_date, options.end_date)
            asked = self.asked(own, options.cursor_field, below, span)
            wanted = Wanted(**asked, choices=self._choices)
            query = counted(relation, columns, wanted, label, self.told_apart(keys, own))
            if query is None:
                return None
            with servers_mode(connection):
                return int(rows_of(connection, query)[0][0])

    @classmethod
    def write(cls, rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
        from sqlflow_dagster.connectors.mysql_sink import write_table  # noqa: PLC0415 - reading needs none

        return write_table(rows, target, options, place)

    @classmethod
    def check_words(cls, target: str, options: BaseModel, place: Place) -> None:
        from sqlflow_dagster.connectors.mysql_sink import located  # noqa: PLC0415 - reading needs none

        del place
        located(target, options)

    @classmethod
    def check_target(cls, target: str, options: BaseModel, place: Place) -> Health:
        from sqlflow_dagster.connectors.mysql_target import health  # noqa: PLC0415 - reading needs none

        return health(target, options, place)

    def check(self) -> Health:
        begin = time.perf_counter()
        try:
            with self._slot() as (slot, _), slot.transaction() as connection:
                latency = time.perf_counter() - begin
                found = mysql_health.health(connection, where(self._told), latency)
            return self.looked_at(found)
        except SQLFlowError as error:
            return Health(ok=False, message=str(error))

    def look_at(self, stream: Stream) -> None:
        table = self.table_of(stream)
        label = label_of(stream, table)
        with self._slot() as (slot, _), slot.transaction() as connection, translated(self._told, label):
            relation, columns, keys = self._relation(connection, table, label)
            asked = self.asked(keys, self.options.cursor_field, None, Span())
            selected = select(relation, columns, Wanted(**asked, choices=self._choices), label)
            with servers_mode(connection):
                rows_of(connection, sql("{select} LIMIT 0", select=selected.remote()))

    def account(self) -> str:
        parts = self.place_of_data()
        address = parts.get("socket") or f"{parts['host']}:{parts['port']}"
        return f"{address}/{parts.get('database', '')} {parts['username']}"

    @property
    def _choices(self) -> Choices:
        options = self.options
        return Choices(options.numeric_type, options.zero_dates, options.tinyint1_as_boolean)

    def _prepared(
        self, connection: Connection, table: Name | None, since: Cursor | None, span: Span, label: str
    ) -> tuple[Selected, Cursor | None]:
        """The SELECT, and where the cursor has to stop: asked before its snapshot is taken."""
        options = self.options
        if catalog.reads_uncommitted(connection):
            raise SourceFailed(
                f"{where(self._told)}: its sessions read uncommitted rows, which may be rolled back; SET GLOBAL "
                "TRANSACTION ISOLATION LEVEL to REPEATABLE READ or READ COMMITTED"
            )
        relation, columns, keys = self._relation(connection, table, label)
        cursor = options.cursor_field
        selected = select(
            relation,
            columns,
            Wanted(**self.asked(keys, cursor, since, span), choices=self._choices),
            label,
        )
        self._warn_of_dates(connection, selected, label)
        horizon = self._horizon(connection, selected, cursor, label) if cursor else None
        self.warn_of_key(keys, label)
        return selected, horizon

    def _relation(
        self, connection: Connection, table: Name | None, label: str
    ) -> tuple[Sql, list[Column], tuple[str, ...]]:
        if table is None:
            relation = self.query_relation()
            return relation, catalog.query_columns(connection, relation), ()
        if not table.schema:
            raise BadOption(
                f"database: {table.name} is in none; name it here, or write `database.{table.name}`",
                option="database",
            )
        found, columns, keys = catalog.table_columns(connection, table, label)
        return backquote(*found), columns, keys

    def _limited(self, connection: Connection, selected: Selected) -> Sql:
        """The SELECT that the server itself ends after `timeout_seconds`."""
        seconds = self.options.timeout_seconds
        before, hint = Sql(""), Sql("")
        if seconds and catalog.is_mariadb(connection):
            before = sql("SET STATEMENT max_statement_time = {n} FOR ", n=Sql(f"{seconds:.6f}"))
        elif seconds:
            hint = sql("/*+ MAX_EXECUTION_TIME({n}) */ ", n=literal(max(1, int(seconds * 1000))))
        return selected.remote(before, hint)

    def _warn_of_dates(self, connection: Connection, selected: Selected, label: str) -> None:
        """Say how many dates that are none are loaded as NULL."""
        for name, nulled in selected.nulled.items():
            counted = sql(
                "SELECT COUNT(*) FROM {relation} WHERE {where} AND {nulled}",
                relation=selected.relation,
                where=selected.where,
                nulled=nulled,
            )
            if found := int(rows_of(connection, counted)[0][0]):
                log.warning(
                    "%s: %d dates of %s are none (0000-00-00), and are loaded as NULL", label, found, name
                )

    def _horizon(self, connection: Connection, selected: Selected, cursor: str, label: str) -> Cursor | None:
        """Where a cursor that is a time has to stop: a transaction still open may bring older ones."""
        kind = self.time_of(selected, cursor, "set lookback_window")
        if kind is None:
            return None
        found = catalog.horizon(connection)
        self.warn_of_doubts(found.doubts, label)
        if kind == "TIMESTAMP WITH TIME ZONE":
            return Cursor(f"{found.utc:%Y-%m-%d %H:%M:%S.%f}+00", kind)
        return Cursor(f"{found.earliest:{'%Y-%m-%d' if kind == 'DATE' else '%Y-%m-%d %H:%M:%S.%f'}}", kind)

    @cached_property
    def _attach(self) -> Attach:
        told = dict(self._told)
        # For the extension this means a socket; by its address it means TCP.
        if "socket" in told:
            told["host"] = "localhost"
        elif told["host"].lower() == "localhost":
            told["host"] = "127.0.0.1"
        secret = {_SECRET[name]: value for name, value in told.items() if name in _SECRET}
        # From the environment would come what is not said here.
        secret = {"PASSWORD": "", **secret, **self._tls(told)}
        return Attach(
            url=f"compress={int(told['compress'].lower() == 'true')}",
            name=_ATTACHED,
            type="mysql",
            secret=secret,
            # The second keeps messages about a missing table from listing all tables of the server.
            settings={"mysql_session_time_zone": "+00:00", "catalog_error_max_schemas": "0"},
        )

    @staticmethod
    def _tls(told: Mapping[str, str]) -> dict[str, str]:
        """How the extension is to prove who the server is.

        It knows two ways only: not at all, and the certificate with the name in it. A certificate
        that is only to be there was looked at by our own connection.
        """
        mode = told.get("ssl_mode", "preferred")
        if mode == "disabled":
            return {"SSL_MODE": "disabled"}
        if mode in ("preferred", "required"):
            return {"SSL_MODE": "preferred"}
        authorities = told.get("ssl_ca") or ssl.get_default_verify_paths().cafile
        return {"SSL_MODE": "verify_identity", **({"SSL_CA": authorities} if authorities else {})}
