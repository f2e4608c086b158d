"""Connections to MySQL of our own (for its catalogue, and for writing), and what its errors mean."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlflow_dagster.connectors import exact_nested, pool
from sqlflow_dagster.connectors.server_words import is_about_values, unquoted
from sqlflow_dagster.errors import (
    BadOption,
    NotAllowed,
    ProjectError,
    RetryLater,
    SchemaChanged,
    SourceFailed,
    SQLFlowError,
)
from sqlflow_dagster.sql import Sql

Connection = pool.Connection

# What a statement means depends on these, whatever the server's defaults are. Strict: a value that a
# column cannot hold is an error; and 0 is no call for the next number.
_SESSION = (
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO', time_zone = '+00:00',"
    " autocommit = 1"
)
# What a user's query means is the server's affair, though: `||`, "text", and what unsigned numbers may become.
_SERVERS_MODE = "SET @sqlflow_mode = @@SESSION.sql_mode, SESSION sql_mode = @@GLOBAL.sql_mode"
_OUR_MODE = "SET SESSION sql_mode = @sqlflow_mode"
_SNAPSHOT = (
    "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY",
)
READER = "sqlflow_dagster"

_THERE = "is the server there, and does it take connections at this `host` and `port`?"
_CERTIFICATES = "look at `ssl_mode`, `ssl_ca`, `ssl_cert` and `ssl_key`, and at the dates of the certificates"
_USER = "look at `username` and `password`, and at what the server lets this user do from here"
# The server's numbers: of what goes away by itself, of what access mends, of what the catalogue has no more.
_LATER = {
    1040, 1041, 1053, 1077, 1079, 1080, 1152, 1158, 1159, 1160, 1161, 1184, 1203, 1205, 1206, 1213, 1226,
    1290, 1317, 1836, 1927, 2002, 2003, 2006, 2013, 2055, 3032, 4031,
}  # fmt: skip
# Who may not come in at all, or not before its password is changed or its host forgiven.
_KEPT_OUT = {1045, 1129, 1130, 1251, 1524, 1698, 1820, 1862, 3118, 3955, 4151}
_DENIED = {1044, 1095, 1142, 1143, 1227, 1370}
# A server that cannot be reached, and one whose certificate is wrong, have one number.
_BY_WORDS = {1049, 2002, 2003, 2005, 2026, 3159}
_GONE = {1051, 1146, 1356}
_ALTERED = {1054, 1412}
_TIMES = {1969, 3024}
_NO_LOCAL = {1148, 3948, 3950, 4166}
_CHUNK_BYTES = 2**18
# How long a server is asked for the second time for rows, only to hear why there are none.
_LONGEST_ASKED = 60.0
# DuckDB passes the server's words on, without the number.
_CODES = {
    "command denied": 1142, "doesn't exist": 1146, "Unknown column": 1054, "definition has changed": 1412,
    "Deadlock found": 1213, "Lock wait timeout": 1205, "was interrupted": 1317,
}  # fmt: skip
# The words of those who give no number: the driver, and DuckDB's extension.
_MEANINGS: tuple[tuple[re.Pattern[str], type[SQLFlowError], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind, advice)
    for pattern, kind, advice in (
        ("unknown database", BadOption, "mend `database`, or create it"),
        ("cryptography", ProjectError, "pip install 'sqlflow-dagster[mysql]', or set `ssl_mode` to required"),
        ("access denied|not allowed to connect|authentication plugin|host .* is blocked", NotAllowed, _USER),
        ("insecure transport", BadOption, "set `ssl_mode` to required"),
        ("eof (while|occurred)|closed connection", RetryLater, _THERE),
        (
            "SSL|TLS|certificate|hostname (mismatch|verification)",
            SourceFailed,
            _CERTIFICATES,
        ),
        ("command denied", NotAllowed, "GRANT SELECT on it"),
        (
            "unknown server host|name or service not known|nodename nor servname|getaddrinfo",
            SourceFailed,
            "mend `host`",
        ),
        (
            (
                "can't connect|lost connection|gone away|connection refused|timed out|timeout|reset by peer|broken pipe"
                "|too many connections|shutdown|unreachable|no route to host|closed|interrupted|killed|deadlock"
                "|temporary failure"
            ),
            RetryLater,
            _THERE,
        ),
    )
)  # fmt: skip


class Connections(pool.Connections):
    """Connections to one MySQL server; a server that says nothing for longer than `silence` is given up."""

    def __init__(self, told: Mapping[str, str], least: int, most: int, silence: float) -> None:
        """Keep what the driver is told."""
        super().__init__(told, least, most)
        self.silence = silence

    def connect(self) -> Connection:
        return connect(self.told, self.silence)

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[None]:
        with translated(self.told):
            for statement in _SNAPSHOT:
                rows_of(connection, statement)
            yield
            connection.rollback()

    def descriptor(self, connection: Connection) -> int | None:
        return int(connection._sock.fileno()) if connection.open else None  # noqa: SLF001 - it has no other name

    def end(self, connection: Connection) -> None:
        # It may be broken already; there is nothing to lose in it.
        with suppress(_driver().Error, OSError):
            connection.close()


def connect(told: Mapping[str, str], silence: float, *, sends_files: bool = False) -> Connection:
    """Return a new connection, which ends where the server says nothing for `silence` seconds.

    With `sends_files` the server may be told to LOAD DATA LOCAL, by `send_file` alone.
    Raises an error of ours that says what to mend.
    """
    pymysql = _driver()
    place = {"unix_socket": told["socket"]} if "socket" in told else {}
    wait = int(told["connect_timeout"])
    with translated(told):
        opened: Connection = pymysql.connect(
            host=told["host"],
            port=int(told["port"]),
            user=told["username"],
            password=told.get("password", ""),
            database=told.get("database"),
            charset="utf8mb4",
            connect_timeout=wait,
            read_timeout=wait,
            write_timeout=wait,
            program_name=READER,
            ssl_disabled=told.get("ssl_mode") == "disabled",
            ssl=_context(told),
            init_command=_SESSION,
            autocommit=None,
            # Not `local_infile`, with which the driver sends whatever file the server asks for.
            client_flag=pymysql.constants.CLIENT.LOCAL_FILES if sends_files else 0,
            # Dates are read as the text that the server shows: it may be no date.
            conv=_texts(pymysql),
            **place,
        )
        # Until here the wait is that for a connection; the driver has no parameter for what comes after.
        opened._read_timeout = opened._write_timeout = silence  # noqa: SLF001
        return opened


def _texts(pymysql: Any) -> dict[Any, Any]:
    """The driver's conversions without those of dates and times."""
    kinds = pymysql.constants.FIELD_TYPE
    dates = {kinds.DATE, kinds.DATETIME, kinds.TIME, kinds.TIMESTAMP, kinds.YEAR, kinds.NEWDATE}
    return {key: how for key, how in pymysql.converters.conversions.items() if key not in dates}


def _context(told: Mapping[str, str]) -> ssl.SSLContext | None:
    """How a server has to prove who it is; None where it need not."""
    mode = told.get("ssl_mode", "preferred")
    if mode == "disabled" or (mode == "preferred" and "ssl_cert" not in told):
        return None
    verify = mode in ("verify_ca", "verify_identity")
    try:
        context = ssl.create_default_context(cafile=told.get("ssl_ca") if verify else None)
        context.check_hostname = mode == "verify_identity"
        context.verify_mode = ssl.CERT_REQUIRED if verify else ssl.CERT_NONE
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if "ssl_cert" in told:
            context.load_cert_chain(told["ssl_cert"], told.get("ssl_key"))
    except (ssl.SSLError, OSError) as error:
        raise BadOption(f"{where(told)}: {error}; {_CERTIFICATES}", option="ssl_ca") from error
    return context


@contextmanager
def translated(told: Mapping[str, str], table: str | None = None) -> Iterator[None]:
    """Turn the driver's errors inside the block into ours; `table` is the one at work."""
    pymysql = _driver()
    try:
        yield
    except pymysql.Error as error:
        code = error.args[0] if error.args and isinstance(error.args[0], int) else None
        text = str(error.args[1]) if len(error.args) > 1 else str(error)
        raise meaning(text, told, code=code, table=table) from None
    except ssl.SSLError as error:
        raise meaning(f"TLS: {error}", told, table=table) from None
    except (OSError, RuntimeError, EOFError) as error:
        # The driver lets the system's words through where a connection breaks, and what it lacks.
        raise meaning(str(error) or type(error).__name__, told, table=table) from None
    except UnicodeDecodeError as error:
        raise SourceFailed(f"{where(told)}: the server sent text that is no UTF-8 ({error})") from None


def meaning(
    message: str, told: Mapping[str, str], *, code: int | None = None, table: str | None = None
) -> SQLFlowError:
    """Return the error of ours that a message of the server or of the driver stands for."""
    text = " ".join(message.split())
    place = f"{where(told)}{f', {table}' if table else ''}: {text}"
    bare = unquoted(text)
    words = [item for item in _MEANINGS if item[0].search(bare)]
    if words and (code is None or code in _BY_WORDS):
        _, kind, advice = words[0]
        return kind(f"{place}; {advice}")
    return _by_code(code, place, told, table)


def _by_code(code: int | None, place: str, told: Mapping[str, str], table: str | None) -> SQLFlowError:
    if code in _LATER:
        return RetryLater(f"{place}; it is tried again")
    if code in _KEPT_OUT:
        return NotAllowed(f"{place}; {_USER}")
    if code in _DENIED:
        user = told.get("username", "the user")
        return NotAllowed(f"{place}; GRANT SELECT ON {table or 'its tables'} TO '{user}'")
    if code in _GONE or code in _ALTERED:
        more = (
            "; where it was altered meanwhile, run again"
            if code in _ALTERED
            else ", or run `sqlflow discover`"
        )
        return SchemaChanged(f"{place}; mend the SOURCE{more}")
    advice = "; raise `timeout_seconds`, or read less by `filters` or an index" if code in _TIMES else ""
    return SourceFailed(f"{place}{advice}")


def where(told: Mapping[str, str]) -> str:
    """Return the server and database, for messages."""
    address = told["socket"] if "socket" in told else f"{told.get('host', '')}:{told.get('port', '')}"
    return f"mysql {address}/{told.get('database', '')}".rstrip("/")


def rows_of(connection: Connection, query: str, values: Sequence[Any] | None = None) -> list[tuple[Any, ...]]:
    """Return a query's rows, its values bound; none for a statement that gives no rows."""
    with connection.cursor() as cursor:
        cursor.execute(query, values)
        return list(cursor.fetchall()) if cursor.description else []


@contextmanager
def servers_mode(connection: Connection) -> Iterator[None]:
    """Let statements of the block mean what they mean to DuckDB's connection; after an error, end the connection."""
    rows_of(connection, _SERVERS_MODE)
    yield
    rows_of(connection, _OUR_MODE)


def send_file(connection: Connection, statement: Sql, path: Path) -> tuple[int, int]:
    """Run a LOAD DATA LOCAL with the content of a file; return how many rows it stored, and its warnings.

    Whatever file the server asks for, it is sent this one.
    """
    from pymysql import connections  # noqa: PLC0415 - a driver is imported where it connects

    connection._execute_command(_driver().constants.COMMAND.COM_QUERY, statement.encode())  # noqa: SLF001 - the driver has no other way
    connection._result = None  # noqa: SLF001
    asked = connection._read_packet()  # noqa: SLF001
    if not asked.is_load_local_packet():
        raise RuntimeError("the server did not ask for the rows of LOAD DATA LOCAL")
    done = False
    try:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                connection.write_packet(chunk)
        connection.write_packet(b"")
        done = True
    finally:
        # In the midst of a file nothing else can be said, not even that it is over.
        if not done:
            connection._force_close()  # noqa: SLF001
    answer = connections.OKPacketWrapper(connection._read_packet())  # noqa: SLF001
    return int(answer.affected_rows), int(answer.warning_count)


def read_through(connection: Connection, query: Sql, seconds: float) -> None:
    """Ask for a query's rows, and throw them away, for so long: what the server has against it is raised."""
    connection._execute_command(_driver().constants.COMMAND.COM_QUERY, query.encode())  # noqa: SLF001 - the driver would unpack them
    # One packet ends the columns, and one the rows.
    end, ends = time.monotonic() + seconds, 0
    while ends < 2 and time.monotonic() < end:
        ends += connection._read_packet().is_eof_packet()  # noqa: SLF001


def is_refused(error: Exception) -> bool:
    """Return whether the server's error says that it takes no LOAD DATA LOCAL."""
    return bool(error.args) and error.args[0] in _NO_LOCAL


@dataclass(frozen=True, slots=True)
class Explain:
    """DuckDB's words about a failed scan → an error of ours, without the query.

    `query` is what the server was asked, `seconds` what it was given for that, `silent` the servers that were
    given up for saying nothing for longer than `silence` seconds.
    """

    told: Mapping[str, str] = field(repr=False)
    label: str
    query: Sql
    seconds: float | None = None
    silent: Sequence[Any] = ()
    silence: float = 0
    began: float = field(default_factory=time.monotonic)

    def __call__(self, message: str) -> SQLFlowError:
        """Return the error that the message stands for."""
        if self.silent:
            return RetryLater(
                f"{where(self.told)}, {self.label}: the server said nothing for {self.silence:g} s, and was given up; "
                "it is tried again; raise `silence_seconds` where a query works longer before its first row"
            )
        said = exact_nested.shown(_said(message)).removeprefix(f"{self.label}: ")
        # Once rows come, the extension does not say why they end.
        late = self.seconds is not None and time.monotonic() - self.began >= self.seconds
        if late and (not said or "max_statement_time" in said or "execution time" in said):
            return SourceFailed(
                f"{where(self.told)}, {self.label}: the read took longer than {self.seconds:g} s; raise "
                "`timeout_seconds`, or read less by `filters` or an index"
            )
        if "Date out of range" in said:
            # It broke off before the guard could say which column it is in.
            date = said.rpartition(": ")[2]
            return SourceFailed(
                f'{self.label}: a column holds a date that is none ({date}); set `zero_dates`: "null" to load NULL in '
                "its place, or its column in `types` as VARCHAR to load it as MySQL writes it"
            )
        if is_about_values(message):
            return SourceFailed(f"{where(self.told)}, {self.label}: {said}")
        if not said:
            return self._asked_again() or RetryLater(
                f"{where(self.told)}, {self.label}: the server ended the read, or the connection broke; "
                "it is tried again"
            )
        code = next((code for words, code in _CODES.items() if words in said), None)
        return meaning(said, self.told, code=code, table=self.label)

    def _asked_again(self) -> SQLFlowError | None:
        """What the server has against the SELECT; None where rows come for as long as they came before."""
        # Of an error among streamed rows the extension passes no word on.
        seconds = min(_LONGEST_ASKED, max(1.0, time.monotonic() - self.began))
        try:
            connection = connect(self.told, seconds)
        except SQLFlowError as error:
            return error
        try:
            with translated(self.told, self.label), servers_mode(connection):
                read_through(connection, self.query, seconds)
        except RetryLater:
            return None
        except SQLFlowError as error:
            return error
        finally:
            # In the midst of rows there is no goodbye.
            connection._force_close()  # noqa: SLF001
        return None


def _said(message: str) -> str:
    """What stands after the query that DuckDB repeats, in its first line; the whole of other messages."""
    text = message.partition("\n\nLINE ")[0]
    if "Failed to " in text.partition("\n")[0]:
        text = text.rpartition('":')[2] if '":' in text else text
    return " ".join(text.split()).removeprefix("Invalid Input Error: ").removeprefix("IO Error: ")


def _driver() -> Any:
    """The driver's module."""
    try:
        import pymysql  # noqa: PLC0415 - a driver is imported where it connects
    except ImportError as error:
        raise ProjectError("MySQL needs its driver: pip install 'sqlflow-dagster[mysql]'") from error
    return pymysql
