"""The objects in a configuration of Airbyte's source-s3 → the parameters that they stand for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

Given = Mapping[str, Any]

_TYPES = {
    "string": "VARCHAR", "number": "DOUBLE", "integer": "BIGINT", "boolean": "BOOLEAN", "object": "JSON",
    "array": "JSON",
}  # fmt: skip
# What has its meaning below, or says how Airbyte looks for files and changes no row.
_TAKEN = frozenset(
    {"name", "globs", "legacy_prefix", "path_prefix", "input_schema", "schemaless", "storage", "validation_policy",
     "days_to_sync_if_history_is_full", "recent_n_files_to_read_for_schema_discovery",
     "use_first_found_file_for_schema_discovery"}
)  # fmt: skip


def stream(given: Given, _beside: Given) -> Given:
    """Return the parameters of an entry of `streams`. Raises ValueError for what cannot be read as it says."""
    if given.get("schemaless"):
        raise ValueError("schemaless: each field is a column here; leave it out")
    named = {"stream": given.get("name"), "types": _types(given.get("input_schema"))}
    return {
        **_rest(given),
        **_told(named),
        **_keys(given.get("globs") or ["**"], given.get("legacy_prefix") or ""),
    }


def provider(given: Given, beside: Given) -> Given:
    """Return the parameters of `provider`, with what stands beside it in the configurations of older releases."""
    patterns = str(beside.get("path_pattern") or "**").split("|")
    types = {"schema": _types(beside["schema"])} if isinstance(beside.get("schema"), str) else {}
    return {
        **_rest(given),
        **_told({"stream": beside.get("dataset")}),
        **types,
        **_keys(patterns, given.get("path_prefix") or ""),
    }


def delivery(given: Given, _beside: Given) -> Given:
    """Return nothing for records. Raises ValueError for the delivery of whole files."""
    if given.get("delivery_type", "use_records_transfer") != "use_records_transfer":
        raise ValueError(f"{given['delivery_type']}: objects are read as rows here; leave it out")
    return {}


def _rest(given: Given) -> dict[str, Any]:
    """What stands for itself."""
    return _told({name: value for name, value in given.items() if name not in _TAKEN})


def _told(given: Given) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value not in (None, "", {})}


def _keys(globs: Sequence[str], prefix: str) -> dict[str, Any]:
    """The globs of keys that all begin with a prefix."""
    stray = [glob for glob in globs if not glob.startswith((prefix, "**"))]
    if stray:
        raise ValueError(f"{stray[0]!r} does not begin with the prefix {prefix!r}")
    return {"key": [glob if glob.startswith(prefix) else f"{prefix}{glob}" for glob in globs]}


def _types(schema: Any) -> dict[str, str]:
    """DuckDB's types of a schema, which is an object's text."""
    if not schema:
        return {}
    try:
        found = json.loads(schema) if isinstance(schema, str) else dict(schema)
        return {name: _TYPES[kind] for name, kind in found.items()}
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(
            f"the schema {schema!r} is no object of names and types ({', '.join(_TYPES)})"
        ) from error
