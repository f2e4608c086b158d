"""A relation → the kind of table that a Python function takes, and what it answers → Arrow."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duckdb import DuckDBPyConnection

from sqlflow_dagster.errors import QueryFailed
from sqlflow_dagster.sql import Sql
from sqlflow_dagster.warehouse.scalar import is_arrow

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

_BATCH_ROWS = 65_536


@contextmanager
def opened(connection: DuckDBPyConnection, relation: Sql, hint: Any) -> Iterator[Any]:
    """The relation's rows in the kind that the hint asks for."""
    result = connection.execute(relation)
    name = hint.rpartition(".")[2] if isinstance(hint, str) else getattr(hint, "__name__", "")
    if name == "RecordBatchReader":
        # Left open and undrained, a reader would hang the next connection.
        with result.to_arrow_reader(_BATCH_ROWS) as reader:
            yield reader
        return
    table = result.to_arrow_table()
    yield table if is_arrow(hint) else _dataframe(table)


def _dataframe(table: pa.Table) -> pd.DataFrame:
    """A DataFrame that keeps whole numbers whole beside NULLs, and dates as datetimes.

    Decimals are floats, with which pandas calculates, where a float tells every value of the column.
    """
    try:
        import pandas as pd  # noqa: PLC0415 - heavy, and only such functions need it
    except ModuleNotFoundError as error:
        raise QueryFailed(
            "the function takes a pandas DataFrame, and pandas is not installed: "
            "pip install 'sqlflow-dagster[pandas]', or hint its first parameter as pyarrow.Table"
        ) from error
    import pyarrow as pa  # noqa: PLC0415

    nullable = {
        pa.int8(): pd.Int8Dtype(),
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.uint8(): pd.UInt8Dtype(),
        pa.uint16(): pd.UInt16Dtype(),
        pa.uint32(): pd.UInt32Dtype(),
        pa.uint64(): pd.UInt64Dtype(),
    }
    columns = [_float(_whole(column)) for column in table.columns]
    frame: pd.DataFrame = pa.table(columns, names=table.column_names).to_pandas(date_as_object=False)
    for index, column in enumerate(columns):
        if column.null_count and column.type in nullable:
            frame.isetitem(index, column.to_pandas(types_mapper=nullable.get))
    return frame


def _whole(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Sums are HUGEINT, which Arrow knows only as decimals: whole numbers where they fit."""
    import pyarrow as pa  # noqa: PLC0415

    if column.type != pa.decimal128(38, 0):
        return column
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid:
        return column


def _float(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A decimal column as floats, if each of them reads back as the decimal that it was."""
    import pyarrow as pa  # noqa: PLC0415

    if not pa.types.is_decimal(column.type):
        return column
    floats = column.cast(pa.float64())
    try:
        exact = floats.cast(column.type).equals(column)
    except pa.ArrowInvalid:
        return column
    return floats if exact else column


def to_arrow(result: Any, shown: str) -> Any:
    """The function's answer as a pyarrow Table or RecordBatchReader."""
    import pyarrow as pa  # noqa: PLC0415

    if isinstance(result, pa.Table | pa.RecordBatchReader):
        return result
    if isinstance(result, pa.RecordBatch):
        return pa.Table.from_batches([result])
    if type(result).__module__.startswith("pandas") and hasattr(result, "columns"):
        return _from_pandas(result, shown)
    if hasattr(result, "__arrow_c_stream__"):
        return pa.RecordBatchReader.from_stream(result)
    raise QueryFailed(
        f"PYTHON_FUNC({shown!r}) returned {type(result).__name__}; a DataFrame, a pyarrow Table or a "
        "RecordBatchReader is a table"
    )


def _from_pandas(frame: pd.DataFrame, shown: str) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415

    named = [n for n in frame.index.names if n is not None and n not in frame.columns]
    if named:
        # What groupby() puts into the index are columns to SQL.
        frame = frame.reset_index(level=named)
    frame = frame.rename(columns=str)
    twice = sorted({str(c) for c in frame.columns[frame.columns.duplicated()]})
    if twice:
        raise QueryFailed(f"PYTHON_FUNC({shown!r}) returned the column {', '.join(twice)} more than once")
    return pa.Table.from_pandas(frame, preserve_index=False)


def spooled(connection: DuckDBPyConnection, result: Any) -> Any:
    """Read a lazy answer to its end while its question is open, keeping it in a file, not in memory."""
    import pyarrow as pa  # noqa: PLC0415

    if not isinstance(result, pa.RecordBatchReader):
        return result
    with connection.cursor() as cursor:
        row = cursor.execute("SELECT current_setting('temp_directory')").fetchone()
    folder = Path(row[0]) if row and row[0] else None
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".arrow") as file:
        with pa.ipc.new_file(file, result.schema) as writer:
            for batch in result:
                writer.write_batch(batch)
        file.flush()
        # The mapping outlives the file's name.
        return pa.ipc.open_file(pa.memory_map(file.name)).read_all()
