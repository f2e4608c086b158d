"""JSON and JSONL files → typed rows, their numbers digit by digit."""

import datetime as dt
import gzip
import json
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqlflow_dagster.errors import ProjectError, SourceFailed


def test_records_are_read_from_arrays_lines_and_objects(folder):
    for text in (
        '[{"a": 1}, {"a": 2}]',
        '{"a": 1}\n{"a": 2}\n',
        '{\n "a": 1\n}\n{"a": 2}',
        '\ufeff[{"a":1},{"a":2}]',
    ):
        folder.write("a.json", text)
        assert folder.rows("JSON", path="a.json") == [(1,), (2,)]


def test_text_stays_text_and_times_are_times(folder):
    folder.write(
        "a.jsonl",
        '{"zip": "00123", "n": "5", "d": "2024-01-31", "us": "01/02/2024", "t": "2024-01-31T08:00:00Z"}\n',
    )
    result = folder.read("JSONL", path="a.jsonl")
    assert result.columns == {
        "zip": "VARCHAR",
        "n": "VARCHAR",
        "d": "DATE",
        "us": "VARCHAR",
        "t": "TIMESTAMP WITH TIME ZONE",
    }
    assert result.rows[0][4].astimezone(dt.UTC) == dt.datetime(2024, 1, 31, 8, tzinfo=dt.UTC)


def test_a_field_that_only_the_last_record_has_is_a_column(folder):
    folder.write("a.jsonl", '{"a": 1, "s": {"x": 1}}\n' * 30_000 + '{"a": 2, "s": {"y": 2}, "late": "x"}\n')
    result = folder.read("JSONL", path="a.jsonl")
    assert result.columns == {"a": "BIGINT", "s": "STRUCT(x BIGINT, y BIGINT)", "late": "VARCHAR"}
    assert result.rows[-1] == (2, {"x": None, "y": 2}, "x")


def test_a_field_of_a_late_file_is_a_column(folder):
    for number in range(40):
        folder.write(f"in/{number:02}.jsonl", '{"a": 1}\n' if number < 39 else '{"a": 4.5, "b": 1}\n')
    result = folder.read("JSONL", path="in")
    assert result.columns == {"a": "DOUBLE", "b": "BIGINT"}


def test_records_below_a_path_are_read(folder):
    folder.write("a.json", '{"data": {"items": [{"id": 1, "x": {"y": 2}}, {"id": 2}]}, "next": null}')
    assert folder.rows("JSON", path="a.json", data_path="data.items") == [(1, {"y": 2}), (2, None)]
    for name, path in (
        ("records_path", "/data/items"),
        ("data_selector", "$.data.items"),
        ("field_path", ["data", "items"]),
    ):
        assert folder.rows("JSON", path="a.json", **{name: path}) == [(1, {"y": 2}), (2, None)]
    assert (
        folder.rows("JSON", path="a.json", data_path="$.data.items[*]", row_provenance=True)[0][-1]
        == "a.json"
    )
    with pytest.raises(SourceFailed, match="items"):
        folder.rows("JSON", path="a.json", data_path="items")


@pytest.mark.parametrize("page", ['{"n": 0, "data": {"items": []}}', '{"data": {"items": null}}'])
def test_a_page_without_records_has_no_rows(folder, page):
    folder.write("in/a.json", page)
    read = {"path": "in", "data_path": "data.items", "types": {"id": "BIGINT"}}
    assert folder.rows("JSON", **read) == []
    assert folder.read("JSON", path="in", data_path="data.items", sync_mode="incremental").rows == []
    with pytest.raises(SourceFailed, match=r"in/a\.json: empty"):
        folder.rows("JSON", path="in", data_path="data.items")
    folder.write("in/b.json", '{"data": {"items": [{"id": 1}]}}')
    assert folder.rows("JSON", **read) == [(1,)]
    folder.write("in/a.json", '{"data": {"error": "none of yours"}}')
    folder.write("in/b.json", '{"data": {"items": []}}')
    with pytest.raises(SourceFailed, match="`data_path` has 'items'"):
        folder.rows("JSON", **read)


def test_declared_types_are_exact(folder):
    folder.write("a.jsonl", '{"id": 1, "amount": 4.15, "zip": 5}\n{"id": 2, "amount": 1e2, "zip": 7}\n')
    result = folder.read(
        "JSONL", path="a.jsonl", types={"amount": "DECIMAL(12,2)", "zip": "VARCHAR", "gone": "DATE"}
    )
    assert dict(zip(result.columns, result.rows[0], strict=True)) == {
        "id": 1, "amount": Decimal("4.15"), "zip": "5", "gone": None,
    }  # fmt: skip


def test_a_value_that_a_declared_type_would_change_is_an_error(folder):
    folder.write("a.jsonl", '{"id": 4.7}\n')
    with pytest.raises(SourceFailed, match="'4.7' of column \"id\" is no INTEGER"):
        folder.read("JSONL", path="a.jsonl", types={"id": "INTEGER"})


def test_large_whole_numbers_are_exact(folder):
    folder.write("a.jsonl", '{"id": 9007199254740993}\n{"id": 12345678901234567890}\n')
    assert [int(row[0]) for row in folder.rows("JSONL", path="a.jsonl")] == [
        9007199254740993,
        12345678901234567890,
    ]


@pytest.mark.parametrize("text", ["", "[]", " [ ] \n", "\n"])
def test_no_records_is_no_rows_of_the_declared_columns(folder, text):
    folder.write("a.json", text)
    result = folder.read("JSON", path="a.json", types={"id": "BIGINT"})
    assert (result.columns, result.rows) == ({"id": "BIGINT"}, [])


def test_an_empty_file_beside_a_full_one_adds_nothing(folder):
    folder.write("in/a.json", "[]")
    folder.write("in/b.json", '[{"a": 1}]')
    assert folder.read("JSON", path="in").columns == {"a": "BIGINT"}


@pytest.mark.parametrize(
    "text",
    [
        b'{"a": 1}\n{"a":\n',
        b'[{"a": 1}',
        b'{"a": "\xff"}',
        b"[1, 2]",
        b'{"a": 1}\n[2]\n',
        b"id,v\n1,2\n",
        b'{"a": 1, "a": 2}',
    ],
    ids=["cut off", "open array", "no utf-8", "no objects", "mixed", "csv", "a name twice"],
)
def test_what_is_no_json_of_objects_is_an_error_that_names_the_file(folder, text):
    folder.write("in/a.json", text)
    with pytest.raises(SourceFailed, match=r"in/a\.json"):
        folder.read("JSON", path="in/a.json")


def test_deep_json_neither_ends_the_process_nor_is_lost(folder):
    deep = "[" * 10_000 + "]" * 10_000
    folder.write("a.json", '[{"a": ' + deep + "}]")
    assert "[" * 9_900 in str(folder.rows("JSON", path="a.json")[0][0])


def test_a_cut_off_gzip_is_an_error(folder):
    whole = gzip.compress(b"".join(b'{"a": %d, "b": "%d"}\n' % (i, i * 7919) for i in range(50_000)))
    folder.write("a.jsonl.gz", whole[: len(whole) // 2])
    with pytest.raises(SourceFailed, match=r"a\.jsonl\.gz"):
        folder.read("JSONL", path="a.jsonl.gz")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["9223372036854775808"], "HUGEINT"),
        (["18446744073709551616"], "DECIMAL(38,0)"),
        (["123456789012345678901234567890"], "DECIMAL(38,0)"),
        (["1" * 60], "VARCHAR"),
        (["0.1", "2"], "DOUBLE"),
        (["0.30000000000000004"], "DOUBLE"),
        (["1.5", "9007199254740993"], "DECIMAL(38,1)"),
        (["0.12345678901234567891", "5"], "DECIMAL(38,20)"),
        (["1e400"], "VARCHAR"),
        (["1e-400"], "VARCHAR"),
        (["1.12345678901234567891e5", "2"], "VARCHAR"),
        (["-0.0"], "DOUBLE"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
@pytest.mark.parametrize("shape", ['{{"v": {}}}', '{{"s": {{"x": [{}]}}}}'], ids=["top", "nested"])
def test_no_number_loses_a_digit(folder, values, kind, shape):
    folder.write("a.jsonl", "\n".join(shape.format(value) for value in values))
    result = folder.read("JSONL", path="a.jsonl")
    assert list(result.columns.values()) == [kind if "v" in result.columns else f"STRUCT(x {kind}[])"]
    found = [row[0]["x"][0] if isinstance(row[0], dict) else row[0] for row in result.rows]
    assert [Decimal(str(value)) for value in found] == [Decimal(value) for value in values]


def test_digits_in_texts_are_left_alone_beside_long_numbers(folder):
    texts = ["a: 1.23456789012345678901, b", 'say "1.23456789012345678901"', "\\", "12", "-"]
    folder.write(
        "a.jsonl",
        "\n".join(json.dumps({"t": text}) + "\n" + '{"v": 1.23456789012345678901}' for text in texts),
    )
    rows = folder.rows("JSONL", path="a.jsonl")
    assert [row[0] for row in rows if row[0] is not None] == texts
    assert {row[1] for row in rows} == {None, Decimal("1.23456789012345678901")}


def test_values_of_mixed_types_are_json_and_keep_their_digits(folder):
    folder.write("a.jsonl", '{"v": 1}\n{"v": "1"}\n{"v": true}\n{"v": [1, {"x": null}]}\n')
    result = folder.read("JSONL", path="a.jsonl")
    assert (result.columns, [row[0] for row in result.rows]) == (
        {"v": "JSON"}, ["1", '"1"', "true", '[1,{"x":null}]'],
    )  # fmt: skip
    folder.write(
        "a.jsonl", '{"v": 1.5}\n{"v": "x"}\n{"v": 1.23456789012345678901}\n{"v": 123456789012345678901}\n'
    )
    found = [row[0] for row in folder.rows("JSONL", path="a.jsonl")]
    assert found == ["1.5", '"x"', '"1.23456789012345678901"', "123456789012345678901"]


def test_a_number_that_is_declared_text_is_its_text(folder):
    folder.write("a.jsonl", '{"v": 1.10}\n{"v": 1E2}\n{"v": 5}\n')
    assert folder.rows("JSONL", path="a.jsonl", types={"v": "VARCHAR"}) == [("1.10",), ("1E2",), ("5",)]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("2024-01-31", "DATE"),
        ("2024-01-31T08:00:00", "TIMESTAMP"),
        ("2024-01-31 08:00:00.123456", "TIMESTAMP"),
        ("2024-01-31T08:00:00+02:00", "TIMESTAMP WITH TIME ZONE"),
        ("2024-01-31T08:00:00Z", "TIMESTAMP WITH TIME ZONE"),
        ("2024-01-31T08:00:00.123456789", "TIMESTAMP_NS"),
        ("2024-01-31T08:00:00.123456789Z", "VARCHAR"),
        ("01-02-2024", "VARCHAR"),
        ("1-2-3", "VARCHAR"),
        ("24-01-31", "VARCHAR"),
        ("2023-02-29", "VARCHAR"),
        ("08:15:00", "VARCHAR"),
        ("5D41402ABC4B2A76B9719D911017C592", "VARCHAR"),
        ("C0B2D3F1-0000-4000-8000-000000000000", "VARCHAR"),
        ("true", "VARCHAR"),
        ("1e5", "VARCHAR"),
        ("", "VARCHAR"),
    ],
)
def test_text_is_only_taken_for_a_time_that_writes_the_same(folder, text, kind):
    folder.write("a.jsonl", json.dumps({"v": text, "s": {"x": text}}))
    result = folder.read("JSONL", path="a.jsonl")
    assert result.columns == {"v": kind, "s": "STRUCT(x VARCHAR)"}
    assert result.rows[0][1] == {"x": text}
    if kind == "VARCHAR":
        assert result.rows[0][0] == text


@pytest.mark.parametrize("late", ["", "n/a", "2024-13-01", "2024-01-31T08:00:00Z", "31.01.2024"])
def test_one_late_value_that_is_no_date_leaves_the_column_text(folder, late):
    folder.write("a.jsonl", '{"v": "2024-01-31"}\n' * 5_000 + json.dumps({"v": late}))
    result = folder.read("JSONL", path="a.jsonl")
    assert (result.columns, result.rows[-1]) == ({"v": "VARCHAR"}, (late,))


def test_dates_in_another_form_are_read_when_it_is_given(folder):
    folder.write("a.jsonl", '{"d": "31.12.2024", "s": {"d": "1.2.2024"}}\n')
    result = folder.read("JSONL", path="a.jsonl", date_format="%d.%m.%Y")
    assert result.rows == [(dt.date(2024, 12, 31), {"d": dt.date(2024, 2, 1)})]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1, "a": 2}', "duplicate key"),
        ('{"s": {"a": 1, "a": 2}}', "duplicate key"),
        ('{"a": 1, "A": 2}', "differ only in case"),
        ('{"a": 1}\n{"A": 2}', "differ only in case"),
        ('{"s": {"a": 1, "A": 2}}', "differ only in case"),
        ('{"": 1, "a": 2}', "name is empty"),
        ('{"a\\nb": 1}', "cannot be a name"),
        ('{"a\\u0000b": 1}', "cannot be a name"),
    ],
)
def test_names_that_no_table_can_have_are_an_error(folder, text, says):
    folder.write("a.jsonl", text)
    with pytest.raises((SourceFailed, ProjectError), match=says):
        folder.read("JSONL", path="a.jsonl")


@pytest.mark.parametrize(
    "text", ['{"s": {"v": 4.7}}', '{"s": {"v": 1, "w": 2}}', '{"s": {"v": "x"}}', '{"s": 5}']
)
def test_a_nested_value_that_a_declared_type_would_change_is_an_error(folder, text):
    folder.write("a.jsonl", '{"s": {"v": 1}}\n' + text)
    with pytest.raises(SourceFailed, match='of column "s" is no STRUCT'):
        folder.read("JSONL", path="a.jsonl", types={"s": "STRUCT(v INTEGER)"})
    folder.write("a.jsonl", '{"s": {"v": 1}}\n{"s": null}')
    result = folder.read("JSONL", path="a.jsonl", types={"s": "STRUCT(v INTEGER)"})
    assert (result.columns, result.rows) == ({"s": "STRUCT(v INTEGER)"}, [({"v": 1},), (None,)])


def test_rare_fields_are_columns_and_not_a_map(folder):
    folder.write("a.jsonl", "\n".join(json.dumps({f"k{n}": n, "s": {f"f{n}": n}}) for n in range(300)))
    result = folder.read("JSONL", path="a.jsonl")
    assert len(result.columns) == 301
    assert result.rows[7][7 + 1] == 7


def test_files_of_several_layouts_are_read_together(folder):
    folder.write("in/a.json", '[{"a": 1}, {"a": 2}]')
    folder.write("in/b.json", '{"a": 3.5}\n{"b": 1}\n')
    folder.write("in/c.json", '{\n "a": 4\n}\n')
    result = folder.read("JSON", path="in", row_provenance=True)
    assert result.columns == {"a": "DOUBLE", "b": "BIGINT", "_sqlflow_file": "VARCHAR"}
    assert [(row[0], row[2][3]) for row in result.rows] == [
        (1, "a"),
        (2, "a"),
        (3.5, "b"),
        (None, "b"),
        (4, "c"),
    ]


def test_folders_of_partitions_are_columns_of_json(folder):
    folder.write("in/month=01/a%20b=x%2Fy/a.jsonl", '{"id": 1}')
    folder.write("in/month=12/a%20b=__HIVE_DEFAULT_PARTITION__/a.jsonl", '{"id": 2}')
    result = folder.read("JSONL", path="in")
    assert result.rows == [(1, "01", "x/y"), (2, "12", None)]


def test_a_record_that_is_too_long_is_an_error_that_names_the_parameter(folder):
    folder.write("a.jsonl", json.dumps({"v": "x" * 20_000_000}))
    with pytest.raises(SourceFailed, match="`max_object_bytes`"):
        folder.read("JSONL", path="a.jsonl")
    assert len(folder.rows("JSONL", path="a.jsonl", max_object_bytes=30_000_000)[0][0]) == 20_000_000


numbers = st.one_of(
    st.integers(-(10**25), 10**25).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, places=None).map(str).map(str.lower),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(numbers, st.lists(numbers, max_size=3), st.text()), min_size=1, max_size=5))
def test_rows_agree_with_an_independent_reader(folder, rows):
    text = "\n".join(
        f'{{"v": {v}, "s": {{"l": [{", ".join(inner)}]}}, "t": {json.dumps(t)}}}' for v, inner, t in rows
    )
    folder.write("a.jsonl", text)
    expected = [json.loads(line, parse_float=Decimal) for line in text.split("\n")]
    for record, (v, s, t) in zip(
        expected, folder.rows("JSONL", path="a.jsonl", types={"t": "VARCHAR"}), strict=True
    ):
        assert Decimal(str(v)) == Decimal(record["v"])
        assert [Decimal(str(item)) for item in s["l"]] == [Decimal(item) for item in record["s"]["l"]]
        assert t == record["t"]


@pytest.mark.parametrize("text", ['{"a": 1}\n{"a": 2}\n', '[{"a": 1}, {"a": 2}]'])
@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress], ids=["plain", "gz"])
def test_a_byte_order_mark_is_no_part_of_the_records(folder, text, pack):
    name = "a.json" if pack(b"x") == b"x" else "a.json.gz"
    folder.write(name, pack(("\ufeff" + text).encode()))
    assert folder.rows("JSON", path=name) == [(1,), (2,)]


@pytest.mark.parametrize("line", [1, 2, 30_000])
def test_a_broken_line_is_named_by_its_number(folder, line):
    lines = ['{"a": 1}'] * 40_000
    lines[line - 1] = '{"a": 1 x}'
    folder.write("a.jsonl", "\n".join(lines))
    with pytest.raises(
        SourceFailed, match=rf"^a.jsonl:{line}: malformed JSON at byte 9: unexpected character"
    ):
        folder.read("JSONL", path="a.jsonl")


def test_utf_16_is_named(folder):
    folder.write("a.jsonl", '{"a": 1}'.encode("utf-16"))
    with pytest.raises(SourceFailed, match="a.jsonl: it is UTF-16"):
        folder.read("JSONL", path="a.jsonl")


@pytest.mark.parametrize("value", ['{"a":1}', "[1,2]", '"x"', "7", "true"])
def test_any_value_may_be_declared_text_or_json(folder, value):
    folder.write("a.json", f'{{"data": {{"items": [{{"v": {value}}}]}}}}')
    for kind, expected in (("VARCHAR", value.strip('"')), ("JSON", value)):
        found = folder.read("JSON", path="a.json", data_path="data.items", types={"v": kind})
        assert (found.columns, found.rows) == ({"v": kind}, [(expected,)])


@pytest.mark.parametrize("between", ["", " ", "\r", "\n", "\r\n", "\n\n"])
def test_records_may_follow_one_another_anyhow(folder, between):
    folder.write("a.json", between.join(['{"a": "}{"}', '{"a": "x"}', '{"a": "y"}']) + "\n")
    assert folder.rows("JSON", path="a.json") == [("}{",), ("x",), ("y",)]
