"""Numbers of rows, files or streams → input files and `sqlflow` projects in a scratch folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import duckdb

SQLFLOW = str(Path(sys.executable).with_name("sqlflow"))
# The table that all cases move, about 227 bytes a row as text; Postgres and MariaDB have the like.
COLUMNS = {
    "id": "BIGINT",
    "customer": "INTEGER",
    "amount": "DECIMAL(12, 2)",
    "status": "VARCHAR",
    "note": "VARCHAR",
    "city": "VARCHAR",
    "email": "VARCHAR",
    "created_at": "TIMESTAMPTZ",
    "updated_at": "TIMESTAMPTZ",
    "paid": "BOOLEAN",
    "attrs": "VARCHAR",
    "day": "DATE",
}
MEMORY_LIMIT = "512MB"
ONE_TABLE = "CREATE TABLE one AS SELECT 1 AS one;\n"
_ROWS = """
    SELECT
        i AS id,
        CAST(hash(i) % 100000 AS INTEGER) AS customer,
        CAST((hash(i + 1) % 10000000) / 100 AS DECIMAL(12, 2)) AS amount,
        ['new', 'paid', 'sent', 'returned'][1 + CAST(hash(i + 2) % 4 AS INTEGER)] AS status,
        'order note ' || md5(CAST(i AS VARCHAR)) AS note,
        'city ' || i % 500 AS city,
        'user' || i || '@example.com' AS email,
        TIMESTAMPTZ '2024-01-01 00:00:00+00' + INTERVAL 1 SECOND * i AS created_at,
        TIMESTAMPTZ '2024-01-01 00:00:00+00' + INTERVAL 1 SECOND * i AS updated_at,
        i % 3 = 0 AS paid,
        '{"source": "web", "items": ' || i % 10 || ', "tags": ["a", "b"]}' AS attrs,
        DATE '2024-01-01' + CAST(i % 1000 AS INTEGER) AS day
    FROM range(?) AS rows(i)
"""


def rows_between(first: int, end: int) -> str:
    """Return the SELECT of the rows from number `first` up to, but without, `end`."""
    return _ROWS.replace("range(?)", f"range({first}, {end})")


def rows_file(folder: Path, rows: int, kind: str) -> Path:
    """Return a file of `rows` rows, `kind` being csv or parquet; an existing one is taken as it is."""
    path = folder / f"rows_{rows}.{kind}"
    if not path.exists():
        partial = path.with_suffix(".partial")
        options = "FORMAT csv, HEADER" if kind == "csv" else "FORMAT parquet"
        with duckdb.connect() as connection:
            connection.execute(f"COPY ({_ROWS}) TO '{partial}' ({options})", [rows])
        partial.rename(path)
    return path


def environment(folder: Path) -> Mapping[str, str]:
    """Return an environment in which Dagster keeps its instance in `folder`, without telemetry."""
    home = folder / "dagster_home"
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    return {**os.environ, "DAGSTER_HOME": str(home), "PYTHONWARNINGS": "ignore", "COLUMNS": "120"}


def project(folder: Path, pipelines: Mapping[str, str], memory_limit: str = MEMORY_LIMIT) -> Path:
    """Return a project with these pipelines (name → text), in the state before its first run."""
    (folder / "pipelines").mkdir(parents=True, exist_ok=True)
    (folder / "profiles").mkdir(exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    (folder / "profiles" / "dev.yml").write_text(
        f"engines:\n  duckdb:\n    path: data/warehouse.duckdb\n    memory_limit: {memory_limit}\n"
    )
    for name, text in pipelines.items():
        (folder / "pipelines" / f"{name}.sf").write_text(text)
    return folder


def run(pipeline: str, project_: Path) -> list[str]:
    """Return the words of `sqlflow run`."""
    return [SQLFLOW, "run", pipeline, "--project", str(project_)]


def forget(project_: Path) -> None:
    """Put a project's warehouse back to before its first run."""
    for path in (project_ / "data").glob("warehouse.duckdb*"):
        path.unlink()


def link(project_: Path, file: Path) -> None:
    """Put a hard link to an input file into the project's `data`."""
    hard_link(file, project_ / "data" / file.name)


def hard_link(file: Path, target: Path) -> None:
    """Give an input file a second name; one that is there stays."""
    if not target.exists():
        os.link(file, target)


def load_pipeline(file: Path, incremental: str = "") -> str:
    """Return a pipeline that loads one file, or a pattern's; `incremental` are more parameters, e.g. a sync_mode."""
    kind = file.suffix[1:].upper()
    typed = ", ".join(f'"{name}": "{type_}"' for name, type_ in COLUMNS.items())
    types = f'"types": {{{typed}}},' if kind == "CSV" else ""
    return (
        f'SOURCE files TYPE {kind} PARAMS {{ "path": "data/{file.name}", {types} {incremental} }};\n'
        "LOAD rows FROM files;\n"
    )


def by_hand(file: Path, database: Path) -> str:
    """Return the Python program a person would type: the same table with one CREATE TABLE AS."""
    typed = ", ".join(f"{name}: '{type_}'" for name, type_ in COLUMNS.items())
    scan = (
        f"read_csv('{file}', header = true, columns = {{{typed}}})"
        if file.suffix == ".csv"
        else f"read_parquet('{file}')"
    )
    return (
        "import duckdb\n"
        f"connection = duckdb.connect({str(database)!r})\n"
        f"connection.execute(\"SET memory_limit = '{MEMORY_LIMIT}'\")\n"
        f'connection.execute("CREATE TABLE rows AS FROM {scan}")\n'
        "connection.close()\n"
    )


def many_tables(pipelines: int, tables: int = 3) -> dict[str, str]:
    """Return pipelines of `tables` tables each, every one an op of its own that reads the one before."""
    chain = "\n".join(
        f"CREATE TABLE t{i} AS SELECT id + 1 AS id, upper(name) AS name FROM t{i - 1} WHERE id > {i};"
        for i in range(1, tables)
    )
    return {
        f"pipeline_{n:03}": f"CREATE TABLE t0 AS SELECT {n} AS id, 'a' AS name;\n{chain}\n"
        for n in range(pipelines)
    }


def many_streams(sources: int, streams: int = 40) -> dict[str, str]:
    """Return one pipeline a source, with `streams` streams each loaded into a table."""
    names = [f"s{i:02}" for i in range(streams)]
    listed = ", ".join(f'"{name}"' for name in names)
    loads = "\n".join(f"LOAD {name} FROM far.{name};" for name in names)
    return {
        f"source_{n:02}": (
            f'SOURCE far TYPE DUCKDB PARAMS {{ "path": "data/far.duckdb", "tables": [{listed}] }};\n{loads}\n'
        )
        for n in range(sources)
    }


def whole_files(files: int) -> dict[str, str]:
    """Return pipelines such as people write them: a source, a load, three tables, an export."""
    text = """-- Orders of one shop.
SOURCE orders TYPE CSV PARAMS {{
  "path": "data/orders_{n}_*.csv",
  "sync_mode": "incremental",
  "cursor_field": "updated_at",
  "primary_key": "id",
}};
LOAD orders FROM orders;
CREATE TABLE paid AS SELECT * FROM orders WHERE status = 'paid';
CREATE TABLE daily AS
WITH days AS (SELECT CAST(updated_at AS DATE) AS day, amount, customer FROM paid)
SELECT day, count(*) AS orders, count(DISTINCT customer) AS customers, sum(amount) AS revenue
FROM days GROUP BY day;
CREATE TABLE best AS
SELECT customer, sum(amount) AS revenue FROM paid GROUP BY ALL
QUALIFY row_number() OVER (ORDER BY revenue DESC) <= 10;
EXPORT SELECT * FROM daily ORDER BY day TO "output/daily_{n}.csv";
"""
    return {f"shop_{n:02}": text.format(n=n) for n in range(files)}
