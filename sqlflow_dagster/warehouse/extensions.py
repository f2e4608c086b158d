"""An extension's name → loaded into a connection, without the internet where its wheel is installed."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.errors import WarehouseError
from sqlflow_dagster.sql import literal, quote, sql

# The names DuckDB itself goes by, which are not those of the wheels.
_ALIASES = {"postgres": "postgres_scanner", "sqlite": "sqlite_scanner", "mysql": "mysql_scanner"}
_BUILT_IN = frozenset({"core_functions", "icu", "json", "parquet"})


def private() -> DuckDBPyConnection:
    """Return a connection to an in-memory database of its own, for statements of ours alone.

    It takes the extensions that pip has installed as they are, as Python takes DuckDB itself. DuckDB
    would read all of such a file for each connection, 40 MB, to check its signature: longer than a
    small table takes to load.
    """
    return duckdb.connect(":memory:", config={"allow_unsigned_extensions": True})


def load_extensions(connection: DuckDBPyConnection, names: Iterable[str]) -> None:
    """Load each extension: from its pip-installed wheel, else from DuckDB's own store.

    Raises WarehouseError that says which package to install.
    """
    for name in dict.fromkeys(_ALIASES.get(name, name) for name in names):
        if name in _BUILT_IN:
            continue
        path = wheel(name)
        try:
            if path is None:
                _install(name)
                connection.execute(sql("LOAD {name}", name=quote(name)))
            else:
                connection.execute(sql("LOAD {path}", path=literal(str(path))))
        except duckdb.Error as error:
            raise WarehouseError(
                f"DuckDB's extension {name} cannot be loaded: {error}; "
                f"pip install duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__}"
            ) from error


@cache
def _install(name: str) -> None:
    """Fetch an extension from DuckDB's store, by a connection that checks its signature; once a process."""
    with duckdb.connect(":memory:") as connection:
        connection.execute(sql("INSTALL {name}", name=quote(name)))
        connection.execute(sql("LOAD {name}", name=quote(name)))


def wheel(name: str) -> Path | None:
    """Return the extension file that pip installed for this very DuckDB, None where there is none."""
    package = find_spec(f"duckdb_extension_{name}")
    if package is None or not package.submodule_search_locations:
        return None
    file = Path(package.submodule_search_locations[0], "extensions", f"v{duckdb.__version__}")
    path = file / f"{name}.duckdb_extension"
    return path if path.is_file() else None
