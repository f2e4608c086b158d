"""Batches of any kind → rows of one table, shaped before anything is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import SourceFailed, SQLFlowError, WarehouseError
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.rooms import room
from sqlflow_dagster.sql import Sql, Value, fold, join, literal, quote, sql
from sqlflow_dagster.warehouse import quarantine, schema, tables, types, written
from sqlflow_dagster.warehouse.changes import Changes
from sqlflow_dagster.warehouse.duckdb import Attached, attach_all
from sqlflow_dagster.warehouse.exact_json import Exact
from sqlflow_dagster.warehouse.extensions import load_extensions
from sqlflow_dagster.warehouse.selection import Query, Wanted

if TYPE_CHECKING:
    import pyarrow as pa

Ask = Callable[[Sql], list[tuple[Any, ...]]]
_Explain = Callable[[str], str | SQLFlowError]

_ARROW = quote("_sqlflow_arrow")
_PART = quote("temp", "_sqlflow_part")
_SMALLEST_OBJECT = 16 * 1024 * 1024


@dataclass
class Intake:
    """Takes the batches of one read into a table of a connection.

    `place` is asked for that table at the first batch; its argument says whether DuckDB reads the
    batch itself. `in_order` says that the order of the rows decides which of them is kept. `read`
    counts the rows, `size` the bytes of JSON, None where there was none.
    """

    connection: DuckDBPyConnection
    memory_limit: str
    wanted: Wanted
    policy: schema.Policy
    spool: Path
    place: Callable[[bool], Sql]
    commit: Callable[[], None] | None = None
    in_order: bool = True
    rows: Sql | None = None
    read: int = 0
    size: int | None = None
    columns: dict[str, str] = field(default_factory=dict)
    seen: dict[str, None] = field(default_factory=dict)
    replaces: set[str] = field(default_factory=set)
    reached: Cursor | None = None
    horizon: Cursor | None = None
    broken: bool = False
    changes: Changes | None = None
    _made: bool = False
    _attached: dict[str, Attached] = field(default_factory=dict)

    @property
    def started(self) -> bool:
        """Whether a batch has come since the last commit: only then is the source's schema known."""
        return self._made

    def scan(
        self,
        query: Sql | Callable[[Ask], Sql],
        parameters: Sequence[Value] = (),
        *,
        extensions: Sequence[str] = (),
        attach: Sequence[Attached] = (),
        attach_late: bool = False,
        rejects: quarantine.Rejects | None = None,
        provenance: bool = False,
        replaces: Sequence[str] = (),
        horizon: Cursor | None = None,
        left_out: Sequence[str] = (),
        own: Sequence[str] = (),
        changes: Changes | None = None,
        serial: bool = False,
        scattered: bool = False,
        explain: _Explain | None = None,
    ) -> None:
        """Take the rows of a SELECT that DuckDB runs itself.

        A function as `query` is given what it may ask of DuckDB, and returns the SELECT. `explain`
        rewrites DuckDB's message, or gives the error to raise instead. The cursor is not to pass the
        `horizon` of the first batch that has one. The source has the columns `left_out` too; those of
        `own` are stored whatever is wanted. `changes` says that the rows are changes: the only batch
        of a commit. `serial` says that they come one after the other, whoever waits for them; `scattered`
        that their order may go, where it decides nothing, for many small pieces take long to put in order.
        """
        if self.changes or (changes and self._made):
            raise WarehouseError(
                f"{self.wanted.label}: changes came beside other rows; each of them is a commit"
            )
        with self._taking(explain):
            # Before the warehouse is asked for a place: other loads wait for its lock.
            load_extensions(self.connection, extensions)
            if not attach_late:
                self._attach(attach)
            rows = self._rows(native=True)
            self._attach(attach)
            text = query(self._ask) if callable(query) else query
            self.seen.update(dict.fromkeys(left_out))
            relation = sql("({query}\n)", query=text)
            bad = rejects.column if rejects else None
            selected = self.wanted.select(
                self.connection, relation, parameters, provenance=provenance, bad=bad, own=own
            )
            settings: dict[str, Value] = {}
            if serial:
                # A thread that waits for another's rows does so at a processor's full cost.
                settings["threads"] = 1
            if scattered and not self.in_order and not rejects:
                settings["preserve_insertion_order"] = False
                # Each thread would keep five groups of 122,880 rows before it writes them.
                settings["write_buffer_row_group_count"] = 1
            with self._set(settings):
                self._store(rows, selected, rejects)
            self.replaces.update(replaces)
            self.changes = changes
            self.horizon = self.horizon or horizon

    def arrow(self, reader: pa.RecordBatchReader) -> None:
        """Take Arrow record batches, and close their reader."""
        with self._taking():
            rows = self._rows(native=False)
            self.wanted.check_names(reader.schema.names)
            untyped = [column.name for column in reader.schema if column.type.id == 0]
            raised: list[SQLFlowError] = []
            try:
                self.connection.register("_sqlflow_arrow", _watched(reader, raised))
                self._store(rows, self.wanted.select(self.connection, _ARROW, (), untyped=untyped))
            except duckdb.Error:
                if raised:
                    raise raised[0] from None
                raise
            finally:
                self.connection.unregister("_sqlflow_arrow")
                reader.close()

    def json_lines(self, chunks: Iterable[bytes], columns: Mapping[str, str]) -> None:
        """Take newline-delimited JSON through a spooled file; `columns` maps names to DuckDB types."""
        with self._taking():
            self.wanted.check_names(list(columns))
            exact, longest, size = Exact(columns), _SMALLEST_OBJECT, 0
            with room(self.spool, "json") as folder, (folder / "rows.jsonl").open("wb") as file:
                for chunk in chunks:
                    text = exact.quoted(chunk)
                    file.write(text)
                    size += len(chunk)
                    longest = max(longest, len(text) and max(map(len, text.split(b"\n"))) + 2)
                file.flush()
                self.size = (self.size or 0) + size
                query = _read_json(file.name, columns, longest)
                rows = self._rows(native=False)
                self._store(rows, self.wanted.select(self.connection, query, ()))

    def position(self, cursor: Cursor) -> None:
        """Note where the source stands, for streams that make their own cursor."""
        self.reached = cursor

    def checkpoint(self, cursor: Cursor) -> None:
        """Commit what came so far, where this load may be committed in parts."""
        self.reached = cursor
        if self.commit:
            self.commit()

    def emptied(self) -> None:
        """Forget the rows, after they were committed."""
        if self.rows:
            self.connection.execute(sql("DROP TABLE IF EXISTS {rows}", rows=self.rows))
        self._made = False
        self.columns = {}
        self.changes = None
        self.replaces.clear()

    @contextmanager
    def _taking(self, explain: _Explain | None = None) -> Iterator[None]:
        """A batch that fails breaks the read for good, also where its feeder would go on."""
        self.broken = True
        try:
            with written.let_go(self.connection, self.memory_limit):
                yield
        except duckdb.Error as error:
            raise _explained(self.wanted.label, error, explain) from error
        self.broken = False
        failpoint("after_fetch")

    @contextmanager
    def _set(self, settings: Mapping[str, Value]) -> Iterator[None]:
        """Let DuckDB have other settings in the block; where it fails, the connection ends with its read."""
        before = {name: self._setting(name, value) for name, value in settings.items()}
        yield
        for name, value in before.items():
            self._setting(name, value)

    def _setting(self, name: str, value: Value) -> Value:
        """Set it, and return what it was."""
        (found,) = self._ask(sql("SELECT current_setting({name})", name=literal(name)))[0]
        self.connection.execute(sql("SET {name} = {value}", name=Sql(name), value=literal(value)))
        was: Value = found
        return was

    def _ask(self, query: Sql) -> list[tuple[Any, ...]]:
        return self.connection.execute(query).fetchall()

    def _rows(self, *, native: bool) -> Sql:
        if self.rows is None:
            self.rows = self.place(native)
        return self.rows

    def _attach(self, databases: Sequence[Attached]) -> None:
        """Attach what is not yet; a database in use by an open transaction cannot be detached."""
        for database in databases:
            known = self._attached.get(database.name)
            if known is None:
                attach_all(self.connection, [database])
                self._attached[database.name] = database
            elif known.url != database.url:
                raise SourceFailed(
                    f"{self.wanted.label}: two databases are to be attached under the name {database.name}"
                )

    def _store(self, rows: Sql, query: Query, rejects: quarantine.Rejects | None = None) -> None:
        self.seen.update(dict.fromkeys(query.columns))
        if not self._made:
            statement = sql("CREATE OR REPLACE TABLE {rows} AS {query}", rows=rows, query=query.text)
            self._count(self.connection.execute(statement, query.values))
            if rejects:
                self.read -= quarantine.take(self.connection, rows, rejects)
        elif rejects is None and self._alike(query):
            self._insert(rows, query)
        else:
            self._fit(rows, query, rejects)
        self._made = True
        self.columns = tables.columns(self.connection, rows)

    def _alike(self, query: Query) -> bool:
        """Whether a later batch has the columns of those before, in types that always fit."""
        described = self.connection.execute(
            sql("DESCRIBE {query}", query=query.text), query.values
        ).fetchall()
        known = {fold(name): kind for name, kind in self.columns.items()}
        return all(
            fold(row[0]) in known and types.always_fits(row[1], known[fold(row[0])]) for row in described
        )

    def _insert(self, rows: Sql, query: Query) -> None:
        statement = sql("INSERT INTO {rows} BY NAME {query}", rows=rows, query=query.text)
        self._count(self.connection.execute(statement, query.values))

    def _fit(self, rows: Sql, query: Query, rejects: quarantine.Rejects | None) -> None:
        """Bring together what one read gives in several shapes: within it, columns come and go."""
        statement = sql("CREATE OR REPLACE TEMP TABLE {part} AS {query}", part=_PART, query=query.text)
        self._count(self.connection.execute(statement, query.values))
        if rejects:
            self.read -= quarantine.take(self.connection, _PART, rejects)
        policy: schema.Policy = "permissive" if self.policy == "permissive" else "guided"
        changes = schema.plan(self.connection, rows, _PART, policy, self.wanted.label)
        schema.apply(self.connection, rows, changes)
        self.connection.execute(sql("INSERT INTO {rows} BY NAME FROM {part}", rows=rows, part=_PART))
        self.connection.execute(sql("DROP TABLE {part}", part=_PART))

    def _count(self, done: DuckDBPyConnection) -> None:
        row = done.fetchone()
        self.read += int(row[0]) if row else 0


def _watched(reader: pa.RecordBatchReader, raised: list[SQLFlowError]) -> pa.RecordBatchReader:
    """The same batches; an error of ours is kept, of which DuckDB would pass on no more than the text."""
    import pyarrow as pa  # noqa: PLC0415 - whoever made the reader has imported it

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            yield from reader
        except SQLFlowError as error:
            raised.append(error)
            raise

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def _read_json(path: str, columns: Mapping[str, str], longest: int) -> Sql:
    struct = join(", ", (sql("{n}: {t}", n=quote(n), t=literal(t)) for n, t in columns.items()))
    # DuckDB allocates twice the longest object for each thread, so that is asked for, not a maximum.
    return sql(
        "(SELECT * FROM read_json({path}, format = 'newline_delimited', columns = {{{columns}}},"
        " maximum_object_size = {longest}))",
        path=literal(path),
        columns=struct,
        longest=literal(longest),
    )


def _explained(label: str, error: duckdb.Error, explain: _Explain | None) -> SQLFlowError:
    text = str(error)
    if isinstance(error, duckdb.OutOfMemoryException):
        return WarehouseError(f"{label}: {text}; raise engines.duckdb.memory_limit")
    of_value = isinstance(error, duckdb.InvalidInputException | duckdb.ConversionException)
    if not of_value and ("No space left" in text or "File too large" in text):
        return WarehouseError(f"{label}: the disk is full ({text}); nothing was stored")
    told = explain(text) if explain else text
    return told if isinstance(told, SQLFlowError) else SourceFailed(f"{label}: {told}")
