"""Tables, views and queries are read whole, by conditions, or from a cursor on, and nothing is missed."""

from __future__ import annotations

import threading

import pytest

from sqlflow_dagster.errors import BadOption, PipelineError, SourceFailed

ORDERS = (
    "CREATE TABLE orders (id int PRIMARY KEY, name varchar(20) CHARACTER SET utf8mb4, amount decimal(12,2), "
    "updated_at timestamp(6) NULL, day date)",
    "SET time_zone = '+00:00'",
    "INSERT INTO orders SELECT seq, concat('n', seq), seq * 1.5, '2024-01-01' + INTERVAL seq HOUR, "
    "'2024-01-01' + INTERVAL seq DAY FROM seq_1_to_100",
)
INCREMENTAL = {
    "table": "orders", "sync_mode": "incremental", "cursor_field": "updated_at", "primary_key": "id",
}  # fmt: skip
FILTERS = [
    ({"id": [1, 2, 3]}, 3),
    ({"amount": {">": 148, "<=": 150}}, 2),
    ({"amount": ">= 149.5"}, 1),
    ({"name": "n7"}, 1),
    ({"name": "N7"}, 0),
    ({"name": "n7 "}, 0),
    ({"name": {">=": "n98"}}, 2),
    ({"name": {"!=": "N1"}}, 100),
    ({"updated_at": ">= 2024-01-05T00:00:00Z"}, 5),
    ({"updated_at": ">= 2024-01-05 00:00:00"}, 5),
    ({"day": {"between": ["2024-01-02", "2024-01-03"]}}, 2),
    ({"id": "!= 1", "name": {"not in": ["n2", "it's"]}}, 98),
    ({"name": "x' OR true -- "}, 0),
    ({"name": "\\' OR 1=1 -- "}, 0),
    ({"name": "\\"}, 0),
]


def count(project, where="true", table="t"):
    return project.query(f"SELECT count(*) FROM p.{table} WHERE {where}")[0][0]


@pytest.fixture
def orders(project):
    project.database.run(*ORDERS)
    return project


def test_the_parts_of_a_connection_may_be_given_apart_by_new_and_old_names(orders):
    server = orders.database.server
    parts = {"host": "localhost", "port": str(server.port), "dbname": orders.database.name, "user": "root"}
    orders.load(connection=None, table="orders", **parts, sslmode="disable", connect_timeout=5)
    assert count(orders) == 100
    # The new name wins over the old one, and both over a part of the connection.
    orders.load(connection="mysql+pymysql://nobody@nowhere/nothing", table="orders", username="root",
                database=orders.database.name, **{**parts, "user": "wrong", "dbname": "wrong"})  # fmt: skip
    assert count(orders) == 100
    orders.load(
        connection=None, socket=str(server.folder / "s"), database=orders.database.name, table="orders"
    )
    assert count(orders) == 100


def test_a_number_that_is_kept_as_text_is_not_compared(project):
    project.database.run("CREATE TABLE s (n decimal(40,2))", "INSERT INTO s VALUES (1000), (5), (NULL)")
    error = project.error(table="s", filters={"n": ">= 300"})
    assert isinstance(error, BadOption)
    assert '"types": {"n": "DECIMAL(38,9)"}' in str(error)
    project.load(table="s", filters={"n": ">= 300"}, types={"n": "DECIMAL(38,9)"})
    assert count(project) == 1


def test_only_rows_that_fulfil_the_filters_come(orders):
    text = ""
    for n, (filters, _) in enumerate(FILTERS):
        source = orders.source(table="orders", filters=filters).replace("SOURCE my", f"SOURCE my{n}")
        text += f"{source}LOAD t{n} FROM my{n};\n"
    orders.bench.pipeline(text)
    orders.bench.ok()
    found = [(filters, count(orders, table=f"t{n}")) for n, (filters, _) in enumerate(FILTERS)]
    assert found == FILTERS


def test_a_filter_and_a_cursor_are_compared_at_the_source(orders):
    """What is sent to MySQL leaves out what the warehouse would leave out."""
    from sqlflow_dagster.connectors.mysql import MySQL
    from sqlflow_dagster.connectors.mysql_options import MySQLOptions
    from sqlflow_dagster.connectors.options import parse
    from sqlflow_dagster.cursor import Cursor

    params = {
        **INCREMENTAL,
        "connection": orders.database.url,
        "filters": {"name": {"!=": "n99"}, "id": "> 50"},
    }
    with MySQL(parse(MySQLOptions, params)[0], orders.place) as source:
        since = Cursor("2024-01-05 00:00:00+00", "TIMESTAMP WITH TIME ZONE")
        (scan,) = list(source.read(source.streams()[0], since))
    for bound in ("`updated_at` >= TIMESTAMP", "X''6e3939''", "`id` > 50"):
        assert bound in scan.query


def test_only_the_columns_asked_for_come(orders):
    orders.load(table="orders", columns=["id", "name"], filters={"amount": "> 149"}, mask={"name": "hash"})
    assert [row[0] for row in orders.query("DESCRIBE p.t")] == ["id", "name"]
    assert count(orders, "length(name) = 64") == 1


def test_an_incremental_load_reads_what_is_new_and_keeps_one_row_a_key(orders):
    assert orders.load(**INCREMENTAL)["t"].rows == 100
    orders.database.run(
        "UPDATE orders SET amount = 0, updated_at = '2024-02-01' WHERE id = 5",
        "INSERT INTO orders VALUES (101, 'new', 1, '2024-02-01', NULL)",
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
        ("bigint unsigned", "9223372036854775808", "18446744073709551615"),
        ("decimal(10,2)", "1.10", "2.20"),
        ("date", "'0001-03-15'", "'2024-01-01'"),
        ("datetime(6)", "'1000-03-15 12:00'", "'2024-01-01 00:00:00.000001'"),
        ("varchar(9) CHARACTER SET utf8mb4", "'Z'", "'a'"),
        ("float", "0.7", "0.8"),
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
    orders.database.run("INSERT INTO orders VALUES (200, 'null', 1, NULL, NULL)")
    orders.load(**INCREMENTAL)
    orders.database.run("UPDATE orders SET name = 'changed' WHERE id = 200")
    orders.bench.ok()
    assert orders.query("SELECT name FROM p.t WHERE id = 200") == [("changed",)]


@pytest.mark.parametrize("kind", ["timestamp(6) NULL", "datetime", "date"])
@pytest.mark.parametrize("zone", ["+00:00", "+05:30"])
def test_a_transaction_that_commits_late_is_not_missed(project, kind, zone):
    database = project.database
    database.run(
        f"CREATE TABLE s (id int PRIMARY KEY, seen {kind})", "INSERT INTO s VALUES (1, '2024-01-01')"
    )
    late = database.connect(autocommit=False)
    with late.cursor() as cursor:
        cursor.execute(f"SET time_zone = '{zone}'")
        cursor.execute("INSERT INTO s VALUES (2, NOW())")
    database.run(f"SET time_zone = '{zone}'", "INSERT INTO s VALUES (3, NOW() + INTERVAL 1 MINUTE)")
    options = {"table": "s", "sync_mode": "incremental", "cursor_field": "seen", "primary_key": "id"}
    project.load(**options)
    assert project.query("SELECT id FROM p.t ORDER BY id") == [(1,), (3,)]
    late.commit()
    project.bench.ok()
    assert project.query("SELECT id FROM p.t ORDER BY id") == [(1,), (2,), (3,)]


def test_what_the_user_may_not_see_is_said(orders, caplog):
    orders.database.run(f"GRANT SELECT ON {orders.database.name}.* TO reader@'%'")
    orders.load(**INCREMENTAL, username="reader", password="CANARY-5f0c")
    assert "GRANT PROCESS ON *.* to it, or set lookback_window" in caplog.text
    caplog.clear()
    orders.load(**INCREMENTAL, username="reader", password="CANARY-5f0c", lookback_window="1 hour")
    assert "GRANT PROCESS" not in caplog.text


def test_a_number_as_the_cursor_and_a_key_that_is_not_used_are_said(orders, caplog):
    orders.load(table="orders", sync_mode="incremental", cursor_field="id")
    assert "committed later than one whose is higher" in caplog.text
    assert "orders has the primary key id" in caplog.text


def test_a_query_is_read_from_its_cursor_on(orders):
    query = "WITH o AS (SELECT * FROM orders) SELECT id, sum(amount) AS total, max(updated_at) AS seen FROM o GROUP BY id -- per order\n;"
    options = {"query": query, "sync_mode": "incremental", "cursor_field": "seen", "primary_key": "id"}
    assert orders.load(**options)["t"].rows == 100
    orders.database.run("UPDATE orders SET updated_at = '2025-01-01' WHERE id = 3")
    assert orders.bench.ok()["t"].rows == 2
    assert count(orders) == 100


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT 1; SELECT 2", "error in your SQL syntax"),
        ("SELECT nix FROM orders", "Unknown column 'nix'"),
        ("DELETE FROM orders", "error in your SQL syntax"),
        ("SELECT 1 AS a, 2 AS a", "a twice|Duplicate column name 'a'"),
    ],
)
def test_a_query_that_is_none_is_refused_in_the_servers_words(orders, query, message):
    import re

    assert re.search(message, str(orders.error(query=query)))
    assert orders.database.run("SELECT count(*) FROM orders") == [(100,)]


def test_whatever_can_be_selected_from_can_be_read(orders):
    orders.database.run(
        "CREATE VIEW v AS SELECT * FROM orders WHERE id < 11",
        "CREATE TABLE parts (id int, x text) PARTITION BY RANGE (id) (PARTITION a VALUES LESS THAN (10), PARTITION b VALUES LESS THAN MAXVALUE)",
        "INSERT INTO parts (id) SELECT id FROM orders",
        "CREATE TABLE `T.é'x \"` (`select` int, `a``b` int, `C c` int)", "INSERT INTO `T.é'x \"` VALUES (1, 2, 3)",
        "CREATE TABLE gen (a int, b int AS (a * 2) VIRTUAL, c int AS (a * 3) STORED, d int INVISIBLE)",
        "INSERT INTO gen (a) VALUES (1)",
        "CREATE TABLE my (a int) ENGINE = MyISAM", "INSERT INTO my VALUES (1)",
        "CREATE TABLE Orders (a int)",
    )  # fmt: skip
    tables = {"v": 10, "parts": 100, '"T.é\'x """': 1, "gen": 1, "my": 1, "Orders": 0, "orders": 100}
    text = ""
    for n, table in enumerate(tables):
        text += orders.source(table=table).replace("SOURCE my", f"SOURCE my{n}") + f"LOAD t{n} FROM my{n};\n"
    orders.bench.pipeline(text)
    orders.bench.ok()
    assert [count(orders, table=f"t{n}") for n in range(len(tables))] == list(tables.values())
    assert orders.query("SELECT a, b, c, d FROM p.t3") == [(1, 2, 3, None)]
    assert [row[0] for row in orders.query("DESCRIBE p.t2")] == ["select", "a`b", "C c"]


def test_one_stream_is_one_snapshot_while_others_write(project):
    database = project.database
    database.run(
        "CREATE TABLE pairs (id int PRIMARY KEY, v int)",
        "INSERT INTO pairs SELECT seq, 0 FROM seq_1_to_20000",
    )
    stop = threading.Event()

    def move():
        connection = database.connect()
        with connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute("UPDATE pairs SET v = v + 1")

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


def test_a_server_that_reads_uncommitted_rows_is_refused(orders):
    server = orders.database.server
    server.run("SET GLOBAL tx_isolation = 'READ-UNCOMMITTED'")
    try:
        error = orders.error(table="orders")
    finally:
        server.run("SET GLOBAL tx_isolation = 'REPEATABLE-READ'")
    assert isinstance(error, SourceFailed)
    assert "SET GLOBAL TRANSACTION ISOLATION LEVEL" in str(error)


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
                    "SELECT count(*) FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND ID <> CONNECTION_ID()"
                )
                seen.append(cursor.fetchone()[0])

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        project.load("LOAD * FROM my;", tables=[f"s{n}" for n in range(12)], max_connections=2)
    finally:
        stop.set()
        thread.join()
    # The server counts one that was closed until it has ended it: at most one beside each.
    assert 1 <= max(seen) <= 4
    assert project.query("SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'p'") == [(12,)]


def test_tables_given_by_patterns_are_looked_up_and_loaded_each_by_its_key(orders):
    from sqlflow_dagster.project import load_project

    other = f"{orders.database.name}_sales"
    orders.database.run(
        f"CREATE DATABASE {other}", f"CREATE TABLE {other}.orders (a int, b int, updated_at datetime, PRIMARY KEY (b, a))",
        f"INSERT INTO {other}.orders VALUES (1, 2, '2024-01-01')",
    )  # fmt: skip
    try:
        options = {
            "schemas": f"{orders.database.name}*",
            "sync_mode": "incremental",
            "cursor_field": "updated_at",
        }
        orders.pipeline("LOAD * FROM my;", **options)
        with pytest.raises(PipelineError, match="have not been looked up yet"):
            load_project(orders.bench.root)
        planned = load_project(orders.bench.root, undiscovered=True)
        (source,) = planned.plan.undiscovered
        found = {stream.name: stream for stream in planned.discover(source)}
        assert found[f"{other}__orders"].primary_key == ("b", "a")
        assert found["orders"].columns["amount"] == "DECIMAL(12,2)"
        assert found["orders"].columns["updated_at"] == "TIMESTAMP WITH TIME ZONE"
        orders.bench.ok()
        orders.database.run(f"UPDATE {other}.orders SET updated_at = '2024-01-02'")
        orders.bench.ok()
        assert (count(orders, table=f"{other}__orders"), count(orders, table="orders")) == (1, 100)
    finally:
        orders.database.run(f"DROP DATABASE {other}")


@pytest.mark.parametrize(
    ("mode", "value", "kind"),
    [("", "id", "VARCHAR"), ("ANSI_QUOTES", 1, "INTEGER")],
    ids=["a text", "a name"],
)
def test_a_query_means_what_the_servers_mode_says(project, mode, value, kind):
    database = project.database
    database.run("CREATE TABLE s AS SELECT 1 AS id", f"SET GLOBAL sql_mode = '{mode}'")
    try:
        project.load(query='SELECT "id" AS x FROM s', loss_audit=True)
    finally:
        database.run("SET GLOBAL sql_mode = ''")
    assert project.query("SELECT x, typeof(x) FROM p.t") == [(value, kind)]


@pytest.mark.parametrize("what", [{"table": "s"}, {"query": "SELECT * FROM s"}], ids=["table", "query"])
def test_an_enum_is_no_cursor_for_its_letters_are_not_its_order(project, what):
    project.database.run(
        "CREATE TABLE s (id int, state enum('open', 'closed'), marks set('a', 'b'))",
        "INSERT INTO s VALUES (1, 'open', 'a,b')",
    )
    error = project.error(**what, sync_mode="incremental", cursor_field="state", primary_key="id")
    assert "is an enum, which MySQL orders by the places of its values" in str(error)
    assert "SELECT `state` + 0 AS place" in str(error)
    project.load(table="s", filters={"state": "open"})
    assert count(project) == 1


@pytest.mark.parametrize(
    "end", [";", " ; -- done", ";\n/* a; b */ -- it's\n;", "-- last", "# x;\n;", " ;# it's"]
)
def test_a_query_may_end_in_a_semicolon_and_comments(project, end):
    project.load(query=f"SELECT '; -- x' AS a {end}")
    assert project.query("SELECT a FROM p.t") == [("; -- x",)]
