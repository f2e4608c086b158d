"""JSONL files: one JSON object a line.

::

    SOURCE events TYPE JSONL PARAMS {"path": "data/events/*.jsonl"};
"""

from __future__ import annotations

from sqlflow_dagster.connectors.json import LinesOptions, ReadsJson
from sqlflow_dagster.connectors.sink import JsonlSinkOptions, WritesJson


class JsonlOptions(LinesOptions):
    """JSONL's parameters."""


class Jsonl(WritesJson, ReadsJson[JsonlOptions]):
    """JSONL files."""

    sink_options_type = JsonlSinkOptions
    options_type = JsonlOptions
    suffixes = (".jsonl", ".ndjson", ".json")
    layout = "newline_delimited"
