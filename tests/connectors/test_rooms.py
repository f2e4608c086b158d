"""Folders of the spool go with the process that made them."""

from __future__ import annotations

import os
import subprocess
import sys

from sqlflow_dagster.connectors.rooms import beside, room


def test_a_folder_is_gone_after_its_block_and_no_other_is_touched(tmp_path):
    with room(tmp_path, "files") as one:
        (one / "a").write_text("x")
        with room(tmp_path, "files") as other:
            assert one != other
        assert (one / "a").exists()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom sqlflow_dagster.connectors.rooms import room\n"
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
        "import os, sys\nfrom pathlib import Path\nfrom sqlflow_dagster.connectors.rooms import beside\n"
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
