"""Values and types that change between pages and between reads: exact, widened, set aside or refused."""

import pytest

from sqlflow_dagster.errors import LoadRefused, SourceFailed

UPSERT = {"primary_key": "id", "destination_sync_mode": "append_dedup"}


@pytest.mark.parametrize(
    ("pages", "kind", "values"),
    [
        (["1::TINYINT", "300::SMALLINT", "5000000000::BIGINT"], "BIGINT", ["1", "300", "5000000000"]),
        (["5000000000::BIGINT", "1::TINYINT"], "BIGINT", ["5000000000", "1"]),
        (["1.5::DECIMAL(4,1)", "2.25::DECIMAL(4,2)"], "DECIMAL(5,2)", ["1.50", "2.25"]),
        (["NULL", "'x'"], "VARCHAR", [None, "x"]),
        (["18446744073709551615::UBIGINT", "1::UTINYINT"], "UBIGINT", ["18446744073709551615", "1"]),
        (
            ["99999999999999999999999999999999999999::DECIMAL(38,0)", "1::DECIMAL(38,0)"],
            "DECIMAL(38,0)",
            ["99999999999999999999999999999999999999", "1"],
        ),
        (
            ["'2026-01-01 00:00:00.123456789'::TIMESTAMP_NS"],
            "TIMESTAMP_NS",
            ["2026-01-01 00:00:00.123456789"],
        ),
        (["{'a': {'b': [1, NULL]}}"], "STRUCT(a STRUCT(b INTEGER[]))", ["{'a': {'b': [1, NULL]}}"]),
    ],
    ids=["wider", "narrower", "decimals", "null-first", "uint64", "decimal-38", "nanoseconds", "nested"],
)
def test_types_that_change_between_pages_lose_no_digit(hostile, pages, kind, values):
    for form in ("scan", "arrow"):
        hostile.kind = form
        hostile.ok(*(f"SELECT {n} AS id, {value} AS v" for n, value in enumerate(pages)))
        assert hostile.types()["v"] == kind
        assert [v for (v,) in hostile.rows("SELECT v::VARCHAR FROM p.t ORDER BY id")] == values


@pytest.mark.parametrize("policy", ["strict", "guided", "permissive"])
def test_a_value_of_another_kind_is_set_aside_or_refused(each_kind, policy):
    good, bad = "SELECT 1 AS id, 10 AS v", "SELECT 2 AS id, 'ten' AS v"
    each_kind.ok(good, **UPSERT)
    outcome = each_kind.load(good, bad, schema_policy=policy, **UPSERT)
    assert each_kind.rows() == [(1, 10)]
    if policy != "permissive":
        assert isinstance(outcome.error, LoadRefused)
        assert "'v'" in str(outcome.error)
        return
    assert outcome.error is None
    assert outcome.quarantined == 1
    ((raw,),) = each_kind.rows("SELECT raw FROM _sqlflow.quarantine")
    assert "ten" in raw


@pytest.mark.parametrize(
    ("then", "columns"),
    [
        ("SELECT 2 AS id, 20 AS v, 'new' AS w", ["id", "v", "w"]),
        ("SELECT 2 AS id", ["id", "v"]),
        ("SELECT 2 AS id, 20000000000 AS v", ["id", "v"]),
    ],
    ids=["added", "dropped", "widened"],
)
@pytest.mark.parametrize("policy", ["strict", "guided", "permissive"])
def test_a_changed_schema_is_what_the_policy_says(hostile, policy, then, columns):
    hostile.ok("SELECT 1 AS id, 10 AS v", **UPSERT)
    outcome = hostile.load(then, schema_policy=policy, **UPSERT)
    if policy == "strict":
        assert isinstance(outcome.error, LoadRefused)
        assert list(hostile.types()) == ["id", "v"]
        assert hostile.rows() == [(1, 10)]
        return
    assert outcome.error is None
    assert list(hostile.types()) == columns
    assert hostile.rows("SELECT id FROM p.t ORDER BY 1") == [(1,), (2,)]


def test_a_secret_is_in_no_repr_and_in_neither_memory(hostile):
    hostile.ok("SELECT 1 AS id", password="hunter2-canary")
    outcome = hostile.load(SourceFailed("login failed"), password="hunter2-canary")
    assert "hunter2" not in repr(outcome)
    assert "hunter2" not in str(hostile.bench.shelf.values)
    assert b"hunter2" not in (hostile.bench.root / "data/warehouse.duckdb").read_bytes()
