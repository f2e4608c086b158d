"""An outcome → the metadata of a materialization. Nothing in it is a secret or active markup."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from sqlflow_dagster.assets import markdown
from sqlflow_dagster.assets.secrets import without_password
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.plan.nodes import Lineage, Load, Transform
from sqlflow_dagster.resilience.counts import Calls
from sqlflow_dagster.session import Outcome
from sqlflow_dagster.sql import TableName

_INTEGERS = {f"{sign}{size}INT" for sign in ("", "U") for size in ("TINY", "SMALL", "BIG", "HUGE")}
_INTEGERS |= {"INTEGER", "UINTEGER"}
_FRACTIONS = ("DECIMAL", "DOUBLE", "FLOAT")


def metadata_of(outcome: Outcome, owners: Mapping[TableName, dg.AssetKey]) -> dict[str, Any]:
    """Return what the web UI shows and plots of one materialization."""
    metadata: dict[str, Any] = {
        "rows": outcome.rows,
        "duration_seconds": round(outcome.seconds, 3),
        "rows_per_second": round(outcome.rows / outcome.seconds, 1) if outcome.seconds else 0.0,
        **_counts(outcome),
        **_calls(outcome),
    }
    if outcome.total_rows is not None:
        metadata["dagster/row_count"] = outcome.total_rows
    if outcome.columns:
        metadata["dagster/column_schema"] = _schema(outcome.columns)
    lineage = _lineage(outcome.lineage, owners)
    if lineage:
        metadata["dagster/column_lineage"] = lineage
    audited = dict(outcome.audit.facts) if outcome.audit else {}
    return metadata | dict(outcome.facts) | audited | _cursors(outcome) | _target(outcome) | _remarks(outcome)


def _cursors(outcome: Outcome) -> dict[str, Any]:
    if not isinstance(outcome.step, Load):
        return {}
    return _cursor("cursor_before", outcome.cursor_before) | _cursor("cursor_after", outcome.cursor_after)


def _target(outcome: Outcome) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if outcome.bytes is not None:
        metadata["bytes"] = outcome.bytes
    if outcome.target is not None:
        metadata["target"] = dg.MetadataValue.text(without_password(outcome.target))
    return metadata


def _remarks(outcome: Outcome) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    if outcome.schema_changes:
        metadata["schema_changes"] = _list(outcome.schema_changes)
    if outcome.notices:
        metadata["notices"] = _list(outcome.notices)
    if outcome.repaired:
        metadata["reconciled"] = True
    if outcome.skipped:
        metadata["already_done"] = True
    return metadata


def _counts(outcome: Outcome) -> dict[str, int]:
    if outcome.target is not None:
        return {}
    return {
        "rows_inserted": outcome.inserted,
        "rows_updated": outcome.updated,
        "rows_deleted": outcome.deleted,
        "rows_quarantined": outcome.quarantined,
    }


def _calls(outcome: Outcome) -> dict[str, Any]:
    if isinstance(outcome.step, Transform):
        return {}
    return {
        "requests": outcome.calls.requests,
        "retries": outcome.calls.retries,
        "seconds_waited": round(outcome.calls.seconds_waited, 3),
        "breaker_openings": outcome.calls.breaker_openings,
        **_cost(outcome.calls),
    }


def _cost(calls: Calls) -> dict[str, Any]:
    """What a store that asks for money has sent, and its price."""
    if not calls.cost_usd and not calls.bytes_transferred:
        return {}
    return {"bytes_transferred": calls.bytes_transferred, "cost_usd": round(calls.cost_usd, 6)}


def _schema(columns: Mapping[str, str]) -> dg.TableSchema:
    return dg.TableSchema(columns=[dg.TableColumn(name=name, type=kind) for name, kind in columns.items()])


def _lineage(
    lineage: tuple[Lineage, ...], owners: Mapping[TableName, dg.AssetKey]
) -> dg.TableColumnLineage | None:
    known = {
        item.column: [
            dg.TableColumnDep(asset_key=owners[table.folded], column_name=column)
            for table, column in item.inputs
            if table.folded in owners
        ]
        for item in lineage
        if item.inputs is not None
    }
    return dg.TableColumnLineage(deps_by_column=known) if known else None


def _cursor(name: str, cursor: Cursor | None) -> dict[str, Any]:
    """The cursor as text, and as a number or time that the UI can plot."""
    if cursor is None:
        return {}
    values: dict[str, Any] = {name: dg.MetadataValue.text(cursor.value[:1000])}
    plotted = _plotted(cursor)
    if plotted is not None:
        values[f"{name}_value"] = plotted
    return values


def _plotted(cursor: Cursor) -> dg.MetadataValue[Any] | None:
    """The value by its column's type, so that a plot never meets two types under one name."""
    kind = cursor.type.upper()
    try:
        if kind.startswith(("DATE", "TIMESTAMP")):
            moment = datetime.fromisoformat(cursor.value)
            aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
            return dg.MetadataValue.timestamp(aware.timestamp())
        if kind in _INTEGERS:
            return dg.MetadataValue.int(int(cursor.value))
        if kind.startswith(_FRACTIONS):
            number = float(cursor.value)
            return dg.MetadataValue.float(number) if math.isfinite(number) else None
    except (ValueError, OverflowError):
        # `infinity`, and years that Python has not: shown as text, and not plotted.
        return None
    return None


def _list(lines: tuple[str, ...]) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.md(markdown.items(map(without_password, lines)))
