"""A table of a real Postgres server into DuckDB, whole and by increments, and back; by hand and by other tools."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import duckdb

from benchmarks import inputs
from benchmarks.compare import Tools, Way, beside_hand, beside_tools, holds, python_of, started, try_out
from benchmarks.figures import Figure, Sizes
from benchmarks.loads import same_rows
from benchmarks.measure import Command, interleaved, once
from benchmarks.postgres_tools import tools
from tests.connectors.postgres.conftest import Server, new_server

_HAND_LIMIT = 1.15
_PEER_LIMIT = 0.5
_MERGE_LIMIT = 0.6
_MERGE_HAND_LIMIT = 1.3
_EXPORT_LIMIT = 1.3
_CHANGED = 20
_COLUMNS = (
    "id, customer, amount, status, note, city, email, created_at, updated_at, paid, "
    "CAST(attrs AS text) AS attrs, day"
)
_TABLE = """
CREATE TABLE rows AS SELECT
  n::bigint AS id, (n::bigint * 7919 % 100000)::int AS customer,
  (n::bigint * 31 % 10000000 / 100.0)::numeric(12,2) AS amount,
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


def postgres(sizes: Sizes) -> Iterator[Figure]:
    """Load, merge and export through a server on this machine."""
    scratch = sizes.scratch("postgres")
    # The server's user must be able to enter its folder.
    place = Path(tempfile.mkdtemp(prefix="sqlflow-bench-pg-", dir="/tmp"))
    place.chmod(0o755)
    server = new_server(place / "data", "-c shared_buffers=256MB -c max_wal_size=4GB")
    server.start()
    try:
        _fill(server, sizes.peer_rows)
        yield from _whole(server, sizes, scratch, sizes.peer_rows)
        yield from _merged(server, sizes, scratch)
        yield from _exported(server, sizes, scratch)
        # More rows show what each of them costs; other tools would take an hour for them.
        _fill(server, sizes.rows // 2)
        yield from _whole(server, replace(sizes, peers=None), scratch, sizes.rows // 2)
    finally:
        with contextlib.suppress(subprocess.CalledProcessError):
            server.stop()
        shutil.rmtree(place, ignore_errors=True)
        shutil.rmtree(scratch, ignore_errors=True)


def _fill(server: Server, rows: int) -> None:
    _sql(server, "DROP TABLE IF EXISTS rows", _TABLE.format(rows=rows), "ALTER TABLE rows ADD PRIMARY KEY (id)",
         "CREATE INDEX ON rows (updated_at)", "VACUUM ANALYZE rows")  # fmt: skip


def _sql(server: Server, *statements: str) -> None:
    connection = server.connect()
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
    connection.close()


def _whole(server: Server, sizes: Sizes, scratch: Path, rows: int) -> Iterator[Figure]:
    ours, hand = _ours(server, scratch, ""), _by_scanner(server, scratch, _FULL)
    for way in (ours, hand):
        once(way.command, scratch / "log")
    same_rows(hand.database, hand.table, ours.database, ours.table, rows)
    found = try_out(
        tools(server.url("postgres"), sizes, scratch, "replace"),
        scratch / "log",
        partial(holds, rows=rows, first=1),
    )
    commands = (ours.command, hand.command, started(scratch), *(way.command for way in found.able))
    runs = interleaved(commands, sizes.rounds, scratch / "log")
    case = f"Postgres, {rows:,} rows of 12 columns into DuckDB"
    yield beside_hand(case, runs, _HAND_LIMIT, "postgres_scanner")
    yield from beside_tools(case, runs, found, _PEER_LIMIT, hand="postgres_scanner", by_cpu=True)


def _merged(server: Server, sizes: Sizes, scratch: Path) -> Iterator[Figure]:
    """Every way loads the table, then a part of it changes; what is measured brings the copy up to date."""
    incremental = ', "sync_mode": "incremental", "cursor_field": "updated_at", "primary_key": "id"'
    ours, hand = _ours(server, scratch, incremental), _by_scanner(server, scratch, _MERGE)
    check = partial(holds, rows=sizes.peer_rows, first=1)
    found = try_out(tools(server.url("postgres"), sizes, scratch, "merge"), scratch / "log", check)
    # What those took was a whole load.
    found = Tools(found.able, {}, {**found.left_out, **dict.fromkeys(found.slow, "too slow to be run again")})
    once(_by_scanner(server, scratch, _FULL).command, scratch / "log")
    once(ours.command, scratch / "log")
    ways = (ours, hand, *found.able)
    for way in ways:
        shutil.copytree(way.folder, scratch / "saved" / way.command.name)
    _sql(server, _CHANGES.format(each=_CHANGED), "VACUUM ANALYZE rows")

    def restore(way: Way) -> None:
        shutil.rmtree(way.folder)
        shutil.copytree(scratch / "saved" / way.command.name, way.folder)

    commands = [replace(way.command, before=partial(restore, way)) for way in ways]
    for command in commands:
        once(command, scratch / "log")
    same_rows(hand.database, hand.table, ours.database, ours.table, sizes.peer_rows)
    runs = interleaved([*commands, started(scratch)], sizes.rounds, scratch / "log")
    changed = sizes.peer_rows // _CHANGED
    case = f"Postgres, {changed:,} of {sizes.peer_rows:,} rows changed, merged by key"
    yield beside_hand(case, runs, _MERGE_HAND_LIMIT, "postgres_scanner")
    yield from beside_tools(
        case, runs, found, _MERGE_LIMIT, hand="postgres_scanner", start=True, never_slower=True
    )


def _exported(server: Server, sizes: Sizes, scratch: Path) -> Iterator[Figure]:
    """Compare an export with ADBC's binary COPY; nothing where that is not installed."""
    python = python_of(sizes, "adbc")
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
    words = [str(python), "-c", _ADBC, str(project / "data/warehouse.duckdb"), server.url("postgres")]
    commands = (
        Command("ADBC", words, env),
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
    yield beside_hand(f"Export of {sizes.peer_rows:,} rows to Postgres", runs, _EXPORT_LIMIT, "ADBC")


def _ours(server: Server, scratch: Path, incremental: str) -> Way:
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
    return Way(command, project / "data/warehouse.duckdb", "load.rows", folder)


_FULL = "CREATE OR REPLACE TABLE rows AS SELECT * REPLACE (CAST(attrs AS JSON) AS attrs) FROM {read}"
_MERGE = (
    "BEGIN; CREATE TEMP TABLE stage AS SELECT * REPLACE (CAST(attrs AS JSON) AS attrs) FROM {newer}; "
    "DELETE FROM rows WHERE id IN (SELECT id FROM stage); INSERT INTO rows FROM stage; COMMIT"
)


def _by_scanner(server: Server, scratch: Path, statement: str) -> Way:
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
    command = Command("postgres_scanner", [sys.executable, "-c", program], inputs.environment(folder))
    return Way(command, typed, "rows", folder)


def _scanner() -> Path:
    package = find_spec("duckdb_extension_postgres_scanner")
    if package is None or not package.submodule_search_locations:
        raise RuntimeError("pip install duckdb-extension-postgres-scanner, to compare with it")
    folder = Path(package.submodule_search_locations[0], "extensions", f"v{duckdb.__version__}")
    return folder / "postgres_scanner.duckdb_extension"
