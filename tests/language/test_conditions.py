"""IF conditions are decided by value."""

import pytest

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.language.conditions import evaluate, fault
from sqlflow_dagster.language.variables import UndefinedVariables, Variables

VARIABLES = Variables(
    profile={
        "env": "prod",
        "n": 10,
        "flag": True,
        "off": False,
        "empty": None,
        "list": ["a", "b"],
        "quote": "it's",
        "evil": "x' OR 'a' = 'a",
        "text_number": "10",
    },
    environ={"TEN": "10", "ZIP": "007", "YES": "true", "DAY": "2024-02-01"},
)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        ("${env} == 'prod'", True),
        ('${env} = "prod"', True),
        ("'${env}' == 'prod'", True),
        ("${env} != 'prod'", False),
        ("${env} <> 'dev'", True),
        ("${env} == 'PROD'", False),
        ("${quote} == 'it''s'", True),
        ("${evil} == 'x'", False),
        ("'${evil}' == 'x'", False),
        ("${flag} == true", True),
        ("${flag} == 'true'", True),
        ("${flag} == 'TRUE'", True),
        ("${flag|false} == 'true'", True),
        ("${nope|false} == 'true'", False),
        ("${nope|true} == 'true'", True),
        ("${flag} == 1", True),
        ("${flag} == 'other'", False),
        ("${YES} == true", True),
        ("${flag}", True),
        ("not ${flag}", False),
        ("NOT NOT ${flag}", True),
        ("${nope|yes}", True),
        ("${nope|0}", False),
        ("${n} > 9", True),
        ("${n} > '9'", True),
        ("${TEN} > 9", True),
        ("${TEN} > '9'", True),
        ("${n} == 10.0", True),
        ("${n} >= 1e1 AND ${n} <= 1_0", True),
        ("${n} == -10", False),
        ("${n} > -1", True),
        ("${n} == .5", False),
        ("${ZIP} == '007'", True),
        ("${ZIP} == '7'", False),
        ("${ZIP} == 7", False),
        ("${text_number} == '10.0'", False),
        ("${DAY} > '2024-01-31'", True),
        ("${DAY} > DATE '2024-01-31'", True),
        ("${DAY} == '2024-02-01 00:00:00'", True),
        ("${DAY} < '2024-02-01T00:00:01Z'", True),
        ("${DAY} BETWEEN '2024-01-01' AND '2024-12-31'", True),
        ("${n} NOT BETWEEN 1 AND 9", True),
        ("${env} IN ('dev', 'prod')", True),
        ("${env} not in ('dev', 'prod')", False),
        ("'a' IN (${list})", True),
        ("${empty} IS NULL", True),
        ("${env} IS NOT NULL", True),
        ("${empty} == null", True),
        ("${empty} == 'a'", False),
        ("${empty} != 'a'", True),
        ("${empty} < 1", False),
        ("false AND false OR true", True),
        ("true OR false AND false", True),
        ("(true OR false) AND false", False),
        ("NOT false AND false", False),
        ("true -- a comment\n AND /* another */ true", True),
    ],
)
def test_a_condition_is_decided(condition, expected):
    assert evaluate(condition, VARIABLES) is expected


@pytest.mark.parametrize(
    "condition",
    ["", "==", "${a} ==", "a == 'b'", "'a' 'b'", "true AND", "(true", "true)", "1 < 2 < 3", "'a' IN 'b'", "'a' IN ()", "1 BETWEEN 2", "NOT", "true && true", "1 NOT 2", "'open", "/* open", "x IS 1", "${a b} == 1", "$$a$$ == 1", "(" * 500 + "true" + ")" * 500, "NOT " * 500 + "true"],
)  # fmt: skip
def test_what_is_no_condition_is_refused(condition):
    assert fault(condition)
    with pytest.raises(ProjectError):
        evaluate(condition, VARIABLES)


@pytest.mark.parametrize("condition", ["${env}", "${n}", "${env} < 5", "${flag} < 'a'", "${list} < ${list}"])
def test_values_that_decide_nothing_are_refused(condition):
    assert fault(condition) is None
    with pytest.raises(ProjectError):
        evaluate(condition, VARIABLES)


def test_every_variable_must_have_a_value_also_where_it_would_not_be_asked():
    with pytest.raises(UndefinedVariables) as caught:
        evaluate("true OR ${a} == ${b}", VARIABLES)
    assert caught.value.names == ("a", "b")
