"""Settings → connections to the warehouse file: ours, users' (locked down), and private ones to stage in.

Whoever is connected holds the file's lock, so there is one user of the file at a time among all
threads and processes. A connection lives as long as its `with` block.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
import weakref
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.errors import WarehouseBusy, WarehouseError
from sqlflow_dagster.sql import Sql, join, literal, quote, sql
from sqlflow_dagster.warehouse.lock import FileLock, lock_for

_RETRY_SECONDS = 0.05
_numbers = count()
STAGE = "_sqlflow_stage"
# What a warehouse opens, for rooms that hand it on without knowing DuckDB.
Connection = DuckDBPyConnection


class Attached(Protocol):
    """A database to attach read-only: `url` names it to DuckDB's `type` of storage."""

    @property
    def url(self) -> str:
        """The file or connection string."""

    @property
    def name(self) -> str:
        """The catalogue's name in SQL."""

    @property
    def type(self) -> str:
        """`duckdb`, `sqlite`, `postgres` …."""

    @property
    def secret(self) -> Mapping[str, str] | None:
        """Parameters of the connection that no statement may show."""

    @property
    def settings(self) -> Mapping[str, str]:
        """Settings of the extension, to be made before."""


@dataclass(frozen=True, slots=True)
class WarehouseSettings:
    """Where the warehouse is and what a step may use.

    `path` None is a temporary file that ends with the process. `allowed_directories` are all that
    users' SQL may read.
    """

    path: Path | None
    state_directory: Path
    memory_limit: str = "2GB"
    threads: int | None = None
    temp_directory: Path | None = None
    timezone: str = "UTC"
    lock_timeout_seconds: float = 600
    allowed_directories: tuple[Path, ...] = ()


class Warehouse:
    """One DuckDB file, opened by a step for what it needs and closed again."""

    def __init__(self, settings: WarehouseSettings) -> None:
        """Keep the settings; nothing is opened. A `path` of None makes its temporary folder."""
        self.settings = settings
        if settings.path is None:
            folder = Path(tempfile.mkdtemp(prefix="sqlflow-"))
            self._remove = weakref.finalize(self, _remove_own, folder, os.getpid())
            self.path = folder / "warehouse.duckdb"
        else:
            self.path = settings.path.absolute()
        self.lock: FileLock = lock_for(self.path)
        self._connected: set[DuckDBPyConnection] = set()

    @property
    def catalog(self) -> str:
        """The name of the file's catalogue in every connection: one that no schema has, not `warehouse` alone."""
        return f"{self.path.stem}.duckdb"

    @contextmanager
    def open(self) -> Iterator[DuckDBPyConnection]:
        """Connect for SQL of ours.

        Raises WarehouseBusy where another process holds the file; WarehouseError where it cannot be
        opened, e.g. on a read-only disk.
        """
        with self.scratch() as connection, self.mounted(connection), written_by_commit(connection):
            yield connection

    @contextmanager
    def open_locked_down(
        self, search_path: Sequence[str] = (), folders: Sequence[Path] = ()
    ) -> Iterator[DuckDBPyConnection]:
        """Connect for users' SQL: no extension, no file but in the allowed folders, no setting.

        `folders` are allowed beside those of the settings: a spool that COPY of ours writes to.

        Unqualified names are looked up in the schemas of `search_path`, in order; those that do not
        exist are left out. Raises as `open` does.
        """
        with self.scratch() as connection, self.mounted(connection), written_by_commit(connection):
            self._search(connection, search_path)
            for statement in self._lock_down(folders):
                connection.execute(statement)
            yield connection

    @contextmanager
    def scratch(self, made: DuckDBPyConnection | None = None) -> Iterator[DuckDBPyConnection]:
        """Connect to a private in-memory database, outside the lock. `stage` gives it a file.

        `made` is its connection where it is one of a kind; it is closed at the end.
        """
        with closing(made or duckdb.connect(":memory:")) as connection:
            self._connected.add(connection)
            try:
                for statement in self._limits():
                    connection.execute(statement)
                yield connection
            finally:
                self._connected.discard(connection)

    @contextmanager
    def staged(self, connection: DuckDBPyConnection) -> Iterator[None]:
        """Give a scratch connection a catalogue named `STAGE`: a private file, removed at the end."""
        folder = self.settings.state_directory / "stage"
        path = folder / f"{socket.gethostname()}-{os.getpid()}-{next(_numbers)}.duckdb"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _sweep(folder)
            # Nobody recovers it: rows need no log before they are in the file.
            attach = "ATTACH {path} AS {name} (RECOVERY_MODE no_wal_writes)"
            connection.execute(sql(attach, path=literal(str(path)), name=quote(STAGE)))
        except (OSError, duckdb.IOException) as error:
            raise WarehouseError(
                f"{folder}: cannot stage rows there ({error}); it must be writable, with space left"
            ) from error
        try:
            yield
        finally:
            # Nobody reads the file again: what is still to be written to it need not be.
            with _unwritten(connection):
                _detach(connection, STAGE)
            _unlink(path)

    @contextmanager
    def mounted(self, connection: DuckDBPyConnection) -> Iterator[None]:
        """Attach the warehouse file to a scratch connection under the lock, as its default catalogue.

        Raises as `open` does, and WarehouseError where what the file holds cannot be read.
        """
        with self._exclusive() as seconds:
            self._attach_patiently(connection, seconds)
            try:
                connection.execute(sql("USE {name}", name=quote(self.catalog)))
                yield
            except duckdb.IOException as error:
                raise WarehouseError(
                    f"{self.path}: the warehouse cannot be read or written ({_first_line(error)}). "
                    "Where the file is damaged, put a copy of it in its place"
                ) from error
            finally:
                _detach(connection, self.catalog)

    def interrupt(self) -> None:
        """Break off what this process's connections are executing, from any thread."""
        for connection in tuple(self._connected):
            # It may have been closed in the meantime.
            with suppress(duckdb.ConnectionException):
                connection.interrupt()

    def close(self) -> None:
        """Remove the temporary file of a warehouse that has no path."""
        if self.settings.path is None:
            self._remove()

    @contextmanager
    def _exclusive(self) -> Iterator[float]:
        if self.lock.held_by_this_thread:
            raise WarehouseError(
                f"{self.path}: this thread has it open already; close that connection before opening another"
            )
        with self.lock.held(self.settings.lock_timeout_seconds) as seconds:
            yield seconds

    def _search(self, connection: DuckDBPyConnection, schemas: Sequence[str]) -> None:
        """Set the search path; a locked connection can no longer."""
        found = connection.execute(
            "SELECT lower(schema_name) FROM duckdb_schemas() WHERE database_name = current_catalog()"
        ).fetchall()
        known = [schema for schema in schemas if (schema.lower(),) in found]
        if known:
            path = ",".join(quote(self.catalog, schema) for schema in known)
            connection.execute(sql("SET search_path = {path}", path=literal(path)))

    def _attach_patiently(self, connection: DuckDBPyConnection, seconds: float) -> None:
        """Attach the file; another program may have it open without our lock."""
        attach = sql("ATTACH {path} AS {name}", path=literal(str(self.path)), name=quote(self.catalog))
        deadline = time.monotonic() + seconds
        while True:
            try:
                connection.execute(attach)
            except duckdb.Error as error:
                if not _in_use(error):
                    raise _not_opened(self.path, error) from error
                if time.monotonic() >= deadline:
                    raise WarehouseBusy(
                        f"{self.path}: another program has it open: {_first_line(error)}. "
                        "Close it there, then run again"
                    ) from error
                time.sleep(_RETRY_SECONDS)
            else:
                return

    def _limits(self) -> Iterator[Sql]:
        settings = self.settings
        yield sql("SET memory_limit = {value}", value=literal(settings.memory_limit))
        if settings.threads:
            yield sql("SET threads = {value}", value=literal(settings.threads))
        spill = settings.temp_directory or self.path.with_name(self.path.name + ".tmp")
        yield sql("SET temp_directory = {value}", value=literal(str(spill)))
        yield sql("SET TimeZone = {value}", value=literal(settings.timezone))
        yield Sql("SET python_enable_replacements = false")
        # DuckDB draws one on standard output, also where that is read by a program.
        yield Sql("SET enable_progress_bar = false")

    def _lock_down(self, folders: Sequence[Path]) -> Iterator[Sql]:
        yield Sql("SET allow_persistent_secrets = false")
        yield Sql("SET autoinstall_known_extensions = false")
        yield Sql("SET autoload_known_extensions = false")
        yield Sql("SET allow_community_extensions = false")
        allowed = (*self.settings.allowed_directories, *folders)
        listed = join(", ", (literal(f"{path.resolve()}/") for path in allowed))
        yield sql("SET allowed_directories = [{folders}]", folders=listed)
        # From here on nothing outside those folders can be reached, and nothing set.
        yield Sql("SET enable_external_access = false")
        yield Sql("SET lock_configuration = true")


@contextmanager
def closing(connection: DuckDBPyConnection) -> Iterator[DuckDBPyConnection]:
    """Close the connection at the end, after rolling back what it left open."""
    try:
        yield connection
    finally:
        connection.close()


def attach_all(connection: DuckDBPyConnection, databases: Iterable[Attached]) -> None:
    """Attach each database read-only, once."""
    for database in databases:
        for name, value in database.settings.items():
            connection.execute(sql("SET {name} = {value}", name=quote(name), value=literal(value)))
        parts = {"url": literal(database.url), "name": quote(database.name), "type": quote(database.type)}
        template = "ATTACH {url} AS {name} (TYPE {type}, READ_ONLY)"
        if database.type.casefold() == "duckdb":
            template = "ATTACH {url} AS {name} (READ_ONLY)"
        if database.secret is not None:
            _create_secret(connection, database.name, database.type, database.secret)
            template = "ATTACH {url} AS {name} (TYPE {type}, SECRET {name}, READ_ONLY)"
        connection.execute(sql(template, **parts))


def _create_secret(
    connection: DuckDBPyConnection,
    name: str,
    kind: str,
    values: Mapping[str, str],
) -> None:
    """Keep a connection's parameters in memory; DuckDB's own message would show the statement."""
    given = join(", ", (sql("{n} {v}", n=quote(n), v=literal(v)) for n, v in values.items()))
    statement = sql(
        "CREATE OR REPLACE TEMPORARY SECRET {name} (TYPE {type}, {given})",
        name=quote(name),
        type=quote(kind),
        given=given,
    )
    try:
        connection.execute(statement)
    except duckdb.Error:
        raise WarehouseError(
            f"DuckDB does not take the parameters {', '.join(values)} for a secret of type {kind}"
        ) from None


@contextmanager
def written_by_commit(connection: DuckDBPyConnection) -> Iterator[None]:
    """Let a commit bring its rows into the file, not into the log first and at detaching from there to the file.

    It is so for every file that is attached: what is committed to a stage meanwhile is written as often.
    """
    connection.execute("SET checkpoint_threshold = '1KB'")
    try:
        yield
    finally:
        # A locked connection keeps it, and after a fatal error it takes no statement.
        with suppress(duckdb.Error):
            connection.execute("RESET checkpoint_threshold")


def _detach(connection: DuckDBPyConnection, name: str) -> None:
    # Detaching needs another default catalogue and no open transaction; a fatal error (a full disk)
    # has closed the catalogue already, and closing the connection frees it in any case.
    with suppress(duckdb.Error):
        connection.execute("ROLLBACK")
    with suppress(duckdb.Error):
        connection.execute("USE memory")
        connection.execute(sql("DETACH {name}", name=quote(name)))


@contextmanager
def _unwritten(connection: DuckDBPyConnection) -> Iterator[None]:
    """Let DuckDB leave what it detaches as it is, and not bring its log into the file."""
    # After a fatal error it takes no statement, and detaches nothing.
    with suppress(duckdb.Error):
        connection.execute("PRAGMA disable_checkpoint_on_shutdown")
    yield
    with suppress(duckdb.Error):
        connection.execute("PRAGMA enable_checkpoint_on_shutdown")


def _in_use(error: duckdb.Error) -> bool:
    text = str(error)
    return any(part in text for part in ("Could not set lock on file", "already attached"))


def _not_opened(path: Path, error: duckdb.Error) -> WarehouseError:
    return WarehouseError(
        f"{path}: the warehouse cannot be opened for writing ({_first_line(error)}). "
        "Its folder must be writable, with space left, and the file one of this DuckDB version"
    )


def _first_line(error: duckdb.Error) -> str:
    return str(error).partition("\n")[0]


def _sweep(folder: Path) -> None:
    """Remove the stages of dead processes of this machine."""
    for path in folder.glob(f"{socket.gethostname()}-*-*.duckdb"):
        pid = path.stem.rsplit("-", 2)[1]
        if pid.isdigit() and not _alive(int(pid)):
            _unlink(path)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".wal").unlink(missing_ok=True)


def _remove_own(folder: Path, pid: int) -> None:
    # A forked child must not remove its parent's warehouse.
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)
