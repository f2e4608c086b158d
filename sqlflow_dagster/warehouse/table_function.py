"""A Python function of a table, called with a relation → a temporary table with its result.

The relation arrives as what the function's first type hint says: a pandas DataFrame (the default),
a pyarrow Table, or a RecordBatchReader, which is read and answered a batch at a time. Nothing of a
value is lost on the way out: a column that does not fit its declared type is an error that names it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection

from sqlflow_dagster import udf
from sqlflow_dagster.errors import ProjectError, QueryFailed
from sqlflow_dagster.sql import Sql, fold, join, sql
from sqlflow_dagster.warehouse import tables
from sqlflow_dagster.warehouse.answer import store
from sqlflow_dagster.warehouse.frames import opened, spooled, to_arrow
from sqlflow_dagster.warehouse.modules import trace
from sqlflow_dagster.warehouse.scalar import hints


def call_table(
    connection: DuckDBPyConnection,
    shown: str,
    function: Callable[..., Any],
    relation: Sql,
    arguments: Sequence[tuple[str | None, Sql]],
    name: Sql,
) -> None:
    """Call the function with the rows of `relation` and store its result as the table `name`.

    `relation` is a query, `arguments` are names (None where positional) and SQL values.

    Raises QueryFailed with the function's traceback, or naming the column that is missing or does
    not fit; ProjectError where the call does not fit the function.
    """
    declared = udf.mark_of(function) or udf.Table()
    if isinstance(declared, udf.Scalar):
        raise ProjectError(f"PYTHON_FUNC({shown!r}) is a function of values and cannot stand after FROM")
    given = tables.columns(connection, Sql(f"({relation}\n)"))
    _check_required(shown, declared, given)
    positional, named = _values(connection, function, shown, arguments)
    first = hints(function).get(next(iter(inspect.signature(function).parameters), ""))
    with opened(connection, relation, first) as rows:
        try:
            answer = spooled(connection, to_arrow(function(rows, *positional, **named), shown))
        except QueryFailed:
            raise
        except Exception as error:  # the edge to users' code: whatever it raises is theirs to see
            raise QueryFailed(f"PYTHON_FUNC({shown!r}) failed:\n{trace(error)}") from error
    store(connection, shown, declared, answer, given, name)


def _check_required(shown: str, declared: udf.Table, given: Mapping[str, str]) -> None:
    have = {fold(name) for name in given}
    missing = [name for name in declared.required_columns if fold(name) not in have]
    if missing:
        raise QueryFailed(
            f"PYTHON_FUNC({shown!r}) requires the columns {', '.join(missing)}; its table has {', '.join(given)}"
        )


def _values(
    connection: DuckDBPyConnection,
    function: Callable[..., Any],
    shown: str,
    arguments: Sequence[tuple[str | None, Sql]],
) -> tuple[list[Any], dict[str, Any]]:
    """The arguments after the table, evaluated, in the kind that the function's hints ask for."""
    texts = join(", ", (sql("({value}\n)", value=value) for _name, value in arguments))
    try:
        row = connection.execute(sql("SELECT {texts}", texts=texts)).fetchone() if arguments else ()
    except duckdb.Error as error:
        raise QueryFailed(f"PYTHON_FUNC({shown!r}): its arguments after the table: {error}") from error
    values = [(name, value) for (name, _sql), value in zip(arguments, row or (), strict=True)]
    positional = [value for name, value in values if name is None]
    named = {name: value for name, value in values if name is not None}
    try:
        bound = inspect.signature(function).bind(None, *positional, **named)
    except TypeError as error:
        raise ProjectError(
            f"PYTHON_FUNC({shown!r}): {error}; it is {function.__name__}{inspect.signature(function)}"
        ) from error
    known = hints(function)
    names = list(bound.arguments)[1:]
    return (
        [_literal(value, known.get(name)) for name, value in zip(names, positional, strict=False)]
        + positional[len(names) :],
        {name: _literal(value, known.get(name)) for name, value in named.items()},
    )


def _literal(value: Any, hint: Any) -> Any:
    """`0.5` is a decimal to SQL and a float to Python."""
    return float(value) if isinstance(value, Decimal) and hint is not Decimal else value
