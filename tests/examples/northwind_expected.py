"""The example's tables computed again from the script that fills its database: text, Decimal and loops, no SQL.

Written from the definitions in the comments of `northwind.sf`, so that a wrong query there and a
wrong loop here would have to be wrong in the same way.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from typing import Any

CENT = Decimal("0.01")
_INSERT = re.compile(r"^INSERT INTO (\w+) VALUES \((.*)\);$", re.MULTILINE)
_VALUE = re.compile(r"'((?:[^']|'')*)'|\bNULL\b")


def tables(script: Path) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of each table of the script, in its order."""
    found: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
    for name, values in _INSERT.findall(script.read_text(encoding="utf-8")):
        found[name].append(ast.literal_eval(f"({_VALUE.sub(_python, values)},)"))
    return found


def _python(value: re.Match[str]) -> str:
    """A text or NULL of SQL as Python writes it."""
    return "None" if value[1] is None else repr(value[1].replace("''", "'"))


class Northwind:
    """What the pipeline is to make of the orders before a date, None for all of them."""

    def __init__(self, script: Path, before: date | None = None) -> None:
        self.rows = tables(script)
        self.orders = {
            order[0]: (order[1], date.fromisoformat(order[3]))
            for order in self.rows["orders"]
            if before is None or date.fromisoformat(order[3]) < before
        }
        self.categories = {row[0]: row[1] for row in self.rows["categories"]}
        self.suppliers = {row[0]: row[1] for row in self.rows["suppliers"]}
        self.products = {row[0]: row for row in self.rows["products"]}
        self.lines = [self._line(row) for row in self.rows["order_details"] if row[0] in self.orders]

    def _line(self, row: tuple[Any, ...]) -> dict[str, Any]:
        order, product, price, quantity, discount = row
        customer, day = self.orders[order]
        price, discount = _rounded(price), _rounded(discount)
        amount = (price * quantity * (1 - discount)).quantize(CENT, ROUND_HALF_UP)
        return {
            "order": order, "customer": customer, "product": product, "month": day.replace(day=1), "day": day,
            "quantity": quantity, "price": price, "amount": amount,
        }  # fmt: skip

    def customer_value(self) -> set[tuple[Any, ...]]:
        all_revenue = sum(line["amount"] for line in self.lines)
        found = []
        for row in self.rows["customers"]:
            own = [line for line in self.lines if line["customer"] == row[0]]
            orders, revenue = (
                {line["order"] for line in own},
                sum((line["amount"] for line in own), Decimal(0)),
            )
            days = [line["day"] for line in own]
            average = (revenue / len(orders)).quantize(CENT, ROUND_HALF_UP) if orders else None
            share = (100 * revenue / all_revenue).quantize(CENT, ROUND_HALF_UP)
            found.append(
                (
                    row[0],
                    row[1],
                    row[8],
                    len(orders),
                    min(days, default=None),
                    max(days, default=None),
                    revenue,
                    average,
                    share,
                )
            )
        ranked = sorted(found, key=lambda row: (-row[6], row[0]))
        return {(*row, place) for place, row in enumerate(ranked, 1)}

    def product_performance(self) -> set[tuple[Any, ...]]:
        by_category: dict[str, list[tuple[Any, ...]]] = defaultdict(list)
        for key, row in self.products.items():
            own = [line for line in self.lines if line["product"] == key]
            full = sum((line["price"] * line["quantity"] for line in own), Decimal(0))
            revenue = sum((line["amount"] for line in own), Decimal(0))
            category = self.categories[row[3]]
            by_category[category].append(
                (
                    key, row[1], category, self.suppliers[row[2]], len({line["order"] for line in own}),
                    sum(line["quantity"] for line in own), revenue, full - revenue,
                )
            )  # fmt: skip
        return {
            (*row, place)
            for rows in by_category.values()
            for place, row in enumerate(sorted(rows, key=lambda row: (-row[6], row[0])), 1)
        }

    def monthly_revenue(self) -> set[tuple[Any, ...]]:
        groups: dict[tuple[date, str], list[dict[str, Any]]] = defaultdict(list)
        for line in self.lines:
            groups[line["month"], self.categories[self.products[line["product"]][3]]].append(line)
        return {
            (
                month, month.year, category, len({line["order"] for line in own}),
                sum(line["quantity"] for line in own), sum(line["amount"] for line in own),
            )
            for (month, category), own in groups.items()
        }  # fmt: skip


def _rounded(number: float) -> Decimal:
    """A REAL of the script (`32.3800011`, `0.150000006`) as it was typed in."""
    return Decimal(repr(number)).quantize(CENT, ROUND_HALF_UP)
