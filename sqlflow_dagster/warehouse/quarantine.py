"""Rows that cannot be stored → `_sqlflow.quarantine`, each with its reason, place and text.

While a read goes on they are kept beside the stage; they become visible with the rows of their read,
in its transaction. A row that is read again in every run is kept once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Protocol

from duckdb import DuckDBPyConnection

from sqlflow_dagster.sql import Sql, TableName, bound, free_name, literal, quote, sql
from sqlflow_dagster.warehouse import tables, types

_QUARANTINE = quote("_sqlflow", "quarantine")
_ASIDE = quote("temp", "_sqlflow_aside")
# The names under which a Scan has DuckDB keep the lines that it cannot read.
_REJECTS = ("_sqlflow_rejects", "_sqlflow_reject_scans")
_AT_ONCE = 10_000


class Rejects(Protocol):
    """What a scan says of its bad rows."""

    @property
    def column(self) -> str:
        """The column that is a struct of reason, file and fields for a bad row, else NULL."""

    @property
    def found(self) -> Callable[[Iterable[Any]], Iterator[tuple[str, str, str]]]:
        """Turns such structs, in the order of the rows, into (reason, place, text)."""

    @property
    def unread(self) -> Callable[[Iterable[tuple[str, str, int, str]]], Iterator[tuple[str, str, str]]]:
        """Turns (reason, path, line, text) of lines that are no rows into the same."""


def set_aside(
    connection: DuckDBPyConnection, rows: Sql, column: str, kind: str, target: str, label: str
) -> int:
    """Take the rows whose value does not fit the type `target` out of `rows`, and return how many."""
    _make_aside(connection)
    from_json = kind == "JSON" and types.is_nested(target)
    bad = types.json_misfit(column, target) if from_json else types.misfit(connection, column, kind, target)
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
            whole=quote(free_name("_sqlflow_row", names)),
            place=quote(free_name("_sqlflow_place", names)),
            rows=rows,
            bad=bad,
        )
    )
    gone = connection.execute(sql("DELETE FROM {rows} WHERE {bad}", rows=rows, bad=bad)).fetchone()
    if from_json:
        # A plain cast would ask for every field.
        alter = "ALTER TABLE {rows} ALTER {c} TYPE {target} USING TRY_CAST({c} AS {target})"
        connection.execute(sql(alter, rows=rows, c=quote(column), target=Sql(target)))
    return int(gone[0]) if gone else 0


def take(connection: DuckDBPyConnection, rows: Sql, rejects: Rejects) -> int:
    """Take the bad rows of a scan out of `rows`, with the column that tells them; return how many.

    Lines that DuckDB could not read are set aside too; they are not among `rows`.
    """
    column = quote(rejects.column)
    gone = _set_aside(connection, rejects.found(_bad(connection, rows, column)))
    if gone:
        connection.execute(sql("DELETE FROM {rows} WHERE {c} IS NOT NULL", rows=rows, c=column))
    connection.execute(sql("ALTER TABLE {rows} DROP COLUMN {c}", rows=rows, c=column))
    _set_aside(connection, rejects.unread(_unread(connection)))
    return gone


def _bad(connection: DuckDBPyConnection, rows: Sql, column: Sql) -> Iterator[tuple[Any, ...]]:
    """Yield the bad rows in order, some at a time: all of a source may be bad."""
    last = -1
    while True:
        found = connection.execute(
            sql(
                "SELECT rowid, {c}.reason, {c}.file, {c}.fields FROM {rows}"
                " WHERE {c} IS NOT NULL AND rowid > {last} ORDER BY rowid LIMIT {many}",
                c=column,
                rows=rows,
                last=literal(last),
                many=literal(_AT_ONCE),
            )
        ).fetchall()
        yield from (tuple(row[1:]) for row in found)
        if len(found) < _AT_ONCE:
            return
        last = found[-1][0]


def _unread(connection: DuckDBPyConnection) -> list[tuple[str, str, int, str]]:
    """What DuckDB noted of lines that it could not read: (reason, path, line, text); then it is forgotten."""
    errors, scans = map(quote, _REJECTS)
    if not _exists(connection, _REJECTS[0]):
        return []
    # A line with several errors is one row of the source.
    found = connection.execute(
        sql(
            "SELECT string_agg(DISTINCT error_message, '; ' ORDER BY error_message), any_value(s.file_path),"
            " e.line, coalesce(any_value(e.csv_line), '')"
            " FROM {errors} AS e LEFT JOIN {scans} AS s USING (scan_id, file_id) GROUP BY scan_id, file_id, e.line"
            " ORDER BY scan_id, file_id, e.line",
            errors=errors,
            scans=scans,
        )
    ).fetchall()
    for name in (errors, scans):
        connection.execute(sql("DELETE FROM {name}", name=name))
    return [(str(reason), str(path), int(line), str(text)) for reason, path, line, text in found]


def _set_aside(connection: DuckDBPyConnection, rows: Iterable[tuple[str, str, str]]) -> int:
    """Keep (reason, place, text) of rows aside, and return how many they are."""
    count = 0
    rows = iter(rows)
    while batch := list(islice(rows, _AT_ONCE)):
        import pyarrow as pa  # noqa: PLC0415 - slow to import, and bad rows are rare

        names = ["reason", "place", "raw"]
        table = pa.table([pa.array(texts, pa.string()) for texts in zip(*batch, strict=True)], names=names)
        _make_aside(connection)
        connection.register("_sqlflow_bad_rows", table)
        try:
            connection.execute(
                sql("INSERT INTO {aside} FROM {bad}", aside=_ASIDE, bad=quote("_sqlflow_bad_rows"))
            )
        finally:
            connection.unregister("_sqlflow_bad_rows")
        count += len(batch)
    return count


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
    return tables.exists(connection, quote("temp", name))
