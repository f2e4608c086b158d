"""What a table promises is checked in each run, and every declared check is answered."""

import dagster as dg
import duckdb
import pytest

ROW = {"id": 1, "name": "a", "at": "2026-01-01T00:00:00"}
MORE = ', "sync_mode": "incremental", "primary_key": "id", "cursor_field": "at"'
KEY, QUARANTINE = "p/a:key_unique_and_not_null", "p/a:no_rows_quarantined"


def test_a_table_with_a_key_answers_for_it_in_each_run(deployment):
    deployment.pipeline(deployment.far({"a": [[ROW]]}, MORE) + "LOAD a FROM far.a;")
    for _ in range(2):
        checks = deployment.run().checks
        assert {name: check.passed for name, check in checks.items()} == {
            KEY: True,
            "p/a:reachable": True,
        }
        assert checks[KEY].metadata["rows_checked"].value == 1


def test_a_row_without_a_key_is_a_warning(deployment):
    deployment.pipeline(deployment.far({"a": [[ROW, {**ROW, "id": None}]]}, MORE) + "LOAD a FROM far.a;")
    check = deployment.run().checks[KEY]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.metadata["rows_without_key"].value == 1


def test_a_key_that_someone_else_doubled_is_an_error(deployment):
    deployment.pipeline(
        deployment.far({"a": [[ROW]]}, MORE) + "LOAD a FROM far.a;\n"
        'CREATE TABLE "by name" MODE UPSERT KEY (name) AS SELECT * FROM a;'
    )
    deployment.run()
    with duckdb.connect(str(deployment.bench.root / "data/warehouse.duckdb")) as connection:
        connection.execute("INSERT INTO p.\"by name\" SELECT 5, 'z', NULL FROM range(3)")
    check = deployment.run().checks["p/by name:key_unique_and_not_null"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert check.metadata["keys_repeated"].value == 1


def test_checks_can_be_run_without_a_load(deployment):
    deployment.pipeline(
        deployment.far({"a": [[ROW], [["SourceFailed", "was read"]]]}, MORE) + "LOAD a FROM far.a;"
    )
    deployment.run()
    selection = dg.AssetSelection.checks_for_assets(dg.AssetKey(["p", "a"]))
    job = dg.define_asset_job("only_checks", selection=selection)
    definitions = dg.Definitions.merge(deployment.definitions(), dg.Definitions(jobs=[job]))
    result = definitions.resolve_job_def("only_checks").execute_in_process(instance=deployment.instance)
    assert {check.check_name: check.passed for check in result.get_asset_check_evaluations()} == {
        "key_unique_and_not_null": True,
        "reachable": True,
    }


def test_a_table_can_be_stored_without_its_checks(deployment):
    deployment.pipeline(deployment.far({"a": [[ROW]]}, MORE) + "LOAD a FROM far.a;")
    selection = dg.AssetSelection.assets(dg.AssetKey(["p", "a"])).without_checks()
    job = dg.define_asset_job("no_checks", selection=selection)
    definitions = dg.Definitions.merge(deployment.definitions(), dg.Definitions(jobs=[job]))
    result = definitions.resolve_job_def("no_checks").execute_in_process(instance=deployment.instance)
    assert result.success
    assert not result.get_asset_check_evaluations()


def test_a_row_that_was_set_aside_is_told(deployment):
    deployment.bench.write("data/a.csv", "id,n\n1,2\n2,x\n")
    deployment.pipeline(
        'SOURCE s TYPE CSV PARAMS {"path": "data/a.csv", "schema": {"id": "INTEGER", "n": "INTEGER"}, '
        '"bad_rows": "quarantine"};\nLOAD a FROM s;'
    )
    run = deployment.run()
    assert run.success, run.failures
    check = run.checks[QUARANTINE]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert check.metadata["rows"].value == 1
    assert run.metadata("p/a")["rows_quarantined"] == 1


@pytest.mark.parametrize("where", ["source", "profile"])
def test_rows_that_may_be_set_aside_are_looked_for_in_each_run_and_without_one(deployment, where):
    if where == "profile":
        deployment.bench.write("profiles/dev.yml", "schema_policy: permissive\n")
    own = ', "schema_policy": "permissive"' if where == "source" else ""
    deployment.bench.write("data/a1.csv", "id,n\n1,2\n")
    deployment.pipeline(
        f'SOURCE s TYPE CSV PARAMS {{"path": "data/a*.csv", "sync_mode": "incremental"{own}}};\nLOAD a FROM s;'
    )
    assert deployment.run().checks[QUARANTINE].passed
    deployment.bench.write("data/a2.csv", "id,n\n2,x\n")
    check = deployment.run().checks[QUARANTINE]
    assert (check.passed, check.metadata["rows"].value) == (False, 1)
    job = dg.define_asset_job(
        "only_checks", selection=dg.AssetSelection.checks_for_assets(dg.AssetKey(["p", "a"]))
    )
    definitions = dg.Definitions.merge(deployment.definitions(), dg.Definitions(jobs=[job]))
    result = definitions.resolve_job_def("only_checks").execute_in_process(instance=deployment.instance)
    passed = {check.check_name: check.passed for check in result.get_asset_check_evaluations()}
    assert passed["no_rows_quarantined"] is False


@pytest.mark.parametrize("run_id", ["1", "2", "3", "4", "5"])
def test_a_large_table_is_checked_by_shares_that_hold_whole_keys(run_id):
    from sqlflow_dagster.assets.checks import _share
    from sqlflow_dagster.sql import quote, sql

    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t AS SELECT i % 500 AS id, i % 500 % 7 AS b FROM range(1000) r(i)")
        share = _share([quote("id"), quote("b")], 3, run_id)
        counts = connection.execute(
            sql(
                "SELECT DISTINCT n FROM (SELECT count(*) AS n FROM t WHERE {share} GROUP BY id, b)",
                share=share,
            )
        ).fetchall()
    assert counts == [(2,)]
