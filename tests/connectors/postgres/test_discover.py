"""`sqlflow discover` and `sqlflow run` look tables up that a SOURCE gives by patterns."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from sqlflow_dagster.cli.app import app


@pytest.fixture
def sqlflow(project, monkeypatch, tmp_path):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()

    def run(*arguments):
        return CliRunner().invoke(app, [*arguments, "--project", str(project.bench.root)])

    return run


def test_discover_lists_what_it_found_and_definitions_load_from_it(project, sqlflow):
    project.database.run("CREATE TABLE a (id int PRIMARY KEY, x text)", "CREATE TABLE b AS SELECT 1 AS y")
    project.pipeline("LOAD * FROM pg;")
    validated = sqlflow("validate")
    assert validated.exit_code == 0
    assert "look them up: sqlflow discover p pg" in validated.output
    found = sqlflow("discover", "p", "pg", "--format", "json")
    assert found.exit_code == 0
    streams = json.loads(found.stdout)["streams"]
    assert [(item["stream"], item["primary_key"], item["columns"]) for item in streams] == [
        ("a", ["id"], {"id": "INTEGER", "x": "VARCHAR"}),
        ("b", [], {"y": "INTEGER"}),
    ]
    planned = sqlflow("plan", "--format", "json")
    assert "p.a" in planned.output


def test_run_looks_up_what_is_not_known_and_anew_where_it_is_asked_to(project, sqlflow):
    project.database.run("CREATE TABLE a AS SELECT 1 AS x")
    project.pipeline("LOAD * FROM pg;")
    assert sqlflow("run", "p").exit_code == 0
    assert project.query("SELECT * FROM p.a") == [(1,)]
    project.database.run("CREATE TABLE b AS SELECT 2 AS x")
    assert sqlflow("run", "p", "--discover").exit_code == 0
    assert project.query("SELECT * FROM p.b") == [(2,)]


def test_discover_tells_which_source_cannot_be_reached(project, sqlflow):
    project.pipeline("LOAD * FROM pg;", port=1)
    ended = sqlflow("discover")
    assert ended.exit_code == 1
    assert "p.pg: postgres 127.0.0.1:1/" in ended.output
    assert "Connection refused" in ended.output
    unknown = sqlflow("discover", "p", "nix")
    assert unknown.exit_code != 0
