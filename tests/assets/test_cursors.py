"""Dagster's run storage keeps a cursor under its key, whatever database is below it."""

import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef

from sqlflow_dagster.assets.cursors import RunStorage


@contextmanager
def sqlite(tmp_path):
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path))) as instance:
        yield instance


@contextmanager
def memory(tmp_path):
    del tmp_path
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@contextmanager
def postgres(tmp_path):
    import pgserver

    # The server runs as another user, which is kept out of pytest's own folder.
    folder = tempfile.mkdtemp(prefix="sqlflow-pg-")
    server = pgserver.get_server(Path(folder) / "data")
    try:
        url = server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
        config = f"storage:\n  postgres:\n    postgres_url: {url}\ntelemetry:\n  enabled: false\n"
        (tmp_path / "dagster.yaml").write_text(config)
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            yield instance
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=[sqlite, memory, postgres], ids=lambda make: make.__name__)
def store(request, tmp_path, monkeypatch):
    # pgserver keeps its sockets there, and a warning of its own would fail the test.
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with request.param(tmp_path) as instance:
        yield RunStorage(instance)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_cursor_is_kept_under_its_key_alone(store):
    assert store.get("sqlflow/v1/a") is None
    store.set("sqlflow/v1/a", "1")
    store.set("sqlflow/v1/b", "é 'quoted' {json}")
    store.set("sqlflow/v1/a", "2")
    store.set("sqlflow/v1/c", "x" * 200_000)
    assert store.get("sqlflow/v1/a") == "2"
    assert store.get("sqlflow/v1/b") == "é 'quoted' {json}"
    assert len(store.get("sqlflow/v1/c")) == 200_000
    assert store.get("sqlflow/v1") is None


def test_the_repositorys_instance_keeps_all_in_its_home_from_whatever_folder_it_is_used(
    tmp_path, monkeypatch
):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    shutil.copy(Path(__file__).parents[2] / "dagster.yaml", home)
    monkeypatch.chdir(elsewhere)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.run_storage.set_cursor_values({"key": "value"})
        instance.get_run_records(limit=1)
        instance.event_log_storage.get_maximum_record_id()
    assert list(elsewhere.iterdir()) == []
    assert list(home.rglob("runs.db"))
