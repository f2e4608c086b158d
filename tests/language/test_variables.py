"""Which value a variable has, and of which type."""

import pytest

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.language.tree import Bare
from sqlflow_dagster.language.variables import (
    Reference,
    UndefinedVariables,
    Variables,
    expand_text,
    expand_value,
    missing,
    references,
)

LAYERS = ("run", "profile", "sets", "builtin", "dotenv", "environ")


@pytest.mark.parametrize("strongest", range(len(LAYERS)), ids=LAYERS)
def test_a_stronger_layer_wins(strongest):
    layers = {name: {"v": name} for name in LAYERS[strongest:]}
    assert expand_text("${v|default}", Variables(**layers)) == LAYERS[strongest]


def test_without_any_layer_the_default_holds():
    assert expand_text("${v|default}", Variables()) == "default"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("${v}", [Reference("v", None, 0, 4)]),
        ("${ v }", [Reference("v", None, 0, 6)]),
        ("${v|a b}", [Reference("v", "a b", 0, 8)]),
        ("${v | a }", [Reference("v", "a", 0, 9)]),
        ("${v|}", [Reference("v", "", 0, 5)]),
        ("${v|''}", [Reference("v", "", 0, 7, quoted=True)]),
        ("${v|it's}", [Reference("v", "it's", 0, 9)]),
        ("${v|'it''s'}", [Reference("v", "it's", 0, 12, quoted=True)]),
        ("${v|'a } b'}", [Reference("v", "a } b", 0, 12, quoted=True)]),
        ('${v|"a|b"}', [Reference("v", "a|b", 0, 10, quoted=True)]),
        ("a ${v} $${w} ${x}", [Reference("v", None, 2, 6), Reference("x", None, 13, 17)]),
        ("no $ and {} and $v", []),
    ],
)
def test_references_are_found_with_their_defaults(text, expected):
    assert references(text) == tuple(expected)


@pytest.mark.parametrize("text", ["${}", "${1a}", "${a b}", "${", "${a|${b}}", "x ${a\n}"])
def test_a_reference_that_is_none_is_an_error(text):
    with pytest.raises(ProjectError, match="is no variable"):
        references(text)


def test_the_escape_gives_the_characters():
    assert expand_text("$${v} ${v}", Variables(run={"v": 1})) == "${v} 1"


def test_one_error_lists_all_that_have_no_value():
    with pytest.raises(UndefinedVariables) as caught:
        expand_value({"a": "${x} ${known}", "b": ["${y}", "${x}"]}, Variables(run={"known": 1}))
    assert caught.value.names == ("x", "y")


def test_missing_tells_where_but_not_in_comments():
    sql = "SELECT ${a}, '${b|c}' -- ${d}\n, '${e}'"
    assert [(r.name, sql[r.start : r.end]) for r in missing(sql, Variables())] == [
        ("a", "${a}"),
        ("e", "${e}"),
    ]


@pytest.mark.parametrize(
    ("layer", "value", "quoted", "bare"),
    [
        ("profile", 5432, 5432, 5432),
        ("profile", "5432", "5432", "5432"),
        ("profile", True, True, True),
        ("profile", None, None, None),
        ("profile", ["a", 1], ["a", 1], ["a", 1]),
        ("run", "5432", "5432", 5432),
        ("run", 5432, 5432, 5432),
        ("environ", "5432", "5432", 5432),
        ("environ", "true", "true", True),
        ("environ", "1.5e3", "1.5e3", 1500.0),
        ("environ", "007", "007", "007"),
        ("environ", "1e999", "1e999", "1e999"),
        ("environ", "٣", "٣", "٣"),
        ("environ", "null", "null", "null"),
    ],
)
def test_quotes_keep_text_text_and_their_absence_reads_it(layer, value, quoted, bare):
    variables = Variables(**{layer: {"v": value}})
    assert expand_value({"p": "${v}"}, variables)["p"] == quoted
    result = expand_value({"p": Bare("${v}")}, variables)["p"]
    assert result == bare
    assert type(result) is type(bare)


def test_values_from_outside_are_never_read_again():
    variables = Variables(run={"a": "${b}"}, environ={"b": "secret", "c": "${b}"})
    assert expand_text("${a} ${c}", variables) == "${b} ${b}"


def test_a_profile_may_use_variables_and_rename_one_of_the_environment():
    variables = Variables(
        profile={"host": "${DB_HOST|localhost}", "DB": "${DB}", "url": "http://${host}/${DB}"},
        environ={"DB": "prod"},
    )
    assert expand_text("${url}", variables) == "http://localhost/prod"


def test_a_circle_of_a_profile_is_an_error_that_shows_it():
    variables = Variables(profile={"a": "${b}x", "b": "${c}", "c": "${a}"})
    with pytest.raises(ProjectError, match="a -> b -> c -> a"):
        variables.lookup("a")


def test_a_profile_that_grows_without_end_is_an_error():
    profile = {f"v{i}": "${v" + str(i + 1) + "}" * 1 + "${v" + str(i + 1) + "}" for i in range(40)}
    with pytest.raises(ProjectError, match="characters of text"):
        Variables(profile={**profile, "v40": "x" * 100}).lookup("v0")


def test_set_may_use_earlier_ones_and_is_fixed_when_it_is_made():
    variables = Variables(environ={"n": "1"}).with_set("a", "${n}").with_set("b", "${a}-${a}")
    assert expand_text("${b}", variables.with_set("a", "2")) == "1-1"


def test_set_without_quotes_reads_a_number():
    assert Variables(environ={"n": "1"}).with_set("a", Bare("${n}")).lookup("a") == 1


def test_set_of_what_has_no_value_is_an_error_unless_a_stronger_layer_says_it():
    with pytest.raises(UndefinedVariables):
        Variables().with_set("a", "${nothing}")
    assert Variables(run={"a": 1}).with_set("a", "${nothing}").lookup("a") == 1


def test_values_in_json_keep_quotes_and_backslashes():
    assert expand_value({"p": 'a"${v}"\\'}, Variables(run={"v": '"\\'})) == {"p": 'a""\\"\\'}


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (None, ""), (1.5, "1.5"), (["a", False], "a,false"), (10**30, "1" + "0" * 30)],
)
def test_values_inside_text(value, text):
    assert expand_text("<${v}>", Variables(run={"v": value})) == f"<{text}>"
