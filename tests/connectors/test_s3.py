"""S3 against a real store: what is listed, read, written, refused and paid for."""

from __future__ import annotations

import gzip
import json

import duckdb
import pytest

from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.connectors.registry import find
from sqlflow_dagster.connectors.s3_options import Connecting, FormatOptions, S3Options
from sqlflow_dagster.errors import BadOption, ExportFailed, NotAllowed, RetryLater, SourceFailed

from .test_avro import avro


@pytest.fixture
def read(folder, bucket):
    """Read a source of the bucket."""

    def reading(since=None, **params):
        return folder.read("S3", since=since, **{**bucket.params, **params})

    return reading


def parquet(folder, select):
    path = folder / "object.parquet"
    duckdb.sql(f"COPY ({select}) TO '{path}'")
    return path.read_bytes()


@pytest.mark.parametrize("form", ["csv", "tsv", "json", "jsonl", "parquet", "avro", "csv.gz", "jsonl.zst"])
def test_every_format_is_read_by_what_its_keys_end_with(folder, bucket, read, form):
    if form == "csv.gz":
        body = gzip.compress(b"id,name\n1,x\n")
    elif form == "avro":
        body = avro("long", [1])
    else:
        path = folder.root / f"object.{form}"
        copied = {
            "csv": "FORMAT csv", "tsv": "FORMAT csv, DELIMITER '\t'", "json": "FORMAT json, ARRAY",
            "jsonl": "FORMAT json", "parquet": "FORMAT parquet", "jsonl.zst": "FORMAT json, COMPRESSION zstd",
        }  # fmt: skip
        duckdb.sql(f"COPY (SELECT 1 AS id, 'x' AS name) TO '{path}' ({copied[form]})")
        body = path.read_bytes()
    for number in (1, 2):
        bucket.put(f"in/{number}.{form}", body)
    assert read(path_prefix="in/").rows == ([(1,)] if form == "avro" else [(1, "x")]) * 2
    assert not list((folder.root / ".sqlflow/spool").iterdir())


def test_a_new_object_like_one_that_was_removed_is_loaded(bucket, read):
    bucket.put("in/monday.csv", "id\n1\n")
    first = read(path_prefix="in/", sync_mode="incremental")
    bucket.client.delete_object(Bucket=bucket.name, Key="in/monday.csv")
    bucket.put("in/tuesday.csv", "id\n1\n")
    assert read(first.position, path_prefix="in/", sync_mode="incremental").rows == [(1,)]


KEYS = [
    "in/a.csv", "in/b.CSV", "in/sub/c.csv", "in/sub/d.json", "in/no_suffix", "in/_SUCCESS", "in/.hidden.csv",
    "in/_temporary/e.csv", "in/folder/", "inside.csv",
]  # fmt: skip


@pytest.mark.parametrize(
    ("params", "taken"),
    [
        ({"path_prefix": "in/", "file_format": "csv"}, ["in/a.csv", "in/b.CSV", "in/no_suffix", "in/sub/c.csv"]),
        ({"path_prefix": "in", "file_format": "csv"},
         ["in/a.csv", "in/b.CSV", "in/no_suffix", "in/sub/c.csv", "inside.csv"]),
        ({"path_prefix": "in/", "pattern": "*.csv"}, ["in/a.csv"]),
        ({"path_prefix": "in/", "globs": ["**/*.csv"]}, ["in/a.csv", "in/sub/c.csv"]),
        ({"key": "in/a.csv"}, ["in/a.csv"]),
        ({"key": ["in/a.csv", "inside.csv"]}, ["in/a.csv", "inside.csv"]),
        ({"key": "in/*/[a-c].csv"}, ["in/sub/c.csv"]),
        ({"key": "in{/a,side}.csv"}, ["in/a.csv", "inside.csv"]),
        ({"key": "in/{a,sub/{c,x}}.csv"}, ["in/a.csv", "in/sub/c.csv"]),
        ({"key": "in/[!b].csv"}, ["in/a.csv"]),
        ({"path_prefix": "in/", "pattern": "{a,sub/{c,x}}.{csv,txt}"}, ["in/a.csv", "in/sub/c.csv"]),
        ({"path": "{in/sub,in}/{a,c}.csv"}, ["in/a.csv", "in/sub/c.csv"]),
        ({"path": "in/{sub,none}/", "file_format": "csv"}, ["in/sub/c.csv"]),
        ({"path": "in/a.csv"}, ["in/a.csv"]),
        ({"path": "in/sub", "file_format": "csv"}, ["in/sub/c.csv"]),
    ],
    ids=str,
)  # fmt: skip
def test_a_place_means_these_objects(folder, bucket, read, params, taken):
    for key in KEYS:
        bucket.put(key, "" if key.endswith("/") else f"id\n{key}\n")
    assert sorted(row[0] for row in read(**params).rows) == sorted(taken)


def test_a_path_names_the_bucket_too(folder, bucket):
    bucket.put("in/a.csv", "id\n1\n")
    params = {name: value for name, value in bucket.params.items() if name != "bucket"}
    for path in (f"s3://{bucket.name}/in/", f"s3://{bucket.name}/in/a.csv", f"s3a://{bucket.name}/**/*.csv"):
        assert folder.rows("S3", path=path, **params) == [(1,)]
        assert folder.rows("S3", uri=path, **params) == [(1,)]


def test_odd_keys_are_read_under_their_own_names(folder, bucket, read):
    keys = [
        "in/a", "in/a/b.csv", "in//c.csv", "in/../d.csv", "in/e\n.csv", "in/ü*?[x].csv", f"in/{'f' * 240}.csv",
        "in/year=2024/../g.csv", "in/back\\slash.csv",
    ]  # fmt: skip
    stored = []
    for number, key in enumerate(keys):
        try:
            bucket.put(key, f"id\n{number}\n")
        except bucket.client.exceptions.ClientError:
            continue  # the test's store has no such keys
        stored.append(key)
    listed = bucket.keys("in")
    found = read(path_prefix="in", file_format="csv", row_provenance=True, hive_partitioning=False)
    assert sorted(name for _, name in found.rows) == sorted(f"s3://{bucket.name}/{key}" for key in listed)
    assert len(listed) >= 5


def test_hive_folders_are_columns_also_of_parquet(bucket, read, tmp_path):
    bucket.put("in/year=2024/month=01/a.parquet", parquet(tmp_path, "SELECT 1 AS id"))
    bucket.put("in/year=2024/month=02/a.parquet", parquet(tmp_path, "SELECT 2 AS id"))
    found = read(path_prefix="in/", types={"year": "INTEGER"})
    assert sorted(found.rows) == [(1, 2024, "01"), (2, 2024, "02")]


def test_a_filter_prunes_the_listing_itself(bucket, read, object_store):
    for month in range(1, 13):
        for day in range(1, 6):
            bucket.put(f"in/2024/{month:02}/{day:02}/a.csv", f"id\n{month * 100 + day}\n")
    before = object_store.requests()
    found = read(path_prefix="in/", partition_filter={"year": 2024, "month": 3})
    after = object_store.requests()
    assert sorted(row[0] for row in found.rows) == [301, 302, 303, 304, 305]
    # The top, the year, and the month: twelve months have 60 objects, of which five are fetched.
    assert after - before == {"LIST": 3, "GET": 5}


def test_alternatives_are_listed_one_by_one_and_nothing_between_them(bucket, read, object_store):
    for day in range(1, 30):
        bucket.put(f"in/{day:02}/a.csv", f"id\n{day}\n")
    before = object_store.requests()
    assert sorted(read(path="in/{02,28}/*.csv").rows) == [(2,), (28,)]
    assert object_store.requests() - before == {"LIST": 2, "GET": 2}


@pytest.mark.parametrize(
    "params",
    [{"key": ["in/a.csv", "in/none.csv"]}, {"path": ["in/a.csv", "in/none.csv", "in/x*.csv"]}],
    ids=str,
)
def test_each_object_that_is_named_must_be_there(bucket, read, params):
    bucket.put("in/a.csv", "id\n1\n")
    with pytest.raises(SourceFailed, match=r"there is no object s3://\S+/in/none\.csv; mend `key` or `path`"):
        read(**params)
    assert read(**params, require_files=False).rows == [(1,)]


def test_one_listing_and_one_request_an_object_read_a_prefix(bucket, read, object_store):
    for number in range(20):
        bucket.put(f"in/{number:02}.csv", f"id\n{number}\n")
    before = object_store.requests()
    assert len(read(path_prefix="in/").rows) == 20
    after = object_store.requests()
    assert after - before == {"LIST": 1, "GET": 20}


def test_objects_are_told_by_the_time_they_were_stored(bucket, read):
    bucket.put("in/a.csv", "id\n1\n")
    assert read(path_prefix="in/", modified_after="2001-01-01").rows == [(1,)]
    nothing = read(
        path_prefix="in/", modified_before="2001-01-01", types={"id": "BIGINT"}, require_files=False
    )
    assert nothing.rows == []


@pytest.mark.parametrize("cursor", [None, "last_modified", "_ab_source_file_last_modified"])
def test_new_and_changed_objects_are_read_and_no_others(bench, bucket, object_store, cursor):
    given = {"sync_mode": "incremental", "primary_key": "id", "path_prefix": "in/"}
    given |= {"cursor_field": cursor} if cursor else {}
    bench.pipeline(f"SOURCE s TYPE S3 PARAMS {json.dumps({**bucket.params, **given})};\nLOAD t FROM s;")
    bucket.put("in/a.csv", "id,v\n1,a\n")
    bucket.put("in/b.csv", "id,v\n2,b\n")
    assert bench.ok()["t"].rows == 2
    bucket.put("in/b.csv", "id,v\n2,changed\n")
    bucket.put("in/c.csv", "id,v\n3,c\n")
    bucket.put("in/a.csv", "id,v\n1,a\n")  # stored again, with what it held
    before = object_store.requests()["GET"]
    outcome = bench.ok()["t"]
    assert (outcome.rows, object_store.requests()["GET"] - before) == (2, 2)
    assert bench.query("SELECT id, v FROM p.t ORDER BY id") == [(1, "a"), (2, "changed"), (3, "c")]
    assert bench.ok()["t"].rows == 0


def test_a_changed_object_replaces_its_rows_where_they_say_where_they_came_from(bench, bucket):
    given = {"sync_mode": "incremental", "row_provenance": True, "path_prefix": "in/"}
    bench.pipeline(
        f"SOURCE s TYPE S3 PARAMS {json.dumps({**bucket.params, **given})};\nLOAD t FROM s MODE APPEND;"
    )
    bucket.put("in/a.csv", "id\n1\n2\n")
    bucket.put("in/b.csv", "id\n3\n")
    bench.ok()
    bucket.put("in/a.csv", "id\n9\n")
    bench.ok()
    assert bench.query("SELECT id, _sqlflow_file FROM p.t ORDER BY id") == [
        (3, f"s3://{bucket.name}/in/b.csv"), (9, f"s3://{bucket.name}/in/a.csv"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["a", "a.csv", "a.jsonl"])
def test_an_object_that_is_compressed_and_does_not_say_so_is_unpacked(bucket, read, name):
    text = b'{"id": 1}\n' if name == "a.jsonl" else b"id\n1\n"
    bucket.put(f"in/{name}", gzip.compress(text), ContentEncoding="gzip")
    assert read(path_prefix="in/", file_format="jsonl" if name == "a.jsonl" else "csv").rows == [(1,)]


def test_objects_of_unlike_formats_are_not_guessed_together(bucket, read):
    bucket.put("in/a.csv", "id\n1\n")
    bucket.put("in/b.jsonl", '{"id": 1}\n')
    bucket.put("in/c", "id\n1\n")
    with pytest.raises(BadOption, match="objects of several formats"):
        read(path_prefix="in/")
    with pytest.raises(BadOption, match=r"in/c does not say it; set it"):
        read(key="in/c")


def test_by_partition_older_ones_are_not_even_listed(bench, bucket, object_store):
    given = {
        "sync_mode": "incremental",
        "incremental_by": "partition",
        "path_prefix": "in/",
        "partition_lookback": 0,
    }
    bench.pipeline(
        f"SOURCE s TYPE S3 PARAMS {json.dumps({**bucket.params, **given})};\nLOAD t FROM s MODE APPEND;"
    )
    for day in range(1, 9):
        bucket.put(f"in/2024/01/{day:02}/a.csv", f"id\n{day}\n")
    bench.ok()
    bucket.put("in/2024/01/01/late.csv", "id\n100\n")
    bucket.put("in/2024/01/08/b.csv", "id\n9\n")
    bucket.put("in/2024/01/10/a.csv", "id\n10\n")
    before = object_store.requests()["LIST"]
    assert bench.ok()["t"].rows == 2
    # The prefix, the year, the month, and the two days from the newest on.
    assert object_store.requests()["LIST"] - before == 5
    assert [row[0] for row in bench.query("SELECT id FROM p.t ORDER BY id")] == [*range(1, 11)]


def test_a_column_inside_the_objects_is_a_cursor(bench, bucket):
    given = {"sync_mode": "incremental", "cursor_field": "at", "primary_key": "id", "path_prefix": "in/"}
    bench.pipeline(f"SOURCE s TYPE S3 PARAMS {json.dumps({**bucket.params, **given})};\nLOAD t FROM s;")
    bucket.put("in/a.csv", "id,at\n1,2024-01-01\n2,2024-01-02\n")
    assert bench.ok()["t"].cursor_after.value == "2024-01-02"
    bucket.put("in/b.csv", "id,at\n3,2024-01-03\n4,2023-01-01\n")
    bench.ok()
    assert [row[0] for row in bench.query("SELECT id FROM p.t ORDER BY id")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({"max_files_per_run": 2}, r"3 files, and `max_files_per_run` is 2"),
        ({"max_data_size_gb": 1e-8}, "GB, and `max_data_size_gb`"),
        ({"cost_limit_usd": 1e-6}, r"about 0\.0000062\d* USD \(4 requests"),
        ({"cost_limit_usd": 1.0, "price_gb_usd": 1e9}, "and `cost_limit_usd` is 1"),
    ],
    ids=["files", "size", "requests", "transfer"],
)
def test_a_limit_holds_before_the_first_byte(bucket, read, object_store, limit, said):
    for number in range(3):
        bucket.put(f"in/{number}.csv", "id\n1\n")
    before = object_store.requests()["GET"]
    with pytest.raises(SourceFailed, match=said):
        read(path_prefix="in/", **limit)
    assert object_store.requests()["GET"] == before


def test_what_a_read_took_and_cost_is_known(bench, bucket):
    bucket.put("in/a.csv", "id\n1\n")
    bucket.put("in/b.csv", "id\n2\n")
    given = {"path_prefix": "in/", "price_gb_usd": 1e9, "price_list_usd": 2000, "price_get_usd": 3000}
    bench.pipeline(f"SOURCE s TYPE S3 PARAMS {json.dumps({**bucket.params, **given})};\nLOAD t FROM s;")
    calls = bench.ok()["t"].calls
    assert (calls.requests, calls.bytes_transferred) == (3, 10)
    assert calls.cost_usd == pytest.approx(2 + 2 * 3 + 10)


def test_an_estimate_is_what_the_read_then_takes(folder, bucket):
    for number in range(4):
        bucket.put(f"in/{number}.csv", "id\n1\n")
    with folder.open("S3", **bucket.params, path_prefix="in/", price_gb_usd=0, price_list_usd=1000) as source:
        estimate = source.estimate(None)
    assert (estimate.files, estimate.bytes, estimate.requests) == (4, 20, 5)
    assert estimate.usd == pytest.approx(1 + 4 * 0.0004 / 1000)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({}, "bucket: this parameter is required"),
        ({"path": "http://x/y"}, "path: 'http://x/y' is no address"),
        ({"bucket": "b", "path": "s3://c/y"}, "bucket: 'b' is not the bucket of the path"),
        ({"bucket": "b", "key": "x", "path": "y"}, "path: give it, or"),
        ({"bucket": "b", "key": "x", "path_prefix": "y"}, "key: 'x' does not begin with"),
        ({"bucket": "b", "access_key_id": "x"}, "secret_access_key: it goes with"),
        ({"bucket": "b", "anonymous": True, "role_arn": "x"}, "anonymous: requests are signed"),
        ({"bucket": "b", "external_id": "x"}, "external_id: it goes with"),
        ({"bucket": "b", "endpoint_url": "localhost:9000"}, "endpoint_url: "),
        ({"bucket": "b", "key": "a", "pattern": "*.csv"}, "pattern: it goes with a prefix"),
        ({"bucket": "b", "when_over_limit": "next_run"}, "when_over_limit: only an incremental read"),
    ],
    ids=str,
)
def test_parameters_that_contradict_each_other_are_refused(params, said):
    with pytest.raises(BadOption, match=said):
        parse(find("S3").options_type, params)


@pytest.mark.parametrize(
    ("form", "params", "name"),
    [
        ("parquet", {"delimiter": ";"}, "delimiter"),
        ("csv", {"data_path": "a.b"}, "data_path"),
        ("jsonl", {"date_format": ["%d", "%m"]}, "date_format"),
    ],
)
def test_a_parameter_of_another_format_is_refused_before_anything_is_asked(folder, form, params, name):
    with pytest.raises(BadOption, match=f"{name}: "):
        folder.open("S3", bucket="b", file_format=form, **params).streams()


def test_two_bounds_of_the_objects_times_that_differ_are_refused():
    given = {"bucket": "b", "start_date": "2024-01-01", "modified_after": "2024-02-01"}
    with pytest.raises(BadOption, match="start_date: .*modified_after"):
        parse(find("S3").options_type, given)
    assert parse(find("S3").options_type, {**given, "modified_after": "2024-01-01"})


@pytest.mark.parametrize("form", ["csv", "tsv", "json", "jsonl", "parquet", "avro"])
def test_no_parameter_of_a_format_counts_as_one_of_s3_itself(form):
    taken = find(form).options_type.model_fields.keys() & S3Options.model_fields.keys()
    assert taken - FormatOptions.model_fields.keys() - Connecting.model_fields.keys() == set()


def test_names_of_other_tools_mean_the_same(folder):
    kind = find("S3").options_type
    ours = {
        "bucket": "b", "path_prefix": "raw/", "file_format": "csv", "access_key_id": "k", "secret_access_key": "s",
        "endpoint_url": "http://x", "region": "eu-central-1", "delimiter": ";",
    }  # fmt: skip
    first = {
        "bucket": "b", "prefix": "raw/", "format": "csv", "access_key": "k", "secret_key": "s", "endpoint_url": "http://x",
        "region": "eu-central-1", "csv_delimiter": ";",
    }  # fmt: skip
    airbyte = {
        "bucket": "b", "path_prefix": "raw/", "format": {"filetype": "csv"}, "aws_access_key_id": "k",
        "aws_secret_access_key": "s", "endpoint": "http://x", "region_name": "eu-central-1", "delimiter": ";",
    }  # fmt: skip
    fivetran = {
        "bucket": "b", "prefix": "raw/", "file_type": "csv", "access_key_id": "k", "access_key_secret": "s",
        "endpoint_url": "http://x", "region": "eu-central-1", "delimiter": ";",
    }  # fmt: skip
    made = [parse(kind, params) for params in (ours, first, airbyte, fivetran)]
    assert all(item == made[0] for item in made)
    assert "'s'" not in repr(made[0])


AIRBYTE = {
    "bucket": "b", "start_date": "2021-01-01T00:00:00.000000Z", "aws_access_key_id": "k", "aws_secret_access_key": "s",
    "endpoint": "", "region_name": "eu-central-1", "delivery_method": {"delivery_type": "use_records_transfer"},
    "streams": [{
        "name": "orders", "globs": ["in/**/*.csv"], "legacy_prefix": "", "validation_policy": "Emit Record",
        "days_to_sync_if_history_is_full": 3, "schemaless": False, "input_schema": '{"id": "integer", "note": "string"}',
        "format": {
            "filetype": "csv", "delimiter": ";", "quote_char": "'", "escape_char": None, "encoding": "utf8",
            "double_quote": True, "null_values": ["NA"], "strings_can_be_null": True, "skip_rows_before_header": 1,
            "skip_rows_after_header": 0, "header_definition": {"header_definition_type": "From CSV"},
            "inference_type": "None",
        },
    }],
}  # fmt: skip
AIRBYTE_OLD = {
    "dataset": "orders", "path_pattern": "**/*.csv|**/*.txt", "schema": '{"id": "integer", "note": "string"}',
    "format": {"filetype": "csv", "delimiter": ";", "infer_datatypes": True, "quote_char": "'", "block_size": 10000},
    "provider": {
        "storage": "S3", "bucket": "b", "aws_access_key_id": "k", "aws_secret_access_key": "s", "path_prefix": "in/",
        "endpoint": "", "start_date": "2021-01-01T00:00:00Z",
    },
}  # fmt: skip
MEANT = {
    "bucket": "b", "access_key_id": "k", "secret_access_key": "s", "modified_after": "2021-01-01T00:00:00Z",
    "stream": "orders", "file_format": "csv", "delimiter": ";", "quote": "'",
    "types": {"id": "BIGINT", "note": "VARCHAR"},
}  # fmt: skip


def test_whole_configurations_of_airbyte_mean_what_they_do_there():
    kind = find("S3").options_type
    new = {
        "key": "in/**/*.csv",
        "region": "eu-central-1",
        "null_values": "NA",
        "skip_rows": 1,
        "modified_after": AIRBYTE["start_date"],
    }
    old = {"key": ["in/**/*.csv", "in/**/*.txt"]}
    for theirs, ours in ((AIRBYTE, new), (AIRBYTE_OLD, old)):
        assert parse(kind, theirs)[0].model_dump() == parse(kind, {**MEANT, **ours})[0].model_dump()


def test_a_configuration_of_airbyte_is_read(folder, bucket):
    bucket.put("in/x/a.csv", "made by hand\nid;note\n1;'a;b'\n2;NA\n")
    bucket.put("in/b.csv", "made by hand\nid;note\n3;''\n")
    bucket.put("other/c.csv", "nothing of the sort")
    where = {
        "bucket": bucket.name, "endpoint": bucket.params["endpoint_url"],
        "aws_access_key_id": bucket.params["access_key_id"], "aws_secret_access_key": bucket.params["secret_access_key"],
    }  # fmt: skip
    assert sorted(folder.read("S3", **{**AIRBYTE, **where}).rows) == [(1, "a;b"), (2, None), (3, "")]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"schemaless": True}, "streams: schemaless: each field is a column here"),
        (
            {"globs": ["out/*.csv"], "legacy_prefix": "in/"},
            "'out/\\*.csv' does not begin with the prefix 'in/'",
        ),
        (
            {"format": {"filetype": "csv", "skip_rows_after_header": 1}},
            "format: skip_rows_after_header: 1 has no",
        ),
        ({"input_schema": "id integer"}, "streams: the schema 'id integer' is no object"),
    ],
    ids=str,
)
def test_what_airbyte_would_read_otherwise_is_refused(entry, said):
    streams = [{"name": "orders", "format": {"filetype": "csv"}, "globs": ["**"], **entry}]
    with pytest.raises(BadOption, match=said):
        parse(find("S3").options_type, {"bucket": "b", "streams": streams})
    with pytest.raises(BadOption, match="streams: a SOURCE reads one of them"):
        parse(find("S3").options_type, {"bucket": "b", "streams": streams * 2})


def test_what_stands_in_an_entry_of_airbyte_and_otherwise_beside_it_is_refused():
    streams = [{"name": "orders", "format": {"filetype": "csv"}, "globs": ["in/*.csv"]}]
    with pytest.raises(BadOption, match="streams: 'key' stands in it and beside it, and differs"):
        parse(find("S3").options_type, {"bucket": "b", "streams": streams, "key": "other/*.csv"})


@pytest.mark.fault
@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"bucket": "there-is-none"}, SourceFailed, "there is no bucket 'there-is-none'"),
        ({"secret_access_key": "wrong"}, NotAllowed, "the credentials are wrong"),
        ({"access_key_id": "NOBODY"}, NotAllowed, "the credentials are wrong"),
        (
            {"access_key_id": "READER", "secret_access_key": "CANARY-reader"},
            NotAllowed,
            "ask for s3:ListBucket on arn:aws:s3:::",
        ),
        ({"path_prefix": "nowhere/"}, SourceFailed, "no object at s3://.*/nowhere/"),
        ({"key": "in/none.csv", "path_prefix": ""}, SourceFailed, "no object at s3://.*/in/none.csv"),
        ({"endpoint_url": "http://127.0.0.1:1"}, RetryLater, "127.0.0.1:1"),
        ({"profile": "nobody", "access_key_id": None, "secret_access_key": None}, NotAllowed, "profile: "),
    ],
    ids=["bucket", "secret", "key-id", "not-allowed", "prefix", "key", "nobody-there", "profile"],
)
def test_what_is_wrong_is_said_with_the_next_step(folder, bucket, change, kind, said):
    bucket.put("in/a.csv", "id\n1\n")
    params = {**bucket.params, "path_prefix": "in/", **change}
    params = {name: value for name, value in params.items() if value is not None}
    with pytest.raises(kind, match=said) as caught:
        folder.read("S3", **params)
    assert "CANARY" not in str(caught.value)
    with folder.open("S3", **params) as source:
        health = source.check()
    assert (health.ok, "CANARY" in health.message) == (False, False)


def test_a_folder_is_read_by_who_may_read_nothing_beside_what_is_in_it(folder, object_store):
    def read(path):
        given = {"access_key_id": "BELOW", "secret_access_key": "CANARY-below", "region": "us-east-1"}
        return folder.rows("S3", path=path, file_format="csv", endpoint_url=object_store.url, **given)

    object_store.client.put_object(Bucket="limited", Key="below/a.csv", Body=b"id\n1\n")
    assert read("s3://limited/below") == [(1,)]
    for name in ("s3://limited/nothing", "s3://limited/below.csv"):
        with pytest.raises(NotAllowed, match="ask for s3:GetObject on arn:aws:s3:::limited/"):
            read(name)
    object_store.client.delete_object(Bucket="limited", Key="below/a.csv")


@pytest.mark.parametrize(
    ("who", "ok", "said"),
    [
        ("READER", True, "listed and readable"),
        ("LISTER", False, "ask for s3:GetObject on arn:aws:s3:::limited/ready"),
        ("BLIND", False, "ask for s3:ListBucket on arn:aws:s3:::limited"),
    ],
)
def test_a_check_names_the_permission_that_is_not_there(folder, object_store, who, ok, said):
    params = {
        "bucket": "limited", "endpoint_url": object_store.url, "access_key_id": who,
        "secret_access_key": f"CANARY-{who.lower()}",
    }  # fmt: skip
    with folder.open("S3", **params) as source:
        health = source.check()
    assert (health.ok, said in health.message) == (ok, True), health.message
    assert health.facts["latency_seconds"] > 0
    assert "CANARY" not in str(health)


@pytest.mark.fault
@pytest.mark.parametrize(
    ("key", "body", "said"),
    [
        (
            "a.csv.gz",
            gzip.compress(b"id\n" + b"1\n" * 100_000)[:-20],
            r"a\.csv\.gz: it is no whole gzip file",
        ),
        ("a.parquet", b"PAR1" + b"x" * 100, r"a\.parquet"),
        ("a.jsonl", b'{"id": 1}\n{"id": ', r"a\.jsonl"),
        ("a.avro", avro("long", range(1000))[:-30], "no whole Avro file"),
    ],
)
def test_a_broken_object_is_an_error_that_names_it(bench, bucket, key, body, said):
    bench.pipeline(
        f"SOURCE s TYPE S3 PARAMS {json.dumps({**bucket.params, 'key': f'in/{key}'})};\nLOAD t FROM s;"
    )
    bucket.put(f"in/{key}", body)
    error = bench.run()["t"].error
    assert isinstance(error, SourceFailed)
    with pytest.raises(SourceFailed, match=said):
        raise error


@pytest.mark.fault
def test_a_broken_parquet_footer_leaves_table_and_cursor_as_they_were(bench, bucket, tmp_path):
    given = {**bucket.params, "path_prefix": "in/", "sync_mode": "incremental", "primary_key": "id"}
    bench.pipeline(f"SOURCE s TYPE S3 PARAMS {json.dumps(given)};\nLOAD t FROM s;")
    whole = parquet(tmp_path, "SELECT 1 AS id")
    bucket.put("in/a.parquet", whole)
    bench.ok()
    bucket.put("in/b.parquet", whole[:-9] + b"broken!!!")
    outcome = bench.run()["t"]
    assert isinstance(outcome.error, SourceFailed)
    assert bench.query("SELECT count(*) FROM p.t") == [(1,)]
    bucket.put("in/b.parquet", parquet(tmp_path, "SELECT 2 AS id"))
    assert bench.ok()["t"].total_rows == 2


def test_schemas_that_differ_are_one_table_where_no_value_changes(bucket, read, tmp_path):
    bucket.put("in/a.parquet", parquet(tmp_path, "SELECT 1::INTEGER AS id"))
    bucket.put("in/b.parquet", parquet(tmp_path, "SELECT 2::BIGINT AS id, 'x' AS more"))
    found = read(path_prefix="in/")
    assert found.columns == {"id": "BIGINT", "more": "VARCHAR"}
    assert sorted(found.rows) == [(1, None), (2, "x")]
    bucket.put("in/c.parquet", parquet(tmp_path, "SELECT 2.5::DOUBLE AS id"))
    with pytest.raises(SourceFailed, match="no type holds both"):
        read(path_prefix="in/")


def targeted(bucket, key, /, **options):
    options = {**{name: value for name, value in bucket.params.items() if name != "bucket"}, **options}
    return f'TO "s3://{bucket.name}/{key}" OPTIONS {json.dumps(options)};'


def exported(bench, select, target):
    bench.pipeline(f"EXPORT {select} {target}")
    (outcome,) = bench.run().values()
    if outcome.error:
        raise outcome.error
    return outcome


@pytest.mark.parametrize(
    ("key", "options", "told"),
    [
        ("out.csv", {}, "read_csv('{file}')"),
        ("out.csv.gz", {"delimiter": ";"}, "read_csv('{file}', delim = ';')"),
        ("out.tsv", {}, "read_csv('{file}', delim = '\t')"),
        ("out.json", {}, "read_json('{file}')"),
        ("out.jsonl.zst", {}, "read_json('{file}')"),
        ("out.parquet", {"row_group_size": 2048, "compression": "snappy"}, "read_parquet('{file}')"),
        ("out", {"file_format": "parquet"}, "read_parquet('{file}')"),
    ],
)
def test_an_export_is_one_object(bench, bucket, key, options, told):
    outcome = exported(
        bench, "SELECT range AS id FROM range(5000)", targeted(bucket, f"mart/{key}", **options)
    )
    assert (outcome.rows, outcome.target) == (5000, f"s3://{bucket.name}/mart/{key}")
    file = bench.write(f"found/{key}", bucket.get(f"mart/{key}"))
    assert outcome.bytes == file.stat().st_size
    assert duckdb.sql(f"SELECT count(*), sum(id) FROM {told.format(file=file)}").fetchall() == [
        (5000, 12497500)
    ]
    if key == "out.parquet":
        assert duckdb.sql(f"SELECT num_row_groups FROM parquet_file_metadata('{file}')").fetchall() == [(3,)]
        assert duckdb.sql(f"SELECT DISTINCT compression FROM parquet_metadata('{file}')").fetchall() == [
            ("SNAPPY",)
        ]


def test_a_large_export_travels_in_parts(bench, bucket):
    text = "SELECT md5(range::VARCHAR) AS a FROM range(400000)"
    outcome = exported(bench, text, targeted(bucket, "out.csv", part_size_mb=5))
    assert outcome.bytes > 2 * 5 * 2**20
    head = bucket.client.head_object(Bucket=bucket.name, Key="out.csv")
    assert head["ContentLength"] == outcome.bytes
    assert head["ETag"].endswith('-3"')
    file = bench.write("found.csv", bucket.get("out.csv"))
    assert duckdb.sql(f"SELECT count(DISTINCT a) FROM read_csv('{file}')").fetchall() == [(400000,)]


def test_the_store_is_asked_to_encrypt(bench, bucket):
    exported(bench, "SELECT 1 AS id", targeted(bucket, "out.csv", server_side_encryption="AES256"))
    assert bucket.client.head_object(Bucket=bucket.name, Key="out.csv")["ServerSideEncryption"] == "AES256"


PARTS = "SELECT range AS id, range % {n} AS part FROM range(100)"


def test_a_set_of_partitions_takes_the_place_of_the_one_before(bench, bucket):
    target = targeted(bucket, "mart/sales", partition_by="part", file_format="csv")
    outcome = exported(bench, PARTS.format(n=4), target)
    assert outcome.rows == 100
    assert {key.split("/")[2] for key in bucket.keys("mart/")} == {f"part={n}" for n in range(4)}
    exported(bench, PARTS.format(n=2), target)
    assert {key.split("/")[2] for key in bucket.keys("mart/")} == {"part=0", "part=1"}
    read = {**bucket.params, "path_prefix": "mart/sales/"}
    bench.pipeline(f"SOURCE s TYPE S3 PARAMS {json.dumps(read)};\nLOAD t FROM s;")
    assert bench.ok()["t"].rows == 100
    assert bench.query("SELECT count(DISTINCT id), count(DISTINCT part) FROM p.t") == [(100, 2)]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_odd_values_of_partitions_come_back(bench, bucket, kind):
    values = ["a=b", "a/b", "50%", "%41", "a b", "a+b", "x:y", "日本", None]
    listed = ", ".join(f"({'NULL' if k is None else repr(k)}, {v})" for v, k in enumerate(values))
    target = targeted(bucket, "mart/odd", partition_by="k", file_format=kind)
    exported(bench, f"SELECT * FROM (VALUES {listed}) AS t(k, v)", target)
    read = {**bucket.params, "path_prefix": "mart/odd/"}
    bench.pipeline(f"SOURCE s TYPE S3 PARAMS {json.dumps(read)};\nLOAD t FROM s;")
    bench.ok()
    assert bench.query("SELECT v, k FROM p.t ORDER BY v") == list(enumerate(values))
    read["partition_filter"] = {"k": ["a=b", "50%"]}
    bench.pipeline(f"SOURCE s TYPE S3 PARAMS {json.dumps(read)};\nLOAD t FROM s;")
    bench.ok()
    assert bench.query("SELECT v FROM p.t ORDER BY v") == [(0,), (2,)]


def test_what_is_no_partition_is_not_removed(bench, bucket):
    bucket.put("mart/notes.txt", "mine")
    with pytest.raises(BadOption, match=r"mart/notes\.txt, which would be removed"):
        exported(bench, PARTS.format(n=2), targeted(bucket, "mart", partition_by="part"))
    assert bucket.keys() == ["mart/notes.txt"]


@pytest.mark.fault
@pytest.mark.parametrize(
    "params", [{}, {"partition_by": "part", "file_format": "csv"}], ids=["object", "set"]
)
def test_a_refused_export_leaves_what_was_there(bench, bucket, params):
    key = "mart/set" if params else "mart/out.csv"
    exported(bench, PARTS.format(n=2), targeted(bucket, key, **params))
    before = {key: bucket.get(key) for key in sorted(bucket.keys())}
    denied = {"access_key_id": "READER", "secret_access_key": "CANARY-reader"}
    with pytest.raises(NotAllowed, match=r"ask for s3:") as caught:
        exported(bench, PARTS.format(n=3), targeted(bucket, key, **params, **denied))
    assert "CANARY" not in str(caught.value)
    assert {key: bucket.get(key) for key in sorted(bucket.keys())} == before


@pytest.mark.parametrize(
    ("key", "options", "said"),
    [
        ("mart/", {}, "names no object"),
        ("mart/out.xyz", {}, "file_format: the key"),
        ("mart/out.parquet", {"delimiter": ";"}, "delimiter: exports of the format parquet"),
        ("mart/out.avro", {"partition_by": "id"}, "exports of the format avro have no such option"),
        ("mart/out.csv", {"bucket": "other"}, "is not the bucket of the target"),
        ("mart/out.csv", {"path": "s3://other/out.csv"}, "path: the target says where to write"),
        ("mart/out.csv", {"key": "out.csv"}, "key: the target says where to write"),
        ("mart/out.csv", {"path_prefix": "raw/"}, "path_prefix: the target says where to write"),
        ("mart/out.csv", {"kms_key_id": "k"}, "kms_key_id: it goes with"),
    ],
)
def test_a_target_that_cannot_be_is_refused(bench, bucket, key, options, said):
    from sqlflow_dagster.errors import PipelineError

    with pytest.raises((BadOption, ExportFailed, PipelineError), match=said):
        exported(bench, "SELECT 1 AS id", targeted(bucket, key, **options))
    assert bucket.keys() == []


def test_a_plan_estimates_what_a_store_will_ask_for(bench, bucket):
    from sqlflow_dagster.plan.nodes import Load
    from sqlflow_dagster.project import load_project
    from sqlflow_dagster.state import estimates

    for number in range(3):
        bucket.put(f"in/{number}.csv", "id\n1\n")
    given = {**bucket.params, "path_prefix": "in/", "sync_mode": "incremental", "price_gb_usd": 1e9}
    bench.pipeline(f"SOURCE s TYPE S3 PARAMS {json.dumps(given)};\nLOAD t FROM s MODE APPEND;")
    for files, stored in ((3, 3), (1, 4)):
        ((load, estimate),) = estimates(load_project(bench.root))
        assert isinstance(load, Load)
        assert (estimate.files, estimate.requests) == (files, files + 1)
        assert estimate.usd == pytest.approx(files * 5, rel=1e-4)
        assert bench.ok()["t"].total_rows == stored
        bucket.put("in/more.csv", "id\n9\n")


def test_a_connector_of_the_profile_is_read_from_and_written_to(bench, bucket):
    params = "".join(f"      {name}: {value}\n" for name, value in bucket.params.items())
    bench.write("profiles/dev.yml", f"connectors:\n  lake:\n    type: S3\n    params:\n{params}")
    bucket.put("in/a.csv", "id\n1\n2\n")
    bench.pipeline(
        'SOURCE s FROM "lake" OPTIONS {"path_prefix": "in/"};\nLOAD t FROM s;\n'
        'EXPORT SELECT * FROM t TO "lake" OPTIONS {"key": "out/a.parquet"};\n'
        f'EXPORT SELECT * FROM t TO "s3://{bucket.name}/out/b.csv" OPTIONS {json.dumps(bucket.params)};'
    )
    assert [outcome.rows for outcome in bench.ok().values()] == [2, 2, 2]
    assert bucket.keys("out/") == ["out/a.parquet", "out/b.csv"]


def test_a_command_tests_the_store_and_shows_no_secret(bench, bucket, capsys, monkeypatch):
    import sys

    from sqlflow_dagster.cli import main

    bucket.put("in/a.csv", "id\n1\n")
    bench.pipeline(
        f"SOURCE s TYPE S3 PARAMS {json.dumps({**bucket.params, 'path_prefix': 'in/'})};\nLOAD t FROM s;"
    )
    monkeypatch.setattr(sys, "argv", ["sqlflow", "connectors", "test", "--project", str(bench.root)])
    with pytest.raises(SystemExit) as ended:
        main()
    shown = capsys.readouterr()
    assert (ended.value.code or 0, "listed and readable" in shown.out) == (0, True)
    assert "CANARY" not in shown.out + shown.err


@pytest.mark.parametrize("place", ["environment", "profile", "nowhere", "anonymous"])
def test_credentials_are_looked_for_where_boto3_looks(folder, bucket, monkeypatch, tmp_path, place):
    bucket.put("in/a.csv", "id\n1\n")
    params = {"bucket": bucket.name, "endpoint_url": bucket.store.url, "path_prefix": "in/"}
    key, secret = bucket.params["access_key_id"], bucket.params["secret_access_key"]
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    file = tmp_path / "credentials"
    file.write_text(f"[lake]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    if place == "environment":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    params |= (
        {"profile": "lake"} if place == "profile" else {"anonymous": True} if place == "anonymous" else {}
    )
    if place in ("environment", "profile"):
        assert folder.rows("S3", **params) == [(1,)]
        return
    with pytest.raises(
        NotAllowed, match="give `access_key_id`" if place == "nowhere" else "ask for s3:ListBucket"
    ):
        folder.read("S3", **params)


@pytest.mark.parametrize("service", ["s3", "sts", "sso", "sso-oidc"])
def test_botocore_knows_of_its_services_what_its_own_files_say(service):
    from botocore.loaders import Loader

    from sqlflow_dagster.connectors.s3_models import Models

    ours, own = Models(), Loader()
    for name in ("service-2", "endpoint-rule-set-1", "paginators-1"):
        assert ours.load_service_model(service, name) == own.load_service_model(service, name)
    for name in ("endpoints", "partitions", "sdk-default-configuration", "_retry"):
        assert ours.load_data(name) == own.load_data(name)


def test_a_model_of_ones_own_takes_the_place_of_botocores(tmp_path):
    from botocore.exceptions import DataNotFoundError, UnknownServiceError

    from sqlflow_dagster.connectors.s3_models import Models

    (tmp_path / "s3/2006-03-01").mkdir(parents=True)
    (tmp_path / "s3/2006-03-01/service-2.json").write_text('{"metadata": {"own": true}}')
    (tmp_path / "mine/2026-01-01").mkdir(parents=True)
    models = Models(extra_search_paths=[str(tmp_path), str(tmp_path / "none")])
    assert models.load_service_model("s3", "service-2")["metadata"] == {"own": True}
    with pytest.raises(UnknownServiceError):
        models.load_service_model("nothing", "service-2")
    with pytest.raises(DataNotFoundError):
        models.load_service_model("mine", "service-2")
