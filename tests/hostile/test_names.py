"""Odd names of columns are only names, or are refused; nothing is renamed or lost in silence."""

import pyarrow as pa
import pytest

from sqlflow_dagster.connectors.base import Arrow, JsonLines
from sqlflow_dagster.errors import LoadRefused, SQLFlowError

from .conftest import arrow

ODD = {
    "quotes": "a\"b'c`d",
    "unicode": "größe ✓ 数量",
    "emoji": "🙂",
    "right-to-left": "كمية",
    "combining": "e\u0301",
    "reserved": "select",
    "star": "*",
    "dotted": "a.b.c",
    "blanks": "  two  words ",
    "braces": "{columns} {{x}} $1",
    "comment": "a -- b /* c",
    "statement": "a; DROP TABLE x",
    "two-hundred": "n" * 200,
    "ours": "_sqlflow_row",
    "provenance": "_sqlflow_file",
    "path": "_sqlflow_path",
    "rowid": "rowid",
    "batch": "batch",
    "alias-r": "r",
    "alias-s": "s",
    "alias-t": "t",
    "table": "_sqlflow_rows",
    "percent": "100%",
    "backslash": "a\\b",
    "number": "1",
    "null": "NULL",
    "dollar": "$1",
}


REFUSED = {"empty": "", "nul": "a\0b", "newline": "a\nb"}


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def page(names, *values):
    """A SELECT of one row: `id`, `ts`, and the same value under each of the names."""
    first, second, third = values
    odd = "".join(f", {third} AS {quoted(name)}" for name in names)
    return f"SELECT {first} AS id, {second} AS ts{odd}"


def test_odd_names_are_only_names(each_kind):
    names = list(ODD.values())
    given = {"sync_mode": "incremental", "cursor_field": "ts", "primary_key": "id"}
    each_kind.ok(page(names, 1, 1, 10), page(names, 2, 2, 20), page(names, 2, 2, 21), **given)
    each_kind.ok(page(names, 2, 3, 22), page(names, 3, 3, 30), page(names, 3, 3, 31), **given)
    assert list(each_kind.types()) == ["id", "ts", *names]
    assert [(row[0], row[1], set(row[2:])) for row in each_kind.rows()] == [
        (1, 1, {10}),
        (2, 3, {22}),
        (3, 3, {31}),
    ]


def test_odd_names_may_be_the_key(each_kind):
    names = list(ODD.values())
    given = {"primary_key": names, "destination_sync_mode": "append_dedup"}
    each_kind.ok(page(names, 1, 1, 1), page(names, 2, 1, 1), page(names, 1, 1, 2), **given)
    each_kind.ok(page(names, 3, 1, 1), page(names, 1, 1, 3), page(names, 2, 1, 3), **given)
    assert [row[:3] for row in each_kind.rows()] == [(1, 1, 2), (2, 1, 3), (3, 1, 1)]


@pytest.mark.parametrize("name", ["quotes", "unicode", "dotted", "braces", "rowid", "alias-t", "statement"])
def test_an_odd_name_may_be_the_cursor(hostile, name):
    select = f"SELECT {{}} AS v, {{}} AS {quoted(ODD[name]).replace('{', '{{').replace('}', '}}')}"
    given = {"sync_mode": "incremental", "cursor_field": ODD[name]}
    hostile.ok(select.format(1, 1), select.format(2, 2), **given)
    outcome = hostile.ok(select.format(9, 1), select.format(3, 2), select.format(4, 3), **given)
    assert hostile.rows() == [(1, 1), (3, 2), (4, 3)]
    assert outcome.cursor_after.value == "3"


@pytest.mark.parametrize("names", [*({name} for name in REFUSED.values())], ids=REFUSED)
def test_a_name_that_duckdb_cannot_hold_is_refused_and_the_table_stays(hostile, names):
    (name,) = names
    hostile.ok("SELECT 1 AS a")
    for batch in (arrow(["a", name], [1], [2]), JsonLines([b'{"a": 1}\n'], {"a": "BIGINT", name: "BIGINT"})):
        error = hostile.load(batch).error
        assert isinstance(error, SQLFlowError)
        assert "rename" in str(error)
        assert "s.data" in str(error)
    assert hostile.rows() == [(1,)]


@pytest.mark.parametrize("names", [["a", "A"], ["a", "a"]], ids=["case", "twice"])
def test_names_that_duckdb_does_not_tell_apart_are_refused(hostile, names):
    hostile.ok("SELECT 1 AS a")
    error = hostile.load(arrow(names, [1], [2])).error
    assert isinstance(error, LoadRefused)
    assert "a" in str(error)
    assert hostile.rows() == [(1,)]


def test_names_that_differ_in_an_accent_or_its_case_are_two(each_kind):
    each_kind.ok(
        'SELECT 1 AS "É", 2 AS "é", 3 AS "ss", 4 AS "ß"', 'SELECT 5 AS "É", 6 AS "é", 7 AS "ss", 8 AS "ß"'
    )
    assert each_kind.rows() == [(1, 2, 3, 4), (5, 6, 7, 8)]


def test_no_columns_are_refused(hostile):
    hostile.ok("SELECT 1 AS a")
    for batch in (Arrow(pa.table({}).to_reader()), JsonLines([b"{}\n"], {})):
        error = hostile.load(batch).error
        assert isinstance(error, LoadRefused)
        assert "no columns" in str(error)
    assert hostile.rows() == [(1,)]


def test_ten_thousand_columns(each_kind):
    names = [f"c{number}" for number in range(10_000)]
    each_kind.ok("SELECT " + ", ".join(f"{n} AS {name}" for n, name in enumerate(names)))
    assert list(each_kind.types()) == names
    assert each_kind.rows("SELECT c0, c9999 FROM p.t") == [(0, 9999)]


def test_a_row_set_aside_keeps_its_text_whatever_its_columns_are_called(hostile):
    odd = 'SELECT {} AS rowid, 7 AS r, 8 AS "_sqlflow_row", 9 AS "_sqlflow_place"'
    hostile.ok(
        odd.format("1::BIGINT"), odd.format("'x'"), odd.format("2::BIGINT"), schema_policy="permissive"
    )
    assert hostile.rows("SELECT rowid FROM p.t ORDER BY 1") == [(1,), (2,)]
    ((reason, place, raw),) = hostile.rows("SELECT reason, place, raw FROM _sqlflow.quarantine")
    assert reason == "column rowid is BIGINT and the value is not: x"
    assert place == "s.data row 1"
    assert raw == '{"rowid":"x","r":7,"_sqlflow_row":8,"_sqlflow_place":9}'


@pytest.mark.parametrize(
    ("kind", "file", "text"),
    [
        ("CSV", "rows.csv", "Ä,ä,straße,STRASSE\n1,2,3,4\n"),
        ("JSONL", "rows.jsonl", '{"Ä": 1, "ä": 2, "straße": 3, "STRASSE": 4}\n'),
    ],
)
def test_names_are_alike_where_duckdb_says_so_and_nowhere_else(bench, kind, file, text):
    bench.write(f"data/{file}", text)
    bench.pipeline(f'SOURCE s TYPE {kind} PARAMS {{"path": "data/{file}"}};\nLOAD t FROM s;\n')
    bench.ok()
    assert bench.query('SELECT "Ä", "ä", "straße", "STRASSE" FROM p.t') == [(1, 2, 3, 4)]
