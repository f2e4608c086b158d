"""Staged rows → the target table: dedupe, swap, merge by key, or replace from the boundary on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from duckdb import DuckDBPyConnection

from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import LoadRefused
from sqlflow_dagster.sql import Sql, fold, free_name, join, literal, quote, sql
from sqlflow_dagster.warehouse import changes as change_rows
from sqlflow_dagster.warehouse import marks, room, schema, tables, text_cursor, types

if TYPE_CHECKING:
    from sqlflow_dagster.warehouse.changes import Changes
    from sqlflow_dagster.warehouse.intake import Intake
    from sqlflow_dagster.warehouse.schema import Change
    from sqlflow_dagster.warehouse.spec import LoadSpec


_KEPT = quote("temp", "_sqlflow_kept")


@dataclass(frozen=True, slots=True)
class Counts:
    """Rows of the target: new ones, ones that took the place of another, and ones that went."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Sum the counts of two commits."""
        return Counts(
            self.inserted + other.inserted, self.updated + other.updated, self.deleted + other.deleted
        )


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is known of the staged rows before they meet the target."""

    cursor: Cursor | None = None
    future_rows: int = 0
    notices: tuple[str, ...] = ()


def prepare(connection: DuckDBPyConnection, intake: Intake, spec: LoadSpec) -> Prepared:
    """Dedupe the rows by key, refuse what cannot be merged, and find the newest cursor among them."""
    if not intake.started or intake.rows is None:
        return Prepared()
    notices: list[str] = []
    if spec.mode == "upsert":
        twice = _dedupe(connection, intake.rows, spec)
        if twice:
            notices.append(
                f"{twice} rows had a key that another row of the same read has too; one a key was kept"
            )
    if spec.cursor_field is None:
        return Prepared(notices=tuple(notices))
    newest = _newest(connection, intake.rows, intake.columns, spec.cursor_field)
    if spec.incremental and newest.cursor and newest.cursor.type == "VARCHAR":
        text_cursor.check(connection, spec.table, intake.rows, spec.cursor_field)
    if newest.nulls and (spec.boundary or (spec.window and spec.mode != "upsert")):
        raise LoadRefused(
            f"{spec.table}: {newest.nulls} rows have NULL in the cursor column {spec.cursor_field!r}; without a "
            'key they cannot be told from those loaded before: give the source a "primary_key", or filter them out'
        )
    if newest.future and spec.incremental:
        notices.append(
            f"{newest.future} rows lie more than a day in the future, or are no number; they were loaded, "
            "and did not move the cursor"
        )
    return Prepared(earlier(connection, newest.cursor, intake.horizon), newest.future, tuple(notices))


def _dedupe(connection: DuckDBPyConnection, rows: Sql, spec: LoadSpec) -> int:
    keys = join(", ", (quote(key) for key in spec.keys))
    twice = sql("SELECT {keys} FROM {rows} GROUP BY {keys} HAVING count(*) > 1", rows=rows, keys=keys)
    if not connection.execute(sql("{twice} LIMIT 1", twice=twice)).fetchone():
        return 0
    newest = sql("{c} DESC NULLS LAST, ", c=quote("r", spec.cursor_field)) if spec.cursor_field else Sql("")
    if any(fold(name) == "rowid" for name in tables.columns(connection, rows)):
        return _dedupe_without_rowid(connection, rows, newest, spec)
    return tables.deleted(
        connection,
        sql(
            "DELETE FROM {rows} WHERE rowid IN (SELECT r.rowid FROM {rows} AS r SEMI JOIN ({twice}) AS t ON {same}"
            " QUALIFY row_number() OVER (PARTITION BY {partition} ORDER BY {newest}r.rowid DESC) > 1)",
            rows=rows,
            twice=twice,
            same=same(spec.keys, "r", "t"),
            partition=join(", ", (quote("r", key) for key in spec.keys)),
            newest=newest,
        ),
    )


def _dedupe_without_rowid(connection: DuckDBPyConnection, rows: Sql, newest: Sql, spec: LoadSpec) -> int:
    """A column of the source that is called so hides the place of each row, which is counted then."""
    place = quote(free_name("_sqlflow_place", tables.columns(connection, rows)))
    connection.execute(
        sql(
            "CREATE OR REPLACE TEMP TABLE {kept} AS SELECT * EXCLUDE ({place})"
            " FROM (SELECT *, row_number() OVER () AS {place} FROM {rows}) AS r"
            " QUALIFY row_number() OVER (PARTITION BY {keys} ORDER BY {newest}{place} DESC) = 1",
            kept=_KEPT,
            place=place,
            rows=rows,
            keys=join(", ", (quote("r", key) for key in spec.keys)),
            newest=newest,
        )
    )
    before = tables.deleted(connection, sql("DELETE FROM {rows}", rows=rows))
    kept = tables.deleted(connection, sql("INSERT INTO {rows} FROM {kept}", rows=rows, kept=_KEPT))
    connection.execute(sql("DROP TABLE {kept}", kept=_KEPT))
    return before - kept


class _Newest(NamedTuple):
    """The greatest cursor that is not of the future, and how many rows are NULL or of the future."""

    cursor: Cursor | None
    nulls: int
    future: int


def _newest(
    connection: DuckDBPyConnection, rows: Sql, columns: Mapping[str, str], cursor_field: str
) -> _Newest:
    column, kind = next((n, k) for n, k in columns.items() if fold(n) == fold(cursor_field))
    future = Sql("FALSE")
    if types.is_time(kind):
        future = sql("{c} > CAST(now() + INTERVAL 1 DAY AS {kind})", c=quote(column), kind=Sql(kind))
    elif types.is_float(kind):
        # Nothing is greater than NaN and infinity: a cursor there would read nothing ever after.
        future = sql("NOT isfinite({c})", c=quote(column))
    row = connection.execute(
        sql(
            "SELECT {text}, count(*) FILTER (WHERE {c} IS NULL), count(*) FILTER (WHERE {future}) FROM {rows}",
            text=_text(sql("max({c}) FILTER (WHERE NOT ({f}))", c=quote(column), f=future), kind),
            c=quote(column),
            future=future,
            rows=rows,
        )
    ).fetchone()
    text, nulls, ahead = row or (None, 0, 0)
    return _Newest(None if text is None else Cursor(text, kind), nulls, ahead)


def _text(value: Sql, kind: str) -> Sql:
    """A cursor's text with all its digits; a point in time is told in UTC, wherever the session is."""
    if kind == "TIMESTAMP WITH TIME ZONE":
        template = (
            "CAST(timezone('UTC', {value}) AS VARCHAR) || CASE WHEN isfinite({value}) THEN '+00' ELSE '' END"
        )
        return sql(template, value=value)
    return sql("CAST({value} AS VARCHAR)", value=value)


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


def earlier(connection: DuckDBPyConnection, cursor: Cursor | None, horizon: Cursor | None) -> Cursor | None:
    """Return the cursor, or the horizon where that comes before it."""
    if cursor is None or horizon is None:
        return cursor
    return cursor if later(connection, cursor, horizon) is horizon else Cursor(horizon.value, cursor.type)


def plan(
    connection: DuckDBPyConnection, rows: Sql, spec: LoadSpec, *, fresh: bool, changed: Changes | None
) -> tuple[Change, ...]:
    """Return how the target's columns have to change, and leave in `rows` what is to be stored.

    `changed` says that the rows are changes.

    It comes before the transaction: DuckDB writes to one file in each, and the stage is another.
    """
    table = quote(*spec.table)
    match tables.kind(connection, spec.table):
        case None:
            return ()
        case "VIEW":
            raise LoadRefused(f"{spec.table} is a view; drop it, or load into another table")
    # Where no rows were read, the table keeps its types: an empty file says nothing of them.
    if fresh and not types.has_no_rows(connection, rows):
        before, after = tables.columns(connection, table), tables.columns(connection, rows)
        return schema.compare(str(spec.table), before, after, "guided" if spec.reset else spec.schema_policy)
    settled = not types.has_no_rows(connection, table)
    changes = schema.plan(connection, table, rows, spec.schema_policy, str(spec.table), settled=settled)
    if changed:
        change_rows.resolve(connection, rows, spec, changed)
    elif spec.mode == "upsert" and not fresh:
        schema.liken(connection, table, rows, [*spec.keys, *filter(None, (spec.cursor_field,))])
        _drop_unchanged(connection, rows, spec)
    return changes


def swap(
    connection: DuckDBPyConnection, rows: Sql, changes: Sequence[Change], spec: LoadSpec, *, direct: bool
) -> Counts:
    """Put the rows in the place of the target's; its indexes are made again, views on it stay."""
    table = quote(*spec.table)
    if tables.kind(connection, spec.table) is None:
        _put(connection, rows, spec, direct=direct)
        return Counts(inserted=tables.count(connection, spec.table))
    deleted = tables.count(connection, spec.table)
    if types.has_no_rows(connection, rows):
        if direct:
            connection.execute(sql("DROP TABLE {rows}", rows=rows))
        indexes = _evolve(connection, changes, spec)
        connection.execute(sql("DELETE FROM {table}", table=table))
        tables.recreate(connection, indexes)
        return Counts(deleted=deleted)
    indexes = tables.indexes(connection, spec.table)
    _put(connection, rows, spec, direct=direct)
    tables.recreate(connection, indexes)
    return Counts(inserted=tables.count(connection, spec.table), deleted=deleted)


def _put(connection: DuckDBPyConnection, rows: Sql, spec: LoadSpec, *, direct: bool) -> None:
    """Make the rows the target: in the same file by a new name, from the stage by a copy."""
    table = quote(*spec.table)
    if direct:
        connection.execute(sql("DROP TABLE IF EXISTS {table}", table=table))
        name = quote(spec.table.name)
        connection.execute(sql("ALTER TABLE {rows} RENAME TO {name}", rows=rows, name=name))
    else:
        connection.execute(sql("CREATE OR REPLACE TABLE {table} AS FROM {rows}", table=table, rows=rows))


def into(
    connection: DuckDBPyConnection,
    rows: Sql,
    changes: Sequence[Change],
    replaces: Iterable[str],
    spec: LoadSpec,
    *,
    later_part: bool,
    changed: Changes | None,
) -> Counts:
    """Bring the rows into a target that stays; it is made where it is missing.

    A `later_part` of a read adds to what its first one made room for. `changed` says that the rows are
    changes.
    """
    table = quote(*spec.table)
    if changed and tables.kind(connection, spec.table) is None:
        raise LoadRefused(
            f"{spec.table}: the table is gone, and changes cannot make it; run with --full-refresh"
        )
    if tables.kind(connection, spec.table) is None:
        connection.execute(sql("CREATE TABLE {table} AS FROM {rows} LIMIT 0", table=table, rows=rows))
    indexes = _evolve(connection, changes, spec)
    # An index is read from the file when it is first needed; a DELETE … USING does not wake it, and the
    # INSERT after it then finds the deleted keys still there.
    connection.execute(sql("INSERT INTO {table} FROM {table} LIMIT 0", table=table))
    marks.note(connection, spec, anew=False)
    if changed:
        change_rows.alter(connection, spec, changed)
        counts = Counts(*change_rows.merge(connection, rows, spec, changed))
        tables.recreate(connection, indexes)
        return counts
    deleted = room.make(connection, replaces, spec, later_part=later_part)
    if spec.mode != "upsert":
        counts = Counts(inserted=tables.insert(connection, spec.table, rows, Sql("TRUE")), deleted=deleted)
    else:
        newest = _none_older(connection, rows, spec)
        updated = _delete_older(connection, rows, spec, newest=newest)
        added = tables.insert(connection, spec.table, rows, Sql("TRUE") if newest else _unmatched(rows, spec))
        counts = Counts(max(0, added - updated), min(updated, added), deleted)
    tables.recreate(connection, indexes)
    return counts


def _evolve(connection: DuckDBPyConnection, changes: Sequence[Change], spec: LoadSpec) -> list[str]:
    """Alter the target, and return the indexes that are to be made again.

    DuckDB alters no table that has indexes, nor makes one of a name that the transaction dropped; so
    such a table is copied.
    """
    indexes = tables.indexes(connection, spec.table) if any(change.alter for change in changes) else []
    if indexes:
        copy = quote(spec.table.schema, f"_sqlflow_new_{spec.table.name}")
        connection.execute(sql("CREATE TABLE {copy} AS FROM {table}", copy=copy, table=quote(*spec.table)))
        _put(connection, copy, spec, direct=True)
    schema.apply(connection, quote(*spec.table), changes)
    return indexes


def same(keys: Iterable[str], one: str, other: str) -> Sql:
    """Return what is true where two rows have the same key; NULL is the same as NULL."""
    pairs = (sql("{a} IS NOT DISTINCT FROM {b}", a=quote(one, key), b=quote(other, key)) for key in keys)
    return join(" AND ", pairs)


def _drop_unchanged(connection: DuckDBPyConnection, rows: Sql, spec: LoadSpec) -> None:
    """Forget staged rows at the boundary that are in the target as they are: they were read again."""
    if spec.cursor_field is None or spec.since is None or spec.rewound:
        return
    have = _folded(tables.columns(connection, quote(*spec.table)))
    staged = _folded(tables.columns(connection, rows))
    if not {fold(name) for name in (*spec.keys, spec.cursor_field)} <= have.keys():
        return
    kind = staged[fold(spec.cursor_field)]
    # Told of the table too, so that no more of it is looked at than its rows at the boundary.
    sides = ("s", "t") if have[fold(spec.cursor_field)] == kind else ("s",)
    boundary = (
        sql(
            "{side}.{c} = CAST({since} AS {kind})",
            side=Sql(side),
            c=quote(spec.cursor_field),
            since=literal(spec.since.value),
            kind=Sql(kind),
        )
        for side in sides
    )
    connection.execute(
        sql(
            "DELETE FROM {rows} AS s USING {table} AS t WHERE {boundary} AND {same} AND {alike}",
            rows=rows,
            table=quote(*spec.table),
            boundary=join(" AND ", boundary),
            same=same(spec.keys, "t", "s"),
            alike=join(" AND ", (_alike(name, have, staged) for name in {**have, **staged})),
        )
    )


def _alike(name: str, have: Mapping[str, str], staged: Mapping[str, str]) -> Sql:
    column = quote(name)
    if name not in staged:
        return sql("t.{c} IS NULL", c=column)
    if name not in have:
        return sql("s.{c} IS NULL", c=column)
    if have[name] == staged[name]:
        return sql("t.{c} IS NOT DISTINCT FROM s.{c}", c=column)
    return sql("CAST(t.{c} AS VARCHAR) IS NOT DISTINCT FROM CAST(s.{c} AS VARCHAR)", c=column)


def _none_older(connection: DuckDBPyConnection, rows: Sql, spec: LoadSpec) -> bool:
    """Whether no staged row is older than any of the target's, so that its keys need not be asked about that."""
    if spec.cursor_field is None:
        return True
    row = connection.execute(
        sql(
            "SELECT count(*) = count({c}) AND coalesce(min({c}) >= (SELECT max({c}) FROM {table}), TRUE) FROM {rows}",
            c=quote(spec.cursor_field),
            table=quote(*spec.table),
            rows=rows,
        )
    ).fetchone()
    return bool(row and row[0])


def _delete_older(connection: DuckDBPyConnection, rows: Sql, spec: LoadSpec, *, newest: bool) -> int:
    """Delete the target's rows that a staged row of the same key takes the place of: all, where none is older."""
    newer = Sql("TRUE")
    if spec.cursor_field and not newest:
        newer = sql("(s.{c} >= t.{c} OR t.{c} IS NULL)", c=quote(spec.cursor_field))
    return tables.deleted(
        connection,
        sql(
            "DELETE FROM {table} AS t USING {rows} AS s WHERE {same} AND {newer}",
            table=quote(*spec.table),
            rows=rows,
            same=same(spec.keys, "t", "s"),
            newer=newer,
        ),
    )


def _unmatched(rows: Sql, spec: LoadSpec) -> Sql:
    """True for staged rows whose key the target no longer has."""
    # `INSERT … SELECT * FROM rows WHERE` names the staged table by its own last name.
    staged = rows.rpartition(".")[2].strip('"')
    return sql(
        "NOT EXISTS (SELECT 1 FROM {table} AS t WHERE {same})",
        table=quote(*spec.table),
        same=same(spec.keys, "t", staged),
    )


def _folded(columns: Mapping[str, str]) -> dict[str, str]:
    return {fold(name): kind for name, kind in columns.items()}
