"""JSON files: an array of objects, objects one after the other, or objects below a `data_path`.

::

    SOURCE orders TYPE JSON PARAMS {"path": "data/orders.json", "data_path": "data.items"};

Types are found out over every record of all files, so that a field which only the last record has
is a column too. Whole numbers are BIGINT, others DOUBLE, and DECIMAL where a double would lose
digits; declare `types` for money. Text is never taken for a number; at the top of a record it is a
date or a time where every value is one in ISO 8601. A field of mixed types stays JSON, and so does
what lies deeper than 20 levels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, ClassVar, TypeVar

from pydantic import BeforeValidator, Field

from sqlflow_dagster.connectors import parameters
from sqlflow_dagster.connectors.base import Ask
from sqlflow_dagster.connectors.file_options import FileOptions
from sqlflow_dagster.connectors.files import Files, Readable, Selected, named
from sqlflow_dagster.connectors.json_records import Form, Records
from sqlflow_dagster.connectors.sink import JsonSinkOptions, WritesJson
from sqlflow_dagster.errors import SourceFailed
from sqlflow_dagster.sql import Sql

_LARGEST_OBJECT = 16 * 2**20
_MALFORMED = re.compile(
    r'Malformed JSON in file "(?P<file>[^"]*)", at byte (?P<byte>\d+) in (?P<unit>line|record/value) (?P<number>\d+): '
    r"(?P<what>[^\n.]*)"
)
_TWICE = re.compile(r'Duplicate name (".*?") in struct')
_HEAD = 64 * 2**10
_NEXT = re.compile(rb"\}\s*\{")


# What other tools call the place of the records.
PATHS = dict.fromkeys(
    ("records_path", "record_path", "records_key", "json_path", "data_selector", "field_path"), "data_path"
)


class LinesOptions(FileOptions):
    """How the records stand in the files."""

    max_object_bytes: int = Field(_LARGEST_OBJECT, ge=1024, le=2**32 - 1, description="Largest record.")
    date_format: str | None = Field(None, description="strptime pattern of dates; ISO 8601 by default.")
    timestamp_format: str | None = Field(None, description="strptime pattern of times; ISO 8601 by default.")


class JsonOptions(LinesOptions):
    """JSON's parameters."""

    aliases: ClassVar[Mapping[str, str]] = PATHS

    data_path: Annotated[str | None, BeforeValidator(parameters.path)] = Field(
        None, description="Where in each file the records are: `data.items`."
    )


L = TypeVar("L", bound=LinesOptions)


class ReadsJson(Files[L]):
    """Files of JSON objects."""

    has_no_mark = True
    # What the format says; else each file shows it.
    layout: ClassVar[str | None] = None

    def select(self, files: Sequence[Readable], kept: Mapping[str, str]) -> Selected | None:
        options = self.options
        path = getattr(options, "data_path", None)
        parts = _parts(path) if path else ()
        layouts = {item: None if _has_none(item, parts) else _layout(item) for item in files}
        filled = {item: layout for item, layout in layouts.items() if layout}
        if not filled:
            return None
        if self.layout:
            filled = dict.fromkeys(filled, self.layout)
        largest = max(item.path.stat().st_size for item in filled) + 1024 if parts else 0
        form = Form(
            path=parts,
            largest=max(options.max_object_bytes, largest),
            types=options.types,
            kept={name: kind for name, kind in kept.items() if kind in ("VARCHAR", "JSON")},
            date_format=options.date_format,
            timestamp_format=options.timestamp_format,
            hive=options.hive_partitioning,
            provenance=options.row_provenance,
        )

        def query(ask: Ask) -> Sql:
            return Records(filled, form, ask).query()

        return Selected(query, explain=_explainer(tuple(filled)))


class Json(WritesJson, ReadsJson[JsonOptions]):
    """JSON files."""

    sink_options_type = JsonSinkOptions
    options_type = JsonOptions
    suffixes = (".json",)


def _parts(path: str) -> tuple[str, ...]:
    """The names of a path, also of a JSON path (`$.data.items[*]`) or a JSON pointer (`/data/items`)."""
    if path.startswith("/"):
        return tuple(path.strip("/").split("/"))
    return tuple(part for part in path.removeprefix("$").replace("[*]", "").split(".") if part)


def _explainer(files: Sequence[Readable]) -> Callable[[str], str]:
    with_names = named(files)
    names = ", ".join(item.file.name for item in files[:5])

    def explain(message: str) -> str:
        text = with_names(message)
        if broken := _MALFORMED.search(text):
            # DuckDB counts one too many here.
            number = int(broken["number"]) - 1
            place = f":{number}" if broken["unit"] == "line" else f": record {number}"
            return (
                f"{broken['file']}{place}: malformed JSON at byte {broken['byte']}: {broken['what'].strip()}"
            )
        if "maximum_object_size" in text:
            return f"{text}; raise `max_object_bytes` where a record is that long"
        if twice := _TWICE.search(text):
            return (
                f"{names}: the field {twice[1]} stands twice in one object, in letters that differ only in case, "
                "which DuckDB does not tell apart; have one renamed"
            )
        return text

    return explain


def _has_none(item: Readable, path: tuple[str, ...]) -> bool:
    """Whether the file is one small object with an empty list, or null, at the path: a page without records."""
    if not path or item.path.stat().st_size > _HEAD:
        return False
    try:
        value = json.loads(item.path.read_bytes())
    except (ValueError, RecursionError):
        # DuckDB says what is wrong with it, or reads what is no single document.
        return False
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return False
        value = value[part]
    return value is None or value == []


def _layout(item: Readable) -> str | None:
    """How the records stand in the file; None where there are none.

    Raises SourceFailed where it is no file of objects.
    """
    with item.path.open("rb") as stream:
        head = stream.read(_HEAD)
    whole = len(head) < _HEAD
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise SourceFailed(f"{item.file.name}: it is UTF-16, and JSON is read as UTF-8; have it written so")
    head = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if not head:
        return None
    if head[:1] == b"[":
        inner = head[1:].lstrip()
        if inner[:1] == b"]":
            return None
        if inner[:1] in (b"{", b""):
            return "array"
    if head[:1] == b"{":
        lines = head.split(b"\n") if whole else head.split(b"\n")[:-1]
        return "newline_delimited" if lines and all(map(_is_record, lines)) else "unstructured"
    raise SourceFailed(f"{item.file.name}: it begins with {head[:20]!r}, which is no JSON object")


def _is_record(line: bytes) -> bool:
    """Whether a line may be one record: it looks like an object, and no other one follows in it."""
    line = line.strip()
    if not line or not (line[:1] == b"{" and line[-1:] == b"}"):
        return not line
    if not _NEXT.search(line):
        return True
    text = line.decode("utf-8", "replace")
    try:
        return json.JSONDecoder().raw_decode(text)[1] == len(text)
    except (ValueError, RecursionError):
        # DuckDB says what is wrong with it, or reads it however deep it is.
        return True
