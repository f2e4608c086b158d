"""A local path → whether an export may put a file there: who may write, what is there, what room is left."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from sqlflow_dagster.connectors.base import Health
from sqlflow_dagster.connectors.discovered import Table
from sqlflow_dagster.connectors.local_database import Target
from sqlflow_dagster.sql import fold

# A disk with less than this is as good as full.
_LEAST_BYTES = 2**20


def health(path: Path, *, in_place: bool = False) -> Health:
    """Return whether a file may be made at `path`, or with `in_place` the one that is there written to.

    Facts: `exists`, `folder` (the nearest one that is there), `bytes` of the file, `free_bytes` of the disk.
    """
    folder = _nearest(path)
    facts: dict[str, str | int | float | bool] = {"exists": _is_there(path), "folder": str(folder)}
    if not folder.is_dir():
        return Health(
            ok=False, message=f"{folder} is a file, and no folder; name another target", facts=facts
        )
    shut = [folder] if not os.access(folder, os.W_OK | os.X_OK) else []
    if in_place and facts["exists"] and not os.access(path, os.R_OK | os.W_OK):
        shut.append(path)
    free = shutil.disk_usage(folder).free
    facts["free_bytes"] = free
    size = 0
    if facts["exists"] and path.is_file():
        size = facts["bytes"] = path.stat().st_size
    if shut:
        listed = " and ".join(map(str, shut))
        return Health(
            ok=False,
            message=f"{path}: this process may not write to {listed}; chown or chmod it, or name another target",
            facts=facts,
        )
    if free < _LEAST_BYTES:
        return Health(
            ok=False, message=f"{path}: the disk is full, {free:,} bytes are left; free some", facts=facts
        )
    said = f"{path} may be written, {free:,} bytes are free"
    if size > free:
        said += f"; it has {size:,} now, and what takes its place is written beside it: free some"
    return Health(ok=True, message=said, facts=facts)


def table_health(where: Target, default_schema: str, tables: Callable[[], Iterable[Table]]) -> Health:
    """Return whether a table of a database in a local file may be written; `tables` looks into a file that is there.

    Raises what `tables` raises.
    """
    found = health(where.path, in_place=True)
    if not (found.ok and found.facts["exists"]):
        return found
    listed = list(tables())
    wanted = (fold(where.schema or default_schema), fold(where.table))
    kinds = [table.kind for table in listed if (fold(table.schema), fold(table.name)) == wanted]
    facts = {**found.facts, "tables": len(listed), "table_exists": bool(kinds)}
    if "view" in kinds:
        return Health(
            ok=False, message=f"{where}: it is a view; drop it, or write another table", facts=facts
        )
    return replace(found, message=f"{where}: {found.message}", facts=facts)


def _nearest(path: Path) -> Path:
    """The nearest thing above that is there; what may not be looked into has nothing in it for us."""
    above = path.parent
    while not _is_there(above):
        above = above.parent
    return above


def _is_there(path: Path) -> bool:
    # Unlike Path.exists, it is False where we may not look.
    return os.path.exists(path)  # noqa: PTH110
