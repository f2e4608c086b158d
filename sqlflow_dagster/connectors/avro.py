"""Avro files: one, a glob, a directory, hive partitions; exports. Types are those of the files' schemas.

::

    SOURCE clicks TYPE AVRO PARAMS {"path": "data/clicks/*.avro"};

Records become rows; an instant (`timestamp-millis` and the like) is TIMESTAMP WITH TIME ZONE, a local one
TIMESTAMP, a decimal DECIMAL, an enum text. A field that may be one of several types besides null, or that
contains itself, has no column type: leave it out by `exclude_columns`.

An EXPORT holds every value as it is: HUGEINT and UBIGINT as decimals, UUID as `uuid`, structs as records, maps
with keys of text, each of them or null. What Avro has no exact type for, such as INTERVAL or nanoseconds, and
names with other letters than a to z, digits and `_` are refused.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from pydantic import BaseModel

from sqlflow_dagster.connectors import avro_rows, spool
from sqlflow_dagster.connectors.avro_sink import AvroSinkOptions, check_target, check_words, write
from sqlflow_dagster.connectors.base import Health, Place, Rows, Written
from sqlflow_dagster.connectors.file_options import FileOptions
from sqlflow_dagster.connectors.files import Readable
from sqlflow_dagster.connectors.parquet import ReadsParquet
from sqlflow_dagster.connectors.paths import File
from sqlflow_dagster.sql import fold


class AvroOptions(FileOptions):
    """Avro's parameters."""


class Avro(ReadsParquet[AvroOptions]):
    """Avro files."""

    sink_options_type = AvroSinkOptions
    options_type = AvroOptions
    suffixes = (".avro",)

    @classmethod
    def write(cls, rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
        return write(rows, target, options, place)

    @classmethod
    def check_words(cls, target: str, options: BaseModel, place: Place) -> None:
        del options
        check_words(target, place)

    @classmethod
    def check_target(cls, target: str, options: BaseModel, place: Place) -> Health:
        del options
        return check_target(target, place)

    def _readable(self, file: File, folder: Path, open_: ExitStack) -> Readable:
        """The file as Parquet in the spool: DuckDB's own reader takes a cut file for a whole one."""
        item = super()._readable(file, folder, open_)
        path = spool.unpacked(file, folder)
        part = path.with_name(f"{path.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        left_out = {fold(name) for name in self.options.exclude_columns}
        avro_rows.as_parquet(file.name, item.path, part, left_out)
        part.replace(path)
        return Readable(file, path, len(str(path)) - len(file.tail), file.lead)
