"""Whether a group's sources and targets are there → asset checks: of a source's first table, of each export.

In a run the reads and writes say it; nothing is asked beside them. By itself the check asks the far side,
and leaves an observation of what it said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from sqlflow_dagster import health
from sqlflow_dagster.assets.names import Keys
from sqlflow_dagster.connectors import registry
from sqlflow_dagster.errors import BadOption, SourceError
from sqlflow_dagster.health import Finding
from sqlflow_dagster.plan.nodes import Export, Group, Load, Source
from sqlflow_dagster.session import Outcome, Session

NAME = "reachable"
_NOT_THERE = (SourceError, BadOption)


def declared(group: Group, keys: Keys) -> list[dg.AssetCheckSpec]:
    """Return the checks of a group: one for each source, and for each export."""
    return [
        dg.AssetCheckSpec(NAME, asset=key, description=_promise(item))
        for key, item in _far_sides(group, keys).items()
    ]


def answered(
    session: Session,
    group: Group,
    keys: Keys,
    outcomes: Sequence[Outcome],
    selected: Iterable[dg.AssetCheckKey],
    clean: Callable[[str], str],
) -> Iterator[dg.AssetCheckResult | dg.AssetObservation]:
    """Yield the results of the selected checks, and observations where the far side was asked for them."""
    wanted = {check.asset_key for check in selected if check.name == NAME}
    for key, item in _far_sides(group, keys).items():
        if key not in wanted:
            continue
        told = _told(item, outcomes)
        finding = told or _asked(session, item)
        metadata = _metadata(finding, clean)
        if not told:
            yield dg.AssetObservation(asset_key=key, metadata={NAME: finding.ok, **metadata})
        yield dg.AssetCheckResult(
            check_name=NAME,
            asset_key=key,
            passed=finding.level == "fine",
            severity=dg.AssetCheckSeverity.WARN if finding.ok else dg.AssetCheckSeverity.ERROR,
            metadata=metadata,
        )


def _far_sides(group: Group, keys: Keys) -> Mapping[dg.AssetKey, Source | Export]:
    """Each source of the group by the asset of its first LOAD, and each export; none that are files."""
    loads: dict[str, Load] = {}
    found: dict[dg.AssetKey, Source | Export] = {}
    for step in group.steps:
        if isinstance(step, Load) and _is_system(step.source.type):
            loads.setdefault(step.source.name, step)
        elif isinstance(step, Export) and _is_system(step.type):
            found[keys.of(step)] = step
    return {**{keys.of(load): load.source for load in loads.values()}, **found}


def _is_system(type_: str) -> bool:
    # That a file could be read or written, its rows say: an event of each run would say no more.
    return registry.find(type_).family != "file"


def _promise(item: Source | Export) -> str:
    if isinstance(item, Source):
        return f"The source {item.name} ({item.type}) can be read."
    return f"The target of {item.name} ({item.type}) can be written to."


def _told(item: Source | Export, outcomes: Sequence[Outcome]) -> Finding | None:
    """What the run's own reads and writes say; None where they do not."""
    if isinstance(item, Source):
        loads = [o for o in outcomes if isinstance(o.step, Load) and o.step.source.name == item.name]
        return _of_reads(loads) if loads else None
    for outcome in outcomes:
        if outcome.step == item and outcome.error is None:
            return Finding("fine", f"{outcome.rows:,} rows were written")
        # Another error may be the query's: it does not say how the target is.
        if outcome.step == item and isinstance(outcome.error, _NOT_THERE):
            return Finding("fail", str(outcome.error))
    return None


def _of_reads(outcomes: Sequence[Outcome]) -> Finding:
    failed = [outcome.error for outcome in outcomes if isinstance(outcome.error, _NOT_THERE)]
    if len(failed) == len(outcomes):
        return Finding("fail", str(failed[0]))
    return Finding("fine", f"{len(outcomes) - len(failed)} of {len(outcomes)} streams were read")


def _asked(session: Session, item: Source | Export) -> Finding:
    scope = session.scope(item.scope)
    if isinstance(item, Source):
        return health.reachability(lambda: session.project.connector(item, scope))
    return health.reachability(lambda: session.project.target(item, scope))


def _metadata(finding: Finding, clean: Callable[[str], str]) -> dict[str, Any]:
    facts = {name: clean(fact) if isinstance(fact, str) else fact for name, fact in finding.facts.items()}
    return {"message": dg.MetadataValue.text(clean(finding.message)), **facts}
