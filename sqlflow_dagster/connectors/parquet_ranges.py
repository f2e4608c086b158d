"""The footer of a Parquet file and the columns that are wanted → the bytes that a reader of these needs.

Left out are whole column chunks, and nothing else: what lies between chunks (bloom filters, indexes) is kept.
In their place a sparse file has zeros, of which no reader makes values: a page's header is never zero.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from sqlflow_dagster.sql import fold

if TYPE_CHECKING:
    from pyarrow.parquet import FileMetaData

MAGIC = b"PAR1"
# Smaller holes cost more as a request than as bytes.
_LEAST_HOLE = 2**20
Ranges = list[tuple[int, int]]
_Chunk = tuple[int, int, bool]


def without(path: Path, wanted: Collection[str] | None, unwanted: Collection[str]) -> Ranges | None:
    """Return the ranges of bytes that hold the columns `wanted` (None for all) but for `unwanted`.

    `path` is a file of the object's size that has at least its footer. Names are folded. None where the
    file is to be read whole: nothing is left out, or its footer leaves a doubt.
    """
    import pyarrow as pa  # noqa: PLC0415 - slow, and only who leaves columns out needs it
    from pyarrow import parquet  # noqa: PLC0415 - as above

    try:
        footer = parquet.read_metadata(path)
        names = footer.schema.to_arrow_schema().names
    except (pa.ArrowException, OSError):
        return None
    folded = [fold(name) for name in names]
    if len(set(folded)) < len(folded):
        return None
    left_out = {
        name for name in names if fold(name) in unwanted or (wanted is not None and fold(name) not in wanted)
    }
    chunks = _chunks(footer, names, left_out)
    return _around(chunks, path.stat().st_size) if chunks else None


def _chunks(footer: FileMetaData, names: Iterable[str], left_out: Collection[str]) -> list[_Chunk] | None:
    """Where each chunk lies, in order, and whether it is left out; None where they overlap or lie elsewhere."""
    found = []
    owners: dict[str, bool] = {}
    for group in range(footer.num_row_groups):
        row_group = footer.row_group(group)
        for number in range(footer.num_columns):
            chunk = row_group.column(number)
            path = chunk.path_in_schema
            if path not in owners:
                # A name with a dot may look like a field of a struct: then both are asked for.
                tops = [name for name in names if path == name or path.startswith(f"{name}.")]
                owners[path] = bool(tops) and all(name in left_out for name in tops)
            starts = [chunk.data_page_offset]
            starts += [chunk.dictionary_page_offset] if chunk.has_dictionary_page else []
            if chunk.file_path or not all(starts):
                return None
            found.append((min(starts), min(starts) + chunk.total_compressed_size, owners[path]))
    found.sort()
    if any(later[0] < earlier[1] for earlier, later in pairwise(found)):
        return None
    return found


def _around(chunks: Iterable[_Chunk], size: int) -> Ranges:
    """The ranges outside the holes: runs of chunks that touch each other and are left out."""
    holes: Ranges = []
    for start, end, left_out in chunks:
        if left_out and holes and holes[-1][1] == start:
            holes[-1] = (holes[-1][0], end)
        elif left_out:
            holes.append((start, end))
    kept: Ranges = []
    at = 0
    for start, end in holes:
        if end - start < _LEAST_HOLE:
            continue
        if start > at:
            kept.append((at, start))
        at = end
    if at < size:
        kept.append((at, size))
    return kept
