"""A real Postgres on 127.0.0.1, with a user who needs a password; projects that read from it and write to it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pgserver = pytest.importorskip("pgserver", reason="pgserver has no wheel for this Python")

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


def new_server(folder: Path, options: str = "") -> Server:
    os.environ.setdefault("XDG_RUNTIME_DIR", str(folder.parent))
    made = pgserver.get_server(folder, cleanup_mode=None)
    server = Server(folder, _free_port(), made.system_user, options)
    server.ctl("-w", "-m", "immediate", "stop")
    (folder / "pg_hba.conf").write_text(_HBA)
    return server


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    # Its sockets' paths are short, and its user may enter the folder.
    folder = Path(os.environ.get("TMPDIR", "/tmp")) / f"sqlflow-pg-{os.getpid()}"
    folder.mkdir(mode=0o755)
    made = new_server(folder / "data", "-c max_prepared_transactions=5 -c wal_level=logical")
    made.start()
    _administer(made, f"CREATE ROLE reader LOGIN PASSWORD '{READER_PASSWORD}'")
    yield made
    with contextlib.suppress(subprocess.CalledProcessError):
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


@dataclass
class Project:
    """A project that reads one table or query of a database."""

    bench: object
    database: Database

    def source(self, **params) -> str:
        import json

        params = {"connection": self.database.url, **params}
        params = {name: value for name, value in params.items() if value is not None}
        return f"SOURCE pg TYPE POSTGRES PARAMS {json.dumps(params)};\n"

    def pipeline(self, load: str = "LOAD t FROM pg;", **params) -> None:
        self.bench.pipeline(self.source(**params) + load)

    def load(self, load: str = "LOAD t FROM pg;", **params):
        self.pipeline(load, **params)
        return self.bench.ok()

    def error(self, load: str = "LOAD t FROM pg;", **params) -> Exception:
        """Run a load that must fail, and return its error."""
        self.pipeline(load, **params)
        (outcome,) = self.bench.run().values()
        assert outcome.error is not None
        return outcome.error

    def query(self, text: str) -> list[tuple]:
        return self.bench.query(text)

    @property
    def bench_place(self):
        from sqlflow_dagster.connectors.base import Place

        return Place(self.bench.root, self.bench.root / ".sqlflow/spool")


@pytest.fixture
def project(bench, database):
    return Project(bench, database)
