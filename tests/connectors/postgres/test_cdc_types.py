"""A value that comes out of the log is the one that a snapshot reads, in every type; what does not fit is said."""

from __future__ import annotations

import pytest

from sqlflow_dagster.errors import SourceFailed

from .test_types import EXACT, MADE

CDC = {"sync_mode": "cdc", "primary_key": "n", "table": "t", "deletes": "hard"}
MORE = [
    ("interval", "'-1 years +2 mons -3 days +04:05:06.7'"),
    ("interval", "'2562047788:00:54.775807'"),
    ("interval", "'-00:00:00.000001'"),
    ("interval", "'0'"),
    ("money", "'-0.05'"),
    ("money", "'0'"),
    ("float4", "0.1"),
    ("float8", "'-0'"),
    ("timestamptz", "'4713-11-24 BC 00:00:00.5+00'"),
    ("timestamp", "'294246-12-31 23:59:59.999999'"),
    ("bytea", "''"),
    ("char(5)", "''"),
    ("bool", "false"),
    ("text[]", "ARRAY['a\"b', 'c\\d', '{x,y}', ' ', 'null', E'\\n']"),
    ("box[]", "'{(2,2),(1,1);(4,4),(3,3)}'"),
    ("bytea[]", "'{\"\\\\x00ff\",NULL}'"),
    ("date[]", "'{0044-03-15 BC,infinity}'"),
    ("interval[]", "'{-1 day,3:00}'"),
    ("bool[]", "'{t,f}'"),
    ("char(3)[]", "'{a,bc}'"),
    ("time", "'00:00:00.000001'"),
]


@pytest.fixture
def table(project):
    project.database.run(*MADE)
    yield project
    project.database.run(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database()"
    )


def test_every_value_of_the_log_is_the_one_of_the_snapshot(table):
    cases = [(kind, value) for kind, value, *_ in EXACT] + MORE
    columns = ", ".join(f"c{n} {kind}" for n, (kind, _value) in enumerate(cases))
    values = ", ".join(f"{value}::{kind}" for kind, value in cases)
    nulls = ", ".join("NULL" for _ in cases)
    table.database.run(
        f"CREATE TABLE t (n int PRIMARY KEY, {columns})", f"INSERT INTO t VALUES (1, {values}), (2, {nulls})"
    )
    table.load(**CDC)
    kinds = table.query("DESCRIBE p.t")
    table.database.run(
        "INSERT INTO t SELECT 3, " + ", ".join(f"c{n}" for n in range(len(cases))) + " FROM t WHERE n = 1",
        "INSERT INTO t (n) VALUES (4)",
    )
    table.load(**CDC)
    assert table.query("DESCRIBE p.t") == kinds
    shown = ", ".join(f"CAST(c{n} AS VARCHAR)" for n in range(len(cases)))
    read, nothing, logged, nulls = table.query(f"SELECT {shown} FROM p.t ORDER BY n")
    assert list(zip(cases, logged, strict=True)) == list(zip(cases, read, strict=True))
    assert set(nothing) == set(nulls) == {None}


def test_declared_types_hold_in_the_log_too(table):
    params = {
        **CDC,
        "types": {"a": "DECIMAL(10,3)", "doc": "STRUCT(x INTEGER)", "list": "DOUBLE[]", "text": "VARCHAR"},
        "numeric_type": "DECIMAL(38,9)",
    }
    table.database.run(
        "CREATE TABLE t (n int PRIMARY KEY, a text, doc jsonb, list numeric[], text int[], free numeric)",
        """INSERT INTO t VALUES (1, '1.5', '{"x": 1}', '{1.5,2}', '{1,2}', 0.1)""",
    )
    table.load(**params)
    table.database.run("INSERT INTO t SELECT 2, a, doc, list, text, free FROM t")
    table.load(**params)
    read, logged = table.query("SELECT * EXCLUDE n FROM p.t ORDER BY n")
    assert logged == read
    table.database.run("INSERT INTO t VALUES (3, 'x')")
    error = table.error(**params)
    assert isinstance(error, SourceFailed)
    assert """the value 'x' of column "a" is no DECIMAL(10,3)""" in str(error)


@pytest.mark.parametrize(
    ("kind", "value", "because"),
    [
        ("numeric(12,2)", "'NaN'", "holds NaN, so that it is no DECIMAL"),
        ("int4[]", "'{{1,2},{3,4}}'", "several dimensions"),
        ("int4[]", "'[2:3]={1,2}'", "first index is not 1"),
        ("timestamp", "'294276-12-31 23:59:59.999999'", "294276"),
    ],
)
def test_a_value_that_does_not_fit_stops_the_load_and_names_itself(table, kind, value, because):
    table.database.run(f"CREATE TABLE t (n int PRIMARY KEY, c {kind})", "INSERT INTO t VALUES (1, NULL)")
    table.load(**CDC)
    table.database.run(f"INSERT INTO t VALUES (2, {value})")
    error = table.error(**CDC)
    assert isinstance(error, SourceFailed)
    assert because in str(error)
    assert table.query("SELECT count(*) FROM p.t") == [(1,)]
