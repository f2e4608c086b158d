"""What botocore knows of the requests and regions of its services: its files, by quicker readers than its own.

They are megabytes of JSON, which took most of the time in which a client is made.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from botocore.loaders import JSONFileLoader, Loader
from isal import igzip
from pydantic_core import from_json


class _Files(JSONFileLoader):  # type: ignore[misc]  # botocore has no types
    def load_file(self, file_path: str) -> Any:
        plain, packed = Path(f"{file_path}.json"), Path(f"{file_path}.json.gz")
        if plain.is_file():
            return from_json(plain.read_bytes())
        if packed.is_file():
            return from_json(igzip.decompress(packed.read_bytes()))  # type: ignore[no-untyped-call]  # nor has isal here
        return None


class Models(Loader):  # type: ignore[misc]  # as above
    """What a session of botocore takes for its `data_loader`; it keeps what it has read."""

    FILE_LOADER_CLASS = _Files

    def list_available_services(self, type_name: str) -> list[str]:
        """Return all names that may be services: to know them, botocore looks into each of 400 folders."""
        del type_name
        folders = (folder for folder in map(Path, self.search_paths) if folder.is_dir())
        return sorted({item.name for folder in folders for item in folder.iterdir()})
