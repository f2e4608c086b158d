"""SOURCE and LOAD statements → sources and load steps: streams, modes, keys, full or incremental."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from sqlflow_dagster.errors import BadOption, ProjectError
from sqlflow_dagster.language import tree
from sqlflow_dagster.plan.catalog import Catalog, SourceFacts, StreamFacts
from sqlflow_dagster.plan.names import table_name
from sqlflow_dagster.plan.nodes import Load, LoadMode, Source
from sqlflow_dagster.plan.placed import File, Placed
from sqlflow_dagster.plan.report import Report
from sqlflow_dagster.settings import ConnectorProfile
from sqlflow_dagster.sql import TableName, fold

_MODES: dict[str, LoadMode] = {"REPLACE": "replace", "APPEND": "append", "UPSERT": "upsert"}
_DESTINATIONS: dict[str, LoadMode] = {"overwrite": "replace", "append": "append", "append_dedup": "upsert"}


@dataclass(frozen=True)
class Declared:
    """A SOURCE and what its parameters say; `facts` is None where they are wrong."""

    source: Source
    facts: SourceFacts | None

    @cached_property
    def streams(self) -> Mapping[str, StreamFacts]:
        """The streams by folded name; the first where several fold alike."""
        found = (self.facts and self.facts.streams) or ()
        return {fold(stream.name): stream for stream in reversed(found)}


@dataclass(frozen=True, slots=True)
class Wanted:
    """One stream that a LOAD brings into one table."""

    placed: Placed
    declared: Declared
    stream: StreamFacts
    table: TableName


@dataclass
class Sources:
    """The sources of one file by folded name."""

    file: File
    catalog: Catalog
    connectors: Mapping[str, ConnectorProfile]
    report: Report
    declared: dict[str, Declared | None] = field(default_factory=dict)
    _places: dict[str, Placed] = field(default_factory=dict)

    def declare(self, placed: Placed, statement: tree.Source) -> None:
        """Take a SOURCE in."""
        written = placed.fixed(self.report, statement.name.text, statement.name.span)
        if written is None:
            self.file.unread.any_table = True
            return
        name = placed.prefix + written
        key = fold(name)
        if key in self.declared:
            line = self._places[key].statement.span.line
            hint = f"it is declared at line {line} already; rename one of them, or take one out"
            placed.problem(self.report, f"the source {name!r} is declared twice", hint, statement.name.span)
            return
        self.declared[key], self._places[key] = None, placed
        found = self._type_and_params(placed, statement)
        if found is None:
            return
        kind, params = found
        version = _version(kind, params)
        source = Source(self.file.name, name, kind, params, placed.location, version, placed.values.scope)
        self.declared[key] = Declared(source, self._describe(placed, statement, source))

    def _type_and_params(
        self, placed: Placed, statement: tree.Source
    ) -> tuple[str, Mapping[str, Any]] | None:
        own = statement.params.value if statement.params else {}
        if statement.type is not None:
            kind = placed.fixed(self.report, statement.type.text, statement.type.span)
            return (kind.upper(), own) if kind else None
        if statement.profile is None:
            return None
        name = placed.fixed(self.report, statement.profile.value, statement.profile.span)
        if name is None:
            return None
        entry = self.connectors.get(name.removeprefix("connectors."))
        if entry is None:
            near = difflib.get_close_matches(name, list(self.connectors), n=1)
            hint = f"did you mean {near[0]!r}?" if near else "add it to `connectors` of the profile"
            message = f"the profile has no connector {name!r}"
            placed.problem(self.report, message, hint, statement.profile.span)
            return None
        return entry.type.upper(), {**entry.params, **own}

    def _describe(self, placed: Placed, statement: tree.Source, source: Source) -> SourceFacts | None:
        written = statement.params
        span = written.span if written else (statement.profile or statement.name).span
        params = placed.parameters(self.report, source.params, written, span)
        try:
            facts = self.catalog.describe(source.type, params.values)
        except BadOption as error:
            wrong_type = statement.type.span if statement.type and error.option == "type" else None
            place = Place(placed, f"SOURCE {source.name}", written, wrong_type or span)
            bad_options(self.report, place, error, params.missing)
            return None
        where = f"{placed.script.path}:{statement.span.line}: SOURCE {source.name}"
        self.report.notices += [f"{where}: {notice}" for notice in facts.notices]
        return facts

    def wanted(self, placed: Placed, statement: tree.Load) -> list[Wanted] | None:
        """Return what a LOAD brings where; None where its tables' names are not known."""
        declared = self._find(placed, statement)
        table = statement.table and table_name(self.report, self.file, placed, statement.table)
        if statement.table is not None and table is None:
            return None
        if declared is None or declared.facts is None:
            # The table is one all the same: what reads it is not wrong as well.
            unknown = Declared(_nowhere(self.file, placed), None)
            return [Wanted(placed, unknown, StreamFacts(""), table)] if table else None
        if declared.facts.streams is None:
            self._not_discovered(placed, declared.source)
            return [Wanted(placed, _failed(declared), StreamFacts(""), table)] if table else None
        if table:
            stream = self._stream(placed, statement, declared)
            return [
                Wanted(placed, declared if stream else _failed(declared), stream or StreamFacts(""), table)
            ]
        return self._all(placed, statement, declared)

    def _not_discovered(self, placed: Placed, source: Source) -> None:
        message = f"the tables of the source {source.name!r} have not been looked up yet"
        how = f"sqlflow discover {source.pipeline} {source.name}"
        if source not in self.report.undiscovered:
            self.report.undiscovered.append(source)
        if not self.report.undiscovered_is_fine:
            placed.problem(self.report, message, f"look them up: {how}", self._span_of_source(placed))
            return
        line = placed.statement.span.line
        self.report.notices.append(f"{placed.script.path}:{line}: {message}; look them up: {how}")

    def _span_of_source(self, placed: Placed) -> tree.Span | None:
        return placed.statement.source.span if isinstance(placed.statement, tree.Load) else None

    def _all(self, placed: Placed, statement: tree.Load, declared: Declared) -> list[Wanted] | None:
        streams: Sequence[StreamFacts] = (declared.facts.streams if declared.facts else None) or ()
        if statement.stream and declared.facts:
            one = self._stream(placed, statement, declared)
            streams = [one] if one else []
        elif not streams:
            message = f"the source {declared.source.name!r} declares no streams"
            placed.problem(self.report, message, "name them: LOAD table FROM source.stream;")
            return None
        tables: dict[str, Wanted] = {}
        for stream in streams:
            # `schema.table` of a database becomes `schema__table`.
            name = placed.prefix + stream.name.replace(".", "__")
            wanted = Wanted(placed, declared, stream, TableName(self.file.schema, name))
            twin = tables.setdefault(fold(name), wanted)
            if twin is not wanted:
                message = f"the streams {twin.stream.name!r} and {stream.name!r} would be one table {name!r}"
                placed.problem(self.report, message, "load one of them by name, into a table of its own")
        return list(tables.values())

    def _find(self, placed: Placed, statement: tree.Load) -> Declared | None:
        written = placed.fixed(self.report, statement.source.text, statement.source.span)
        if written is None:
            return None
        for name in dict.fromkeys((placed.prefix + written, written)):
            if fold(name) in self.declared:
                return self.declared[fold(name)]
        if self.file.unread.may_make(written):
            return None
        near = difflib.get_close_matches(fold(written), self.declared, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"declare it: SOURCE {written} TYPE … PARAMS {{…}};"
        placed.problem(self.report, f"unknown source {written!r}", hint, statement.source.span)
        return None

    def _stream(self, placed: Placed, statement: tree.Load, declared: Declared) -> StreamFacts | None:
        if statement.stream is None:
            return self._unnamed(placed, statement, declared)
        name = placed.fixed(self.report, statement.stream.text, statement.stream.span)
        if name is None:
            return None
        if stream := declared.streams.get(fold(name)):
            return stream
        names = [stream.name for stream in declared.streams.values()]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(names[:10]) or 'none'}"
        placed.problem(self.report, f"the source has no stream {name!r}", hint, statement.stream.span)
        return None

    def _unnamed(self, placed: Placed, statement: tree.Load, declared: Declared) -> StreamFacts | None:
        """The stream of a LOAD that names none: the only one, else the one called like the table."""
        streams = (declared.facts and declared.facts.streams) or ()
        if len(streams) == 1:
            return streams[0]
        last = statement.table.parts[-1] if statement.table else statement.source
        table = placed.fixed(self.report, last.text, last.span) or ""
        if stream := declared.streams.get(fold(table)):
            return stream
        message = "the source declares no stream"
        if streams:
            message = f"the source has {len(streams)} streams, and none is called {table!r}"
        listed = ", ".join(stream.name for stream in streams[:10])
        hint = "name one: LOAD table FROM source.stream;" + (f" it has {listed}" if listed else "")
        placed.problem(self.report, message, hint, statement.source.span)
        return None


def make_load(report: Report, wanted: Wanted, *, sole_writer: bool) -> Load | None:
    """Return the step of one stream and table, None after noting what is wrong with its mode."""
    facts, stream = wanted.declared.facts, wanted.stream
    statement = wanted.placed.statement
    if facts is None or not isinstance(statement, tree.Load):
        return None
    keys = _keys(report, wanted, statement)
    try:
        mode, why = _mode(statement.mode, facts, stream, keys)
    except ProjectError as error:
        message, _, hint = str(error).partition("; ")
        wanted.placed.problem(report, message, hint, statement.mode.span if statement.mode else None)
        return None
    if facts.sync_mode == "cdc" and not sole_writer:
        message = (
            f"{wanted.table} is written by other statements too, and changes of cdc are of a whole table"
        )
        hint = "load it into a table of its own, and bring them together by CREATE TABLE … AS"
        wanted.placed.problem(report, message, hint)
        return None
    load = Load(
        pipeline=wanted.declared.source.pipeline,
        source=wanted.declared.source,
        stream=stream.name,
        table=wanted.table,
        mode=mode,
        incremental=facts.sync_mode != "full_refresh",
        keys=keys if mode == "upsert" else (),
        cursor_field=stream.cursor_field,
        sole_writer=sole_writer,
        location=wanted.placed.location,
        why=why,
        loss_audit=facts.loss_audit,
        quarantines=facts.quarantines,
    )
    return _with_its_own_rows(load, stream) if load.incremental and not sole_writer else load


def read_whole(load: Load, replaced_at: int) -> Load:
    """Return an incremental load as a full one: another statement replaces its table in each run.

    Read on from a cursor, it would not bring back what that statement has just thrown away.
    """
    why = f"full, though the source is incremental: line {replaced_at} replaces the table in each run"
    return replace(load, incremental=False, why=why)


def _with_its_own_rows(load: Load, stream: StreamFacts) -> Load:
    """Return an APPEND beside other writers so that reading the boundary again doubles nothing.

    Alone it replaces the rows from the boundary on, but here those may be another's. The key and
    the cursor together tell each version of a row, so that merging by both appends.
    """
    if load.mode != "append" or not stream.primary_key or not load.cursor_field or stream.own_cursor:
        return load
    keys = tuple(dict.fromkeys((*stream.primary_key, load.cursor_field)))
    why = f"{load.why}; each {', '.join(keys)} once, as other statements write the table too"
    return replace(load, mode="upsert", keys=keys, why=why)


@dataclass(frozen=True, slots=True)
class Place:
    """Where parameters stand: the statement, what it is called, the object, and where else to point."""

    placed: Placed
    what: str
    written: tree.Object | None
    span: tree.Span


def bad_options(report: Report, place: Place, error: BadOption, missing: Collection[str]) -> None:
    """Note each line of a BadOption at the parameter that it begins with; those `missing` are noted."""
    spans = place.written.spans if place.written else {}
    lines = str(error).splitlines() or ["a parameter is wrong"]
    for line in lines:
        option = line.partition(":")[0].partition(".")[0].strip()
        if option not in spans and len(lines) == 1:
            option = error.option or ""
        if option not in missing:
            place.placed.problem(report, f"{place.what}: {line}", span=spans.get(option, place.span))


def _keys(report: Report, wanted: Wanted, statement: tree.Load) -> tuple[str, ...]:
    if statement.mode is None or not statement.mode.keys:
        return wanted.stream.primary_key
    return tuple(wanted.placed.fixed(report, key.text, key.span) or "" for key in statement.mode.keys)


def _mode(
    written: tree.Mode | None, facts: SourceFacts, stream: StreamFacts, keys: tuple[str, ...]
) -> tuple[LoadMode, str]:
    incremental = facts.sync_mode != "full_refresh"
    stated = _MODES[written.kind] if written else None
    wanted = _DESTINATIONS[facts.destination_sync_mode] if facts.destination_sync_mode else None
    if stated and wanted and stated != wanted:
        raise ProjectError(
            f"MODE {stated.upper()} contradicts the source's destination_sync_mode"
            f" {facts.destination_sync_mode!r}; keep one of them"
        )
    mode = stated or wanted or (("upsert" if keys else "append") if incremental else "replace")
    if mode == "replace" and incremental:
        how = "MODE REPLACE" if stated else f"destination_sync_mode {facts.destination_sync_mode!r}"
        raise ProjectError(
            f"{how} with sync_mode {facts.sync_mode!r} would lose the rows before the cursor; "
            'use APPEND or UPSERT KEY (…), or "sync_mode": "full_refresh"'
        )
    if facts.sync_mode == "cdc" and mode != "upsert":
        raise ProjectError(
            'cdc merges changes by key; give the source a "primary_key", or write UPSERT KEY (column)'
        )
    if stream.again and mode != "upsert":
        raise ProjectError(
            "rows that were read may come again from this source, and would be doubled; give it a "
            '"primary_key", or write UPSERT KEY (column)'
        )
    if mode == "upsert" and not keys:
        raise ProjectError(
            'UPSERT needs a KEY; write UPSERT KEY (column), or give the source a "primary_key"'
        )
    if facts.sync_mode == "incremental" and not stream.cursor_field and not stream.own_cursor:
        raise ProjectError(
            'an incremental source needs a cursor; set "cursor_field", the column that tells what is new'
        )
    return mode, _why(facts, stream, mode, keys)


def _why(facts: SourceFacts, stream: StreamFacts, mode: LoadMode, keys: tuple[str, ...]) -> str:
    merged = f"merged by {', '.join(keys)}"
    if facts.sync_mode == "full_refresh":
        done = {
            "replace": "the table is swapped",
            "append": "all rows are added",
            "upsert": f"all rows are {merged}",
        }
        return f"full: sync_mode is full_refresh; {done[mode]}"
    since = (
        "what the connector remembers"
        if stream.own_cursor
        else stream.cursor_field or "the source's position"
    )
    return f"{facts.sync_mode}: read on from {since}; new rows are {merged if mode == 'upsert' else 'added'}"


def _version(kind: str, params: Mapping[str, Any]) -> str:
    """A short hash of a source. The parameters are templates: a secret in them is `${…}`, or only hashed."""
    text = "\0".join((kind, json.dumps(params, sort_keys=True, default=str)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _failed(declared: Declared) -> Declared:
    return Declared(declared.source, None)


def _nowhere(file: File, placed: Placed) -> Source:
    return Source(file.name, "", "", {}, placed.location)
