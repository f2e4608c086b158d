"""A real MariaDB on 127.0.0.1, with a user who needs a password; projects that read from it and write to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.connectors.database_project import DatabaseProject
from tests.tls import certificate

READER_PASSWORD = "CANARY-5f0c"
_PLACES = "/usr/sbin:/usr/local/sbin:/usr/libexec:/usr/local/libexec"
_OPTIONS = (
    "--innodb-flush-log-at-trx-commit=0", "--skip-log-bin", "--max-allowed-packet=256M",
    "--character-set-server=latin1", "--sql-mode=", "--innodb-buffer-pool-size=64M", "--skip-name-resolve",
)  # fmt: skip


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path=_PLACES)


@dataclass
class Server:
    """One MariaDB server, and what tests do to it. Its defaults are unlike ours, on purpose."""

    folder: Path
    port: int
    extra: tuple[str, ...] = ()
    process: subprocess.Popen | None = None

    def make(self) -> None:
        subprocess.run(
            [_program("mariadb-install-db"), "--no-defaults", f"--datadir={self.folder / 'data'}",
             "--auth-root-authentication-method=normal", "--skip-test-db", *self._user],
            # As in `start`: it starts a server, too.
            check=True, capture_output=True, env={**os.environ, "TMPDIR": str(self.folder)},
        )  # fmt: skip

    @property
    def _user(self) -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [_program("mariadbd"), "--no-defaults", f"--datadir={self.folder / 'data'}", *self._user,
                 "--bind-address=127.0.0.1", f"--port={self.port}", f"--socket={self.folder / 's'}",
                 f"--pid-file={self.folder / 'pid'}",
                 # A server that starts clears away the temporary tables of all others in its folder for them.
                 f"--tmpdir={self.folder}", *_OPTIONS, *self.extra],
                stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + 60
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end
            time.sleep(0.05)

    def answers(self) -> bool:
        import pymysql

        try:
            self.connect().close()
        except pymysql.err.OperationalError:
            return False
        return True

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def connect(self, database: str | None = None, **parts):
        import pymysql

        parts = {"user": "root", "autocommit": True, **parts}
        return pymysql.connect(
            host="127.0.0.1", port=self.port, database=database, charset="utf8mb4", init_command="SET sql_mode=''",
            **parts,
        )  # fmt: skip

    def run(self, *statements: str, database: str | None = None) -> list[tuple]:
        """Run statements and return the rows of the last one."""
        with contextlib.closing(self.connect(database)) as connection, connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []

    def url(self, database: str) -> str:
        return f"mysql://root@127.0.0.1:{self.port}/{database}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def new_server(folder: Path, *extra: str) -> Server:
    """A server in a folder of its own, neither made nor started."""
    return Server(folder, _free_port(), extra)


def _needs_mariadb() -> None:
    if _program("mariadbd") and _program("mariadb-install-db"):
        return
    said = "the server of these tests is not installed: apt-get install mariadb-server"
    if os.environ.get("CI"):
        pytest.fail(said, pytrace=False)
    pytest.skip(said)


def _sweep(place: Path) -> None:
    """Stop the servers of test runs that were killed; each folder is called by its run's process."""
    for folder in place.glob("sqlflow-my-*-*"):
        if Path(f"/proc/{folder.name.split('-')[2]}").exists():
            continue
        with contextlib.suppress(OSError, ValueError):
            pid = int((folder / "pid").read_text())
            if str(folder) in Path(f"/proc/{pid}/cmdline").read_text():
                os.kill(pid, 9)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def mysql_server():
    _needs_mariadb()
    place = Path(os.environ.get("TMPDIR", "/tmp"))
    _sweep(place)
    folder = Path(tempfile.mkdtemp(prefix=f"sqlflow-my-{os.getpid()}-", dir=place))
    shown = certificate(folder)
    made = new_server(folder, f"--ssl-cert={shown.path}", f"--ssl-key={shown.key}")
    try:
        made.make()
        made.start()
        made.run(f"CREATE USER reader@'%' IDENTIFIED BY '{READER_PASSWORD}'")
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Database:
    """A database of its own for one test."""

    server: Server
    name: str
    _connections: list = field(default_factory=list)

    def connect(self, **parts):
        connection = self.server.connect(self.name, **parts)
        self._connections.append(connection)
        return connection

    def run(self, *statements: str) -> list[tuple]:
        return self.server.run(*statements, database=self.name)

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    def close(self) -> None:
        for connection in self._connections:
            if connection.open:
                connection.close()


@pytest.fixture
def mysql_database(mysql_server, request):
    name = f"t{abs(hash(request.node.nodeid)) % 10**12}"
    mysql_server.run(f"CREATE DATABASE {name}")
    made = Database(mysql_server, name)
    yield made
    made.close()
    mysql_server.run(f"DROP DATABASE IF EXISTS {name}")


@pytest.fixture
def project(bench, mysql_database):
    return DatabaseProject(bench, mysql_database, "MYSQL", "my")
