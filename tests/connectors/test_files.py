"""Files as the cursor, and the folders that a source stays in."""

import hashlib
import json
import os
import subprocess
import sys
import time
from decimal import Decimal

import pytest

from sqlflow_dagster.connectors import manifest
from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.connectors.registry import find
from sqlflow_dagster.cursor import Cursor
from sqlflow_dagster.errors import BadOption, NotAllowed, RetryLater, SourceFailed

OLD = 1_700_000_000


@pytest.fixture
def inbox(folder):
    """A folder with two settled files."""
    put(folder, "a", "1,x\n")
    put(folder, "b", "2,y\n")
    return folder


def put(folder, name, rows, at=OLD):
    file = folder.write(f"in/{name}.csv", "id,v\n" + rows)
    os.utime(file, (at, at))
    return file


def read(folder, since=None, **params):
    return folder.read("CSV", since, path="in/*.csv", sync_mode="incremental", **params)


def test_only_new_files_are_read(inbox):
    first = read(inbox)
    assert [row[0] for row in first.rows] == [1, 2]
    assert first.position.type == "JSON"
    put(inbox, "c", "3,z\n")
    second = read(inbox, first.position)
    assert [row[0] for row in second.rows] == [3]
    assert read(inbox, second.position).rows == []


def test_the_same_cursor_gives_the_same_rows_again(inbox):
    first = read(inbox)
    put(inbox, "c", "3,z\n")
    assert read(inbox, first.position).rows == read(inbox, first.position).rows


def test_nothing_new_is_no_batch(inbox):
    first = read(inbox)
    with inbox.open("CSV", path="in/*.csv", sync_mode="incremental") as source:
        assert list(source.read(source.streams()[0], first.position)) == []


def test_what_is_known_anew_of_files_is_kept_where_none_is_to_be_read(inbox):
    first = read(inbox, row_provenance=True)
    (inbox.root / "in/b.csv").rename(inbox.root / "in/c.csv")
    second = read(inbox, first.position, row_provenance=True)
    assert second.rows == []
    put(inbox, "c", "2,changed\n", at=OLD + 60)
    third = read(inbox, second.position, row_provenance=True)
    assert (third.rows, third.replaces) == ([(2, "changed", "in/c.csv")], ("in/b.csv",))


def test_a_file_that_was_empty_is_read_when_it_has_rows(inbox):
    inbox.write("in/c.csv", "")
    first = read(inbox)
    assert [row[0] for row in first.rows] == [1, 2]
    put(inbox, "c", "3,z\n")
    assert [row[0] for row in read(inbox, first.position).rows] == [3]


def test_a_changed_file_without_key_or_provenance_is_an_error_that_says_what_to_do(inbox):
    first = read(inbox)
    put(inbox, "a", "1,changed\n", at=OLD + 60)
    with pytest.raises(SourceFailed, match=r"in/a\.csv.*row_provenance.*primary_key.*new names"):
        read(inbox, first.position)


def test_a_changed_file_is_read_again_for_its_key(inbox):
    first = read(inbox, primary_key="id")
    put(inbox, "a", "1,changed\n", at=OLD + 60)
    second = read(inbox, first.position, primary_key="id")
    assert (second.rows, second.replaces) == ([(1, "changed")], ())


def test_a_changed_file_takes_the_place_of_its_own_rows(inbox):
    first = read(inbox, row_provenance=True)
    assert first.rows == [(1, "x", "in/a.csv"), (2, "y", "in/b.csv")]
    put(inbox, "a", "1,changed\n", at=OLD + 60)
    second = read(inbox, first.position, row_provenance=True)
    assert (second.rows, second.replaces) == ([(1, "changed", "in/a.csv")], ("in/a.csv",))


def test_new_content_of_the_same_size_and_time_is_seen(inbox):
    first = read(inbox, primary_key="id")
    put(inbox, "a", "1,q\n")
    assert read(inbox, first.position, primary_key="id").rows == [(1, "q")]


def test_a_touched_file_is_not_read_again(inbox):
    first = read(inbox)
    put(inbox, "a", "1,x\n", at=OLD + 60)
    assert read(inbox, first.position).rows == []


def test_a_renamed_file_is_not_loaded_twice(inbox):
    first = read(inbox, row_provenance=True)
    (inbox.root / "in/a.csv").rename(inbox.root / "in/c.csv")
    assert read(inbox, first.position, row_provenance=True).rows == []
    put(inbox, "d", "4,d\n")
    second = read(inbox, first.position, row_provenance=True)
    assert [row[0] for row in second.rows] == [4]
    put(inbox, "c", "1,changed\n", at=OLD + 60)
    third = read(inbox, second.position, row_provenance=True)
    assert (third.rows, third.replaces) == ([(1, "changed", "in/c.csv")], ("in/a.csv",))


def test_of_files_that_came_since_the_last_run_the_newest_has_the_last_word_on_a_key(inbox):
    first = read(inbox, primary_key="id")
    for name, text, at in (("z", "oldest", 60), ("c", "newest", 180), ("d", "middle", 120)):
        put(inbox, name, f"9,{text}\n", at=OLD + at)
    assert read(inbox, first.position, primary_key="id").rows == [(9, "oldest"), (9, "middle"), (9, "newest")]
    # What was there before has arrived at once, in an order that says nothing.
    assert [row[1] for row in read(inbox, primary_key="id").rows] == ["x", "y", "newest", "middle", "oldest"]


def test_a_new_file_like_one_that_was_removed_is_loaded(inbox):
    first = read(inbox)
    (inbox.root / "in/a.csv").unlink()
    put(inbox, "c", "1,x\n", at=OLD + 60)
    assert read(inbox, first.position).rows == [(1, "x")]


def test_a_file_that_changed_after_it_was_renamed_has_its_new_name_from_then_on(inbox):
    first = read(inbox, row_provenance=True)
    (inbox.root / "in/a.csv").rename(inbox.root / "in/c.csv")
    put(inbox, "d", "4,d\n")
    second = read(inbox, first.position, row_provenance=True)
    put(inbox, "c", "1,one\n", at=OLD + 60)
    third = read(inbox, second.position, row_provenance=True)
    put(inbox, "c", "1,two\n", at=OLD + 90)
    assert read(inbox, third.position, row_provenance=True).replaces == ("in/c.csv",)


def test_a_deleted_file_is_not_loaded_again_when_it_comes_back(inbox):
    first = read(inbox)
    (inbox.root / "in/a.csv").unlink()
    put(inbox, "c", "3,z\n")
    second = read(inbox, first.position)
    put(inbox, "a", "1,x\n", at=OLD + 500)
    assert read(inbox, second.position).rows == []


def test_a_file_that_is_still_young_waits_for_the_next_run(inbox):
    put(inbox, "c", "3,z\n", at=time.time())
    first = read(inbox, min_age_seconds=60)
    assert [row[0] for row in first.rows] == [1, 2]
    put(inbox, "c", "3,z\n")
    assert [row[0] for row in read(inbox, first.position, min_age_seconds=60).rows] == [3]


def test_a_file_that_is_written_while_it_is_read_fails_the_read(inbox):
    with inbox.open("CSV", path="in/*.csv") as source:
        batches = source.read(source.streams()[0], None)
        next(batches)
        put(inbox, "b", "2,y\n3,z\n")
        with pytest.raises(RetryLater, match=r"in/b\.csv was written to while it was read"):
            next(batches)


def test_new_files_and_what_reading_them_takes_are_told_without_looking_through_them(inbox, monkeypatch):
    monkeypatch.setattr(manifest, "digest", lambda file: pytest.fail(f"{file.name} was looked through"))
    with inbox.open("CSV", path="in/*.csv", sync_mode="incremental") as source:
        assert len(source.new_files(None)) == 2
        assert source.estimate(None).bytes == 18


def test_a_file_that_goes_while_files_are_looked_through_is_named(inbox, monkeypatch):
    def compare(*args, **kwargs):
        changes = compared(*args, **kwargs)
        (inbox.root / "in/b.csv").unlink()
        return changes

    compared = manifest.compare
    monkeypatch.setattr(manifest, "compare", compare)
    with pytest.raises(SourceFailed, match=r"in/b\.csv: it cannot be read .*No such file"):
        read(inbox)


def test_links_that_lead_nowhere_are_no_files(inbox):
    (inbox.root / "in/nowhere.csv").symlink_to("gone.csv")
    (inbox.root / "in/itself.csv").symlink_to("itself.csv")
    assert [row[0] for row in read(inbox).rows] == [1, 2]


def test_new_files_are_named_without_reading(inbox):
    first = read(inbox)
    put(inbox, "c", "3,z\n")
    with inbox.open("CSV", path="in/*.csv", sync_mode="incremental") as source:
        assert [text.split()[0] for text in source.new_files(first.position)] == ["in/c.csv"]
        assert [text.split()[0] for text in source.new_files(None)] == ["in/a.csv", "in/b.csv", "in/c.csv"]


def test_the_cursor_of_thousands_of_files_stays_small(folder):
    for number in range(3_000):
        put(folder, f"day={number:05}", f"{number},x\n")
    first = read(folder)
    assert len(first.rows) == 3_000
    assert json.loads(first.position.value)["count"] == 3_000
    assert len(first.position.value) < 3_000 * 60
    assert read(folder, first.position).rows == []


def test_the_whole_folder_is_read_with_a_cursor_column(inbox):
    result = inbox.read(
        "CSV", Cursor("2", "BIGINT"), path="in/*.csv", sync_mode="incremental", cursor_field="id"
    )
    assert len(result.rows) == 2  # the warehouse compares
    assert result.position is None


@pytest.mark.parametrize("text", ["{}", "[]", '{"files": 3}', '{"packed": "x"}', "2024"])
def test_a_cursor_that_is_no_list_of_files_is_an_error(inbox, text):
    with pytest.raises(SourceFailed, match="reset this LOAD"):
        read(inbox, Cursor(text, "JSON"))


@pytest.mark.parametrize(
    "path",
    ["../secret.csv", "in/../../secret.csv", "{outside}/secret.csv", "file://{outside}/secret.csv",
     "file://%2e%2e/secret.csv", "../*.csv", "in/link.csv", "in/li*.csv", "{outside}", "linked", "in/**/../../../*.csv"],
)  # fmt: skip
def test_files_outside_the_project_are_refused(inbox, tmp_path, path):
    (tmp_path / "secret.csv").write_text("id\n1\n")
    (inbox.root / "in/link.csv").symlink_to(tmp_path / "secret.csv")
    (inbox.root / "linked").symlink_to(tmp_path)
    with pytest.raises((NotAllowed, BadOption)):
        inbox.read("CSV", path=path.replace("{outside}", str(tmp_path)))


@pytest.mark.parametrize(
    ("path", "remedy"),
    [("https://host/x.csv", "fetch it to this machine first"), ("s3://bucket/x.csv", "write TYPE S3")],
)
def test_a_file_of_elsewhere_is_told_how_it_comes_here(inbox, path, remedy):
    with pytest.raises(BadOption, match=f"is no local file; {remedy}"):
        inbox.rows("CSV", path=path)


def test_declared_folders_outside_the_project_are_read(inbox, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.csv").write_text("id\n1\n")
    inbox.allowed = (other,)
    assert inbox.rows("CSV", path=str(other / "*.csv")) == [(1,)]
    assert inbox.rows("CSV", path=f"file://{other}/x.csv", row_provenance=True) == [(1, f"{other}/x.csv")]


def test_a_link_inside_the_project_is_read_once(inbox):
    (inbox.root / "in/link.csv").symlink_to(inbox.root / "in/a.csv")
    assert len(inbox.rows("CSV", path="in/*.csv")) == 2


@pytest.mark.parametrize(
    ("path", "ids"),
    [
        ("in/{a,b}.csv", [1, 2]),
        ("in/{a,none}.csv", [1]),
        ("in/{a,x{1,2}}*.csv", [1]),
        ("{in,none}/[!a].csv", [2]),
        ("in/{,b}*.csv", [1, 2]),
        ("file://{root}/in/{a,b}.csv", [1, 2]),
        ("{in,none}", [1, 2]),
        ("in/{a}.csv", [3]),
        ("in/{a,c}.csv", [4]),
    ],
)
def test_alternatives_of_a_path_are_what_they_are_in_a_shell(inbox, path, ids):
    if path == "in/{a}.csv":
        put(inbox, "{a}", "3,z\n")
    if path == "in/{a,c}.csv":
        put(inbox, "{a,c}", "4,a file of that name\n")
    path = path.replace("{root}", str(inbox.root))
    assert [row[0] for row in inbox.rows("CSV", path=path)] == ids


def test_alternatives_of_a_pattern_are_taken_and_none_leads_out(inbox):
    inbox.write("in/deep/c.csv", "id,v\n3,z\n")
    assert [row[0] for row in inbox.rows("CSV", path="in", pattern="{a*,deep/*}.csv")] == [1, 3]
    with pytest.raises(NotAllowed):
        inbox.read("CSV", path="{..,in}/a.csv")


def test_a_pattern_without_a_match_names_the_folder_and_what_is_there(inbox):
    with pytest.raises(SourceFailed, match=r"no file matches 'in/\*\.txt'; .*/in has a\.csv, b\.csv"):
        inbox.read("CSV", path="in/*.txt")
    assert inbox.read("CSV", path="in/*.txt", require_files=False).rows == []


@pytest.mark.parametrize(
    "more", [{}, {"sync_mode": "incremental", "cursor_field": "id"}, {"sync_mode": "incremental"}]
)
def test_each_file_that_is_named_must_be_there(inbox, more):
    names = ["in/a.csv", "in/c.csv", "in/x*.csv"]
    with pytest.raises(SourceFailed, match=r"no file matches 'in/c\.csv'; .*/in has a\.csv, b\.csv"):
        inbox.read("CSV", path=names, **more)
    with inbox.open("CSV", path=names) as source:
        assert not source.check().ok
    assert inbox.rows("CSV", path=names, require_files=False, **more) == [(1, "x")]


@pytest.mark.parametrize(
    "more", [{"cursor_field": "id"}, {"primary_key": "id"}], ids=["by cursor", "by file"]
)
def test_a_file_that_was_read_may_go(inbox, more):
    names = {"path": ["in/a.csv", "in/b.csv"], "sync_mode": "incremental", **more}
    since = Cursor("2", "BIGINT") if "cursor_field" in more else inbox.read("CSV", **names).position
    (inbox.root / "in/a.csv").unlink()
    put(inbox, "b", "2,z\n3,z\n")
    assert [row[0] for row in inbox.read("CSV", since, **names).rows] == [2, 3]


def test_a_directory_means_its_files_of_the_format_hidden_ones_apart(inbox):
    for name in (
        "in/.hidden.csv",
        "in/_tmp.csv",
        "in/~$a.csv",
        "in/note.txt.bak",
        "in/_x/y.csv",
        "in/.git/y.csv",
    ):
        inbox.write(name, "id,v\n9,no\n")
    inbox.write("in/deep/c.csv", "id,v\n3,z\n")
    assert sorted(row[0] for row in inbox.rows("CSV", path="in")) == [1, 2, 3]
    assert inbox.rows("CSV", path="in", pattern="a*.csv") == [(1, "x")]
    for names in ({"path": "in", "pattern": "*.csv"}, {"path": "in/*.csv"}):
        assert sorted(row[0] for row in inbox.rows("CSV", **names)) == [1, 2]
    assert inbox.rows("CSV", path="in", pattern="_*.csv") == [(9, "no")]
    assert len(inbox.rows("CSV", path=["in/a.csv", "in/*.csv"])) == 2


def test_a_partition_whose_key_begins_with_an_underscore_is_read(inbox):
    inbox.write("days/_day=1/a.csv", "id\n1\n")
    inbox.write("days/_day=2/_x/a.csv", "id\n2\n")
    assert inbox.rows("CSV", path="days") == [(1, 1)]


def test_a_folder_above_the_project_that_looks_like_a_partition_is_no_column(folder, tmp_path):
    folder = type(folder)(tmp_path / "env=prod" / "shop")
    folder.write("in/day=1/a.csv", "id\n1\n")
    assert list(folder.read("CSV", path="in").columns) == ["id", "day"]


def test_a_source_says_how_it_is(inbox):
    with inbox.open("CSV", path="in/*.csv") as source:
        assert (source.check().ok, source.check().facts["files"]) == (True, 2)
    with inbox.open("CSV", path="no/*.csv") as source:
        assert not source.check().ok
    with inbox.open("CSV", path="../*.csv") as source:
        assert not source.check().ok


@pytest.mark.parametrize("option", ["batch_size", "rate_limit", "timeout_seconds"])
def test_what_reading_files_does_not_need_is_said(option):
    _options, notices = parse(find("CSV").options_type, {"path": "a.csv", option: 5})
    assert notices[0].startswith(f"{option}: it is not needed here")


@pytest.mark.parametrize(
    ("type_", "option", "value"),
    [("CSV", "engine", "pandas"), ("CSV", "combine_files", True), ("PARQUET", "parallel_reading", True)],
)
def test_what_the_first_sqlflow_was_told_is_taken_and_said_not_to_be_needed(type_, option, value):
    _options, notices = parse(find(type_).options_type, {"path": "a", option: value})
    assert notices[0].startswith(f"{option}: it is not needed here")


@pytest.mark.parametrize(("given", "meant"), [(True, "quarantine"), (False, "error")])
def test_errors_that_are_to_be_ignored_are_set_aside(given, meant):
    options, _notices = parse(find("CSV").options_type, {"path": "a.csv", "ignore_errors": given})
    assert options.bad_rows == meant


def test_no_spool_is_left(inbox):
    inbox.write("in/c.csv", "id,v\n1,ä\n".encode("latin-1"))
    inbox.rows("CSV", path="in/c.csv", encoding="latin-1")
    assert list((inbox.root / ".sqlflow/spool").iterdir()) == []


def test_listing_and_finding_imports_nothing_heavy():
    code = (
        "import sys; from sqlflow_dagster.connectors import registry; registry.types(); "
        "before = set(sys.modules); assert 'sqlflow_dagster.connectors.csv' not in before; "
        "[registry.find(name) for name in ('CSV', 'JSON', 'PARQUET')]; "
        "heavy = {'duckdb', 'pyarrow', 'pandas', 'dagster', 'openpyxl'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# Whole runs: what a column was before decides how later files are read.


def increments(bench, type_, suffix, *files, **params):
    """Load files one after the other, and return the rows of all together."""
    given = {"path": f"data/*.{suffix}", "sync_mode": "incremental", **params}
    bench.pipeline(f"SOURCE s TYPE {type_} PARAMS {json.dumps(given)};\nLOAD t FROM s;")
    for number, text in enumerate(files):
        bench.write(f"data/{number}.{suffix}", text)
        bench.ok()
    return bench.query("FROM p.t ORDER BY ALL")


@pytest.mark.parametrize(
    "text", ["1.10", "TRUE", "1e6", "2024-01-01T10:00:00", "2.50E3", " 7", "2024-01-01 10:00:00+02"]
)
def test_text_of_csv_stays_as_it_stands_where_the_column_is_text(bench, text):
    assert increments(bench, "CSV", "csv", "id,v\n1,x\n", f"id,v\n2,{text}\n") == [(1, "x"), (2, text)]


@pytest.mark.parametrize("text", ["1.10", "1e3", "true", '"2024-01-01T10:00:00Z"', '{"a":1}', "[1,2]"])
def test_values_of_json_are_their_text_where_the_column_is_text(bench, text):
    found = increments(bench, "JSONL", "jsonl", '{"id":1,"v":"x"}', f'{{"id":2,"v":{text}}}')
    assert found == [(1, "x"), (2, text.strip('"'))]


@pytest.mark.parametrize("text", ['"b"', "5", '{"x":1}', "[1]", "true"])
def test_a_column_of_mixed_json_takes_files_of_one_kind(bench, text):
    first = '{"id":1,"v":1}\n{"id":2,"v":"a"}'
    found = increments(bench, "JSONL", "jsonl", first, f'{{"id":3,"v":{text}}}')
    assert found == [(1, "1"), (2, '"a"'), (3, text)]


def test_a_field_that_was_null_so_far_takes_the_type_of_its_first_value(bench):
    found = increments(bench, "JSONL", "jsonl", '{"id":1,"v":null}', '{"id":2,"v":"x"}', '{"id":3,"v":"1"}')
    assert found == [(1, None), (2, "x"), (3, "1")]


def test_keys_that_look_like_numbers_are_told_apart_where_keys_are_text(bench):
    found = increments(
        bench, "CSV", "csv", "k,v\nA,1\n1.1,2\n", "k,v\n1.10,3\n7,4\n", "k,v\n1.1,5\n7,6\n", primary_key="k"
    )
    assert found == [("1.1", 5), ("1.10", 3), ("7", 6), ("A", 1)]


@pytest.mark.parametrize(
    ("type_", "before", "after"),
    [
        ("CSV", "k,id\n1.1,1\n", "k,id\n1.10,2\n1.125,3\n"),
        ("JSONL", '{"k":5,"id":1}', '{"k":5,"id":2}\n{"k":5.5,"id":3}'),
    ],
)
def test_a_hash_is_that_of_the_text_whatever_stands_beside_it(bench, type_, before, after):
    rows = increments(bench, type_, type_.lower(), before, after, mask=["k"], primary_key="id")
    hashes = {id_: hash_ for hash_, id_ in rows}
    expected = {"CSV": ("1.1", "1.10"), "JSONL": ("5", "5")}[type_]
    assert (hashes[1], hashes[2]) == tuple(hashlib.sha256(text.encode()).hexdigest() for text in expected)


@pytest.mark.parametrize("policy", ["strict", "guided", "permissive"])
def test_files_without_rows_decide_no_types(bench, policy):
    files = ["id,v\n", "id,v\n", "id,v\n1,2.5\n", "id,v\n2,1.25\n"]
    found = increments(bench, "CSV", "csv", *files, primary_key="id", schema_policy=policy)
    assert found == [(1, Decimal("2.50")), (2, Decimal("1.25"))]


def test_a_bad_cursor_is_set_aside_where_the_table_tells_its_type(bench):
    found = increments(
        bench, "CSV", "csv", "id,u\n1,2024-01-01\n", "id,u\nx,2024-01-03\n2,soon\n3,2024-01-05\n",
        cursor_field="u", primary_key="id", bad_rows="quarantine",
    )  # fmt: skip
    assert [row[0] for row in found] == [1, 3]
    places = bench.query("SELECT place FROM _sqlflow.quarantine ORDER BY place")
    assert places == [("data/1.csv:2",), ("data/1.csv:3",)]
