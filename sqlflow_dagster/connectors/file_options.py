"""The parameters of everything that is made of files, on a disk or in a bucket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from sqlflow_dagster.connectors import casts, other_tools, parameters
from sqlflow_dagster.connectors.options import SourceOptions, Spread
from sqlflow_dagster.connectors.other_tools import Foreign
from sqlflow_dagster.sql import Condition

Compression = Literal["auto", "none", "gzip", "zstd", "bz2", "xz", "lz4", "brotli", "snappy", "zip"]
_OTHER_COMPRESSIONS = {
    "gz": "gzip", "zst": "zstd", "bzip2": "bz2", "lzma": "xz", "br": "brotli",
    "uncompressed": "none", "detect": "auto", "infer": "auto", "": "auto",
}  # fmt: skip


def compression_name(value: Any) -> Any:
    """Return our name of a compression."""
    name = parameters.lower(value)
    return _OTHER_COMPRESSIONS.get(name, name) if isinstance(name, str) else name


def _incremental_by(value: Any) -> Any:
    name = parameters.lower(value)
    return "file" if name in ("object", "files", "objects") else name


class FileOptions(SourceOptions):
    """The parameters of every file format."""

    aliases: ClassVar[Mapping[str, str]] = {
        "file_path": "path", "filepath": "path", "file": "path", "files": "path", "paths": "path",
        "directory": "path", "folder": "path", "url": "path", "location": "path",
        "bucket_url": "path", "file_pattern": "pattern", "glob": "pattern", "file_glob": "pattern",
        "schema": "types", "dtypes": "types", "dtype": "types",
        "column_types": "types", "dataset_name": "stream", "stream_name": "stream",
        "hive": "hive_partitioning", "min_age": "min_age_seconds", "max_files": "max_files_per_run",
        "partitions": "partition_filter", "sample": "dev_sampling",
    }  # fmt: skip
    spread: ClassVar[Mapping[str, Spread]] = {"files": other_tools.entry}
    foreign: ClassVar[Mapping[str, Foreign]] = other_tools.FILES
    idle: ClassVar[Mapping[str, str]] = {
        "batch_size": "it is not needed here, DuckDB streams files in batches of its own",
        "rate_limit": "it is not needed here, files are not requested one by one",
        "timeout_seconds": "it is not needed here, reading files waits for nobody",
    }
    own_cursor: ClassVar[bool] = True

    path: Annotated[tuple[str, ...], BeforeValidator(parameters.paths)] = Field(
        description="File, glob (`data/*.csv`, `data/**/*.csv`, `data/{a,b}.csv`), directory, or a list of them; "
        "relative to the project.",
        min_length=1,
    )
    pattern: Annotated[str | None, BeforeValidator(parameters.glob)] = Field(
        None, description="Glob below the directory `path`."
    )
    compression: Annotated[Compression, BeforeValidator(compression_name)] = Field(
        "auto", description="Of the files; by default what each one's suffix says."
    )
    hive_partitioning: bool | None = Field(
        None, description="Whether `key=value` folders are columns; by default where there are any."
    )
    types: Annotated[Mapping[str, str], BeforeValidator(casts.declared)] = Field(
        default_factory=dict,
        description='DuckDB types by column, `{"amount": "DECIMAL(12,2)"}`; others are found out.',
    )
    stream: str = Field("data", min_length=1, description="Name of the source's one stream.")
    min_age_seconds: float = Field(
        0, ge=0, description="Files changed within these seconds are left for the next run (still uploading)."
    )
    require_files: bool = Field(True, description="Whether it is an error when no file is there.")
    max_uncompressed_bytes: int = Field(
        200 * 2**30, ge=1, description="Largest size of one decompressed file, in bytes."
    )
    max_compression_ratio: int = Field(
        300, ge=1, description="Most times that a file may grow beyond 64 MB when decompressed."
    )

    partition_filter: Annotated[tuple[Condition, ...], BeforeValidator(parameters.partition_conditions)] = (
        Field(
            (),
            description='Partitions to read: `{"year": 2024, "month": ">= 6"}`, `{"date": ">= 2024-06-01"}`, or '
            "`year=2024/month=06`. They are folders `key=value`, or dates such as `2024/06/01` (year, month, day, "
            "hour); others are not looked into.",
        )
    )
    incremental_by: Annotated[Literal["file", "partition"], BeforeValidator(_incremental_by)] = Field(
        "file",
        description="Without `cursor_field`: new and changed files wherever they are (`file`), or in the newest "
        "partitions (`partition`), so that older ones are not even listed.",
    )
    partition_lookback: int = Field(
        1, ge=0, description="Partitions before the newest that are looked through again, for late files."
    )
    max_files_per_run: int | None = Field(None, ge=1, description="Most files that one run may read.")
    max_data_size_gb: float | None = Field(
        None, gt=0, description="Most gigabytes (10^9 bytes, as stored) that one run may read."
    )
    when_over_limit: Annotated[Literal["error", "next_run"], BeforeValidator(parameters.lower)] = Field(
        "error",
        description="A read over a limit is an `error` before its first byte; or, where new files are the "
        "cursor, what fits is read, the oldest first, and the rest is left to the `next_run`.",
    )
    dev_sampling: float | None = Field(
        None, gt=0, le=1, description="Share of the files to read, for development; always the same ones."
    )
    dev_max_files: int | None = Field(
        None, ge=1, description="Most files to read, for development: the first ones by name."
    )

    def problems(self) -> list[str]:
        found = super().problems()
        if self.incremental_by == "partition" and not self.counts_files:
            found.append(
                'incremental_by: partitions are a cursor with the sync_mode "incremental" and no `cursor_field`'
            )
        if self.when_over_limit == "next_run" and not self.counts_files:
            found.append(
                "when_over_limit: only an incremental read without `cursor_field` can leave files to the next run"
            )
        return found

    @property
    def counts_files(self) -> bool:
        """Whether the files themselves are the cursor."""
        return self.sync_mode == "incremental" and self.cursor_field is None
