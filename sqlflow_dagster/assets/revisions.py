"""Dagster's alembic revisions, read once while an instance is open.

Dagster asks alembic for them whenever it opens a database: five times until a run's first step, that has a
database of its own. Each time alembic executes all of them, which takes 20 ms.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alembic.config import Config
from alembic.script import ScriptDirectory

_DAGSTERS = "dagster:"
# As alembic has it, also where blocks of two threads overlap.
_from_config = ScriptDirectory.from_config


@contextmanager
def read_once() -> Iterator[None]:
    """Give each caller in the block the same revisions, where they are Dagster's."""
    known: dict[str, ScriptDirectory] = {}

    def from_config(config: Config) -> ScriptDirectory:
        location = config.get_main_option("script_location") or ""
        if not location.startswith(_DAGSTERS):
            return _from_config(config)
        if location not in known:
            known[location] = _from_config(config)
        return known[location]

    ScriptDirectory.from_config = from_config  # type: ignore[method-assign]
    try:
        yield
    finally:
        ScriptDirectory.from_config = _from_config  # type: ignore[method-assign]
