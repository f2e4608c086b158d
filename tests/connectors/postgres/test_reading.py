"""Tables, views and queries are read whole, by conditions, or from a cursor on, and nothing is missed."""

from __future__ import annotations

import json
import threading

import pytest

from sqlflow_dagster.errors import BadOption, PipelineError, SourceFailed

ORDERS = (
    "CREATE TABLE orders (id int PRIMARY KEY, name text, amount numeric(12,2), updated_at timestamptz, day date)",
    "INSERT INTO orders SELECT n, 'n' || n, n * 1.5, '2024-01-01Z'::timestamptz + n * interval '1 hour', "
    "'2024-01-01'::date + n FROM generate_series(1, 100) AS n",
)
INCREMENTAL = {
    "table": "orders",
    "sync_mode": "incremental",
    "cursor_field": "updated_at",
    "primary_key": "id",
}


def count(project, where="true"):
    return project.query(f"SELECT count(*) FROM p.t WHERE {where}")[0][0]


@pytest.fixture
def orders(project):
    project.database.run(*ORDERS)
    return project


def test_the_parts_of_a_connection_may_be_given_apart_by_new_and_old_names(orders):
    server = orders.database.server
    parts = {
        "host": "127.0.0.1",
        "port": str(server.port),
        "dbname": orders.database.name,
        "user": "postgres",
    }
    orders.load(connection=None, table="orders", **parts, sslmode="prefer", connect_timeout=5)
    assert count(orders) == 100
    # The new name wins over the old one, and both over a part of the connection.
    orders.load(connection="postgresql://nobody@nowhere/nothing", table="orders", username="postgres",
                database=orders.database.name, **{**parts, "user": "wrong", "dbname": "wrong"})  # fmt: skip
    words = f"host=127.0.0.1 port={server.port} dbname='{orders.database.name}' user=postgres"
    orders.load(connection=words, table="orders")
    assert count(orders) == 100


@pytest.mark.parametrize(
    ("params", "env"),
    [
        ({"connection": "service=shop"}, {}),
        ({"connection": "postgresql:///?service=shop"}, {}),
        ({"connection": None}, {"PGSERVICE": "shop"}),
        ({"connection": "service=shop user=reader", "username": "postgres"}, {}),
        ({"connection": None}, {"PGHOST": "{host}", "PGPORT": "{port}", "PGDATABASE": "{name}", "PGUSER": "postgres"}),
    ],
    ids=["words", "url", "environment", "some said", "host in the environment"],
)  # fmt: skip
def test_a_server_that_libpq_knows_without_being_told_is_the_one_that_is_read(
    orders, monkeypatch, tmp_path, params, env
):
    told = {"host": "127.0.0.1", "port": orders.database.server.port, "name": orders.database.name}
    words = "[shop]\n# the shop\nhost={host}\nport={port}\ndbname={name}\nuser=postgres\n".format(**told)
    (tmp_path / "services").write_text(f"[other]\nhost=nowhere\n{words}")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    for name, value in env.items():
        monkeypatch.setenv(name, value.format(**told))
    orders.load(table="orders", **params)
    assert count(orders) == 100


def test_a_service_that_nobody_has_is_told(orders, monkeypatch, tmp_path):
    (tmp_path / "services").write_text("[other]\nhost=nowhere\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    said = str(orders.error(table="orders", connection="service=nix"))
    assert said == 'postgres service nix: definition of service "nix" not found'


@pytest.mark.parametrize(
    ("filters", "rows"),
    [
        ({"id": [1, 2, 3]}, 3),
        ({"amount": {">": 148, "<=": 150}}, 2),
        ({"amount": ">= 149.5"}, 1),
        ({"name": "n7"}, 1),
        ({"name": {">=": "n98"}}, 2),
        ({"updated_at": ">= 2024-01-05T00:00:00Z"}, 5),
        ({"updated_at": ">= 2024-01-05 00:00:00"}, 5),
        ({"day": {"between": ["2024-01-02", "2024-01-03"]}}, 2),
        ({"id": "!= 1", "name": {"not in": ["n2", "it's"]}}, 98),
        ({"name": "x' OR true --"}, 0),
        ({"name": "\\"}, 0),
    ],
    ids=str,
)
def test_only_rows_that_fulfil_the_filters_come(orders, filters, rows):
    orders.load(table="orders", filters=filters)
    assert count(orders) == rows


@pytest.mark.parametrize(
    "filters", [{"n": ">= 300"}, {"N": 5}, {"n": {"<": "300"}}, {"n": [5, None]}], ids=str
)
def test_a_number_that_is_kept_as_text_is_not_compared(project, filters):
    project.database.run("CREATE TABLE s (n numeric)", "INSERT INTO s VALUES (1000), (299), (5.00), (NULL)")
    error = project.error(table="s", filters=filters)
    assert isinstance(error, BadOption)
    assert '"types": {"n": "DECIMAL(38,9)"}' in str(error)
    project.load(table="s", filters={"n": None})
    assert project.query("FROM p.t") == [(None,)]
    project.load(table="s", filters={"n": ">= 5"}, numeric_type="DECIMAL(38,9)")
    assert count(project) == 3


def test_a_filter_tells_texts_apart_that_a_collation_does_not(distributed):
    distributed.database.run(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "CREATE TABLE s (v text COLLATE ci)", "INSERT INTO s VALUES ('bob'), ('BOB'), ('x')",
    )  # fmt: skip
    for filters, rows in (({"v": "!= bob"}, 2), ({"v": {"not in": ["bob", "x"]}}, 1), ({"v": "bob"}, 1)):
        distributed.load(table="s", filters=filters, loss_audit=True)
        assert count(distributed) == rows


def test_columns_that_are_one_to_duckdb_are_named(project):
    project.database.run('CREATE TABLE s ("ID" int, id int)', "INSERT INTO s VALUES (1, 2)")
    assert "its columns ID and id have one name" in str(project.error(table="s"))
    project.load(query='SELECT "ID" AS other, id FROM s')
    assert project.query("FROM p.t") == [(1, 2)]


def test_only_the_columns_asked_for_come(orders):
    orders.load(table="orders", columns=["id", "name"], filters={"amount": "> 149"}, mask={"name": "hash"})
    assert [row[0] for row in orders.query("DESCRIBE p.t")] == ["id", "name"]
    assert count(orders, "length(name) = 64") == 1


def test_an_incremental_load_reads_what_is_new_and_keeps_one_row_a_key(orders):
    assert orders.load(**INCREMENTAL)["t"].rows == 100
    orders.database.run(
        "UPDATE orders SET amount = 0, updated_at = '2024-02-01Z' WHERE id = 5",
        "INSERT INTO orders VALUES (101, 'new', 1, '2024-02-01Z')",
    )
    second = orders.bench.ok()["t"]
    # The boundary is read again.
    assert second.rows == 3
    assert orders.query("SELECT count(*), count(DISTINCT id), min(amount) FROM p.t") == [(101, 101, 0)]
    assert second.cursor_after.value.startswith("2024-02-01 00:00:00")
    assert orders.bench.ok()["t"].rows == 2


@pytest.mark.parametrize(
    ("kind", "first", "second"),
    [
        ("int8", "1", "2"),
        ("numeric(10,2)", "1.10", "2.20"),
        ("date", "'0044-03-15 BC'", "'2024-01-01'"),
        ("timestamp", "'0044-03-15 12:00 BC'", "'2024-01-01 00:00:00.000001'"),
        ("text", "'Z'", "'a'"),
        ("float4", "0.7", "0.8"),
        ("uuid", "'00000000-0000-0000-0000-000000000001'", "'ffffffff-0000-0000-0000-000000000001'"),
    ],
)
def test_a_cursor_of_any_ordered_type_goes_on_where_it_was(project, kind, first, second):
    project.database.run(f"CREATE TABLE s (c {kind})", f"INSERT INTO s VALUES ({first})")
    options = {"table": "s", "sync_mode": "incremental", "cursor_field": "c"}
    project.load(**options)
    project.database.run(f"INSERT INTO s VALUES ({second})")
    assert project.bench.ok()["t"].rows == 2
    assert project.bench.ok()["t"].rows == 1
    assert count(project) == 2


def test_rows_without_a_cursor_are_read_each_time(orders):
    orders.database.run("INSERT INTO orders VALUES (200, 'null', 1, NULL)")
    orders.load(**INCREMENTAL)
    orders.database.run("UPDATE orders SET name = 'changed' WHERE id = 200")
    orders.bench.ok()
    assert orders.query("SELECT name FROM p.t WHERE id = 200") == [("changed",)]


@pytest.mark.parametrize("zone", ["UTC", "Etc/GMT+12"])
@pytest.mark.parametrize("kind", ["timestamptz", "timestamp", "date"])
def test_a_transaction_that_commits_late_is_not_missed_whatever_zone_the_database_has(project, kind, zone):
    database = project.database
    database.run(f"ALTER DATABASE {database.name} SET timezone = '{zone}'")
    database.run(f"CREATE TABLE s (id int PRIMARY KEY, at {kind})", "INSERT INTO s VALUES (1, '2024-01-01')")
    late = database.connect()
    late.autocommit = False
    with late.cursor() as cursor:
        cursor.execute("INSERT INTO s VALUES (2, now())")
    database.run("INSERT INTO s VALUES (3, now() + interval '1 minute')")
    project.load(table="s", sync_mode="incremental", cursor_field="at", primary_key="id")
    assert project.query("SELECT id FROM p.t ORDER BY id") == [(1,), (3,)]
    late.commit()
    project.bench.ok()
    assert project.query("SELECT id FROM p.t ORDER BY id") == [(1,), (2,), (3,)]


def test_a_prepared_transaction_holds_the_cursor(project, caplog):
    database = project.database
    database.run(
        "CREATE TABLE s (id int PRIMARY KEY, at timestamptz)", "INSERT INTO s VALUES (1, '2024-01-01')"
    )
    database.run("BEGIN", "INSERT INTO s VALUES (2, '2023-01-01')", "PREPARE TRANSACTION 'late'")
    try:
        project.load(table="s", sync_mode="incremental", cursor_field="at", primary_key="id")
        assert "prepared transactions wait" in caplog.text
    finally:
        database.run("COMMIT PREPARED 'late'")
    project.bench.ok()
    assert project.query("SELECT id FROM p.t ORDER BY id") == [(1,), (2,)]


def test_what_the_user_may_not_see_is_said(orders, caplog):
    database = orders.database
    database.run("GRANT SELECT ON orders TO reader")
    other = database.connect()
    other.autocommit = False
    with other.cursor() as cursor:
        cursor.execute("SELECT 1")
    orders.load(**INCREMENTAL, username="reader", password="CANARY-5f0c")
    assert "1 sessions of other users have a transaction open" in caplog.text
    assert "pg_read_all_stats" in caplog.text


@pytest.mark.parametrize(
    ("table", "warned"),
    [
        ("far", "the foreign table far, and what is open on that server is not known"),
        ("a_view", "the foreign table far, and"),
        ("parted", "the foreign table part, and"),
        ("stale", "the materialized view stale, which has"),
        ("orders", ""),
    ],
)
def test_rows_of_elsewhere_that_may_come_late_are_told(orders, caplog, table, warned):
    orders.database.run(
        "CREATE FOREIGN DATA WRAPPER fdw",
        "CREATE SERVER elsewhere FOREIGN DATA WRAPPER fdw",
        "CREATE FOREIGN TABLE far (id int, updated_at timestamptz) SERVER elsewhere",
        "CREATE VIEW a_view AS SELECT id, updated_at FROM far",
        "CREATE TABLE parted (id int, updated_at timestamptz) PARTITION BY RANGE (id)",
        "CREATE FOREIGN TABLE part PARTITION OF parted FOR VALUES FROM (0) TO (9) SERVER elsewhere",
        "CREATE MATERIALIZED VIEW stale AS SELECT * FROM orders",
    )
    orders.pipeline(**{**INCREMENTAL, "table": table})
    orders.bench.run()
    assert warned in caplog.text
    assert bool(warned) == ("set lookback_window" in caplog.text)


def test_rows_that_are_hidden_from_the_user_are_told(orders, caplog):
    orders.database.run(
        "GRANT SELECT ON orders TO reader",
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY one ON orders USING (id = 1)",
    )
    orders.load(table="orders")
    assert "row-level security" not in caplog.text
    outcome = orders.load(table="orders", username="reader", password="CANARY-5f0c")["t"]
    assert outcome.rows == 1
    assert "public.orders: row-level security leaves out the rows that this user may not see" in caplog.text


def test_reading_by_xmin_misses_no_change_whatever_the_columns(project):
    database = project.database
    database.run(
        "CREATE TABLE s (id int PRIMARY KEY, v text)",
        "INSERT INTO s SELECT n, 'old' FROM generate_series(1, 50) n",
    )
    options = {"table": "s", "sync_mode": "incremental", "cursor_field": "xmin", "primary_key": "id"}
    late = database.connect()
    late.autocommit = False
    with late.cursor() as cursor:
        cursor.execute("SAVEPOINT a")
        cursor.execute("UPDATE s SET v = 'late' WHERE id = 1")
    database.run("UPDATE s SET v = 'early' WHERE id = 2")
    assert project.load(**options)["t"].rows == 50
    late.commit()
    database.run("INSERT INTO s VALUES (51, 'new')")
    assert project.bench.ok()["t"].rows == 3
    assert project.query("SELECT v FROM p.t WHERE id IN (1, 2, 51) ORDER BY id") == [
        ("late",),
        ("early",),
        ("new",),
    ]
    assert count(project) == 51


@pytest.mark.parametrize("under", ["", " PARTITION BY RANGE (id)"], ids=["rows", "partitions"])
def test_reading_by_xmin_misses_no_row_that_comes_with_a_partition(project, under):
    project.database.run(
        "CREATE TABLE s (id int PRIMARY KEY) PARTITION BY LIST (id)",
        "CREATE TABLE first PARTITION OF s FOR VALUES IN (1)",
        f"CREATE TABLE second (id int PRIMARY KEY){under}",
        *(["CREATE TABLE third PARTITION OF second DEFAULT"] if under else []),
        "INSERT INTO s VALUES (1)",
        "INSERT INTO second VALUES (2)",
    )
    options = {"table": "s", "sync_mode": "incremental", "cursor_field": "xmin", "primary_key": "id"}
    project.load(**options)
    project.database.run("ALTER TABLE s ATTACH PARTITION second FOR VALUES IN (2)")
    assert project.bench.ok()["t"].rows == 1
    assert project.query("SELECT id FROM p.t ORDER BY id") == [(1,), (2,)]
    assert project.bench.ok()["t"].rows == 0


@pytest.mark.parametrize(("before", "after"), [("id", "xmin"), ("xmin", "id"), ("xmin", "s"), ("cdc", "s")])
def test_a_cursor_of_another_kind_is_told(project, before, after):
    project.database.run("CREATE TABLE s (id int PRIMARY KEY, s text)", "INSERT INTO s VALUES (1, 'a')")
    log = {"table": "s", "sync_mode": "cdc", "primary_key": "id"}
    options = {**log, "sync_mode": "incremental"}
    project.load(**(log if before == "cdc" else {**options, "cursor_field": before}))
    error = project.error(**options, cursor_field=after)
    told = "read in the order of 'id'" if before == "id" else "read by another sync_mode or cursor_field"
    assert told in str(error)
    project.bench.ok(full_refresh=True)
    project.load(**options, cursor_field=after)
    project.database.run(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
    )


def test_xmin_of_another_server_is_no_cursor(project):
    project.database.run("CREATE TABLE s (id int PRIMARY KEY)", "INSERT INTO s VALUES (1)")
    options = {"table": "s", "sync_mode": "incremental", "cursor_field": "xmin", "primary_key": "id"}
    (outcome,) = project.load(**options).values()
    from sqlflow_dagster.connectors.base import Stream
    from sqlflow_dagster.cursor import Cursor
    from sqlflow_dagster.project import load_project

    planned = load_project(project.bench.root)
    (source,) = planned.plan.pipeline("p").sources
    position = json.loads(outcome.cursor_after.value)
    with planned.connector(source, planned.scope({})) as connector:
        # The cursor of an earlier version tells no cluster.
        assert list(connector.read(Stream("s"), Cursor(json.dumps({"xmin": position["xmin"]}), "JSON")))
        for other in ({"xmin": position["xmin"] + 2**33}, {"system": "1"}):
            before = Cursor(json.dumps(position | other), "JSON")
            with pytest.raises(SourceFailed, match="another server, or was restored"):
                list(connector.read(Stream("s"), before))


def test_a_query_is_read_from_its_cursor_on(orders):
    query = "SELECT id, sum(amount) AS total, max(updated_at) AS at FROM orders GROUP BY id -- per order\n;"
    options = {"query": query, "sync_mode": "incremental", "cursor_field": "at", "primary_key": "id"}
    assert orders.load(**options)["t"].rows == 100
    orders.database.run("UPDATE orders SET updated_at = '2025-01-01Z' WHERE id = 3")
    assert orders.bench.ok()["t"].rows == 2
    assert count(orders) == 100


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT 1; SELECT 2", "syntax error"),
        ("SELECT nix FROM orders", 'column "nix" does not exist'),
        ("DELETE FROM orders", "syntax error"),
        ("SELECT 1 AS a, 2 AS a", "the query gives the column a twice"),
    ],
)
def test_a_query_that_is_none_is_refused_in_the_servers_words(orders, query, message):
    import re

    assert re.search(message, str(orders.error(query=query)))
    assert orders.database.run("SELECT count(*) FROM orders") == [(100,)]


@pytest.mark.parametrize(
    ("made", "table", "rows"),
    [
        (["CREATE VIEW v AS SELECT * FROM orders WHERE id < 11"], "v", 10),
        (["CREATE MATERIALIZED VIEW m AS SELECT * FROM orders"], "m", 100),
        (
            ["CREATE TABLE parts (id int, x text) PARTITION BY RANGE (id)",
             "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (1) TO (10)",
             "CREATE TABLE parts_2 PARTITION OF parts DEFAULT", "INSERT INTO parts SELECT id FROM orders"],
            "parts", 100,
        ),
        (["CREATE TABLE child (extra int) INHERITS (orders)", "INSERT INTO child VALUES (999)"], "orders", 101),
        (['CREATE SCHEMA "My ""S"', """CREATE TABLE "My ""S"."T.é'x" AS SELECT 1 AS "select", 2 AS "a""b", 3 AS "C c" """],
         '"My ""S"."T.é\'x"', 1),
        (["CREATE TABLE gone (a int, b int, c int)", "INSERT INTO gone VALUES (1, 2, 3)", "ALTER TABLE gone DROP b"], "gone", 1),
        (["CREATE TABLE gen (a int, b int GENERATED ALWAYS AS (a * 2) STORED)", "INSERT INTO gen VALUES (1)"], "gen", 1),
    ],
    ids=["view", "materialized view", "partitioned", "inherited", "odd names", "dropped column", "generated"],
)  # fmt: skip
def test_whatever_can_be_selected_from_can_be_read(orders, made, table, rows):
    orders.database.run(*made)
    orders.load(table=table)
    assert count(orders) == rows


def test_an_empty_table_keeps_its_columns(project):
    project.database.run("CREATE TABLE e (id int, at timestamptz, tags text[], j jsonb)")
    project.load(table="e")
    assert [row[:2] for row in project.query("DESCRIBE p.t")] == [
        ("id", "INTEGER"), ("at", "TIMESTAMP WITH TIME ZONE"), ("tags", "VARCHAR[]"), ("j", "JSON"),
    ]  # fmt: skip


def test_one_stream_is_one_snapshot_while_others_write(project):
    database = project.database
    database.run(
        "CREATE TABLE pairs (id int PRIMARY KEY, v int)",
        "INSERT INTO pairs SELECT n, 0 FROM generate_series(1, 20000) n",
    )
    stop = threading.Event()

    def move():
        connection = database.connect()
        connection.autocommit = False
        with connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute("UPDATE pairs SET v = v + 1")
                connection.commit()
        connection.close()

    thread = threading.Thread(target=move)
    thread.start()
    try:
        for _ in range(3):
            project.load(table="pairs")
            assert project.query("SELECT count(*), count(DISTINCT id), count(DISTINCT v) FROM p.t") == [
                (20000, 20000, 1)
            ]
    finally:
        stop.set()
        thread.join()


def test_many_streams_share_few_connections(project):
    database = project.database
    database.run(*(f"CREATE TABLE s{n} AS SELECT {n} AS n" for n in range(12)))
    seen = []
    stop = threading.Event()

    def watch():
        connection = database.connect()
        with connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'sqlflow_dagster read'"
                )
                seen.append(cursor.fetchone()[0])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        project.load("LOAD * FROM pg;", tables=[f"s{n}" for n in range(12)], max_connections=2)
    finally:
        stop.set()
        thread.join()
    # The server counts one that was closed until it has ended it: at most one beside each.
    assert 1 <= max(seen) <= 4
    assert project.query("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'p'") == [(12,)]


def test_tables_given_by_patterns_are_looked_up_and_loaded_each_by_its_key(orders):
    from sqlflow_dagster.project import load_project

    orders.database.run(
        "CREATE SCHEMA sales",
        "CREATE TABLE sales.orders (a int, b int, updated_at timestamptz, PRIMARY KEY (b, a) INCLUDE (updated_at))",
        "INSERT INTO sales.orders VALUES (1, 2, '2024-01-01')",
    )  # fmt: skip
    options = {"schemas": ["public", "sales"], "sync_mode": "incremental", "cursor_field": "updated_at"}
    orders.pipeline("LOAD * FROM pg;", **options)
    with pytest.raises(PipelineError, match="have not been looked up yet"):
        load_project(orders.bench.root)
    planned = load_project(orders.bench.root, undiscovered=True)
    (source,) = planned.plan.undiscovered
    found = {stream.name: stream for stream in planned.discover(source)}
    assert found["sales__orders"].primary_key == ("b", "a")
    assert found["orders"].columns["amount"] == "DECIMAL(12,2)"
    orders.bench.ok()
    orders.database.run("UPDATE sales.orders SET updated_at = '2024-01-02'")
    orders.bench.ok()
    assert orders.query("SELECT count(*) FROM p.sales__orders UNION ALL SELECT count(*) FROM p.orders") == [
        (1,),
        (100,),
    ]


@pytest.mark.parametrize(
    ("load", "key"),
    [("LOAD t FROM pg;", None), ("LOAD t FROM pg MODE APPEND;", "id")],
    ids=["no key", "append"],
)
def test_reading_by_xmin_without_a_key_would_double_rows_and_is_refused(orders, load, key):
    with pytest.raises(PipelineError, match="would be doubled"):
        orders.load(load, table="orders", sync_mode="incremental", cursor_field="xmin", primary_key=key)


def test_tables_given_by_patterns_are_read_by_xmin(orders):
    from sqlflow_dagster.project import load_project

    orders.database.run("CREATE TABLE other (a int PRIMARY KEY, v text)", "INSERT INTO other VALUES (1, 'x')")
    orders.pipeline("LOAD * FROM pg;", tables=["*"], sync_mode="incremental", cursor_field="xmin")
    planned = load_project(orders.bench.root, undiscovered=True)
    planned.discover(*planned.plan.undiscovered)
    orders.bench.ok()
    orders.database.run("UPDATE other SET v = 'y'")
    assert {name: outcome.rows for name, outcome in orders.bench.ok().items()} == {"orders": 0, "other": 1}
    assert orders.query("SELECT v FROM p.other") == [("y",)]


def test_a_key_that_the_source_has_and_the_load_has_not_is_said(orders, caplog):
    orders.load(table="orders", sync_mode="incremental", cursor_field="updated_at")
    assert "public.orders has the primary key id" in caplog.text


@pytest.mark.parametrize(("first", "second"), [("updated_at", "id"), ("id", "updated_at"), ("name", "day")])
def test_another_cursor_column_is_told(orders, first, second):
    orders.load(**{**INCREMENTAL, "cursor_field": first})
    orders.database.run("INSERT INTO orders VALUES (101, 'n101', 1, now(), now())")
    error = orders.error(**{**INCREMENTAL, "cursor_field": second})
    assert f"read in the order of {first!r}, and are to be read on in that of {second!r}" in str(error)


def test_a_cursor_that_has_no_order_as_text_is_refused(project):
    project.database.run("CREATE TABLE s AS SELECT 10::numeric AS n")
    options = {"table": "s", "sync_mode": "incremental", "cursor_field": "n"}
    assert 'declare what it is, e.g. "types"' in str(project.error(**options))
    project.load(**options, types={"n": "DECIMAL(38,9)"})
    project.database.run("INSERT INTO s VALUES (9), (11)")
    assert project.bench.ok()["t"].rows == 2


def test_values_read_the_same_whatever_zone_and_dates_the_environment_sets(project, monkeypatch):
    monkeypatch.setenv("PGTZ", "America/New_York")
    monkeypatch.setenv("PGDATESTYLE", "German")
    project.database.run(
        "CREATE TABLE s (id int, times tstzrange, days daterange)",
        "INSERT INTO s VALUES (1, '[2024-05-06 12:00+00,)', '[2024-05-06,2024-06-01)')",
    )
    project.load(table="s")
    assert project.query("SELECT times, days FROM p.t") == [
        ('["2024-05-06 12:00:00+00",)', "[2024-05-06,2024-06-01)")
    ]


@pytest.mark.parametrize("end", [";", " ; -- done", ";\n/* a; b */ -- it's\n;", "-- last"])
def test_a_query_may_end_in_a_semicolon_and_comments(project, end):
    project.load(query=f"SELECT $$; -- x$$ AS a {end}")
    assert project.query("SELECT a FROM p.t") == [("; -- x",)]
