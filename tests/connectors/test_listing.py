"""Partitions, limits and samples: the same for files of a disk and of a bucket."""

from __future__ import annotations

import json

import pytest

from sqlflow_dagster.connectors import listing
from sqlflow_dagster.connectors.parameters import partition_conditions
from sqlflow_dagster.errors import SourceFailed


@pytest.mark.parametrize(
    ("folder", "found"),
    [
        ("year=2024/month=01", {"year": "2024", "month": "01"}),
        ("raw/2024/01/15", {"year": "2024", "month": "01", "day": "15"}),
        ("raw/2024/1/5/08", {"year": "2024", "month": "1", "day": "5", "hour": "08"}),
        ("raw/2024-01-15/part", {"year": "2024", "month": "01", "day": "15"}),
        ("20240115/7", {"year": "2024", "month": "01", "day": "15", "hour": "7"}),
        ("country=a%2Fb/2024/02", {"country": "a/b", "year": "2024", "month": "02"}),
        ("day=__HIVE_DEFAULT_PARTITION__", {"day": None}),
        ("12/31", {}),
        ("2024/99", {"year": "2024"}),
    ],
)
def test_a_partition_is_what_the_folders_say(folder, found):
    assert dict(listing.partition(folder.split("/"))) == found


FOLDERS = ["2023/12/31", "2024/01/01", "2024/01/15", "2024/02/01", "2024/10/01"]


@pytest.mark.parametrize(
    ("condition", "taken"),
    [
        ({"year": 2024, "month": 1}, FOLDERS[1:3]),
        ({"month": ["1", "12"]}, FOLDERS[:3]),
        ({"month": ">= 9"}, [FOLDERS[0], FOLDERS[4]]),
        ({"date": ">= 2024-01-15"}, FOLDERS[2:]),
        ({"date": {">": "2023-12-31", "<": "2024-02-01"}}, FOLDERS[1:3]),
        ({"date": "2024-10-01"}, FOLDERS[4:]),
        ({"year": "!= 2024"}, FOLDERS[:1]),
        ("year=2024/month>=2", FOLDERS[3:]),
        ("year = 2024 and day = 15", FOLDERS[2:3]),
    ],
    ids=str,
)
def test_a_filter_takes_its_partitions_and_looks_into_no_others(folder, condition, taken):
    for name in FOLDERS:
        folder.write(f"in/{name}/a.csv", f"id\n{FOLDERS.index(name)}\n")
    rows = folder.rows("CSV", path="in", partition_filter=condition)
    assert sorted(number for (number,) in rows) == [FOLDERS.index(name) for name in taken]
    wanted = listing.Wanted(partition_conditions(condition))
    looked_into = {name.split("/")[0] for name in FOLDERS if wanted.admits(["in", name.split("/")[0]])}
    assert looked_into >= {name.split("/")[0] for name in taken}
    if "year" in str(condition) or "date" in str(condition):
        assert looked_into == {name.split("/")[0] for name in taken}


def test_hive_partitions_are_filtered_and_are_columns(folder):
    for month in (1, 2, 10):
        folder.write(f"in/month={month:02}/a.csv", "id\n1\n")
    found = folder.read("CSV", path="in", partition_filter={"month": "> 1"})
    assert sorted(found.rows) == [(1, "02"), (1, "10")]


def test_a_filter_on_folders_that_are_not_there_is_an_error_that_names_those_that_are(folder):
    folder.write("in/year=2024/a.csv", "id\n1\n")
    with pytest.raises(SourceFailed, match=r"'yaer'; they have year"):
        folder.read("CSV", path="in", partition_filter={"yaer": 2024})


@pytest.mark.parametrize(
    ("limit", "said"),
    [({"max_files_per_run": 2}, "3 files"), ({"max_data_size_gb": 1e-8}, "GB, and `max_data_size_gb`")],
    ids=["files", "size"],
)
def test_a_limit_is_kept_before_anything_is_read(folder, limit, said):
    for number in range(3):
        folder.write(f"in/{number}.csv", '"no CSV at all')
    with pytest.raises(SourceFailed, match=said):
        folder.read("CSV", path="in", **limit)


def test_a_first_file_that_is_over_the_limit_is_named_with_its_size(folder):
    folder.write("in/0.csv", "id\n1\n2\n")
    limit = {"max_data_size_gb": 5e-9, "sync_mode": "incremental", "when_over_limit": "next_run"}
    with pytest.raises(SourceFailed) as caught:
        folder.read("CSV", path="in", **limit)
    assert str(caught.value) == (
        "the read would take 0.000000007 GB, and `max_data_size_gb` is 0.000000005; nothing was read: raise the limit, "
        "or leave out in/0.csv, which alone is more"
    )


@pytest.mark.parametrize(
    "narrowed", [{"dev_max_files": 1}, {"partition_filter": {"year": 2023}}], ids=["sample", "filter"]
)
def test_files_that_are_left_out_are_not_told_as_gone_nor_taken_for_renamed(bench, caplog, narrowed):
    def load(**params):
        params = {"path": "in", "sync_mode": "incremental", **params}
        bench.pipeline(f"SOURCE s TYPE CSV PARAMS {json.dumps(params)};\nLOAD t FROM s MODE APPEND;")
        bench.ok()

    for year in (2023, 2024, 2025):
        bench.write(f"in/year={year}/a.csv", f"id\n{year}\n")
    load()
    bench.write("in/year=2023/0.csv", "id\n2025\n")
    load(**narrowed)
    assert "no more" not in caplog.text
    assert "was loaded already" not in caplog.text
    assert [row[0] for row in bench.query("SELECT id FROM p.t ORDER BY ALL")] == [2023, 2024, 2025, 2025]


def test_what_is_over_a_limit_comes_with_the_next_runs(bench):
    params = {
        "path": "in", "sync_mode": "incremental", "max_files_per_run": 2, "when_over_limit": "next_run",
        "partition_filter": {"year": 2024},
    }  # fmt: skip
    bench.pipeline(f"SOURCE s TYPE CSV PARAMS {json.dumps(params)};\nLOAD t FROM s MODE APPEND;")
    for day in range(5, 0, -1):
        bench.write(f"in/2024/01/{day:02}/a.csv", f"id\n{day}\n")
    for days in ([1, 2], [1, 2, 3, 4], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]):
        bench.ok()
        assert [row[0] for row in bench.query("SELECT id FROM p.t ORDER BY id")] == days


def test_by_partition_only_the_newest_are_looked_through_again(bench):
    params = {
        "path": "in",
        "sync_mode": "incremental",
        "incremental_by": "partition",
        "partition_lookback": 1,
    }
    bench.pipeline(f"SOURCE s TYPE CSV PARAMS {json.dumps(params)};\nLOAD t FROM s MODE APPEND;")
    for day in (1, 2, 3):
        bench.write(f"in/2024/01/{day:02}/a.csv", f"id\n{day}\n")
    bench.ok()
    bench.write("in/2024/01/01/late.csv", "id\n100\n")
    bench.write("in/2024/01/02/late.csv", "id\n200\n")
    bench.write("in/2024/02/01/a.csv", "id\n4\n")
    outcome = bench.ok()["t"]
    assert [row[0] for row in bench.query("SELECT id FROM p.t ORDER BY id")] == [1, 2, 3, 4, 200]
    assert json.loads(outcome.cursor_after.value)["floor"] == [
        ["year", "2024"],
        ["month", "01"],
        ["day", "03"],
    ]
    bench.write("in/2024/01/03/late.csv", "id\n300\n")
    bench.ok()
    assert [row[0] for row in bench.query("SELECT id FROM p.t ORDER BY id")] == [1, 2, 3, 4, 200, 300]


def test_by_partition_files_that_are_in_none_are_refused(folder):
    folder.write("in/year=2024/a.csv", "id\n1\n")
    folder.write("in/b.csv", "id\n1\n")
    with pytest.raises(SourceFailed, match="cannot be put in order"):
        folder.read("CSV", path="in", sync_mode="incremental", incremental_by="partition")


def test_a_cursor_of_partitions_is_not_taken_for_one_of_files(folder):
    folder.write("in/year=2024/a.csv", "id\n1\n")
    given = {"path": "in", "sync_mode": "incremental"}
    position = folder.read("CSV", incremental_by="partition", **given).position
    with pytest.raises(SourceFailed, match="reset this LOAD"):
        folder.read("CSV", since=position, **given)


def test_a_sample_is_the_same_each_time_and_grows_with_its_share(folder):
    for number in range(50):
        folder.write(f"in/{number}.csv", f"id\n{number}\n")
    samples = [
        {row[0] for row in folder.rows("CSV", path="in", dev_sampling=share)}
        for share in (0.2, 0.2, 0.6, 1.0, 0.0001)
    ]
    assert samples[0] == samples[1] < samples[2] < samples[3]
    assert len(samples[3]) == 50
    assert len(samples[4]) == 1
    assert 3 <= len(samples[0]) <= 20
    assert [row[0] for row in folder.rows("CSV", path="in", dev_max_files=2)] == [0, 1]
