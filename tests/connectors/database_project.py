"""A project that reads one table or query of a database."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlflow_dagster.connectors.base import Place


@dataclass
class DatabaseProject:
    """A SOURCE called `name` of a TYPE, at a test's own database; `bench` is the project's folder."""

    bench: object
    database: object
    type: str
    name: str

    def source(self, **params) -> str:
        params = {"connection": self.database.url, **params}
        params = {name: value for name, value in params.items() if value is not None}
        return f"SOURCE {self.name} TYPE {self.type} PARAMS {json.dumps(params)};\n"

    def pipeline(self, load: str | None = None, **params) -> None:
        self.bench.pipeline(self.source(**params) + (load or f"LOAD t FROM {self.name};"))

    def load(self, load: str | None = None, **params):
        self.pipeline(load, **params)
        return self.bench.ok()

    def error(self, load: str | None = None, **params) -> Exception:
        """Run a load that must fail, and return its error."""
        self.pipeline(load, **params)
        (outcome,) = self.bench.run().values()
        assert outcome.error is not None
        return outcome.error

    def query(self, text: str) -> list[tuple]:
        return self.bench.query(text)

    @property
    def place(self) -> Place:
        return Place(self.bench.root, self.bench.root / ".sqlflow/spool")
