"""The name of a service of libpq → the parts of a connection that its file says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from configparser import Error, RawConfigParser
from pathlib import Path

from sqlflow_dagster.errors import BadOption


def parts(name: str) -> dict[str, str] | None:
    """Return what the files of services say of one, in libpq's words; None where they do not have it.

    Raises BadOption where a file cannot be read.
    """
    for path in _files():
        # A section that nobody has: to libpq none is the others' default.
        found = RawConfigParser(
            delimiters=("=",), comment_prefixes=("#",), default_section="\0", strict=False
        )
        try:
            found.read(path, encoding="utf-8")
        except (Error, UnicodeDecodeError) as error:
            raise BadOption(
                f"connection: the file of services {path} cannot be read", option="connection"
            ) from error
        if found.has_section(name):
            return dict(found.items(name))
    return None


def _files() -> Iterator[Path]:
    """The user's file, then the system's."""
    yield Path(os.environ.get("PGSERVICEFILE") or "~/.pg_service.conf").expanduser()
    if folder := os.environ.get("PGSYSCONFDIR"):
        yield Path(folder, "pg_service.conf")
