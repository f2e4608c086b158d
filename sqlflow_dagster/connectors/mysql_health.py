"""A connection → how the server is: version, sizes, replication, and what the user may not do."""

from __future__ import annotations

from typing import Any

from sqlflow_dagster.connectors.base import Health
from sqlflow_dagster.connectors.mysql_catalog import horizon, replication
from sqlflow_dagster.connectors.mysql_client import Connection, rows_of

_SERVER = "SELECT VERSION(), DATABASE(), CURRENT_USER(), @@max_connections, @@read_only"
_STATUS = "SHOW STATUS WHERE Variable_name IN ('Ssl_cipher', 'Threads_connected')"
_TABLES = """
SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE = 'VIEW', COALESCE(DATA_LENGTH + INDEX_LENGTH, 0)
FROM information_schema.TABLES
WHERE TABLE_SCHEMA NOT IN ('mysql', 'information_schema', 'performance_schema', 'sys')
ORDER BY 4 DESC, 1, 2
"""
_LATE_SECONDS = 300
_BEHIND = ("Seconds_Behind_Source", "Seconds_Behind_Master")


def health(connection: Connection, place: str, latency: float) -> Health:
    """Return what the server says of itself; `latency` is the seconds that connecting took."""
    version, database, user, most, read_only = rows_of(connection, _SERVER)[0]
    status = dict(rows_of(connection, _STATUS))
    tables = rows_of(connection, _TABLES)
    replica = replication(connection)
    facts: dict[str, Any] = {
        "latency": round(latency, 6),
        "version": str(version),
        "database": database or "",
        "user": user,
        "tables": sum(1 for row in tables if not row[2]),
        "views": sum(1 for row in tables if row[2]),
        "bytes": int(sum(row[3] for row in tables)),
        "replica": bool(replica),
        "read_only": bool(read_only),
        "tls": bool(status.get("Ssl_cipher")),
        "connections": int(status.get("Threads_connected", 0)),
        "max_connections": int(most),
        "may_see_all_transactions": not horizon(connection).hidden,
    }
    if tables and tables[0][3]:
        facts |= {
            "largest_table": f"{tables[0][0]}.{tables[0][1]}",
            "largest_table_bytes": int(tables[0][3]),
        }
    behind = next((replica[name] for name in _BEHIND if replica.get(name) is not None), None)
    if behind is not None:
        facts["replication_lag_seconds"] = int(behind)
    return Health(ok=True, message=_message(place, facts, replica), facts=facts)


def _message(place: str, facts: dict[str, Any], replica: dict[str, Any]) -> str:
    said = [f"{place}: MySQL {facts['version']}, {facts['tables']} tables, {facts['bytes']:,} bytes"]
    if replica and "replication_lag_seconds" not in facts:
        said.append("replication has stopped: look at SHOW REPLICA STATUS")
    if facts.get("replication_lag_seconds", 0) > _LATE_SECONDS:
        said.append(f"replication is {facts['replication_lag_seconds']:,} s behind")
    if not facts["tables"] and not facts["views"]:
        said.append("the user sees no tables: GRANT SELECT ON them")
    if not facts["may_see_all_transactions"]:
        said.append(
            "the user may not see others' transactions, so that late commits cannot be known: "
            "GRANT PROCESS ON *.* to it"
        )
    return "; ".join(said)
