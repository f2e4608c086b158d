"""Where exports put local files: who may write there, seen by a user who is not root."""

import os
import stat
import tempfile
from pathlib import Path

import pytest

from sqlflow_dagster.connectors.local_target import health

NOBODY = 65534


def as_nobody(work):
    """What `work` returns, as a text, in a process of a user who owns nothing."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            os.write(write, str(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as answer:
        return answer.read()


@pytest.fixture
def folder(tmp_path):
    """A folder that anyone may look into."""
    top = Path(tempfile.gettempdir())
    for above in (tmp_path, *(path for path in tmp_path.parents if top in path.parents)):
        above.chmod(above.stat().st_mode | stat.S_IXOTH | stat.S_IROTH)
    made = tmp_path / "out"
    made.mkdir()
    yield made
    made.chmod(0o755)


@pytest.mark.parametrize(
    ("mode", "fine"), [(0o777, True), (0o555, False), (0o000, False)], ids=["open", "read-only", "shut"]
)
def test_a_folder_says_who_may_write(folder, mode, fine):
    folder.chmod(mode)
    for path in (folder / "a.csv", folder / "new/deep/a.csv"):
        found = as_nobody(lambda path=path: health(path))
        assert ("ok=True" in found) is fine, found
        assert ("chown or chmod it" in found) is not fine
        assert ("may not write to " + str(folder) in found) is not fine


def test_a_database_is_written_in_its_place(folder):
    path = folder / "a.duckdb"
    path.write_bytes(b"x" * 100)
    path.chmod(0o444)
    folder.chmod(0o777)
    # A file of another's in a folder of ours takes the place of one that may not be written.
    assert "ok=True" in as_nobody(lambda: health(path))
    assert "ok=False" in as_nobody(lambda: health(path, in_place=True))
    assert health(folder / "a.duckdb").facts["bytes"] == 100
