"""Excel workbooks → typed rows, and rows → workbooks that others read the same."""

import datetime as dt
import gzip
import zipfile
from decimal import Decimal

import duckdb
import openpyxl
import pytest

from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.connectors.registry import find
from sqlflow_dagster.errors import BadOption, ExportFailed, PipelineError, SourceFailed

from .conftest import load

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = 'xmlns="http://schemas.openxmlformats.org/package/2006/relationships"'


def book(folder, name, *sheets):
    """Write a workbook with openpyxl: each sheet a title and its rows."""
    made = openpyxl.Workbook()
    made.remove(made.active)
    for title, rows in sheets:
        sheet = made.create_sheet(title)
        for row in rows:
            sheet.append(row)
    path = folder.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save(path)
    return path


def parts(sheet="", strings=None, styles="", **more):
    """The parts of a workbook by hand; `sheet` is what stands in its sheetData."""
    related = f'<Relationship Id="r1" Type="{OFFICE}/worksheet" Target="worksheets/sheet1.xml"/>'
    found = {
        "_rels/.rels": f'<Relationships {PACKAGE}><Relationship Id="r" Type="{OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook {MAIN} xmlns:r="{OFFICE}"><workbookPr/><sheets><sheet name="S" sheetId="1" r:id="r1"/></sheets></workbook>',
        "xl/worksheets/sheet1.xml": f"<worksheet {MAIN}><sheetData>{sheet}</sheetData></worksheet>",
    }
    if strings is not None:
        related += f'<Relationship Id="r2" Type="{OFFICE}/sharedStrings" Target="sharedStrings.xml"/>'
        found["xl/sharedStrings.xml"] = f"<sst {MAIN}>{strings}</sst>"
    if styles:
        related += f'<Relationship Id="r3" Type="{OFFICE}/styles" Target="/xl/styles.xml"/>'
        found["xl/styles.xml"] = f"<styleSheet {MAIN}>{styles}</styleSheet>"
    found["xl/_rels/workbook.xml.rels"] = f"<Relationships {PACKAGE}>{related}</Relationships>"
    return found | more


def archive(folder, name, found):
    path = folder.root / name
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for part, text in found.items():
            made.writestr(part, text)
    return path


def read_sheet(folder, sheet, params=None, **given):
    archive(folder, "a.xlsx", parts(sheet, **given))
    return folder.read("EXCEL", path="a.xlsx", **(params or {}))


def test_cells_keep_their_types(folder):
    row = [
        1,
        2.5,
        "x",
        True,
        dt.date(2024, 1, 31),
        dt.datetime(2024, 1, 31, 8, 15, 0, 250_000),
        dt.time(8, 15),
    ]
    names = ["whole", "part", "text", "truth", "day", "moment", "clock"]
    book(folder, "a.xlsx", ("S", [names, row, [2, 3, "007", False, dt.date(2024, 2, 29), None, None]]))
    result = folder.read("EXCEL", path="a.xlsx")
    assert result.columns == dict(
        zip(names, ["BIGINT", "DOUBLE", "VARCHAR", "BOOLEAN", "DATE", "TIMESTAMP", "TIME"], strict=True)
    )
    assert result.rows == [tuple(row), (2, 3.0, "007", False, dt.date(2024, 2, 29), None, None)]


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        ([1, "x"], "VARCHAR", ["1", "x"]),
        ([1, True], "VARCHAR", ["1", "true"]),
        ([1.5, dt.date(2024, 1, 31)], "VARCHAR", ["1.5", "2024-01-31"]),
        ([dt.date(2024, 1, 31), dt.datetime(2024, 1, 31, 8)], "TIMESTAMP", [dt.datetime(2024, 1, 31), dt.datetime(2024, 1, 31, 8)]),
        ([1, None, 2.5], "DOUBLE", [1.0, None, 2.5]),
        ([1e16], "DOUBLE", [1e16]),
        ([dt.timedelta(hours=36, seconds=1)], "INTERVAL", [dt.timedelta(hours=36, seconds=1)]),
        ([None, None], "VARCHAR", [None, None]),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_a_column_has_the_type_that_keeps_its_values(folder, values, kind, expected):
    book(folder, "a.xlsx", ("S", [["k", "v"], *(["k", value] for value in values)]))
    result = folder.read("EXCEL", path="a.xlsx")
    assert result.columns["v"] == kind
    assert [row[1] for row in result.rows] == expected


@pytest.mark.parametrize(
    ("values", "kind", "expected"),
    [
        (["1.0", "-2E+1"], "BIGINT", [1, -20]),
        ([str(2**63 - 1)], "BIGINT", [2**63 - 1]),
        ([str(2**63)], "DECIMAL(38,0)", [Decimal(2**63)]),
        ([str(2**60 + 1), "0.5"], "VARCHAR", [str(2**60 + 1), "0.5"]),
        (["1E+39", "1"], "DOUBLE", [1e39, 1.0]),
        (["4.1500000000000004", "1.0000000000000001E-5"], "DOUBLE", [4.15, 1e-5]),
    ],
)
def test_numbers_are_exact_as_the_file_has_them(folder, values, kind, expected):
    result = read_sheet(
        folder, "".join(f"<row><c><v>{value}</v></c></row>" for value in values), {"header": False}
    )
    assert (result.columns, [row[0] for row in result.rows]) == ({"column0": kind}, expected)


def test_types_are_those_of_all_files_together(folder):
    book(folder, "in/a.xlsx", ("S", [["id", "v"], [1, True]]))
    book(folder, "in/b.xlsx", ("S", [["v", "ID"], [5, 2]]))
    result = folder.read("EXCEL", path="in")
    assert result.columns == {"id": "BIGINT", "v": "VARCHAR"}
    assert result.rows == [(1, "true"), (2, "5")]


def test_declared_types_are_exact(folder):
    book(folder, "a.xlsx", ("S", [["id", "amount", "zip"], [1, 4.15, 501], [2, 1e13 + 0.5, "00501"]]))
    result = folder.read("EXCEL", path="a.xlsx", types={"amount": "DECIMAL(18,2)", "zip": "VARCHAR"})
    assert result.rows == [
        (1, Decimal("4.15"), "501"),
        (2, Decimal("10000000000000.50"), "00501"),
    ]


@pytest.mark.parametrize(
    ("value", "kind", "match"),
    [
        (4.7, "INTEGER", r"a\.xlsx, row 3: the value '4\.7' of column \"v\" is no INTEGER"),
        (4.155, "DECIMAL(9,2)", r"row 3: the value '4\.155'"),
        ("x", "DATE", r"row 3: the value 'x' of column \"v\" is no DATE"),
    ],
)
def test_a_value_that_a_declared_type_would_change_is_an_error(folder, value, kind, match):
    book(folder, "a.xlsx", ("S", [["k", "v"], ["k", None], ["k", value]]))
    with pytest.raises(SourceFailed, match=match):
        folder.read("EXCEL", path="a.xlsx", types={"v": kind})


def test_a_declared_column_that_no_sheet_has_is_an_error(folder):
    book(folder, "a.xlsx", ("S", [["k"], [1]]))
    with pytest.raises(SourceFailed, match="`types` has the column 'gone', and the sheet has k"):
        folder.read("EXCEL", path="a.xlsx", types={"gone": "DATE"})


@pytest.mark.parametrize(
    ("params", "columns", "rows"),
    [
        ({}, ["Plan", "column1"], [("id", "v"), ("1", "10"), ("2", "20"), (None, "30")]),
        ({"skip_rows": 1}, ["id", "v"], [(1, 10), (2, 20), (None, 30)]),
        ({"skip_rows": 2, "header": False}, ["column0", "column1"], [(1, 10), (2, 20), (None, 30)]),
        ({"skip_rows": 1, "column_names": "a,b,c"}, ["a", "b", "c"], [(1, 10, None), (2, 20, None), (None, 30, None)]),
        ({"range": "A2:B4"}, ["id", "v"], [(1, 10), (2, 20)]),
        ({"range": "$b$2:b"}, ["v"], [(10,), (20,), (30,)]),
        ({"range": "B:C", "skip_rows": 1}, ["v"], [(10,), (20,), (30,)]),
        ({"range": "2:3"}, ["id", "v"], [(1, 10)]),
        ({"sheet": "other"}, ["x"], [(1,)]),
        ({"sheet": "OTHER"}, ["x"], [(1,)]),
        ({"sheet": 1}, ["x"], [(1,)]),
        ({"sheet_name": "Plan"}, ["Plan", "column1"], [("id", "v"), ("1", "10"), ("2", "20"), (None, "30")]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else None,
)  # fmt: skip
def test_a_part_of_the_workbook_is_read(folder, params, columns, rows):
    plan = [["Plan"], ["id", "v"], [1, 10], [2, 20], [], [None, 30]]
    book(folder, "a.xlsx", ("Plan", plan), ("other", [["x"], [1]]))
    result = folder.read("EXCEL", path="a.xlsx", **params)
    assert (list(result.columns), result.rows) == (columns, rows)


@pytest.mark.parametrize(
    "text", ["A3", "F3:A1", "A5:B2", "A0:B2", "AAAA1:B2", "XFE1:XFE2", ":", "A1:B9999999", "S!A1:B2"]
)
def test_a_range_that_is_none_is_refused(text):
    with pytest.raises(BadOption, match="range: .*no range"):
        parse(find("EXCEL").options_type, {"path": "a.xlsx", "range": text})


@pytest.mark.parametrize("sheet", ["gone", 2])
def test_a_missing_sheet_is_named_with_those_that_exist(folder, sheet):
    book(folder, "a.xlsx", ("one", [["x"]]), ("two", [["x"]]))
    with pytest.raises(
        SourceFailed, match=rf"a\.xlsx: there is no sheet {sheet!r}; its sheets are 'one', 'two'"
    ):
        folder.read("EXCEL", path="a.xlsx", sheet=sheet)


def test_names_that_no_table_can_have_are_made_ones(folder):
    book(folder, "a.xlsx", ("S", [["a", "A", None, "a\nb", 2024, None], [1, 2, 3, 4, 5, None]]))
    result = folder.read("EXCEL", path="a.xlsx")
    assert list(result.columns) == ["a", "A_1", "column2", "a b", "2024"]
    with pytest.raises(SourceFailed, match="row 1 names 'a' twice"):
        folder.read("EXCEL", path="a.xlsx", schema_policy="strict")


@pytest.mark.parametrize(
    "rows",
    [
        [[1, "x", 2.5], [2, "y", 3.5]],
        [["a", dt.date(2024, 1, 1)], ["b", dt.date(2024, 1, 2)]],
        [["a", True], ["b", False]],
        [[2019, 2020], [2021, 2022]],
        [["x", 7]],
    ],
    ids=["numbers", "dates", "truths", "years among years", "alone"],
)
def test_a_first_row_of_data_is_not_taken_for_names(folder, rows):
    book(folder, "a.xlsx", ("S", rows))
    with pytest.raises(SourceFailed, match=r"^a.xlsx: the first row looks like data \(cell [AB]1 holds "):
        folder.read("EXCEL", path="a.xlsx")
    assert len(folder.rows("EXCEL", path="a.xlsx", header=False)) == len(rows)
    assert len(folder.rows("EXCEL", path="a.xlsx", header=True)) == len(rows) - 1


@pytest.mark.parametrize(
    "rows",
    [
        [["region", 2019, 2020], ["north", 1.5, 2], ["south", 2, 3]],
        [["region", dt.date(2024, 1, 1)], ["north", 7]],
        [["region", 1, 2], ["north", "a", "b"]],
        [["region", 2024]],
    ],
    ids=["years", "months", "numbers above texts", "alone"],
)
def test_numbers_and_dates_may_name_columns_of_other_values(folder, rows):
    book(folder, "a.xlsx", ("S", rows))
    assert len(folder.rows("EXCEL", path="a.xlsx")) == len(rows) - 1


def test_a_gap_between_columns_is_no_column_and_empty_rows_are_no_rows(folder):
    book(
        folder,
        "a.xlsx",
        ("S", [[], [None, "a", None, "b"], [], [None, 1, None, 2], [None, None, None, None]]),
    )
    result = folder.read("EXCEL", path="a.xlsx")
    assert (list(result.columns), result.rows) == (["a", "b"], [(1, 2)])


def test_values_beside_the_header_are_not_lost(folder):
    book(folder, "a.xlsx", ("S", [["a"], [1], [2, "note"]]))
    assert folder.read("EXCEL", path="a.xlsx").rows == [(1, None), (2, "note")]


def test_of_merged_cells_the_first_has_the_value(folder):
    made = openpyxl.Workbook()
    made.active.append(["a", "b"])
    made.active.append([1, "x"])
    made.active.append([2, None])
    made.active.merge_cells("B2:B3")
    made.save(folder.root / "a.xlsx")
    assert folder.rows("EXCEL", path="a.xlsx") == [(1, "x"), (2, None)]


def test_header_only_is_no_rows_of_its_columns(folder):
    book(folder, "a.xlsx", ("S", [["a", "b"]]))
    result = folder.read("EXCEL", path="a.xlsx", types={"a": "BIGINT"})
    assert (result.columns, result.rows) == ({"a": "BIGINT", "b": "VARCHAR"}, [])


def test_an_empty_sheet_is_an_error_unless_its_columns_are_declared(folder):
    book(folder, "a.xlsx", ("S", []))
    with pytest.raises(SourceFailed, match="without even the names of columns"):
        folder.read("EXCEL", path="a.xlsx")
    assert folder.read("EXCEL", path="a.xlsx", types={"a": "DATE"}).columns == {"a": "DATE"}


def test_an_empty_text_is_text_among_texts_and_null_among_numbers(folder):
    sheet = (
        '<row r="1"><c r="A1" t="str"><v>t</v></c><c r="B1" t="str"><v>n</v></c></row>'
        '<row r="2"><c r="A2" t="str"><f>""</f><v></v></c><c r="B2"><v>1</v></c></row>'
        '<row r="3"><c r="A3" t="str"><v>x</v></c><c r="B3" t="str"><f>""</f><v></v></c></row>'
        '<row r="4"><c r="B4"><v>2</v></c></row>'
    )
    result = read_sheet(folder, sheet)
    assert (result.columns["n"], result.rows) == ("BIGINT", [("", 1), ("x", None), (None, 2)])
    result = read_sheet(folder, sheet.replace("<v>2</v>", "<v>2.5</v>"))
    assert (result.columns["n"], result.rows) == ("DOUBLE", [("", 1.0), ("x", None), (None, 2.5)])


def test_an_error_cell_fails_the_read_or_is_null_and_its_text_is_text(folder):
    sheet = (
        '<row r="1"><c r="A1" t="str"><v>a</v></c><c r="B1" t="str"><v>b</v></c></row>'
        '<row r="2"><c r="A2" t="str"><v>#N/A</v></c><c r="B2" t="e"><f>1/0</f><v>#DIV/0!</v></c></row>'
        '<row r="3"><c r="A3" t="str"><v>x</v></c><c r="B3"><v>1</v></c></row>'
    )
    with pytest.raises(SourceFailed, match=r"a\.xlsx: cell B2 holds the error #DIV/0!"):
        read_sheet(folder, sheet)
    assert read_sheet(folder, sheet, {"cell_errors": "null"}).rows == [("#N/A", None), ("x", 1)]


def test_a_formula_gives_its_stored_value_and_one_without_is_an_error(folder):
    sheet = '<row r="1"><c r="A1" t="str"><v>a</v></c></row><row r="2"><c r="A2"><f>1+1</f><v>2</v></c></row>'
    assert read_sheet(folder, sheet).rows == [(2,)]
    book(folder, "b.xlsx", ("S", [["a"], ["=1+1"]]))
    with pytest.raises(SourceFailed, match=r"b\.xlsx: cell A2 has a formula without its value; open"):
        folder.read("EXCEL", path="b.xlsx")


def test_an_empty_style_is_none(folder):
    sheet = '<row r="1"><c r="A1" s="" t="str"><v>a</v></c></row><row r="2"><c r="A2" s=""><v>2</v></c></row>'
    assert read_sheet(folder, sheet).rows == [(2,)]


def test_a_number_beside_the_text_of_a_cell_is_no_part_of_it(folder):
    rows = '<row r="1"><c r="A1" t="inlineStr"><is><t>a</t></is></c><c r="B1" t="inlineStr"><is><t>b</t></is></c></row>'
    rows += '<row r="2"><c r="A2" t="inlineStr"><v>1.0</v><is><r><t>1</t></r><r><t>.</t></r></is></c>'
    rows += '<c r="B2" t="inlineStr"><is><t>x</t></is><v>2</v></c></row>'
    rows += '<row r="3"><c r="A3" t="inlineStr"><v>only</v></c></row>'
    assert read_sheet(folder, rows).rows == [("1.", "x"), ("only", None)]


def test_texts_are_those_that_were_written(folder):
    strings = (
        "<si><t>a</t></si>"
        '<si><r><t>rich </t></r><r><t xml:space="preserve"> text</t></r><rPh sb="0" eb="1"><t>spoken</t></rPh></si>'
        "<si><t>a_x000D_b_x005F_x0041__xD83D__xDE00__xD83D_</t></si>"
        "<si><t>tab\tline\nend &lt;&amp;</t></si>"
    )
    sheet = "".join(
        f'<row r="{n}"><c r="A{n}" t="s"><v>{n - 1}</v></c></row>' for n in range(1, 5)
    ) + '<row r="5"><c r="A5" t="inlineStr"><is><t>in</t><rPh><t>no</t></rPh></is></c></row>'  # fmt: skip
    assert [row[0] for row in read_sheet(folder, sheet, strings=strings).rows] == [
        "rich  text", "a\rb_x0041_\N{GRINNING FACE}_xD83D_", "tab\tline\nend <&", "in",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("code", "serial", "expected"),
    [
        ("yyyy-mm-dd", 45322, dt.date(2024, 1, 31)),
        ("[$-409]d\\ mmm;@", 45322, dt.date(2024, 1, 31)),
        ('"day" 0', 45322, 45322),
        ("[Red]0.00", 45322, 45322),
        ("General", 45322, 45322),
        ("0.0E+00", 45322, 45322),
        ("h:mm", 0.5, dt.time(12)),
        ("d", 0.9999999999, dt.date(1900, 1, 1)),
        ("d", 59, dt.date(1900, 2, 28)),
        ("d", 60, 60),
        ("d", 61, dt.date(1900, 3, 1)),
        ("d", 2958465, dt.date(9999, 12, 31)),
        ("d", 2958466, 2958466),
        ("d", -1, -1),
        ("[h]:mm", -1.5, dt.timedelta(hours=-36)),
        ("d h:mm", 45322.34375001, dt.datetime(2024, 1, 31, 8, 15, 0, 1000)),
    ],
)
def test_a_number_is_a_date_where_its_format_says_so(folder, code, serial, expected):
    code = code.replace('"', "&quot;")
    styles = f'<numFmts><numFmt numFmtId="164" formatCode="{code}"/></numFmts><cellStyleXfs><xf numFmtId="14"/></cellStyleXfs><cellXfs><xf numFmtId="0"/><xf numFmtId="164"/></cellXfs>'
    sheet = f'<row><c s="1"><v>{serial}</v></c></row>'
    assert read_sheet(folder, sheet, {"header": False}, styles=styles).rows == [(expected,)]


def test_an_extension_of_a_workbook_says_nothing_of_its_dates(folder):
    extended = '<extLst><ext xmlns:x15="urn:x"><x15:workbookPr chartTrackingRefBase="1"/></ext></extLst>'
    named = f'<workbook {MAIN} xmlns:r="{OFFICE}"><workbookPr date1904="1"/><sheets><sheet name="S" r:id="r1"/></sheets>'
    styles = '<cellXfs><xf numFmtId="0"/><xf numFmtId="14"/></cellXfs>'
    sheet = '<row><c s="1"><v>41331</v></c></row>'
    more = {"xl/workbook.xml": f"{named}{extended}</workbook>"}
    rows = read_sheet(folder, sheet, {"header": False}, styles=styles, **more).rows
    assert rows == [(dt.date(2017, 2, 27),)]


def test_dates_since_1904_are_those_of_their_workbook(folder):
    made = openpyxl.Workbook()
    made.epoch = openpyxl.utils.datetime.CALENDAR_MAC_1904
    made.active.append(["d"])
    made.active.append([dt.date(2024, 1, 31)])
    made.save(folder.root / "a.xlsx")
    assert folder.rows("EXCEL", path="a.xlsx") == [(dt.date(2024, 1, 31),)]


def test_many_texts_with_quotes_and_lines_are_read_whole(folder):
    rows = [[number, f'a "{number}"\r\n,b' * (number % 40)] for number in range(5_000)]
    book(folder, "a.xlsx", ("S", [["n", "t"], *([n, t.replace("\r", "")] for n, t in rows)]))
    assert folder.rows("EXCEL", path="a.xlsx") == [(n, t.replace("\r", "")) for n, t in rows]


def bomb(folder):
    return archive(folder, "a.xlsx", parts("<row>" + "<c/>" * 30_000_000 + "</row>"))


def locked(folder):
    path = archive(folder, "a.xlsx", parts())
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := data.find(mark, at + 1)) >= 0:
            data[at + place] |= 1
    path.write_bytes(data)


def cut(folder):
    path = book(folder, "a.xlsx", ("S", [["a"], *([number] for number in range(2_000))]))
    path.write_bytes(path.read_bytes()[:-600])


def flipped(folder):
    path = archive(folder, "a.xlsx", parts("<row><c><v>1</v></c></row>"))
    data = bytearray(path.read_bytes())
    at = data.find(b"sheet1.xml") + len("sheet1.xml") + 5
    data[at] ^= 0xFF
    path.write_bytes(data)


def by_hand(**given):
    return lambda folder: archive(folder, "a.xlsx", parts(**given))


ENTITIES = f'<!DOCTYPE w [<!ENTITY a "{"x" * 1000}">]><worksheet {MAIN}><sheetData><row><c t="str"><v>&a;</v></c></row></sheetData></worksheet>'


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (bomb, "no ordinary file; raise `max_uncompressed_bytes`"),
        (locked, "encrypted"),
        (cut, "no whole .xlsx file"),
        (flipped, "no whole .xlsx file"),
        (lambda folder: folder.write("a.xlsx", b"\xd0\xcf\x11\xe0" + b"\0" * 600), "an old .xls file or has a password"),
        (lambda folder: folder.write("a.xlsx", "id,v\n1,2\n"), "no whole .xlsx file"),
        (lambda folder: archive(folder, "a.xlsx", {"x": "y"}), r"it has no _rels/\.rels"),
        (by_hand(**{"xl/worksheets/sheet1.xml": ENTITIES}), "has a DOCTYPE"),
        (by_hand(**{"xl/worksheets/sheet1.xml": ENTITIES.replace("?>", "?>" + " " * 5_000)}), "has a DOCTYPE"),
        (by_hand(**{"xl/worksheets/sheet1.xml": "<worksheet><sheetData><row>"}), "no element found"),
        (by_hand(sheet="<row><c><v>1</c></v></row>"), "mismatched tag"),
        (by_hand(sheet="<row><c><v>one</v></c></row>"), "cell A1 holds 'one', which is no number"),
        (by_hand(sheet="<row><c><v>1e999</v></c></row>"), "larger than any number"),
        (by_hand(sheet='<row><c t="s"><v>7</v></c></row>', strings="<si><t>x</t></si>"), "cell A1 refers to a text"),
        (by_hand(sheet='<row><c t="s"><v>-1</v></c></row>', strings="<si><t>x</t></si>"), "cell A1 refers to a text"),
        (by_hand(sheet='<row r="2"><c/></row><row r="1"><c/></row>'), "row 1 comes after row 2"),
        (by_hand(sheet='<row r="99999999999"><c/></row>'), "row 99999999999 comes after"),
        (by_hand(sheet='<row><c r="B1"/><c r="A1"/></row>'), "column 1 comes after column 2"),
        (by_hand(sheet='<row><c r="A7"/></row>'), "row 1 holds a cell 'A7'"),
        (by_hand(sheet='<row><c t="d"><v>soon</v></c></row>'), "'soon', which is no date"),
    ],
)  # fmt: skip
def test_what_is_no_whole_workbook_is_an_error_that_names_it(folder, make, match):
    make(folder)
    with pytest.raises(SourceFailed, match=rf"^a\.xlsx: .*{match}|^a\.xlsx: {match}"):
        folder.read("EXCEL", path="a.xlsx", header=False)


def test_warnings_of_other_programs_parts_are_nobodys_business(folder):
    made = openpyxl.Workbook()
    made.active.append(["a"])
    made.active.append([1])
    made.active.print_title_rows = "1:1"
    made.active.freeze_panes = "A2"
    made.create_chartsheet("chart")
    made.save(folder.root / "a.xlsx")
    assert folder.rows("EXCEL", path="a.xlsx") == [(1,)]


def test_compressed_files_globs_partitions_and_provenance_work(folder):
    path = book(folder, "in/month=01/a.xlsx", ("S", [["id"], [1]]))
    path.with_name("b.xlsx.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    book(folder, "in/month=12/c.xlsx", ("S", [["id"], [2]]))
    assert folder.rows("EXCEL", path="in/**/*", row_provenance=True) == [
        (1, "01", "in/month=01/b.xlsx.gz"),
        (2, "12", "in/month=12/c.xlsx"),
    ]


def test_a_workbook_of_duckdbs_own_writer_is_read(folder):
    rows = "SELECT 1 AS a, 'y & <z>' AS b, DATE '2024-01-31' AS d, 1.5 AS e, true AS f, TIME '08:00:00' AS c UNION ALL SELECT 2, NULL, NULL, 2.25, false, NULL"
    with duckdb.connect() as connection:
        load(connection, "excel")
        connection.execute(f"COPY ({rows}) TO '{folder.root}/a.xlsx' (FORMAT xlsx, HEADER true)")
    result = folder.read("EXCEL", path="a.xlsx")
    assert list(result.columns.values()) == ["BIGINT", "VARCHAR", "DATE", "DOUBLE", "BOOLEAN", "TIME"]
    assert result.rows == [
        (1, "y & <z>", dt.date(2024, 1, 31), 1.5, True, dt.time(8)), (2, None, None, 2.25, False, None),
    ]  # fmt: skip


def test_no_spool_is_left(folder):
    book(folder, "a.xlsx", ("S", [["id"], [1]]))
    folder.rows("EXCEL", path="a.xlsx")
    assert list((folder.root / ".sqlflow/spool").iterdir()) == []


# Whole runs.

LOADED = """
SOURCE plan TYPE EXCEL PARAMS {"path": "data/*.xlsx", "sync_mode": "incremental", %s};
LOAD plan FROM plan;
"""


def workbook(bench, name, *rows):
    (bench.root / "data").mkdir(exist_ok=True)
    made = openpyxl.Workbook()
    for row in (["id", "at", "v"], *rows):
        made.active.append(row)
    made.save(bench.root / "data" / name)


def test_new_and_changed_workbooks_are_loaded_once(bench):
    bench.pipeline(LOADED % '"row_provenance": true')
    workbook(bench, "a.xlsx", [1, dt.date(2024, 1, 1), "x"])
    bench.ok()
    workbook(bench, "b.xlsx", [2, dt.date(2024, 1, 2), "y"])
    assert bench.ok()["plan"].rows == 1
    assert bench.ok()["plan"].rows == 0
    workbook(bench, "a.xlsx", [1, dt.date(2024, 1, 1), "changed"], [3, None, "z"])
    assert bench.ok()["plan"].rows == 2
    assert bench.query("SELECT id, v, _sqlflow_file FROM p.plan ORDER BY id") == [
        (1, "changed", "data/a.xlsx"), (2, "y", "data/b.xlsx"), (3, "z", "data/a.xlsx"),
    ]  # fmt: skip


def test_numbers_are_text_where_the_column_is_text(bench):
    bench.pipeline(LOADED % '"primary_key": "v"')
    workbook(bench, "a.xlsx", [1, None, "A7"])
    bench.ok()
    workbook(bench, "b.xlsx", [2, None, 7])
    bench.ok()
    assert bench.query("SELECT id, v FROM p.plan ORDER BY id") == [(1, "A7"), (2, "7")]


def test_rows_from_the_cursor_on_are_loaded(bench):
    bench.pipeline(LOADED % '"cursor_field": "at", "primary_key": "id"')
    workbook(bench, "a.xlsx", [1, dt.date(2024, 1, 1), "x"], [2, dt.date(2024, 1, 2), "y"])
    assert bench.ok()["plan"].cursor_after.value == "2024-01-02"
    workbook(bench, "b.xlsx", [2, dt.date(2024, 1, 3), "newer"], [1, dt.date(2023, 1, 1), "older"])
    assert bench.ok()["plan"].rows == 2
    assert bench.query("SELECT id, v FROM p.plan ORDER BY id") == [(1, "x"), (2, "newer")]


# Exports.

EXACT = {
    "i": ("42", 42), "big": ("123456789012345", 123456789012345), "bigger": ("1234567890123456", "1234567890123456"),
    "huge": ("170141183460469231731687303715884105727", "170141183460469231731687303715884105727"),
    "round": ("100000000000000000000::HUGEINT", 10**20),
    "money": ("4.15::DECIMAL(9,2)", 4.15), "fine": ("1.12345678901234567::DECIMAL(38,17)", "1.12345678901234567"),
    "small": ("0.00000000000000001::DECIMAL(38,17)", 1e-17),
    "third": ("1/3", 1 / 3), "tiny": ("5e-324::DOUBLE", 5e-324), "nan": ("'nan'::DOUBLE", "NaN"), "inf": ("'-inf'::DOUBLE", "-Infinity"),
    "null": ("NULL", None), "empty": ("''", ""), "formula": ("'=1+1'", "=1+1"), "escape": ("'_x0041_'", "_x005F_x0041_"),
    "yes": ("true", True), "day": ("DATE '2024-01-31'", dt.datetime(2024, 1, 31)),
    "last": ("DATE '9999-12-31'", dt.datetime(9999, 12, 31)), "early": ("DATE '1900-02-28'", "1900-02-28"),
    "forever": ("'infinity'::DATE", "infinity"), "bc": ("DATE '2024-01-31 (BC)'", "2024-01-31 (BC)"),
    "ms": ("TIMESTAMP '2024-01-31 08:15:00.123'", dt.datetime(2024, 1, 31, 8, 15, 0, 123_000)),
    "us": ("TIMESTAMP '2024-01-31 08:15:00.123456'", "2024-01-31 08:15:00.123456"),
    "bc_time": ("TIMESTAMP '2024-01-31 (BC) 08:15:00'", "2024-01-31 (BC) 08:15:00"),
    "zoned": ("TIMESTAMPTZ '2024-01-31 08:15:00+02'", dt.datetime(2024, 1, 31, 6, 15)),
    "clock": ("TIME '08:15:00.5'", dt.time(8, 15, 0, 500_000)), "span": ("INTERVAL '36 hours'", "36:00:00"),
    "nested": ("{'a': [1.50::DECIMAL(9,2), NULL], 'b': 'ä\"'}", '{"a": [1.5, null], "b": "ä\\""}'),
    "json": ("'\"x\"'::JSON", '"x"'), "blob": ("'\\x00a'::BLOB", "\\x00a"),
    "long": ("repeat('x', 32767)", "x" * 32767), "emoji": ("'\N{GRINNING FACE}'", "\N{GRINNING FACE}"),
}  # fmt: skip


def exported(bench, query, options=""):
    bench.pipeline(f'EXPORT {query} TO "out/a.xlsx" {options};')
    bench.ok()
    return openpyxl.load_workbook(bench.root / "out/a.xlsx")


def test_every_value_is_in_its_cell_exactly_or_as_text(bench):
    query = "SELECT " + ", ".join(f'{value} AS "{name}"' for name, (value, _) in EXACT.items())
    sheet = exported(bench, query)["Sheet1"]
    names, cells = list(sheet.iter_rows())
    assert [cell.value for cell in names] == list(EXACT)
    assert {n.value: c.value for n, c in zip(names, cells, strict=True)} == {
        n: e for n, (_, e) in EXACT.items()
    }
    assert cells[list(EXACT).index("formula")].data_type == "s"


def test_what_was_written_is_read_back(bench):
    bench.pipeline(
        "CREATE TABLE t AS SELECT range AS id, 'a' || chr(13) || chr(10) || '_x000D_' || chr(1) || ' <&> \"' || chr(9) AS t,"
        " CASE WHEN range % 2 = 0 THEN '' END AS e, range / 7 AS d, DATE '2024-01-01' + range::INT AS day,"
        " TIMESTAMP '2024-01-01' + to_days(range::INT) + to_milliseconds(range * 17) AS at, range % 3 = 0 AS yes FROM range(300);\n"
        'EXPORT t TO "out/a.xlsx";\n'
    )
    bench.ok()
    bench.pipeline('SOURCE s TYPE EXCEL PARAMS {"path": "out/a.xlsx"};\nLOAD back FROM s;', "q")
    bench.ok("q")
    assert bench.query("SELECT count(*) FROM (FROM p.t EXCEPT ALL FROM q.back)") == [(0,)]
    assert bench.query("SELECT count(*) FROM q.back") == [(300,)]


def test_duckdbs_own_reader_reads_what_was_written(bench):
    exported(bench, "SELECT 1 AS id, 'x' AS t, DATE '2024-01-31' AS day")
    with duckdb.connect() as connection:
        load(connection, "excel")
        found = connection.execute(f"FROM read_xlsx('{bench.root / 'out/a.xlsx'}')").fetchall()
    assert found == [(1.0, "x", dt.date(2024, 1, 31))]


def test_the_sheet_has_the_name_and_header_that_are_asked_for(bench):
    made = exported(bench, "SELECT 1 AS a", 'OPTIONS {"sheet_name": "Q1 & Q2", "header": false}')
    assert list(made["Q1 & Q2"].values) == [(1,)]


def test_no_rows_are_a_header(bench):
    assert list(exported(bench, "SELECT 1 AS a, 2 AS b WHERE false").active.values) == [("a", "b")]


@pytest.mark.parametrize(
    ("query", "options", "match"),
    [
        ("SELECT repeat('x', 32768) AS t", "", "row 1, column 't': a text of 32,768 characters"),
        ("SELECT repeat('\N{GRINNING FACE}', 16384) AS t", "", "a text of 32,768 characters"),
        ("SELECT 1 AS a FROM range(1048576)", "", "1,048,576 rows, and a sheet holds 1,048,575"),
        ("SELECT 1::BIGNUM AS b", "", "the column 'b' is BIGNUM; CAST it"),
        ("SELECT 1 AS a", 'OPTIONS {"sheet": "a/b"}', "cannot be a sheet's name"),
        ("SELECT 1 AS a", 'OPTIONS {"sheet": "12345678901234567890123456789012"}', "at most 31"),
    ],
)
def test_what_no_sheet_holds_is_refused_and_the_old_file_stays(bench, query, options, match):
    bench.write("out/a.xlsx", "old")
    bench.pipeline(f'EXPORT {query} TO "out/a.xlsx" {options};')
    with pytest.raises((ExportFailed, PipelineError), match=match):
        bench.ok()
    assert (bench.root / "out/a.xlsx").read_text() == "old"
    assert [path.name for path in (bench.root / "out").iterdir()] == ["a.xlsx"]


@pytest.mark.parametrize("target", ["out/a.xlsx.gz", "out/a.xlsm", "out/a.txt"])
def test_a_name_that_excel_would_not_open_is_refused(bench, target):
    bench.pipeline(f'EXPORT SELECT 1 AS a TO "{target}" TYPE EXCEL;')
    with pytest.raises(PipelineError, match=r"ends with \.xlsx"):
        bench.ok()


@pytest.fixture
def named(folder):
    """A workbook with a table that has totals, one without a header, and names of ranges."""
    from openpyxl.workbook.defined_name import DefinedName
    from openpyxl.worksheet.table import Table, TableColumn

    made = openpyxl.Workbook()
    made.active.append(["a title"])
    sheet = made.create_sheet("It's 2024")
    for row in (
        [],
        ["", "id", "v", "note"],
        ["", 1, "a", "x"],
        ["", 2, "b", "y"],
        ["", "Total", 3],
        ["", 7, "c"],
    ):
        sheet.append(row)
    table = Table(displayName="Sales", ref="B2:C5", totalsRowCount=1)
    bare = Table(displayName="Bare", ref="B6:C6", headerRowCount=0)
    for each, names in ((table, ["id", "v"]), (bare, ["k", "w"])):
        each._initialise_columns()
        each.tableColumns = [TableColumn(id=n, name=name) for n, name in enumerate(names, 1)]
        if each is bare:
            each.autoFilter = None
        sheet.add_table(each)
    for name, cells in {
        "Numbers": "'It''s 2024'!$B$2:$B$4", "Columns": "'It''s 2024'!$C:$D", "Odd": "OFFSET(Sheet!$A$1,1,1)",
    }.items():  # fmt: skip
        made.defined_names[name] = DefinedName(name, attr_text=cells)
    made.save(folder.root / "a.xlsx")
    return folder


@pytest.mark.parametrize(
    ("name", "columns", "rows"),
    [
        ("Sales", ["id", "v"], [(1, "a"), (2, "b")]),
        ("sales", ["id", "v"], [(1, "a"), (2, "b")]),
        ("Bare", ["k", "w"], [(7, "c")]),
        ("Numbers", ["id"], [(1,), (2,)]),
        ("Columns", ["v", "note"], [("a", "x"), ("b", "y"), ("3", None), ("c", None)]),
    ],
)
def test_a_table_or_named_range_is_read_by_its_name(named, name, columns, rows):
    read = named.read("EXCEL", path="a.xlsx", table=name)
    assert (list(read.columns), read.rows) == (columns, rows)


def test_a_name_that_is_none_is_told_with_those_that_are(named):
    with pytest.raises(
        SourceFailed, match=r"no table or named range 'x'; there are: Sales, Bare, Numbers, Columns, Odd"
    ):
        named.read("EXCEL", path="a.xlsx", table_name="x")
    with pytest.raises(SourceFailed, match=r"'Odd' stands for OFFSET\(.*, which is no range of cells"):
        named.read("EXCEL", path="a.xlsx", table="Odd")
    with pytest.raises(BadOption, match="table: it says the sheet and the range itself"):
        named.read("EXCEL", path="a.xlsx", table="Sales", sheet=0)
