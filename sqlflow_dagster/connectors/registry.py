"""A TYPE's name → its connector class, a target's suffix or scheme → the TYPE that writes it.

Ours are modules beside this one; others' come by the entry-point group
`sqlflow_dagster.connectors`. Listing them imports none.
"""

from __future__ import annotations

import difflib
import importlib
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from inspect import isabstract, isclass
from pathlib import Path
from typing import Any

from sqlflow_dagster.connectors.base import Connector
from sqlflow_dagster.errors import BadOption

GROUP = "sqlflow_dagster.connectors"
# Each is the module of its name beside this one; the other modules are shared by them.
_OWN = (
    "AVRO", "CSV", "DUCKDB", "EXCEL", "IN_MEMORY", "JSON", "JSONL", "MYSQL", "PARQUET", "POSTGRES", "S3", "SQLITE",
    "TSV",
)  # fmt: skip
_ALIASES = {
    "POSTGRESQL": "POSTGRES", "MARIADB": "MYSQL", "XLSX": "EXCEL", "NDJSON": "JSONL", "JSON_LINES": "JSONL",
    "SQLITE3": "SQLITE", "S3_COMPATIBLE": "S3", "MINIO": "S3", "MEMORY": "IN_MEMORY", "INMEMORY": "IN_MEMORY",
}  # fmt: skip
_SUFFIXES = {
    ".csv": "CSV", ".tsv": "TSV", ".tab": "TSV", ".json": "JSON", ".jsonl": "JSONL", ".ndjson": "JSONL",
    ".parquet": "PARQUET", ".pq": "PARQUET", ".xlsx": "EXCEL", ".xlsm": "EXCEL", ".duckdb": "DUCKDB", ".ddb": "DUCKDB",
    ".sqlite": "SQLITE", ".avro": "AVRO", ".sqlite3": "SQLITE",
}  # fmt: skip
_COMPRESSIONS = {".gz", ".zst", ".zstd", ".bz2", ".xz", ".lz4", ".br", ".snappy"}
_SCHEMES = {
    "s3": "S3", "s3a": "S3", "postgres": "POSTGRES", "postgresql": "POSTGRES", "mysql": "MYSQL",
    "mariadb": "MYSQL", "http": "REST", "https": "REST", "duckdb": "DUCKDB", "sqlite": "SQLITE", "memory": "IN_MEMORY",
}  # fmt: skip


@cache
def types() -> tuple[str, ...]:
    """Return the names of all connector types, sorted; nothing is imported for it."""
    return tuple(sorted({*_OWN, *_others()}))


@cache
def find(type: str) -> type[Connector[Any]]:  # noqa: A002 - the language's word
    """Return the connector class of a TYPE; the case does not matter.

    Raises BadOption naming the nearest types where there is none.
    """
    name = type.upper()
    name = _ALIASES.get(name, name)
    if name not in types():
        near = difflib.get_close_matches(name, types(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(types())}"
        raise BadOption(f"no connector has the TYPE {type}; {hint}", option="type")
    if name in _others():
        return _loaded(_others()[name])
    module = importlib.import_module(f"{__package__}.{name.lower()}")
    return next(
        item
        for item in vars(module).values()
        if isclass(item)
        and issubclass(item, Connector)
        and item.__module__ == module.__name__
        and not isabstract(item)
        and "options_type" in vars(item)
    )


def type_for_target(target: str) -> str | None:
    """Return the TYPE that a target's scheme or suffix says, None where it says none we have."""
    scheme, separator, rest = target.partition("://")
    if separator and scheme.lower() != "file":
        found = _SCHEMES.get(scheme.lower())
        return found if found in types() else None
    path = Path((rest if separator else target).rstrip("/"))
    suffixes = [suffix.lower() for suffix in path.suffixes]
    while suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return _SUFFIXES.get(suffixes[-1]) if suffixes else None


@cache
def _others() -> dict[str, EntryPoint]:
    return {point.name.upper(): point for point in entry_points(group=GROUP)}


def _loaded(point: EntryPoint) -> type[Connector[Any]]:
    try:
        found = point.load()
    except ImportError as error:
        raise BadOption(
            f"TYPE {point.name} of {point.value} cannot be imported: {error}; install what it needs",
            option="type",
        ) from error
    if not (isclass(found) and issubclass(found, Connector)):
        raise BadOption(f"TYPE {point.name}: {point.value} is no Connector class", option="type")
    return found
