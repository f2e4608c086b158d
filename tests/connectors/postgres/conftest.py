"""A real Postgres on 127.0.0.1, with a user who needs a password; projects that read from it and write to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import warnings
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.connectors.database_project import DatabaseProject
from tests.tls import TlsFront, certificate

# pgserver has no wheel for the latest Pythons.
collect_ignore_glob = [] if find_spec("pgserver") else ["test_*.py"]
READER_PASSWORD = "CANARY-5f0c"
_HBA = """
local all all trust
host all postgres 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
host replication postgres 127.0.0.1/32 trust
"""


@dataclass
class Server:
    """One Postgres server, and what tests do to it."""

    folder: Path
    port: int
    user: str | None
    options: str = ""

    def ctl(self, *arguments: str) -> None:
        _pgserver()
        from pgserver._commands import pg_ctl

        pg_ctl(list(arguments), pgdata=self.folder, user=self.user)

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder} -c fsync=off {self.options}"
        self.ctl("-w", "-o", options, "-l", str(self.folder / "log"), "start")

    def stop(self) -> None:
        self.ctl("-w", "-m", "immediate", "stop")

    def connect(self, database: str = "postgres", **parts):
        import psycopg2

        connection = psycopg2.connect(
            host="127.0.0.1", port=self.port, dbname=database, user=parts.pop("user", "postgres"), **parts
        )
        connection.autocommit = True
        return connection

    def url(self, database: str, user: str = "postgres", password: str = "") -> str:
        secret = f":{password}" if password else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _pgserver():
    # It warns of a folder for sockets, where there is none, when it is imported.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pgserver
    return pgserver


def new_server(folder: Path, options: str = "") -> Server:
    made = _pgserver().get_server(folder, cleanup_mode=None)
    server = Server(folder, _free_port(), made.system_user, options)
    server.ctl("-w", "-m", "immediate", "stop")
    (folder / "pg_hba.conf").write_text(_HBA)
    return server


def _sweep(place: Path) -> None:
    """Stop the servers of test runs that were killed; each folder is called by its run's process."""
    for folder in place.glob("sqlflow-pg-*-*"):
        if Path(f"/proc/{folder.name.split('-')[2]}").exists():
            continue
        owner = "pgserver" if os.geteuid() == 0 else None
        with contextlib.suppress(subprocess.CalledProcessError, OSError):
            Server(folder / "data", 0, owner).stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def server():
    # Its sockets' paths are short, and its user may enter the folder.
    place = Path(os.environ.get("TMPDIR", "/tmp"))
    _sweep(place)
    folder = Path(tempfile.mkdtemp(prefix=f"sqlflow-pg-{os.getpid()}-", dir=place))
    folder.chmod(0o755)
    made = new_server(
        folder / "data", "-c max_prepared_transactions=5 -c wal_level=logical -c max_replication_slots=40"
    )
    made.start()
    _administer(made, f"CREATE ROLE reader LOGIN PASSWORD '{READER_PASSWORD}'")
    yield made
    with contextlib.suppress(subprocess.CalledProcessError):
        made.stop()
    shutil.rmtree(folder, ignore_errors=True)


@dataclass
class Distributed(Server):
    """A server of the system's own Postgres, which has all extensions that come with it."""

    binaries: Path = Path()

    def ctl(self, *arguments: str) -> None:
        self.tool("pg_ctl", "-D", str(self.folder), *arguments)

    def tool(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [self.binaries / name, *arguments],
            check=True, user=self.user, stdout=subprocess.DEVNULL, cwd=self.folder.parent,
        )  # fmt: skip


@pytest.fixture(scope="session")
def distributed_server(server):
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip("needs Postgres as distributions ship it, in /usr/lib/postgresql")
    folder = server.folder.parent / "distributed"
    made = Distributed(folder, _free_port(), server.user, binaries=found[-1].parent)
    folder.mkdir()
    if made.user:
        shutil.chown(folder, made.user)
    made.tool("initdb", "-D", str(folder), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--no-sync")
    made.start()
    yield made
    with contextlib.suppress(subprocess.CalledProcessError):
        made.stop()


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
        """Run statements and return the rows of the last one."""
        connection = self.connect()
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            rows = cursor.fetchall() if cursor.description else []
        connection.close()
        return rows

    @property
    def url(self) -> str:
        return self.server.url(self.name)

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


@pytest.fixture
def database(server, request):
    yield from _database(server, request)


@pytest.fixture
def distributed(bench, distributed_server, request):
    """A project that reads from the system's own Postgres."""
    for made in _database(distributed_server, request):
        yield DatabaseProject(bench, made, "POSTGRES", "pg")


def _database(server, request):
    name = f"t{abs(hash(request.node.nodeid)) % 10**12}"
    _administer(server, f"CREATE DATABASE {name}")
    made = Database(server, name)
    yield made
    made.close()
    _administer(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def _administer(server: Server, statement: str) -> None:
    connection = server.connect()
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
    finally:
        connection.close()


@pytest.fixture
def tls_front(server, tmp_path):
    with TlsFront(server.port, certificate(tmp_path), asked=True) as front:
        yield front


@pytest.fixture
def project(bench, database):
    return DatabaseProject(bench, database, "POSTGRES", "pg")
