"""Runs the main job as if the files came one after the other, and shows what it read and made.

python examples/online_retail/demo.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import duckdb
from rich.console import Console
from rich.table import Table

PROJECT = Path(__file__).resolve().parent
REPOSITORY = PROJECT.parents[1]
PIPELINE = "online_retail"
# The title of each run and what of `data/monthly` has arrived by then.
RUNS = (
    ("1. The first month's file has arrived", "2010-12", "--full-refresh"),
    ("2. Twelve more files have arrived", "*", ""),
    ("3. Nothing new has arrived", "*", ""),
)
RESULTS = {
    "Revenue by month": """
        SELECT month, sum(orders) AS orders, sum(units) AS units, sum(gross_revenue) AS gross_revenue,
               sum(cancelled_revenue) AS cancelled, sum(net_revenue) AS net_revenue
        FROM online_retail.monthly_revenue GROUP BY month ORDER BY month""",
    "Countries with the largest net revenue": """
        SELECT country, sum(orders) AS orders, sum(net_revenue) AS net_revenue
        FROM online_retail.monthly_revenue GROUP BY country ORDER BY net_revenue DESC LIMIT 6""",
    "RFM segments": """
        SELECT segment, customers, orders, net_revenue, median_recency_days
        FROM online_retail.rfm_segments ORDER BY net_revenue DESC""",
    "Cohort retention in percent, by month number": """
        SELECT cohort_month, any_value(cohort_size) AS customers,
               max(retention_percent) FILTER (month_number = 0) AS "0",
               max(retention_percent) FILTER (month_number = 1) AS "1",
               max(retention_percent) FILTER (month_number = 2) AS "2",
               max(retention_percent) FILTER (month_number = 3) AS "3",
               max(retention_percent) FILTER (month_number = 6) AS "6",
               max(retention_percent) FILTER (month_number = 9) AS "9"
        FROM online_retail.cohort_retention GROUP BY cohort_month ORDER BY cohort_month""",
    "Articles bought together": """
        SELECT article_name, with_article_name, orders_together, lift
        FROM online_retail.basket_pairs ORDER BY orders_together DESC, lift DESC LIMIT 6""",
    "Cancellations": """
        SELECT count(*) AS cancelled_lines, sum(amount) AS amount, count(sold_at) AS with_known_sale,
               median(days_after_sale) AS median_days_after_sale
        FROM online_retail.cancellations""",
}
console = Console()


def main() -> int:
    os.environ.setdefault("DAGSTER_HOME", str(REPOSITORY))
    for title, months, option in RUNS:
        console.rule(title)
        status = run(months, *filter(None, [option]))
        if status:
            return status
        show_increment()
    for title, query in RESULTS.items():
        show(title, query)
    show_ways_on()
    return 0


def run(months: str, *options: str) -> int:
    sqlflow = Path(sys.executable).with_name("sqlflow")
    command = [
        str(sqlflow),
        "run",
        PIPELINE,
        "--project",
        str(PROJECT),
        "--vars",
        f"months={months}",
        *options,
    ]
    return subprocess.run(command, check=False).returncode


def show_increment() -> None:
    read = """
        SELECT rows FROM _sqlflow.commits WHERE table_name = 'raw_lines'
        ORDER BY epoch DESC, seq DESC LIMIT 1"""
    with warehouse() as connection:
        (rows,) = connection.execute(read).fetchone() or (0,)
        (stored, files) = connection.execute(
            "SELECT count(*), count(DISTINCT _sqlflow_file) FROM online_retail.raw_lines"
        ).fetchone() or (0, 0)
    say(f"This run read [bold]{rows:,}[/] new lines; now {stored:,} lines of {files} files are stored.\n")


def show(title: str, query: str) -> None:
    with warehouse() as connection:
        found = connection.execute(query)
        table = Table(title=title, title_justify="left")
        for name, kind, *_ in found.description or []:
            table.add_column(name, justify="left" if str(kind) in ("VARCHAR", "DATE") else "right")
        for row in found.fetchall():
            table.add_row(*map(text_of, row))
    console.print(table, "")


def text_of(value: object) -> str:
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int | Decimal) else str(value)


def show_ways_on() -> None:
    output = ", ".join(sorted(path.name for path in (PROJECT / "output").iterdir()))
    say(f"Exported to {PROJECT / 'output'}: {output}\n")
    say("See the assets, their lineage and what each run stored in Dagster's UI:\n")
    say(f"    cd {REPOSITORY} && make ui")
    say("    http://127.0.0.1:3000/asset-groups\n")
    say("Run the job again, as Dagster runs it (there is nothing new to read):\n")
    say("    DAGSTER_HOME=$PWD .venv/bin/dagster job execute -f definitions.py -j online_retail")


def say(text: str) -> None:
    console.print(text, soft_wrap=True, highlight=False)


def warehouse() -> duckdb.DuckDBPyConnection:
    return duckdb.connect(str(PROJECT / "data" / "warehouse.duckdb"), read_only=True)


if __name__ == "__main__":
    sys.exit(main())
