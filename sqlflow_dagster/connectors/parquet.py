"""Parquet files: one, a glob, a directory, hive partitions. Types are those of the files.

::

    SOURCE orders TYPE PARQUET PARAMS {"path": "data/orders/**/*.parquet"};

Columns are matched by name over all files; columns and row groups that are not needed are not read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from pydantic import Field

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
from sqlflow_dagster.sql import Sql, join, literal, sql


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
