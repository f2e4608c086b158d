"""Rows of an EXPORT → one Avro file: every value under the type that holds it as it is, or a refusal.

DECIMAL, HUGEINT and UBIGINT are the logical type `decimal`, TIMESTAMP `local-timestamp-micros`, TIMESTAMP
WITH TIME ZONE `timestamp-micros`, UUID `uuid`; structs are records, lists arrays, and each value may be null.
Rows are written batch by batch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import BaseModel, BeforeValidator, Field

from sqlflow_dagster.connectors import local_target, nested, pack
from sqlflow_dagster.connectors.avro_rows import fastavro
from sqlflow_dagster.connectors.base import Health, Place, Rows, Written
from sqlflow_dagster.connectors.file_options import compression_name
from sqlflow_dagster.connectors.sink import FileSinkOptions, copy_options, file_of, file_path, stored
from sqlflow_dagster.errors import BadOption, ExportFailed
from sqlflow_dagster.sql import Sql, join, literal, quote, sql

_BATCH = 10_000
_CODECS = {"none": "null", "zstd": "zstandard"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_PLAIN = {
    "BOOLEAN": "boolean", "TINYINT": "int", "SMALLINT": "int", "INTEGER": "int", "UTINYINT": "int", "USMALLINT": "int",
    "UINTEGER": "long", "BIGINT": "long", "FLOAT": "float", "DOUBLE": "double", "VARCHAR": "string", "JSON": "string",
    "BLOB": "bytes",
}  # fmt: skip
_LOGICAL = {
    "DATE": ("int", "date"), "TIME": ("long", "time-micros"), "UUID": ("string", "uuid"),
    "TIMESTAMP": ("long", "local-timestamp-micros"), "TIMESTAMP WITH TIME ZONE": ("long", "timestamp-micros"),
}  # fmt: skip
# What DuckDB makes of a value before it is written, where its own type is not one of Avro.
_CAST = {
    "UBIGINT": "DECIMAL(20,0)", "HUGEINT": "DECIMAL(38,0)", "UHUGEINT": "DECIMAL(38,0)", "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
}  # fmt: skip
_INSTEAD = {
    "TIMESTAMP_NS": "CAST({} AS TIMESTAMP), which cuts nanoseconds, or AS VARCHAR",
    "TIME_NS": "CAST({} AS TIME), which cuts nanoseconds, or AS VARCHAR",
}
_PARQUET = copy_options("parquet", {"COMPRESSION": literal("snappy")})


def _codec(value: Any) -> Any:
    name = compression_name(value)
    return _CODECS.get(name, name) if isinstance(name, str) else name


class AvroSinkOptions(FileSinkOptions):
    """How an exported Avro file is written."""

    refused: ClassVar[Mapping[str, str]] = {
        "partition_by": "AVRO is written as one file; export CSV or PARQUET where you need partitions"
    }

    compression: Annotated[
        Literal["null", "deflate", "snappy", "zstandard"] | None, BeforeValidator(_codec)
    ] = Field(
        None,
        description="Of the blocks: `deflate`, which every reader knows, `null`, `snappy` or `zstandard`.",
    )


def write(rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
    """Store all rows in the file `target`, or leave what is there.

    Raises BadOption for a target that says another compression, ExportFailed for columns that Avro cannot
    hold exactly, and what `stored` raises.
    """
    codec = cast("AvroSinkOptions", options).compression or "deflate"
    _check(target)
    library = fastavro()
    schema = _schema(rows.columns)

    def make(path: Path) -> int:
        plain = path.with_name(f"{path.name}.plain")
        try:
            written = rows.copy_to(plain, _PARQUET, _selected(rows.columns))
            with path.open("wb") as file:
                library.writer(file, library.parse_schema(schema), _records(plain, schema), codec=codec)
        except ValueError as error:
            raise ExportFailed(f"{target}: {error}") from error
        finally:
            plain.unlink(missing_ok=True)
        return written

    return stored(target, place, make)


def check_words(target: str, place: Place) -> None:
    """Raise BadOption or NotAllowed for a target that no file can have."""
    _check(target)
    file_path(target, place)


def check_target(target: str, place: Place) -> Health:
    """Return whether the file may be written."""
    _check(target)
    return local_target.health(file_of(target, place))


def _check(target: str) -> None:
    if pack.named(target) != "none":
        raise BadOption(
            f"the target {target!r}: Avro is compressed inside; end it with .avro, and set `compression`"
        )


def _schema(columns: Mapping[str, str]) -> dict[str, Any]:
    """The schema of the records. Raises ExportFailed for what Avro cannot hold as it is."""
    fields = {}
    for name, kind in columns.items():
        try:
            fields[name] = nested.parsed(kind)
        except ValueError as error:
            raise ExportFailed(f"the column {name!r}: {error}; CAST it to VARCHAR") from error
    return _record(fields, count())


def _record(fields: Mapping[str, nested.Type], numbers: Iterator[int]) -> dict[str, Any]:
    """A record; `numbers` makes its name, which no other may have."""
    number = next(numbers)
    made = []
    for name, kind in fields.items():
        if not _NAME.fullmatch(name):
            fit = re.sub(r"[^A-Za-z0-9_]", "_", name)
            raise ExportFailed(
                f"{name!r} is no name that Avro allows, which has letters, digits and _ alone; write AS "
                f"{fit if _NAME.fullmatch(fit) else '_' + fit}"
            )
        made.append({"name": name, "type": _field(name, kind, numbers), "default": None})
    return {"type": "record", "name": "rows" if number == 0 else f"record_{number}", "fields": made}


def _field(column: str, kind: nested.Type, numbers: Iterator[int]) -> list[Any]:
    match kind:
        case nested.Struct(fields):
            return ["null", _record(fields, numbers)]
        case nested.Items(item):
            return ["null", {"type": "array", "items": _field(column, item, numbers)}]
        case nested.Map(value, key):
            if key != "VARCHAR":
                raise ExportFailed(
                    f"the column {column!r}: the keys of an Avro map are text, and these are {key}; CAST them to "
                    "VARCHAR"
                )
            return ["null", {"type": "map", "values": _field(column, value, numbers)}]
        case _:
            return ["null", _leaf(column, kind)]


def _leaf(column: str, kind: str) -> Any:
    made = _made(kind)
    if made in _PLAIN:
        return _PLAIN[made]
    if made in _LOGICAL:
        stored_as, logical = _LOGICAL[made]
        return {"type": stored_as, "logicalType": logical}
    if found := _DECIMAL.fullmatch(made):
        return {"type": "bytes", "logicalType": "decimal", "precision": int(found[1]), "scale": int(found[2])}
    instead = _INSTEAD.get(kind, "CAST({} AS VARCHAR)").format(quote(column))
    raise ExportFailed(f"the column {column!r} is {kind}, which Avro cannot hold as it is; write {instead}")


def _made(kind: str) -> str:
    return "VARCHAR" if kind.startswith("ENUM(") else _CAST.get(kind, kind)


def _selected(columns: Mapping[str, str]) -> Sql:
    """The SELECT list under which Parquet has the values that Avro stores."""
    casts = []
    for name, kind in columns.items():
        kept = nested.name_of(nested.changed(nested.parsed(kind), _carried))
        if kept != kind:
            casts.append(sql("CAST({name} AS {kind}) AS {name}", name=quote(name), kind=Sql(kept)))
    return sql("* REPLACE ({casts})", casts=join(", ", casts)) if casts else Sql("*")


def _carried(leaf: nested.Leaf) -> str:
    made = _made(leaf.kind)
    return "VARCHAR" if made in ("UUID", "JSON") else made


def _records(path: Path, schema: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The rows of a Parquet file, times as the numbers that Avro stores: Python's have less range."""
    import pyarrow.parquet as pq  # noqa: PLC0415 - slow to import

    fills = [(field["name"], _fill(field["type"])) for field in schema["fields"]]
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH):
            columns = [column.cast(_raw(column.type)).to_pylist() for column in batch.columns]
            for values in zip(*columns, strict=True):
                yield {name: fill(value) for (name, fill), value in zip(fills, values, strict=True)}


def _raw(kind: Any) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - as above

    if pa.types.is_timestamp(kind) or pa.types.is_time64(kind):
        return pa.int64()
    if pa.types.is_date32(kind):
        return pa.int32()
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_raw(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, _raw(kind.item_type))
    return pa.list_(_raw(kind.value_type)) if pa.types.is_list(kind) else kind


def _fill(kind: Any) -> Callable[[Any], Any]:
    """What makes of a value from Arrow the one for Avro: maps are pairs there."""
    inner = kind[1]
    if not isinstance(inner, dict) or not _has_map(inner):
        return lambda value: value
    if inner["type"] == "record":
        fills = {field["name"]: _fill(field["type"]) for field in inner["fields"]}
        return lambda value: value and {name: fill(value[name]) for name, fill in fills.items()}
    fill = _fill(inner["items"] if inner["type"] == "array" else inner["values"])
    if inner["type"] == "array":
        return lambda value: value and [fill(item) for item in value]
    return lambda value: None if value is None else {key: fill(item) for key, item in value}


def _has_map(kind: Any) -> bool:
    if isinstance(kind, list):
        return any(map(_has_map, kind))
    if not isinstance(kind, dict):
        return False
    inside = (kind.get("items"), *(field["type"] for field in kind.get("fields", ())))
    return kind["type"] == "map" or any(map(_has_map, inside))
