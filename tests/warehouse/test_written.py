"""The blocks that DuckDB has written do not fill the memory, and the limit stays as it was set."""

import duckdb
import pytest

from sqlflow_dagster.warehouse import written

# Numbers that no compression makes smaller: 190 MB of blocks.
_MANY = (
    "CREATE TABLE many AS SELECT hash(i) AS a, hash(i + 1) AS b, hash(i + 2) AS c FROM range(10_000_000) r(i)"
)
_MB = 1_000_000


@pytest.fixture
def connection(tmp_path):
    with duckdb.connect(tmp_path / "w.duckdb") as connection:
        connection.execute("SET memory_limit = '1GB'; SET threads = 1; BEGIN")
        yield connection


def kept(connection):
    (found,) = connection.execute(
        "SELECT memory_usage_bytes FROM duckdb_memory() WHERE tag = 'BASE_TABLE'"
    ).fetchone()
    return found


def limit(connection):
    return connection.execute("SELECT current_setting('memory_limit')").fetchone()[0]


def test_duckdb_alone_keeps_them(connection):
    connection.execute(_MANY)
    assert kept(connection) > 150 * _MB


def test_they_are_let_go_while_a_statement_runs(connection):
    before = limit(connection)
    with written.let_go(connection, "1GB"):
        connection.execute(_MANY)
    assert kept(connection) < 100 * _MB
    assert limit(connection) == before
    connection.execute("COMMIT")
    assert connection.execute("SELECT count(*), count(DISTINCT a) FROM many").fetchone() == (10_000_000,) * 2


def test_a_failing_statement_is_raised_and_leaves_the_limit(connection):
    before = limit(connection)
    with pytest.raises(duckdb.ConversionException), written.let_go(connection, "1GB"):
        connection.execute(_MANY.replace("hash(i)", "CAST(if(i < 9_000_000, '1', 'x') AS INTEGER)"))
    connection.execute("ROLLBACK")
    assert limit(connection) == before


def test_a_limit_that_is_low_anyway_is_left_alone(connection, monkeypatch):
    limits = []
    monkeypatch.setattr(written, "_limit", lambda _, value: limits.append(value))
    connection.execute("SET memory_limit = '40MB'")
    with written.let_go(connection, "40MB"):
        connection.execute(_MANY)
    assert not limits


def test_what_is_wrong_with_the_look_itself_is_told(connection, monkeypatch):
    told = []
    monkeypatch.setattr("threading.excepthook", lambda raised: told.append(raised.exc_type))
    monkeypatch.setattr(written, "_USE", "SELECT no_such_function()")
    with written.let_go(connection, "1GB"):
        connection.execute(_MANY)
    assert told == [duckdb.CatalogException]
