"""Changed schemas under each policy: what fits is taken exactly, what does not is named."""

import json

import pyarrow as pa
import pytest

from sqlflow_dagster.errors import LoadRefused
from sqlflow_dagster.sql import Sql

APPEND = {"mode": "append"}


@pytest.mark.parametrize(
    ("have", "wanted", "becomes"),
    [
        ("1::INTEGER", "2::BIGINT", "INTEGER"),
        ("1::INTEGER", "3000000000::BIGINT", "BIGINT"),
        ("1::BIGINT", "170141183460469231731687303715884105727::HUGEINT", "HUGEINT"),
        ("1.5::FLOAT", "0.1::DOUBLE", "DOUBLE"),
        ("1.5::DOUBLE", "2::BIGINT", "DOUBLE"),
        ("1::BIGINT", "1.5::DOUBLE", "DOUBLE"),
        ("1.25::DECIMAL(10,2)", "1.2345::DECIMAL(12,4)", "DECIMAL(12,4)"),
        ("12345678.25::DECIMAL(10,2)", "1.2345::DECIMAL(8,4)", "DECIMAL(12,4)"),
        ("1::BIGINT", "1.50::DECIMAL(10,2)", "DECIMAL(21,2)"),
        ("-1::BIGINT", "18446744073709551615::UBIGINT", "HUGEINT"),
        ("DATE '2026-01-01'", "TIMESTAMP '2026-01-01 12:00:00'", "TIMESTAMP"),
        ("TIMESTAMP '2026-01-01'", "DATE '2026-01-02'", "TIMESTAMP"),
        ("TIMESTAMP '2026-01-01'", "'2026-01-01 00:00:00.123456789'::TIMESTAMP_NS", "TIMESTAMP_NS"),
        ("'a'::VARCHAR", "7::BIGINT", "VARCHAR"),
        ("7::BIGINT", "'8'::VARCHAR", "BIGINT"),
        ("NULL::VARCHAR", "8::BIGINT", "VARCHAR"),
        ("NULL::BIGINT", "'x'::VARCHAR", "VARCHAR"),
        ("5::BIGINT", "NULL::VARCHAR", "BIGINT"),
        ("{'a': 1}", "{'a': 1, 'b': 'x'}", "STRUCT(a INTEGER, b VARCHAR)"),
        ("{'a': 1, 'b': 2}", "{'c': 3}", "STRUCT(a INTEGER, b INTEGER, c INTEGER)"),
        ("[1]", "[3000000000]", "BIGINT[]"),
        ("'a'::BLOB", "'b'::VARCHAR", "BLOB"),
        ("'a'::ENUM('a')", "'b'::VARCHAR", "VARCHAR"),
        ("'{}'::JSON", "'[1]'::VARCHAR", "JSON"),
    ],
)
def test_a_type_that_holds_both_is_found(depot, have, wanted, becomes):
    depot.load(f"SELECT {have} AS x", **APPEND)
    done = depot.load(f"SELECT {wanted} AS x", **APPEND)
    assert depot.types()["x"] == becomes
    assert done.total_rows == 2
    expected = {
        v[0]
        for v in depot.query(
            f"SELECT ({have})::{becomes}::VARCHAR UNION ALL SELECT ({wanted})::{becomes}::VARCHAR"
        )
    }
    assert {v[0] for v in depot.query("SELECT x::VARCHAR FROM sales.orders")} == expected


UNLIKE = [
    ("1::BIGINT", "'x'::VARCHAR"),
    ("7::BIGINT", "'007'::VARCHAR"),
    ("9007199254740993::BIGINT", "0.5::DOUBLE"),
    ("TRUE", "1::BIGINT"),
    ("1::BIGINT", "TRUE"),
    ("TIMESTAMP '2026-01-01'", "TIMESTAMPTZ '2026-01-01 00:00:00+00'"),
    ("DATE '2026-01-01'", "'soon'::VARCHAR"),
    ("uuid()", "'x'::VARCHAR"),
    ("{'a': 1}", "'{a: x}'::VARCHAR"),
    ("1::BIGINT", "DATE '2026-01-01'"),
    ("{'a': 1}", "{'a': 'x'}"),
    ("[1]", "['x']"),
    ("MAP {'a': 1}", "{'a': 1}"),
]


@pytest.mark.parametrize(("have", "wanted"), UNLIKE)
@pytest.mark.parametrize("policy", ["guided", "strict"])
def test_values_that_fit_neither_type_are_refused_by_name(depot, have, wanted, policy):
    depot.load(f"SELECT {have} AS x", **APPEND)
    types = depot.types()
    with pytest.raises(LoadRefused, match=r"'x' is .* in the table and "):
        depot.load(f"SELECT {wanted} AS x", schema_policy=policy, **APPEND)
    assert depot.types() == types
    assert depot.query("SELECT count(*) FROM sales.orders") == [(1,)]


@pytest.mark.parametrize(("have", "wanted"), UNLIKE)
def test_permissive_sets_them_aside_with_reason_and_place(depot, have, wanted):
    depot.load(f"SELECT 1 AS id, {have} AS x", **APPEND)
    select = f"SELECT 2 AS id, {wanted} AS x UNION ALL SELECT 3, NULL"
    for _ in range(2):
        done = depot.load(select, schema_policy="permissive", **APPEND)
        assert (done.inserted, done.quarantined) == (1, 1)
    ((reason, place, raw),) = depot.query("SELECT reason, place, raw FROM _sqlflow.quarantine")
    assert reason.startswith("column x is ")
    assert place == "sales.orders row 1"
    assert json.loads(raw)["id"] == 2


@pytest.mark.parametrize(
    ("have", "fitting", "others"),
    [
        ("1::BIGINT", ["6", "-7", "7.0"], ['"x"', "6.5", "true", '{"a": 6}', "[6]", "99999999999999999999", '""', '"007"']),
        ("1.5::DOUBLE", ["6", "0.25", "2.50"], ['"x"', "false", "[1]"]),
        ("1.5::DECIMAL(12,2)", ["6", "0.25"], ['"x"', "0.255"]),
        ("true", ["true", "false"], ["1", '"yes"']),
        ("TIMESTAMP '2026-01-01'", ['"2026-01-02T03:04:05"', '"2026-01-02 03:04:05.250"'], ['"soon"', "5"]),
        ("DATE '2026-01-01'", ['"2026-01-02"'], ['"2026-01-02T03:04:05"', "20260102"]),
        ("{'a': 1::BIGINT, 'b': {'c': 'x'}}", ['{"a": 2}', '{"b": {"c": "y"}, "a": 3}', '{"b": {}}', "{}"],
         ['"x"', '{"a": 1.7}', '{"a": "5"}', '{"z": 1}', "[1]", '{"a": 99999999999999999999}', '{"b": {"c": 1}}']),
        ("[1::BIGINT]", ["[2, 3]", "[]"], ['{"a": 1}', "[1.5]", "5", '["x"]']),
        ("MAP {'k': 1.5::DOUBLE}", ['{"x": 2.5}'], ['{"x": "y"}', "5", '{"x": 9007199254740993}']),
    ],
    ids=["whole", "float", "decimal", "truth", "time", "date", "object", "list", "map"],
)  # fmt: skip
def test_permissive_sets_of_mixed_json_only_the_misfits_aside(depot, have, fitting, others):
    depot.load(f"SELECT {have} AS x", **APPEND)
    select = " UNION ALL ".join(f"SELECT '{text}'::JSON AS x" for text in [*fitting, *others])
    done = depot.load(select, schema_policy="permissive", **APPEND)
    assert (done.inserted, done.quarantined) == (len(fitting), len(others))
    aside = [json.loads(row[0])["x"] for row in depot.query("SELECT raw FROM _sqlflow.quarantine")]
    assert aside == [json.loads(text) for text in others]


@pytest.mark.parametrize("kind", ["VARCHAR", "JSON"])
@pytest.mark.parametrize(
    ("have", "fitting", "others"),
    [
        ("TIMESTAMPTZ", ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.250+02:00", "2026-01-02 03:04:05+00"],
         ["2026-01-02T03:04:05", "soon", "2026-02-30T03:04:05Z", "2026-01-02T03:04:05.0000001Z"]),
        ("TIMESTAMP", ["2026-01-02T03:04:05", "2026-01-02 03:04:05.5"], ["2026-01-02T03:04:05Z", "soon"]),
    ],
    ids=["zoned", "naive"],
)  # fmt: skip
def test_permissive_keeps_times_in_iso_8601_beside_those_that_are_none(depot, kind, have, fitting, others):
    depot.load(f"SELECT '2026-01-01 00:00:00'::{have} AS x", **APPEND)
    texts = [json.dumps(text) if kind == "JSON" else text for text in [*fitting, *others]]
    select = " UNION ALL ".join(f"SELECT '{text}'::{kind} AS x" for text in texts)
    done = depot.load(select, schema_policy="permissive", **APPEND)
    assert (done.inserted, done.quarantined) == (len(fitting), len(others))
    expected = " UNION ALL ".join(f"SELECT '{text}'::{have}" for text in ["2026-01-01 00:00:00", *fitting])
    assert depot.query("SELECT x FROM sales.orders ORDER BY x") == depot.query(f"{expected} ORDER BY 1")


def test_strict_refuses_any_change(depot):
    depot.load("SELECT 1 AS id, 2 AS v", **APPEND)
    for select in ("SELECT 1 AS id", "SELECT 1 AS id, 2 AS v, 3 AS w", "SELECT 1 AS id, 3000000000 AS v"):
        with pytest.raises(LoadRefused, match="strict"):
            depot.load(select, schema_policy="strict", **APPEND)
        with pytest.raises(LoadRefused, match="strict"):
            depot.load(select, schema_policy="strict", mode="replace")
    assert depot.load("SELECT 5::UTINYINT AS v, 1 AS ID", schema_policy="strict", **APPEND).total_rows == 2


def test_a_new_column_is_added_and_a_missing_one_is_null(depot):
    depot.load("SELECT 1 AS id, 2 AS v", **APPEND)
    done = depot.load("SELECT 'x' AS w, 2 AS ID", **APPEND)
    assert done.schema_changes == ("column w was added as VARCHAR",)
    assert depot.query("SELECT id, v, w FROM sales.orders ORDER BY id") == [(1, 2, None), (2, None, "x")]


def test_a_table_that_is_swapped_takes_the_new_types_and_says_so(depot):
    depot.load("SELECT 1 AS id, 2 AS v", mode="replace")
    done = depot.load("SELECT 'x' AS id, 2 AS w", mode="replace")
    assert done.schema_changes == (
        "column w was added as INTEGER",
        "column v is gone",
        "column id changed from INTEGER to VARCHAR",
    )


def test_each_version_of_a_schema_is_kept_once(depot):
    for select in ("SELECT 1 AS id", "SELECT 2 AS id", "SELECT 1 AS id, 2 AS v", "SELECT 1 AS id"):
        depot.load(select, **APPEND)
    found = depot.query("SELECT version, columns FROM _sqlflow.schemas ORDER BY version")
    assert [(version, list(json.loads(columns))) for version, columns in found] == [
        (1, ["id"]),
        (2, ["id", "v"]),
    ]


@pytest.mark.parametrize("mode", ["replace", "append"])
@pytest.mark.parametrize("form", ["scan", "arrow"])
def test_batches_of_one_read_may_differ(depot, mode, form):
    parts = ["SELECT 1.5::DOUBLE AS a, 1 AS b", "SELECT 2::BIGINT AS a, 'x' AS c", "SELECT 3 AS B, NULL AS a"]
    if form == "arrow":
        with depot.warehouse.scratch() as connection:
            parts = [connection.execute(part).to_arrow_table() for part in parts]
    done = depot.load(*parts, mode=mode)
    assert (done.rows_read, done.total_rows) == (3, 3)
    assert depot.query("SELECT a, b, c FROM sales.orders ORDER BY ALL") == [
        (1.5, 1, None),
        (2.0, None, "x"),
        (None, 3, None),
    ]


def test_text_and_numbers_in_batches_of_one_read_are_refused_or_set_aside(depot):
    parts = ("SELECT 1 AS a", "SELECT 'x' AS a UNION ALL SELECT '2'")
    with pytest.raises(LoadRefused, match="'a' is INTEGER"):
        depot.load(*parts, mode="replace")
    done = depot.load(*parts, mode="replace", schema_policy="permissive")
    assert (done.quarantined, done.inserted) == (1, 2)
    assert depot.query("SELECT a FROM sales.orders ORDER BY a") == [(1,), (2,)]


def test_a_column_that_arrow_knows_no_type_of_takes_the_first_one_it_gets(depot):
    depot.load(pa.table({"id": [1], "x": pa.nulls(1)}), **APPEND)
    depot.load(pa.table({"id": [2], "x": ["text"]}), **APPEND)
    assert depot.query("SELECT x FROM sales.orders ORDER BY id") == [(None,), ("text",)]


class Rejects:
    """What a connector says of a scan's bad rows: here, as they are."""

    column = "bad"

    def found(self, rows):
        return iter(rows)

    def unread(self, lines):
        return ((reason, f"{path}:{line}", text) for reason, path, line, text in lines)


def test_bad_rows_and_lines_of_a_file_are_quarantined_with_their_place(depot, tmp_path):
    (tmp_path / "in.csv").write_text("id,v\n1,a\nx,b\n3,c,d\n4,e\n")
    query = (
        "SELECT TRY_CAST(id AS BIGINT) AS id, v, CASE WHEN TRY_CAST(id AS BIGINT) IS NULL THEN"
        " {'reason': 'no id', 'file': 'in.csv', 'fields': id || ',' || v} END AS bad"
        f" FROM read_csv('{tmp_path}/in.csv', auto_detect = false, header = true, columns = {{id: 'VARCHAR', v: 'VARCHAR'}},"
        " store_rejects = true, rejects_table = '_sqlflow_rejects', rejects_scan = '_sqlflow_reject_scans')"
    )
    for _ in range(2):
        done = depot.load(feed=lambda intake: intake.scan(Sql(query), rejects=Rejects()), mode="replace")
        assert (done.rows_read, done.total_rows, done.quarantined) == (2, 2, 2)
    found = depot.query("SELECT reason, place, raw FROM _sqlflow.quarantine ORDER BY place")
    assert found == [
        ("Expected Number of Columns: 2 Found: 3", f"{tmp_path}/in.csv:4", "3,c,d"),
        ("no id", "in.csv", "x,b"),
    ]
    assert depot.query("SELECT * FROM sales.orders ORDER BY 1") == [(1, "a"), (4, "e")]


def test_a_refused_change_is_rolled_back_whole(depot):
    depot.load("SELECT 1 AS id, 2 AS v", **APPEND)
    types = depot.types()
    with pytest.raises(LoadRefused):
        depot.load("SELECT 3000000000 AS id, 'x' AS v, 1 AS w", **APPEND)
    assert depot.types() == types
