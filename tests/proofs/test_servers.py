"""Dagster's servers as a deployment runs them: a run ended from the web UI, and all processes killed in a run."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytestmark = pytest.mark.proof

REPOSITORY = Path(__file__).parents[2]
PAGES = 40
PIPELINE = """
SOURCE far TYPE PACED PARAMS {
  "streams": ["t"], "sync_mode": "incremental", "cursor_field": "ts", "seconds_a_page": 0.5
};
LOAD t FROM far.t;
CREATE TABLE sums AS SELECT count(*) AS n, count(DISTINCT id) AS ids FROM t;
"""
LAUNCH = """
mutation ($selector: JobOrPipelineSelector!) {
  launchRun(executionParams: {selector: $selector, runConfigData: {}}) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""
TERMINATE = """
mutation ($id: String!) { terminateRun(runId: $id) { __typename ... on PythonError { message } } }"""
RUNS = "{ runsOrError { ... on Runs { results { runId status rootRunId } } } }"
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


class Deployment:
    """`dagster dev` on a project: webserver, daemon and code server, and the runs they start."""

    def __init__(self, bench, home: Path, site: Path, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._log = log.open("ab")
        self.process = subprocess.Popen(
            [Path(sys.executable).with_name("dagster"), "dev", "-f", "definitions.py", "-h", "127.0.0.1", "-p", str(self.port)],
            cwd=REPOSITORY,
            env={
                **os.environ,
                "DAGSTER_HOME": str(home),
                "SQLFLOW_PROJECT": str(bench.root),
                "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(site)]),
            },
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )  # fmt: skip

    def ask(self, query: str, **variables: object):
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/graphql", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)
        assert "errors" not in found, found
        return found["data"]

    def wait_until(self, told, seconds: float = 180):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with suppress(OSError, urllib.error.URLError):
                if found := told():
                    return found
            time.sleep(0.2)
        raise AssertionError(f"it did not happen in {seconds} s; see {self._log.name}")

    def ready(self) -> None:
        self.wait_until(lambda: self.ask("{ version }"))

    def launch(self) -> str:
        selector = {
            "repositoryLocationName": "definitions.py",
            "repositoryName": "__repository__",
            "pipelineName": "p",
        }
        launched = self.ask(LAUNCH, selector=selector)["launchRun"]
        assert launched["__typename"] == "LaunchRunSuccess", launched
        return launched["run"]["runId"]

    def runs(self) -> dict[str, str]:
        return {run["runId"]: run["status"] for run in self.ask(RUNS)["runsOrError"]["results"]}

    def kill(self) -> None:
        """Kill every process of the deployment at once, as a machine that loses its power does."""
        members = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/stat")
            if _session_of(path) == self.process.pid
        ]
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        self.kill()
        self._log.close()


def _session_of(stat: Path) -> int:
    with suppress(OSError):
        # After the name, which may hold anything but ends with the last `)`: state, parent, group, session.
        return int(stat.read_text().rpartition(")")[2].split()[3])
    return 0


@contextmanager
def deployed(bench, home, site, log):
    deployment = Deployment(bench, home, site, log)
    try:
        deployment.ready()
        yield deployment
    finally:
        deployment.stop()


@pytest.fixture
def home(tmp_path):
    """An instance with the settings of the repository, that looks after runs every second."""
    folder = tmp_path / "home"
    folder.mkdir()
    settings = (REPOSITORY / "dagster.yaml").read_text()
    for name in ("poll_interval_seconds", "free_slots_after_run_end_seconds"):
        before, _, after = settings.partition(f"{name}: ")
        settings = f"{before}{name}: 1{after[after.index(chr(10)) :]}"
    (folder / "dagster.yaml").write_text(settings)
    return folder


@pytest.fixture
def far(bench):
    pages = [
        [[page * 10 + row, f"2026-01-01 00:{page:02}:{row:02}"] for row in range(10)] for page in range(PAGES)
    ]
    bench.write("data/paced/t.json", json.dumps(pages))
    bench.pipeline(PIPELINE)
    return bench


def pages_read(bench) -> int:
    told = bench.root / "data/paced/t.pages"
    return told.stat().st_size if told.exists() else 0


def holds_all(bench) -> None:
    assert bench.query("SELECT n, ids FROM p.sums") == [(PAGES * 10, PAGES * 10)]


def test_a_run_that_is_terminated_in_the_web_ui_ends_and_the_next_one_goes_on(
    far, home, paced_site, tmp_path
):
    with deployed(far, home, paced_site, tmp_path / "log") as dagster:
        run = dagster.launch()
        dagster.wait_until(lambda: pages_read(far) > 5)
        assert dagster.ask(TERMINATE, id=run)["terminateRun"]["__typename"] == "TerminateRunSuccess"
        status = dagster.wait_until(lambda: {dagster.runs()[run]} & ENDED)
        assert status == {"CANCELED"}
        read = pages_read(far)
        assert read < PAGES
        again = dagster.launch()
        assert dagster.wait_until(lambda: {dagster.runs()[again]} & ENDED) == {"SUCCESS"}
    holds_all(far)


def test_when_all_processes_are_killed_the_run_fails_and_is_tried_once_more(far, home, paced_site, tmp_path):
    with deployed(far, home, paced_site, tmp_path / "log") as dagster:
        run = dagster.launch()
        dagster.wait_until(lambda: pages_read(far) > 5)
        dagster.kill()
    with deployed(far, home, paced_site, tmp_path / "log") as dagster:
        dagster.wait_until(lambda: dagster.runs()[run] == "FAILURE")
        tried = dagster.wait_until(lambda: set(dagster.runs()) - {run})
        assert len(tried) == 1
        assert dagster.wait_until(lambda: {dagster.runs()[key] for key in tried} & ENDED) == {"SUCCESS"}
        assert set(dagster.runs()) == {run, *tried}
    holds_all(far)
