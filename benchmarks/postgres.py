"""A table of a real Postgres server into DuckDB, whole and by increments, and back; by hand and by other tools."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import duckdb

from benchmarks import inputs
from benchmarks.figures import Figure, Sizes, verdict
from benchmarks.loads import same_rows
from benchmarks.measure import Command, Runs, interleaved, once, paired
from benchmarks.peers import give_extension, packages
from tests.connectors.postgres.conftest import Server, new_server

_HAND_LIMIT = 1.15
_PEER_LIMIT = 0.5
_MERGE_LIMIT = 0.6
_EXPORT_LIMIT = 1.3
_CHANGED = 20
_SHOWN = 300
_COLUMNS = (
    "id, customer, amount, status, note, city, email, created_at, updated_at, paid, "
    "CAST(attrs AS text) AS attrs, day"
)
_TABLE = """
CREATE TABLE rows AS SELECT
  n::bigint AS id, (n * 7919 % 100000)::int AS customer, (n * 31 % 10000000 / 100.0)::numeric(12,2) AS amount,
  (ARRAY['new', 'paid', 'sent', 'returned'])[1 + n % 4] AS status, 'order note ' || md5(n::text) AS note,
  'city ' || n % 500 AS city, 'user' || n || '@example.com' AS email,
  '2024-01-01 00:00+00'::timestamptz + n * interval '1 second' AS created_at,
  '2024-01-01 00:00+00'::timestamptz + n * interval '1 second' AS updated_at, n % 3 = 0 AS paid,
  jsonb_build_object('source', 'web', 'items', n % 10, 'tags', ARRAY['a', 'b']) AS attrs,
  '2024-01-01'::date + n % 1000 AS day
FROM generate_series(1, {rows}) AS n
"""
_CHANGES = """
UPDATE rows SET amount = amount + 1, updated_at = '2027-01-01 00:00+00'::timestamptz + id * interval '1 microsecond'
WHERE id % {each} = 0
"""
_DLT = """
import sys
import dlt
from dlt.sources.sql_database import sql_table
url, backend, database, home, merge = sys.argv[1:]
merge = merge == "merge"
rows = sql_table(
    credentials=url, table="rows", schema="public", backend=backend, reflection_level="full_with_precision",
    incremental=dlt.sources.incremental("updated_at") if merge else None, primary_key="id",
)
target = dlt.destinations.duckdb(database)
pipeline = dlt.pipeline("rows", dataset_name="loaded", destination=target, pipelines_dir=home)
pipeline.run(rows, write_disposition="merge" if merge else "replace")
"""
_ADBC = """
import sys
import adbc_driver_postgresql.dbapi, duckdb
database, url = sys.argv[1:]
with duckdb.connect(database, read_only=True) as connection, adbc_driver_postgresql.dbapi.connect(url) as far:
    reader = connection.execute("FROM load.rows").to_arrow_reader(100_000)
    with far.cursor() as cursor:
        cursor.adbc_ingest("by_adbc", reader, mode="replace")
    far.commit()
"""


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to load the table: its command, the file it makes with its table in it, and the folder of all its state."""

    command: Command
    database: Path
    table: str
    folder: Path


def postgres(sizes: Sizes) -> Iterator[Figure]:
    """Load, merge and export through a server on this machine."""
    scratch = sizes.scratch("postgres")
    # The server's user must be able to enter its folder.
    place = Path(tempfile.mkdtemp(prefix="sqlflow-bench-pg-", dir="/tmp"))
    place.chmod(0o755)
    server = new_server(place / "data", "-c shared_buffers=256MB -c max_wal_size=4GB")
    server.start()
    try:
        _sql(server, _TABLE.format(rows=sizes.peer_rows), "ALTER TABLE rows ADD PRIMARY KEY (id)",
             "CREATE INDEX ON rows (updated_at)", "VACUUM ANALYZE rows")  # fmt: skip
        yield from _whole(server, sizes, scratch)
        yield from _merged(server, sizes, scratch)
        yield from _exported(server, sizes, scratch)
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            server.stop()
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(scratch, ignore_errors=True)


def _sql(server: Server, *statements: str) -> None:
    connection = server.connect()
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


def _whole(server: Server, sizes: Sizes, scratch: Path) -> Iterator[Figure]:
    ours, hand = _ours(server, scratch, ""), _by_scanner(server, scratch, _FULL)
    start = _start(scratch)
    for way in (ours, hand):
        once(way.command, scratch / "log")
    same_rows(hand.database, hand.table, ours.database, ours.table, sizes.peer_rows)
    others, left_out = _that_work(_peers(server, sizes, scratch, "replace"), scratch, sizes.peer_rows)
    commands = (ours.command, hand.command, start, *(way.command for way in others))
    runs = interleaved(commands, sizes.rounds, scratch / "log")
    case = f"Postgres, {sizes.peer_rows:,} rows of 12 columns into DuckDB"
    yield _beside_hand(case, runs, _HAND_LIMIT, "postgres_scanner")
    yield from _beside_peers(case, runs, others, left_out, _PEER_LIMIT)


def _merged(server: Server, sizes: Sizes, scratch: Path) -> Iterator[Figure]:
    """Every way loads the table, then a part of it changes; what is measured brings the copy up to date."""
    incremental = ', "sync_mode": "incremental", "cursor_field": "updated_at", "primary_key": "id"'
    ours, hand = _ours(server, scratch, incremental), _by_scanner(server, scratch, _MERGE)
    others, left_out = _that_work(_peers(server, sizes, scratch, "merge"), scratch, sizes.peer_rows)
    start = _start(scratch)
    once(_by_scanner(server, scratch, _FULL).command, scratch / "log")
    once(ours.command, scratch / "log")
    ways = (ours, hand, *others)
    for way in ways:
        shutil.copytree(way.folder, scratch / "saved" / way.command.name)
    _sql(server, _CHANGES.format(each=_CHANGED), "VACUUM ANALYZE rows")

    def restore(way: _Way) -> None:
        shutil.rmtree(way.folder)
        shutil.copytree(scratch / "saved" / way.command.name, way.folder)

    commands = [replace(way.command, before=partial(restore, way)) for way in ways]
    for command in commands:
        once(command, scratch / "log")
    same_rows(hand.database, hand.table, ours.database, ours.table, sizes.peer_rows)
    runs = interleaved([*commands, start], sizes.rounds, scratch / "log")
    changed = sizes.peer_rows // _CHANGED
    case = f"Postgres, {changed:,} of {sizes.peer_rows:,} rows changed, merged by key"
    yield _beside_hand(case, runs, _HAND_LIMIT, "the same by hand")
    yield from _beside_peers(case, runs, others, left_out, _MERGE_LIMIT, start=True)


def _exported(server: Server, sizes: Sizes, scratch: Path) -> Iterator[Figure]:
    """Compare an export with ADBC's binary COPY; nothing where that is not installed."""
    python = _python(sizes, "adbc")
    if python is None:
        return
    folder = scratch / "export"
    file = inputs.rows_file(sizes.folder, sizes.peer_rows, "parquet")
    target = f"{server.url('postgres')}#public.by_sqlflow"
    pipelines = {
        "load": inputs.load_pipeline(file),
        "out": f'EXPORT SELECT * FROM load.rows TO "{target}" OPTIONS {{"mode": "replace"}};\n',
        "start": inputs.ONE_TABLE,
    }
    project = inputs.project(folder / "project", pipelines)
    inputs.link(project, file)
    env = inputs.environment(folder)
    once(Command("load", inputs.run("load", project), env), scratch / "log")
    words = [python, "-c", _ADBC, str(project / "data/warehouse.duckdb"), server.url("postgres")]
    commands = (
        Command("by hand", words, env),
        Command("sqlflow run", inputs.run("out", project), env),
        Command("start", inputs.run("start", project), env),
    )
    for command in commands[:2]:
        once(command, scratch / "log")
    runs = interleaved(commands, sizes.rounds, scratch / "log")
    connection = server.connect()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), sum(id), sum(amount) FROM by_adbc UNION ALL SELECT count(*), sum(id), sum(amount) "
            "FROM by_sqlflow"
        )
        found = cursor.fetchall()
    connection.close()
    if found[0] != found[1] or found[0][0] != sizes.peer_rows:
        raise RuntimeError(f"the two exports differ: {found}")
    yield _beside_hand(f"Export of {sizes.peer_rows:,} rows to Postgres", runs, _EXPORT_LIMIT, "ADBC")


def _beside_hand(case: str, runs: Mapping[str, Runs], limit: float, beside: str) -> Figure:
    hand, ours, start = runs["by hand"], runs["sqlflow run"], runs["start"]
    wall = paired(lambda h, o, s: (o.wall - s.wall) / h.wall, hand, ours, start)
    cpu = paired(lambda h, o, s: (o.cpu - s.cpu) / h.cpu, hand, ours, start)
    return Figure(
        case,
        f"{wall:.2f} x {beside}",
        f"≤ {limit} x, Dagster's start aside",
        verdict(wall, limit),
        f"wall {ours.wall:.2f} s, {beside} {hand.wall:.2f}, start {start.wall:.2f}; CPU without the server's "
        f"{ours.cpu:.2f} s, {hand.cpu:.2f}, {start.cpu:.2f}: {cpu:.2f} x; MiB {ours.rss:.0f}, {hand.rss:.0f}",
        ratio=cpu,
        beside=beside,
    )


def _beside_peers(
    case: str,
    runs: Mapping[str, Runs],
    others: Sequence[_Way],
    left_out: Mapping[str, str],
    limit: float,
    *,
    start: bool = False,
) -> Iterator[Figure]:
    """Compare whole processes by their CPU; with `start` ours without Dagster's start, by wall time."""
    names = [way.command.name for way in others]
    if not names:
        return
    ours = runs["sqlflow run"]

    def measure(name: str) -> float:
        return runs[name].wall if start else runs[name].cpu

    best = min(names, key=measure)
    own = measure("sqlflow run") - (measure("start") if start else 0)
    share = own / measure(best)
    never_slower = not start or ours.wall <= runs[best].wall
    yield Figure(
        f"{case}, beside other tools",
        f"{share:.2f} x {best}",
        f"≤ {limit} x the best" + (" without Dagster's start, never slower with it" if start else ""),
        verdict(share, limit) and never_slower,
        "CPU s (wall, MiB): "
        + ", ".join(f"{name} {_shown(found)}" for name, found in runs.items())
        + "".join(f"; {name} left out: {why}" for name, why in left_out.items()),
        ratio=ours.cpu / runs["by hand"].cpu,
        beside="by hand",
    )


def _shown(found: Runs) -> str:
    return f"{found.cpu:.1f} ({found.wall:.1f}, {found.rss:.0f})"


def _ours(server: Server, scratch: Path, incremental: str) -> _Way:
    folder = scratch / ("ours_merge" if incremental else "ours")
    pipeline = (
        f'SOURCE pg TYPE POSTGRES PARAMS {{ "connection": "{server.url("postgres")}", '
        f'"table": "rows"{incremental} }};\n'
        "LOAD rows FROM pg;\n"
    )
    project = inputs.project(folder / "project", {"load": pipeline})
    command = Command(
        "sqlflow run",
        inputs.run("load", project),
        inputs.environment(folder),
        lambda: inputs.forget(project),
    )
    return _Way(command, project / "data/warehouse.duckdb", "load.rows", folder)


def _start(scratch: Path) -> Command:
    folder = scratch / "start"
    project = inputs.project(folder / "project", {"start": inputs.ONE_TABLE})
    return Command(
        "start", inputs.run("start", project), inputs.environment(folder), lambda: inputs.forget(project)
    )


_FULL = "CREATE OR REPLACE TABLE rows AS SELECT * REPLACE (CAST(attrs AS JSON) AS attrs) FROM {read}"
_MERGE = (
    "BEGIN; CREATE TEMP TABLE stage AS SELECT * REPLACE (CAST(attrs AS JSON) AS attrs) FROM {newer}; "
    "DELETE FROM rows WHERE id IN (SELECT id FROM stage); INSERT INTO rows FROM stage; COMMIT"
)


def _by_scanner(server: Server, scratch: Path, statement: str) -> _Way:
    """The program that a person would type."""
    folder = scratch / "by_hand"
    folder.mkdir(exist_ok=True)
    typed = folder / "typed.duckdb"
    select = f"SELECT {_COLUMNS} FROM rows"
    read = f"postgres_query('pg', '{select}')"
    newer = f"postgres_query('pg', '{select} WHERE updated_at >= ''{{newest}}''')"
    program = (
        "import duckdb\n"
        f"connection = duckdb.connect({str(typed)!r})\n"
        f"connection.execute(\"LOAD '{_scanner()}'\")\n"
        f"connection.execute(\"SET memory_limit = '{inputs.MEMORY_LIMIT}'\")\n"
        "connection.execute(\"SET TimeZone = 'UTC'\")\n"
        f"connection.execute(\"ATTACH '{server.url('postgres')}' AS pg (TYPE postgres, READ_ONLY)\")\n"
    )
    if statement is _MERGE:
        program += (
            'newest = connection.execute("SELECT CAST(max(updated_at) AS VARCHAR) FROM rows").fetchone()[0]\n'
            f'connection.execute(f"""{_MERGE.format(newer=newer)}""")\n'
        )
    else:
        program += f'connection.execute("""{statement.format(read=read)}""")\n'
    program += "connection.close()\n"
    command = Command("by hand", [sys.executable, "-c", program], inputs.environment(folder))
    return _Way(command, typed, "rows", folder)


def _scanner() -> Path:
    package = find_spec("duckdb_extension_postgres_scanner")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("pip install duckdb-extension-postgres-scanner, to compare with it")
    folder = Path(package.submodule_search_locations[0], "extensions", f"v{duckdb.__version__}")
    return folder / "postgres_scanner.duckdb_extension"


def _python(sizes: Sizes, name: str) -> str | None:
    """The Python of a tool's environment, None where it is not installed."""
    if sizes.peers is None or not (sizes.peers / name / ".ready").exists():
        return None
    return str(sizes.peers / name / "bin" / "python")


def _peers(server: Server, sizes: Sizes, scratch: Path, mode: str) -> Iterator[_Way]:
    """The tools that are installed, each with its command in a folder of its own."""
    url = server.url("postgres")
    for backend in ("connectorx", "pyarrow"):
        if python := _python(sizes, "dlt-postgres"):
            folder = scratch / f"dlt_{backend}_{mode}"
            database = folder / "peer.duckdb"
            words = [python, "-c", _DLT, url, backend, str(database), str(folder / "home"), mode]
            told = {"DLT_DATA_DIR": str(folder / "home"), "RUNTIME__DLTHUB_TELEMETRY": "false"}
            yield _peer(f"dlt {backend}", words, folder, told, "loaded.rows")
    if python := _python(sizes, "sling"):
        folder = scratch / f"sling_{mode}"
        own = packages(Path(python).parent)
        merge = ["--mode", "incremental", "--primary-key", "id", "--update-key", "updated_at"]
        words = [str(own / "sling_linux_amd64/bin/sling-linux-amd64"), "run", "--src-conn", "SOURCE",
                 "--src-stream", "public.rows", "--tgt-conn", "TARGET", "--tgt-object", "main.rows",
                 *(merge if mode == "merge" else ["--mode", "full-refresh"])]  # fmt: skip
        told = {"SOURCE": f"{url}?sslmode=disable", "TARGET": f"duckdb://{folder / 'peer.duckdb'}",
                "DUCKDB_PATH": str(own / "duckdb_cli/duckdb"), "HOME": str(folder / "home"),
                "SLING_HOME_DIR": str(folder / "home"), "SLING_DISABLE_TELEMETRY": "true"}  # fmt: skip
        yield _peer("sling", words, folder, told, "main.rows", extensions=("httpfs", "json"), own=own)
    if python := _python(sizes, "ingestr"):
        folder = scratch / f"ingestr_{mode}"
        merge = ["--incremental-strategy", "merge", "--incremental-key", "updated_at", "--primary-key", "id"]
        words = [str(Path(python).with_name("ingestr")), "ingest", "--source-uri", url, "--source-table",
                 "public.rows", "--dest-uri", f"duckdb:///{folder / 'peer.duckdb'}", "--dest-table", "main.rows",
                 "--yes", *(merge if mode == "merge" else [])]  # fmt: skip
        told = {"HOME": str(folder / "home"), "TELEMETRY_DISABLED": "1", "INGESTR_DISABLE_TELEMETRY": "true"}
        yield _peer("ingestr", words, folder, told, "main.rows")


def _peer(
    name: str,
    words: Sequence[str],
    folder: Path,
    told: Mapping[str, str],
    table: str,
    *,
    extensions: Sequence[str] = (),
    own: Path | None = None,
) -> _Way:
    def begin() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "home").mkdir(parents=True)
        for extension in extensions:
            if own is not None:
                give_extension(extension, own, folder / "home")

    command = Command(name, words, {**inputs.environment(folder.parent), **told}, begin)
    return _Way(command, folder / "peer.duckdb", table, folder)


def _that_work(ways: Iterator[_Way], scratch: Path, rows: int) -> tuple[list[_Way], dict[str, str]]:
    """The tools that load the table as it is; of the others why they do not."""
    fine, left_out = [], {}
    for way in ways:
        try:
            once(way.command, scratch / "log")
            _check(way, rows)
        except (RuntimeError, duckdb.Error) as error:
            left_out[way.command.name] = str(error)[-_SHOWN:].replace("\n", " ").replace("|", "/")
        else:
            fine.append(way)
    return fine, left_out


def _check(way: _Way, rows: int) -> None:
    """Hold a tool's table to the rows of Postgres, whatever types it gave them."""
    with duckdb.connect(str(way.database), read_only=True) as connection:
        found = connection.execute(
            f"SELECT count(*), sum(CAST(id AS HUGEINT)), count(note) FROM {way.table}"
        ).fetchone()
    if found != (rows, rows * (rows + 1) // 2, rows):
        raise RuntimeError(f"it made {json.dumps(found, default=str)}")
