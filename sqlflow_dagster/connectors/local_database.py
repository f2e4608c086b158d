"""What databases in one local file share: where the file is, whether it stays as it is, and targets in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from sqlflow_dagster.connectors import parameters
from sqlflow_dagster.connectors.base import Place
from sqlflow_dagster.connectors.options import Options
from sqlflow_dagster.connectors.paths import inside, written
from sqlflow_dagster.connectors.tables import TableOptions
from sqlflow_dagster.errors import BadOption, RetryLater, SourceFailed

# The catalogue's name while a file is attached.
SOURCE = "_sqlflow_source"
_WAL_HEADER = 32


class LocalOptions(TableOptions):
    """The file, beside which of its tables are read."""

    aliases: ClassVar[Mapping[str, str]] = {
        "database": "path", "file_path": "path", "filepath": "path", "file": "path", "filename": "path",
        "db": "path", "db_path": "path", "database_path": "path", "url": "path", "uri": "path", "location": "path",
        "connection": "path", "connection_string": "path",
    }  # fmt: skip
    idle: ClassVar[Mapping[str, str]] = {
        "batch_size": "it is not needed here, DuckDB streams the rows in batches of its own",
        "rate_limit": "it is not needed here, a local file takes no requests",
    }

    path: str = Field(
        min_length=1, description="The database's file, relative to the project; also as `sqlite:///file`."
    )


class LocalSinkOptions(Options):
    """Which table an export writes, and how."""

    aliases: ClassVar[Mapping[str, str]] = {
        "table_name": "table", "write_mode": "mode", "if_exists": "mode",
        "key": "keys", "primary_key": "keys", "unique_key": "keys", "upsert_keys": "keys",
    }  # fmt: skip

    table: str | None = Field(
        None, min_length=1, description="The table, where the target names the file alone."
    )
    mode: Annotated[Literal["replace", "append", "upsert"], BeforeValidator(parameters.sink_mode)] = Field(
        "replace", description="`replace` the table, `append` to it, or `upsert` rows by `keys`."
    )
    keys: Annotated[tuple[str, ...], BeforeValidator(parameters.keys)] = Field(
        (), description="Columns that name a row, for `upsert`."
    )


@dataclass(frozen=True, slots=True)
class Target:
    """A table of a local file; `schema` None is the default one."""

    path: Path
    schema: str | None
    table: str

    def __str__(self) -> str:
        """The table and its file, for people."""
        return f"{self.schema}.{self.table} in {self.path}" if self.schema else f"{self.table} in {self.path}"


@dataclass(frozen=True, slots=True)
class Footprint:
    """What tells whether a file was written to: sizes, times, and the head of an SQLite log."""

    path: Path
    seen: tuple[object, ...]

    def unchanged(self) -> None:
        """Raise RetryLater where the file was written to since.

        Locks do not keep writers out for sure: a process loses those of a file as soon as anything in
        it closes that file.
        """
        if _seen(self.path) != self.seen:
            raise RetryLater(
                f"{self.path}: it was written to while it was read; read it when its writer is done", after=5
            )


def footprint(path: Path) -> Footprint:
    """Return the state of a database file as it is now."""
    return Footprint(path, _seen(path))


def database(place: Place, path: str) -> Path:
    """Return the real path of a source's file.

    Raises NotAllowed outside the project, SourceFailed where there is no such file, and BadOption for
    the project's own warehouse.
    """
    file = without_scheme(path, ("duckdb", "sqlite"))
    found = _not_the_warehouse(place, inside(place, file), "its tables are read by SQL as they are")
    if not found.is_file():
        there = sorted(entry.name for entry in found.parent.iterdir())[:5] if found.parent.is_dir() else []
        raise SourceFailed(
            f"{path}: there is no such file; {found.parent} has {', '.join(there) or 'nothing'}; mend `path`"
        )
    return found


def located(place: Place, target: str, table: str | None, schemes: Sequence[str]) -> Target:
    """Return the table that a target names: `duckdb://data/out.duckdb/table`, or a file and a `table`.

    Raises BadOption where there is no table or two, NotAllowed outside the project.
    """
    parts = without_scheme(target, schemes).replace("#", "/").split("/")
    at = next((index for index, part in enumerate(parts) if _is_file(part)), len(parts) - 1)
    file, named = "/".join(parts[: at + 1]), ".".join(part for part in parts[at + 1 :] if part)
    if named and table:
        raise BadOption(
            f"table: the target names the table {named!r} already; keep one of them", option="table"
        )
    if not (named or table):
        raise BadOption(
            f"the target {target!r} names no table; write e.g. {schemes[0]}://{file}/orders, or OPTIONS "
            '{"table": "orders"}',
            option="table",
        )
    schema, dot, name = (named or table or "").rpartition(".")
    _not_the_warehouse(place, inside(place, file), "make a table by CREATE TABLE instead")
    path = written(place, file)
    if path.is_dir():
        raise BadOption(f"the target {target!r} is a folder; name a file in it")
    return Target(path, schema if dot else None, name)


def without_scheme(text: str, schemes: Sequence[str]) -> str:
    """Return the path of a URL: `sqlite:///file` is relative and `sqlite:////file` absolute, as in SQLAlchemy."""
    scheme, separator, rest = text.partition("://")
    return rest.removeprefix("/") if separator and scheme.lower() in schemes else text


def _is_file(part: str) -> bool:
    return Path(part).suffix.lower() in (".duckdb", ".ddb", ".db", ".sqlite", ".sqlite3", ".db3")


def _not_the_warehouse(place: Place, path: Path, advice: str) -> Path:
    own = place.warehouse
    if own is not None and (path == own.resolve() or (path.exists() and own.exists() and path.samefile(own))):
        raise BadOption(f"{path} is the project's own warehouse; {advice}", option="path")
    return path


def _seen(path: Path) -> tuple[object, ...]:
    return (
        *_status(path),
        *_status(path.with_name(path.name + ".wal")),
        _head(path.with_name(path.name + "-wal")),
    )


def _status(path: Path) -> tuple[int, ...]:
    try:
        status = path.stat()
    except FileNotFoundError:
        return ()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_WAL_HEADER)
    except FileNotFoundError:
        return b""
