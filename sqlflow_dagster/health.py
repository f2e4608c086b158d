"""What is known of a source or a table → how it is: plain functions that return findings."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, Protocol

from sqlflow_dagster.errors import SQLFlowError
from sqlflow_dagster.resilience.clock import since_boot
from sqlflow_dagster.resilience.guard import Guard

Fact = str | int | float | bool
Level = Literal["fine", "warn", "fail"]
# Fewer loads than this say nothing about what is usual.
_FEWEST_LOADS = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """How something is: a level, one line for people, and facts by name (times in seconds)."""

    level: Level
    message: str
    facts: Mapping[str, Fact] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing is broken; a warning is not."""
        return self.level != "fail"


class Answered(Protocol):
    """What a connector's `check()` returns."""

    @property
    def ok(self) -> bool:
        """Whether the far side can be read."""

    @property
    def message(self) -> str:
        """One line for people."""

    @property
    def facts(self) -> Mapping[str, Fact]:
        """What the far side says of itself."""


class Checkable(Protocol):
    """An open connector or a target, as far as its health is asked for."""

    guard: Guard

    def check(self) -> Answered | None:
        """Contact the far side and say how it is; None where nobody can tell."""


def reachability(opened: Callable[[], AbstractContextManager[Checkable]]) -> Finding:
    """Contact a source or a target once, without trying again, and say how it is.

    Facts: those of the connector; `seconds` that it took; `circuit` and, where it is not closed, the
    seconds until the source is asked again.
    """
    begin = since_boot()
    facts: dict[str, Fact] = {}
    try:
        with opened() as connector:
            facts = _circuit(connector.guard)
            connector.guard = connector.guard.once_only()
            found = connector.check()
    except SQLFlowError as error:
        return Finding("fail", str(error), {"seconds": _since(begin), **facts})
    facts = {"seconds": _since(begin), **facts}
    if found is None:
        return Finding("warn", "its TYPE cannot tell how it is before it is written to", facts)
    facts |= found.facts
    if not found.ok:
        return Finding("fail", found.message, facts)
    if facts.get("circuit") == "OPEN":
        left = facts["circuit_seconds"]
        return Finding(
            "warn", f"{found.message}; runs leave it alone for {left:g} s more: it failed often", facts
        )
    return Finding("fine", found.message, facts)


def loss_audit(source_rows: int | None, rows: int, why: str = "") -> Finding:
    """Say whether a table has the rows of its source that it was to have; None where those cannot be counted.

    `why` is why not, or what may have lost some and mends it. Facts: `audit_source_rows` and `audit_rows`. More in
    the table is no loss: the source has deleted or changed rows since.
    """
    if source_rows is None:
        return Finding("warn", f"it cannot be told whether rows were lost: {why}")
    facts: dict[str, Fact] = {"audit_source_rows": source_rows, "audit_rows": rows}
    if rows < source_rows:
        missing = f"{source_rows - rows:,} of {source_rows:,} rows of the source are missing"
        return Finding("fail", f"{missing}: {why}", facts)
    more = (
        f"; {rows - source_rows:,} more are here, deleted or changed there since"
        if rows > source_rows
        else ""
    )
    return Finding("fine", f"all {source_rows:,} rows of the source are here{more}", facts)


def freshness(
    last: datetime | None, now: datetime, fail_after: timedelta, warn_after: timedelta | None = None
) -> Finding:
    """Say whether what was stored `last` (aware; None for never) is young enough at `now`."""
    if last is None:
        return Finding("fail", "never stored")
    age = now - last
    facts: dict[str, Fact] = {"age_seconds": round(age.total_seconds(), 3)}
    text = f"stored {_shown(age)} ago"
    if age > fail_after:
        return Finding("fail", f"{text}, more than {_shown(fail_after)}", facts)
    if warn_after is not None and age > warn_after:
        return Finding("warn", f"{text}, more than {_shown(warn_after)}", facts)
    return Finding("fine", text, facts)


def volume(rows: Sequence[int], times: float = 4) -> Finding:
    """Say whether the last of several loads brought about as many rows as those before it.

    `rows` are the rows of each load, the newest last. More than `times` as many as the median of the
    others, or fewer than that part of it, is a warning; so is none where there always were some.
    """
    if not rows:
        return Finding("fine", "never stored")
    *before, last = rows
    if len(before) < _FEWEST_LOADS:
        return Finding("fine", f"{last:,} rows; too few loads to say what is usual", {"rows": last})
    usual = statistics.median(before)
    facts: dict[str, Fact] = {"rows": last, "usual_rows": usual}
    if last == 0 and min(before) > 0:
        return Finding("warn", f"no rows, where there always were some (usually {usual:,.0f})", facts)
    if usual and not usual / times <= last <= usual * times:
        return Finding("warn", f"{last:,} rows, usually {usual:,.0f}", facts)
    return Finding("fine", f"{last:,} rows, usually {usual:,.0f}", facts)


def _circuit(guard: Guard) -> dict[str, Fact]:
    if guard.account is None:
        return {}
    state, failures, seconds = guard.account.circuit()
    facts: dict[str, Fact] = {"circuit": state}
    if failures:
        facts["failures_in_a_row"] = failures
    return facts if state == "CLOSED" else {**facts, "circuit_seconds": round(seconds, 1)}


def _since(begin: float) -> float:
    return round(since_boot() - begin, 6)


def _shown(span: timedelta) -> str:
    seconds = span.total_seconds()
    for name, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds:.0f} seconds"
