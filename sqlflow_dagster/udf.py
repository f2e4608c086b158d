"""Decorators for the functions that PYTHON_FUNC calls; they note how to call one and change nothing.

A function with type hints needs no decorator. `sqlflow.udfs` offers the same names to projects
written for the first SQLFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

_F = TypeVar("_F", bound=Callable[..., Any])
MARK = "__sqlflow_udf__"


@dataclass(frozen=True, slots=True)
class Scalar:
    """A function of values: DuckDB types where the hints do not say enough, e.g. `DECIMAL(10,2)`."""

    return_type: str | None = None
    parameters: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """A function of a table: what its result's columns are, or `infer` to take them as they come."""

    output_schema: Mapping[str, str] | None = None
    required_columns: tuple[str, ...] = ()
    infer: bool = False


@overload
def python_scalar_udf(function: _F, /) -> _F: ...
@overload
def python_scalar_udf(
    *, return_type: str | None = None, parameters: Sequence[str] | None = None, name: str | None = None
) -> Callable[[_F], _F]: ...
def python_scalar_udf(
    function: Any = None,
    /,
    *,
    return_type: str | None = None,
    parameters: Sequence[str] | None = None,
    name: str | None = None,
) -> Any:
    """Return the function, marked as one of values; `name` is what SQL calls it, its own by default."""
    return _marked(function, Scalar(return_type, tuple(parameters) if parameters is not None else None), name)


@overload
def python_table_udf(function: _F, /) -> _F: ...
@overload
def python_table_udf(
    *,
    output_schema: Mapping[str, str] | None = None,
    required_columns: Sequence[str] | None = None,
    infer: bool = False,
    name: str | None = None,
) -> Callable[[_F], _F]: ...
def python_table_udf(
    function: Any = None,
    /,
    *,
    output_schema: Mapping[str, str] | None = None,
    required_columns: Sequence[str] | None = None,
    infer: bool = False,
    name: str | None = None,
) -> Any:
    """Return the function, marked as one of a table.

    `output_schema` maps the result's columns to DuckDB types; without it, or with `infer`, the
    result's own types are taken. `required_columns` are checked before the call.
    """
    return _marked(function, Table(output_schema, tuple(required_columns or ()), infer), name)


def mark_of(function: Any) -> Scalar | Table | None:
    """Return what a decorator noted on the function, None where there was none."""
    mark: Scalar | Table | None = getattr(function, MARK, (None, ""))[0]
    return mark


def _marked(function: Any, mark: Scalar | Table, name: str | None) -> Any:
    def put(target: Any) -> Any:
        setattr(target, MARK, (mark, name or target.__name__))
        return target

    return put if function is None else put(function)
