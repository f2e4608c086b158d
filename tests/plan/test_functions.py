"""PYTHON_FUNC calls are checked against the text of `python_udfs/`, and nothing of it is imported."""

import sys

import pytest

UDFS = '''
"""Functions."""
import logging
from os.path import basename
from typing import Optional
from sqlflow_dagster import python_scalar_udf, python_table_udf

logging.basicConfig()

def clean(text: str, mode: str = "trim", *, strict: bool = False) -> str:
    return text.strip()

def total(*parts: float) -> float:
    return sum(parts)

def free(text, **options) -> str:
    return text

@python_scalar_udf(return_type="DECIMAL(10,2)", name="net")
def _net(price, tax):
    return price

@python_table_udf(output_schema={"a": "INTEGER"})
def scored(rows, weight=1):
    return rows

def plain(rows, weight):
    return rows

@some_decorator
def wrapped(a):
    return a

if True:
    def either(a): ...
else:
    def either(a, b): ...

alias = clean
raise SystemExit("imported")
'''


@pytest.fixture
def udfs(desk):
    desk.write("python_udfs/m.py", UDFS)
    desk.write("python_udfs/deep/er.py", "def f(a): ...\n")
    desk.write("python_udfs/broken.py", "def f(:\n")
    desk.write("python_udfs/made.py", "for n in 'ab': globals()[n] = len\n")
    desk.write("python_udfs/starred.py", "from json import *\n")
    return desk


def query(call):
    return f"CREATE TABLE t AS SELECT 1 AS a, 'x' AS b;\nCREATE TABLE u AS {call};"


RIGHT = {
    "as it is": 'SELECT PYTHON_FUNC("m.clean", b) AS c FROM t',
    "with the folder's name": "SELECT PYTHON_FUNC(\"python_udfs.m.clean\", b, 'x') AS c FROM t",
    "a parameter by name": "SELECT PYTHON_FUNC('m.clean', b, strict := true) AS c FROM t",
    "any number": 'SELECT PYTHON_FUNC("m.total", 1, 2, 3) AS c FROM t',
    "any name": 'SELECT PYTHON_FUNC("m.free", b) AS c FROM t',
    "a comparison": 'SELECT PYTHON_FUNC("m.clean", a = 1) AS c FROM t',
    "its decorator's name": 'SELECT PYTHON_FUNC("m.net", a, 2) AS c FROM t',
    "a table": 'FROM PYTHON_FUNC("m.scored", t, weight = 2)',
    "a table without hints": 'FROM PYTHON_FUNC("m.plain", (FROM t), 2)',
    "imported by the module": 'SELECT PYTHON_FUNC("m.basename", b) AS c FROM t',
    "a decorator of others": 'SELECT PYTHON_FUNC("m.wrapped", 1, 2, 3) AS c FROM t',
    "one of two": 'SELECT PYTHON_FUNC("m.either", 1, 2) AS c FROM t',
    "another name": 'SELECT PYTHON_FUNC("m.alias", 1, 2, 3) AS c FROM t',
    "in a folder": 'SELECT PYTHON_FUNC("deep.er.f", 1) AS c FROM t',
    "made by code": 'SELECT PYTHON_FUNC("made.a", 1) AS c FROM t',
    "from a star": 'SELECT PYTHON_FUNC("starred.dumps", b) AS c FROM t',
    "one in another": 'SELECT PYTHON_FUNC("m.clean", PYTHON_FUNC("m.total", a)) AS c FROM t',
    "in a comment": "SELECT 1 AS c -- PYTHON_FUNC('no.no')\nFROM t",
}


@pytest.mark.parametrize("call", RIGHT.values(), ids=RIGHT)
def test_a_call_that_fits_is_right(udfs, call):
    udfs.plan(query(call))


WRONG = {
    "no such function": (
        'SELECT PYTHON_FUNC("m.claen", b) FROM t',
        "2:26: m has no function 'claen'",
        "did you mean 'clean'?",
    ),
    "no such module": (
        'SELECT PYTHON_FUNC("n.clean", b) FROM t',
        "there is no module 'n' in python_udfs/",
        "there are broken, deep.er, m",
    ),
    "a module that is nearly right": (
        'SELECT PYTHON_FUNC("deep.err.f", b) FROM t',
        "there is no module 'deep.err'",
        "did you mean 'deep.er'?",
    ),
    "no module": ('SELECT PYTHON_FUNC("clean", b) FROM t', "does not say the module", "'module.clean'"),
    "too few": (
        'SELECT PYTHON_FUNC("m.clean") FROM t',
        "missing a required argument: 'text'",
        "it is clean(text: str, mode: str='trim', *, strict: bool=False)",
    ),
    "too many": (
        'SELECT PYTHON_FUNC("m.clean", b, b, b) FROM t',
        "too many positional arguments",
        "it is clean(",
    ),
    "twice": (
        'SELECT PYTHON_FUNC("m.clean", b, text = b) FROM t',
        "multiple values for argument 'text'",
        "it is clean(",
    ),
    "no such name": (
        'FROM PYTHON_FUNC("m.scored", t, wieght = 2)',
        "got an unexpected keyword argument 'wieght'",
        "it is scored(rows, weight=1)",
    ),
    "no table": ('FROM PYTHON_FUNC("m.plain")', "needs a table or a (query) first", ""),
    "a table as a value": ('SELECT PYTHON_FUNC("m.scored", a) FROM t', "gives a table", "write FROM"),
    "no Python": (
        'SELECT PYTHON_FUNC("broken.f", a) FROM t',
        "python_udfs/broken.py:1 is no Python",
        "mend the file",
    ),
    "inside an argument": (
        'SELECT PYTHON_FUNC("m.clean",\n  PYTHON_FUNC("m.totl", a)) FROM t',
        "3:3: m has no function 'totl'",
        "did you mean 'total'?",
    ),
}


@pytest.mark.parametrize(("call", "message", "hint"), WRONG.values(), ids=WRONG)
def test_a_call_that_does_not_fit_is_told_with_what_would(udfs, call, message, hint):
    (problem,) = udfs.problems(query(call))
    assert message in problem
    assert hint in problem.splitlines()[-1]


def test_a_call_in_an_export_is_checked_too(udfs):
    problems = udfs.problems(
        "CREATE TABLE t AS SELECT 1 AS a;\nEXPORT SELECT PYTHON_FUNC('m.no', a) FROM t TO 'x.csv';"
    )
    assert ["2:15: m has no function 'no'" in problem for problem in problems] == [True]


def test_a_view_cannot_call_python(udfs):
    (problem,) = udfs.problems("CREATE VIEW v AS SELECT PYTHON_FUNC('m.total', 1) AS x;")
    assert "a VIEW cannot call PYTHON_FUNC" in problem


def test_the_name_may_hold_a_variable(udfs):
    (problem,) = udfs.problems("SET f = 'no';\nCREATE TABLE u AS SELECT PYTHON_FUNC('m.${f}', 1) AS x;")
    assert "2:26: m has no function 'no'" in problem


def test_nothing_is_imported(udfs):
    before = set(sys.modules)
    udfs.plan(query(RIGHT["as it is"]))
    assert not [name for name in set(sys.modules) - before if name.startswith("python_udfs")]
