"""CREATE and EXPORT statements → transform and export steps."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlflow_dagster.errors import BadOption
from sqlflow_dagster.language import tree
from sqlflow_dagster.language.variables import sql_references
from sqlflow_dagster.plan.bodies import NO_VALUE, Body
from sqlflow_dagster.plan.catalog import Catalog
from sqlflow_dagster.plan.dependencies import TableRef
from sqlflow_dagster.plan.loads import Place, bad_options
from sqlflow_dagster.plan.names import name_parts, without_password
from sqlflow_dagster.plan.nodes import Export, Template, Transform, TransformMode
from sqlflow_dagster.plan.placed import File, Placed
from sqlflow_dagster.plan.report import Report
from sqlflow_dagster.plan.tables import Tables, Unknown
from sqlflow_dagster.settings import ConnectorProfile
from sqlflow_dagster.sql import TableName, fold, quote

_MODES: dict[str, TransformMode] = {
    "REPLACE": "replace",
    "APPEND": "append",
    "UPSERT": "upsert",
    "INCREMENTAL": "incremental",
}


# Runs of blanks and comments, and the strings and names in which they are not blanks. A scan by
# tokens would be exact for nested comments too, and takes ten times as long.
_BLANKS = re.compile(
    r"""(?P<text> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | \$(\w*)\$.*?\$\2\$)
      | (?: \s | --[^\n]* | /\*.*?\*/ )+""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Read:
    """A table that a statement reads, and where: a span of ours, or DuckDB's position in a body."""

    table: TableName
    place: tree.Span | tuple[Body, int | None]

    @property
    def span(self) -> tree.Span:
        """Return the file's place; looked up only where something is wrong."""
        if isinstance(self.place, tree.Span):
            return self.place
        body, position = self.place
        return body.span(position)


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes the steps of one file's CREATE and EXPORT statements."""

    file: File
    tables: Tables
    catalog: Catalog
    connectors: Mapping[str, ConnectorProfile]
    report: Report

    def transform(
        self, placed: Placed, statement: tree.Create, table: TableName, body: Body
    ) -> tuple[Transform, tuple[Read, ...]]:
        """Return the step of a CREATE and the places where it reads."""
        pairs = self._resolved(placed, body)
        mode = statement.mode
        keys = tuple(placed.fixed(self.report, key.text, key.span) or "" for key in mode.keys) if mode else ()
        by = placed.fixed(self.report, mode.by.text, mode.by.span) if mode and mode.by else None
        kind = _MODES[mode.kind] if mode else "replace"
        lookback = mode.lookback if mode else None
        sql = self._sql(placed, body, pairs)
        return (
            Transform(
                pipeline=self.file.name,
                table=table,
                view=statement.view,
                mode=kind,
                keys=keys,
                by=by,
                lookback=lookback,
                sql=sql,
                reads=tuple(dict.fromkeys(found for _, found in pairs)),
                scope=placed.values.scope,
                location=placed.location,
                code_version=_version(sql, placed.values.scope, kind, *keys, by or "", lookback or ""),
            ),
            _places(body, pairs),
        )

    def export(
        self, placed: Placed, statement: tree.Export, body: Body | None, names: set[str]
    ) -> tuple[Export, tuple[Read, ...]] | None:
        """Return the step of an EXPORT and the places where it reads; None after noting a problem."""
        if isinstance(statement.what, tree.Table):
            read = self._table(placed, statement.what)
            if read is None:
                return None
            sql = f"FROM {quote(*read.table)}"
            return self._export(placed, statement, sql, [read], names), (read,)
        if body is None:
            return None
        pairs = self._resolved(placed, body)
        reads = _places(body, pairs)
        return self._export(placed, statement, self._sql(placed, body, pairs), reads, names), reads

    def _export(
        self, placed: Placed, statement: tree.Export, sql: str, reads: Sequence[Read], names: set[str]
    ) -> Export:
        target, entry = self._target(placed, statement)
        kind = self._type(placed, statement, target, entry)
        options = statement.options.value if statement.options else {}
        params = entry.params if entry else {}
        if kind:
            self._check(placed, statement, kind, target, options, params)
        scope = placed.values.scope
        return Export(
            pipeline=self.file.name,
            name=_unique(_slug(target), names),
            sql=sql,
            target=target,
            type=kind or "",
            options=options,
            params=params,
            reads=tuple(dict.fromkeys(read.table for read in reads)),
            scope=scope,
            location=placed.location,
            code_version=_version(sql, scope, target, kind or "", json.dumps(options, sort_keys=True)),
        )

    def _target(self, placed: Placed, statement: tree.Export) -> tuple[str, ConnectorProfile | None]:
        """The target as written, and the profile's connector that it names."""
        target = statement.target
        written = target.value if isinstance(target, tree.Text) else target.text
        name = placed.text(self.report, written, target.span) or ""
        entry = self.connectors.get(name.removeprefix("connectors."))
        if entry is None and isinstance(target, tree.Name) and "${" not in written:
            near = difflib.get_close_matches(name, list(self.connectors), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "put a file or an address in quotes"
            placed.problem(self.report, f"the profile has no connector {name!r}", hint, target.span)
        return written, entry

    def _type(
        self, placed: Placed, statement: tree.Export, target: str, entry: ConnectorProfile | None
    ) -> str | None:
        span = statement.target.span
        if statement.type:
            kind = placed.fixed(self.report, statement.type.text, statement.type.span)
            return kind.upper() if kind else None
        if entry:
            return entry.type.upper()
        expanded = placed.text(self.report, target, span)
        if expanded is None:
            return None
        kind = self.catalog.type_for_target(expanded)
        if kind is None and isinstance(statement.target, tree.Text):
            message = f"the target {target!r} does not say what TYPE it is"
            placed.problem(self.report, message, "write TYPE CSV, or another one, after it", span)
        return kind.upper() if kind else None

    def _check(
        self,
        placed: Placed,
        statement: tree.Export,
        kind: str,
        target: str,
        options: Mapping[str, Any],
        params: Mapping[str, Any],
    ) -> None:
        span = statement.options.span if statement.options else statement.target.span
        filled = placed.parameters(self.report, options, statement.options, span)
        given = placed.parameters(self.report, params, None, span)
        missing = filled.missing | given.missing
        address = None if missing else placed.text(self.report, target, statement.target.span)
        try:
            self.catalog.check_export(kind, address, filled.values, given.values)
        except BadOption as error:
            place = Place(placed, "EXPORT", statement.options, self._span_of(statement, error) or span)
            bad_options(self.report, place, error, missing)

    @staticmethod
    def _span_of(statement: tree.Export, error: BadOption) -> tree.Span | None:
        """Where what is wrong stands, if it is no option."""
        if error.option == "type":
            return statement.type.span if statement.type else None
        return statement.target.span if error.option is None else None

    def _resolved(self, placed: Placed, body: Body) -> list[tuple[TableRef, TableName]]:
        pairs: list[tuple[TableRef, TableName]] = []
        for ref in body.reads.tables:
            if NO_VALUE in ref.name or NO_VALUE in ref.schema:
                continue
            found = self.tables.find(self.file, placed, ref)
            if isinstance(found, Unknown):
                if found.message:
                    placed.problem(self.report, found.message, found.hint, body.span(ref.position))
            elif found:
                pairs.append((ref, found))
        for ref in body.reads.files:
            found = self.tables.find(self.file, placed, ref)
            if isinstance(found, TableName):
                pairs.append((ref, found))
        return pairs

    def _table(self, placed: Placed, table: tree.Table) -> Read | None:
        parts = name_parts(self.report, placed, table)
        if parts is None:
            return None
        ref = TableRef(parts[-1], parts[0] if len(parts) == 2 else "")
        found = self.tables.find(self.file, placed, ref)
        if isinstance(found, TableName):
            return Read(found, table.span)
        if found is None:
            placed.problem(self.report, f"unknown table {ref.name!r}", "export a query of it", table.span)
        elif found.message:
            placed.problem(self.report, found.message, found.hint, table.span)
        return None

    def _sql(self, placed: Placed, body: Body, pairs: Sequence[tuple[TableRef, TableName]]) -> str:
        """The body as written; only INCLUDE … AS alias gives its tables their prefixed names."""
        if not placed.prefix:
            return body.query.sql
        return body.with_names((r, t) for r, t in pairs if fold(r.name) != fold(t.name))


def _places(body: Body, pairs: Sequence[tuple[TableRef, TableName]]) -> tuple[Read, ...]:
    return tuple(Read(table, (body, ref.position)) for ref, table in pairs)


def _version(sql: str, scope: Mapping[str, Template], *parts: str) -> str:
    """A short hash that changes with what a statement does, not with its blanks or comments.

    The SETs it uses are part of it. Values from outside the file are not: they may be secret.
    """
    words = _BLANKS.sub(lambda match: match.group("text") or " ", sql).strip()
    used = {ref.name: scope[ref.name] for ref in sql_references(sql) if ref.name in scope} if scope else {}
    text = "\0".join((words, json.dumps(used, sort_keys=True), *parts))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _slug(target: str) -> str:
    """`"output/daily_${date}.csv"` becomes `output_daily_date_csv`."""
    return re.sub(r"[\W_]+", "_", without_password(target), flags=re.ASCII).strip("_") or "target"


def _unique(wanted: str, names: set[str]) -> str:
    name, number = wanted, 2
    while name.casefold() in names:
        name, number = f"{wanted}_{number}", number + 1
    names.add(name.casefold())
    return name
