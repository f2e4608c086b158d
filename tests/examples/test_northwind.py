"""The example on real servers gives the right numbers, and each run reads only what was written since the last."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import duckdb
import pytest

from .northwind_expected import Northwind

pytest.importorskip("pgserver", reason="pgserver has no wheel for this Python")

EXAMPLE = Path(__file__).parents[2] / "examples" / "northwind_to_s3"
SCRIPT = EXAMPLE / "data" / "northwind.sql"
MARTS = ("customer_value", "product_performance", "monthly_revenue")


def module(name: str):
    """A program of the example, as a module."""
    if str(EXAMPLE) not in sys.path:
        sys.path.insert(0, str(EXAMPLE))
    return importlib.import_module(name)


@dataclass
class Trader:
    """A copy of the example, with both servers running."""

    root: Path
    variables: dict[str, str]

    def run(self, *options: str) -> dict[str, dict]:
        """Run the job and return what it says of each asset."""
        command = [Path(sys.executable).with_name("sqlflow"), "run", "northwind", "--project", self.root]
        done = subprocess.run(
            [*map(str, command), "--format", "json", *options],
            env={**os.environ, **self.variables, "DAGSTER_HOME": str(self.root / "home")},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return {
            asset["asset"].removeprefix("northwind/"): asset for asset in json.loads(done.stdout)["assets"]
        }

    def stored(self, table: str) -> set[tuple]:
        with duckdb.connect(str(self.root / "data" / "warehouse.duckdb"), read_only=True) as connection:
            return set(connection.execute(f"FROM northwind.{table}").fetchall())

    def columns(self, table: str) -> list[str]:
        with duckdb.connect(str(self.root / "data" / "warehouse.duckdb"), read_only=True) as connection:
            return [row[0] for row in connection.execute(f"DESCRIBE northwind.{table}").fetchall()]

    def reported(self, table: str) -> set[tuple]:
        import psycopg2

        connection = psycopg2.connect(self.variables["NORTHWIND_URL"])
        try:
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT * FROM reporting.{table}")
                return set(cursor.fetchall())
        finally:
            connection.close()

    def objects(self, prefix: str, folder: Path) -> dict[str, Path]:
        """The objects under a prefix, downloaded."""
        import boto3

        client = boto3.client(
            "s3", endpoint_url=self.variables["S3_ENDPOINT"], region_name="us-east-1",
            aws_access_key_id=self.variables["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.variables["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip
        found = {}
        for item in client.list_objects_v2(Bucket="northwind", Prefix=prefix).get("Contents", []):
            path = folder / item["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file("northwind", item["Key"], str(path))
            found[item["Key"]] = path
        return found


@pytest.fixture(scope="module")
def trader(tmp_path_factory):
    root = tmp_path_factory.mktemp("northwind") / "project"
    kept_away = shutil.ignore_patterns(".servers", "*.duckdb*", ".sqlflow", "__pycache__")
    shutil.copytree(EXAMPLE, root, ignore=kept_away)
    (root / "home").mkdir()
    (root / "home" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    # The path of a socket is short.
    folder = Path(tempfile.mkdtemp(prefix="sqlflow-nw-"))
    with module("servers").running(folder) as variables:
        yield Trader(root, variables)
    shutil.rmtree(folder, ignore_errors=True)


def holds(trader: Trader, expected: Northwind, folder: Path) -> None:
    """Assert in warehouse, reporting schema and bucket the rows that the script makes by hand, and no others."""
    shutil.rmtree(folder, ignore_errors=True)
    objects = trader.objects("marts/", folder)
    years = {row[1] for row in expected.monthly_revenue()}
    assert set(objects) == {
        "marts/customer_value.parquet",
        "marts/product_performance.parquet",
        *(f"marts/monthly_revenue/year={year}/data_0.parquet" for year in years),
    }
    for table in MARTS:
        wanted = getattr(expected, table)()
        assert trader.stored(table) == wanted
        assert trader.reported(table) == wanted
        columns = ", ".join(f'"{name}"' for name in trader.columns(table))
        files = (
            f"{folder}/marts/{table}/**/*.parquet"
            if table == "monthly_revenue"
            else f"{folder}/marts/{table}.parquet"
        )
        found = duckdb.sql(
            f"SELECT {columns} FROM read_parquet('{files}', hive_partitioning = true)"
        ).fetchall()
        assert {tuple(row) for row in found} == wanted


def test_each_run_reads_what_was_written_and_reports_the_right_numbers(trader, tmp_path, monkeypatch):
    monkeypatch.setenv("NORTHWIND_URL", trader.variables["NORTHWIND_URL"])
    demo = module("demo")
    early, all_of_it = Northwind(SCRIPT, date(1998, 1, 1)), Northwind(SCRIPT)
    demo.change(demo.HOLD_BACK)
    first = trader.run()
    assert first["orders"]["rows"] == len(early.orders) == 560
    assert first["order_details"]["rows"] == len(early.lines)
    holds(trader, early, tmp_path / "objects")

    demo.change(demo.ARRIVE)
    second = trader.run()
    sent_late = sum(
        1 for row in all_of_it.rows["orders"] if row[3] < "1998" and row[5] is not None and row[5] >= "1998"
    )
    assert second["orders"]["rows_inserted"] == len(all_of_it.orders) - 560 == 270
    assert second["orders"]["rows_updated"] == sent_late > 0
    assert second["order_details"]["rows_inserted"] == len(all_of_it.lines) - len(early.lines)
    holds(trader, all_of_it, tmp_path / "objects")

    third = trader.run()
    assert (third["orders"]["rows"], third["order_details"]["rows"]) == (0, 0)
    holds(trader, all_of_it, tmp_path / "objects")
