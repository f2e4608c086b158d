"""A new table in the place of an old one, in the transaction that filled it.

Readers see the old rows until the commit and the new ones after it. Only a plain table is swapped: what
hangs on others (views, foreign keys, triggers, rules, policies, publications, sequences …) is filled in place.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Sequence
from typing import Any

from sqlflow_dagster.connectors.postgres_client import NEW, Connection
from sqlflow_dagster.connectors.tables import Name
from sqlflow_dagster.sql import Sql, literal, quote, sql

log = logging.getLogger(__name__)

_NEEDED_BY = """
SELECT 'a view' FROM pg_depend AS d JOIN pg_rewrite AS r ON r.oid = d.objid
  WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = %(oid)s AND r.ev_class <> %(oid)s
UNION ALL SELECT 'a foreign key' FROM pg_constraint WHERE contype = 'f' AND %(oid)s IN (confrelid, conrelid)
UNION ALL SELECT 'a trigger' FROM pg_trigger WHERE tgrelid = %(oid)s AND NOT tgisinternal
UNION ALL SELECT 'a rule' FROM pg_rewrite WHERE ev_class = %(oid)s
UNION ALL SELECT 'a policy' FROM pg_policy WHERE polrelid = %(oid)s
UNION ALL SELECT 'a publication' FROM pg_publication_rel WHERE prrelid = %(oid)s
UNION ALL SELECT 'a publication' FROM pg_publication_tables AS p JOIN pg_class AS c ON c.relname = p.tablename
  JOIN pg_namespace AS n ON n.oid = c.relnamespace AND n.nspname = p.schemaname
  WHERE c.oid = %(oid)s AND EXISTS (SELECT 1 FROM pg_index WHERE indrelid = c.oid AND indisprimary)
UNION ALL SELECT 'a function' FROM pg_depend WHERE classid = 'pg_proc'::regclass
  AND refclassid = 'pg_class'::regclass AND refobjid = %(oid)s
UNION ALL SELECT 'an extension' FROM pg_depend
  WHERE classid = 'pg_class'::regclass AND objid = %(oid)s AND deptype = 'e'
UNION ALL SELECT 'statistics' FROM pg_statistic_ext WHERE stxrelid = %(oid)s
UNION ALL SELECT 'an index to cluster by' FROM pg_index WHERE indrelid = %(oid)s AND indisclustered
UNION ALL SELECT 'a label' FROM pg_seclabel WHERE classoid = 'pg_class'::regclass AND objoid = %(oid)s
UNION ALL SELECT 'settings of columns' FROM pg_attribute
  WHERE attrelid = %(oid)s AND attnum > 0 AND (attstattarget >= 0 OR attoptions IS NOT NULL)
UNION ALL SELECT 'inheritance' FROM pg_inherits WHERE %(oid)s IN (inhrelid, inhparent)
UNION ALL SELECT 'a sequence' FROM pg_depend AS d JOIN pg_class AS s ON s.oid = d.objid
  WHERE d.classid = 'pg_class'::regclass AND d.refobjid = %(oid)s AND s.relkind = 'S'
UNION ALL SELECT 'a type' FROM pg_depend AS d JOIN pg_class AS c ON c.reltype = d.refobjid
  WHERE c.oid = %(oid)s AND d.refclassid = 'pg_type'::regclass AND d.objid <> c.oid AND d.deptype <> 'i'
UNION ALL SELECT 'grants on columns' FROM pg_attribute WHERE attrelid = %(oid)s AND attacl IS NOT NULL
UNION ALL SELECT 'settings of its own' FROM pg_class WHERE oid = %(oid)s
  AND (relkind <> 'r' OR relrowsecurity OR reloptions IS NOT NULL OR relpersistence <> 'p'
    OR reltablespace <> 0 OR relreplident <> 'd' OR reloftype <> 0)
"""
# ALTER DEFAULT PRIVILEGES may give a new table what the old one does not grant.
_GRANTED = """
SELECT DISTINCT CASE WHEN g.grantee <> 0 THEN pg_get_userbyid(g.grantee) END
FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS g
WHERE c.oid = to_regclass(%s) AND g.grantee <> c.relowner
"""
_GRANTS = """
SELECT CASE WHEN g.grantee <> 0 THEN pg_get_userbyid(g.grantee) END, g.privilege_type, g.is_grantable
FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS g
WHERE c.oid = %s AND g.grantee <> c.relowner
"""
_OWNER = """
SELECT pg_get_userbyid(relowner), pg_get_userbyid(relowner) = current_user, obj_description(oid, 'pg_class')
FROM pg_class WHERE oid = %s
"""
# Indexes that are alike but for their names stand in the order of those.
_INDEXES = """
SELECT c.relname, ROW(i.indkey::text, i.indisunique, i.indisprimary, i.indclass::text, i.indoption::text,
  pg_get_expr(i.indexprs, i.indrelid), pg_get_expr(i.indpred, i.indrelid), c.relam)::text
FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
WHERE i.indrelid = %s ORDER BY 2, 1
"""
# What a table has beside its columns.
_ATTACHED = """
SELECT 'the index ' || c.relname FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid
  WHERE i.indrelid = %(oid)s
UNION ALL SELECT 'the check ' || conname FROM pg_constraint WHERE conrelid = %(oid)s AND contype = 'c'
UNION ALL SELECT w.what || a.attname FROM pg_attribute AS a
  CROSS JOIN LATERAL (VALUES ('the default of ', a.atthasdef), ('NOT NULL of ', a.attnotnull),
    ('the comment on ', col_description(a.attrelid, a.attnum) IS NOT NULL)) AS w (what, there)
  WHERE a.attrelid = %(oid)s AND a.attnum > 0 AND NOT a.attisdropped AND w.there
ORDER BY 1
"""


def needed_by(connection: Connection, oid: int) -> list[str]:
    """Return what hangs on a table, so that it cannot be swapped without changing more than its rows."""
    return [row[0] for row in rows_of(connection, _NEEDED_BY, {"oid": oid})]


def new_name(name: Name) -> Name:
    """Return a name beside the table's for the one that takes its place."""
    return Name(name.schema, f"{NEW}{uuid.uuid4().hex[:12]}")


def create_like(connection: Connection, old: Name, new: Name) -> None:
    """Make an empty table with the old one's columns, defaults, checks and indexes."""
    run(connection, sql("CREATE TABLE {new} (LIKE {old} INCLUDING ALL)", new=quote(*new), old=quote(*old)))


def swap(connection: Connection, oid: int, old: Name, new: Name, *, like: bool) -> None:
    """Give the new table the old one's grants, owner, comment and name, and drop the old one."""
    ((owner, own, comment),) = rows_of(connection, _OWNER, [oid])
    for (grantee,) in rows_of(connection, _GRANTED, [quote(*new)]):
        run(connection, sql("REVOKE ALL ON {new} FROM {whom}", new=quote(*new), whom=_role(grantee)))
    for grantee, privilege, grantable in rows_of(connection, _GRANTS, [oid]):
        statement = sql(
            "GRANT {what} ON {new} TO {whom}{more}",
            what=Sql(privilege),
            new=quote(*new),
            whom=_role(grantee),
            more=Sql(" WITH GRANT OPTION") if grantable else Sql(""),
        )
        run(connection, statement)
    if comment:
        run(connection, sql("COMMENT ON TABLE {new} IS {text}", new=quote(*new), text=literal(comment)))
    if not own:
        run(connection, sql("ALTER TABLE {new} OWNER TO {owner}", new=quote(*new), owner=quote(owner)))
    indexes = rows_of(connection, _INDEXES, [oid])
    if not like and (gone := rows_of(connection, _ATTACHED, {"oid": oid})):
        names = ", ".join(row[0] for row in gone)
        log.warning("%s.%s: its columns changed, and with the old ones went %s", *old, names)
    run(connection, sql("DROP TABLE {old}", old=quote(*old)))
    if like:
        _name_indexes(connection, indexes, new)
    run(connection, sql("ALTER TABLE {new} RENAME TO {name}", new=quote(*new), name=quote(old.name)))


def _role(name: str | None) -> Sql:
    return quote(name) if name else Sql("PUBLIC")


def _name_indexes(connection: Connection, indexes: Sequence[tuple[Any, ...]], new: Name) -> None:
    """Give the indexes of the new table the names that those of the old one had."""
    find = "SELECT to_regclass(%s)::oid"
    oid = rows_of(connection, find, [quote(*new)])[0][0]
    for (wanted, _), (made, _) in zip(indexes, rows_of(connection, _INDEXES, [oid]), strict=True):
        rename = "ALTER INDEX {made} RENAME TO {wanted}"
        run(connection, sql(rename, made=quote(new.schema, made), wanted=quote(wanted)))


def rows_of(connection: Connection, query: str, values: Any = None) -> list[tuple[Any, ...]]:
    """Return a query's rows, its values bound."""
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        rows: list[tuple[Any, ...]] = cursor.fetchall()
        return rows


def run(connection: Connection, statement: Sql) -> int:
    """Run a statement that gives no rows; return how many the server says that it changed."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return int(cursor.rowcount)
