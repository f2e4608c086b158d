"""Rows that cannot be stored → `_sqlflow.quarantine`, each with its reason, place and text.

While a read goes on they are kept beside the stage; they become visible with the rows of their read,
in its transaction. A row that is read again in every run is kept once.
"""

from __future__ import annotations

from duckdb import DuckDBPyConnection

from sqlflow_dagster.sql import Sql, TableName, bound, literal, quote, sql
from sqlflow_dagster.warehouse import tables, types

_QUARANTINE = quote("_sqlflow", "quarantine")
_ASIDE = quote("temp", "_sqlflow_aside")
# The names under which a Scan may have DuckDB keep a file's bad rows.
_REJECTS = (("_sqlflow_rejects", "_sqlflow_reject_scans"), ("reject_errors", "reject_scans"))


def set_aside(
    connection: DuckDBPyConnection, rows: Sql, column: str, kind: str, target: str, label: str
) -> int:
    """Take the rows whose value does not fit the type `target` out of `rows`, and return how many."""
    _make_aside(connection)
    bad = types.misfit(connection, column, kind, target)
    names = tables.columns(connection, rows)
    connection.execute(
        sql(
            "INSERT INTO {aside} SELECT {reason} || ': ' || left(CAST({column} AS VARCHAR), 200),"
            " {label} || ' row ' || {place}, to_json({whole}) FROM (SELECT *, {whole} AS {whole},"
            " row_number() OVER () AS {place} FROM {rows} AS {whole}) WHERE {bad}",
            aside=_ASIDE,
            reason=literal(f"column {column} is {target} and the value is not"),
            column=quote(column),
            label=literal(label),
            # Names that no column has: one of a column would stand for it.
            whole=quote(tables.free_name("_sqlflow_row", names)),
            place=quote(tables.free_name("_sqlflow_place", names)),
            rows=rows,
            bad=bad,
        )
    )
    gone = connection.execute(sql("DELETE FROM {rows} WHERE {bad}", rows=rows, bad=bad)).fetchone()
    return int(gone[0]) if gone else 0


def take_rejects(connection: DuckDBPyConnection) -> None:
    """Set aside what a scan stored in DuckDB's reject tables, and empty those."""
    for errors, scans in _REJECTS:
        if not _exists(connection, errors):
            continue
        _make_aside(connection)
        # A line with several errors is one row of the source.
        connection.execute(
            sql(
                "INSERT INTO {aside} SELECT string_agg(DISTINCT error_message, '; ' ORDER BY error_message),"
                " any_value(s.file_path) || ':' || e.line, coalesce(any_value(e.csv_line), '')"
                " FROM {errors} AS e LEFT JOIN {scans} AS s USING (scan_id, file_id)"
                " GROUP BY scan_id, file_id, e.line",
                aside=_ASIDE,
                errors=quote(errors),
                scans=quote(scans),
            )
        )
        for name in (errors, scans):
            connection.execute(sql("DELETE FROM {name}", name=quote(name)))


def store(connection: DuckDBPyConnection, table: TableName, run_id: str, committed_at: str) -> int:
    """Store what was set aside in the caller's transaction, and return how many rows that is.

    They are still aside after that, so that a transaction may fail: `clear` forgets them.
    """
    if not _exists(connection, "_sqlflow_aside"):
        return 0
    connection.execute(
        sql(
            "CREATE TABLE IF NOT EXISTS {quarantine} (table_schema VARCHAR, table_name VARCHAR,"
            " run_id VARCHAR, reason VARCHAR, place VARCHAR, raw VARCHAR, committed_at VARCHAR)",
            quarantine=_QUARANTINE,
        )
    )
    connection.execute(
        bound(
            "INSERT INTO {quarantine} SELECT $1, $2, $3, a.reason, a.place, a.raw, $4 FROM {aside} AS a"
            " WHERE NOT EXISTS (SELECT 1 FROM {quarantine} AS q WHERE q.table_schema = $1 AND q.table_name = $2"
            " AND q.reason = a.reason AND q.raw = a.raw AND q.place = a.place)",
            [*table, run_id, committed_at],
            quarantine=_QUARANTINE,
            aside=_ASIDE,
        )
    )
    row = connection.execute(sql("SELECT count(*) FROM {aside}", aside=_ASIDE)).fetchone()
    return int(row[0]) if row else 0


def clear(connection: DuckDBPyConnection) -> None:
    """Forget what was set aside, after it was committed."""
    connection.execute(sql("DROP TABLE IF EXISTS {aside}", aside=_ASIDE))


def _make_aside(connection: DuckDBPyConnection) -> None:
    connection.execute(
        sql(
            "CREATE TEMP TABLE IF NOT EXISTS {aside} (reason VARCHAR, place VARCHAR, raw VARCHAR)",
            aside=_ASIDE,
        )
    )


def _exists(connection: DuckDBPyConnection, name: str) -> bool:
    found = connection.execute(
        bound("SELECT 1 FROM duckdb_tables() WHERE table_name = $1 AND database_name = 'temp'", [name])
    ).fetchone()
    return found is not None
