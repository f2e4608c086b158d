"""All errors of a file come at once, and none that only follows from another."""

import pytest


def messages(problems):
    return [problem.splitlines()[0].split(": ", 1)[1] for problem in problems]


def test_grammar_hides_no_other_error(desk):
    problems = desk.problems(
        'SOURCE a TYPE CSV PARAMS {"pth": "x.csv"};\n'
        "LOAD x FRM a;\n"
        "LOAD y FROM b;\n"
        "CREATE TABLE one AS SELECT FROM WHERE;\n"
        "CREATE TABLE two AS SELECT * FROM nowhere;\n"
        "CREATE TABLE two AS SELECT ${limit} AS n;\n"
        'EXPORT two TO "two.csv" OPTIONS {"headr": true};\n'
        "DROP TABLE two;\n"
    )
    assert messages(problems) == [
        "SOURCE a: pth: no such parameter",
        "expected FROM, found FRM",
        "unknown source 'b'",
        'the SQL cannot be parsed: syntax error at or near "WHERE"',
        "unknown table 'nowhere'",
        "'two' is made at line 5 already",
        "no value for ${limit} (pipelines/p.sf:6:28)",
        "EXPORT: headr: no such option",
        "DROP starts no statement",
    ]


CAUSED = {
    "a table of a statement that does not parse": (
        "CREATE TABL t AS SELECT 1 AS x;\nCREATE TABLE u AS FROM t;",
        ["expected TABLE or VIEW, found TABL"],
    ),
    "its other name": (
        'CREATE TABL "Großer Topf" AS SELECT 1 AS x;\nCREATE TABLE u AS FROM "großer topf";',
        ["expected TABLE or VIEW, found TABL"],
    ),
    "a table that is made again later": (
        "CREATE TABL t AS SELECT 1 AS x;\nCREATE TABLE u AS FROM t;\nCREATE OR REPLACE TABLE t AS SELECT 2 AS x;",
        ["expected TABLE or VIEW, found TABL"],
    ),
    "a table of a query that does not parse": (
        "CREATE TABLE t AS SELECT 1 +;\nCREATE TABLE u AS FROM t;\nEXPORT u TO 'u.csv';",
        ["the SQL cannot be parsed: syntax error at end of input"],
    ),
    "a source": (
        'SOURCE s TYPE CSV PARAM {"path": "x"};\nLOAD t FROM s;\nCREATE TABLE u AS FROM t;',
        ["expected PARAMS, found PARAM"],
    ),
    "a variable": ("SET x 1;\nCREATE TABLE u AS SELECT ${x} AS x;", ["expected =, found 1"]),
    "a variable made of one without a value": (
        "SET x = ${y};\nSET z = '${x}';\nCREATE TABLE t_${z} AS SELECT 1;\nCREATE TABLE u AS FROM t_a;",
        ["no value for ${y} (pipelines/p.sf:1:9)"],
    ),
    "what stands in an IF without a decision": (
        "IF ${env} == 'a' THEN\nSET x = 1;\nCREATE TABLE t AS SELECT 1;\nEND IF;\nCREATE TABLE u AS SELECT ${x} FROM t;",
        ["no value for ${env} (pipelines/p.sf:1:4)"],
    ),
    "what stands in an IF whose condition cannot be read": (
        "IF 1 === 1 THEN\nCREATE TABLE t AS SELECT 1;\nELSE\nCREATE TABLE t2 AS SELECT 1;\nEND IF;\n"
        "CREATE TABLE u AS FROM t;",
        ["= is no value"],
    ),
    "what an INCLUDE that is not found may have": (
        "INCLUDE 'no.sf';\nLOAD t FROM s;\nCREATE TABLE u AS SELECT ${x} FROM v;",
        ["INCLUDE 'no.sf': no such file"],
    ),
    "what an INCLUDE that does not parse may have": (
        "INCLUDE no.sf;\nCREATE TABLE u AS SELECT ${x} FROM v;",
        ["expected a file in quotes, found no"],
    ),
    "what a LOAD * that does not parse may have": (
        "LOAD * FORM s;\nCREATE TABLE u AS FROM orders;",
        ["expected FROM, found FORM"],
    ),
    "a table whose name has no value": (
        "CREATE TABLE ${x}_t AS SELECT 1;\nCREATE TABLE u AS FROM a_t;",
        ["no value for ${x} (pipelines/p.sf:1:14)"],
    ),
    "a table name without a value in a query": (
        "CREATE TABLE u AS SELECT * FROM ${x}, ${y}.t, nowhere;",
        ["no value for ${x} (pipelines/p.sf:1:33); ${y} (pipelines/p.sf:1:39)", "unknown table 'nowhere'"],
    ),
}


@pytest.mark.parametrize(("text", "expected"), CAUSED.values(), ids=CAUSED)
def test_no_error_is_told_that_another_may_have_caused(desk, text, expected):
    assert messages(desk.problems(text)) == expected


def test_statements_of_an_if_that_is_never_closed_are_looked_at(desk):
    problems = desk.problems("IF 1 = 1 THEN\nCREATE TABLE t AS FROM nowhere;\nCREATE TABLE u AS FROM t;")
    assert messages(problems) == ["this IF is never closed", "unknown table 'nowhere'"]


def test_a_broken_statement_does_not_hide_errors_that_it_cannot_cause(desk):
    problems = desk.problems("CREATE TABL t AS SELECT '${x}' FROM v;\nCREATE TABLE u AS SELECT ${y} FROM w;")
    assert messages(problems) == [
        "expected TABLE or VIEW, found TABL",
        "no value for ${y} (pipelines/p.sf:2:26)",
        "unknown table 'w'",
    ]


def test_another_pipelines_table_is_not_taken_for_the_own_one_that_does_not_parse(desk):
    problems = desk.problems(
        "CREATE TABL t AS SELECT 1 AS x;\nCREATE TABLE u AS FROM t;", "CREATE TABLE t AS FROM u;"
    )
    assert messages(problems) == ["expected TABLE or VIEW, found TABL"]


def test_a_prefixed_table_that_does_not_parse_is_not_called_unknown(desk):
    desk.write("pipelines/shared/lib.sf", "CREATE TABL t AS SELECT 1;\nCREATE TABLE u AS FROM t;")
    problems = desk.problems(
        "INCLUDE 'shared/lib.sf' AS a;\nCREATE TABLE v AS FROM a_t;\nCREATE TABLE w AS FROM b_t;"
    )
    assert messages(problems) == ["unknown table 'b_t'", "expected TABLE or VIEW, found TABL"]
