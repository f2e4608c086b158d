"""Rows of an EXPORT → one table of MySQL's: by LOAD DATA LOCAL where the server takes it, else by INSERT.

LOAD DATA LOCAL makes warnings of what are errors for INSERT: it cuts off, rounds and leaves out. So it stands
only where every row is there and there was no warning at all; else it is undone, and the same rows go as
INSERT, which stores them or says what is wrong with them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlflow_dagster.connectors.base import Rows
from sqlflow_dagster.connectors.mysql_client import Connection, is_refused, rows_of, send_file
from sqlflow_dagster.connectors.mysql_wire import Wire
from sqlflow_dagster.errors import ExportFailed
from sqlflow_dagster.sql import Sql, backquote, join, sql

log = logging.getLogger(__name__)

_STATEMENT_BYTES = 250_000
# Each row is one line of text as it stands: nothing in it is quoted again.
_LINES = Sql(
    r"FORMAT csv, HEADER FALSE, QUOTE '', ESCAPE '', DELIMITER '\x01', NULLSTR ''".replace(r"\x01", "\x01")
)
_LOAD = r"""
LOAD DATA LOCAL INFILE 'rows' INTO TABLE {table} CHARACTER SET utf8mb4
FIELDS TERMINATED BY '\t' ENCLOSED BY '' ESCAPED BY '\\' LINES TERMINATED BY '\n' ({places}) {sets}
"""
# The second makes several transactions of one statement.
_ALLOWED = "SHOW VARIABLES WHERE Variable_name IN ('local_infile', 'wsrep_load_data_splitting')"


@dataclass(frozen=True, slots=True)
class Spooled:
    """Rows in a file: each line is the fields of LOAD DATA where `loads`, else the literals of one row."""

    path: Path
    columns: Sequence[Wire]
    count: int
    loads: bool

    @property
    def longest(self) -> int:
        """The bytes of the longest row."""
        with self.path.open("rb") as file:
            return max(map(len, file), default=0)

    def statements(self) -> Iterator[bytes]:
        """Yield the literals of rows, a few hundred kilobytes at a time, joined by commas."""
        with self.path.open("rb") as file:
            while lines := file.readlines(_STATEMENT_BYTES):
                rows = (line.rstrip(b"\n") for line in lines)
                yield b",".join(map(self._literals, rows) if self.loads else rows)

    def _literals(self, line: bytes) -> bytes:
        """The literals of a row's fields, whose escapes are the same."""
        fields = zip(self.columns, line.split(b"\t"), strict=True)
        return b"(" + b", ".join(wire.literal_of(field) for wire, field in fields) + b")"


def spool(connection: Connection, rows: Rows, columns: Sequence[Wire], path: Path) -> Spooled:
    """Write the rows to a file, in the form that the server takes best."""
    told = {name: value.upper() for name, value in rows_of(connection, _ALLOWED)}
    loads = told.get("local_infile") == "ON" and told.get("wsrep_load_data_splitting", "OFF") == "OFF"
    if loads:
        line = join(", chr(9), ", (wire.field for wire in columns))
        text = sql("concat({line}) AS line", line=line)
    else:
        line = join(", ', ', ", (wire.value for wire in columns))
        text = sql("concat('(', {line}, ')') AS line", line=line)
    return Spooled(path, columns, rows.copy_to(path, _LINES, text), loads)


def fill(connection: Connection, table: Sql, rows: Spooled, label: str, *, undoable: bool) -> None:
    """Store the rows in a table, inside the transaction that is open. Raises what the server raises for INSERT.

    `undoable` says that what is stored can be undone without a trace.
    """
    most = int(rows_of(connection, "SELECT @@max_allowed_packet")[0][0])
    if not (rows.loads and undoable and _loaded(connection, table, rows, most, label)):
        _insert(connection, table, rows, most, label)


def _loaded(connection: Connection, table: Sql, rows: Spooled, most: int, label: str) -> bool:
    """Load the rows; whether each is there as it was sent. If not, none is."""
    if rows.longest >= most:
        # It would be stored, but nobody could read it.
        return False
    statement = sql(
        _LOAD,
        table=table,
        places=join(", ", (wire.place for wire in rows.columns)),
        sets=_sets([wire for wire in rows.columns if wire.assigned]),
    )
    rows_of(connection, "SAVEPOINT sqlflow_load")
    try:
        stored, warnings = send_file(connection, statement, rows.path)
    except connection.Error as error:
        if not is_refused(error):
            raise
        log.info("%s: the server takes no LOAD DATA LOCAL; rows go as INSERT", label)
        return False
    if stored == rows.count and not warnings:
        return True
    log.info("%s: LOAD DATA LOCAL gave %d warnings; rows go as INSERT", label, warnings)
    rows_of(connection, "ROLLBACK TO SAVEPOINT sqlflow_load")
    return False


def _sets(wires: Sequence[Wire]) -> Sql:
    values = [sql("{n} = {v}", n=backquote(wire.there), v=wire.assigned or Sql("DEFAULT")) for wire in wires]
    return sql("SET {values}", values=join(", ", values)) if values else Sql("")


def _insert(connection: Connection, table: Sql, rows: Spooled, most: int, label: str) -> None:
    """Send the rows, many to a statement."""
    names = join(", ", (backquote(wire.there) for wire in rows.columns))
    head = sql("INSERT INTO {table} ({names}) VALUES ", table=table, names=names).encode()
    with connection.cursor() as cursor:
        for values in rows.statements():
            if len(head) + len(values) >= most:
                raise ExportFailed(
                    f"{label}: a row has {len(values):,} bytes, more than the server takes at once "
                    f"({most:,}); SET GLOBAL max_allowed_packet to more; nothing was stored"
                )
            cursor.execute(head + values)
