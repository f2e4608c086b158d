"""Runs whose process was killed do not stay; runs that may live, here or elsewhere, are left alone."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent, DagsterEventType, EngineEventData
from dagster._core.launcher import WorkerStatus
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from sqlflow_dagster.assets.dead_runs import mark_dead_runs
from sqlflow_dagster.assets.processes import CONTAINER, HOST, PID, process_tags
from sqlflow_dagster.assets.run_launcher import LocalRunLauncher

pytestmark = pytest.mark.fault

TABLE = "CREATE TABLE t AS SELECT 1 AS x;"


@pytest.fixture(autouse=True)
def patience(home):
    """Runs have a second to start, instead of three minutes."""
    (home / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\nrun_monitoring: {enabled: true, start_timeout_seconds: 1}\n"
        "run_launcher: {module: sqlflow_dagster.assets.run_launcher, class: LocalRunLauncher}\n"
    )


@pytest.fixture
def begun(deployment):
    """Return a function that makes a run as Dagster does before any code of ours is reached."""
    deployment.pipeline(TABLE)
    job = deployment.definitions().resolve_job_def("p")

    def begin(job=job, events=(), status=dg.DagsterRunStatus.NOT_STARTED, **options):
        run = deployment.instance.create_run_for_job(job, status=status, **options)
        for event in events:
            deployment.instance.report_dagster_event(event(run), run.run_id)
        return run

    return begin


def started(run):
    return DagsterEvent(DagsterEventType.RUN_START.value, run.job_name)


def executor(message):
    data = EngineEventData.in_process(1, ["t"])
    return lambda run: DagsterEvent(
        DagsterEventType.ENGINE_EVENT.value, run.job_name, message=message, event_specific_data=data
    )


def patient(home):
    """The same instance, whose runs have ten minutes to start."""
    (home / "dagster.yaml").write_text("run_monitoring: {enabled: true, start_timeout_seconds: 600}\n")
    return dg.DagsterInstance.get()


def dead_pid():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def status(deployment, run):
    return deployment.instance.get_run_by_id(run.run_id).status.value


@pytest.mark.parametrize(
    "events",
    [(), (started,), (started, executor("Executing steps in process (pid: 1)"))],
    ids=["created", "started", "at-its-resources"],
)
def test_a_run_killed_before_it_could_name_its_process_is_failed_after_a_while(deployment, begun, events):
    run = begun(events=events)
    time.sleep(1.2)
    assert mark_dead_runs(deployment.instance) == [run.run_id]
    assert status(deployment, run) == "FAILURE"
    assert mark_dead_runs(deployment.instance) == []


@pytest.mark.parametrize(
    "events",
    [
        (started, executor("Executing steps using multiprocess executor: parent process (pid: 1)")),
        (started, executor("Executing steps in process (pid: 1)"), executor("blocked by limit for pool x")),
    ],
    ids=["steps-in-other-processes", "waits-for-a-slot"],
)
def test_a_run_that_waits_for_its_first_step_is_left_alone(deployment, begun, events):
    begun(events=events)
    time.sleep(1.2)
    assert mark_dead_runs(deployment.instance) == []


def test_a_run_that_has_only_just_begun_is_left_alone(deployment, begun, home):
    begun(events=(started,))
    time.sleep(1.2)
    with patient(home) as instance:
        assert mark_dead_runs(instance) == []


def test_a_run_of_other_assets_is_left_alone(deployment, begun):
    @dg.job
    def theirs():
        pass

    begun(job=theirs)
    time.sleep(1.2)
    assert mark_dead_runs(deployment.instance) == []


def test_a_run_that_a_daemon_launched_is_left_to_its_monitoring(deployment, begun):
    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(python_file="definitions.py"))
    begun(remote_job_origin=RemoteJobOrigin(RemoteRepositoryOrigin(location, "r"), "p"))
    time.sleep(1.2)
    assert mark_dead_runs(deployment.instance) == []


@pytest.mark.parametrize(
    ("tags", "dead"),
    [
        ({}, True),
        ({HOST: "elsewhere"}, False),
        ({CONTAINER: "0123456789ab"}, False),
        ({PID: str(os.getpid()), "sqlflow/process_started": "another:1"}, True),
    ],
    ids=["gone", "of-another-host", "of-another-container", "its-number-given-to-another"],
)
def test_a_run_with_a_process_is_dead_only_where_that_can_be_seen(deployment, begun, tags, dead):
    run = begun(status=dg.DagsterRunStatus.STARTED)
    deployment.instance.add_run_tags(run.run_id, {**process_tags(run.run_id, dead_pid()), **tags})
    assert mark_dead_runs(deployment.instance) == ([run.run_id] if dead else [])


def test_a_living_run_is_left_alone(deployment, begun):
    run = begun(status=dg.DagsterRunStatus.STARTED)
    deployment.instance.add_run_tags(run.run_id, process_tags(run.run_id))
    time.sleep(1.2)
    assert mark_dead_runs(deployment.instance) == []
    assert deployment.instance.run_launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING


def test_a_run_that_repeats_another_is_not_judged_by_that_ones_process(deployment, begun, home):
    first = begun()
    begun(status=dg.DagsterRunStatus.STARTED, tags=process_tags(first.run_id, dead_pid()))
    with patient(home) as instance:
        assert mark_dead_runs(instance) == []


def test_the_daemon_is_told_of_dead_processes(deployment, begun):
    launcher = deployment.instance.run_launcher
    assert isinstance(launcher, LocalRunLauncher)
    assert launcher.supports_check_run_worker_health
    tagged = begun(status=dg.DagsterRunStatus.STARTED)
    deployment.instance.add_run_tags(tagged.run_id, process_tags(tagged.run_id, dead_pid()))
    health = launcher.check_run_worker_health(deployment.instance.get_run_by_id(tagged.run_id))
    assert health.status == WorkerStatus.FAILED
    assert "is gone" in health.msg


@pytest.mark.parametrize(
    ("host", "pid", "wanted"),
    [
        ("localhost", dead_pid, WorkerStatus.FAILED),
        ("localhost", os.getpid, WorkerStatus.RUNNING),
        ("code.example", dead_pid, WorkerStatus.RUNNING),
    ],
    ids=["gone", "alive", "on-another-host"],
)
def test_the_daemon_is_told_of_a_run_killed_before_its_first_step(deployment, begun, host, pid, wanted):
    launched = {".dagster/grpc_info": json.dumps({"host": host, "socket": "/tmp/x"})}
    event = executor(f"Started process for run (pid: {pid()}).")
    run = begun(events=(event,), status=dg.DagsterRunStatus.STARTED, tags=launched)
    assert deployment.instance.run_launcher.check_run_worker_health(run).status == wanted


@pytest.mark.parametrize(
    ("failpoint", "patient"),
    [("in_run_start", True), ("after_run_start", False)],
    ids=["before-it-named-its-process", "before-its-first-step"],
)
def test_a_killed_dagster_job_is_failed_by_the_next_run(deployment, failpoint, patient):
    deployment.pipeline(TABLE)
    arguments = ("job", "execute", "-f", "definitions.py", "-j", "p")
    killed = deployment.command(*arguments, SQLFLOW_FAILPOINT=f"{failpoint}:kill")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (run,) = deployment.instance.get_runs()
    assert run.status == dg.DagsterRunStatus.STARTED
    assert (run.tags.get(HOST) == socket.gethostname()) != patient
    if patient:
        time.sleep(1.2)
    assert deployment.run().success
    assert status(deployment, run) == "FAILURE"


def test_a_run_that_was_thought_dead_and_lives_ends_as_it_does(deployment, begun):
    """Whatever marked it failed: what it does in the end counts."""
    run = begun(events=(started,))
    time.sleep(1.2)
    assert mark_dead_runs(deployment.instance) == [run.run_id]
    deployment.instance.report_dagster_event(
        DagsterEvent(DagsterEventType.RUN_SUCCESS.value, run.job_name), run.run_id
    )
    assert status(deployment, run) == "SUCCESS"
