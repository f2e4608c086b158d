"""What every connector is: options, streams, three kinds of batches, and a sink.

A connector turns one system into batches. It never retries, sleeps, logs progress or catches
broadly, and it knows neither Dagster nor the warehouse's connection. It raises the errors of
`sqlflow_dagster.errors` that are named by what happens next.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel

from sqlflow_dagster.errors import RetryLater, SQLFlowError
from sqlflow_dagster.resilience.guard import Guard
from sqlflow_dagster.resilience.policy import Family, Policy

if TYPE_CHECKING:
    import pyarrow as pa

    from sqlflow_dagster.connectors.options import SourceOptions
    from sqlflow_dagster.cursor import Cursor
    from sqlflow_dagster.errors import SQLFlowError
    from sqlflow_dagster.sql import Sql, Value

# By itself a connector tries once; who opens it for a project gives it the rules of its SOURCE or EXPORT.
_ONCE = Guard("", Policy(attempts=1, first_wait=0, longest_wait=0, factor=1, total=0))

# Runs a query of ours where the rows will be stored, and returns what it gives.
Ask = Callable[["Sql"], list[tuple[Any, ...]]]

__all__ = [
    "Arrow",
    "Ask",
    "Attach",
    "Batch",
    "Changes",
    "Connector",
    "Estimate",
    "Family",
    "Health",
    "JsonLines",
    "Place",
    "Rows",
    "Scan",
    "Span",
    "Stream",
    "Unmoved",
    "Written",
]


@dataclass(frozen=True, slots=True)
class Stream:
    """One table-like thing of a source.

    `primary_key` and `cursor_field` are what the source declares; a SOURCE's own parameters win.
    `columns` maps names to DuckDB types where they are known without reading. `own_cursor` says
    that the cursor is made by the connector (files seen, a log position) and not a column.
    `ordered` says that batches come in cursor order, so that each may be committed by itself.
    `logged` says that what comes after the first whole read are changes of rows, which need a key.
    `again` says that rows which were read may come again, so that only a key keeps them from being doubled.
    `reader` is the LOAD that reads, for connectors that keep a position for each at the far side; then
    `primary_key` is that LOAD's. `needs` are columns that the LOAD merges by, whatever the options want.
    `stored` maps the columns of the table that the rows are added to to their types: what such a column holds as
    text is not to be taken for a number in later rows.
    """

    name: str
    primary_key: tuple[str, ...] = ()
    cursor_field: str | None = None
    columns: Mapping[str, str] | None = None
    own_cursor: bool = False
    ordered: bool = False
    logged: bool = False
    again: bool = False
    reader: str = ""
    needs: tuple[str, ...] = ()
    stored: Mapping[str, str] = field(default_factory=dict)
    description: str = ""


@dataclass(frozen=True, slots=True)
class Span:
    """Rows whose cursor column is at `start` or after it, and before `end`: texts, as people write them.

    None is open. A time without an offset is one of the zone that the warehouse is set to.
    """

    start: str | None = None
    end: str | None = None


@dataclass(frozen=True, slots=True)
class Attach:
    """A database that the warehouse attaches, read-only, while a Scan runs.

    `secret` are the parameters of a connection (`HOST`, `PASSWORD` …) as DuckDB's secrets of this
    type take them: they are in no statement that is shown, and not in the attached database's path.
    `settings` are those of the extension for this type, set before it is attached.
    """

    url: str
    name: str
    type: str
    secret: Mapping[str, str] | None = field(default=None, repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)


# A row whose values do not fit: why, in which file, and its texts.
BadRow = tuple[str, str, Sequence[str | None]]


class Aside(NamedTuple):
    """A row as it is set aside: why, where it stood (`file:line`), and its text."""

    reason: str
    place: str
    raw: str


@dataclass(frozen=True, slots=True)
class Rejects:
    """Bad rows of a Scan, which the warehouse sets aside instead of storing them.

    `column` ends the SELECT: it is NULL in good rows, and in bad ones a struct of the reason, the
    file and the row's texts. `found` looks such rows up in their files, in the order of the reading.
    `unread` does so for lines that are no rows: (reason, path, line, text) of DuckDB's reject tables.
    """

    column: str
    found: Callable[[Iterable[BadRow]], Iterator[Aside]]
    unread: Callable[[Iterable[tuple[str, str, int, str]]], Iterator[Aside]]


@dataclass(frozen=True, slots=True)
class Changes:
    """What the rows of a Scan do to those that are stored: each is the last state of the row of its key.

    `column` ends the SELECT: STRUCT(gone BOOLEAN, id BIGINT, origin BIGINT, unchanged VARCHAR[]). A row
    that is gone is deleted, or stays with the column `deleted` true. The columns in `unchanged` keep
    their stored values: those of the row's own key, or of the key of the row whose `id` is `origin`.
    `emptied` says that all rows stored before are gone. Before any of this, new columns of stored rows
    get the values of those that they were `renamed` from, or are `filled` with a value.
    """

    column: str
    emptied: bool = False
    deleted: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    filled: Mapping[str, Sql] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Scan:
    """Rows that the warehouse reads natively: a SELECT with its values bound as `$1`, `$2` ….

    A source whose types only its data tells gives a function instead, which asks for them.
    `rejects` says what becomes of bad rows; lines that are no rows are in DuckDB's reject tables.
    `provenance` says that the SELECT ends with the column `_sqlflow_file`, which the warehouse
    drops unless the LOAD keeps provenance; `replaces` are values of it whose stored rows this
    batch takes the place of. `position` is where the source stands after this batch, for
    streams that make their own cursor. `horizon` is where a cursor column's cursor stops, though
    later rows are stored too: a row up to it may not be visible yet. `left_out` are
    columns that the source has and the options do not want, `own` ones that the connector adds and that
    are stored whatever the options want. `changes` says that the rows are changes. `attach_late` attaches
    inside the transaction that stores the rows, so that the first thing that the database is told in it is
    what the function `query` asks. `serial` says that one connection gives the rows, one after the other,
    `scattered` that they lie in many small pieces, of which keeping the order would take long.
    `explain` turns DuckDB's message about a failed read into one that names the file, the line and the
    parameter to mend, or into the error to raise instead (RetryLater where waiting mends it).
    """

    query: Sql | Callable[[Ask], Sql]
    parameters: tuple[Value, ...] = ()
    extensions: tuple[str, ...] = ()
    attach: tuple[Attach, ...] = ()
    rejects: Rejects | None = None
    provenance: bool = False
    replaces: tuple[str, ...] = ()
    position: Cursor | None = None
    horizon: Cursor | None = None
    left_out: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    changes: Changes | None = None
    attach_late: bool = False
    serial: bool = False
    scattered: bool = False
    explain: Callable[[str], str | SQLFlowError] | None = None


@dataclass(frozen=True, slots=True)
class Arrow:
    """Arrow record batches of one schema; read once, in order, then closed."""

    reader: pa.RecordBatchReader
    position: Cursor | None = None


@dataclass(frozen=True, slots=True)
class JsonLines:
    """Chunks of newline-delimited JSON and the DuckDB type of each column.

    A chunk ends at the end of a line. A column whose name a record lacks is NULL.
    """

    chunks: Iterable[bytes]
    columns: Mapping[str, str]
    position: Cursor | None = None


@dataclass(frozen=True, slots=True)
class Unmoved:
    """No rows, of a stream that makes its own cursor and stands at `position` all the same."""

    position: Cursor


Batch = Scan | Arrow | JsonLines | Unmoved


@dataclass(frozen=True, slots=True)
class Place:
    """Where a connector may work: the project's root, a folder for spools, and roots outside it.

    `warehouse` is the project's own database file, None where it is a temporary one. `once` names
    one EXPORT of one run, its retries included: a sink that adds rows stores it with them, in one
    transaction, and does nothing where it is there already. `guard` has the rules of the EXPORT, for a
    sink that makes many requests in one write. `own` are the project's files and folders that no EXPORT writes.
    """

    root: Path
    spool: Path
    allowed: tuple[Path, ...] = ()
    warehouse: Path | None = None
    once: str | None = None
    guard: Guard = _ONCE
    own: tuple[Path, ...] = ()

    @property
    def state(self) -> Path:
        """The project's state folder, for what is kept from one run to the next and safe to delete."""
        return self.spool.parent


@dataclass(frozen=True, slots=True)
class Health:
    """What `check()` found: `ok`, one line for people, and facts by name (latency in seconds)."""

    ok: bool
    message: str
    facts: Mapping[str, str | int | float | bool] = field(default_factory=dict)


class Estimate(NamedTuple):
    """What a read would take, as far as a listing tells: `usd` is None where nobody asks for money."""

    files: int
    bytes: int
    requests: int = 0
    usd: float | None = None


class Rows(Protocol):
    """The result of an EXPORT's query, as the warehouse hands it to `write`."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Names and DuckDB types, in order."""

    def copy_to(self, path: Path, options: Sql, columns: Sql | None = None) -> int:
        """Run `COPY (query) TO path (options)` and return the rows written; `columns` is a SELECT list."""

    def arrow(self, batch_rows: int) -> pa.RecordBatchReader:
        """Return the rows as Arrow record batches of at most `batch_rows` rows."""

    def store(self, path: Path) -> int:
        """Make a DuckDB file with the rows in its table `rows`, and return how many they are."""

    def encode(self, path: Path, select: Sql, options: Sql, extensions: Sequence[str]) -> int:
        """Write `SELECT {select} FROM rows` to `path` in a format of an extension; return the rows."""


@dataclass(frozen=True, slots=True)
class Written:
    """What an export made: rows, bytes (None where the target does not say), and where."""

    rows: int
    bytes: int | None
    target: str


O = TypeVar("O", bound="SourceOptions")  # noqa: E741 - the type parameter's usual name


class Connector(ABC, Generic[O]):
    """One system, opened with its options. A context manager that frees what it holds.

    Who runs a read tries it again where it raises RetryLater, by the rules of `guard`; what was read
    is thrown away before, but for the checkpoints of an ordered stream, from which it goes on. A
    connector that makes many requests in one read or write sends each through `guard.call` (a sink through
    that of its place), and says so by `by_request`: then a failing request alone is made again, at its page.
    """

    options_type: ClassVar[type[SourceOptions]]
    sink_options_type: ClassVar[type[BaseModel] | None] = None
    family: ClassVar[Family]
    # Its own rules where they are not those of its family, such as the vendor's limit.
    policy: ClassVar[Policy | None] = None
    by_request: ClassVar[bool] = False
    # The sync modes of which `count` can answer.
    counts: ClassVar[tuple[str, ...]] = ()
    guard: Guard = _ONCE

    def __init__(self, options: O, place: Place) -> None:
        """Keep the options. Nothing is contacted before `discover`, `read`, `write` or `check`."""
        self.options = options
        self.place = place
        # All LOADs of the project as `Stream.reader` names them, None where they are not known.
        self.readers: Callable[[], Collection[str] | None] = lambda: None

    def __enter__(self) -> Connector[O]:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Free connections and spools."""
        self.close()

    @abstractmethod
    def streams(self) -> Sequence[Stream]:
        """Return the streams that the options declare, without contacting anything.

        `LOAD t FROM source` reads the one named `t`, or the only one. Raises NotDiscovered where the
        streams have to be looked up first.
        """

    def discover(self) -> Sequence[Stream]:
        """Look up the streams at the source, remember them for `streams`, and return them."""
        return self.streams()

    @abstractmethod
    def read(self, stream: Stream, since: Cursor | None) -> Iterator[Batch]:
        """Yield the stream's rows at or after `since` (all of them for None).

        Rows equal to `since` are read again. A connector may leave the comparison with a cursor
        column to the warehouse, which makes it on every batch.
        """

    def read_within(self, stream: Stream, since: Cursor | None, span: Span) -> Iterator[Batch]:
        """Yield what `read` does, but for rows outside `span`, as far as the source can leave them out.

        Rows without a cursor are in every span. The warehouse compares again: a connector that cannot
        look rows up by their cursor gives all of them.
        """
        del span
        return self.read(stream, since)

    def new_files(self, since: Cursor | None) -> tuple[str, ...]:
        """Return a text for each file that `read` would take, which changes when the file does.

        For sensors: cheap, and empty for systems that have no files.
        """
        del since
        return ()

    def estimate(self, since: Cursor | None) -> Estimate | None:
        """Return what `read` would take, from a listing alone; None for systems that cannot say.

        Raises what a listing raises.
        """
        del since
        return None

    def count(self, stream: Stream, keys: Sequence[str] = (), below: Cursor | None = None) -> int | None:
        """Return how many rows the source has of those that are loaded; None where it cannot count alike.

        With `below` those whose cursor column is before it, which rows without a cursor are not. Rows of one key
        of `keys` count once, and only where all of them are below. Raises what reading raises.
        """
        del stream, keys, below
        return None

    def confirm(self, stream: Stream, cursor: Cursor) -> Mapping[str, str | int]:
        """Let the far side forget what lies before a cursor that is stored; return facts for people.

        Called after each load, and not made up for where it fails: a later one does it too.
        """
        del stream, cursor
        return {}

    @classmethod
    def write(cls, rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
        """Store all rows at `target`, or nothing; `options` is a `sink_options_type`.

        A class method: a sink needs no source's options, such as the path to read from.
        """
        raise NotImplementedError

    @classmethod
    def check_words(cls, target: str, options: BaseModel, place: Place) -> None:
        """Raise what `write` raises whatever is at the target: nothing is contacted or looked at."""
        del target, options, place

    @classmethod
    def check_target(cls, target: str, options: BaseModel, place: Place) -> Health | None:
        """Contact what `write` would write to, and say whether it is there and may be written to.

        Nothing there is changed. What cannot be reached is `ok=False` or the error that `write` would raise;
        None says that the TYPE cannot tell before it writes.
        """
        del target, options, place
        return None

    @abstractmethod
    def check(self) -> Health:
        """Contact the system and say how it is; an unreachable one is `ok=False`, not an error."""

    def account(self) -> str:
        """Return what the far side takes for one customer, such as host and user, without a secret.

        Sources of one account share its circuit and limit, over all processes of a machine. Empty
        where only the SOURCE itself is known.
        """
        return ""

    def recover(self, error: RetryLater) -> None:
        """Forget what `error` may have broken, such as a connection, before a read is tried again.

        Called in the thread of that read; other streams' reads may be under way.
        """
        del error

    def close(self) -> None:
        """Free what is held; called once, also after an error."""
