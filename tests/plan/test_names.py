"""What a table's name means: in a pipeline, between pipelines, in one schema, and under INCLUDE … AS."""

import pytest


def reads(step):
    return [str(table) for table in step.reads]


def test_tables_live_in_the_schema_of_their_pipeline(desk):
    plan = desk.plan(sales="CREATE TABLE t AS SELECT 1 AS x;", other="CREATE TABLE t AS SELECT 2 AS x;")
    assert {str(step.table) for p in plan.pipelines for g in p.groups for step in g.steps} == {
        "sales.t",
        "other.t",
    }


def test_an_unqualified_name_is_the_own_table_first(desk):
    _, copy = desk.steps(
        "CREATE TABLE t AS SELECT 1 AS x;\nCREATE TABLE copy AS FROM T;",
        other="CREATE TABLE t AS SELECT 2 AS x;",
    )
    assert reads(copy) == ["p.t"]


def test_an_unqualified_name_is_else_the_one_other_pipelines_table(desk):
    (copy,) = desk.steps("CREATE TABLE copy AS FROM t;", other="CREATE TABLE T AS SELECT 2 AS x;")
    assert reads(copy) == ["other.T"]


def test_a_name_that_several_other_pipelines_have_is_ambiguous(desk):
    (problem,) = desk.problems(
        "CREATE TABLE copy AS FROM t;",
        a="CREATE TABLE t AS SELECT 1 AS x;",
        b="CREATE TABLE t AS SELECT 2 AS x;",
    )
    assert "p.sf:1:27: the table 't' is ambiguous: there are a.t, b.t" in problem
    (copy,) = desk.steps("CREATE TABLE copy AS FROM b.t;")
    assert reads(copy) == ["b.t"]


def test_a_qualified_name_reads_another_pipelines_table_in_any_order_of_files(desk):
    (copy,) = desk.steps("CREATE TABLE copy AS FROM ZZZ.T;", zzz="CREATE TABLE t AS SELECT 2 AS x;")
    assert reads(copy) == ["zzz.t"]


def test_a_table_may_be_made_in_a_schema_of_its_own(desk):
    (made, copy) = desk.steps("CREATE TABLE staging.t AS SELECT 1 AS x;\nCREATE TABLE u AS FROM t;")
    assert str(made.table) == "staging.t"
    assert reads(copy) == ["staging.t"]


def test_two_pipelines_may_not_write_one_table(desk):
    (problem,) = desk.problems("CREATE TABLE x.t AS SELECT 1 AS a;", "CREATE TABLE X.T AS SELECT 1 AS a;")
    assert "p2.sf:1:14: the table X.T is written by the pipeline 'p' too" in problem


def test_a_table_called_like_a_file_is_read_as_a_table(desk):
    (_, made, copy) = desk.steps(
        'CREATE TABLE "a/b" AS SELECT 1 AS x;\nCREATE TABLE "*" AS FROM "a/b";\n'
        """CREATE TABLE u AS FROM "*", 'data/x.csv';"""
    )
    assert (reads(made), reads(copy)) == (["p.a/b"], ["p.*"])


ONE = "schema: lake\n"


def test_one_schema_holds_the_tables_of_all_pipelines(desk):
    plan = desk.plan(
        "CREATE TABLE t AS SELECT 1 AS x;", "CREATE TABLE u AS SELECT * FROM t, lake.t AS l;", profile=ONE
    )
    (step,) = plan.pipeline("p2").groups[0].steps
    assert (str(step.table), reads(step)) == ("lake.u", ["lake.t"])


def test_in_one_schema_one_pipeline_writes_a_table(desk):
    (problem,) = desk.problems(
        "CREATE TABLE t AS SELECT 1 AS x;", "CREATE TABLE t AS SELECT 1 AS x;", profile=ONE
    )
    assert "is written by the pipeline 'p' too" in problem


def test_in_one_schema_a_pipelines_name_is_no_schema(desk):
    (problem,) = desk.problems("CREATE TABLE t AS SELECT 1 AS x;", "CREATE TABLE u AS FROM p.t;", profile=ONE)
    assert "there is no schema 'p'" in problem
    assert "write t, or lake.t" in problem


@pytest.mark.parametrize(
    "name",
    ["information_schema.tables", "pg_catalog.pg_class", "duckdb_tables", "system.information_schema.tables"],
)
def test_duckdbs_own_tables_are_read_without_being_made(desk, name):
    (step,) = desk.steps(f"CREATE TABLE t AS FROM {name};")
    assert step.reads == ()


@pytest.mark.parametrize(
    ("query", "hint"),
    [
        ("FROM costumers", "did you mean customers?"),
        ("FROM p.costumers", "did you mean customers?"),
        ("FROM oders", "did you mean other.orders?"),
        ("FROM files", "it is a SOURCE: write LOAD files FROM files; before it"),
        ("FROM zzzzzz", "no LOAD or CREATE of the project makes it"),
        ("FROM memory.main.customers", "write schema.table"),
        ("FROM _sqlflow.commits", "read the tables themselves"),
    ],
)
def test_an_unknown_table_is_answered_with_what_may_be_meant(desk, query, hint):
    sf = f"SOURCE files TYPE CSV PARAMS {{}};\nCREATE TABLE customers AS SELECT 1 AS x;\nCREATE TABLE t AS {query};"
    (problem,) = desk.problems(sf, other="CREATE TABLE orders AS SELECT 1 AS x;")
    assert "p.sf:3:24:" in problem
    assert hint in problem


def test_a_table_that_a_broken_statement_makes_is_not_unknown_as_well(desk):
    problems = desk.problems(
        'SOURCE s TYPE CSV PARAMS {"wrong": 1};\nLOAD a FROM s;\nCREATE TABLE b AS SELEC 1;\n'
        "IF ${undefined} THEN CREATE TABLE c AS SELECT 1 AS x; END IF;\n"
        "LOAD * FROM s;\nCREATE TABLE d AS SELECT * FROM a, b, c, from_star;"
    )
    assert [problem.partition(" ")[0] for problem in problems] == [
        "pipelines/p.sf:1:36:",
        "pipelines/p.sf:3:19:",
        "pipelines/p.sf:4:4:",
    ]


def test_a_table_of_a_file_that_cannot_be_read_is_not_unknown_as_well(desk):
    problems = desk.problems(
        "CREATE TABLE u AS SELECT * FROM broken.t, nowhere;", broken="CREATE TABEL t AS SELECT 1;"
    )
    assert len(problems) == 2
    assert "unknown table 'nowhere'" in problems[1]


LIB = 'SOURCE s TYPE CSV PARAMS {"path": "x"};\nLOAD raw FROM s;\n'


def test_an_included_file_is_part_of_the_pipeline(desk):
    desk.write("pipelines/lib/base.sf", LIB + "SET limit = 3;")
    steps = desk.steps('INCLUDE "lib/base.sf";\nCREATE TABLE t AS SELECT * FROM raw LIMIT ${limit};')
    assert [str(step.table) for step in steps] == ["p.raw", "p.t"]
    assert steps[0].location.path == desk.root / "pipelines/lib/base.sf"


def test_include_as_puts_the_alias_before_the_files_names(desk):
    body = (
        "CREATE TABLE clean AS WITH c AS (FROM raw) SELECT raw.x, outer_one.y\n"
        'FROM raw JOIN c USING (x), "raw" AS again, outer_one; -- raw\n'
        'EXPORT clean TO "${out|o}/c.csv";\nEXPORT SELECT * FROM PYTHON_FUNC("m.f", clean, \'raw\') TO "d.csv";'
    )
    desk.write("lib/base.sf", LIB + body)
    desk.write("python_udfs/m.py", "def f(rows, name): ...")
    steps = desk.steps(
        'CREATE TABLE outer_one AS SELECT 1 AS y;\nINCLUDE "lib/base.sf" AS a;\nINCLUDE "lib/base.sf" AS b;\n'
        "CREATE TABLE both AS SELECT * FROM a_clean, b_clean;"
    )
    tables = [str(step.table) for step in steps if hasattr(step, "table")]
    assert sorted(tables) == ["p.a_clean", "p.a_raw", "p.b_clean", "p.b_raw", "p.both", "p.outer_one"]
    clean = next(step for step in steps if getattr(step, "table", None) and step.table.name == "a_clean")
    assert clean.sql == (
        'WITH c AS (FROM "p"."a_raw" AS "raw") SELECT raw.x, outer_one.y\n'
        'FROM "p"."a_raw" AS "raw" JOIN c USING (x), "p"."a_raw" AS again, outer_one'
    )
    assert reads(clean) == ["p.a_raw", "p.outer_one"]
    exports = {step.name: step.sql for step in steps if not hasattr(step, "table")}
    assert exports["out_o_c_csv"] == 'FROM "p"."a_clean"'
    assert exports["d_csv_2"] == """SELECT * FROM PYTHON_FUNC("m.f", "p"."b_clean", 'raw')"""


@pytest.mark.parametrize(
    ("included", "message"),
    [
        (
            'INCLUDE "p.sf";',
            "INCLUDE goes in a circle: pipelines/p.sf -> pipelines/lib.inc -> pipelines/p.sf",
        ),
        ('INCLUDE "lib.inc";', "INCLUDE goes in a circle: pipelines/lib.inc -> pipelines/lib.inc"),
        ('INCLUDE "../../etc/passwd";', "no such file"),
        ('INCLUDE "/etc/passwd";', "no such file"),
        ('INCLUDE "${run_date}.sf";', "has its value only when a run starts"),
    ],
)
def test_an_include_that_cannot_be_is_refused(desk, included, message):
    desk.write("pipelines/lib.inc", included)
    (problem,) = desk.problems('INCLUDE "lib.inc";')
    assert problem.startswith("pipelines/lib.inc:1:9: ")
    assert message in problem


def test_pipelines_that_need_each_other_are_refused(desk):
    (problem,) = desk.problems(
        a="CREATE TABLE one AS SELECT 1 AS x;\nCREATE TABLE two AS FROM b.three;\n"
        "CREATE OR REPLACE TABLE one AS FROM two;",
        b="CREATE TABLE three AS FROM a.one;",
    )
    assert "pipelines need each other in a circle" in problem
    assert "reads b.three" in problem
    assert "reads a.one" in problem


def test_pipelines_may_read_each_other_where_no_table_waits_for_itself(desk):
    plan = desk.plan(
        a="CREATE TABLE one AS SELECT 1 AS x;\nCREATE TABLE three AS FROM b.two;",
        b="CREATE TABLE two AS FROM a.one;",
    )
    assert len(plan.pipelines) == 2


def test_an_export_of_a_table_reads_it_by_its_full_name(desk):
    steps = desk.steps(
        'EXPORT t TO "x.csv";\nEXPORT OTHER.T TO "x.csv";', other='CREATE TABLE "t" AS SELECT 1 AS x;'
    )
    assert [(step.name, step.sql) for step in steps] == [
        ("x_csv", 'FROM "other"."t"'),
        ("x_csv_2", 'FROM "other"."t"'),
    ]


def test_the_password_of_a_targets_address_is_in_no_name(desk):
    (_, export) = desk.steps(
        'CREATE TABLE t AS SELECT 1;\nEXPORT t TO "postgres://u:CANARY@h/d#x.y" TYPE POSTGRES;'
    )
    assert export.name == "postgres_u_h_d_x_y"


@pytest.mark.parametrize(
    "text",
    [
        "CREATE TABLE t AS SELECT 1 AS x;\nCREATE VIEW v AS FROM t;\nCREATE OR REPLACE VIEW v AS FROM v;",
        "CREATE TABLE t AS SELECT 1 AS x;\nCREATE VIEW v AS FROM t;\nCREATE VIEW w AS FROM v;\n"
        "CREATE OR REPLACE VIEW v AS FROM w;",
    ],
    ids=["by itself", "through another"],
)
def test_a_view_that_would_read_itself_is_refused(desk, text):
    (problem,) = desk.problems(text)
    assert "the view 'v' would read itself" in problem


@pytest.mark.parametrize(
    "name", ["temp", "Memory", "system", "information_schema", "pg_catalog", "_sqlflow", "x.duckdb"]
)
def test_no_table_can_be_made_in_a_schema_of_duckdb_or_of_the_product(desk, name):
    text = "CREATE TABLE t AS SELECT 1 AS x;\nCREATE TABLE u AS FROM t;"
    (problem,) = desk.problems(**{name: text})
    assert f"{name}.sf:1:1: no pipeline can be called {name}" in problem
    assert "rename the file" in problem
    (desk.root / f"pipelines/{name}.sf").unlink()
    (problem,) = desk.problems(f'CREATE TABLE "{name}".t AS SELECT 1 AS x;')
    assert f"p.sf:1:14: the schema {name.lower()} is " in problem
