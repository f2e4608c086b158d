"""TSV files: CSV files whose delimiter is the tab.

::

    SOURCE orders TYPE TSV PARAMS {"path": "data/orders.tsv"};
"""

from __future__ import annotations

from pydantic import Field

from sqlflow_dagster.connectors.csv import CsvOptions, ReadsCsv
from sqlflow_dagster.connectors.sink import TsvSinkOptions, WritesFiles


class TsvOptions(CsvOptions):
    """CSV's parameters; values are parted by tabs."""

    delimiter: str | None = Field("\t", min_length=1, max_length=4, description="Between two values.")


class Tsv(WritesFiles, ReadsCsv[TsvOptions]):
    """TSV files of one form."""

    sink_options_type = TsvSinkOptions
    options_type = TsvOptions
    suffixes = (".tsv", ".tab")
