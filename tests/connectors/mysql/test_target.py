"""What is said of an EXPORT's table before it is written, held against what the export then does."""

import json
import re

import pytest

from sqlflow_dagster.health import reachability
from sqlflow_dagster.project import load_project

PASSWORD = "CANARY-w"
CASES = {
    "nothing": [],
    "the table": ["GRANT SELECT, INSERT, UPDATE, DELETE ON {d}.t"],
    "insert": ["GRANT INSERT ON {d}.t"],
    "insert, and notes": ["GRANT INSERT ON {d}.t", "GRANT CREATE, INSERT ON {d}._sqlflow_exports"],
    "some columns": ["GRANT INSERT (id) ON {d}.t", "GRANT CREATE, INSERT ON {d}._sqlflow_exports"],
    "upsert": ["GRANT SELECT, INSERT, UPDATE ON {d}.t", "GRANT CREATE TEMPORARY TABLES ON {d}.*"],
    "no drop": ["GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, CREATE TEMPORARY TABLES ON {d}.*"],
    "the database": ["GRANT ALL ON {d}.*"],
    "all databases": ["GRANT ALL ON *.*"],
    "a pattern": ["GRANT ALL ON `t%`.*"],
    "another": ["GRANT ALL ON `t\\_%`.*"],
    "a role": ["GRANT ALL ON {d}.* TO helpers"],
}  # fmt: skip


@pytest.fixture
def exporting(project):
    """What sets an EXPORT by the user `writer` up, and returns how its target is said to be, and what it does."""
    database = project.database
    database.run("CREATE TABLE t (id int PRIMARY KEY, name text)",
                 f"CREATE USER writer@'%' IDENTIFIED BY '{PASSWORD}'",
                 "CREATE ROLE helpers", "GRANT helpers TO writer@'%'", "SET DEFAULT ROLE helpers FOR writer@'%'")  # fmt: skip

    def export(mode, table="t", **options):
        url = database.url.replace("root@", f"writer:{PASSWORD}@")
        told = {"table": f"{database.name}.{table}", "mode": mode, "max_retries": 0, **options}
        if mode == "upsert":
            told["keys"] = "id"
        address = url.rpartition("/")[0] + "/"
        project.bench.pipeline(
            f"EXPORT SELECT 1 AS id, 'a' AS name TO \"{address}\" OPTIONS {json.dumps(told)};"
        )
        planned = load_project(project.bench.root)
        (export,) = planned.exports()
        found = reachability(lambda: planned.target(export, planned.scope(export.scope)))
        return found, next(iter(project.bench.run().values())).error

    yield export
    database.run("DROP ROLE helpers", "DROP USER writer@'%'")


@pytest.mark.parametrize("grants", CASES.values(), ids=CASES)
@pytest.mark.parametrize("mode", ["replace", "append", "upsert"])
def test_a_target_is_fine_where_the_export_works_and_only_there(project, exporting, mode, grants):
    for grant in grants:
        text = grant.format(d=project.database.name)
        project.database.run(text if " TO " in text else f"{text} TO writer@'%'")
    found, error = exporting(mode)
    assert found.level == ("fine" if error is None else "fail"), (found, error)
    if error is None:
        assert found.facts["table_exists"]


@pytest.mark.parametrize("table", ["t", "new"])
@pytest.mark.parametrize("mode", ["replace", "append", "upsert"])
def test_doing_what_is_advised_is_all_it_takes(project, exporting, mode, table):
    project.database.run(f"GRANT SELECT ON `{project.database.name}`.* TO writer@'%'")
    found, error = exporting(mode, table)
    assert found.level == "fail"
    assert error is not None
    for grant in re.findall(r"GRANT [^;]*?TO 'writer'@'%'", found.message):
        project.database.run(grant)
    found, error = exporting(mode, table)
    assert (found.level, error) == ("fine", None), found


def test_what_else_keeps_an_export_from_its_target_is_told(project, exporting):
    database = project.database
    database.run("CREATE VIEW v AS SELECT 1 AS id", "CREATE TABLE m (id int, name text) ENGINE = MyISAM",
                 f"GRANT ALL ON `{database.name}`.* TO writer@'%'")  # fmt: skip
    assert f"{database.name}.v is no table" in exporting("append", "v")[0].message
    assert "`create` is false" in exporting("append", "new", create=False)[0].message
    assert "the engine InnoDB" in exporting("append", "m")[0].message
    assert exporting("replace", "m")[0].level == "fine"
    database.run("SET GLOBAL read_only = 1")
    try:
        found, error = exporting("append")
        assert (found.level, error is None) == ("fail", False)
        assert "the server is read-only" in found.message
    finally:
        database.run("SET GLOBAL read_only = 0")
