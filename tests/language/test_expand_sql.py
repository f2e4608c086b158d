"""Values get into SQL as literals, text or names, and never out of their place."""

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlflow_dagster.errors import ProjectError
from sqlflow_dagster.language.variables import UndefinedVariables, Variables, expand_sql

PROFILE = {
    "n": 100,
    "neg": -1,
    "text": "O'Hara",
    "code": "007",
    "number_text": "100",
    "flag": True,
    "nothing": None,
    "ratio": 0.5,
    "list": ["a", "b'c", 3],
    "empty": [],
    "t": "sales",
    "s_t": "my.sales",
    "quoted": '"my table"',
    "col": "amount",
}
VARIABLES = Variables(profile=PROFILE, environ={"LIMIT": "10", "ZIP": "01234", "FLAG": "true"})


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("x > ${n}", "x > 100"),
        ("x > ${LIMIT}", "x > 10"),
        ("x = ${ZIP}", "x = '01234'"),
        ("x = ${FLAG}", "x = TRUE"),
        ("x = ${number_text}", "x = '100'"),
        ("x = ${text}", "x = 'O''Hara'"),
        ("x = ${nope|5}", "x = 5"),
        ("x = ${nope|'5'}", "x = '5'"),
        ("x = ${nope|it's}", "x = 'it''s'"),
        ("x IS ${nothing}", "x IS NULL"),
        ("x - ${neg} -${neg}", "x - (-1) -(-1)"),
        ("x > ${ratio}", "x > CAST('0.5' AS DOUBLE)"),
        ("x IN (${list})", "x IN ('a', 'b''c', 3)"),
        ("x IN (${empty})", "x IN (NULL)"),
        ("'${text}'", "'O''Hara'"),
        ("'pre_${text}_post'", "'pre_O''Hara_post'"),
        ("'${list}'", "'a,b''c,3'"),
        ("'${nope|it's}'", "'it''s'"),
        ("E'${text}\\n'", "E'O''Hara\\n'"),
        ("$$ ${text} $$", "$$ O'Hara $$"),
        ("$t$ ${text} $$ $t$", "$t$ O'Hara $$ $t$"),
        ('"${text}"', '"O\'Hara"'),
        ("'$${n}'", "'${n}'"),
        ("FROM ${t}", 'FROM "sales"'),
        ("FROM ${s_t} x", 'FROM "my"."sales" x'),
        ("FROM ${quoted}", 'FROM "my table"'),
        ("FROM a, ${t}", 'FROM a, "sales"'),
        ("FROM a JOIN ${t} ON a.x = ${n}, ${t}", 'FROM a JOIN "sales" ON a.x = 100, "sales"'),
        ("FROM (${t} JOIN b USING (x))", 'FROM ("sales" JOIN b USING (x))'),
        ("FROM a WHERE f(x, ${n})", "FROM a WHERE f(x, 100)"),
        ("FROM f(${n}, ${t})", "FROM f(100, 'sales')"),
        ("FROM (VALUES (1, ${text})) v", "FROM (VALUES (1, 'O''Hara')) v"),
        ("INSERT INTO ${t}", 'INSERT INTO "sales"'),
        ("UPDATE ${t}", 'UPDATE "sales"'),
        ("TABLE ${t}", 'TABLE "sales"'),
        ("${t}.x", '"sales".x'),
        ("x.${col}", 'x."amount"'),
        ("sales_${t}", '"sales_sales"'),
        ("${t}_${n}", '"sales_100"'),
        ("x AS ${text}", 'x AS "O\'Hara"'),
        ("x::${t}", 'x::"sales"'),
        ("GROUP BY ${col}, ${n}", 'GROUP BY "amount", 100'),
        ("ORDER BY ${col} LIMIT ${n}", 'ORDER BY "amount" LIMIT 100'),
        ("sum(x) OVER (PARTITION BY ${col})", 'sum(x) OVER (PARTITION BY "amount")'),
        ("string_agg(x, ${t} ORDER BY ${col})", "string_agg(x, 'sales' ORDER BY \"amount\")"),
        ("a IS DISTINCT FROM ${text}", "a IS DISTINCT FROM 'O''Hara'"),
        ("extract(year FROM ${text})", "extract(year FROM 'O''Hara')"),
        ("[1:${n}]", "[1:100]"),
        ("x -- ${undefined} ${}\n/* ${undefined} */", "x -- ${undefined} ${}\n/* ${undefined} */"),
        ("a$b$, 1e6, 'it''s' ${n}", "a$b$, 1e6, 'it''s' ${n}"),
    ],
)
def test_each_place_has_its_form(sql, expected):
    if sql.startswith("a$b$"):
        with pytest.raises(ProjectError, match="beside a string"):
            expand_sql(sql, VARIABLES)
    else:
        assert expand_sql(sql, VARIABLES) == expected


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("FROM ${v}", "a; DROP TABLE t"),
        ("FROM ${v}", "a b"),
        ("FROM ${v}", ""),
        ("FROM ${v}", 5),
        ("FROM ${v}", "a."),
        ("x.${v}", "a'b"),
        ("ORDER BY ${v}", "a DESC"),
        ("t_${v}", "a b"),
        ("${v}_t", "1"),
        ('"${v}"', "a\nb"),
        ("'${v}'", "a\0b"),
        ("${v}", "a\0b"),
        ("$$${v}$$", "a$$b"),
        ("$xy$ $x${v}$ $xy$", "y"),
        ("$$ ${v}$$", "$"),
        ("'a'${v}", "b"),
        ("E'a'\n${v}", "\\' OR 1=1 --"),
    ],
)
def test_a_value_that_fits_no_place_is_refused(sql, value):
    with pytest.raises(ProjectError):
        expand_sql(sql, Variables(run={"v": value}))


def test_a_value_is_not_shown_where_it_is_refused():
    with pytest.raises(ProjectError) as caught:
        expand_sql("FROM ${v}", Variables(environ={"v": "my secret!"}))
    assert "secret" not in str(caught.value)


def test_all_that_have_no_value_are_named():
    with pytest.raises(UndefinedVariables) as caught:
        expand_sql("SELECT ${a}, '${b} ${c|}', \"${d}\" FROM ${n}", VARIABLES)
    assert caught.value.names == ("a", "b", "d")


# Characters that end or open something in SQL come up far more often than in plain text.
NASTY = st.text(
    st.one_of(
        st.sampled_from("'\"\\$;-/*()[]{}\n\r\t EeuUxX#`%_.,"),
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]),
    ),
    max_size=12,
)
STRINGS = [
    "'${v}'",
    "'a''${v}b'",
    "E'${v}'",
    "E'\\\\${v}\\''",
    "e'a'\n'${v}'",
    "E'a' -- c\n '${v}'",
    "$t$${v}$t$",
]


@pytest.fixture(scope="module")
def connection():
    with duckdb.connect() as connection:
        yield connection


@pytest.mark.parametrize("template", STRINGS)
@given(value=NASTY)
def test_a_value_inside_a_string_is_that_text(connection, template, value):
    around = {"'a''${v}b'": ("a'", "b"), "E'\\\\${v}\\''": ("\\", "'"), "e'a'\n'${v}'": ("a", "")}
    before, after = around.get(template, ("a", "") if "-- c" in template else ("", ""))
    try:
        sql = expand_sql(f"SELECT {template}, 42", Variables(sets={"v": value}))
    except ProjectError:
        assert template.startswith("$t$")
        assert "$" in value
        return
    assert connection.execute(sql).fetchall() == [(before + value + after, 42)]


@given(value=NASTY, number=st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False))
def test_a_value_alone_is_one_literal(connection, value, number):
    sql = expand_sql(
        "SELECT ${v}, -${n}::DOUBLE, 42",
        Variables(sets={"v": value, "n": number if not isinstance(number, bool | None) else 1}),
    )
    row = connection.execute(sql).fetchall()[0]
    assert (row[0], row[2]) == (value, 42)


@given(value=NASTY, suffix=NASTY)
def test_a_value_as_a_name_is_one_name_or_refused(connection, value, suffix):
    variables = Variables(run={"v": value, "w": suffix})
    for template in (
        "SELECT 42 AS ${v}",
        'SELECT 42 AS "a${v}"',
        "SELECT t_${v}.x AS a FROM (SELECT 42 AS x) AS t_${v}",
        "SELECT s.${w} AS a FROM (SELECT 42 AS ${w}) AS s",
    ):
        try:
            sql = expand_sql(template, variables)
        except ProjectError:
            continue
        assert connection.execute(sql).fetchall() == [(42,)]


@given(
    parts=st.lists(
        st.sampled_from(
            [
                "'",
                '"',
                "$$",
                "$a$",
                "E'",
                "\\",
                "--",
                "/*",
                "*/",
                "\n",
                " ",
                "${v}",
                "${w|x'y}",
                "$${",
                "FROM ",
                "x",
                "1",
                ".",
                ",",
                "(",
                ")",
                "AS ",
                ";",
                "::",
            ]
        ),
        max_size=14,
    ).map("".join),
    value=NASTY,
    other=NASTY,
)
def test_values_do_not_change_how_sql_is_cut_into_tokens(parts, value, other):
    """The kinds of DuckDB's tokens are the same whether a value is plain or nasty."""
    try:
        nasty = expand_sql(parts, Variables(sets={"v": value, "w": other}))
        plain = expand_sql(parts, Variables(sets={"v": "a", "w": "b"}))
    except ProjectError:
        return
    if "\0" in nasty:
        return
    kinds = [kind for _offset, kind in duckdb.tokenize(nasty)]
    assert kinds == [kind for _offset, kind in duckdb.tokenize(plain)]
