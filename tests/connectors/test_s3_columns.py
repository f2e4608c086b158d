"""Large Parquet objects of which few columns are wanted: only their bytes travel, and every value is the same."""

from __future__ import annotations

import json
import os

import duckdb
import pyarrow as pa
import pytest
from pyarrow import parquet

from sqlflow_dagster.errors import LoadRefused, SourceFailed

from .s3_gateway import Gateway

# Every kind of value that a file may hold; `noise` is what is not wanted, and large.
ROWS = 20_000
SELECT = f"""
    SELECT range AS id, (range % 100)::SMALLINT AS small, range::UBIGINT * 300000000000000 AS unsigned,
      (range / 7)::DECIMAL(18, 3) AS amount, (range * 1.5)::DECIMAL(38, 9) AS wide, range::DOUBLE / 3 AS ratio,
      range::FLOAT AS single, range % 3 = 0 AS flag, 'name ' || (range % 50) AS dictionary,
      CASE WHEN range % 5 > 0 THEN md5(range::VARCHAR)[:6] END AS text, encode('b' || range) AS bytes,
      DATE '2020-01-01' + (range % 999)::INTEGER AS day, TIME '10:00:00' + to_seconds(range % 3600) AS moment,
      TIMESTAMP '2020-01-01' + to_microseconds(range * 1234567) AS stamp,
      TIMESTAMPTZ '2020-01-01 00:00:00+00' + to_milliseconds(range) AS instant,
      md5((range % 9)::VARCHAR)::UUID AS uid, NULL::INTEGER AS nothing,
      CASE WHEN range % 4 > 0 THEN [range, NULL, -range] END AS list,
      {{'x': range, 'y': {{'z': 'z' || range % 7}}, 'noise': md5(range::VARCHAR) }} AS struct,
      MAP {{'k' || range % 3: range}} AS map, [{{'a': range}}] AS structs
    FROM range({ROWS})
"""
SCALARS = [
    "id", "small", "unsigned", "amount", "wide", "ratio", "single", "flag", "dictionary", "text", "bytes", "day",
    "moment", "stamp", "instant", "uid", "nothing",
]  # fmt: skip
NESTED = ["list", "map", "structs"]
CHOICES = {
    "one": ["dictionary"],
    "scalars": SCALARS,
    "nested": ["id", *NESTED],
    "out of order": ["text", "ID"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Files of all those values, by who wrote them and how."""
    folder = tmp_path_factory.mktemp("made")
    duckdb.sql(f"COPY ({SELECT}) TO '{folder}/quiet.parquet'")
    noise = pa.array([os.urandom(512) for _ in range(ROWS)])
    table = parquet.read_table(folder / "quiet.parquet").append_column("noise", noise)
    parquet.write_table(table, folder / "base.parquet")
    rows = f"FROM '{folder}/base.parquet'"
    for codec in ("snappy", "zstd", "gzip", "lz4_raw", "uncompressed"):
        duckdb.sql(f"COPY ({rows}) TO '{folder}/{codec}.parquet' (COMPRESSION {codec}, ROW_GROUP_SIZE 8192)")
    styles = {
        "arrow": {"row_group_size": 10_000, "write_page_index": True},
        "arrow v2": {"data_page_version": "2.0", "compression": "zstd", "row_group_size": 17_000},
        "arrow plain": {"use_dictionary": False, "compression": "none", "write_page_checksum": True},
        "arrow bloom": {"bloom_filter_options": {"id": True, "dictionary": {"ndv": 50}}, "row_group_size": 9_000},
    }  # fmt: skip
    for name, how in styles.items():
        parquet.write_table(table, folder / f"{name}.parquet", **how)
    return folder


STYLES = [
    "base", "snappy", "zstd", "gzip", "lz4_raw", "uncompressed", "arrow", "arrow v2", "arrow plain",
    "arrow bloom",
]  # fmt: skip


@pytest.fixture
def load(bench, bucket):
    """Load an object into `t` by a statement, and return the outcome."""

    def loading(key="in/a.parquet", load="LOAD t FROM s;", **params):
        told = json.dumps({**bucket.params, "key": key, **params})
        bench.pipeline(f"SOURCE s TYPE S3 PARAMS {told};\n{load}")
        outcome = bench.run()["t"]
        assert not list((bench.root / ".sqlflow/spool").iterdir())
        return outcome

    return loading


def same(bench, path, columns, where="true"):
    """Whether `t` has the types and values that DuckDB reads of the whole file."""
    names = ", ".join(columns)
    whole = f"SELECT {names} FROM read_parquet('{path}') WHERE {where}"
    described = bench.query(f"DESCRIBE {whole}")
    assert bench.query("DESCRIBE FROM p.t") == described
    assert bench.query(f"SELECT count(*) FROM ({whole})") == bench.query("SELECT count(*) FROM p.t")
    assert bench.query(f"SELECT count(*) FROM ({whole} EXCEPT ALL SELECT {names} FROM p.t)") == [(0,)]


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("style", STYLES)
def test_only_the_bytes_of_wanted_columns_travel_and_no_value_changes(
    bench, bucket, load, made, style, choice
):
    path = made / f"{style}.parquet"
    bucket.put("in/a.parquet", path)
    outcome = load(columns=CHOICES[choice])
    assert outcome.error is None, outcome.error
    assert 0 < outcome.calls.bytes_transferred < path.stat().st_size / 2
    assert outcome.calls.cost_usd > 0
    columns = [row[0] for row in bench.query(f"DESCRIBE FROM '{path}'")]
    kept = {name.casefold() for name in CHOICES[choice]}
    same(bench, path, [name for name in columns if name.casefold() in kept])


def test_what_is_excluded_does_not_travel(bench, bucket, load, made):
    path = made / "zstd.parquet"
    bucket.put("in/a.parquet", path)
    outcome = load(exclude_columns=["noise", "Struct"])
    assert outcome.error is None, outcome.error
    assert outcome.calls.bytes_transferred < path.stat().st_size / 2
    same(
        bench,
        path,
        [row[0] for row in bench.query(f"DESCRIBE FROM '{path}'") if row[0] not in ("noise", "struct")],
    )


@pytest.mark.parametrize(
    ("filters", "where"),
    [
        ({"dictionary": "name 7"}, "dictionary = 'name 7'"),
        ({"dictionary": "nobody"}, "false"),
        ({"id": ">= 19000"}, "id >= 19000"),
        ({"amount": "< 100"}, "amount < 100"),
        ({"text": None}, "text IS NULL"),
    ],
    ids=str,
)
@pytest.mark.parametrize("style", ["snappy", "arrow", "arrow bloom"])
def test_a_filter_sees_its_column_though_it_is_not_stored(bench, bucket, load, made, style, filters, where):
    path = made / f"{style}.parquet"
    bucket.put("in/a.parquet", path)
    outcome = load(columns=["uid", "day"], filters=filters)
    assert outcome.error is None, outcome.error
    assert outcome.calls.bytes_transferred < path.stat().st_size / 2
    same(bench, path, ["day", "uid"], where)


def test_a_cursor_and_a_key_travel_too(bench, bucket, load, made):
    path = made / "zstd.parquet"
    bucket.put("in/a.parquet", path)
    given = {"sync_mode": "incremental", "cursor_field": "stamp", "primary_key": "struct.x"}
    for rows in (ROWS, 1):
        outcome = load(columns=["stamp", "day"], **given)
        assert outcome.error is None, outcome.error
        assert outcome.rows == rows
    assert bench.query('SELECT count(*), sum("struct.x") FROM p.t') == [(ROWS, ROWS * (ROWS - 1) // 2)]


def test_a_key_that_only_the_load_names_travels_too(bench, bucket, load, made):
    bucket.put("in/a.parquet", made / "zstd.parquet")
    outcome = load(load='LOAD t FROM s MODE UPSERT KEY ("structs.x");', columns=["day"])
    assert isinstance(outcome.error, LoadRefused)
    outcome = load(load='LOAD t FROM s MODE UPSERT KEY ("struct.x");', columns=["day"])
    assert outcome.error is None, outcome.error
    assert bench.query('SELECT count("struct.x") FROM p.t') == [(ROWS,)]


def test_declared_types_and_several_files_are_as_with_whole_ones(bench, bucket, load, made):
    for number, style in enumerate(("zstd", "arrow")):
        bucket.put(f"in/{number}.parquet", made / f"{style}.parquet")
    outcome = load(
        key="in/*.parquet", columns=["id", "amount"], types={"amount": "VARCHAR", "noise": "VARCHAR"}
    )
    assert outcome.error is None, outcome.error
    size = sum((made / f"{style}.parquet").stat().st_size for style in ("zstd", "arrow"))
    assert outcome.calls.bytes_transferred < size / 2
    assert bench.query("SELECT count(*), count(DISTINCT id), min(amount) FROM p.t") == [
        (2 * ROWS, ROWS, "0.000")
    ]


def test_what_saves_little_is_fetched_whole(bucket, load, made, tmp_path):
    path = made / "zstd.parquet"
    bucket.put("in/a.parquet", path)
    outcome = load(exclude_columns=["id"])
    assert outcome.error is None, outcome.error
    # The object is asked about, its footer looked at, and the rest fetched.
    assert (outcome.calls.bytes_transferred, outcome.calls.requests) == (path.stat().st_size, 3)
    duckdb.sql(
        f"COPY (SELECT range AS id, md5(range::VARCHAR) AS a FROM range(20000)) TO '{tmp_path}/small.parquet'"
    )
    bucket.put("in/a.parquet", tmp_path / "small.parquet")
    outcome = load(columns=["id"])
    assert outcome.calls.bytes_transferred == (tmp_path / "small.parquet").stat().st_size


def test_requests_that_cost_more_than_bytes_are_not_made_where_a_limit_is_set(bucket, load, made):
    path = made / "zstd.parquet"
    bucket.put("in/a.parquet", path)
    outcome = load(columns=["id"], price_gb_usd=0, cost_limit_usd=1)
    assert outcome.error is None, outcome.error
    assert (outcome.calls.bytes_transferred, outcome.calls.requests) == (path.stat().st_size, 3)


def odd(tmp_path, names):
    """A file of columns with these names, the second one large."""
    noise = [os.urandom(64) for _ in range(100_000)]
    ids = list(range(100_000))
    columns = [ids, pa.array(noise), *([ids] * (len(names) - 2))]
    parquet.write_table(pa.table(columns, names=names), tmp_path / "odd.parquet", use_dictionary=False)
    return tmp_path / "odd.parquet"


def test_a_name_with_a_dot_is_no_field_of_a_struct(bench, bucket, load, tmp_path):
    bucket.put("in/a.parquet", odd(tmp_path, ["a.b", "noise", "a", "A.c"]))
    outcome = load(columns=["a"])
    assert outcome.error is None, outcome.error
    assert bench.query("SELECT count(a), sum(a) FROM p.t") == [(100_000, 4_999_950_000)]
    outcome = load(exclude_columns=["a", "noise"])
    assert outcome.error is None, outcome.error
    assert bench.query('SELECT count("a.b"), sum("A.c") FROM p.t') == [(100_000, 4_999_950_000)]


def test_a_footer_longer_than_what_is_looked_at_first_is_fetched_too(bench, bucket, load, tmp_path):
    names = ["id", "noise", *(f"column {number} {'x' * 100}" for number in range(400))]
    path = odd(tmp_path, names)
    bucket.put("in/a.parquet", path)
    outcome = load(columns=["id"])
    assert outcome.error is None, outcome.error
    assert outcome.calls.bytes_transferred < path.stat().st_size / 2
    assert bench.query("SELECT sum(id) FROM p.t") == [(4_999_950_000,)]


def test_what_was_left_out_can_be_read_by_nobody(folder, bucket, made):
    """The whole proof that no value is made of a hole: who reads one is told so."""
    for style in STYLES:
        bucket.put("in/a.parquet", made / f"{style}.parquet")
        with pytest.raises(SourceFailed, match=r"Invalid|TProtocol|read"):
            # Takes all columns, whatever is wanted.
            folder.read("S3", **bucket.params, key="in/a.parquet", columns=["id"])


def test_an_object_that_is_replaced_between_two_ranges_is_read_anew(bench, bucket, load, made):
    bucket.put("in/a.parquet", made / "zstd.parquet")

    def fault(kind, _number, passed):
        # The footer is there, and nothing else.
        if (kind, passed) == ("GET", 1):
            bucket.put("in/a.parquet", made / "arrow.parquet")

    with Gateway(bucket.store.port) as gateway:
        gateway.fault = fault
        outcome = load(columns=["id", "text"], endpoint_url=gateway.url, parallel_workers=1)
    assert outcome.error is None, outcome.error
    assert gateway.count("HEAD").total() == 2
    same(bench, made / "arrow.parquet", ["id", "text"])
