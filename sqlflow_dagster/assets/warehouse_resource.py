"""A project's warehouse as dagster-duckdb's `DuckDBResource`, for assets written in Python beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from dagster_duckdb import DuckDBResource
from pydantic import Field

from sqlflow_dagster.errors import SettingsError
from sqlflow_dagster.project import warehouse_of
from sqlflow_dagster.settings import load_settings

if TYPE_CHECKING:
    from sqlflow_dagster.warehouse.duckdb import Connection


class WarehouseResource(DuckDBResource):
    """Connections to a project's warehouse that take turns with the project's own steps.

    Its type is dagster-duckdb's, so that assets ask for it as `duckdb: DuckDBResource`. A plain
    `DuckDBResource` on the same file works too, but fails where a step holds the file for longer
    than its few attempts; this one waits `engines.duckdb.lock_timeout_seconds`.
    """

    project: str = Field(description="The project's folder.")
    profile: str | None = Field(None, description="The profile; the project's default without it.")

    @contextmanager
    def get_connection(self) -> Iterator[Connection]:
        """Connect under the warehouse's lock; pipelines' tables are `schema.table`.

        Raises WarehouseBusy where another process holds the file, which is named.
        """
        with warehouse_of(load_settings(self.project, self.profile)).open() as connection:
            # What runs here is the user's own Python, so it may query its own variables.
            connection.execute("SET python_enable_replacements = true")
            yield connection


def warehouse_resource(project: Path | str, profile: str | None = None) -> WarehouseResource:
    """Return the warehouse of a project as a resource, to be given as `resources={"duckdb": …}`.

    Raises SettingsError where the profile keeps the warehouse in memory: there is no file to share.
    """
    settings = load_settings(project, profile)
    if settings.database is None:
        raise SettingsError(
            f"{project}: the profile {settings.environment!r} keeps its warehouse in memory, which only the steps of "
            "one run share; set engines.duckdb.path"
        )
    return WarehouseResource(
        database=str(settings.database), project=str(settings.root), profile=settings.environment
    )
