"""A plan becomes assets whose keys are the tables' names, whatever those are."""

import json

import dagster as dg
import pytest

from sqlflow_dagster import SQLFlowTranslator, build_definitions, build_pipeline_specs, load_project
from sqlflow_dagster.assets.build import job_names
from sqlflow_dagster.errors import SettingsError


def keys(definitions):
    return sorted(key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys())


def parents(definitions, *path):
    node = definitions.resolve_asset_graph().get(dg.AssetKey(list(path)))
    return sorted(key.to_user_string() for key in node.parent_keys)


def test_tables_and_exports_are_assets_under_their_pipeline(deployment):
    deployment.pipeline("CREATE TABLE t AS SELECT 1 AS x;", "one")
    deployment.pipeline(
        'CREATE TABLE u AS SELECT * FROM one.t;\nEXPORT SELECT * FROM u TO "output/u.csv";', "two"
    )
    definitions = deployment.definitions()
    assert [key for key in keys(definitions) if "export" not in key] == ["one/t", "two/u"]
    export = next(key for key in keys(definitions) if "export" in key)
    assert export.startswith("two/export/")
    assert parents(definitions, "two", "u") == ["one/t"]
    assert parents(definitions, *export.split("/")) == ["two/u"]
    assert {job.name for job in definitions.resolve_all_job_defs()} >= {"one", "two"}


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["Order Details"], id="a blank"),
        pytest.param(["naïve", "日本"], id="letters beyond ASCII"),
        pytest.param(["x$y", "50%"], id="signs"),
        pytest.param(["a b", "a_b", "a-b"], id="alike once they are legal"),
        pytest.param(["class", "input", "type"], id="words of Python and Dagster"),
    ],
)
def test_a_table_keeps_any_name_that_the_database_takes(deployment, names):
    statements = [f'CREATE TABLE "{name}" AS SELECT {n} AS x;' for n, name in enumerate(names)]
    reads = " UNION ALL ".join(f'SELECT x FROM "{name}"' for name in names)
    deployment.pipeline("\n".join([*statements, f"CREATE TABLE total AS SELECT sum(x) AS x FROM ({reads});"]))
    run = deployment.run()
    assert run.success, run.failures
    assert {f"p/{name}" for name in names} < set(run.stored)
    assert parents(deployment.definitions(), "p", "total") == sorted(f"p/{name}" for name in names)


@pytest.mark.parametrize("name", ["my-pipe", "import", "config", "über", "2024", "a.b"])
def test_a_pipeline_of_any_file_name_has_a_job(deployment, name):
    deployment.pipeline("CREATE TABLE t AS SELECT 1 AS x;", name)
    job = job_names(load_project(deployment.bench.root))[name]
    assert deployment.run(job).stored == [f"{name}/t"]


def test_pipelines_whose_names_become_alike_have_jobs_and_ops_of_their_own(deployment):
    for name in ("my-pipe", "my_pipe", "my_pipe__t"):
        deployment.pipeline("CREATE TABLE t AS SELECT 1 AS x;", name)
    named = job_names(load_project(deployment.bench.root))
    assert len(set(named.values())) == 3
    assert [deployment.run(job).stored for job in named.values()] == [[f"{name}/t"] for name in named]


def test_tables_made_from_each_other_in_turns_are_no_circle(deployment):
    deployment.pipeline(
        "CREATE TABLE a AS SELECT 1 AS x;\nCREATE TABLE b AS SELECT x + 1 AS x FROM a;\n"
        "CREATE OR REPLACE TABLE a AS SELECT x * 10 AS x FROM b;"
    )
    run = deployment.run()
    assert run.success, run.failures
    assert run.stored == ["p/b", "p/a"]
    assert parents(deployment.definitions(), "p", "a") == ["p/b"]
    assert parents(deployment.definitions(), "p", "b") == []


def test_a_table_that_is_spelt_in_two_ways_is_one_asset(deployment):
    deployment.pipeline(
        "CREATE TABLE Orders AS SELECT 1 AS x;\nCREATE OR REPLACE TABLE ORDERS AS SELECT 2 AS x;"
    )
    assert keys(deployment.definitions()) == ["p/Orders"]
    assert deployment.run().stored == ["p/Orders"]


class Prefixed(SQLFlowTranslator):
    def get_asset_spec(self, data):
        spec = super().get_asset_spec(data)
        return spec.replace_attributes(key=spec.key.with_prefix("lake"), owners=["team:lake"])


def test_a_translator_may_change_keys_and_what_depends_on_them_follows(deployment):
    deployment.pipeline("CREATE TABLE t AS SELECT 1 AS x;\nCREATE TABLE u AS SELECT * FROM t;")
    definitions = deployment.definitions(translator=Prefixed())
    assert keys(definitions) == ["lake/p/t", "lake/p/u"]
    assert parents(definitions, "lake", "p", "u") == ["lake/p/t"]
    result = definitions.resolve_job_def("p").execute_in_process(instance=deployment.instance)
    assert [e.asset_key.to_user_string() for e in result.get_asset_materialization_events()] == [
        "lake/p/t",
        "lake/p/u",
    ]


def test_a_spec_says_what_the_profile_and_the_file_say(deployment):
    deployment.profile(
        "pipelines:\n  p:\n    owners: ['team:shop']\n    tags: {domain: retail}\n    group: Shop Floor\n"
        "    freshness: {fail_after: 36 hours, warn_after: PT24H}\n"
    )
    deployment.pipeline("-- one\nCREATE TABLE t AS\nSELECT 1 AS `x`;".replace("`", '"'))
    (spec,) = build_pipeline_specs(deployment.bench.root, "p")
    assert (spec.owners, spec.group_name) == (["team:shop"], "Shop_Floor")
    assert spec.tags["domain"] == "retail"
    assert spec.kinds == {"sql", "duckdb"}
    assert '```sql\nSELECT 1 AS "x"\n```' in spec.description
    assert spec.metadata["dagster/table_name"].value == "p.t"
    (place,) = spec.metadata["dagster/code_references"].code_references
    assert (place.file_path.endswith("pipelines/p.sf"), place.line_number) == (True, 2)
    assert spec.freshness_policy.fail_window.to_timedelta().total_seconds() == 36 * 3600


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        pytest.param("SELECT 1 AS x", "SELECT 2 AS x", False, id="another value"),
        pytest.param("SELECT 1 AS x", "SELECT 1 AS x -- why\n", True, id="a comment"),
    ],
)
def test_the_code_version_changes_when_the_meaning_does(deployment, before, after, same):
    deployment.pipeline(f"CREATE TABLE t AS {before};")
    (old,) = build_pipeline_specs(deployment.bench.root, "p")
    deployment.pipeline(f"CREATE TABLE t AS {after};")
    (new,) = build_pipeline_specs(deployment.bench.root, "p")
    assert (old.code_version == new.code_version) is same


def test_the_code_version_of_a_load_changes_with_its_source(deployment):
    versions = []
    for more in ("", ', "batch_size": 10'):
        deployment.pipeline(deployment.far({"a": [[]]}, more) + "LOAD a FROM far.a;")
        versions.append(build_pipeline_specs(deployment.bench.root, "p")[0].code_version)
    assert versions[0] != versions[1]


def test_projects_merge_with_each_other_and_with_other_definitions(deployment, tmp_path):
    deployment.pipeline("CREATE TABLE t AS SELECT 1 AS x;", "one")
    other = tmp_path / "other" / "pipelines"
    other.mkdir(parents=True)
    (other / "two.sf").write_text("CREATE TABLE u AS SELECT 2 AS x;")

    @dg.asset(deps=[dg.AssetKey(["one", "t"])])
    def report(): ...

    merged = dg.Definitions.merge(
        build_definitions(deployment.bench.root),
        build_definitions(other.parent),
        dg.Definitions(assets=[report], executor=dg.multiprocess_executor),
    )
    assert keys(merged) == ["one/t", "report", "two/u"]
    for job in ("one", "two"):
        assert merged.resolve_job_def(job).execute_in_process(instance=deployment.instance).success


def test_a_project_without_pipelines_has_empty_definitions(deployment):
    assert keys(deployment.definitions()) == []


def test_a_profile_of_a_pipeline_that_there_is_not_is_refused(deployment):
    deployment.pipeline("CREATE TABLE t AS SELECT 1 AS x;")
    deployment.profile("pipelines:\n  shop: {}\n")
    with pytest.raises(SettingsError, match="there is no such pipeline; the project has p"):
        deployment.definitions()


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        pytest.param("owners: [nobody]", "Invalid owner", id="an owner"),
        pytest.param("tags: {'a b': c}", "invalid tag", id="a tag"),
        pytest.param("freshness: {fail_after: soon}", "soon", id="a duration"),
        pytest.param("freshness: {warn_after: 1 day}", "fail_after", id="no limit"),
        pytest.param("freshness: {fail_after: 1 day, warn_after: 2 days}", "freshness", id="warned too late"),
        pytest.param("schedule: {cron: daily}", "cron", id="a cron expression"),
        pytest.param("schedule: {cron: '@daily', timezone: Mars/Base}", "Mars/Base", id="a time zone"),
        pytest.param("partitions: {start: yesterday}", "yesterday", id="a partition's start"),
        pytest.param(
            "partitions: {start: 2026-01-31, every: month}", "31", id="a day that not all months have"
        ),
        pytest.param("sensors: [{type: new_files, source: nowhere}]", "nowhere", id="a sensor's source"),
        pytest.param("sensors: [{type: upstream, assets: [p.nothing]}]", "p.nothing", id="a sensor's table"),
    ],
)
def test_what_dagster_would_refuse_is_said_by_its_place_in_the_profile(deployment, profile, message):
    deployment.pipeline("CREATE TABLE t AS SELECT 1 AS x;")
    deployment.profile(f"pipelines:\n  p:\n    {profile}\n")
    with pytest.raises(SettingsError) as error:
        deployment.definitions()
    assert message in str(error.value)
    assert "dev.yml" in str(error.value)
    assert "pipelines.p" in str(error.value)


def test_definitions_become_one_snapshot_as_the_web_ui_takes_them(deployment):
    deployment.pipeline("CREATE TABLE t AS SELECT 1 AS x;")
    deployment.instance.wipe()
    repository = deployment.definitions().get_repository_def()
    repository.load_all_definitions()
    from dagster._core.remote_representation.external_data import RepositorySnap

    snap = RepositorySnap.from_def(repository)
    assert [node.asset_key.to_user_string() for node in snap.asset_nodes] == ["p/t"]
    assert json.dumps([node.job_names for node in snap.asset_nodes])
