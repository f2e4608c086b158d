"""An EXPORT's Postgres table → whether it may be written by the mode, asked of the catalogue alone."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from sqlflow_dagster.connectors.base import Health, Place
from sqlflow_dagster.connectors.postgres_client import Connection, connect, startup, translated, where
from sqlflow_dagster.connectors.postgres_options import PostgresSinkOptions, server
from sqlflow_dagster.connectors.postgres_replace import needed_by
from sqlflow_dagster.connectors.postgres_sink import located
from sqlflow_dagster.connectors.tables import Name
from sqlflow_dagster.sql import quote

# What does not exist has no privileges: the functions return NULL for it.
_FOUND = """
SELECT current_setting('server_version') AS version, current_database() AS database, current_user AS user,
  pg_is_in_recovery() AS standby, current_setting('default_transaction_read_only') = 'on' AS read_only,
  has_database_privilege(current_database(), 'CREATE') AS may_create_schemas,
  has_database_privilege(current_database(), 'TEMP') AS may_make_temporary_tables,
  n.oid IS NOT NULL AS schema_exists, has_schema_privilege(n.oid, 'USAGE') AS may_use_schema,
  has_schema_privilege(n.oid, 'CREATE') AS may_create_tables,
  c.oid, c.relkind, pg_total_relation_size(c.oid) AS bytes, greatest(c.reltuples, 0)::bigint AS rows_about,
  has_table_privilege(c.oid, 'SELECT') AS "SELECT", has_table_privilege(c.oid, 'INSERT') AS "INSERT",
  has_table_privilege(c.oid, 'UPDATE') AS "UPDATE", has_table_privilege(c.oid, 'DELETE') AS "DELETE",
  pg_has_role(c.relowner, 'USAGE') AS owner,
  s.oid IS NOT NULL AS notes_schema_exists, has_schema_privilege(s.oid, 'USAGE') AS may_use_notes,
  has_schema_privilege(s.oid, 'CREATE') AS may_make_notes,
  e.oid IS NOT NULL AS notes_exist, has_table_privilege(e.oid, 'INSERT') AS may_note
FROM (SELECT 1) AS one
LEFT JOIN pg_catalog.pg_namespace AS n ON n.nspname = %(schema)s
LEFT JOIN pg_catalog.pg_class AS c ON c.relnamespace = n.oid AND c.relname = %(name)s
LEFT JOIN pg_catalog.pg_namespace AS s ON s.nspname = '_sqlflow'
LEFT JOIN pg_catalog.pg_class AS e ON e.relnamespace = s.oid AND e.relname = 'exports'
"""
_FACTS = ("version", "database", "user", "standby", "schema_exists")


def health(target: str, options: BaseModel, place: Place) -> Health:
    """Return how the server is, and which privileges the export lacks, in a transaction that only reads.

    Raises what connecting raises, and BadOption where no table is named.
    """
    wanted, name = located(target, options)
    told = startup(server(wanted, place), wanted.timeout_seconds, session_settings=wanted.session_settings)
    begin = time.perf_counter()
    connection = connect(told)
    latency = time.perf_counter() - begin
    try:
        with translated(told):
            connection.set_session(readonly=True)
            found = _found(connection, name)
            swapped = found["oid"] is None or not needed_by(connection, found["oid"])
    finally:
        connection.close()
    return _said(where(told), name, wanted, found, swapped=swapped, latency=latency)


def _found(connection: Connection, name: Name) -> dict[str, Any]:
    with connection.cursor() as cursor:
        cursor.execute(_FOUND, {"schema": name.schema, "name": name.name})
        (row,) = cursor.fetchall()
        return {column.name: value for column, value in zip(cursor.description, row, strict=True)}


def _said(
    place: str,
    name: Name,
    options: PostgresSinkOptions,
    found: Mapping[str, Any],
    *,
    swapped: bool,
    latency: float,
) -> Health:
    label = f"{name.schema}.{name.name}"
    lacking = list(_lacking(name, options, found, swapped=swapped))
    facts: dict[str, Any] = {"latency": round(latency, 6), **{key: found[key] for key in _FACTS}}
    facts |= {"table": label, "table_exists": found["oid"] is not None, "may_write": not lacking}
    if found["oid"] is not None:
        facts |= {"bytes": found["bytes"], "rows_about": found["rows_about"]}
    wrong = [
        words
        for is_so, words in (
            (found["standby"], "it is a standby, which takes no writes: name the primary"),
            (found["read_only"], "default_transaction_read_only is on: name a server or user that writes"),
            (
                found["oid"] and found["relkind"] not in ("r", "p"),
                f"{label} is no table: drop it, or name another",
            ),
            (
                found["oid"] is None and not options.create,
                f"there is no table {label}, and `create` is false: create it",
            ),
        )
        if is_so
    ]
    if lacking:
        wrong.append(f"the user may not {options.mode}: {'; '.join(lacking)}")
    size = f"{found['bytes']:,} bytes" if found["oid"] is not None else "to be made"
    said = [f"{place}: Postgres {found['version']}, {label} ({size})", *(wrong or ["may be written"])]
    return Health(ok=not wrong, message="; ".join(said), facts=facts)


def _lacking(
    name: Name, options: PostgresSinkOptions, found: Mapping[str, Any], *, swapped: bool
) -> Iterator[str]:
    """What to GRANT for the statements that the mode runs."""
    user, table = quote(found["user"]), quote(*name)
    database = f"DATABASE {quote(found['database'])}"
    there = found["oid"] is not None
    if not found["schema_exists"]:
        if not found["may_create_schemas"]:
            yield f"GRANT CREATE ON {database} TO {user}, or create the schema"
    else:
        lacking = [] if found["may_use_schema"] else ["USAGE"]
        makes = not there or (options.mode == "replace" and swapped)
        if makes and not found["may_create_tables"]:
            lacking.append("CREATE")
        if lacking:
            yield f"GRANT {', '.join(lacking)} ON SCHEMA {quote(name.schema)} TO {user}"
    if there:
        if options.mode == "replace" and swapped and not found["owner"]:
            yield f"make {user} a member of the role that owns {table}: only its owner may put another in its place"
        lacking = [word for word in _needed(options.mode, swapped=swapped) if not found[word]]
        if lacking:
            yield f"GRANT {', '.join(lacking)} ON {table} TO {user}"
    # One tells what the declared types are called, too.
    if (options.mode == "upsert" or options.types) and not found["may_make_temporary_tables"]:
        yield f"GRANT TEMPORARY ON {database} TO {user}"
    if options.mode == "append":
        yield from _lacking_for_notes(found, database, user)


def _needed(mode: str, *, swapped: bool) -> tuple[str, ...]:
    """The privileges that the mode takes on a table that is there."""
    if mode == "append":
        return ("INSERT",)
    if mode == "upsert":
        return ("SELECT", "INSERT", "UPDATE")
    # The new table is made LIKE the old one.
    return ("SELECT",) if swapped else ("INSERT", "DELETE")


def _lacking_for_notes(found: Mapping[str, Any], database: str, user: str) -> Iterator[str]:
    """What an append lacks to note that it was done, in `_sqlflow.exports`."""
    # CREATE SCHEMA IF NOT EXISTS asks for the privilege before it looks.
    if not found["notes_exist"] and not found["may_create_schemas"]:
        yield f"GRANT CREATE ON {database} TO {user} until the first append has made _sqlflow.exports"
    if found["notes_schema_exists"]:
        words = {"USAGE": found["may_use_notes"]}
        if not found["notes_exist"]:
            words["CREATE"] = found["may_make_notes"]
        if lacking := [word for word, there in words.items() if not there]:
            yield f"GRANT {', '.join(lacking)} ON SCHEMA _sqlflow TO {user}"
    if found["notes_exist"] and not found["may_note"]:
        yield f"GRANT INSERT ON _sqlflow.exports TO {user}"
