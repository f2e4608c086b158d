"""A tree written as text parses to the same tree; a file laid out says the same and keeps its comments."""

import re
from dataclasses import fields, is_dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlflow_dagster.errors import PipelineError
from sqlflow_dagster.language.parser import parse
from sqlflow_dagster.language.render import format_script, render
from sqlflow_dagster.language.tree import (
    Bare,
    Branch,
    Create,
    Export,
    If,
    Include,
    Load,
    Mode,
    Name,
    Object,
    Query,
    Set,
    Source,
    Span,
    Table,
    Text,
)

HERE = Span(0, 0, 1, 1)


def bare(node):
    """A tree without its places; `Bare` text stays apart from other text."""
    if is_dataclass(node):
        kept = (field.name for field in fields(node) if field.name not in ("span", "spans"))
        return (type(node).__name__, *((name, bare(getattr(node, name))) for name in kept))
    if isinstance(node, tuple | list):
        return tuple(map(bare, node))
    if isinstance(node, dict):
        return tuple((key, bare(value)) for key, value in node.items())
    return type(node).__name__, node


# --- trees

variables = st.sampled_from(["${v}", "${v|it's}", "${v|}", '${v|"a } b"}', "${v|'a''b'}", "$${"])
plain = st.text(st.characters(exclude_characters="\0$", exclude_categories=["Cs"]), max_size=8)
texts = st.lists(plain | variables | st.sampled_from(["'", '"', "\\", "\n", "--", "/*"]), max_size=4).map(
    "".join
)
words = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,6}", fullmatch=True) | st.sampled_from(
    ["to", "as", "key", "mode", "type", "from", "select", "if", "end", "options", "similar", "t_${v}", "${v}"]
)
odd_names = st.lists(
    st.text(
        st.characters(min_codepoint=32, exclude_characters="\x7f$", exclude_categories=["Cs"]),
        min_size=1,
        max_size=5,
    )
    | variables,
    min_size=1,
    max_size=2,
).map("".join)
names = st.builds(Name, words | odd_names, st.just(HERE))
strings = st.builds(Text, texts, st.just(HERE))
tables = st.builds(Table, st.lists(names, min_size=1, max_size=2).map(tuple), st.just(HERE))
scalars = (
    texts
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.booleans()
    | st.none()
    | st.sampled_from(["${v}", "${v|x}"]).map(Bare)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
objects = st.builds(Object, st.dictionaries(texts, values, max_size=3), st.just({}), st.just(HERE))
queries = st.builds(
    Query,
    st.sampled_from(
        [
            "SELECT 1",
            "FROM t",
            "SELECT ';', $$;$$ -- ;\n, \"a\"",
            "SELECT a AS to FROM b",
            "/* c */ SELECT '${v|it''s}', ${v}",
            "WITH a AS (\n  SELECT 1\n)\nFROM a",
        ]
    ),
    st.just(HERE),
)
conditions = st.builds(
    Query, st.sampled_from(["${v} == 'a'", "NOT (${v|1} IN (1, 2))", "true -- c\n AND true"]), st.just(HERE)
)
keys = st.lists(names, min_size=1, max_size=3, unique_by=lambda name: name.text.casefold()).map(tuple)
load_modes = (
    st.builds(Mode, st.sampled_from(["REPLACE", "APPEND"]), st.just(HERE))
    | st.builds(Mode, st.just("UPSERT"), st.just(HERE), keys=keys)
)  # fmt: skip
lookbacks = st.none() | st.sampled_from(["7 DAYS", "1 DAY 12 HOURS", "100", "${n} DAYS", "${back}"])
modes = load_modes | st.builds(Mode, st.just("INCREMENTAL"), st.just(HERE), by=names, lookback=lookbacks)
one = (
    st.builds(Source, names, st.just(HERE), type=names, params=objects)
    | st.builds(Source, names, st.just(HERE), profile=strings, params=st.none() | objects)
    | st.builds(Load, st.none() | tables, names, st.none() | names, st.none() | load_modes, st.just(HERE))
    | st.builds(Create, tables, st.booleans(), st.booleans(), st.none() | modes, queries, st.just(HERE))
    | st.builds(
        Export,
        queries | tables,
        strings | st.builds(Name, words, st.just(HERE)),
        st.none() | names,
        st.none() | objects,
        st.just(HERE),
    )
    | st.builds(Set, names, scalars, st.just(HERE))
    | st.builds(Include, strings, st.none() | names, st.just(HERE))
)
statements = st.recursive(
    one,
    lambda inner: st.builds(
        If,
        st.lists(
            st.builds(Branch, conditions, st.lists(inner, max_size=2).map(tuple)), min_size=1, max_size=2
        ).map(tuple),
        st.lists(inner, max_size=2).map(tuple),
        st.just(HERE),
    ),
    max_leaves=4,
)


@given(st.lists(statements, max_size=3))
def test_a_tree_written_as_text_parses_to_the_same_tree(tree):
    assert bare(parse(render(tree), "t.sf").statements) == bare(tree)


@given(st.lists(statements, max_size=3))
def test_a_rendered_tree_is_laid_out_with_nothing_lost(tree):
    once = format_script(render(tree), "t.sf")
    assert bare(parse(once, "t.sf").statements) == bare(tree)
    assert format_script(once, "t.sf") == once


# --- files

blanks = st.sampled_from(
    [
        "",
        " ",
        "\n",
        "\n\n\n",
        "\t",
        "\r\n",
        " -- c1\n",
        "/* c2 */",
        "\n-- c3\n\n",
        "/* c\n /* 4 */ */\n",
        "-- a\\b\n",
        " -- it's \"so\n",
        "/* don't; */",
    ]
)
PIECES = [
    ["SOURCE", "a", "TYPE", "csv", "PARAMS", "{", '"p"', ":", "[", "1", ",", '"--x"', ",", "]", ",", "}", ";"],
    ["load", "t", "from", "s", ".", "x", "mode", "upsert", "key", "(", "a", ",", '"b c"', ")", ";"],
    ["create", "or", "replace", "table", '"a"', "as", "SELECT '--', 1\n  FROM t", ";"],
    ["EXPORT", "SELECT 1", "TO", '"x.csv"', "TYPE", "CSV", "OPTIONS", "{", '"a"', ":", "{", "}", "}", ";"],
    ["LOAD", "*", "FROM", "s", ".", r'"a\"', ".", "b", "MODE", "upsert", ";"],
    ["SOURCE", "a", "FROM", "'p'", "OPTIONS", "{", '"a"', ":", '"\\\\"', ",", '"b"', ":", "[", "]", "}", ";"],
    ["CREATE", "TABLE", "t", "MODE", "INCREMENTAL", "BY", r'"d\"', "LOOKBACK", "7", "DAYS", "AS", "SELECT '--', 1\n  FROM t", ";"],
    ["EXPORT", "s", ".", "t", "to", "x", ";"],
    ["SET", "a", "=", "-1.5", ";"],
    ["INCLUDE", "'x.sf'", "AS", "y", ";"],
    ["IF", "${a} == 'x'", "THEN", "SET", "a", "=", "1", ";", "elseif", "true", "then", "else", "SET", "b", "=", "'--'", ";", "end", "if", ";"],
]  # fmt: skip


@st.composite
def files(draw):
    text = draw(blanks)
    for pieces in draw(st.lists(st.sampled_from(PIECES), max_size=3)):
        for piece in pieces:
            text += piece + (draw(blanks) or " ")
    return text


COMMENTS = ["-- c1", "/* c2 */", "-- c3", "/* c\n /* 4 */ */", r"-- a\b", "-- it's \"so", "/* don't; */"]


@given(files())
def test_laying_out_keeps_every_comment_and_every_meaning(text):
    once = format_script(text, "t.sf")
    assert [once.count(comment) for comment in COMMENTS] == [text.count(comment) for comment in COMMENTS]
    assert bare(parse(once, "t.sf").statements) == bare(parse(text, "t.sf").statements)
    assert format_script(once, "t.sf") == once


@given(files())
def test_laying_out_never_touches_a_body(text):
    before = re.findall(r"SELECT '--', 1\n  FROM t|SELECT 1", text)
    assert re.findall(r"SELECT '--', 1\n  FROM t|SELECT 1", format_script(text, "t.sf")) == before


def test_a_wrong_file_is_not_laid_out():
    with pytest.raises(PipelineError):
        format_script("LOAD a;", "t.sf")


def test_an_empty_file_stays_empty():
    assert format_script("", "t.sf") == render([]) == ""
    assert format_script("\ufeff\n\n", "t.sf") == ""
