"""What is said of an EXPORT's table before it is written, held against what the export then does."""

import json
import re

import pytest

from sqlflow_dagster.health import reachability
from sqlflow_dagster.project import load_project

from .conftest import READER_PASSWORD

OWN = "ALTER TABLE mart.t OWNER TO reader"
WRITE = "GRANT INSERT, DELETE ON mart.t TO reader"
CASES = {
    "nothing": [],
    "the schema": ["GRANT USAGE, CREATE ON SCHEMA mart TO reader"],
    "the table": ["GRANT SELECT, INSERT, UPDATE, DELETE ON mart.t TO reader"],
    "insert": ["GRANT USAGE ON SCHEMA mart TO reader", "GRANT INSERT ON mart.t TO reader"],
    "update": ["GRANT USAGE ON SCHEMA mart TO reader", "GRANT SELECT, INSERT, UPDATE ON mart.t TO reader"],
    "own": ["GRANT USAGE ON SCHEMA mart TO reader", OWN],
    "own and the schema": ["GRANT USAGE, CREATE ON SCHEMA mart TO reader", OWN],
    "a table that a view needs": ["GRANT USAGE ON SCHEMA mart TO reader", WRITE, "CREATE VIEW v AS FROM_T"],
    "the database": ["GRANT CREATE ON DATABASE {database} TO reader", "GRANT INSERT ON mart.t TO reader",
                     "GRANT USAGE ON SCHEMA mart TO reader"],
    "no temporary tables": ["REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC",
                            "GRANT USAGE ON SCHEMA mart TO reader", "GRANT SELECT, INSERT, UPDATE ON mart.t TO reader"],
}  # fmt: skip


@pytest.fixture
def exporting(project):
    """What sets an EXPORT by the user `reader` up, and returns how its target is said to be, and what it does."""

    def export(mode, table="mart.t", **options):
        url = project.database.url.replace("postgres@", f"reader:{READER_PASSWORD}@")
        told = {"table": table, "mode": mode, "max_retries": 0, **options}
        if mode == "upsert":
            told["keys"] = "id"
        project.bench.pipeline(f"EXPORT SELECT 1 AS id, 'a' AS name TO \"{url}\" OPTIONS {json.dumps(told)};")
        planned = load_project(project.bench.root)
        (export,) = planned.exports()
        found = reachability(lambda: planned.target(export, planned.scope(export.scope)))
        return found, next(iter(project.bench.run().values())).error

    project.database.run("CREATE SCHEMA mart", "CREATE TABLE mart.t (id int PRIMARY KEY, name text)")
    return export


@pytest.mark.parametrize("grants", CASES.values(), ids=CASES)
@pytest.mark.parametrize("mode", ["replace", "append", "upsert"])
def test_a_target_is_fine_where_the_export_works_and_only_there(project, exporting, mode, grants):
    for grant in grants:
        text = grant.replace("FROM_T", "SELECT * FROM mart.t")
        project.database.run(text.format(database=project.database.name))
    found, error = exporting(mode)
    assert found.level == ("fine" if error is None else "fail"), (found, error)
    assert found.facts["table_exists"]
    assert found.facts["may_write"] is (error is None)


@pytest.mark.parametrize("table", ["mart.t", "mart.new", "elsewhere.new"])
@pytest.mark.parametrize("mode", ["replace", "append", "upsert"])
def test_doing_what_is_advised_is_all_it_takes(project, exporting, mode, table):
    project.database.run(f"REVOKE TEMPORARY ON DATABASE {project.database.name} FROM PUBLIC")
    found, error = exporting(mode, table)
    assert found.level == "fail"
    assert error is not None
    for grant in re.findall(r"GRANT [^;]*?TO \"reader\"", found.message):
        project.database.run(grant)
    if "member of the role" in found.message:
        project.database.run("ALTER TABLE mart.t OWNER TO reader")
    found, error = exporting(mode, table)
    assert (found.level, error) == ("fine", None), found


def test_declared_types_take_what_is_advised(project, exporting):
    project.database.run(
        f"REVOKE TEMPORARY ON DATABASE {project.database.name} FROM PUBLIC",
        "GRANT USAGE, CREATE ON SCHEMA mart TO reader",
    )
    given = {"mode": "replace", "table": "mart.new", "types": {"name": "varchar(9)"}}
    found, error = exporting(**given)
    assert (found.level, error is None) == ("fail", False)
    project.database.run(*re.findall(r"GRANT [^;]*?TO \"reader\"", found.message))
    found, error = exporting(**given)
    assert (found.level, error) == ("fine", None), found


def test_what_else_keeps_an_export_from_its_target_is_told(project, exporting):
    project.database.run("CREATE VIEW mart.v AS SELECT 1 AS id", "ALTER ROLE reader SUPERUSER")
    try:
        assert "mart.v is no table" in exporting("append", "mart.v")[0].message
        assert "`create` is false" in exporting("append", "mart.new", create=False)[0].message
        project.database.run(f"ALTER DATABASE {project.database.name} SET default_transaction_read_only = on")
        found, error = exporting("append")
        assert (found.level, error is None) == ("fail", False)
        assert "default_transaction_read_only" in found.message
    finally:
        project.database.server.connect().cursor().execute("ALTER ROLE reader NOSUPERUSER")
