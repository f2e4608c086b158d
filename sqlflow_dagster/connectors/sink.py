"""Rows of an EXPORT → one local file or a folder of partitions, visible whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol, cast
from urllib.parse import quote_plus

from pydantic import BaseModel, BeforeValidator, Field

from sqlflow_dagster.connectors import json_sink, local_target, pack, parameters, partitions
from sqlflow_dagster.connectors.base import Health, Place, Rows, Written
from sqlflow_dagster.connectors.file_options import compression_name
from sqlflow_dagster.connectors.options import Options
from sqlflow_dagster.connectors.paths import DEFAULT_PARTITION, written
from sqlflow_dagster.errors import BadOption, ExportFailed
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.rooms import beside
from sqlflow_dagster.sql import Sql, fold, join, literal, quote, sql

# Of a folder, in bytes.
_LONGEST_NAME = 255
TextCompression = Literal["none", "gzip", "zstd", "bz2", "xz", "lz4", "brotli"]


def _utf_8(value: Any) -> Any:
    """Return `utf-8` for each of its spellings."""
    name = parameters.lower(value)
    return "utf-8" if name in ("utf8", "utf_8", "u8") else name


def _no_index(value: Any) -> Any:
    if value in (True, "true"):
        raise ValueError(
            "an export has no numbers of rows; select row_number() OVER () AS index where you need them"
        )
    return value


def _anew(value: Any) -> Any:
    if (name := parameters.sink_mode(value)) in ("append", "upsert"):
        raise ValueError(
            f"a file is written anew each time; for `{name}`, keep the rows in a table, and export that"
        )
    return name


class FileSinkOptions(Options):
    """Exports that are files, each written whole."""

    aliases: ClassVar[Mapping[str, str]] = {"write_mode": "mode", "if_exists": "mode"}

    mode: Annotated[Literal["replace"], BeforeValidator(_anew)] = Field(
        "replace", description="`replace`, also called `overwrite`: what was at the target is replaced."
    )
    index: Annotated[Literal[False], BeforeValidator(_no_index)] = Field(
        False, description="A name of the first SQLFlow and of pandas; rows are not numbered."
    )


class TextSinkOptions(FileSinkOptions):
    """Exports whose files are text."""

    encoding: Annotated[Literal["utf-8"], BeforeValidator(_utf_8)] = Field(
        "utf-8", description="Text is written as UTF-8."
    )
    compression: Annotated[TextCompression | None, BeforeValidator(compression_name)] = Field(
        None,
        description="`none`, `gzip`, `zstd`, `bz2`, `xz`, `lz4` or `brotli`; by default what the target's suffix says.",
    )

    def packed_as(self, target: str) -> str:
        """Return the compression that is asked for, else the one that the target's suffix says."""
        return pack.named(target) if self.compression is None else self.compression


class PartitionedSinkOptions(FileSinkOptions):
    """Exports that may be folders."""

    partition_by: Annotated[tuple[str, ...], BeforeValidator(parameters.names)] = Field(
        (), description="Columns whose values become `column=value` folders below the target."
    )


class CsvSinkOptions(TextSinkOptions, PartitionedSinkOptions):
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
    null_value: str = Field(
        "",
        description="The text of NULL; where that is empty, an empty text is written as a quoted one, else as nothing "
        "at all, which a SOURCE reads as NULL.",
    )
    date_format: str | None = Field(None, description="How dates are written, in strftime's letters.")
    timestamp_format: str | None = Field(None, description="How times are written, in strftime's letters.")
    force_quote: Annotated[tuple[str, ...], BeforeValidator(parameters.names)] = Field(
        (), description="Columns whose values are always quoted."
    )

    def copy_options(self, target: str) -> Sql:
        """Return the options of COPY."""
        given = {
            "HEADER": literal(self.header),
            "DELIMITER": literal(self.delimiter),
            "QUOTE": literal(self.quote),
            "ESCAPE": literal(self.escape),
            "NULLSTR": literal(self.null_value),
            "COMPRESSION": literal(_native(self.packed_as(target))),
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

    refused: ClassVar[Mapping[str, str]] = {
        "partition_by": "JSON is written as one file; export CSV or PARQUET where you need partitions"
    }
    partition_by: ClassVar[tuple[str, ...]] = ()
    form: ClassVar[Sql] = json_sink.ARRAY
    date_format: str | None = Field(None, description="How dates are written, in strftime's letters.")
    timestamp_format: str | None = Field(None, description="How times are written, in strftime's letters.")

    def copy_options(self, target: str) -> Sql:
        """Return the options of COPY for the text of each row."""
        kind = literal(_native(self.packed_as(target)))
        return sql("{form}, COMPRESSION {kind}", form=self.form, kind=kind)

    @property
    def formats(self) -> dict[str, str | None]:
        """How values of a type are written."""
        return {"DATE": self.date_format, "TIMESTAMP": self.timestamp_format}


class JsonlSinkOptions(JsonSinkOptions):
    """How an exported JSONL file is written: one object a line."""

    form: ClassVar[Sql] = json_sink.LINES


class ParquetSinkOptions(PartitionedSinkOptions):
    """How an exported Parquet file is written."""

    compression: Literal["uncompressed", "snappy", "gzip", "zstd", "brotli", "lz4", "lz4_raw"] = Field(
        "zstd", description="Of the column pages."
    )
    compression_level: int | None = Field(
        None, ge=1, le=22, description="With `zstd`: higher is smaller and slower."
    )
    row_group_size: int = Field(
        122_880, ge=1, description="Rows of a row group; DuckDB takes the next multiple of 2,048."
    )

    def packed_as(self, target: str) -> str:
        """Return `none`: the pages are compressed, not the file. Raises BadOption for a target that says else."""
        if pack.named(target) != "none":
            raise BadOption(
                f"the target {target!r}: Parquet is compressed inside; end it with .parquet, and set `compression`"
            )
        return "none"

    def copy_options(self, _target: str) -> Sql:
        """Return the options of COPY."""
        given = {
            "COMPRESSION": literal(self.compression),
            "COMPRESSION_LEVEL": literal(self.compression_level) if self.compression_level else None,
            "ROW_GROUP_SIZE": literal(self.row_group_size),
        }
        return copy_options("parquet", given)


class Copied(Protocol):
    """Options that know what COPY is to be told."""

    @property
    def partition_by(self) -> tuple[str, ...]:
        """Columns that become folders."""

    def packed_as(self, target: str) -> str:
        """Return the compression of the whole file."""

    def copy_options(self, target: str) -> Sql:
        """Return the options of COPY."""


class WritesFiles:
    """The writing half of a connector of files."""

    sink_options_type: ClassVar[type[BaseModel] | None]

    @classmethod
    def write(cls, rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
        """Store all rows in the file `target`, or leave what is there."""
        given = cast("Copied", options)
        kind, copied = given.packed_as(target), given.copy_options(target)
        columns = cls.selected(rows, options)
        if given.partition_by:
            return _stored_folder(rows, target, place, given, columns)

        def make(path: Path) -> int:
            if kind in pack.NATIVE:
                return rows.copy_to(path, copied, columns)
            plain = path.with_name(f"{path.name}.plain")
            try:
                count = rows.copy_to(plain, copied, columns)
                pack.pack(plain, path, kind)
            finally:
                plain.unlink(missing_ok=True)
            return count

        return stored(target, place, make)

    @classmethod
    def check_words(cls, target: str, options: BaseModel, place: Place) -> None:
        given = cast("Copied", options)
        kind = given.packed_as(target)
        if given.partition_by:
            _folder_path(target, place, kind)
        else:
            file_path(target, place)

    @classmethod
    def check_target(cls, target: str, options: BaseModel, place: Place) -> Health:
        """Look at the place of the file or folder, and at the disk."""
        given = cast("Copied", options)
        kind = given.packed_as(target)
        path = folder_of(target, place, kind) if given.partition_by else file_of(target, place)
        return local_target.health(path)

    @classmethod
    def selected(cls, rows: Rows, options: BaseModel) -> Sql:
        """Return the SELECT list of what is written."""
        kept = cls.kept(rows)
        return _selected({**kept, **_as_folders(rows, cast("Copied", options).partition_by, kept)})

    @classmethod
    def kept(cls, rows: Rows) -> dict[str, Sql]:
        """Return the columns that the format cannot keep as they are, each with the expression that it keeps."""
        del rows
        return {}


class WritesJson(WritesFiles):
    """The writing half of a connector of JSON."""

    @classmethod
    def selected(cls, rows: Rows, options: BaseModel) -> Sql:
        return json_sink.row(rows.columns, cast("JsonSinkOptions", options).formats)


def _selected(expressions: Mapping[str, Sql]) -> Sql:
    if not expressions:
        return Sql("*")
    replaced = [
        sql("{value} AS {name}", value=value, name=quote(name)) for name, value in expressions.items()
    ]
    return sql("* REPLACE ({replaced})", replaced=join(", ", replaced))


def _as_folders(rows: Rows, partition_by: Sequence[str], kept: Mapping[str, Sql]) -> dict[str, Sql]:
    """Refuse a text that no folder is called by: one too long, and the one for NULL, whose rows would stand with it."""
    wanted = {fold(name) for name in partition_by}
    return {
        name: sql(
            "CASE WHEN CAST({value} AS VARCHAR) = {mark} THEN error({problem})"
            " WHEN strlen(url_encode(CAST({value} AS VARCHAR))) > {most} THEN error({long}) ELSE {value} END",
            value=kept.get(name, quote(name)),
            most=literal(_LONGEST_NAME - len(quote_plus(name)) - 1),
            long=literal(
                f"partition_by: a value of {name} is longer than the name of a folder may be ({_LONGEST_NAME} bytes)"
            ),
            mark=literal(DEFAULT_PARTITION),
            problem=literal(
                f"partition_by: a value of {name} is the text {DEFAULT_PARTITION}, as the folder of NULL is called"
            ),
        )
        for name, kind in rows.columns.items()
        if fold(name) in wanted and (kind == "VARCHAR" or kind.startswith("ENUM"))
    }


def _stored_folder(rows: Rows, target: str, place: Place, options: Copied, columns: Sql) -> Written:
    """Write the rows into a new folder of partitions, and put it in the place of the one at the target."""
    known = {fold(name) for name in rows.columns}
    missing = [name for name in options.partition_by if fold(name) not in known]
    if missing or len(known) == len(options.partition_by):
        problem = (
            f"the query gives no column {', '.join(missing)}"
            if missing
            else "no column would be left to write"
        )
        raise BadOption(f"partition_by: {problem}; it gives {', '.join(rows.columns)}", option="partition_by")
    path = folder_of(target, place, options.packed_as(target))
    copied = sql(
        "{options}, PARTITION_BY {names}",
        options=options.copy_options(target),
        names=_names(options.partition_by),
    )
    try:
        with beside(path) as folder:
            part = folder / path.name
            count = rows.copy_to(part, copied, columns)
            size = partitions.synced(part)
            failpoint("in_export")
            partitions.put(part, path)
    except OSError as error:
        raise ExportFailed(
            f"{path}: {error.strerror or error}; the folder that was there is untouched"
        ) from error
    return Written(rows=count, bytes=size, target=str(path))


def _is_partitioned(folder: Path) -> bool:
    return all("=" in entry.name and entry.is_dir() for entry in folder.iterdir())


def stored(target: str, place: Place, make: Callable[[Path], int]) -> Written:
    """Have `make` write a file in a hidden folder beside the target; then put it in its place.

    `make` returns the rows written. The file is durable before it is visible. Raises NotAllowed for
    a target outside the project and ExportFailed where it cannot be written; what was at the target
    before is then still there.
    """
    path = file_of(target, place)
    try:
        with beside(path) as folder:
            part = folder / path.name
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
    return Written(rows=count, bytes=size, target=str(path))


def file_of(target: str, place: Place) -> Path:
    """Return the path of a file to write. Raises NotAllowed outside the project, BadOption for a folder."""
    path = file_path(target, place)
    if path.is_dir():
        raise _is_folder(target)
    return path


def file_path(target: str, place: Place) -> Path:
    """Return the path of a file to write, whatever is there. Raises NotAllowed and BadOption as `file_of` does."""
    if target.endswith("/"):
        raise _is_folder(target)
    return written(place, target)


def _is_folder(target: str) -> BadOption:
    return BadOption(f"the target {target!r} is a folder; name a file in it, or set `partition_by`")


def folder_of(target: str, place: Place, kind: str) -> Path:
    """Return the path of a folder of partitions to write, whose files are compressed by `kind`.

    Raises NotAllowed outside the project, BadOption for what may not be replaced.
    """
    path = _folder_path(target, place, kind)
    if path.exists() and not path.is_dir():
        raise BadOption(f"the target {target!r} is a file, and `partition_by` writes a folder; name another")
    if path.is_dir() and not _is_partitioned(path):
        raise BadOption(
            f"the target {target!r} is a folder with other things than partitions in it, which would be removed; "
            "name a folder of its own"
        )
    return path


def _folder_path(target: str, place: Place, kind: str) -> Path:
    if kind not in pack.NATIVE:
        raise BadOption(f"partition_by: files of partitions are written as none, gzip or zstd, not as {kind}")
    return written(place, target)


def _native(kind: str) -> str:
    """What COPY is told: what it does not write, we pack afterwards."""
    return kind if kind in pack.NATIVE else "none"


def copy_options(form: str, given: Mapping[str, Sql | None]) -> Sql:
    """Return COPY's options for a format, those that are None left out."""
    pairs = [sql("FORMAT {form}", form=quote(form))]
    pairs += [Sql(f"{name} {value}") for name, value in given.items() if value is not None]
    return join(", ", pairs)


def _names(columns: tuple[str, ...]) -> Sql:
    return sql("({names})", names=join(", ", (quote(name) for name in columns)))
