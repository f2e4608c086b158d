"""Folders of the spool go with the process that made them."""

from __future__ import annotations

import os
import subprocess
import sys

from sqlflow_dagster.connectors.rooms import room


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
