"""A connector with several ordered streams that are read page by page: `data/ledger/<stream>.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from sqlflow_dagster.connectors.base import Connector, Health, JsonLines, Stream
from sqlflow_dagster.connectors.options import SourceOptions
from sqlflow_dagster.cursor import Cursor

PAGE = 3
STREAMS = ("paid", "owed", "moved")
COLUMNS = {"id": "BIGINT", "at": "TIMESTAMP", "v": "VARCHAR"}


class LedgerOptions(SourceOptions):
    folder: str


class Ledger(Connector[LedgerOptions]):
    options_type: ClassVar = LedgerOptions
    family: ClassVar = "api"

    def streams(self):
        return [Stream(name, ("id",), "at", COLUMNS, ordered=True) for name in STREAMS]

    def read(self, stream, since):
        rows = json.loads((self.place.root / self.options.folder / f"{stream.name}.json").read_text())
        rows = sorted(
            (row for row in rows if since is None or row["at"] >= since.value), key=lambda row: row["at"]
        )
        for start in range(0, max(1, len(rows)), PAGE):
            page = rows[start : start + PAGE]
            position = Cursor(page[-1]["at"], "TIMESTAMP") if page else None
            yield JsonLines([b"".join(json.dumps(row).encode() + b"\n" for row in page)], COLUMNS, position)

    def check(self):
        return Health(ok=True, message="there")


def install(site):
    """Make the connector known by an entry point, as others' packages are, in the folder `site`."""
    metadata = site / "ledger-1.dist-info"
    metadata.mkdir(parents=True)
    (site / "ledger.py").write_bytes(Path(__file__).read_bytes())
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ledger\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[sqlflow_dagster.connectors]\nLEDGER = ledger:Ledger\n")
