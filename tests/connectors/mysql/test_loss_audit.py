"""What an audit says while others write, and of texts that the server takes for equal."""

import pytest

from tests.connectors.writers import inserting

AUDIT = {"loss_audit": True}
READ_ON = {"sync_mode": "incremental", "cursor_field": "at", "primary_key": "id", **AUDIT}


@pytest.mark.parametrize("given", [AUDIT, READ_ON], ids=["whole", "incremental"])
def test_rows_that_others_insert_meanwhile_are_no_loss(project, given):
    database = project.database
    database.run(
        "CREATE TABLE t (id bigint PRIMARY KEY AUTO_INCREMENT, at datetime(6) NOT NULL DEFAULT UTC_TIMESTAMP(6))"
    )
    with inserting(database.connect, "INSERT INTO t () VALUES ()") as done:
        for _ in range(6):
            before = done()
            audit = project.load(table="t", **given)["t"].audit
            assert audit.level == "fine", audit
            while done() == before:
                pass
    assert project.load(table="t", **given)["t"].audit.facts["audit_source_rows"] > 0


def test_keys_that_the_server_takes_for_equal_are_no_loss(project):
    project.database.run(
        "CREATE TABLE t (name varchar(9) COLLATE utf8mb4_general_ci, at datetime)",
        "INSERT INTO t VALUES ('a', '2026-01-01'), ('A', '2026-01-01'), ('b', '2026-01-02')",
    )
    audit = project.load(table="t", **{**READ_ON, "primary_key": "name"})["t"].audit
    assert audit.level == "fine", audit
    assert audit.facts["audit_rows"] == 2
