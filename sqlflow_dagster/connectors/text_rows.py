"""Rows of texts → a spooled CSV file in which NULL is not an empty text, and the SQL that reads it.

Each line begins with the row's number, for messages. Types come afterwards, by casts that are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sqlflow_dagster.connectors.files import struct_sql
from sqlflow_dagster.sql import Sql, literal, quote, sql

_ROW = "_sqlflow_row"
_LEAST_LINE = 2_000_000


def line(number: int, texts: Sequence[str | None]) -> str:
    """Return the line of a row; it may have fewer texts than the table has columns."""
    quoted = ("" if text is None else '"' + text.replace('"', '""') + '"' for text in texts)
    return f"{number},{','.join(quoted)}\n"


def read_sql(path: Path, columns: Sequence[str | None], longest: int) -> Sql:
    """Return the table expression of a file whose longest line has `longest` characters.

    Its columns are text; those without a name are not to be asked for.
    """
    names = [name or f"{_ROW}_{place}" for place, name in enumerate(columns)]
    return sql(
        "read_csv({path}, auto_detect = false, header = false, delim = ',', quote = '\"', escape = '\"',"
        " new_line = '\\n', columns = {columns}, null_padding = true, parallel = false,"
        " allow_quoted_nulls = false, max_line_size = {longest})",
        path=literal(str(path)),
        columns=struct_sql({_ROW: "BIGINT", **dict.fromkeys(names, "VARCHAR")}),
        longest=literal(max(_LEAST_LINE, 4 * longest + 1024)),
    )


def where_sql(label: str) -> Sql:
    """Return the text that names a row in messages: `label, row 7`."""
    return sql("concat({label}, ', row ', {row})", label=literal(label), row=quote(_ROW))
