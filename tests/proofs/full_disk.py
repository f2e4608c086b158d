"""Run inside a mount namespace of its own: a project whose warehouse lies on a small disk that fills up.

Prints one JSON document a line: what each run said, and what the table then holds.
"""

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path.insert(0, str(REPOSITORY))

from tests.conftest import Workbench  # noqa: E402


def main(root: Path, disk: Path, kind: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], check=True)
    bench = Workbench(root)
    bench.write(
        "profiles/dev.yml",
        f"engines: {{duckdb: {{path: {disk}/w.duckdb, memory_limit: 64MB, threads: 1}}}}\n",
    )
    for rows in (10, 3_000_000, 20):
        bench.pipeline(PIPELINES[kind].format(rows=rows))
        if rows == 20:
            subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        tell(bench)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    bench.pipeline(PIPELINES[kind].format(rows=30))
    tell(bench)
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    tell(bench)


ROWS = "SELECT i AS id, TIMESTAMP '2026-01-01' + INTERVAL (i) SECOND AS ts, hash(i) AS h FROM range({rows}) AS t(i)"
PIPELINES = {
    "replace": f"CREATE TABLE t AS {ROWS};",
    "append": f"CREATE TABLE t MODE UPSERT KEY (id) AS {ROWS};",
    "sorted": f"CREATE TABLE t AS SELECT * FROM ({ROWS}) ORDER BY h;",
}


def tell(bench: Workbench) -> None:
    from sqlflow_dagster.project import load_project

    outcome = next(iter(bench.run().values()))
    project = load_project(bench.root)
    told = {"error": str(outcome.error) if outcome.error else None}
    if not outcome.error or "read-only" not in str(outcome.error).lower():
        with project.warehouse.open() as connection:
            told["rows"] = connection.execute("SELECT count(*), sum(id) FROM p.t").fetchone()
    sys.stdout.write(json.dumps(told) + "\n")
    sys.stdout.flush()


main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
