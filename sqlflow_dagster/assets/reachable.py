"""Whether a group's sources are there → an asset check of the first table that each one fills.

In a run the reads say it; nothing is asked beside them. By itself the check asks the source, and
leaves an observation of what it said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from sqlflow_dagster import health
from sqlflow_dagster.assets.names import Keys
from sqlflow_dagster.connectors import registry
from sqlflow_dagster.errors import NotAllowed, RetryLater, SourceFailed
from sqlflow_dagster.health import Finding
from sqlflow_dagster.plan.nodes import Group, Load, Source
from sqlflow_dagster.session import Outcome, Session

NAME = "reachable"
_NOT_THERE = (RetryLater, NotAllowed, SourceFailed)


def declared(group: Group, keys: Keys) -> list[dg.AssetCheckSpec]:
    """Return the checks of a group: one for each source."""
    return [
        dg.AssetCheckSpec(
            NAME, asset=key, description=f"The source {source.name} ({source.type}) can be read."
        )
        for key, source in _sources(group, keys).items()
    ]


def answered(
    session: Session,
    group: Group,
    keys: Keys,
    outcomes: Sequence[Outcome],
    selected: Iterable[dg.AssetCheckKey],
    clean: Callable[[str], str],
) -> Iterator[dg.AssetCheckResult | dg.AssetObservation]:
    """Yield the results of the selected checks, and observations where a source was asked for them."""
    wanted = {check.asset_key for check in selected if check.name == NAME}
    for key, source in _sources(group, keys).items():
        if key not in wanted:
            continue
        own = [o for o in outcomes if isinstance(o.step, Load) and o.step.source.name == source.name]
        finding = _of_reads(own) if own else _of_source(session, source)
        metadata = _metadata(finding, clean)
        if not own:
            yield dg.AssetObservation(asset_key=key, metadata={NAME: finding.ok, **metadata})
        yield dg.AssetCheckResult(
            check_name=NAME,
            asset_key=key,
            passed=finding.level == "fine",
            severity=dg.AssetCheckSeverity.WARN if finding.ok else dg.AssetCheckSeverity.ERROR,
            metadata=metadata,
        )


def _sources(group: Group, keys: Keys) -> Mapping[dg.AssetKey, Source]:
    """Each source of the group that is no file, by the asset of its first LOAD."""
    first: dict[str, Load] = {}
    for step in group.steps:
        # That a file could be read, its rows say: an event of each run would say no more.
        if isinstance(step, Load) and registry.find(step.source.type).family != "file":
            first.setdefault(step.source.name, step)
    return {keys.of(load): load.source for load in first.values()}


def _of_reads(outcomes: Sequence[Outcome]) -> Finding:
    failed = [outcome.error for outcome in outcomes if isinstance(outcome.error, _NOT_THERE)]
    if len(failed) == len(outcomes):
        return Finding("fail", str(failed[0]))
    return Finding("fine", f"{len(outcomes) - len(failed)} of {len(outcomes)} streams were read")


def _of_source(session: Session, source: Source) -> Finding:
    return health.reachability(lambda: session.project.connector(source, session.scope(source.scope)))


def _metadata(finding: Finding, clean: Callable[[str], str]) -> dict[str, Any]:
    facts = {name: clean(fact) if isinstance(fact, str) else fact for name, fact in finding.facts.items()}
    return {"message": dg.MetadataValue.text(clean(finding.message)), **facts}
