"""Rows that were lost fail an asset check, in a run that loads and in one that only checks."""

import dagster as dg
import duckdb
import pytest

CHECK = "p/t:loss_audit"
KEY = dg.AssetKey(["p", "t"])


@pytest.fixture
def sources(deployment):
    path = deployment.bench.root / "data/far.duckdb"
    path.parent.mkdir(exist_ok=True)
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE t AS SELECT n AS id FROM range(10) AS r(n)")
    deployment.pipeline(
        'SOURCE s TYPE DUCKDB PARAMS {"path": "data/far.duckdb", "table": "t", "sync_mode": "incremental", '
        '"cursor_field": "id", "primary_key": "id", "loss_audit": true};\nLOAD t FROM s;'
    )
    return deployment


def lose(deployment):
    with duckdb.connect(str(deployment.bench.root / "data/warehouse.duckdb")) as connection:
        connection.execute("DELETE FROM p.t WHERE id < 3")


def test_a_run_says_what_was_lost(sources):
    run = sources.run()
    assert run.checks[CHECK].passed
    assert (run.metadata("p/t")["audit_source_rows"], run.metadata("p/t")["audit_rows"]) == (9, 9)
    lose(sources)
    check = sources.run().checks[CHECK]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "3 of 9 rows of the source are missing" in check.metadata["message"].value


def test_the_check_alone_says_it_too(sources):
    sources.run()
    lose(sources)
    job = dg.define_asset_job("only_checks", selection=dg.AssetSelection.checks_for_assets(KEY))
    definitions = dg.Definitions.merge(sources.definitions(), dg.Definitions(jobs=[job]))
    result = definitions.resolve_job_def("only_checks").execute_in_process(instance=sources.instance)
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "loss_audit"]
    assert (check.passed, check.metadata["audit_rows"].value) == (False, 6)


def test_what_cannot_be_counted_is_a_warning(deployment):
    deployment.bench.write("data/a.csv", "id\n1\n")
    deployment.pipeline(
        'SOURCE s TYPE CSV PARAMS {"path": "data/a.csv", "loss_audit": true};\nLOAD t FROM s;'
    )
    check = deployment.run().checks[CHECK]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.WARN)


def test_who_does_not_ask_for_it_has_no_such_check(deployment):
    deployment.bench.write("data/a.csv", "id\n1\n")
    deployment.pipeline('SOURCE s TYPE CSV PARAMS {"path": "data/a.csv"};\nLOAD t FROM s;')
    assert CHECK not in deployment.run().checks
