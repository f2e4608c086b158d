"""What of a relation is wanted → the SELECT that MySQL runs, and the one around it that DuckDB runs.

The remote SELECT reads only the columns that are needed, in a form that arrives exactly, and leaves
out rows that the warehouse would leave out: a condition goes to the source only where both sides
compare alike, and the warehouse makes every comparison again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from sqlflow_dagster.connectors.mysql_types import Choices, Column, Order, Travel, travel
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import BadOption, SchemaChanged
from sqlflow_dagster.sql import Condition, Sql, Value, backquote, join, literal, quote, sql

_GUARD = "_sqlflow_guard"
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_MOMENT = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?")
_INSTANT = re.compile(r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?)(?:Z|\+00(?::?00)?)")
_ORDERED = frozenset({"<", "<=", ">", ">="})


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a relation is to be read. `columns` empty means all; `needed` are read beside them."""

    columns: Sequence[str] = ()
    needed: Sequence[str] = ()
    excluded: Sequence[str] = ()
    types: Mapping[str, str] = field(default_factory=dict)
    conditions: Sequence[Condition] = ()
    cursor_field: str | None = None
    since: Cursor | None = None
    choices: Choices = field(default_factory=Choices)


@dataclass(frozen=True, slots=True)
class Selected:
    """The two SELECTs: the one for MySQL, and what DuckDB makes of its rows.

    `left_out` are columns of the relation that nobody wants.
    """

    values: tuple[Sql, ...]
    relation: Sql
    where: Sql
    travels: tuple[Travel, ...]
    label: str
    left_out: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, str]:
        """Names and DuckDB types."""
        return {item.column.name: item.kind for item in self.travels}

    @property
    def nulled(self) -> dict[str, Sql]:
        """What is true at the source for values that are loaded as NULL, by column."""
        return {item.column.name: item.nulled for item in self.travels if item.nulled}

    def remote(self, before: Sql, hint: Sql) -> Sql:
        """Return the SELECT for MySQL; `before` stands before it, and `hint` after its first word."""
        return sql(
            "{before}SELECT {hint}{values} FROM {relation} WHERE {where}",
            before=before,
            hint=hint,
            values=join(", ", self.values),
            relation=self.relation,
            where=self.where,
        )

    def local(self, name: str, remote: Sql) -> Sql:
        """Return the SELECT over `remote`, run in the attached database `name`."""
        rows = sql(
            "mysql_query({name}, {remote}, stream_results = TRUE)", name=literal(name), remote=literal(remote)
        )
        values = (
            sql("{value} AS {name}", value=item.local, name=quote(item.column.name))
            if item.local
            else quote(item.column.name)
            for item in self.travels
        )
        guards = [item for item in self.travels if item.guard]
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
        column.name: travel(column, declared.get(column.name.casefold()), wanted.choices)
        for column in columns
    }
    _check_cursor(travels, wanted.cursor_field, label)
    kept = _kept(travels, wanted)
    where = [*_conditions(travels, wanted)]
    guards = [item.guard for item in kept if item.guard]
    values = [_aliased(item) for item in kept]
    if guards:
        cases = (
            sql("WHEN {guard} THEN {number}", guard=guard, number=literal(number))
            for number, guard in enumerate(guards, 1)
        )
        values.append(sql("CASE {cases} END AS {name}", cases=join(" ", cases), name=backquote(_GUARD)))
    names = {item.column.name for item in kept}
    return Selected(
        tuple(values),
        relation,
        join(" AND ", where) if where else Sql("TRUE"),
        tuple(kept),
        label,
        tuple(name for name in travels if name not in names),
    )


def _aliased(item: Travel) -> Sql:
    name = backquote(item.column.name)
    return item.remote if item.remote == name else sql("{v} AS {name}", v=item.remote, name=name)


def _kept(travels: Mapping[str, Travel], wanted: Wanted) -> list[Travel]:
    """The columns that are read; one that is left out comes as NULL, so that its name is known."""
    needed = {name.casefold() for name in wanted.needed}
    chosen = {name.casefold() for name in wanted.columns} or {name.casefold() for name in travels}
    excluded = {name.casefold() for name in wanted.excluded} - needed
    return [
        Travel(item.column, Sql("CAST(NULL AS CHAR)"), "VARCHAR") if name.casefold() in excluded else item
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
        raise SchemaChanged(
            f"{label}: the cursor column {cursor_field!r} is a {item.column.declared}, which is kept as text and has "
            f'no order as such; declare what it is, e.g. "types": {{"{cursor_field}": "DECIMAL(38,9)"}}, or name '
            "another cursor_field"
        )


def _fine(guards: Sequence[Travel], label: str) -> Sql:
    """True where no guard was; else an error that names the column, the value and what to set."""
    texts = (
        literal(
            f"{label}: the column {item.column.name!r} holds {item.because}, which no {item.kind} can be; set "
            f'{item.advice}, or "types": {{"{item.column.name}": "VARCHAR"}} to load it as MySQL writes it'
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
    if wanted.since and wanted.cursor_field:
        item = folded[wanted.cursor_field.casefold()]
        if bound := _since(item, wanted.since):
            yield bound
    for condition in wanted.conditions:
        found = folded.get(condition.column.casefold())
        if found and (pushed := _condition(found, condition)):
            yield pushed


def _since(item: Travel, since: Cursor) -> Sql | None:
    """Rows at or after the cursor, and those without one; None where the warehouse has to compare."""
    c = backquote(item.column.name)
    if item.order == "number":
        if not re.fullmatch(r"-?\d+(\.\d+)?", since.value):
            return None
        bound = Sql(since.value)
    elif item.order == "text":
        c, bound = _bytes(c), _hex(since.value)
    else:
        found = _operand(item.order, since.value)
        if found is None:
            return None
        bound = found
    # Dates that are none have no place among the others, and NULL comes each time.
    other = sql("{c} IS NULL", c=backquote(item.column.name))
    if item.nulled:
        other = sql("{other} OR {nulled}", other=other, nulled=item.nulled)
    return sql("({c} >= {bound} OR {other})", c=c, bound=bound, other=other)


def _condition(item: Travel, condition: Condition) -> Sql | None:
    if item.nulled or not condition.values:
        return None
    ordered = condition.operator in _ORDERED
    if ordered and item.order == "boolean":
        return None
    values = [_operand(item.order, value) for value in condition.values]
    found = [value for value in values if value is not None]
    if len(found) != len(values):
        return None
    c = backquote(item.column.name)
    if item.order == "text" and condition.operator not in ("=", "IN"):
        # A collation takes unlike texts for equal, and orders them in its own way: bytes decide. What it
        # takes for equal too many, the warehouse leaves out.
        c, found = _bytes(c), [_hex(str(value)) for value in condition.values]
    if condition.operator in ("IN", "NOT IN"):
        return sql("{c} {o} ({v})", c=c, o=Sql(condition.operator), v=join(", ", found))
    return sql("{c} {o} {v}", c=c, o=Sql(condition.operator.replace("!=", "<>")), v=found[0])


def _operand(order: Order, value: Value) -> Sql | None:
    """A value as MySQL takes it, None where DuckDB might take it for something else."""
    if order == "number" and isinstance(value, int | Decimal) and not isinstance(value, bool):
        return literal(value)
    if order == "boolean" and isinstance(value, bool):
        return Sql("1" if value else "0")
    return _text_operand(order, value) if isinstance(value, str) else None


def _text_operand(order: Order, value: str) -> Sql | None:
    if order == "text":
        return text(value)
    if order == "date" and _DAY.fullmatch(value):
        return sql("DATE{value}", value=literal(value))
    if order == "timestamp" and _MOMENT.fullmatch(value):
        return _moment(value)
    if order == "timestamptz" and (instant := _INSTANT.fullmatch(value)):
        return _moment(instant[1])
    return None


def _moment(value: str) -> Sql:
    """A time as MySQL reads it, in the session's zone, which is UTC."""
    value = value.replace("T", " ")
    value += " 00:00:00" if _DAY.fullmatch(value) else ":00" if value.count(":") == 1 else ""
    return sql("TIMESTAMP{value}", value=literal(value))


def _bytes(c: Sql) -> Sql:
    return sql("CAST(CONVERT({c} USING utf8mb4) AS BINARY)", c=c)


def _hex(value: str) -> Sql:
    return Sql(f"X'{value.encode().hex()}'")


def text(value: str) -> Sql:
    """Return a text as MySQL reads it in each of its modes."""
    return sql("_utf8mb4 {value}", value=_hex(value) if "\\" in value or "\0" in value else literal(value))
