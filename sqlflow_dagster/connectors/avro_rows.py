"""An Avro file → a Parquet file of the same rows, every block checked."""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlflow_dagster.errors import BadOption, SourceFailed
from sqlflow_dagster.sql import fold

# Rows that are in memory at one time.
_BATCH = 10_000
_PLAIN = {
    "null": "null", "boolean": "bool_", "int": "int32", "long": "int64", "float": "float32", "double": "float64",
    "bytes": "binary", "string": "string",
}  # fmt: skip
_INSTANTS = {"timestamp-millis": "ms", "timestamp-micros": "us", "timestamp-nanos": "ns"}
_LOCAL = {f"local-{name}": unit for name, unit in _INSTANTS.items()}
_BROKEN = (
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    OverflowError,
    OSError,
    struct.error,
    zlib.error,
    lzma.LZMAError,
)


def as_parquet(name: str, source: Path, target: Path, left_out: Collection[str]) -> None:
    """Write the rows of an Avro file as Parquet; `name` is the file's name, for people.

    Raises SourceFailed for a broken file, and for fields that no column can hold and that are not in
    `left_out` (names in lower case).
    """
    import pyarrow as pa  # noqa: PLC0415 - slow to import
    import pyarrow.parquet as pq  # noqa: PLC0415 - as above

    library = fastavro()
    try:
        with source.open("rb") as stream:
            blocks = library.block_reader(stream)
            written = blocks.writer_schema
            kinds = _columns(name, written, left_out)
            schema = library.parse_schema(_without_times(written))
            shape = pa.schema([(field, kind or pa.string()) for field, kind in kinds.items()])
            with pq.ParquetWriter(target, shape, compression="snappy") as writer:
                for rows in _batches(library.schemaless_reader, blocks, schema):
                    columns = [
                        pa.array([row[field] for row in rows], kind)
                        if kind
                        else pa.nulls(len(rows), pa.string())
                        for field, kind in kinds.items()
                    ]
                    writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=shape))
    except _BROKEN as error:
        text = str(error) or type(error).__name__
        raise SourceFailed(f"{name}: it is no whole Avro file ({text}); have it sent again") from error


def _batches(read: Any, blocks: Any, schema: Any) -> Iterator[list[Mapping[str, Any]]]:
    rows: list[Mapping[str, Any]] = []
    for block in blocks:
        for _ in range(block.num_records):
            rows.append(read(block.bytes_, schema))
            if len(rows) == _BATCH:
                yield rows
                rows = []
        if block.bytes_.read(1):
            raise ValueError("a block holds more than its records")
    if rows:
        yield rows


def _columns(name: str, schema: Any, left_out: Collection[str]) -> dict[str, Any]:
    """The Arrow type of each field; None for one that has none and is left out."""
    if not isinstance(schema, Mapping) or schema.get("type") not in ("record", "error"):
        raise SourceFailed(f"{name}: it holds no records, and so no rows; such a file cannot be a table")
    named: dict[str, Any] = {}
    found = {}
    for field in schema["fields"]:
        try:
            found[field["name"]] = _kind(field["type"], named, (schema["name"],))
        except TypeError as error:
            if fold(field["name"]) not in left_out:
                raise SourceFailed(
                    f"{name}: the field {field['name']!r} {error}; name it in `exclude_columns`"
                ) from None
            found[field["name"]] = None
    return found


def _kind(schema: Any, named: dict[str, Any], inside: tuple[str, ...]) -> Any:  # noqa: C901, PLR0911 - one for each kind
    """The Arrow type of a schema. Raises TypeError where there is none."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    if isinstance(schema, list):
        kinds = [kind for kind in schema if kind != "null"]
        if len(kinds) > 1:
            raise TypeError("may be one of several types")
        return _kind(kinds[0] if kinds else "null", named, inside)
    if isinstance(schema, str):
        if schema in inside:
            raise TypeError("contains itself")
        return getattr(pa, _PLAIN[schema])() if schema in _PLAIN else named[schema]
    if (logical := _logical(schema)) is not None:
        return _named(schema, named, logical)
    match schema["type"]:
        case "record" | "error":
            if not schema["fields"]:
                raise TypeError("is or holds a record without fields")
            within = (*inside, schema["name"])
            fields = [(field["name"], _kind(field["type"], named, within)) for field in schema["fields"]]
            return _named(schema, named, pa.struct(fields))
        case "array":
            return pa.list_(_kind(schema["items"], named, inside))
        case "map":
            return pa.map_(pa.string(), _kind(schema["values"], named, inside))
        case "enum":
            return _named(schema, named, pa.string())
        case "fixed":
            return _named(schema, named, pa.binary(schema["size"]))
    return _kind(schema["type"], named, inside)


def _logical(schema: Mapping[str, Any]) -> Any:  # noqa: PLR0911 - one for each kind
    """The Arrow type of a logical type; None for what is none, or none that has a type of its own."""
    import pyarrow as pa  # noqa: PLC0415 - as above

    match schema.get("logicalType"):
        case "decimal":
            if schema["precision"] > 38:
                raise TypeError(f"has decimals of {schema['precision']} digits, and DuckDB holds 38")
            return pa.decimal128(schema["precision"], schema.get("scale", 0))
        case name if name in _INSTANTS:
            return pa.timestamp(_INSTANTS[name], "UTC")
        case name if name in _LOCAL:
            return pa.timestamp(_LOCAL[name])
        case "date":
            return pa.date32()
        case "time-millis":
            return pa.time32("ms")
        case "time-micros":
            return pa.time64("us")
    return None


def _named(schema: Mapping[str, Any], named: dict[str, Any], kind: Any) -> Any:
    if "name" in schema:
        named[schema["name"]] = kind
    return kind


def _without_times(schema: Any) -> Any:
    """The schema under which times are the numbers that they are stored as: Python's have less range."""
    if isinstance(schema, list):
        return [_without_times(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    kept = {key: value for key, value in schema.items() if not key.startswith("__")}
    if kept.get("logicalType") != "decimal":
        kept.pop("logicalType", None)
    for key in ("type", "items", "values"):
        if key in kept:
            kept[key] = _without_times(kept[key])
    if "fields" in kept:
        kept["fields"] = [{**field, "type": _without_times(field["type"])} for field in kept["fields"]]
    return kept


def fastavro() -> Any:
    """Return the library that reads and writes Avro. Raises BadOption where it is not installed."""
    try:
        import fastavro  # noqa: PLC0415 - slow, and only Avro needs it
    except ImportError as error:
        raise BadOption("AVRO needs fastavro: pip install 'sqlflow-dagster[avro]'", option="type") from error
    return fastavro
