"""PYTHON_FUNC in a query → functions registered on its connection, and SQL that calls them."""

from __future__ import annotations

import ast
import datetime as dt
import hashlib
import importlib.util
import inspect
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
from duckdb.func import FunctionNullHandling, PythonUDFType

from sqlflow_dagster import udf
from sqlflow_dagster.errors import ProjectError, QueryFailed
from sqlflow_dagster.language.calls import PythonCall, python_calls
from sqlflow_dagster.sql import Sql, join, literal, quote, sql

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
}


@dataclass
class Functions:
    """The functions of one folder. Files are imported when a query first calls into them."""

    folder: Path
    _modules: dict[Path, tuple[int, types.ModuleType]] = field(default_factory=dict)

    def bind(self, connection: duckdb.DuckDBPyConnection, query: str) -> BoundQuery:
        """Return the query with its PYTHON_FUNC calls made callable on `connection`.

        Table functions are called here, with the tables as they are now.

        Raises QueryFailed with the function's traceback; ProjectError where there is no such
        function or its hints do not say its types.
        """
        bound = BoundQuery(query)
        bound.text = self._rewritten(connection, query, bound)
        return bound

    def find(self, name: str) -> Callable[..., Any]:
        """Return the function `module.function`; a leading `python_udfs.` may be written too."""
        module_name, _, function = name.rpartition(".")
        module_name = module_name.removeprefix(f"{self.folder.name}.")
        if not module_name:
            raise ProjectError(f"PYTHON_FUNC({name!r}): write the module too, as in 'module.function'")
        path = self._path(module_name)
        module = self._module(path, module_name)
        found = getattr(module, function, None) or _by_mark(module, function)
        if not callable(found):
            known = ", ".join(sorted(known_functions(self.folder).get(module_name, ())))
            raise ProjectError(f"{path} has no function {function!r}; it has {known or 'none'}")
        return typing.cast("Callable[..., Any]", found)

    def _path(self, module: str) -> Path:
        stem = self.folder.joinpath(*module.split("."))
        for path in (stem.with_name(stem.name + ".py"), stem / "__init__.py"):
            if path.is_file() and path.resolve().is_relative_to(self.folder.resolve()):
                return path
        raise ProjectError(f"PYTHON_FUNC: there is no {stem.with_name(stem.name + '.py')}")

    def _module(self, path: Path, name: str) -> types.ModuleType:
        stamp = path.stat().st_mtime_ns
        cached = self._modules.get(path)
        if cached and cached[0] == stamp:
            return cached[1]
        module = _import(path, name, self.folder)
        self._modules[path] = (stamp, module)
        return module

    def _rewritten(self, connection: duckdb.DuckDBPyConnection, query: str, bound: BoundQuery) -> str:
        parts: list[str] = []
        position = 0
        for call in python_calls(query):
            parts.append(query[position : call.start])
            function = self.find(call.function)
            if call.table:
                parts.append(_call_table(connection, call, function, bound))
            else:
                parts.append(self._scalar(connection, call, function, bound))
            position = call.end
        return "".join(parts) + query[position:]

    def _scalar(
        self,
        connection: duckdb.DuckDBPyConnection,
        call: PythonCall,
        function: Callable[..., Any],
        bound: BoundQuery,
    ) -> str:
        name = f"_python_{call.function.replace('.', '_')}"
        if name not in bound.registered:
            _register(connection, name, call.function, function, bound)
            bound.registered.add(name)
        texts = [self._rewritten(connection, text, bound) for text in _positional(call, function)]
        return f"{quote(name)}({', '.join(texts)})"


@dataclass
class BoundQuery:
    """A query whose Python functions are registered; `explain` names the one that raised."""

    text: str
    registered: set[str] = field(default_factory=set)
    tracebacks: list[str] = field(default_factory=list)

    def explain(self, error: duckdb.Error) -> QueryFailed:
        """Return the error for people: the function's own traceback where a function raised."""
        if self.tracebacks:
            return QueryFailed(f"a Python function failed:\n{self.tracebacks[0]}")
        return QueryFailed(str(error))


def known_functions(folder: Path) -> Mapping[str, tuple[str, ...]]:
    """Return module name -> function names below `folder`, read from the text, nothing imported."""
    found: dict[str, tuple[str, ...]] = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            found[".".join(parts)] = ()
            continue
        names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        found[".".join(parts)] = tuple(names)
    return found


def _import(path: Path, name: str, folder: Path) -> types.ModuleType:
    digest = hashlib.sha256(str(path).encode()).hexdigest()[:8]
    spec = importlib.util.spec_from_file_location(f"_sqlflow_{digest}_{name.replace('.', '_')}", path)
    if spec is None or spec.loader is None:
        raise ProjectError(f"{path} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    with _own_imports(folder):
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # the edge to users' code: whatever it raises is theirs to see
            raise QueryFailed(f"{path} cannot be imported:\n{_trace(error, path)}") from error
    return module


@contextmanager
def _own_imports(folder: Path) -> Iterator[None]:
    """Let the project's files import each other and the first SQLFlow's decorators, for a moment."""
    before = set(sys.modules)
    lead = [str(folder), str(folder.parent)]
    sys.path[:0] = lead
    if importlib.util.find_spec("sqlflow") is None:
        for name in ("sqlflow", "sqlflow.udfs", "sqlflow.udfs.decorators"):
            shim = types.ModuleType(name)
            shim.__path__ = []
            shim.__dict__.update(
                python_scalar_udf=udf.python_scalar_udf, python_table_udf=udf.python_table_udf
            )
            sys.modules[name] = shim
    try:
        yield
    finally:
        for entry in lead:
            sys.path.remove(entry)
        for name in set(sys.modules) - before:
            file = getattr(sys.modules[name], "__file__", None)
            if name.partition(".")[0] == "sqlflow" or (file and Path(file).is_relative_to(folder)):
                del sys.modules[name]


def _by_mark(module: types.ModuleType, name: str) -> Any:
    for value in vars(module).values():
        mark = getattr(value, udf.MARK, None)
        if mark and mark[1] == name:
            return value
    return None


def _mark(function: Callable[..., Any]) -> udf.Scalar | udf.Table | None:
    mark = getattr(function, udf.MARK, None)
    return mark[0] if mark else None


def _trace(error: BaseException, path: Path | None = None) -> str:
    """The traceback without our own frames."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "sqlflow_dagster" not in f.filename and "importlib" not in f.filename]
    lines = traceback.format_list(own or frames) if path is None or own else []
    return "".join([*lines, *traceback.format_exception_only(error)]).rstrip()


def _register(
    connection: duckdb.DuckDBPyConnection,
    name: str,
    shown: str,
    function: Callable[..., Any],
    bound: BoundQuery,
) -> None:
    parameters, result, arrow = _signature(function, shown)

    def guarded(*values: Any) -> Any:
        try:
            return function(*values)
        except Exception as error:  # the edge to users' code; DuckDB turns it into its own error
            bound.tracebacks.append(_trace(error))
            raise

    connection.create_function(
        name,
        guarded,
        [duckdb.sqltype(text) for text in parameters],
        duckdb.sqltype(result),
        type=PythonUDFType.ARROW if arrow else PythonUDFType.NATIVE,
        null_handling=FunctionNullHandling.SPECIAL,
        side_effects=True,
    )


def _signature(function: Callable[..., Any], shown: str) -> tuple[list[str], str, bool]:
    """Return the DuckDB types of the parameters and the result, and whether it takes Arrow arrays."""
    mark = _mark(function)
    declared = mark if isinstance(mark, udf.Scalar) else udf.Scalar()
    hints = typing.get_type_hints(function)
    names = list(inspect.signature(function).parameters)
    arrow = any(getattr(hint, "__module__", "").startswith("pyarrow") for hint in hints.values())
    if arrow and (declared.parameters is None or declared.return_type is None):
        raise ProjectError(
            f"{shown} takes Arrow arrays, whose hints do not say DuckDB's types: decorate it with "
            "@python_scalar_udf(parameters=[…], return_type=…)"
        )
    parameters = list(declared.parameters) if declared.parameters is not None else None
    if parameters is None:
        parameters = [_type(hints.get(name), f"{shown}: the parameter {name!r}") for name in names]
    result = declared.return_type or _type(hints.get("return"), f"{shown}: the result")
    return parameters, result, arrow


def _type(hint: Any, where: str) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        some = [argument for argument in arguments if argument is not type(None)]
        if len(some) == 1:
            return _type(some[0], where)
    if origin is list and arguments:
        return f"{_type(arguments[0], where)}[]"
    if hint is Decimal:
        raise ProjectError(f"{where} is a Decimal: declare its width with @python_scalar_udf(return_type=…)")
    if hint in _TYPES:
        return _TYPES[hint]
    raise ProjectError(f"{where} needs a type hint that DuckDB has a type for: str, int, float, bool, date …")


def _positional(call: PythonCall, function: Callable[..., Any]) -> list[str]:
    """Return the arguments' texts in the order of the parameters, defaults left to the end."""
    parameters = inspect.signature(function).parameters
    texts: dict[str, str] = {}
    free = iter(parameters)
    for argument in call.arguments:
        name = argument.name or next(free, None)
        if name is None or name not in parameters or name in texts:
            raise ProjectError(
                f"PYTHON_FUNC({call.function!r}): the argument {argument.text!r} fits no parameter"
            )
        texts[name] = argument.text
    missing = [name for name, p in parameters.items() if name not in texts and p.default is p.empty]
    if missing:
        raise ProjectError(f"PYTHON_FUNC({call.function!r}): arguments are missing: {', '.join(missing)}")
    return [texts[name] if name in texts else _default(p.default) for name, p in parameters.items()]


def _default(value: Any) -> str:
    if value is None or isinstance(value, str | int | float | bool | Decimal):
        return literal(value)
    raise ProjectError(f"a default of {value!r} cannot be written in SQL; give the argument in the query")


def _call_table(
    connection: duckdb.DuckDBPyConnection, call: PythonCall, function: Callable[..., Any], bound: BoundQuery
) -> str:
    mark = _mark(function)
    declared = mark if isinstance(mark, udf.Table) else udf.Table()
    if not call.arguments or call.arguments[0].name:
        raise ProjectError(f"PYTHON_FUNC({call.function!r}, table, …) needs a table first")
    first = next(iter(inspect.signature(function).parameters), None)
    hint = typing.get_type_hints(function).get(first or "")
    relation = Sql(call.arguments[0].text)
    try:
        reader = connection.execute(sql("FROM {relation}", relation=relation)).to_arrow_table()
        values = [connection.execute("SELECT " + a.text).fetchone() for a in call.arguments[1:]]
    except duckdb.Error as error:
        raise QueryFailed(f"PYTHON_FUNC({call.function!r}): {error}") from error
    _check_columns(call, declared, reader.column_names)
    positional = [v[0] for v, a in zip(values, call.arguments[1:], strict=True) if v and not a.name]
    named = {a.name: v[0] for v, a in zip(values, call.arguments[1:], strict=True) if v and a.name}
    try:
        result = function(_as(hint, reader), *positional, **named)
    except Exception as error:  # the edge to users' code: whatever it raises is theirs to see
        raise QueryFailed(f"PYTHON_FUNC({call.function!r}) failed:\n{_trace(error)}") from error
    return _store(connection, call, declared, result, len(bound.registered), bound)


def _check_columns(call: PythonCall, declared: udf.Table, columns: list[str]) -> None:
    have = {name.casefold() for name in columns}
    missing = [name for name in declared.required_columns if name.casefold() not in have]
    if missing:
        raise QueryFailed(
            f"PYTHON_FUNC({call.function!r}) requires the columns {', '.join(missing)}; "
            f"its table has {', '.join(columns)}"
        )


def _as(hint: Any, table: Any) -> Any:
    """The argument in the kind that the function's first hint asks for; a DataFrame by default."""
    name = getattr(hint, "__name__", "")
    if getattr(hint, "__module__", "").startswith("pyarrow"):
        return table.to_reader() if name == "RecordBatchReader" else table
    return table.to_pandas()


def _store(
    connection: duckdb.DuckDBPyConnection,
    call: PythonCall,
    declared: udf.Table,
    result: Any,
    number: int,
    bound: BoundQuery,
) -> str:
    import pyarrow as pa  # noqa: PLC0415 - only where a table function is called

    if hasattr(result, "read_all"):
        result = result.read_all()
    elif not isinstance(result, pa.Table):
        if not hasattr(result, "columns"):
            raise QueryFailed(f"PYTHON_FUNC({call.function!r}) returned {type(result).__name__}, not a table")
        result = pa.Table.from_pandas(result, preserve_index=False)
    raw, name = f"_python_raw_{number}", f"_python_table_{number}"
    bound.registered |= {raw, name}
    connection.register(raw, result)
    columns = _output(call, declared, result.column_names)
    try:
        connection.execute(
            sql(
                "CREATE TEMP TABLE {name} AS SELECT {columns} FROM {raw}",
                name=quote(name),
                columns=columns,
                raw=quote(raw),
            )
        )
    except duckdb.Error as error:
        raise QueryFailed(f"PYTHON_FUNC({call.function!r}): its result does not fit: {error}") from error
    finally:
        connection.unregister(raw)
    return quote("temp", name)


def _output(call: PythonCall, declared: udf.Table, columns: list[str]) -> Sql:
    if declared.infer or not declared.output_schema:
        return Sql("*")
    have = {name.casefold(): name for name in columns}
    missing = [name for name in declared.output_schema if name.casefold() not in have]
    extra = set(have) - {name.casefold() for name in declared.output_schema}
    if missing or extra:
        wrong = [*(f"{name} is missing" for name in missing), *(f"{have[e]} is not declared" for e in extra)]
        raise QueryFailed(f"PYTHON_FUNC({call.function!r}): output_schema: {'; '.join(sorted(wrong))}")
    return join(
        ", ",
        (
            sql(
                "CAST({column} AS {type}) AS {name}",
                column=quote(have[name.casefold()]),
                type=Sql(str(duckdb.sqltype(type_text))),
                name=quote(name),
            )
            for name, type_text in declared.output_schema.items()
        ),
    )
