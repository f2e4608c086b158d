"""Folders of the spool go with the process that made them."""

from __future__ import annotations

import bz2
import json
import os
import resource
import subprocess
import sys
from contextlib import contextmanager

import pytest

from sqlflow_dagster.connectors.pgoutput import Insert, Relation, RelationColumn
from sqlflow_dagster.connectors.postgres_states import States
from sqlflow_dagster.errors import WarehouseError
from sqlflow_dagster.rooms import beside, room
from tests.connectors.s3_twin import Twin


def test_a_folder_is_gone_after_its_block_and_no_other_is_touched(tmp_path):
    with room(tmp_path, "files") as one:
        (one / "a").write_text("x")
        with room(tmp_path, "files") as other:
            assert one != other
        assert (one / "a").exists()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom sqlflow_dagster.rooms import room\n"
        "with room(Path(sys.argv[1]), 's3') as folder:\n"
        "    (folder / 'large').write_bytes(b'x' * 1000)\n    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], env=os.environ, check=False)
    assert done.returncode == -9
    assert len(list(tmp_path.glob("s3-*/large"))) == 1
    with room(tmp_path, "files") as folder:
        assert sorted(tmp_path.iterdir()) == sorted([folder, folder.with_name(f"{folder.name}.lock")])


def test_beside_a_target_only_what_dead_exports_of_it_left_is_removed(tmp_path):
    target = tmp_path / "a.csv"
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom sqlflow_dagster.rooms import beside\n"
        "with beside(Path(sys.argv[1])) as folder:\n"
        "    (folder / 'a.csv').write_bytes(b'x')\n    os.kill(os.getpid(), 9)\n"
    )
    for name in ("a.csv", "b.csv"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], env=os.environ, check=False)
    others = [tmp_path / name for name in ("uv.lock", ".a.csv.lock", ".a.csv-mine.lock", "a.csv")]
    for other in others:
        other.write_text("mine")
    with beside(target) as living:
        (living / "a.csv").write_text("half")
        with beside(target) as folder:
            assert folder.stat().st_dev == tmp_path.stat().st_dev
            assert (living / "a.csv").read_text() == "half"
        assert [path for path in tmp_path.glob(".a.csv-*") if path.is_dir()] == [living]
    assert len(list(tmp_path.glob(".b.csv-*/a.csv"))) == 1
    assert sorted(tmp_path.iterdir()) == sorted([*others, *tmp_path.glob(".b.csv-*")])


def test_a_target_with_a_long_name_has_room_beside_it(tmp_path):
    with beside(tmp_path / ("ä" * 120 + ".csv")) as folder:
        assert folder.is_dir()


@contextmanager
def full_disk():
    """Let no file of this process become larger than 2 MB, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def sources(bench, twin):
    """A source of each kind that keeps bytes in the spool, with more of them than there is room for."""
    text = b"id\n" + b"1\n" * 1_500_000
    twin.objects = {"in/a.csv": text}
    bench.write("data/a.csv.bz2", bz2.compress(text))
    yield "S3", {**twin.params, "path_prefix": "in/", "file_format": "csv"}
    yield "CSV", {"path": "data/a.csv.bz2"}


@pytest.mark.parametrize("which", [0, 1], ids=["objects", "compressed"])
def test_a_spool_without_space_left_is_named_and_nothing_stays_there(bench, which):
    with Twin() as twin:
        kind, params = list(sources(bench, twin))[which]
        bench.pipeline(f"SOURCE s TYPE {kind} PARAMS {json.dumps(params)};\nLOAD t FROM s;")
        with full_disk():
            (outcome,) = bench.run().values()
    assert isinstance(outcome.error, WarehouseError)
    assert "it must be writable, with space left" in str(outcome.error)
    assert outcome.calls.retries == 0
    assert list((bench.root / ".sqlflow/spool").iterdir()) == []


@pytest.mark.parametrize("which", [0, 1], ids=["objects", "compressed"])
def test_a_spool_that_cannot_be_is_named(bench, which):
    bench.write(".sqlflow/spool", b"a file")
    with Twin() as twin:
        kind, params = list(sources(bench, twin))[which]
        bench.pipeline(f"SOURCE s TYPE {kind} PARAMS {json.dumps(params)};\nLOAD t FROM s;")
        (outcome,) = bench.run().values()
    assert isinstance(outcome.error, WarehouseError)
    assert "spool: cannot keep what is read or written there" in str(outcome.error)


def test_what_the_block_does_not_find_is_no_fault_of_the_spool(tmp_path):
    with pytest.raises(FileNotFoundError), room(tmp_path, "files"):
        (tmp_path / "nix").read_text()


def much_of_a_log(folder):
    states = States(folder / "states.sqlite", ("id",), 100_000)
    states.begin(Relation(1, "public", "t", "d", (RelationColumn("id", 23, -1, key=True),)))
    try:
        for number in range(100_000):
            states.apply(Insert(1, (f"{number:0100}",)), 100)
    finally:
        states.close()


def test_changes_of_a_log_that_find_no_space_left_are_told_as_files_are(tmp_path):
    with pytest.raises(WarehouseError, match="with space left"), room(tmp_path, "log") as folder, full_disk():
        much_of_a_log(folder)
    assert list(tmp_path.iterdir()) == []
