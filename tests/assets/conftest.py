"""Projects as Dagster sees them, on real instances; and a far side whose answers are files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import dagster as dg
import pytest

from sqlflow_dagster import build_definitions
from sqlflow_dagster.connectors import registry

REPOSITORY = Path(__file__).parents[2]
FAR_SIDE = """SOURCE far TYPE FAR_SIDE PARAMS {{ "scripts": "far", "stream_names": [{names}]{more} }};
"""


@pytest.fixture(scope="session", autouse=True)
def far_side(tmp_path_factory):
    """Install the connector FAR_SIDE as others' connectors are: by an entry point."""
    site = tmp_path_factory.mktemp("site")
    (site / "far_side.py").write_bytes(Path(__file__).with_name("far_side.py").read_bytes())
    metadata = site / "far_side-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: far-side\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text("[sqlflow_dagster.connectors]\nFAR_SIDE = far_side:FarSide\n")
    caches = (registry.types, registry.find, registry._others)
    sys.path.insert(0, str(site))
    for cache in caches:
        cache.cache_clear()
    yield site
    sys.path.remove(str(site))
    for cache in caches:
        cache.cache_clear()


@dataclass
class Deployment:
    """A project, the instance it runs on, and the verbs that tests need."""

    bench: object
    instance: dg.DagsterInstance
    home: Path
    site: Path
    options: dict = field(default_factory=dict)

    def pipeline(self, text: str, name: str = "p") -> None:
        self.bench.pipeline(text, name)

    def profile(self, text: str) -> None:
        self.bench.write("profiles/dev.yml", text)

    def far(self, streams: dict[str, list], more: str = "") -> str:
        """Write what each stream answers, read by read, and return the SOURCE statement."""
        for name, answers in streams.items():
            self.bench.write(f"far/{name}.json", json.dumps(answers))
        names = ", ".join(f'"{name}"' for name in streams)
        return FAR_SIDE.format(names=names, more=more)

    def definitions(self, **options) -> dg.Definitions:
        return build_definitions(self.bench.root, executor=dg.in_process_executor, **options)

    def run(self, job: str = "p", **options) -> Run:
        definitions = self.definitions()
        return Run(
            definitions.resolve_job_def(job).execute_in_process(
                instance=self.instance, raise_on_error=False, **options
            )
        )

    def query(self, sql: str) -> list[tuple]:
        return self.bench.query(sql)

    def command(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        """Run `dagster …` in a process of its own, on this instance."""
        return self._process("-m", "dagster", *arguments, **environment)

    def scheduler(self, *arguments: str) -> tuple[int, str]:
        """Run `scheduler.py` on this instance; what it starts outlives it, and writes into the same file."""
        script = str(Path(__file__).with_name("scheduler.py"))
        with (self.home / "scheduler.log").open("w+") as told:
            ended = self._process(script, str(REPOSITORY / "definitions.py"), *arguments, told=told)
            return ended.returncode, Path(told.name).read_text()

    def _process(
        self, *arguments: str, told: IO[str] | None = None, **environment: str
    ) -> subprocess.CompletedProcess:
        env = {**os.environ, "DAGSTER_HOME": str(self.home), "SQLFLOW_PROJECT": str(self.bench.root)}
        env |= {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(self.site)]), **environment}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=REPOSITORY,
            env=env,
            stdout=told or subprocess.PIPE,
            stderr=told or subprocess.PIPE,
            text=True,
            check=False,
        )


class Run:
    """A run that has ended, as its events tell."""

    def __init__(self, result: dg.ExecuteInProcessResult) -> None:
        self.result = result
        self.success = result.success
        self.run_id = result.run_id

    @property
    def stored(self) -> list[str]:
        return [e.asset_key.to_user_string() for e in self.result.get_asset_materialization_events()]

    def metadata(self, key: str) -> dict:
        found = [
            event.step_materialization_data.materialization.metadata
            for event in self.result.get_asset_materialization_events()
            if event.asset_key.to_user_string() == key
        ]
        return {name: entry.value for name, entry in found[-1].items()}

    @property
    def failures(self) -> str:
        """What Dagster stores of the steps that failed: descriptions, messages and causes."""
        events = [event for event in self.result.all_events if event.is_step_failure]
        return "\n".join(str(event.event_specific_data) for event in events)

    @property
    def retries(self) -> int:
        return sum(event.event_type_value == "STEP_UP_FOR_RETRY" for event in self.result.all_events)

    @property
    def checks(self) -> dict[str, dg.AssetCheckEvaluation]:
        return {
            f"{check.asset_key.to_user_string()}:{check.check_name}": check
            for check in self.result.get_asset_check_evaluations()
        }


@pytest.fixture(scope="session")
def new_home(tmp_path_factory):
    """A home whose databases have their tables: making them takes Dagster seconds."""
    folder = tmp_path_factory.mktemp("new_home")
    (folder / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        _ = instance.run_storage, instance.event_log_storage, instance.schedule_storage
    return folder


@pytest.fixture
def home(tmp_path, new_home, monkeypatch):
    folder = shutil.copytree(new_home, tmp_path / "home")
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    return folder


@pytest.fixture
def deployment(bench, home, far_side):
    """An empty project on an instance of its own, in SQLite as for `dagster dev`."""
    with dg.DagsterInstance.get() as instance:
        yield Deployment(bench, instance, home, far_side)
