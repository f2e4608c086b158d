"""A source's columns beside its table's: what may change by itself, and what is refused.

| policy | new column | column gone | wider type | values that fit neither type |
|---|---|---|---|---|
| strict | refused | refused | refused | refused |
| guided | added | NULL | widened | refused |
| permissive | added | NULL | widened | the column becomes VARCHAR |

A type is wider where every value there is comes back from it as it was: this is asked of the
values, not of a table of types, so nothing is rounded. Versions are kept in `_sqlflow.schemas`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from duckdb import DuckDBPyConnection

from sqlflow_dagster.errors import LoadRefused
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.sql import Sql, TableName, quote, sql
from sqlflow_dagster.warehouse import tables

Policy = Literal["strict", "guided", "permissive"]
_SCHEMAS = quote("_sqlflow", "schemas")


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: `alter` is what makes the table fit, None where nothing has to be done."""

    text: str
    alter: Sql | None = None


def evolve(connection: DuckDBPyConnection, table: TableName, rows: Sql, policy: Policy) -> tuple[str, ...]:
    """Make an existing table able to hold the rows of a relation, and return what changed, in words.

    Raises LoadRefused where the policy does not allow it, naming the columns and their types.
    """
    changes = [
        *_new(connection, table, rows),
        *_gone(connection, table, rows),
        *_retyped(connection, table, rows, policy),
    ]
    if policy == "strict" and changes:
        raise LoadRefused(
            f"{table}: the source's schema changed, and schema_policy is strict: "
            f"{'; '.join(change.text for change in changes)}"
        )
    for change in changes:
        if change.alter:
            connection.execute(sql("ALTER TABLE {table} {alter}", table=quote(*table), alter=change.alter))
            failpoint("in_schema_alter")
    return tuple(change.text for change in changes if change.alter)


def compare(
    table: TableName, before: Mapping[str, str], after: Mapping[str, str], policy: Policy
) -> tuple[str, ...]:
    """Return how the columns of a table that is swapped differ. Raises LoadRefused under strict."""
    old = {name.casefold(): kind for name, kind in before.items()}
    new = {name.casefold(): kind for name, kind in after.items()}
    changes = [f"column {name} was added as {kind}" for name, kind in new.items() if name not in old]
    changes += [f"column {name} is gone" for name in old if name not in new]
    changes += [
        f"column {name} changed from {old[name]} to {kind}"
        for name, kind in new.items()
        if name in old and old[name] != kind
    ]
    if policy == "strict" and changes:
        raise LoadRefused(
            f"{table}: the source's schema changed, and schema_policy is strict: {'; '.join(changes)}"
        )
    return tuple(changes)


def hash_of(columns: Mapping[str, str]) -> str:
    """Return a short hash of names and types."""
    return hashlib.sha256(json.dumps(list(columns.items())).encode()).hexdigest()[:16]


def note_version(
    connection: DuckDBPyConnection, table: TableName, columns: Mapping[str, str], committed_at: str
) -> None:
    """Add a version of the table's schema where it differs from the newest one."""
    connection.execute(
        sql(
            "CREATE TABLE IF NOT EXISTS {schemas} (table_schema VARCHAR, table_name VARCHAR, version BIGINT,"
            " schema_hash VARCHAR, columns VARCHAR, committed_at VARCHAR)",
            schemas=_SCHEMAS,
        )
    )
    row = connection.execute(
        sql(
            "SELECT version, schema_hash FROM {schemas} WHERE table_schema = $1 AND table_name = $2"
            " ORDER BY version DESC LIMIT 1",
            schemas=_SCHEMAS,
        ),
        list(table),
    ).fetchone()
    if row and row[1] == hash_of(columns):
        return
    connection.execute(
        sql("INSERT INTO {schemas} VALUES ($1, $2, $3, $4, $5, $6)", schemas=_SCHEMAS),
        [*table, (row[0] if row else 0) + 1, hash_of(columns), json.dumps(columns), committed_at],
    )


def _new(connection: DuckDBPyConnection, table: TableName, rows: Sql) -> list[Change]:
    known = _folded(connection, quote(*table))
    return [
        Change(
            f"column {name} was added as {kind}",
            sql("ADD COLUMN {name} {kind}", name=quote(name), kind=Sql(kind)),
        )
        for name, kind in tables.columns(connection, rows).items()
        if name.casefold() not in known
    ]


def _gone(connection: DuckDBPyConnection, table: TableName, rows: Sql) -> list[Change]:
    staged = _folded(connection, rows)
    return [
        Change(f"column {name} is gone")
        for name in tables.columns(connection, quote(*table))
        if name.casefold() not in staged and name.casefold() != "_sqlflow_file"
    ]


def _retyped(connection: DuckDBPyConnection, table: TableName, rows: Sql, policy: Policy) -> list[Change]:
    known = _folded(connection, quote(*table))
    changes: list[Change] = []
    for name, wanted in tables.columns(connection, rows).items():
        if name.casefold() not in known:
            continue
        own, have = known[name.casefold()]
        if have == wanted or tables.survives(connection, rows, name, have):
            continue
        target = wanted if tables.survives(connection, quote(*table), own, wanted) else None
        if target is None and policy == "permissive":
            target = "VARCHAR"
        if target is None:
            raise LoadRefused(
                f"{table}: the column {name!r} is {have} in the table and {wanted} at the source, and "
                "values do not fit; declare its type, or set schema_policy to permissive to keep it as text"
            )
        changes.append(
            Change(
                f"column {own} was widened from {have} to {target}",
                sql("ALTER {name} TYPE {kind}", name=quote(own), kind=Sql(target)),
            )
        )
    return changes


def _folded(connection: DuckDBPyConnection, relation: Sql) -> dict[str, tuple[str, str]]:
    return {name.casefold(): (name, kind) for name, kind in tables.columns(connection, relation).items()}
