"""The example gives the right numbers, and each increment reads only what is new."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from . import online_retail_expected as expected

EXAMPLE = Path(__file__).parents[2] / "examples" / "online_retail"
MONTHLY = sorted((EXAMPLE / "data" / "monthly").glob("*.csv"))
TABLES = (
    "lines",
    "customers",
    "cancellations",
    "rfm",
    "rfm_segments",
    "monthly_revenue",
    "cohort_retention",
    "basket_pairs",
)


@dataclass
class Shop:
    """A copy of the example whose files arrive when a test says so."""

    root: Path
    # How many rows each run read of the files, as Dagster's materialization says.
    read: list[int] = field(default_factory=list)

    def arrive(self, files: list[Path]) -> None:
        for file in files:
            shutil.copy2(file, self.root / "data" / "monthly" / file.name)

    def run(self) -> None:
        sqlflow = Path(sys.executable).with_name("sqlflow")
        command = [str(sqlflow), "run", "online_retail", "--project", str(self.root), "--format", "json"]
        done = subprocess.run(
            command,
            env={**os.environ, "DAGSTER_HOME": str(self.root / "home")},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assets = {asset["asset"]: asset for asset in json.loads(done.stdout)["assets"]}
        self.read.append(assets["online_retail/raw_lines"]["rows"])

    def rows(self, query: str) -> list[tuple]:
        database = str(self.root / "data" / "warehouse.duckdb")
        with duckdb.connect(database, read_only=True) as connection:
            return connection.execute(f"SET search_path = 'online_retail'; {query}").fetchall()

    def table(self, name: str) -> Counter[tuple]:
        return Counter(self.rows(f'FROM "{name}"'))


def _shop(root: Path) -> Shop:
    shutil.copytree(
        EXAMPLE, root, ignore=shutil.ignore_patterns("data", "output", ".sqlflow", ".dagster", "__pycache__")
    )
    (root / "data" / "monthly").mkdir(parents=True)
    (root / "home").mkdir()
    (root / "home" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return Shop(root)


@pytest.fixture(scope="module")
def lines() -> list[expected.Line]:
    return expected.lines(MONTHLY)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """All files in one go."""
    shop = _shop(tmp_path_factory.mktemp("whole") / "shop")
    shop.arrive(MONTHLY)
    shop.run()
    return shop


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Some files, then the others (one of them late), then nothing new."""
    shop = _shop(tmp_path_factory.mktemp("grown") / "shop")
    late = MONTHLY[2]
    for files in ([f for f in MONTHLY[:7] if f != late], [late, *MONTHLY[7:]], []):
        shop.arrive(files)
        shop.run()
    return shop


def test_the_files_are_the_thirty_thousand_lines_of_the_sample_cut_by_month(lines):
    assert len(lines) == 30_000
    assert len(MONTHLY) == 13
    for file in MONTHLY:
        own = expected.lines([file])
        assert {f"{line.month:%Y-%m}" for line in own} == {file.stem.rpartition("_")[2]}
        assert [line.at for line in own] == sorted(line.at for line in own)


def test_every_line_of_every_file_is_stored_once_and_unchanged(whole: Shop):
    sent: Counter[tuple] = Counter()
    for file in MONTHLY:
        with file.open(encoding="utf-8", newline="") as rows:
            sent.update(
                (*list(row.values())[:3], int(row["Quantity"]), Decimal(row["UnitPrice"]), row["CustomerID"])
                for row in csv.DictReader(rows)
            )
    stored = whole.rows(
        "SELECT InvoiceNo, StockCode, ifnull(Description, ''), Quantity, UnitPrice, ifnull(CustomerID, '')"
        " FROM raw_lines"
    )
    assert Counter(stored) == sent


def test_lines_have_the_kinds_and_amounts_of_the_files(whole: Shop, lines):
    found = whole.rows("SELECT kind, count(*), sum(amount) FROM lines GROUP BY kind")
    kinds = Counter(line.kind for line in lines)
    assert {(kind, number) for kind, number, _amount in found} == set(kinds.items())
    assert sum(amount for _kind, _number, amount in found) == sum(line.amount for line in lines)


@pytest.mark.parametrize(
    "table", ["customers", "rfm_segments", "monthly_revenue", "cohort_retention", "basket_pairs"]
)
def test_a_table_holds_the_numbers_of_an_independent_computation(whole: Shop, lines, table: str):
    assert whole.table(table) == Counter(getattr(expected, table)(lines))


def test_cancellations_name_the_last_earlier_sale(whole: Shop, lines):
    found = whole.rows(
        "SELECT invoice_no, customer_id, stock_code, invoiced_at, quantity, amount, sold_invoice_no, sold_at,"
        " days_after_sale FROM cancellations"
    )
    assert Counter(found) == expected.cancellations(lines)


def test_rfm_scores_are_quintiles_with_ties_by_customer(whole: Shop, lines):
    found = whole.rows("SELECT * EXCLUDE (country) FROM rfm")
    assert {row[0]: row[1:] for row in found} == expected.rfm(lines)


def test_sums_can_be_traced_from_table_to_table(whole: Shop):
    (from_lines,) = whole.rows("SELECT sum(amount) FROM lines WHERE kind <> 'adjustment'")
    (by_month,) = whole.rows("SELECT sum(net_revenue) FROM monthly_revenue")
    (known,) = whole.rows("SELECT sum(net_revenue) FROM customers")
    (unknown,) = whole.rows(
        "SELECT sum(amount) FROM lines WHERE kind <> 'adjustment' AND customer_id IS NULL"
    )
    (cancelled,) = whole.rows("SELECT sum(amount) FROM cancellations")
    (cancelled_by_month,) = whole.rows("SELECT sum(cancelled_revenue) FROM monthly_revenue")
    assert from_lines == by_month == (known[0] + unknown[0],)
    assert cancelled == cancelled_by_month


def test_all_of_a_cohort_are_there_in_its_own_month(whole: Shop):
    assert whole.rows("SELECT DISTINCT retention_percent FROM cohort_retention WHERE month_number = 0") == [
        (Decimal("100.00"),)
    ]


def test_each_increment_reads_only_the_lines_of_new_files(grown: Shop):
    sizes = {file: len(expected.lines([file])) for file in MONTHLY}
    first = sum(sizes[file] for file in MONTHLY[:7]) - sizes[MONTHLY[2]]
    assert grown.read[:2] == [first, 30_000 - first]


def test_a_run_with_nothing_new_reads_no_line(grown: Shop):
    assert grown.read[2:] == [0]


@pytest.mark.parametrize("table", TABLES)
def test_increments_end_at_the_same_table_as_one_load_of_everything(whole: Shop, grown: Shop, table: str):
    assert grown.table(table) == whole.table(table)


@pytest.mark.parametrize("name", ["monthly_revenue", "cohort_retention", "cancellations"])
def test_a_csv_export_has_the_rows_of_its_table(whole: Shop, name: str):
    with (whole.root / "output" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        exported = list(csv.DictReader(file))
    stored = whole.rows(f"SELECT COLUMNS(*)::VARCHAR FROM {name}")
    assert Counter(tuple(row.values()) for row in exported) == Counter(
        tuple(value or "" for value in row) for row in stored
    )


@pytest.mark.parametrize("name", ["customers", "rfm", "basket_pairs"])
def test_a_parquet_export_has_the_rows_of_its_table(whole: Shop, name: str):
    exported = pq.read_table(whole.root / "output" / f"{name}.parquet").to_pylist()
    assert Counter(tuple(row.values()) for row in exported) == whole.table(name)
