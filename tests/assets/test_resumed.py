"""Runs that Dagster begins from another one store nothing twice, and all that the other one did not."""

import os
import signal

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from dagster._core.execution.plan.resume_retry import ReexecutionStrategy
from dagster._core.test_utils import in_process_test_workspace
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from sqlflow_dagster import build_definitions
from sqlflow_dagster.assets.dead_runs import mark_dead_runs

PIPELINE = (
    "CREATE TABLE a MODE APPEND AS SELECT 1 AS n;\n"
    "CREATE TABLE b MODE APPEND AS SELECT count(*) AS n FROM a;\n"
    "CREATE TABLE c MODE APPEND AS SELECT count(*) AS n FROM b;"
)
STRATEGIES = ReexecutionStrategy.FROM_FAILURE, ReexecutionStrategy.FROM_ASSET_FAILURE


def killed(deployment, at: str) -> dg.DagsterRun:
    """Run the pipeline in a process that dies, and have it marked failed."""
    died = deployment.command("job", "execute", "-f", "definitions.py", "-j", "p", SQLFLOW_FAILPOINT=at)
    assert died.returncode == -signal.SIGKILL, died.stderr
    (run_id,) = mark_dead_runs(deployment.instance)
    return deployment.instance.get_run_by_id(run_id)


def again(deployment, parent: dg.DagsterRun, strategy: ReexecutionStrategy, **tags: str) -> dg.DagsterRun:
    """Run another one from `parent` as the web UI and the daemon do."""
    origin = LoadableTargetOrigin(python_file="definitions.py")
    with in_process_test_workspace(deployment.instance, origin) as workspace:
        (location,) = workspace.code_locations
        whole = location.get_repository("__repository__").get_full_job("p")
        of_parent = whole.get_subset_selector(parent.asset_selection, parent.asset_check_selection)
        run = deployment.instance.create_reexecuted_run(
            request_context=workspace,
            parent_run=parent,
            code_location=location,
            remote_job=location.get_job(of_parent) if parent.asset_selection else whole,
            strategy=strategy,
            extra_tags=tags,
            use_parent_run_tags=True,
        )
    job = InMemoryJob(deployment.definitions().resolve_job_def("p"))
    if run.asset_selection:
        job = job.get_subset(asset_selection=run.asset_selection)
    execute_run(job, run, deployment.instance)
    return deployment.instance.get_run_by_id(run.run_id)


def counts(deployment) -> list[int]:
    return [deployment.query(f"SELECT count(*) FROM p.{table}")[0][0] for table in "abc"]


@pytest.fixture
def project(deployment, monkeypatch):
    deployment.pipeline(PIPELINE)
    monkeypatch.setenv("SQLFLOW_PROJECT", str(deployment.bench.root))
    return deployment


# The second table is the one of which Dagster does not know whether it was stored.
@pytest.mark.parametrize("at", ["before_commit:kill:2", "after_commit:kill:2"])
@pytest.mark.parametrize(
    ("strategy", "tags"),
    [
        *[(strategy, {}) for strategy in STRATEGIES],
        # Run retries of the daemon.
        (ReexecutionStrategy.ALL_STEPS, {"dagster/retry_number": "1"}),
    ],
)
def test_a_run_that_goes_on_with_a_killed_one_appends_what_that_did_not_commit(project, at, strategy, tags):
    parent = killed(project, at)
    assert again(project, parent, strategy, **tags).is_success
    assert counts(project) == [1, 1, 1]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_is_run_again_whole_is_stored_again(project, strategy):
    parent = killed(project, "after_commit:kill:2")
    rest = again(project, parent, strategy)
    assert rest.is_success
    # It has the tags of the one that it is run again from.
    whole = again(project, rest, ReexecutionStrategy.ALL_STEPS)
    assert whole.is_success
    assert counts(project)[2] == 2


def repeated() -> dg.JobDefinition:
    project = os.environ["SQLFLOW_PROJECT"]
    return build_definitions(project, executor=dg.in_process_executor).resolve_job_def("p")


def test_a_program_that_runs_what_a_killed_run_left_undone_appends_it_once(project):
    parent = killed(project, "after_commit:kill:2")
    options = dg.ReexecutionOptions.from_failure(parent.run_id, project.instance)
    job = dg.reconstructable(repeated)
    with dg.execute_job(job, project.instance, reexecution_options=options) as result:
        assert result.success
    assert counts(project) == [1, 1, 1]
