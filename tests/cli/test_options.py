import pytest

from sqlflow_dagster.cli.options import spread_variables, variables
from sqlflow_dagster.errors import SettingsError


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["a=1", "b=x"], {"a": 1, "b": "x"}),
        (["a=1", "a=2"], {"a": 2}),
        (["a="], {"a": ""}),
        (["url=http://host/?q=1"], {"url": "http://host/?q=1"}),
        (
            ["zip=007", "yes=true", "half=0.5"],
            {"zip": "007", "yes": True, "half": 0.5},
        ),
        (['{"a": 1, "b": "x y"}'], {"a": 1, "b": "x y"}),
        (['{"a": 1}', "a=2"], {"a": 2}),
        ([], {}),
        (None, {}),
    ],
)
def test_vars_are_pairs_or_a_json_object(given, wanted):
    assert variables(given) == wanted


@pytest.mark.parametrize(
    "given",
    ["a", "=1", "a b=1", "1a=1", "{", "[1]", '{"a": [1]}', '{"a b": 1}', '{"a": {"b": 1}}'],
)
def test_vars_that_are_neither_are_refused(given):
    with pytest.raises(SettingsError, match="--vars"):
        variables([given])


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        (
            ["run", "p", "--vars", "a=1", "b=2", "c=3"],
            ["run", "p", *["--vars", "a=1", "--vars", "b=2", "--vars", "c=3"]],
        ),
        (["run", "--vars", "a=1", "p"], ["run", "--vars", "a=1", "p"]),
        (
            ["run", "p", "--vars", "a=1", "--profile", "x=y"],
            ["run", "p", "--vars", "a=1", "--profile", "x=y"],
        ),
        (["run", "p", "--vars", "a=1", "--vars", "b=2"], ["run", "p", "--vars", "a=1", "--vars", "b=2"]),
        (["run", "p", "a=1"], ["run", "p", "a=1"]),
        (["validate", "--vars", '{"a": 1}', "p"], ["validate", "--vars", '{"a": 1}', "p"]),
        ([], []),
    ],
)
def test_pairs_after_vars_belong_to_it(line, wanted):
    assert spread_variables(line) == wanted
