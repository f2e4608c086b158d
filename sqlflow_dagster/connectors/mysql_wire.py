"""A DuckDB column → the type that it has in MySQL, and the expression that writes it there exactly.

Rows go as text, made by DuckDB: as fields of LOAD DATA LOCAL, or as literals of INSERT. What MySQL changes without a
word even in its strict mode (it rounds numbers and times, cuts a time off a date, pads bytes, takes a number that no
`enum` has for a place among its values, and NULL for now) is refused here, before anything is sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from sqlflow_dagster.connectors import json_sink
from sqlflow_dagster.connectors.mysql_types import GEOMETRIES
from sqlflow_dagster.errors import ExportFailed
from sqlflow_dagster.sql import Sql, backquote, join, literal, quote, sql

# What a column's values are to MySQL.
Family = Literal["whole", "decimal", "float", "date", "moment", "time", "text", "bytes", "json", "bits"]

_NEW: Mapping[str, str] = {
    "BOOLEAN": "tinyint(1)", "TINYINT": "tinyint", "SMALLINT": "smallint", "INTEGER": "int", "BIGINT": "bigint",
    "UTINYINT": "tinyint unsigned", "USMALLINT": "smallint unsigned", "UINTEGER": "int unsigned",
    "UBIGINT": "bigint unsigned", "HUGEINT": "decimal(39,0)", "UHUGEINT": "decimal(39,0)", "FLOAT": "float",
    "DOUBLE": "double", "DATE": "date", "TIME": "time(6)", "TIMESTAMP": "datetime(6)", "TIMESTAMP_S": "datetime(6)",
    "TIMESTAMP_MS": "datetime(6)", "TIMESTAMP_NS": "datetime(6)", "TIMESTAMP WITH TIME ZONE": "timestamp(6) null",
    "BLOB": "longblob", "UUID": "char(36)", "JSON": "json",
}  # fmt: skip
_WHOLE = frozenset(
    {"BOOLEAN", "TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT",
     "HUGEINT", "UHUGEINT"}
)  # fmt: skip
_FAMILIES: Mapping[str, Family] = {
    "tinyint": "whole", "smallint": "whole", "mediumint": "whole", "int": "whole", "integer": "whole",
    "bigint": "whole", "year": "whole", "boolean": "whole", "bool": "whole", "bit": "bits", "decimal": "decimal",
    "numeric": "decimal", "float": "float", "double": "float", "real": "float", "date": "date", "datetime": "moment",
    "timestamp": "moment", "time": "time", "binary": "bytes", "varbinary": "bytes", "tinyblob": "bytes",
    "blob": "bytes", "mediumblob": "bytes", "longblob": "bytes", "json": "json",
}  # fmt: skip
# Types that take a number's text as they take the number.
_NUMBERS = frozenset(
    {name for name, family in _FAMILIES.items() if family in ("whole", "decimal", "float")} - {"year"}
)
_TYPE = re.compile(r"([a-z]+\d*)\s*(?:\(\s*(\d+)\s*(?:,\s*(\d+)\s*)?\))?.*", re.DOTALL)
_MEMBER = re.compile(r"'((?:[^'\\]|''|\\.)*)'", re.DOTALL)
_ESCAPES = re.compile(r"''|\\(.)", re.DOTALL)
_DECIMAL = re.compile(r"DECIMAL\((\d+),\s*(\d+)\)")
_NAME_LETTERS = 64


@dataclass(frozen=True, slots=True)
class Target:
    """A type of MySQL's, as it is declared.

    `now` says that it makes the present time of NULL, `counted` that it is AUTO_INCREMENT.
    """

    declared: str
    now: bool = False
    counted: bool = False

    @property
    def _parts(self) -> tuple[str, int | None, int | None]:
        found = _TYPE.fullmatch(self.declared.strip().lower())
        if found is None:
            return self.declared, None, None
        return found[1], int(found[2]) if found[2] else None, int(found[3]) if found[3] else None

    @property
    def name(self) -> str:
        """The type's name without its length."""
        return self._parts[0]

    @property
    def length(self) -> int | None:
        """Digits, letters or bytes, None where it says none."""
        return self._parts[1]

    @property
    def scale(self) -> int:
        """Digits after the point, of a number or a time."""
        return (self._parts[2] if self.family == "decimal" else self._parts[1]) or 0

    @property
    def family(self) -> Family:
        """What its values are; text where nothing else is known."""
        return _FAMILIES.get(self.name, "text")

    @property
    def members(self) -> list[str]:
        """The values of an `enum`, and the parts of those of a `set`."""
        escaped = {"n": "\n", "r": "\r", "t": "\t", "0": "\0"}
        return [
            _ESCAPES.sub(lambda found: escaped.get(found[1], found[1]) if found[1] else "'", member)
            for member in _MEMBER.findall(self.declared)
        ]


@dataclass(frozen=True)
class Wire:
    """How a column goes: its name, its DuckDB type, the type that it has at the end, and its name there."""

    name: str
    kind: str
    target: Target
    there: str

    @property
    def declared(self) -> Sql:
        """The type as it stands in a statement that makes the table."""
        # Some servers take a `timestamp` of which nothing is said for one that is never NULL.
        silent = self.target.name == "timestamp" and "null" not in self.target.declared.lower()
        return Sql(f"{self.target.declared} null" if silent else self.target.declared)

    @cached_property
    def value(self) -> Sql:
        """The DuckDB expression of the literal for INSERT, checked for what the target would change.

        Raises ExportFailed where no value of this type can go into the target as it is.
        """
        begin, end = self._quotes
        said = self._text(quote(self.name))
        if begin == "'":
            said = sql("replace({said}, '''', '''''')", said=said)
        if end:
            said = sql("concat({begin}, {said}, {end})", begin=literal(begin), said=said, end=literal(end))
        return self._checked(said, Sql("'NULL'"))

    @cached_property
    def field(self) -> Sql:
        """The DuckDB expression of the field for LOAD DATA, checked like `value`."""
        return self._checked(self._text(quote(self.name)), Sql(r"'\N'"))

    def literal_of(self, field: bytes) -> bytes:
        """Return the literal for INSERT of what stands in a field for LOAD DATA."""
        begin, end = self._quotes
        if field == rb"\N":
            return b"NULL"
        return begin.encode() + field.replace(b"'", b"''") + end.encode()

    @property
    def place(self) -> Sql:
        """Where LOAD DATA puts the field: into the column, or into a variable of which `assigned` makes the value."""
        return self._variable if self.assigned else backquote(self.there)

    @cached_property
    def assigned(self) -> Sql | None:
        """What the column gets of the variable, None where it gets the field itself: a text, as it is for INSERT."""
        begin, _ = self._quotes
        if begin == "'":
            return None
        form = {"X'": "UNHEX({v})", "b'": "CAST(CONV({v}, 2, 10) AS UNSIGNED)"}.get(begin)
        # A text is none of these numbers to some types: '5' is a letter to `bit`, and 2005 to `year`. Where one
        # column is assigned, 0 in another that is counted would be the next number.
        if form is None and self._source == "float":
            form = "{v} + 0e0" if self.target.family != "float" else None
        elif form is None and (self.target.counted or self.target.name not in _NUMBERS):
            form = "CAST({v} AS UNSIGNED)" if self.kind.startswith("U") else "CAST({v} AS SIGNED)"
        return sql(form, v=self._variable) if form else None

    @property
    def _variable(self) -> Sql:
        return sql("@{name}", name=backquote(self.there))

    def _checked(self, said: Sql, null: Sql) -> Sql:
        c = quote(self.name)
        changed = self._changed(c)
        if changed is not None:
            problem = sql(
                "error(concat({said}, CAST({c} AS VARCHAR), {advice}))",
                said=literal(f"the column {self.name!r} is {self.target.declared} there, which cannot hold "),
                c=c,
                advice=literal(" as it is; CAST it in the query, or mend the table; nothing was stored"),
            )
            said = sql(
                "CASE WHEN {changed} THEN {problem} ELSE {said} END",
                changed=changed,
                problem=problem,
                said=said,
            )
        if self.target.now:
            null = sql(
                "error({problem})",
                problem=literal(
                    f"the column {self.name!r} is {self.target.declared} not null there, which makes the present time "
                    "of NULL; give it a time, or leave the column out of the query; nothing was stored"
                ),
            )
        return sql("CASE WHEN {c} IS NULL THEN {null} ELSE {said} END", c=c, null=null, said=said)

    @property
    def _source(self) -> Family:
        if self.kind in _WHOLE:
            return "whole"
        if _DECIMAL.fullmatch(self.kind):
            return "decimal"
        own: dict[str, Family] = {
            "FLOAT": "float", "DOUBLE": "float", "DATE": "date", "TIME": "time", "BLOB": "bytes", "BIT": "bits",
        }  # fmt: skip
        if self.kind.startswith("TIMESTAMP"):
            return "moment"
        return own.get(self.kind, "json" if _is_json(self.kind) else "text")

    @cached_property
    def _quotes(self) -> tuple[str, str]:
        """What stands around the value's text in a literal: nothing for numbers."""
        source, target = self._source, self.target.family
        if source == "bytes":
            return "X'", "'"
        if source == "bits" and target == "bits":
            return "b'", "'"
        number = source in ("whole", "decimal", "float") and target != "text"
        return ("", "") if self.kind == "BOOLEAN" or number or target in ("whole", "decimal") else ("'", "'")

    def _text(self, c: Sql) -> Sql:
        """The value's text, on one line and without a tab: what ends a line or a field is escaped."""
        source, target = self._source, self.target.family
        if self.kind == "BOOLEAN":
            return sql("CASE WHEN {c} THEN '1' ELSE '0' END", c=c)
        if source == "bytes":
            return sql("hex({c})", c=c)
        shown = sql("CAST({c} AS VARCHAR)", c=c)
        if source == "date" and target != "text":
            shown = sql("strftime({c}, '%Y-%m-%d')", c=c)
        elif source == "moment" and target != "text":
            shown = sql("strftime({utc}, '%Y-%m-%d %H:%M:%S.%f')", utc=self._utc(c))
        elif source == "moment":
            shown = sql("CAST({utc} AS VARCHAR)", utc=self._utc(c))
        elif source == "json" and self.kind != "JSON":
            shown = json_sink.value(self.name, self.kind)
        elif source == "float" and target != "text":
            # With an exponent it is a double there, and no decimal number.
            shown = sql("printf('%.17e', CAST({c} AS DOUBLE))", c=c)
        return _escaped(shown) if source in ("text", "json") else shown

    def _utc(self, c: Sql) -> Sql:
        """A time without a zone, which is that of the session there."""
        if "ZONE" in self.kind:
            return sql("({c} AT TIME ZONE 'UTC')", c=c)
        return c if self.kind == "TIMESTAMP" else sql("CAST({c} AS TIMESTAMP)", c=c)

    def _changed(self, c: Sql) -> Sql | None:
        """What is true for values that the target would change without a word, None where there are none."""
        source, target = self._source, self.target.family
        if self.target.name in ("enum", "set"):
            return self._no_member(c)
        if source in ("whole", "decimal", "float"):
            return self._number_changed(c)
        # Geometry is its bytes here; other types that are not known (uuid, inet6 …) take text.
        if target not in _TAKES[source] and not (source == "bytes" and self.target.name in GEOMETRIES):
            raise self._unlike
        if source in ("date", "moment"):
            return self._moment_changed(c)
        if source == "time" and target == "time":
            return _beyond(sql("epoch_us({c})", c=c), self.target.scale)
        if source == "bytes" and self.target.name == "binary":
            return sql("octet_length({c}) <> {n}", c=c, n=literal(self.target.length or 1))
        return self._text_changed(c) if source in ("text", "json") else None

    @property
    def _unlike(self) -> ExportFailed:
        return ExportFailed(
            f"the column {self.name!r} is {self.target.declared} there, and {self.kind} in the query: CAST it in "
            "the query, or mend the table; nothing was stored"
        )

    def _no_member(self, c: Sql) -> Sql:
        members = join(", ", map(literal, self.target.members))
        text = sql("CAST({c} AS VARCHAR)", c=c)
        if self.target.name == "enum":
            return sql("{text} NOT IN ({members})", text=text, members=members)
        parts = "{text} <> '' AND NOT list_has_all([{members}], string_split({text}, ','))"
        return sql(parts, text=text, members=members)

    def _text_changed(self, c: Sql) -> Sql | None:
        if self.target.name == "year":
            return sql("NOT regexp_full_match({c}, '0+|[0-9]{{4}}')", c=c)
        if self.target.family in ("whole", "decimal"):
            # A number of more digits than DuckDB's have has come as text.
            places = self.target.scale if self.target.family == "decimal" else 0
            digits = rf"[+-]?\d+(\.\d{{0,{places}}}0*)?"
            return sql("NOT regexp_full_match({c}, {digits})", c=c, digits=literal(digits))
        if self.target.family == "text" and self.target.length and self.target.name in _LETTERS:
            return self._too_long(c)
        return None

    def _too_long(self, c: Sql) -> Sql:
        # Blanks at the end are cut off without an error, and by `char` in any case.
        long = sql("length(CAST({c} AS VARCHAR)) > {n}", c=c, n=literal(self.target.length))
        if self.target.name != "char":
            return long
        return sql("({long} OR ends_with(CAST({c} AS VARCHAR), ' '))", long=long, c=c)

    def _number_changed(self, c: Sql) -> Sql | None:
        source, target = self._source, self.target.family
        if target in ("date", "moment", "time", "bytes", "json"):
            raise self._unlike
        no_number = sql("NOT isfinite({c})", c=c) if source == "float" else None
        if target == "text":
            return None
        if target in ("whole", "bits"):
            lost = None if source == "whole" else sql("{c} <> trunc({c})", c=c)
            if self.target.name == "year":
                # 69 is 2069 there, and 70 is 1970.
                lost = sql("({c} BETWEEN 1 AND 99 OR {lost})", c=c, lost=lost or Sql("FALSE"))
        elif target == "decimal":
            lost = self._digits_lost(c)
        else:
            kind = Sql("FLOAT" if self.target.name == "float" else "DOUBLE")
            back = Sql(self.kind)
            same = self.kind in ("FLOAT", "BOOLEAN", "TINYINT", "UTINYINT", "SMALLINT", "USMALLINT")
            same = same or (kind == "DOUBLE" and self.kind in ("DOUBLE", "INTEGER", "UINTEGER"))
            lost = None if same else sql(
                "TRY_CAST(CAST({c} AS {kind}) AS {back}) IS DISTINCT FROM {c}", c=c, kind=kind, back=back
            )  # fmt: skip
        if no_number is None or lost is None:
            return no_number or lost
        return sql("({no_number} OR {lost})", no_number=no_number, lost=lost)

    def _digits_lost(self, c: Sql) -> Sql | None:
        found = _DECIMAL.fullmatch(self.kind)
        scale = self.target.scale
        if self.kind in _WHOLE or (found and int(found[2]) <= scale):
            return None
        if found:
            return sql("round({c}, {n}) <> {c}", c=c, n=literal(scale))
        width = min(self.target.length or 10, 38)
        kind = Sql(f"DECIMAL({max(width, scale)},{scale})")
        return sql(
            "CAST(TRY_CAST({c} AS {kind}) AS DOUBLE) IS DISTINCT FROM CAST({c} AS DOUBLE)", c=c, kind=kind
        )

    def _moment_changed(self, c: Sql) -> Sql | None:
        if self.target.family == "text":
            return None
        found = ["({utc} < {first} OR {utc} >= {last})"]
        parts = {"c": c, "utc": c if self.kind == "DATE" else self._utc(c), "first": _FIRST, "last": _LAST}
        if self.kind == "TIMESTAMP_NS":
            found.append("epoch_ns({c}) % 1000 <> 0")
        if self.target.family == "date" and self.kind != "DATE":
            found.append("{utc} <> date_trunc('day', {utc})")
        elif self.kind != "DATE" and (beyond := _beyond(sql("epoch_us({utc})", **parts), self.target.scale)):
            found.append(beyond)
        return sql("({all})", all=sql(" OR ".join(found), **parts))


# MySQL has the years 0 to 9999; infinity lies beyond them.
_FIRST, _LAST = Sql("DATE '0001-01-01 (BC)'"), Sql("DATE '10000-01-01'")
_TAKES: Mapping[Family, tuple[Family, ...]] = {
    "date": ("date", "moment", "text"), "moment": ("moment", "date", "text"), "time": ("time", "text"),
    "text": ("text", "json", "whole", "decimal"), "json": ("json", "text"), "bytes": ("bytes",),
    "bits": ("bits", "text"),
}  # fmt: skip
_LETTERS = frozenset({"char", "varchar"})


def wires(columns: Mapping[str, str], declared: Mapping[str, str]) -> list[Wire]:
    """Return how each column goes; `declared` are the MySQL types that the user wants.

    Raises ExportFailed for names that MySQL does not take, and for columns declared but not there.
    """
    folded = {name.casefold(): kind for name, kind in declared.items()}
    unknown = [name for name in declared if name.casefold() not in {column.casefold() for column in columns}]
    if unknown:
        raise ExportFailed(
            f"types: the query gives no column {', '.join(unknown)}; it gives {', '.join(columns)}"
        )
    return [
        Wire(name, kind, Target(folded.get(name.casefold()) or new_type(kind)), check_name(name))
        for name, kind in columns.items()
    ]


def new_type(kind: str) -> str:
    """Return the MySQL type of a new table's column."""
    if kind in _NEW:
        return _NEW[kind]
    if found := _DECIMAL.fullmatch(kind):
        return f"decimal({found[1]},{found[2]})"
    return "json" if _is_json(kind) else "longtext"


def check_name(name: str) -> str:
    """Return a name that MySQL keeps. Raises ExportFailed for one that is too long or ends with a blank."""
    if len(name) > _NAME_LETTERS or name.endswith(" "):
        raise ExportFailed(
            f"the name {name!r} is longer than MySQL takes ({_NAME_LETTERS} letters), or ends with a blank; give "
            "another one by AS"
        )
    return name


def _is_json(kind: str) -> bool:
    return kind == "JSON" or kind.startswith(("STRUCT(", "MAP(", "UNION(")) or kind.endswith("]")


def _beyond(microseconds: Sql, scale: int) -> Sql | None:
    """What is true for a time with more digits than `scale` after the second."""
    if scale >= 6:
        return None
    return sql("{us} % {n} <> 0", us=microseconds, n=literal(10 ** (6 - scale)))


def _escaped(text: Sql) -> Sql:
    """A text as a literal and as a field on one line, escaped alike in both."""
    return sql(
        r"replace(replace(replace(replace({text}, '\', '\\'), chr(10), '\n'), chr(9), '\t'), chr(0), '\0')",
        text=text,
    )
