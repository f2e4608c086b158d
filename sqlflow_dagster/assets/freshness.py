"""A profile's `freshness`, `automation` and `retry` → Dagster's policies."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from datetime import timedelta
from typing import Any

import dagster as dg
from dagster import DagsterError
from dagster_shared.check import CheckError
from pydantic import TypeAdapter, ValidationError

from sqlflow_dagster.errors import SettingsError
from sqlflow_dagster.settings import Freshness, Retry

_DURATION = TypeAdapter(timedelta)
_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}


def freshness_policy(freshness: Freshness | None) -> dg.FreshnessPolicy | None:
    """Return the policy of a pipeline's tables, None where the profile has none.

    Raises SettingsError for a duration, cron expression or time zone that cannot be read.
    """
    if freshness is None:
        return None
    try:
        return _policy(freshness)
    except (SettingsError, DagsterError, CheckError) as error:
        raise SettingsError(f"freshness: {error}") from error


def _policy(freshness: Freshness) -> dg.FreshnessPolicy:
    if freshness.cron:
        if freshness.fail_after or freshness.warn_after:
            raise SettingsError("`fail_after` and `warn_after` do not go with `cron`; give `within`")
        return dg.FreshnessPolicy.cron(
            deadline_cron=freshness.cron,
            lower_bound_delta=duration(freshness.within or "1 hour"),
            timezone=freshness.timezone,
        )
    if freshness.within or not freshness.fail_after:
        raise SettingsError("give `fail_after`, or `cron` with `within`")
    return dg.FreshnessPolicy.time_window(
        fail_window=duration(freshness.fail_after),
        warn_window=duration(freshness.warn_after) if freshness.warn_after else None,
    )


def automation_condition(text: str | None) -> dg.AutomationCondition[Any] | None:
    """Return when Dagster stores a pipeline's assets by itself, None where only jobs do.

    Raises SettingsError for what is neither `eager` nor `on_missing` nor a cron expression.
    """
    if text is None:
        return None
    if text in ("eager", "on_missing"):
        return dg.AutomationCondition.eager() if text == "eager" else dg.AutomationCondition.on_missing()
    try:
        return dg.AutomationCondition.on_cron(text)
    except (DagsterError, CheckError, ValueError) as error:
        raise SettingsError(
            f"automation: {text!r} is neither eager nor on_missing nor a cron expression"
        ) from error


def of_any_partitions(spec: dg.AssetSpec, partitioned: AbstractSet[dg.AssetKey]) -> dg.AssetSpec:
    """Return the spec of an asset that, if it is eager, does not wait for partitions that nobody has stored.

    Dagster would wait for each partition since the first one.
    """
    made_from = {dep.asset_key for dep in spec.deps} & partitioned
    if not made_from or spec.partitions_def or spec.automation_condition != dg.AutomationCondition.eager():
        return spec
    missing = dg.AutomationCondition.any_deps_missing()
    others = missing.ignore(dg.AssetSelection.assets(*made_from))
    return spec.replace_attributes(
        automation_condition=dg.AutomationCondition.eager().replace(missing, others)
    )


def retry_policy(retry: Retry | None) -> dg.RetryPolicy | None:
    """Return how Dagster tries a step again, None for once only."""
    if retry is None or retry.max_retries == 0:
        return None
    backoff = {"none": None, "linear": dg.Backoff.LINEAR, "exponential": dg.Backoff.EXPONENTIAL}
    jitter = {"none": None, "full": dg.Jitter.FULL, "plus_minus": dg.Jitter.PLUS_MINUS}
    return dg.RetryPolicy(
        max_retries=retry.max_retries,
        delay=retry.delay_seconds,
        backoff=backoff[retry.backoff],
        jitter=jitter[retry.jitter],
    )


def duration(text: str) -> timedelta:
    """Read `36 hours` or ISO 8601 such as `PT36H`. Raises SettingsError."""
    number, _, unit = text.strip().partition(" ")
    seconds = _UNITS.get(unit.strip().lower().removesuffix("s"))
    if number.isdecimal() and seconds:
        return timedelta(seconds=int(number) * seconds)
    try:
        return _DURATION.validate_python(text)
    except ValidationError as error:
        raise SettingsError(f"{text!r} is no duration; write `36 hours` or `PT36H`") from error
