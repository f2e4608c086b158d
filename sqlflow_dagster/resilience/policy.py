"""A connector's family and a SOURCE's parameters → the rules for calling it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Family = Literal["database", "object_store", "api", "file"]
WhenLimited = Literal["wait", "queue", "drop"]


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules; times are seconds, `rate` is requests a minute (None for no limit).

    `attempts` counts the first try. `total` is the longest time from the first failure to the last
    try. `breaker_failures` 0 means no circuit breaker.
    """

    attempts: int
    first_wait: float
    longest_wait: float
    factor: float
    total: float
    breaker_failures: int = 0
    breaker_recovery: float = 60.0
    rate: float | None = None
    burst: int = 1
    when_limited: WhenLimited = "wait"


DEFAULTS: dict[Family, Policy] = {
    "database": Policy(3, 0.5, 10, 2, 120, breaker_failures=5, breaker_recovery=30),
    "object_store": Policy(4, 1, 60, 2, 300, breaker_failures=10, breaker_recovery=15, rate=1000, burst=100),
    "api": Policy(5, 1, 60, 2, 300, breaker_failures=5, breaker_recovery=60),
    "file": Policy(2, 0.1, 1, 1.5, 30),
}


# What the first SQLFlow called them, in objects of their own or beside each other.
_GROUPS = frozenset({"retry", "circuit_breaker", "rate_limit", "recovery"})
_NAMES = {
    "initial_delay": "first_wait_seconds", "max_delay": "longest_wait_seconds", "backoff_multiplier": "factor",
    "failure_threshold": "breaker_failures", "recovery_timeout": "breaker_recovery_seconds",
    "burst_size": "burst", "backpressure_strategy": "when_limited",
}  # fmt: skip
_DONE_ANYWAY = frozenset({"jitter", "enable_connection_recovery", "enable_credential_refresh"})


class ResilienceOptions(BaseModel):
    """The object `resilience` of a SOURCE; what is left out is as usual for its kind of system."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_attempts: int | None = Field(
        None, ge=1, le=101, description="Tries with the first one; `max_retries` of the SOURCE wins."
    )
    first_wait_seconds: float | None = Field(
        None, ge=0, description="Longest wait before the second try; each wait is a random part of its bound."
    )
    longest_wait_seconds: float | None = Field(None, ge=0, description="Bound of every later wait.")
    factor: float | None = Field(None, ge=1, le=100, description="How much the bound grows with each try.")
    total_seconds: float | None = Field(
        None, ge=0, description="Longest time from the first failure to the last try."
    )
    breaker_failures: int | None = Field(
        None, ge=0, description="Failures in a row after which nobody asks for a while; 0 for never."
    )
    breaker_recovery_seconds: float | None = Field(None, gt=0, description="How long nobody asks then.")
    max_requests_per_minute: float | None = Field(
        None, gt=0, description="Requests a minute; `rate_limit` of the SOURCE wins."
    )
    burst: int | None = Field(None, ge=1, description="Requests that `rate_limit` lets through at once.")
    when_limited: WhenLimited | None = Field(
        None,
        description="Over `rate_limit` a request waits for its turn (`wait`; `queue` keeps the order), or the "
        "step gives up and is tried again by `retry` of the profile (`drop`).",
    )

    @model_validator(mode="before")
    @classmethod
    def _present_names(cls, given: Any) -> Any:
        """The objects and names of the first SQLFlow as ours; what is done anyway may be said."""
        if not isinstance(given, Mapping):
            return given
        found: dict[str, Any] = {}
        for name, value in given.items():
            parts: Mapping[str, Any] = (
                value if name in _GROUPS and isinstance(value, Mapping) else {name: value}
            )
            found |= {
                _NAMES.get(part, part): said
                for part, said in parts.items()
                if not (part in _DONE_ANYWAY and said is True)
            }
        return found


def policy(
    base: Policy,
    *,
    max_retries: int | None = None,
    rate_limit: float | None = None,
    options: ResilienceOptions | None = None,
) -> Policy:
    """Return `base` with what a SOURCE sets: tries after the first, requests a minute, and the rest."""
    given = options or ResilienceOptions()
    rate = rate_limit or given.max_requests_per_minute
    changed: dict[str, Any] = {
        "attempts": given.max_attempts if max_retries is None else max_retries + 1,
        "first_wait": given.first_wait_seconds,
        "longest_wait": given.longest_wait_seconds,
        "factor": given.factor,
        "total": given.total_seconds,
        "breaker_failures": given.breaker_failures,
        "breaker_recovery": given.breaker_recovery_seconds,
        "rate": rate,
        "burst": given.burst or _burst(base, rate),
        "when_limited": given.when_limited,
    }
    return replace(base, **{name: value for name, value in changed.items() if value is not None})


def _burst(base: Policy, rate_limit: float | None) -> int | None:
    """A second's worth, where a limit is set and nothing says how much may come at once."""
    return max(1, int(rate_limit / 60)) if rate_limit and base.rate is None else None
