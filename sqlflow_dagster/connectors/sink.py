"""Rows of an EXPORT → one local file, visible whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar, Literal, Protocol, cast

from pydantic import BaseModel, Field

from sqlflow_dagster.connectors.base import Place, Rows, Written
from sqlflow_dagster.connectors.options import Options
from sqlflow_dagster.connectors.paths import inside
from sqlflow_dagster.errors import BadOption, ExportFailed
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.sql import Sql, join, literal, quote, sql

TextCompression = Literal["none", "gzip", "zstd"]


class TextSinkOptions(Options):
    """Exports whose files are text."""

    compression: TextCompression | None = Field(
        None, description="`none`, `gzip` or `zstd`; by default what the target's suffix says."
    )


class CsvSinkOptions(TextSinkOptions):
    """How an exported CSV file is written."""

    aliases: ClassVar[Mapping[str, str]] = {
        "has_header": "header", "sep": "delimiter", "separator": "delimiter", "delim": "delimiter",
        "quote_char": "quote", "escape_char": "escape", "null": "null_value", "nullstr": "null_value",
        "dateformat": "date_format", "timestampformat": "timestamp_format",
    }  # fmt: skip

    header: bool = Field(True, description="Whether the first line names the columns.")
    delimiter: str = Field(",", min_length=1, max_length=4, description="Between two values.")
    quote: str = Field('"', min_length=1, max_length=1, description="Around values that hold a delimiter.")
    escape: str = Field('"', min_length=1, max_length=1, description="Before a quote inside quotes.")
    null_value: str = Field("", description="The text of NULL; an empty text is written as a quoted one.")
    date_format: str | None = Field(None, description="How dates are written, in strftime's letters.")
    timestamp_format: str | None = Field(None, description="How times are written, in strftime's letters.")
    force_quote: tuple[str, ...] = Field((), description="Columns whose values are always quoted.")

    def copy_options(self, target: str) -> Sql:
        """Return the options of COPY."""
        given = {
            "HEADER": literal(self.header),
            "DELIMITER": literal(self.delimiter),
            "QUOTE": literal(self.quote),
            "ESCAPE": literal(self.escape),
            "NULLSTR": literal(self.null_value),
            "COMPRESSION": literal(compression_of(target, self.compression)),
            "DATEFORMAT": literal(self.date_format) if self.date_format else None,
            "TIMESTAMPFORMAT": literal(self.timestamp_format) if self.timestamp_format else None,
            "FORCE_QUOTE": _names(self.force_quote) if self.force_quote else None,
        }
        return copy_options("csv", given)


class TsvSinkOptions(CsvSinkOptions):
    """How an exported TSV file is written."""

    delimiter: str = Field("\t", min_length=1, max_length=4, description="Between two values.")


class JsonSinkOptions(TextSinkOptions):
    """How an exported JSON file is written: one array of objects."""

    array: ClassVar[bool] = True
    date_format: str | None = Field(None, description="How dates are written, in strftime's letters.")
    timestamp_format: str | None = Field(None, description="How times are written, in strftime's letters.")

    def copy_options(self, target: str) -> Sql:
        """Return the options of COPY."""
        given = {
            "ARRAY": literal(self.array),
            "COMPRESSION": literal(compression_of(target, self.compression)),
            "DATEFORMAT": literal(self.date_format) if self.date_format else None,
            "TIMESTAMPFORMAT": literal(self.timestamp_format) if self.timestamp_format else None,
        }
        return copy_options("json", given)


class JsonlSinkOptions(JsonSinkOptions):
    """How an exported JSONL file is written: one object a line."""

    array: ClassVar[bool] = False


class ParquetSinkOptions(Options):
    """How an exported Parquet file is written."""

    compression: Literal["uncompressed", "snappy", "gzip", "zstd", "brotli", "lz4", "lz4_raw"] = Field(
        "zstd", description="Of the column pages."
    )
    compression_level: int | None = Field(
        None, ge=1, le=22, description="With `zstd`: higher is smaller and slower."
    )
    row_group_size: int = Field(122_880, ge=2_048, description="Rows of a row group.")

    def copy_options(self, _target: str) -> Sql:
        """Return the options of COPY."""
        given = {
            "COMPRESSION": literal(self.compression),
            "COMPRESSION_LEVEL": literal(self.compression_level) if self.compression_level else None,
            "ROW_GROUP_SIZE": literal(self.row_group_size),
        }
        return copy_options("parquet", given)


class FileSinkOptions(Protocol):
    """Options that know what COPY is to be told."""

    def copy_options(self, target: str) -> Sql:
        """Return the options of COPY."""


class WritesFiles:
    """The writing half of a connector of files."""

    sink_options_type: ClassVar[type[BaseModel] | None]

    @classmethod
    def write(cls, rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
        """Store all rows in the file `target`, or leave what is there."""
        return write_file(rows, target, place, cast("FileSinkOptions", options).copy_options(target))


def write_file(rows: Rows, target: str, place: Place, options: Sql) -> Written:
    """Write the rows with COPY's `options` to the file `target`, as `stored` does."""
    return stored(target, place, lambda path: rows.copy_to(path, options))


def stored(target: str, place: Place, make: Callable[[Path], int]) -> Written:
    """Have `make` write a file under a hidden name beside the target; then put it in its place.

    `make` returns the rows written. The file is durable before it is visible. Raises NotAllowed for
    a target outside the project and ExportFailed where it cannot be written; what was at the target
    before is then still there.
    """
    path = inside(place, target)
    if path.is_dir():
        raise BadOption(f"the target {target!r} is a folder; name a file in it")
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        count = make(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        size = part.stat().st_size
        failpoint("in_export")
        part.replace(path)
    except OSError as error:
        raise ExportFailed(
            f"{path}: {error.strerror or error}; the file that was there is untouched"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return Written(rows=count, bytes=size, target=str(path))


def compression_of(target: str, given: str | None) -> str:
    """Return the compression that is asked for, else the one that the target's suffix says."""
    if given is not None:
        return given
    suffix = target.rpartition(".")[2].lower()
    return {"gz": "gzip", "zst": "zstd", "zstd": "zstd"}.get(suffix, "none")


def copy_options(form: str, given: Mapping[str, Sql | None]) -> Sql:
    """Return COPY's options for a format, those that are None left out."""
    pairs = [sql("FORMAT {form}", form=quote(form))]
    pairs += [Sql(f"{name} {value}") for name, value in given.items() if value is not None]
    return join(", ", pairs)


def _names(columns: tuple[str, ...]) -> Sql:
    return sql("({names})", names=join(", ", (quote(name) for name in columns)))
