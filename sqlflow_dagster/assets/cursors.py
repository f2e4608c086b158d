"""The users' copy of the cursors: Dagster's run storage behind the `Store` of a run.

The API is not a public one of Dagster's, so it is used here only, one key a call: a mix of old and
new keys in one call silently loses the new ones on SQLite and in memory, and deadlocks on Postgres.
"""

from __future__ import annotations

from dataclasses import dataclass

from dagster import DagsterInstance


@dataclass(frozen=True, slots=True)
class RunStorage:
    """A `Store` in the run storage of a Dagster instance. It survives the deletion of runs."""

    instance: DagsterInstance

    def get(self, key: str) -> str | None:
        """Return the text under `key`, None where there is none."""
        return self.instance.run_storage.get_cursor_values({key}).get(key) or None

    def set(self, key: str, value: str) -> None:
        """Store the text under `key`."""
        self.instance.run_storage.set_cursor_values({key: value})
