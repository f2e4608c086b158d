"""Avro files: one, a glob, a directory, hive partitions. Types are those of the files' schemas.

::

    SOURCE clicks TYPE AVRO PARAMS {"path": "data/clicks/*.avro"};

Records become rows; an instant (`timestamp-millis` and the like) is TIMESTAMP WITH TIME ZONE, a local one
TIMESTAMP, a decimal DECIMAL, an enum text. A field that may be one of several types besides null, or that
contains itself, has no column type: leave it out by `exclude_columns`.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from sqlflow_dagster.connectors import avro_rows, spool
from sqlflow_dagster.connectors.file_options import FileOptions
from sqlflow_dagster.connectors.files import Readable
from sqlflow_dagster.connectors.parquet import ReadsParquet
from sqlflow_dagster.connectors.paths import File


class AvroOptions(FileOptions):
    """Avro's parameters."""


class Avro(ReadsParquet[AvroOptions]):
    """Avro files."""

    options_type = AvroOptions
    suffixes = (".avro",)

    def _readable(self, file: File, folder: Path, open_: ExitStack) -> Readable:
        """The file as Parquet in the spool: DuckDB's own reader takes a cut file for a whole one."""
        item = super()._readable(file, folder, open_)
        path = spool.unpacked(file, folder)
        part = path.with_name(f"{path.name}.part")
        part.parent.mkdir(parents=True, exist_ok=True)
        left_out = {name.casefold() for name in self.options.exclude_columns}
        avro_rows.as_parquet(file.name, item.path, part, left_out)
        part.replace(path)
        return Readable(file, path, len(str(path)) - len(file.tail), file.lead)
