"""A walk along Postgres' log: a slot made with its snapshot, or a copy of a slot read to a position.

The slot of a LOAD is never read from: a temporary copy of it is, which ends with its connection. So
nothing that a reader says on the wire, and no crash, moves the slot itself; that is done by a
statement of its own, after the warehouse has committed.
"""

from __future__ import annotations

import select
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlflow_dagster.connectors.pgoutput import (
    Begin,
    Commit,
    Delete,
    Insert,
    Relation,
    Truncate,
    Update,
    decode,
)
from sqlflow_dagster.connectors.postgres_client import Connection, translated, where
from sqlflow_dagster.connectors.postgres_slot import text
from sqlflow_dagster.connectors.postgres_states import States
from sqlflow_dagster.errors import Canceled, NotAllowed, RetryLater, SourceFailed
from sqlflow_dagster.sql import Sql, literal, quote, sql

_MESSAGES_SINCE = 140_000
# The server waits for us while rows are stored; money is written as C does, which is read back exactly.
_SETTINGS = "-c wal_sender_timeout=0 -c lc_monetary=C"
_SECONDS_BETWEEN_QUESTIONS = 1.0
_MESSAGES_BETWEEN_LOOKS = 256


@dataclass(frozen=True, slots=True)
class Made:
    """A new slot: where it begins, and the snapshot of that moment, which ends with the connection."""

    begins: str
    snapshot: str


class Log:
    """A connection for replication, to one database."""

    def __init__(
        self, connection: Connection, told: Mapping[str, str], silence: float, stopped: Callable[[], bool]
    ) -> None:
        """Keep the connection; `silence` is the longest wait for the server, in seconds.

        Reading ends where `stopped` says that the run was canceled.
        """
        self._connection, self._told, self._silence, self._stopped = connection, told, silence, stopped
        self._cursor = connection.cursor()
        self._inside = False
        # The server says what a table looks like once, and again when that changes.
        self._relation: Relation | None = None
        self._described: list[int] = []
        self._transaction = 0
        # The transaction that last emptied the table, as the log tells.
        self.emptied_by = 0
        # Those of the table of which changes came.
        self.partitions: set[int] = set()

    def system(self) -> str:
        """Return what tells this cluster from all others."""
        return str(self._rows(Sql("IDENTIFY_SYSTEM"))[0][0])

    def make(self, slot: str) -> Made:
        """Make a slot; it waits for the transactions that are under way.

        Raises NotAllowed where this user may not, and SourceFailed where there are as many as the
        server takes, or where a transaction does not end.
        """
        statement = sql("CREATE_REPLICATION_SLOT {slot} LOGICAL pgoutput EXPORT_SNAPSHOT", slot=quote(slot))
        try:
            _name, begins, snapshot, _plugin = self._granted(statement)[0]
        except SourceFailed as error:
            if "already exists" not in str(error):
                raise
            raise SourceFailed(
                f"{error}: another database of this server has it, which a project of these names reads; give this "
                "SOURCE a `slot_prefix` of its own"
            ) from error
        except RetryLater as error:
            if "lock timeout" not in str(error):
                raise
            raise SourceFailed(
                f"{where(self._told)}: a slot is made when the transactions under way are over, and one of them "
                f"was not after {self._silence:.0f} s; end it (pg_stat_activity has it), or raise `silence_seconds`"
            ) from error
        return Made(begins, snapshot)

    def begin(self, slot: str, since: str, publication: str) -> None:
        """Begin to read what a slot has from `since` on."""
        copy = f"{slot}_{uuid.uuid4().hex[:8]}"
        copied = "SELECT pg_copy_logical_replication_slot({slot}, {copy}, true)"
        self._granted(sql(copied, slot=literal(slot), copy=literal(copy)))
        options = [
            Sql("proto_version '1'"),
            sql("publication_names {names}", names=literal(quote(publication))),
            *([Sql("messages 'true'")] if self._connection.server_version >= _MESSAGES_SINCE else []),
        ]
        start = sql(
            "START_REPLICATION SLOT {copy} LOGICAL {since} ({options})",
            copy=quote(copy),
            since=Sql(since),
            options=Sql(", ".join(options)),
        )
        with translated(self._told):
            self._cursor.start_replication_expert(start, decode=False)

    def collect(self, states: States, table: int, until: int, most: float) -> tuple[str, bool]:
        """Read whole transactions into `states`; return the position reached, and whether that is the end.

        It ends at `until`, or behind the transaction with which more than `most` bytes came.

        Raises RetryLater where the server breaks off, or says nothing for too long, and Canceled.
        """
        if self._relation:
            states.begin(self._relation)
        with translated(self._told):
            return self._collect(states, table, until, most)

    def _collect(self, states: States, table: int, until: int, most: float) -> tuple[str, bool]:
        silent = 0.0
        number = 0
        while True:
            if number % _MESSAGES_BETWEEN_LOOKS == 0 and self._stopped():
                raise Canceled("the run was canceled; what was committed stays")
            number += 1
            message = self._cursor.read_message()
            if message is None:
                # All before this position has come, where no transaction is under way.
                if not self._inside and self._cursor.wal_end >= until:
                    return text(self._cursor.wal_end), True
                silent = 0.0 if self._came() else silent + _SECONDS_BETWEEN_QUESTIONS
                self._ask(silent)
                continue
            silent = 0.0
            end = self._take(message.payload, states, table)
            if end is not None and (end >= until or states.size > most):
                return text(end), end >= until

    def _take(self, payload: bytes, states: States, table: int) -> int | None:
        """Take one message; where it ends a transaction, return the position behind that."""
        found = decode(payload)
        match found:
            case Insert() | Update() | Delete():
                if found.relation == table:
                    states.apply(found, len(payload))
                if self._described:
                    self._note_partition(found.relation, table)
            case Begin():
                self._inside = True
                self._transaction = found.transaction
            case Commit():
                self._inside = False
                return found.end
            case Relation():
                self._described.append(found.id)
                if found.id == table:
                    self._relation = found
                    states.begin(found)
            case Truncate():
                self._described.clear()
                if table in found.relations:
                    self.emptied_by = self._transaction
                    states.apply(found, len(payload))
        return None

    def _note_partition(self, changed: int, table: int) -> None:
        """Before the first change of a partition comes what its table looks like, and then what itself does."""
        if changed == table and table in self._described:
            self.partitions.update(self._described[self._described.index(table) + 1 :])
        self._described.clear()

    def _came(self) -> bool:
        """Wait for bytes from the server; False where none came."""
        ready, _, _ = select.select([self._connection], [], [], _SECONDS_BETWEEN_QUESTIONS)
        return bool(ready)

    def _ask(self, silent: float) -> None:
        """Ask a silent server how far it is."""
        if not silent:
            return
        if silent > self._silence:
            raise RetryLater(f"{where(self._told)}: the replication log says nothing for {silent:.0f} s")
        self._cursor.send_feedback(reply=True)

    def _granted(self, statement: Sql) -> list[tuple[Any, ...]]:
        try:
            return self._rows(statement)
        except NotAllowed as error:
            user = self._told.get("user", "the user")
            said = str(error).partition("; GRANT")[0]
            raise NotAllowed(
                f'{said}. Run: ALTER ROLE "{user}" REPLICATION (or GRANT rds_replication TO it)'
            ) from error
        except RetryLater as error:
            if "slots are in use" not in str(error):
                raise
            raise SourceFailed(
                f"{str(error).partition('; it is tried')[0]}; raise max_replication_slots (a slot for each LOAD, and "
                "one more for each that is read at the same time), or drop slots that nobody reads"
            ) from error

    def _rows(self, statement: Sql) -> list[tuple[Any, ...]]:
        with translated(self._told):
            self._cursor.execute(statement)
            found: list[tuple[Any, ...]] = self._cursor.fetchall()
            return found


@contextmanager
def opened(told: Mapping[str, str], silence: float, stopped: Callable[[], bool]) -> Iterator[tuple[Log, int]]:
    """Open a connection for replication, and close it at the end; its descriptor comes with it."""
    import psycopg2.extras  # noqa: PLC0415 - a driver is imported where it connects

    options = f"{told.get('options', '')} {_SETTINGS} -c lock_timeout={int(silence * 1000)}".strip()
    with translated(told):
        connection = psycopg2.connect(
            **{**told, "options": options}, connection_factory=psycopg2.extras.LogicalReplicationConnection
        )
    try:
        yield Log(connection, told, silence, stopped), connection.fileno()
    finally:
        connection.close()
