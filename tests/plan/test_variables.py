"""Variables while planning: what shapes the graph is fixed, and what is missing is named once."""

import pytest


def test_every_missing_variable_is_named_once_with_each_of_its_places(desk):
    sf = (
        'SOURCE s TYPE CSV PARAMS {"path": "${dir}/${file}.csv"};\nLOAD t FROM s;\n'
        "CREATE TABLE ${name} AS SELECT '${dir}', ${x|1} FROM t; -- ${dir}\n"
        'EXPORT t TO "${dir|out}/t.csv" OPTIONS {"header": "${head}"};\nIF ${flag} THEN END IF;\nSET a = "${dir}";'
    )
    (problem,) = desk.problems(sf, other='INCLUDE "${lib}";')
    message = problem.splitlines()[0]
    assert message == (
        "pipelines/other.sf:1:10: no value for ${dir} (pipelines/p.sf:1:36, pipelines/p.sf:3:33, "
        "pipelines/p.sf:6:10); ${file} (pipelines/p.sf:1:43); ${flag} (pipelines/p.sf:5:4); "
        "${head} (pipelines/p.sf:4:52); ${lib} (pipelines/other.sf:1:10); ${name} (pipelines/p.sf:3:14)"
    )
    assert "--vars" in problem


def test_the_other_problems_are_told_as_well(desk):
    problems = desk.problems('SOURCE s TYPE CSV PARAMS {"path": "${dir}", "nope": 1};\nLOAD t FROM q;')
    assert len(problems) == 3


def test_a_name_in_sql_is_the_variables_value(desk):
    sf = "CREATE TABLE orders_eu AS SELECT 1 AS x;\n"
    sf += "CREATE TABLE t AS SELECT * FROM ${table} JOIN orders_${region} USING (x);"
    _, step = desk.steps(sf, variables={"table": "p.orders_eu", "region": "eu"})
    assert [str(table) for table in step.reads] == ["p.orders_eu"]
    assert "${table}" in step.sql


@pytest.mark.parametrize(
    ("sql", "length"),
    [
        ("SELECT ${n}, ${n} AS m FROM nowhere", 7),
        ("SELECT '${long}' || 'é${n}' FROM nowhere", 7),
        ("SELECT x_${long} FROM (SELECT 1), nowhere", 7),
        ("SELECT 1 -- ${n}\n FROM nowhere", 7),
        ("SELECT * FROM ${nowhere}, (SELECT ${n})", 10),
        ("SELECT ${n} FROM ghost_${nowhere}", 16),
        ("SELECT ${n} FROM ${schema}.${nowhere} AS g", 20),
    ],
)
def test_a_problem_stands_where_it_is_in_the_file_whatever_the_values(desk, sql, length):
    values = {"n": -123456, "long": "a" * 300, "nowhere": "nowhere", "schema": "p"}
    (problem,) = desk.problems(f"CREATE TABLE t AS {sql};", variables=values)
    line, caret = problem.splitlines()[1:3]
    marked = line[caret.index("^") : caret.rindex("^") + 1]
    assert marked in ("nowhere", "${nowhere}", "ghost_${nowhere}", "${schema}.${nowhere}")
    assert len(marked) == length


def test_a_syntax_error_never_shows_a_value(desk):
    sf = "CREATE TABLE t AS SELECT ${n} AS x, '${secret}' '${secret}' frm y;"
    (problem,) = desk.problems(sf, variables={"n": 1, "secret": "canary"})
    assert "canary" not in problem
    assert "syntax error at or near" in problem


@pytest.mark.parametrize(
    ("sf", "place"),
    [
        ("CREATE TABLE t_${run_date} AS SELECT 1 AS x;", "1:14"),
        ("IF ${run_date} > '2020-01-01' THEN END IF;", "1:4"),
        ("SET d = '${run_date}';\nSET e = 'x${d}';\nCREATE TABLE t_${e} AS SELECT 1 AS x;", "3:14"),
        ("SOURCE s TYPE CSV PARAMS {};\nLOAD t FROM s.${partition_start};", "2:15"),
    ],
)
def test_what_only_a_run_knows_cannot_shape_the_graph(desk, sf, place):
    (problem,) = desk.problems(sf)
    assert problem.startswith(f"pipelines/p.sf:{place}: ")
    assert "has its value only when a run starts" in problem


def test_what_only_a_run_knows_may_stand_everywhere_else(desk):
    sf = (
        'SET day = "${run_date}";\nSOURCE s TYPE CSV PARAMS {"path": "${day}.csv"};\nLOAD t FROM s;\n'
        "CREATE TABLE u AS SELECT * FROM t WHERE d = DATE '${day}' AND r = '${run_id}';\n"
        'EXPORT u TO "out/${day}/${run_id}.csv";'
    )
    load, table, export = desk.steps(sf)
    assert table.scope == {"day": "${run_date}"}
    assert export.target == "out/${day}/${run_id}.csv"
    assert load.source.scope == {"day": "${run_date}"}


def test_a_value_given_for_the_run_date_shapes_the_graph(desk):
    (step,) = desk.steps("CREATE TABLE t_${run_date} AS SELECT 1 AS x;", variables={"run_date": "today"})
    assert step.table.name == "t_today"


def test_a_statement_sees_the_sets_before_it(desk):
    first, second = desk.steps(
        "SET a = 1;\nCREATE TABLE t AS SELECT ${a} AS x;\nSET b = 'x';\nCREATE TABLE u AS SELECT '${b}' AS x;"
    )
    assert (first.scope, second.scope) == ({"a": 1}, {"a": 1, "b": "x"})


def test_a_name_set_again_leaves_those_that_used_it_as_they_were(desk):
    from sqlflow_dagster.language.variables import Variables, expand_text

    *_, step = desk.steps(
        'SET a = "1";\nSET b = "${a}b";\nSET a = "${a}2";\nSET a = "${a|x}3";\n'
        "CREATE TABLE t AS SELECT '${a}${b}' AS x;"
    )
    variables = Variables()
    for name, value in step.scope.items():
        variables = variables.with_set(name, value)
    assert expand_text("${a} ${b}", variables) == "123 1b"


def test_the_run_wins_over_set_in_names_and_conditions(desk):
    (step,) = desk.steps(
        "SET env = 'dev';\nIF ${env} == 'prod' THEN CREATE TABLE t_${env} AS SELECT 1 AS x; END IF;",
        variables={"env": "prod"},
    )
    assert step.table.name == "t_prod"


@pytest.mark.parametrize(
    "changed",
    [
        "SET n = 2;\nCREATE TABLE t AS SELECT ${n} AS x FROM (SELECT 1);",
        "SET n = 1;\nCREATE TABLE t AS SELECT ${n} AS y FROM (SELECT 1);",
        "SET n = 1;\nCREATE TABLE t AS SELECT ${n} AS x FROM (SELECT '1  ');",
        "SET n = 1;\nCREATE TABLE t MODE APPEND AS SELECT ${n} AS x FROM (SELECT 1);",
    ],
)
def test_the_code_version_changes_with_the_meaning(desk, changed):
    (before,) = desk.steps("SET n = 1;\nCREATE TABLE t AS SELECT ${n} AS x FROM (SELECT 1);")
    (after,) = desk.steps(changed)
    assert before.code_version != after.code_version


def test_the_code_version_stays_with_blanks_comments_and_other_variables(desk):
    (before,) = desk.steps("SET n = 1;\nCREATE TABLE t AS SELECT ${n} AS x FROM (SELECT 1);")
    (after,) = desk.steps(
        "SET other = 3;\nSET n = 1;\nCREATE TABLE t AS SELECT ${n} AS x -- why\n  FROM\t(SELECT /* all */ 1);"
    )
    assert before.code_version == after.code_version
