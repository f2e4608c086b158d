r"""CSV files: one, a glob, a directory, hive partitions, compressed or not.

::

    SOURCE orders TYPE CSV PARAMS {
      "path": "data/orders/*.csv",
      "types": {"amount": "DECIMAL(12,2)"},
      "sync_mode": "incremental",
      "primary_key": "id"
    };

Delimiter and types are found out once over all files; numbers with leading zeros stay text and
amounts are DECIMAL (guess.py has the rule). Where rows are added to a table, its columns of text
take values as they stand, whatever they look like. Nothing between two delimiters is NULL, `""` is
an empty text. A value that its column's type cannot hold exactly is an error that names the file and
the line, or with `bad_rows: quarantine` (the default under `schema_policy: permissive`) its row is
set aside in `_sqlflow.quarantine` with the reason, the file, the line and its text.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Annotated, ClassVar, Literal, TypeVar

from pydantic import BeforeValidator, Field

from sqlflow_dagster.connectors import casts, csv_bad_rows, csv_width, exact_nested, parameters, spool
from sqlflow_dagster.connectors.base import Rejects
from sqlflow_dagster.connectors.csv_errors import Explainer
from sqlflow_dagster.connectors.file_options import FileOptions
from sqlflow_dagster.connectors.files import (
    PATH,
    PROVENANCE,
    Files,
    Readable,
    Selected,
    options_sql,
    partition_sql,
    partition_types,
    struct_sql,
)
from sqlflow_dagster.connectors.paths import File
from sqlflow_dagster.connectors.sink import CsvSinkOptions, WritesFiles
from sqlflow_dagster.connectors.sniff import Form, Sample, Sniffed, sniff
from sqlflow_dagster.errors import SourceFailed
from sqlflow_dagster.sql import Sql, fold, join, literal, quote, sql

_WIDE = 200
# DuckDB would take sixteen of the longest lines, and every thread has several: as fast, and more memory.
_PIECE = 4_000_000
_BAD_ROWS = {
    "fail": "error", "raise": "error", "strict": "error", "skip": "quarantine", "ignore": "quarantine",
    "permissive": "quarantine", "warn": "quarantine", True: "quarantine", False: "error",
}  # fmt: skip


class CsvOptions(FileOptions):
    """How the text of the files is written."""

    aliases: ClassVar[Mapping[str, str]] = {
        "sep": "delimiter", "separator": "delimiter", "delim": "delimiter", "field_delimiter": "delimiter",
        "has_header": "header", "quote_char": "quote", "quotechar": "quote",
        "escape_char": "escape", "escapechar": "escape", "nullstr": "null_values", "na_values": "null_values",
        "null_value": "null_values", "null_string": "null_values", "null_sequence": "null_values",
        "null_if": "null_values",
        "dateformat": "date_format", "timestampformat": "timestamp_format",
        "datetime_format": "timestamp_format", "skip": "skip_rows", "skiprows": "skip_rows",
        "skip_before": "skip_rows", "skip_rows_before_header": "skip_rows",
        "decimal": "decimal_separator", "names": "column_names",
        "on_error": "bad_rows", "ignore_errors": "bad_rows", "max_line_size": "max_line_bytes",
    }  # fmt: skip
    idle: ClassVar[Mapping[str, str]] = {
        "combine_files": "it is not needed here, the files of a source are one table",
        "engine": "it is not needed here, DuckDB reads the files",
        "newlines_in_values": "it is not needed here, line breaks inside quotes are read",
    }

    delimiter: Annotated[str | None, BeforeValidator(parameters.delimiter)] = Field(
        None, min_length=1, max_length=4, description="Between two values; found out among `,` tab `;` `|`."
    )
    header: Annotated[bool | None, BeforeValidator(parameters.header)] = Field(
        None,
        description="Whether the first line names the columns; true, and refused where it looks like data.",
    )
    quote: str = Field('"', max_length=1, description="Around values that hold a delimiter; empty for none.")
    escape: str = Field(
        "", max_length=1, description="Before a quote inside quotes; doubled quotes by default."
    )
    comment: str = Field("", max_length=1, description="Lines that begin with it are skipped.")
    encoding: Annotated[str, BeforeValidator(parameters.encoding)] = Field(
        "utf-8", description="Of the text: any that Python knows, such as `utf-16`, `latin-1`, `cp1252`."
    )
    null_values: Annotated[tuple[str, ...], BeforeValidator(parameters.texts)] = Field(
        (), description="Texts that mean NULL, beside nothing at all."
    )
    allow_quoted_nulls: bool = Field(False, description='Whether `""` is NULL instead of an empty text.')
    date_format: Annotated[tuple[str, ...], BeforeValidator(parameters.texts)] = Field(
        (), description="strptime patterns of the columns that `types` says are DATE, e.g. `%d.%m.%Y`."
    )
    timestamp_format: Annotated[tuple[str, ...], BeforeValidator(parameters.texts)] = Field(
        (), description="strptime patterns of the columns that `types` says are TIMESTAMP."
    )
    skip_rows: int = Field(0, ge=0, description="Lines before the header.")
    decimal_separator: Literal[".", ","] = Field(
        ".", description="`,` for numbers written 1.234,50 in the columns that `types` says are numbers."
    )
    column_names: Annotated[tuple[str, ...], BeforeValidator(parameters.names)] = Field(
        (), description="Names of the columns, instead of the header's."
    )
    bad_rows: Annotated[
        Literal["error", "quarantine"] | None,
        BeforeValidator(lambda value: _BAD_ROWS.get(parameters.lower(value), value)),
    ] = Field(None, description="A row that cannot be read is an `error`, or set aside in `quarantine`.")
    combine_files: bool = Field(True, description="A name of the first SQLFlow; all files are one table.")
    engine: str | None = Field(None, description="A name of the first SQLFlow; DuckDB reads the files.")
    null_padding: bool = Field(
        False,
        description="Whether a line with too few values ends in NULLs, and one may end with delimiters.",
    )
    max_line_bytes: int = Field(
        2_000_000,
        ge=1000,
        le=2**30,
        description="Longest line; DuckDB reads in pieces of 4 MB, or of twice this.",
    )

    @property
    def quarantines(self) -> bool:
        """Whether rows that cannot be read, or do not fit, are set aside."""
        return super().quarantines or self.bad_rows == "quarantine"

    @property
    def rejects(self) -> bool:
        """Whether rows that cannot be read are set aside, instead of the read failing."""
        return self.quarantines if self.bad_rows is None else self.bad_rows == "quarantine"


C = TypeVar("C", bound=CsvOptions)


class ReadsCsv(Files[C]):
    """Files of delimited text."""

    reads_once = True

    def select(self, files: Sequence[Readable], kept: Mapping[str, str]) -> Selected | None:
        options = self.options
        sniffed = sniff(
            [(item.file, _as_stored(item, options)) for item in files],
            self._form(),
            options.types,
            strict=options.schema_policy == "strict",
        )
        folders = partition_types([item.file for item in files], options.hive_partitioning, options.types)
        if not any(sample.names for sample in sniffed.samples):
            return None
        _check_names(sniffed.samples)
        _check_keys(sniffed.samples, folders, options.primary_key)
        folders = {key: self._as_kept(kind, kept.get(fold(key))) for key, kind in folders.items()}
        types = self._types(sniffed, folders, kept)
        types = {name: self._as_kept(kind, kept.get(fold(name))) for name, kind in types.items()}
        by_file = {sample.file: sample for sample in sniffed.samples}
        checks = [
            self._width(item, by_file[item.file], sniffed.delimiter) for item in files if item.file in by_file
        ]
        groups = groupby(
            (item for item in files if item.file in by_file and by_file[item.file].names),
            # Told the wrong end of lines, DuckDB reads no row and says nothing.
            key=lambda item: (*_form_of(by_file[item.file]), *item.place),
        )
        selects = []
        for _key, group in groups:
            alike = list(group)
            selects.append(self._select(alike, by_file[alike[0].file], sniffed, types, folders))
        explain = Explainer(tuple(item.file for item in files), {item.file.name: item for item in files})
        return Selected(
            join(" UNION ALL BY NAME ", selects),
            explain=explain.explain,
            rejects=self._rejects(files, sniffed) if options.rejects else None,
            checks=tuple(check for check in checks if check),
            in_pieces=True,
        )

    def _is_misread(self, file: File) -> bool:
        """Whether a quoted name of several lines follows the mark: DuckDB, which skips the header, sees no quote."""
        with spool.opened(file, "none") as stream:
            if stream.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
                return False
            line = re.split(rb"[\r\n]", stream.read(2**16), maxsplit=1)[0]
        return bool(self.options.quote) and line.count(self.options.quote.encode()) % 2 == 1

    def _width(self, item: Readable, sample: Sample, delimiter: str) -> Iterator[object] | None:
        """What finds a line whose values stand in other columns; of a pipe, it is done while it is written."""
        options = self.options
        # Where texts end is told by counting quotes.
        if options.null_padding or not (options.quote + options.escape).isascii():
            return None
        lines = csv_width.Lines(
            item.file.name,
            delimiter,
            options.quote,
            options.escape,
            options.comment,
            len(sample.names),
            sample.skip,
        )
        if lines.ends_all(sample.rows):
            return None
        if item.pipe is None:
            return lines.of(item.path)
        item.pipe.pieces = partial(lines.checked, item.pipe.pieces)
        return None

    def _rejects(self, files: Sequence[Readable], sniffed: Sniffed) -> Rejects:
        form = replace(self._form(), delimiter=sniffed.delimiter, header=sniffed.header)
        names = {sample.file.name: sample.names for sample in sniffed.samples}
        finder = csv_bad_rows.Finder(files, form, names, self._hidden)
        return Rejects(csv_bad_rows.COLUMN, finder.found, finder.unread)

    def _form(self) -> Form:
        options = self.options
        return Form(
            delimiter=options.delimiter,
            quote=options.quote,
            escape=options.escape,
            comment=options.comment,
            header=options.header,
            skip_rows=options.skip_rows,
            null_values=options.null_values,
            names=options.column_names,
            encoding=options.encoding,
        )

    def _types(self, sniffed: Sniffed, folders: Mapping[str, str], kept: Mapping[str, str]) -> dict[str, str]:
        """The type of every column, the declared ones as declared; they must be there, or have been."""
        known = {} if self.options.schema_policy == "strict" else kept
        names = {fold(name): name for sample in sniffed.samples for name in sample.names}
        names |= {fold(name): name for name in folders}
        types = dict(sniffed.types)
        for name, kind in self.options.types.items():
            if fold(name) not in names and fold(name) in known:
                continue
            if fold(name) not in names:
                raise SourceFailed(
                    f"`types` has the column {name!r}, and the files have {', '.join(names.values())}"
                )
            types[names[fold(name)]] = kind
        return types

    def _as_kept(self, kind: str, kept: str | None) -> str:
        """The type for a column that looks like `kind` and is `kept` in the table.

        A bad value makes a column look like text; where bad rows are set aside, it stays what it was.
        """
        if kept in ("VARCHAR", "JSON"):
            return "VARCHAR"
        scalar = "TIMESTAMPTZ" if kept == "TIMESTAMP WITH TIME ZONE" else kept
        if scalar and kind == "VARCHAR" and self.options.quarantines and casts.is_scalar(scalar):
            return scalar
        return kind

    def _select(
        self,
        files: Sequence[Readable],
        sample: Sample,
        sniffed: Sniffed,
        types: Mapping[str, str],
        folders: Mapping[str, str],
    ) -> Sql:
        name = files[0].name_sql
        columns = self._columns(sample.names, types, name)
        selected = [sql("{value} AS {name}", value=item.value, name=quote(item.name)) for item in columns]
        taken = {fold(column) for column in sample.names}
        given = {fold(column) for column in self.options.types}
        selected += [
            sql(
                "{value} AS {name}",
                value=partition_sql(name, key, kind, guessed=fold(key) not in given),
                name=quote(key),
            )
            for key, kind in folders.items()
            if fold(key) not in taken
        ]
        if self.options.row_provenance:
            selected.append(sql("{name} AS {provenance}", name=name, provenance=quote(PROVENANCE)))
        if self.options.rejects:
            bad = csv_bad_rows.bad_sql(columns, sample.names, name, self._hidden)
            selected.append(sql("{bad} AS {column}", bad=bad, column=quote(csv_bad_rows.COLUMN)))
        helpers = [item.helper for item in columns if item.helper]
        return sql(
            "SELECT {columns} FROM (SELECT {all} FROM read_csv([{files}], {options}))",
            columns=join(", ", selected),
            all=join(", ", [Sql("*"), *helpers]),
            files=join(", ", (item.pattern for item in files)),
            options=self._options(sample, sniffed),
        )

    def _columns(
        self, names: Sequence[str], types: Mapping[str, str], where: Sql
    ) -> list[csv_bad_rows.Column]:
        """Each column's value, and what is computed once for it, below the SELECT."""
        options = self.options
        declared = {fold(column) for column in options.types}
        own = {fold(column): kind for column, kind in types.items()}
        comma = options.decimal_separator == ","
        found = []
        for number, column in enumerate(names):
            if column == PROVENANCE:
                continue
            kind = own[fold(column)]
            formats = {"DATE": options.date_format, "TIMESTAMP": options.timestamp_format}.get(kind, ())
            convert = partial(
                casts.converted,
                column,
                kind,
                guessed=fold(column) not in declared,
                where=where,
                formats=formats,
                decimal_comma=comma,
                wide=len(names) > _WIDE,
                raising=not options.rejects,
            )
            alias = quote(f"_sqlflow_tried_{number}")
            exact = exact_nested.from_text(column, kind, where) if exact_nested.is_nested(kind) else None
            if options.rejects:
                tried = sql("TRY({exact})", exact=exact) if exact else convert()
                once = None if casts.is_text(kind) else tried
                value = alias if once else quote(column)
            elif exact:
                once, value = None, exact
            else:
                once = casts.attempt(column, kind, decimal_comma=comma)
                value = convert(tried=alias if once else None)
            helper = sql("{once} AS {alias}", once=once, alias=alias) if once else None
            found.append(csv_bad_rows.Column(column, kind, value, helper))
        return found

    @property
    def _hidden(self) -> frozenset[str]:
        """The columns whose values are stored nowhere."""
        return frozenset(fold(name) for name in (*self.options.mask, *self.options.exclude_columns))

    def _options(
        self,
        sample: Sample,
        sniffed: Sniffed,
    ) -> Sql:
        options = self.options
        columns = dict.fromkeys(sample.names, "VARCHAR")
        nulls = join(", ", map(literal, dict.fromkeys(["", *options.null_values])))
        given: dict[str, Sql | None] = {
            "auto_detect": literal(False),
            "header": literal(sniffed.header),
            "skip": literal(sample.skip),
            "delim": literal(sniffed.delimiter),
            "quote": literal(options.quote),
            "escape": literal(options.escape or options.quote),
            "comment": literal(options.comment) if options.comment else None,
            # It would take the first line break of all, be it in a name, and read no row of lines that end otherwise.
            "new_line": literal(_escaped(sample.ending)) if sample.ending else None,
            "columns": struct_sql(columns),
            "nullstr": sql("[{nulls}]", nulls=nulls),
            "allow_quoted_nulls": literal(options.allow_quoted_nulls),
            "null_padding": literal(True) if options.null_padding else None,
            "compression": literal("none"),
            "filename": literal(PATH),
            "hive_partitioning": literal(False),
            "max_line_size": literal(options.max_line_bytes),
            "buffer_size": literal(max(_PIECE, 2 * options.max_line_bytes)),
        }
        if options.rejects:
            # Lines that are no rows, e.g. of too many values.
            given |= {
                "store_rejects": literal(True),
                "rejects_table": literal("_sqlflow_rejects"),
                "rejects_scan": literal("_sqlflow_reject_scans"),
            }
        return options_sql(given)


class Csv(WritesFiles, ReadsCsv[CsvOptions]):
    """CSV files of one form."""

    sink_options_type = CsvSinkOptions
    options_type = CsvOptions
    suffixes = (".csv", ".txt")


def _form_of(sample: Sample) -> tuple[object, ...]:
    """What files must share to be read by one call."""
    return sample.names, sample.ending, sample.skip


def _escaped(ending: str) -> str:
    return ending.replace("\r", "\\r").replace("\n", "\\n")


def _check_names(samples: Sequence[Sample]) -> None:
    """Refuse names that we give to columns of our own while we read."""
    for sample in samples:
        for name in sample.names:
            if fold(name).startswith("_sqlflow_") and name != PROVENANCE:
                raise SourceFailed(
                    f"{sample.file.name}: the column {name!r} has a name that is kept for SQLFlow's own; "
                    "give the columns other names in `column_names`"
                )


def _check_keys(samples: Sequence[Sample], folders: Iterable[str], keys: Sequence[str]) -> None:
    """Refuse a file without the key that others have: of its rows, which would all have one key, one would stay."""
    above = {fold(name) for name in folders}
    known = {fold(name) for sample in samples for name in sample.names} | above
    for sample in samples:
        own = {fold(name) for name in sample.names} | above
        missing = [key for key in keys if fold(key) in known - own]
        if missing and sample.rows:
            has = ", ".join(sample.names)
            raise SourceFailed(
                f"{sample.file.name}: it has no column {missing[0]!r}, which is the key; it has {has}"
            )


def _as_stored(item: Readable, options: CsvOptions) -> str:
    """The compression in which the listed file itself stands, which is what the sniffer opens."""
    from sqlflow_dagster.connectors.spool import compression  # noqa: PLC0415 - one name of many

    return compression(item.file, options.compression)
