"""What an audit says while others write, and of a read that loses rows."""

import pytest

from tests.connectors.writers import inserting

AUDIT = {"loss_audit": True}
READ_ON = {"sync_mode": "incremental", "cursor_field": "at", "primary_key": "id", **AUDIT}


@pytest.mark.parametrize("given", [AUDIT, READ_ON], ids=["whole", "incremental"])
def test_rows_that_others_insert_meanwhile_are_no_loss(project, given):
    database = project.database
    database.run(
        "CREATE TABLE t (id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp())"
    )
    with inserting(database.connect, "INSERT INTO t DEFAULT VALUES") as done:
        for _ in range(6):
            before = done()
            audit = project.load(table="t", **given)["t"].audit
            assert audit.level == "fine", audit
            while done() == before:
                pass
    assert project.load(table="t", **given)["t"].audit.facts["audit_source_rows"] > 0


def test_rows_that_a_read_did_not_bring_are_a_loss(project):
    """The server gives all rows to who counts them, and not to who reads them."""
    project.database.run("CREATE TABLE t AS SELECT n AS id FROM generate_series(1, 10) AS n")
    query = "SELECT id FROM t WHERE id > 3 OR current_query() LIKE 'SELECT count(%'"
    audit = project.load("LOAD query FROM pg;", query=query, **AUDIT)["query"].audit
    assert (audit.level, audit.facts) == ("fail", {"audit_source_rows": 10, "audit_rows": 7})


def test_a_source_that_does_not_stand_still_is_no_loss(project):
    """Each count is another than that before, and the read has the fewest rows."""
    project.database.run("CREATE TABLE t AS SELECT n AS id FROM generate_series(1, 20000) AS n")
    query = (
        "SELECT id FROM t WHERE id <= CASE WHEN current_query() LIKE 'SELECT count(%'"
        " THEN (SELECT 2 + extract(microseconds FROM clock_timestamp())::bigint % 10000) ELSE 1 END"
    )
    audit = project.load("LOAD query FROM pg;", query=query, **AUDIT)["query"].audit
    assert audit.level == "warn"
    assert "the source changed while it was read" in audit.message


def test_a_source_that_cannot_be_counted_any_more_does_not_undo_the_load(project):
    project.database.run("CREATE TABLE t AS SELECT 1 AS id")
    query = (
        "SELECT CASE WHEN current_query() LIKE 'SELECT count(%' THEN 1 / (id - 1) ELSE id END AS id FROM t"
    )
    query = f"SELECT * FROM ({query}) AS q WHERE id IS NOT NULL"
    outcome = project.load("LOAD query FROM pg;", query=query, **AUDIT)["query"]
    assert (outcome.rows, outcome.audit.level) == (1, "warn")
    assert "division by zero" in outcome.audit.message


@pytest.mark.parametrize("marked", [True, False], ids=["with provenance", "without"])
def test_rows_of_other_statements_are_told_apart_or_not_counted(project, marked):
    project.database.run(
        "CREATE TABLE a AS SELECT n AS id FROM generate_series(1, 10) AS n",
        "CREATE TABLE b AS SELECT n + 100 AS id FROM generate_series(1, 5) AS n",
    )
    given = {"sync_mode": "incremental", "cursor_field": "id", "row_provenance": marked, **AUDIT}
    if not marked:
        given["primary_key"] = "id"
    text = project.source(table="a", **given).replace("SOURCE pg", "SOURCE a")
    text += project.source(table="b", **given).replace("SOURCE pg", "SOURCE b")
    project.bench.pipeline(f"{text}LOAD t FROM a;\nLOAD t FROM b;")
    audits = [project.bench.ok()["t"].audit for _ in range(2)]
    found = [(audit.level, audit.facts.get("audit_rows")) for audit in audits]
    assert found == [("fine", 4), ("fine", 4)] if marked else [("warn", None), ("warn", None)]


@pytest.mark.parametrize(
    "params", [{"sync_mode": "cdc", "primary_key": "id"}, {"cursor_field": "xmin", "primary_key": "id"}]
)
def test_a_position_of_its_own_is_not_counted(project, params):
    project.database.run("CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)")
    given = {"sync_mode": "incremental", "table": "t", **params, **AUDIT}
    assert project.load(**given)["t"].audit.level == "warn"
