"""A Python function of values → a function of DuckDB's, with types from its hints.

The function is called with None for NULL. What it returns is stored exactly or not at all: a result
that its type would round is an error.
"""

from __future__ import annotations

import datetime as dt
import inspect
import math
import types
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from threading import Event
from typing import Any

import duckdb
from duckdb import DuckDBPyConnection
from duckdb.func import FunctionNullHandling, PythonUDFType

from sqlflow_dagster import udf
from sqlflow_dagster.errors import Canceled, ProjectError
from sqlflow_dagster.warehouse.modules import trace

_TYPES: Mapping[Any, str] = {
    str: "VARCHAR",
    int: "BIGINT",
    float: "DOUBLE",
    bool: "BOOLEAN",
    bytes: "BLOB",
    dt.date: "DATE",
    dt.datetime: "TIMESTAMP",
    dt.time: "TIME",
    dt.timedelta: "INTERVAL",
    uuid.UUID: "UUID",
}
_ARROW_TYPES: Mapping[str, str] = {
    "Int8Array": "TINYINT",
    "Int16Array": "SMALLINT",
    "Int32Array": "INTEGER",
    "Int64Array": "BIGINT",
    "UInt8Array": "UTINYINT",
    "UInt16Array": "USMALLINT",
    "UInt32Array": "UINTEGER",
    "UInt64Array": "UBIGINT",
    "FloatArray": "FLOAT",
    "DoubleArray": "DOUBLE",
    "BooleanArray": "BOOLEAN",
    "StringArray": "VARCHAR",
    "LargeStringArray": "VARCHAR",
    "BinaryArray": "BLOB",
    "Date32Array": "DATE",
    "TimestampArray": "TIMESTAMP",
}
_WHOLE = frozenset(
    ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT")
)
_ANY = "ANY"


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter that a call fills: its DuckDB type, and how Python is given it."""

    name: str
    type: str
    hint: Any
    keyword: bool


@dataclass(frozen=True, slots=True)
class Signature:
    """Types of one call's arguments and of the result; `arrow` functions take whole columns."""

    parameters: tuple[Parameter, ...]
    result: str
    result_hint: Any
    arrow: bool


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the type hints by name; one that cannot be resolved here stays the text it is."""
    try:
        return typing.get_type_hints(function)
    except NameError:
        # A name that is imported for type checkers only.
        return {name: _resolved(hint, function) for name, hint in inspect.get_annotations(function).items()}


def is_arrow(hint: Any) -> bool:
    """Whether a hint is one of pyarrow's classes."""
    if isinstance(hint, str):
        return hint.startswith(("pa.", "pyarrow."))
    return getattr(hint, "__module__", "").startswith("pyarrow")


def gives_a_value(function: Callable[..., Any]) -> bool:
    """Whether a function says by its decorator or its result's hint that it is one of values."""
    mark = udf.mark_of(function)
    if mark is not None:
        return isinstance(mark, udf.Scalar)
    hint = _plain(hints(function).get("return"))
    return isinstance(hint, typing.Hashable) and (hint in _TYPES or hint is Decimal)


def signature(function: Callable[..., Any], shown: str, given: Sequence[str | None]) -> Signature:
    """Return the types of a call whose arguments are `given`: a name each, None where positional.

    Raises ProjectError where the arguments do not fit the parameters or the hints do not say
    the types.
    """
    known = hints(function)
    mark = udf.mark_of(function)
    if isinstance(mark, udf.Table):
        raise ProjectError(
            f"PYTHON_FUNC({shown!r}) gives a table: use it as FROM PYTHON_FUNC({shown!r}, table)"
        )
    declared = mark or udf.Scalar()
    written = dict(zip(inspect.signature(function).parameters, declared.parameters or (), strict=False))
    parameters = []
    for name, keyword in _filled(function, shown, given):
        kind = written.get(name) or _parameter_type(known.get(name), f"{shown}: {name!r}")
        parameters.append(Parameter(name, kind, known.get(name), keyword))
    arrow = any(is_arrow(parameter.hint) for parameter in parameters) or is_arrow(known.get("return"))
    result = declared.return_type or _result_type(known.get("return"), shown)
    return Signature(tuple(parameters), result, known.get("return"), arrow)


def register(
    connection: DuckDBPyConnection,
    name: str,
    function: Callable[..., Any],
    wanted: Signature,
    tracebacks: list[str],
    stopped: Event,
) -> None:
    """Make the function callable as `name`; a traceback of what it raises goes to `tracebacks`.

    DuckDB looks for an interrupt after thousands of calls only: each one asks whether it is `stopped`.
    """
    adapt = _column_out if wanted.arrow else _value_out
    prepare = _column_in if wanted.arrow else _value_in
    positional = [i for i, p in enumerate(wanted.parameters) if not p.keyword]
    keywords = [(i, p.name) for i, p in enumerate(wanted.parameters) if p.keyword]

    def guarded(*values: Any) -> Any:
        if stopped.is_set():
            raise Canceled(f"{name}: the run was canceled")
        try:
            ready = [prepare(value, p.hint) for value, p in zip(values, wanted.parameters, strict=True)]
            result = function(*(ready[i] for i in positional), **{n: ready[i] for i, n in keywords})
            return adapt(result, wanted.result.upper())
        except Exception as error:  # the edge to users' code; DuckDB makes an error of its own of it
            tracebacks.append(trace(error))
            raise

    try:
        # DuckDB takes the types from the signature, where one without annotation may be anything.
        vars(guarded)["__signature__"] = _duckdb_signature(wanted)
        connection.create_function(
            name,
            guarded,
            None,
            duckdb.sqltype(wanted.result),
            type=PythonUDFType.ARROW if wanted.arrow else PythonUDFType.NATIVE,
            null_handling=FunctionNullHandling.SPECIAL,
            side_effects=True,
        )
    except duckdb.Error as error:
        raise ProjectError(f"PYTHON_FUNC({name!r}): {error}") from error


def _resolved(hint: Any, function: Callable[..., Any]) -> Any:
    if not isinstance(hint, str):
        return hint
    probe = types.SimpleNamespace(__annotations__={"it": hint}, __module__="builtins")
    try:
        return typing.get_type_hints(probe, function.__globals__)["it"]
    except NameError:
        return hint


def _filled(function: Callable[..., Any], shown: str, given: Sequence[str | None]) -> list[tuple[str, bool]]:
    """Return which parameter each argument fills, and whether by its name."""
    places = {index if name is None else name: index for index, name in enumerate(given)}
    if len(places) < len(given):
        twice = next(name for name in given if name is not None and given.count(name) > 1)
        raise ProjectError(f"PYTHON_FUNC({shown!r}): {twice!r} is given twice")
    try:
        bound = inspect.signature(function).bind(
            *(place for place in places if isinstance(place, int)),
            **{place: place for place in places if isinstance(place, str)},
        )
    except TypeError as error:
        raise ProjectError(
            f"PYTHON_FUNC({shown!r}): {error}; it is {shown.rpartition('.')[2]}{inspect.signature(function)}"
        ) from error
    filled: dict[int, tuple[str, bool]] = {}
    for name, value in bound.arguments.items():
        kind = inspect.signature(function).parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL:
            filled |= {places[item]: (name, False) for item in value}
        elif kind is inspect.Parameter.VAR_KEYWORD:
            raise ProjectError(f"PYTHON_FUNC({shown!r}): it has no parameter {next(iter(value))!r}")
        else:
            filled[places[value]] = (name, isinstance(value, str))
    return [filled[index] for index in range(len(given))]


def _parameter_type(hint: Any, where: str) -> str:
    if hint is None or hint is Any or _plain(hint) is Decimal:
        return _ANY
    # Sums are HUGEINT; every narrower integer becomes one by itself.
    return "HUGEINT" if _plain(hint) is int else _type(hint, where)


def _result_type(hint: Any, shown: str) -> str:
    if _plain(hint) is Decimal:
        raise ProjectError(
            f"{shown} returns a Decimal, which has no width: decorate it with "
            '@python_scalar_udf(return_type="DECIMAL(18,2)")'
        )
    return _type(hint, f"{shown}: the result")


def _plain(hint: Any) -> Any:
    """The hint without `| None`."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        some = [argument for argument in typing.get_args(hint) if argument is not type(None)]
        if len(some) == 1:
            return some[0]
        if set(some) == {int, float}:
            return float
    return hint


def _type(hint: Any, where: str) -> str:
    plain = _plain(hint)
    arguments = typing.get_args(plain)
    if typing.get_origin(plain) in (list, Sequence) and arguments:
        return f"{_type(arguments[0], where)}[]"
    if typing.get_origin(plain) in (dict, Mapping) and len(arguments) == 2:
        return f"MAP({_type(arguments[0], where)}, {_type(arguments[1], where)})"
    if typing.get_origin(plain) is typing.Literal:
        return _type(type(arguments[0]), where)
    if is_arrow(plain):
        name = plain.rpartition(".")[2] if isinstance(plain, str) else plain.__name__
        if name in _ARROW_TYPES:
            return _ARROW_TYPES[name]
        raise ProjectError(
            f"{where}: {name} does not say what it holds; hint pa.Int64Array or the like, or decorate the "
            'function with @python_scalar_udf(parameters=["BIGINT"], return_type="BIGINT")'
        )
    if isinstance(plain, typing.Hashable) and plain in _TYPES:
        return _TYPES[plain]
    raise ProjectError(
        f"{where} needs a type hint that DuckDB has a type for: str, int, float, bool, date, datetime, "
        "list[str] …, or a declared one: @python_scalar_udf(parameters=[…], return_type=…)"
    )


def _duckdb_signature(wanted: Signature) -> inspect.Signature:
    kind = inspect.Parameter.POSITIONAL_ONLY
    return inspect.Signature(
        [
            inspect.Parameter(
                f"p{index}",
                kind,
                annotation=inspect.Parameter.empty if p.type == _ANY else duckdb.sqltype(p.type),
            )
            for index, p in enumerate(wanted.parameters)
        ]
    )


def _value_in(value: Any, hint: Any) -> Any:
    if isinstance(value, int | float) and _plain(hint) is Decimal:
        return Decimal(str(value))
    return value


def _column_in(value: Any, hint: Any) -> Any:
    """DuckDB gives chunked arrays; a hint of a plain array gets one."""
    name = hint if isinstance(hint, str) else getattr(hint, "__name__", "")
    return value if name.endswith("ChunkedArray") or not is_arrow(hint) else value.combine_chunks()


def _column_out(result: Any, kind: str) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - only where a function uses it

    array = result if isinstance(result, pa.Array | pa.ChunkedArray) else pa.array(result)
    exact = pa.types.is_integer(array.type) or not (kind in _WHOLE and pa.types.is_primitive(array.type))
    # DuckDB would round; Arrow's cast raises where a value has a fraction.
    return array if exact else array.cast(pa.int64())


def _value_out(value: Any, kind: str) -> Any:
    if hasattr(value, "item") and hasattr(value, "dtype"):
        value = value.item()  # NumPy's scalars are no values to DuckDB
    if kind in _WHOLE and isinstance(value, bool):
        return int(value)
    if not isinstance(value, float | Decimal):
        return value
    if kind in _WHOLE and (not math.isfinite(value) or value % 1):
        raise TypeError(f"it returned {value!r}, which is no whole number as its type says")
    # DuckDB's client takes a NaN for NULL, but reads the text as what it is.
    return "nan" if kind in ("DOUBLE", "FLOAT") and math.isnan(value) else value
