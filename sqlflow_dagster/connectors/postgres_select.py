"""What of a relation is wanted → the SELECT that Postgres runs, and the one around it that DuckDB runs.

The remote SELECT reads only the columns that are needed, in a form that arrives exactly, and leaves
out rows that the warehouse would leave out: a condition goes to the source only where both sides
compare alike, and the warehouse makes every comparison again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_CEILING, Decimal

from sqlflow_dagster.connectors.base import Span
from sqlflow_dagster.connectors.postgres_types import Column, Order, Travel, travel
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import BadOption, SchemaChanged
from sqlflow_dagster.sql import Condition, Sql, Value, join, literal, quote, sql

_GUARD = "_sqlflow_guard"
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?")
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d(:?\d\d)?)")
_ISO = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)([ T](?P<time>\d\d:\d\d(:\d\d(\.\d{1,6})?)?)(?P<offset>Z|[+-]\d\d(:?\d\d)?)?)?"
)
_NUMBER = re.compile(r"-?\d{1,38}(\.\d{1,38})?")
_BITS = {"int2": 15, "int4": 31, "int8": 63}
_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_BEFORE_CHRIST = re.compile(r"^(\S+) \(BC\)(.*)$")
_ORDERED = frozenset({"<", "<=", ">", ">="})
_TYPES: Mapping[str, str] = {
    "date": "date", "timestamp": "timestamp", "timestamptz": "timestamptz", "uuid": "uuid",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a relation is to be read.

    `columns` empty means all; `needed` are read beside them. `utf8` says that the server compares
    text byte by byte as UTF-8 where it is asked to.
    """

    columns: Sequence[str] = ()
    needed: Sequence[str] = ()
    excluded: Sequence[str] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    conditions: Sequence[Condition] = ()
    cursor_field: str | None = None
    since: Cursor | None = None
    span: Span = field(default_factory=Span)
    numeric_type: str = "VARCHAR"
    money_digits: int = 2
    utf8: bool = True
    where: Sql | None = None


@dataclass(frozen=True, slots=True)
class Selected:
    """The two SELECTs: `remote` for Postgres, and what DuckDB makes of its rows, `name` its database.

    `left_out` are columns of the relation that nobody wants.
    """

    remote: Sql
    travels: tuple[Travel, ...]
    label: str
    left_out: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, str]:
        """Names and DuckDB types."""
        return {item.column.name: item.kind for item in self.travels}

    def local(self, name: str) -> Sql:
        """Return the SELECT over `remote`, run in the attached database `name`."""
        rows = sql("postgres_query({name}, {remote})", name=literal(name), remote=literal(self.remote))
        guards = [item for item in self.travels if item.guard]
        if not guards and not any(item.local for item in self.travels):
            return sql("SELECT * FROM {rows}", rows=rows)
        values = (
            sql("{value} AS {name}", value=item.local, name=quote(item.column.name))
            if item.local
            else quote(item.column.name)
            for item in self.travels
        )
        return sql(
            "SELECT {values} FROM {rows} WHERE {fine}",
            values=join(", ", values),
            rows=rows,
            fine=_fine(guards, self.label) if guards else Sql("TRUE"),
        )


def select(relation: Sql, columns: Sequence[Column], wanted: Wanted, label: str) -> Selected:
    """Return the SELECTs of a relation, `label` its name in messages.

    Raises BadOption for columns in `types` that are not there, and SchemaChanged where the cursor
    column is gone or cannot be compared.
    """
    _check_declared(columns, wanted.types, label)
    declared = {name.casefold(): kind for name, kind in wanted.types.items()}
    travels = {
        column.name: travel(
            column, declared.get(column.name.casefold()), wanted.numeric_type, wanted.money_digits
        )
        for column in columns
    }
    _check_cursor(travels, wanted.cursor_field, label)
    kept = _kept(travels, wanted)
    where = [*([wanted.where] if wanted.where else []), *_conditions(travels, wanted)]
    guards = [item.guard for item in kept if item.guard]
    values = [_aliased(item) for item in kept]
    if guards:
        cases = (
            sql("WHEN {guard} THEN {number}", guard=guard, number=literal(number))
            for number, guard in enumerate(guards, 1)
        )
        values.append(sql("CASE {cases} END AS {name}", cases=join(" ", cases), name=quote(_GUARD)))
    remote = sql(
        "SELECT {values} FROM {relation} WHERE {where}",
        values=join(", ", values),
        relation=relation,
        where=join(" AND ", where) if where else Sql("TRUE"),
    )
    names = {item.column.name for item in kept}
    return Selected(remote, tuple(kept), label, tuple(name for name in travels if name not in names))


def _aliased(item: Travel) -> Sql:
    name = quote(item.column.name)
    return item.remote if item.remote == name else sql("{v} AS {name}", v=item.remote, name=name)


def _kept(travels: Mapping[str, Travel], wanted: Wanted) -> list[Travel]:
    """The columns that are read; one that is left out comes as NULL, so that its name is known."""
    needed = {name.casefold() for name in wanted.needed}
    chosen = {name.casefold() for name in wanted.columns} or {name.casefold() for name in travels}
    excluded = {name.casefold() for name in wanted.excluded} - needed
    return [
        Travel(item.column, Sql("CAST(NULL AS text)"), "VARCHAR") if name.casefold() in excluded else item
        for name, item in travels.items()
        if name.casefold() in chosen | needed | excluded
    ]


def _check_declared(columns: Sequence[Column], types: Mapping[str, str], label: str) -> None:
    known = {column.name.casefold() for column in columns}
    unknown = [name for name in types if name.casefold() not in known]
    if unknown:
        raise BadOption(
            f"types: {label} has no column {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(column.name for column in columns)}",
            option="types",
        )


def _check_cursor(travels: Mapping[str, Travel], cursor_field: str | None, label: str) -> None:
    if cursor_field is None:
        return
    item = next((t for name, t in travels.items() if name.casefold() == cursor_field.casefold()), None)
    if item is None:
        raise SchemaChanged(
            f"{label} has no column {cursor_field!r}, which is the cursor_field; it has {', '.join(travels)}"
        )
    if item.kind == "VARCHAR" and item.order == "none":
        shown = item.column.type.shown
        raise SchemaChanged(
            f"{label}: the cursor column {cursor_field!r} is a {shown}, which is kept as text and has no order as "
            'such; declare what it is, e.g. "types": '
            f'{{"{cursor_field}": "DECIMAL(38,9)"}}, or name another cursor_field'
        )


def _fine(guards: Sequence[Travel], label: str) -> Sql:
    """True where no guard was; else an error that names the column, the value and what to set."""
    texts = (
        literal(
            f"{label}: the column {item.column.name!r} holds {item.because}, so that it is no {item.kind}; set "
            f'"types": {{"{item.column.name}": "VARCHAR"}} to load it as Postgres writes it'
        )
        for item in guards
    )
    return sql(
        "CASE WHEN {g} IS NULL THEN TRUE ELSE CAST(error([{texts}][{g}]) AS BOOLEAN) END",
        g=quote(_GUARD),
        texts=join(", ", texts),
    )


def _conditions(travels: Mapping[str, Travel], wanted: Wanted) -> Iterator[Sql]:
    folded = {name.casefold(): item for name, item in travels.items()}
    if wanted.cursor_field and (within := _within(folded[wanted.cursor_field.casefold()], wanted)):
        yield within
    for condition in wanted.conditions:
        found = folded.get(condition.column.casefold())
        if found and (pushed := _condition(found, condition, utf8=wanted.utf8)):
            yield pushed


def _within(item: Travel, wanted: Wanted) -> Sql | None:
    """Rows between cursor or start and end, and those without a cursor; None for all.

    Both bounds are in one condition, for which an index is asked once.
    """
    bounds: list[Sql | None] = []
    if wanted.since and wanted.since.type != "JSON":
        bounds.append(_since(item, wanted.since, utf8=wanted.utf8))
    bounds += [
        _bound(item, operator, text, utf8=wanted.utf8)
        for operator, text in ((">=", wanted.span.start), ("<", wanted.span.end))
        if text
    ]
    known = [bound for bound in bounds if bound is not None]
    if not known:
        return None
    return sql("({all} OR {c} IS NULL)", all=join(" AND ", known), c=quote(item.column.name))


def _since(item: Travel, since: Cursor, *, utf8: bool) -> Sql | None:
    """Rows at or after the cursor; None where the warehouse has to compare."""
    if item.order in ("none", "boolean") or (item.order == "text" and not utf8):
        return None
    value = _BEFORE_CHRIST.sub(r"\1\2 BC", since.value)
    # In the column's own type, so that an index serves and no float is rounded on the way.
    kind = Sql("text" if item.order == "text" else item.column.type.name or "text")
    bound = sql("CAST({value} AS {kind})", value=escaped(value), kind=kind)
    return sql("{compared} >= {bound}", compared=_compared(item, ordered=True), bound=bound)


def _bound(item: Travel, operator: str, text: str, *, utf8: bool) -> Sql | None:
    """What a start or an end asks of the column, or a little more; None where the warehouse has to compare."""
    value: Sql | None = None
    match item.order:
        case "date" | "timestamp" | "timestamptz":
            value = _moment(item.order, operator, text)
        case "number" if _NUMBER.fullmatch(text):
            # Whole numbers are below 4.4 as they are below 5, and an index knows only whole ones.
            whole = Decimal(text).to_integral_value(ROUND_CEILING)
            exact = item.column.type.name in _BITS
            fits = not exact or abs(whole) < 2 ** _BITS[item.column.type.name or ""]
            kind = Sql(item.column.type.name or "numeric")
            number = Sql(f"{whole:f}" if exact else f"{Decimal(text):f}")
            value = sql("CAST({number} AS {kind})", number=literal(number), kind=kind) if fits else None
        case "text" if utf8:
            value = escaped(text)
    if value is None:
        return None
    return sql("{c} {o} {v}", c=_compared(item, ordered=True), o=Sql(operator), v=value)


def _moment(order: Order, operator: str, text: str) -> Sql | None:
    """A start or an end as a time of Postgres: a column without a zone goes by the clock time alone."""
    found = _ISO.fullmatch(text)
    if found is None:
        return None
    clock = f"{found['day']} {found['time'] or '00:00'}"
    if order != "timestamptz":
        return sql("CAST({clock} AS timestamp)", clock=literal(clock))
    if found["offset"]:
        return sql("CAST({text} AS timestamptz)", text=literal(clock + found["offset"]))
    # It is of the warehouse's zone, which is less than a day away.
    away = "- INTERVAL '1 day'" if operator == ">=" else "+ INTERVAL '1 day'"
    return sql("(CAST({text} AS timestamptz) {away})", text=literal(clock + "+00"), away=Sql(away))


def _condition(item: Travel, condition: Condition, *, utf8: bool) -> Sql | None:
    ordered = condition.operator in _ORDERED
    if ordered and item.order == "text" and not utf8:
        return None
    if not condition.values or (ordered and item.order in ("boolean", "uuid")):
        return None
    values = [_operand(item.order, value) for value in condition.values]
    if any(value is None for value in values):
        return None
    found = [value for value in values if value is not None]
    compared = _compared(item, ordered=ordered)
    if condition.operator in ("IN", "NOT IN"):
        return sql("{c} {o} ({v})", c=compared, o=Sql(condition.operator), v=join(", ", found))
    return sql("{c} {o} {v}", c=compared, o=Sql(condition.operator.replace("!=", "<>")), v=found[0])


def _compared(item: Travel, *, ordered: bool) -> Sql:
    c = quote(item.column.name)
    if item.order != "text":
        return c
    # Bytes decide here; a collation, a padding or a type of its own would decide otherwise there.
    if ordered:
        return sql('CAST({c} AS text) COLLATE "C"', c=c)
    return c if item.column.type.name in ("text", "varchar") else sql("CAST({c} AS text)", c=c)


def _operand(order: Order, value: Value) -> Sql | None:
    """A filter's value as Postgres takes it, None where DuckDB might take it for something else."""
    if order == "number" and isinstance(value, int | Decimal) and not isinstance(value, bool):
        return literal(value)
    if order == "boolean" and isinstance(value, bool):
        return literal(value)
    if not isinstance(value, str):
        return None
    if order == "text":
        return escaped(value)
    forms = {"date": _DAY, "timestamp": _MOMENT, "timestamptz": _INSTANT, "uuid": _UUID}
    if order in forms and forms[order].fullmatch(value):
        return sql("CAST({value} AS {kind})", value=escaped(value), kind=Sql(_TYPES[order]))
    return None


def escaped(value: str) -> Sql:
    """Return a text as Postgres reads it whatever `standard_conforming_strings` says."""
    text = literal(value)
    return Sql(" E" + text.replace("\\", "\\\\")) if "\\" in value else text
