"""What all sources of tables share: which tables are meant, what their streams are called, and discovery.

A source names its tables one by one, or by patterns. Tables that are named need no discovery: their
streams follow from the options alone. Those of a pattern are found once, by `discover`, and kept in
the project's state folder, so that definitions load without contact.
"""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, ClassVar, NamedTuple, TypeVar

from pydantic import BeforeValidator, Field

from sqlflow_dagster.connectors import discovered, parameters
from sqlflow_dagster.connectors.base import Connector, Health, Stream
from sqlflow_dagster.connectors.discovered import Table
from sqlflow_dagster.connectors.options import SourceOptions
from sqlflow_dagster.errors import BadOption, NotDiscovered, ProjectError, SourceError, SourceFailed
from sqlflow_dagster.sql import fold

_NAME = re.compile(r'\s*(?:(?P<schema>"(?:[^"]|"")+"|[^".]+)\.)?(?P<name>"(?:[^"]|"")+"|[^".]+)\s*')
_WILD = frozenset("*?[")
_ANY = "*"


class TableOptions(SourceOptions):
    """The parameters of every source of tables.

    A connector may refuse those that it cannot honour, such as `schemas` where there are none.
    """

    aliases: ClassVar[Mapping[str, str]] = {
        "table_name": "table", "relation": "table", "view": "table",
        "table_names": "tables", "include_tables": "tables", "table_pattern": "tables",
        "schema": "schemas", "schema_name": "schemas", "namespace": "schemas", "filter_schemas": "schemas",
        "exclude": "exclude_tables", "skip_tables": "exclude_tables",
        "sql": "query", "sql_query": "query", "stream_name": "stream",
    }  # fmt: skip

    table: str | None = Field(
        None, min_length=1, description="One table or view, `name` or `schema.name`; no pattern."
    )
    tables: Annotated[tuple[str, ...], BeforeValidator(parameters.names)] = Field(
        (),
        description="Several tables: names or patterns (`fact_*`, `sales.*`). Patterns are looked up by "
        "`sqlflow discover`.",
    )
    schemas: Annotated[tuple[str, ...], BeforeValidator(parameters.names)] = Field(
        (), description="Schemas to look for tables in: names or patterns (`tenant_*`)."
    )
    exclude_tables: Annotated[tuple[str, ...], BeforeValidator(parameters.names)] = Field(
        (), description="Tables that are left out: names or patterns, as in `tables`."
    )
    query: str | None = Field(
        None, min_length=1, description="A SELECT in the source's own SQL, in place of tables."
    )
    stream: str = Field("query", min_length=1, description="Name of the stream that `query` makes.")

    def problems(self) -> list[str]:
        given = [name for name in ("table", "tables", "query") if getattr(self, name)]
        if len(given) > 1:
            return [f"{given[-1]}: give only one of {' and '.join(given)}"]
        if self.query is None:
            found = (
                ["stream: it names the rows of a `query`; write `table`"]
                if "stream" in self.model_fields_set
                else []
            )
            return [*found, *self._nowhere()]
        idle = [name for name in ("schemas", "exclude_tables") if getattr(self, name)]
        return [f"{name}: it selects tables, and this source reads a query" for name in idle]

    def _nowhere(self) -> list[str]:
        """What is said of a table that may be in several schemas."""
        found = _NAME.fullmatch(self.table or "")
        if not found or found["schema"] or not self.schemas:
            return []
        if len(self.schemas) == 1 and not _WILD & {*self.schemas[0]}:
            return []
        return [f"table: say in which schema it is, as in `schema.{self.table}`, or write `tables`"]


class Name(NamedTuple):
    """A table by schema and name, as the source spells them; either may be a pattern."""

    schema: str
    name: str


O = TypeVar("O", bound=TableOptions)  # noqa: E741 - the type parameter's usual name


class Tables(Connector[O]):
    """A source of tables."""

    # Whether listing the tables is as cheap as reading a local file: then nothing is kept.
    lists_at_once: ClassVar[bool] = False

    @property
    @abstractmethod
    def default_schema(self) -> str:
        """The schema of names without one; streams of its tables carry the table's name alone."""

    @abstractmethod
    def list_tables(self) -> Iterable[Table]:
        """Contact the source and yield its tables and views, in order of their names.

        Those of the system's own schemas are left out.
        """

    def place_of_data(self) -> Mapping[str, str]:
        """Return what tells this database from others (host, database …); never a secret."""
        return {}

    def account(self) -> str:
        return json.dumps(dict(self.place_of_data()), sort_keys=True)

    def streams(self) -> Sequence[Stream]:
        return self._streams

    def discover(self) -> Sequence[Stream]:
        """Contact the source, keep what tables it has, and return their streams.

        Raises SourceFailed where no table matches, and BadOption where tables cannot be read as the
        options say.
        """
        if self._named is not None:
            return self.streams()
        found = self._chosen(self.list_tables())
        if not self.lists_at_once:
            discovered.save(self._file, found)
        self._found = found
        self.__dict__.pop("_streams", None)
        return self.streams()

    def look_at(self, stream: Stream) -> None:
        """Raise what would keep a stream from being read, as far as that shows without a row of it."""
        del stream

    def looked_at(self, found: Health) -> Health:
        """Return how the far side is, with what keeps the streams from being read that the options name."""
        if not found.ok or (self.options.query is None and self._named is None):
            return found
        problems = [problem for stream in self.streams() if (problem := self._problem(stream))]
        return replace(found, ok=not problems, message="; ".join([found.message, *problems]))

    def _problem(self, stream: Stream) -> str | None:
        try:
            self.look_at(stream)
        except (SourceError, ProjectError) as error:
            return str(error)
        return None

    def table_of(self, stream: Stream) -> Name | None:
        """Return the table that a stream reads, None where it is the query's."""
        if self.options.query is not None:
            return None
        for name in self._named if self._named is not None else self._tables():
            if self.stream_name(name.schema, name.name) == stream.name:
                return Name(name.schema, name.name)
        raise SourceFailed(f"the source has no stream {stream.name!r}; `sqlflow discover` lists them anew")

    def stream_name(self, schema: str, name: str) -> str:
        """Return the stream of a table: `name` in the default schema, else `schema__name`."""
        return name if schema == self._home else f"{schema}__{name}"

    @property
    def _home(self) -> str:
        schemas = self.options.schemas
        return schemas[0] if len(schemas) == 1 and not _WILD & {*schemas[0]} else self.default_schema

    @cached_property
    def _named(self) -> tuple[Name, ...] | None:
        """The tables that the options name one by one; None where they have to be looked up."""
        options = self.options
        if options.table is not None:
            return (self._parsed(options.table),)
        names = [self._parsed(text) for text in options.tables]
        open_ended = not names or options.exclude_tables or any(_WILD & {*"".join(name)} for name in names)
        if open_ended or any(name.schema == _ANY for name in names):
            return None
        return tuple(dict.fromkeys(names))

    @cached_property
    def _streams(self) -> tuple[Stream, ...]:
        options = self.options
        if options.query is not None:
            return (self._stream(options.stream, "Rows of a query."),)
        if self._named is not None:
            return tuple(
                self._stream(self.stream_name(*name), f"Table {name.schema}.{name.name}.")
                for name in self._named
            )
        tables = self._tables()
        self._check_cursor(tables)
        return tuple(
            self._stream(
                self.stream_name(table.schema, table.name),
                table.description or f"{table.kind.capitalize()} {table.schema}.{table.name}.",
                table,
            )
            for table in tables
        )

    def _stream(self, name: str, description: str, table: Table | None = None) -> Stream:
        return Stream(
            name,
            primary_key=self.options.primary_key or (table.primary_key if table else ()),
            cursor_field=self.options.cursor_field,
            columns=table.columns if table else None,
            description=description,
        )

    @property
    def cursor_column(self) -> str | None:
        """The column by which each table is read from its cursor on; None where there is no such column."""
        return self.options.cursor_field if self.options.sync_mode == "incremental" else None

    def _check_cursor(self, tables: Sequence[Table]) -> None:
        """Refuse tables without the cursor's column: one SOURCE reads all of its tables alike."""
        wanted = self.cursor_column
        if wanted is None:
            return
        lacking = [
            f"{table.schema}.{table.name}"
            for table in tables
            if table.columns and fold(wanted) not in {fold(column) for column in table.columns}
        ]
        if lacking:
            raise BadOption(
                f"cursor_field: there is no column {wanted!r} in {', '.join(lacking[:10])}"
                f"{' …' if len(lacking) > 10 else ''}; leave them out by `exclude_tables`, and load them by a "
                "SOURCE of their own",
                option="cursor_field",
            )

    _found: tuple[Table, ...] | None = None

    def _tables(self) -> tuple[Table, ...]:
        """The tables that were found. Raises NotDiscovered where none have been looked up yet."""
        if self._found is None:
            self._found = (
                self._chosen(self.list_tables()) if self.lists_at_once else discovered.load(self._file)
            )
        if self._found is None:
            raise NotDiscovered("its tables are given by patterns and have not been looked up yet")
        return self._found

    @property
    def _file(self) -> discovered.File:
        """Where the tables found are kept: under what was looked for, and where."""
        options = self.options
        return discovered.File(
            self.place.state,
            type(self).__name__.upper(),
            {
                **self.place_of_data(),
                "tables": list(options.tables),
                "schemas": list(options.schemas),
                "exclude_tables": list(options.exclude_tables),
            },
        )

    def _chosen(self, tables: Iterable[Table]) -> tuple[Table, ...]:
        wanted = [self._parsed(text) for text in self.options.tables or _ANY]
        unwanted = [self._parsed(text, _ANY) for text in self.options.exclude_tables]
        schemas = self.options.schemas
        found = tuple(
            table
            for table in tables
            if any(_matches(table, name) for name in wanted)
            and not any(_matches(table, name) for name in unwanted)
            and (not schemas or any(fnmatchcase(table.schema, schema) for schema in schemas))
        )
        if not found:
            looked = {"tables": self.options.tables or ("*",), "schemas": schemas or (self._home,)}
            what = "; ".join(f"`{name}` {', '.join(patterns)}" for name, patterns in looked.items())
            raise SourceFailed(
                f"no table matches ({what}); mend the patterns, or ask for access to the tables that they mean"
            )
        self._refuse_twins(found)
        return found

    def _refuse_twins(self, tables: Iterable[Table]) -> None:
        """Names that differ only in case would be one table in DuckDB."""
        seen: dict[str, Table] = {}
        for table in tables:
            twin = seen.setdefault(fold(self.stream_name(table.schema, table.name)), table)
            if twin is not table:
                raise SourceFailed(
                    f"the streams of {twin.schema}.{twin.name} and {table.schema}.{table.name} would have one "
                    "name, as DuckDB takes it; leave one out by `exclude_tables`, and load it by a SOURCE of its own"
                )

    def _parsed(self, text: str, schema: str | None = None) -> Name:
        home = _ANY if self.options.schemas and self.options.schemas != (self._home,) else self._home
        return table_name(text, schema or home, "table" if self.options.table else "tables")


def table_name(text: str, schema: str, option: str = "table") -> Name:
    """Return what `name` or `schema.name`, either in double quotes, means; `schema` is that of a bare name.

    Raises BadOption for other texts.
    """
    found = _NAME.fullmatch(text)
    if found is None:
        raise BadOption(
            f"{option}: {text!r} is no table; write `name` or `schema.name`, in double quotes where it has dots",
            option=option,
        )
    return Name(_plain(found["schema"]) if found["schema"] else schema, _plain(found["name"]))


def _matches(table: Table, wanted: Name) -> bool:
    return fnmatchcase(table.schema, wanted.schema) and fnmatchcase(table.name, wanted.name)


def _plain(name: str) -> str:
    """A name without the quotes around it."""
    name = name.strip()
    quoted = len(name) > 1 and name[0] == name[-1] == '"'
    return name[1:-1].replace('""', '"') if quoted else name
