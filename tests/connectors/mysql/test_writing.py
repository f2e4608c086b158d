"""An EXPORT's rows stand in MySQL whole and exact, or not at all; what hangs on a table stays."""

from __future__ import annotations

import json

import pytest

from sqlflow_dagster.errors import ExportFailed, NotAllowed, RetryLater

from .test_types import EXACT

# What DuckDB's type does not say, or says otherwise: none of them is lost.
ROUND = [(kind, value) for kind, value, *_ in EXACT if "70000" not in value]


class Exports:
    """A project that exports a query to the database."""

    def __init__(self, project):
        self.project = project
        self.bench = project.bench
        self.run = project.database.run

    def pipeline(self, query, target=None, **options):
        target = target or self.project.database.url
        text = f'EXPORT {query} TO "{target}" OPTIONS {json.dumps({"table": "t", **options})};'
        self.bench.pipeline(text)

    def __call__(self, query, **options):
        self.pipeline(query, **options)
        (outcome,) = self.bench.ok().values()
        return outcome

    def error(self, query, **options):
        self.pipeline(query, **options)
        (outcome,) = self.bench.run().values()
        assert outcome.error is not None
        return outcome.error

    def types(self, table="t"):
        return self.run(
            "SELECT COLUMN_NAME, COLUMN_TYPE FROM information_schema.COLUMNS "
            f"WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '{table}' ORDER BY ORDINAL_POSITION"
        )

    def leftovers(self):
        return self.run(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() "
            "AND TABLE_NAME LIKE '\\_sqlflow%' AND TABLE_NAME <> '_sqlflow_exports'"
        )


@pytest.fixture(params=["ON", "OFF"], ids=["loaded", "inserted"])
def export(project, request):
    """Exports to a server that takes LOAD DATA LOCAL, and to one that does not: there is no other difference."""
    project.database.run(f"SET GLOBAL local_infile = {request.param}")
    yield Exports(project)
    project.database.run("SET GLOBAL local_infile = ON")


def test_all_types_go_to_duckdb_and_back_with_the_same_text(export):
    project = export.project
    columns = ", ".join(f"c{n} {kind}" for n, (kind, _) in enumerate(ROUND))
    values = ", ".join(value for _, value in ROUND)
    project.database.run(
        "SET time_zone = '+00:00'", f"CREATE TABLE s (n int, {columns})",
        f"INSERT INTO s VALUES (1, {values}), (2{', NULL' * len(ROUND)})", "CREATE TABLE back LIKE s",
    )  # fmt: skip
    # The text of a geometry is not one to it, as its bytes are.
    shapes = [f"c{n}" for n, (kind, _) in enumerate(ROUND) if kind in ("point", "geometry")]
    others = ", ".join(["n", *(f"c{n}" for n in range(len(ROUND)) if f"c{n}" not in shapes)])
    project.pipeline(
        f'LOAD t FROM my;\nEXPORT SELECT {others} FROM t TO "{project.database.url}#back" OPTIONS {{"mode": "append"}};',
        table="s",
    )  # fmt: skip
    project.bench.ok()
    same = " AND ".join(f"s.{name} <=> b.{name}" for name in others.split(", "))
    found = project.database.run(f"SELECT b.n FROM s JOIN back AS b ON {same} ORDER BY n")
    if found != [(1,), (2,)]:
        unlike = [
            (kind, project.database.run(f"SELECT s.c{n}, b.c{n} FROM s JOIN back AS b USING (n)"))
            for n, (kind, _) in enumerate(ROUND)
            if project.database.run(f"SELECT 1 FROM s JOIN back AS b USING (n) WHERE NOT s.c{n} <=> b.c{n}")
        ]
        assert unlike == []
    assert found == [(1,), (2,)]


NEW = [
("true", "tinyint(1)", "1"),
    ("'-128'::TINYINT", "tinyint(4)", "-128"),
    ("18446744073709551615::UBIGINT", "bigint(20) unsigned", "18446744073709551615"),
    ("'-170141183460469231731687303715884105728'::HUGEINT", "decimal(39,0)", "-170141183460469231731687303715884105728"),
    ("99999999999999999999999999999999999.999::DECIMAL(38,3)", "decimal(38,3)", "99999999999999999999999999999999999.999"),
    ("5e-324::DOUBLE", "double", "5e-324"),
    ("'0.1'::FLOAT", "float", "0.1"),
    ("'-0'::DOUBLE", "double", "0"),
    ("'101'::BIT", "longtext", "101"),
    ("'x'::ENUM ('x', 'y')", "longtext", "x"),
    ("'00ff'::BLOB", "longblob", "00ff"),
    ("TIMESTAMP_NS '2024-01-01 00:00:01.000001'", "datetime(6)", "2024-01-01 00:00:01.000001"),
    ("TIMESTAMPTZ '2024-01-01 02:00:00.5+02'", "timestamp(6)", "2024-01-01 00:00:00.500000"),
    ("TIME '23:59:59.999999'", "time(6)", "23:59:59.999999"),
    ("DATE '0001-01-01'", "date", "0001-01-01"),
    ("'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::UUID", "char(36)", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("""{'a': 1, 'b': ['x"\\', NULL]}""", "longtext", '{"a":1,"b":["x\\"\\\\",null]}'),
    ("""'{"b":  1}'::JSON""", "longtext", '{"b":  1}'),
    ("""'q''\\ é ✓ "x" ' || chr(10) || chr(13) || chr(9) || chr(1) || chr(0) || '%s'""", "longtext",
 "q'\\ é ✓ \"x\" \n\r\t\x01\0%s"),
    ("NULL", "int(11)", None),
]  # fmt: skip


def test_a_new_table_has_the_nearest_types(export):
    export("SELECT " + ", ".join(f"{value} AS c{n}" for n, (value, *_) in enumerate(NEW)))
    shown = ", ".join(f"CAST(c{n} AS CHAR)" for n in range(len(NEW)))
    (row,) = export.run("SET time_zone = '+00:00'", f"SELECT {shown} FROM t")
    kinds = [kind for _, kind in export.types()]
    found = [(value, kind, text) for (value, *_), kind, text in zip(NEW, kinds, row, strict=True)]
    assert found == NEW


def test_replace_swaps_all_rows_and_an_empty_result_empties_the_table(export):
    export("SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, NULL")
    outcome = export("SELECT 3 AS a, '' AS b")
    assert outcome.rows == 1
    assert outcome.target.endswith(".t")
    assert export.run("SELECT * FROM t") == [(3, "")]
    export("SELECT 3 AS a, '' AS b WHERE false")
    assert export.run("SELECT count(*) FROM t") == [(0,)]
    assert export.leftovers() == []


def test_a_swapped_table_keeps_its_types_indexes_and_defaults(export):
    export.run("CREATE TABLE t (A smallint PRIMARY KEY, b varchar(9) DEFAULT 'x', KEY k (b)) COMMENT 'ours'")
    before = export.run("SHOW CREATE TABLE t")
    export("SELECT 7 AS a, 'y' AS B")
    assert export.run("SHOW CREATE TABLE t") == before
    assert export.run("SELECT * FROM t") == [(7, "y")]


def test_a_replaced_table_keeps_the_columns_that_it_makes_itself(export):
    export.run(
        "CREATE TABLE t (a int PRIMARY KEY, twice int AS (a * 2) STORED, thrice int AS (a * 3) VIRTUAL)"
    )
    before = export.run("SHOW CREATE TABLE t")
    export("SELECT 2 AS a")
    assert export.run("SELECT * FROM t") == [(2, 4, 6)]
    assert export.run("SHOW CREATE TABLE t") == before


def test_a_table_with_triggers_or_foreign_keys_is_filled_in_place(export):
    export.run(
        "CREATE TABLE t (a int PRIMARY KEY)", "CREATE TABLE log (a int)", "INSERT INTO t VALUES (1)",
        "CREATE TABLE child (a int, FOREIGN KEY (a) REFERENCES t (a))",
        "CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW INSERT INTO log VALUES (NEW.a)",
    )  # fmt: skip
    export("SELECT 2 AS a")
    assert export.run("SELECT t.a, log.a FROM t, log") == [(2, 2)]
    export.run("INSERT INTO child VALUES (2)")
    assert "foreign key constraint fails" in str(export.error("SELECT 3 AS a"))
    assert export.run("SELECT a FROM t") == [(2,)]


def test_a_table_that_keeps_its_history_keeps_it_when_replaced(export):
    export.run(
        "CREATE TABLE t (a int, b int, s timestamp(6) AS ROW START, e timestamp(6) AS ROW END,"
        " PERIOD FOR SYSTEM_TIME (s, e)) WITH SYSTEM VERSIONING",
        "INSERT INTO t (a) VALUES (1)",
    )  # fmt: skip
    export("SELECT 2 AS a")
    assert export.run("SELECT a FROM t") == [(2,)]
    assert export.run("SELECT a FROM t FOR SYSTEM_TIME ALL ORDER BY a") == [(1,), (2,)]


def test_append_adds_rows_and_columns_that_are_left_out_have_their_defaults(export):
    export.run(
        "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, a int, b varchar(9) DEFAULT 'x', g int AS (a * 2))"
    )
    for number in (1, 2):
        export(f"SELECT {number} AS A", mode="append")
    assert export.run("SELECT a, b, g FROM t ORDER BY a") == [(1, "x", 2), (2, "x", 4)]
    assert "MySQL makes the column g itself" in str(export.error("SELECT 1 AS a, 2 AS g", mode="append"))
    assert "the table has no column z" in str(export.error("SELECT 1 AS z", mode="append"))


def test_values_that_look_like_others_are_stored_as_they_are(export):
    export.run(
        "CREATE TABLE t (id int AUTO_INCREMENT PRIMARY KEY, e enum('1','it''s','a\\\\b','é'), s set('x','y'), y year)"
    )  # fmt: skip
    export(
        """SELECT * FROM (VALUES (0, '1', 'y,x', 0), (5, 'it''s', '', 2069), (6, 'a\\b', 'x', 1901), (7, 'é', NULL, NULL))
        AS t(id, e, s, y)""",
        mode="append",
    )
    assert export.run("SELECT * FROM t ORDER BY id") == [
        (0, "1", "x,y", 0), (5, "it's", "", 2069), (6, "a\\b", "x", 1901), (7, "é", None, None),
    ]  # fmt: skip


def test_a_timestamp_that_is_declared_may_be_null(export):
    export("SELECT NULL::TIMESTAMP AS at", types={"at": "timestamp"})
    assert export.run("SELECT at FROM t") == [(None,)]


def test_an_append_that_is_tried_again_in_one_run_adds_its_rows_once(export):
    from sqlflow_dagster.connectors.base import Place
    from sqlflow_dagster.connectors.mysql import MySQL
    from sqlflow_dagster.connectors.options import parse

    options = parse(MySQL.sink_options_type, {"table": "t", "mode": "append"})[0]
    for once in ("run-1", "run-1", "run-2"):
        place = Place(export.bench.root, export.bench.root / ".sqlflow/spool", once=once)
        MySQL.write(_Rows(export), export.project.database.url, options, place)
    assert export.run("SELECT count(*) FROM t") == [(2,)]


class _Rows:
    """One row, as the warehouse hands it on."""

    columns = {"a": "INTEGER"}  # noqa: RUF012

    def __init__(self, export):
        self.export = export

    def copy_to(self, path, options, columns=None):
        import duckdb

        with duckdb.connect() as connection:
            connection.execute(
                f"COPY (SELECT {columns} FROM (SELECT 1::INTEGER AS a)) TO '{path}' ({options})"
            )
        return 1


def upsert(export, *rows, **options):
    values = ", ".join(rows)
    return export(
        f"SELECT * FROM (VALUES {values}) AS t(id, v)", mode="upsert", **{"keys": "ID", **options}
    )  # fmt: skip


def test_upsert_makes_a_table_with_its_key_and_merges_by_it(export):
    upsert(export, "(1, 'a')", "(2, 'b')")
    upsert(export, "(2, 'B')", "(3, NULL)")
    assert export.run("SELECT * FROM t ORDER BY id") == [(1, "a"), (2, "B"), (3, None)]
    assert "Duplicate entry" not in str(upsert(export, "(3, 'x')"))


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE t (v varchar(9), id int)",
        "CREATE TABLE t (v varchar(9), id int, UNIQUE (id))",
        "CREATE TABLE t (v varchar(9), id int PRIMARY KEY, other int UNIQUE DEFAULT 5)",
    ],
    ids=["no index", "unique with nulls", "another unique index"],
)
def test_upsert_merges_whatever_indexes_there_are(export, made):
    export.run(made, "INSERT INTO t (id, v) VALUES (1, 'a')")
    upsert(export, "(1, 'A')")
    assert export.run("SELECT id, v FROM t") == [(1, "A")]
    if "other" in made:
        assert "Duplicate entry '5'" in str(
            export.error("SELECT 2 AS id, 'b' AS v", mode="upsert", keys="id")
        )
    else:
        upsert(export, "(NULL::INT, 'n')", "(2, 'b')")
        upsert(export, "(NULL::INT, 'N')", "(2, 'B')")
        assert export.run("SELECT id, v FROM t ORDER BY id") == [(None, "N"), (1, "A"), (2, "B")]


def test_text_keys_are_told_apart_by_their_bytes_in_a_table_of_ours(export):
    upsert(export, "('a', '1')", "('A', '2')", "('a ', '3')", "('á', '4')")
    assert export.run("SELECT count(*) FROM t") == [(4,)]
    export.run(
        "DROP TABLE t", "CREATE TABLE t (id varchar(9) PRIMARY KEY, v text) COLLATE utf8mb4_general_ci"
    )
    error = export.error(
        "SELECT * FROM (VALUES ('a', 'x'), ('A', 'y')) AS t(id, v)", mode="upsert", keys="id"
    )
    assert "more than once" in str(error)
    assert export.run("SELECT count(*) FROM t") == [(0,)]


UNFIT = [
    ("smallint", "40000", "Out of range value for column 'c'"),
    ("tinyint unsigned", "-1", "Out of range value for column 'c'"),
    ("int", "1.5", "is int(11) there, which cannot hold 1.5 as it is"),
    ("decimal(5,2)", "1.005", "is decimal(5,2) there, which cannot hold 1.005"),
    ("decimal(5,2)", "1000.00", "Out of range value for column 'c'"),
    ("float", "0.1::DOUBLE", "is float there, which cannot hold 0.1"),
    ("double", "9007199254740993", "is double there, which cannot hold 9007199254740993"),
    ("double", "'nan'::DOUBLE", "which cannot hold nan"),
    ("varchar(3)", "'abcd'", "is varchar(3) there, which cannot hold abcd"),
    ("varchar(3)", "'ab   '", "is varchar(3) there, which cannot hold ab   "),
    ("varchar(9) character set latin1", "'✓'", "Incorrect string value"),
    ("int", "'7x'", "is int(11) there, which cannot hold 7x"),
    ("decimal(65,3)", "'1.2345'", "is decimal(65,3) there, which cannot hold 1.2345"),
    ("double", "'7'", "is double there, and VARCHAR in the query: CAST it"),
    ("date", "TIMESTAMP '2024-01-01 10:00'", "is date there, which cannot hold 2024-01-01 10:00:00"),
    ("date", "DATE '9999-12-31' + 1", "is date there, which cannot hold 10000-01-01"),
    ("datetime", "TIMESTAMP '2024-01-01 10:00:00.5'", "is datetime there, which cannot hold"),
    ("timestamp null", "TIMESTAMP '2040-01-01 00:00:00'", "Incorrect datetime value"),
    ("datetime(6)", "'infinity'::TIMESTAMP", "which cannot hold infinity"),
    ("time", "TIME '10:00:00.5'", "is time there, which cannot hold"),
    ("enum('x')", "'y'", "is enum('x') there, which cannot hold y"),
    ("enum('x','it''s')", "1", "which cannot hold 1"),
    ("enum('x')", "'1'", "which cannot hold 1"),
    ("enum('x')", "'X'", "which cannot hold X"),
    ("set('x','y')", "'3'", "is set('x','y') there, which cannot hold 3"),
    ("set('x','y')", "'x,Y'", "which cannot hold x,Y"),
    ("year", "69", "is year(4) there, which cannot hold 69"),
    ("year", "'70'", "which cannot hold 70"),
    ("timestamp not null default current_timestamp", "NULL::TIMESTAMP", "makes the present time of NULL"),
    ("json", "'{'", "CONSTRAINT"),
    ("binary(4)", "'ab'::BLOB", "is binary(4) there, which cannot hold ab"),
    ("int not null", "NULL::INT", "Column 'c' cannot be null"),
]  # fmt: skip


def test_a_value_that_a_column_cannot_hold_is_named_and_nothing_is_stored(export):
    text = ""
    for number, (column, value, _) in enumerate(UNFIT):
        export.run(f"CREATE TABLE t{number} (n int PRIMARY KEY, c {column})")
        # What decides is the same in every mode.
        mode = ("replace", "append", "upsert")[number % 3]
        options = {"table": f"t{number}", "mode": mode, **({"keys": "n"} if mode == "upsert" else {})}
        url = export.project.database.url
        text += f'EXPORT SELECT 1 AS n, {value} AS c TO "{url}" OPTIONS {json.dumps(options)};\n'
    export.bench.pipeline(text)
    errors = [str(outcome.error) for outcome in export.bench.run().values()]
    assert len(errors) == len(UNFIT)
    silent = [
        (case, error)
        for case, error in zip(UNFIT, errors, strict=True)
        if case[2] not in error or "nothing was stored" not in error
    ]
    assert silent == []
    stored = " UNION ALL ".join(f"SELECT n FROM t{number}" for number in range(len(UNFIT)))
    assert export.run(stored) == []
    assert export.leftovers() == []


NESTED = """{'j': '{"a": 12345678901234567890.123456, "b": 1.10}'::JSON, 'f': 0.1::FLOAT}"""
NUMBERS = {"j": {"a": "12345678901234567890.123456", "b": "1.10"}, "f": "0.1"}


def test_numbers_inside_nested_values_are_written_as_they_stand(export):
    query = (
        f"SELECT {NESTED} AS s, MAP {{'k': {NESTED}}} AS m, [{NESTED}, NULL] AS l, NULL::STRUCT(j JSON) AS n"
    )
    export(query)
    row = export.run("SELECT s, m, l, n FROM t")[0]
    told = [value and json.loads(value, parse_float=str, parse_constant=pytest.fail) for value in row]
    assert told == [NUMBERS, {"k": NUMBERS}, [NUMBERS, None], None]


@pytest.mark.parametrize(
    ("when", "mode", "told"),
    [
        ("BEFORE INSERT", "append", True),
        ("BEFORE INSERT", "replace", True),
        ("BEFORE UPDATE", "upsert", True),
        ("BEFORE UPDATE", "append", False),
    ],
)
def test_what_may_change_rows_on_their_way_is_told(export, caplog, when, mode, told):
    export.run(
        "CREATE TABLE t (k int PRIMARY KEY, v int)",
        f"CREATE TRIGGER x {when} ON t FOR EACH ROW SET NEW.v = NEW.v * 100",
    )
    export("SELECT 1 AS k, 2 AS v", mode=mode, **({"keys": "k"} if mode == "upsert" else {}))
    assert (".t: the trigger x may change what is stored" in caplog.text) is told


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"mode": "upsert", "keys": "nix"}, ExportFailed, "the query gives no column nix"),
        ({"port": 1, "max_retries": 0}, RetryLater, "Connection refused"),
        ({"username": "reader", "password": "CANARY-5f0c"}, NotAllowed, "GRANT SELECT, INSERT"),
        ({"create": False}, ExportFailed, "there is no such table, and `create` is false"),
        ({"table": "v"}, ExportFailed, "it is no table"),
        ({"types": {"nix": "int"}}, ExportFailed, "gives no column nix"),
        ({"table": "m", "mode": "append"}, ExportFailed, "engine MyISAM has no transactions"),
    ],
    ids=lambda value: str(value)[:24],
)  # fmt: skip
def test_what_is_wrong_with_an_export_is_said(export, options, kind, message):
    export.run("CREATE VIEW v AS SELECT 1 AS a", "CREATE TABLE m (a int) ENGINE = MyISAM")
    target = export.project.database.url
    export.bench.pipeline(
        f'EXPORT SELECT 1 AS a TO "{target}" OPTIONS {json.dumps({"table": "t", **options})};'
    )
    (outcome,) = export.bench.run().values()
    assert isinstance(outcome.error, kind), outcome.error
    assert message in str(outcome.error)


def test_an_export_makes_the_database_that_its_table_is_in(export):
    name = f"{export.project.database.name}_mart"
    profile = {
        "connectors": {"mart": {"type": "MARIADB", "params": {"connection": export.project.database.url}}}
    }
    export.bench.write("profiles/dev.yml", json.dumps(profile))
    export.bench.pipeline(
        f'EXPORT SELECT 1 AS "a`b", 2 AS "select" TO mart OPTIONS {{"table": "{name}.\\"T `x\\""}};'
    )
    try:
        export.bench.ok()
        assert export.run(f"SELECT `a``b`, `select` FROM {name}.`T ``x`") == [(1, 2)]
    finally:
        export.run(f"DROP DATABASE {name}")


def test_readers_see_the_old_rows_until_the_new_ones_are_all_there(export):
    export("SELECT 1 AS a")
    reader = export.project.database.connect(autocommit=False)
    with reader.cursor() as cursor:
        cursor.execute("SELECT a FROM t")
        error = export.error("SELECT 2 AS a", lock_timeout_seconds=1, max_retries=0)
        assert isinstance(error, RetryLater)
        cursor.execute("SELECT a FROM t")
        assert cursor.fetchall() == ((1,),)
    reader.rollback()
    assert export.leftovers() == []
    export("SELECT 2 AS a")
    assert export.run("SELECT a FROM t") == [(2,)]


def test_a_row_larger_than_the_server_takes_is_refused(export):
    export("SELECT 1 AS a, 'x' AS b")
    export.run("SET GLOBAL max_allowed_packet = 1048576")
    try:
        error = export.error("SELECT 2 AS a, repeat('x', 2000000) AS b")
    finally:
        export.run("SET GLOBAL max_allowed_packet = 268435456")
    assert "SET GLOBAL max_allowed_packet" in str(error)
    assert export.run("SELECT * FROM t") == [(1, "x")]
