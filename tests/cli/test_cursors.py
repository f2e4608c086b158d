import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LINES = "id,at,n\n1,2026-01-01 00:00:00,1\n2,2026-01-02 00:00:00,2\n3,2026-01-03 00:00:00,3\n"
PIPELINE = """
SOURCE s TYPE CSV PARAMS {
  "path": "data/lines.csv", "sync_mode": "incremental", "cursor_field": "at", "primary_key": "id"
};
LOAD t FROM s;
"""


@pytest.fixture(scope="module")
def loaded_once(tmp_path_factory):
    """A project whose pipeline ran: made once, since a new Dagster instance takes its time."""
    root = tmp_path_factory.mktemp("loaded") / "shop"
    for path, text in (("data/lines.csv", LINES), ("pipelines/p.sf", PIPELINE)):
        (root / path).parent.mkdir(parents=True)
        (root / path).write_text(text)
    environment = {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"}
    command = [Path(sys.executable).with_name("sqlflow"), "run", "p", "--project", root]
    subprocess.run(command, check=True, env=environment, capture_output=True)
    return root


@pytest.fixture
def loaded(bench, loaded_once):
    shutil.copytree(loaded_once, bench.root, dirs_exist_ok=True)
    return bench


def test_each_load_is_listed_with_its_cursor(sqlflow, loaded):
    (row,) = sqlflow("cursors", "list", "--project", loaded.root, "--format", "json").json
    assert (row["load"], row["cursor"], row["in_step"]) == ("p.t", "2026-01-03 00:00:00", True)
    assert "2026-01-03 00:00:00" in sqlflow("cursors", "list", "--project", loaded.root).out


def test_a_load_that_never_ran_is_listed_too(sqlflow, bench):
    bench.write("data/lines.csv", LINES)
    bench.pipeline(PIPELINE)
    (row,) = sqlflow("cursors", "list", "--project", bench.root, "--format", "json").json
    assert (row["load"], row["cursor"]) == ("p.t", None)


def test_both_memories_are_shown_side_by_side(sqlflow, loaded):
    document = sqlflow("cursors", "show", "P.T", "--project", loaded.root, "--format", "json").json
    assert document["warehouse"] == document["run_storage"]
    shown = sqlflow("cursors", "show", document["key"], "--project", loaded.root).out
    assert "2026-01-03 00:00:00" in shown


def test_a_reset_has_the_next_run_read_everything(sqlflow, loaded):
    assert sqlflow("cursors", "reset", "p.t", "--yes", "--project", loaded.root).status == 0
    assert _rows_read(sqlflow, loaded) == 3


def test_a_rewind_has_the_next_run_read_on_from_there(sqlflow, loaded):
    to = "2026-01-02 00:00:00"
    assert sqlflow("cursors", "reset", "p.t", "--to", to, "--yes", "--project", loaded.root).status == 0
    assert _rows_read(sqlflow, loaded) == 2
    assert loaded.query("SELECT count(*), count(DISTINCT id) FROM p.t") == [(3, 3)]


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("yesterday", "'yesterday' is no TIMESTAMP"),
        ("", "'' is no TIMESTAMP"),
        ("2026-01-03 00:00:01", "2026-01-03 00:00:01 lies ahead of 2026-01-03 00:00:00"),
    ],
)
def test_a_value_that_is_none_of_the_cursors_type_or_ahead_of_it_changes_nothing(sqlflow, loaded, to, says):
    before = sqlflow("cursors", "show", "p.t", "--project", loaded.root, "--format", "json").json
    reset = sqlflow("cursors", "reset", "p.t", "--to", to, "--yes", "--project", loaded.root)
    assert reset.status == 1
    assert f"--to: {says}" in reset.err
    assert sqlflow("cursors", "show", "p.t", "--project", loaded.root, "--format", "json").json == before


@pytest.mark.parametrize(
    ("answer", "status"), [("y\n", 0), ("n\n", 1), ("", 1)], ids=["yes", "no", "no-answer"]
)
def test_a_reset_asks_first(sqlflow, loaded, monkeypatch, answer, status):
    before = sqlflow("cursors", "show", "p.t", "--project", loaded.root, "--format", "json").json
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    assert sqlflow("cursors", "reset", "p.t", "--project", loaded.root).status == status
    after = sqlflow("cursors", "show", "p.t", "--project", loaded.root, "--format", "json").json
    assert (before == after) == (status != 0)


def test_a_load_that_is_not_there_is_named_with_those_that_are(sqlflow, loaded):
    result = sqlflow("cursors", "show", "p.nope", "--project", loaded.root)
    assert result.status == 1
    assert "p.nope" in result.err
    assert "s.lines>t" in result.err or ">t" in result.err


def _rows_read(sqlflow, project):
    result = sqlflow("run", "p", "--project", project.root, "--format", "json")
    assert result.status == 0, result.err
    return json.loads(result.out)["assets"][0]["rows"]


def test_old_markers_are_deleted_and_reading_goes_on(sqlflow, bench):
    bench.pipeline(PIPELINE)
    for number in (1, 2, 3):
        bench.write("data/lines.csv", "".join(LINES.splitlines(keepends=True)[: number + 1]))
        bench.ok()
    ended = sqlflow("cursors", "compact", "--keep", "1", "--project", bench.root)
    assert (ended.status, ended.err.strip()) == (0, "2 markers were deleted")
    assert bench.query("SELECT rows FROM _sqlflow.commits") == [(1,)]
    bench.write("data/lines.csv", LINES + "4,2026-01-04 00:00:00,4\n")
    assert bench.ok()["t"].inserted == 1
    assert bench.query("SELECT count(*) FROM p.t") == [(4,)]


def test_at_least_the_newest_marker_stays(sqlflow, bench):
    assert sqlflow("cursors", "compact", "--keep", "0", "--project", bench.root).status == 2
