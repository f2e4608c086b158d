"""JSON files: an array of objects, objects one after the other, or objects below a `data_path`.

::

    SOURCE orders TYPE JSON PARAMS {"path": "data/orders.json", "data_path": "data.items"};

Types are found out over every record of all files, so that a field which only the last record has
is a column too. Numbers with decimals are DOUBLE, as JSON has them; declare `types` for money.
Deeper than 20 levels a value stays JSON. Text is never taken for a number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, TypeVar

from pydantic import BeforeValidator, Field

from sqlflow_dagster.connectors import parameters
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
from sqlflow_dagster.connectors.sink import JsonSinkOptions, WritesFiles
from sqlflow_dagster.connectors.spool import compression, opened
from sqlflow_dagster.errors import SourceFailed
from sqlflow_dagster.sql import Sql, join, literal, quote, sql

_LARGEST_OBJECT = 16 * 2**20
_HEAD = 64 * 2**10


class LinesOptions(FileOptions):
    """How the records stand in the files."""

    max_object_bytes: int = Field(_LARGEST_OBJECT, ge=1024, le=2**32 - 1, description="Largest record.")
    date_format: str | None = Field(None, description="strptime pattern of dates; ISO 8601 by default.")
    timestamp_format: str | None = Field(None, description="strptime pattern of times; ISO 8601 by default.")


class JsonOptions(LinesOptions):
    """JSON's parameters."""

    data_path: Annotated[str | None, BeforeValidator(parameters.path)] = Field(
        None, description="Where in each file the records are: `data.items`."
    )


L = TypeVar("L", bound=LinesOptions)


class ReadsJson(Files[L]):
    """Files of JSON objects."""

    layout: ClassVar[str] = "auto"

    def select(self, files: Sequence[Readable]) -> Selected | None:
        options = self.options
        filled = [item for item in files if _has_records(item, options)]
        if not filled:
            return None
        folders = partition_types([item.file for item in filled], options.hive_partitioning, options.types)
        query = join(
            " UNION ALL BY NAME ",
            (
                whole_sql(self._read(group, folders), group, folders, provenance=options.row_provenance)
                for group in by_place(filled)
            ),
        )
        return Selected(typed_sql(query, options.types), explain=named(filled))

    def _read(self, files: Sequence[Readable], folders: dict[str, str]) -> Sql:
        options = self.options
        path = getattr(options, "data_path", None)
        largest = max(item.file.size for item in files) + 1024 if path else 0
        given = {
            "format": literal("auto" if path else self.layout),
            "records": literal(True),
            "sample_size": literal(-1),
            "maximum_sample_files": literal(2**31 - 1),
            "maximum_depth": literal(20),
            "maximum_object_size": literal(max(options.max_object_bytes, largest)),
            "union_by_name": literal(True),
            "compression": literal("none" if files[0].compression == "none" else "auto"),
            "filename": literal(PATH),
            "hive_partitioning": literal(bool(folders)),
            "hive_types": struct_sql(folders) if folders else None,
            "dateformat": literal(options.date_format) if options.date_format else None,
            "timestampformat": literal(options.timestamp_format) if options.timestamp_format else None,
        }
        read = sql(
            "read_json([{files}], {options})",
            files=join(", ", (item.pattern for item in files)),
            options=options_sql(given),
        )
        if not path:
            return read
        return sql(
            "(SELECT unnest(_sqlflow_row), {kept} FROM (SELECT unnest({path}) AS _sqlflow_row, {kept} FROM {read}))",
            kept=join(", ", map(quote, [PATH, *folders])),
            path=_place_of(path),
            read=read,
        )


class Json(WritesFiles, ReadsJson[JsonOptions]):
    """JSON files."""

    sink_options_type = JsonSinkOptions
    options_type = JsonOptions
    suffixes = (".json",)


def _place_of(path: str) -> Sql:
    parts = path.removeprefix("$").strip(".").replace("[*]", "").split(".")
    return quote(*parts)


def _has_records(item: Readable, options: LinesOptions) -> bool:
    """Whether the file holds any record. Raises SourceFailed where it is no file of objects."""
    with opened(item.file, compression(item.file, options.compression)) as stream:
        head = stream.read(_HEAD).removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        return False
    if head[:1] == b"[":
        inner = head[1:].lstrip()
        if inner[:1] == b"]":
            return False
        if inner[:1] in (b"{", b""):
            return True
    if head[:1] == b"{":
        return True
    raise SourceFailed(f"{item.file.name}: it begins with {head[:20]!r}, which is no JSON object")
