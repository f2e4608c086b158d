"""The cases by name: each is run beside a baseline and yields the figures that it must reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks.definitions import definitions, validation
from benchmarks.figures import Figure, Sizes, verdict
from benchmarks.loads import loads, nothing_new
from benchmarks.mysql import mysql
from benchmarks.peers import peers
from benchmarks.postgres import postgres
from benchmarks.resilience import cost
from benchmarks.s3 import partitions, s3
from benchmarks.start import start
from benchmarks.upsert import upsert

_RULES_LIMIT = 1.05


def rules(sizes: Sizes) -> Iterator[Figure]:
    """Compare pages of an API read under all rules of resilience with the same under none."""
    found = cost(pages=300, rounds=3 * sizes.rounds)
    wall, cpu = found.ruled_wall / found.bare_wall, found.ruled_cpu / found.bare_cpu
    yield Figure(
        "300 pages of an API that answers in 5 ms, with retries, breaker and rate limit",
        f"{wall:.3f} x",
        f"≤ {_RULES_LIMIT:.2f} x without",
        verdict(wall, _RULES_LIMIT),
        f"wall {found.bare_wall:.3f} s without, {found.ruled_wall:.3f} s with; CPU {found.bare_cpu:.3f} s and "
        f"{found.ruled_cpu:.3f} s ({cpu:.3f} x)",
        ratio=wall,
        beside="without",
    )


CASES: dict[str, Callable[[Sizes], Iterator[Figure]]] = {
    "start": start,
    "loads": loads,
    "nothing-new": nothing_new,
    "upsert": upsert,
    "definitions": definitions,
    "validate": validation,
    "rules": rules,
    "s3": s3,
    "s3-partitions": partitions,
    "postgres": postgres,
    "mysql": mysql,
    "peers": peers,
}
