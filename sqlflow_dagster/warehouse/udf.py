"""PYTHON_FUNC in a query → functions registered on its connection, and SQL that calls them.

The query keeps its lines, so that DuckDB's errors point where the user wrote them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from threading import Event
from typing import Any

from duckdb import DuckDBPyConnection

from sqlflow_dagster import udf
from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.language.calls import Argument, PythonCall, python_calls
from sqlflow_dagster.language.tokens import scan
from sqlflow_dagster.sql import Sql, join, literal, quote, sql
from sqlflow_dagster.warehouse.modules import known_functions, module
from sqlflow_dagster.warehouse.scalar import gives_a_value, register, signature
from sqlflow_dagster.warehouse.table_function import call_table
from sqlflow_dagster.warehouse.with_clauses import identifier, named_queries

__all__ = ["BoundQuery", "Functions", "known_functions"]


@dataclass(frozen=True, slots=True)
class BoundQuery:
    """A query that its connection can run, the functions made for it, and what they raised."""

    text: Sql
    registered: tuple[str, ...] = ()
    tracebacks: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Functions:
    """The functions of one folder. Files are imported when a query first calls into them.

    Once `stopped` is set no function of values is called any more: the query fails.
    """

    folder: Path
    stopped: Event = field(default_factory=Event)

    def bind(self, connection: DuckDBPyConnection, query: str) -> BoundQuery:
        """Return the query with its PYTHON_FUNC calls made callable on `connection`.

        Table functions are called here, with the tables as they are now.

        Raises QueryFailed with a table function's traceback; ProjectError where there is no such
        function or its hints do not say its types.
        """
        calls = tuple(_all_calls(query, 0))
        if not calls:
            return BoundQuery(Sql(query))
        binding = _Binding(self, connection, query, calls)
        text = binding.rewritten(0, len(query))
        return BoundQuery(Sql(text), tuple(binding.registered), binding.tracebacks)

    def find(self, name: str) -> Callable[..., Any]:
        """Return the function `module.function`; a leading `python_udfs.` may be written too.

        Raises ProjectError naming what there is, where there is no such function.
        """
        own = name.removeprefix(f"{self.folder.name}.")
        inside, _, function = own.rpartition(".")
        if not inside and own == name:
            raise ProjectError(f"PYTHON_FUNC({name!r}): write the module too, as in 'module.{name}'")
        found = module(self.folder, inside)
        candidate = getattr(found, function, None) or _by_declared_name(vars(found).values(), function)
        if callable(candidate):
            return candidate  # type: ignore[no-any-return]  # whatever a user's module holds
        known = known_functions(self.folder).get(inside, ())
        near = get_close_matches(function, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
        raise ProjectError(
            f"PYTHON_FUNC({name!r}): {inside or self.folder.name} has no such function; {hint}"
        )


def without_names(query: str) -> str:
    """Return the query with blanks for the names of PYTHON_FUNC's arguments, which SQL may not parse."""
    text = query
    for call in _all_calls(query, 0):
        position = call.start
        for argument in call.arguments:
            if argument.name:
                start = position + query[position : argument.start].rindex(argument.name)
                text = text[:start] + " " * (argument.start - start) + text[argument.start :]
            position = argument.end
    return text


def _by_declared_name(values: Any, name: str) -> Any:
    return next((value for value in values if getattr(value, udf.MARK, (None, None))[1] == name), None)


def _all_calls(text: str, offset: int, lead: str = "") -> Iterator[PythonCall]:
    """Yield the calls in a part of a query and those inside their arguments, placed in the whole."""
    for call in python_calls(lead + text):
        shift = offset - len(lead)
        arguments = tuple(replace(a, start=a.start + shift, end=a.end + shift) for a in call.arguments)
        yield replace(call, arguments=arguments, start=call.start + shift, end=call.end + shift)
        for index, argument in enumerate(arguments):
            # The first argument of a table function is a table itself.
            place = "FROM " if call.table and index == 0 else ""
            yield from _all_calls(argument.text, argument.start, place)


@dataclass(slots=True)
class _Binding:
    """The work of one `bind`: `registered` are the names made on the connection."""

    functions: Functions
    connection: DuckDBPyConnection
    query: str
    calls: tuple[PythonCall, ...]
    registered: dict[str, tuple[str, tuple[str | None, ...]]] = field(default_factory=dict)
    tracebacks: list[str] = field(default_factory=list)
    _done: dict[int, str] = field(default_factory=dict)

    def rewritten(self, start: int, end: int) -> str:
        """Return `query[start:end]` with its calls replaced."""
        parts: list[str] = []
        for call in self.calls:
            if call.start >= start and call.end <= end:
                parts += [self.query[start : call.start], self._replacement(call)]
                start = call.end
        return "".join(parts) + self.query[start:end]

    def _replacement(self, call: PythonCall) -> str:
        # A WITH query may be asked for twice: by itself, and by a table function that reads it.
        if call.start not in self._done:
            function = self.functions.find(call.function)
            is_table = call.table and not gives_a_value(function)
            text = self._table(call, function) if is_table else self._value(call, function)
            self._done[call.start] = text
        return self._done[call.start]

    def _value(self, call: PythonCall, function: Callable[..., Any]) -> str:
        """The call by its registered name; whatever stands between the arguments stays."""
        shown = call.function.removeprefix(f"{self.functions.folder.name}.")
        names, starts = self._given(call, function)
        name = self._registered(shown, function, names)
        text, position = f"{quote(name)}(", call.start
        for index, (argument, start) in enumerate(zip(call.arguments, starts, strict=True)):
            between = self.query[position:start]
            text += ("," if index else "") + "\n" * between.count("\n")
            text += self.rewritten(start, argument.end)
            position = argument.end
        return text + "\n" * self.query[position : call.end].count("\n") + ")"

    def _given(
        self, call: PythonCall, function: Callable[..., Any]
    ) -> tuple[tuple[str | None, ...], list[int]]:
        """Which parameter each argument names, and where its value begins.

        `a = b` names a parameter only where the function has an `a`; else it is a comparison.
        """
        known = inspect.signature(function).parameters
        names: list[str | None] = []
        starts: list[int] = []
        position = call.start
        for argument in call.arguments:
            name, start = argument.name, argument.start
            if name is not None and name not in known:
                start = position + self.query[position:start].rindex(name)
                name = None
            names.append(name)
            starts.append(start)
            position = argument.end
        return tuple(names), starts

    def _registered(self, shown: str, function: Callable[..., Any], names: tuple[str | None, ...]) -> str:
        """The name under which DuckDB knows this way of calling the function."""
        wanted = (shown, (*names, "") if any(names) else (str(len(names)),))
        for name, known in self.registered.items():
            if known == wanted:
                return name
        # DuckDB's function names do not differ by case; ours must.
        taken = {name.casefold() for name in self.registered}
        name, number = shown, 2
        while name.casefold() in taken:
            name, number = f"{shown} ({number})", number + 1
        wished = signature(function, shown, names)
        register(self.connection, name, function, wished, self.tracebacks, self.functions.stopped)
        self.registered[name] = wanted
        return name

    def _table(self, call: PythonCall, function: Callable[..., Any]) -> str:
        shown = call.function.removeprefix(f"{self.functions.folder.name}.")
        if not call.arguments or call.arguments[0].name:
            raise ProjectError(f"PYTHON_FUNC({shown!r}) after FROM needs a table or a (query) first")
        name = quote("temp", f"_python_{len(self.registered) + 1}")
        self.registered[name] = (shown, ())
        call_table(
            self.connection,
            shown,
            function,
            self._relation(call.arguments[0]),
            [(argument.name, self._constant(argument)) for argument in call.arguments[1:]],
            name,
        )
        return name + "\n" * self.query[call.start : call.end].count("\n")

    def _relation(self, argument: Argument) -> Sql:
        """A query for the table that the function reads, with the WITH queries that it may name."""
        named = named_queries(self.query, argument.start)
        text = Sql(self.rewritten(argument.start, argument.end))
        relation = sql("FROM {text}", text=text)
        if not named:
            return relation
        bodies = join(", ", (Sql(self.rewritten(query.start, query.end)) for query in named))
        lead = Sql("WITH RECURSIVE" if any(query.recursive for query in named) else "WITH")
        return sql("{lead} {bodies}\n{relation}", lead=lead, bodies=bodies, relation=relation)

    def _constant(self, argument: Argument) -> Sql:
        """An argument after the table: there is no row to take a column from, so `"a"` is a text."""
        tokens = list(scan(argument.text))
        if len(tokens) == 1 and tokens[0].kind == "quoted":
            return literal(identifier(tokens[0]))
        return Sql(self.rewritten(argument.start, argument.end))
