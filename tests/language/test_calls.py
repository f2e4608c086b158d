"""PYTHON_FUNC is found where it is code."""

import pytest

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.language.calls import python_calls


def shape(sql):
    return [
        (
            call.function,
            call.table,
            [(a.name, a.text) for a in call.arguments],
            sql[call.start : call.end][-1],
        )
        for call in python_calls(sql)
    ]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ('SELECT PYTHON_FUNC("m.f")', [("m.f", False, [], ")")]),
        ("SELECT python_func('m.f', a, 'x, y', f(b, c))", [("m.f", False, [(None, "a"), (None, "'x, y'"), (None, "f(b, c)")], ")")]),
        ('FROM PYTHON_FUNC("m.t", sales, k = 1, l := [1, 2], m => \'x\')', [("m.t", True, [(None, "sales"), ("k", "1"), ("l", "[1, 2]"), ("m", "'x'")], ")")]),
        ('SELECT * FROM a, PYTHON_FUNC("m.t", b) WHERE PYTHON_FUNC("m.f", c)', [("m.t", True, [(None, "b")], ")"), ("m.f", False, [(None, "c")], ")")]),
        ('FROM a JOIN LATERAL PYTHON_FUNC("m.t", a) ON true', [("m.t", True, [(None, "a")], ")")]),
        ('SELECT PYTHON_FUNC("m.f", PYTHON_FUNC("m.g", x)) + 1', [("m.f", False, [(None, 'PYTHON_FUNC("m.g", x)')], ")")]),
        ('SELECT PYTHON_FUNC("m.f", a == b, a = b)', [("m.f", False, [(None, "a == b"), ("a", "b")], ")")]),
        ("SELECT 'PYTHON_FUNC(', \"PYTHON_FUNC(\" -- PYTHON_FUNC(\n/* PYTHON_FUNC( */", []),
        ("SELECT my_python_func(1)", []),
    ],
)  # fmt: skip
def test_calls_are_found_with_their_arguments(sql, expected):
    assert shape(sql) == expected


@pytest.mark.parametrize(
    "sql", ["PYTHON_FUNC", "PYTHON_FUNC()", "PYTHON_FUNC(f, x)", 'PYTHON_FUNC("m.f"', 'PYTHON_FUNC("m.f" x)', 'PYTHON_FUNC("m.f", )', "PYTHON_FUNC('m.f"]
)  # fmt: skip
def test_a_call_that_is_none_is_refused(sql):
    with pytest.raises(ProjectError):
        python_calls(sql)
