"""Postgres' catalogue → tables, columns with their types, and where a cursor has to stop.

Each function runs in a read-only transaction that the caller has opened. Queries are sent with their
values bound; nothing of a name is put into their text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlflow_dagster.connectors.discovered import Table
from sqlflow_dagster.connectors.postgres_client import Connection
from sqlflow_dagster.connectors.postgres_types import Column, Type, travel
from sqlflow_dagster.connectors.tables import Name
from sqlflow_dagster.errors import BadOption, SourceFailed
from sqlflow_dagster.sql import Sql, quote, sql

_KINDS = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}
_NONE = 0xFFFF
Times = Literal["date", "timestamp", "timestamptz"]
READER = "sqlflow_dagster read"

# Partitions are read with the table that they are parts of.
_TABLES = """
SELECT c.oid, n.nspname, c.relname, c.relkind, coalesce(d.description, '')
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_description AS d
  ON d.objoid = c.oid AND d.objsubid = 0 AND d.classoid = 'pg_catalog.pg_class'::regclass
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_(toast|temp)'
ORDER BY n.nspname, c.relname
"""
_ONE_TABLE = """
SELECT c.oid, c.relkind
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
"""
_COLUMNS = """
SELECT attrelid, attname, atttypid, atttypmod, attndims
FROM pg_catalog.pg_attribute
WHERE attrelid = ANY (%s) AND attnum > 0 AND NOT attisdropped
ORDER BY attrelid, attnum
"""
# The key's index may have columns beside it (INCLUDE), its constraint has none.
_KEYS = """
SELECT c.conrelid, a.attname
FROM pg_catalog.pg_constraint AS c
CROSS JOIN LATERAL unnest(c.conkey) WITH ORDINALITY AS k (attnum, place)
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.conrelid AND a.attnum = k.attnum
WHERE c.conrelid = ANY (%s) AND c.contype = 'p'
ORDER BY c.conrelid, k.place
"""
_TYPES = """
SELECT t.oid, CASE WHEN n.nspname = 'pg_catalog' THEN t.typname END, format_type(t.oid, NULL), t.typtype,
  CASE WHEN t.typlen = -1 AND t.typelem <> 0 AND t.typcategory = 'A'
    AND t.typname NOT IN ('int2vector', 'oidvector') THEN t.typelem ELSE 0 END,
  t.typbasetype, t.typtypmod, t.typndims, t.typname
FROM pg_catalog.pg_type AS t
JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
WHERE t.oid = ANY (%s)
"""
# A transaction that is open now may commit rows whose times lie before what is visible to us. Those of
# other users are hidden without pg_read_all_stats, but for the lock that each open one holds.
_HORIZON = """
SELECT least(statement_timestamp() - interval '1 second', min(a.xact_start))::text,
  count(*) FILTER (WHERE a.backend_type IS NULL AND EXISTS (
    SELECT 1 FROM pg_catalog.pg_locks AS l WHERE l.pid = a.pid AND l.locktype = 'virtualxid')),
  pg_is_in_recovery(),
  (SELECT count(*) FROM pg_catalog.pg_prepared_xacts WHERE database = current_database())
FROM (SELECT 1) AS one
LEFT JOIN pg_catalog.pg_stat_activity AS a
  ON a.datname = current_database() AND a.pid <> pg_backend_pid()
  AND coalesce(a.application_name, '') <> %s
  AND coalesce(a.backend_type, '') NOT IN ('autovacuum worker', 'walsender')
"""
# The session's own zone is UTC; the one of the server's log is the one of its machine, and a database or a user may
# have another.
_ZONELESS = """
SELECT (CASE WHEN isfinite(m) THEN min(m AT TIME ZONE zone) ELSE '-infinity' END)::timestamp::text
FROM (SELECT %s::timestamptz AS m) AS one
CROSS JOIN (
  SELECT 'UTC'
  UNION ALL SELECT current_setting('log_timezone')
  UNION ALL SELECT split_part(setting, '=', 2)
  FROM pg_catalog.pg_db_role_setting AS r CROSS JOIN LATERAL unnest(r.setconfig) AS setting
  WHERE setting ILIKE 'timezone=%%'
    AND r.setdatabase IN (0, (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))
) AS zones (zone)
GROUP BY m
"""
_ZONELESS_DATE = _ZONELESS.replace("::timestamp::", "::timestamp::date::")


# What a table, its partitions, or the tables of a view are, whose rows come from elsewhere or from another time.
_ASIDE = """
WITH RECURSIVE below (oid) AS (
  SELECT c.oid FROM pg_catalog.pg_class AS c JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
  WHERE n.nspname = %s AND c.relname = %s
  UNION
  SELECT x.oid FROM below CROSS JOIN LATERAL (
    SELECT inhrelid FROM pg_catalog.pg_inherits WHERE inhparent = below.oid
    UNION ALL SELECT d.refobjid FROM pg_catalog.pg_rewrite AS r JOIN pg_catalog.pg_depend AS d
      ON d.classid = 'pg_catalog.pg_rewrite'::regclass AND d.objid = r.oid
      AND d.refclassid = 'pg_catalog.pg_class'::regclass
    WHERE r.ev_class = below.oid AND r.rulename = '_RETURN') AS x (oid))
SELECT c.relkind, string_agg(c.oid::regclass::text, ', ' ORDER BY c.oid)
FROM below JOIN pg_catalog.pg_class AS c ON c.oid = below.oid
WHERE c.relkind IN ('f', 'm') GROUP BY c.relkind ORDER BY c.relkind
"""
_WHY_ASIDE = {
    "f": "its rows are those of the foreign table {}, and what is open on that server is not known here",
    "m": "its rows are those of the materialized view {}, which has each one not before it is refreshed",
}


@dataclass(frozen=True, slots=True)
class Horizon:
    """Up to where all changes are visible, in UTC and in the server's own zone; and what is not known."""

    utc: str
    hidden: int = 0
    standby: bool = False
    prepared: int = 0

    @property
    def doubts(self) -> list[str]:
        """What the source cannot know, for a warning."""
        found = []
        if self.hidden:
            found.append(
                f"{self.hidden} sessions of other users have a transaction open whose beginning this user may not see; "
                "GRANT pg_read_all_stats to it, or set lookback_window"
            )
        if self.standby:
            found.append(
                "this server is a standby, which does not know what is open on its primary; set lookback_window"
            )
        if self.prepared:
            found.append(
                f"{self.prepared} prepared transactions wait, whose beginning is unknown; the cursor stays until "
                "they are committed or rolled back"
            )
        return found


def list_tables(connection: Connection, numeric_type: str) -> list[Table]:
    """Return all tables and views that are not the system's, by schema and name."""
    found = _rows(connection, _TABLES)
    oids = [row[0] for row in found]
    columns = _columns(connection, oids)
    keys: dict[int, list[str]] = {}
    for oid, name in _rows(connection, _KEYS, [oids]):
        keys.setdefault(oid, []).append(name)
    return [
        Table(
            schema=schema,
            name=name,
            primary_key=tuple(keys.get(oid, ())),
            columns={c.name: travel(c, None, numeric_type).kind for c in columns.get(oid, ())},
            kind=_KINDS[kind],
            description=description,
        )
        for oid, schema, name, kind, description in found
    ]


def table_columns(
    connection: Connection, table: Name, label: str
) -> tuple[str, list[Column], tuple[str, ...]]:
    """Return what a table is (`table`, `view` …), its columns and its primary key.

    Raises BadOption, with the nearest names, where there is no such table.
    """
    found = _rows(connection, _ONE_TABLE, [table.schema, table.name])
    if not found:
        raise BadOption(f"{label}: {_unknown(connection, table)}", option="table")
    oid, kind = found[0]
    keys = tuple(row[1] for row in _rows(connection, _KEYS, [[oid]]))
    columns = _columns(connection, [oid]).get(oid, [])
    if not columns:
        raise SourceFailed(f"{label}: the table has no columns, so that there is nothing to load")
    return _KINDS[kind], columns, keys


def query_columns(connection: Connection, query: Sql) -> list[Column]:
    """Return the columns of a query that is already in parentheses and has a name."""
    with connection.cursor() as cursor:
        cursor.execute(sql("SELECT * FROM {query} LIMIT 0", query=query))
        described = cursor.description or ()
    types = _types(connection, {column.type_code for column in described})
    names = Counter(column.name for column in described)
    if twice := [name for name, times in names.items() if times > 1]:
        raise BadOption(
            f"query: the query gives the column {', '.join(twice)} twice; give one of them another name by AS",
            option="query",
        )
    return [
        Column(column.name, _typed(types, column.type_code, _modifier(column), 0)) for column in described
    ]


def horizon(connection: Connection) -> Horizon:
    """Return up to where the rows that a later snapshot sees are complete. To be asked before the read."""
    utc, hidden, standby, prepared = _rows(connection, _HORIZON, [READER])[0]
    if standby:
        replayed = _rows(
            connection, "SELECT least(%s::timestamptz, pg_last_xact_replay_timestamp())::text", [utc]
        )
        utc = replayed[0][0]
    return Horizon("-infinity" if prepared else utc, hidden, standby, prepared)


def doubts_of(connection: Connection, table: Name) -> list[str]:
    """Return why rows of a table may become visible after those of later transactions, for a warning."""
    found = _rows(connection, _ASIDE, [*table])
    return [f"{_WHY_ASIDE[kind].format(names)}; set lookback_window" for kind, names in found]


def hides_rows(connection: Connection, table: Name) -> bool:
    """Return whether the server leaves out rows of a table for this user, by row-level security."""
    relation = quote(*table)
    return bool(_rows(connection, "SELECT row_security_active(%s::regclass)", [relation])[0][0])


def as_column(connection: Connection, utc: str, kind: Times) -> str:
    """Return a moment as a column of that type holds it: without a zone, the earliest of UTC and the zones there."""
    if kind == "timestamptz":
        return utc
    query = _ZONELESS_DATE if kind == "date" else _ZONELESS
    return str(_rows(connection, query, [utc])[0][0])


def oldest_transaction(connection: Connection) -> int:
    """Return the lowest transaction id that may still be open: all lower ones are visible to later reads."""
    return int(_rows(connection, "SELECT txid_snapshot_xmin(txid_current_snapshot())")[0][0])


def system(connection: Connection) -> str | None:
    """Return what tells this cluster from all others, None where this user may not know."""
    may = "SELECT has_function_privilege(to_regprocedure('pg_control_system()'), 'EXECUTE')"
    if not _rows(connection, may)[0][0]:
        return None
    return str(_rows(connection, "SELECT system_identifier FROM pg_control_system()")[0][0])


def money_digits(connection: Connection) -> int:
    """Return how many decimal places `money` has here."""
    text = str(_rows(connection, "SELECT (1::money::numeric)::text")[0][0])
    return len(text.partition(".")[2])


def encoding(connection: Connection) -> str:
    """Return the server's encoding."""
    return str(_rows(connection, "SHOW server_encoding")[0][0])


def _rows(connection: Connection, query: str, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def _unknown(connection: Connection, table: Name) -> str:
    """Say that a table is not there, and which are like it."""
    import difflib  # noqa: PLC0415 - only for this message

    names = [f"{row[1]}.{row[2]}" for row in _rows(connection, _TABLES)]
    near = difflib.get_close_matches(f"{table.schema}.{table.name}", names, n=1)
    others = (
        f"it has {', '.join(names[:10])}{' …' if len(names) > 10 else ''}" if names else "it has no tables"
    )
    hint = f"did you mean {near[0]}?" if near else others
    return f"there is no table {table.schema}.{table.name}; {hint}"


def _columns(connection: Connection, oids: Sequence[int]) -> dict[int, list[Column]]:
    rows = _rows(connection, _COLUMNS, [list(oids)])
    types = _types(connection, {row[2] for row in rows})
    found: dict[int, list[Column]] = {}
    for oid, name, kind, modifier, dimensions in rows:
        found.setdefault(oid, []).append(Column(name, _typed(types, kind, modifier, dimensions)))
    return found


@dataclass(frozen=True, slots=True)
class _Row:
    name: str | None
    shown: str
    kind: str
    element: int
    base: int
    modifier: int
    dimensions: int
    plain: str


def _types(connection: Connection, oids: Iterable[int]) -> Mapping[int, _Row]:
    """The types, those that they are made of among them."""
    known: dict[int, _Row] = {}
    wanted = set(oids)
    while wanted:
        for oid, *row in _rows(connection, _TYPES, [sorted(wanted)]):
            known[oid] = _Row(*row)
        made_of = {oid for row in known.values() for oid in (row.element, row.base) if oid}
        missing = wanted - set(known)
        wanted = made_of - set(known) - missing
    return known


def _typed(types: Mapping[int, _Row], oid: int, modifier: int, dimensions: int) -> Type:
    row = types.get(oid)
    if row is None:
        return Type(None, "unknown")
    if row.kind == "d":
        return _typed(types, row.base, row.modifier, row.dimensions)
    if row.element:
        return Type(None, row.shown, modifier, _typed(types, row.element, modifier, 0), dimensions)
    return Type(row.name, row.plain if row.plain == "citext" else row.shown, modifier)


def _modifier(column: Any) -> int:
    """The modifier of a query's `numeric` column, from what the driver made of it."""
    if column.precision is None or column.scale is None or column.precision == _NONE:
        return -1
    return (int(column.precision) << 16 | (int(column.scale) & 0xFFFF)) + 4
