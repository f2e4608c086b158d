"""What of a relation is wanted → the SELECT that its server runs, and the one around it that DuckDB runs.

The remote SELECT reads only the columns that are needed, in a form that arrives exactly, and leaves
out rows that the warehouse would leave out: a condition goes to the source only where both sides
compare alike, and the warehouse makes every comparison again.

How a column travels and what may be compared is each server's own, told as a `Dialect`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from sqlflow_dagster.connectors.base import Span
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import BadOption, SchemaChanged
from sqlflow_dagster.sql import Condition, Sql, fold, free_name, join, literal, quote, sql

# Texts that mean one day or one moment to every server, as they do to DuckDB.
DAY = re.compile(r"\d{4}-\d\d-\d\d")
MOMENT = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d{1,6})?)?)?")
ISO = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)([ T](?P<time>\d\d:\d\d(:\d\d(\.\d{1,6})?)?)(?P<offset>Z|[+-]\d\d(:?\d\d)?)?)?"
)
NUMBER = re.compile(r"-?\d{1,38}(\.\d{1,38})?")
ORDERED = frozenset({"<", "<=", ">", ">="})


class Column(Protocol):
    """A column of a table or query: its name, and its type as the server shows it."""

    @property
    def name(self) -> str:
        """The name as the server spells it."""

    @property
    def shown(self) -> str:
        """The type as the server shows it."""


C = TypeVar("C", bound=Column)


@dataclass(frozen=True, slots=True)
class Travel(Generic[C]):
    """How a column travels.

    `remote` is its expression at the server, `local` the one in DuckDB over what arrives under the
    column's name (None as it comes), `kind` the DuckDB type. `order` says what of it can be compared
    there as DuckDB compares it here. `guard` is true there for values that `kind` cannot hold, which
    `because` names and `advice` mends; `nulled` is true for those that are loaded as NULL. `digits` says that
    it is a number that travels as text, which nothing compares.
    """

    column: C
    remote: Sql
    kind: str
    local: Sql | None = None
    order: str = "none"
    guard: Sql | None = None
    because: str = ""
    advice: str = ""
    nulled: Sql | None = None
    digits: bool = False


@dataclass(frozen=True, slots=True)
class Dialect(Generic[C]):
    """What a server has of its own: its name, how it quotes, its text of no value, and `travel`.

    `travel` says how a column goes that the user declared as the second argument, None for ours.
    """

    server: str
    quote: Callable[..., Sql]
    no_text: Sql
    travel: Callable[[C, str | None], Travel[C]]


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
    span: Span = field(default_factory=Span)


@dataclass(frozen=True, slots=True)
class Selected(Generic[C]):
    """The two SELECTs: the one for the server, and what DuckDB makes of its rows.

    `left_out` are columns of the relation that nobody wants.
    """

    values: tuple[Sql, ...]
    relation: Sql
    where: Sql
    travels: tuple[Travel[C], ...]
    label: str
    server: str
    left_out: tuple[str, ...] = ()

    @property
    def columns(self) -> dict[str, str]:
        """Names and DuckDB types."""
        return {item.column.name: item.kind for item in self.travels}

    @property
    def nulled(self) -> dict[str, Sql]:
        """What is true at the source for values that are loaded as NULL, by column."""
        return {item.column.name: item.nulled for item in self.travels if item.nulled}

    def remote(self, before: Sql = Sql(""), hint: Sql = Sql("")) -> Sql:  # noqa: B008 - Sql is a str, and frozen
        """Return the SELECT for the server; `before` stands before it, and `hint` after its first word."""
        return sql(
            "{before}SELECT {hint}{values} FROM {relation} WHERE {where}",
            before=before,
            hint=hint,
            values=join(", ", self.values),
            relation=self.relation,
            where=self.where,
        )

    def local(self, rows: Sql) -> Sql:
        """Return the SELECT over `rows`, which is what runs `remote`."""
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
            fine=self._fine(guards) if guards else Sql("TRUE"),
        )

    def _fine(self, guards: Sequence[Travel[C]]) -> Sql:
        """True where no guard was; else an error that names the column, the value and what to set."""
        texts = (literal(self._said(item)) for item in guards)
        return sql(
            "CASE WHEN {g} IS NULL THEN TRUE ELSE CAST(error([{texts}][{g}]) AS BOOLEAN) END",
            g=quote(_guard_of(self.travels)),
            texts=join(", ", texts),
        )

    def _said(self, item: Travel[C]) -> str:
        name, advice = item.column.name, f"{item.advice}, or " if item.advice else ""
        return (
            f"{self.label}: the column {name!r} holds {item.because}, so that it is no {item.kind}; set "
            f'{advice}"types": {{"{name}": "VARCHAR"}} to load it as {self.server} writes it'
        )


def travels_of(columns: Sequence[C], wanted: Wanted, label: str, dialect: Dialect[C]) -> dict[str, Travel[C]]:
    """Return how each column of a relation travels, `label` its name in messages.

    Raises BadOption for columns in `types` that are not there, and for filters of numbers that travel as
    text, and SchemaChanged where the cursor column is gone or cannot be compared.
    """
    _check_declared(columns, wanted.types, label)
    _check_names(columns, label, dialect)
    declared = {fold(name): kind for name, kind in wanted.types.items()}
    travels = {column.name: dialect.travel(column, declared.get(fold(column.name))) for column in columns}
    _check_cursor(travels, wanted.cursor_field, label)
    _check_conditions(travels, wanted.conditions, label)
    return travels


def selected(
    relation: Sql,
    travels: Mapping[str, Travel[C]],
    wanted: Wanted,
    where: Iterable[Sql],
    label: str,
    dialect: Dialect[C],
) -> Selected[C]:
    """Return the SELECTs of the columns that are wanted, and of the rows for which all of `where` is true.

    Raises BadOption where none of the columns is there.
    """
    kept = _kept(travels, wanted, dialect)
    if wanted.columns and not kept:
        missing = ", ".join(map(repr, wanted.columns))
        raise BadOption(
            f"columns: {label} has no column {missing}; it has {', '.join(travels)}", option="columns"
        )
    values = [_aliased(item, dialect) for item in kept]
    if guards := [item.guard for item in kept if item.guard]:
        cases = (
            sql("WHEN {guard} THEN {number}", guard=guard, number=literal(number))
            for number, guard in enumerate(guards, 1)
        )
        name = dialect.quote(_guard_of(kept))
        case = sql("CASE {cases} END AS {name}", cases=join(" ", cases), name=name)
        values.append(case)
    names = {item.column.name for item in kept}
    return Selected(
        tuple(values),
        relation,
        join(" AND ", where) or Sql("TRUE"),
        tuple(kept),
        label,
        dialect.server,
        tuple(name for name in travels if name not in names),
    )


def named(travels: Mapping[str, Travel[C]], name: str) -> Travel[C] | None:
    """Return the column of a name, as DuckDB takes names; None where there is none."""
    return next((item for own, item in travels.items() if fold(own) == fold(name)), None)


def within(c: Sql, bounds: Iterable[Sql | None], others: Sql | None = None) -> Sql | None:
    """Return what is true for rows between the bounds, and for those without a cursor; None where no bound is known.

    All bounds are in one condition, for which an index is asked once. `others` is true for values that have
    no place among the rest.
    """
    known = [bound for bound in bounds if bound is not None]
    if not known:
        return None
    without = sql("{c} IS NULL", c=c)
    if others:
        without = sql("{without} OR {others}", without=without, others=others)
    return sql("({all} OR {without})", all=join(" AND ", known), without=without)


@dataclass(frozen=True, slots=True)
class Compared(Generic[C]):
    """How a server is asked for a filter, an end of a span, and rows at or after a cursor; None where not alike."""

    filter: Callable[[Travel[C], Condition], Sql | None]
    end: Callable[[Travel[C], str, str], Sql | None]
    later: Callable[[Travel[C], Cursor], Sql | None]


def counted(
    relation: Sql,
    travels: Mapping[str, Travel[C]],
    wanted: Wanted,
    keys: Sequence[str],
    dialect: Dialect[C],
    compared: Compared[C],
) -> Sql | None:
    """Return the SELECT that counts the rows that are wanted, those before `since` where there is one.

    Rows of one key count once, and only where all of them are before it. None where the server cannot be
    asked for the very rows that the warehouse takes.
    """
    where: list[Sql | None] = []
    for condition in wanted.conditions:
        found = named(travels, condition.column)
        where.append(compared.filter(found, condition) if found else None)
    before = Sql("1 = 1")
    if cursor := named(travels, wanted.cursor_field or ""):
        c = dialect.quote(cursor.column.name)
        for operator, text in ends(wanted.span):
            end = compared.end(cursor, operator, text) if _is_exact(cursor.order, text) else None
            where.append(within(c, [end]))
        if wanted.since:
            later = compared.later(cursor, wanted.since)
            where.append(later and Sql("1 = 1"))
            before = sql("NOT ({later})", later=later or before)
    known = [item for item in where if item is not None]
    own = [item for key in keys if (item := named(travels, key))]
    if len(known) < len(where) or len(own) < len(keys):
        return None
    if not keys:
        every = join(" AND ", [*known, before])
        return sql("SELECT count(*) FROM {relation} WHERE {every}", relation=relation, every=every)
    return sql(
        "SELECT count(*) FROM (SELECT 1 AS one FROM {relation} WHERE {every} GROUP BY {keys}"
        " HAVING min(CASE WHEN {before} THEN 1 ELSE 0 END) = 1) AS keys_found",
        relation=relation,
        every=join(" AND ", known) or Sql("1 = 1"),
        keys=join(", ", (dialect.quote(item.column.name) for item in own)),
        before=before,
    )


def _is_exact(order: str, text: str) -> bool:
    """Whether an end of a span means one moment to both sides; without an offset it is of the warehouse's zone."""
    found = ISO.fullmatch(text)
    return order != "timestamptz" or (found is not None and found["offset"] is not None)


def ends(span: Span) -> list[tuple[str, str]]:
    """Return the ends that a span has, each with the operator that a column is compared by."""
    return [(operator, text) for operator, text in ((">=", span.start), ("<", span.end)) if text]


def _aliased(item: Travel[C], dialect: Dialect[C]) -> Sql:
    name = dialect.quote(item.column.name)
    return item.remote if item.remote == name else sql("{v} AS {name}", v=item.remote, name=name)


def _kept(travels: Mapping[str, Travel[C]], wanted: Wanted, dialect: Dialect[C]) -> list[Travel[C]]:
    """The columns that are read; one that is left out comes as NULL, so that its name is known."""
    needed = {fold(name) for name in wanted.needed}
    chosen = {fold(name) for name in wanted.columns} or {fold(name) for name in travels}
    excluded = {fold(name) for name in wanted.excluded} - needed
    return [
        Travel(item.column, dialect.no_text, "VARCHAR") if fold(name) in excluded else item
        for name, item in travels.items()
        if fold(name) in chosen | needed | excluded
    ]


def _check_declared(columns: Sequence[Column], types: Mapping[str, str], label: str) -> None:
    known = {fold(column.name) for column in columns}
    unknown = [name for name in types if fold(name) not in known]
    if unknown:
        raise BadOption(
            f"types: {label} has no column {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(column.name for column in columns)}",
            option="types",
        )


def _check_conditions(travels: Mapping[str, Travel[C]], conditions: Iterable[Condition], label: str) -> None:
    for condition in conditions:
        item = named(travels, condition.column)
        if item and item.digits and any(value is not None for value in condition.values):
            name = item.column.name
            raise BadOption(
                f"filters: {label}: the column {name!r} is a {item.column.shown}, which is kept as text with all its "
                "digits and would not be compared as a number; declare what it is, e.g. "
                f'"types": {{"{name}": "DECIMAL(38,9)"}}, or set `numeric_type`',
                option="filters",
            )


def _guard_of(travels: Iterable[Travel[C]]) -> str:
    return free_name("_sqlflow_guard", (item.column.name for item in travels))


def _check_names(columns: Sequence[C], label: str, dialect: Dialect[C]) -> None:
    seen: dict[str, str] = {}
    for column in columns:
        other = seen.setdefault(fold(column.name), column.name)
        if other != column.name:
            raise BadOption(
                f"{label}: its columns {other} and {column.name} have one name, as DuckDB takes it; read it by a "
                f"`query` that gives one of them another: SELECT {dialect.quote(column.name)} AS other, …",
                option="table",
            )


def _check_cursor(travels: Mapping[str, Travel[C]], cursor_field: str | None, label: str) -> None:
    if cursor_field is None:
        return
    item = named(travels, cursor_field)
    if item is None:
        raise SchemaChanged(
            f"{label} has no column {cursor_field!r}, which is the cursor_field; it has {', '.join(travels)}"
        )
    if item.kind == "VARCHAR" and item.order == "none":
        raise SchemaChanged(
            f"{label}: the cursor column {cursor_field!r} is a {item.column.shown}, which is kept as text and has no "
            f'order as such; declare what it is, e.g. "types": {{"{cursor_field}": "DECIMAL(38,9)"}}, or name another '
            "cursor_field"
        )
