"""Runs the job before, after and once more after orders have come and been sent; shows what it read and made.

python examples/northwind_to_s3/demo.py
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from decimal import Decimal
from pathlib import Path

import boto3
import duckdb
import psycopg2
import servers
from psycopg2.sql import SQL, Identifier
from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).resolve().parent
REPOSITORY = PROJECT.parents[1]
PIPELINE = "northwind"
# What comes later: the orders of 1998, and that orders of 1997 are sent in 1998.
HOLD_BACK = """
CREATE SCHEMA later;
CREATE TABLE later.orders AS SELECT * FROM orders WHERE order_date >= '1998-01-01';
CREATE TABLE later.order_details AS SELECT * FROM order_details WHERE order_id IN (SELECT order_id FROM later.orders);
CREATE TABLE later.shipped AS
  SELECT order_id, shipped_date FROM orders WHERE order_date < '1998-01-01' AND shipped_date >= '1998-01-01';
DELETE FROM order_details WHERE order_id IN (SELECT order_id FROM later.orders);
DELETE FROM orders WHERE order_id IN (SELECT order_id FROM later.orders);
UPDATE orders SET shipped_date = NULL WHERE order_id IN (SELECT order_id FROM later.shipped);
"""
ARRIVE = """
INSERT INTO orders SELECT * FROM later.orders;
INSERT INTO order_details SELECT * FROM later.order_details;
UPDATE orders SET shipped_date = sent.shipped_date FROM later.shipped AS sent WHERE orders.order_id = sent.order_id;
"""
RESULTS = {
    "Customers of the greatest value": """
        SELECT rank, company_name, country, orders, revenue, average_order, share_percent
        FROM northwind.customer_value ORDER BY rank LIMIT 6""",
    "The best product of each category": """
        SELECT category_name, product_name, units, revenue, given_as_discount
        FROM northwind.product_performance WHERE rank_in_category = 1 ORDER BY revenue DESC""",
    "Revenue by quarter": """
        SELECT date_trunc('quarter', month)::DATE AS quarter, sum(units)::BIGINT AS units, sum(revenue) AS revenue
        FROM northwind.monthly_revenue GROUP BY 1 ORDER BY 1""",
}
console = Console()


def main() -> int:
    shutil.rmtree(servers.FOLDER, ignore_errors=True)
    with servers.running() as variables:
        os.environ.update(variables)
        os.environ.setdefault("DAGSTER_HOME", str(REPOSITORY))
        console.rule("1. The orders of 1996 and 1997")
        change(HOLD_BACK)
        status = run("--full-refresh")
        if not status:
            console.rule("2. Orders of 1998 have come, and some of 1997 were sent")
            change(ARRIVE)
            status = run()
        if not status:
            console.rule("3. Nothing has changed")
            status = run()
        if status:
            return status
        for title, query in RESULTS.items():
            show_query(title, query)
        show_exports()
        show_ways_on()
    return 0


def change(script: str) -> None:
    """Do to the source what a script says, in one transaction."""
    with (
        closing(psycopg2.connect(os.environ["NORTHWIND_URL"])) as connection,
        connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(script)


def run(*options: str) -> int:
    """Run the job as a user does; return its exit status."""
    sqlflow = Path(sys.executable).with_name("sqlflow")
    return subprocess.run(
        [str(sqlflow), "run", PIPELINE, "--project", str(PROJECT), *options], check=False
    ).returncode


def show_query(title: str, query: str) -> None:
    with duckdb.connect(str(PROJECT / "data" / "warehouse.duckdb"), read_only=True) as connection:
        found = connection.execute(query)
        show(title, [name for name, *_ in found.description or []], found.fetchall())


def show_exports() -> None:
    client = boto3.client("s3", endpoint_url=os.environ["S3_ENDPOINT"])
    objects = client.list_objects_v2(Bucket=servers.BUCKET).get("Contents", [])
    show(
        f"Objects in s3://{servers.BUCKET}",
        ["key", "bytes"],
        [(item["Key"], item["Size"]) for item in objects],
    )
    tables = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'reporting' ORDER BY 1"
    counts = []
    with closing(psycopg2.connect(os.environ["NORTHWIND_URL"])) as connection, connection.cursor() as cursor:
        cursor.execute(tables)
        for (name,) in cursor.fetchall():
            cursor.execute(SQL("SELECT count(*) FROM {}").format(Identifier("reporting", name)))
            counts.append((name, *cursor.fetchone()))
    show("Tables in Postgres, schema reporting", ["table", "rows"], counts)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    table = Table(title=title, title_justify="left")
    for number, name in enumerate(columns):
        figures = bool(rows) and isinstance(rows[0][number], int | Decimal)
        table.add_column(name, justify="right" if figures else "left")
    for row in rows:
        table.add_row(*map(text_of, row))
    console.print(table, "")


def text_of(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int | Decimal) else str(value)


def show_ways_on() -> None:
    say("The servers end with this program. To go on, start them and give their variables to Dagster's UI:\n")
    say(f"    cd {REPOSITORY} && .venv/bin/python examples/northwind_to_s3/servers.py")
    say("    SQLFLOW_PROJECT=examples/northwind_to_s3 make ui    # in a shell with what servers.py prints\n")


def say(text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
