"""Files of JSON objects → a SELECT of typed rows, after asking DuckDB what fields they have.

The fields and their types are asked of every record. Then the files are read with exactly those
types, so that nothing is guessed while rows are read. Where the text has numbers that are too long
for a double, the rows are parsed from text whose numbers stand in quotes (json_numbers.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby

from sqlflow_dagster.connectors import casts, guess, json_numbers, nested
from sqlflow_dagster.connectors.base import Ask
from sqlflow_dagster.connectors.files import (
    PATH,
    PROVENANCE,
    Readable,
    by_place,
    options_sql,
    partition_sql,
    partition_types,
    struct_sql,
)
from sqlflow_dagster.connectors.nested import Leaf, Struct, Type
from sqlflow_dagster.errors import SourceFailed
from sqlflow_dagster.sql import Sql, fold, join, literal, quote, sql

_NEVER = "%%"
_SAMPLE = 500
_MOMENTS = ("DATE", "TIMESTAMP", "TIMESTAMPTZ", "TIMESTAMP_NS")
_CASES = "the fields {} differ only in case, which DuckDB does not tell apart; have one renamed"
_OWN_ROW = "_sqlflow_row"
_ROW = quote(_OWN_ROW)


@dataclass(frozen=True, slots=True)
class Form:
    """How the records stand in the files, and what is asked of them.

    `types` are declared, and a column of theirs that no record has is NULL; `kept` are those that columns, by their
    folded names, have in the table.
    """

    path: tuple[str, ...] = ()
    largest: int = 16 * 2**20
    types: Mapping[str, str] = field(default_factory=dict)
    kept: Mapping[str, str] = field(default_factory=dict)
    date_format: str | None = None
    timestamp_format: str | None = None
    hive: bool | None = None
    provenance: bool = False


@dataclass
class Records:
    """The records of some files, which stand in them in a layout; `ask` runs a query and returns its rows."""

    layouts: Mapping[Readable, str]
    form: Form
    ask: Ask

    def query(self) -> Sql:
        """Return the SELECT of all rows, with `_sqlflow_file` last where that is asked for.

        Raises SourceFailed where the files hold no objects, or not at the path.
        """
        times = self._times()
        folders = partition_types([item.file for item in self.layouts], self.form.hive, self._told)
        selects = (
            sql(
                "SELECT {columns} FROM {rows}",
                columns=join(", ", self._columns(group[0], times, folders)),
                rows=self._rows(group),
            )
            for alike in self._alike()
            for group in by_place(alike)
        )
        return join(" UNION ALL BY NAME ", selects)

    def _alike(self) -> list[list[Readable]]:
        """The files in groups of one layout, which one call can read."""
        groups = groupby(self.layouts, key=self.layouts.__getitem__)
        return [list(files) for _layout, files in groups]

    @cached_property
    def document(self) -> Struct:
        """The fields of what a file's records are, of all files together, as DuckDB finds them."""
        found: Type | None = None
        by_layout: dict[str, list[Readable]] = {layout: [] for layout in self.layouts.values()}
        for item, layout in self.layouts.items():
            by_layout[layout].append(item)
        for files in by_layout.values():
            kind = self._sniffed(files)
            found = kind if found is None else nested.merged(found, kind)
        if not isinstance(found, Struct):
            kind = nested.name_of(found) if found else "nothing"
            raise SourceFailed(f"{self._names}: the records are no JSON objects with fields ({kind[:100]})")
        ours = [name for name in found.fields if fold(name) in (PATH, _OWN_ROW)]
        if ours:
            raise SourceFailed(
                f"{self._names}: the field {ours[0]!r} has a name that is kept for SQLFlow's own"
            )
        folded = [fold(name) for name in found.fields]
        twice = [name for name in found.fields if folded.count(fold(name)) > 1]
        if twice:
            raise SourceFailed(f"{self._names}: {_CASES.format(', '.join(twice))}")
        return found

    def _sniffed(self, files: Sequence[Readable]) -> Type:
        given = {
            "records": literal(False),
            "sample_size": literal(-1),
            "maximum_sample_files": literal(2**31 - 1),
            "maximum_depth": literal(20),
            # Fields that few records have, and many fields, would make a map of an object.
            "field_appearance_threshold": literal(0),
            "map_inference_threshold": literal(-1),
            # Without these, 01-02-2024 would be a date.
            "dateformat": literal(self.form.date_format or _NEVER),
            "timestampformat": literal(self.form.timestamp_format or _NEVER),
        }
        read = self._read("read_json", files, given)
        kind = str(self.ask(sql("DESCRIBE FROM {read}", read=read))[0][1])
        try:
            return nested.parsed(kind)
        except ValueError as error:
            raise SourceFailed(
                f"{self._names}: {error}, which no column can have; have it renamed"
            ) from error

    @cached_property
    def fields(self) -> Mapping[str, Type]:
        """The fields of a row, which stand at the path, with the types that are read."""
        return _at(self.typed, self.form.path, self._names).fields

    @cached_property
    def typed(self) -> Struct:
        """The document with the types in which it is read."""
        root = Leaf("$", "")
        return Struct(
            {
                name: nested.changed(kind, partial(self._kind, column=name), root.field(name))
                for name, kind in self._needed.fields.items()
            }
        )

    @cached_property
    def _needed(self) -> Struct:
        """Of the document what lies on the path."""
        first = self.form.path[:1]
        _at(self.document, self.form.path, self._names)
        needed = {name: kind for name, kind in self.document.fields.items() if not first or name in first}
        return self._undivided(needed, self.form.path)

    def _undivided(self, fields: Mapping[str, Type], path: tuple[str, ...]) -> Struct:
        """The fields, of which those of a row that are to be text or JSON have no parts."""
        found = dict(fields)
        for name, kind in fields.items():
            told = self._told.get(fold(name), "")
            if path and name == path[0]:
                row = kind.item if isinstance(kind, nested.Items) else kind
                inner = self._undivided(row.fields, path[1:]) if isinstance(row, Struct) else row
                found[name] = nested.Items(inner) if isinstance(kind, nested.Items) else inner
            elif not path and (told == "JSON" or (casts.is_text(told) and not isinstance(kind, str))):
                found[name] = "JSON"
        return Struct(found)

    @property
    def _told(self) -> dict[str, str]:
        """The types that are declared or kept, by the columns' folded names."""
        return {**self.form.kept, **{fold(name): kind for name, kind in self.form.types.items()}}

    @cached_property
    def _declared(self) -> Mapping[str, str]:
        """The declared type of columns, under the names that the records have."""
        known = {fold(name): name for name in self._found}
        kept = {known[name]: kind for name, kind in self.form.kept.items() if name in known}
        return kept | {known.get(fold(name), name): kind for name, kind in self.form.types.items()}

    @property
    def _names(self) -> str:
        return ", ".join(item.file.name for item in list(self.layouts)[:5])

    def _is_top(self, leaf: Leaf) -> str | None:
        """The column that a leaf is, None where it is only a part of one."""
        return self._tops.get(leaf.path)

    @cached_property
    def _tops(self) -> Mapping[str, str]:
        place = Leaf("$", "")
        for part in self.form.path:
            place = place.field(part)
        if isinstance(_resolved(self._needed, self.form.path, self._names), nested.Items):
            place = Leaf(f"{place.path}[*]", "", many=True)
        return {place.field(name).path: name for name in self._found}

    @cached_property
    def _found(self) -> Mapping[str, Type]:
        """The fields of a row with the types that DuckDB found."""
        return _at(self._needed, self.form.path, self._names).fields

    def _kind(self, leaf: Leaf, column: str) -> str:
        """The type in which a leaf of a document's field is read: one that changes nothing of its values."""
        top = self._is_top(leaf)
        if top is not None and casts.is_scalar(self._declared.get(top, "")):
            return "VARCHAR"
        if leaf.kind in ("TIME", "UUID", "DATE", "TIMESTAMP"):
            return leaf.kind if self._formats(leaf.kind) and top is None else "VARCHAR"
        if leaf.path in self._digits:
            return "VARCHAR" if column in self._mixed else self._digits[leaf.path].kind
        return leaf.kind

    def _formats(self, kind: str) -> tuple[str, ...]:
        given = {"DATE": self.form.date_format, "TIMESTAMP": self.form.timestamp_format}.get(kind)
        return (given,) if given else ()

    @cached_property
    def _digits(self) -> Mapping[str, json_numbers.Digits]:
        """The leaves that need more digits than a double has."""
        doubles = [leaf for leaf in nested.leaves(self._needed) if leaf.kind == "DOUBLE"]
        if not doubles or not json_numbers.any_inexact(self.ask, self._texts):
            return {}
        return json_numbers.digits(self.ask, self._texts, doubles)

    @cached_property
    def _mixed(self) -> frozenset[str]:
        """The document's fields with values of mixed types, where some have such numbers."""
        found = frozenset(
            name
            for name, kind in self._needed.fields.items()
            if any(leaf.kind == "JSON" for leaf in nested.leaves(kind))
        )
        return found if found and json_numbers.any_inexact_inside(self.ask, self._texts) else frozenset()

    @cached_property
    def _as_text(self) -> bool:
        """Whether numbers are to be read digit by digit: DuckDB's reader would round or rewrite some."""
        texts = {name for name, kind in self._declared.items() if casts.is_text(kind)}
        rewritten = any(
            leaf.kind == "DOUBLE" and self._is_top(leaf) in texts for leaf in nested.leaves(self._needed)
        )
        return bool(self._digits) or bool(self._mixed) or rewritten

    def _times(self) -> Mapping[str, str]:
        """The columns of text that are dates or times throughout, with their types."""
        columns = {
            name: "VARCHAR"
            for name, kind in self.fields.items()
            if kind == "VARCHAR" and self._found[name] == "VARCHAR" and name not in self._declared
        }
        if not columns:
            return {}
        names = join(", ", map(quote, columns))
        rows = self._all_rows()
        some = sql("(SELECT {names} FROM {rows} LIMIT {n})", names=names, rows=rows, n=literal(_SAMPLE))
        sample = self.ask(sql("FROM {some}", some=some))
        values = zip(columns, zip(*sample, strict=True), strict=True) if sample else ()
        likely = {
            name: _MOMENTS
            for name, texts in values
            if guess.type_of(text for text in texts if text is not None) in _MOMENTS
        }
        # What some values refuse, all of them do: of most columns one type is left to be asked for.
        found = self._confirmed(self._confirmed(likely, some), rows)
        return {name: kinds[0] for name, kinds in found.items()}

    def _confirmed(self, likely: Mapping[str, Sequence[str]], rows: Sql) -> dict[str, list[str]]:
        """Which of the types of which columns every value has; columns without one are left out."""
        asked = [(name, kind) for name, kinds in likely.items() for kind in kinds]
        if not asked:
            return {}
        tests = (
            sql("bool_and({column} IS NULL OR {test})", column=quote(name), test=casts.keeps(name, kind))
            for name, kind in asked
        )
        (answers,) = self.ask(sql("SELECT {tests} FROM {rows}", tests=join(", ", tests), rows=rows))
        found: dict[str, list[str]] = {}
        for (name, kind), is_so in zip(asked, answers, strict=True):
            if is_so:
                found.setdefault(name, []).append(kind)
        return found

    def _columns(self, item: Readable, times: Mapping[str, str], folders: Mapping[str, str]) -> Iterable[Sql]:
        where = item.name_sql
        taken = {fold(name) for name in self.fields}
        declared = {fold(name) for name in self.form.types}
        for name in self.fields:
            if name != PROVENANCE:
                yield sql("{value} AS {name}", value=self._value(name, times, where), name=quote(name))
        for name, kind in folders.items():
            if fold(name) not in taken:
                yield sql(
                    "{value} AS {name}",
                    value=partition_sql(where, name, kind, guessed=fold(name) not in declared),
                    name=quote(name),
                )
                taken.add(fold(name))
        for name, kind in self._declared.items():
            if fold(name) not in taken:
                yield sql("CAST(NULL AS {kind}) AS {name}", kind=Sql(kind), name=quote(name))
        if self.form.provenance:
            yield sql("{where} AS {name}", where=where, name=quote(PROVENANCE))

    def _value(self, name: str, times: Mapping[str, str], where: Sql) -> Sql:
        declared, found = self._declared.get(name), self._found[name]
        if declared and not casts.is_scalar(declared):
            return casts.same(name, nested.name_of(self.fields[name]), declared, where)
        kind = declared or (found if isinstance(found, str) and self._formats(found) else None)
        if kind:
            return casts.converted(name, kind, guessed=False, where=where, formats=self._formats(kind))
        if name in times:
            return casts.converted(name, times[name], guessed=True, where=where)
        return quote(name)

    @cached_property
    def _texts(self) -> Sql:
        """The records' own text, as the column `json`."""
        reads = (
            sql("FROM {read}", read=self._read("read_json_objects", files, {})) for files in self._alike()
        )
        return sql("({reads})", reads=join(" UNION ALL ", reads))

    def _all_rows(self) -> Sql:
        rows = (sql("FROM {rows}", rows=self._rows(files)) for files in self._alike())
        return sql("({rows})", rows=join(" UNION ALL BY NAME ", rows))

    def _rows(self, files: Sequence[Readable]) -> Sql:
        """The relation of rows, with the path of each one's file."""
        documents = self._parsed(files) if self._as_text else self._natively(files)
        if not self.form.path:
            return documents
        many = not isinstance(_resolved(self.typed, self.form.path, self._names), Struct)
        value = quote(*self.form.path)
        return sql(
            "(SELECT unnest({row}), {path} FROM (SELECT {value} AS {row}, {path} FROM {documents}))",
            row=_ROW,
            value=sql("unnest({value})", value=value) if many else value,
            path=quote(PATH),
            documents=documents,
        )

    def _natively(self, files: Sequence[Readable]) -> Sql:
        columns = {name: nested.name_of(kind) for name, kind in self.typed.fields.items()}
        given = {
            "records": literal(True),
            "columns": struct_sql(columns),
            "dateformat": literal(self.form.date_format) if self.form.date_format else None,
            "timestampformat": literal(self.form.timestamp_format) if self.form.timestamp_format else None,
        }
        return self._read("read_json", files, given)

    def _parsed(self, files: Sequence[Readable]) -> Sql:
        """The rows, parsed from text whose numbers stand in quotes."""
        # A quoted number in a value of mixed types is no longer told from a text: only long ones are quoted.
        by_text: dict[Sql, dict[str, Type]] = {}
        for name, kind in self.typed.fields.items():
            has_mixed = any(leaf.kind == "JSON" for leaf in nested.leaves(kind))
            plain = json_numbers.long_quoted if name in self._mixed else Sql
            by_text.setdefault(plain(Sql("json")) if has_mixed else json_numbers.quoted(Sql("json")), {})[
                name
            ] = kind
        parts = [
            sql("unnest(from_json({text}, {types}))", text=text, types=literal(_structure(kinds)))
            for text, kinds in by_text.items()
        ]
        texts = self._read("read_json_objects", files, {})
        return sql(
            "(SELECT {parts}, {path} FROM {texts})", parts=join(", ", parts), path=quote(PATH), texts=texts
        )

    def _read(self, function: str, files: Sequence[Readable], given: Mapping[str, Sql | None]) -> Sql:
        options = {
            "format": literal(self.layouts[files[0]]),
            "maximum_object_size": literal(self.form.largest),
            "compression": literal("uncompressed"),
            "hive_partitioning": literal(False),
            "filename": literal(PATH),
            **given,
        }
        return sql(
            "{function}([{files}], {options})",
            function=Sql(function),
            files=join(", ", (item.pattern for item in files)),
            options=options_sql(options),
        )


def _structure(columns: Mapping[str, Type]) -> str:
    return json.dumps({name: nested.name_of(kind) for name, kind in columns.items()}, ensure_ascii=False)


def _resolved(document: Struct, path: tuple[str, ...], names: str) -> Type:
    kind: Type = document
    for part in path:
        fields = kind.fields if isinstance(kind, Struct) else {}
        if part not in fields:
            has = f"there is {', '.join(fields)}" if fields else f"it is {nested.name_of(kind)[:80]}"
            raise SourceFailed(f"{names}: `data_path` has {part!r}, and {has}")
        kind = fields[part]
    return kind


def _at(document: Struct, path: tuple[str, ...], names: str) -> Struct:
    """The fields of a row. Raises SourceFailed where the path leads to no objects."""
    kind = _resolved(document, path, names)
    row = kind.item if isinstance(kind, nested.Items) else kind
    if not isinstance(row, Struct):
        raise SourceFailed(
            f"{names}: `data_path` {'.'.join(path)!r} leads to {nested.name_of(kind)[:80]}, which are no objects"
        )
    return row
