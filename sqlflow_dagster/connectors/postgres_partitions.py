"""A partitioned table's partitions that came with rows, went, or were emptied by themselves.

The log has the rows of partitions under their table's name, and tells nothing of ATTACH, DETACH and DROP,
and of TRUNCATE of one partition. The catalogue and the rows that are there tell what it leaves out.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

from sqlflow_dagster.connectors.postgres_logged import File, Logged
from sqlflow_dagster.connectors.postgres_position import Reached
from sqlflow_dagster.connectors.postgres_slot import Server
from sqlflow_dagster.errors import SchemaChanged
from sqlflow_dagster.sql import Sql, literal, sql

log = logging.getLogger(__name__)

_NAME = "SELECT %s::oid::regclass::text, has_table_privilege(%s::oid, 'SELECT')"
# Ages are told apart over half of all numbers, then they go round.
_WRITTEN_BEFORE = (
    "SELECT 1 FROM {name} WHERE age(xmin) > age({horizon}::xid)"
    " AND txid_snapshot_xmax(txid_current_snapshot()) - {whole} < 2147483648 LIMIT 1"
)
_OLDER_THAN_ATTACHED = (
    "SELECT 1 FROM {name} WHERE age(xmin) > age({transaction}::xid)"
    " OR (xmin::text = {transaction} AND cmin::text::bigint < {command}) LIMIT 1"
)


@dataclass(frozen=True, slots=True)
class Partitions:
    """The partitions of the table `label`; `keep` says that rows stay of those that went or were emptied."""

    server: Server
    label: str
    keep: bool

    def check(self, before: Reached, now: Logged) -> None:
        """Look for partitions that came with rows, or went.

        Raises SchemaChanged for them: the log had their rows under another name, or does not tell that they went.
        """
        for file in now.files:
            known = before.files.get(str(file.table))
            if known and known[1] != file.attached:
                raise SchemaChanged(
                    f"{self.label}: a partition was detached and attached again, and the log does not tell what "
                    "changed in between; read it anew with --full-refresh"
                )
            if file.leaf and file.own and not known and self._older_than_attached(file):
                raise SchemaChanged(
                    f"{self.label}: a table that had rows was attached as a partition, and the log does not tell them; "
                    "read it anew with --full-refresh"
                )
        self.refuse_gone(map(int, before.files), now)

    def refuse_gone(self, written: Iterable[int], now: Logged) -> None:
        """Raise SchemaChanged where partitions that had rows, or of which changes came, are no longer there."""
        if gone := {*written} - {file.table for file in now.files}:
            self._refuse(f"{len(gone)} of its partitions went (DROP, DETACH)")

    def emptied(self, before: Reached, now: Logged) -> frozenset[int]:
        """Return the partitions that may have been emptied by themselves."""
        if not now.partitioned:
            return frozenset()
        return frozenset(file.table for file in now.files if file.leaf and self._may_be_emptied(file, before))

    def emptied_beside(self, transaction: int, now: Logged, suspect: Collection[int]) -> frozenset[int]:
        """Return those of the partitions `suspect` whose last TRUNCATE may be another than the whole table's."""
        return frozenset(
            file.table for file in now.files if file.table in suspect and transaction not in file.written
        )

    def refuse_emptied(self, emptied: Collection[int]) -> None:
        """Raise SchemaChanged where there are such partitions."""
        if emptied:
            self._refuse(
                f"{len(emptied)} of its partitions may have been emptied by a TRUNCATE of its own (or was written "
                "anew, as by VACUUM FULL, and none of its older rows is left)"
            )

    def _refuse(self, what: str) -> None:
        told = f"{self.label}: {what}, of which the log tells nothing"
        if not self.keep:
            raise SchemaChanged(
                f"{told}: the copy may have rows that the table has not; read it anew with --full-refresh, or let such "
                'rows stay by "dropped_partitions": "keep"'
            )
        log.warning("%s: their rows stay until a --full-refresh", told)

    def _older_than_attached(self, file: File) -> bool:
        """Whether a partition has, or may have, rows that it had before it was attached."""
        transaction, _slash, command = str(file.attached).partition("/")
        return self._has(
            file, _OLDER_THAN_ATTACHED, transaction=literal(transaction), command=literal(int(command))
        )

    def _may_be_emptied(self, file: File, before: Reached) -> bool:
        known = before.files.get(str(file.table))
        if known is None:
            # A file has its table's number until it is written anew.
            return not file.own and file.number != file.table
        if known[0] == file.number:
            return False
        horizon = literal(str(before.horizon % 2**32))
        return not self._has(
            file, _WRITTEN_BEFORE, otherwise=False, horizon=horizon, whole=literal(before.horizon)
        )

    def _has(self, file: File, query: str, *, otherwise: bool = True, **parts: Sql) -> bool:
        """Whether a query over a partition finds a row; `otherwise` where this user may not look."""
        ((name, may_look),) = self.server.rows(_NAME, [file.table, file.table])
        return bool(self.server.rows(sql(query, name=Sql(name), **parts))) if may_look else otherwise


def as_before(after: Reached, before: Reached, tables: Collection[int]) -> Reached:
    """Return a position at which nothing is known yet of what became of these partitions."""
    if not tables:
        return after
    files = {name: file for name, file in after.files.items() if int(name) not in tables}
    known = {name: file for name, file in before.files.items() if int(name) in tables}
    return replace(after, files={**files, **known}, horizon=before.horizon)
