"""Schemas of several Parquet files → whether DuckDB can bring them together without changing a value.

DuckDB makes a DOUBLE of BIGINT and DOUBLE, which rounds, 1 of true, and instants of naive times.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence

from sqlflow_dagster.connectors import nested
from sqlflow_dagster.connectors.base import Ask
from sqlflow_dagster.connectors.files import Readable
from sqlflow_dagster.errors import SourceFailed
from sqlflow_dagster.sql import fold, join, sql

log = logging.getLogger(__name__)

_SMALL = frozenset({"TINYINT", "SMALLINT", "INTEGER", "UTINYINT", "USMALLINT", "UINTEGER"})
_WHOLE = _SMALL | {"BIGINT", "UBIGINT", "HUGEINT"}
_NAIVE = frozenset({"DATE", "TIMESTAMP", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS"})
_TOGETHER = (
    _WHOLE,
    _SMALL | {"DOUBLE"},
    frozenset({"TINYINT", "SMALLINT", "UTINYINT", "USMALLINT", "FLOAT", "DOUBLE"}),
    _NAIVE,
    frozenset({"BLOB"}),
)
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_DIGITS = {
    "TINYINT": 3,
    "SMALLINT": 5,
    "INTEGER": 10,
    "UTINYINT": 3,
    "USMALLINT": 5,
    "UINTEGER": 10,
    "BIGINT": 19,
}


def of(ask: Ask, files: Sequence[Readable]) -> Mapping[Readable, str]:
    """Return a text for each file that is the same where the schemas are."""
    found = ask(
        sql(
            "SELECT file_name, md5(CAST(list([name, type, converted_type, logical_type, CAST(scale AS VARCHAR),"
            ' CAST("precision" AS VARCHAR), CAST(num_children AS VARCHAR)]) AS VARCHAR))'
            " FROM parquet_schema([{files}]) GROUP BY file_name",
            files=join(", ", (item.pattern for item in files)),
        )
    )
    by_path = {str(path): str(schema) for path, schema in found}
    return {item: by_path[str(item.path)] for item in files}


def check_digits(ask: Ask, files: Sequence[Readable], left_out: set[str]) -> None:
    """Raise SourceFailed for decimals of more than 38 digits, which DuckDB makes doubles of.

    Nanoseconds of a time of day are cut to microseconds, which is said in the log.
    """
    found = ask(
        sql(
            'SELECT file_name, name, coalesce("precision", 0) FROM parquet_schema([{files}])'
            " WHERE \"precision\" > 38 OR (logical_type LIKE 'TimeType%' AND logical_type LIKE '%NanoSeconds%')",
            files=join(", ", (item.pattern for item in files)),
        )
    )
    names = {str(item.path): item.file.name for item in files}
    for path, column, digits in found:
        if fold(str(column)) in left_out:
            continue
        if digits > 38:
            raise SourceFailed(
                f"{names.get(path, path)}: the column {column!r} has decimals of {digits} digits, and DuckDB holds 38; "
                "have them written as text or with fewer digits, or name the column in `exclude_columns`"
            )
        log.warning("%s: times of day in %r are cut to microseconds", names.get(path, path), column)


def check(ask: Ask, schemas: Mapping[Readable, str], declared: set[str], keys: set[str]) -> None:
    """Raise SourceFailed where a column that is not in `declared` has types that change each other's values.

    So too where a file has not one of the `keys` that others have: of its rows, which would all have one key, one
    would stay.
    """
    seen: dict[tuple[str, str], dict[str, str]] = {}
    columns: dict[str, set[str]] = {}
    for item in {schema: item for item, schema in schemas.items()}.values():
        rows = ask(sql("DESCRIBE FROM read_parquet({file})", file=item.pattern))
        columns[item.file.name] = {fold(str(row[0])) for row in rows}
        for name, kind in ((str(row[0]), str(row[1])) for row in rows):
            if fold(name) in declared:
                continue
            for leaf in nested.leaves(nested.parsed(kind)):
                seen.setdefault((name, fold(leaf.path)), {}).setdefault(leaf.kind, item.file.name)
    for file, own in columns.items():
        missing = (keys & set().union(*columns.values())) - own
        if missing:
            raise SourceFailed(f"{file}: it has no column {min(missing)!r}, which is the key")
    for (name, _path), kinds in seen.items():
        if not _agree(set(kinds)):
            where = ", ".join(f"{kind} in {file}" for kind, file in sorted(kinds.items()))
            raise SourceFailed(
                f"the column {name!r} is {where}, and no type holds both as they are; declare in `types` what it is "
                "to be, or read the files by SOURCEs of their own"
            )


def _agree(kinds: set[str]) -> bool:
    if len(kinds) == 1 or "VARCHAR" in kinds or any(kinds <= family for family in _TOGETHER):
        return True
    sizes = [_size(kind) for kind in kinds]
    known = [size for size in sizes if size]
    return len(known) == len(sizes) and max(w for w, _ in known) + max(f for _, f in known) <= 38


def _size(kind: str) -> tuple[int, int] | None:
    """Digits before and after the point, None for what is no exact number."""
    if found := _DECIMAL.fullmatch(kind):
        return int(found[1]) - int(found[2]), int(found[2])
    return (_DIGITS[kind], 0) if kind in _DIGITS else None
