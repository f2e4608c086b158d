"""An EXPORT's rows stand in Postgres whole and exact, or not at all; what hangs on a table stays."""

from __future__ import annotations

import json
import re

import pytest

from sqlflow_dagster.errors import BadOption, ExportFailed, NotAllowed, PipelineError, RetryLater


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


@pytest.fixture
def export(project):
    return Exports(project)


@pytest.mark.parametrize(
    ("value", "kind", "shown"),
    [
        ("1::TINYINT", "smallint", "1"),
        ("255::UTINYINT", "smallint", "255"),
        ("65535::USMALLINT", "integer", "65535"),
        ("4294967295::UINTEGER", "bigint", "4294967295"),
        ("18446744073709551615::UBIGINT", "numeric(20,0)", "18446744073709551615"),
        ("'-170141183460469231731687303715884105728'::HUGEINT", "numeric", "-170141183460469231731687303715884105728"),
        ("'101'::BIT", "bit varying", "101"),
        ("'x'::ENUM ('x', 'y')", "text", "x"),
        ("TIMESTAMP_S '2024-01-01 00:00:01'", "timestamp without time zone", "2024-01-01 00:00:01"),
        ("TIMESTAMP_NS '2024-01-01 00:00:01.000001'", "timestamp without time zone", "2024-01-01 00:00:01.000001"),
        ("""{'a': 1, 'b': ['x"', NULL]}""", "jsonb", '{"a": 1, "b": ["x\\"", null]}'),
        ("MAP {'k': 1.5}", "jsonb", '{"k": 1.5}'),
        ("""'{"b": 1, "a": 2}'::JSON""", "jsonb", '{"a": 2, "b": 1}'),
        ("[1.5::DECIMAL(5,2), NULL]", "numeric(5,2)[]", "{1.50,NULL}"),
        ("""['a,"b\\', NULL, 'NULL', '']""", "text[]", '{"a,\\"b\\\\",NULL,"NULL",""}'),
        ("[[1, 2], [3, 4]]", "jsonb", "[[1, 2], [3, 4]]"),
        ("[1::HUGEINT]", "numeric[]", "{1}"),
        ("[255::UTINYINT, NULL]", "smallint[]", "{255,NULL}"),
        ("[TIMESTAMP_MS '2024-01-01 00:00:01.5']", "timestamp without time zone[]", '{"2024-01-01 00:00:01.5"}'),
        ("0.3::DECIMAL(38,38)", "numeric(38,38)", f"0.3{'0' * 37}"),
        ("-9.9999999999999999999999999999999999999::DECIMAL(38,37)", "numeric(38,37)", f"-9.{'9' * 37}"),
        ("NULL", "integer", None),
    ],
)  # fmt: skip
def test_a_new_table_has_the_nearest_types(export, value, kind, shown):
    export(f"SELECT {value} AS c")
    types = export.run(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum = 1"
    )
    assert types == [(kind,)]
    assert export.run("SELECT c::text FROM t") == [(shown,)]


NESTED = """{'j': '{"a": 12345678901234567890.123456, "b": 1.10}'::JSON, 'f': 0.1::FLOAT}"""
NUMBERS = {"j": {"a": "12345678901234567890.123456", "b": "1.10"}, "f": "0.1"}


def test_numbers_inside_nested_values_are_written_as_they_stand(export):
    query = (
        f"SELECT {NESTED} AS s, MAP {{'k': {NESTED}}} AS m, [{NESTED}, NULL] AS l, NULL::STRUCT(j JSON) AS n"
    )
    export(query, types=dict.fromkeys("smln", "json"))
    row = export.run("SELECT s::text, m::text, l::text, n::text FROM t")[0]
    told = [value and json.loads(value, parse_float=str, parse_constant=pytest.fail) for value in row]
    assert told == [NUMBERS, {"k": NUMBERS}, [NUMBERS, None], None]


def test_types_of_a_new_table_may_be_said(export):
    export(
        """SELECT '{"b":  1}'::JSON AS j, 'x' AS v, 1 AS n""",
        types={"j": "json", "v": "varchar(3)", "n": "numeric(10,2)"},
    )
    assert export.run("SELECT j::text, v, n FROM t") == [('{"b":  1}', "x", 1)]


@pytest.mark.parametrize(
    ("declared", "value", "message"),
    [
        ("varchar(2)", "'abc'", r"value too long for type character varying\(2\)"),
        ("CHAR(2)", "'abc'", r"value too long for type character\(2\)"),
        ("int", "1.5", "its column 'c' is integer, which cannot hold '1.5'"),
        ("decimal(4,1)", "1.25", "which cannot hold '1.25'"),
        (
            "timestamptz(0)",
            "TIMESTAMPTZ '2024-01-01 00:00:00.6+00'",
            "which cannot hold '2024-01-01 00:00:00.6",
        ),
        ("nix", "1", 'type "nix" does not exist'),
    ],
)
def test_a_type_that_is_said_in_other_words_changes_no_value(export, declared, value, message):
    assert re.search(message, str(export.error(f"SELECT {value} AS c", types={"C": declared})))
    assert export.run("SELECT to_regclass('t')") == [(None,)]


def test_json_that_is_said_in_capitals_keeps_its_text(export):
    export("""SELECT '{"b":  1, "b": 2}'::JSON AS j""", types={"j": "JSON"})
    assert export.run("SELECT j::text FROM t") == [('{"b":  1, "b": 2}',)]


def test_replace_swaps_all_rows_and_an_empty_result_empties_the_table(export):
    export("SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, NULL")
    outcome = export("SELECT 3 AS a, '' AS b")
    assert (outcome.rows, outcome.target) == (1, outcome.target)
    assert outcome.target.endswith("#public.t")
    assert export.run("SELECT * FROM t") == [(3, "")]
    export("SELECT 3 AS a, '' AS b WHERE false")
    assert export.run("SELECT count(*) FROM t") == [(0,)]


def test_a_swapped_table_keeps_grants_indexes_defaults_and_comments(export):
    export.run(
        "CREATE TABLE t (a int PRIMARY KEY, b text DEFAULT 'd' CHECK (b <> 'bad'), c int)",
        "CREATE UNIQUE INDEX b_index ON t (lower(b)) WHERE a > 0", 'CREATE INDEX "C i" ON t (c)',
        "GRANT SELECT ON t TO reader", "GRANT INSERT ON t TO reader WITH GRANT OPTION", "GRANT SELECT ON t TO PUBLIC",
        "COMMENT ON TABLE t IS 'it''s mine'", "INSERT INTO t VALUES (1, 'old', 1)",
    )  # fmt: skip
    before = described(export)
    export("SELECT 2 AS a, 'new' AS B, 3 AS c")
    after = described(export)
    assert after.pop("oid") != before.pop("oid")
    assert after == before
    assert export.run("SELECT * FROM t") == [(2, "new", 3)]
    assert isinstance(export.error("SELECT 2 AS a, 'bad' AS b, 3 AS c"), ExportFailed)
    assert export.run("SELECT * FROM t") == [(2, "new", 3)]


def test_a_swapped_table_grants_nothing_that_the_old_one_did_not(export):
    export.run(
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO reader",
        "CREATE TABLE t (a int)",
        "REVOKE ALL ON t FROM reader",
    )
    before = described(export)
    export("SELECT 2 AS a")
    after = described(export)
    assert after.pop("oid") != before.pop("oid")
    assert export.run("SELECT has_table_privilege('reader', 't', 'SELECT')") == [(False,)]
    assert after == before


def described(export):
    return {
        "oid": export.run("SELECT 't'::regclass::oid"),
        "indexes": export.run("SELECT indexdef FROM pg_indexes WHERE tablename = 't' ORDER BY 1"),
        "grants": export.run("SELECT relacl::text, relowner, obj_description(oid) FROM pg_class WHERE relname = 't'"),
        "constraints": export.run("SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 't'::regclass ORDER BY 1"),
        "defaults": export.run("SELECT pg_get_expr(adbin, adrelid) FROM pg_attrdef WHERE adrelid = 't'::regclass"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "hangs",
    [
        ["CREATE VIEW v AS SELECT a FROM t"],
        ["CREATE TABLE child (a int REFERENCES t (a) DEFERRABLE INITIALLY DEFERRED)", "INSERT INTO child VALUES (2)"],
        ["CREATE SEQUENCE s OWNED BY t.a", "ALTER TABLE t ALTER a SET DEFAULT nextval('s')"],
        ["CREATE PUBLICATION pub FOR TABLE t"],
        ["CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'", "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()"],
        ["ALTER TABLE t SET (fillfactor = 50)"],
        ["CREATE TABLE log (a int)", "CREATE RULE r AS ON UPDATE TO t DO ALSO INSERT INTO log VALUES (1)"],
        ["CREATE TYPE pair AS (a int, b text)", "ALTER TABLE t OF pair"],
        ["CREATE PUBLICATION pub FOR ALL TABLES"],
        ["CREATE FUNCTION f() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM t; END"],
        ["CREATE STATISTICS s (dependencies) ON a, b FROM t"],
        ["ALTER TABLE t ALTER a SET (n_distinct = 5)"],
        ["ALTER TABLE t ALTER a SET STATISTICS 500"],
        ["ALTER TABLE t CLUSTER ON t_pkey"],
    ],
    ids=[
        "view", "foreign key", "sequence", "publication", "trigger", "settings", "rule", "type", "all published",
        "function", "statistics", "distinct", "target", "cluster",
    ],
)  # fmt: skip
def test_what_hangs_on_a_table_is_as_before_it_was_replaced(export, hangs):
    export.run(
        "CREATE TABLE t (a int PRIMARY KEY, b text)", "INSERT INTO t VALUES (1, 'old'), (2, 'old')", *hangs
    )
    before = export.run("SELECT 't'::regclass::oid")
    export("SELECT 2 AS a, 'new' AS b")
    assert export.run("SELECT 't'::regclass::oid") == before
    assert export.run("SELECT * FROM t") == [(2, "new")]


_DROPS = (
    "CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS"
    " 'BEGIN IF NEW.k = 2 THEN RETURN NULL; END IF; RETURN NEW; END'"
)


@pytest.mark.parametrize("value", ["1", "1::TINYINT"], ids=["straight", "by casts"])
@pytest.mark.parametrize(
    "hangs",
    [
        [_DROPS, "CREATE TRIGGER drops BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION drops()"],
        ["CREATE RULE drops AS ON INSERT TO t WHERE NEW.k = 2 DO INSTEAD NOTHING"],
    ],
    ids=["trigger", "rule"],
)
@pytest.mark.parametrize(
    "options",
    [{"mode": "append"}, {"mode": "replace"}, {"mode": "upsert", "keys": "k"}],
    ids=["append", "replace", "upsert"],
)
def test_rows_that_the_table_keeps_out_are_an_error(export, options, hangs, value):
    export.run("CREATE TABLE t (k int, v int)", "INSERT INTO t VALUES (7, 7)", *hangs)
    query = f"SELECT k::INT AS k, {value} AS v FROM range(1, 4) AS r(k)"
    if "RULE" in hangs[0] and value == "1" and options["mode"] != "upsert":
        # COPY asks no rule: all rows are stored.
        export(query, **options)
        assert export.run("SELECT k FROM t WHERE k < 7 ORDER BY k") == [(1,), (2,), (3,)]
        return
    error = export.error(query, **options)
    assert isinstance(error, ExportFailed)
    assert "kept 1 of 3 rows out" in str(error)
    assert export.run("SELECT * FROM t") == [(7, 7)]


CHANGES = "CREATE FUNCTION changes() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := NEW.v * 100; RETURN NEW; END'"


@pytest.mark.parametrize(
    ("hangs", "mode", "told"),
    [
        (
            "TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION changes()",
            "append",
            "the trigger x may",
        ),
        (
            "TRIGGER x BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION changes()",
            "replace",
            "the trigger x may",
        ),
        (
            "TRIGGER x BEFORE INSERT ON t_1 FOR EACH ROW EXECUTE FUNCTION changes()",
            "append",
            "the trigger x may",
        ),
        (
            "TRIGGER x BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION changes()",
            "upsert",
            "the trigger x may",
        ),
        ("TRIGGER x BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION changes()", "append", ""),
        ("TRIGGER x AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION changes()", "append", ""),
        ("RULE x AS ON INSERT TO t DO ALSO UPDATE t SET v = 7", "append", "the rule x may"),
    ],
)
def test_what_may_change_rows_on_their_way_is_told(export, caplog, hangs, mode, told):
    export.run(
        "CREATE TABLE t (k int PRIMARY KEY, v int) PARTITION BY RANGE (k)",
        "CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (0) TO (100)",
        CHANGES,
        f"CREATE {hangs}",
    )
    export("SELECT 1 AS k, 2 AS v", mode=mode, **({"keys": "k"} if mode == "upsert" else {}))
    assert ("may change what is stored" in caplog.text) is bool(told)
    assert told in caplog.text


def test_updates_that_a_trigger_keeps_out_are_an_error_unless_they_change_nothing(export):
    export.run(
        "CREATE TABLE t (k int PRIMARY KEY, v int)", "INSERT INTO t VALUES (1, 1), (2, 2)",
        "CREATE TRIGGER same BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    )  # fmt: skip
    export("SELECT 1 AS k, 1 AS v UNION ALL SELECT 2, 3 UNION ALL SELECT 4, 4", mode="upsert", keys="k")
    assert export.run("SELECT * FROM t ORDER BY k") == [(1, 1), (2, 3), (4, 4)]
    export.run(_DROPS, "CREATE TRIGGER drops BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION drops()")
    error = export.error("SELECT 1 AS k, 5 AS v UNION ALL SELECT 2, 5", mode="upsert", keys="k")
    assert "kept 1 of 2 rows out" in str(error)
    assert export.run("SELECT * FROM t ORDER BY k") == [(1, 1), (2, 3), (4, 4)]


def test_rows_that_a_table_keeps_are_not_doubled_by_replace(export):
    export.run(
        "CREATE TABLE t (k int)", "INSERT INTO t VALUES (1)", "CREATE RULE keeps AS ON DELETE TO t DO INSTEAD NOTHING"
    )  # fmt: skip
    assert "kept rows from being deleted" in str(export.error("SELECT 2 AS k"))
    assert export.run("SELECT k FROM t") == [(1,)]


def test_a_replaced_table_leaves_those_that_inherit_from_it_alone(export):
    export.run("CREATE TABLE t (k int)", "CREATE TABLE child () INHERITS (t)", "INSERT INTO child VALUES (1)")
    export("SELECT 2 AS k")
    export("SELECT 3 AS k")
    assert export.run("SELECT tableoid::regclass::text, k FROM t ORDER BY k") == [("child", 1), ("t", 3)]
    export.run("CREATE TABLE p (k int) PARTITION BY LIST (k)", "CREATE TABLE p1 PARTITION OF p DEFAULT")
    for k in (4, 5):
        export(f"SELECT {k} AS k", table="p")
    assert export.run("SELECT k FROM p") == [(5,)]


def test_rows_that_a_trigger_moves_into_a_table_under_this_one_are_stored(export):
    export.run(
        "CREATE TABLE t (k int)", "CREATE TABLE child () INHERITS (t)",
        "CREATE FUNCTION moves() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO child VALUES (NEW.k); RETURN NULL; END'",
        "CREATE TRIGGER moves BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION moves()",
    )  # fmt: skip
    for value in ("1", "2::TINYINT"):
        export(f"SELECT {value} AS k", mode="append")
    assert export.run("SELECT tableoid::regclass::text, k FROM t ORDER BY k") == [("child", 1), ("child", 2)]
    assert "kept 1 of 1 rows out" in str(export.error("SELECT 3 AS k"))


def test_a_replaced_table_keeps_the_columns_that_it_makes_itself(export):
    export.run("CREATE TABLE t (a int PRIMARY KEY, twice int GENERATED ALWAYS AS (a * 2) STORED)")
    before = described(export)
    export("SELECT 2 AS a")
    assert export.run("SELECT * FROM t") == [(2, 4)]
    assert {**described(export), "oid": before["oid"]} == before


def test_replace_with_other_columns_makes_the_table_anew(export, caplog):
    export.run(
        "CREATE TABLE t (a int PRIMARY KEY, gone text DEFAULT 'x' CHECK (gone <> ''))",
        "INSERT INTO t VALUES (1, 'x')",
        "COMMENT ON COLUMN t.a IS 'its number'",
        "GRANT SELECT ON t TO reader",
    )
    export("SELECT 2 AS a, 'new' AS b")
    assert export.run("SELECT * FROM t") == [(2, "new")]
    gone = "NOT NULL of a, the check t_gone_check, the comment on a, the default of gone, the index t_pkey"
    assert f"with the old ones went {gone}" in caplog.text
    assert export.run("SELECT has_table_privilege('reader', 't', 'SELECT')") == [(True,)]
    export.run("CREATE VIEW v AS SELECT a FROM t")
    assert "the table has no column c; add it there" in str(export.error("SELECT 2 AS a, 'new' AS b, 1 AS c"))


@pytest.mark.parametrize(
    "query", ["SELECT 7 AS v, 1 AS id", "SELECT 7::BIGINT AS v, 1 AS id", "SELECT NULL AS id, 1 AS v"]
)
def test_what_a_replaced_table_refuses_is_told_by_its_own_name(export, query):
    export.run("CREATE TABLE t (id int NOT NULL, v int CHECK (v < 5))")
    said = str(export.error(query))
    assert "public.t" in said
    assert "violates" in said
    assert "_sqlflow" not in said


@pytest.mark.parametrize("value", ["'x' || chr(0)", "['x' || chr(0)]", "MAP {'k': 'x' || chr(0)}"])
def test_a_text_with_nul_is_refused_by_its_column(export, value):
    said = str(export.error(f"SELECT 'x' AS a, {value} AS b"))
    assert 'the column "b" holds a text with a NUL' in said or "column b" in said
    assert "pg_null_byte_replacement" not in said


def test_append_adds_the_rows_once_a_run(export):
    export.pipeline("SELECT 1 AS a", mode="append")
    export.bench.ok(run_id="one")
    export.bench.ok(run_id="one")
    assert export.run("SELECT count(*) FROM t") == [(1,)]
    export.bench.ok(run_id="two")
    assert export.run("SELECT count(*) FROM t") == [(2,)]


def test_append_fills_defaults_and_refuses_what_the_table_has_not(export):
    export.run("CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, a int, at text DEFAULT 'd')")
    export('SELECT 1 AS "A"', mode="append")
    assert export.run("SELECT * FROM t") == [(1, 1, "d")]
    assert "the table has no column nix" in str(export.error("SELECT 1 AS nix", mode="append"))
    assert "Postgres makes the column id itself" in str(export.error("SELECT 1 AS id, 2 AS a", mode="append"))


@pytest.mark.parametrize("unique", [True, False], ids=["unique index", "no index"])
def test_upsert_merges_by_key_and_leaves_other_columns(export, unique):
    export.run(
        f"CREATE TABLE t (k int {'UNIQUE' if unique else ''}, v text, mine text DEFAULT 'd')",
        "INSERT INTO t VALUES (1, 'old', 'kept'), (2, 'old', 'kept')",
    )
    export("SELECT 2 AS K, 'new' AS v UNION ALL SELECT 3, 'new'", mode="upsert", keys="k")
    assert export.run("SELECT * FROM t ORDER BY k") == [
        (1, "old", "kept"),
        (2, "new", "kept"),
        (3, "new", "d"),
    ]


def test_upsert_makes_a_table_with_its_key_and_null_keys_match(export):
    export("SELECT 1 AS k, 'a' AS v", mode="upsert", keys=["k"])
    assert export.run(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 't'::regclass"
    ) == [("PRIMARY KEY (k)",)]
    export.run("CREATE TABLE n (k int UNIQUE, v text)")
    for v in "ab":
        export(f"SELECT NULL::INT AS k, '{v}' AS v", table="n", mode="upsert", keys=["k"])
    assert export.run("SELECT * FROM n") == [(None, "b")]
    twice = export.error("SELECT 1 AS k, 'a' AS v UNION ALL SELECT 1, 'b'", mode="upsert", keys="k")
    assert "the query gives the key 1 more than once" in str(twice)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("char(3)", ["x", "x "]),
        ("timestamptz", ["2024-01-01 00:00+00", "2024-01-01 01:00+01"]),
        ("inet", ["10.0.0.1", "10.0.0.1/32"]),
    ],
)
@pytest.mark.parametrize("unique", ["", "PRIMARY KEY"], ids=["no key", "key"])
def test_keys_that_are_one_in_the_table_are_told_as_one(export, key, values, unique):
    export.run(f"CREATE TABLE t (k {key} {unique}, v text)")
    rows = ", ".join(f"('{value}', {n})" for n, value in enumerate(values))
    error = export.error(f"SELECT * FROM (VALUES {rows}) AS v (k, v)", mode="upsert", keys="k")
    assert "more than once" in str(error)
    assert export.run("SELECT * FROM t") == []


def test_a_key_with_blanks_at_its_end_is_found_again_in_a_char_column(export):
    export.run("CREATE TABLE t (k char(3), v text)", "INSERT INTO t VALUES ('x', 'old')")
    export("SELECT 'x ' AS k, 'new' AS v", mode="upsert", keys="k")
    assert export.run("SELECT * FROM t") == [("x  ", "new")]


def test_rows_that_are_hidden_from_the_user_are_not_left_by_replace(export):
    export.run(
        "CREATE TABLE t (a int)",
        "INSERT INTO t VALUES (1), (2)",
        "GRANT ALL ON t TO reader",
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON t USING (a > 1)",
    )
    reader = {"username": "reader", "password": "CANARY-5f0c"}
    error = export.error("SELECT 3 AS a", **reader)
    assert isinstance(error, ExportFailed)
    assert "row-level security hides rows" in str(error)
    assert export.run("SELECT a FROM t ORDER BY 1") == [(1,), (2,)]


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("int", "3000000000", "its column 'c' is integer: integer out of range"),
        ("int", "1.5::DECIMAL(3,1)", "its column 'c' is integer, which cannot hold '1.5' as it is"),
        ("numeric(4,1)", "1.25::DECIMAL(5,2)", "which cannot hold '1.25'"),
        ("numeric(4,1)", "'1.25'", "which cannot hold '1.25'"),
        ("varchar(2)", "'abc'", r"value too long for type character varying\(2\).*column c"),
        ("varchar(2)", "'a   '", r"character varying\(2\), which cannot hold so many blanks"),
        ("varchar(2)[]", "['abc']", r"is character varying\(2\)\[\], which cannot hold '{abc}'"),
        ("char(2)[]", "['abc']", "which cannot hold '{abc}'"),
        ("name", "repeat('x', 64)", "is name, which cannot hold 'xxx"),
        ('"char"', "'ab'", "which cannot hold 'ab'"),
        ("short", "'abc'", "is short, which cannot hold 'abc'"),
        ("short[]", "['abc']", r"is short\[\], which cannot hold '{abc}'"),
        ("inner_part", "1.25::DECIMAL(5,2)", "is inner_part, which cannot hold '1.25'"),
        ("bit(3)", "'10101'::BIT", r"is bit\(3\), which cannot hold '10101'"),
        ("bit(3)", "'1'", r"is bit\(3\), which cannot hold '1'"),
        ("interval(0)", "INTERVAL '1.6 seconds'", "which cannot hold '00:00:01.6'"),
        ("timestamp", "'2024-01-01 10:00:00+05'", "without time zone, which cannot hold '2024-01-01 10:00:00\\+05'"),
        ("date", "'2024-01-01 10:00'", "is date, which cannot hold '2024-01-01 10:00'"),
        ("time", "'10:00:00+05'", "without time zone, which cannot hold '10:00:00\\+05'"),
        ("timestamp", "'2024-01-01 10:00:00.123456789'", r"cannot hold '2024-01-01 10:00:00\.123456789'"),
        ("timestamptz", "'2024-01-01 10:00:00.0000001Z'", r"cannot hold '2024-01-01 10:00:00\.0000001Z'"),
        ("date", "'2024-01-01 00:00:00.0000001'", "which cannot hold '2024-01-01 00:00:00"),
        ("timestamp[]", "['2024-01-01 10:00:00.1234567']", "which cannot hold '{"),
        ("interval", "'1.1234567 seconds'", "is interval, which cannot hold '1.1234567 seconds'"),
        ("time", "'10:00:00.0000001'", r"which cannot hold '10:00:00\.0000001'"),
        ("time", "'2024-01-01 10:00'", "which cannot hold '2024-01-01 10:00'"),
        ("timetz", "'2024-01-01 10:00+02'", "which cannot hold '2024-01-01 10:00"),
        ("time[]", "['10:00', '2024-01-01 10:00']", "which cannot hold '{"),
        ("money", "'1.555'", "is money, which cannot hold '1.555'"),
        ("money[]", "['1.50', '1.555']", "which cannot hold '{"),
        ("mood", "'angry'", "its column 'c' is mood: invalid input value for enum mood"),
        ("date", "TIMESTAMP '2024-01-01 00:00:01'", "its column 'c' is date, which cannot hold '2024-01-01 00:00:01'"),
        ("inet", "'x'", "invalid input syntax for type inet"),
        ("text", "chr(0)", "column .c. holds a text with a NUL"),
        ("timestamp", "TIMESTAMP '4800-01-01 (BC) 00:00:00'", "before 4714 BC"),
        ("timestamp", "TIMESTAMP_NS '2024-01-01 00:00:00.000000001'", "has nanoseconds"),
        ("timestamp[]", "[TIMESTAMP '4800-01-01 (BC) 00:00:00']", "before 4714 BC"),
        ("timestamptz[]", "[NULL, TIMESTAMPTZ '290309-12-22 (BC) 00:00:00+00']", "before 4714 BC"),
        ("timestamp[]", "[TIMESTAMP_NS '2024-01-01 00:00:00.000000001']", "has nanoseconds"),
        ("jsonb", "{'a': 'NaN'::DOUBLE}", 'Token "NaN" is invalid.*column c'),
        ("boolean", "5", "is boolean, which cannot hold '5'"),
        ("boolean[]", "[1, 5]", "which cannot hold '{"),
        ("bit(3)", "9", r"is bit\(3\), which cannot hold '9'"),
        ("time", "INTERVAL '25 hours'", "which cannot hold '25:00:00'"),
        ("real", "'16777217'", "is real, which cannot hold '16777217'"),
        ("double precision", "'0.123456789012345678901'", "is double precision, which cannot hold '0.1234"),
        ("double precision[]", "['1', '9007199254740993']", "which cannot hold '{"),
        ("int NOT NULL", "NULL::INT", "violates not-null constraint"),
        ("int CHECK (c > 0)", "-1", "violates check constraint"),
    ],
)  # fmt: skip
def test_a_value_that_the_table_cannot_hold_is_named_and_nothing_stored(export, column, value, message):
    # The one way adds to the table, the other makes a new one; what is checked is the same.
    mode = "append" if len(value) % 2 else "replace"
    export.run(
        "CREATE TYPE mood AS ENUM ('sad')", "CREATE DOMAIN short AS varchar(2)",
        "CREATE DOMAIN part AS numeric(4,1)", "CREATE DOMAIN inner_part AS part", f"CREATE TABLE t (n int, c {column})",
    )  # fmt: skip
    export.run(
        "INSERT INTO t (n, c) SELECT 0, NULL WHERE NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 't'::regclass AND attnotnull AND attnum > 0)"
    )
    before = export.run("SELECT count(*) FROM t")
    error = export.error(f"SELECT 1 AS n, {value} AS c", mode=mode)
    assert isinstance(error, ExportFailed)
    assert re.search(message, str(error))
    assert export.run("SELECT count(*) FROM t") == before
    assert export.run("SELECT count(*) FROM pg_class WHERE relname LIKE '_sqlflow_new%'") == [(0,)]


@pytest.mark.parametrize(
    ("kind", "text", "shown"),
    [
        ("timestamp", "2024-01-01 10:00:00.1234560", "2024-01-01 10:00:00.123456"),
        ("time", "10:00", "10:00:00"),
        ("time", "10:00:00.5 PM", "22:00:00.5"),
        ("time", "040506.25", "04:05:06.25"),
        ("timetz", "10:00:00+05:30", "10:00:00+05:30"),
        ("timetz", "10:00 UTC", "10:00:00+00"),
        ("interval", "1 day 02:03:04.500000", "1 day 02:03:04.5"),
        ("money", "$1,234.50", "$1,234.50"),
        ("money", "-7", "-$7.00"),
        ("money", "0", "$0.00"),
        ("real", "0.1", "0.1"),
        ("real", "-1.5e-3", "-0.0015"),
        ("double precision", "0.30000000000000004", "0.30000000000000004"),
        ("double precision", "-Infinity", "-Infinity"),
        ("double precision", "nan", "NaN"),
    ],
)
def test_a_text_that_a_column_holds_whole_is_taken(export, kind, text, shown):
    export.run(f"CREATE TABLE t (c {kind})")
    export(f"SELECT '{text}' AS c", mode="append")
    assert export.run("SELECT c::text FROM t") == [(shown,)]


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("boolean", "1", "true"),
        ("boolean", "0", "false"),
        ("bit(3)", "5", "101"),
        ("time", "INTERVAL '13 hours'", "13:00:00"),
    ],
)
def test_a_value_that_a_column_holds_whole_is_taken(export, kind, value, shown):
    export.run(f"CREATE TABLE t (c {kind})")
    export(f"SELECT {value} AS c", mode="append")
    assert export.run("SELECT c::text FROM t") == [(shown,)]


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"mode": "upsert", "keys": "nix"}, ExportFailed, "the query gives no column nix"),
        ({"port": 1, "max_retries": 0}, RetryLater, "Connection refused"),
        ({"username": "reader", "password": "CANARY-5f0c"}, NotAllowed, "GRANT INSERT"),
        ({"database": "nix"}, BadOption, 'database "nix" does not exist'),
        ({"create": False}, ExportFailed, "there is no such table, and `create` is false"),
        ({"table": "v"}, ExportFailed, "it is no table"),
        ({"types": {"nix": "int"}}, ExportFailed, "gives no column nix"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_export_is_said(export, options, kind, message):
    export.run("CREATE VIEW v AS SELECT 1 AS a")
    target = export.project.database.url
    export.bench.pipeline(
        f'EXPORT SELECT 1 AS a TO "{target}" OPTIONS {json.dumps({"table": "t", **options})};'
    )
    (outcome,) = export.bench.run().values()
    assert isinstance(outcome.error, kind), outcome.error
    assert message in str(outcome.error)


@pytest.mark.parametrize(
    ("fragment", "table", "stored"), [("t", "t", True), ("t", "public.t", True), ("t", "u", False)]
)
def test_a_table_that_is_named_twice_is_one_or_refused(export, fragment, table, stored):
    export.bench.pipeline(
        f'EXPORT SELECT 1 AS a TO "{export.project.database.url}#{fragment}" OPTIONS {{"table": "{table}"}};'
    )
    if not stored:
        with pytest.raises(PipelineError, match="table: the target names t, and this u"):
            export.bench.run()
        return
    (outcome,) = export.bench.run().values()
    assert outcome.error is None


def test_an_export_goes_to_a_connector_of_the_profile(export):
    profile = {
        "connectors": {"mart": {"type": "POSTGRES", "params": {"connection": export.project.database.url}}}
    }
    export.bench.write("profiles/dev.yml", json.dumps(profile))
    export.bench.pipeline('EXPORT SELECT 1 AS a TO mart OPTIONS {"table": "sales.\\"T x\\""};')
    export.bench.ok()
    assert export.run('SELECT * FROM sales."T x"') == [(1,)]


def test_readers_see_the_old_rows_until_the_new_ones_are_all_there(export):
    export("SELECT 1 AS a")
    reader = export.project.database.connect()
    reader.autocommit = False
    with reader.cursor() as cursor:
        cursor.execute("SELECT a FROM t")
        error = export.error("SELECT 2 AS a", lock_timeout_seconds=0.2, max_retries=0)
        assert isinstance(error, RetryLater)
        cursor.execute("SELECT a FROM t")
        assert cursor.fetchall() == [(1,)]
    reader.rollback()
    export("SELECT 2 AS a")
    assert export.run("SELECT a FROM t") == [(2,)]


@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_connection_that_is_dead_at_the_commit_is_tried_again_later(export, monkeypatch, mode):
    from sqlflow_dagster.connectors import postgres_sink

    export("SELECT 1 AS n", mode=mode)

    def terminate(name):
        if name == "before_export_commit":
            export.run(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND state = 'idle in transaction'"
            )

    with monkeypatch.context() as patched:
        patched.setattr(postgres_sink, "failpoint", terminate)
        error = export.error("SELECT 2 AS n", mode=mode)
    assert isinstance(error, RetryLater)
    assert export.run("SELECT n FROM t") == [(1,)]
    export("SELECT 2 AS n", mode=mode)
    assert export.run("SELECT n FROM t ORDER BY n") == ([(1,), (2,)] if mode == "append" else [(2,)])
