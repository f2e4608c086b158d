"""Rows that stand in the pipeline itself, or in a table of this process: for tests and small lists.

::

    SOURCE countries TYPE IN_MEMORY PARAMS {
      "rows": [
        {"code": "DE", "name": "Germany", "vat": "0.19"},
        {"code": "AT", "name": "Austria", "vat": "0.20"}
      ],
      "types": {"vat": "DECIMAL(3,2)"},
      "primary_key": "code"
    };

Types are found out over all rows; write decimals as text and declare their type, since a number with
decimals is a DOUBLE. `EXPORT … TO "memory://name"` keeps the result in this process, where
`sqlflow_dagster.in_memory_rows("name")` gives it to a test and `"table": "name"` reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import BaseModel, BeforeValidator, Field

from sqlflow_dagster.connectors import casts, json_types, parameters, text_rows
from sqlflow_dagster.connectors.base import Connector, Family, Health, Place, Rows, Scan, Stream, Written
from sqlflow_dagster.connectors.memory_tables import add_in_memory, in_memory_rows, put_in_memory
from sqlflow_dagster.connectors.options import Options, SourceOptions
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import ExportFailed, SourceFailed
from sqlflow_dagster.rooms import room
from sqlflow_dagster.sql import Sql, fold, join, quote, sql

_BATCH = 10_000
_SCHEME = "memory://"
# Types whose values Arrow or Python cannot hold as they are.
_NOT_IN_PYTHON = (
    "UHUGEINT",
    "BIGNUM",
    "BIT",
    "TIME WITH TIME ZONE",
    "TIMESTAMP_NS",
    "UNION",
    "VARIANT",
    "GEOMETRY",
)

Record = Mapping[str, Any]


class InMemoryOptions(SourceOptions):
    """The rows, or the table that has them."""

    aliases: ClassVar[Mapping[str, str]] = {
        "data": "rows", "records": "rows", "values": "rows", "streams": "tables", "schema": "types",
        "column_types": "types", "dtypes": "types", "name": "table", "stream_name": "stream",
    }  # fmt: skip
    idle: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("batch_size", "rate_limit", "timeout_seconds", "max_retries"),
        "it is not needed here, the rows are in memory",
    )

    rows: tuple[Record, ...] | None = Field(None, description="The rows: objects of names and values.")
    tables: Mapping[str, tuple[Record, ...]] = Field(
        default_factory=dict, description="Several streams: rows by the stream's name."
    )
    table: str | None = Field(
        None, min_length=1, description="A table of this process, made by `put_in_memory` or an EXPORT."
    )
    types: Annotated[Mapping[str, str], BeforeValidator(casts.declared)] = Field(
        default_factory=dict,
        description='DuckDB types by column, `{"vat": "DECIMAL(3,2)"}`; others are found out.',
    )
    stream: str = Field("data", min_length=1, description="Name of the one stream of `rows` or `table`.")

    def problems(self) -> list[str]:
        given = [
            name
            for name, there in (
                ("rows", self.rows is not None), ("tables", bool(self.tables)), ("table", self.table is not None),
            )
            if there
        ]  # fmt: skip
        if len(given) != 1:
            return [f"{given[-1] if given else 'rows'}: give one of rows, tables and table"]
        problems = []
        every = self.tables or {self.stream: self.rows or ()}
        for stream, rows in every.items():
            problems += [f"{given[0]}: {problem}" for problem in _twice(stream, rows)]
        known = {fold(name) for rows in self.tables.values() for row in rows for name in row}
        if self.tables:
            problems += [
                f"types: no row has the column {name!r}" for name in self.types if fold(name) not in known
            ]
        return problems


class InMemorySinkOptions(Options):
    """How a table of this process is written."""

    aliases: ClassVar[Mapping[str, str]] = {"write_mode": "mode"}

    mode: Annotated[Literal["replace", "append"], BeforeValidator(parameters.sink_mode)] = Field(
        "replace", description="`replace` the table, or `append` to it."
    )


class InMemory(Connector[InMemoryOptions]):
    """Rows in memory."""

    options_type = InMemoryOptions
    sink_options_type = InMemorySinkOptions
    family: ClassVar[Family] = "file"
    counts = ("full_refresh",)

    def streams(self) -> Sequence[Stream]:
        options = self.options
        return tuple(
            Stream(
                name,
                primary_key=options.primary_key,
                cursor_field=options.cursor_field,
                description="Rows in memory.",
            )
            for name in options.tables or (options.stream,)
        )

    def read(self, stream: Stream, since: Cursor | None) -> Iterator[Scan]:
        del since  # the warehouse compares
        rows = self._rows(stream)
        columns = _columns(rows)
        types = self._types(rows, columns)
        if not types:
            return
        with room(self.place.spool, "memory") as folder:
            yield Scan(_select(stream.name, rows, columns, types, self.options.types, folder / "rows.csv"))

    def count(self, stream: Stream, keys: Sequence[str] = (), below: Cursor | None = None) -> int | None:
        options = self.options
        if keys or below or options.filters or options.start_date or options.end_date:
            return None
        return len(self._rows(stream))

    def check(self) -> Health:
        try:
            count = sum(len(self._rows(stream)) for stream in self.streams())
        except SourceFailed as error:
            return Health(ok=False, message=str(error))
        return Health(ok=True, message=f"{count:,} rows in memory", facts={"rows": count})

    def _rows(self, stream: Stream) -> Sequence[Record]:
        options = self.options
        if options.table is not None:
            rows = in_memory_rows(options.table)
            problems = _twice(options.table, rows)
            if problems:
                raise SourceFailed(problems[0])
            return rows
        return options.tables[stream.name] if options.tables else options.rows or ()

    def _types(self, rows: Sequence[Record], columns: Mapping[str, str]) -> dict[str, str]:
        """The type of each column, in order; what is declared is there also where no row has it."""
        declared = {fold(name): (name, kind) for name, kind in self.options.types.items()}
        found: dict[str, str] = {}
        for folded, name in columns.items():
            if folded in declared:
                found[name] = declared.pop(folded)[1]
            else:
                values = [value for row in rows for key, value in row.items() if fold(key) == folded]
                found[name] = json_types.type_of(values)
        if not self.options.tables:
            found |= dict(declared.values())
        return found

    @classmethod
    def write(cls, rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
        """Keep all rows as a table of this process; `in_memory_rows` returns them."""
        del place
        wanted = cast("InMemorySinkOptions", options)
        name = target.removeprefix(_SCHEME).strip("/")
        for column, kind in rows.columns.items():
            if any(other in kind for other in _NOT_IN_PYTHON):
                raise ExportFailed(f"the column {column!r} is {kind}; CAST it to VARCHAR in the query")
        found = [dict(zip(rows.columns, values, strict=True)) for values in _values(rows)]
        (put_in_memory if wanted.mode == "replace" else add_in_memory)(name, found)
        return Written(rows=len(found), bytes=None, target=f"{_SCHEME}{name}")

    @classmethod
    def check_target(cls, target: str, options: BaseModel, place: Place) -> Health:
        del options, place
        return Health(ok=True, message=f"{target.removeprefix(_SCHEME).strip('/')} is kept in this process")


def _twice(stream: str, rows: Sequence[Record]) -> list[str]:
    """What is wrong with the names of columns."""
    for number, row in enumerate(rows, 1):
        if len({fold(name) for name in row}) < len(row):
            return [f"row {number} of {stream!r} has two columns whose names differ only in case"]
    return []


def _columns(rows: Sequence[Record]) -> dict[str, str]:
    """The columns of all rows: by folded name, as the first row that has it spells it."""
    columns: dict[str, str] = {}
    for row in rows:
        for name in row:
            columns.setdefault(fold(name), name)
    return columns


def _select(
    stream: str,
    rows: Sequence[Record],
    columns: Mapping[str, str],
    types: Mapping[str, str],
    declared: Mapping[str, str],
    path: Path,
) -> Sql:
    longest = 0
    folded = [{fold(name): value for name, value in row.items()} for row in rows]
    texts = (
        json_types.texts_of([row.get(key) for row in folded], types[name]) for key, name in columns.items()
    )
    with path.open("w", encoding="utf-8", newline="") as target:
        for number, values in enumerate(zip(*texts, strict=True), 1):
            line = text_rows.line(number, values)
            longest = max(longest, len(line))
            target.write(line)
    own = {fold(name) for name in declared}
    selected = (
        sql(
            "{value} AS {name}",
            value=_value(stream, name, kind, guessed=fold(name) not in own)
            if fold(name) in columns
            else sql("CAST(NULL AS {kind})", kind=Sql(kind)),
            name=quote(name),
        )
        for name, kind in types.items()
    )
    return sql(
        "SELECT {values} FROM {rows}",
        values=join(", ", selected),
        rows=text_rows.read_sql(path, list(columns.values()), longest),
    )


def _value(stream: str, name: str, kind: str, *, guessed: bool) -> Sql:
    if casts.is_scalar(kind):
        return casts.converted(name, kind, guessed=guessed, where=text_rows.where_sql(stream))
    if kind.endswith("]") or kind.upper().startswith(("STRUCT", "MAP", "JSON")):
        return sql("CAST(CAST({name} AS JSON) AS {kind})", name=quote(name), kind=Sql(kind))
    return sql("CAST({name} AS {kind})", name=quote(name), kind=Sql(kind))


def _values(rows: Rows) -> Iterator[tuple[Any, ...]]:
    whole = [kind in ("HUGEINT", "UBIGINT") for kind in rows.columns.values()]
    with rows.arrow(_BATCH) as reader:
        for batch in reader:
            columns = []
            for name, column, is_whole in zip(rows.columns, batch.columns, whole, strict=True):
                try:
                    values = column.to_pylist()
                except (OverflowError, ValueError) as error:
                    raise ExportFailed(
                        f"the column {name!r} has a date that Python does not know ({error}); CAST it to VARCHAR"
                    ) from error
                columns.append([v if v is None else int(v) for v in values] if is_whole else values)
            yield from zip(*columns, strict=True)
