"""The tables that discovery found → a file in the project's state folder, and back.

The file is safe to delete: `sqlflow discover` and `sqlflow run` make it anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlflow_dagster.errors import SourceFailed

log = logging.getLogger(__name__)

_VERSION = 1
_FOLDER = "tables"


@dataclass(frozen=True, slots=True)
class Table:
    """One table or view of a source. `columns` maps names to DuckDB types, in order."""

    schema: str
    name: str
    primary_key: tuple[str, ...] = ()
    columns: Mapping[str, str] = field(default_factory=dict)
    kind: str = "table"
    description: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """Where the tables of one source are kept. `looked_for` tells one source from another."""

    state: Path
    type: str
    looked_for: Mapping[str, Any]

    @property
    def path(self) -> Path:
        """The file, named by what was looked for."""
        text = json.dumps([self.type, self.looked_for], sort_keys=True)
        return (
            self.state
            / _FOLDER
            / f"{self.type.lower()}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        )


def save(file: File, tables: Sequence[Table]) -> None:
    """Keep the tables, whole or not at all. Raises SourceFailed where the folder cannot be written."""
    document = {
        "version": _VERSION,
        "type": file.type,
        "looked_for": file.looked_for,
        "discovered_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "tables": [asdict(table) for table in tables],
    }
    _write(file.path, document)


def packed(state: Path) -> str:
    """Return all that is kept in a state folder as one text, for another machine to `unpack`."""
    documents = {path.name: _document(path) for path in sorted((state / _FOLDER).glob("*.json"))}
    return json.dumps({"version": _VERSION, "tables": {k: v for k, v in documents.items() if v}})


def unpack(state: Path, text: str) -> None:
    """Keep what another machine has found, but for what was found here later.

    Raises SourceFailed for a text that is no such one, and where the folder cannot be written.
    """
    try:
        documents = json.loads(text)["tables"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceFailed(f"what was found elsewhere cannot be read ({error}); refresh it") from error
    for name, document in documents:
        path = state / _FOLDER / Path(name).name
        known = _document(path)
        if known is None or known["discovered_at"] < document["discovered_at"]:
            _write(path, document)


def _document(path: Path) -> dict[str, Any] | None:
    """What is kept in a file, None where nothing is that can be read."""
    try:
        document: dict[str, Any] = json.loads(path.read_text("utf-8"))
        return document if document["version"] == _VERSION and document["discovered_at"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, document: Mapping[str, Any]) -> None:
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}")
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as out:
            json.dump(document, out, ensure_ascii=False, indent=1)
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    except OSError as error:
        raise SourceFailed(
            f"{path}: the tables found cannot be kept ({error.strerror}); the folder must be writable"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def load(file: File) -> tuple[Table, ...] | None:
    """Return the tables kept, None where there are none or the file is no such document."""
    try:
        document = json.loads(file.path.read_text("utf-8"))
        if document["version"] != _VERSION:
            return None
        return tuple(_table(item) for item in document["tables"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read (%s); the tables are to be looked up anew", file.path, error)
        return None


def _table(item: Mapping[str, Any]) -> Table:
    return Table(**{**item, "primary_key": tuple(item["primary_key"])})
