"""Markers of loads, written in the transaction of their rows and never changed: `_sqlflow.commits`.

A key's newest marker is the one with the greatest (epoch, seq). Insert-only tables do not make
loads of different tables conflict.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from duckdb import DuckDBPyConnection

from sqlflow_dagster.cursor import Cursor, Marker, Position, StateKey
from sqlflow_dagster.sql import Sql, bound, literal, quote, sql
from sqlflow_dagster.warehouse import tables

_COMMITS = quote("_sqlflow", "commits")
# In the place of a run's id: another statement built the table anew, and this key's rows went with it.
_EMPTIED = "emptied"
_COLUMNS = Sql(
    "project, environment, pipeline, source, stream, table_name, partition, epoch, seq, cursor_value, cursor_type,"
    " run_id, rows, schema_hash, complete, committed_at, cursor_field"
)


def prepare(connection: DuckDBPyConnection) -> None:
    """Make the table of markers where it is missing."""
    connection.execute(sql("CREATE SCHEMA IF NOT EXISTS {schema}", schema=quote("_sqlflow")))
    connection.execute(
        sql(
            "CREATE TABLE IF NOT EXISTS {commits} (project VARCHAR, environment VARCHAR, pipeline VARCHAR,"
            " source VARCHAR, stream VARCHAR, table_name VARCHAR, partition VARCHAR, epoch BIGINT, seq BIGINT,"
            " cursor_value VARCHAR, cursor_type VARCHAR, run_id VARCHAR, rows BIGINT, schema_hash VARCHAR,"
            " complete BOOLEAN, committed_at VARCHAR, cursor_field VARCHAR)",
            commits=_COMMITS,
        )
    )
    # An earlier release made it without.
    if "cursor_field" not in tables.columns(connection, _COMMITS):
        connection.execute(sql("ALTER TABLE {commits} ADD COLUMN cursor_field VARCHAR", commits=_COMMITS))


def newest(connection: DuckDBPyConnection, key: StateKey) -> Marker | None:
    """Return the newest marker of a key, None where there is none."""
    return _one(connection, key, Sql("TRUE"))


def completed_by(connection: DuckDBPyConnection, key: StateKey, run_id: str) -> Marker | None:
    """Return the marker with which a run completed this load, None where it did not.

    A reset since then, or another statement that built the table anew, has the run do it again.
    """
    marker = _one(connection, key, bound("complete AND run_id = $1", [run_id]))
    last = newest(connection, key) if marker else None
    return marker if marker and last and last.position.epoch == marker.position.epoch else None


def rows(connection: DuckDBPyConnection, key: StateKey) -> int:
    """Return how many rows a key's loads have stored since its table was built anew, by the markers kept."""
    if not _exists(connection):
        return 0
    row = connection.execute(
        sql(
            "SELECT coalesce(sum(rows), 0) FROM {commits} WHERE {key} AND epoch >="
            " (SELECT coalesce(max(epoch), 0) FROM {commits} WHERE {key} AND run_id = {emptied})",
            commits=_COMMITS,
            key=_of(key),
            emptied=literal(_EMPTIED),
        )
    ).fetchone()
    return int(row[0]) if row else 0


def has_rows(connection: DuckDBPyConnection, key: StateKey) -> bool:
    """Whether a LOAD has stored rows, in any partition, since its table was built anew."""
    if not _exists(connection):
        return False
    found = connection.execute(
        sql(
            "SELECT DISTINCT partition FROM {commits} WHERE rows > 0 AND {load}",
            commits=_COMMITS,
            load=_of_load(key),
        )
    ).fetchall()
    return any(rows(connection, replace(key, partition=partition)) for (partition,) in found)


def empty(connection: DuckDBPyConnection, keys: Iterable[StateKey], at: str) -> dict[StateKey, Marker]:
    """Note, in the caller's transaction, that the rows of these keys have gone with their table.

    The next load of each reads everything. Return the markers that say so, of those that had one.
    """
    emptied: dict[StateKey, Marker] = {}
    for key in keys:
        last = newest(connection, key)
        if last is None:
            continue
        position = Position(last.position.epoch + 1, 0)
        emptied[key] = Marker(position, None, _EMPTIED, 0, last.schema_hash, complete=True, committed_at=at)
        append(connection, key, emptied[key])
    return emptied


def append(connection: DuckDBPyConnection, key: StateKey, marker: Marker) -> None:
    """Add a marker, in the caller's transaction."""
    prepare(connection)
    cursor = marker.cursor
    connection.execute(
        bound(
            "INSERT INTO {commits} ({columns})"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)",
            [
                *_parts(key),
                *marker.position,
                cursor.value if cursor else None,
                cursor.type if cursor else None,
                marker.run_id,
                marker.rows,
                marker.schema_hash,
                marker.complete,
                marker.committed_at,
                marker.cursor_field,
            ],
            commits=_COMMITS,
            # By name: a later release may have added columns.
            columns=_COLUMNS,
        )
    )


def compact(connection: DuckDBPyConnection, keep: int) -> int:
    """Delete all but the newest `keep` markers of each key, and return how many went.

    The newest one with rows stays too: it tells that the table has some of this key.
    """
    if not _exists(connection):
        return 0
    row = connection.execute(
        bound(
            "DELETE FROM {commits} WHERE rowid IN (SELECT rowid FROM {commits} QUALIFY row_number() OVER (PARTITION BY"
            " project, environment, pipeline, source, stream, table_name, partition"
            " ORDER BY epoch DESC, seq DESC) > $1 AND row_number() OVER (PARTITION BY project, environment, pipeline,"
            " source, stream, table_name, partition, rows > 0 ORDER BY epoch DESC, seq DESC) > 1)",
            [keep],
            commits=_COMMITS,
        )
    ).fetchone()
    return int(row[0]) if row else 0


def _one(connection: DuckDBPyConnection, key: StateKey, condition: Sql) -> Marker | None:
    if not _exists(connection):
        return None
    result = connection.execute(
        sql(
            "FROM {commits} WHERE {key} AND {condition} ORDER BY epoch DESC, seq DESC LIMIT 1",
            commits=_COMMITS,
            key=_of(key),
            condition=condition,
        )
    )
    row = result.fetchone()
    if row is None:
        return None
    found = dict(zip((name for name, *_ in result.description), row, strict=True))
    value = found["cursor_value"]
    return Marker(
        position=Position(found["epoch"], found["seq"]),
        cursor=None if value is None else Cursor(value, found["cursor_type"]),
        run_id=found["run_id"],
        rows=found["rows"],
        schema_hash=found["schema_hash"],
        complete=found["complete"],
        committed_at=found["committed_at"],
        # A table that an earlier release made is without.
        cursor_field=found.get("cursor_field"),
    )


def _exists(connection: DuckDBPyConnection) -> bool:
    return tables.exists(connection, _COMMITS)


def _of(key: StateKey) -> Sql:
    return bound(
        "project = $1 AND environment = $2 AND pipeline = $3 AND source = $4 AND stream = $5"
        " AND table_name = $6 AND partition IS NOT DISTINCT FROM $7",
        _parts(key),
    )


def _of_load(key: StateKey) -> Sql:
    return bound(
        "project = $1 AND environment = $2 AND pipeline = $3 AND source = $4 AND stream = $5 AND table_name = $6",
        _parts(key),
    )


def _parts(key: StateKey) -> list[str | None]:
    return [key.project, key.environment, key.pipeline, key.source, key.stream, key.table, key.partition]
