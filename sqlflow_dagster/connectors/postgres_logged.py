"""A table → what the log tells of it, and the publication by which it does.

The log names a changed row by the table's replica identity, and a publication says whose changes are
in it. What would not be told whole is refused before a slot is made, with the statement that mends it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlflow_dagster.connectors.postgres_slot import Server
from sqlflow_dagster.connectors.tables import Name
from sqlflow_dagster.errors import BadOption, SchemaChanged, SourceFailed
from sqlflow_dagster.sql import Sql, fold, quote, sql

_TABLE = """
SELECT c.oid, c.relkind, c.relpersistence, c.relreplident,
  EXISTS (SELECT 1 FROM pg_catalog.pg_inherits AS h WHERE h.inhparent = c.oid),
  (SELECT string_agg(l.relid::regclass::text, ', ')
   FROM pg_partition_tree(c.oid) AS l JOIN pg_catalog.pg_class AS p ON p.oid = l.relid
   WHERE l.isleaf AND c.relkind = 'p' AND (p.relkind = 'f' OR p.relpersistence <> 'p')),
  (SELECT string_agg(l.relid::regclass::text, ', ')
   FROM pg_partition_tree(c.oid) AS l JOIN pg_catalog.pg_class AS p ON p.oid = l.relid
   WHERE l.isleaf AND c.relkind = 'p' AND (p.relreplident = 'n' OR (p.relreplident = 'd' AND NOT EXISTS (
     SELECT 1 FROM pg_catalog.pg_index AS i WHERE i.indrelid = p.oid AND i.indisprimary)))),
  txid_snapshot_xmin(txid_current_snapshot())
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = %s AND c.relname = %s
"""
_COLUMNS = """
SELECT attnum, attname, atttypid, atttypmod, attgenerated <> '', atthasmissing, xmin::text::bigint
FROM pg_catalog.pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped ORDER BY attnum
"""
# Rows of a partitioned table lie in its leaves: they know what rows have that are older than a column.
# ATTACH writes the columns of a table anew; CREATE TABLE … PARTITION OF makes them with it.
_FILES = """
SELECT t.relid, coalesce(pg_relation_filenode(t.relid), 0), t.isleaf,
  (SELECT coalesce(jsonb_object_agg(attname, (attmissingval::text::text[])[1]), '{}')
   FROM pg_catalog.pg_attribute WHERE attrelid = t.relid AND atthasmissing AND NOT attisdropped),
  (SELECT h.xmin::text || '/' || h.cmin::text
   FROM pg_partition_ancestors(t.relid) AS p JOIN pg_catalog.pg_inherits AS h ON h.inhrelid = p.relid
   WHERE p.relid NOT IN (SELECT relid FROM pg_partition_ancestors(%(oid)s))
   ORDER BY age(h.xmin), h.cmin::text::bigint DESC LIMIT 1),
  EXISTS (SELECT 1
   FROM pg_partition_ancestors(t.relid) AS p
   JOIN pg_catalog.pg_inherits AS h ON h.inhrelid = p.relid
   JOIN pg_catalog.pg_attribute AS made ON made.attrelid = p.relid AND made.attnum = -1
   WHERE p.relid NOT IN (SELECT relid FROM pg_partition_ancestors(%(oid)s))
     AND (h.xmin::text <> made.xmin::text OR NOT EXISTS (
       SELECT 1 FROM pg_catalog.pg_attribute AS a WHERE a.attrelid = p.relid AND a.attnum > 0
         AND (a.xmin::text, a.cmin::text) = (made.xmin::text, made.cmin::text)))),
  (SELECT jsonb_agg(DISTINCT f.xmin::text::bigint) FROM pg_catalog.pg_class AS f
   WHERE f.oid IN (
     SELECT t.relid UNION ALL SELECT reltoastrelid FROM pg_catalog.pg_class WHERE oid = t.relid
     UNION ALL SELECT indexrelid FROM pg_catalog.pg_index WHERE indrelid = t.relid))
FROM (SELECT relid::oid, isleaf FROM pg_partition_tree(%(oid)s)
  UNION SELECT %(oid)s, true WHERE NOT EXISTS (SELECT 1 FROM pg_partition_tree(%(oid)s))) AS t (relid, isleaf)
ORDER BY t.relid
"""
# The labels of enums, and the parts of composites, of which the columns' types are made.
_MADE_OF = """
WITH RECURSIVE made (type) AS (
  SELECT atttypid FROM pg_catalog.pg_attribute WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped
  UNION
  SELECT part.type FROM made JOIN pg_catalog.pg_type AS t ON t.oid = made.type CROSS JOIN LATERAL (
    SELECT t.typelem WHERE t.typelem <> 0
    UNION ALL SELECT t.typbasetype WHERE t.typbasetype <> 0
    UNION ALL SELECT rngsubtype FROM pg_catalog.pg_range WHERE rngtypid = t.oid
    UNION ALL SELECT atttypid FROM pg_catalog.pg_attribute
      WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped) AS part (type))
SELECT enumtypid, format_type(enumtypid, NULL), oid, enumlabel
FROM pg_catalog.pg_enum WHERE enumtypid IN (SELECT type FROM made)
UNION ALL
SELECT t.oid, format_type(t.oid, NULL), 0, a.attnum::text
FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_attribute AS a ON a.attrelid = t.typrelid
WHERE t.oid IN (SELECT type FROM made) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY 1, 3, 4
"""
# What a publication is, and by what it has a table, with the transactions that wrote that.
_PUBLISHED = """
WITH whole (oid) AS (SELECT %(table)s::oid UNION SELECT relid::oid FROM pg_partition_ancestors(%(table)s)),
entries (entry, made) AS (
  SELECT 'p' || oid, xmin FROM pg_catalog.pg_publication WHERE pubname = %(name)s
  UNION ALL
  SELECT 't' || r.oid, r.xmin
  FROM pg_catalog.pg_publication_rel AS r JOIN pg_catalog.pg_publication AS p ON p.oid = r.prpubid
  WHERE p.pubname = %(name)s AND r.prrelid IN (SELECT oid FROM whole)
  {schemas})
SELECT coalesce(string_agg(entry || '/' || made, ' ' ORDER BY entry), ''),
  coalesce(bool_and(age(made) > age(%(horizon)s::xid)), false)
FROM entries
"""
_PUBLISHED_SCHEMAS = """
  UNION ALL
  SELECT 's' || s.oid, s.xmin
  FROM pg_catalog.pg_publication_namespace AS s JOIN pg_catalog.pg_publication AS p ON p.oid = s.pnpubid
  WHERE p.pubname = %(name)s
    AND s.pnnspid IN (SELECT relnamespace FROM pg_catalog.pg_class WHERE oid IN (SELECT oid FROM whole))
"""
_SCHEMAS_PUBLISHED_SINCE = 150_000
_IDENTITY = """
SELECT a.attname
FROM pg_catalog.pg_index AS i
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])
WHERE i.indrelid = %s AND CASE %s WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END
"""


@dataclass(frozen=True, slots=True)
class LoggedColumn:
    """A column by its number, which outlives its name.

    `has_missing` says that rows which are older than the column have another value in it than NULL. `altered`
    is the transaction that last altered the column.
    """

    number: int
    name: str
    type: int
    modifier: int
    generated: bool
    has_missing: bool
    altered: int


@dataclass(frozen=True, slots=True)
class File:
    """A table's file, or a partition's: `number` changes when its rows are written anew.

    `missing` is what rows have in columns that are younger than they are, as text; NULL where there is none.
    `attached` is the transaction that made it a partition, and the number of the command there; `own` says that
    it was, or may have been, a table of its own before. `written` are transactions that wrote the catalogue's rows
    of it, its indexes and its large values: a TRUNCATE writes all of them.
    """

    table: int
    number: int
    leaf: bool
    missing: Mapping[str, str]
    attached: str | None
    own: bool
    written: Collection[int]


@dataclass(frozen=True, slots=True)
class MadeOf:
    """A type that is made of named parts: an enum's labels by their number, or a composite's parts, all of number 0."""

    shown: str
    parts: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Logged:
    """A table as the log knows it, with the files of its rows and the types that may change beside it.

    Transactions before `horizon` were over.
    """

    oid: int
    identity: str
    key: tuple[str, ...]
    files: tuple[File, ...]
    columns: tuple[LoggedColumn, ...]
    types: Mapping[int, MadeOf]
    partitioned: bool
    horizon: int


def look_at(server: Server, table: Name, label: str) -> Logged:
    """Return a table as the log knows it.

    Raises BadOption where there is none, or where its changes cannot be read from the log.
    """
    found = server.rows(_TABLE, [table.schema, table.name])
    if not found:
        raise SchemaChanged(f"{label}: the table is gone; mend the SOURCE, or run `sqlflow discover`")
    oid, kind, persistence, identity, has_children, unlogged, bare, horizon = found[0]
    if kind not in ("r", "p") or persistence != "p":
        raise BadOption(
            f'sync_mode: {label} is no ordinary table, whose changes would be in the log; read it with "sync_mode": '
            '"full_refresh", or by a cursor_field',
            option="sync_mode",
        )
    if has_children and kind == "r":
        raise BadOption(
            f"sync_mode: {label} has tables that inherit from it, whose changes the log has under their own names; "
            "load each of them by itself",
            option="sync_mode",
        )
    columns = tuple(LoggedColumn(*row) for row in server.rows(_COLUMNS, [oid]))
    key = (
        tuple(column.name for column in columns if not column.generated)
        if identity == "f"
        else tuple(row[0] for row in server.rows(_IDENTITY, [oid, identity]))
    )
    if unlogged:
        raise BadOption(
            f"sync_mode: the partitions {unlogged} of {label} are foreign or UNLOGGED tables, whose changes are not in "
            'the log; read it with "sync_mode": "full_refresh", or by a cursor_field',
            option="sync_mode",
        )
    if bare:
        raise BadOption(
            f"sync_mode: the partitions {bare} of {label} do not tell the log which row changed; give each of them a "
            "primary key, or REPLICA IDENTITY FULL",
            option="sync_mode",
        )
    if identity == "n" or not key:
        raise BadOption(
            f"sync_mode: {label} does not tell the log which row changed: its replica identity is {_named(identity)}"
            f"{', without a primary key' if identity == 'd' else ''}. Give it a primary key, or run: {_full(table)}",
            option="sync_mode",
        )
    files = tuple(File(*row) for row in server.rows(_FILES, {"oid": oid}))
    return Logged(oid, identity, key, files, columns, _made_of(server, oid), kind == "p", horizon)


def _made_of(server: Server, table: int) -> dict[int, MadeOf]:
    found: dict[int, MadeOf] = {}
    for oid, shown, number, part in server.rows(_MADE_OF, [table]):
        known = found.get(oid, MadeOf(shown, ()))
        found[oid] = MadeOf(shown, (*known.parts, (number, part)))
    return found


def _full(table: Name) -> Sql:
    return sql("ALTER TABLE {table} REPLICA IDENTITY FULL", table=quote(*table))


def _named(identity: str) -> str:
    return {"d": "DEFAULT", "n": "NOTHING", "i": "USING INDEX", "f": "FULL"}[identity]


def check_key(logged: Logged, key: Sequence[str], label: str, table: Name) -> tuple[str, ...]:
    """Return the LOAD's key as the table spells it.

    Raises BadOption where the log would not name deleted rows by it.
    """
    known = {fold(column.name): column.name for column in logged.columns if not column.generated}
    missing = [name for name in key if fold(name) not in known]
    if missing:
        raise BadOption(
            f"primary_key: {label} has no column {', '.join(missing)} in its log; it has {', '.join(known.values())}. "
            "Mend `primary_key`, or run `sqlflow discover` where the tables are found by patterns",
            option="primary_key",
        )
    found = tuple(known[fold(name)] for name in key)
    if logged.identity != "f" and set(found) != set(logged.key):
        raise BadOption(
            f"primary_key: rows are to be merged by {', '.join(found)}, and the log of {label} names them by "
            f"{', '.join(logged.key)}. Merge by that, or run: {_full(table)}",
            option="primary_key",
        )
    return found


def check_server(server: Server, place: str) -> None:
    """Raise SourceFailed where the server does not write what is needed into its log."""
    level = server.rows("SHOW wal_level")[0][0]
    if level != "logical":
        raise SourceFailed(
            f"{place}: its wal_level is {level!r}, so that the log does not tell the rows that changed; run "
            "ALTER SYSTEM SET wal_level = 'logical' there (rds.logical_replication = 1 at Amazon) and restart it"
        )


def ensure_publication(server: Server, name: str, table: Name, logged: Logged, label: str) -> None:
    """Make the publication, or add the table to it, where that is missing.

    Raises BadOption where it leaves out changes, and NotAllowed with the statement to run where this
    user may not make it.
    """
    # Streams of one SOURCE do this side by side.
    server.rows("SELECT pg_advisory_lock(hashtext(%s))", [f"sqlflow {name}"])
    try:
        if lacking := _lacking(server, name, table, logged, label):
            server.run(lacking, label)
    finally:
        server.rows("SELECT pg_advisory_unlock(hashtext(%s))", [f"sqlflow {name}"])


def check_publication(server: Server, name: str, table: Name, logged: Logged, label: str) -> None:
    """Raise SourceFailed, or BadOption, where a publication does not tell all changes of a table any more."""
    try:
        lacking = _lacking(server, name, table, logged, label)
    except BadOption as error:
        raise BadOption(
            f"{error}. What it left out meanwhile is not in the log: then run with --full-refresh",
            option="publication",
        ) from error
    if lacking:
        raise SourceFailed(
            f"{label}: the publication {name} does not have the table any more, and changes since then are not in the "
            "log; read everything anew with --full-refresh, which adds it"
        )


def published(server: Server, name: str, table: int, horizon: int) -> tuple[str, bool]:
    """Return by what a publication has a table, and whether transactions before `horizon` wrote all of that."""
    since = server.connection.server_version >= _SCHEMAS_PUBLISHED_SINCE
    query = _PUBLISHED.replace("{schemas}", _PUBLISHED_SCHEMAS if since else "")
    ((entries, older),) = server.rows(query, {"name": name, "table": table, "horizon": str(horizon % 2**32)})
    return entries, older


def _lacking(server: Server, name: str, table: Name, logged: Logged, label: str) -> Sql | None:
    """Return the statement by which a publication gets the table, None where it has it."""
    found = server.rows(
        "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot, puballtables"
        " FROM pg_catalog.pg_publication WHERE pubname = %s",
        [name],
    )
    if not found:
        return sql(
            "CREATE PUBLICATION {name} FOR TABLE {table} WITH (publish_via_partition_root = true)",
            name=quote(name),
            table=quote(*table),
        )
    everything, via_root, _all_tables = found[0]
    if not everything:
        setting = Sql("publish = 'insert, update, delete, truncate'")
        raise BadOption(
            f"publication: {name} leaves out some kinds of changes; run: {_set(name, setting)}",
            option="publication",
        )
    if logged.partitioned and not via_root:
        setting = Sql("publish_via_partition_root = true")
        raise BadOption(
            f"publication: {label} is partitioned, and {name} has the changes under its partitions' names; run: "
            f"{_set(name, setting)}",
            option="publication",
        )
    member = server.rows(
        "SELECT to_jsonb(t) FROM pg_catalog.pg_publication_tables AS t"
        " WHERE pubname = %s AND schemaname = %s AND tablename = %s",
        [name, *table],
    )
    if not member:
        return sql("ALTER PUBLICATION {name} ADD TABLE {table}", name=quote(name), table=quote(*table))
    _check_whole(member[0][0], logged, name, label)
    return None


def _set(name: str, setting: Sql) -> Sql:
    return sql("ALTER PUBLICATION {name} SET ({setting})", name=quote(name), setting=setting)


def _check_whole(member: Mapping[str, Any], logged: Logged, name: str, label: str) -> None:
    """A publication may publish some rows and columns only, and a copy would lack the others."""
    listed = member.get("attnames")
    lacking = [
        c.name for c in logged.columns if listed is not None and c.name not in listed and not c.generated
    ]
    if member.get("rowfilter") or lacking:
        what = f"the columns {', '.join(lacking)}" if lacking else "rows, by a WHERE"
        raise BadOption(
            f"publication: {name} leaves out {what} of {label}; give it the whole table, or name another publication",
            option="publication",
        )
