"""The same CSV file into DuckDB by other tools, each in an environment of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import duckdb

from benchmarks import inputs
from benchmarks.compare import Way, beside_tools, holds, try_out
from benchmarks.figures import Figure, Sizes
from benchmarks.measure import Command, interleaved, once

_PEER_LIMIT = 0.6
# A program that somebody writes with a library: no tool with state, schemas or increments. Shown, not a peer.
_BY_HAND = {"pandas"}
_SHOWN = 300


@dataclass(frozen=True, slots=True)
class Peer:
    """A tool: what to install, and the words of its command.

    In `words`, `files` (name → text, in `home`) and `environ` these stand for values: `{python}`, `{bin}` and
    `{packages}` of its environment, `{file}` to read, `{folder}` it stands alone in, `{database}` to write,
    `{home}` to work in.
    `table` is what it makes; `extensions` are those of DuckDB that it would download.
    """

    requirements: tuple[str, ...]
    words: tuple[str, ...]
    table: str
    files: Mapping[str, str] = field(default_factory=dict)
    environ: Mapping[str, str] = field(default_factory=dict)
    extensions: tuple[str, ...] = ()


_PANDAS = """
import duckdb, pandas
frame = pandas.read_csv({file!r}, parse_dates=["updated_at"])
with duckdb.connect({database!r}) as connection:
    connection.execute("CREATE TABLE rows AS SELECT * FROM frame")
"""

_DLT = """
import dlt
from dlt.sources.filesystem import filesystem, read_csv_duckdb
files = filesystem(bucket_url="file://" + {folder!r}, file_glob="*.csv") | read_csv_duckdb(use_pyarrow=True)
pipeline = dlt.pipeline("rows", dataset_name="loaded", destination=dlt.destinations.duckdb({database!r}))
pipeline.run(files.with_name("rows"), write_disposition="replace")
"""

PEERS = {
    "sqlflow-core": Peer(
        ("sqlflow-core==0.1.7", "click<8.2", "typer<0.16", "duckdb==1.5.5"),
        ("/bin/sh", "-c", "cd {home} && exec {bin}/sqlflow pipeline run load --profile dev"),
        "main.rows",
        {
            "pipelines/load.sf": 'SOURCE files TYPE CSV PARAMS {{ "path": "{file}", "has_header": true }};\n'
            "LOAD rows FROM files;\n",
            "profiles/dev.yml": "engines:\n  duckdb:\n    mode: persistent\n    path: {database}\n",
        },
    ),
    "pandas": Peer(
        ("pandas==2.3.3", "duckdb==1.5.5"), ("{python}", "{home}/program.py"), "rows", {"program.py": _PANDAS}
    ),
    "dlt": Peer(
        ("dlt[duckdb,filesystem]==1.31.0", "duckdb==1.5.5", "pyarrow"),
        ("{python}", "{home}/program.py"),
        "loaded.rows",
        {"program.py": _DLT},
        {"DLT_DATA_DIR": "{home}", "RUNTIME__DLTHUB_TELEMETRY": "false"},
    ),
    "sling": Peer(
        (
            "sling-linux-amd64==1.4.11",
            "duckdb-cli==1.5.5",
            "duckdb-extension-httpfs==1.5.5",
            "duckdb-extension-json==1.5.5",
        ),
        (
            "{packages}/sling_linux_amd64/bin/sling-linux-amd64",
            "run",
            "--src-stream",
            "file://{file}",
            "--tgt-conn",
            "TARGET",
            "--tgt-object",
            "main.rows",
            "--mode",
            "full-refresh",
        ),
        "main.rows",
        environ={
            "TARGET": "duckdb://{database}",
            "DUCKDB_PATH": "{packages}/duckdb_cli/duckdb",
            "HOME": "{home}",
            "SLING_HOME_DIR": "{home}",
            "SLING_DISABLE_TELEMETRY": "true",
        },
        # It sends rows to DuckDB's command line over HTTP on loopback.
        extensions=("httpfs", "json"),
    ),
    "ingestr": Peer(
        ("ingestr==0.14.155",),
        (
            "{bin}/ingestr",
            "ingest",
            "--source-uri",
            "csv://{file}",
            "--source-table",
            "rows",
            "--dest-uri",
            "duckdb:///{database}",
            "--dest-table",
            "main.rows",
            "--yes",
        ),
        "main.rows",
        environ={"HOME": "{home}", "TELEMETRY_DISABLED": "1", "INGESTR_DISABLE_TELEMETRY": "true"},
    ),
}


# What the cases of databases and S3 need beside the tools above.
_MORE = {
    "dlt-postgres": (
        "dlt[duckdb,sql_database]==1.31.0",
        "duckdb==1.5.5",
        "psycopg2-binary",
        "sqlalchemy<2.1",
        "connectorx==0.4.6",
        "pyarrow",
    ),
    "dlt-s3": ("dlt[duckdb,filesystem,s3]==1.31.0", "duckdb==1.5.5", "pyarrow"),
    "adbc": ("adbc-driver-postgresql==1.13.0", "duckdb==1.5.5", "pyarrow"),
}


def install(folder: Path) -> dict[str, str]:
    """Make an environment for each peer in `folder`; return why the ones that failed did."""
    failed = {}
    wanted = {name: peer.requirements for name, peer in PEERS.items()}
    for name, requirements in {**wanted, **_MORE}.items():
        if (folder / name / ".ready").exists():
            continue
        for step in _steps(folder / name, requirements):
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                failed[name] = done.stderr.strip()[-_SHOWN:]
                break
        else:
            (folder / name / ".ready").touch()
    return failed


def _steps(folder: Path, requirements: tuple[str, ...]) -> list[list[str]]:
    """The commands that make an environment, with uv where it can be had."""
    own = Path(sys.executable).with_name("uv")
    uv = shutil.which("uv") or (str(own) if own.exists() else None)
    python = str(folder / "bin" / "python")
    if uv is None:
        return [
            [sys.executable, "-m", "venv", "--clear", str(folder)],
            [python, "-m", "pip", "--quiet", "install", *requirements],
        ]
    return [
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)],
        [uv, "pip", "install", "--quiet", "--compile-bytecode", "-p", python, *requirements],
    ]


def peers(sizes: Sizes) -> Iterator[Figure]:
    """Compare `sqlflow run` with the fastest of the tools that are installed; none: no figure."""
    present = [name for name in PEERS if sizes.peers and (sizes.peers / name / ".ready").exists()]
    if not present or not sizes.peers:
        return
    file = inputs.rows_file(sizes.folder, sizes.peer_rows, "csv")
    scratch = sizes.scratch("peers")
    ways = [_way(name, sizes.peers / name / "bin", file, scratch / name) for name in present]
    check = partial(holds, rows=sizes.peer_rows, first=0)
    found = try_out((way for way in ways if way.command.name not in _BY_HAND), scratch / "log", check)
    base = [
        _ours(file, scratch),
        _typed(file, scratch),
        *(way for way in ways if way.command.name in _BY_HAND),
    ]
    for way in base:
        once(way.command, scratch / "log")
        check(way)
    commands = [way.command for way in (*base, *found.able)]
    runs = interleaved(commands, sizes.rounds, scratch / "log")
    yield from beside_tools(f"CSV, {sizes.peer_rows:,} rows, whole process", runs, found, _PEER_LIMIT)
    shutil.rmtree(scratch)


def _ours(file: Path, scratch: Path) -> Way:
    project = inputs.project(scratch / "project", {"load": inputs.load_pipeline(file)})
    inputs.link(project, file)
    words, env = inputs.run("load", project), inputs.environment(scratch)
    command = Command("sqlflow run", words, env, lambda: inputs.forget(project))
    return Way(command, project / "data/warehouse.duckdb", "load.rows", project)


def _typed(file: Path, scratch: Path) -> Way:
    typed = scratch / "typed.duckdb"
    words, env = [sys.executable, "-c", inputs.by_hand(file, typed)], inputs.environment(scratch)
    return Way(Command("by hand", words, env, lambda: typed.unlink(missing_ok=True)), typed, "rows", scratch)


def _way(peer_name: str, bin_: Path, file: Path, folder: Path) -> Way:
    """The peer's command, in a folder that holds the one file and its state; each run begins anew."""
    peer = PEERS[peer_name]
    database, home, data = folder / "peer.duckdb", folder / "home", folder / "data"
    values = {
        "python": str(bin_ / "python"),
        "bin": str(bin_),
        "packages": str(packages(bin_)),
        "file": str(data / file.name),
        "folder": str(data),
        "database": str(database),
        "home": str(home),
    }

    def begin() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        for path in (home, data):
            path.mkdir(parents=True)
        inputs.hard_link(file, data / file.name)
        for name, text in peer.files.items():
            path = home / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text.format(**values))
        for extension in peer.extensions:
            give_extension(extension, packages(bin_), home)

    environ = {key: value.format(**values) for key, value in peer.environ.items()}
    words = [word.format(**values) for word in peer.words]
    command = Command(peer_name, words, {**inputs.environment(folder.parent), **environ}, begin)
    return Way(command, database, peer.table, folder)


def packages(bin_: Path) -> Path:
    """Return where an environment keeps what is installed, by its folder of programs."""
    return next(bin_.parent.glob("lib/python*/site-packages"))


def give_extension(name: str, packages: Path, home: Path) -> None:
    """Put an extension where DuckDB's command line looks for installed ones."""
    found = next((packages / f"duckdb_extension_{name}").rglob(f"{name}.duckdb_extension"))
    with duckdb.connect() as connection:
        row = connection.execute("PRAGMA platform").fetchone()
    place = home / ".duckdb" / "extensions" / f"v{duckdb.__version__}" / str(row[0] if row else "")
    place.mkdir(parents=True, exist_ok=True)
    shutil.copy(found, place)
