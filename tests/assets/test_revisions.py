"""Dagster's revisions are read once, and alembic is as it was after us."""

from alembic.config import Config
from alembic.script import ScriptDirectory

from sqlflow_dagster.assets.execute import open_instance
from sqlflow_dagster.assets.revisions import read_once


def config(location):
    made = Config()
    made.set_main_option("script_location", location)
    return made


def dagsters():
    return ScriptDirectory.from_config(config("dagster:_core/storage/alembic"))


def test_dagsters_are_the_same_within_and_made_anew_after():
    with read_once():
        first = dagsters()
        assert dagsters() is first
        assert first.get_current_head() == ScriptDirectory(first.dir).get_current_head()
    assert dagsters() is not first


def test_blocks_that_overlap_leave_alembic_as_it_was():
    first, second = read_once(), read_once()
    before = ScriptDirectory.from_config
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)
    assert ScriptDirectory.from_config == before


def test_other_peoples_are_read_each_time(tmp_path):
    (tmp_path / "versions").mkdir()
    with read_once():
        first, second = (ScriptDirectory.from_config(config(str(tmp_path))) for _ in range(2))
    assert first is not second


def test_an_instance_and_a_run_of_it_read_them_once(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    reads = []
    load = ScriptDirectory._load_revisions
    monkeypatch.setattr(ScriptDirectory, "_load_revisions", lambda self: reads.append(self) or load(self))
    with open_instance() as instance:
        instance.all_logs("1d4ea6a1-7a6c-4a2e-9b8b-0d9a3f5c4e11")
    assert len(reads) == 1
