"""CSV files → typed rows, or an error that names file and line."""

import bz2
import csv
import datetime as dt
import gzip
import io
import lzma
import re
import secrets
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sqlflow_dagster.errors import BadOption, SourceFailed


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1", "20", "-3"], "BIGINT", [1, 20, -3]),
        ([" 1", "2 "], "BIGINT", [1, 2]),
        (["9223372036854775807"], "BIGINT", [2**63 - 1]),
        (["9223372036854775808"], "DECIMAL(38,0)", [Decimal(2**63)]),
        (["00123", "45678"], "VARCHAR", ["00123", "45678"]),
        (["+4915", "1"], "VARCHAR", ["+4915", "1"]),
        (["4.15", "1"], "DECIMAL(18,2)", [Decimal("4.15"), Decimal(1)]),
        (["-.5", "1."], "DECIMAL(18,2)", [Decimal("-.5"), Decimal(1)]),
        (["52.520008"], "DECIMAL(18,6)", [Decimal("52.520008")]),
        (["12345678901234567890.12"], "DECIMAL(38,2)", [Decimal("12345678901234567890.12")]),
        (["1e-3", "5"], "DOUBLE", [0.001, 5.0]),
        (["0.30000000000000004"], "DOUBLE", [0.30000000000000004]),
        (["0.12345678901234567890"], "DECIMAL(38,20)", [Decimal("0.12345678901234567890")]),
        (["1e400"], "VARCHAR", ["1e400"]),
        (["true", "FALSE"], "BOOLEAN", [True, False]),
        (["2024-01-31", "2024-02-29"], "DATE", [dt.date(2024, 1, 31), dt.date(2024, 2, 29)]),
        (["2023-02-29"], "VARCHAR", ["2023-02-29"]),
        (["01/02/2024"], "VARCHAR", ["01/02/2024"]),
        (
            ["2024-01-31 08:00:00", "2024-01-31"],
            "TIMESTAMP",
            [dt.datetime(2024, 1, 31, 8), dt.datetime(2024, 1, 31)],
        ),
        (["2024-01-31T08:00:00.5"], "TIMESTAMP", [dt.datetime(2024, 1, 31, 8, 0, 0, 500000)]),
        (["08:15:00"], "TIME", [dt.time(8, 15)]),
        (["1", "x"], "VARCHAR", ["1", "x"]),
        (["", "7"], "BIGINT", [None, 7]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_column_has_the_type_that_keeps_its_values(folder, values, kind, expected):
    folder.write("a.csv", "k,v\n" + "".join(f"k,{value}\n" for value in values))
    result = folder.read("CSV", path="a.csv")
    assert result.columns == {"k": "VARCHAR", "v": kind}
    assert [row[1] for row in result.rows] == expected


@pytest.mark.parametrize("declared", [{}, {"types": {"t": "TIMESTAMPTZ"}}], ids=["guessed", "declared"])
@pytest.mark.parametrize(
    "moment",
    ["2024-01-31 08:00:00 +0200", "2024-01-31T08:00:00 +02:00", "2024-01-31T08:00+02", "2024-01-31T06:00Z"],
)
def test_a_moment_may_lack_its_seconds_and_stand_apart_from_its_offset(folder, moment, declared):
    folder.write("a.csv", f"t\n{moment}\n2024-01-31T08:00:00+02:00\n")
    result = folder.read("CSV", path="a.csv", **declared)
    assert {row[0].astimezone(dt.UTC) for row in result.rows} == {dt.datetime(2024, 1, 31, 6, tzinfo=dt.UTC)}


def test_a_time_with_an_offset_is_an_instant(folder):
    folder.write("a.csv", "t\n2024-01-31T08:00:00+02:00\n2024-01-31T08:00:00Z\n")
    result = folder.read("CSV", path="a.csv")
    assert result.columns == {"t": "TIMESTAMP WITH TIME ZONE"}
    assert [row[0].astimezone(dt.UTC).hour for row in result.rows] == [6, 8]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("INTEGER", "4.7"),
        ("INTEGER", "15E-1"),
        ("INTEGER", "1_5"),
        ("INTEGER", "x"),
        ("TINYINT", "300"),
        ("DECIMAL(12,2)", "4.155"),
        ("DECIMAL(12,2)", "1e-5"),
        ("DECIMAL(12,2)", "1_0.00"),
        ("DECIMAL(4,2)", "123.45"),
        ("TIMESTAMP", "2024-01-31T08:00:00+02:00"),
        ("TIMESTAMP", "2024-1-1 8:00:00+02"),
        ("TIMESTAMP", "2024-01-31 08:00:00.1234567"),
        ("TIMESTAMP", "2024-01-31 08:00:0Z"),
        ("TIMESTAMPTZ", "  24-01-31 08:00:00Z"),
        ("DATE", "  24-01-31"),
        ("DATE", "2024-01-31 08:00:00"),
        ("DATE", "31.01.2024"),
        ("DOUBLE", "1e400"),
        ("BOOLEAN", "maybe"),
    ],
)
def test_a_value_that_a_declared_type_would_change_is_an_error(folder, kind, value):
    folder.write("a.csv", f"k,v\n1,\n2,{value}\n")
    with pytest.raises(SourceFailed):
        folder.read("CSV", path="a.csv", types={"v": kind})


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("INTEGER", "007", 7),
        ("INTEGER", "12923.0", 12923),
        ("DECIMAL(12,2)", "4.150", Decimal("4.15")),
        ("DECIMAL(12,2)", "007", Decimal(7)),
        ("VARCHAR", "007", "007"),
        ("string", "7", "7"),
        ("float64", "7", 7.0),
        ("BOOLEAN", "1", True),
        ("DATE", "2024-01-31 00:00:00", dt.date(2024, 1, 31)),
        ("TIMESTAMP", "2024-01-31T08:00:00Z", dt.datetime(2024, 1, 31, 8)),
        ("DOUBLE", "inf", float("inf")),
    ],
)
def test_a_declared_type_takes_what_it_can_hold(folder, kind, value, expected):
    folder.write("a.csv", f"k,v\n1,{value}\n")
    assert folder.rows("CSV", path="a.csv", schema={"V": kind}) == [(1, expected)]


@pytest.mark.parametrize(
    ("before", "late"),
    [
        ("12", "007"),
        ("12", "4.7"),
        ("12", "1_0"),
        ("4.15", "4.155"),
        ("4.15", "004.15"),
        ("12", "N/A"),
        ("1.5e3", "9007199254740993"),
        ("1.5e3", "0.12345678901234567891"),
        ("1.5e3", "1e400"),
        ("1.5e3", "007"),
    ],
)
def test_a_late_value_that_the_sample_did_not_show_is_an_error_with_its_line(folder, before, late):
    lines = [f"{before},{'x' * 200}\n"] * 60_000
    lines[28_123] = f"{late},x\n"
    folder.write("a.csv", "v,t\n" + "".join(lines))
    with pytest.raises(
        SourceFailed, match=rf"^a.csv:28125: the value '{late}' of column \"v\" is no .*`types`"
    ):
        folder.read("CSV", path="a.csv")


@pytest.mark.parametrize(
    "text",
    [
        "id;v\n1;a\n",
        "id\tv\n1\ta\n",
        "id|v\n1|a\n",
        "\ufeffid,v\n1,a\n",
        "id,v\r\n1,a\r\n",
        "id,v\r1,a\r",
        "id,v\n1,a",
    ],
    ids=["semicolon", "tab", "pipe", "bom", "crlf", "cr", "no newline at the end"],
)
def test_the_form_of_a_file_is_found_out(folder, text):
    folder.write("a.csv", text)
    result = folder.read("CSV", path="a.csv")
    assert (list(result.columns), result.rows) == (["id", "v"], [(1, "a")])


def test_quoted_delimiters_newlines_and_quotes_are_data(folder):
    folder.write("a.csv", 'id,v\r\n1,"a,b"\r\n2,"line\r\nline"\r\n3,"say ""x"""\r\n')
    assert folder.rows("CSV", path="a.csv") == [(1, "a,b"), (2, "line\r\nline"), (3, 'say "x"')]


def test_nothing_is_null_and_quotes_around_nothing_are_an_empty_text(folder):
    folder.write("a.csv", 'id,v\n1,\n2,""\n"",x\n')
    assert folder.rows("CSV", path="a.csv") == [(1, None), (2, ""), (None, "x")]
    assert folder.rows("CSV", path="a.csv", allow_quoted_nulls=True)[1] == (2, None)


def test_null_values_are_null_and_do_not_spoil_the_type(folder):
    folder.write("a.csv", "id,v\n1,NA\n2,5\n3,-\n")
    result = folder.read("CSV", path="a.csv", null_values=["NA", "-"])
    assert (result.columns["v"], result.rows) == ("BIGINT", [(1, None), (2, 5), (3, None)])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1", "cp1252", "iso-8859-15"])
def test_other_encodings_are_read(folder, encoding):
    folder.write("a.csv", "id,v\n1,Ärger\n".encode(encoding))
    assert folder.rows("CSV", path="a.csv", encoding=encoding) == [(1, "Ärger")]


def test_bytes_that_are_not_in_the_encoding_are_an_error_with_their_line(folder):
    folder.write("a.csv", b"id,v\n1,a\n2,\xff\n")
    with pytest.raises(SourceFailed, match=r"^a.csv:3: .*`encoding`"):
        folder.read("CSV", path="a.csv")
    folder.write("a.csv", b"id,v\n1,a\n2,\x81\n")
    with pytest.raises(SourceFailed, match=r"^a.csv:3: a byte is not cp1252"):
        folder.read("CSV", path="a.csv", encoding="cp1252")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("bad", "more"),
    [
        ("2,,b,", {}),
        ('2,"b, or c",,', {}),
        ("2,b,c,", {"bad_rows": "quarantine"}),
    ],
    ids=["plain", "quoted", "quarantine"],
)
def test_a_line_of_one_value_too_many_is_an_error_where_its_last_is_empty_too(folder, end, bad, more):
    lines = ["id,v,w", "1,a,", '3,"c,', 'd,e,f,",', "4,,", bad, "5,e,"]
    folder.write("a.csv", end.join([*lines, ""]))
    with pytest.raises(SourceFailed, match=r"^a.csv:6: it has more values than the 3 columns"):
        folder.rows("CSV", path="a.csv", **more)
    assert len(folder.rows("CSV", path="a.csv", null_padding=True, **more)) == 5
    folder.write("a.csv", end.join(line for line in lines if line != bad))
    assert [row[0] for row in folder.rows("CSV", path="a.csv", **more)] == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("bad", "more"),
    [
        ('1,,"a\nb",', {}),
        ('1,"a\n\nb,"",\n",b,', {}),
        ('1,,"a ""b"",\n",', {}),
        ('1,"a\nb",,', {}),
        ('1,,"a \\" b",', {"escape": "\\"}),
        ('1,,"a \\"\n \\\\",', {"escape": "\\"}),
        ("1||||'x\n'||", {"quote": "'", "delimiter": "||"}),
    ],
)
def test_a_record_of_several_lines_with_one_value_too_many_is_an_error(folder, bad, more):
    mark, quote = more.get("delimiter", ","), more.get("quote", '"')
    good = [f"{n},{quote}x\ny,{quote},{quote}z{quote}".replace(",", mark) for n in range(3)]
    good += [
        f"5,6{quote} disk,{quote}{quote}".replace(",", mark),
        f"7,{quote}a\nb{quote},".replace(",", mark),
    ]
    write = lambda lines: folder.write("a.csv", "\n".join(["id,v,w".replace(",", mark), *lines, ""]))  # noqa: E731
    write(good)
    assert [row[0] for row in folder.rows("CSV", path="a.csv", **more)] == [0, 1, 2, 5, 7]
    write([*good[:3], bad, *good[3:]])
    with pytest.raises(SourceFailed, match=r"^a.csv:8: it has more values than the 3 columns"):
        folder.rows("CSV", path="a.csv", **more)


def test_a_record_over_the_pieces_of_a_file_with_one_value_too_many_is_an_error(folder):
    long = "x\n" * 150_000
    folder.write("a.csv", f'id,v,w\n1,"{long}",\n2,b,c\n')
    assert len(folder.rows("CSV", path="a.csv")) == 2
    folder.write("a.csv", f'id,v,w\n1,"{long}",\n2,,"{long}",\n3,b,c\n')
    with pytest.raises(SourceFailed, match=r"^a.csv:150003: it has more values than the 3 columns"):
        folder.rows("CSV", path="a.csv")


@pytest.mark.parametrize("before", range(5))
def test_a_line_of_one_value_too_many_is_an_error_where_its_end_is_in_two_pieces(folder, before):
    bad = "2||||b||\r\n"
    head = "id||v||w\r\n1||a||"
    # Pieces of a file are of so many bytes.
    filling = "x" * (2**17 + before - len(head) - len("\r\n") - len(bad))
    folder.write("a.csv", f"{head}{filling}\r\n{bad}3||b||c\r\n")
    with pytest.raises(SourceFailed, match=r"^a.csv:3: it has more values than the 3 columns"):
        folder.rows("CSV", path="a.csv", delimiter="||")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("more", ["8,c,\n", ""], ids=["within", "last line, without an end"])
def test_a_line_of_one_value_too_many_is_an_error_in_a_large_file(folder, packed, more):
    def write(text):
        folder.write(name, gzip.compress(text.encode(), 1) if packed else text)

    name = "a.csv.gz" if packed else "a.csv"
    rows = [f'{n},"{secrets.token_hex(16)},",w' for n in range(300_000)]
    good = "\n".join(["id,v,w", *rows, '7,"b,",', ""])
    write(f"{good}7,,b,\n{more}".removesuffix("" if more else "\n"))
    with pytest.raises(SourceFailed, match=rf"^{name}:300003: it has more values than the 3 columns"):
        folder.rows("CSV", path=name)
    write(good + more)
    assert len(folder.rows("CSV", path=name)) == 300_001 + bool(more)


def test_a_delimiter_at_the_end_of_each_line_is_no_value(folder):
    folder.write("a.csv", "id,v\n1,a,\n2,b,\n3,,\n")
    assert folder.rows("CSV", path="a.csv") == [(1, "a"), (2, "b"), (3, None)]
    folder.write("a.csv", "1,a,\n2,b,\n")
    with pytest.raises(SourceFailed, match="looks like data"):
        folder.rows("CSV", path="a.csv", column_names=["id", "v", "end"])
    folder.write("a.csv", "id,v\n1,a,\nx,b,\n3,,\n")
    result = folder.read("CSV", path="a.csv", types={"id": "BIGINT"}, bad_rows="quarantine")
    assert (result.rows, result.rejects[0][1:]) == ([(1, "a"), (3, None)], ("a.csv:3", "x,b,"))


def test_a_delimiter_at_the_end_of_each_line_is_no_value_in_a_large_file(folder):
    lines = "".join(f"{n},{n / 4},{'x' * 30},\n" for n in range(300_000))
    folder.write("a.csv", f"id,v,t\n{lines}")
    result = folder.read("CSV", path="a.csv")
    assert result.columns == {"id": "BIGINT", "v": "DECIMAL(18,2)", "t": "VARCHAR"}
    assert len(result.rows) == 300_000
    folder.write("a.csv", f"id,v,t\n{lines}7,1,x,y\n")
    with pytest.raises(SourceFailed, match="Expected Number of Columns: 3"):
        folder.read("CSV", path="a.csv")


def test_a_blank_before_a_quote_belongs_to_no_name_and_no_value(folder):
    folder.write("a.csv", 'id, "weight (lbs, Sep)", "at"\n1, "1,5", "2024-01-01"\n2, "2", "2024-01-02"\n')
    read = folder.read("CSV", path="a.csv")
    assert list(read.columns) == ["id", "weight (lbs, Sep)", "at"]
    assert [row[1:] for row in read.rows] == [("1,5", dt.date(2024, 1, 1)), ("2", dt.date(2024, 1, 2))]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,v\n1,a\n2,b,c\n", r"^a.csv:3: Expected Number of Columns: 2"),
        ("id,v\n1,a\n2\n", r"^a.csv:3: Expected Number of Columns: 2"),
        ('id,v\n1,a\n2,"b\n', r"^a.csv:3: .*quote"),
        ('id,v\n1,a\n2,"b\nc",d\n', r"^a.csv:3: Expected Number of Columns: 2 .*nc.,d"),
        ("title\nx\n\n\na,b\n", r"^a.csv:5: Expected Number of Columns: 1 .*a,b"),
    ],
    ids=["too many", "too few", "open quote", "several lines", "below blank lines"],
)
def test_a_broken_line_is_an_error_with_its_number(folder, text, says):
    folder.write("a.csv", text)
    with pytest.raises(SourceFailed, match=says):
        folder.read("CSV", path="a.csv")


def test_bad_rows_are_set_aside_where_that_is_asked_for(folder):
    folder.write("a.csv", "id,v\n1,a\nx,b\n3,c,d\n4,e\n")
    result = folder.read("CSV", path="a.csv", types={"id": "BIGINT"}, schema_policy="permissive")
    assert result.rows == [(1, "a"), (4, "e")]
    assert [(aside[1], aside[2]) for aside in result.rejects] == [("a.csv:3", "x,b"), ("a.csv:4", "3,c,d")]
    assert result.rejects[0][0] == "the value 'x' of column \"id\" is no BIGINT"


EXACT = [
    ("INTEGER", "4.7"), ("INTEGER", "15E-1"), ("INTEGER", "1_5"), ("TINYINT", "300"), ("DECIMAL(12,2)", "4.155"),
    ("DECIMAL(4,2)", "123.45"), ("TIMESTAMP", "2024-01-31T08:00:00+02:00"), ("DATE", "2024-01-31 08:00:00"),
    ("DOUBLE", "1e400"), ("BOOLEAN", "maybe"), ("TIMESTAMP", "2024-01-31 08:00:00.1234567"), ("TIME", "25:00:00"),
    ("UUID", "x"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value"), EXACT)
def test_a_row_is_set_aside_for_what_would_be_an_error(folder, kind, value):
    folder.write("a.csv", f'k,v\n1,\n2,{value}\n3,""\n4,{value}\n')
    result = folder.read("CSV", path="a.csv", types={"v": kind}, bad_rows="quarantine")
    assert result.rows == [(1, None), (3, None)]
    assert [aside[1:] for aside in result.rejects] == [("a.csv:3", f"2,{value}"), ("a.csv:5", f"4,{value}")]
    assert f"'{value}' of column \"v\" is no {kind}" in result.rejects[0][0]


def test_leading_zeros_and_quoted_blanks_are_the_same_with_and_without_quarantine(folder):
    folder.write("a.csv", 'zip,v,t\n00123,"",2024-01-31T08:00:00+02:00\n00124,,2024-01-31T08:00:00Z\n')
    strict = folder.read("CSV", path="a.csv")
    lenient = folder.read("CSV", path="a.csv", bad_rows="quarantine")
    assert (strict.columns, strict.rows) == (lenient.columns, lenient.rows)
    assert [row[:2] for row in lenient.rows] == [("00123", ""), ("00124", None)]


def test_every_bad_row_has_the_line_and_the_text_it_has_in_its_file(folder):
    folder.write(
        "in/a.csv",
        '# made today\r\nnote;id;v\r\n"two\r\nlines";1;a\r\n# comment\r\n\r\n"x;y";bad;"""q"""\r\nz;2;b\r\nNA;bad;c\r\n',
    )
    folder.write(
        "in/b.csv", "id;note;v\n" + "1;n;a\n" * 5_000 + "bad;n;a\n" + "1;n;a\n" * 5_000 + "bad;n;a\n"
    )
    folder.write("in/c.csv.gz", gzip.compress(b"id;note;v\n1;n;a\nbad;n\nbad;n;a\n"))
    result = folder.read(
        "CSV", path="in", types={"id": "BIGINT"}, bad_rows="quarantine", comment="#", null_values="NA",
        null_padding=True,
    )  # fmt: skip
    assert len(result.rows) == 10_003
    assert [aside[1:] for aside in result.rejects] == [
        ("in/a.csv:7", '"x;y";bad;"""q"""'),
        ("in/a.csv:9", "NA;bad;c"),
        ("in/b.csv:5002", "bad;n;a"),
        ("in/b.csv:10003", "bad;n;a"),
        ("in/c.csv.gz:3", "bad;n"),
        ("in/c.csv.gz:4", "bad;n;a"),
    ]


def test_what_is_masked_or_excluded_is_not_set_aside_either(folder):
    folder.write("a.csv", "id,name,pin\nx,Ada,1234\n1,Bob,12x\n2,Cy,1,2\n")
    result = folder.read(
        "CSV", path="a.csv", types={"id": "BIGINT", "pin": "BIGINT"}, bad_rows="quarantine", mask=["name"],
        exclude_columns=["pin"],
    )  # fmt: skip
    assert [aside[2] for aside in result.rejects] == ["x,***,***", "1,***,***", ""]
    assert result.rejects[1][0] == 'a value of column "pin" is no BIGINT'


def test_a_file_of_nothing_but_bad_rows_is_set_aside(folder):
    folder.write("a.csv", "id,v\n" + "".join(f"x{i},a\n" for i in range(25_000)))
    result = folder.read("CSV", path="a.csv", types={"id": "BIGINT"}, bad_rows="quarantine")
    assert (result.columns, result.rows) == ({"id": "BIGINT", "v": "VARCHAR"}, [])
    assert result.rejects[-1][1:] == ("a.csv:25001", "x24999,a")


def test_short_lines_end_in_nulls_where_that_is_asked_for(folder):
    folder.write("a.csv", "id,v\n1,a\n2\n")
    assert folder.rows("CSV", path="a.csv", null_padding=True) == [(1, "a"), (2, None)]


def test_a_header_alone_gives_columns_and_no_rows(folder):
    folder.write("a.csv", "id,v\n")
    result = folder.read("CSV", path="a.csv")
    assert (result.columns, result.rows) == ({"id": "VARCHAR", "v": "VARCHAR"}, [])


@pytest.mark.parametrize("text", ["", "\n\n", "\ufeff"], ids=["empty", "blank lines", "bom alone"])
def test_a_file_without_text_gives_the_declared_columns(folder, text):
    folder.write("a.csv", text)
    with pytest.raises(SourceFailed, match=r"a\.csv: empty, without even the names of columns"):
        folder.read("CSV", path="a.csv")
    result = folder.read("CSV", path="a.csv", types={"id": "BIGINT"})
    assert (result.columns, result.rows) == ({"id": "BIGINT"}, [])


def test_a_header_that_stands_again_is_no_row(folder):
    folder.write("a.csv", "id,v\n1,a\nid,v\n2,b\n")
    with pytest.raises(
        SourceFailed, match=r"a\.csv: a line after the first one is the header again \(id, v\)"
    ):
        folder.read("CSV", path="a.csv")
    assert len(folder.rows("CSV", path="a.csv", header=True)) == 3
    folder.write("a.csv", "v\nx\nv\n")
    assert folder.rows("CSV", path="a.csv") == [("x",), ("v",)]


@pytest.mark.parametrize("first", ["Report,2024\nid,v\n", "Report,\n,\nid,v\n", "id,weight\n#,kg\n"])
def test_first_rows_that_are_none_are_told(folder, caplog, first):
    folder.write("a.csv", first + "1,a\n2,b\n3,c\n4,d\n5,e\n")
    folder.read("CSV", path="a.csv")
    assert "is text, and BIGINT but for its first rows" in caplog.text
    folder.write("a.csv", "id,v\n1,a\nx,b\n3,c\n4,d\n5,e\nz,2\n")
    caplog.clear()
    folder.read("CSV", path="a.csv")
    assert not caplog.text


def test_names_that_stand_twice_are_told_apart_or_refused(folder):
    folder.write("a.csv", "id,v,V,\n1,a,b,c\n")
    assert list(folder.read("CSV", path="a.csv").columns) == ["id", "v", "V_1", "column3"]
    with pytest.raises(SourceFailed, match=r"a.csv:1: the header names 'v' twice"):
        folder.read("CSV", path="a.csv", schema_policy="strict")


def test_a_first_line_of_data_is_not_taken_for_names(folder):
    folder.write("a.csv", "1,a\n2,b\n")
    with pytest.raises(SourceFailed, match="first line looks like data"):
        folder.read("CSV", path="a.csv")
    assert folder.rows("CSV", path="a.csv", header=False) == [(1, "a"), (2, "b")]
    result = folder.read("CSV", path="a.csv", header=False, column_names=["id", "v"])
    assert list(result.columns) == ["id", "v"]
    folder.write("years.csv", "country,2023,2024\nDE,1,2\n")
    assert folder.rows("CSV", path="years.csv") == [("DE", 1, 2)]
    folder.write("born.csv", "Ann,2019\nBob,2020\n")
    with pytest.raises(SourceFailed, match="first line looks like data"):
        folder.read("CSV", path="born.csv")


@pytest.mark.parametrize(
    "text",
    ["1,2,3\n", "x,2024-01-05\n", "05/06/2019\n07/06/2019\n", "15:30,a\n16:45,b\n", "x,true\n", "a,$3.50\n"],
)
def test_a_line_alone_and_texts_of_figures_are_data_too(folder, text):
    folder.write("a.csv", text)
    with pytest.raises(SourceFailed, match="first line looks like data"):
        folder.read("CSV", path="a.csv")
    assert len(folder.rows("CSV", path="a.csv", header=False)) == text.count("\n")
    assert len(folder.rows("CSV", path="a.csv", header=True)) == text.count("\n") - 1


@pytest.mark.parametrize("text", ["country,2023\n", "id,q1\n", "id,q1\n1,a2\n", 'id,2023\n1,"1,234"\n'])
def test_names_with_figures_are_names(folder, text):
    folder.write("a.csv", text)
    assert len(folder.rows("CSV", path="a.csv")) == text.count("\n") - 1


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    ("before", "options"),
    [
        ("||", {}),
        ("Report||", {"skip_rows": 1}),
        ("#Report||#made today|", {"comment": "#"}),
        ("Report|#made today|", {"skip_rows": 1, "comment": "#"}),
        ("#Report|", {"skip_rows": 1, "comment": "#"}),
    ],
)
def test_blank_lines_before_the_header_are_no_header(folder, before, options, end):
    folder.write("a.csv", (before + "k,v|x,y||z,w|").replace("|", end))
    result = folder.read("CSV", path="a.csv", **options)
    assert (list(result.columns), result.rows) == (["k", "v"], [("x", "y"), ("z", "w")])


@pytest.mark.parametrize("header", ['id;"a "b""', '"id" x;v', '"id";"v'])
def test_a_misplaced_quote_in_the_header_does_not_swallow_the_rows(folder, header):
    folder.write("a.csv", f"{header}\n1;a\n2;b\n")
    with pytest.raises(SourceFailed, match=r"a\.csv:1: a quote of the header is misplaced"):
        folder.read("CSV", path="a.csv")
    folder.write("a.csv", '"id" ;"v" \n1;a\n2;b\n')
    assert folder.rows("CSV", path="a.csv") == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("title", ["Sales of 2024", "# made today"])
def test_a_title_is_not_taken_for_the_one_column(folder, title):
    folder.write("a.csv", f"{title}\nid;v\n1;a\n2;b\n")
    with pytest.raises(SourceFailed, match="its first line is one column, and with ';' most others have 2"):
        folder.read("CSV", path="a.csv")
    assert folder.rows("CSV", path="a.csv", skip_rows=1) == [(1, "a"), (2, "b")]
    assert len(folder.rows("CSV", path="a.csv", delimiter=",")) == 3


def test_a_file_without_the_key_of_the_others_is_an_error(folder):
    folder.write("in/a.csv", "id,v\n1,a\n")
    folder.write("in/b.csv", "k,v\n2,b\n3,c\n")
    with pytest.raises(SourceFailed, match=r"b\.csv: it has no column 'ID', which is the key; it has k, v"):
        folder.read("CSV", path="in/*.csv", primary_key="ID")
    folder.write("in/b.csv", "k,v\n")
    assert len(folder.rows("CSV", path="in/*.csv", primary_key="ID")) == 1
    folder.write("id=2/a.csv", "v\nb\n")
    assert len(folder.rows("CSV", path=["in/a.csv", "id=2/a.csv"], primary_key="id")) == 2


def test_files_of_several_delimiters_are_an_error(folder):
    folder.write("in/a.csv", "id,v\n1,a\n")
    folder.write("in/b.csv", "id;v\n2;b\n")
    with pytest.raises(
        SourceFailed, match=r"b\.csv: with the delimiter ',' there is one column, with ';' there are 2"
    ):
        folder.read("CSV", path="in/*.csv")
    with pytest.raises(SourceFailed, match=r"b\.csv: .* set `delimiter` to ';'"):
        folder.read("CSV", path="in/*.csv", delimiter=",")
    assert folder.rows("CSV", path="in/b.csv") == [(2, "b")]


def test_a_line_for_excel_is_not_taken_for_the_header(folder):
    folder.write("a.csv", "sep=;\nid;v\n1;a\n")
    with pytest.raises(SourceFailed, match="set `skip_rows` to 1"):
        folder.read("CSV", path="a.csv")
    assert folder.rows("CSV", path="a.csv", skip_rows=1) == [(1, "a")]


def test_a_wrong_delimiter_is_an_error_that_names_the_right_one(folder):
    folder.write("a.csv", "id;v\n1;a\n")
    with pytest.raises(SourceFailed, match="set `delimiter` to ';'"):
        folder.read("CSV", path="a.csv", delimiter=",")


def test_other_forms_of_numbers_and_dates_are_read_when_declared(folder):
    folder.write("a.csv", 'd;t;v\n31.12.2024;31.12.2024 08:15;"1.234,50"\n;;\n')
    result = folder.read(
        "CSV",
        path="a.csv",
        types={"d": "DATE", "t": "TIMESTAMP", "v": "DECIMAL(12,2)"},
        date_format="%d.%m.%Y",
        timestamp_format="%d.%m.%Y %H:%M",
        decimal_separator=",",
    )
    assert result.rows == [
        (dt.date(2024, 12, 31), dt.datetime(2024, 12, 31, 8, 15), Decimal("1234.50")),
        (None, None, None),
    ]


def test_lines_before_the_header_and_comments_are_skipped(folder):
    folder.write("a.csv", "made by x\nreport, of, today\nid,v\n# note\n1,a\n")
    assert folder.rows("CSV", path="a.csv", skip_rows=2, comment="#") == [(1, "a")]


def test_files_are_matched_by_name_of_column(folder):
    folder.write("in/a.csv", "id,v\n1,a\n")
    folder.write("in/b.csv", "v,id,w\nb,2.5,x\n")
    result = folder.read("CSV", path="in/*.csv")
    assert result.columns == {"id": "DECIMAL(18,2)", "v": "VARCHAR", "w": "VARCHAR"}
    assert result.rows == [(Decimal(1), "a", None), (Decimal("2.5"), "b", "x")]


def test_folders_of_partitions_are_columns(folder):
    for month, rows in (("01", "1\n"), ("12", "2\n")):
        folder.write(f"in/year=2024/month={month}/a.csv", f"id\n{rows}")
    result = folder.read("CSV", path="in")
    assert result.columns == {"id": "BIGINT", "year": "BIGINT", "month": "VARCHAR"}
    assert result.rows == [(1, 2024, "01"), (2, 2024, "12")]
    assert list(folder.read("CSV", path="in", hive_partitioning=False).columns) == ["id"]


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)],
)
def test_compressed_files_are_read(folder, suffix, pack):
    folder.write(f"a.csv{suffix}", pack(b"id,v\n1,a\n"))
    assert folder.rows("CSV", path=f"a.csv{suffix}") == [(1, "a")]
    assert folder.rows("CSV", path=".") == [(1, "a")]


@pytest.mark.parametrize(("suffix", "codec"), [(".zst", "zstd"), (".lz4", "lz4"), (".br", "brotli")])
def test_files_of_newer_compressions_are_read(folder, suffix, codec):
    import pyarrow as pa

    with pa.CompressedOutputStream(str(folder.root / f"a.csv{suffix}"), codec) as stream:
        stream.write(b"id,v\n1,a\n")
    assert folder.rows("CSV", path=f"a.csv{suffix}") == [(1, "a")]


def test_snappy_files_are_read_raw_and_framed(folder):
    import pyarrow as pa

    block = pa.compress(b"id,v\n1,a\n", codec="snappy", asbytes=True)
    folder.write("a.csv.snappy", block)
    assert folder.rows("CSV", path="a.csv.snappy") == [(1, "a")]
    body = b"\0\0\0\0" + block
    folder.write("a.csv.snappy", b"\xff\x06\0\0sNaPpY" + b"\0" + len(body).to_bytes(3, "little") + body)
    assert folder.rows("CSV", path="a.csv.snappy") == [(1, "a")]


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_a_compressed_file_that_was_cut_off_is_an_error(folder, suffix, pack):
    whole = pack(b"id,v\n" + b"".join(b"%d,a%d\n" % (i, i * 7919) for i in range(50_000)))
    folder.write(f"a.csv{suffix}", whole[: len(whole) // 2])
    with pytest.raises(SourceFailed, match="a.csv"):
        folder.read("CSV", path=f"a.csv{suffix}")


@pytest.mark.parametrize(
    ("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)]
)
def test_a_bomb_is_refused(folder, suffix, pack):
    folder.write(f"a.csv{suffix}", pack(b"id\n" + b"0\n" * 1_000_000))
    with pytest.raises(SourceFailed, match="max_uncompressed_bytes"):
        folder.read("CSV", path=f"a.csv{suffix}", max_uncompressed_bytes=1_000_000)


def test_a_file_that_grows_beyond_all_measure_is_refused(folder):
    folder.write("a.csv.gz", gzip.compress(b"id\n" + b"0\n" * 40_000_000, 1))
    with pytest.raises(SourceFailed, match="max_compression_ratio"):
        folder.read("CSV", path="a.csv.gz", max_compression_ratio=100)


def test_a_path_with_odd_characters_is_read(folder):
    folder.write("in/it's [1] *?=.csv", "id\n1\n")
    assert folder.rows("CSV", path="in/it's [1] *?=.csv") == [(1,)]
    assert folder.rows("CSV", path="in") == [(1,)]


def test_names_from_a_hostile_header_are_quoted(folder):
    folder.write("a.csv", 'id,"v"";DROP TABLE t;--","select","new\nline","ключ"\n1,2,3,4,5\n')
    result = folder.read("CSV", path="a.csv")
    assert list(result.columns) == ["id", 'v";DROP TABLE t;--', "select", "new line", "ключ"]


def test_ten_thousand_columns_are_read(folder):
    names = [f"c{index}" for index in range(10_000)]
    folder.write("a.csv", ",".join(names) + "\n" + ",".join(["1"] * 10_000) + "\n")
    assert len(folder.read("CSV", path="a.csv").columns) == 10_000


def test_a_huge_cell_is_read_when_its_line_may_be_that_long(folder):
    folder.write("a.csv", "id,v\n1," + "x" * 3_000_000 + "\n")
    with pytest.raises(SourceFailed, match="max_line_bytes"):
        folder.read("CSV", path="a.csv")
    assert len(folder.rows("CSV", path="a.csv", max_line_bytes=4_000_000)[0][1]) == 3_000_000


def test_a_declared_column_that_is_not_there_is_an_error(folder):
    folder.write("a.csv", "id\n1\n")
    with pytest.raises(SourceFailed, match="`types` has the column 'nope', and the files have id"):
        folder.read("CSV", path="a.csv", types={"nope": "BIGINT"})


@pytest.mark.parametrize("kind", ["INT) FROM x --", "'; DROP", "", "1"])
def test_a_type_that_is_none_is_refused(folder, kind):
    with pytest.raises(BadOption, match="types: .* is no type"):
        folder.open("CSV", path="a.csv", types={"a": kind})


def test_tabs_part_the_values_of_tsv(folder):
    folder.write("a.tsv", 'id\tv\n1\ta,b\n2\t"x\ty"\n')
    assert folder.rows("TSV", path="a.tsv") == [(1, "a,b"), (2, "x\ty")]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,v\n1,a\n".encode("utf-16"), "a.csv: it looks like UTF-16; set `encoding` to 'utf-16'"),
        ("id,v\n1,abc\n2,abcdefghijklm\n3,abcdefg\n".encode("utf-16-be"), "a.csv: it looks like UTF-16"),
        ("id,Ärger\n1,a\n".encode("latin-1"), "a.csv:1: a byte is not utf-8"),
        (b"id,v\r\n1,a\n2,b\r\n", "a.csv: the ends of lines differ"),
        (b"id,v\n1,a\rb\n2,c\n", "a.csv: the ends of lines differ"),
        (b"_sqlflow_path,v\n1,a\n", "kept for SQLFlow's own"),
        (b"_sqlflow_tried_0,v\n1,a\n", "kept for SQLFlow's own"),
        (b"a,b\n1,2\n3;4\n", "a.csv:3: Expected Number of Columns"),
        (b"id,v\n1,a\n  \n", "a.csv:3: Expected Number of Columns"),
    ],
)
def test_what_is_no_csv_of_this_form_is_an_error_that_names_file_and_remedy(folder, text, says):
    folder.write("a.csv", text)
    with pytest.raises(SourceFailed, match=re.escape(says)):
        folder.read("CSV", path="a.csv")


@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "marked"])
@pytest.mark.parametrize("within", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("head", ['"i%sd",v', 'id,"the%svalue"', '"i%sd","v"'])
def test_a_header_may_have_other_line_breaks_in_its_names(folder, head, end, within, mark):
    lines = [head % within, "1,a", f'2,"b{end}"', "3,c", ""]
    folder.write("a.csv", mark + end.join(lines))
    assert folder.rows("CSV", path="a.csv") == [(1, "a"), (2, f"b{end}"), (3, "c")]
    folder.write("a.csv", mark + end.join([*lines[:3], "3,,", ""]))
    with pytest.raises(SourceFailed, match="it has more values than the 2 columns"):
        folder.rows("CSV", path="a.csv")


@pytest.mark.parametrize(
    "title",
    ['"a title\nof two lines"', 'x,"a\n\nb",\nmore', '5" disks', '"a, ""b"""', " , \n", ' "a\nb"'],
)
def test_lines_are_skipped_whatever_quotes_are_in_them(folder, title):
    folder.write("a.csv", f"{title}\nid,v\n1,a\n2,b\n")
    skipped = title.count("\n") + 1
    assert folder.rows("CSV", path="a.csv", skip_rows=skipped) == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("title", ['"open', 'x,"open', '"a" title'])
def test_a_misplaced_quote_in_a_skipped_line_is_an_error(folder, title):
    folder.write("a.csv", f"{title}\nid,v\n1,a\n2,b\n")
    with pytest.raises(SourceFailed, match=r"^a.csv: in the lines that `skip_rows` leaves out, a quote"):
        folder.rows("CSV", path="a.csv", skip_rows=1)
    assert folder.rows("CSV", path="a.csv", skip_rows=1, quote="") == [(1, "a"), (2, "b")]


@pytest.mark.parametrize("first", ["title\n", "\n", "# title\n"])
def test_lines_before_the_header_that_end_otherwise_are_an_error(folder, first):
    folder.write("a.csv", f"{first}id,v\r\n1,a\r\n2,b\r\n")
    more = {"skip_rows": 1} if first == "title\n" else {}
    with pytest.raises(SourceFailed, match=r"^a.csv: its first lines end otherwise"):
        folder.rows("CSV", path="a.csv", comment="#", **more)
    folder.write("a.csv", f"{first}id,v\n1,a\n2,b\n")
    assert folder.rows("CSV", path="a.csv", comment="#", **more) == [(1, "a"), (2, "b")]


@pytest.mark.parametrize(
    "text", ["id,v\r1,a\r2,,\r3,c\r", "id,v\n1,a\n2,,\r\n3,c\n", "id,v\r\n1,a\r\n2,,\n3,c\r\n"]
)
@pytest.mark.parametrize("packed", [False, True])
def test_a_line_of_one_value_too_many_is_an_error_however_lines_end(folder, text, packed):
    name = "a.csv.gz" if packed else "a.csv"
    folder.write(name, gzip.compress(text.encode()) if packed else text)
    with pytest.raises(SourceFailed, match=rf"^{name}:3: it has more values than the 2 columns"):
        folder.rows("CSV", path=name)


def test_files_with_other_ends_of_lines_are_all_read(folder):
    folder.write("in/a.csv", "id,v\r1,a\r2,b\r")
    folder.write("in/b.csv", "id,v\n3,c\n")
    folder.write("in/c.csv", "id,v\r\n4,d\r\n")
    assert [row[0] for row in folder.rows("CSV", path="in")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "options", "rows"),
    [
        ("a||b\n1||x|y\n", {"delimiter": "||"}, [(1, "x|y")]),
        ('a,b\n1,"say \\"x\\""\n', {"escape": "\\"}, [(1, 'say "x"')]),
        ('a,b\n1,"x\n', {"quote": ""}, [(1, '"x')]),
        ("a,b\n1,'x,y'\n", {"quote": "'"}, [(1, "x,y")]),
        ("a,b\n1,x\0y\n", {}, [(1, "x\0y")]),
    ],
    ids=["long delimiter", "escape", "no quotes", "other quotes", "NUL"],
)
def test_other_forms_are_read(folder, text, options, rows):
    folder.write("a.csv", text)
    assert folder.rows("CSV", path="a.csv", **options) == rows
    assert folder.rows("CSV", path="a.csv", bad_rows="quarantine", **options) == rows


def test_a_row_whose_nested_value_would_be_rounded_is_set_aside(folder):
    folder.write(
        "a.csv", 'id,s,l\n1,"{""a"": 1.7}",[1]\n2,"{""a"": 5}",[2]\n3,,\n4,"{""a"": 6}","[1, 2.5]"\n5,zz,\n'
    )
    found = folder.read(
        "CSV", path="a.csv", types={"s": "STRUCT(a INTEGER)", "l": "INTEGER[]"}, bad_rows="quarantine"
    )
    assert found.rows == [(2, {"a": 5}, [2]), (3, None, None)]
    assert sorted(place for _reason, place, _raw in found.rejects) == ["a.csv:2", "a.csv:5", "a.csv:6"]


def test_a_declared_nested_type_holds_each_part_or_refuses_it(folder):
    types = {"j": "STRUCT(a DECIMAL(38,3), b VARCHAR[])"}
    folder.write("a.csv", 'id;j\n1;{"a": 12345678901234567890.123, "b": ["x, y", null]}\n2;\n')
    value = {"a": Decimal("12345678901234567890.123"), "b": ["x, y", None]}
    assert folder.rows("CSV", path="a.csv", types=types) == [(1, value), (2, None)]
    folder.write("a.csv", 'id;j\n1;{"a": 1.2345, "b": []}\n')
    with pytest.raises(SourceFailed, match=r"a\.csv: the value '1\.2345' of column \"j\.a\" is no DECIMAL"):
        folder.rows("CSV", path="a.csv", types=types)


@pytest.mark.parametrize("type_", ["CSV", "JSONL"])
def test_odd_folders_of_partitions_are_columns_with_their_texts(folder, type_):
    row = "id\n1\n" if type_ == "CSV" else '{"id": 1}'
    folder.write(f"in/k=a%2Fb/j=01/m=__HIVE_DEFAULT_PARTITION__/n=1=2/x.{type_.lower()}", row)
    result = folder.read(type_, path="in")
    assert dict(zip(result.columns, result.rows[0], strict=True)) == {
        "id": 1, "k": "a/b", "j": "01", "m": None, "n": "1=2",
    }  # fmt: skip
    with pytest.raises(SourceFailed, match="'a/b' of column \"k\" is no INTEGER"):
        folder.read(type_, path="in", types={"k": "INTEGER"})


def test_a_column_of_the_file_wins_over_a_folder_of_its_name(folder):
    folder.write("in/K=5/x.csv", "id,k\n1,9\n")
    result = folder.read("CSV", path="in")
    assert (result.columns, result.rows) == ({"id": "BIGINT", "k": "BIGINT"}, [(1, 9)])


cells = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\r"), max_size=8),
    st.sampled_from(["", ",", '"', "a\nb", '""', " x ", "NULL", "é", "007", "1e5", "\\", "'", "#"]),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=8), end=st.sampled_from(["\n", "\r\n"])
)
def test_rows_agree_with_an_independent_reader(folder, rows, end):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator=end).writerows([("a", "b", "c"), *rows])
    folder.write("a.csv", text.getvalue())
    expected = list(csv.reader(io.StringIO(text.getvalue(), newline="")))[1:]
    types = dict.fromkeys("abc", "VARCHAR")
    for options in ({}, {"bad_rows": "quarantine"}):
        assert folder.rows("CSV", path="a.csv", types=types, **options) == [tuple(row) for row in expected]


values = st.one_of(
    st.integers(-(10**22), 10**22).map(str),
    st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=3).map(
        str
    ),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.dates().map(str),
    st.datetimes().map(str),
    st.sampled_from(
        ["007", "+1", "1_0", "0x10", "1e5", "true", "NA", "1,5", "$5", "12:30", "-0", ".5", "5.", "1E400"]
    ),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(column=st.lists(values, min_size=1, max_size=6))
def test_whatever_type_is_found_out_it_writes_the_same_values(folder, column):
    folder.write("a.csv", "k,v\n" + "".join(f'k,"{value}"\n' for value in column))
    result = folder.read("CSV", path="a.csv")
    for text, (_k, value) in zip(column, result.rows, strict=True):
        match result.columns["v"].partition("(")[0]:
            case "BIGINT" | "DECIMAL" | "DOUBLE":
                assert Decimal(str(value)) == Decimal(text)
            case "VARCHAR":
                assert value == text
            case "BOOLEAN":
                assert str(value).lower() == text.lower()
            case "DATE" | "TIMESTAMP":
                assert dt.datetime.fromisoformat(text) == dt.datetime.fromisoformat(str(value))
            case kind:
                assert kind == "TIMESTAMP_NS"


def test_a_header_is_read_to_its_end_however_many_files_share_the_sample(folder):
    names = [f"{'n' * 200}{index}" for index in range(100)]
    for number in range(400):
        folder.write(f"in/{number}.csv", f"{','.join(names)}\n{','.join(map(str, range(100)))}\n")
    result = folder.read("CSV", path="in")
    assert list(result.columns) == names
    assert len(result.rows) == 400
