"""Parquet files: one, a glob, a directory, hive partitions. Types are those of the files.

::

    SOURCE orders TYPE PARQUET PARAMS {"path": "data/orders/**/*.parquet"};

Columns are matched by name over all files; columns and row groups that are not needed are not read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field

from sqlflow_dagster.connectors import nested
from sqlflow_dagster.connectors.base import Rows
from sqlflow_dagster.connectors.files import (
    PATH,
    FileOptions,
    Files,
    Readable,
    Selected,
    by_place,
    named,
    options_sql,
    partition_types,
    struct_sql,
    typed_sql,
    whole_sql,
)
from sqlflow_dagster.connectors.sink import ParquetSinkOptions, WritesFiles
from sqlflow_dagster.sql import Sql, join, literal, quote, sql

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
        "combine_files": "it is not needed here, the files of a source are one table"
    }

    combine_files: bool = Field(True, description="A name of the first SQLFlow; all files are one table.")
    binary_as_string: bool = Field(False, description="Whether old writers' untyped binary columns are text.")


class Parquet(WritesFiles, Files[ParquetOptions]):
    """Parquet files."""

    sink_options_type = ParquetSinkOptions
    options_type = ParquetOptions
    suffixes = (".parquet", ".pq")

    @classmethod
    def written_columns(cls, rows: Rows) -> Sql:
        casts = [
            sql("CAST({name} AS {kind}) AS {name}", name=quote(name), kind=Sql(kept))
            for name, kind in rows.columns.items()
            if (kept := _kept(kind)) != kind
        ]
        return sql("* REPLACE ({casts})", casts=join(", ", casts)) if casts else Sql("*")

    def select(self, files: Sequence[Readable]) -> Selected | None:
        options = self.options
        folders = partition_types([item.file for item in files], options.hive_partitioning, options.types)
        query = join(
            " UNION ALL BY NAME ",
            (
                whole_sql(self._read(group, folders), group, folders, provenance=options.row_provenance)
                for group in by_place(files)
            ),
        )
        return Selected(typed_sql(query, options.types), explain=named(files))

    def _read(self, files: Sequence[Readable], folders: dict[str, str]) -> Sql:
        given = {
            "union_by_name": literal(len(files) > 1),
            "binary_as_string": literal(True) if self.options.binary_as_string else None,
            "filename": literal(PATH),
            "hive_partitioning": literal(bool(folders)),
            "hive_types": struct_sql(folders) if folders else None,
        }
        return sql(
            "read_parquet([{files}], {options})",
            files=join(", ", (item.pattern for item in files)),
            options=options_sql(given),
        )
