"""Staged changes of rows → the target: values that did not change kept, deleted rows marked or gone.

Each staged row is the last state of its key. Before the transaction, `resolve` gives it the stored
values of what did not change; inside of it, `alter` brings new columns of stored rows to what the
source has in them, and `merge` puts the states in the place of the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Protocol

from duckdb import DuckDBPyConnection

from sqlflow_dagster.errors import LoadRefused
from sqlflow_dagster.sql import Sql, fold, free_name, join, literal, quote, sql
from sqlflow_dagster.warehouse import tables, types

if TYPE_CHECKING:
    from sqlflow_dagster.warehouse.spec import LoadSpec

# The column of a staged row that says what became of it; never one of the target.
COLUMN = "_sqlflow_change"


class Changes(Protocol):
    """What a scan says of its changes."""

    @property
    def column(self) -> str:
        """The column that is a struct of gone, id, origin and unchanged."""

    @property
    def emptied(self) -> bool:
        """Whether all rows stored before are gone."""

    @property
    def deleted(self) -> str | None:
        """The column that is true for rows that are gone, None where they are deleted."""

    @property
    def renamed(self) -> Mapping[str, str]:
        """New columns, and those whose values stored rows have in them."""

    @property
    def filled(self) -> Mapping[str, Sql]:
        """New columns, and the value that stored rows have in them."""


def resolve(connection: DuckDBPyConnection, rows: Sql, spec: LoadSpec, changes: Changes) -> None:
    """Give staged rows the stored values of what did not change.

    A row that came and went without ever being stored is forgotten.

    Raises LoadRefused where a value did not change and is not stored.
    """
    unchanged = sql("coalesce(len({c}.unchanged), 0) > 0", c=quote(COLUMN))
    if not types.any_row(connection, rows, unchanged):
        return
    if tables.kind(connection, spec.table) is None:
        raise LoadRefused(_not_stored(spec, "the table is not there"))
    have = {fold(name): name for name in tables.columns(connection, quote(*spec.table))}
    _check_columns(connection, rows, spec, changes, have)
    staged = [name for name in tables.columns(connection, rows) if name != COLUMN]
    there = quote(free_name("_sqlflow_there", have))
    whole = sql(
        "FROM {rows} AS s LEFT JOIN {rows} AS o ON o.{c}.id = s.{c}.origin"
        " LEFT JOIN (SELECT *, TRUE AS {there} FROM {table}) AS t ON {same}",
        rows=rows,
        c=quote(COLUMN),
        there=there,
        table=quote(*spec.table),
        same=join(" AND ", (_key(key) for key in spec.keys)),
    )
    lost = sql("coalesce(len(s.{c}.unchanged), 0) > 0 AND t.{there} IS NULL", c=quote(COLUMN), there=there)
    missing = connection.execute(
        sql(
            "SELECT concat_ws(', ', {keys}) {whole} WHERE {lost} AND NOT s.{c}.gone LIMIT 1",
            keys=join(", ", (sql("CAST({k} AS VARCHAR)", k=quote("s", key)) for key in spec.keys)),
            whole=whole,
            lost=lost,
            c=quote(COLUMN),
        )
    ).fetchone()
    if missing:
        raise LoadRefused(_not_stored(spec, f"the row {missing[0]} is not there"))
    values = [_value(name, spec, changes, have) for name in staged]
    connection.execute(
        sql(
            "CREATE OR REPLACE TABLE {rows} AS SELECT {values}, s.{c} {whole} WHERE NOT ({lost})",
            rows=rows,
            values=join(", ", values),
            c=quote(COLUMN),
            whole=whole,
            lost=lost,
        )
    )


def alter(connection: DuckDBPyConnection, spec: LoadSpec, changes: Changes) -> None:
    """Bring new columns of stored rows to what the source has in them."""
    have = {fold(name) for name in tables.columns(connection, quote(*spec.table))}
    values = {new: quote(old) for new, old in changes.renamed.items()} | dict(changes.filled)
    sets = [
        sql("{name} = {value}", name=quote(name), value=value)
        for name, value in values.items()
        if fold(name) in have
    ]
    if sets:
        statement = sql("UPDATE {table} SET {sets}", table=quote(*spec.table), sets=join(", ", sets))
        connection.execute(statement)


def merge(
    connection: DuckDBPyConnection, rows: Sql, spec: LoadSpec, changes: Changes
) -> tuple[int, int, int]:
    """Put the states in the place of the rows; return how many are new, changed and gone."""
    table = quote(*spec.table)
    gone = _empty(connection, table, changes) if changes.emptied else 0
    living = _live(changes)
    same = join(
        " AND ",
        (sql("t.{k} IS NOT DISTINCT FROM s.{k}", k=quote(key)) for key in spec.keys),
    )
    died = connection.execute(
        sql(
            "SELECT count(*) FROM {table} AS t SEMI JOIN (FROM {rows} WHERE {c}.gone) AS s ON {same} WHERE {living}",
            table=table,
            rows=rows,
            c=quote(COLUMN),
            same=same,
            living=living,
        )
    ).fetchone()
    replaced = tables.deleted(
        connection,
        sql("DELETE FROM {table} AS t USING {rows} AS s WHERE {same}", table=table, rows=rows, same=same),
    )
    kept = Sql("TRUE") if changes.deleted else sql("NOT {c}.gone", c=quote(COLUMN))
    added = tables.deleted(
        connection,
        sql(
            "INSERT INTO {table} BY NAME SELECT * EXCLUDE ({c}) FROM {rows} WHERE {kept}",
            table=table,
            c=quote(COLUMN),
            rows=rows,
            kept=kept,
        ),
    )
    dead = int(died[0]) if died else 0
    updated = max(0, replaced - dead)
    new = added - replaced if changes.deleted else added - updated
    return max(0, new), updated, gone + dead


def _empty(connection: DuckDBPyConnection, table: Sql, changes: Changes) -> int:
    if changes.deleted is None:
        return tables.deleted(connection, sql("DELETE FROM {table}", table=table))
    mark = "UPDATE {table} SET {deleted} = TRUE WHERE {deleted} IS DISTINCT FROM TRUE"
    return tables.deleted(connection, sql(mark, table=table, deleted=quote(changes.deleted)))


def _live(changes: Changes) -> Sql:
    if changes.deleted is None:
        return Sql("TRUE")
    return sql("t.{deleted} IS DISTINCT FROM TRUE", deleted=quote(changes.deleted))


def _key(key: str) -> Sql:
    """True where a target's row is the one that a staged row has its unchanged values from."""
    return sql(
        "t.{k} IS NOT DISTINCT FROM (CASE WHEN s.{c}.origin IS NULL THEN s.{k} ELSE o.{k} END)",
        k=quote(key),
        c=quote(COLUMN),
    )


def _value(name: str, spec: LoadSpec, changes: Changes, have: Mapping[str, str]) -> Sql:
    column = quote(name)
    stored = _stored(name, changes, have)
    if stored is None or fold(name) in {fold(key) for key in spec.keys}:
        return sql("s.{column}", column=column)
    return sql(
        "CASE WHEN coalesce(list_contains(s.{c}.unchanged, {name}), FALSE) THEN {stored} ELSE s.{column} END"
        " AS {column}",
        c=quote(COLUMN),
        name=literal(name),
        stored=stored,
        column=column,
    )


def _stored(name: str, changes: Changes, have: Mapping[str, str]) -> Sql | None:
    """What a stored row has in a column, once `alter` is done; None where it has nothing."""
    if name in changes.filled:
        return changes.filled[name]
    old = changes.renamed.get(name, name)
    return sql("t.{old}", old=quote(have[fold(old)])) if fold(old) in have else None


def _check_columns(
    connection: DuckDBPyConnection, rows: Sql, spec: LoadSpec, changes: Changes, have: Mapping[str, str]
) -> None:
    found = connection.execute(
        sql("SELECT DISTINCT unnest({c}.unchanged) FROM {rows}", c=quote(COLUMN), rows=rows)
    ).fetchall()
    kept = {fold(name) for name in tables.columns(connection, rows)}
    for name in _lacking((row[0] for row in found), changes, have):
        if fold(name) in kept:
            raise LoadRefused(_not_stored(spec, f"the column {name!r} is not there"))


def _lacking(names: Iterator[str], changes: Changes, have: Mapping[str, str]) -> Iterator[str]:
    return (name for name in names if _stored(name, changes, have) is None)


def _not_stored(spec: LoadSpec, why: str) -> str:
    return (
        f"{spec.table}: a change leaves large values as they are stored here, and {why}; something else changed this "
        "table, or `columns` has become more. Read everything anew with --full-refresh"
    )
