"""Other tools that load a table of Postgres into DuckDB, each with its command in a folder of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import inputs
from benchmarks.compare import Way, python_of
from benchmarks.figures import Sizes
from benchmarks.measure import Command
from benchmarks.peers import give_extension, packages

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


def tools(url: str, sizes: Sizes, scratch: Path, mode: str) -> Iterator[Way]:
    """Yield the tools that are installed; `mode` is replace or merge, the table is public.rows."""
    for backend in ("connectorx", "pyarrow"):
        if python := python_of(sizes, "dlt-postgres"):
            folder = scratch / f"dlt_{backend}_{mode}"
            database = folder / "peer.duckdb"
            words = [str(python), "-c", _DLT, url, backend, str(database), str(folder / "home"), mode]
            told = {"DLT_DATA_DIR": str(folder / "home"), "RUNTIME__DLTHUB_TELEMETRY": "false"}
            yield _peer(f"dlt {backend}", words, folder, told, "loaded.rows")
    if python := python_of(sizes, "sling"):
        folder = scratch / f"sling_{mode}"
        own = packages(python.parent)
        merge = ["--mode", "incremental", "--primary-key", "id", "--update-key", "updated_at"]
        words = [str(own / "sling_linux_amd64/bin/sling-linux-amd64"), "run", "--src-conn", "SOURCE",
                 "--src-stream", "public.rows", "--tgt-conn", "TARGET", "--tgt-object", "main.rows",
                 *(merge if mode == "merge" else ["--mode", "full-refresh"])]  # fmt: skip
        told = {"SOURCE": f"{url}?sslmode=disable", "TARGET": f"duckdb://{folder / 'peer.duckdb'}",
                "DUCKDB_PATH": str(own / "duckdb_cli/duckdb"), "HOME": str(folder / "home"),
                "SLING_HOME_DIR": str(folder / "home"), "SLING_DISABLE_TELEMETRY": "true"}  # fmt: skip
        yield _peer("sling", words, folder, told, "main.rows", extensions=("httpfs", "json"), own=own)
    if python := python_of(sizes, "ingestr"):
        folder = scratch / f"ingestr_{mode}"
        merge = ["--incremental-strategy", "merge", "--incremental-key", "updated_at", "--primary-key", "id"]
        words = [str(python.with_name("ingestr")), "ingest", "--source-uri", url, "--source-table",
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
) -> Way:
    def begin() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "home").mkdir(parents=True)
        for extension in extensions:
            if own is not None:
                give_extension(extension, own, folder / "home")

    command = Command(name, words, {**inputs.environment(folder.parent), **told}, begin)
    return Way(command, folder / "peer.duckdb", table, folder)
