"""An EXPORT's MySQL table → whether it may be written by the mode, by the user's grants alone."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from pydantic import BaseModel

from sqlflow_dagster.connectors.base import Health, Place
from sqlflow_dagster.connectors.mysql_catalog import is_mariadb
from sqlflow_dagster.connectors.mysql_client import Connection, connect, rows_of, translated, where
from sqlflow_dagster.connectors.mysql_options import MySQLSinkOptions, server
from sqlflow_dagster.connectors.mysql_sink import located
from sqlflow_dagster.connectors.mysql_writer import NOTES, is_transactional, needed_by
from sqlflow_dagster.connectors.tables import Name
from sqlflow_dagster.sql import Sql, backquote, sql

_SERVER = "SELECT VERSION(), CURRENT_USER(), @@read_only, CURRENT_ROLE()"
_TABLE = """
SELECT TABLE_TYPE, ENGINE, COALESCE(DATA_LENGTH + INDEX_LENGTH, 0), COALESCE(TABLE_ROWS, 0)
FROM information_schema.TABLES WHERE TABLE_SCHEMA = %s AND TABLE_NAME = %s
"""
_NAME = r"(\*|`(?:[^`]|``)*`)"
_GRANT = re.compile(rf"(GRANT|REVOKE) (.+?) ON (?:TABLE )?{_NAME}\.{_NAME} (?:TO|FROM) ")
_COLUMNS = re.compile(r"\w[\w ]* \([^)]*\)(?:, )?")
_EVERYTHING = ("ALL PRIVILEGES", "ALL")
# Those whose writes a server that is read-only takes all the same.
_WRITES_ANYWAY = ("SUPER", "READ_ONLY ADMIN", "READ ONLY ADMIN", "CONNECTION_ADMIN")
_SWAP = ("CREATE", "INSERT", "ALTER", "DROP")


class _Grant(NamedTuple):
    """One line of SHOW GRANTS: whether it gives, what, and on which database (a pattern) and table."""

    gives: bool
    words: frozenset[str]
    database: str
    table: str

    def covers(self, name: Name) -> bool:
        """Whether it is about a table; without a name about all of its database, without a schema about all."""
        if self.database == "*" or not name.schema:
            return self.database == "*"
        if self.table != "*":
            return (self.database, self.table) == name
        pattern = "".join(
            ".*" if part == "%" else "." if part == "_" else re.escape(part[-1:])
            for part in re.findall(r"\\.|.", self.database)
        )
        return re.fullmatch(pattern, name.schema, re.DOTALL) is not None


def health(target: str, options: BaseModel, place: Place) -> Health:
    """Return how the server is, and which privileges the export lacks; nothing is written.

    Raises what connecting raises, and BadOption where no table is named.
    """
    wanted, name = located(target, options)
    told = server(wanted, place)
    begin = time.perf_counter()
    silence = wanted.longest_silence(wanted.timeout_seconds)
    connection = connect({k: v for k, v in told.items() if k != "database"}, silence)
    latency = time.perf_counter() - begin
    try:
        with translated(told, f"{name.schema}.{name.name}"):
            rows_of(connection, "START TRANSACTION READ ONLY")
            return _health(connection, where(told), name, wanted, latency)
    finally:
        # A broken one has nothing to say goodbye to.
        with suppress(OSError):
            connection._force_close()  # noqa: SLF001 - as after an export


def _health(
    connection: Connection, place: str, name: Name, options: MySQLSinkOptions, latency: float
) -> Health:
    version, user, read_only, roles = rows_of(connection, _SERVER)[0]
    label, found = f"{name.schema}.{name.name}", rows_of(connection, _TABLE, [*name])
    grants = list(_grants(connection, roles))
    swapped = not (found and needed_by(connection, name))
    lacking = list(_lacking(grants, name, options.mode, there=bool(found), swapped=swapped))
    facts: dict[str, Any] = {
        "latency": round(latency, 6),
        "version": str(version),
        "user": user,
        "read_only": bool(read_only),
        "table": label,
        "table_exists": bool(found),
        "may_write": not lacking,
    }
    wrong = []
    if read_only and not any(_holds(grants, Name("", ""), word) for word in _WRITES_ANYWAY):
        wrong.append("the server is read-only: name the primary")
    if found:
        kind, engine, size, rows = found[0]
        facts |= {"bytes": int(size), "rows_about": int(rows)}
        if kind not in ("BASE TABLE", "SYSTEM VERSIONED"):
            wrong.append(f"{label} is no table: drop it, or name another")
        elif (options.mode != "replace" or not swapped) and not is_transactional(connection, str(engine)):
            wrong.append(f"its engine {engine} has no transactions: give {label} the engine InnoDB")
    elif not options.create:
        wrong.append(f"there is no table {label} that the user sees, and `create` is false: create it")
    if lacking:
        account = "@".join(f"'{part}'" for part in str(user).rsplit("@", 1))
        listed = "; ".join(f"GRANT {', '.join(words)} ON {on} TO {account}" for on, words in lacking)
        wrong.append(f"the user may not {options.mode}: {listed}")
    size = f"{facts['bytes']:,} bytes" if found else "to be made"
    said = [f"{place}: MySQL {version}, {label} ({size})", *(wrong or ["may be written"])]
    return Health(ok=not wrong, message="; ".join(said), facts=facts)


def _grants(connection: Connection, roles: str | None) -> Iterator[_Grant]:
    """What the user was given and, on MySQL, what it was denied again; those of its present roles too."""
    query = "SHOW GRANTS FOR CURRENT_USER()"
    if is_mariadb(connection):
        query = "SHOW GRANTS"
    elif roles and roles != "NONE":
        # The server writes the roles as it reads them.
        query = sql("SHOW GRANTS FOR CURRENT_USER() USING {roles}", roles=Sql(roles))
    for (line,) in rows_of(connection, query):
        if match := _GRANT.match(str(line)):
            # A privilege on some columns is none on the table.
            words = frozenset(_COLUMNS.sub("", match[2]).removesuffix(", ").split(", "))
            database, table = (
                part if part == "*" else part[1:-1].replace("``", "`") for part in (match[3], match[4])
            )
            yield _Grant(match[1] == "GRANT", words, database, table)


def _holds(grants: list[_Grant], name: Name, word: str) -> bool:
    about = [
        grant for grant in grants if grant.covers(name) and not grant.words.isdisjoint((word, *_EVERYTHING))
    ]
    return any(grant.gives for grant in about) and all(grant.gives for grant in about)


def _lacking(
    grants: list[_Grant], name: Name, mode: str, *, there: bool, swapped: bool
) -> Iterator[tuple[str, list[str]]]:
    """Where which privileges are missing for the statements that the mode runs."""
    database, table = Name(name.schema, ""), name
    needed: dict[tuple[Name, str], tuple[str, ...]] = {}
    everywhere, own = f"{backquote(name.schema)}.*", str(backquote(*name))
    if mode == "replace" and swapped:
        # The tables that take its place have names of their own, and are made like it.
        needed[database, everywhere] = _SWAP
        needed[table, own] = ("SELECT", "ALTER", "DROP") if there else ()
    elif mode == "replace":
        needed[table, own] = ("INSERT", "DELETE")
    elif mode == "append":
        needed[table, own] = ("INSERT",) if there else ("CREATE", "INSERT")
        notes = Name(name.schema, NOTES)
        needed[notes, str(backquote(*notes))] = ("CREATE", "INSERT")
    else:
        needed[table, own] = (
            ("SELECT", "INSERT", "UPDATE") if there else ("CREATE", "SELECT", "INSERT", "UPDATE")
        )
        needed[database, everywhere] = ("CREATE TEMPORARY TABLES",)
    if not there:
        needed[database, everywhere] = tuple({*needed.get((database, everywhere), ()), "CREATE"})
    for (what, on), words in needed.items():
        if missing := sorted(word for word in words if not _holds(grants, what, word)):
            yield on, missing
