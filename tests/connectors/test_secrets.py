"""A password in the environment is in nothing that runs leave behind or print, whether they end well or not."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.object_store import KEY, SECRET

from .mysql.conftest import READER_PASSWORD, mysql_database, mysql_server  # noqa: F401 - fixtures

if importlib.util.find_spec("pgserver"):
    from .postgres.conftest import database, server  # noqa: F401 - fixtures

REPOSITORY = Path(__file__).parents[2]
SOURCES = """
SOURCE whole TYPE {type} PARAMS {whole};
SOURCE parts TYPE {type} PARAMS {parts};
LOAD one FROM whole;
LOAD two FROM parts;
CREATE TABLE both_of_them AS SELECT * FROM one UNION ALL SELECT * FROM two;
EXPORT SELECT * FROM both_of_them TO {target};
EXPORT SELECT * FROM both_of_them TO "output/both.csv";
"""
INCREMENTAL = {"sync_mode": "incremental", "cursor_field": "id", "primary_key": "id"}


@dataclass
class Far:
    """A system whose `secret` is in the environment.

    `pipeline` reads the table of a name twice, once by increments, and exports; `refuse` takes the right to
    export away.
    """

    secret: str
    env: str
    pipeline: Callable[[str], str]
    refuse: Callable[[], object]


def database_of(type_, database, url, target) -> Callable[[str], str]:
    """A pipeline that has the password in an address, and by itself."""
    parts = {"host": "127.0.0.1", "port": database.server.port, "database": database.name, "username": "reader",
             "password": "${SHOP_PASSWORD}", "table": "orders", **INCREMENTAL}  # fmt: skip
    return lambda table: SOURCES.format(
        type=type_,
        whole=json.dumps({"connection": url, "table": table}),
        parts=json.dumps(parts),
        target=f'"{url}#{target}" OPTIONS {{"mode": "append"}}',
    )


@pytest.fixture
def postgres(database):
    database.run(
        "CREATE TABLE orders AS SELECT 1 AS id",
        "GRANT SELECT ON orders TO reader",
        "CREATE SCHEMA mart",
        "GRANT ALL ON SCHEMA mart TO reader",
        f"GRANT CREATE ON DATABASE {database.name} TO reader",
    )
    url = database.server.url(database.name, "reader", READER_PASSWORD)
    return Far(
        READER_PASSWORD,
        f"SHOP_URL={url}\nSHOP_PASSWORD={READER_PASSWORD}\n",
        database_of("POSTGRES", database, "${SHOP_URL}", "mart.t"),
        lambda: database.run("REVOKE ALL ON SCHEMA mart FROM reader"),
    )


@pytest.fixture
def mysql(mysql_database):  # noqa: F811 - the fixture
    name = mysql_database.name
    mysql_database.run("CREATE TABLE orders AS SELECT 1 AS id", f"GRANT ALL ON {name}.* TO reader@'%'")
    url = f"mysql://reader:{READER_PASSWORD}@127.0.0.1:{mysql_database.server.port}/{name}"
    yield Far(
        READER_PASSWORD,
        f"SHOP_URL={url}\nSHOP_PASSWORD={READER_PASSWORD}\n",
        database_of("MYSQL", mysql_database, "${SHOP_URL}", "t"),
        lambda: mysql_database.run(f"REVOKE INSERT, CREATE ON {name}.* FROM reader@'%'"),
    )
    mysql_database.run(f"REVOKE ALL ON {name}.* FROM reader@'%'")


@pytest.fixture
def s3(bucket):
    for key in ("orders.csv", "orders/1.csv"):
        bucket.put(key, "id\n1\n")
    params = {**bucket.params, "secret_access_key": "${SHOP_PASSWORD}"}
    out = {name: value for name, value in params.items() if name != "bucket"}
    return Far(
        SECRET,
        f"SHOP_PASSWORD={SECRET}\nAWS_ACCESS_KEY_ID={KEY}\nAWS_SECRET_ACCESS_KEY={SECRET}\n",
        lambda table: SOURCES.format(
            type="S3",
            whole=json.dumps({**params, "key": f"{table}.csv"}),
            parts=json.dumps({**params, "path_prefix": "orders/", **INCREMENTAL}),
            target=f'"s3://{bucket.name}/out/t.csv" OPTIONS {json.dumps(out)}',
        ),
        lambda: out.update(access_key_id="NOBODY"),
    )


@pytest.mark.parametrize("far", ["postgres", "mysql", "s3"])
def test_a_password_is_nowhere_after_runs_that_end_well_and_badly(bench, request, far):
    found, root = request.getfixturevalue(far), bench.root
    bench.write(".env", found.env)
    bench.write("home/dagster.yaml", "telemetry: {enabled: false}\n")

    printed = []
    for table, refused, status in (("orders", False, 0), ("missing", False, 1), ("orders", True, 1)):
        if refused:
            found.refuse()
        bench.pipeline(found.pipeline(table))
        done = run(root, "dagster", "job", "execute", "-f", str(REPOSITORY / "definitions.py"), "-j", "p")
        assert done.returncode == status, done.stderr
        printed.append(done.stdout + done.stderr)
    for words in ("plan", "list", "cursors list", "connectors test", "health"):
        done = run(root, "sqlflow", *words.split(), "--format", "json", "--project", str(root))
        printed.append(done.stdout + done.stderr)

    assert "missing" in printed[1]
    assert not [text for text in printed if found.secret in text]
    left = [file for file in root.rglob("*") if file.is_file() and file.name != ".env"]
    assert any("history" in file.parts for file in left)
    assert [file for file in left if found.secret.encode() in file.read_bytes()] == []


def run(root: Path, program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name(program)), *words],
        env={**os.environ, "DAGSTER_HOME": str(root / "home"), "SQLFLOW_PROJECT": str(root)},
        capture_output=True, text=True, check=False, cwd=REPOSITORY,
    )  # fmt: skip
