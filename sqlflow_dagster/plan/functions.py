"""PYTHON_FUNC calls → what is wrong with them, by the text of `python_udfs/`; nothing is imported.

What only an import would tell (a decorator of others, `import *`, names made by code) counts as right.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from sqlflow_dagster.language import tree
from sqlflow_dagster.language.calls import PythonCall, python_calls
from sqlflow_dagster.plan.bodies import Body
from sqlflow_dagster.plan.placed import noted
from sqlflow_dagster.plan.report import Report

_OURS = ("python_scalar_udf", "python_table_udf")
_VALUES = frozenset(
    ("str", "int", "float", "bool", "bytes", "date", "datetime", "time", "timedelta", "UUID", "Decimal")
)
_MAKERS = frozenset(("exec", "eval", "globals", "locals", "vars", "setattr", "sys"))
_MODULE = re.compile(r"\w+(?:\.\w+)*|")


def check_functions(bodies: Iterable[Body], folder: Path, report: Report) -> None:
    """Note each call of a function that `folder` does not have, or with arguments that do not fit it."""
    library = _Library(folder)
    for body in bodies:
        if "python_func" not in body.query.sql.casefold():
            continue
        statement = body.placed.statement
        with noted(report, body.placed.script, body.query.span):
            for call in _all_calls(body.text, 0):
                fault = library.fault(call)
                if isinstance(statement, tree.Create) and statement.view:
                    fault = "a VIEW cannot call PYTHON_FUNC, which lives only in a run", "make it a TABLE"
                if fault:
                    report.problem(body.placed.script, body.span_of(call.start), *fault)


def _all_calls(text: str, offset: int, lead: str = "") -> Iterator[PythonCall]:
    """The calls in a text and those in their arguments, by their places in the whole."""
    for call in python_calls(lead + text):
        shift = offset - len(lead)
        yield replace(call, start=call.start + shift, end=call.end + shift)
        for index, argument in enumerate(call.arguments):
            # The first argument of a table function is a table itself.
            place = "FROM " if call.table and index == 0 else ""
            yield from _all_calls(argument.text, argument.start + shift, place)


@dataclass(frozen=True, slots=True)
class _Function:
    """What a module's text says of one of its functions.

    `arguments` is None where they are not certain, `gives` is "" where the kind of result is not.
    """

    name: str
    arguments: ast.arguments | None = None
    gives: str = ""  # value, table

    def __str__(self) -> str:
        """Its name with its parameters as they are written."""
        return f"{self.name}({ast.unparse(self.arguments) if self.arguments else '…'})"


@dataclass
class _Module:
    """The names of one file; `certain` says that it has no others."""

    functions: dict[str, _Function] = field(default_factory=dict)
    certain: bool = True
    broken: str = ""


@dataclass
class _Library:
    folder: Path
    _modules: dict[str, _Module | None] = field(default_factory=dict)

    def fault(self, call: PythonCall) -> tuple[str, str] | None:
        """What is wrong with a call, and what to write instead."""
        name, own = call.function, call.function.removeprefix(f"{self.folder.name}.")
        inside, _, function = own.rpartition(".")
        if not inside and own == name:
            return f"PYTHON_FUNC({name!r}) does not say the module", f"write 'module.{name}'"
        module = self._module(inside)
        if module is None:
            return self._no_module(inside)
        if module.broken:
            return f"PYTHON_FUNC({name!r}): {module.broken}", "mend the file"
        found = module.functions.get(function)
        if found:
            return _misfit(call, found)
        if not module.certain:
            return None
        known = list(module.functions)
        near = difflib.get_close_matches(function, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known) or 'none'}"
        return f"{inside or self.folder.name} has no function {function!r}", hint

    def _no_module(self, name: str) -> tuple[str, str]:
        paths = [path.relative_to(self.folder) for path in sorted(self.folder.rglob("*.py"))]
        parts = (
            path.parent.parts if path.stem == "__init__" else path.with_suffix("").parts for path in paths
        )
        known = [".".join(part) for part in parts if part]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known[:10]) or 'none'}"
        return f"there is no module {name!r} in {self.folder.name}/", hint

    def _module(self, name: str) -> _Module | None:
        if name not in self._modules:
            self._modules[name] = self._read(name)
        return self._modules[name]

    def _read(self, name: str) -> _Module | None:
        if not _MODULE.fullmatch(name):
            return None
        stem = self.folder.joinpath(*name.split(".")) if name else self.folder
        for path in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py"):
            if path.is_file():
                return _parsed(path, path.relative_to(self.folder.parent).as_posix())
        return None


def _parsed(path: Path, shown: str) -> _Module:
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        return _Module(broken=f"{shown}{line} is no Python: {getattr(error, 'msg', error)}")
    except OSError as error:
        return _Module(broken=f"{shown} cannot be read: {error.strerror}")
    module = _Module()
    _collect(body, module)
    return module


def _collect(body: Sequence[ast.stmt], module: _Module) -> None:
    for node in body:
        match node:
            case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
                pass  # what the file does as a program
            case ast.If() | ast.Try() | ast.With() | ast.For() | ast.While():
                for part in ("body", "orelse", "finalbody"):
                    _collect(getattr(node, part, []), module)
                for handler in getattr(node, "handlers", []):
                    _collect(handler.body, module)
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                _add(module, _described(node))
            case _:
                _add(module, map(_Function, _bound(node)))
                module.certain = module.certain and not any(map(_makes_names, ast.walk(node)))


def _bound(node: ast.stmt) -> Iterator[str]:
    """The names that an import or an assignment makes."""
    match node:
        case ast.ImportFrom(names=names) | ast.Import(names=names):
            yield from (alias.asname or alias.name.partition(".")[0] for alias in names)
        case ast.Assign(targets=targets):
            yield from (part.id for t in targets for part in ast.walk(t) if isinstance(part, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.AugAssign(target=ast.Name(id=name)):
            yield name


def _makes_names(node: ast.AST) -> bool:
    """Whether it is a way of Python to make names that stand nowhere: `globals()["f"] = …`."""
    return isinstance(node, ast.Name) and node.id in _MAKERS


def _add(module: _Module, functions: Iterable[_Function]) -> None:
    for function in functions:
        if function.name in ("*", "__getattr__"):
            module.certain = False
        twin = function.name in module.functions
        module.functions[function.name] = _Function(function.name) if twin else function


def _described(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> list[_Function]:
    """A function under its own name, and under that which our decorator gives it."""
    marks = [(mark, _decorator(mark)) for mark in node.decorator_list]
    if not isinstance(node, ast.FunctionDef) or any(name not in _OURS for _mark, name in marks):
        return [_Function(node.name)]
    gives = "value" if isinstance(node.returns, ast.expr) and _last_name(node.returns) in _VALUES else ""
    names = [node.name]
    for mark, name in marks:
        gives = "value" if name == _OURS[0] else "table"
        keywords = {k.arg: k.value for k in mark.keywords} if isinstance(mark, ast.Call) else {}
        if isinstance(called := keywords.get("name"), ast.Constant):
            names.append(str(called.value))
    return [_Function(name, node.args, gives) for name in dict.fromkeys(names)]


def _decorator(node: ast.expr) -> str:
    return _last_name(node.func if isinstance(node, ast.Call) else node)


def _last_name(node: ast.expr) -> str:
    """The name that `a.b.name` ends in, and that a hint in quotes is."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Constant(value=str(text)):
            return text.rpartition(".")[2]
    return ""


def _misfit(call: PythonCall, function: _Function) -> tuple[str, str] | None:
    shown = f"PYTHON_FUNC({call.function!r})"
    if function.gives == "table" and not call.table:
        return f"{shown} gives a table, and a value stands here", f"write FROM {shown[:-1]}, table)"
    as_table = call.table and function.gives != "value"
    if as_table and (not call.arguments or call.arguments[0].name):
        return f"{shown} after FROM needs a table or a (query) first", f"write FROM {shown[:-1]}, table)"
    if function.arguments is None:
        return None
    parameters = _parameters(function.arguments)
    # In a value `a = b` is a comparison where there is no parameter of that name.
    names = [a.name if as_table or a.name in parameters else None for a in call.arguments]
    positional = [name for name in names if name is None]
    named = [name for name in names if name is not None]
    if len(set(named)) < len(named):
        twice = next(name for name in named if named.count(name) > 1)
        return f"{shown}: {twice!r} is given twice", "keep one of them"
    try:
        inspect.Signature(list(parameters.values())).bind(*positional, **dict.fromkeys(named))
    except TypeError as error:
        return f"{shown}: {error}", f"it is {function}"
    return None


def _parameters(given: ast.arguments) -> Mapping[str, inspect.Parameter]:
    kinds = inspect.Parameter
    plain = [*given.posonlyargs, *given.args]
    first_default = len(plain) - len(given.defaults)
    found: list[inspect.Parameter] = []
    for index, argument in enumerate(plain):
        kind = kinds.POSITIONAL_ONLY if index < len(given.posonlyargs) else kinds.POSITIONAL_OR_KEYWORD
        found.append(kinds(argument.arg, kind, default=None if index >= first_default else kinds.empty))
    if given.vararg:
        found.append(kinds(given.vararg.arg, kinds.VAR_POSITIONAL))
    for argument, default in zip(given.kwonlyargs, given.kw_defaults, strict=True):
        found.append(kinds(argument.arg, kinds.KEYWORD_ONLY, default=None if default else kinds.empty))
    if given.kwarg:
        found.append(kinds(given.kwarg.arg, kinds.VAR_KEYWORD))
    return {parameter.name: parameter for parameter in found}
