"""Replication slots: looked at, moved on, dropped.

A slot is what keeps the server's log from being thrown away before it was read. Each LOAD has one of
its own, so that what one has stored never moves the position of another.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlflow_dagster.connectors.postgres_client import Connection, translated
from sqlflow_dagster.errors import NotAllowed, RetryLater, SourceFailed
from sqlflow_dagster.sql import Sql, sql

log = logging.getLogger(__name__)

_LONGEST_NAME = 54  # a copy's name is longer, and 63 is the most
_HEARTBEAT = "sqlflow_heartbeat"

_NOW = Sql("CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END")
_SLOTS = sql(
    "SELECT slot_name, plugin, active_pid, coalesce(confirmed_flush_lsn::text, '0/0'),"
    " coalesce(to_jsonb(s) ->> 'wal_status', ''), coalesce(to_jsonb(s) ->> 'invalidation_reason', ''),"
    " coalesce(pg_wal_lsn_diff({now}, confirmed_flush_lsn), 0)::bigint,"
    " coalesce(pg_wal_lsn_diff({now}, restart_lsn), 0)::bigint"
    " FROM pg_catalog.pg_replication_slots AS s WHERE database = current_database() AND NOT temporary",
    now=_NOW,
)


@dataclass(frozen=True, slots=True)
class Server:
    """A connection that commits each statement by itself; the server's errors become ours."""

    connection: Connection
    told: Mapping[str, str] = field(repr=False)

    def rows(
        self, query: str, values: Sequence[Any] | Mapping[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Return what a statement gives."""
        with translated(self.told), self.connection.cursor() as cursor:
            cursor.execute(query, values)
            return cursor.fetchall() if cursor.description else []

    def run(self, statement: Sql, label: str) -> None:
        """Run a statement that needs rights. Raises NotAllowed that says what its owner is to run."""
        try:
            self.rows(statement)
        except NotAllowed as error:
            said = str(error).partition("; GRANT")[0]
            raise NotAllowed(f"{said}. Have the owner of {label} run: {statement}") from error


@dataclass(frozen=True, slots=True)
class Held:
    """A replication slot; `behind` and `kept` are bytes of log, not confirmed and not thrown away."""

    name: str
    plugin: str
    user: int | None
    confirmed: str
    state: str
    reason: str
    behind: int
    kept: int

    @property
    def lost(self) -> bool:
        """Whether the server has given the slot up."""
        return self.state == "lost" or bool(self.reason)


def slot_name(prefix: str, stream: str, reader: str) -> str:
    """Return the slot of one LOAD: readable, and of no other LOAD's."""
    digest = _digest(reader)
    readable = re.sub(r"[^a-z0-9_]+", "_", f"{prefix}_{stream}".lower())
    return f"{readable[: _LONGEST_NAME - len(digest) - 1]}_{digest}"


def unread(held: Sequence[Held], readers: Collection[str]) -> list[Held]:
    """Return the slots that are none of these LOADs', whatever their prefix was."""
    known = {_digest(reader) for reader in readers}
    return [slot for slot in held if slot.name.rpartition("_")[2] not in known]


def _digest(reader: str) -> str:
    return hashlib.sha256(reader.encode()).hexdigest()[:10]


def number(lsn: str) -> int:
    """Return a position of the log as a number."""
    high, _slash, low = lsn.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def text(lsn: int) -> str:
    """Return a position as Postgres writes it."""
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def slots(server: Server, *, name: str | None = None, prefix: str = "") -> list[Held]:
    """Return the slots of this database, by name: the one called so, or all that begin so."""
    named = Sql("slot_name = %s") if name else Sql("starts_with(slot_name, %s)")
    query = sql("{slots} AND {named} ORDER BY slot_name", slots=_SLOTS, named=named)
    return [Held(*row) for row in server.rows(query, [name or prefix])]


def usable(server: Server, name: str, reached: str, label: str) -> None:
    """Move the slot to what is stored, `reached`, and let nothing be read where the log has a gap before that.

    Raises SourceFailed where the slot is missing, was given up, or is ahead of what is stored.
    """
    anew = "read everything anew with --full-refresh"
    found = slots(server, name=name)
    if not found:
        raise SourceFailed(
            f"{label}: the replication slot {name} is not there any more, and what changed after {reached} may be lost "
            f"with it (dropped by hand, a failover, or a restored server); {anew}"
        )
    slot = found[0]
    if slot.lost:
        raise SourceFailed(
            f"{label}: the server has given up the replication slot {name} ({slot.reason or slot.state}), as more log "
            f"was to be kept than max_slot_wal_keep_size allows; raise that, or run more often, and {anew}"
        )
    if slot.plugin != "pgoutput":
        raise SourceFailed(
            f"{label}: the replication slot {name} is one of {slot.plugin!r}, not of pgoutput; drop it, and {anew}"
        )
    if number(slot.confirmed) > number(reached):
        raise SourceFailed(
            f"{label}: the replication slot {name} stands at {slot.confirmed}, and the table at {reached} (the "
            f"warehouse was restored from a backup, or something else reads from it), so that changes are lost; {anew}"
        )
    if number(slot.confirmed) < number(reached):
        move_on(server, name, reached)


def move_on(server: Server, name: str, reached: str) -> None:
    """Tell the server that the log up to `reached` is not needed any more."""
    server.rows("SELECT pg_replication_slot_advance(%s, %s)", [name, reached])


def drop(server: Server, name: str, label: str) -> None:
    """Drop a slot, where it is there. Raises RetryLater where somebody reads from it."""
    for slot in slots(server, name=name):
        if slot.user is not None:
            raise RetryLater(
                f"{label}: process {slot.user} of the server reads from the replication slot {name}; it is tried again"
            )
        log.warning("%s: the replication slot %s is dropped, and made again with a new snapshot", label, name)
        server.rows("SELECT pg_drop_replication_slot(%s)", [name])


def end_of_log(server: Server, *, heartbeat: bool) -> int:
    """Return a position behind which lies all that is committed now; a heartbeat makes the log reach it."""
    standby = server.rows("SELECT pg_is_in_recovery()")[0][0]
    if standby or not heartbeat:
        return number(server.rows(sql("SELECT ({now})::text", now=_NOW))[0][0])
    found = number(server.rows("SELECT pg_current_wal_insert_lsn()::text")[0][0])
    server.rows("SELECT pg_logical_emit_message(true, %s, '')", [_HEARTBEAT])
    return found
