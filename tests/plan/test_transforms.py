"""CREATE TABLE … MODE: what a statement's mode and columns make of it."""

import pytest

BASE = "CREATE TABLE t AS SELECT DATE '2026-01-01' AS day, 1 AS n;\n"


def test_a_table_incremental_by_a_column_that_its_query_only_reads_is_built_anew(desk):
    text = (
        BASE
        + "CREATE TABLE u MODE INCREMENTAL BY day LOOKBACK 7 DAYS AS\nSELECT n, max(day) AS last FROM t GROUP BY n;"
    )
    plan = desk.plan(text)
    step = plan.pipeline("p").groups[-1].steps[0]
    assert (step.mode, step.by, step.lookback) == ("replace", None, None)
    assert plan.notices == (
        "pipelines/p.sf:2: the result of u does not have day, so the table is built anew in each run",
    )


@pytest.mark.parametrize(
    "query",
    [
        "SELECT n FROM t",
        "SELECT n FROM t WHERE day >= @start_date",
    ],
    ids=["nowhere in the query", "with the window in it"],
)
def test_a_table_incremental_by_a_column_that_cannot_be_meant_is_refused(desk, query):
    (problem,) = desk.problems(BASE + f"CREATE TABLE u MODE INCREMENTAL BY day AS {query};")
    assert "the column 'day' is not in the query's result" in problem


def test_a_table_incremental_by_a_column_of_its_result_is_incremental(desk):
    *_, step = desk.steps(BASE + "CREATE TABLE u MODE INCREMENTAL BY Day AS SELECT day, n FROM t;")
    assert (step.mode, step.by) == ("incremental", "Day")


def test_the_lookback_of_a_column_of_numbers_is_a_number(desk):
    (step,) = desk.steps("CREATE TABLE t MODE INCREMENTAL BY id LOOKBACK '100' AS SELECT 1 AS id;")
    assert (step.by, step.lookback) == ("id", "100")
    (problem,) = desk.problems("CREATE TABLE t MODE INCREMENTAL BY id LOOKBACK 100 AS SELECT 1 AS id;")
    assert "LOOKBACK needs a whole number and a unit" in problem
