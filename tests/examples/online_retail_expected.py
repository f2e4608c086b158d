"""The example's tables computed again from its files: csv, Decimal and loops, no SQL.

Written from the definitions in the comments of `online_retail.sf`, so that a wrong query there and
a wrong loop here would have to be wrong in the same way.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

CENT = Decimal("0.01")
NO_ARTICLE = {"POST", "DOT", "C2", "M", "D", "S", "B", "PADS", "CRUK", "AMAZONFEE", "BANK CHARGES"}
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True)
class Line:
    invoice: str
    article: str
    description: str | None
    quantity: int
    price: Decimal
    at: datetime
    customer: int | None
    country: str

    @property
    def amount(self) -> Decimal:
        return self.quantity * self.price

    @property
    def kind(self) -> str:
        if self.invoice[0] == "C":
            return "cancellation"
        return "sale" if self.quantity > 0 and self.price > 0 else "adjustment"

    @property
    def month(self) -> date:
        return self.at.date().replace(day=1)


def lines(files: Iterable[Path]) -> list[Line]:
    found = []
    for file in files:
        with file.open(encoding="utf-8", newline="") as rows:
            found += [_line(row) for row in csv.DictReader(rows)]
    return found


def _line(row: dict[str, str]) -> Line:
    customer = row["CustomerID"]
    assert not customer or customer.endswith(".0"), customer
    return Line(
        invoice=row["InvoiceNo"],
        article=row["StockCode"].upper(),
        description=row["Description"].strip() or None,
        quantity=int(row["Quantity"]),
        price=Decimal(row["UnitPrice"]),
        at=datetime.fromisoformat(row["InvoiceDate"]),
        customer=int(customer[:-2]) if customer else None,
        country=row["Country"],
    )


def customers(all_lines: list[Line]) -> set[tuple[Any, ...]]:
    found = set()
    for customer, own in _by(all_lines, lambda line: line.customer).items():
        if customer is None:
            continue
        sales, cancelled = _kind(own, "sale"), _kind(own, "cancellation")
        found.add(
            (
                customer,
                max(own, key=lambda line: (line.at, line.invoice)).country,
                min((line.at for line in sales), default=None),
                max((line.at for line in sales), default=None),
                len({line.invoice for line in sales}),
                len({line.invoice for line in cancelled}),
                sum(line.quantity for line in sales),
                _money(sales),
                _money(cancelled),
                _money(sales) + _money(cancelled),
            )
        )
    return found


def cancellations(all_lines: list[Line]) -> Counter[tuple[Any, ...]]:
    sold = _by(_kind(all_lines, "sale"), lambda line: (line.customer, line.article))
    found: Counter[tuple[Any, ...]] = Counter()
    for line in _kind(all_lines, "cancellation"):
        earlier = [
            (sale.at, sale.invoice)
            for sale in sold.get((line.customer, line.article), [])
            if line.customer is not None and sale.at <= line.at
        ]
        at, invoice = max(earlier, default=(None, None))
        days = (line.at.date() - at.date()).days if at else None
        found[
            line.invoice, line.customer, line.article, line.at, line.quantity, line.amount, invoice, at, days
        ] += 1
    return found


def rfm(all_lines: list[Line]) -> dict[int, tuple[Any, ...]]:
    """Return recency, frequency, monetary, the three quintiles and the segment by customer."""
    as_of = max(line.at for line in all_lines).date() + timedelta(days=1)
    values = {}
    for customer, own in _by(all_lines, lambda line: line.customer).items():
        sales = _kind(own, "sale")
        if customer is None or not sales:
            continue
        last = max(line.at for line in sales).date()
        net = _money(sales) + _money(_kind(own, "cancellation"))
        values[customer] = ((as_of - last).days, len({line.invoice for line in sales}), net)
    r = _quintiles(values, lambda customer: (-values[customer][0], customer))
    f = _quintiles(values, lambda customer: (values[customer][1], customer))
    m = _quintiles(values, lambda customer: (values[customer][2], customer))
    return {
        customer: (
            *value,
            r[customer],
            f[customer],
            m[customer],
            _segment(r[customer], f[customer], m[customer]),
        )
        for customer, value in values.items()
    }


def _quintiles(customers_: Iterable[int], order: Callable[[int], Any]) -> dict[int, int]:
    """Five buckets in order, whose sizes differ by one at most, the larger ones first."""
    ordered = sorted(customers_, key=order)
    size, larger = divmod(len(ordered), 5)
    quintiles, start = {}, 0
    for bucket in range(1, 6):
        end = start + size + (bucket <= larger)
        quintiles |= dict.fromkeys(ordered[start:end], bucket)
        start = end
    return quintiles


def _segment(r: int, f: int, m: int) -> str:
    value = f + m
    if r >= 4 and value >= 8:
        return "champion"
    if r >= 3 and value >= 6:
        return "loyal"
    if r >= 4:
        return "new or promising"
    if r == 3:
        return "needs attention"
    if value >= 8:
        return "at risk"
    return "about to sleep" if r == 2 else "lost"


def rfm_segments(all_lines: list[Line]) -> set[tuple[Any, ...]]:
    by_segment = _by(rfm(all_lines).values(), lambda row: row[-1])
    return {
        (
            segment,
            len(rows),
            sum(row[1] for row in rows),
            sum((row[2] for row in rows), Decimal()),
            float(median(row[0] for row in rows)),
        )
        for segment, rows in by_segment.items()
    }


def monthly_revenue(all_lines: list[Line]) -> set[tuple[Any, ...]]:
    counted = [line for line in all_lines if line.kind != "adjustment"]
    found = set()
    for (month, country), own in _by(counted, lambda line: (line.month, line.country)).items():
        sales, cancelled = _kind(own, "sale"), _kind(own, "cancellation")
        found.add(
            (
                month,
                country,
                len({line.invoice for line in sales}),
                len({line.customer for line in sales} - {None}),
                sum(line.quantity for line in sales),
                _money(sales),
                _money(cancelled),
                _money(own),
            )
        )
    return found


def cohort_retention(all_lines: list[Line]) -> set[tuple[Any, ...]]:
    active = defaultdict(set)
    for line in _kind(all_lines, "sale"):
        if line.customer is not None:
            active[line.customer].add(line.month)
    all_months = sorted({line.month for line in _kind(all_lines, "sale")})
    found = set()
    for cohort, members in _by(active, lambda customer: min(active[customer])).items():
        for month in all_months:
            number = (month.year - cohort.year) * 12 + month.month - cohort.month
            if number < 0:
                continue
            back = sum(month in active[customer] for customer in members)
            found.add((cohort, number, len(members), back, _rounded(Decimal(100 * back) / len(members))))
    return found


def basket_pairs(all_lines: list[Line], least: int = 3) -> set[tuple[Any, ...]]:
    sales = _kind(all_lines, "sale")
    baskets = defaultdict(set)
    for line in sales:
        if line.article not in NO_ARTICLE:
            baskets[line.invoice].add(line.article)
    single = Counter(article for basket in baskets.values() for article in basket)
    pairs = Counter(pair for basket in baskets.values() for pair in combinations(sorted(basket), 2))
    names = {
        article: max((line.at, line.invoice, line.description) for line in own if line.description)[2]
        for article, own in _by(sales, lambda line: line.article).items()
    }
    return {
        (
            one,
            names[one],
            other,
            names[other],
            together,
            single[one],
            single[other],
            _rounded(Decimal(together * len(baskets)) / (single[one] * single[other])),
        )
        for (one, other), together in pairs.items()
        if together >= least
    }


def _by(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def _kind(all_lines: list[Line], kind: str) -> list[Line]:
    return [line for line in all_lines if line.kind == kind]


def _money(some: list[Line]) -> Decimal:
    return sum((line.amount for line in some), Decimal("0.00"))


def _rounded(value: Decimal) -> Decimal:
    return value.quantize(CENT, ROUND_HALF_UP)
