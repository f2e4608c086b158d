"""A project beside a user's own definitions: components, resources, run config, backfills."""

from __future__ import annotations

import subprocess
import sys

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox
from dagster_duckdb import DuckDBResource

from sqlflow_dagster import (
    SQLFlowProjectComponent,
    WarehouseResource,
    build_definitions,
    warehouse_resource,
)
from sqlflow_dagster.errors import SettingsError, WarehouseBusy

DAYS = (
    'SOURCE s TYPE CSV PARAMS {"path": "data/s.csv", "sync_mode": "incremental", "cursor_field": "day",\n'
    '  "types": {"day": "TIMESTAMP"}};\nLOAD t FROM s;\n'
)
PARTITIONS = (
    "pipelines: {{p: {{partitions: {{every: day, start: '2026-01-01', end: '2026-01-06', per_run: {0}}}}}}}\n"
)


def run_config(**config):
    return {"resources": {"sqlflow": {"config": config}}}


# --- components


# Dagster warns of itself where it loads components.
@pytest.mark.filterwarnings("ignore:`parse_obj_as`", "ignore::dagster.BetaWarning")
def test_a_component_is_a_folder_with_a_first_pipeline():
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=SQLFlowProjectComponent)
        (path / "pipelines" / "more.sf").write_text(
            "CREATE TABLE t AS SELECT ${n|1} AS n, ${who|'x'} AS who;"
        )
        (path / "defs.yaml").write_text(
            "type: sqlflow_dagster.SQLFlowProjectComponent\n"
            "attributes: {project: ., variables: {n: 7, who: it's}}\n"
        )
        with sandbox.load_component_and_build_defs(defs_path=path) as (component, definitions):
            assert component.variables == {"n": 7, "who": "it's"}
            keys = {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}
            assert keys == {"hello/greetings", "more/t"}
            assert definitions.resolve_job_def("hello").execute_in_process().success


class Tagged(SQLFlowProjectComponent):
    """A user's subclass, that says what an asset is."""

    def get_asset_spec(self, data):
        return super().get_asset_spec(data).merge_attributes(tags={"team": "shop"})


def test_a_component_can_be_subclassed_like_a_translator(deployment):
    deployment.pipeline("CREATE TABLE t AS SELECT 1 AS x;")
    component = Tagged(project=str(deployment.bench.root))
    definitions = component.build_defs(dg.ComponentTree.for_test().load_context)
    (spec,) = definitions.resolve_all_asset_specs()
    assert spec.tags["team"] == "shop"


# --- jobs beside a user's own


@dg.asset
def rates():
    """A user's asset."""


@dg.asset_check(asset=dg.AssetKey(["p", "t"]), additional_deps=[rates])
def few_rows():
    """A user's check of a pipeline's table."""
    return dg.AssetCheckResult(passed=True)


def contents(job):
    """What a job is made of: its ops with where their inputs come from, and what it makes and knows of."""
    graph = job.asset_layer.asset_graph
    return (
        {str(invocation): inputs for invocation, inputs in job.graph.dependencies.items()},
        {node.name for node in job.graph.nodes},
        graph.executable_asset_keys,
        graph.get_all_asset_keys(),
        graph.asset_check_keys,
        job.partitions_def,
    )


def test_a_pipelines_job_is_what_dagster_makes_of_its_assets(deployment):
    deployment.pipeline(
        'SOURCE s TYPE CSV PARAMS {"path": "data/*.csv"};\nLOAD t FROM s;\nLOAD u FROM s;\n'
        "CREATE TABLE v AS SELECT * FROM t;\nCREATE TABLE w AS SELECT * FROM v, q.other;"
    )
    deployment.pipeline("CREATE TABLE other AS SELECT 1 AS x;", "q")
    deployment.pipeline("CREATE TABLE reader AS SELECT * FROM p.t;", "r")
    ours = dg.Definitions.merge(
        build_definitions(deployment.bench.root), dg.Definitions([rates], asset_checks=[few_rows])
    )
    theirs = dg.define_asset_job("p", selection=dg.AssetSelection.assets(*(["p", table] for table in "tuvw")))
    job = ours.resolve_job_def("p")
    assert contents(job) == contents(theirs.resolve(ours.resolve_asset_graph()))
    assert set(few_rows.check_keys) <= job.asset_layer.asset_graph.asset_check_keys


# --- the warehouse beside dagster-duckdb


@dg.asset(deps=[dg.AssetKey(["p", "orders"])])
def scored(duckdb: DuckDBResource):
    """A user's asset that reads and writes the warehouse from Python."""
    import pandas as pd

    scores = pd.DataFrame({"id": [1, 2], "score": [0.5, 0.7]})
    with duckdb.get_connection() as connection:
        connection.execute(
            "CREATE OR REPLACE TABLE scored AS SELECT o.id, score FROM p.orders AS o JOIN scores USING (id)"
        )
    del scores


@pytest.mark.parametrize("ours", [True, False], ids=["our-resource", "dagster-duckdbs-own"])
def test_assets_in_python_share_the_warehouse_with_the_steps(deployment, ours):
    deployment.pipeline(
        "CREATE TABLE orders AS SELECT unnest([1, 2]) AS id;\nCREATE TABLE more AS SELECT count(*) AS n FROM orders;"
    )
    root = deployment.bench.root
    resource = (
        warehouse_resource(root) if ours else DuckDBResource(database=str(root / "data/warehouse.duckdb"))
    )
    definitions = dg.Definitions.merge(
        build_definitions(root),
        dg.Definitions(assets=[scored], resources={"duckdb": resource}, executor=dg.in_process_executor),
        dg.Definitions(jobs=[dg.define_asset_job("all", selection="*")]),
    )
    job = definitions.resolve_job_def("all")
    for _ in range(2):
        assert job.execute_in_process(instance=deployment.instance).success
    assert deployment.query("SELECT id, score::DOUBLE FROM scored ORDER BY id") == [(1, 0.5), (2, 0.7)]


HOLD = """
import sys
from pathlib import Path
from sqlflow_dagster.warehouse.duckdb import Warehouse, WarehouseSettings
root = Path(sys.argv[1])
with Warehouse(WarehouseSettings(path=root / "data/warehouse.duckdb", state_directory=root)).open():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_python_asset_waits_for_the_step_that_holds_the_warehouse_and_names_it(deployment):
    deployment.profile("engines: {duckdb: {lock_timeout_seconds: 0.3}}")
    resource = warehouse_resource(deployment.bench.root)
    command = [sys.executable, "-c", HOLD, str(deployment.bench.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(WarehouseBusy, match=str(holder.pid)), resource.get_connection():
            pass
        holder.communicate()
    with resource.get_connection() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_warehouse_in_memory_is_not_shared(deployment):
    deployment.profile("engines: {duckdb: {path: ':memory:'}}")
    with pytest.raises(SettingsError, match="in memory"):
        warehouse_resource(deployment.bench.root)
    assert issubclass(WarehouseResource, DuckDBResource)


def test_a_warehouse_in_memory_lasts_for_a_whole_dagster_job(deployment):
    deployment.profile("engines: {duckdb: {mode: memory}}")
    deployment.pipeline(
        "CREATE TABLE t AS SELECT 1 AS x;\nCREATE TABLE u AS SELECT x + 1 AS x FROM t;\n"
        'EXPORT SELECT * FROM u TO "output/u.csv";'
    )
    ended = deployment.command("job", "execute", "-f", "definitions.py", "-j", "p")
    assert ended.returncode == 0, ended.stderr
    assert (deployment.bench.root / "output/u.csv").read_text() == "x\n2\n"
    assert not (deployment.bench.root / "data").exists()


# --- run config


def test_variables_of_run_config_win_for_that_run(deployment):
    deployment.pipeline("SET n = 1;\nCREATE TABLE t AS SELECT ${n} AS n, '${who|nobody}' AS who;")
    assert deployment.run(run_config=run_config(vars={"n": 7, "who": "it's"})).success
    assert deployment.query("FROM p.t") == [(7, "it's")]
    assert deployment.run().success
    assert deployment.query("FROM p.t") == [(1, "nobody")]


@pytest.mark.parametrize(
    ("pipeline", "given", "message"),
    [
        (
            "IF ${full|0} == 1 THEN CREATE TABLE t AS SELECT 1 AS x; ENDIF; CREATE TABLE u AS SELECT 1 AS x;",
            {"full": 1},
            "fixed when definitions load",
        ),
        ("CREATE TABLE u AS SELECT '${x|a}' AS x;", {"x": {"a": 1}}, "a variable is text"),
        (
            'SOURCE far TYPE FAR_SIDE PARAMS {"scripts": "far", "stream_names": ["a"], "password": "${secret|x}"};\nLOAD a FROM far.a;',
            {"secret": "hunter2-long"},
            "a secret cannot be given in run config",
        ),
    ],
    ids=["shapes-the-graph", "no-scalar", "secret"],
)
def test_what_run_config_may_not_say_is_refused_before_anything_runs(deployment, pipeline, given, message):
    deployment.pipeline(pipeline)
    run = deployment.run(run_config=run_config(vars=given))
    assert not run.success
    assert message in run.failures
    assert run.stored == []
    assert run.retries == 0


@pytest.mark.parametrize("config", [{"fullrefresh": True}, {"full_refresh": "yes"}], ids=["unknown", "type"])
def test_run_config_is_checked_before_the_run(deployment, config):
    deployment.pipeline("CREATE TABLE u AS SELECT 1 AS x;")
    with pytest.raises(dg.DagsterInvalidConfigError):
        deployment.run(run_config=run_config(**config))


def test_a_full_refresh_is_asked_for_in_run_config(deployment):
    deployment.pipeline("CREATE TABLE t MODE APPEND AS SELECT 1 AS x;")
    for _ in range(2):
        assert deployment.run().success
    assert deployment.query("FROM p.t") == [(1,), (1,)]
    run = deployment.run(run_config=run_config(full_refresh=True))
    assert run.metadata("p/t")["rows_deleted"] == 2
    assert deployment.query("FROM p.t") == [(1,)]


# --- what else a profile says


def rows_of(*days):
    return "day,n\n" + "".join(f"2026-01-0{day},{day}\n" for day in days)


@pytest.mark.parametrize("per_run", ["null", "3"])
def test_a_backfill_of_several_partitions_is_one_run_that_replaces_their_range(deployment, per_run):
    deployment.profile(PARTITIONS.format(per_run))
    deployment.bench.write("data/s.csv", rows_of(1, 2, 3, 4))
    deployment.pipeline(DAYS)
    (asset,) = deployment.definitions().assets
    policy = asset.backfill_policy
    assert policy.max_partitions_per_run == (None if per_run == "null" else 3)
    assert deployment.run(partition_key="2026-01-01").success
    deployment.bench.write("data/s.csv", rows_of(2, 3))
    span = {
        "dagster/asset_partition_range_start": "2026-01-02",
        "dagster/asset_partition_range_end": "2026-01-04",
    }
    run = deployment.run(tags=span)
    assert run.success
    assert deployment.query("SELECT n FROM p.t ORDER BY n") == [(1,), (2,), (3,)]
    stored = deployment.instance.get_materialized_partitions(dg.AssetKey(["p", "t"]))
    assert stored == {"2026-01-01", "2026-01-02", "2026-01-03", "2026-01-04"}


def test_a_backfill_is_one_run_a_partition_unless_the_profile_says_more(deployment):
    deployment.profile(PARTITIONS.format(1))
    deployment.bench.write("data/s.csv", rows_of(1))
    deployment.pipeline(DAYS)
    (asset,) = deployment.definitions().assets
    assert asset.backfill_policy == dg.BackfillPolicy.multi_run(1)


@pytest.mark.parametrize("automation", ["eager", "on_missing", "0 6 * * *"])
def test_pool_and_automation_come_from_the_profile(deployment, automation):
    deployment.profile(f"defaults: {{pool: warehouse, automation: '{automation}'}}")
    deployment.pipeline("CREATE TABLE t AS SELECT 1 AS x;")
    (asset,) = deployment.definitions().assets
    assert asset.op.pool == "warehouse"
    (spec,) = asset.specs
    assert spec.automation_condition is not None


def test_an_automation_that_is_none_is_said_by_its_place(deployment):
    deployment.profile("pipelines: {p: {automation: sometimes}}")
    deployment.pipeline("CREATE TABLE t AS SELECT 1 AS x;")
    with pytest.raises(SettingsError, match=r"pipelines\.p.*sometimes"):
        deployment.definitions()


def test_isolated_streams_are_ops_of_their_own_and_fail_alone(deployment):
    streams = {"a": [["SourceFailed", "broken"]], "b": [[{"id": 1}]]}
    deployment.pipeline(
        deployment.far(streams, ', "isolate": true') + "LOAD a FROM far.a;\nLOAD b FROM far.b;"
    )
    run = deployment.run()
    assert run.stored == ["p/b"]
    steps = {event.step_key for event in run.result.all_events if event.is_step_event}
    assert len(steps) == 2
