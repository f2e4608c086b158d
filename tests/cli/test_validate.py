import json
import subprocess
import sys

import pytest


def test_a_sound_project_is_valid(sqlflow, shop):
    result = sqlflow("validate", "--project", shop.root)
    assert (result.status, result.out) == (0, "")


def test_every_problem_of_every_file_is_reported_with_its_place(sqlflow, shop, monkeypatch):
    shop.pipeline("CREATE TABLE c AS SELECT * FROM nowhere;\nLOADX t FROM s;\n", "one")
    shop.pipeline("CREATE TABLE d AS SELEC 1;\n", "two")
    monkeypatch.chdir(shop.root)
    result = sqlflow("validate")
    assert result.status == 1
    places = [line.split(": ")[0] for line in result.out.splitlines() if line.startswith("pipelines/")]
    assert "pipelines/one.sf:2:1" in places
    assert any(place.startswith("pipelines/two.sf:1:") for place in places)


def test_paths_are_shown_so_that_an_editor_in_this_folder_can_open_them(sqlflow, shop, monkeypatch):
    shop.pipeline("nonsense;", "wrong")
    monkeypatch.chdir(shop.root.parent)
    result = sqlflow("validate", "--project", "shop", "--format", "json")
    assert [problem["path"] for problem in result.json["problems"]] == ["shop/pipelines/wrong.sf"]


def test_problems_are_json_for_editors(sqlflow, shop):
    shop.pipeline("CREATE TABLE a AS SELECT 1 AS x;\n  nonsense;\n", "wrong")
    result = sqlflow("validate", "--project", shop.root, "--format", "json")
    assert result.status == 1
    assert result.json["ok"] is False
    (problem,) = result.json["problems"]
    assert (problem["line"], problem["column"]) == (2, 3)
    assert problem["message"]


def test_a_sound_project_is_json_too(sqlflow, shop):
    result = sqlflow("validate", "--project", shop.root, "--format", "json")
    assert (result.status, result.json) == (0, {"ok": True, "problems": [], "notices": []})


@pytest.mark.parametrize("named", ["shop", "pipelines/shop.sf"], ids=["by-name", "by-file"])
def test_one_pipeline_is_judged_without_the_others(sqlflow, shop, monkeypatch, named):
    shop.pipeline("nonsense;", "wrong")
    monkeypatch.chdir(shop.root)
    assert sqlflow("validate", named).status == 0
    assert sqlflow("validate", "wrong").status == 1


def test_a_file_finds_its_project_from_anywhere(sqlflow, shop, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    assert sqlflow("validate", shop.root / "pipelines/shop.sf").status == 0


def test_problems_of_an_included_file_count_for_the_pipeline_that_includes_it(sqlflow, shop):
    shop.write("pipelines/shared/base.sf", "nonsense;")
    shop.pipeline('INCLUDE "shared/base.sf";', "wrong")
    result = sqlflow("validate", "wrong", "--project", shop.root)
    assert result.status == 1
    assert "shared/base.sf:1:1" in result.out


def test_a_wrong_profile_is_json_too(sqlflow, shop):
    shop.write("profiles/dev.yml", "enginess: {}\n")
    result = sqlflow("validate", "--project", shop.root, "--format", "json")
    assert result.status == 1
    assert "engines" in result.json["problems"][0]["message"]


@pytest.mark.parametrize(
    "said",
    [
        "owners: [bob]",
        "tags: {a b: c}",
        'schedule: {cron: "0 25 * * *"}',
        'schedule: {cron: "0 2 * * *", timezone: Mars/Phobos}',
        "partitions: {start: yesterday}",
        "partitions: {start: '2024-01-01', timezone: Nope}",
        "freshness: {fail_after: soon}",
        "freshness: {fail_after: 1 day, cron: '0 2 * * *'}",
        "freshness: {fail_after: 1 day, within: 1 hour}",
        "automation: hourly",
        "sensors: [{type: new_files, source: nope}]",
        "sensors: [{type: upstream, assets: [x.y]}]",
    ],
)
@pytest.mark.parametrize("place", ["defaults", "pipelines"])
def test_what_dagster_refuses_of_a_profile_is_told_before_the_run(sqlflow, shop, said, place):
    shop.write(
        "profiles/dev.yml",
        f"{place}: {{shop: {{{said}}}}}\n" if place == "pipelines" else f"{place}: {{{said}}}\n",
    )
    result = sqlflow("validate", "--project", shop.root, "--format", "json")
    assert result.status == 1
    key = said.partition(":")[0]
    (problem,) = result.json["problems"]
    assert (
        f"profiles/dev.yml: {'pipelines.shop' if place == 'pipelines' else 'defaults'}" in problem["message"]
    )
    assert key in problem["message"].casefold() or key[:-1] in problem["message"].casefold()


@pytest.mark.parametrize(
    "arguments",
    [["nope"], ["--profile", "nope"], ["--vars", "nope"], ["--project", "/no/such/folder"]],
    ids=["pipeline", "profile", "vars", "project"],
)
def test_what_is_not_there_is_named(sqlflow, shop, arguments):
    result = sqlflow("validate", "--project", shop.root, *arguments)
    assert result.status == 1
    assert arguments[-1].rpartition("/")[2] in result.err


def test_validation_loads_neither_dagster_nor_a_driver(shop):
    code = (
        "import sys; from sqlflow_dagster.cli import main\n"
        "sys.argv = ['sqlflow', 'validate', '--project', sys.argv[1]]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "import json; print(json.dumps(sorted(sys.modules)))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(shop.root)], capture_output=True, text=True, check=True
    )
    loaded = {name.partition(".")[0] for name in json.loads(shown.stdout)}
    assert not loaded & {"dagster", "pandas", "pyarrow", "boto3", "psycopg2", "requests", "rich", "sqlglot"}
