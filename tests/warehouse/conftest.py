"""A warehouse in a temporary folder, and loads into it without connectors."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sqlflow_dagster.cursor import StateKey, reconcile
from sqlflow_dagster.sql import Sql, TableName
from sqlflow_dagster.warehouse import commits
from sqlflow_dagster.warehouse.duckdb import Warehouse, WarehouseSettings
from sqlflow_dagster.warehouse.load import LoadSpec, connected, load
from sqlflow_dagster.warehouse.shape import Shape

KEY = StateKey("shop", "dev", "sales", "source", "orders", "orders")
TABLE = TableName("sales", "orders")


@dataclass
class Depot:
    """A warehouse and the state key of one LOAD; each `load` is a run that reads on from its cursor."""

    root: Path
    settings: dict = field(default_factory=dict)
    runs: itertools.count = field(default_factory=lambda: itertools.count(1))
    warehouse: Warehouse = field(init=False)

    def __post_init__(self):
        given = {"lock_timeout_seconds": 20, "memory_limit": "512MB", **self.settings}
        self.warehouse = Warehouse(
            WarehouseSettings(
                path=self.root / "data/w.duckdb", state_directory=self.root / ".sqlflow", **given
            )
        )

    def spec(self, **changes):
        with self.warehouse.open() as connection:
            start = reconcile(commits.newest(connection, changes.get("key", KEY)), None)
        given = {
            "key": KEY,
            "table": TABLE,
            "mode": "append",
            "keys": (),
            "cursor_field": None,
            "own_cursor": False,
            "since": start.cursor,
            "started_from": start.found,
            "epoch": start.epoch,
            "shape": Shape(),
            "schema_policy": "guided",
            "run_id": f"run-{os.getpid()}-{id(self)}-{next(self.runs)}",
            "sole_writer": True,
            "row_provenance": False,
            "incremental": False,
            "rewound": start.rewound,
            **changes,
        }
        if given["keys"]:
            given["mode"] = "upsert"
        if given["cursor_field"] and "incremental" not in changes:
            given["incremental"] = True
        if not given["incremental"] and "since" not in changes:
            given["since"] = None
        return LoadSpec(**given)

    def load(self, *batches, feed=None, **changes):
        """Load batches: SQL text, Arrow tables, or (JSON lines, columns)."""
        return self.load_as(self.spec(**changes), feed or (lambda intake: take(intake, batches)))

    def load_as(self, spec, feed):
        with connected(self.warehouse) as connection:
            return load(self.warehouse, connection, spec, feed)

    def query(self, text="FROM sales.orders ORDER BY ALL"):
        with self.warehouse.open() as connection:
            return connection.execute(text).fetchall()

    def types(self, table="sales.orders"):
        return {row[0]: row[1] for row in self.query(f"DESCRIBE {table}")}


def take(intake, batches):
    for batch in batches:
        match batch:
            case str():
                intake.scan(Sql(batch))
            case (bytes() as lines, columns):
                intake.json_lines([lines], columns)
            case _:
                intake.arrow(batch.to_reader())


@pytest.fixture
def depot(tmp_path):
    return Depot(tmp_path)
