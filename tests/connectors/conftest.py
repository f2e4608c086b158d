"""A project's folder, and a plain DuckDB that runs what connectors yield."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from sqlflow_dagster.connectors import registry
from sqlflow_dagster.connectors.base import Arrow, Place, Scan, Span, Unmoved
from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.errors import SourceFailed
from tests.object_store import bucket, object_store  # noqa: F401 - fixtures


def load(connection, name):
    """Load an extension from its wheel."""
    name = {"sqlite": "sqlite_scanner"}.get(name, name)
    if name in ("json", "parquet", "icu"):
        return
    package = importlib.util.find_spec(f"duckdb_extension_{name}")
    folder = Path(package.submodule_search_locations[0], "extensions", f"v{duckdb.__version__}")
    connection.execute(f"LOAD '{folder / name}.duckdb_extension'")


@dataclass
class Result:
    """What the batches of one read hold together."""

    columns: dict
    rows: list
    position: object = None
    replaces: tuple = ()
    rejects: list | None = None


class Table:
    """Takes batches the way the warehouse does: each described, then stored by name."""

    def __init__(self):
        self.connection = duckdb.connect()
        self.connection.execute("SET TimeZone = 'UTC'")
        self.made = False
        self.position = None
        self.replaces = ()
        self.rejects = []

    def take(self, batch):
        if isinstance(batch, Scan):
            for name in batch.extensions:
                load(self.connection, name)
            for database in batch.attach:
                self.connection.execute(
                    f"ATTACH '{database.url}' AS {database.name} (TYPE {database.type}, READ_ONLY)"
                )
            self.replaces += tuple(batch.replaces)
            try:
                query = batch.query(self._ask) if callable(batch.query) else batch.query
                self._store(f"({query}\n)", list(batch.parameters))
            except duckdb.Error as error:
                text = str(error)
                raise SourceFailed(batch.explain(text) if batch.explain else text) from error
            if batch.rejects:
                self._take_out(batch.rejects)
            for database in batch.attach:
                self.connection.execute(f"DETACH {database.name}")
        elif isinstance(batch, Arrow):
            self.connection.register("arrow_batch", batch.reader)
            self._store("arrow_batch", [])
            self.connection.unregister("arrow_batch")
        else:
            assert isinstance(batch, Unmoved)
        self.position = batch.position or self.position

    def _take_out(self, rejects):
        """Set the bad rows aside as (reason, place, raw)."""
        column = rejects.column
        bad = self.connection.execute(
            f"SELECT {column}.reason, {column}.file, {column}.fields FROM t WHERE {column} IS NOT NULL"
        ).fetchall()
        self.rejects += [tuple(aside) for aside in rejects.found(bad)]
        self.connection.execute(f"DELETE FROM t WHERE {column} IS NOT NULL")
        self.connection.execute(f"ALTER TABLE t DROP COLUMN {column}")
        lines = self.connection.execute(
            "SELECT any_value(error_message), any_value(file_path), e.line, any_value(csv_line)"
            " FROM _sqlflow_rejects AS e JOIN _sqlflow_reject_scans USING (scan_id, file_id) GROUP BY file_id, e.line"
        ).fetchall()
        self.rejects += [tuple(aside) for aside in rejects.unread(lines)]

    def _ask(self, query):
        return self.connection.execute(query).fetchall()

    def _store(self, relation, parameters):
        self.connection.execute(f"DESCRIBE FROM {relation}", parameters)
        if self.made:
            self.connection.execute(f"INSERT INTO t BY NAME SELECT * FROM {relation} AS batch", parameters)
        else:
            self.connection.execute(f"CREATE TABLE t AS SELECT * FROM {relation} AS batch", parameters)
        self.made = True

    def result(self):
        if not self.made:
            return Result({}, [], self.position, self.replaces)
        columns = {row[0]: row[1] for row in self.connection.execute("DESCRIBE t").fetchall()}
        rows = self.connection.execute("SELECT * FROM t").fetchall()
        return Result(columns, rows, self.position, self.replaces, self.rejects)


@dataclass
class Folder:
    """A project's root with its files, and connectors opened in it."""

    root: Path
    allowed: tuple = ()

    @property
    def place(self):
        return Place(self.root, self.root / ".sqlflow/spool", self.allowed)

    def write(self, path, text):
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def open(self, type_, **params):
        kind = registry.find(type_)
        return kind(parse(kind.options_type, params)[0], self.place)

    def read(self, type_, since=None, span=None, **params):
        table = Table()
        with self.open(type_, **params) as source:
            stream = source.streams()[0]
            for batch in source.read_within(stream, since, span or Span()):
                table.take(batch)
        result = table.result()
        table.connection.close()
        return result

    def rows(self, type_, **params):
        return self.read(type_, **params).rows


@pytest.fixture
def folder(tmp_path):
    """An empty project."""
    root = tmp_path / "shop"
    root.mkdir()
    return Folder(root)
