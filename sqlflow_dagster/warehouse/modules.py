"""A project's `python_udfs/` → its modules, imported apart from those of every other project.

Each folder's modules live in `sys.modules` under a root name of their own, such as
`python_udfs@3f2a`, and their import statements look beside them first. So two projects may both
have a `text_utils`, and nothing of a project stays importable by others. A change of any file
imports all of them anew.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import importlib.util
import itertools
import linecache
import re
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from sqlflow_dagster import udf
from sqlflow_dagster.errors import ProjectError, QueryFailed

_Stamp = tuple[tuple[str, int, int], ...]
_ours = str(Path(udf.__file__).parent)
_lock = threading.RLock()
_generations = itertools.count(1)
_by_root: dict[str, _World] = {}
_by_folder: dict[Path, _World] = {}


def module(folder: Path, name: str) -> ModuleType:
    """Return the module `name` of `folder`, imported as its files are now; "" is the folder's own.

    Raises ProjectError where there is no such module, QueryFailed with the traceback where it
    cannot be imported.
    """
    folder = folder.resolve()
    _check_exists(folder, name)
    with _lock:
        world = _current(folder)
        try:
            return importlib.import_module(f"{world.root}.{name}" if name else world.root)
        except (Exception, SystemExit) as error:  # the edge to users' code: whatever it raises is theirs
            world.forget()
            raise QueryFailed(
                f"{folder.name}/{name.replace('.', '/')}.py cannot be imported:\n{trace(error)}"
            ) from error


def known_functions(folder: Path) -> Mapping[str, tuple[str, ...]]:
    """Return module → names that PYTHON_FUNC may find in it, read from the text, nothing imported.

    Names that a module imports from another count, for they can be called. A file that does not
    parse has none.
    """
    found: dict[str, tuple[str, ...]] = {}
    for path in _files(folder):
        parts = path.relative_to(folder).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        try:
            tree = ast.parse(path.read_bytes())
        except (SyntaxError, ValueError):
            found[name] = ()
            continue
        found[name] = tuple(dict.fromkeys(_names(tree.body)))
    return found


def trace(error: BaseException) -> str:
    """Return the traceback without our own frames and those of the import system."""
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_ours, "<frozen importlib"))
    ]
    return "".join([*traceback.format_list(own), *traceback.format_exception_only(error)]).rstrip()


def _names(body: Sequence[ast.stmt]) -> Iterator[str]:
    for node in body:
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                yield node.name
                yield from _declared_names(node)
            case ast.ImportFrom():
                yield from (alias.asname or alias.name for alias in node.names)
            case ast.Assign():
                yield from (target.id for target in node.targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.If() | ast.Try() | ast.With():
                for part in ("body", "orelse", "finalbody"):
                    yield from _names(getattr(node, part, []))
                yield from (n for handler in getattr(node, "handlers", []) for n in _names(handler.body))


def _declared_names(node: ast.FunctionDef | ast.ClassDef) -> Iterator[str]:
    """What `@python_scalar_udf(name="…")` calls it."""
    for decorator in node.decorator_list:
        for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
            if keyword.arg == "name" and isinstance(keyword.value, ast.Constant):
                yield str(keyword.value.value)


def _files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*.py")
        if not any(part.startswith(".") or part == "__pycache__" for part in path.relative_to(folder).parts)
    )


def _check_exists(folder: Path, name: str) -> None:
    stem = folder.joinpath(*name.split(".")) if name else folder
    if re.fullmatch(r"\w+(\.\w+)*|", name) and (
        stem.with_name(stem.name + ".py").is_file() or (stem / "__init__.py").is_file()
    ):
        return
    known = [known for known in known_functions(folder) if known]
    near = get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known) or 'none'}"
    raise ProjectError(f"PYTHON_FUNC: there is no module {name!r} in {folder}; {hint}")


def _current(folder: Path) -> _World:
    world = _by_folder.get(folder)
    stamp = _stamp(folder)
    if world and world.stamp == stamp:
        return world
    if world:
        world.forget()
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    linecache.checkcache()
    world = _World(folder, stamp, f"{folder.name}@{next(_generations):x}")
    _by_folder[folder] = _by_root[world.root] = world
    return world


def _stamp(folder: Path) -> _Stamp:
    return tuple(
        (str(path), status.st_mtime_ns, status.st_size)
        for path in _files(folder)
        for status in (path.stat(),)
    )


@dataclass
class _World:
    """The modules of one folder in one state of its files; `root` is their first name in `sys.modules`."""

    folder: Path
    stamp: _Stamp
    root: str
    _local: dict[str, bool] = field(default_factory=dict)

    @property
    def builtins(self) -> dict[str, Any]:
        """What the modules see as builtins: Python's, with imports that look beside them first."""
        return {**vars(builtins), "__import__": self.import_}

    def import_(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002 - the names that Python calls it by
        locals: Mapping[str, Any] | None = None,  # noqa: A002
        fromlist: Sequence[str] = (),
        level: int = 0,
    ) -> ModuleType:
        """Do what an import statement of these modules means."""
        first, _, rest = name.partition(".")
        if level == 0 and first == self.folder.name:
            return self._import(f"{self.root}.{rest}" if rest else self.root, self.root, fromlist)
        if level == 0 and self._is_local(first):
            return self._import(f"{self.root}.{name}", f"{self.root}.{first}", fromlist)
        if level == 0 and first == "sqlflow" and not _importable("sqlflow"):
            return _first_sqlflow(name, fromlist)
        return builtins.__import__(name, globals, locals, fromlist, level)

    def spec(self, name: str, places: Sequence[str] | None) -> ModuleSpec | None:
        """Return how to import a module below the root, None where there is no such file."""
        if name == self.root:
            return self._package(name, self.folder, [str(self.folder), str(self.folder.parent)])
        tail = name.rpartition(".")[2]
        for place in places or ():
            file, directory = Path(place, f"{tail}.py"), Path(place, tail)
            if file.is_file():
                return importlib.util.spec_from_file_location(name, file, loader=_Loader(name, str(file)))
            if directory.is_dir():
                return self._package(name, directory, [str(directory)])
        return None

    def forget(self) -> None:
        """Take the modules out of `sys.modules`; functions that are running go on."""
        for name in [n for n in sys.modules if n == self.root or n.startswith(f"{self.root}.")]:
            del sys.modules[name]
        _by_root.pop(self.root, None)
        _by_folder.pop(self.folder, None)

    def _import(self, name: str, head: str, fromlist: Sequence[str]) -> ModuleType:
        if fromlist:
            return builtins.__import__(name, None, None, fromlist, 0)
        importlib.import_module(name)
        return sys.modules[head]

    def _is_local(self, first: str) -> bool:
        if first in sys.stdlib_module_names:
            return False
        if first not in self._local:
            beside = self.folder / first
            above = self.folder.parent / first
            self._local[first] = (
                beside.with_name(f"{first}.py").is_file()
                or (beside.is_dir() and any(beside.rglob("*.py")))
                or (
                    (above.with_name(f"{first}.py").is_file() or (above / "__init__.py").is_file())
                    and not _importable(first)
                )
            )
        return self._local[first]

    def _package(self, name: str, directory: Path, places: list[str]) -> ModuleSpec | None:
        file = directory / "__init__.py"
        if file.is_file():
            return importlib.util.spec_from_file_location(
                name, file, loader=_Loader(name, str(file)), submodule_search_locations=places
            )
        spec = ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = places
        return spec


class _Loader(SourceFileLoader):
    """Imports one file, always from its text: a cached bytecode may be a second old."""

    def get_code(self, fullname: str) -> CodeType:
        path = self.get_filename(fullname)
        code: CodeType = self.source_to_code(self.get_data(path), path)
        return code

    def exec_module(self, module: ModuleType) -> None:
        world = _by_root[module.__name__.partition(".")[0]]
        module.__dict__["__builtins__"] = world.builtins
        super().exec_module(module)


class _Finder(MetaPathFinder):
    """Finds the modules below the roots of worlds, and no others."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        world = _by_root.get(fullname.partition(".")[0])
        return world.spec(fullname, path) if world else None


_finder = _Finder()


def _importable(name: str) -> bool:
    if name in sys.modules:
        return True
    spec = importlib.util.find_spec(name)
    # A bare folder of that name, such as one in the working directory, is no installed package.
    return spec is not None and spec.origin is not None


def _first_sqlflow(name: str, fromlist: Sequence[str]) -> ModuleType:
    """What `sqlflow.udfs` offered to projects written for the first SQLFlow."""
    package, udfs, decorators = map(ModuleType, ("sqlflow", "sqlflow.udfs", "sqlflow.udfs.decorators"))
    for part in (package, udfs, decorators):
        vars(part).update(python_scalar_udf=udf.python_scalar_udf, python_table_udf=udf.python_table_udf)
    vars(package)["udfs"], vars(udfs)["decorators"] = udfs, decorators
    known = {part.__name__: part for part in (package, udfs, decorators)}
    if name not in known:
        raise ModuleNotFoundError(
            f"No module named {name!r}: of the first SQLFlow only sqlflow.udfs can be imported", name=name
        )
    return known[name] if fromlist else package
