"""Rows of an EXPORT → a MySQL table, by the mode: visible all at once, or not at all.

A statement that makes or renames a table commits what was before it, so what is not to be seen half
is done in a table of its own beside the target, which takes its place in one RENAME.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlflow_dagster.connectors.mysql_catalog import is_mariadb
from sqlflow_dagster.connectors.mysql_client import Connection, rows_of
from sqlflow_dagster.connectors.mysql_fill import Spooled, fill
from sqlflow_dagster.connectors.mysql_options import MySQLSinkOptions
from sqlflow_dagster.connectors.mysql_wire import Target, Wire
from sqlflow_dagster.connectors.tables import Name
from sqlflow_dagster.errors import ExportFailed, RetryLater
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.sql import Sql, backquote, join, sql

log = logging.getLogger(__name__)

_KEY_LETTERS = 255
_STAGE = "_sqlflow_rows"
# The table beside the target in which appends are noted.
NOTES = "_sqlflow_exports"
_TABLE = (
    "SELECT TABLE_TYPE, ENGINE FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s"
)
_COLUMNS = """
SELECT COLUMN_NAME, COLUMN_TYPE, EXTRA LIKE '%% GENERATED%%' OR EXTRA LIKE '%%PERSISTENT%%' OR EXTRA LIKE '%%VIRTUAL%%',
  DATA_TYPE = 'timestamp' AND IS_NULLABLE = 'NO', EXTRA LIKE '%%auto_increment%%'
FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s ORDER BY ORDINAL_POSITION
"""
_MADE_EXPORTS = """
CREATE TABLE IF NOT EXISTS {t}
  (id char(64) CHARACTER SET ascii PRIMARY KEY, once longtext, exported_at datetime NOT NULL)
ENGINE = InnoDB CHARACTER SET utf8mb4
"""
_INSERT_NEW = """
INSERT INTO {t} ({names}) SELECT {names} FROM {s} AS s WHERE NOT EXISTS (SELECT 1 FROM {t} AS t WHERE {same})
"""
_TRANSACTIONAL = "SELECT TRANSACTIONS FROM information_schema.ENGINES WHERE ENGINE = %s"
# What would not follow a table that takes the place of another.
_NEEDED_BY = """
SELECT 'a trigger' FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = %s AND EVENT_OBJECT_TABLE = %s
UNION ALL SELECT 'a foreign key' FROM information_schema.KEY_COLUMN_USAGE
  WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND REFERENCED_TABLE_NAME IS NOT NULL
UNION ALL SELECT 'a foreign key' FROM information_schema.KEY_COLUMN_USAGE
  WHERE REFERENCED_TABLE_SCHEMA = %s AND REFERENCED_TABLE_NAME = %s
UNION ALL SELECT 'its history' FROM information_schema.TABLES
  WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND TABLE_TYPE = 'SYSTEM VERSIONED'
"""
_CHANGERS = """
SELECT CONCAT('the trigger ', TRIGGER_NAME) FROM information_schema.TRIGGERS
WHERE EVENT_OBJECT_SCHEMA = %s AND EVENT_OBJECT_TABLE = %s AND ACTION_TIMING = 'BEFORE'
  AND (EVENT_MANIPULATION = 'INSERT' OR (EVENT_MANIPULATION = 'UPDATE' AND %s)) ORDER BY 1
"""
_UNIQUE = """
SELECT INDEX_NAME, GROUP_CONCAT(COLUMN_NAME ORDER BY SEQ_IN_INDEX SEPARATOR '\n'), MAX(SUB_PART IS NOT NULL)
FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s AND NON_UNIQUE = 0
GROUP BY INDEX_NAME
"""


@dataclass
class Writer:
    """One export into one table."""

    connection: Connection
    name: Name
    columns: list[Wire]
    options: MySQLSinkOptions
    once: str | None = None
    there: bool = False
    # Whether the columns have the types of the table that is there.
    alike: bool = False
    rows: Spooled = field(init=False)

    def prepare(self) -> None:
        """Look the table up, and how the columns are to go into it; no other export of ours may come between."""
        lock = hashlib.sha256(f"{self._label}".encode()).hexdigest()[:40]
        wait = int(self.options.lock_timeout_seconds)
        if rows_of(self.connection, "SELECT GET_LOCK(%s, %s)", [f"sqlflow {lock}", wait]) != [(1,)]:
            raise RetryLater(f"{self._label}: another export into it is under way; it is tried again")
        found = rows_of(self.connection, _TABLE, [*self.name])
        if found and found[0][0] not in ("BASE TABLE", "SYSTEM VERSIONED"):
            raise ExportFailed(f"{self._label}: it is no table; drop it, or write another table")
        if not found and not self.options.create:
            raise ExportFailed(f"{self._label}: there is no such table, and `create` is false")
        self.there = bool(found)
        if found:
            self._as_the_table_has_them()
            self._warn_of_changers()
            if self.options.mode != "replace" or self._needed_by:
                self._check_engine(str(found[0][1]))
        if self.options.mode == "upsert":
            self._check_keys_given()

    def write(self, rows: Spooled) -> None:
        """Bring the rows into the table by the mode."""
        self.rows = rows
        if not self.there:
            self._run(
                "CREATE DATABASE IF NOT EXISTS {d} CHARACTER SET utf8mb4", d=backquote(self.name.schema)
            )
        if self.options.mode == "replace" and not self._needed_by:
            self._swap()
            return
        if self.options.mode == "append" and self.once is not None:
            self._run(_MADE_EXPORTS, t=self._beside(NOTES))
        if self.options.mode == "upsert":
            self._upsert()
        else:
            self._in_place()

    @property
    def _label(self) -> str:
        return f"{self.name.schema}.{self.name.name}"

    def _run(self, template: str, /, **parts: Sql) -> int:
        """Run a statement that gives no rows; return how many it changed."""
        with self.connection.cursor() as cursor:
            return int(cursor.execute(sql(template, **parts)))

    def _beside(self, name: str) -> Sql:
        return backquote(self.name.schema, name)

    def _as_the_table_has_them(self) -> None:
        """Give the columns the names and types of the table that is there; refuse those it lacks."""
        there = {
            name: (Target(str(kind), bool(now), bool(counted)), bool(made))
            for name, kind, made, now, counted in rows_of(self.connection, _COLUMNS, [*self.name])
        }
        folded = {name.casefold(): name for name in there}
        lacking = [wire.name for wire in self.columns if wire.name.casefold() not in folded]
        if lacking and self.options.mode == "replace" and not self._needed_by:
            # A table with other columns takes its place.
            return
        if lacking:
            raise ExportFailed(
                f"{self._label}: the table has no column {', '.join(lacking)}; add it there, or leave it out of "
                "the query"
            )
        known = [(wire, folded[wire.name.casefold()]) for wire in self.columns]
        if made := [name for _, name in known if there[name][1]]:
            raise ExportFailed(
                f"{self._label}: MySQL makes the column {', '.join(made)} itself; leave it out"
            )
        given = [name for name, (_, made) in there.items() if not made]
        if self.options.mode == "replace" and len(known) != len(given) and not self._needed_by:
            return
        self.columns = [Wire(wire.name, wire.kind, there[name][0], name) for wire, name in known]
        self.alike = True

    @property
    def _needed_by(self) -> list[str]:
        return needed_by(self.connection, self.name) if self.there else []

    def _check_engine(self, engine: str) -> None:
        if not is_transactional(self.connection, engine):
            raise ExportFailed(
                f"{self._label}: its engine {engine} has no transactions, so that a failure would leave half of the "
                "rows; give it the engine InnoDB, or use mode `replace`"
            )

    @property
    def _keys(self) -> list[str]:
        """The keys as the table spells them."""
        folded = {wire.name.casefold(): wire.there for wire in self.columns}
        return [folded[key.casefold()] for key in self.options.keys]

    def _check_keys_given(self) -> None:
        given = {wire.name.casefold() for wire in self.columns}
        missing = [key for key in self.options.keys if key.casefold() not in given]
        if missing:
            raise ExportFailed(
                f"{self._label}: the query gives no column {', '.join(missing)}, which is in `keys`"
            )

    def _create(self, table: Sql, kind: str = "TABLE", *, keyed: bool = False) -> None:
        """Make a table with the columns as they are at the end."""
        keys = self._keys if keyed else []
        parts = [
            sql("{n} {kind}", n=backquote(w.there), kind=self._key_type(w) if w.there in keys else w.declared)
            for w in self.columns
        ]
        if keys:
            parts.append(sql("PRIMARY KEY ({keys})", keys=join(", ", map(backquote, keys))))
        made = "CREATE {kind} {table} ({parts}) CHARACTER SET utf8mb4"
        self._run(made, kind=Sql(kind), table=table, parts=join(", ", parts))

    def _key_type(self, wire: Wire) -> Sql:
        """A text of a key has a length, and is what it is by its bytes, blanks at its end among them."""
        declared = wire.target.declared
        if declared == "longblob":
            return Sql(f"varbinary({_KEY_LETTERS})")
        if declared not in ("longtext", "char(36)"):
            return Sql(declared.removesuffix(" null"))
        collation = "utf8mb4_nopad_bin" if is_mariadb(self.connection) else "utf8mb4_0900_bin"
        kind = f"varchar({_KEY_LETTERS})" if declared == "longtext" else declared
        return Sql(f"{kind} CHARACTER SET utf8mb4 COLLATE {collation}")

    def _fill(self, table: Sql, name: Name | None = None) -> None:
        """Store the rows in a table; without a `name` it is one of our session alone."""
        undoable = name is None or not self._needed_by
        if name is not None and undoable:
            undoable = is_transactional(self.connection, str(rows_of(self.connection, _TABLE, [*name])[0][1]))
        fill(self.connection, table, self.rows, self._label, undoable=undoable)

    def _swap(self) -> None:
        """Fill a table beside the target, and put it in its place in one step."""
        mark = hashlib.sha256(self.name.name.encode()).hexdigest()[:16]
        made = Name(self.name.schema, f"_sqlflow_new_{mark}")
        new, old = backquote(*made), self._beside(f"_sqlflow_old_{mark}")
        # Left behind by an export that was killed; ours is the only one now.
        self._run("DROP TABLE IF EXISTS {new}, {old}", new=new, old=old)
        target = backquote(*self.name)
        with self._cleared(new):
            if self.there and self.alike:
                self._run("CREATE TABLE {new} LIKE {target}", new=new, target=target)
            else:
                self._create(new)
                self._warn_of_indexes()
            self._run("START TRANSACTION")
            self._fill(new, made)
            self._run("COMMIT")
            failpoint("before_export_commit")
            if self.there:
                self._run("RENAME TABLE {t} TO {old}, {new} TO {t}", t=target, old=old, new=new)
            else:
                self._run("RENAME TABLE {new} TO {t}", t=target, new=new)
            failpoint("after_export_commit")
        self._run("DROP TABLE IF EXISTS {old}", old=old)

    @contextmanager
    def _cleared(self, made: Sql | None) -> Iterator[None]:
        """Drop the table `made` for the block where that fails; where the connection is gone, the next export does."""
        try:
            yield
        # Whatever ends the block, a canceled run too, leaves no table without its rows; it is raised again.
        except BaseException:
            if made is not None and self.connection.open:
                self.connection.rollback()
                self._run("DROP TABLE IF EXISTS {table}", table=made)
            raise

    def _warn_of_changers(self) -> None:
        """Tell of what may store something else than the rows: whether it does, only its author knows."""
        upsert = self.options.mode == "upsert"
        if found := [str(row[0]) for row in rows_of(self.connection, _CHANGERS, [*self.name, upsert])]:
            log.warning("%s: %s may change what is stored", self._label, ", ".join(found))

    def _warn_of_indexes(self) -> None:
        found = rows_of(self.connection, _UNIQUE, [*self.name]) if self.there else []
        if found:
            names = ", ".join(str(row[0]) for row in found)
            log.warning("%s: its columns changed, and its indexes went with them: %s", self._label, names)

    def _in_place(self) -> None:
        """Add the rows, or for `replace` take the place of those that are there, in one transaction."""
        target = backquote(*self.name)
        made = None if self.there else target
        if made:
            self._create(made)
        with self._cleared(made):
            self._run("START TRANSACTION")
            if self.options.mode == "replace":
                self._run("DELETE FROM {t}", t=target)
            if self.options.mode == "append" and self._done_before():
                self._run("ROLLBACK")
                return
            self._fill(target, self.name)
            failpoint("before_export_commit")
            self._run("COMMIT")
            failpoint("after_export_commit")

    def _done_before(self) -> bool:
        """Whether an earlier try of the same run added these rows; noted in their transaction if not."""
        if self.once is None:
            return False
        mark = hashlib.sha256(self.once.encode()).hexdigest()
        # Another try of this run under way holds the key until it is over.
        note = sql("INSERT IGNORE INTO {t} VALUES (%s, %s, UTC_TIMESTAMP())", t=self._beside(NOTES))
        with self.connection.cursor() as cursor:
            return int(cursor.execute(note, [mark, self.once])) == 0

    def _upsert(self) -> None:
        target, stage = backquote(*self.name), self._beside(_STAGE)
        made = None if self.there else target
        if made:
            self._create(made, keyed=True)
        with self._cleared(made):
            names = join(", ", (backquote(wire.there) for wire in self.columns))
            # Types and collations of the table, so that keys are one here where they are one there.
            self._run(
                "CREATE TEMPORARY TABLE {stage} ENGINE = InnoDB AS SELECT {names} FROM {t} LIMIT 0",
                stage=stage, names=names, t=target,
            )  # fmt: skip
            self._run("START TRANSACTION")
            self._fill(stage)
            self._check_twice(stage)
            self._merge(target, stage, names)
            failpoint("before_export_commit")
            self._run("COMMIT")
            failpoint("after_export_commit")

    def _check_twice(self, stage: Sql) -> None:
        """Refuse two rows of one key: which of them is to stay cannot be known."""
        listed = join(", ", map(backquote, self._keys))
        query = "SELECT {listed} FROM {stage} GROUP BY {listed} HAVING COUNT(*) > 1 LIMIT 1"
        if twice := rows_of(self.connection, sql(query, listed=listed, stage=stage)):
            raise ExportFailed(
                f"{self._label}: the query gives the key {', '.join(map(str, twice[0]))} more than once; keep one row "
                "by QUALIFY row_number() OVER (PARTITION BY …) = 1"
            )

    def _merge(self, target: Sql, stage: Sql, names: Sql) -> None:
        """Update the rows whose key is there, and add the others; rows without a key match each other."""
        keys = self._keys
        others = [wire.there for wire in self.columns if wire.there not in keys]
        unique = [
            set(str(row[1]).split("\n")) if not row[2] else set()
            for row in rows_of(self.connection, _UNIQUE, [*self.name])
        ]
        null = join(" OR ", (sql("{k} IS NULL", k=backquote(key)) for key in keys))
        empty = rows_of(self.connection, sql("SELECT 1 FROM {s} WHERE {null} LIMIT 1", s=stage, null=null))
        parts = {"t": target, "s": stage, "names": names}
        if unique == [set(keys)] and not empty:
            sets = join(", ", (sql("{n} = VALUES({n})", n=backquote(name)) for name in others or keys))
            insert = "INSERT INTO {t} ({names}) SELECT {names} FROM {s} ON DUPLICATE KEY UPDATE {sets}"
            self._run(insert, sets=sets, **parts)
            return
        same = join(" AND ", (sql("t.{k} <=> s.{k}", k=backquote(key)) for key in keys))
        if others:
            sets = join(", ", (sql("t.{n} = s.{n}", n=backquote(name)) for name in others))
            self._run("UPDATE {t} AS t JOIN {s} AS s ON {same} SET {sets}", same=same, sets=sets, **parts)
        self._run(_INSERT_NEW, same=same, **parts)


def needed_by(connection: Connection, name: Name) -> list[str]:
    """Return what hangs on a table, so that it cannot be swapped without changing more than its rows."""
    return [str(row[0]) for row in rows_of(connection, _NEEDED_BY, [*name] * 4)]


def is_transactional(connection: Connection, engine: str) -> bool:
    """Return whether an engine can take back what it was told."""
    return rows_of(connection, _TRANSACTIONAL, [engine]) == [("YES",)]
