"""The users' copy of the cursors: Dagster's run storage behind the `Store` of a run.

The API is not a public one of Dagster's, so it is used here only, one key a call: a mix of old and
new keys in one call silently loses the new ones on SQLite and in memory, and deadlocks on Postgres.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from dagster import DagsterInstance

from sqlflow_dagster.errors import RunStorageFailed


@dataclass(frozen=True, slots=True)
class RunStorage:
    """A `Store` in the run storage of a Dagster instance. It survives the deletion of runs.

    Threads take turns: in memory, where Dagster keeps it without a home, SQLite refuses a second one at once.
    """

    instance: DagsterInstance
    _turn: Lock = field(default_factory=Lock, repr=False, compare=False)

    def get(self, key: str) -> str | None:
        """Return the text under `key`, None where there is none. Raises RunStorageFailed."""
        with self._turn, _told():
            return self.instance.run_storage.get_cursor_values({key}).get(key) or None

    def set(self, key: str, value: str) -> None:
        """Store the text under `key`. Raises RunStorageFailed."""
        with self._turn, _told():
            self.instance.run_storage.set_cursor_values({key: value})


@contextmanager
def _told() -> Iterator[None]:
    """Raise what the database of the run storage raises as an error of ours."""
    try:
        yield
    except _errors() as error:
        reason = str(error).partition("\n")[0]
        raise RunStorageFailed(
            f"Dagster's run storage failed ({reason}); rows and cursors are safe in the warehouse. "
            "Look whether its database answers, then run again"
        ) from error


def _errors() -> tuple[type[Exception], ...]:
    """What a run storage raises; the storage has imported it by then."""
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - slow, and loading definitions needs none

    # After a few tries at a lost connection, a storage on Postgres raises an error of its own.
    postgres = getattr(sys.modules.get("dagster_postgres.utils"), "DagsterPostgresException", SQLAlchemyError)
    return SQLAlchemyError, postgres
