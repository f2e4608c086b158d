"""A table in Postgres' log → its rows once, in the snapshot of a new slot, and from then on its changes.

A read ends at the end of the log as it was when the read began; what comes later is the next one's.
Each batch holds whole transactions, and of each row its last state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path

from sqlflow_dagster.connectors import postgres_catalog as catalog
from sqlflow_dagster.connectors import postgres_log, postgres_position
from sqlflow_dagster.connectors import postgres_logged as logged
from sqlflow_dagster.connectors import postgres_slot as slots
from sqlflow_dagster.connectors.base import Ask, Attach, Scan, Stream, Unmoved
from sqlflow_dagster.connectors.postgres_batch import CHANGE, Part, dropped
from sqlflow_dagster.connectors.postgres_client import Connection, Explain, connect, where
from sqlflow_dagster.connectors.postgres_logged import Logged
from sqlflow_dagster.connectors.postgres_options import PostgresOptions
from sqlflow_dagster.connectors.postgres_partitions import Partitions, as_before
from sqlflow_dagster.connectors.postgres_position import Reached
from sqlflow_dagster.connectors.postgres_select import Selected, Wanted, local, select
from sqlflow_dagster.connectors.postgres_states import States
from sqlflow_dagster.connectors.postgres_types import Column
from sqlflow_dagster.connectors.tables import Name
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import BadOption, RetryLater, SchemaChanged, SourceFailed
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.rooms import room
from sqlflow_dagster.sql import Sql, fold, literal, quote, sql

log = logging.getLogger(__name__)

DELETED = "_sqlflow_deleted"
_MEMORY = 64 * 2**20
_LONGEST_SILENCE = 600
_LOOKS = 10


@dataclass(frozen=True, slots=True)
class Source:
    """A database, as `read` needs it: how to connect to it, and how DuckDB does.

    The `descriptors` of connections on which nothing may come for long are noted. `stopped` says that
    the run was canceled.
    """

    options: PostgresOptions
    told: Mapping[str, str]
    attach: Attach
    spool: Path
    descriptors: list[int]
    stopped: Callable[[], bool]

    @property
    def silence(self) -> float:
        """The longest wait for the server, in seconds."""
        return self.options.longest_silence(self.options.timeout_seconds)


@dataclass(frozen=True, slots=True)
class _Table:
    """One stream of it: its table, its slot, its publication, the LOAD's key, and the columns that are stored."""

    source: Source
    name: Name
    slot: str
    publication: str
    key: tuple[str, ...]
    stored: frozenset[str]

    @property
    def label(self) -> str:
        return f"{self.name.schema}.{self.name.name}"


def slot_of(options: PostgresOptions, stream: Stream) -> str:
    """Return the name of the slot from which a LOAD reads a stream."""
    return slots.slot_name(options.slot_prefix, stream.name, stream.reader)


def read(source: Source, stream: Stream, table: Name, since: Cursor | None) -> Iterator[Scan | Unmoved]:
    """Yield the table's rows where `since` is None, and its changes since else.

    Raises SourceFailed where the log has a gap, SchemaChanged where it does not tell what became of
    the table, BadOption where the table cannot be read from the log, and NotAllowed.
    """
    slot = slot_of(source.options, stream)
    stored = frozenset(map(fold, stream.stored))
    wanted = _Table(source, table, slot, source.options.publication or slot, stream.primary_key, stored)
    return _snapshot(wanted) if since is None else _changes(wanted, since)


def confirm(told: Mapping[str, str], cursor: Cursor, label: str) -> dict[str, str | int]:
    """Let the server throw away the log up to a cursor that is stored; return how the slot is then."""
    failpoint("before_slot_confirmed")
    reached = postgres_position.read(cursor, label)
    with _server(told) as server:
        held = slots.slots(server, name=reached.slot)
        if held and slots.number(held[0].confirmed) < slots.number(reached.lsn):
            slots.move_on(server, reached.slot, reached.lsn)
            held = slots.slots(server, name=reached.slot)
    if not held:
        return {"slot": reached.slot, "slot_status": "missing"}
    slot = held[0]
    return {
        "slot": slot.name, "slot_status": slot.reason or slot.state or "reserved",
        "slot_bytes_behind": slot.behind, "slot_bytes_kept": slot.kept,
    }  # fmt: skip


@contextmanager
def _server(told: Mapping[str, str], silence: float = _LONGEST_SILENCE) -> Iterator[slots.Server]:
    waits = f"-c lock_timeout={int(silence * 1000)}"
    connection = connect({**told, "options": f"{told.get('options', '')} {waits}".strip()})
    try:
        connection.autocommit = True
        yield slots.Server(connection, told)
    finally:
        connection.close()


@contextmanager
def _log(source: Source) -> Iterator[postgres_log.Log]:
    with postgres_log.opened(source.told, source.silence, source.stopped) as (follow, descriptor):
        source.descriptors.append(descriptor)
        yield follow


def _snapshot(table: _Table) -> Iterator[Scan]:
    source, label = table.source, table.label
    with ExitStack() as held:
        server = held.enter_context(_server(source.told, source.silence))
        source.descriptors.append(server.connection.fileno())
        logged.check_server(server, where(source.told))
        before = logged.look_at(server, table.name, label)
        logged.check_key(before, table.key, label, table.name)
        if catalog.hides_rows(server.connection, table.name):
            raise BadOption(
                f"sync_mode: row-level security leaves out rows of {label} for this user, and the log has all; let "
                "the user see all of them (ALTER ROLE … BYPASSRLS), or read it by a cursor_field",
                option="sync_mode",
            )
        logged.ensure_publication(server, table.publication, table.name, before, label)
        slots.drop(server, table.slot, label)
        follow = held.enter_context(_log(source))
        log.info(
            "%s: making the replication slot %s, when the transactions under way are over", label, table.slot
        )
        # Any later command on that connection ends the slot's snapshot.
        system = follow.system()
        made = follow.make(table.slot)
        finished = False
        try:
            failpoint("after_slot_created")
            # Nobody alters the table while it is read: an older snapshot finds a rewritten one empty.
            server.rows("BEGIN READ ONLY")
            server.rows(sql("LOCK TABLE {table} IN ACCESS SHARE MODE", table=quote(*table.name)))
            now = logged.look_at(server, table.name, label)
            if (now.oid, now.files) != (before.oid, before.files):
                raise RetryLater(
                    f"{label}: the table was rewritten while its slot was made; it is tried again"
                )
            published, _older = logged.published(server, table.publication, now.oid, now.horizon)
            reached = Reached.of(made.begins, table.slot, system, now, published)
            yield from _rows(table, server.connection, made.snapshot, now, reached)
            finished = True
        finally:
            if not finished:
                # The snapshot's read broke: without rows the slot would only hold the log back.
                _give_up(table)


def _give_up(table: _Table) -> None:
    try:
        with _server(table.source.told) as server:
            slots.drop(server, table.slot, table.label)
    except (SourceFailed, RetryLater) as error:
        log.warning(
            "%s: the replication slot %s could not be dropped (%s); the next run drops it",
            table.label,
            table.slot,
            error,
        )


def _rows(
    table: _Table, connection: Connection, snapshot: str, now: Logged, reached: Reached
) -> Iterator[Scan]:
    source = table.source
    selected = _selected(table, connection, now)
    scan = local(selected.columns, source.attach.name)
    if source.options.deletes == "soft":
        scan = sql("SELECT *, FALSE AS {deleted} FROM ({scan})", deleted=quote(DELETED), scan=scan)

    def in_snapshot(ask: Ask) -> Sql:
        statement = sql("SET TRANSACTION SNAPSHOT {snapshot}", snapshot=literal(snapshot))
        ask(
            sql(
                "CALL postgres_execute({name}, {statement})",
                name=literal(source.attach.name),
                statement=literal(statement),
            )
        )
        return scan

    yield Scan(
        in_snapshot,
        extensions=("postgres_scanner",),
        attach=(source.attach,),
        attach_late=True,
        position=reached.cursor,
        left_out=selected.left_out,
        own=_own(source.options),
        serial=True,
        explain=Explain(source.told, table.label),
    )


def _own(options: PostgresOptions) -> tuple[str, ...]:
    return (DELETED,) if options.deletes == "soft" else ()


@dataclass(frozen=True, slots=True)
class _Selection:
    """The columns that are wanted, as they travel, and the names of those that are left out."""

    columns: Selected
    left_out: tuple[str, ...]
    money_digits: int


def _selected(table: _Table, connection: Connection, now: Logged) -> _Selection:
    """What is wanted of a table; the columns that Postgres computes are not in the log."""
    options, label = table.source.options, table.label
    _kind, columns, _keys = catalog.table_columns(connection, table.name, label)
    generated = {column.name for column in now.columns if column.generated}
    asked = [name for name in options.columns if name in generated]
    if asked:
        raise SchemaChanged(
            f"{label}: {', '.join(asked)} is computed by Postgres, and its log does not have it; take it out of "
            "`columns`, and compute it in a CREATE TABLE … AS"
        )
    own = {CHANGE, *_own(options)}
    if taken := [column.name for column in columns if fold(column.name) in own]:
        raise BadOption(
            f"{label}: the column {', '.join(map(repr, taken))} has a name that cdc gives to one of its own; rename it "
            "at the source",
            option="table",
        )
    kept = [column for column in columns if column.name not in generated]
    money_digits = _money_digits(connection, kept)
    selected = select(
        quote(*table.name),
        kept,
        Wanted(
            columns=options.columns,
            needed=(*table.key, *options.mask),
            excluded=options.exclude_columns,
            types=options.types,
            numeric_type=options.numeric_type,
            money_digits=money_digits,
        ),
        label,
    )
    return _Selection(selected, (*selected.left_out, *sorted(generated)), money_digits)


def _money_digits(connection: Connection, columns: Sequence[Column]) -> int:
    money = any("money" in (c.type.name, c.type.element and c.type.element.name) for c in columns)
    return catalog.money_digits(connection) if money else 2


def _changes(table: _Table, since: Cursor) -> Iterator[Scan | Unmoved]:
    source, label = table.source, table.label
    reached = postgres_position.read(since, label)
    with ExitStack() as held:
        server = held.enter_context(_server(source.told, source.silence))
        source.descriptors.append(server.connection.fileno())
        logged.check_server(server, where(source.told))
        if reached.slot != table.slot:
            log.warning("%s: it was read from the slot %s, and is read from there on", label, reached.slot)
        slots.usable(server, reached.slot, reached.lsn, label)
        end = _end(table, server)
        now, selected = end.table, end.selected
        postgres_position.altered(reached, now, label)
        partitions = Partitions(server, label, keep=source.options.dropped_partitions == "keep")
        partitions.check(reached, now)
        suspect = partitions.emptied(reached, now)
        _check_stored(table, selected, reached)
        key = logged.check_key(now, table.key, label, table.name)
        publication = source.options.publication or reached.slot
        logged.check_publication(server, publication, table.name, now, label)
        published = _published(server, publication, reached, label)
        follow = held.enter_context(_log(source))
        _check_system(source, follow.system(), reached, label)
        follow.begin(reached.slot, reached.lsn, publication)
        spool = held.enter_context(room(source.spool, "log"))
        # A batch that ends before the log has the columns of its end could not be read on from.
        most = inf if postgres_position.other_columns(reached, now) else source.options.transaction_bytes
        ended = False
        while not ended:
            states = States(spool / "states.sqlite", key, _MEMORY)
            try:
                lsn, ended = follow.collect(states, reached.table, end.position, most)
                partitions.refuse_gone(follow.partitions, now)
                follow.partitions.clear()
                if states.emptied:
                    suspect = partitions.emptied_beside(follow.emptied_by, now, suspect)
                if ended and not (states.emptied and states.empty):
                    partitions.refuse_emptied(suspect)
                if not states and not (ended and postgres_position.other_columns(reached, now)):
                    continue
                _check_known(table, server, reached, now, states)
                before, reached = reached, Reached.of(lsn, reached.slot, reached.system, now, published)
                if not ended:
                    # A TRUNCATE of the whole table, which the log tells, may be yet to come.
                    reached = as_before(reached, before, suspect)
                yield from _batch(table, selected, before, reached, now, states)
            finally:
                states.close()
        if reached.lsn != lsn:
            yield Unmoved(replace(reached, lsn=lsn).cursor)


def _published(server: slots.Server, publication: str, reached: Reached, label: str) -> str:
    """Return by what the publication has the table. Raises SourceFailed where that is not what it was."""
    found, older = logged.published(server, publication, reached.table, reached.horizon)
    if found != reached.publication and not older:
        raise SourceFailed(
            f"{label}: the publication {publication} was altered or made anew since the last read, and what it left "
            "out meanwhile is not in the log; read everything anew with --full-refresh"
        )
    return found


@dataclass(frozen=True, slots=True)
class _End:
    """Where a read ends, and the table as it is there: the catalogue has what the log has up to it, and no more."""

    position: int
    table: Logged
    selected: _Selection


def _end(table: _Table, server: slots.Server) -> _End:
    """Return the end of the log. Raises RetryLater where the table does not stay as it is meanwhile."""
    for _ in range(_LOOKS):
        before = logged.look_at(server, table.name, table.label)
        position = slots.end_of_log(server, heartbeat=table.source.options.heartbeat)
        selected = _selected(table, server.connection, before)
        after = logged.look_at(server, table.name, table.label)
        if before == replace(after, horizon=before.horizon):
            return _End(position, before, selected)
    raise RetryLater(f"{table.label}: the table is being altered; it is tried again")


def _check_known(table: _Table, server: slots.Server, reached: Reached, now: Logged, states: States) -> None:
    """Raise RetryLater where the log has a column that the catalogue shows only now."""
    names = {name for layout in states.layouts for name in layout}
    unknown = names - {column.name for column in now.columns} - {*reached.columns}
    if unknown and logged.look_at(server, table.name, table.label).columns != now.columns:
        raise RetryLater(f"{table.label}: the table was altered while its log was read; it is tried again")


def _check_stored(table: _Table, selected: _Selection, reached: Reached) -> None:
    """Raise SchemaChanged for a column that was there and is not stored: the log tells it of changed rows alone."""
    names = [travel.column.name for travel in selected.columns.travels if not dropped(travel)]
    missing = [name for name in names if name in reached.columns and fold(name) not in table.stored]
    if table.stored and missing:
        raise SchemaChanged(
            f"{table.label}: {', '.join(missing)} was left out before, so that rows which do not change lack it here; "
            "read everything anew with --full-refresh, or leave it out by `exclude_columns`"
        )


def _check_system(source: Source, system: str, reached: Reached, label: str) -> None:
    if system != reached.system:
        raise SourceFailed(
            f"{label}: {where(source.told)} is another cluster than the one that was read before, whose log has other "
            "positions; read everything anew with --full-refresh"
        )


def _batch(
    table: _Table, selected: _Selection, before: Reached, after: Reached, now: Logged, states: States
) -> Iterator[Scan]:
    source = table.source
    part = Part(
        before=before,
        now=now,
        states=states,
        file=states.path.with_suffix(".json"),
        travels=selected.columns.travels,
        types=source.options.types,
        money_digits=selected.money_digits,
        deleted=DELETED if source.options.deletes == "soft" else None,
        label=table.label,
    )
    try:
        query, changes = part.spooled()
        yield Scan(
            query,
            position=after.cursor,
            left_out=selected.left_out,
            own=(*_own(source.options), CHANGE),
            changes=changes,
            explain=Explain(source.told, table.label),
        )
    finally:
        part.file.unlink(missing_ok=True)
