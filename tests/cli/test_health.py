"""`sqlflow health`: what Dagster remembers of the tables, for people and for scripts."""

import pytest


@pytest.fixture
def loaded(bench, sqlflow):
    bench.write("data/a.csv", "id\n1\n2\n")
    bench.pipeline(
        'SOURCE s TYPE CSV PARAMS {"path": "data/a.csv"};\nLOAD a FROM s;\nCREATE TABLE b AS FROM a;'
    )
    bench.pipeline("CREATE TABLE never AS SELECT 1 AS x;", "q")
    assert sqlflow("run", "p", "--project", bench.root).status == 0
    return bench


def test_each_table_says_when_it_was_stored_and_what_it_brought(sqlflow, loaded):
    result = sqlflow("health", "--project", loaded.root)
    assert result.status == 0
    assert "p.a" in result.out
    assert "seconds ago" in result.out
    assert "never stored" in result.out
    found = {
        row["table"]: row for row in sqlflow("health", "--project", loaded.root, "--format", "json").json
    }
    assert (found["p.a"]["level"], found["p.a"]["rows"]) == ("fine", [2])
    assert found["q.never"]["last"] is None


@pytest.mark.parametrize(
    ("freshness", "status", "level"),
    [("fail_after: 1 hours", 0, "fine"), ("fail_after: 1 hours, warn_after: PT0S", 0, "warn"), ("fail_after: PT0S", 1, "fail")],
    ids=["young", "getting old", "too old"],
)  # fmt: skip
def test_a_table_that_is_too_old_is_an_exit_status(sqlflow, loaded, freshness, status, level):
    loaded.write("profiles/dev.yml", f"pipelines:\n  p:\n    freshness: {{{freshness}}}\n")
    result = sqlflow("health", "p", "--project", loaded.root, "--format", "json")
    assert result.status == status
    assert {row["level"] for row in result.json} == {level}


def test_a_table_that_was_never_stored_is_too_old_where_it_may_be(sqlflow, loaded):
    loaded.write("profiles/dev.yml", "pipelines:\n  q:\n    freshness: {fail_after: 9 days}\n")
    assert sqlflow("health", "q", "--project", loaded.root).status == 1


def test_an_unknown_pipeline_names_those_there_are(sqlflow, loaded):
    result = sqlflow("health", "x", "--project", loaded.root)
    assert result.status == 1
    assert "the project has p, q" in result.err
