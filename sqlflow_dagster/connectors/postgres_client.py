"""Connections to Postgres of our own (for its catalogue, and for writing), and what its errors mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sqlflow_dagster.connectors import exact_nested, pool
from sqlflow_dagster.connectors.server_words import is_about_values, unquoted
from sqlflow_dagster.errors import (
    BadOption,
    NotAllowed,
    ProjectError,
    RetryLater,
    SchemaChanged,
    SourceError,
    SourceFailed,
    SQLFlowError,
)

Connection = pool.Connection

# What texts and times depend on, so that values read the same whatever the server's defaults are.
_SESSION = (
    "DateStyle=ISO", "IntervalStyle=postgres", "TimeZone=UTC", "extra_float_digits=3", "bytea_output=hex",
    "standard_conforming_strings=on", "idle_in_transaction_session_timeout=0",
)  # fmt: skip
# What the names of tables begin with that are to take the place of others.
NEW = "_sqlflow_new_"
# What libpq takes from the environment, and the server prefers to the settings above.
_ENVIRONMENT = ("PGTZ", "PGDATESTYLE")

# libpq's and the server's words, in the order to look for them; what each means, and what to do.
_MEANINGS: tuple[tuple[re.Pattern[str], type[SQLFlowError], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind, advice)
    for pattern, kind, advice in (
        (
            "unsupported startup parameter",
            BadOption,
            "this is a pooler: set `session_settings` to false",
        ),
        (
            "start WAL sender|replication role",
            NotAllowed,
            "let the user read the log: ALTER ROLE … REPLICATION (at Amazon, GRANT rds_replication TO it)",
        ),
        ('database ".*?" does not exist', BadOption, "mend `database`, or create it"),
        (
            (
                r"password authentication failed|no password supplied|pg_hba\.conf|authentication failed"
                r'|role ".*" does not exist|is not permitted to log in|permission denied for database'
            ),
            NotAllowed,
            "look at `username` and `password`, and at pg_hba.conf of the server",
        ),
        (
            (
                "SSL connection has been closed|SSL SYSCALL|Temporary failure in name resolution|connection refused"
                "|timeout expired|timed out|server closed the connection|terminating connection|starting up"
                "|shutting down|recovery mode|too many (clients|connections)|remaining connection slots"
                "|connection reset|(already|was) closed|could not (receive|send) data|unreachable|no route to host"
                "|broken pipe|no connection to the server|lost synchronization|conflict with recovery"
                "|deadlock detected|out of shared memory|unexpectedly|no message from the libpq"
            ),
            RetryLater,
            "is the server there, and does it take connections at this `host` and `port`?",
        ),
        (
            "certificate|does not support SSL|SSL error|sslmode|private key|sslrootcert",
            SourceFailed,
            "look at `sslmode`, `sslrootcert`, `sslcert` and `sslkey`, and at the dates of the certificates",
        ),
        (
            "could not translate host name|name or service not known|nodename nor servname|no such file",
            SourceFailed,
            "mend `host`",
        ),
    )
)
# But not a limit that is set (53400), or a file that is not there (58P01).
_LATER_CLASSES = ("08", "530", "531", "532", "533", "57P", "40", "55P03", "580")


def startup(
    server: Mapping[str, str],
    statement_seconds: float | None,
    *,
    session_settings: bool,
    lock_seconds: float = 0,
) -> dict[str, str]:
    """Return what libpq is told, with the settings of the session; 0 seconds are without an end."""
    told = {**server, "client_encoding": "UTF8"}
    if session_settings:
        timeouts = (
            f"statement_timeout={int((statement_seconds or 0) * 1000)}",
            f"lock_timeout={int(lock_seconds * 1000)}",
        )
        own = " ".join(f"-c {setting}" for setting in (*_SESSION, *timeouts))
        told["options"] = f"{server['options']} {own}" if server.get("options") else own
    return told


class Connections(pool.Connections):
    """Connections to one Postgres server."""

    def connect(self) -> Connection:
        return connect(self.told)

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[None]:
        with translated(self.told):
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            yield
            connection.rollback()

    def descriptor(self, connection: Connection) -> int | None:
        return None if connection.closed else int(connection.fileno())

    def end(self, connection: Connection) -> None:
        # It may be broken already; there is nothing to lose in it.
        with suppress(_driver().Error):
            connection.close()


def connect(told: Mapping[str, str]) -> Connection:
    """Return a new connection. Raises an error of ours that says what to mend."""
    with translated(told):
        opened: Connection = _driver().connect(**told)
        return opened


@contextmanager
def translated(told: Mapping[str, str], table: str | None = None) -> Iterator[None]:
    """Turn the driver's errors inside the block into ours; `table` is the one at work."""
    psycopg2 = _driver()
    try:
        yield
    except psycopg2.Error as error:
        said = _message(error)
        if table:
            # What takes the place of a table has a name of ours until it does.
            said = re.sub(rf"{NEW}[0-9a-f]+", lambda _: table, said)
        raise meaning(said, told, code=error.pgcode, table=table) from None
    except UnicodeDecodeError as error:
        raise SourceFailed(
            f"{where(told)}: the server sent text that is no UTF-8 ({error}); its encoding is wrong for its data"
        ) from None


def meaning(
    message: str, told: Mapping[str, str], *, code: str | None = None, table: str | None = None
) -> SQLFlowError:
    """Return the error of ours that a message of the server or of libpq stands for."""
    place = f"{where(told)}{f', {table}' if table else ''}: {message}"
    if code and not code.startswith("00"):
        return _by_code(code, place, told, table)
    bare = unquoted(message)
    for pattern, kind, advice in _MEANINGS:
        if pattern.search(bare):
            return kind(f"{place}; {advice}")
    return SourceFailed(place)


def _by_code(code: str, place: str, told: Mapping[str, str], table: str | None) -> SQLFlowError:
    found: SourceError | ProjectError
    if code.startswith(_LATER_CLASSES):
        found = RetryLater(f"{place}; it is tried again")
    elif code == "42501":
        user = told.get("user", "the user")
        found = NotAllowed(
            f'{place}; GRANT SELECT ON {table or "the table"} TO "{user}", and USAGE on its schema'
        )
    elif code == "57014" and "user request" not in place:
        found = SourceFailed(f"{place}; raise `timeout_seconds`, or read less by `filters` or an index")
    elif code in ("42P01", "3F000"):
        found = SchemaChanged(f"{place}; mend the SOURCE, or run `sqlflow discover`")
    elif code == "42703":
        found = SchemaChanged(f"{place}; mend the SOURCE; where the table was altered meanwhile, run again")
    else:
        found = SourceFailed(place)
    return found


def servers(told: Mapping[str, str]) -> list[tuple[str, int]]:
    """Return host and port of each server that libpq may connect to; none for sockets of the file system."""
    hosts, ports = told.get("host", "").split(","), told.get("port", "5432").split(",")
    return [
        (host, int(ports[index % len(ports)])) for index, host in enumerate(hosts) if host and host[0] != "/"
    ]


def where(told: Mapping[str, str]) -> str:
    """Return the server and database, for messages."""
    if "service" in told and "host" not in told:
        return f"postgres service {told['service']}"
    return f"postgres {told.get('host', '')}:{told.get('port', '')}/{told.get('dbname', '')}".rstrip("/")


@dataclass(frozen=True, slots=True)
class Explain:
    """DuckDB's words about a failed scan → an error of ours, without the query."""

    told: Mapping[str, str] = field(repr=False)
    label: str

    def __call__(self, message: str) -> SQLFlowError:
        """Return the error that the message stands for."""
        values = is_about_values(message)
        server = None if values else re.search(r"(?:ERROR|FATAL|PANIC):\s+(.*?)\s*(?:\n|$)", message)
        # After the query that DuckDB repeats, where it does, stands what became of it.
        repeats = "Failed to " in message.partition("\n")[0]
        said = message.rpartition('": ')[2] if repeats else message.partition("\n")[0]
        said = " ".join(said.split()).removeprefix("Invalid Input Error: ")
        text = exact_nested.shown(server[1] if server else said).removeprefix(f"{self.label}: ")
        if values:
            return SourceFailed(f"{where(self.told)}, {self.label}: {text}")
        if "permission denied" in text:
            return _by_code("42501", f"{where(self.told)}, {self.label}: {text}", self.told, self.label)
        if "statement timeout" in text:
            return _by_code("57014", f"{where(self.told)}, {self.label}: {text}", self.told, self.label)
        if "does not exist" in text:
            return _by_code("42703", f"{where(self.told)}, {self.label}: {text}", self.told, self.label)
        return meaning(text, self.told, table=self.label)


def _message(error: Any) -> str:
    """The server's words in one line: what, and its detail and hint."""
    diag = error.diag
    said = [part for part in (diag.message_primary, diag.message_detail, diag.message_hint) if part]
    # Which row and column it was.
    said += [line.partition(":")[0] for line in (diag.context or "").splitlines() if line.startswith("COPY ")]
    text = ". ".join(part.rstrip(".") for part in said) if said else str(error)
    return " ".join(text.split())


def _driver() -> Any:
    """The driver's module, in an environment that does not set how values read."""
    for name in _ENVIRONMENT:
        os.environ.pop(name, None)
    try:
        import psycopg2  # noqa: PLC0415 - a driver is imported where it connects
    except ImportError as error:
        raise ProjectError("Postgres needs its driver: pip install 'sqlflow-dagster[postgres]'") from error
    return psycopg2
