"""A source's columns beside its table's: what may change by itself, and what is refused.

Where rows are added to a table:

| policy | new column | column gone | wider type | values that fit neither type |
|---|---|---|---|---|
| strict | refused | refused | refused | refused |
| guided | added | NULL | widened | refused |
| permissive | added | NULL | widened | those rows go to `_sqlflow.quarantine` |

A type is wider where it holds every value of both sides, exactly: this is asked of the values, so
nothing is rounded. Text is no wider number: a column keeps its kind, so that the SQL that reads it
keeps its meaning. A table that is swapped takes the types of what was read; strict refuses that too,
until the cursor is reset. Versions are kept in `_sqlflow.schemas`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from duckdb import DuckDBPyConnection

from sqlflow_dagster.errors import LoadRefused
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.sql import Sql, TableName, bound, fold, quote, sql
from sqlflow_dagster.warehouse import quarantine, tables, types
from sqlflow_dagster.warehouse.changes import COLUMN as CHANGE

Policy = Literal["strict", "guided", "permissive"]
_SCHEMAS = quote("_sqlflow", "schemas")


@dataclass(frozen=True, slots=True)
class Change:
    """One difference: `alter` is what makes the table fit, None where nothing has to be done."""

    text: str
    alter: Sql | None = None


def plan(
    connection: DuckDBPyConnection, table: Sql, rows: Sql, policy: Policy, label: str, *, settled: bool = True
) -> tuple[Change, ...]:
    """Return what makes a table able to hold the rows of a relation; `apply` does it.

    Under `permissive`, rows that cannot fit are taken out of `rows` and set aside. Where the types are not
    `settled`, columns of text are so for want of any value, and take the type of the first ones.

    Raises LoadRefused where the policy does not allow it, naming the columns and their types.
    """
    have, wanted = _folded(connection, table), _folded(connection, rows)
    wanted.pop(CHANGE, None)
    changes = [*_new(have, wanted), *_gone(have, wanted)]
    first: list[Change] = []
    for name, (own, kind) in wanted.items():
        if name not in have or have[name][1] == kind:
            continue
        if have[name][1] == "VARCHAR" and not settled:
            first.append(_altered(have[name][0], kind, "has its first values and became"))
        else:
            changes += _retyped(connection, _Pair(table, *have[name], rows, own, kind), policy, label)
    if policy == "strict" and changes:
        raise LoadRefused(_refusal(label, [change.text for change in changes]))
    return tuple(change for change in (*first, *changes) if change.alter)


def apply(connection: DuckDBPyConnection, table: Sql, changes: Iterable[Change]) -> None:
    """Alter the table, in the caller's transaction."""
    for change in changes:
        if change.alter:
            connection.execute(sql("ALTER TABLE {table} {alter}", table=table, alter=change.alter))
            failpoint("in_schema_alter")


def liken(connection: DuckDBPyConnection, table: Sql, rows: Sql, names: Iterable[str]) -> None:
    """Give columns of `rows` the type that the table has, where each value is itself in it.

    DuckDB would compare texts as numbers, and large whole numbers as what floats make of them.
    """
    have, staged = _folded(connection, table), _folded(connection, rows)
    for folded in map(fold, names):
        if folded not in have:
            continue
        (own, kind), wanted = staged[folded], have[folded][1]
        if not types.always_fits(kind, wanted) and types.fits(connection, rows, own, kind, wanted):
            alter = "ALTER TABLE {rows} ALTER {name} TYPE {kind}"
            connection.execute(sql(alter, rows=rows, name=quote(own), kind=Sql(wanted)))


def compare(
    label: str, before: Mapping[str, str], after: Mapping[str, str], policy: Policy
) -> tuple[Change, ...]:
    """Return how the columns of a table that is swapped differ. Raises LoadRefused under strict."""
    old = {fold(name): (name, kind) for name, kind in before.items()}
    new = {fold(name): (name, kind) for name, kind in after.items()}
    changes = [Change(change.text) for change in (*_new(old, new), *_gone(old, new))]
    changes += [
        Change(f"column {own} changed from {old[name][1]} to {kind}")
        for name, (own, kind) in new.items()
        if name in old and old[name][1] != kind
    ]
    if policy == "strict" and changes:
        raise LoadRefused(_refusal(label, [change.text for change in changes]))
    return tuple(changes)


def columns_of(connection: DuckDBPyConnection, table: TableName) -> dict[str, str] | None:
    """Return the columns whose types later rows are to have; None where there is no table.

    Not those of a table without rows, nor JSON without any value: a field that was null so far is that, and takes
    the type of its first value.
    """
    relation = quote(*table)
    if not tables.is_readable(connection, relation):
        return None
    if types.has_no_rows(connection, relation):
        return {}
    return {
        name: kind
        for name, kind in tables.columns(connection, relation).items()
        if kind != "JSON" or not types.is_empty(connection, relation, name)
    }


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
        bound(
            "SELECT version, schema_hash FROM {schemas} WHERE table_schema = $1 AND table_name = $2"
            " ORDER BY version DESC LIMIT 1",
            table,
            schemas=_SCHEMAS,
        )
    ).fetchone()
    if row and row[1] == hash_of(columns):
        return
    connection.execute(
        bound(
            "INSERT INTO {schemas} VALUES ($1, $2, $3, $4, $5, $6)",
            [*table, (row[0] if row else 0) + 1, hash_of(columns), json.dumps(columns), committed_at],
            schemas=_SCHEMAS,
        )
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """A column of the table and the one of the rows that goes into it."""

    table: Sql
    name: str
    have: str
    rows: Sql
    own: str
    wanted: str

    def common(self, connection: DuckDBPyConnection) -> str | None:
        """The type that the table's column must have, its own where that does; None where none does."""
        if types.fits(connection, self.rows, self.own, self.wanted, self.have):
            return self.have
        if types.is_empty(connection, self.table, self.name):
            return self.wanted
        for kind in types.wider(connection, self.have, self.wanted):
            fits = types.fits(connection, self.rows, self.own, self.wanted, kind)
            if fits and types.fits(connection, self.table, self.name, self.have, kind):
                return kind
        return None


def _retyped(connection: DuckDBPyConnection, pair: _Pair, policy: Policy, label: str) -> Iterator[Change]:
    target = pair.common(connection)
    if target == pair.have:
        return
    if target is not None:
        yield _altered(pair.name, target, f"was widened from {pair.have} to")
        return
    if policy != "permissive":
        raise LoadRefused(
            f"{label}: the column {pair.name!r} is {pair.have} in the table and {pair.wanted} at the source, "
            "with values that fit only one of them. Mend the source or declare the column's type; "
            "schema_policy permissive sets such rows aside, a reset of the cursor takes the new type"
        )
    quarantine.set_aside(connection, pair.rows, pair.own, pair.wanted, pair.have, label)


def _altered(name: str, kind: str, how: str) -> Change:
    alter = sql("ALTER {name} TYPE {kind}", name=quote(name), kind=Sql(kind))
    return Change(f"column {name} {how} {kind}", alter)


def _new(have: Mapping[str, tuple[str, str]], wanted: Mapping[str, tuple[str, str]]) -> Iterator[Change]:
    for folded, (name, kind) in wanted.items():
        if folded not in have:
            alter = sql("ADD COLUMN {name} {kind}", name=quote(name), kind=Sql(kind))
            yield Change(f"column {name} was added as {kind}", alter)


def _gone(have: Mapping[str, tuple[str, str]], wanted: Mapping[str, tuple[str, str]]) -> Iterator[Change]:
    for folded, (name, _kind) in have.items():
        if folded not in wanted and folded not in ("_sqlflow_file", "_sqlflow_load"):
            yield Change(f"column {name} is gone")


def _refusal(label: str, changes: list[str]) -> str:
    return f"{label}: the source's schema changed, and schema_policy is strict: {'; '.join(changes)}"


def _folded(connection: DuckDBPyConnection, relation: Sql) -> dict[str, tuple[str, str]]:
    return {fold(name): (name, kind) for name, kind in tables.columns(connection, relation).items()}
