"""Every type comes exactly, or the load says what cannot and what to set."""

from __future__ import annotations

import pytest

from sqlflow_dagster.errors import SourceFailed

EXACT = [
    ("boolean", "true", "BOOLEAN", "true"),
    ("tinyint", "-128", "TINYINT", "-128"),
    ("tinyint unsigned", "255", "UTINYINT", "255"),
    ("tinyint(1) unsigned", "2", "UTINYINT", "2"),
    ("smallint", "-32768", "SMALLINT", "-32768"),
    ("smallint unsigned", "65535", "USMALLINT", "65535"),
    ("mediumint", "-8388608", "INTEGER", "-8388608"),
    ("mediumint unsigned", "16777215", "UINTEGER", "16777215"),
    ("int", "-2147483648", "INTEGER", "-2147483648"),
    ("int unsigned zerofill", "4294967295", "UINTEGER", "4294967295"),
    ("bigint", "-9223372036854775808", "BIGINT", "-9223372036854775808"),
    ("bigint unsigned", "18446744073709551615", "UBIGINT", "18446744073709551615"),
    ("float", "0.1", "FLOAT", "0.1"),
    ("float", "3.4028234e38", "FLOAT", "3.4028235e+38"),
    ("float", "16777217.0", "FLOAT", "16777216.0"),
    ("double", "5e-324", "DOUBLE", "5e-324"),
    ("double", "0.30000000000000004", "DOUBLE", "0.30000000000000004"),
    ("double", "-1.7976931348623157e308", "DOUBLE", "-1.7976931348623157e+308"),
    ("decimal(12,2)", "-9999999999.99", "DECIMAL(12,2)", "-9999999999.99"),
    ("decimal(12,2) unsigned", "9999999999.99", "DECIMAL(12,2)", "9999999999.99"),
    ("decimal(12,0)", "-999999999999", "DECIMAL(12,0)", "-999999999999"),
    ("decimal(12,0) unsigned", "999999999999", "DECIMAL(12,0)", "999999999999"),
    ("decimal(38,0)", "-99999999999999999999999999999999999999", "DECIMAL(38,0)", "-99999999999999999999999999999999999999"),
    ("decimal(38,38)", "-0.99999999999999999999999999999999999999", "DECIMAL(38,38)", "-.99999999999999999999999999999999999999"),
    ("decimal(65,30)", "-99999999999999999999999999999999999.999999999999999999999999999999", "VARCHAR",
     "-99999999999999999999999999999999999.999999999999999999999999999999"),
    ("decimal(65,0)", "1" + "0" * 64, "VARCHAR", "1" + "0" * 64),
    ("bit(1)", "b'1'", "BOOLEAN", "true"),
    ("bit(12)", "b'101'", "BIT", "000000000101"),
    ("bit(64)", "~0", "BIT", "1" * 64),
    ("year", "1901", "SMALLINT", "1901"),
    ("date", "'0000-01-01'", "DATE", "0001-01-01 (BC)"),
    ("date", "'9999-12-31'", "DATE", "9999-12-31"),
    ("datetime(6)", "'1000-01-01 00:00:00.000001'", "TIMESTAMP", "1000-01-01 00:00:00.000001"),
    ("datetime", "'2024-02-29 23:59:59'", "TIMESTAMP", "2024-02-29 23:59:59"),
    ("timestamp(6) null", "'1970-01-01 00:00:01.000001'", "TIMESTAMP WITH TIME ZONE", "1970-01-01 00:00:01.000001+00"),
    ("timestamp(6) null", "'2038-01-19 03:14:07.999999'", "TIMESTAMP WITH TIME ZONE", "2038-01-19 03:14:07.999999+00"),
    ("time", "'23:59:59'", "TIME", "23:59:59"),
    ("time(6)", "'00:00:00.000001'", "TIME", "00:00:00.000001"),
    ("char(5)", "'ab'", "VARCHAR", "ab"),
    ("varchar(20) character set latin1", "'é'", "VARCHAR", "é"),
    ("varchar(20) character set utf16", "'€\U0001f600'", "VARCHAR", "€\U0001f600"),
    ("varchar(20) collate utf8mb4_bin", "'é€'", "VARCHAR", "é€"),
    ("varchar(200) character set utf8mb4", r"""'a\n\t\'"\\é\U0001f600'""".replace(r"\U0001f600", "\U0001f600"), "VARCHAR", "a\n\t'\"\\é\U0001f600"),
    ("text", "''", "VARCHAR", ""),
    ("longtext character set utf8mb4", "repeat('é', 70000)", "VARCHAR", "é" * 70000),
    ("binary(4)", "'ab'", "BLOB", "ab\\x00\\x00"),
    ("varbinary(10)", "X'00FF'", "BLOB", "\\x00\\xFF"),
    ("longblob", "repeat(X'00', 70000)", "BLOB", "\\x00" * 70000),
    ("enum('a','b''c','')", "'b''c'", "VARCHAR", "b'c"),
    ("set('x','y','z')", "'z,x'", "VARCHAR", "x,z"),
    ("json", """'{"b":  1, "n": 1e400, "d": 0.10}'""", "JSON", '{"b":  1, "n": 1e400, "d": 0.10}'),
    ("point", "ST_GeomFromText('POINT(0.30000000000000004 -1e-300)')", "VARCHAR", "POINT(0.30000000000000004 -1e-300)"),
    ("geometry", "ST_GeomFromText('POLYGON((0 0,1 0,1 1,0 0))')", "VARCHAR", "POLYGON((0 0,1 0,1 1,0 0))"),
    ("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", "UUID", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("inet6", "'::1'", "VARCHAR", "::1"),
]  # fmt: skip
# What the protocol does not say of a query's columns: how wide a bit of text is meant, and what it is.
_TOLD_OTHERWISE = {"boolean": "BOOLEAN", "json": "VARCHAR", "uuid": "VARCHAR"}


@pytest.mark.parametrize("as_query", [False, True], ids=["table", "query"])
def test_every_value_comes_exactly_and_null_stays_null(project, as_query):
    columns = ", ".join(f"c{n} {kind}" for n, (kind, *_) in enumerate(EXACT))
    values = ", ".join(value for _, value, *_ in EXACT)
    nulls = ", ".join("NULL" for _ in EXACT)
    project.database.run(
        "SET time_zone = '+00:00'", f"CREATE TABLE s (n int, {columns})",
        f"INSERT INTO s VALUES (1, {values}), (2, {nulls})",
    )  # fmt: skip
    what = {"query": "SELECT * FROM s WHERE n < 3; "} if as_query else {"table": "s"}
    project.load(**what)
    kinds = {row[0]: row[1] for row in project.query("DESCRIBE p.t")}
    shown = ", ".join(f"CAST(c{n} AS VARCHAR)" for n in range(len(EXACT)))
    (row,) = project.query(f"SELECT {shown} FROM p.t WHERE n = 1")
    found = [(kind, kinds[f"c{n}"], row[n]) for n, (kind, *_) in enumerate(EXACT)]
    wanted = [
        (kind, _TOLD_OTHERWISE.get(kind, there) if as_query else there, text)
        for kind, _, there, text in EXACT
    ]
    assert found == wanted
    (row,) = project.query(f"SELECT {shown} FROM p.t WHERE n = 2")
    assert set(row) == {None}


def test_the_types_of_a_querys_own_expressions_are_kept(project):
    project.database.run(
        "CREATE TABLE s (i int, d decimal(30,2), z date)", "INSERT INTO s VALUES (1, 1.5, NULL)"
    )
    project.load(
        query="SELECT CAST(18446744073709551615 AS UNSIGNED) u, i = 1 b, 1.50 d, 1e0 e, sum(i) s, avg(d) a, "
        "count(*) n, X'00' x, NULL o, max(z) z, TIMESTAMP'2024-01-01 00:00:00.5' t FROM s"
    )
    assert [row[:2] for row in project.query("DESCRIBE p.t")] == [
        ("u", "UBIGINT"), ("b", "INTEGER"), ("d", "DECIMAL(3,2)"), ("e", "DOUBLE"), ("s", "DECIMAL(32,0)"),
        ("a", "DECIMAL(34,6)"), ("n", "BIGINT"), ("x", "BLOB"), ("o", "VARCHAR"), ("z", "DATE"), ("t", "TIMESTAMP"),
    ]  # fmt: skip
    assert project.query("SELECT u, s, CAST(t AS VARCHAR) FROM p.t") == [
        (18446744073709551615, 1, "2024-01-01 00:00:00.5")
    ]


BEYOND = [
("date", "'0000-00-00'", "a date that is none", "`zero_dates`"),
    ("date", "'2024-05-00'", "a date that is none", "`zero_dates`"),
    ("date", "'2024-02-31'", "a date that is none", "`zero_dates`"),
    ("datetime(3)", "'2024-00-10 01:02:03.5'", "a date that is none", "`zero_dates`"),
    ("timestamp null", "'0000-00-00'", "a date that is none", "`zero_dates`"),
    ("time(6)", "'-838:59:59.000001'", "a time beyond those of a day", "INTERVAL"),
    ("time", "'24:00:01'", "a time beyond those of a day", "INTERVAL"),
    ("boolean", "2", "a number other than 0 and 1", "`tinyint1_as_boolean`: false"),
]  # fmt: skip


def test_a_value_that_duckdb_cannot_hold_is_named_and_loads_as_text(project):
    text = ""
    for n, (kind, value, *_) in enumerate(BEYOND):
        project.database.run(
            "SET sql_mode = 'ALLOW_INVALID_DATES'", f"CREATE TABLE s{n} (c {kind})", f"INSERT INTO s{n} VALUES ({value}), (NULL)"
        )  # fmt: skip
        text += (
            project.source(table=f"s{n}").replace("SOURCE my", f"SOURCE my{n}") + f"LOAD t{n} FROM my{n};\n"
        )
        declared = project.source(table=f"s{n}", types={"c": "VARCHAR"})
        text += declared.replace("SOURCE my", f"SOURCE as_text{n}") + f"LOAD u{n} FROM as_text{n};\n"
    project.bench.pipeline(text)
    outcomes = project.bench.run()
    for n, (*_, because, advice) in enumerate(BEYOND):
        error = outcomes[f"t{n}"].error
        assert isinstance(error, SourceFailed)
        assert f"holds {because}" in str(error)
        assert advice in str(error)
        ((shown,),) = project.database.run(f"SELECT CAST(c AS CHAR) FROM s{n} WHERE c IS NOT NULL")
        assert project.query(f"SELECT c FROM p.u{n} WHERE c IS NOT NULL") == [(shown,)]


def test_dates_that_are_none_can_be_null_and_are_counted(project, caplog):
    project.database.run(
        "SET sql_mode = 'ALLOW_INVALID_DATES'",
        "CREATE TABLE s (id int primary key, d date, seen timestamp(6) null)",
        "INSERT INTO s VALUES (1, '0000-00-00', '0000-00-00'), (2, '2024-02-31', '2024-01-01'), (3, '2024-01-01', NULL)",
    )
    options = {"table": "s", "sync_mode": "incremental", "cursor_field": "seen", "primary_key": "id"}
    project.load(**options, zero_dates="null")
    assert project.query("SELECT id, CAST(d AS VARCHAR), CAST(seen AS VARCHAR) FROM p.t ORDER BY id") == [
        (1, None, None), (2, None, "2024-01-01 00:00:00+00"), (3, "2024-01-01", None),
    ]  # fmt: skip
    assert "2 dates of d are none" in caplog.text
    assert "1 dates of seen are none" in caplog.text
    # They have no place by the cursor, and come each time as NULL does.
    assert project.bench.ok()["t"].rows == 3


@pytest.mark.parametrize(
    ("kind", "value", "declared", "shown"),
    [
        ("decimal(65,30)", "1.5", "DECIMAL(12,4)", "1.5000"),
        ("boolean", "7", "TINYINT", "7"),
        ("bit(8)", "5", "VARCHAR", "00000101"),
        ("time(3)", "'-838:59:59.5'", "INTERVAL", "-838:59:59.5"),
        ("varchar(9)", "'7'", "INTEGER", "7"),
        ("json", """'{"a": 1, "b": "x"}'""", "STRUCT(a INTEGER, b VARCHAR)", "{'a': 1, 'b': x}"),
        ("json", "'[[1], null]'", "INTEGER[][]", "[[1], NULL]"),
        (
            "json",
            """'{"a": 12345678901234567890.123}'""",
            "STRUCT(a DECIMAL(38,3))",
            "{'a': 12345678901234567890.123}",
        ),
        ("float", "0.1", "VARCHAR", "0.10000000149011612"),
    ],
)
def test_a_declared_type_is_the_one_stored(project, kind, value, declared, shown):
    project.database.run(f"CREATE TABLE s (c {kind})", f"INSERT INTO s VALUES ({value})")
    project.load(table="s", types={"c": declared})
    assert project.query("SELECT CAST(c AS VARCHAR) FROM p.t") == [(shown,)]


def test_a_declared_type_refuses_what_it_cannot_hold(project):
    project.database.run("CREATE TABLE s (c decimal(65,30))", "INSERT INTO s VALUES (1.23456)")
    assert "'1.234560000000000000000000000000'" in str(project.error(table="s", types={"c": "DECIMAL(12,2)"}))
    assert "'1.234560000000000000000000000000'" in str(project.error(table="s", numeric_type="DECIMAL(12,2)"))


def test_a_declared_type_changes_no_part_of_json(project):
    project.database.run("CREATE TABLE s (c json)", """INSERT INTO s VALUES ('{"a": [1.7]}')""")
    error = project.error(table="s", types={"c": "STRUCT(a INTEGER[])"})
    assert "'1.7' of column \"c.a\" is no INTEGER" in str(error)


def test_an_error_names_its_table_once_and_the_value_as_it_is(project):
    project.database.run("CREATE TABLE s (b boolean, j json)", """INSERT INTO s VALUES (7, '{"a": 1.50}')""")
    assert str(project.error(table="s")).count(f"{project.database.name}.s: ") == 1
    said = str(project.error(table="s", exclude_columns="b", types={"j": "STRUCT(b INTEGER)"}))
    assert 'Object {"a":1.50} has unknown key "a"' in said


def test_small_numbers_are_what_they_are_where_they_are_no_booleans(project):
    project.database.run("CREATE TABLE s (c boolean)", "INSERT INTO s VALUES (0), (2), (-128), (NULL)")
    project.load(table="s", tinyint1_as_boolean=False)
    assert project.query("SELECT c, typeof(c) FROM p.t ORDER BY c NULLS LAST") == [
        (-128, "TINYINT"), (0, "TINYINT"), (2, "TINYINT"), (None, "TINYINT"),
    ]  # fmt: skip


def test_the_zone_of_the_server_moves_no_instant(project):
    server = project.database.server
    project.database.run(
        "CREATE TABLE s (seen timestamp(6), day datetime(6))", "SET time_zone = '-07:00'",
        "INSERT INTO s VALUES ('2024-03-31 02:30:00.000001', '2024-03-31 02:30:00')",
    )  # fmt: skip
    ((before,),) = server.run("SELECT @@global.time_zone")
    server.run("SET GLOBAL time_zone = '+05:30'")
    try:
        project.load(table="s")
        project.load("LOAD u FROM my;", query="SELECT * FROM s")
    finally:
        server.run(f"SET GLOBAL time_zone = '{before}'")
    assert project.query("SELECT CAST(seen AS VARCHAR), CAST(day AS VARCHAR) FROM p.t UNION ALL FROM p.u") == [
        ("2024-03-31 09:30:00.000001+00", "2024-03-31 02:30:00")
    ] * 2  # fmt: skip


def test_a_cell_of_a_hundred_megabytes_comes_whole(project):
    project.database.run(
        "CREATE TABLE s (c longtext)", "INSERT INTO s VALUES (repeat('0123456789', 10000000))"
    )
    project.load(table="s")
    assert project.query("SELECT length(c), md5(c) = md5(repeat('0123456789', 10000000)) FROM p.t") == [
        (100_000_000, True)
    ]
