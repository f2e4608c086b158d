"""A source answers for itself: by its reads in a run, and when it is asked alone."""

import dagster as dg
import pytest

ROW = {"id": 1, "name": "a", "at": "2026-01-01T00:00:00"}
CHECK = "p/a:reachable"


def test_a_run_says_that_a_source_was_read_without_asking_it_again(deployment):
    deployment.pipeline(
        deployment.far({"a": [[ROW], ["SourceFailed", "asked twice"]], "b": [[ROW]]})
        + "LOAD a FROM far.a;\nLOAD b FROM far.b;"
    )
    run = deployment.run()
    check = run.checks[CHECK]
    assert (check.passed, check.metadata["message"].value) == (True, "2 of 2 streams were read")
    assert "p/b:reachable" not in run.checks


@pytest.mark.parametrize(
    ("answer", "passed"),
    [
        (["RetryLater", "busy"], False),
        (["NotAllowed", "401 for CANARY-1"], False),
        (["BadOption", "there is no table a"], False),
        (["SchemaChanged", "the column at is gone"], False),
        (["LoadRefused", "rows without a key"], True),
    ],
    ids=["busy", "no access", "no table", "no column", "it is there, its rows are wrong"],
)
def test_a_run_says_why_a_source_was_not_read(deployment, answer, passed):
    deployment.bench.write(".env", "PASSWORD=CANARY-1\n")
    more = ', "max_retries": 0, "password": "${PASSWORD}"'
    deployment.pipeline(deployment.far({"a": [answer]}, more) + "LOAD a FROM far.a;")
    run = deployment.run()
    assert not run.success
    assert run.checks[CHECK].passed is passed
    assert "CANARY-1" not in str(run.checks[CHECK].metadata)


def exporting(deployment, tail):
    deployment.bench.write(".env", "PASSWORD=CANARY-1\n")
    url = "postgresql://u:${PASSWORD}@127.0.0.1:1/d"
    deployment.pipeline(
        f'CREATE TABLE a AS SELECT 1 AS id;\nEXPORT {tail} TO "{url}" OPTIONS {{"table": "t", "max_retries": 0}};'
    )
    (key,) = [key for key in deployment.definitions().resolve_all_asset_keys() if "export" in key.path]
    return key


def test_a_run_says_that_a_target_was_not_written_to(deployment):
    key = exporting(deployment, "a")
    check = deployment.run().checks[f"{key.to_user_string()}:reachable"]
    assert (check.passed, check.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "127.0.0.1:1/d" in check.metadata["message"].value
    assert "seconds" not in check.metadata
    assert "CANARY-1" not in str(check.metadata)


def test_a_target_is_asked_where_the_query_failed_before_it(deployment):
    deployment.pipeline(
        "CREATE TABLE a AS SELECT 1 AS id;\nEXPORT SELECT error('no rows') AS id FROM a TO \"s3://b/a.csv\" "
        'OPTIONS {"endpoint_url": "http://127.0.0.1:1", "anonymous": true};'
    )
    (key,) = [key for key in deployment.definitions().resolve_all_asset_keys() if "export" in key.path]
    check = deployment.run().checks[f"{key.to_user_string()}:reachable"]
    assert check.passed is False
    assert check.metadata["seconds"].value >= 0


def test_an_export_into_a_file_says_by_its_rows_that_it_was_written(deployment):
    deployment.pipeline('CREATE TABLE a AS SELECT 1 AS id;\nEXPORT a TO "output/a.csv";')
    assert not [name for name in deployment.run().checks if "export" in name]


def only_checks(deployment, key):
    selection = dg.AssetSelection.checks_for_assets(key)
    job = dg.define_asset_job("only_checks", selection=selection)
    definitions = dg.Definitions.merge(deployment.definitions(), dg.Definitions(jobs=[job]))
    return definitions.resolve_job_def("only_checks").execute_in_process(instance=deployment.instance)


def test_a_source_is_asked_when_only_its_check_is_run(deployment):
    deployment.pipeline(deployment.far({"a": [[ROW]]}) + "LOAD a FROM far.a;")
    deployment.run()
    key = dg.AssetKey(["p", "a"])
    result = only_checks(deployment, key)
    (check,) = [c for c in result.get_asset_check_evaluations() if c.check_name == "reachable"]
    assert (check.passed, check.metadata["message"].value) == (True, "there")
    (record,) = deployment.instance.fetch_observations(key, limit=1).records
    observed = record.asset_observation.metadata
    assert observed["reachable"].value is True
    assert observed["seconds"].value >= 0
