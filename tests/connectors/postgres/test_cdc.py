"""Changes out of Postgres' log: the copy is what the table is, whatever happens to either in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sqlflow_dagster.errors import (
    BadOption,
    Canceled,
    LoadRefused,
    NotAllowed,
    RetryLater,
    SchemaChanged,
    SourceFailed,
)
from tests.connectors.writers import inserting

TESTS = Path(__file__).parents[2]
CDC = {"sync_mode": "cdc", "primary_key": "id", "table": "orders"}
HARD = {**CDC, "deletes": "hard"}
# So large, and so little compressible, that Postgres keeps it beside its row.
LARGE = "(SELECT string_agg(md5(n::text || '{}'), '') FROM generate_series(1, 300) AS n)"


@pytest.fixture
def copy(project):
    """A table `orders` with a few rows, and the project that copies it."""
    project.database.run(
        "CREATE TABLE orders (id int PRIMARY KEY, name text, amount numeric(12,2))",
        "INSERT INTO orders SELECT n, 'n' || n, n FROM generate_series(1, 5) AS n",
    )
    yield project
    # A database with slots cannot be dropped.
    project.database.run(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
    )


def slots(copy):
    return copy.database.run(
        "SELECT slot_name, confirmed_flush_lsn::text FROM pg_replication_slots"
        " WHERE database = current_database() ORDER BY 1"
    )


def living(copy, columns="id, name, amount"):
    return copy.query(f"SELECT {columns} FROM p.t WHERE NOT _sqlflow_deleted ORDER BY ALL")


def stored(copy, columns="id, name, amount"):
    return copy.query(f"SELECT {columns} FROM p.t ORDER BY ALL")


def there(copy, columns="id, name, amount"):
    return copy.database.run(f"SELECT {columns} FROM orders ORDER BY {columns}")


def position(copy):
    query = "SELECT cursor_value FROM _sqlflow.commits ORDER BY epoch DESC, seq DESC LIMIT 1"
    return json.loads(copy.query(query)[0][0])


def test_inserts_updates_and_deletes_arrive(copy):
    first = copy.load(**CDC)["t"]
    assert (first.inserted, first.deleted) == (5, 0)
    copy.database.run(
        "INSERT INTO orders VALUES (6, 'six', 6)",
        "UPDATE orders SET name = 'two' WHERE id = 2",
        "DELETE FROM orders WHERE id = 3",
    )
    second = copy.load(**CDC)["t"]
    assert (second.rows, second.inserted, second.updated, second.deleted) == (3, 1, 1, 1)
    assert living(copy) == there(copy)
    assert copy.query("SELECT id, name FROM p.t WHERE _sqlflow_deleted") == [(3, "n3")]


def test_columns_that_are_named_like_ours_keep_their_values(copy):
    names = ["_sqlflow_id", "_sqlflow_gone", "_SQLFLOW_Origin", "_sqlflow_unchanged", "_sqlflow_there"]
    columns = ", ".join(f'"{name}"' for name in names)
    adds = ", ".join(f"ADD \"{name}\" text DEFAULT 'old'" for name in names)
    copy.database.run(
        f"ALTER TABLE orders {adds}",
        f"UPDATE orders SET name = {LARGE.format('x')}, \"_sqlflow_there\" = 'y'",
    )
    copy.load(**CDC)
    copy.database.run(
        f"UPDATE orders SET ({columns}) = ('a', 'b', 'c', 'd', 'e') WHERE id = 1",
        "DELETE FROM orders WHERE id = 2",
    )
    copy.load(**CDC)
    assert living(copy, f"id, name, {columns}") == there(copy, f"id, name, {columns}")


@pytest.mark.parametrize(
    ("name", "options"), [("_sqlflow_change", HARD), ("_SQLFLOW_change", CDC), ("_sqlflow_deleted", CDC)]
)
def test_a_column_with_a_name_of_ours_that_the_table_is_to_have_is_refused(copy, name, options):
    copy.database.run(f'ALTER TABLE orders ADD "{name}" boolean')
    error = copy.error(**options)
    assert isinstance(error, BadOption)
    assert f"the column {name!r} has a name that cdc gives to one of its own" in str(error)


def test_hard_deletes_leave_no_row_and_no_column(copy):
    copy.load(**HARD)
    copy.database.run(
        "DELETE FROM orders WHERE id = 1",
        "INSERT INTO orders VALUES (9, 'x', 1)",
        "DELETE FROM orders WHERE id = 9",
    )
    outcome = copy.load(**HARD)["t"]
    assert (outcome.inserted, outcome.updated, outcome.deleted) == (0, 0, 1)
    assert stored(copy, "*") == there(copy)


def test_rows_of_one_key_become_its_last_state(copy):
    copy.load(**CDC)
    copy.database.run(
        *(f"UPDATE orders SET name = 'v{n}' WHERE id = 1" for n in range(9)),
        "DELETE FROM orders WHERE id = 2",
        "INSERT INTO orders VALUES (2, 'again', 7)",
        "INSERT INTO orders VALUES (7, 'x', 1)",
        "DELETE FROM orders WHERE id = 7",
    )
    copy.load(**CDC)
    assert living(copy) == there(copy)
    assert copy.query("SELECT id FROM p.t WHERE _sqlflow_deleted") == [(7,)]


@pytest.mark.parametrize("params", [CDC, HARD], ids=["soft", "hard"])
def test_a_row_whose_key_changes_is_one_that_goes_and_one_that_comes(copy, params):
    copy.load(**params)
    copy.database.run(
        "UPDATE orders SET id = 10 WHERE id = 1",
        "UPDATE orders SET id = id + 1 WHERE id = 5",
        "UPDATE orders SET id = 5 WHERE id = 4",
    )
    copy.load(**params)
    found = stored(copy) if params is HARD else living(copy)
    assert found == there(copy)
    if params is CDC:
        assert copy.query("SELECT id, name FROM p.t WHERE _sqlflow_deleted ORDER BY 1") == [
            (1, "n1"),
            (4, "n4"),
        ]


@pytest.mark.parametrize("identity", ["DEFAULT", "FULL", "USING INDEX by_id"])
@pytest.mark.parametrize("params", [CDC, HARD], ids=["soft", "hard"])
def test_large_values_that_did_not_change_are_kept(copy, params, identity):
    copy.database.run(
        "CREATE UNIQUE INDEX by_id ON orders (id)",
        f"ALTER TABLE orders REPLICA IDENTITY {identity}",
        f"UPDATE orders SET name = {LARGE.format('a')}",
    )
    copy.load(**params)
    copy.database.run(
        "UPDATE orders SET amount = 100 WHERE id = 1",
        # Its key changes, and the large value is under the old one.
        "UPDATE orders SET id = 12 WHERE id = 2",
        "UPDATE orders SET id = 13, amount = 0 WHERE id = 12",
        # The old key is taken by another row.
        "INSERT INTO orders VALUES (2, 'short', 1)",
        # It changes, and then something else does.
        f"UPDATE orders SET name = {LARGE.format('b')} WHERE id = 3",
        "UPDATE orders SET amount = 300 WHERE id = 3",
        "UPDATE orders SET id = 4, amount = 1 WHERE id = 4",
        f"INSERT INTO orders VALUES (20, {LARGE.format('c')}, 1)",
        "UPDATE orders SET id = 21 WHERE id = 20",
        "DELETE FROM orders WHERE id = 5",
    )
    copy.load(**params)
    assert (stored(copy) if params is HARD else living(copy)) == there(copy)
    if params is CDC:
        (kept,) = copy.query("SELECT length(name) FROM p.t WHERE id = 5")
        assert kept == (9600,)


@pytest.mark.parametrize("params", [CDC, HARD], ids=["soft", "hard"])
def test_a_truncated_table_is_emptied_at_its_place_in_the_log(copy, params):
    copy.load(**params)
    copy.database.run(
        "UPDATE orders SET name = 'gone' WHERE id = 1",
        "TRUNCATE orders",
        "INSERT INTO orders VALUES (2, 'new', 2)",
    )
    outcome = copy.load(**params)["t"]
    assert (stored(copy) if params is HARD else living(copy)) == there(copy) == [(2, "new", 2)]
    assert outcome.total_rows == (1 if params is HARD else 5)


def test_a_key_column_that_is_large_is_found_again(copy):
    copy.database.run(
        "CREATE TABLE docs (k text PRIMARY KEY, n int)",
        f"INSERT INTO docs SELECT left({LARGE.format('k')}, 2500), 1",
    )
    params = {**HARD, "table": "docs", "primary_key": "k"}
    copy.load(**params)
    copy.database.run("UPDATE docs SET n = 2")
    copy.load(**params)
    assert copy.query("SELECT length(k), n FROM p.t") == [(2500, 2)]
    copy.database.run("DELETE FROM docs")
    copy.load(**params)
    assert copy.query("SELECT count(*) FROM p.t") == [(0,)]


def test_a_transaction_arrives_whole_however_small_the_batches_are(copy):
    params = {**HARD, "transaction_bytes": 1}
    copy.load(**params)
    connection = copy.database.connect()
    connection.autocommit = False
    with connection.cursor() as session:
        for _ in range(3):
            session.execute("UPDATE orders SET amount = amount + 1 WHERE id = 1")
            session.execute("UPDATE orders SET amount = amount - 1 WHERE id = 2")
            connection.commit()
        session.execute("INSERT INTO orders SELECT n, 'm', n FROM generate_series(100, 399) AS n")
    connection.commit()
    copy.load(**params)
    assert stored(copy) == there(copy)
    sums = copy.query("SELECT rows FROM _sqlflow.commits WHERE NOT complete AND rows > 0 ORDER BY seq")
    assert sums == [(2,), (2,), (2,), (300,)]


def test_what_does_not_fit_into_memory_waits_on_the_disk(copy, monkeypatch):
    from sqlflow_dagster.connectors import postgres_cdc

    monkeypatch.setattr(postgres_cdc, "_MEMORY", 10_000)
    copy.database.run(f"UPDATE orders SET name = {LARGE.format('a')} WHERE id < 3")
    copy.load(**CDC)
    copy.database.run(
        "INSERT INTO orders SELECT n, 'm', n FROM generate_series(100, 1099) AS n",
        "UPDATE orders SET amount = 5 WHERE id = 1",
        "UPDATE orders SET name = 'x' WHERE id % 3 = 0",
        "UPDATE orders SET id = id + 5000 WHERE id % 7 = 2",
        "DELETE FROM orders WHERE id % 10 = 4",
    )
    copy.load(**CDC)
    assert living(copy) == there(copy)
    assert not list((copy.bench.root / ".sqlflow").rglob("log-*"))


def test_a_transaction_that_was_open_at_the_snapshot_is_not_lost(copy):
    """Committed while the first read waits for it, or after the end of a later one."""
    copy.load(**CDC)
    late = copy.database.connect()
    late.autocommit = False
    with late.cursor() as session:
        session.execute("INSERT INTO orders VALUES (50, 'late', 1)")
        copy.database.run("INSERT INTO orders VALUES (51, 'early', 1)")
        copy.load(**CDC)
        assert (50, "late", 1) not in living(copy)
        late.commit()
    copy.load(**CDC)
    assert living(copy) == there(copy)


def test_a_slot_that_waits_for_a_transaction_gives_up_and_says_so(copy):
    open_one = copy.database.connect()
    open_one.autocommit = False
    with open_one.cursor() as session:
        session.execute("INSERT INTO orders VALUES (50, 'late', 1)")
        error = copy.error(**CDC, silence_seconds=1)
        open_one.commit()
    assert isinstance(error, SourceFailed)
    assert "pg_stat_activity has it" in str(error)
    assert slots(copy) == []
    copy.load(**CDC)
    assert living(copy) == there(copy)


def test_two_loads_of_one_table_have_a_slot_and_a_position_each(copy):
    both = "LOAD t FROM pg.orders;\nLOAD u FROM pg.orders;"
    copy.load(both, **HARD)
    copy.database.run("INSERT INTO orders VALUES (6, 'six', 6)")
    copy.load("LOAD t FROM pg.orders;", **HARD)
    copy.database.run("DELETE FROM orders WHERE id = 1")
    copy.load(both, **HARD)
    assert len(slots(copy)) == 2
    assert stored(copy) == there(copy) == copy.query("SELECT * FROM p.u ORDER BY ALL")


def test_a_run_that_another_one_overtakes_reads_on_from_there(copy, monkeypatch):
    from sqlflow_dagster.connectors import postgres_slot

    copy.load(**CDC)
    usable, runs = postgres_slot.usable, []

    def overtaken(*arguments):
        if not runs:
            runs.append(1)
            copy.database.run("UPDATE orders SET name = 'two' WHERE id = 2")
            runs.append(copy.bench.ok()["t"])
        usable(*arguments)

    monkeypatch.setattr(postgres_slot, "usable", overtaken)
    outcome = copy.load(**CDC)["t"]
    assert (runs[1].updated, outcome.updated) == (1, 0)
    assert living(copy) == there(copy)


def test_several_tables_share_a_publication_that_is_named(copy):
    copy.database.run("CREATE TABLE lines (id int PRIMARY KEY, v text)", "INSERT INTO lines VALUES (1, 'a')")
    params = {**HARD, "table": None, "tables": ["orders", "lines"], "publication": "shop"}
    copy.load("LOAD * FROM pg;", **params)
    copy.database.run("UPDATE lines SET v = 'b'", "DELETE FROM orders WHERE id = 2")
    copy.load("LOAD * FROM pg;", **params)
    assert copy.query("FROM p.lines") == [(1, "b")]
    assert copy.query("SELECT id FROM p.orders ORDER BY 1") == [(1,), (3,), (4,), (5,)]
    assert copy.database.run(
        "SELECT tablename FROM pg_publication_tables WHERE pubname = 'shop' ORDER BY 1"
    ) == [
        ("lines",),
        ("orders",),
    ]


def test_partitions_are_read_under_their_tables_name(copy):
    copy.database.run(
        "CREATE TABLE parts (id int, at int, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
        "CREATE TABLE p1 PARTITION OF parts FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE p2 PARTITION OF parts FOR VALUES FROM (10) TO (20)",
        "INSERT INTO parts VALUES (1, 5, 'a'), (2, 15, 'b')",
    )
    params = {**HARD, "table": "parts", "primary_key": ["id", "at"]}
    copy.load(**params)
    copy.database.run(
        "UPDATE parts SET at = 16 WHERE id = 1",
        "DELETE FROM parts WHERE id = 2",
        "INSERT INTO parts VALUES (3, 1, 'c')",
    )
    copy.load(**params)
    assert copy.query("FROM p.t ORDER BY 1") == [(1, 16, "a"), (3, 1, "c")]


def test_a_quiet_table_moves_its_slot_on_and_stores_nothing(copy):
    copy.load(**CDC)
    ((name, before),) = slots(copy)
    copy.database.run("CREATE TABLE noise (n int)", "INSERT INTO noise SELECT generate_series(1, 5000)")
    outcome = copy.load(**CDC)["t"]
    ((_name, after),) = slots(copy)
    assert (outcome.rows, outcome.inserted) == (0, 0)
    assert after == position(copy)["lsn"] != before
    assert outcome.facts["slot"] == name
    assert outcome.facts["slot_bytes_behind"] < 10_000


@pytest.mark.parametrize("busy", ["orders", "other"])
def test_a_run_ends_where_the_log_ended_when_it_began_however_much_is_written(copy, busy):
    copy.database.run("CREATE SEQUENCE ids START 10", "CREATE TABLE other (id int, name text)")
    copy.load(**CDC)
    copy.database.run("INSERT INTO orders SELECT -n FROM generate_series(1, 5000) AS n")
    insert = f"INSERT INTO {busy} SELECT nextval('ids'), 'x'"
    with inserting(copy.database.connect, insert, count=1) as done:
        copy.load(**CDC)
        assert done() > 0
    (reached,) = copy.database.run(f"SELECT pg_current_wal_insert_lsn() - '{position(copy)['lsn']}'::pg_lsn")
    assert reached[0] > 0
    assert copy.query("SELECT count(*) FROM p.t WHERE id < 0") == [(5000,)]
    copy.load(**CDC)
    assert living(copy) == there(copy)


def test_a_full_refresh_makes_a_new_slot_with_a_new_snapshot(copy):
    copy.load(**CDC)
    copy.database.run("DELETE FROM orders WHERE id = 1")
    copy.load(**CDC)
    copy.bench.ok(full_refresh=True)
    assert stored(copy) == there(copy)
    copy.database.run("DELETE FROM orders WHERE id = 2")
    copy.load(**CDC)
    assert living(copy) == there(copy)
    assert len(slots(copy)) == 1


FOLLOWED = {
    "added": (["ALTER TABLE {t} ADD c text", "UPDATE {t} SET c = 'x' WHERE id = 1"], "id, name, amount, c"),
    "defaulted": (
        ["ALTER TABLE {t} ADD c int DEFAULT 7", "UPDATE {t} SET c = 8 WHERE id = 1"],
        "id, name, c",
    ),
    "list": (["ALTER TABLE {t} ADD c int[] DEFAULT '{{1,NULL}}'", "DELETE FROM {t} WHERE id = 1"], "id, c"),
    "dropped": (["ALTER TABLE {t} DROP amount", "UPDATE {t} SET name = 'x' WHERE id = 1"], "id, name"),
    "renamed": (
        ["ALTER TABLE {t} RENAME name TO title", "UPDATE {t} SET amount = 0 WHERE id = 1"],
        "id, title, amount",
    ),
    "several": (
        [
            "UPDATE {t} SET name = 'before' WHERE id = 2",
            "ALTER TABLE {t} RENAME name TO title",
            "ALTER TABLE {t} ADD c int DEFAULT 1, DROP amount",
            "INSERT INTO {t} VALUES (6, 'after', 2)",
        ],
        "id, title, c",
    ),
    "typed": (
        ["ALTER TABLE {t} ALTER name TYPE varchar", "UPDATE {t} SET name = 'x' WHERE id = 1"],
        "id, name, amount",
    ),
}
ASKED_FOR = {
    "rewritten": "ALTER TABLE {t} ALTER amount TYPE numeric(12,1)",
    "changed_values": "ALTER TABLE {t} ALTER amount TYPE numeric(12,2) USING amount * 100",
    "volatile": "ALTER TABLE {t} ADD c float DEFAULT random()",
    "other_column": "ALTER TABLE {t} DROP name, ADD name text",
    "passing_name": "ALTER TABLE {t} RENAME name TO x; INSERT INTO {t} VALUES (6); ALTER TABLE {t} RENAME x TO name",
    "passing_new_name": "ALTER TABLE {t} ADD x int; INSERT INTO {t} VALUES (6); ALTER TABLE {t} RENAME x TO y",
    "other_table": "DROP TABLE {t}; CREATE TABLE {t} (id int PRIMARY KEY, name text, amount numeric(12,2))",
}


def make_tables(copy, names):
    """Tables like `orders`, and the parameters that load all of them."""
    for name in names:
        copy.database.run(
            f"CREATE TABLE {name} (LIKE orders INCLUDING ALL)", f"INSERT INTO {name} TABLE orders"
        )
    return {**CDC, "table": None, "tables": list(names)}


def differences(copy, columns_by_table):
    """The tables whose living rows are not those of the source."""
    found = {}
    for name, columns in columns_by_table.items():
        here = copy.query(f"SELECT {columns} FROM p.{name} WHERE NOT _sqlflow_deleted ORDER BY id")
        wanted = copy.database.run(f"SELECT {columns} FROM {name} ORDER BY id")
        if here != wanted:
            found[name] = (here, wanted)
    return found


def test_schema_changes_are_followed_in_all_rows(copy):
    params = make_tables(copy, FOLLOWED)
    columns = {name: columns for name, (_statements, columns) in FOLLOWED.items()}
    copy.load("LOAD * FROM pg;", **params)
    for name, (statements, _columns) in FOLLOWED.items():
        copy.database.run(*(statement.format(t=name) for statement in statements))
    copy.load("LOAD * FROM pg;", **params)
    assert differences(copy, columns) == {}
    for name in FOLLOWED:
        copy.database.run(f"DELETE FROM {name} WHERE id = 3")
    copy.load("LOAD * FROM pg;", **params)
    assert differences(copy, columns) == {}


def test_what_the_log_does_not_tell_asks_for_a_full_refresh(copy):
    params = make_tables(copy, ASKED_FOR)
    copy.load("LOAD * FROM pg;", **params)
    for name, statement in ASKED_FOR.items():
        copy.database.run(statement.format(t=name), f"INSERT INTO {name} VALUES (7)")
    errors = {name: outcome.error for name, outcome in copy.bench.run().items()}
    assert {name: type(error) for name, error in errors.items()} == dict.fromkeys(ASKED_FOR, SchemaChanged)
    assert all("--full-refresh" in str(error) for error in errors.values())
    copy.bench.ok(full_refresh=True)
    assert differences(copy, dict.fromkeys(ASKED_FOR, "id, name, amount")) == {}


@pytest.mark.parametrize(
    ("alter", "columns"),
    [
        ("ADD c int DEFAULT 7, ADD d text", "id, name, c, d"),
        ("RENAME name TO title", "id, title"),
        ("DROP name, ADD e text[] DEFAULT '{a}'", "id, e"),
    ],
)
def test_columns_are_followed_where_no_row_changes(copy, alter, columns):
    copy.load(**CDC)
    copy.database.run(f"ALTER TABLE orders {alter}")
    copy.load(**CDC)
    assert living(copy, columns) == there(copy, columns)
    before = position(copy)
    assert copy.load(**CDC)["t"].rows == 0
    assert position(copy)["columns"] == before["columns"]


@pytest.mark.parametrize(
    ("statements", "columns"),
    [
        (
            ["ALTER TABLE orders ADD c int DEFAULT 7", "INSERT INTO orders VALUES (12, 'x', 2, 3)"],
            "id, name, c",
        ),
        (
            ["ALTER TABLE orders RENAME name TO title", "UPDATE orders SET title = 'x' WHERE id < 3"],
            "id, title",
        ),
        (["ALTER TABLE orders DROP name", "INSERT INTO orders VALUES (12, 2)"], "id, amount"),
        (
            ["TRUNCATE orders", "ALTER TABLE orders ADD c int", "INSERT INTO orders VALUES (12, 'x', 2, 3)"],
            "id, name, c",
        ),
        (["ALTER TABLE orders ADD c int", "TRUNCATE orders"], "id, name, c"),
        (
            [
                "ALTER TABLE orders ADD c float DEFAULT random()",
                "INSERT INTO orders VALUES (12, 'x', 2, 3)",
                "TRUNCATE orders",
                "INSERT INTO orders VALUES (13, 'y', 2)",
            ],
            "id, name, c",
        ),
    ],
)
@pytest.mark.parametrize("small", [{}, {"transaction_bytes": 1}], ids=["one batch", "several"])
def test_columns_are_followed_in_the_midst_of_changes(copy, statements, columns, small):
    copy.load(**CDC)
    copy.database.run(
        "INSERT INTO orders VALUES (10, 'a', 1)",
        "UPDATE orders SET name = 'b' WHERE id = 1",
        *statements,
        "DELETE FROM orders WHERE id = 4",
    )
    for _ in range(2):
        copy.load(**CDC, **small)
        assert living(copy, columns) == there(copy, columns)


@pytest.mark.parametrize("alter", ["ADD c int DEFAULT 7", "RENAME name TO title", "DROP name"])
def test_a_column_that_is_altered_while_changes_are_read_is_the_next_reads(copy, alter, monkeypatch):
    from sqlflow_dagster.connectors import postgres_log

    copy.load(**CDC)
    copy.database.run("INSERT INTO orders VALUES (10, 'a', 1)")
    collect = postgres_log.Log.collect

    def altered(self, *arguments):
        copy.database.run(
            "UPDATE orders SET name = 'b' WHERE id = 1",
            f"ALTER TABLE orders {alter}",
            "UPDATE orders SET amount = 9 WHERE id = 2",
        )
        return collect(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(postgres_log.Log, "collect", altered)
        copy.load(**CDC)
    assert living(copy, "id, name, amount")[-1][:2] == (10, "a")
    copy.load(**CDC)
    columns = {"A": "id, name, c, amount", "R": "id, title, amount", "D": "id, amount"}[alter[0]]
    assert living(copy, columns) == there(copy, columns)


@pytest.mark.parametrize(
    ("kind", "value", "alter"),
    [
        ("mood", "sad", "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'"),
        ("mood[]", "{sad}", "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'"),
        ("feeling", "(sad,1)", "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'"),
        ("feeling", "(sad,1)", "ALTER TYPE feeling ADD ATTRIBUTE z int"),
        ("usual", "sad", "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'"),
    ],
)
def test_a_type_that_shows_other_values_asks_for_a_full_refresh(copy, kind, value, alter):
    copy.database.run(
        "CREATE TYPE mood AS ENUM ('sad', 'ok')",
        "CREATE TYPE feeling AS (mood mood, much int)",
        "CREATE DOMAIN usual AS mood",
        f"ALTER TABLE orders ADD m {kind} DEFAULT '{value}'",
    )
    copy.load(**CDC)
    copy.database.run("ALTER TYPE mood ADD VALUE 'so so' BEFORE 'ok'")
    copy.load(**CDC)
    copy.database.run(alter)
    error = copy.error(**CDC)
    assert isinstance(error, SchemaChanged)
    assert f"the type {alter.split()[2]} was altered" in str(error)
    copy.bench.ok(full_refresh=True)
    columns = "id, array_to_string(m, ',')" if kind.endswith("[]") else "id, m::text"
    assert living(copy, columns) == there(copy, columns)


def test_a_table_that_is_only_packed_anew_is_read_on(copy):
    copy.database.run("ALTER TABLE orders ADD c int DEFAULT 7")
    copy.load(**CDC)
    copy.database.run("INSERT INTO orders VALUES (6, 'six', 6, 8)", "VACUUM FULL orders")
    copy.load(**CDC)
    assert living(copy, "id, c") == there(copy, "id, c")


def test_a_column_that_is_not_computed_any_more_asks_for_a_full_refresh(copy):
    copy.database.run("ALTER TABLE orders ADD COLUMN twice numeric GENERATED ALWAYS AS (amount * 2) STORED")
    copy.load(**CDC)
    copy.database.run(
        "ALTER TABLE orders ALTER COLUMN twice DROP EXPRESSION", "INSERT INTO orders VALUES (7, '7', 7, 7)"
    )
    error = copy.error(**CDC)
    assert isinstance(error, SchemaChanged)
    assert "--full-refresh" in str(error)
    copy.bench.ok(full_refresh=True)
    assert living(copy, "id, twice::DOUBLE") == there(copy, "id, twice::float")


def test_strict_refuses_a_new_column(copy):
    copy.load(**CDC, schema_policy="strict")
    before = position(copy)
    copy.database.run("ALTER TABLE orders ADD COLUMN c text", "UPDATE orders SET c = 'x'")
    assert isinstance(copy.error(**CDC, schema_policy="strict"), LoadRefused)
    assert position(copy) == before
    copy.load(**CDC)
    assert living(copy, "id, c") == there(copy, "id, c")


def spoil_drop(copy):
    copy.database.run(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE NOT temporary"
    )


def spoil_ahead(copy):
    copy.database.run(
        "INSERT INTO orders VALUES (99)",
        "SELECT pg_replication_slot_advance(slot_name, pg_current_wal_lsn()) FROM pg_replication_slots"
        " WHERE database = current_database()",
    )


def spoil_publication(copy):
    ((name, _at),) = slots(copy)
    copy.database.run(f"ALTER PUBLICATION {name} SET (publish = 'insert')")


def spoil_member(copy):
    ((name, _at),) = slots(copy)
    copy.database.run(f"ALTER PUBLICATION {name} DROP TABLE orders", "INSERT INTO orders VALUES (98)")


def spoil_publication_gone(copy):
    ((name, _at),) = slots(copy)
    copy.database.run(f"DROP PUBLICATION {name}", "INSERT INTO orders VALUES (98)")


def spoil_cursor(copy, document):
    import duckdb

    with duckdb.connect(str(copy.bench.root / "data/warehouse.duckdb")) as connection:
        connection.execute("UPDATE _sqlflow.commits SET cursor_value = ?", [json.dumps(document)])


def spoil_mode(copy):
    spoil_cursor(copy, {"xmin": 5})


def spoil_system(copy):
    spoil_cursor(copy, {**position(copy), "system": "1"})


def spoil_lost(copy):
    copy.database.run("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'", "SELECT pg_reload_conf()")
    for _ in range(3):
        copy.database.run("CREATE TABLE filler ()", "DROP TABLE filler", "SELECT pg_switch_wal()")
    copy.database.run("CHECKPOINT", "ALTER SYSTEM RESET max_slot_wal_keep_size", "SELECT pg_reload_conf()")


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (spoil_drop, SourceFailed, "replication slot .* is not there any more.*--full-refresh"),
        (spoil_ahead, SourceFailed, "slot .* stands at .*, and the table at .*--full-refresh"),
        (
            spoil_publication,
            BadOption,
            "ALTER PUBLICATION .* SET \\(publish = 'insert, update, delete, truncate'\\).*not in the log: then run with",
        ),
        (spoil_member, SourceFailed, "does not have the table any more.*--full-refresh"),
        (spoil_publication_gone, SourceFailed, "does not have the table any more.*--full-refresh"),
        (
            spoil_lost,
            SourceFailed,
            "has given up the replication slot .* \\(lost\\).*max_slot_wal_keep_size.*--full-refresh",
        ),
        (spoil_mode, SourceFailed, "another sync_mode.*--full-refresh"),
        (spoil_system, SourceFailed, "is another cluster.*--full-refresh"),
    ],
    ids=["missing", "ahead", "publication", "member", "no publication", "lost", "mode", "system"],
)
def test_a_gap_in_the_log_is_an_error_and_never_a_silent_new_copy(copy, spoil, kind, message):
    copy.load(**CDC)
    before = stored(copy)
    spoil(copy)
    error = copy.error(**CDC)
    assert isinstance(error, kind)
    assert __import__("re").search(message, str(error))
    assert stored(copy) == before
    if "--full-refresh" in message:
        copy.database.run("INSERT INTO orders VALUES (7, 'seven', 7)")
        copy.bench.ok(full_refresh=True)
        assert stored(copy) == there(copy)


@pytest.mark.parametrize(
    ("made", "params", "message"),
    [
        ("CREATE TABLE t (id int, v text)", {}, 'ALTER TABLE "public"."t" REPLICA IDENTITY FULL'),
        (
            "CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t REPLICA IDENTITY NOTHING",
            {},
            'ALTER TABLE "public"."t" REPLICA IDENTITY FULL',
        ),
        (
            "CREATE TABLE t (id int, k int PRIMARY KEY)",
            {},
            "merged by id, and the log of public.t names them by k",
        ),
        ("CREATE VIEW t AS SELECT 1 AS id", {}, "public.t is no ordinary table"),
        ("CREATE UNLOGGED TABLE t (id int PRIMARY KEY)", {}, "public.t is no ordinary table"),
        (
            "CREATE TABLE t (id int PRIMARY KEY) PARTITION BY LIST (id);"
            " CREATE UNLOGGED TABLE u PARTITION OF t FOR VALUES IN (1)",
            {},
            "the partitions u of public.t are foreign or UNLOGGED tables",
        ),
        (
            "CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u () INHERITS (t)",
            {},
            "tables that inherit from it",
        ),
        ("CREATE TABLE t (id int PRIMARY KEY)", {"primary_key": "nix"}, "has no column nix in its log"),
        (
            "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE PUBLICATION part FOR TABLE t WHERE (id > 5)",
            {"publication": "part"},
            "publication: part leaves out rows, by a WHERE",
        ),
        (
            "CREATE TABLE t (id int PRIMARY KEY, v int); CREATE PUBLICATION part FOR TABLE t (id)",
            {"publication": "part"},
            "publication: part leaves out the columns v",
        ),
    ],
    ids=[
        "no key",
        "nothing",
        "other key",
        "view",
        "unlogged",
        "unlogged part",
        "children",
        "no column",
        "rows",
        "columns",
    ],
)
def test_a_table_that_the_log_does_not_tell_whole_is_refused_with_what_to_run(copy, made, params, message):
    copy.database.run(made)
    error = copy.error(**{**CDC, "table": "t", **params})
    assert isinstance(error, BadOption)
    assert message in str(error)
    assert slots(copy) == []


def test_a_table_without_a_key_is_read_where_its_identity_is_full(copy):
    copy.database.run(
        "CREATE TABLE t (id int, v text)",
        "ALTER TABLE t REPLICA IDENTITY FULL",
        "INSERT INTO t VALUES (1, 'a')",
    )
    params = {**HARD, "table": "t"}
    copy.load(**params)
    copy.database.run(
        "INSERT INTO t VALUES (2, 'b')", "UPDATE t SET v = 'c' WHERE id = 1", "DELETE FROM t WHERE id = 2"
    )
    copy.load(**params)
    assert copy.query("FROM p.t") == [(1, "c")]


def test_a_key_that_is_checked_at_the_commit_may_pass_from_row_to_row(copy):
    copy.database.run(
        "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text)",
        "ALTER TABLE t REPLICA IDENTITY FULL",
        "INSERT INTO t SELECT n, 'v' || n FROM generate_series(1, 4) AS n",
    )
    params = {**HARD, "table": "t"}
    copy.load(**params)
    for statement in (
        "UPDATE t SET id = id % 4 + 1",
        "INSERT INTO t VALUES (2, 'new'); DELETE FROM t WHERE id = 2 AND v <> 'new'",
    ):
        copy.database.run(f"BEGIN; {statement}; COMMIT")
        copy.load(**params)
        assert copy.query("FROM p.t ORDER BY 1") == copy.database.run("SELECT * FROM t ORDER BY 1")


def test_columns_that_only_lie_in_the_keys_index_are_no_key(copy):
    copy.database.run(
        "CREATE TABLE t (id int, v text, PRIMARY KEY (id) INCLUDE (v))", "INSERT INTO t VALUES (1, 'a'), (2, 'b')"
    )  # fmt: skip
    params = {**HARD, "table": "t"}
    copy.load(**params)
    copy.database.run("UPDATE t SET v = 'c' WHERE id = 1", "DELETE FROM t WHERE id = 2")
    copy.load(**params)
    assert copy.query("FROM p.t") == [(1, "c")]


def test_computed_columns_are_left_out_as_the_log_does_not_have_them(copy):
    copy.database.run("ALTER TABLE orders ADD COLUMN twice numeric GENERATED ALWAYS AS (amount * 2) STORED")
    assert "is computed by Postgres" in str(copy.error(**HARD, columns=["id", "twice"]))
    copy.load(**HARD)
    copy.database.run("UPDATE orders SET amount = 9 WHERE id = 1")
    copy.load(**HARD)
    assert stored(copy, "*") == there(copy)


def test_chosen_and_masked_columns_stay_so(copy):
    params = {**CDC, "exclude_columns": ["amount"], "mask": {"name": "hash"}}
    copy.load(**params)
    copy.database.run("UPDATE orders SET name = 'x' WHERE id = 1", "DELETE FROM orders WHERE id = 2")
    copy.load(**params)
    expected = copy.database.run("SELECT id, encode(sha256(name::bytea), 'hex') FROM orders ORDER BY 1")
    assert (
        copy.query("SELECT * EXCLUDE _sqlflow_deleted FROM p.t WHERE NOT _sqlflow_deleted ORDER BY 1")
        == expected
    )


@pytest.mark.parametrize("before", [{"exclude_columns": ["amount"]}, {"columns": ["id", "name"]}], ids=str)
def test_a_column_that_was_left_out_is_not_wanted_half(copy, before):
    copy.load(**CDC, **before)
    copy.database.run("UPDATE orders SET amount = 50 WHERE id = 1")
    error = copy.error(**CDC)
    assert isinstance(error, SchemaChanged)
    assert "amount was left out before" in str(error)
    copy.bench.ok(full_refresh=True)
    copy.database.run("ALTER TABLE orders ADD c int", "UPDATE orders SET c = 1 WHERE id = 1")
    copy.load(**CDC)
    assert living(copy, "id, amount, c") == there(copy, "id, amount, c")


def test_a_publication_that_left_out_changes_for_a_while_is_told(copy):
    name = "sqlflow_test"
    copy.load(**CDC, publication=name)
    copy.database.run("CREATE TABLE other (id int PRIMARY KEY)", f"ALTER PUBLICATION {name} ADD TABLE other")
    copy.load(**CDC, publication=name)
    for out, back in (
        ("SET (publish = 'insert')", "SET (publish = 'insert, update, delete, truncate')"),
        ("DROP TABLE orders", "ADD TABLE orders"),
    ):
        copy.database.run(
            f"ALTER PUBLICATION {name} {out}",
            "UPDATE orders SET amount = amount + 1",
            f"ALTER PUBLICATION {name} {back}",
        )
        error = copy.error(**CDC, publication=name)
        assert isinstance(error, SourceFailed)
        assert f"the publication {name} was altered or made anew since the last read" in str(error)
        copy.bench.ok(full_refresh=True)
        assert living(copy) == there(copy)


def test_another_publication_is_read_where_it_had_the_table_before(copy):
    copy.database.run("CREATE PUBLICATION older FOR TABLE orders")
    copy.load(**CDC)
    copy.database.run("UPDATE orders SET amount = 9", "CREATE PUBLICATION newer FOR TABLE orders")
    error = copy.error(**CDC, publication="newer")
    assert "the publication newer was altered or made anew since the last read" in str(error)
    copy.load(**CDC, publication="older")
    assert living(copy) == there(copy)


def test_a_slot_of_another_database_is_told_from_ours(copy, server):
    copy.load(**CDC)
    url, other = copy.database.url, f"{copy.database.name}_other"
    copy.database.run(f"CREATE DATABASE {other} TEMPLATE template0")
    try:
        (there_,) = slots(copy)
        with server.connect(other) as connection, connection.cursor() as cursor:
            cursor.execute("CREATE TABLE orders (id int PRIMARY KEY)")
        connection.close()
        params = {**CDC, "connection": url.replace(copy.database.name, other)}
        copy.bench.pipeline(copy.source(**params) + "LOAD t FROM pg;")
        (outcome,) = copy.bench.run(full_refresh=True).values()
        assert "give this SOURCE a `slot_prefix`" in str(outcome.error)
        assert slots(copy) == [there_]
    finally:
        copy.database.run(f"DROP DATABASE {other} WITH (FORCE)")


KILL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from conftest import Workbench
Workbench(Path(sys.argv[2])).ok(run_id=sys.argv[3])
"""


def killed(copy, failpoint):
    environment = {**os.environ, "SQLFLOW_FAILPOINT": f"{failpoint}:kill"}
    command = [sys.executable, "-c", KILL, str(TESTS), str(copy.bench.root), f"killed-{failpoint}"]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL


@pytest.mark.parametrize("failpoint", ["after_slot_created", "before_commit", "before_slot_confirmed"])
def test_a_first_load_that_was_killed_leaves_one_slot_and_the_right_rows(copy, failpoint):
    copy.pipeline(**CDC)
    killed(copy, failpoint)
    assert len(slots(copy)) == 1
    copy.database.run("DELETE FROM orders WHERE id = 1")
    copy.load(**CDC)
    copy.load(**CDC)
    assert living(copy) == there(copy)
    assert len(slots(copy)) == 1


@pytest.mark.parametrize("failpoint", ["before_commit", "after_commit", "before_slot_confirmed"])
def test_changes_that_were_killed_on_the_way_arrive_once(copy, failpoint):
    copy.load(**CDC)
    copy.database.run("UPDATE orders SET amount = amount + 1", "INSERT INTO orders VALUES (6, 'six', 6)")
    killed(copy, failpoint)
    ((_name, confirmed),) = slots(copy)
    copy.database.run("UPDATE orders SET amount = amount + 1 WHERE id = 1")
    copy.load(**CDC)
    assert not list((copy.bench.root / ".sqlflow/spool").iterdir())
    assert living(copy) == there(copy)
    ((_name, after),) = slots(copy)
    assert after == position(copy)["lsn"] != confirmed


def test_a_first_load_that_fails_drops_its_slot(copy):
    copy.database.run("INSERT INTO orders VALUES (8, 'x', 'NaN')")
    assert "NaN" in str(copy.error(**CDC))
    assert slots(copy) == []


def test_a_slot_that_cannot_be_confirmed_is_a_notice_and_mended_by_the_next_run(copy, monkeypatch):
    from sqlflow_dagster.connectors import postgres_slot

    copy.load(**CDC)
    copy.database.run("DELETE FROM orders WHERE id = 1")

    def broken(*_):
        raise RetryLater("the server closed the connection")

    with monkeypatch.context() as patch:
        patch.setattr(postgres_slot, "move_on", broken)
        outcome = copy.load(**CDC)["t"]
    assert "the next run tells the source so" in outcome.notices[-1]
    copy.load(**CDC)
    assert slots(copy)[0][1] == position(copy)["lsn"]
    assert living(copy) == there(copy)


def test_a_user_without_the_right_is_told_what_to_run(copy):
    copy.database.run("GRANT SELECT ON orders TO reader")
    reader = {"username": "reader", "password": "CANARY-5f0c"}
    error = copy.error(**CDC, **reader)
    assert isinstance(error, NotAllowed)
    assert "CREATE PUBLICATION" in str(error)
    copy.database.run("CREATE PUBLICATION shop FOR TABLE orders")
    error = copy.error(**CDC, **reader, publication="shop")
    assert isinstance(error, NotAllowed)
    assert "ALTER ROLE … REPLICATION" in str(error)


def test_a_user_from_whom_rows_are_hidden_is_refused_as_the_log_has_them(copy):
    copy.database.run("GRANT SELECT ON orders TO reader", "ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
    error = copy.error(**CDC, username="reader", password="CANARY-5f0c")
    assert isinstance(error, BadOption)
    assert "row-level security leaves out rows of public.orders" in str(error)
    assert slots(copy) == []


def test_a_canceled_run_does_not_read_the_log_to_its_end(copy, monkeypatch):
    from sqlflow_dagster.resilience.guard import Guard

    copy.load(**CDC)
    copy.database.run("INSERT INTO orders SELECT n, 'm', n FROM generate_series(100, 5099) AS n")
    looks = []
    with monkeypatch.context() as patch:
        patch.setattr(Guard, "stopped", property(lambda _: looks.append(1) or len(looks) > 3))
        assert isinstance(copy.error(**CDC), Canceled)
    assert len(looks) == 4
    copy.load(**CDC)
    assert living(copy) == there(copy)


def test_a_server_that_drops_the_connection_is_asked_again(copy, monkeypatch):
    copy.load(**CDC)
    copy.database.run("INSERT INTO orders VALUES (6, 'six', 6)")
    from sqlflow_dagster.connectors import postgres_log

    begin, times = postgres_log.Log.begin, []

    def broken(self, *arguments):
        if not times:
            times.append(1)
            copy.database.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'walsender'"
            )
        return begin(self, *arguments)

    monkeypatch.setattr(postgres_log.Log, "begin", broken)
    outcome = copy.load(**CDC)["t"]
    assert outcome.calls.retries == 1
    assert living(copy) == there(copy)


def test_a_server_that_crashes_while_it_sends_is_read_on_and_no_change_is_missed(copy, server, monkeypatch):
    from sqlflow_dagster.connectors import postgres_log

    copy.load(**CDC)
    # More than sockets hold, so that not all of it has come when the server goes.
    for first in range(10, 1010, 10):
        copy.database.run(
            f"INSERT INTO orders SELECT n, repeat('x', 5000) || n, n FROM generate_series({first}, {first + 9}) AS n",
            f"UPDATE orders SET amount = amount + 1 WHERE id < {first} AND id % 7 = 0",
            f"DELETE FROM orders WHERE id = {first - 5}",
        )
    take, taken = postgres_log.Log._take, []

    def crashing(self, *arguments):
        taken.append(1)
        if len(taken) == 2000:
            server.stop()
            server.start()
        return take(self, *arguments)

    with monkeypatch.context() as patched:
        patched.setattr(postgres_log.Log, "_take", crashing)
        copied = copy.load(**CDC, transaction_bytes=1_000_000)["t"]
    assert copied.calls.retries >= 1
    assert living(copy) == there(copy)
    copy.load(**CDC)
    assert living(copy) == there(copy)


@pytest.mark.parametrize(
    ("params", "load", "message"),
    [
        (
            {"query": "SELECT 1 AS id", "table": None},
            "LOAD t FROM pg;",
            "query: with cdc, a query has no log",
        ),
        ({"filters": {"id": 1}}, "LOAD t FROM pg;", "filters: with cdc"),
        ({"cursor_field": "id"}, "LOAD t FROM pg;", "cursor_field: with cdc"),
        ({"session_settings": False}, "LOAD t FROM pg;", "not a pooler"),
        ({"primary_key": None}, "LOAD t FROM pg;", "cdc merges changes by key"),
        ({}, "LOAD t FROM pg MODE APPEND;", "cdc merges changes by key"),
        (
            {},
            "LOAD t FROM pg; CREATE OR REPLACE TABLE t AS SELECT 1 AS id;",
            "written by other statements too",
        ),
    ],
    ids=["query", "filters", "cursor", "pooler", "no key", "append", "two writers"],
)
def test_what_does_not_go_with_changes_is_refused_before_anything_is_contacted(
    project, params, load, message
):
    from sqlflow_dagster.errors import PipelineError

    project.pipeline(load, **{**CDC, **params})
    with pytest.raises(PipelineError) as caught:
        project.bench.run()
    assert message in str(caught.value)


def test_health_tells_of_slots(copy):
    from sqlflow_dagster.connectors.options import parse
    from sqlflow_dagster.connectors.postgres import Postgres
    from sqlflow_dagster.connectors.postgres_options import PostgresOptions

    copy.load(**CDC)
    options, _ = parse(PostgresOptions, {**CDC, "connection": copy.database.url})
    with Postgres(options, copy.place) as connector:
        health = connector.check()
    assert health.ok
    assert health.facts["slots"] == 1
    assert health.facts["slots_lost"] == 0
    assert health.facts["slot_bytes_kept"] > 0
    options, _ = parse(
        PostgresOptions,
        {**CDC, "connection": copy.database.url, "username": "reader", "password": "CANARY-5f0c"},
    )
    with Postgres(options, copy.place) as connector:
        health = connector.check()
    assert not health.ok
    assert "ALTER ROLE … REPLICATION" in health.message


def test_slots_that_no_load_of_the_project_reads_are_told(copy):
    from sqlflow_dagster.health import reachability
    from sqlflow_dagster.project import load_project

    def told():
        project = load_project(copy.bench.root, undiscovered=True, only=())
        (source,) = project.sources()
        return reachability(lambda: project.connector(source, {}))

    copy.load(**CDC, slot_prefix="sqlflow_a")
    ((old, _),) = slots(copy)
    assert "slots_of_no_load" not in told().facts
    copy.load("LOAD renamed FROM pg;", **CDC, slot_prefix="sqlflow_a")
    found = told()
    assert (found.facts["slots"], found.facts["slots_of_no_load"]) == (2, 1)
    assert f"no LOAD of this project reads the slot {old}" in found.message
    assert f"SELECT pg_drop_replication_slot('{old}')" in found.message
    assert f'DROP PUBLICATION IF EXISTS "{old}"' in found.message
    # What is not planned may read it.
    copy.bench.pipeline("LOAD t FROM nowhere;", "other")
    assert "slots_of_no_load" not in told().facts
    (copy.bench.root / "pipelines/other.sf").unlink()
    copy.load("LOAD renamed FROM pg;", **CDC)
    assert told().facts["slots_of_no_load"] == 1


def test_a_table_that_somebody_locks_is_not_waited_for_for_ever(copy):
    copy.load(**CDC)
    other = copy.database.connect()
    other.cursor().execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
    error = copy.error(**CDC, silence_seconds=1)
    other.cursor().execute("ROLLBACK")
    assert isinstance(error, RetryLater)
    assert "lock timeout" in str(error)
