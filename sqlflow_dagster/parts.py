"""What the tries of one LOAD stored → one outcome: checkpoints of a read that broke later stay.

So do the partitions of a run that has several.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from sqlflow_dagster.cursor import Start
from sqlflow_dagster.resilience.counts import added
from sqlflow_dagster.session import Outcome
from sqlflow_dagster.warehouse.load import Loaded


class Part(NamedTuple):
    """What the checkpoints of one try stored, and where it had begun."""

    start: Start
    loaded: Loaded


def with_parts(outcome: Outcome, parts: Sequence[Part]) -> Outcome:
    """Return the outcome of all tries: `outcome` is that of the last one."""
    if not parts or outcome.skipped:
        return outcome
    stored = [part.loaded for part in parts]
    sizes = [size for size in (*(loaded.bytes for loaded in stored), outcome.bytes) if size is not None]
    changes = [text for loaded in stored for text in loaded.schema_changes]
    notices = [text for loaded in stored for text in loaded.notices]
    return replace(
        outcome,
        rows=outcome.rows + sum(loaded.rows_read for loaded in stored),
        inserted=outcome.inserted + sum(loaded.inserted for loaded in stored),
        updated=outcome.updated + sum(loaded.updated for loaded in stored),
        deleted=outcome.deleted + sum(loaded.deleted for loaded in stored),
        quarantined=outcome.quarantined + sum(loaded.quarantined for loaded in stored),
        bytes=sum(sizes) if sizes else None,
        cursor_before=parts[0].start.cursor,
        schema_changes=(*changes, *outcome.schema_changes),
        notices=(*notices, *outcome.notices),
        repaired=outcome.repaired or parts[0].start.repair is not None,
    )


def of_partitions(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the outcome of a step that was done for one partition after the other, the newest at last."""
    *_, last = outcomes
    if len(outcomes) == 1:
        return last
    sizes = [outcome.bytes for outcome in outcomes if outcome.bytes is not None]
    return replace(
        last,
        rows=sum(outcome.rows for outcome in outcomes),
        inserted=sum(outcome.inserted for outcome in outcomes),
        updated=sum(outcome.updated for outcome in outcomes),
        deleted=sum(outcome.deleted for outcome in outcomes),
        quarantined=sum(outcome.quarantined for outcome in outcomes),
        bytes=sum(sizes) if sizes else None,
        seconds=sum(outcome.seconds for outcome in outcomes),
        calls=added(outcome.calls for outcome in outcomes),
        cursor_before=outcomes[0].cursor_before,
        schema_changes=tuple(text for outcome in outcomes for text in outcome.schema_changes),
        notices=tuple(dict.fromkeys(text for outcome in outcomes for text in outcome.notices)),
        repaired=any(outcome.repaired for outcome in outcomes),
        skipped=all(outcome.skipped for outcome in outcomes),
    )
