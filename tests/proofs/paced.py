"""A connector whose reads a test can hold: `PACED`, streams of pages in `data/paced/<stream>.json`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import ClassVar

from sqlflow_dagster.connectors.base import Connector, Health, JsonLines, Stream
from sqlflow_dagster.connectors.options import SourceOptions
from sqlflow_dagster.cursor import Cursor

COLUMNS = {"id": "BIGINT", "ts": "TIMESTAMP"}


class PacedOptions(SourceOptions):
    streams: tuple[str, ...]
    ordered: bool = True
    seconds_a_page: float = 0
    meet: int = 0  # how many readers wait for each other before the first page


class Paced(Connector[PacedOptions]):
    """A page is a list of `[id, at]`; each stands in cursor order."""

    options_type: ClassVar = PacedOptions
    family: ClassVar = "api"

    def streams(self):
        return [
            Stream(name, ("id",), "ts", COLUMNS, ordered=self.options.ordered)
            for name in self.options.streams
        ]

    def read(self, stream, since):
        folder = self.place.root / "data" / "paced"
        pages = json.loads((folder / f"{stream.name}.json").read_text())
        if self.options.meet:
            _meet(folder / f"{stream.name}.readers", self.options.meet)
        for page in pages:
            rows = [row for row in page if since is None or row[1] >= since.value]
            time.sleep(self.options.seconds_a_page)
            with (folder / f"{stream.name}.pages").open("a") as told:
                told.write(".")
            if rows:
                lines = (json.dumps(dict(zip(COLUMNS, row, strict=True))).encode() + b"\n" for row in rows)
                yield JsonLines([b"".join(lines)], COLUMNS, Cursor(rows[-1][1], "TIMESTAMP"))

    def check(self):
        return Health(ok=True, message="there")


def _meet(place, readers):
    with place.open("a") as file:
        file.write(".")
    deadline = time.monotonic() + 30
    while place.stat().st_size < readers and time.monotonic() < deadline:
        time.sleep(0.01)


def install(site):
    metadata = site / "paced-1.dist-info"
    metadata.mkdir(parents=True)
    (site / "paced.py").write_bytes(Path(__file__).read_bytes())
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: paced\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[sqlflow_dagster.connectors]\nPACED = paced:Paced\n")
