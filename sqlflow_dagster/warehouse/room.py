"""Rows of a table that a read stands for as a whole → deleted, before its rows go in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from duckdb import DuckDBPyConnection

from sqlflow_dagster.errors import LoadRefused
from sqlflow_dagster.sql import Sql, fold, join, literal, quote, sql
from sqlflow_dagster.warehouse import comparison, marks, tables
from sqlflow_dagster.warehouse.selection import PROVENANCE

if TYPE_CHECKING:
    from sqlflow_dagster.warehouse.spec import LoadSpec


def make(connection: DuckDBPyConnection, replaces: Iterable[str], spec: LoadSpec, *, later_part: bool) -> int:
    """Delete the rows of files that are read anew, of the partition, or from the boundary on.

    A `later_part` of a read leaves the range alone: the rows of the earlier parts are in it.

    Raises LoadRefused where they cannot be told from the rows of others.
    """
    of_files = _of_files(connection, sorted(replaces), spec)
    of_range = None if later_part else _of_range(connection, spec)
    if of_range and not spec.sole_writer:
        of_range = _own(connection, of_range, spec)
    return sum(_delete(connection, where, spec) for where in (of_files, of_range) if where)


def empty(connection: DuckDBPyConnection, spec: LoadSpec) -> int:
    """Delete the rows of what was read, of which the source has none and gave no batch."""
    of_range = _of_range(connection, spec)
    if of_range and not spec.sole_writer:
        of_range = _own(connection, of_range, spec) if marks.are_all(connection, spec) else None
    return _delete(connection, of_range, spec) if of_range else 0


def _delete(connection: DuckDBPyConnection, where: Sql, spec: LoadSpec) -> int:
    table = quote(*spec.table)
    return tables.deleted(connection, sql("DELETE FROM {table} WHERE {where}", table=table, where=where))


def _of_files(connection: DuckDBPyConnection, files: list[str], spec: LoadSpec) -> Sql | None:
    if files and spec.row_provenance:
        where = sql("{column} IN ({files})", column=quote(PROVENANCE), files=join(", ", map(literal, files)))
        return where if spec.sole_writer else _own(connection, where, spec)
    # With a key the rows are merged; without either, a file read anew is a file read twice.
    if files and spec.mode != "upsert" and tables.count(connection, spec.table):
        raise LoadRefused(
            f"{spec.table}: {files[0]} has changed, and its rows cannot be told from others; give the source "
            '"row_provenance": true or a "primary_key", then reset the cursor'
        )
    return None


def _of_range(connection: DuckDBPyConnection, spec: LoadSpec) -> Sql | None:
    """The rows of the partition, or those from where an incremental read without a key began."""
    if spec.whole and spec.incremental and spec.row_provenance and not spec.sole_writer:
        # What a swap is to a table of one writer.
        return Sql("TRUE")
    if not spec.window and not (spec.since and (spec.boundary or spec.rewound)):
        return None
    if spec.cursor_field is None:
        raise LoadRefused(
            f"{spec.table}: a partition, or the rows after a cursor, can be replaced only by a cursor_field"
        )
    wanted = fold(spec.cursor_field)
    known = tables.columns(connection, quote(*spec.table))
    column, kind = next((n, k) for n, k in known.items() if fold(n) == wanted)
    start = spec.window.start if spec.window else spec.since.value if spec.since else ""
    end = spec.window.end if spec.window else spec.shape.end
    parts = [comparison.bound(connection, quote(column), kind, ">=", start)]
    if end:
        parts.append(comparison.bound(connection, quote(column), kind, "<", end))
    return join(" AND ", parts)


def _own(connection: DuckDBPyConnection, where: Sql, spec: LoadSpec) -> Sql | None:
    """Narrow a range to this LOAD's rows, where the table has other writers too."""
    if spec.row_provenance and (marks.are_all(connection, spec) or spec.mode == "upsert"):
        return sql("{where} AND {own}", where=where, own=marks.own(spec))
    if spec.row_provenance:
        raise LoadRefused(
            f"{spec.table}: rows that this LOAD stored before it had row_provenance cannot be told from those of "
            "other statements; delete them, or drop the table, then reset the cursor"
        )
    if spec.mode == "upsert":
        return None
    raise LoadRefused(
        f"{spec.table}: other statements write this table too, so that this LOAD cannot replace rows by their "
        'cursor; give the source a "primary_key" or "row_provenance": true, or a table of its own'
    )
