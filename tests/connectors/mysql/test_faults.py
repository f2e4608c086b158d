"""What goes wrong between us and a server has a name and a next step, and leaves table and cursor alone."""

from __future__ import annotations

import json
import logging
import re
import threading
import time

import pytest

from sqlflow_dagster.connectors.mysql import MySQL
from sqlflow_dagster.connectors.mysql_client import meaning
from sqlflow_dagster.connectors.mysql_options import MySQLOptions
from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.errors import BadOption, NotAllowed, RetryLater, SchemaChanged, SourceFailed
from tests.tls import certificate

CANARY = "CANARY-5f0c"
WRONG = [
    ({"host": "no-such-host.invalid"}, (SourceFailed, RetryLater), "host"),
    ({"port": 1}, RetryLater, "Connection refused.*is the server there"),
    ({"username": "reader", "password": f"wrong-{CANARY}"}, NotAllowed, "Access denied for user 'reader'.*look at `username`"),
    ({"username": "nobody"}, NotAllowed, "Access denied for user 'nobody'.*look at `username` and `password`"),
    ({"database": "nix"}, BadOption, "Unknown database 'nix'; mend `database`"),
    ({"table": "ordres"}, BadOption, r"there is no table \w+\.ordres; did you mean \w+\.orders\?"),
    ({"ssl_mode": "verify_ca", "ssl_ca": "nix.crt"}, BadOption, "ssl_ca: there is no file nix.crt"),
    ({"username": "reader", "password": CANARY}, (NotAllowed, BadOption), "Access denied.*GRANT SELECT|there is no table"),
    ({"cursor_field": "nix", "sync_mode": "incremental"}, SchemaChanged, "no column 'nix', which is the cursor_field"),
    ({"types": {"nix": "INTEGER"}}, BadOption, r"types: \w+\.orders has no column 'nix'"),
    ({"table": None, "query": "SELECT * FROM mysql.user", "username": "half", "password": CANARY}, NotAllowed, "SELECT command denied.*GRANT SELECT"),
]  # fmt: skip


def test_each_wrong_parameter_has_its_error_and_the_next_step(project):
    database = project.database
    database.run(
        "CREATE TABLE orders (id int)", "INSERT INTO orders VALUES (1)",
        f"CREATE USER IF NOT EXISTS half@'%' IDENTIFIED BY '{CANARY}'", f"GRANT SELECT ON {database.name}.* TO half@'%'",
    )  # fmt: skip
    text = ""
    for n, (wrong, *_) in enumerate(WRONG):
        source = project.source(**{"table": "orders", "connect_timeout": 5, "max_retries": 0, **wrong})
        text += source.replace("SOURCE my", f"SOURCE my{n}") + f"LOAD t{n} FROM my{n};\n"
    project.bench.pipeline(text)
    outcomes = project.bench.run()
    for n, (wrong, kind, message) in enumerate(WRONG):
        error = outcomes[f"t{n}"].error
        assert isinstance(error, kind), (wrong, error)
        assert re.search(message, str(error)), (wrong, str(error))
        assert CANARY not in str(error)


@pytest.mark.parametrize(
    ("identified", "says"),
    [("VIA unix_socket", "Access denied"), ("BY 'x' ACCOUNT LOCK", "account is locked")],
    ids=["by socket only", "locked"],
)
def test_a_user_who_may_not_come_in_is_told_where_to_look(project, identified, says):
    project.database.run(
        "CREATE TABLE s (id int)", f"CREATE OR REPLACE USER kept@'%' IDENTIFIED {identified}"
    )
    error = project.error(table="s", username="kept", password="x")
    assert isinstance(error, NotAllowed), error
    assert says in str(error)
    assert "look at `username` and `password`" in str(error)


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        (1129, "Host '10.0.0.1' is blocked because of many connection errors; unblock with 'mysqladmin flush-hosts'", NotAllowed),
        (3159, "Connections using insecure transport are prohibited while --require_secure_transport=ON.", BadOption),
        (1040, "Too many connections", RetryLater),
        (1205, "Lock wait timeout exceeded; try restarting transaction", RetryLater),
        (1242, "Subquery returns more than 1 row", SourceFailed),
        (1690, "BIGINT UNSIGNED value is out of range in '(`closed`.`timeout` - 1)'", SourceFailed),
    ],
    ids=lambda value: str(value) if isinstance(value, int) else "",
)  # fmt: skip
def test_only_what_waiting_mends_is_tried_again(code, words, kind):
    assert type(meaning(words, {"host": "h"}, code=code)) is kind


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"hots": "x"}, "hots: unknown parameter; did you mean 'host'"),
        ({"port": "x"}, "port: input should be a valid integer"),
        ({"ssl_mode": "maybe"}, "ssl_mode: input should be 'disabled'"),
        ({"connection": f"postgresql://u:{CANARY}@h/d"}, "connection: write mysql://"),
        ({"connection": f"mysql://u:{CANARY}@h/d?colour=red"}, "the part 'colour' is not known"),
        ({"connection": f"mysql://u:{CANARY}@h/d?ssl-mode=red"}, "ssl-mode is one of disabled"),
        ({"connection": f"mysql://u:{CANARY}@h/d?charset=latin1"}, "text travels as utf8mb4"),
        ({"connection": f"mysql://u:{CANARY}@h/d?connect_timeout=x"}, "connect_timeout is a number"),
        ({"min_connections": 9}, "min_connections: more than max_connections"),
        ({"sync_mode": "cdc"}, "'cdc' is not one of full_refresh, incremental here"),
        ({"numeric_type": "BLOB"}, "numeric_type: write VARCHAR"),
        ({"zero_dates": "maybe"}, "zero_dates: input should be 'error' or 'null'"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_parameters_are_checked_before_anything_is_contacted(params, message):
    with pytest.raises(BadOption) as caught:
        parse(MySQLOptions, {"table": "t", **params})
    assert message in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("connection", "parts"),
    [
        ("mysql://h/d", {"host": "h", "port": "3306", "database": "d", "username": "root"}),
        (
            "mysql+pymysql://u%40x:p%3Aw%2F@h:6543/d%20b?ssl-mode=VERIFY_IDENTITY&ssl-ca=a.crt&charset=utf8mb4",
            {"host": "h", "port": "6543", "database": "d b", "username": "u@x", "password": "p:w/", "ssl_mode": "verify_identity", "ssl_ca": "a.crt"},
        ),
        ("mariadb://u@[::1]:1/d?sslmode=require", {"host": "::1", "port": "1", "database": "d", "username": "u", "ssl_mode": "required"}),
        ("jdbc:mysql://h:1/d?user=u&password=p@w", {"host": "h", "port": "1", "database": "d", "username": "u", "password": "p@w"}),
        ("jdbc:mysql://h/d?user=u&password=p%3Aw%2F", {"host": "h", "port": "3306", "database": "d", "username": "u", "password": "p:w/"}),
        ("mysql:///d?unix_socket=/run/s", {"socket": "/run/s", "database": "d", "username": "root"}),
    ],
)  # fmt: skip
def test_a_connection_string_is_read_as_others_write_it(connection, parts):
    options, _ = parse(MySQLOptions, {"connection": connection})
    found = options.parts()
    assert {name: value for name, value in found.items() if name in parts} == parts
    assert set(found) - set(parts) <= {"connect_timeout", "compress", "host", "port"}
    assert "p:w/" not in repr(options)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELECT (SELECT seq FROM seq_1_to_2) AS x", "Subquery returns more than 1 row"),
        ("SELECT CAST(IF(seq = 30000, 0, seq) AS UNSIGNED) - 1 AS x FROM seq_1_to_40000", "out of range"),
    ],
    ids=["at once", "among the rows"],
)
def test_what_the_server_has_against_a_query_is_told_and_not_tried_again(project, query, message):
    project.pipeline(query=query)
    (outcome,) = project.bench.run().values()
    assert isinstance(outcome.error, SourceFailed), outcome.error
    assert message in str(outcome.error)
    assert outcome.calls.retries == 0


@pytest.mark.parametrize(
    ("kind", "value", "types"),
    [
        ("text", "'connection timed out'", {"closed_at": "INTEGER"}),
        ("text", "'SSL certificate'", {"closed_at": "INTEGER[]"}),
        ("text", "'No space left'", {"closed_at": "INTEGER"}),
        ("date", "0", {}),
        ("time", "'99:00:00'", {}),
    ],
    ids=["scalar", "nested", "disk", "date", "time"],
)
def test_no_word_of_a_column_or_value_is_taken_for_one_about_the_connection(project, kind, value, types):
    project.database.run(f"CREATE TABLE s (closed_at {kind})", f"INSERT INTO s VALUES ({value})")
    project.pipeline(table="s", types=types)
    (outcome,) = project.bench.run().values()
    assert isinstance(outcome.error, SourceFailed), outcome.error
    assert outcome.calls.retries == 0
    assert "ssl_mode" not in str(outcome.error)


def test_no_word_in_a_name_is_taken_for_one_about_the_connection():
    told = {"host": "ssl.example.com", "port": "3306"}
    error = meaning(
        "Can't connect to MySQL server on 'ssl.example.com' ([Errno 111] refused)", told, code=2003
    )
    assert isinstance(error, RetryLater)


def test_columns_of_which_none_is_there_are_named(project):
    project.database.run("CREATE TABLE s (id int)")
    error = project.error(table="s", columns=["nix", "nil"])
    assert isinstance(error, BadOption)
    assert "s has no column 'nix', 'nil'; it has id" in str(error)


def killed_while_reading(project, how, **params):
    """Run a load whose rows come slowly, do `how` to its session meanwhile, and return its outcome."""
    database = project.database
    project.pipeline(query="SELECT seq AS n, SLEEP(0.005) AS s FROM seq_1_to_500", **params)
    found = []

    def wait_and_act():
        connection = database.connect()
        with connection.cursor() as cursor:
            for _ in range(2000):
                cursor.execute(
                    "SELECT ID FROM information_schema.PROCESSLIST WHERE DB = DATABASE() AND INFO LIKE '%SLEEP%'"
                    " AND COMMAND = 'Execute' AND ID <> CONNECTION_ID()"
                )
                if ids := cursor.fetchall():
                    found.extend(ids)
                    cursor.execute(f"KILL {how} {ids[0][0]}")
                    break
                time.sleep(0.02)

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    (outcome,) = project.bench.run().values()
    thread.join()
    assert found
    return outcome


@pytest.mark.parametrize("how", ["CONNECTION", "QUERY"])
def test_a_session_that_is_killed_while_it_sends_is_asked_again_and_no_row_is_missed(project, how):
    outcome = killed_while_reading(project, how)
    assert outcome.error is None
    assert outcome.calls.retries == 1
    assert project.query("SELECT count(*), count(DISTINCT n) FROM p.t") == [(500, 500)]


def test_a_session_that_is_killed_leaves_what_was_loaded_where_no_try_is_left(project):
    project.database.run("CREATE TABLE first AS SELECT 1 AS n, 0 AS s")
    project.load(table="first")
    outcome = killed_while_reading(project, "CONNECTION", max_retries=0)
    assert isinstance(outcome.error, RetryLater)
    assert project.query("SELECT * FROM p.t") == [(1, 0)]


def test_a_read_may_not_take_longer_than_it_is_given(project):
    error = project.error(query="SELECT seq, SLEEP(0.01) AS s FROM seq_1_to_2000", timeout_seconds=0.5)
    assert isinstance(error, SourceFailed)
    assert "raise `timeout_seconds`" in str(error)
    project.load(query="SELECT seq FROM seq_1_to_1000", timeout_seconds=30)
    assert project.query("SELECT count(*) FROM p.t") == [(1000,)]


def test_a_server_that_restarts_is_read_again_and_nothing_is_missed(project):
    database = project.database
    database.run(
        "CREATE TABLE s (id int PRIMARY KEY, seen timestamp NULL)",
        "INSERT INTO s SELECT seq, '2024-01-01' FROM seq_1_to_10",
    )
    options = {"table": "s", "sync_mode": "incremental", "cursor_field": "seen", "primary_key": "id"}
    project.load(**options)
    database.run("SET GLOBAL innodb_flush_log_at_trx_commit = 1", "INSERT INTO s VALUES (11, '2024-01-02')")
    database.server.stop()
    try:
        assert isinstance(project.error(**options, max_retries=0), RetryLater)
    finally:
        database.server.start()
    project.load(**options)
    assert project.query("SELECT count(*), max(id) FROM p.t") == [(11, 11)]


def test_a_table_that_is_altered_or_dropped_leaves_what_was_loaded(project):
    options = {"table": "s", "sync_mode": "incremental", "cursor_field": "id", "primary_key": "id"}
    project.database.run("CREATE TABLE s AS SELECT 1 AS id, 'a' AS a")
    project.load(**options)
    project.database.run(
        "ALTER TABLE s ADD COLUMN b decimal(5,2) DEFAULT 1.5", "ALTER TABLE s DROP COLUMN a",
        "INSERT INTO s (id) VALUES (2)",
    )  # fmt: skip
    project.load(**options)
    rows = [(1, None, 1.5), (2, None, 1.5)]
    assert project.query("SELECT id, a, b FROM p.t ORDER BY id") == rows
    project.database.run("DROP TABLE s")
    assert ".s" in str(project.error(**options))
    assert project.query("SELECT id, a, b FROM p.t ORDER BY id") == rows


@pytest.mark.parametrize("change", ["DROP COLUMN b", "CHANGE b c int", "DROP TABLE"], ids=str)
def test_a_table_that_changes_between_its_catalogue_and_its_rows_is_an_error_of_a_name(project, change):
    """What was asked of the catalogue is no longer true when the rows are asked for."""
    database = project.database
    database.run("CREATE TABLE s (a int, b int)", "INSERT INTO s VALUES (1, 2)")
    options = parse(MySQLOptions, {"connection": database.url, "table": "s"})[0]
    from tests.connectors.conftest import load

    with MySQL(options, project.place) as source:
        (scan,) = list(source.read(source.streams()[0], None))
        database.run("DROP TABLE s" if change == "DROP TABLE" else f"ALTER TABLE s {change}")
        import duckdb

        with duckdb.connect() as connection:
            load(connection, "mysql_scanner")
            secret = ", ".join(f"{name} '{value}'" for name, value in scan.attach[0].secret.items())
            connection.execute(f"CREATE SECRET x (TYPE mysql, {secret})")
            connection.execute(f"ATTACH '' AS {scan.attach[0].name} (TYPE mysql, SECRET x, READ_ONLY)")
            with pytest.raises(duckdb.Error) as caught:
                connection.execute(scan.query)
        assert isinstance(scan.explain(str(caught.value)), SchemaChanged)


def test_the_password_is_nowhere_to_be_found(project, caplog):
    caplog.set_level(logging.DEBUG)
    project.database.run(
        "CREATE TABLE s AS SELECT 1 AS id", f"GRANT SELECT ON {project.database.name}.* TO reader@'%'"
    )
    secret = {"username": "reader", "password": CANARY, "table": "s"}
    project.bench.write(".env", f"PASSWORD={CANARY}\n")
    project.load(**{**secret, "password": "${PASSWORD}"})
    errors = [
        project.error(**{**secret, "password": "${PASSWORD}", "max_retries": 0, **wrong})
        for wrong in (
            {"port": 1},
            {"database": "nix"},
            {"table": "nix"},
            {"query": "SELECT nix", "table": None},
        )
    ]
    texts = [*map(str, errors), *map(repr, errors), caplog.text]
    options = parse(MySQLOptions, secret | {"connection": project.database.url})[0]
    with MySQL(options, project.place) as source:
        (scan,) = list(source.read(source.streams()[0], None))
        texts += [
            repr(scan),
            scan.query,
            repr(source.options),
            str(source.place_of_data()),
            scan.attach[0].url,
        ]
    assert not [text for text in texts if CANARY in text]
    for file in project.bench.root.rglob("*"):
        if file.is_file() and file.name != ".env":
            assert CANARY.encode() not in file.read_bytes()


def health(project, **params):
    options = parse(MySQLOptions, {"connection": project.database.url, **params})[0]
    with MySQL(options, project.place) as source:
        return source.check()


def test_health_tells_version_sizes_and_what_may_not_be_seen(project):
    project.database.run(
        "CREATE TABLE big AS SELECT seq, repeat('x', 100) AS x FROM seq_1_to_20000", "CREATE VIEW v AS SELECT 1 AS x",
        "ANALYZE TABLE big",
    )  # fmt: skip
    found = health(project)
    assert found.ok
    facts = found.facts
    assert (facts["tables"], facts["views"]) == (1, 1)
    assert facts["largest_table"] == f"{project.database.name}.big"
    assert "MariaDB" in facts["version"]
    assert facts["bytes"] >= facts["largest_table_bytes"] > 1_000_000
    assert 0 < facts["latency"] < 60
    assert facts["tls"]
    assert not facts["replica"]
    json.dumps(dict(facts))
    reader = health(project, database="information_schema", username="reader", password=CANARY)
    assert reader.ok
    assert "GRANT PROCESS ON *.*" in reader.message
    away = health(project, port=1)
    assert not away.ok
    assert "Connection refused" in away.message


def test_health_tells_what_keeps_the_named_tables_from_being_read(project):
    database = project.database
    database.run(
        "CREATE TABLE orders (id int)", "CREATE VIEW v AS SELECT id FROM orders", "CREATE TABLE closed (id int)",
        f"CREATE USER IF NOT EXISTS half@'%' IDENTIFIED BY '{CANARY}'", f"GRANT SELECT ON {database.name}.orders TO half@'%'",
        f"GRANT INSERT ON {database.name}.closed TO half@'%'",
    )  # fmt: skip
    half = {"username": "half", "password": CANARY}
    wanted = [
        ({"tables": ["orders", "v"]}, None),
        ({"tables": "*"}, None),
        ({"query": "SELECT id FROM orders"}, None),
        ({**half, "table": "orders"}, None),
        ({"tables": ["orders", "ordres"]}, "there is no table .*ordres; did you mean .*orders"),
        ({"table": "orders", "cursor_field": "nix", "sync_mode": "incremental"}, "has no column 'nix'"),
        ({"query": "SELECT nix FROM orders"}, "Unknown column 'nix'"),
        ({**half, "table": "closed"}, "SELECT command denied.*GRANT SELECT ON .*closed"),
    ]
    for params, message in wanted:
        found = health(project, **params)
        assert found.ok is (message is None), (params, found.message)
        assert re.search(message or "MariaDB", found.message), found.message
        assert CANARY not in found.message


TLS = [
    ({"ssl_mode": "disabled"}, None, False),
    ({"ssl_mode": "preferred"}, None, True),
    ({"ssl_mode": "required"}, None, True),
    ({"ssl_mode": "verify_ca", "ssl_ca": "server.crt", "host": "127.0.0.1"}, None, True),
    ({"sslmode": "verify-full", "sslrootcert": "server.crt"}, None, True),
    ({"ssl_mode": {"mode": "verify_ca"}, "ssl_ca": "other.crt"}, "certificate verify failed", None),
    ({"ssl_mode": "verify_ca"}, "certificate verify failed", None),
    ({"ssl_mode": "verify_identity", "ssl_ca": "server.crt", "host": "127.0.0.1"}, "certificate is not valid for '127.0.0.1'", None),
]  # fmt: skip


def test_tls_is_as_strict_as_it_is_asked_to_be(project, tmp_path):
    server = project.database.server
    project.bench.write("server.crt", (server.folder / "server.crt").read_bytes())
    project.bench.write("other.crt", certificate(tmp_path).path.read_bytes())
    query = "SELECT VARIABLE_VALUE <> '' AS tls FROM information_schema.SESSION_STATUS WHERE VARIABLE_NAME = 'Ssl_cipher'"
    text = ""
    for n, (given, *_) in enumerate(TLS):
        source = project.source(**{"host": "localhost", "query": query, "max_retries": 0, **given})
        text += source.replace("SOURCE my", f"SOURCE my{n}") + f"LOAD t{n} FROM my{n};\n"
    project.bench.pipeline(text)
    outcomes = project.bench.run()
    for n, (given, message, encrypted) in enumerate(TLS):
        error = outcomes[f"t{n}"].error
        if message is None:
            assert error is None, (given, error)
            assert project.query(f"SELECT tls::INT FROM p.t{n}") == [(int(encrypted),)]
        else:
            assert isinstance(error, SourceFailed), (given, error)
            assert message in str(error)
            assert "look at `ssl_mode`" in str(error)


def test_a_certificate_that_has_expired_is_said_and_not_waited_for(project):
    server = project.database.server
    project.database.run("CREATE TABLE t (id int)")
    try:
        expired = certificate(server.folder, days=-1)
        server.run("FLUSH SSL")
        project.bench.write("server.crt", expired.path.read_bytes())
        error = project.error(table="t", ssl_mode="verify_ca", ssl_ca="server.crt")
    finally:
        certificate(server.folder)
        server.run("FLUSH SSL")
    assert isinstance(error, SourceFailed)
    assert "certificate has expired" in str(error)
    assert "the dates of the certificates" in str(error)
