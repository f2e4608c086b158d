"""A component's state: tables of a remote database become assets without contact when definitions load."""

from __future__ import annotations

import asyncio
import json
import shutil

import dagster as dg
import pytest
from dagster.components.testing import create_defs_folder_sandbox

from sqlflow_dagster import SQLFlowDiscoveredProjectComponent
from sqlflow_dagster.errors import RetryLater
from tests.proxy import Fine, Proxy, Refuse

pytestmark = pytest.mark.filterwarnings("ignore:`parse_obj_as`", "ignore::dagster.BetaWarning")


@pytest.fixture
def far(database):
    with Proxy("127.0.0.1", database.server.port) as proxy:
        yield proxy


@pytest.fixture
def remote(bench, database, far):
    """A component in a `dg` project, whose pipeline loads whatever tables a database has."""
    database.run("CREATE TABLE a (id int PRIMARY KEY)", "INSERT INTO a VALUES (1), (2)")
    params = {"host": "127.0.0.1", "port": far.port, "username": "postgres", "database": database.name,
              "sslmode": "disable", "tables": ["*"]}  # fmt: skip
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(component_cls=SQLFlowDiscoveredProjectComponent)
        (path / "pipelines/hello.sf").write_text(
            f"SOURCE pg TYPE POSTGRES PARAMS {json.dumps(params)};\nLOAD * FROM pg;\nCREATE TABLE c AS SELECT 1 AS x;"
        )
        yield sandbox, path


def assets(remote):
    """The assets of the definitions as they load anew."""
    sandbox, path = remote
    with sandbox.load_component_and_build_defs(defs_path=path) as (_component, definitions):
        return {key.to_user_string() for key in definitions.resolve_asset_graph().get_all_asset_keys()}


def refresh(remote):
    """What `dg utils refresh-defs-state` does."""
    sandbox, path = remote
    with sandbox.load_component_and_build_defs(defs_path=path) as (component, _):
        asyncio.run(component.refresh_state(sandbox.project_root))


def test_tables_are_assets_after_a_refresh_and_definitions_load_without_contact(remote, far, database):
    assert assets(remote) == {"hello/c"}
    assert far.connections == 0
    refresh(remote)
    far.breaks, known = Refuse(), far.connections
    assert assets(remote) == {"hello/a", "hello/c"}
    # A machine that has the state, and not the folder in which it was found.
    shutil.rmtree(remote[1] / ".sqlflow")
    assert assets(remote) == {"hello/a", "hello/c"}
    assert far.connections == known
    far.breaks = Fine()
    database.run("CREATE TABLE b (id int)")
    assert assets(remote) == {"hello/a", "hello/c"}
    refresh(remote)
    assert assets(remote) == {"hello/a", "hello/b", "hello/c"}
    sandbox, path = remote
    with sandbox.load_component_and_build_defs(defs_path=path) as (_component, definitions):
        done = definitions.resolve_job_def("hello").execute_in_process()
    assert {event.asset_key.to_user_string() for event in done.get_asset_materialization_events()} == {
        "hello/a", "hello/b", "hello/c",
    }  # fmt: skip


def test_a_refresh_that_fails_says_so_and_leaves_the_assets(remote, far):
    refresh(remote)
    far.breaks = Refuse()
    with pytest.raises(RetryLater):
        refresh(remote)
    assert assets(remote) == {"hello/a", "hello/c"}


def test_what_was_found_here_later_is_taken(remote, database):
    refresh(remote)
    (file,) = (remote[1] / ".sqlflow/tables").iterdir()
    document = json.loads(file.read_text())
    later = {**document["tables"][0], "name": "later"}
    file.write_text(json.dumps({**document, "discovered_at": "2999-01-01T00:00:00+00:00", "tables": [later]}))
    assert assets(remote) == {"hello/later", "hello/c"}


def test_two_projects_of_one_deployment_keep_their_own_state():
    keys = {
        SQLFlowDiscoveredProjectComponent(project=project, profile=profile).defs_state_config.key
        for project in ("a", "b")
        for profile in (None, "prod")
    }
    assert len(keys) == 4
    assert issubclass(SQLFlowDiscoveredProjectComponent, dg.StateBackedComponent)
