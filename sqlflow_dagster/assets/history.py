"""The materializations that Dagster remembers of each table → how fresh it is, and whether its rows are usual."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import dagster as dg
from dagster import DagsterInstance

from sqlflow_dagster import health
from sqlflow_dagster.assets.freshness import duration
from sqlflow_dagster.assets.names import keys_of
from sqlflow_dagster.errors import SettingsError
from sqlflow_dagster.health import Finding, Level
from sqlflow_dagster.plan.nodes import Export, Pipeline
from sqlflow_dagster.project import Project
from sqlflow_dagster.settings import Freshness

_MOST_LOADS = 20
_LEVELS: tuple[Level, ...] = ("fine", "warn", "fail")


@dataclass(frozen=True, slots=True)
class TableHealth:
    """How one table is; `last` is when it was stored, `rows` what each of its last loads brought."""

    table: str
    last: datetime | None
    rows: tuple[int, ...]
    freshness: Finding
    volume: Finding

    @property
    def level(self) -> Level:
        """The worse of the two."""
        return max(self.freshness.level, self.volume.level, key=_LEVELS.index)


def table_healths(
    project: Project, instance: DagsterInstance, pipeline: str | None, now: datetime
) -> Iterator[TableHealth]:
    """Yield the health of each table, of one pipeline or all, in file order.

    A table is too old by the pipeline's `freshness.fail_after`; without one it is never.

    Raises SettingsError where there is no such pipeline.
    """
    chosen = [p for p in project.plan.pipelines if pipeline in (None, p.name)]
    if pipeline and not chosen:
        known = ", ".join(p.name for p in project.plan.pipelines) or "none"
        raise SettingsError(f"there is no pipeline {pipeline!r}; the project has {known}")
    keys = keys_of(project)
    for item in chosen:
        steps = [step for group in item.groups for step in group.steps if not isinstance(step, Export)]
        for table, key in {str(step.table): keys.of(step) for step in steps}.items():
            yield _health(project, instance, item, table, key, now)


def _health(
    project: Project,
    instance: DagsterInstance,
    pipeline: Pipeline,
    table: str,
    key: dg.AssetKey,
    now: datetime,
) -> TableHealth:
    records = instance.fetch_materializations(key, limit=_MOST_LOADS).records
    last = datetime.fromtimestamp(records[0].timestamp, UTC) if records else None
    metadata = [record.asset_materialization.metadata for record in records if record.asset_materialization]
    found = [entry["rows"].value for entry in reversed(metadata) if "rows" in entry]
    rows = tuple(value for value in found if isinstance(value, int))
    fresh = _freshness(project.settings.profile.pipeline(pipeline.name).freshness, last, now)
    return TableHealth(table, last, rows, fresh, health.volume(rows))


def _freshness(rule: Freshness | None, last: datetime | None, now: datetime) -> Finding:
    if rule is None or not rule.fail_after:
        # Nobody has said how old it may be; that by a cron expression Dagster judges at each tick.
        found = health.freshness(last, now, timedelta.max)
        return found if last else Finding("fine", found.message)
    warn = duration(rule.warn_after) if rule.warn_after else None
    return health.freshness(last, now, duration(rule.fail_after), warn)
