"""The hostile connector, installed as another package's, and runs that load from it."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from sqlflow_dagster.connectors import registry
from sqlflow_dagster.connectors.base import Arrow, JsonLines, Scan
from sqlflow_dagster.sql import Sql

CACHES = (registry.types, registry.find, registry._others)


@pytest.fixture(scope="session")
def hostile_package(tmp_path_factory):
    """A package on the path whose entry point brings the TYPE HOSTILE."""
    site = tmp_path_factory.mktemp("site")
    (site / "hostile.py").write_bytes(Path(__file__).with_name("hostile.py").read_bytes())
    metadata = site / "hostile-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[sqlflow_dagster.connectors]\nHOSTILE = hostile:Hostile\n")
    sys.path.insert(0, str(site))
    for cache in CACHES:
        cache.cache_clear()
    yield importlib.import_module("hostile")
    sys.path.remove(str(site))
    sys.modules.pop("hostile")
    for cache in CACHES:
        cache.cache_clear()


@pytest.fixture(scope="session")
def calculator():
    """A DuckDB that evaluates the SELECTs in which tests write their pages."""
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    yield connection
    connection.close()


@dataclass
class Hostile:
    """A project with one LOAD from the hostile source; `pages` are what its next read yields."""

    bench: Any
    far: Any
    connection: duckdb.DuckDBPyConnection
    kind: str = "scan"
    pages: list[Any] = field(default_factory=list)

    def __post_init__(self):
        self.far.answer = lambda _stream, _since: [self.batch(page) for page in self.pages]

    def batch(self, page, position=None):
        """A page is a SELECT, which becomes a batch of this kind; anything else is a batch already."""
        if not isinstance(page, str):
            return page
        match self.kind:
            case "scan":
                return Scan(Sql(page), position=position)
            case "arrow":
                return Arrow(self.table(page).to_reader(), position=position)
            case _:
                return self.lines(page, position)

    def table(self, select):
        return self.connection.execute(select).to_arrow_table()

    def lines(self, select, position=None):
        found = self.connection.execute(
            f"SELECT to_json(_whole)::VARCHAR FROM ({select}) AS _whole"
        ).fetchall()
        kinds = {row[0]: row[1] for row in self.connection.execute(f"DESCRIBE {select}").fetchall()}
        return JsonLines(["".join(f"{line}\n" for (line,) in found).encode()], kinds, position=position)

    def pipeline(self, mode="", **params):
        text = json.dumps({"far_side": "f", **params})
        self.bench.pipeline(f"SOURCE s TYPE HOSTILE PARAMS {text};\nLOAD t FROM s {mode};")

    def load(self, *pages, mode="", run=None, **params):
        """Run the LOAD over these pages, and return its outcome; an error is in it."""
        self.pages = list(pages)
        self.pipeline(mode, **params)
        return self.bench.run(**(run or {}))["t"]

    def ok(self, *pages, **given):
        outcome = self.load(*pages, **given)
        if outcome.error:
            raise outcome.error
        return outcome

    def rows(self, query="FROM p.t ORDER BY ALL"):
        return self.bench.query(query)

    def types(self):
        return {row[0]: row[1] for row in self.bench.query("DESCRIBE p.t")}


@pytest.fixture
def hostile(bench, hostile_package, calculator):
    """A hostile source whose pages are Scans."""
    far = hostile_package.FAR_SIDES["f"] = hostile_package.FarSide()
    return Hostile(bench, far, calculator)


@pytest.fixture(params=["scan", "arrow", "json"])
def each_kind(request, hostile):
    """The same source with its pages as each kind of batch."""
    hostile.kind = request.param
    return hostile


def arrow(names, *columns):
    """An Arrow batch of columns with any names."""
    return Arrow(pa.table(list(map(pa.array, columns)), names=list(names)).to_reader())
