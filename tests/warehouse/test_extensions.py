"""Extensions come from their wheels as they are, and from DuckDB's store with their signature checked."""

import shutil
import sqlite3
from contextlib import closing

import duckdb
import pytest

from sqlflow_dagster.connectors.base import Attach
from sqlflow_dagster.errors import WarehouseError
from sqlflow_dagster.warehouse import extensions
from sqlflow_dagster.warehouse.duckdb import attach_all
from sqlflow_dagster.warehouse.extensions import load_extensions, private

from .conftest import Depot

NAME = "sqlite_scanner"


@pytest.fixture
def unsigned(tmp_path):
    """An extension whose signature, the file's last 256 bytes, is another's."""
    file = tmp_path / f"{NAME}.duckdb_extension"
    shutil.copy(extensions.wheel(NAME), file)
    with file.open("r+b") as whole:
        whole.seek(-256, 2)
        whole.write(bytes(256))
    return file


def test_an_extension_is_loaded_from_its_wheel(tmp_path):
    with closing(sqlite3.connect(tmp_path / "s.db")) as database:
        database.execute("CREATE TABLE t (a INTEGER)")
        database.execute("INSERT INTO t VALUES (7)")
        database.commit()
    with closing(private()) as connection:
        load_extensions(connection, ["sqlite"])
        attach_all(connection, [Attach(str(tmp_path / "s.db"), "far", "sqlite")])
        assert connection.execute("FROM far.t").fetchall() == [(7,)]
        with pytest.raises(duckdb.Error, match="read-only"):
            connection.execute("INSERT INTO far.t VALUES (8)")


def test_what_pip_installed_is_taken_as_it_is_by_loads_alone(tmp_path, unsigned, monkeypatch):
    monkeypatch.setattr(extensions, "wheel", lambda _name: unsigned)
    with closing(private()) as connection:
        load_extensions(connection, ["sqlite"])
    warehouse = Depot(tmp_path).warehouse
    for opened in (warehouse.open, warehouse.open_locked_down, warehouse.scratch):
        with opened() as connection, pytest.raises(WarehouseError, match=r"signature|disabled"):
            load_extensions(connection, ["sqlite"])


def test_what_comes_from_the_store_must_be_signed(tmp_path, unsigned, monkeypatch):
    version, (platform,) = duckdb.__version__, duckdb.sql("PRAGMA platform").fetchone()
    store = tmp_path / ".duckdb/extensions" / f"v{version}" / platform
    store.mkdir(parents=True)
    shutil.copy(unsigned, store)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(extensions, "wheel", lambda _name: None)
    extensions._install.cache_clear()
    with closing(private()) as connection, pytest.raises(WarehouseError, match="signature"):
        load_extensions(connection, ["sqlite"])
