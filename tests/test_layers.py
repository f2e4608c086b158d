"""The rules of docs/architecture.md that a machine can hold."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "sqlflow_dagster"
# What takes long to import, or is an extra that need not be installed.
HEAVY = {
    "boto3", "dagster", "duckdb", "numpy", "openpyxl", "pandas", "psycopg2", "pyarrow", "requests",
    "rich", "sqlglot", "typer",
}  # fmt: skip
# Who may import what is not for everyone.
OWNERS = {
    "dagster": {"assets"},
    # The connector of DuckDB files is one of that vendor's clients.
    "duckdb": {"warehouse", "plan", "connectors/duckdb.py", "connectors/duckdb_sink.py"},
    "sqlglot": {"plan"},
    "typer": {"cli"},
    "rich": {"cli"},
    "boto3": {"connectors"},
    "psycopg2": {"connectors"},
    "requests": {"connectors"},
    "openpyxl": {"connectors"},
}
STATEMENT = re.compile(
    r"\b(SELECT\b.*\bFROM|INSERT\s+INTO|DELETE\s+FROM|UPDATE\s.*\bSET|DROP\s+(TABLE|VIEW|SCHEMA)|ALTER\s+TABLE|"
    r"CREATE\s+(OR\s+REPLACE\s+)?(TEMP\s+)?(TABLE|VIEW|SCHEMA)\s+(IF\s+NOT\s+EXISTS\s+)?\{|ATTACH\s+'|COPY\s+[({])",
    re.DOTALL,
)
RUNS_SQL = {"execute", "executemany", "sql", "query"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def test_imports_go_down_only():
    lint = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert lint.returncode == 0, lint.stdout


@pytest.mark.parametrize(
    ("statement", "allowed"),
    [
        ("import sqlflow_dagster", set()),
        ("import sqlflow_dagster.cli", set()),
        ("from sqlflow_dagster.connectors import registry; registry.types()", set()),
        ("from sqlflow_dagster import python_scalar_udf, python_table_udf, SQLFlowError", set()),
        ("from sqlflow_dagster import load_project", {"duckdb"}),
    ],
    ids=["package", "command-line", "connector-list", "udf-decorators", "project"],
)
def test_an_import_loads_nothing_heavy(statement, allowed):
    shown = subprocess.run(
        [sys.executable, "-c", f"{statement}\nimport sys, json; print(json.dumps(sorted(sys.modules)))"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in json.loads(shown.stdout)}
    assert not loaded & (HEAVY - allowed)


@pytest.mark.parametrize("name", sorted(__import__("sqlflow_dagster").__all__))
def test_every_public_name_is_there(name):
    import sqlflow_dagster

    assert getattr(sqlflow_dagster, name).__name__ == name


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_library_is_imported_only_where_it_belongs(module):
    place = module.relative_to(PACKAGE)
    room = place.parts[0].removesuffix(".py")
    if "template" in module.parts:
        return  # a user's file: it stands in a project, not in the package
    foreign = [
        f"{module.name}:{line} imports {name}"
        for name, line in _imports(_tree(module))
        if not {room, str(place)} & OWNERS.get(name, {room})
    ]
    assert foreign == []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_sql_is_never_put_together_from_text(module):
    """`sqlflow_dagster.sql` takes parts that are SQL already; nothing else makes a statement."""
    found = [
        f"{module.relative_to(REPOSITORY)}:{node.lineno}: {ast.unparse(node)[:100]}"
        for node in _sql_from_text(_tree(module))
    ]
    assert found == []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_module_says_what_it_is(module):
    assert ast.get_docstring(_tree(module))


def test_the_rule_against_sql_in_text_sees_what_it_forbids():
    source = """
a = f"SELECT * FROM {name}"
b = "DELETE FROM " + name
c = "INSERT INTO %s VALUES (1)" % name
d = "DROP TABLE {}".format(name)
connection.execute(f"CHECKPOINT {name}")
fine = sql("SELECT * FROM {name}", name=quote(name))
message = f"{name} has no FROM"
where = "x > 1" if small else "x > 2"
fixed = sql("SELECT {c} FROM t WHERE " + where + " LIMIT 1", c=quote(name))
"""
    assert sorted({node.lineno for node in _sql_from_text(ast.parse(source))}) == [2, 3, 4, 5, 6]


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def _imports(tree: ast.Module):
    """The names of imported libraries and their lines; those for annotations only do not count."""
    for_annotations = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_annotations:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0], node.lineno


def _sql_from_text(tree: ast.Module) -> list[ast.AST]:
    """Statements that are made of text and values, and such text handed to a connection."""
    return [
        node
        for node in ast.walk(tree)
        if (_has_values(node, tree) and _is_statement(_literal_part(node)))
        or (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in RUNS_SQL
            and node.args
            and _has_values(node.args[0], tree)
        )
    ]


def _is_statement(text: str) -> bool:
    is_pattern = "(?:" in text or r"\s" in text
    return not is_pattern and STATEMENT.search(text) is not None


def _has_values(node: ast.AST, tree: ast.Module) -> bool:
    """Whether this is an f-string, text + something, text % something, or text.format(…)."""
    if isinstance(node, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        return _starts_as_text(node) and not _is_constant(node, tree)
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "format"
        and isinstance(node.func.value, ast.Constant)
    )


def _starts_as_text(node: ast.AST) -> bool:
    while isinstance(node, ast.BinOp):
        node = node.left
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _is_constant(node: ast.AST, tree: ast.Module) -> bool:
    """Whether the text is fixed in the source, also through a name for it."""
    match node:
        case ast.Constant():
            return True
        case ast.BinOp():
            return _is_constant(node.left, tree) and _is_constant(node.right, tree)
        case ast.IfExp():
            return _is_constant(node.body, tree) and _is_constant(node.orelse, tree)
        case ast.Name():
            given = [
                assign.value
                for assign in ast.walk(tree)
                if isinstance(assign, ast.Assign) and node.id in map(ast.unparse, assign.targets)
            ]
            return bool(given) and all(_is_constant(value, tree) for value in given)
    return False


def _literal_part(node: ast.AST) -> str:
    """The text as written, `{…}` standing for each value."""
    match node:
        case ast.Constant():
            return str(node.value)
        case ast.JoinedStr():
            return "".join(map(_literal_part, node.values))
        case ast.BinOp():
            return _literal_part(node.left) + _literal_part(node.right)
        case ast.Call(func=ast.Attribute(attr="format", value=text)):
            return _literal_part(text)
    return "{…}"
