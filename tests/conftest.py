"""Projects made of files in a temporary folder, and their runs without Dagster."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings

from sqlflow_dagster.resilience.clock import waits_off

# No property is judged by how busy the machine is; and what CI tries is the same each time.
settings.register_profile("product", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("product")


@dataclass
class Shelf:
    """A `Store` that is a dict: what Dagster's run storage is to a run."""

    values: dict[str, str] = field(default_factory=dict)

    def get(self, key):
        return self.values.get(key)

    def set(self, key, value):
        self.values[key] = value


@dataclass
class Workbench:
    """A project's folder with the verbs that tests of whole runs need."""

    root: Path
    shelf: Shelf = field(default_factory=Shelf)
    _runs: itertools.count = field(default_factory=lambda: itertools.count(1))

    def write(self, path: str, text: str | bytes) -> Path:
        """Write a file of the project; text is kept byte for byte."""
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)
        return file

    def pipeline(self, text: str, name: str = "p") -> None:
        """Write `pipelines/<name>.sf`."""
        self.write(f"pipelines/{name}.sf", text)

    def run(self, name: str = "p", **session):
        """Run a pipeline's groups in order and return its outcomes by table or export name."""
        from sqlflow_dagster.plan.nodes import Export
        from sqlflow_dagster.project import load_project
        from sqlflow_dagster.run import run_steps
        from sqlflow_dagster.session import Session

        project = load_project(self.root, variables=session.pop("set", None))
        session = {"run_id": f"run-{next(self._runs)}", "run_date": "2026-01-02", **session}
        outcomes = {}
        for group in project.plan.pipeline(name).groups:
            for outcome in run_steps(Session(project=project, store=self.shelf, **session), group.steps):
                step = outcome.step
                outcomes[step.name if isinstance(step, Export) else step.table.name] = outcome
        project.warehouse.close()
        return outcomes

    def ok(self, name: str = "p", **session):
        """Run a pipeline that must not fail, and return its outcomes."""
        outcomes = self.run(name, **session)
        for outcome in outcomes.values():
            if outcome.error:
                raise outcome.error
        return outcomes

    def query(self, sql: str) -> list[tuple]:
        """Return the rows of a query on the warehouse's file."""
        import duckdb

        with duckdb.connect(str(self.root / "data/warehouse.duckdb"), read_only=True) as connection:
            return connection.execute(sql).fetchall()


@pytest.fixture
def bench(tmp_path):
    """An empty project, in a process where nobody waits for a far side."""
    root = tmp_path / "shop"
    (root / "pipelines").mkdir(parents=True)
    with waits_off():
        yield Workbench(root)
