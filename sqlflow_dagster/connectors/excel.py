"""Excel workbooks (.xlsx, .xlsm): a sheet, a range of it, a table, or what a name stands for.

::

    SOURCE plan TYPE EXCEL PARAMS {
      "path": "data/plan.xlsx",
      "sheet": "2024",
      "range": "A3:F200",
      "types": {"amount": "DECIMAL(12,2)"}
    };

A column's type is that of its cells, over all rows and files: whole numbers BIGINT, others DOUBLE
(Excel has no exact decimals; declare `types` for money), dates DATE or TIMESTAMP, values of several
kinds text. Formulas give the value that was stored with them; one without a value is an error. Of
merged cells the first has the value, the others are NULL. Rows without any value are left out.
Writing makes a workbook of one sheet; what a cell cannot hold exactly is written as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, Field

from sqlflow_dagster.connectors import (
    casts,
    local_target,
    parameters,
    sheet_table,
    text_rows,
    workbook,
    workbook_names,
    worksheet,
)
from sqlflow_dagster.connectors.base import Health, Place, Rows, Written
from sqlflow_dagster.connectors.excel_sink import ExcelSinkOptions, workbook_path, write_workbook
from sqlflow_dagster.connectors.file_options import FileOptions
from sqlflow_dagster.connectors.files import (
    PROVENANCE,
    Files,
    Readable,
    Selected,
    named,
    partition_types,
)
from sqlflow_dagster.connectors.sheet_table import Reading, Table, Values
from sqlflow_dagster.connectors.sink import file_of
from sqlflow_dagster.connectors.spool import Caps
from sqlflow_dagster.errors import SourceFailed
from sqlflow_dagster.sql import Sql, fold, join, literal, quote, sql


def _range(value: Any) -> Any:
    if isinstance(value, str):
        sheet_table.area(value)
    return value


class ExcelOptions(FileOptions):
    """Which cells are read."""

    aliases: ClassVar[Mapping[str, str]] = {
        "sheet_name": "sheet", "worksheet": "sheet", "has_header": "header", "skip": "skip_rows",
        "skiprows": "skip_rows", "names": "column_names", "table_name": "table", "named_range": "table",
    }  # fmt: skip

    sheet: str | int | None = Field(
        None, description="The sheet's name, or its place from 0 on; the first one by default."
    )
    range: Annotated[str | None, BeforeValidator(_range)] = Field(
        None, description="Cells, e.g. `A3:F200`, `B:D` or `A3:F`; the whole sheet by default."
    )
    table: str | None = Field(
        None,
        min_length=1,
        description="A table of the workbook, or a range that it gives a name, in place of both.",
    )
    header: Annotated[bool | None, BeforeValidator(parameters.header)] = Field(
        None,
        description="Whether the first row that holds a value names the columns; true, and refused where it looks "
        "like data.",
    )
    skip_rows: int = Field(0, ge=0, description="Rows of the sheet or range before the header.")
    column_names: Annotated[tuple[str, ...], BeforeValidator(parameters.names)] = Field(
        (), description="Names of the columns, instead of the header's."
    )
    cell_errors: Literal["error", "null"] = Field(
        "error", description="Whether cells such as #REF! fail the read, or are NULL."
    )

    def problems(self) -> list[str]:
        if isinstance(self.sheet, int) and self.sheet < 0:
            return ["sheet: a sheet's place counts from 0"]
        if self.table and (self.sheet is not None or self.range):
            return ["table: it says the sheet and the range itself; leave them out"]
        return super().problems()


class Excel(Files[ExcelOptions]):
    """Excel workbooks."""

    options_type = ExcelOptions
    sink_options_type = ExcelSinkOptions
    suffixes = (".xlsx", ".xlsm")
    # Each file is copied to the spool, where its rows are then written beside it.
    copies = True

    def select(self, files: Sequence[Readable], kept: Mapping[str, str]) -> Selected | None:
        tables = [(item, self._table(item)) for item in files]
        tables = [(item, table) for item, table in tables if table.columns]
        if not tables:
            return None
        folders = partition_types(
            [item.file for item, _ in tables], self.options.hive_partitioning, self.options.types
        )
        types = self._types([table for _, table in tables], folders)
        types |= {name: kind for name, kind in kept.items() if name in types and kind == "VARCHAR"}
        selects = [self._select(item, table, types, folders) for item, table in tables]
        return Selected(join(" UNION ALL BY NAME ", selects), explain=named(files))

    def _table(self, item: Readable) -> Table:
        options = self.options
        reading = Reading(
            area=sheet_table.area(options.range) if options.range else sheet_table.Area(),
            header=options.header,
            skip_rows=options.skip_rows,
            names=options.column_names,
            null_errors=options.cell_errors == "null",
            strict=options.schema_policy == "strict",
        )
        caps = Caps(options.max_uncompressed_bytes, options.max_compression_ratio)
        with workbook.opened(item.file, item.path, caps) as book:
            sheet = options.sheet
            if options.table:
                found = workbook_names.find(book, options.table)
                sheet, reading = found.sheet, _of_table(reading, found)
            rows = worksheet.rows(book, sheet)
            return sheet_table.write(item.file.name, rows, reading, _csv_of(item))

    def _types(self, tables: Sequence[Table], folders: Mapping[str, str]) -> dict[str, str]:
        """The type of each column by its folded name; the declared ones must be there."""
        seen: dict[str, Values] = {}
        for table in tables:
            for name, place in table.columns.items():
                seen.setdefault(fold(name), Values()).join(table.values[place])
        types = {name: values.type for name, values in seen.items()}
        types |= {fold(name): kind for name, kind in folders.items()}
        for name, kind in self.options.types.items():
            if fold(name) not in types:
                raise SourceFailed(
                    f"`types` has the column {name!r}, and the sheet has {', '.join(tables[0].columns)}"
                )
            types[fold(name)] = kind
        return types

    def _select(
        self, item: Readable, table: Table, types: Mapping[str, str], folders: Mapping[str, str]
    ) -> Sql:
        declared = {fold(name) for name in self.options.types}
        row = text_rows.where_sql(item.file.name)
        above = {fold(name) for name in folders}
        values = [
            sql(
                "{value} AS {name}",
                value=_value(name, types[fold(name)], row, guessed=fold(name) not in declared),
                name=quote(name),
            )
            for name in table.columns
            if fold(name) not in above
        ]
        values += [
            sql(
                "CAST({value} AS {kind}) AS {name}",
                value=literal(item.file.partitions.get(name)),
                kind=Sql(kind),
                name=quote(name),
            )
            for name, kind in folders.items()
        ]
        if self.options.row_provenance:
            values.append(sql("{file} AS {name}", file=literal(item.file.name), name=quote(PROVENANCE)))
        return sql("SELECT {values} FROM {rows}", values=join(", ", values), rows=_read(_csv_of(item), table))

    @classmethod
    def write(cls, rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
        """Store all rows in the workbook `target`, or leave what is there."""
        return write_workbook(rows, target, options, place)

    @classmethod
    def check_words(cls, target: str, options: BaseModel, place: Place) -> None:
        workbook_path(target, options, place)

    @classmethod
    def check_target(cls, target: str, options: BaseModel, place: Place) -> Health:
        workbook_path(target, options, place)
        return local_target.health(file_of(target, place))


def _of_table(reading: Reading, named: workbook_names.Named) -> Reading:
    """Return how the cells of a name are read: a table says itself whether it has a header."""
    header, names = reading.header, reading.names
    if named.is_table and header is None:
        header = not named.names
        names = names or named.names
    return replace(reading, area=named.area, header=header, names=names)


def _value(name: str, kind: str, row: Sql, *, guessed: bool) -> Sql:
    if kind == "DOUBLE" and guessed:
        # The texts are those of numbers, with all of their digits.
        return sql("CAST(nullif({name}, '') AS DOUBLE)", name=quote(name))
    return casts.converted(name, kind, guessed=guessed, where=row)


def _csv_of(item: Readable) -> Path:
    return item.path.with_name(f"{item.path.name}.csv")


def _read(path: Path, table: Table) -> Sql:
    names = {place: name for name, place in table.columns.items()}
    return text_rows.read_sql(path, [names.get(place) for place in range(table.width)], table.longest_line)
