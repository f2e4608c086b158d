"""Batches of any kind → rows of one table, shaped before anything is stored.

This is the one place where columns are chosen, values masked and rows filtered, so that a
connector's own push-down is only ever a matter of speed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import LoadRefused, SourceFailed, WarehouseError
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.sql import Condition, Sql, Value, join, literal, quote, sql
from sqlflow_dagster.warehouse import tables
from sqlflow_dagster.warehouse.duckdb import Attached, attach_all
from sqlflow_dagster.warehouse.extensions import load_extensions
from sqlflow_dagster.warehouse.shape import Shape

if TYPE_CHECKING:
    import pyarrow as pa

PROVENANCE = "_sqlflow_file"
REJECTS, REJECT_SCANS = "_sqlflow_rejects", "_sqlflow_reject_scans"
_TEMPORAL = ("DATE", "TIMESTAMP")
_NUMERIC = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER",
            "UBIGINT", "UHUGEINT", "DECIMAL", "FLOAT", "DOUBLE")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of each batch is stored, and what it must have."""

    shape: Shape
    since: Cursor | None
    cursor_field: str | None
    keys: tuple[str, ...]
    row_provenance: bool
    null_cursors: bool


@dataclass
class Intake:
    """Takes the batches of one read into the table `rows` of a connection."""

    connection: DuckDBPyConnection
    rows: Sql
    wanted: Wanted
    label: str
    spool: Path
    commit: Callable[[Cursor | None], None] | None = None
    read: int = 0
    columns: dict[str, str] = field(default_factory=dict)
    replaces: set[str] = field(default_factory=set)
    reached: Cursor | None = None
    rejected: list[tuple[str, str, str]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    _made: bool = False

    @property
    def started(self) -> bool:
        """Whether any batch has come: only then is the source's schema known."""
        return self._made

    def scan(
        self,
        query: Sql,
        parameters: Sequence[Value] = (),
        *,
        extensions: Sequence[str] = (),
        attach: Sequence[Attached] = (),
        rejects: bool = False,
        provenance: bool = False,
        replaces: Sequence[str] = (),
    ) -> None:
        """Take the rows of a SELECT that DuckDB runs itself."""
        load_extensions(self.connection, extensions)
        try:
            attach_all(self.connection, attach)
        except duckdb.Error as error:
            raise SourceFailed(f"{self.label}: {error}") from error
        self.replaces.update(replaces)
        self._take(sql("({query}\n)", query=query), list(parameters), provenance=provenance)
        if rejects:
            self._take_rejects()
        for database in attach:
            self.connection.execute(sql("DETACH {name}", name=quote(database.name)))

    def arrow(self, reader: pa.RecordBatchReader) -> None:
        """Take Arrow record batches, and close their reader."""
        name = "_sqlflow_arrow"
        try:
            self.connection.register(name, reader)
            try:
                self._take(quote(name), [])
            finally:
                self.connection.unregister(name)
        finally:
            reader.close()

    def json_lines(self, chunks: Iterable[bytes], columns: Mapping[str, str]) -> None:
        """Take newline-delimited JSON through a spooled file."""
        self.spool.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self.spool, suffix=".jsonl") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            struct = join(", ", (sql("{n}: {t}", n=quote(n), t=literal(t)) for n, t in columns.items()))
            query = sql(
                "SELECT * FROM read_json({path}, format = 'newline_delimited', columns = {{{columns}}},"
                " maximum_object_size = 1073741824)",
                path=literal(file.name),
                columns=struct,
            )
            self._take(sql("({query})", query=query), [])

    def position(self, cursor: Cursor) -> None:
        """Note where the source stands, for streams that make their own cursor."""
        self.reached = cursor

    def checkpoint(self, cursor: Cursor) -> None:
        """Commit what came so far, where this load may be committed in parts."""
        self.reached = cursor
        if self.commit:
            self.commit(cursor)

    def emptied(self) -> None:
        """Forget the rows, after they were committed."""
        self.connection.execute(sql("DROP TABLE IF EXISTS {rows}", rows=self.rows))
        self._made = False
        self.replaces.clear()

    def _take(self, relation: Sql, parameters: list[Value], *, provenance: bool = False) -> None:
        try:
            self._store(relation, parameters, provenance=provenance)
        except duckdb.Error as error:
            raise _explained(self.label, error) from error
        failpoint("after_fetch")

    def _store(self, relation: Sql, parameters: list[Value], *, provenance: bool) -> None:
        described = self.connection.execute(
            sql("DESCRIBE FROM {relation}", relation=relation), parameters
        ).fetchall()
        columns = {row[0]: row[1] for row in described}
        kept = self._kept(columns, provenance=provenance)
        where, values = self._where(columns, len(parameters))
        select = sql(
            "SELECT {columns} FROM {relation} AS batch WHERE {where}",
            columns=join(", ", kept.values()),
            relation=relation,
            where=where,
        )
        if self._made:
            self._widen(select, [*parameters, *values])
            statement = sql("INSERT INTO {rows} BY NAME {select}", rows=self.rows, select=select)
        else:
            statement = sql("CREATE OR REPLACE TABLE {rows} AS {select}", rows=self.rows, select=select)
        row = self.connection.execute(statement, [*parameters, *values]).fetchone()
        self._made = True
        self.read += int(row[0]) if row else 0
        self.columns = tables.columns(self.connection, self.rows)

    def _kept(self, columns: Mapping[str, str], *, provenance: bool) -> dict[str, Sql]:
        self._check(columns)
        shape = self.wanted.shape
        chosen = {name.casefold() for name in shape.columns}
        excluded = {name.casefold() for name in shape.exclude}
        if provenance and not self.wanted.row_provenance:
            excluded.add(PROVENANCE)
        elif provenance:
            chosen |= {PROVENANCE} if chosen else set()
        mask = {name.casefold(): how for name, how in shape.mask.items()}
        return {
            name: _masked(name, mask.get(name.casefold()))
            for name in columns
            if name.casefold() not in excluded and (not chosen or name.casefold() in chosen)
        }

    def _check(self, columns: Mapping[str, str]) -> None:
        folded = [name.casefold() for name in columns]
        twice = (
            sorted({name for name in folded if folded.count(name) > 1})
            if len(set(folded)) < len(folded)
            else []
        )
        if twice:
            raise LoadRefused(
                f"{self.label}: the columns {', '.join(twice)} differ only in case, which DuckDB does not tell apart; "
                "rename or exclude one"
            )
        shape = self.wanted.shape
        needed = [*self.wanted.keys, *shape.columns, *(c.column for c in shape.conditions), *shape.mask]
        needed += [self.wanted.cursor_field] if self.wanted.cursor_field else []
        missing = [name for name in dict.fromkeys(needed) if name.casefold() not in folded]
        if missing:
            raise LoadRefused(
                f"{self.label}: the source has no column {', '.join(map(repr, missing))}; it has {', '.join(columns)}"
            )

    def _where(self, columns: Mapping[str, str], bound: int) -> tuple[Sql, list[Value]]:
        parts: list[Sql] = []
        values: list[Value] = []
        for condition in self.wanted.shape.conditions:
            parts.append(_condition(condition, bound + len(values)))
            values += condition.values
        if self.wanted.cursor_field:
            parts += self._bounds(columns, self.wanted.cursor_field)
        return (join(" AND ", parts) if parts else Sql("TRUE")), values

    def _bounds(self, columns: Mapping[str, str], cursor_field: str) -> list[Sql]:
        shape, since = self.wanted.shape, self.wanted.since
        kind = next(k for name, k in columns.items() if name.casefold() == cursor_field.casefold())
        column = quote(cursor_field)
        parts: list[Sql] = []
        if since and since.type != "JSON":
            if not _comparable(since.type, kind):
                raise LoadRefused(
                    f"{self.label}: the cursor column {cursor_field!r} was {since.type} and is {kind} now; declare "
                    "its type, or reset the cursor"
                )
            parts.append(_since(column, since.value, kind))
        if shape.start:
            parts.append(_since(column, shape.start, kind))
        if shape.end:
            parts.append(
                sql(
                    "({column} < CAST({end} AS {kind}) OR {column} IS NULL)",
                    column=column,
                    end=literal(shape.end),
                    kind=Sql(kind),
                )
            )
        return parts

    def _widen(self, select: Sql, parameters: list[Any]) -> None:
        """Let a later batch bring new columns and wider types."""
        described = self.connection.execute(sql("DESCRIBE {select}", select=select), parameters).fetchall()
        known = {name.casefold(): (name, kind) for name, kind in self.columns.items()}
        for name, kind, *_ in described:
            have = known.get(name.casefold())
            if have is None:
                change = sql("ADD COLUMN {n} {t}", n=quote(name), t=Sql(kind))
            elif have[1] == kind or _fits_always(kind, have[1]):
                continue
            elif tables.survives(self.connection, self.rows, have[0], kind):
                change = sql("ALTER {n} TYPE {t}", n=quote(have[0]), t=Sql(kind))
            else:
                raise LoadRefused(
                    f"{self.label}: the column {name!r} is {have[1]} in one part of the source and {kind} in "
                    "another; declare its type"
                )
            self.connection.execute(sql("ALTER TABLE {rows} {change}", rows=self.rows, change=change))

    def _take_rejects(self) -> None:
        """Bad rows that a scan set aside, with their reason and place."""
        found = self.connection.execute(
            "SELECT 1 FROM duckdb_tables() WHERE table_name = $1 AND temporary", [REJECTS]
        ).fetchone()
        if not found:
            return
        rows = self.connection.execute(
            sql(
                "SELECT error_message, concat(s.file_path, ':', e.line), coalesce(e.csv_line, '')"
                " FROM {errors} AS e LEFT JOIN {scans} AS s USING (scan_id, file_id)",
                errors=quote(REJECTS),
                scans=quote(REJECT_SCANS),
            )
        ).fetchall()
        self.rejected += [(row[0], row[1], row[2]) for row in rows]
        for name in (REJECTS, REJECT_SCANS):
            self.connection.execute(sql("DELETE FROM {name}", name=quote(name)))


def _masked(name: str, how: str | None) -> Sql:
    column = quote(name)
    if how == "hash":
        return sql("sha256(CAST({column} AS VARCHAR)) AS {column}", column=column)
    if how == "redact":
        return sql("CASE WHEN {column} IS NOT NULL THEN '***' END AS {column}", column=column)
    return column


def _condition(condition: Condition, bound: int) -> Sql:
    places = [Sql(f"${bound + index + 1}") for index in range(len(condition.values))]
    column = quote(condition.column)
    if condition.operator in ("IN", "NOT IN"):
        return sql(
            "{column} {operator} ({places})",
            column=column,
            operator=Sql(condition.operator),
            places=join(", ", places),
        )
    return sql(
        "{column} {operator} {place}", column=column, operator=Sql(condition.operator), place=places[0]
    )


def _since(column: Sql, value: str, kind: str) -> Sql:
    return sql(
        "({column} >= CAST({value} AS {kind}) OR {column} IS NULL)",
        column=column,
        value=literal(value),
        kind=Sql(kind),
    )


def _family(kind: str) -> str:
    base = kind.partition("(")[0]
    if base in _NUMERIC:
        return "number"
    return "time" if base.startswith(_TEMPORAL) else base


def _comparable(one: str, other: str) -> bool:
    return one == other or _family(one) == _family(other)


def _fits_always(kind: str, target: str) -> bool:
    """Whether any value of `kind` is itself in `target`, by their names alone."""
    order = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT")
    return kind in order and target in order and order.index(kind) <= order.index(target)


def _explained(label: str, error: duckdb.Error) -> Exception:
    text = str(error)
    if isinstance(error, duckdb.OutOfMemoryException) or "No space left" in text:
        return WarehouseError(f"{label}: {text}")
    return SourceFailed(f"{label}: {text}")
