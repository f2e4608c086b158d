import json
import re
from importlib.metadata import version

import pytest


def test_pipelines_are_listed_with_their_first_comment(sqlflow, shop):
    (row,) = sqlflow("list", "--project", shop.root, "--format", "json").json
    assert row == {"pipeline": "shop", "sources": 0, "steps": 2, "description": "What the shop sold"}
    assert "What the shop sold" in sqlflow("list", "--project", shop.root).out


def test_a_project_is_found_from_its_subfolders(sqlflow, shop, monkeypatch):
    monkeypatch.chdir(shop.root / "pipelines")
    assert "shop" in sqlflow("list").out


def test_without_a_project_the_next_step_is_said(sqlflow, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = sqlflow("list")
    assert result.status == 1
    assert "sqlflow init" in result.err


def test_the_plan_says_what_runs_and_why(sqlflow, shop):
    text = sqlflow("plan", "shop", "--project", shop.root).out
    assert re.search(r"TABLE shop\.b reads shop\.a", text)
    document = sqlflow("plan", "--project", shop.root, "--format", "json").json
    steps = [step for group in document["pipelines"][0]["groups"] for step in group["steps"]]
    assert [step["table"] for step in steps] == ["shop.a", "shop.b"]


def test_a_plan_of_an_unknown_pipeline_names_those_there_are(sqlflow, shop):
    result = sqlflow("plan", "shopp", "--project", shop.root)
    assert result.status == 1
    assert "the project has shop" in result.err


def test_the_version_is_the_installed_one(sqlflow):
    assert sqlflow("version").out.strip() == version("sqlflow-dagster")


def test_connectors_are_listed_with_what_they_are_for(sqlflow):
    rows = sqlflow("connectors", "list", "--format", "json").json
    assert {"CSV", "PARQUET"} <= {row["type"] for row in rows}
    assert all(row["about"] for row in rows)


def test_a_parameter_is_shown_by_the_name_that_is_written(sqlflow):
    shown = sqlflow("connectors", "show", "postgres").out
    assert "\nschema " in shown
    assert "schema_ " not in shown


def test_a_connectors_parameters_are_shown_with_their_meaning(sqlflow):
    text = sqlflow("connectors", "show", "csv").out
    assert "cursor_field" in text
    schema = sqlflow("connectors", "show", "csv", "--format", "json").json
    assert schema["source"]["properties"]["path"]["description"]


@pytest.mark.parametrize(
    "command",
    [
        ["list"], ["plan", "shop"], ["plan", "nix"], ["validate"], ["run", "shop"], ["run", "nix"], ["health"],
        ["health", "nix"], ["discover", "nix"], ["cursors", "list"], ["cursors", "show", "nix"], ["connectors", "test", "nix"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_what_ends_a_command_is_in_its_json_too(sqlflow, shop, command):
    wrong = [] if "nix" in command else ["--profile", "nix"]
    result = sqlflow(*command, "--project", shop.root, *wrong, "--format", "json")
    assert result.status == 1
    told = result.json
    assert (told.get("error") or told["problems"][0]["message"]) in result.err


def test_a_type_that_is_not_there_is_in_the_json_too(sqlflow):
    assert "CSV" in sqlflow("connectors", "show", "CSVV", "--format=json").json["error"]


@pytest.mark.parametrize("arguments", [["connectors", "show", "CSVV"], ["cursors", "list"]])
def test_errors_are_said_on_stderr_without_a_traceback(sqlflow, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    result = sqlflow(*arguments)
    assert (result.status, result.out) == (1, "")
    assert result.err.strip()
    assert "Traceback" not in result.err


def test_a_wrong_command_line_ends_with_2(sqlflow):
    assert sqlflow("list", "--format", "xml").status == 2


def test_an_estimate_says_what_the_next_reads_take_and_reads_nothing(sqlflow, bench):
    for day in (1, 2, 3):
        bench.write(f"data/{day}.csv", f"id\n{day}\n")
    bench.pipeline(
        'SOURCE s TYPE CSV PARAMS {"path": "data/*.csv", "sync_mode": "incremental"};\nLOAD t FROM s;\n'
        'SOURCE none TYPE CSV PARAMS {"path": "data/*.csv", "partition_filter": {"year": 2024}};\nLOAD u FROM none;'
    )
    plan = ("plan", "--project", bench.root, "--estimate")
    first, second = sqlflow(*plan, "--format", "json").json["estimates"]
    assert (first["load"], first["files"], first["bytes"], first["usd"]) == ("p.t", 3, 15, None)
    assert "no file lies in folders of 'year'" in second["problem"]
    assert not (bench.root / "data/warehouse.duckdb").exists()
    bench.run()
    bench.write("data/4.csv", "id\n4\n")
    assert sqlflow(*plan, "--format", "json").json["estimates"][0]["files"] == 1
    shown = sqlflow(*plan)
    assert shown.status == 0
    assert "p.t" in shown.out
    assert "estimates" not in sqlflow("plan", "--project", bench.root, "--format", "json").json


@pytest.fixture
def broken_neighbour(shop):
    shop.pipeline("CREATE TABLE t AS SELEC 1;\n", "broken")
    return shop


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [(["list"], "shop"), (["plan"], "shop.b"), (["cursors", "list"], ""), (["health"], "shop.a")],
)
def test_a_pipeline_with_a_problem_hides_no_other(sqlflow, broken_neighbour, arguments, shown):
    result = sqlflow(*arguments, "--project", broken_neighbour.root, "--format", "json")
    assert shown in json.dumps(result.json)
    assert "broken is left out, something in it is wrong: sqlflow validate broken" in result.err
    assert result.status == 1


def test_a_pipeline_that_is_asked_for_alone_stands_alone(sqlflow, broken_neighbour):
    assert sqlflow("plan", "shop", "--project", broken_neighbour.root).status == 0
    result = sqlflow("plan", "broken", "--project", broken_neighbour.root)
    assert (result.status, "SELEC" in result.err) == (1, True)
