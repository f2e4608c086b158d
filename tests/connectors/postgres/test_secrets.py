"""A password in the environment is in nothing that runs leave behind or print, whether they end well or not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from .conftest import READER_PASSWORD

REPOSITORY = Path(__file__).parents[3]
PIPELINE = """
SOURCE whole TYPE POSTGRES PARAMS {{ "connection": "${{SHOP_URL}}", "table": "{table}" }};
SOURCE parts TYPE POSTGRES PARAMS {{
  "host": "127.0.0.1", "port": {port}, "database": "{database}", "username": "reader", "password": "${{SHOP_PASSWORD}}",
  "table": "orders", "sync_mode": "incremental", "cursor_field": "id", "primary_key": "id"
}};
LOAD one FROM whole;
LOAD two FROM parts;
CREATE TABLE both_of_them AS SELECT * FROM one UNION ALL SELECT * FROM two;
EXPORT SELECT * FROM both_of_them TO "${{SHOP_URL}}#mart.t" OPTIONS {{"mode": "append"}};
EXPORT SELECT * FROM both_of_them TO "output/both.csv";
"""


def test_a_password_is_nowhere_after_runs_that_end_well_and_badly(project):
    database, root = project.database, project.bench.root
    database.run(
        "CREATE TABLE orders AS SELECT 1 AS id",
        "GRANT SELECT ON orders TO reader",
        "CREATE SCHEMA mart",
        "GRANT ALL ON SCHEMA mart TO reader",
        f"GRANT CREATE ON DATABASE {database.name} TO reader",
    )
    url = database.server.url(database.name, "reader", READER_PASSWORD)
    project.bench.write(".env", f"SHOP_URL={url}\nSHOP_PASSWORD={READER_PASSWORD}\n")
    project.bench.write("home/dagster.yaml", "telemetry: {enabled: false}\n")
    given = {"port": database.server.port, "database": database.name}

    printed = []
    for table, refused, status in (("orders", False, 0), ("missing", False, 1), ("orders", True, 1)):
        if refused:
            database.run("REVOKE ALL ON SCHEMA mart FROM reader")
        project.bench.pipeline(PIPELINE.format(table=table, **given))
        done = dagster(root, "job", "execute", "-f", str(REPOSITORY / "definitions.py"), "-j", "p")
        assert done.returncode == status, done.stderr
        printed.append(done.stdout + done.stderr)
    commands = ("plan", "list", "cursors list", "connectors test", "health")
    printed += [sqlflow(root, *words.split(), "--format", "json") for words in commands]

    assert "missing" in printed[1]
    assert not [text for text in printed if READER_PASSWORD in text]
    left = [file for file in root.rglob("*") if file.is_file() and file.name != ".env"]
    assert any("history" in file.parts for file in left)
    assert [file for file in left if READER_PASSWORD.encode() in file.read_bytes()] == []


def dagster(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return _run(root, "dagster", *words)


def sqlflow(root: Path, *words: str) -> str:
    done = _run(root, "sqlflow", *words, "--project", str(root))
    return done.stdout + done.stderr


def _run(root: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name(program)), *words],
        env={**os.environ, "DAGSTER_HOME": str(root / "home"), "SQLFLOW_PROJECT": str(root)},
        capture_output=True, text=True, check=False, cwd=REPOSITORY,
    )  # fmt: skip
