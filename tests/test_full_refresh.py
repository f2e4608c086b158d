"""A full refresh builds every table anew, whatever its mode, and whoever else writes it."""

import pytest

from sqlflow_dagster.errors import SQLFlowError
from sqlflow_dagster.warehouse.shape import Window

ORDERS = """
SOURCE orders TYPE CSV PARAMS {
  "path": "data/orders.csv", "sync_mode": "incremental", "cursor_field": "changed", "primary_key": "id",
  "types": {"id": "INTEGER", "changed": "TIMESTAMP"}
};
"""
BOTH = (
    ORDERS
    + ORDERS.replace("SOURCE orders", "SOURCE others").replace("orders.csv", "others.csv")
    + "LOAD t FROM orders;\nLOAD t FROM others;\n"
)


def csv(*rows):
    return "id,changed\n" + "".join(f"{row}\n" for row in rows)


@pytest.mark.parametrize(
    ("mode", "second"),
    [
        ("MODE APPEND", [1, 2, 2, 3]),
        ("MODE UPSERT KEY (id)", [1, 2, 3]),
        ("MODE INCREMENTAL BY id", [1, 2, 3]),
        ("", [2, 3]),
    ],
    ids=["append", "upsert", "incremental", "replace"],
)
def test_a_table_is_built_anew_in_any_mode(bench, mode, second):
    bench.pipeline(
        'SOURCE s TYPE CSV PARAMS {"path": "data/s.csv"};\nLOAD raw FROM s;\n'
        f"CREATE TABLE t {mode} AS SELECT id FROM raw;"
    )
    bench.write("data/s.csv", "id\n1\n2\n")
    bench.ok()
    bench.write("data/s.csv", "id\n2\n3\n")
    bench.ok()
    assert [row[0] for row in bench.query("SELECT id FROM p.t ORDER BY id")] == second
    bench.write("data/s.csv", "id\n3\n4\n")
    done = bench.ok(full_refresh=True)["t"]
    assert [row[0] for row in bench.query("SELECT id FROM p.t ORDER BY id")] == [3, 4]
    assert (done.inserted, done.deleted) == (2, len(second))


@pytest.mark.parametrize("mode", ["APPEND", "UPSERT KEY (id)"])
def test_a_load_of_a_whole_source_is_built_anew_too(bench, mode):
    bench.pipeline(f'SOURCE s TYPE CSV PARAMS {{"path": "data/s.csv"}};\nLOAD t FROM s MODE {mode};')
    bench.write("data/s.csv", "id\n1\n2\n")
    bench.ok()
    bench.write("data/s.csv", "id\n2\n3\n")
    bench.ok(full_refresh=True)
    assert bench.query("SELECT id FROM p.t ORDER BY id") == [(2,), (3,)]


def test_a_full_refresh_takes_new_columns_and_types(bench):
    bench.write("profiles/dev.yml", "schema_policy: strict\n")
    bench.pipeline("CREATE TABLE t MODE UPSERT KEY (id) AS SELECT 1 AS id, 'a' AS x;")
    bench.ok()
    bench.pipeline("CREATE TABLE t MODE UPSERT KEY (id) AS SELECT 1 AS id, 2 AS x, 3 AS y;")
    refused = bench.run()["t"].error
    assert isinstance(refused, SQLFlowError)
    assert "--full-refresh" in str(refused)
    assert bench.query("FROM p.t") == [(1, "a")]
    bench.ok(full_refresh=True)
    assert bench.query("FROM p.t") == [(1, 2, 3)]


def test_the_schema_policy_of_the_profile_holds_for_tables(bench):
    bench.pipeline("CREATE TABLE t MODE APPEND AS SELECT 1 AS id;")
    bench.ok()
    bench.pipeline("CREATE TABLE t MODE APPEND AS SELECT 2 AS id, 'new' AS x;")
    bench.write("profiles/dev.yml", "schema_policy: strict\n")
    assert "x" in str(bench.run()["t"].error)
    bench.write("profiles/dev.yml", "schema_policy: guided\n")
    assert any("x" in change for change in bench.ok()["t"].schema_changes)


def test_the_schema_policy_of_the_profile_holds_for_what_a_source_reads(bench):
    bench.write("data/s.csv", "id,n\n1,2\n2\n")
    bench.pipeline('SOURCE s TYPE CSV PARAMS {"path": "data/s.csv"};\nLOAD t FROM s;')
    bench.write("profiles/dev.yml", "schema_policy: permissive\n")
    assert bench.ok()["t"].quarantined == 1
    bench.write("profiles/dev.yml", "schema_policy: guided\n")
    assert "s.csv:3" in str(bench.run()["t"].error)
    bench.pipeline(
        'SOURCE s TYPE CSV PARAMS {"path": "data/s.csv", "schema_policy": "permissive"};\nLOAD t FROM s;'
    )
    assert bench.ok()["t"].quarantined == 1


def test_all_loads_of_one_table_are_read_again_and_what_the_sources_lost_goes(bench):
    bench.pipeline(BOTH)
    bench.write("data/orders.csv", csv("1,2026-01-01", "2,2026-01-02"))
    bench.write("data/others.csv", csv("11,2026-01-01", "12,2026-01-02"))
    bench.ok()
    bench.write("data/orders.csv", csv("2,2026-01-02"))
    bench.write("data/others.csv", csv("12,2026-01-02", "13,2026-01-03"))
    bench.ok(full_refresh=True)
    assert bench.query("SELECT id FROM p.t ORDER BY id") == [(2,), (12,), (13,)]
    bench.write("data/others.csv", csv("12,2026-01-02", "13,2026-01-03", "14,2026-01-04"))
    again = bench.ok()["t"]
    assert again.rows <= 2
    assert not again.repaired
    assert bench.query("SELECT id FROM p.t ORDER BY id") == [(2,), (12,), (13,), (14,)]


def test_a_load_whose_rows_went_with_the_table_is_read_whole_by_the_next_run(bench):
    """The first LOAD of the table built it anew, and the run ended before the second."""
    bench.pipeline(BOTH)
    bench.write("data/orders.csv", csv("1,2026-01-01"))
    bench.write("data/others.csv", csv("11,2026-01-01", "12,2026-01-02"))
    bench.ok()
    (bench.root / "data/others.csv").rename(bench.root / "data/away.csv")
    assert bench.run(full_refresh=True)["t"].error
    assert bench.query("SELECT id FROM p.t ORDER BY id") == [(1,)]
    (bench.root / "data/away.csv").rename(bench.root / "data/others.csv")
    bench.ok()
    assert bench.query("SELECT id FROM p.t ORDER BY id") == [(1,), (11,), (12,)]


def test_a_table_that_a_load_and_a_query_fill_is_built_anew_from_both(bench):
    bench.pipeline(
        ORDERS
        + "LOAD t FROM orders;\nCREATE TABLE t MODE APPEND AS SELECT -1 AS id, NULL::TIMESTAMP AS changed;"
    )
    bench.write("data/orders.csv", csv("1,2026-01-01"))
    bench.ok()
    bench.ok()
    assert bench.query("SELECT id FROM p.t ORDER BY id") == [(-1,), (-1,), (1,)]
    bench.ok(full_refresh=True)
    assert bench.query("SELECT id FROM p.t ORDER BY id") == [(-1,), (1,)]


@pytest.mark.parametrize(
    ("first", "full_refresh"),
    [("", False), ("", True), ("MODE UPSERT KEY (id) ", True)],
    ids=["replace", "replace-in-full-refresh", "upsert-in-full-refresh"],
)
@pytest.mark.parametrize(
    "later",
    [
        "CREATE TABLE t MODE APPEND AS SELECT 2 AS id;",
        'SOURCE s TYPE CSV PARAMS {"path": "data/s.csv"};\nLOAD t FROM s MODE APPEND;',
    ],
    ids=["query", "load"],
)
def test_a_retry_stores_again_what_went_with_a_table_that_it_builds_anew(bench, first, later, full_refresh):
    bench.write("data/s.csv", "id\n2\n")
    bench.pipeline(f"CREATE TABLE t {first}AS SELECT 1 AS id;\n{later}")
    for _ in range(2):
        bench.ok(run_id="same", full_refresh=full_refresh)
        assert bench.query("SELECT id FROM p.t ORDER BY id") == [(1,), (2,)]


def test_two_statements_of_one_text_both_store(bench):
    bench.pipeline("CREATE TABLE t MODE APPEND AS SELECT 1 AS id;\n" * 2)
    bench.ok(run_id="same")
    bench.ok(run_id="same")
    assert bench.query("FROM p.t") == [(1,), (1,)]


@pytest.mark.parametrize(
    "statement",
    [
        'SOURCE s TYPE CSV PARAMS {"path": "data/s.csv", "sync_mode": "incremental", "cursor_field": "day"};\n'
        "LOAD t FROM s;",
        "CREATE TABLE t MODE INCREMENTAL BY day AS SELECT * FROM read_csv('data/s.csv');",
    ],
    ids=["load", "query"],
)
def test_a_full_refresh_of_a_partition_leaves_the_others_alone(bench, statement, monkeypatch):
    monkeypatch.chdir(bench.root)
    bench.pipeline(statement)
    bench.write("data/s.csv", "day,n\n2026-01-01,1\n2026-01-02,1\n2026-01-03,1\n")
    bench.ok()
    bench.write("data/s.csv", "day,n\n2026-01-01,2\n2026-01-02,2\n2026-01-03,2\n")
    window = Window("2026-01-02 00:00:00", "2026-01-03 00:00:00")
    bench.ok(full_refresh=True, window=window, partition="2026-01-02")
    assert bench.query("SELECT n FROM p.t ORDER BY day") == [(1,), (2,), (1,)]


def test_a_table_that_someone_dropped_is_loaded_whole_again(bench):
    import duckdb

    bench.pipeline(ORDERS + "LOAD t FROM orders;")
    bench.write("data/orders.csv", csv("1,2026-01-01", "2,2026-01-02"))
    bench.ok()
    with duckdb.connect(str(bench.root / "data/warehouse.duckdb")) as connection:
        connection.execute("DROP TABLE p.t")
    bench.write("data/orders.csv", csv("1,2026-01-01", "2,2026-01-02", "3,2026-01-03"))
    done = bench.ok()["t"]
    assert any("gone" in notice for notice in done.notices)
    assert bench.query("SELECT id FROM p.t ORDER BY id") == [(1,), (2,), (3,)]
