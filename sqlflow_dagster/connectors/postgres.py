"""Postgres: tables, views and queries, read in one snapshot with every value exact; tables written whole.

::

    SOURCE shop TYPE POSTGRES PARAMS {
      "connection": "${DATABASE_URL}", "table": "orders",
      "sync_mode": "incremental", "cursor_field": "updated_at", "primary_key": "id"
    };

`tables` and `schemas` take patterns, and then each table is a stream: `LOAD * FROM shop;`. A stream is
called like its table, with `schema__` before it outside the default schema. `"cursor_field": "xmin"` reads
what was written since the last time, whatever the columns; it needs a key, and does not see deletions.
`"sync_mode": "cdc"` reads every change out of the log, deletions too.

An EXPORT writes to `postgresql://host/database#schema.table`, or to a connector of the profile, by `mode`.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import ClassVar, cast

from pydantic import BaseModel

from sqlflow_dagster.connectors import postgres_catalog as catalog
from sqlflow_dagster.connectors import postgres_health
from sqlflow_dagster.connectors.base import (
    Attach,
    Family,
    Health,
    Place,
    Rows,
    Scan,
    Span,
    Stream,
    Unmoved,
    Written,
)
from sqlflow_dagster.connectors.discovered import Table
from sqlflow_dagster.connectors.pool import Slot
from sqlflow_dagster.connectors.postgres_client import (
    Connection,
    Connections,
    Explain,
    servers,
    startup,
    translated,
    where,
)
from sqlflow_dagster.connectors.postgres_options import PostgresOptions, PostgresSinkOptions, server
from sqlflow_dagster.connectors.postgres_replace import rows_of
from sqlflow_dagster.connectors.postgres_select import Selected, Wanted, counted, local, select
from sqlflow_dagster.connectors.postgres_types import Column
from sqlflow_dagster.connectors.silence import watched
from sqlflow_dagster.connectors.sql_source import ServerTables, label_of
from sqlflow_dagster.connectors.tables import Name
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import BadOption, SourceFailed, SQLFlowError
from sqlflow_dagster.sql import Sql, literal, quote, sql

log = logging.getLogger(__name__)

_ATTACHED = "_sqlflow_postgres"
# What goes into a secret of DuckDB, and not into the text of a statement.
_SECRET = {"host": "HOST", "port": "PORT", "dbname": "DATABASE", "user": "USER", "password": "PASSWORD"}
_WRITTEN = (
    "((txid_snapshot_xmax(txid_current_snapshot()) - {xmin}::text::bigint) & 4294967295)"
    " <= txid_snapshot_xmax(txid_current_snapshot()) - {before}"
)
# A table that becomes a partition brings rows that were written before.
_ATTACHED_SINCE = (
    "tableoid IN (WITH RECURSIVE came (oid) AS ("
    "SELECT h.inhrelid FROM pg_catalog.pg_inherits AS h WHERE {written}"
    " UNION SELECT h.inhrelid FROM came JOIN pg_catalog.pg_inherits AS h ON h.inhparent = came.oid)"
    " SELECT oid FROM came)"
)
_TIMES = {"DATE": "date", "TIMESTAMP": "timestamp", "TIMESTAMP WITH TIME ZONE": "timestamptz"}


class Postgres(ServerTables[PostgresOptions]):
    """A Postgres database."""

    options_type = PostgresOptions
    sink_options_type = PostgresSinkOptions
    family: ClassVar[Family] = "database"
    counts = ("full_refresh", "incremental")
    default_schema = "public"

    @cached_property
    def _told(self) -> dict[str, str]:
        options = self.options
        told = {**server(options, self.place), "application_name": catalog.READER}
        return startup(told, options.timeout_seconds, session_settings=options.session_settings)

    @cached_property
    def _connections(self) -> Connections:
        return Connections(self._told, self.options.min_connections, self.options.max_connections)

    @contextmanager
    def _slot(self, idle: Callable[[], list[int]] = list) -> Iterator[Slot]:
        """Leave for one connection, which is closed when the server says nothing for too long.

        Those that `idle` returns may be silent.
        """
        longest = self.options.longest_silence(self.options.timeout_seconds)
        spare = self._connections.idle
        watch = watched(servers(self._told), longest, lambda: [*spare(), *idle()])
        with watch, self._connections.slot() as slot:
            yield slot

    def place_of_data(self) -> Mapping[str, str]:
        parts = self.options.parts()
        names = ("service", "host", "port", "database", "username")
        return {name: parts[name] for name in names if name in parts}

    def list_tables(self) -> list[Table]:
        with self._slot() as slot, slot.transaction() as connection:
            return catalog.list_tables(connection, self.options.numeric_type)

    @property
    def cursor_column(self) -> str | None:
        return None if self.options.by_xmin else super().cursor_column

    def streams(self) -> Sequence[Stream]:
        if self.options.sync_mode == "cdc":
            return tuple(
                replace(stream, cursor_field=None, own_cursor=True, ordered=True, logged=True)
                for stream in super().streams()
            )
        if not self.options.by_xmin:
            return super().streams()
        return tuple(
            replace(stream, cursor_field=None, own_cursor=True, again=True) for stream in super().streams()
        )

    def read(self, stream: Stream, since: Cursor | None) -> Iterator[Scan | Unmoved]:
        return self.read_within(stream, since, Span())

    def read_within(self, stream: Stream, since: Cursor | None, span: Span) -> Iterator[Scan | Unmoved]:
        table = self.table_of(stream)
        if table is not None and self.options.sync_mode == "cdc":
            if span != Span():
                raise BadOption(
                    "sync_mode: the log has no partitions; take `partitions` out of this pipeline's profile, or give "
                    "it another sync_mode",
                    option="sync_mode",
                )
            yield from self._logged(stream, table, since)
            return
        label = label_of(stream, table)
        with self._slot() as slot:
            with slot.transaction() as connection:
                selected, position, horizon = self._prepared(connection, table, since, span, label)
            yield Scan(
                local(selected, _ATTACHED),
                extensions=("postgres_scanner",),
                attach=(self._attach,),
                position=position,
                horizon=horizon,
                left_out=selected.left_out,
                serial=True,
                explain=Explain(self._told, label),
            )

    def _logged(self, stream: Stream, table: Name, since: Cursor | None) -> Iterator[Scan | Unmoved]:
        from sqlflow_dagster.connectors import postgres_cdc  # noqa: PLC0415 - other modes need none

        opened: list[int] = []
        source = postgres_cdc.Source(
            self.options, self._told, self._attach, self.place.spool, opened, lambda: self.guard.stopped
        )
        # Its own connections wait for DuckDB, or look after themselves.
        with self._slot(lambda: opened):
            yield from postgres_cdc.read(source, stream, table, since)

    def count(self, stream: Stream, keys: Sequence[str] = (), below: Cursor | None = None) -> int | None:
        options = self.options
        if options.by_xmin or options.sync_mode == "cdc":
            return None
        table = self.table_of(stream)
        label = label_of(stream, table)
        with self._slot() as slot, slot.transaction() as connection:
            relation, columns, own = self._relation(connection, table, label)
            span = Span(options.start_date, options.end_date)
            wanted = self._wanted(connection, columns, own, options.cursor_field, below, span)
            query = counted(relation, columns, wanted, label, self.told_apart(keys, own))
            return None if query is None else int(rows_of(connection, query)[0][0])

    def confirm(self, stream: Stream, cursor: Cursor) -> Mapping[str, str | int]:
        from sqlflow_dagster.connectors import postgres_cdc  # noqa: PLC0415 - other modes need none

        with self._slot():
            return postgres_cdc.confirm(self._told, cursor, stream.name)

    @classmethod
    def write(cls, rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
        from sqlflow_dagster.connectors.postgres_sink import write_table  # noqa: PLC0415 - reading needs none

        return write_table(rows, target, options, place)

    @classmethod
    def check_words(cls, target: str, options: BaseModel, place: Place) -> None:
        from sqlflow_dagster.connectors.postgres_sink import located  # noqa: PLC0415 - reading needs none

        del place
        located(target, options)

    @classmethod
    def check_target(cls, target: str, options: BaseModel, place: Place) -> Health:
        from sqlflow_dagster.connectors.postgres_target import health  # noqa: PLC0415 - reading needs none

        return health(target, options, place)

    def check(self) -> Health:
        begin = time.perf_counter()
        try:
            with self._slot() as slot, slot.transaction() as connection:
                latency = time.perf_counter() - begin
                prefix = self.options.slot_prefix if self.options.sync_mode == "cdc" else None
                found = postgres_health.health(connection, where(self._told), latency, prefix, self.readers())
            return self.looked_at(found)
        except SQLFlowError as error:
            return Health(ok=False, message=str(error))

    def look_at(self, stream: Stream) -> None:
        table = self.table_of(stream)
        label = label_of(stream, table)
        with self._slot() as slot, slot.transaction() as connection, translated(self._told, label):
            relation, columns, keys = self._relation(connection, table, label)
            wanted = self._wanted(connection, columns, keys, stream.cursor_field, None, Span())
            selected = select(relation, columns, wanted, label)
            rows_of(connection, sql("{select} LIMIT 0", select=selected.remote()))

    def account(self) -> str:
        parts = self.place_of_data()
        where = parts.get("service") or f"{parts['host']}:{parts['port']}"
        return f"{where}/{parts.get('database', '')} {parts.get('username', '')}".rstrip()

    def _prepared(
        self, connection: Connection, table: Name | None, since: Cursor | None, span: Span, label: str
    ) -> tuple[Selected, Cursor | None, Cursor | None]:
        """The SELECT, and where the stream stands after it: asked before its snapshot is taken."""
        options = self.options
        if since is not None and options.sync_mode == "incremental":
            _check_kind(since, "xmin" if options.by_xmin else None, label)
        relation, columns, keys = self._relation(connection, table, label)
        by_xmin, position = None, None
        if options.by_xmin:
            by_xmin, position = self._by_xmin(connection, since, tables=table is not None)
        cursor = None if options.by_xmin else options.cursor_field
        wanted = self._wanted(connection, columns, keys, cursor, since, span)
        selected = select(relation, columns, replace(wanted, where=by_xmin), label)
        horizon = self._horizon(connection, table, selected, cursor) if cursor else None
        self.warn_of_key(keys, label)
        if table is not None and catalog.hides_rows(connection, table):
            log.warning(
                "%s: row-level security leaves out the rows that this user may not see; ALTER ROLE … BYPASSRLS, or its "
                "policies, show it more",
                label,
            )
        return selected, position, horizon

    def _wanted(
        self,
        connection: Connection,
        columns: Sequence[Column],
        keys: Sequence[str],
        cursor: str | None,
        since: Cursor | None,
        span: Span,
    ) -> Wanted:
        money = any(column.type.name == "money" for column in columns)
        return Wanted(
            **self.asked(keys, cursor, since, span),
            numeric_type=self.options.numeric_type,
            money_digits=catalog.money_digits(connection) if money else 2,
            utf8=catalog.encoding(connection) == "UTF8",
        )

    def _relation(
        self, connection: Connection, table: Name | None, label: str
    ) -> tuple[Sql, list[Column], tuple[str, ...]]:
        if table is not None:
            kind, columns, keys = catalog.table_columns(connection, table, label)
            if self.options.by_xmin and kind in ("view", "foreign table"):
                raise BadOption(
                    f"cursor_field: {label} is a {kind}, whose rows have no xmin; name a column",
                    option="cursor_field",
                )
            return quote(table.schema, table.name), columns, keys
        relation = self.query_relation()
        return relation, catalog.query_columns(connection, relation), ()

    def _by_xmin(self, connection: Connection, since: Cursor | None, *, tables: bool) -> tuple[Sql, Cursor]:
        """Rows written by transactions that were not certainly over at the last read.

        `xmin` has 32 bits and goes round; the distance to the newest transaction tells it apart.
        """
        now, system = catalog.oldest_transaction(connection), catalog.system(connection)
        position = Cursor(json.dumps({"xmin": now, "system": system}), "JSON")
        if since is None:
            return Sql("TRUE"), position
        told = json.loads(since.value)
        before, known = told.get("xmin"), told.get("system")
        if not isinstance(before, int) or before > now or (system and known and system != known):
            raise SourceFailed(
                f"{where(self._told)}: its transactions count {now} now, and {before} at the last read, in the cluster "
                f"{system} now and {known} then: it is another server, or was restored; read everything anew with "
                "--full-refresh"
            )
        if now - before >= 2**31:
            return Sql("TRUE"), position
        written = sql(_WRITTEN, xmin=Sql("xmin"), before=literal(before))
        if not tables:
            return written, position
        attached = sql(_ATTACHED_SINCE, written=sql(_WRITTEN, xmin=Sql("h.xmin"), before=literal(before)))
        return sql("({written} OR {attached})", written=written, attached=attached), position

    def _horizon(
        self, connection: Connection, table: Name | None, selected: Selected, cursor: str
    ) -> Cursor | None:
        """Where a cursor that is a time has to stop: a transaction still open may bring older ones."""
        kind = self.time_of(selected, cursor, "set lookback_window, or read by xmin")
        if kind is None:
            return None
        found = catalog.horizon(connection)
        aside = catalog.doubts_of(connection, table) if table is not None else []
        self.warn_of_doubts([*found.doubts, *aside], selected.label)
        column = cast("catalog.Times", _TIMES[kind])
        return Cursor(catalog.as_column(connection, found.utc, column), kind)

    @cached_property
    def _attach(self) -> Attach:
        told = {name: value for name, value in self._told.items() if name not in _SECRET}
        return Attach(
            url=" ".join(f"{name}={_word(value)}" for name, value in told.items()),
            name=_ATTACHED,
            type="postgres",
            secret={_SECRET[name]: value for name, value in self._told.items() if name in _SECRET},
        )


def _word(value: str) -> str:
    """A value as libpq reads it in a connection string."""
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _check_kind(since: Cursor, wanted: str | None, label: str) -> None:
    """Raise SourceFailed for a position of `xmin` or of the log where that is not `wanted`, or none where it is."""
    told = json.loads(since.value) if since.type == "JSON" else None
    found = next((kind for kind in ("lsn", "xmin") if isinstance(told, dict) and kind in told), None)
    if found != wanted:
        raise SourceFailed(
            f"{label}: the rows there were read by another sync_mode or cursor_field, and their cursor is none of "
            "this one's; read everything anew with --full-refresh"
        )
