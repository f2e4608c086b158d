"""Parquet files: one, a glob, a directory, hive partitions. Types are those of the files.

::

    SOURCE orders TYPE PARQUET PARAMS {"path": "data/orders/**/*.parquet"};

Columns are matched by name over all files; columns and row groups that are not needed are not read.
Where a column has types in several files that no type holds exactly, such as BIGINT and DOUBLE, that
is an error, unless `types` says what it is to be.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import ClassVar, TypeVar

from pydantic import Field

from sqlflow_dagster.connectors import casts, nested, parquet_ranges, parquet_schemas
from sqlflow_dagster.connectors.base import Ask, Rows
from sqlflow_dagster.connectors.file_options import FileOptions
from sqlflow_dagster.connectors.files import (
    PATH,
    PROVENANCE,
    Files,
    Readable,
    Selected,
    by_place,
    named,
    options_sql,
    partition_sql,
    partition_types,
    struct_sql,
    whole_sql,
)
from sqlflow_dagster.connectors.sink import ParquetSinkOptions, WritesFiles
from sqlflow_dagster.errors import ExportFailed
from sqlflow_dagster.sql import Sql, fold, join, literal, quote, sql

# Types that Parquet would round or cut: to a double, to milliseconds, to UTC.
_LOSSY = re.compile(r"U?HUGEINT|INTERVAL|TIME WITH TIME ZONE")


def _kept(kind: str) -> str:
    """Return the type under which Parquet keeps the values of a type."""
    if not _LOSSY.search(kind):
        return kind
    return nested.name_of(nested.changed(nested.parsed(kind), lambda leaf: _leaf(leaf.kind)))


def _leaf(kind: str) -> str:
    if kind in ("HUGEINT", "UHUGEINT"):
        return "DECIMAL(38,0)"
    return "VARCHAR" if kind in ("INTERVAL", "TIME WITH TIME ZONE") else kind


class ParquetOptions(FileOptions):
    """Parquet's parameters."""

    idle: ClassVar[Mapping[str, str]] = {
        "combine_files": "it is not needed here, the files of a source are one table",
        "parallel_reading": "it is not needed here, DuckDB reads with all of its threads",
    }

    combine_files: bool = Field(True, description="A name of the first SQLFlow; all files are one table.")
    parallel_reading: bool = Field(True, description="A name of the first SQLFlow.")
    binary_as_string: bool = Field(False, description="Whether old writers' untyped binary columns are text.")


P = TypeVar("P", bound=FileOptions)


class ReadsParquet(Files[P]):
    """Files that DuckDB reads as Parquet."""

    def select(self, files: Sequence[Readable], kept: Mapping[str, str]) -> Selected | None:
        # The files say of what type their columns are.
        del kept
        options = self.options
        folders = partition_types([item.file for item in files], options.hive_partitioning, options.types)

        def query(ask: Ask) -> Sql:
            return self._query(ask, files, folders)

        return Selected(query, explain=_explainer(files))

    def _query(self, ask: Ask, files: Sequence[Readable], folders: Mapping[str, str]) -> Sql:
        """The SELECT of files that may differ, after asking for their schemas."""
        options = self.options
        parquet_schemas.check_digits(ask, files, {fold(name) for name in options.exclude_columns})
        schemas = parquet_schemas.of(ask, files) if len(files) > 1 else dict.fromkeys(files, "")
        alike = len(set(schemas.values())) == 1
        if not alike:
            keys = {fold(name) for name in options.primary_key} - {fold(name) for name in folders}
            parquet_schemas.check(ask, schemas, {fold(name) for name in options.types}, keys)
        groups = (
            [list(group) for _key, group in groupby(files, key=lambda item: (item.place, schemas[item]))]
            if options.types
            else by_place(files)
        )
        selects = []
        for group in groups:
            provenance = options.row_provenance or bool(options.types)
            if _is_odd(group, folders, options.types):
                select = self._with_folders(ask, group, folders, provenance=provenance)
            else:
                select = whole_sql(self._read(group, folders), group, folders, provenance=provenance)
            selects.append(self._typed(ask, select) if options.types else select)
        return join(" UNION ALL BY NAME ", selects)

    def _with_folders(
        self, ask: Ask, files: Sequence[Readable], folders: Mapping[str, str], *, provenance: bool
    ) -> Sql:
        """The SELECT of files whose folders DuckDB would read otherwise than their names say."""
        select = whole_sql(self._read(files, {}), files, {}, provenance=True)
        taken = {fold(str(row[0])) for row in ask(sql("DESCRIBE {select}", select=select))}
        declared = {fold(name) for name in self.options.types}
        file = quote(PROVENANCE)
        columns = [
            sql(
                "{value} AS {name}",
                value=partition_sql(file, key, kind, guessed=fold(key) not in declared),
                name=quote(key),
            )
            for key, kind in folders.items()
            if fold(key) not in taken
        ]
        columns.insert(0, sql("* EXCLUDE ({file})", file=file))
        columns += [file] if provenance else []
        return sql("SELECT {columns} FROM ({select})", columns=join(", ", columns), select=select)

    def _typed(self, ask: Ask, select: Sql) -> Sql:
        """The SELECT with the declared columns converted exactly; one that is missing is NULL."""
        described = ask(sql("DESCRIBE {select}", select=select))
        found = {str(row[0]): str(row[1]) for row in described}
        where = quote(PROVENANCE)
        declared = {fold(name): kind for name, kind in self.options.types.items()}
        columns = [
            sql(
                "{value} AS {name}",
                value=_value(name, kind, declared[fold(name)], where),
                name=quote(name),
            )
            if fold(name) in declared
            else quote(name)
            for name, kind in found.items()
            if name != PROVENANCE
        ]
        known = {fold(name) for name in found}
        columns += [
            sql("CAST(NULL AS {kind}) AS {name}", kind=Sql(kind), name=quote(name))
            for name, kind in self.options.types.items()
            if fold(name) not in known
        ]
        if self.options.row_provenance:
            columns.append(where)
        return sql("SELECT {columns} FROM ({select})", columns=join(", ", columns), select=select)

    def _read(self, files: Sequence[Readable], folders: Mapping[str, str]) -> Sql:
        given = {
            "union_by_name": literal(len(files) > 1),
            "binary_as_string": literal(True) if getattr(self.options, "binary_as_string", False) else None,
            "filename": literal(PATH),
            "hive_partitioning": literal(bool(folders)),
            "hive_types": struct_sql(folders) if folders else None,
        }
        return sql(
            "read_parquet([{files}], {options})",
            files=join(", ", (item.pattern for item in files)),
            options=options_sql(given),
        )


def _explainer(files: Sequence[Readable]) -> Callable[[str], str]:
    with_names = named(files)
    names = ", ".join(item.file.name for item in files[:5])

    def explain(message: str) -> str:
        text = with_names(message)
        if "VARIANT columns are not supported" in text:
            return (
                f"{names}: a column is a VARIANT, which no table here can hold; declare it as JSON or VARCHAR in "
                "`types`, or name it in `exclude_columns`"
            )
        return text if any(item.file.name in text for item in files) else f"{names}: {text}"

    return explain


class Parquet(WritesFiles, ReadsParquet[ParquetOptions]):
    """Parquet files."""

    sink_options_type = ParquetSinkOptions
    options_type = ParquetOptions
    suffixes = (".parquet", ".pq")
    by_column = True

    def ranges(self, path: Path, needs: Sequence[str]) -> list[tuple[int, int]] | None:
        options = self.options
        if not options.columns and not options.exclude_columns:
            return None
        named = [*needs, *options.primary_key, *(condition.column for condition in options.filters)]
        named += [options.cursor_field] if options.cursor_field else []
        # A field of a struct is read out of its column.
        needed = {fold(text) for name in named for text in (name, name.partition(".")[0])}
        wanted = {fold(name) for name in options.columns} | needed if options.columns else None
        unwanted = {fold(name) for name in options.exclude_columns} - needed
        return parquet_ranges.without(path, wanted, unwanted)

    @classmethod
    def kept(cls, rows: Rows) -> dict[str, Sql]:
        if unions := [name for name, kind in rows.columns.items() if "UNION(" in kind]:
            raise ExportFailed(
                f"the column {unions[0]!r} is a UNION, which Parquet has not and no reader would know again; CAST it "
                "to JSON or VARCHAR"
            )
        return {
            name: sql("CAST({name} AS {kind})", name=quote(name), kind=Sql(kept))
            for name, kind in rows.columns.items()
            if (kept := _kept(kind)) != kind
        }


def _is_odd(files: Sequence[Readable], folders: Mapping[str, str], types: Mapping[str, str]) -> bool:
    """Whether folders have declared types, which DuckDB would round to, or are such as it does not see.

    It sees none with `=` in their values, none that are not in the path, and names as they are encoded there.
    """
    if folders and not all(item.file.tail for item in files):
        return True
    if any(f"/{key}=" not in f"/{item.file.name}" for item in files for key in item.file.partitions):
        return True
    declared = {fold(name) for name in types}
    values = (value for item in files for value in item.file.partitions.values() if value)
    return any(fold(key) in declared for key in folders) or any("=" in value for value in values)


def _value(name: str, found: str, kind: str, where: Sql) -> Sql:
    """A column of the type `found` in the declared one; scalars go by way of text, which keeps digits."""
    if found == kind:
        return quote(name)
    if not (casts.is_scalar(kind) and not found.endswith((")", "]"))) and not found.startswith("DECIMAL"):
        return casts.same(name, found, kind, where)
    text = sql("CAST({name} AS VARCHAR)", name=quote(name))
    return casts.converted(name, kind, guessed=False, where=where, text=text)
