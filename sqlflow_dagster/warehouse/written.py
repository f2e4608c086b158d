"""What DuckDB keeps in memory of the blocks it has written, held small while rows are stored.

DuckDB lets go of such blocks only when it needs their room, so that a load would take all memory up
to the limit, for rows that nobody reads again. Nothing but a lower limit makes it forget them: the
limit is set just below what they fill, with room to spare for what runs meanwhile, and set back.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Thread

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.sql import Sql, literal, sql

_SECONDS = 0.1
# Bytes for each thread: what a statement may take under the lower limit before DuckDB spills other memory.
_SPARE = 8 * 1024 * 1024
_USE = Sql(
    "SELECT sum(memory_usage_bytes), sum(memory_usage_bytes) FILTER (tag = 'BASE_TABLE'),"
    " current_setting('threads'), parse_formatted_bytes(current_setting('memory_limit')) FROM duckdb_memory()"
)


@contextmanager
def let_go(connection: DuckDBPyConnection, memory_limit: str) -> Iterator[None]:
    """Hold the written blocks small while the block runs; `memory_limit` is the connection's."""
    done = Event()
    with connection.cursor() as watching:
        watcher = Thread(
            target=_watch, args=(watching, memory_limit, done), name="sqlflow-written", daemon=True
        )
        watcher.start()
        try:
            yield
        finally:
            done.set()
            watcher.join()


def _watch(connection: DuckDBPyConnection, memory_limit: str, done: Event) -> None:
    # A broken database or a full disk ends the statement too that is watched, and that one says so.
    with suppress(duckdb.FatalException, duckdb.IOException):
        while not done.wait(_SECONDS):
            # Refused where other memory has grown meanwhile: the blocks are forgotten in any case.
            with suppress(duckdb.OutOfMemoryException):
                _look(connection, memory_limit)


def _look(connection: DuckDBPyConnection, memory_limit: str) -> None:
    used, written, threads, limit = connection.execute(_USE).fetchall()[0]
    spare = threads * _SPARE
    # A limit that is low itself leaves no room for blocks.
    if written > 3 * spare // 2 and limit > 8 * spare:
        try:
            _limit(connection, f"{int(used - written + spare)}B")
        finally:
            _limit(connection, memory_limit)


def _limit(connection: DuckDBPyConnection, value: str) -> None:
    connection.execute(sql("SET memory_limit = {value}", value=literal(value)))
