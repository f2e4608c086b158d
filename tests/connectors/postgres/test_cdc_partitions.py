"""Changes of a partitioned table: what the log does not tell of its partitions is refused, and all else followed."""

from __future__ import annotations

import pytest

from sqlflow_dagster.errors import SchemaChanged

CDC = {"sync_mode": "cdc", "primary_key": "id", "table": "orders", "deletes": "hard"}
KEEP = {**CDC, "dropped_partitions": "keep"}
MAKE_SECOND = "CREATE TABLE second (id int PRIMARY KEY, name text)"
FILL_SECOND = "INSERT INTO second VALUES (100, 'x')"
ATTACH_SECOND = "ALTER TABLE orders ATTACH PARTITION second FOR VALUES FROM (100) TO (200)"
ATTACH_FIRST = "ALTER TABLE orders ATTACH PARTITION first FOR VALUES FROM (0) TO (100)"
DETACH_FIRST = "ALTER TABLE orders DETACH PARTITION first"
NEW_PARTITION = "CREATE TABLE second PARTITION OF orders FOR VALUES FROM (100) TO (200)"
NEW_ROW = "INSERT INTO orders VALUES (100, 'x')"
NEW_ROWS = "INSERT INTO orders VALUES (1, 'again'), (1002, 'y')"
THIRD = "CREATE TABLE third PARTITION OF orders FOR VALUES FROM (200) TO (300)"


@pytest.fixture
def parted(project):
    """A table `orders` of two partitions with a few rows, which was copied once."""
    project.database.run(
        "CREATE TABLE orders (id int PRIMARY KEY, name text) PARTITION BY RANGE (id)",
        "CREATE TABLE first PARTITION OF orders FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE last PARTITION OF orders FOR VALUES FROM (1000) TO (2000)",
        "INSERT INTO orders SELECT n, 'n' || n FROM generate_series(1, 5) AS n",
    )
    project.load(**CDC)
    yield project
    project.database.run(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
    )


def stored(parted, columns="id, name"):
    return parted.query(f"SELECT {columns} FROM p.t ORDER BY ALL")


def there(parted, columns="id, name"):
    return parted.database.run(f"SELECT {columns} FROM orders ORDER BY {columns}")


def read_on(parted, params=CDC, columns="id, name"):
    parted.load(**params)
    assert stored(parted, columns) == there(parted, columns)


@pytest.mark.parametrize(
    ("statements", "columns"),
    [
        (["ALTER TABLE orders ADD c int DEFAULT 7", "UPDATE orders SET name = 'x' WHERE id = 2"], "id, name, c"),
        (["ALTER TABLE orders RENAME name TO title", "INSERT INTO orders VALUES (6, 'x')"], "id, title"),
        ([NEW_PARTITION, NEW_ROW, "ALTER TABLE orders ADD c int DEFAULT 7"], "id, c"),
        (["ALTER TABLE orders ADD c int", NEW_PARTITION, "INSERT INTO orders VALUES (100, 'x', 7)"], "id, c"),
    ],
)  # fmt: skip
def test_schema_changes_are_followed_in_all_rows(parted, statements, columns):
    parted.database.run(*statements)
    read_on(parted, columns=columns)


def test_older_rows_of_partitions_that_were_packed_anew_are_asked_for(parted):
    parted.database.run(NEW_PARTITION, NEW_ROW)
    parted.load(**CDC)
    parted.database.run("ALTER TABLE orders ADD c int DEFAULT 7", "VACUUM FULL second")
    error = parted.error(**CDC)
    assert isinstance(error, SchemaChanged)
    assert "--full-refresh" in str(error)


def refused(parted, message):
    error = parted.error(**CDC)
    assert isinstance(error, SchemaChanged)
    assert message in str(error)
    assert "--full-refresh" in str(error)
    before = stored(parted)
    parted.error(**CDC)
    assert stored(parted) == before
    parted.bench.ok(full_refresh=True)
    parted.database.run("INSERT INTO orders VALUES (1001, 'y')")
    read_on(parted)


@pytest.mark.parametrize(
    ("early", "late"),
    [
        ([], [MAKE_SECOND, FILL_SECOND, ATTACH_SECOND]),
        ([MAKE_SECOND], [FILL_SECOND, ATTACH_SECOND]),
        ([MAKE_SECOND], ["BEGIN", FILL_SECOND, ATTACH_SECOND, "COMMIT"]),
        (
            [],
            [
                "BEGIN",
                MAKE_SECOND,
                FILL_SECOND,
                ATTACH_SECOND,
                "INSERT INTO orders VALUES (102, 'y')",
                "COMMIT",
            ],
        ),
        (
            [],
            [
                f"{MAKE_SECOND} PARTITION BY LIST (id)",
                "CREATE TABLE third PARTITION OF second DEFAULT",
                FILL_SECOND,
                ATTACH_SECOND,
            ],
        ),
        # As many as before, and none that is newer.
        ([MAKE_SECOND, FILL_SECOND, THIRD], ["DROP TABLE third", ATTACH_SECOND]),
    ],
    ids=["new", "older", "one transaction", "made in it", "with partitions", "for another one"],
)
def test_rows_that_come_with_a_partition_ask_for_a_full_refresh(parted, early, late):
    parted.database.run(*early)
    parted.load(**CDC)
    parted.database.run(*late)
    refused(parted, "a table that had rows was attached as a partition")


@pytest.mark.parametrize(
    "statements",
    [
        [MAKE_SECOND, ATTACH_SECOND, NEW_ROW],
        ["BEGIN", MAKE_SECOND, ATTACH_SECOND, NEW_ROW, "COMMIT"],
        [MAKE_SECOND, "BEGIN", ATTACH_SECOND, NEW_ROW, "COMMIT"],
        ["BEGIN", NEW_PARTITION, NEW_ROW, "COMMIT", "ALTER TABLE second ALTER id SET STATISTICS 7"],
        [NEW_PARTITION, NEW_ROW, "VACUUM FULL first", "UPDATE orders SET name = 'y' WHERE id = 2"],
        [NEW_PARTITION, NEW_ROW, "TRUNCATE orders", "INSERT INTO orders VALUES (1, 'again'), (101, 'y')"],
        ["TRUNCATE orders"],
        ["TRUNCATE first", "TRUNCATE orders", NEW_ROWS, "CREATE INDEX ON orders (name)", "ANALYZE orders"],
        ["BEGIN", "SAVEPOINT s", "TRUNCATE orders", "COMMIT"],
        ["VACUUM FULL first"],
    ],
    ids=[
        "attached",
        "in one transaction",
        "later",
        "altered",
        "packed",
        "truncated",
        "emptied",
        "emptied after a part",
        "emptied in a savepoint",
        "only packed",
    ],
)
def test_what_the_log_tells_of_partitions_is_followed(parted, statements, caplog):
    parted.database.run(*statements)
    read_on(parted)
    read_on(parted)
    assert "partition" not in caplog.text


def test_a_truncated_table_is_told_from_its_partitions_in_small_batches(parted):
    small = {**CDC, "transaction_bytes": 1}
    parted.database.run(
        "INSERT INTO orders VALUES (7, 'x')", "DELETE FROM orders WHERE id = 1", "TRUNCATE orders"
    )
    parted.database.run("INSERT INTO orders VALUES (8, 'y')", "INSERT INTO orders VALUES (9, 'z')")
    read_on(parted, small)
    parted.database.run(
        "INSERT INTO orders VALUES (10, 'y')", "TRUNCATE first", "INSERT INTO orders VALUES (11, 'y')"
    )
    for _ in range(2):
        assert "1 of its partitions may have been emptied" in str(parted.error(**small))


@pytest.mark.parametrize(
    ("late", "message"),
    [
        (["TRUNCATE first"], "1 of its partitions may have been emptied by a TRUNCATE of its own"),
        (["TRUNCATE first", "INSERT INTO orders VALUES (1, 'again')"], "1 of its partitions may have been emptied"),
        ([NEW_PARTITION, NEW_ROW, "TRUNCATE second"], "1 of its partitions may have been emptied"),
        (["TRUNCATE orders", NEW_ROWS, "TRUNCATE first"], "1 of its partitions may have been emptied"),
        (["DROP TABLE first"], "1 of its partitions went (DROP, DETACH)"),
        ([DETACH_FIRST, "CREATE TABLE other PARTITION OF orders DEFAULT"], "1 of its partitions went"),
        ([NEW_PARTITION, NEW_ROW, "DROP TABLE second"], "1 of its partitions went (DROP, DETACH)"),
        (
            [DETACH_FIRST, "UPDATE first SET name = 'y'", ATTACH_FIRST],
            "a partition was detached and attached again",
        ),
    ],
    ids=["truncated", "filled again", "new", "after the whole", "dropped", "replaced", "passing", "back again"],
)  # fmt: skip
def test_rows_that_go_with_a_partition_ask_for_a_full_refresh(parted, late, message):
    parted.database.run(*late)
    refused(parted, message)


def test_rows_that_go_with_a_partition_stay_where_that_is_asked_for(parted, caplog):
    parted.database.run(NEW_PARTITION, NEW_ROW)
    read_on(parted, KEEP)
    before = stored(parted)
    parted.database.run("TRUNCATE first", "UPDATE orders SET name = 'x' WHERE id = 100")
    parted.load(**KEEP)
    assert "1 of its partitions may have been emptied by a TRUNCATE" in caplog.text
    caplog.clear()
    parted.database.run("INSERT INTO orders VALUES (102, 'z')")
    parted.load(**KEEP)
    assert "partitions" not in caplog.text
    parted.database.run("DROP TABLE first", "INSERT INTO orders VALUES (103, 'z')")
    parted.load(**KEEP)
    assert (
        "1 of its partitions went (DROP, DETACH), of which the log tells nothing: their rows stay"
        in caplog.text
    )
    assert stored(parted) == [*before, (102, "z"), (103, "z")]


def test_a_partition_is_read_by_itself_whatever_becomes_of_it(parted):
    params = {**CDC, "table": "first"}
    parted.pipeline(**params)
    parted.bench.ok(full_refresh=True)
    parted.database.run(DETACH_FIRST, "INSERT INTO first VALUES (6, 'x')")
    parted.database.run("INSERT INTO first VALUES (7, 'x')", ATTACH_FIRST)
    read_on(parted, params)
