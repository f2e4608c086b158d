"""The promises of tables → Dagster's asset checks, each declared one answered in every run."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import dagster as dg

from sqlflow_dagster.assets.secrets import redactor
from sqlflow_dagster.health import Finding
from sqlflow_dagster.plan.nodes import Export, Load, Step, Transform
from sqlflow_dagster.session import Outcome, Session
from sqlflow_dagster.sql import Sql, TableName, join, literal, quote, sql

if TYPE_CHECKING:
    from sqlflow_dagster.warehouse.duckdb import Connection

_KEY = "key_unique_and_not_null"
_QUARANTINE = "no_rows_quarantined"
_LOSS = "loss_audit"
# Above this many rows a run checks a share of the keys, another one in each run.
_ROWS_AT_ONCE = 250_000


def declared(step: Step, key: dg.AssetKey) -> list[dg.AssetCheckSpec]:
    """Return the checks of the table that a step is the last to write."""
    checks = []
    if isinstance(step, Load) and step.quarantines:
        checks.append(
            dg.AssetCheckSpec(_QUARANTINE, asset=key, description="No row of the last load was set aside.")
        )
    if isinstance(step, Load) and step.loss_audit:
        checks.append(dg.AssetCheckSpec(_LOSS, asset=key, description="No row of the source was lost."))
    if _promises_key(step):
        checks.append(
            dg.AssetCheckSpec(_KEY, asset=key, description="No two rows have one key, and none has no key.")
        )
    return checks


@dataclass(frozen=True, slots=True)
class Table:
    """A table whose checks are asked for, and the outcome where this run has just stored it."""

    key: dg.AssetKey
    step: Load | Transform
    outcome: Outcome | None = None

    @property
    def quarantined(self) -> int | None:
        """How many rows its last load set aside, None where this run does not know."""
        return self.outcome.quarantined if self.outcome and not self.outcome.skipped else None


def answered(
    session: Session, tables: Sequence[Table], selected: Iterable[dg.AssetCheckKey]
) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of the selected checks of these tables; the warehouse is opened once for all of them."""
    wanted = {(check.asset_key, check.name) for check in selected}
    keyed = [table for table in tables if (table.key, _KEY) in wanted]
    aside = [table for table in tables if (table.key, _QUARANTINE) in wanted]
    audited = [table for table in tables if (table.key, _LOSS) in wanted]
    rows = {table.key: table.quarantined for table in aside}
    facts: dict[dg.AssetKey, Mapping[str, int]] = {}
    if keyed or None in rows.values():
        with session.project.warehouse.open() as connection:
            for table in keyed:
                facts[table.key] = _key_facts(connection, table.step, session.run_id)
            for table in aside:
                if rows[table.key] is None:
                    rows[table.key] = _quarantined(connection, table.step.table)
    for table in keyed:
        yield _key_result(table, facts[table.key])
    for table in aside:
        yield _quarantine_result(table.key, rows[table.key] or 0)
    if audited:
        from sqlflow_dagster import audit  # noqa: PLC0415 - slow, and loading definitions needs none
    for table in audited:
        if isinstance(table.step, Load):
            found = table.outcome and table.outcome.audit
            yield _loss_result(session, table.key, table.step, found or audit.now(session, table.step))


def _promises_key(step: Step) -> bool:
    return not isinstance(step, Export) and step.mode == "upsert" and bool(step.keys)


def _quarantine_result(key: dg.AssetKey, rows: int) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        check_name=_QUARANTINE,
        asset_key=key,
        passed=rows == 0,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"rows": rows, "table": dg.MetadataValue.text("_sqlflow.quarantine")},
    )


def _loss_result(session: Session, key: dg.AssetKey, step: Load, finding: Finding) -> dg.AssetCheckResult:
    pipeline = session.project.plan.pipeline(step.pipeline)
    clean = redactor(session, pipeline) if pipeline else str
    return dg.AssetCheckResult(
        check_name=_LOSS,
        asset_key=key,
        passed=finding.level == "fine",
        severity=dg.AssetCheckSeverity.WARN if finding.ok else dg.AssetCheckSeverity.ERROR,
        metadata={"message": dg.MetadataValue.text(clean(finding.message)), **finding.facts},
    )


def _key_result(table: Table, facts: Mapping[str, int]) -> dg.AssetCheckResult:
    repeated = facts["keys_repeated"]
    metadata: dict[str, Any] = {**facts, "key": dg.MetadataValue.text(", ".join(table.step.keys))}
    return dg.AssetCheckResult(
        check_name=_KEY,
        asset_key=table.key,
        passed=repeated == 0 and facts["rows_without_key"] == 0,
        # A row without a key is the source's doing and is merged as one key; a repeated key is not.
        severity=dg.AssetCheckSeverity.ERROR if repeated else dg.AssetCheckSeverity.WARN,
        metadata=metadata,
    )


def _key_facts(connection: Connection, step: Load | Transform, run_id: str) -> dict[str, int]:
    table, columns = quote(*step.table), [quote(name) for name in step.keys]
    rows, without = _row(
        connection,
        sql(
            # Each by itself: DuckDB's statistics of a column say where no NULL can be.
            "SELECT (SELECT count(*) FROM {table}), (SELECT count(*) FROM {table} WHERE {missing})",
            missing=join(" OR ", [sql("{column} IS NULL", column=column) for column in columns]),
            table=table,
        ),
    )
    shares = -(-rows // _ROWS_AT_ONCE) or 1
    checked, repeated = _row(
        connection,
        sql(
            "SELECT coalesce(sum(n), 0), count(*) FILTER (n > 1) FROM"
            " (SELECT count(*) AS n FROM {table} WHERE {share} GROUP BY {columns})",
            table=table,
            share=_share(columns, shares, run_id),
            columns=join(", ", columns),
        ),
    )
    return {"rows": rows, "rows_checked": checked, "rows_without_key": without, "keys_repeated": repeated}


def _share(columns: Sequence[Sql], shares: int, run_id: str) -> Sql:
    if shares == 1:
        return Sql("TRUE")
    turn = int(hashlib.sha256(run_id.encode()).hexdigest(), 16) % shares
    return sql(
        "hash({columns}) % {shares} = {turn}",
        columns=join(", ", columns),
        shares=literal(shares),
        turn=literal(turn),
    )


def _quarantined(connection: Connection, table: TableName) -> int:
    known = (
        "SELECT count(*), 0 FROM duckdb_tables() WHERE schema_name = '_sqlflow' AND table_name = 'quarantine'"
    )
    if not _row(connection, Sql(known))[0]:
        return 0
    query = sql(
        "SELECT count(*), 0 FROM {quarantine} WHERE table_schema = {schema} AND table_name = {name}",
        quarantine=quote("_sqlflow", "quarantine"),
        schema=literal(table.schema),
        name=literal(table.name),
    )
    return _row(connection, query)[0]


def _row(connection: Connection, query: Sql) -> tuple[int, int]:
    row = connection.execute(query).fetchone()
    return (int(row[0]), int(row[1])) if row else (0, 0)
