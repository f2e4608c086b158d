"""Staged rows → the target table: dedupe, swap, merge by key, or replace from the boundary on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from duckdb import DuckDBPyConnection

from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import LoadRefused
from sqlflow_dagster.sql import Sql, join, literal, quote, sql
from sqlflow_dagster.warehouse import schema, tables
from sqlflow_dagster.warehouse.intake import PROVENANCE, Intake

if TYPE_CHECKING:
    from sqlflow_dagster.warehouse.load import LoadSpec


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of the target: new ones, ones that took the place of another, and ones that went."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known of the staged rows before they meet the target."""

    cursor: Cursor | None = None
    future_rows: int = 0
    notices: tuple[str, ...] = ()


def prepare(connection: DuckDBPyConnection, intake: Intake, spec: LoadSpec) -> Prepared:
    """Dedupe the rows by key, refuse what cannot be merged, and find the newest cursor among them."""
    if not intake.started:
        return Prepared()
    notices: list[str] = []
    if spec.mode == "upsert":
        twice = _dedupe(connection, intake.rows, spec)
        if twice:
            notices.append(f"{twice} rows had a key that a later row of the same read has too")
    if spec.cursor_field is None or not spec.incremental or spec.own_cursor:
        return Prepared(notices=tuple(notices))
    cursor, nulls, future = _newest(connection, intake, spec.cursor_field)
    if nulls and spec.boundary:
        raise LoadRefused(
            f"{spec.table}: {nulls} rows have NULL in the cursor column {spec.cursor_field!r}; without a key they "
            'cannot be told from those loaded before: give the source a "primary_key", or filter them out'
        )
    if future:
        notices.append(
            f"{future} rows lie in the future of the clock by more than a day; they were loaded, "
            "and did not move the cursor"
        )
    return Prepared(cursor, future, tuple(notices))


def _dedupe(connection: DuckDBPyConnection, rows: Sql, spec: LoadSpec) -> int:
    keys = join(", ", (quote(key) for key in spec.keys))
    twice = connection.execute(
        sql("SELECT 1 FROM {rows} GROUP BY {keys} HAVING count(*) > 1 LIMIT 1", rows=rows, keys=keys)
    ).fetchone()
    if not twice:
        return 0
    newest = (
        sql("{column} DESC NULLS LAST, rowid DESC", column=quote(spec.cursor_field))
        if spec.cursor_field
        else Sql("rowid DESC")
    )
    return tables.deleted(
        connection,
        sql(
            "DELETE FROM {rows} WHERE rowid IN (SELECT rowid FROM {rows}"
            " QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {newest}) > 1)",
            rows=rows,
            keys=keys,
            newest=newest,
        ),
    )


def _newest(connection: DuckDBPyConnection, intake: Intake, column: str) -> tuple[Cursor | None, int, int]:
    """Return the greatest cursor that is not of the future, the NULLs, and the rows of the future."""
    kind = next(k for name, k in intake.columns.items() if name.casefold() == column.casefold())
    temporal = kind.startswith(("DATE", "TIMESTAMP"))
    future = (
        sql("{c} > CAST(now() + INTERVAL 1 DAY AS {kind})", c=quote(column), kind=Sql(kind))
        if temporal
        else Sql("FALSE")
    )
    row = connection.execute(
        sql(
            "SELECT CAST(max({c}) FILTER (WHERE NOT ({future})) AS VARCHAR),"
            " count(*) FILTER (WHERE {c} IS NULL), count(*) FILTER (WHERE {future}) FROM {rows}",
            c=quote(column),
            future=future,
            rows=intake.rows,
        )
    ).fetchone()
    if row is None:
        return None, 0, 0
    return (None if row[0] is None else Cursor(row[0], kind)), int(row[1]), int(row[2])


def later(connection: DuckDBPyConnection, one: Cursor | None, other: Cursor | None) -> Cursor | None:
    """Return the greater of two cursors, compared in SQL; it has the type of the newer read."""
    if one is None or other is None:
        return other or one
    row = connection.execute(
        sql(
            "SELECT CAST({one} AS {kind}) > CAST({other} AS {kind})",
            one=literal(one.value),
            other=literal(other.value),
            kind=Sql(other.type),
        )
    ).fetchone()
    return one if row and row[0] else other


def swap(
    connection: DuckDBPyConnection, rows: Sql, spec: LoadSpec, *, direct: bool
) -> tuple[Counts, tuple[str, ...]]:
    """Put the rows in the place of the target's; its indexes are made again, views on it stay."""
    table = quote(*spec.table)
    before = tables.kind(connection, spec.table)
    changes: tuple[str, ...] = ()
    deleted = 0
    indexes: list[str] = []
    if before == "VIEW":
        raise LoadRefused(f"{spec.table} is a view; drop it, or load into another table")
    if before:
        after = tables.columns(connection, rows)
        changes = schema.compare(spec.table, tables.columns(connection, table), after, spec.schema_policy)
        deleted = tables.count(connection, spec.table)
        indexes = tables.indexes(connection, spec.table)
    if direct:
        if before:
            connection.execute(sql("DROP TABLE {table}", table=table))
        connection.execute(sql("ALTER TABLE {rows} RENAME TO {name}", rows=rows, name=quote(spec.table.name)))
    else:
        connection.execute(sql("CREATE OR REPLACE TABLE {table} AS FROM {rows}", table=table, rows=rows))
    tables.recreate(connection, indexes)
    return Counts(inserted=tables.count(connection, spec.table), deleted=deleted), changes


def into(connection: DuckDBPyConnection, intake: Intake, spec: LoadSpec) -> tuple[Counts, tuple[str, ...]]:
    """Bring the rows into a target that stays."""
    changes: tuple[str, ...] = ()
    if tables.kind(connection, spec.table) is None:
        connection.execute(
            sql("CREATE TABLE {table} AS FROM {rows} LIMIT 0", table=quote(*spec.table), rows=intake.rows)
        )
    else:
        changes = schema.evolve(connection, spec.table, intake.rows, spec.schema_policy)
    deleted = _make_room(connection, intake, spec)
    if spec.mode == "upsert":
        updated = _delete_older(connection, intake.rows, spec)
        added = tables.insert(connection, spec.table, intake.rows, _unmatched(intake.rows, spec))
        return Counts(added - min(updated, added), min(updated, added), deleted), changes
    added = tables.insert(connection, spec.table, intake.rows, Sql("TRUE"))
    return Counts(inserted=added, deleted=deleted), changes


def _make_room(connection: DuckDBPyConnection, intake: Intake, spec: LoadSpec) -> int:
    """Delete the target's rows that this read stands for as a whole."""
    table = quote(*spec.table)
    deleted = 0
    if intake.replaces:
        files = join(", ", (literal(file) for file in sorted(intake.replaces)))
        where = sql("{file} IN ({files})", file=quote(PROVENANCE), files=files)
        deleted += tables.deleted(connection, sql("DELETE FROM {t} WHERE {w}", t=table, w=where))
    span = _range(connection, spec)
    if span:
        deleted += tables.deleted(connection, sql("DELETE FROM {t} WHERE {w}", t=table, w=span))
    return deleted


def _range(connection: DuckDBPyConnection, spec: LoadSpec) -> Sql | None:
    if spec.cursor_field is None:
        return None
    known = tables.columns(connection, quote(*spec.table))
    kind = next((k for n, k in known.items() if n.casefold() == spec.cursor_field.casefold()), None)
    if kind is None:
        return None
    column = quote(spec.cursor_field)

    def bound(operator: str, value: str) -> Sql:
        return sql(
            "{column} {operator} CAST({value} AS {kind})",
            column=column,
            operator=Sql(operator),
            value=literal(value),
            kind=Sql(kind),
        )

    if spec.window:
        return join(" AND ", [bound(">=", spec.window.start), bound("<", spec.window.end)])
    if spec.since and (spec.boundary or spec.rewound):
        return bound(">=", spec.since.value)
    return None


def _same(spec: LoadSpec) -> Sql:
    return join(" AND ", (sql("t.{key} IS NOT DISTINCT FROM s.{key}", key=quote(key)) for key in spec.keys))


def _delete_older(connection: DuckDBPyConnection, rows: Sql, spec: LoadSpec) -> int:
    """Delete the target's rows that a staged row of the same key takes the place of."""
    newer = Sql("TRUE")
    if spec.cursor_field and spec.incremental:
        newer = sql("(s.{c} >= t.{c} OR t.{c} IS NULL)", c=quote(spec.cursor_field))
    return tables.deleted(
        connection,
        sql(
            "DELETE FROM {table} AS t USING {rows} AS s WHERE {same} AND {newer}",
            table=quote(*spec.table),
            rows=rows,
            same=_same(spec),
            newer=newer,
        ),
    )


def _unmatched(rows: Sql, spec: LoadSpec) -> Sql:
    """True for staged rows whose key the target no longer has."""
    # `INSERT … SELECT * FROM rows WHERE` names the staged table by its own last name.
    staged = Sql(rows.rpartition(".")[2])
    same = join(
        " AND ",
        (
            sql("t.{key} IS NOT DISTINCT FROM {staged}.{key}", key=quote(key), staged=staged)
            for key in spec.keys
        ),
    )
    return sql("NOT EXISTS (SELECT 1 FROM {table} AS t WHERE {same})", table=quote(*spec.table), same=same)
