"""What goes wrong between us and a server has a name and a next step, and leaves table and cursor alone."""

from __future__ import annotations

import json
import logging
import re
import threading
import time

import pytest

from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.connectors.postgres import Postgres
from sqlflow_dagster.connectors.postgres_client import meaning
from sqlflow_dagster.connectors.postgres_options import PostgresOptions
from sqlflow_dagster.errors import BadOption, NotAllowed, RetryLater, SchemaChanged, SourceFailed
from tests.tls import TlsFront, certificate

CANARY = "CANARY-5f0c"


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        ({"host": "no-such-host.invalid"}, (SourceFailed, RetryLater), "host"),
        ({"port": 1}, RetryLater, "Connection refused.*is the server there"),
        ({"username": "reader", "password": "wrong-CANARY-5f0c"}, NotAllowed, "password authentication failed.*look at `username`"),
        ({"username": "nobody"}, NotAllowed, "look at `username` and `password`"),
        ({"database": "nix"}, BadOption, 'database "nix" does not exist; mend `database`'),
        ({"table": "ordres"}, BadOption, "there is no table public.ordres; did you mean public.orders?"),
        ({"table": "sales.orders"}, BadOption, "there is no table sales.orders; did you mean public.orders?"),
        ({"sslmode": "require"}, SourceFailed, "does not support SSL.*look at `sslmode`"),
        ({"sslmode": "verify-full", "sslrootcert": "nix.crt"}, BadOption, "sslrootcert: there is no file nix.crt"),
        ({"username": "reader", "password": CANARY}, NotAllowed, "permission denied for table orders; GRANT SELECT ON"),
        ({"cursor_field": "nix", "sync_mode": "incremental"}, SchemaChanged, "no column 'nix', which is the cursor_field"),
        ({"types": {"nix": "INTEGER"}}, BadOption, "types: public.orders has no column 'nix'"),
    ],
    ids=["host", "port", "password", "user", "database", "table", "schema", "tls", "certificate", "permission", "cursor", "types"],
)  # fmt: skip
def test_each_wrong_parameter_has_its_error_and_the_next_step(project, wrong, kind, message):
    import re

    project.database.run("CREATE TABLE orders (id int)", "INSERT INTO orders VALUES (1)")
    error = project.error(**{"table": "orders", "connect_timeout": 5, **wrong})
    assert isinstance(error, kind)
    assert re.search(message, str(error))
    assert CANARY not in str(error)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"hots": "x"}, "hots: unknown parameter; did you mean 'host'"),
        ({"port": "x"}, "port: input should be a valid integer"),
        ({"sslmode": "maybe"}, "sslmode: input should be 'disable'"),
        ({"connection": f"mysql://u:{CANARY}@h/d"}, "connection: write postgresql://"),
        ({"connection": f"postgresql://u:{CANARY}@h/d?colour=red"}, "the part 'colour' is not known"),
        ({"connection": f"postgresql://u:{CANARY}@h/d?sslmode=red"}, "sslmode is one of disable"),
        ({"min_connections": 9}, "min_connections: more than max_connections"),
        ({"sync_mode": "cdc", "lookback_window": 5}, "lookback_window: with cdc, the log misses nothing"),
        ({"numeric_type": "BLOB"}, "numeric_type: write VARCHAR"),
        ({"sync_mode": "incremental", "cursor_field": "xmin", "query": "SELECT 1"}, "a query has no xmin"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_parameters_are_checked_before_anything_is_contacted(params, message):
    with pytest.raises(BadOption) as caught:
        parse(PostgresOptions, {"table": "t", **params})
    assert message in str(caught.value)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("connection", "parts"),
    [
        ("postgres://h/d", {"host": "h", "port": "5432", "database": "d"}),
        (
            "postgresql+psycopg2://u%40x:p%3Aw%2F@h:6543/d%20b?sslmode=verify-full&sslrootcert=a.crt",
            {"host": "h", "port": "6543", "database": "d b", "username": "u@x", "password": "p:w/", "sslmode": "verify-full", "sslrootcert": "a.crt"},
        ),
        ("postgresql://u@[::1]:1/d", {"host": "::1", "port": "1", "database": "d", "username": "u"}),
        ("postgresql://h1:1,h2/d?target_session_attrs=primary", {"host": "h1,h2", "port": "1,5432", "database": "d", "target_session_attrs": "primary"}),
        ("postgresql:///d?host=%2Fvar%2Frun", {"host": "/var/run", "port": "5432", "database": "d"}),
        (r"host=h dbname='it\'s' password=a\ b", {"host": "h", "port": "5432", "database": "it's", "password": "a b"}),
        ("postgresql://h/d?channel_binding=require&options=endpoint%3Dx", {"host": "h", "port": "5432", "database": "d", "channel_binding": "require", "options": "endpoint=x"}),
    ],
)  # fmt: skip
def test_a_connection_string_is_read_as_libpq_reads_it(connection, parts):
    options, _ = parse(PostgresOptions, {"connection": connection})
    found = options.parts()
    assert {name: value for name, value in found.items() if name in parts} == parts
    assert set(found) - set(parts) <= {"connect_timeout", "application_name", "host", "port"}
    assert "p:w/" not in repr(options)


def killed_while_reading(project, how, **params):
    """Run a load whose rows come slowly, do `how` to the server meanwhile, and return its outcome."""
    database = project.database
    slow = "SELECT n, pg_sleep(0.005)::text AS s FROM generate_series(1, 500) AS n"
    project.pipeline(query=slow, **params)
    found = []

    def wait_and_act():
        connection = database.server.connect()
        with connection.cursor() as cursor:
            for _ in range(500):
                cursor.execute(
                    "SELECT pid FROM pg_stat_activity WHERE datname = %s AND query LIKE 'COPY%%'",
                    [database.name],
                )
                if pids := cursor.fetchall():
                    found.extend(pids)
                    how(cursor, pids[0][0])
                    break
                time.sleep(0.02)
        connection.close()

    thread = threading.Thread(target=wait_and_act)
    thread.start()
    (outcome,) = project.bench.run().values()
    thread.join()
    assert found
    return outcome


def end(cursor, pid):
    cursor.execute("SELECT pg_terminate_backend(%s)", [pid])


def test_a_backend_that_is_ended_while_it_sends_is_asked_again_and_no_row_is_missed(project):
    outcome = killed_while_reading(project, end)
    assert outcome.error is None
    assert project.query("SELECT count(*), count(DISTINCT n) FROM p.t") == [(500, 500)]


def test_a_backend_that_is_ended_leaves_what_was_loaded_where_no_try_is_left(project):
    project.database.run("CREATE TABLE first AS SELECT 1 AS n, 'x'::text AS s")
    project.load(table="first")
    outcome = killed_while_reading(project, end, max_retries=0)
    assert isinstance(outcome.error, RetryLater)
    assert project.query("SELECT * FROM p.t") == [(1, "x")]


@pytest.mark.parametrize(
    "value", ["connection timed out", "FATAL: terminating connection", "bad certificate"], ids=str
)
@pytest.mark.parametrize("declared", ["INTEGER", "INTEGER[]", None], ids=str)
def test_no_word_of_a_value_is_taken_for_one_about_the_connection(project, value, declared):
    query = (
        f"SELECT '{value}'::text AS s"
        if declared
        else f"SELECT (x || '')::int AS s FROM (SELECT '{value}' AS x) t"
    )
    project.pipeline(query=query, types={"s": declared} if declared else {})
    (outcome,) = project.bench.run().values()
    assert isinstance(outcome.error, SourceFailed), outcome.error
    assert outcome.calls.retries == 0
    assert "sslmode" not in str(outcome.error)


@pytest.mark.parametrize(
    ("code", "words", "kind"),
    [
        ("53400", "temporary file size exceeds temp_file_limit (1024kB)", SourceFailed),
        ("58P01", 'could not access file "$libdir/postgis-3": No such file or directory', SourceFailed),
        ("57014", "canceling statement due to user request", SourceFailed),
        ("53300", "too many connections for role", RetryLater),
        ("40P01", "deadlock detected", RetryLater),
        ("57P01", "terminating connection due to administrator command", RetryLater),
        (None, "error with status PGRES_COPY_BOTH and no message from the libpq", RetryLater),
    ],
)
def test_only_what_waiting_mends_is_tried_again(code, words, kind):
    error = meaning(words, {"host": "h"}, code=code)
    assert type(error) is kind
    assert "timeout_seconds" not in str(error)


def test_columns_of_which_none_is_there_are_named(project):
    project.database.run("CREATE TABLE s (id int)")
    error = project.error(table="s", columns=["nix", "nil"])
    assert isinstance(error, BadOption)
    assert "s has no column 'nix', 'nil'; it has id" in str(error)


def test_a_statement_that_is_cancelled_says_so(project):
    cancel = "SELECT pg_cancel_backend(%s)"
    error = killed_while_reading(project, lambda cursor, pid: cursor.execute(cancel, [pid])).error
    assert isinstance(error, SourceFailed)
    assert "canceling statement due to user request" in str(error)


def test_a_read_may_not_take_longer_than_it_is_given(project):
    error = project.error(query="SELECT pg_sleep(20)::text AS s", timeout_seconds=0.5)
    assert isinstance(error, SourceFailed)
    assert "raise `timeout_seconds`" in str(error)


def test_a_server_that_restarts_is_read_again_and_nothing_is_missed(project, server):
    database = project.database
    database.run(
        "CREATE TABLE s AS SELECT n AS id, '2024-01-01Z'::timestamptz AS at FROM generate_series(1, 10) n"
    )
    options = {"table": "s", "sync_mode": "incremental", "cursor_field": "at", "primary_key": "id"}
    project.load(**options)
    database.run("INSERT INTO s VALUES (11, '2024-01-02Z')", "CHECKPOINT")
    server.stop()
    try:
        assert isinstance(project.error(**options), RetryLater)
    finally:
        server.start()
    project.load(**options)
    assert project.query("SELECT count(*), max(id) FROM p.t") == [(11, 11)]


def test_a_table_that_is_gone_leaves_what_was_loaded(project):
    project.database.run("CREATE TABLE s AS SELECT 1 AS id")
    project.load(table="s")
    project.database.run("DROP TABLE s")
    assert "there is no table public.s" in str(project.error(table="s"))
    assert project.query("SELECT * FROM p.t") == [(1,)]


def test_a_table_that_is_altered_brings_its_new_columns(project):
    options = {"table": "s", "sync_mode": "incremental", "cursor_field": "id", "primary_key": "id"}
    project.database.run("CREATE TABLE s AS SELECT 1 AS id, 'a'::text AS a")
    project.load(**options)
    project.database.run(
        "ALTER TABLE s ADD COLUMN b numeric(5,2) DEFAULT 1.5",
        "ALTER TABLE s DROP COLUMN a",
        "INSERT INTO s VALUES (2)",
    )
    project.load(**options)
    assert project.query("SELECT id, a, b FROM p.t ORDER BY id") == [(1, None, 1.5), (2, None, 1.5)]


def test_the_password_is_nowhere_to_be_found(project, caplog):
    caplog.set_level(logging.DEBUG)
    project.database.run("CREATE TABLE s AS SELECT 1 AS id", "GRANT SELECT ON s TO reader")
    secret = {"username": "reader", "password": CANARY, "table": "s"}
    project.bench.write(".env", f"PASSWORD={CANARY}\n")
    project.load(**{**secret, "password": "${PASSWORD}"})
    errors = [
        project.error(**{**secret, "password": "${PASSWORD}", **wrong})
        for wrong in (
            {"port": 1},
            {"database": "nix"},
            {"table": "nix"},
            {"query": "SELECT nix", "table": None},
        )
    ]
    texts = [*map(str, errors), *map(repr, errors), caplog.text]
    with Postgres(
        parse(PostgresOptions, secret | {"connection": project.database.url})[0], project.place
    ) as source:
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


def test_a_pooler_that_takes_no_settings_can_be_read_through(project):
    project.database.run("CREATE TABLE s AS SELECT 1 AS id")
    project.load(table="s", session_settings=False)
    assert project.query("SELECT * FROM p.t") == [(1,)]


def test_health_tells_version_sizes_and_what_may_not_be_read(project):
    project.database.run(
        "CREATE TABLE big AS SELECT n FROM generate_series(1, 10000) n", "CREATE VIEW v AS SELECT 1 AS x"
    )
    options = {"connection": project.database.url}
    with Postgres(parse(PostgresOptions, options)[0], project.place) as source:
        health = source.check()
    assert health.ok
    facts = health.facts
    assert (facts["tables"], facts["views"], facts["largest_table"]) == (1, 1, "public.big")
    assert facts["version"].startswith("16")
    assert facts["bytes"] > facts["largest_table_bytes"] > 100_000
    assert 0 < facts["latency"] < 60
    reader = {**options, "username": "reader", "password": CANARY}
    with Postgres(parse(PostgresOptions, reader)[0], project.place) as source:
        health = source.check()
    assert health.ok
    assert "may not read public.big, public.v: GRANT SELECT" in health.message
    assert "GRANT pg_read_all_stats" in health.message
    with Postgres(parse(PostgresOptions, {**options, "port": 1})[0], project.place) as source:
        health = source.check()
    assert not health.ok
    assert "Connection refused" in health.message
    json.dumps(dict(facts))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"tables": ["orders", "v"]}, None),
        ({"table": "orders", "sync_mode": "cdc", "primary_key": "id"}, None),
        ({"query": "SELECT id FROM orders"}, None),
        ({"tables": ["orders", "ordres"]}, "no table public.ordres; did you mean public.orders"),
        ({"table": "orders", "cursor_field": "nix", "sync_mode": "incremental"}, "has no column 'nix'"),
        ({"query": "SELECT nix FROM orders"}, 'column "nix" does not exist'),
        (
            {"table": "orders", "username": "reader", "password": CANARY},
            "permission denied.*GRANT SELECT ON public.orders",
        ),
    ],
    ids=["tables", "cdc", "query", "no table", "no cursor", "no column", "no rights"],
)
def test_health_tells_what_keeps_the_named_tables_from_being_read(project, params, message):
    project.database.run("CREATE TABLE orders (id int PRIMARY KEY)", "CREATE VIEW v AS SELECT id FROM orders")
    options = parse(PostgresOptions, {"connection": project.database.url, **params})[0]
    with Postgres(options, project.place) as source:
        health = source.check()
    if message:
        assert not health.ok
        assert re.search(message, health.message), health.message
    else:
        # Whether the server's log may be read is another matter.
        assert health.ok or "wal_level" in health.message, health.message


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"sslmode": "require"}, None),
        ({"sslmode": "verify-ca", "sslrootcert": "server.crt"}, None),
        ({"sslmode": "verify-full", "sslrootcert": "server.crt"}, None),
        ({"ssl_mode": {"mode": "verify_full"}, "sslrootcert": "other.crt"}, "certificate verify failed"),
        (
            {"sslmode": "verify-full", "sslrootcert": "server.crt", "host": "127.0.0.1"},
            "does not match host name",
        ),
    ],
    ids=["require", "verify-ca", "verify-full", "another authority", "another name"],
)
def test_tls_is_as_strict_as_it_is_asked_to_be(project, tls_front, tmp_path, given, error):
    project.database.run("CREATE TABLE s AS SELECT 1 AS id")
    project.bench.write("server.crt", tls_front.shown.path.read_bytes())
    project.bench.write("other.crt", certificate(tmp_path, "other").path.read_bytes())
    options = {"host": "localhost", "port": tls_front.port, "table": "s", **given}
    if error is None:
        project.load(**options)
        assert project.query("SELECT * FROM p.t") == [(1,)]
        # Ours for the catalogue, and DuckDB's for the rows.
        assert tls_front.encrypted >= 2
    else:
        found = project.error(**options)
        assert error in str(found)
        assert "look at `sslmode`" in str(found)


@pytest.mark.parametrize("sslmode", ["verify-ca", "verify-full"])
def test_a_certificate_that_has_expired_is_said_and_not_waited_for(project, server, tmp_path, sslmode):
    project.database.run("CREATE TABLE s AS SELECT 1 AS id")
    expired = certificate(tmp_path, days=-1)
    project.bench.write("server.crt", expired.path.read_bytes())
    with TlsFront(server.port, expired, asked=True) as front:
        options = {"host": "localhost", "port": front.port, "sslmode": sslmode, "sslrootcert": "server.crt"}
        error = project.error(table="s", **options)
    assert isinstance(error, SourceFailed)
    # libpq does not say more.
    assert "certificate verify failed" in str(error)
    assert "the dates of the certificates" in str(error)


def test_a_view_has_no_xmin(project):
    project.database.run("CREATE VIEW v AS SELECT 1 AS id")
    error = project.error(table="v", sync_mode="incremental", cursor_field="xmin", primary_key="id")
    assert "public.v is a view, whose rows have no xmin" in str(error)
