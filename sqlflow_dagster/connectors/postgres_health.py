"""A connection → how the server is: version, sizes, replication, and what the user may not read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from sqlflow_dagster.connectors.base import Health
from sqlflow_dagster.connectors.postgres_client import Connection
from sqlflow_dagster.connectors.postgres_slot import Held, Server, unread
from sqlflow_dagster.connectors.postgres_slot import slots as found
from sqlflow_dagster.sql import quote

_SERVER = """
SELECT current_setting('server_version'), current_database(), current_user,
  CASE WHEN has_database_privilege(current_database(), 'CONNECT') THEN pg_database_size(current_database()) END,
  pg_is_in_recovery(),
  CASE WHEN pg_is_in_recovery() THEN extract(epoch FROM now() - pg_last_xact_replay_timestamp()) END,
  (SELECT max(extract(epoch FROM replay_lag)) FROM pg_catalog.pg_stat_replication),
  (SELECT count(*) FROM pg_catalog.pg_stat_replication),
  pg_has_role('pg_read_all_stats', 'USAGE'),
  (SELECT ssl FROM pg_catalog.pg_stat_ssl WHERE pid = pg_backend_pid()),
  current_setting('max_connections')::int, (SELECT count(*) FROM pg_catalog.pg_stat_activity)
"""
_RELATIONS = """
SELECT c.relname, n.nspname, c.relkind IN ('r', 'p', 'm'),
  CASE WHEN c.relkind IN ('r', 'm') THEN pg_total_relation_size(c.oid) ELSE 0 END,
  has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')
FROM pg_catalog.pg_class AS c
JOIN pg_catalog.pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname !~ '^pg_(toast|temp)'
ORDER BY 4 DESC, 2, 1
"""
_LOG = """
SELECT current_setting('wal_level'), rolreplication OR rolsuper OR EXISTS (
  SELECT 1 FROM pg_catalog.pg_roles AS o WHERE o.rolname = 'rds_replication' AND pg_has_role(o.oid, 'USAGE'))
FROM pg_catalog.pg_roles WHERE rolname = current_user
"""
_LATE_SECONDS = 300
_MUCH_LOG = 2**30
_MOST_NAMED = 5


def health(
    connection: Connection,
    place: str,
    latency: float,
    slot_prefix: str | None = None,
    readers: Collection[str] | None = None,
) -> Health:
    """Return what the server says of itself; `latency` is the seconds that connecting took.

    Replication slots whose names begin with `slot_prefix` are looked at too; `readers` are the LOADs that may
    read them, None where they are not known.
    """
    with connection.cursor() as cursor:
        cursor.execute(_SERVER)
        server: tuple[Any, ...] = cursor.fetchone()
        cursor.execute(_RELATIONS)
        relations = cursor.fetchall()
    slots = _slots(connection, slot_prefix) if slot_prefix else []
    (version, database, user, size, standby, behind, lag, replicas, may_see, tls, most, open_now) = server
    forbidden = [f"{row[1]}.{row[0]}" for row in relations if not row[4]]
    largest = relations[0] if relations and relations[0][3] else None
    facts: dict[str, Any] = {
        "latency": round(latency, 6),
        "version": version,
        "database": database,
        "user": user,
        "tables": sum(1 for row in relations if row[2]),
        "views": sum(1 for row in relations if not row[2]),
        "standby": standby,
        "replicas": replicas,
        "tls": bool(tls),
        "connections": open_now,
        "max_connections": most,
        "may_see_all_sessions": may_see,
    }
    if size is not None:
        facts["bytes"] = size
    if largest:
        facts |= {"largest_table": f"{largest[1]}.{largest[0]}", "largest_table_bytes": largest[3]}
    late = behind if standby else lag
    if late is not None:
        facts["replication_lag_seconds"] = round(float(late), 3)
    if forbidden:
        facts["tables_not_readable"] = len(forbidden)
    idle = [] if readers is None else unread(slots, readers)
    facts |= _facts_of_slots(slots, idle)
    wrong = list(_wrong_with_log(connection)) if slot_prefix else []
    lost = [slot.name for slot in slots if slot.lost]
    message = "; ".join(
        [_message(place, facts, forbidden), *wrong, *_words_on_slots(slots), *_words_on_unread(idle)]
    )
    return Health(ok=not lost and not wrong, message=message, facts=facts)


def _wrong_with_log(connection: Connection) -> Iterator[str]:
    with connection.cursor() as cursor:
        cursor.execute(_LOG)
        level, may = cursor.fetchone()
    if level != "logical":
        yield f"its wal_level is {level!r}, and cdc needs 'logical'"
    if not may:
        yield "the user may not read the log: ALTER ROLE … REPLICATION (at Amazon, GRANT rds_replication TO it)"


def _slots(connection: Connection, prefix: str) -> list[Held]:
    server = Server(connection, {})
    return found(server, prefix=f"{prefix}_")


def _facts_of_slots(slots: list[Held], idle: list[Held]) -> dict[str, Any]:
    if not slots:
        return {}
    return {
        "slots": len(slots),
        **({"slots_of_no_load": len(idle)} if idle else {}),
        "slots_lost": sum(slot.lost for slot in slots),
        "slot_bytes_behind": max(slot.behind for slot in slots),
        "slot_bytes_kept": max(slot.kept for slot in slots),
    }


def _words_on_slots(slots: list[Held]) -> Iterator[str]:
    for slot in slots:
        if slot.lost:
            yield f"the server has given up the slot {slot.name}: its LOAD has to be read anew with --full-refresh"
        elif slot.kept > _MUCH_LOG or slot.state == "unreserved":
            yield (
                f"the slot {slot.name} keeps {slot.kept:,} bytes of log: run its LOAD, or where there is none now, "
                f"SELECT pg_drop_replication_slot('{slot.name}')"
            )


def _words_on_unread(idle: list[Held]) -> Iterator[str]:
    for slot in idle[:_MOST_NAMED]:
        yield (
            f"no LOAD of this project reads the slot {slot.name}, which keeps {slot.kept:,} bytes of log, and more "
            "each day: where no other project or environment reads it either (a LOAD or SOURCE that was renamed or "
            f"taken away leaves its own), SELECT pg_drop_replication_slot('{slot.name}'), "
            f"and DROP PUBLICATION IF EXISTS {quote(slot.name)}"
        )
    if len(idle) > _MOST_NAMED:
        yield f"{len(idle) - _MOST_NAMED} more slots are none of this project's"


def _message(place: str, facts: dict[str, Any], forbidden: list[str]) -> str:
    said = [
        f"{place}: Postgres {facts['version']}, {facts['tables']} tables, {facts.get('bytes', 0):,} bytes"
    ]
    if facts.get("replication_lag_seconds", 0) > _LATE_SECONDS:
        said.append(f"replication is {facts['replication_lag_seconds']:,.0f} s behind")
    if forbidden:
        listed = ", ".join(forbidden[:5]) + (" …" if len(forbidden) > 5 else "")
        said.append(f"the user may not read {listed}: GRANT SELECT ON it, and USAGE on its schema")
    if not facts["may_see_all_sessions"]:
        said.append(
            "the user may not see others' sessions, so that late commits cannot be known: GRANT pg_read_all_stats to it"
        )
    return "; ".join(said)
