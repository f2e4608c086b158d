"""Objects of a real S3 server beside DuckDB's own httpfs: whole prefixes, one partition of many, and exports."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import duckdb

from benchmarks import inputs
from benchmarks.compare import Way, beside_hand, beside_tools, holds, python_of, try_out
from benchmarks.figures import Figure, Sizes, verdict
from benchmarks.loads import same_rows
from benchmarks.measure import Command, Runs, interleaved, once, paired
from tests.object_store import KEY, SECRET, Bucket, ObjectStore, start, stop

_OBJECTS = 200
_PARTITIONS = 24
_EXPORT_LIMIT = 1.3
_PRUNED_LIMIT = 0.1
# A share of dlt's wall time, without Dagster's start.
_TOOL_LIMITS = {"parquet": 0.25, "csv.gz": 0.15, "jsonl": 0.15}
_DLT = """
import sys
import dlt
from dlt.common.configuration.specs import AwsCredentials
from dlt.sources.filesystem import filesystem, read_csv_duckdb, read_jsonl, read_parquet
url, endpoint, key, secret, kind, under, database, home = sys.argv[1:]
credentials = AwsCredentials(
    aws_access_key_id=key, aws_secret_access_key=secret, endpoint_url=endpoint, region_name="us-east-1"
)
read = {
    "parquet": lambda: read_parquet(use_pyarrow=True, chunksize=100_000),
    "csv.gz": lambda: read_csv_duckdb(use_pyarrow=True, chunk_size=100_000),
    "jsonl": lambda: read_jsonl(chunksize=100_000),
}[kind]
files = filesystem(bucket_url=url, credentials=credentials, file_glob=under + "/*." + kind) | read()
target = dlt.destinations.duckdb(database)
pipeline = dlt.pipeline("rows", dataset_name="loaded", destination=target, pipelines_dir=home)
pipeline.run(files.with_name("rows"), write_disposition="replace")
"""
_PRUNED_TOOL_LIMIT = 0.15
_FORMATS = {
    "parquet": "FORMAT parquet",
    "csv.gz": "FORMAT csv, HEADER, COMPRESSION gzip",
    "jsonl": "FORMAT json",
}


@dataclass(frozen=True, slots=True)
class _Far:
    """A bucket, a folder to work in, and who asks."""

    store: ObjectStore
    bucket: Bucket
    scratch: Path

    @property
    def params(self) -> str:
        given = {name: value for name, value in self.bucket.params.items() if name != "secret_access_key"}
        return json.dumps({**given, "secret_access_key": SECRET})[1:-1]


def s3(sizes: Sizes) -> Iterator[Figure]:
    """Load whole prefixes, and export, through a server on this machine."""
    with _served(sizes) as far:
        for kind in _FORMATS:
            _fill(far, kind, sizes.peer_rows)
            case = f"S3, {_OBJECTS} {kind} objects, {sizes.peer_rows:,} rows"
            yield from _beside(case, far, kind, sizes.peer_rows, sizes)
        yield _exported(far, sizes)


def partitions(sizes: Sizes) -> Iterator[Figure]:
    """Load one partition of many, so little work that only many rounds tell it from the start."""
    with _served(sizes) as far:
        for kind in ("parquet", "csv.gz"):
            _fill(far, kind, sizes.peer_rows)
            yield from _pruned(far, kind, sizes)


@contextmanager
def _served(sizes: Sizes) -> Iterator[_Far]:
    """A bucket on a server that ends with the block."""
    scratch = sizes.scratch("s3")
    (scratch / "server").mkdir()
    process, store = start(scratch / "server")
    try:
        store.client.create_bucket(Bucket="bench")
        yield _Far(store, Bucket(store, "bench"), scratch)
    finally:
        stop(process)
        shutil.rmtree(scratch, ignore_errors=True)


def _fill(far: _Far, kind: str, rows: int) -> None:
    """Put the rows into objects of one format, in as many partitions."""
    each = -(-rows // _OBJECTS)
    path = far.scratch / f"object.{kind}"
    for number in range(_OBJECTS):
        month = number % _PARTITIONS
        select = inputs.rows_between(number * each, min(rows, (number + 1) * each))
        duckdb.sql(f"COPY ({select}) TO '{path}' ({_FORMATS[kind]})")
        far.bucket.put(f"{kind}/year={2024 + month // 12}/month={month % 12 + 1:02}/{number:03}.{kind}", path)


def _beside(case: str, far: _Far, kind: str, rows: int, sizes: Sizes) -> Iterator[Figure]:
    check = partial(holds, rows=rows, first=0)
    found = try_out(_tools(far, kind, "**", sizes), far.scratch / "log", check)
    runs, requests = _load(far, kind, "", sizes.rounds, [way.command for way in found.able])
    yield beside_hand(case, runs, None, "httpfs", _told(requests))
    yield from beside_tools(case, runs, found, _TOOL_LIMITS[kind], hand="httpfs", start=True)


def _tools(far: _Far, kind: str, under: str, sizes: Sizes) -> Iterator[Way]:
    """The other tool that reads objects into DuckDB, where it is installed: by its fastest reader."""
    python = python_of(sizes, "dlt-s3")
    if python is None:
        return
    folder = far.scratch / "dlt"
    database = folder / "peer.duckdb"

    def begin() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "home").mkdir(parents=True)

    url, endpoint = f"s3://{far.bucket.name}/{kind}", f"http://127.0.0.1:{far.store.port}"
    words = [str(python), "-c", _DLT, url, endpoint, KEY, SECRET, kind, under, str(database),
             str(folder / "home")]  # fmt: skip
    told = {"DLT_DATA_DIR": str(folder / "home"), "RUNTIME__DLTHUB_TELEMETRY": "false"}
    command = Command("dlt", words, {**inputs.environment(far.scratch), **told}, begin)
    yield Way(command, database, "loaded.rows", folder)


def _pruned(far: _Far, kind: str, sizes: Sizes) -> Iterator[Figure]:
    check = partial(_counts, rows=_rows_of_march(sizes.peer_rows))
    found = try_out(_tools(far, kind, "year=2024/month=03", sizes), far.scratch / "log", check)
    runs, requests = _load(far, kind, "2024/03", sizes.rounds, [way.command for way in found.able])
    hand, ours, start_ = runs["httpfs"], runs["sqlflow run"], runs["start"]
    wall = paired(lambda o, s: o.wall - s.wall, ours, start_)
    share = sum(requests.values()) / (_OBJECTS + 1)
    case = f"S3, 1 partition of {_PARTITIONS} ({kind})"
    yield Figure(
        case,
        f"{share:.2f} of the requests",
        f"≤ {_PRUNED_LIMIT}",
        verdict(share, _PRUNED_LIMIT),
        f"{wall:.2f} s beyond the start of {start_.wall:.2f} s; httpfs with its process's start {hand.wall:.2f} s; "
        f"{_told(requests)}",
        ratio=ours.cpu / hand.cpu,
        beside="httpfs",
    )
    yield from beside_tools(case, runs, found, _PRUNED_TOOL_LIMIT, hand="httpfs", start=True)


def _rows_of_march(rows: int) -> int:
    each = -(-rows // _OBJECTS)
    numbers = range(2, _OBJECTS, _PARTITIONS)
    return sum(max(0, min(rows, (number + 1) * each) - number * each) for number in numbers)


def _counts(way: Way, rows: int) -> None:
    """Hold a tool's table to a number of rows."""
    with duckdb.connect(str(way.database), read_only=True) as connection:
        found = connection.execute(f"SELECT count(*) FROM {way.table}").fetchone()
    if found != (rows,):
        raise RuntimeError(f"{way.table} has {found} rows of {rows}")


def _load(
    far: _Far, kind: str, month: str, rounds: int, more: Sequence[Command]
) -> tuple[dict[str, Runs], Mapping[str, int]]:
    """Measure both ways, after holding them to the same rows; also the requests of one run of ours."""
    scratch = far.scratch / "load"
    form = kind.partition(".")[0]
    types = f', "types": {json.dumps(inputs.COLUMNS)}' if form != "parquet" else ""
    year, _, number = month.partition("/")
    wanted = f', "partition_filter": {{"year": {year}, "month": "{number}"}}' if month else ""
    params = f'{far.params}, "path_prefix": "{kind}/", "file_format": "{form}"{types}{wanted}'
    pipeline = f"SOURCE s TYPE S3 PARAMS {{ {params} }};\nLOAD rows FROM s;\n"
    project = inputs.project(scratch / "project", {"load": pipeline, "start": inputs.ONE_TABLE})
    typed = scratch / "typed.duckdb"
    env = inputs.environment(scratch)
    where = f"WHERE year = {year} AND month = '{number}'" if month else ""
    commands = (
        Command(
            "httpfs", [sys.executable, "-c", _by_httpfs(far, kind, typed, where)], env, lambda: _gone(typed)
        ),
        Command("sqlflow run", inputs.run("load", project), env, lambda: inputs.forget(project)),
        Command("start", inputs.run("start", project), env, lambda: inputs.forget(project)),
    )
    once(commands[0], scratch / "log")
    before = far.store.requests()
    once(commands[1], scratch / "log")
    requests = far.store.requests() - before
    with duckdb.connect(str(typed), read_only=True) as connection:
        (rows,) = connection.execute("SELECT count(*) FROM rows").fetchone() or (0,)
    same_rows(typed, "rows", project / "data/warehouse.duckdb", "load.rows", rows)
    found = interleaved((*commands, *more), rounds, scratch / "log")
    shutil.rmtree(scratch)
    return found, requests


def _exported(far: _Far, sizes: Sizes) -> Figure:
    """Compare an export of a table with COPY into the server."""
    scratch = far.scratch / "export"
    file = inputs.rows_file(sizes.folder, sizes.peer_rows, "parquet")
    target = f'"s3://{far.bucket.name}/out/ours.parquet"'
    given = {name: value for name, value in far.bucket.params.items() if name != "bucket"}
    pipelines = {
        "load": inputs.load_pipeline(file),
        "out": f"EXPORT SELECT * FROM load.rows TO {target} OPTIONS {json.dumps(given)};\n",
        "start": inputs.ONE_TABLE,
    }
    project = inputs.project(scratch / "project", pipelines)
    inputs.link(project, file)
    env = inputs.environment(scratch)
    once(Command("load", inputs.run("load", project), env), scratch / "log")
    copy = _connected(far, project / "data/warehouse.duckdb", read_only=True) + (
        f"connection.execute(\"COPY load.rows TO 's3://{far.bucket.name}/out/httpfs.parquet' (FORMAT parquet, "
        'COMPRESSION zstd)")\n'
    )
    commands = (
        Command("httpfs", [sys.executable, "-c", copy], env),
        Command("sqlflow run", inputs.run("out", project), env),
        Command("start", inputs.run("start", project), env),
    )
    runs = interleaved(commands, sizes.rounds, scratch / "log")
    return beside_hand(f"Export of {sizes.peer_rows:,} rows to S3 as Parquet", runs, _EXPORT_LIMIT, "httpfs")


def _by_httpfs(far: _Far, kind: str, typed: Path, where: str) -> str:
    """The program that a person would type."""
    columns = ", ".join(f"{name}: '{type_}'" for name, type_ in inputs.COLUMNS.items())
    read = {
        "parquet": "read_parquet('{files}', hive_partitioning = true, hive_types = {{year: BIGINT, month: VARCHAR}})",
        "csv.gz": "read_csv('{files}', header = true, hive_partitioning = true, "
        "hive_types = {{year: BIGINT, month: VARCHAR}}, columns = {{{columns}}})",
        "jsonl": "read_json('{files}', format = 'newline_delimited', hive_partitioning = true, "
        "hive_types = {{year: BIGINT, month: VARCHAR}}, columns = {{{columns}}})",
    }[kind].format(files=f"s3://{far.bucket.name}/{kind}/**", columns=columns)
    folders = "month, year" if kind == "parquet" else "year, month"
    select = f"SELECT * EXCLUDE (year, month), {folders} FROM {read} {where}"
    return _connected(far, typed) + f'connection.execute("CREATE TABLE rows AS {select}")\n'


def _connected(far: _Far, path: Path, *, read_only: bool = False) -> str:
    return (
        "import duckdb\n"
        f"connection = duckdb.connect({str(path)!r}, read_only={read_only})\n"
        f"connection.execute(\"LOAD '{_httpfs()}'\")\n"
        f"connection.execute(\"SET memory_limit = '{inputs.MEMORY_LIMIT}'\")\n"
        f"connection.execute(\"CREATE SECRET (TYPE s3, KEY_ID '{KEY}', SECRET '{SECRET}', "
        f"ENDPOINT '127.0.0.1:{far.store.port}', URL_STYLE 'path', USE_SSL false)\")\n"
    )


def _httpfs() -> Path:
    """The extension's file, from its wheel."""
    package = find_spec("duckdb_extension_httpfs")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("pip install duckdb-extension-httpfs, to compare with it")
    folder = Path(package.submodule_search_locations[0], "extensions", f"v{duckdb.__version__}")
    return folder / "httpfs.duckdb_extension"


def _gone(path: Path) -> None:
    path.unlink(missing_ok=True)


def _told(requests: Mapping[str, int]) -> str:
    return " and ".join(f"{count} {kind}" for kind, count in sorted(requests.items()) if count)
