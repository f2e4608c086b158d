"""Every type comes exactly, or the load says what cannot and what to set."""

from __future__ import annotations

import pytest

from sqlflow_dagster.errors import SourceFailed

EXACT = [
    ("bool", "true", "BOOLEAN", "true"),
    ("int2", "'-32768'", "SMALLINT", "-32768"),
    ("int4", "2147483647", "INTEGER", "2147483647"),
    ("int8", "'-9223372036854775808'", "BIGINT", "-9223372036854775808"),
    ("float4", "3.4028235e38", "FLOAT", "3.4028235e+38"),
    ("float8", "'NaN'", "DOUBLE", "nan"),
    ("float8", "5e-324", "DOUBLE", "5e-324"),
    ("float8", "'-Infinity'", "DOUBLE", "-inf"),
    ("numeric(12,2)", "-1234567890.12", "DECIMAL(12,2)", "-1234567890.12"),
    ("numeric(38,0)", "99999999999999999999999999999999999999", "DECIMAL(38,0)", "99999999999999999999999999999999999999"),
    ("numeric(3,-2)", "12345", "DECIMAL(5,0)", "12300"),
    ("numeric(2,4)", "0.0012", "DECIMAL(4,4)", ".0012"),
    ("numeric", "1.50", "VARCHAR", "1.50"),
    ("numeric", "1e400", "VARCHAR", "1" + "0" * 400),
    ("numeric", "'NaN'", "VARCHAR", "NaN"),
    ("numeric", "'-Infinity'", "VARCHAR", "-Infinity"),
    ("numeric(39,1)", "1.5", "VARCHAR", "1.5"),
    ("money", "'-92233720368547758.08'", "DECIMAL(20,2)", "-92233720368547758.08"),
    ("text", "E'a\\n\\t\\'\"é\\U0001F600'", "VARCHAR", "a\n\t'\"é\U0001f600"),
    ("text", "''", "VARCHAR", ""),
    ("varchar(3)", "'abc'", "VARCHAR", "abc"),
    ("char(5)", "'ab'", "VARCHAR", "ab"),
    ('"char"', "''", "VARCHAR", ""),
    ("name", "'n'", "VARCHAR", "n"),
    ("bytea", "'\\x00ff'", "BLOB", "\\x00\\xFF"),
    ("date", "'infinity'", "DATE", "infinity"),
    ("date", "'4713-01-01 BC'", "DATE", "4713-01-01 (BC)"),
    ("date", "'5874897-12-31'", "DATE", "5874897-12-31"),
    ("timestamp", "'0044-03-15 12:00 BC'", "TIMESTAMP", "0044-03-15 (BC) 12:00:00"),
    ("timestamp", "'-infinity'", "TIMESTAMP", "-infinity"),
    ("timestamp", "'2024-02-29 23:59:59.999999'", "TIMESTAMP", "2024-02-29 23:59:59.999999"),
    ("timestamptz", "'2024-03-31 02:30:00.000001+02'", "TIMESTAMP WITH TIME ZONE", "2024-03-31 00:30:00.000001+00"),
    ("timestamptz", "'infinity'", "TIMESTAMP WITH TIME ZONE", "infinity"),
    ("time", "'24:00'", "TIME", "24:00:00"),
    ("timetz", "'12:34:56.789-15:59:59'", "TIME WITH TIME ZONE", "12:34:56.789-15:59:59"),
    ("interval", "'-178000000 years -5 days -3:04:05.000001'", "INTERVAL", "-178000000 years -5 days -03:04:05.000001"),
    ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "UUID", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("json", """'{"b":  1, "b": 2}'""", "JSON", '{"b":  1, "b": 2}'),
    ("jsonb", """'{"n": 1e400, "d": 0.10}'""", "JSON", '{"d": 0.10, "n": 1' + "0" * 400 + "}"),
    ("inet", "'192.168.0.1'", "VARCHAR", "192.168.0.1"),
    ("inet", "'192.168.0.1/24'", "VARCHAR", "192.168.0.1/24"),
    ("cidr", "'::/0'", "VARCHAR", "::/0"),
    ("macaddr", "'08:00:2b:01:02:03'", "VARCHAR", "08:00:2b:01:02:03"),
    ("bit(3)", "B'101'", "VARCHAR", "101"),
    ("varbit", "B''", "VARCHAR", ""),
    ("oid", "4294967295", "BIGINT", "4294967295"),
    ("pg_lsn", "'16/B374D848'", "VARCHAR", "16/B374D848"),
    ("tsvector", "'a b:3A'", "VARCHAR", "'a' 'b':3A"),
    ("point", "'(1.1,-2)'", "VARCHAR", "(1.1,-2)"),
    ("path", "'((1,2),(3,4))'", "VARCHAR", "((1,2),(3,4))"),
    ("int4range", "'[1,5)'", "VARCHAR", "[1,5)"),
    ("tstzrange", "'[2024-01-01 00:00+00,)'", "VARCHAR", '["2024-01-01 00:00:00+00",)'),
    ("int4multirange", "'{[1,5),[7,9)}'", "VARCHAR", "{[1,5),[7,9)}"),
    ("int4[]", "'{1,NULL,3}'", "INTEGER[]", "[1, NULL, 3]"),
    ("int4[]", "'{}'", "INTEGER[]", "[]"),
    ("int4[][]", "'{{1,2},{3,NULL}}'", "VARCHAR", "{{1,2},{3,NULL}}"),
    ("text[]", """'{a,NULL,"NULL",""}'""", "VARCHAR[]", "[a, NULL, 'NULL', '']"),
    ("numeric(5,2)[]", "'{1.10}'", "DECIMAL(5,2)[]", "[1.10]"),
    ("numeric[]", "'{1.10,NaN}'", "VARCHAR[]", "[1.10, NaN]"),
    ("jsonb[]", """ARRAY['{"a": 1}'::jsonb]""", "JSON[]", '[{"a": 1}]'),
    ("inet[]", "'{1.2.3.4}'", "VARCHAR", "{1.2.3.4}"),
    ("timestamptz[]", "'{infinity,2024-01-01 00:00+00}'", "TIMESTAMP WITH TIME ZONE[]", "[infinity, '2024-01-01 00:00:00+00']"),
    ("bytea[]", "ARRAY['\\x00ff'::bytea, NULL, '']", "BLOB[]", "[\\x00\\xFF, NULL, '']"),
    ("name[]", "'{n,NULL}'", "VARCHAR[]", "[n, NULL]"),
    ("positive[]", "'{7,NULL}'", "INTEGER[]", "[7, NULL]"),
    ("bool[]", "'{t}'", "BOOLEAN[]", "[true]"),
    ("mood", "'so so'", "VARCHAR", "so so"),
    ("mood[]", "'{sad,NULL}'", "VARCHAR[]", "[sad, NULL]"),
    ("positive", "7", "INTEGER", "7"),
    ("cents", "1.25", "DECIMAL(10,2)", "1.25"),
    ("pair", "ROW(1, 'a \"b\"')", "VARCHAR", '(1,"a ""b""")'),
    ("vector", "'[1,2.5]'", "VARCHAR", "[1,2.5]"),
]  # fmt: skip
MADE = [
    "CREATE EXTENSION vector",
    "CREATE TYPE mood AS ENUM ('sad', 'so so', 'glad')",
    "CREATE DOMAIN positive AS int4 CHECK (VALUE > 0)",
    "CREATE DOMAIN cents AS numeric(10,2)",
    "CREATE TYPE pair AS (a int, b text)",
]
LIKE_TABLES = [pytest.param(False, id="table"), pytest.param(True, id="query")]


@pytest.mark.parametrize("as_query", LIKE_TABLES)
def test_every_value_comes_exactly_and_null_stays_null(project, as_query):
    columns = ", ".join(f"c{n} {kind}" for n, (kind, *_) in enumerate(EXACT))
    values = ", ".join(f"{value}::{kind}" for kind, value, *_ in EXACT)
    nulls = ", ".join("NULL" for _ in EXACT)
    project.database.run(
        *MADE, f"CREATE TABLE t (n int, {columns})", f"INSERT INTO t VALUES (1, {values}), (2, {nulls})"
    )
    what = {"query": "SELECT * FROM t WHERE n < 3; "} if as_query else {"table": "t"}
    # The declared dimensions of an array, and the digits of its elements, are known of tables alone.
    unknown = {n for n, (kind, *_) in enumerate(EXACT) if as_query and kind.endswith(("[][]", ")[]"))}
    columns = [n for n in range(len(EXACT)) if n not in unknown]
    project.load(**what, exclude_columns=[f"c{n}" for n in unknown])
    kinds = {row[0]: row[1] for row in project.query("DESCRIBE p.t")}
    shown = ", ".join(f"CAST(c{n} AS VARCHAR)" for n in columns)
    (row,) = project.query(f"SELECT {shown} FROM p.t WHERE n = 1")
    found = [(EXACT[n][0], EXACT[n][1], kinds[f"c{n}"], text) for n, text in zip(columns, row, strict=True)]
    assert found == [EXACT[n] for n in columns]
    (row,) = project.query(f"SELECT {shown} FROM p.t WHERE n = 2")
    assert set(row) == {None}


@pytest.mark.parametrize(
    ("kind", "value", "because"),
    [
        ("numeric(12,2)", "'NaN'", "NaN"),
        ("timestamp", "'294276-12-31 23:59:59.999999'", "after the year 294246"),
        ("timestamptz", "'294247-01-01 00:00+00'", "after the year 294246"),
        ("int4[]", "'{{1,2},{3,4}}'", "several dimensions"),
        ("int4[]", "'[2:3]={1,2}'", "first index is not 1"),
        ("numeric(5,2)[]", "'{1,NaN}'", "element beyond"),
        ("timestamp[]", "'{294276-12-31}'", "element beyond"),
    ],
)
def test_a_value_that_duckdb_cannot_hold_is_named_and_loads_as_text(project, kind, value, because):
    project.database.run(f"CREATE TABLE t (c {kind})", f"INSERT INTO t VALUES ({value}::{kind}), (NULL)")
    error = project.error(table="t")
    assert isinstance(error, SourceFailed)
    assert "the column 'c' holds" in str(error)
    assert str(error).count("public.t: ") == 1
    assert because in str(error)
    project.load(table="t", types={"c": "VARCHAR"})
    ((shown,),) = project.database.run("SELECT c::text FROM t WHERE c IS NOT NULL")
    assert project.query("SELECT c FROM p.t WHERE c IS NOT NULL") == [(shown,)]


@pytest.mark.parametrize(
    ("kind", "value", "declared", "shown"),
    [
        ("numeric", "1.5", "DECIMAL(12,4)", "1.5000"),
        ("numeric", "1.5", "DOUBLE", "1.5"),
        ("int4[]", "'{{1,2},{3,4}}'", "INTEGER[][]", "[[1, 2], [3, 4]]"),
        ("jsonb", """'{"a": 1, "b": "x"}'""", "STRUCT(a INTEGER, b VARCHAR)", "{'a': 1, 'b': x}"),
        ("text", "'7'", "INTEGER", "7"),
        (
            "numeric[]",
            "'{12345678901234567890.123,NULL}'",
            "DECIMAL(38,3)[]",
            "[12345678901234567890.123, NULL]",
        ),
        ("text[]", "'{7,\" 8\"}'", "INTEGER[]", "[7, 8]"),
        (
            "jsonb",
            """'{"a": 12345678901234567890.123, "b": [1, null], "c": null}'""",
            "STRUCT(a DECIMAL(38,3), b HUGEINT[], c STRUCT(d DATE))",
            "{'a': 12345678901234567890.123, 'b': [1, NULL], 'c': NULL}",
        ),
        (
            "json",
            """'{"k-1": [{"d": "2024-01-31"}], "\u00e4": []}'""",
            "MAP(VARCHAR, STRUCT(d DATE)[])",
            "{k-1=[{'d': 2024-01-31}], ä=[]}",
        ),
        (
            "jsonb",
            """'{"a": 12345678901234567890.123, "b": {"n": [12345678901234567890.10, "12", true]}}'""",
            "STRUCT(a VARCHAR, b JSON)",
            """{'a': 12345678901234567890.123, 'b': '{"n":[12345678901234567890.10,"12",true]}'}""",
        ),
        (
            "numeric[]",
            "'{{12345678901234567890.123},{2}}'",
            "DECIMAL(38,3)[][]",
            "[[12345678901234567890.123], [2.000]]",
        ),
        ("timestamp", "'2024-01-01 10:00:00.123'", "TIMESTAMP_MS", "2024-01-01 10:00:00.123"),
    ],
)
def test_a_declared_type_is_the_one_stored(project, kind, value, declared, shown):
    project.database.run(f"CREATE TABLE t AS SELECT {value}::{kind} AS c")
    project.load(table="t", types={"c": declared})
    assert project.query("SELECT CAST(c AS VARCHAR) FROM p.t") == [(shown,)]


def test_a_declared_type_refuses_what_it_cannot_hold(project):
    project.database.run("CREATE TABLE t AS SELECT 1.23456::numeric AS c")
    assert "'1.23456'" in str(project.error(table="t", types={"c": "DECIMAL(12,2)"}))
    assert "'1.23456'" in str(project.error(table="t", numeric_type="DECIMAL(12,2)"))


@pytest.mark.parametrize(
    ("kind", "value", "declared"),
    [("numeric[]", "'{1.5}'", "INTEGER[]"), ("timestamp[]", "'{2024-01-01 10:00}'", "DATE[]"),
     ("timestamp", "'2024-01-01 10:00:00.5'", "TIMESTAMP_S"), ("numeric[]", "'{{1.5},{2}}'", "INTEGER[][]")],
)  # fmt: skip
def test_a_declared_type_changes_no_element_and_no_fraction(project, kind, value, declared):
    project.database.run(f"CREATE TABLE t AS SELECT {value}::{kind} AS c")
    assert f"is no {declared.replace('[]', '')}" in str(project.error(table="t", types={"c": declared}))


@pytest.mark.parametrize(
    ("value", "declared", "said"),
    [
        ('{"a": 1.7}', "STRUCT(a INTEGER)", "'1.7' of column \"c.a\" is no INTEGER"),
        ('{"a": {"b": [1.234]}}', "STRUCT(a STRUCT(b DECIMAL(9,2)[]))", "'1.234' of column \"c.a.b\""),
        ('{"a": 0.5}', "MAP(VARCHAR, BIGINT)", "'0.5' of column \"c\" is no BIGINT"),
        ('{"a": "2024-01-01 10:00"}', "STRUCT(a DATE)", "is no DATE"),
        ('{"a": 1, "b": 2}', "STRUCT(a INTEGER)", 'Object {"a":1,"b":2} has unknown key "b"'),
        ("[[1.5]]", "INTEGER[][]", "'1.5' of column \"c\" is no INTEGER"),
    ],
)
def test_a_declared_type_changes_no_part_of_json(project, value, declared, said):
    project.database.run(f"CREATE TABLE t AS SELECT '{value}'::jsonb AS c")
    assert said in str(project.error(table="t", types={"c": declared}))


def test_a_column_that_is_named_like_our_guard_is_one_like_others(project):
    project.database.run("CREATE TABLE t AS SELECT 7 AS _sqlflow_guard, 1.5::numeric(3,1) AS n")
    project.load(table="t")
    assert project.query("SELECT _sqlflow_guard, CAST(n AS VARCHAR) FROM p.t") == [(7, "1.5")]


def test_text_of_another_encoding_comes_as_it_reads(project, server):
    name = f"{project.database.name}_latin1"
    project.database.run(
        f"CREATE DATABASE {name} ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    )
    connection = server.connect(name)
    connection.set_client_encoding("UTF8")
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t AS SELECT 'é'::text AS c")
    connection.close()
    try:
        project.load(connection=server.url(name), table="t", filters={"c": "é"})
        assert project.query("SELECT c FROM p.t") == [("é",)]
    finally:
        project.database.run(f"DROP DATABASE {name} WITH (FORCE)")


def test_session_defaults_of_the_server_change_nothing(project):
    name = project.database.name
    project.database.run(
        f"ALTER DATABASE {name} SET DateStyle = 'German'",
        f"ALTER DATABASE {name} SET TimeZone = 'Asia/Kolkata'",
        f"ALTER DATABASE {name} SET standard_conforming_strings = off",
        f"ALTER DATABASE {name} SET extra_float_digits = 0",
        f"ALTER DATABASE {name} SET IntervalStyle = 'sql_standard'",
        f"ALTER DATABASE {name} SET bytea_output = 'escape'",
    )
    project.database.run(
        "CREATE TABLE t AS SELECT '[2024-01-31,2024-02-02)'::daterange AS days, 'a\\\\b'::text AS c, "
        "ARRAY['1 day'::interval] AS i, point(0.1::float8 + 0.2::float8, 1) AS p"
    )
    project.load(table="t", filters={"c": "a\\b"})
    assert project.query("SELECT days, c, CAST(i AS VARCHAR), p FROM p.t") == [
        ("[2024-01-31,2024-02-02)", "a\\b", "[1 day]", "(0.30000000000000004,1)")
    ]


@pytest.mark.parametrize(
    ("kind", "value", "declared", "shown"),
    [
        ("bytea", r"'\x00ff2c'", "BLOB", r"\x00\xFF,"),
        ("bytea", "''", "BLOB", ""),
        ("date", "'0044-03-15 BC'", "DATE", "0044-03-15 (BC)"),
        ("timestamp", "'12024-01-01 01:02:03'", "TIMESTAMP", "12024-01-01 01:02:03"),
        ("timestamptz", "'12024-01-01 01:02:03+00'", "TIMESTAMPTZ", "12024-01-01 01:02:03+00"),
        (
            "interval",
            "'-14 months 3 days -04:05:06.789'",
            "INTERVAL",
            "-1 year -2 months 3 days -04:05:06.789",
        ),
    ],
)
def test_a_column_that_is_declared_as_what_it_is_keeps_its_values(project, kind, value, declared, shown):
    project.database.run(f"CREATE TABLE t (c {kind})", f"INSERT INTO t VALUES ({value})")
    project.load(table="t", types={"c": declared})
    assert project.query("SELECT CAST(c AS VARCHAR) FROM p.t") == [(shown,)]
