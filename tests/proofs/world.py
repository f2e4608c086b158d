"""A project whose sources change between runs, and what its tables must hold after each.

The truth is kept in Python; the project's files are written from it. `change` moves the truth and
the files on; `check_after_kill` and `check_after_run` compare the warehouse, run storage and the
exports with it.
"""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from .ledger import STREAMS

LOADED = ("orders", "events", "letters", "prices")

PIPELINE = """
SOURCE shop TYPE PARQUET PARAMS {
  "path": "data/orders.parquet",
  "sync_mode": "incremental", "cursor_field": "updated_at", "primary_key": "id",
};
SOURCE log TYPE CSV PARAMS {
  "path": "data/events.csv", "types": {"seen_at": "TIMESTAMP", "note": "VARCHAR"},
  "sync_mode": "incremental", "cursor_field": "seen_at",
};
SOURCE inbox TYPE CSV PARAMS {
  "path": "data/inbox/*.csv", "types": {"sender": "VARCHAR", "pages": "INTEGER"},
  "sync_mode": "incremental", "row_provenance": true,
};
SOURCE list TYPE CSV PARAMS {
  "path": "data/prices.csv", "types": {"id": "BIGINT", "price": "DECIMAL(12, 2)"},
};

SOURCE books TYPE LEDGER PARAMS { "folder": "data/ledger", "sync_mode": "incremental", "cursor_field": "at" };

LOAD orders FROM shop;
LOAD events FROM log;
LOAD letters FROM inbox;
LOAD prices FROM list;
LOAD * FROM books;

CREATE TABLE customers AS
SELECT customer, count(*) AS orders, sum(amount) AS amount FROM orders GROUP BY customer;
CREATE TABLE snapshots MODE APPEND AS SELECT '${run_id}' AS run, id FROM orders WHERE id < 5;
CREATE TABLE event_copy MODE INCREMENTAL BY seen_at LOOKBACK 1 DAY AS SELECT seen_at, note FROM events;
CREATE TABLE order_copy MODE UPSERT KEY (id) AS SELECT id, amount FROM orders;

EXPORT SELECT id, amount FROM orders ORDER BY id TO "output/orders.csv";
EXPORT SELECT sender, pages FROM letters ORDER BY ALL TO "output/letters.parquet";
"""
DAYS = """
SOURCE d TYPE CSV PARAMS {
  "path": "data/days.csv", "types": {"day": "TIMESTAMP", "n": "BIGINT"},
  "sync_mode": "incremental", "cursor_field": "day",
};
LOAD days FROM d;
CREATE TABLE sums MODE INCREMENTAL BY day AS
SELECT date_trunc('day', day) AS day, sum(n)::BIGINT AS n FROM days GROUP BY 1;
"""
PROFILE = """
engines:
  duckdb:
    path: data/warehouse.duckdb
    memory_limit: 256MB
    threads: 1
pipelines:
  days:
    partitions: {every: day, start: "2024-01-01", end: "2024-01-08"}
"""
HOME = """
telemetry: {enabled: false}
run_monitoring: {enabled: true, start_timeout_seconds: 1}
"""
DAY = [f"2024-01-0{n}" for n in range(1, 8)]
Row = dict[str, object]


@dataclass
class Truth:
    """What the far side holds: orders by key, events and prices as lists, letters by file name."""

    orders: dict[int, Row] = field(default_factory=dict)
    columns: tuple[str, ...] = ("id", "customer", "amount", "updated_at")
    events: list[tuple[datetime, str]] = field(default_factory=list)
    letters: dict[str, list[tuple[str, int]]] = field(default_factory=dict)
    prices: list[tuple[int, str]] = field(default_factory=list)
    ledger: dict[str, dict[int, tuple[datetime, str]]] = field(
        default_factory=lambda: {name: {} for name in STREAMS}
    )
    now: datetime = datetime(2024, 1, 1)

    def copy(self) -> Truth:
        return Truth(
            dict(self.orders),
            self.columns,
            list(self.events),
            dict(self.letters),
            list(self.prices),
            {name: dict(rows) for name, rows in self.ledger.items()},
            self.now,
        )

    def table(self, name: str) -> Counter[tuple[object, ...]]:
        if name == "orders":
            return Counter(tuple(row.get(c) for c in self.columns) for row in self.orders.values())
        if name == "events":
            return Counter(self.events)
        if name == "letters":
            return Counter(letter for letters in self.letters.values() for letter in letters)
        if name in self.ledger:
            return Counter((key, at, value) for key, (at, value) in self.ledger[name].items())
        return Counter(self.prices)


class World:
    """One project in a folder, with a truth that a seed moves on."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.root = folder
        self.random = random.Random(seed)
        self.before = Truth()
        self.truth = Truth()
        # Days as the source has them, and as each partition was loaded last.
        self.days: dict[str, list[int]] = {}
        self.loaded_days: dict[str, list[int]] = {}
        for part in ("pipelines", "profiles", "data/inbox", "data/ledger", "home"):
            (folder / part).mkdir(parents=True)
        (folder / "pipelines" / "shop.sf").write_text(PIPELINE)
        (folder / "profiles" / "dev.yml").write_text(PROFILE)
        (folder / "pipelines" / "days.sf").write_text(DAYS)
        (folder / "home" / "dagster.yaml").write_text(HOME)

    @property
    def environment(self) -> dict[str, str]:
        home = str(self.root / "home")
        return {"DAGSTER_HOME": home, "SQLFLOW_PROJECT": str(self.root), "SQLFLOW_FAILPOINT": ""}

    def change(self, new_column: bool = False) -> None:
        """Let time pass at the far side: new, changed and equally dated rows, new and corrected files."""
        self.before = self.truth.copy()
        truth, dice = self.truth, self.random
        if new_column:
            truth.columns = (*truth.columns, f"extra_{len(truth.columns)}")
        self._orders(dice.randint(1, 6), dice.randint(0, 6))
        for _ in range(dice.randint(1, 8)):
            truth.now += timedelta(seconds=dice.choice((0, 0, 1, 3600, 40_000)))
            # Notes repeat: rows that are alike in every column must keep their number.
            truth.events.append((truth.now, dice.choice(("click", "view, long", 'said "so"'))))
        name = f"{len(truth.letters):04}.csv"
        truth.letters[name] = self._letters()
        if dice.random() < 0.3:
            truth.letters[dice.choice(sorted(truth.letters))] = self._letters()
        truth.prices = [(i, f"{dice.randint(1, 9999) / 100:.2f}") for i in range(dice.randint(1, 30))]
        for rows in truth.ledger.values():
            for key in dice.sample(range(len(rows) + 4), dice.randint(1, 4)):
                truth.now += timedelta(seconds=dice.choice((0, 1, 60)))
                rows[key] = (truth.now, f"v{dice.randint(0, 99)}")
        self._write()

    def somewhere_back(self) -> tuple[str, str | None]:
        """Choose a loaded table, and a value of its cursor to go back to or None for the start."""
        table = self.random.choice((*LOADED, *STREAMS))
        times = {
            "orders": [row["updated_at"] for row in self.before.orders.values()],
            "events": [at for at, _note in self.before.events],
            **{name: [at for at, _value in rows.values()] for name, rows in self.before.ledger.items()},
        }.get(table)
        if not times or self.random.random() < 0.5:
            return table, None
        return table, str(self.random.choice(times))

    def change_days(self) -> str:
        """Change what the far side has of all days, and choose the day that is to be loaded."""
        for day in DAY:
            self.days[day] = [self.random.randint(1, 99) for _ in range(self.random.randint(0, 4))]
        rows = [
            (f"{day} {n:02}:00:00", value)
            for day, values in self.days.items()
            for n, value in enumerate(values)
        ]
        _write_csv(self.root / "data" / "days.csv", ("day", "n"), rows)
        return self.random.choice(DAY)

    def check_days_after_kill(self, partition: str) -> None:
        with self._look() as connection:
            found = _days(connection)
        for day in DAY:
            known = [self.loaded_days.get(day, [])] + ([self.days[day]] if day == partition else [])
            assert found.get(day, []) in known, day

    def check_days(self, partition: str) -> None:
        self.loaded_days[partition] = self.days[partition]
        wanted = {day: values for day, values in self.loaded_days.items() if values}
        with self._look() as connection:
            assert _days(connection) == wanted
            sums = connection.execute(
                "SELECT CAST(CAST(day AS DATE) AS VARCHAR), n FROM days.sums"
            ).fetchall()
        assert sorted(sums) == sorted((day, sum(values)) for day, values in wanted.items())

    def _orders(self, new: int, changed: int) -> None:
        truth, dice = self.truth, self.random
        chosen = dice.sample(sorted(truth.orders), min(changed, len(truth.orders)))
        for key in [*range(len(truth.orders), len(truth.orders) + new), *chosen]:
            truth.now += timedelta(seconds=dice.choice((0, 0, 1, 60)))
            row: Row = {"id": key, "customer": key % 7, "amount": dice.randint(1, 10_000)}
            row |= {"updated_at": truth.now} | dict.fromkeys(truth.columns[4:], f"v{dice.randint(0, 9)}")
            truth.orders[key] = row

    def _letters(self) -> list[tuple[str, int]]:
        return [
            (self.random.choice("abc"), self.random.randint(1, 3)) for _ in range(self.random.randint(1, 5))
        ]

    def _write(self) -> None:
        truth, data = self.truth, self.root / "data"
        rows = [{c: row.get(c) for c in truth.columns} for row in truth.orders.values()]
        types = {
            "id": pa.int64(),
            "customer": pa.int32(),
            "amount": pa.int64(),
            "updated_at": pa.timestamp("us"),
        }
        schema = pa.schema([(c, types.get(c, pa.string())) for c in truth.columns])
        pq.write_table(pa.Table.from_pylist(rows, schema), data / "orders.partial")
        (data / "orders.partial").rename(data / "orders.parquet")
        _write_csv(data / "events.csv", ("seen_at", "note"), truth.events)
        _write_csv(data / "prices.csv", ("id", "price"), truth.prices)
        for name, entries in truth.ledger.items():
            document = [{"id": key, "at": str(at), "v": value} for key, (at, value) in entries.items()]
            (data / "ledger" / "partial").write_text(json.dumps(document))
            (data / "ledger" / "partial").rename(data / "ledger" / f"{name}.json")
        for name, letters in truth.letters.items():
            if self.before.letters.get(name) != letters:
                _write_csv(data / "inbox" / name, ("sender", "pages"), letters)

    def check_after_kill(self) -> None:
        """Each loaded table is as it was or as it shall be, its marker with it; each export is whole."""
        with self._look() as connection:
            for name in STREAMS:
                self._check_pages(connection, name)
            for table in LOADED:
                found = _rows(connection, table)
                old, new = self.before.table(table), self.truth.table(table)
                known = (old, new, *(() if table != "orders" else (_widened(self.before, self.truth),)))
                assert found in known, f"{table} is neither what it was nor what it shall be"
                _check_marker(connection, table)
            self._check_snapshots(connection)
        self._check_export_whole()

    def check_after_run(self) -> None:
        """Every table, cursor, run and export is what the truth says."""
        truth = self.truth
        with self._look() as connection:
            for table in (*LOADED, *STREAMS):
                assert _rows(connection, table) == truth.table(table), table
            amounts = {key: row["amount"] for key, row in truth.orders.items()}
            assert dict(connection.execute("SELECT id, amount FROM shop.order_copy").fetchall()) == amounts
            copied = Counter(connection.execute("SELECT seen_at, note FROM shop.event_copy").fetchall())
            assert copied == Counter(truth.events)
            total = connection.execute("SELECT sum(orders), sum(amount) FROM shop.customers").fetchone()
            assert total == (len(amounts), sum(amounts.values()))
            self._check_snapshots(connection)
            markers = _newest_markers(connection)
        assert markers["orders"]["cursor_value"] == str(
            max(row["updated_at"] for row in truth.orders.values())
        )
        for name, entries in truth.ledger.items():
            assert markers[name]["cursor_value"] == str(max(at for at, _value in entries.values()))
        assert markers["events"]["cursor_value"] == str(max(at for at, _note in truth.events))
        self._check_run_storage(markers)
        with (self.root / "output" / "orders.csv").open() as file:
            exported = {int(row["id"]): int(row["amount"]) for row in csv.DictReader(file)}
        assert exported == amounts
        letters = pq.read_table(self.root / "output" / "letters.parquet").to_pylist()
        assert Counter((row["sender"], row["pages"]) for row in letters) == truth.table("letters")

    def _look(self) -> duckdb.DuckDBPyConnection:
        """Open a copy of the warehouse: looking must not be what repairs it."""
        copy = self.root / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        for file in (self.root / "data").glob("warehouse.duckdb*"):
            if not file.name.endswith("lock"):
                shutil.copy(file, copy / file.name)
        return duckdb.connect(str(copy / "warehouse.duckdb"))

    def _check_pages(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        """Pages are committed one by one: what lies before the marker's cursor is there, all of it."""
        old, new = self.before.ledger[name], self.truth.ledger[name]
        found = {key: (at, value) for key, at, value in _rows(connection, name)}
        assert all(row in (old.get(key), new.get(key)) for key, row in found.items()), name
        marker = _newest_markers(connection).get(name)
        if not marker or not marker["seq"]:
            return
        _check_marker(connection, name)
        reached = marker["cursor_value"] or ""
        assert all(found.get(key) == row for key, row in new.items() if str(row[0]) < reached), name

    def _check_snapshots(self, connection: duckdb.DuckDBPyConnection) -> None:
        """A run has appended all of its rows once, or (only where it was killed) none.

        A full refresh leaves its own rows only, and those of the runs after it.
        """
        if not _exists(connection, "snapshots"):
            return
        counts = connection.execute(
            "SELECT run, count(*), count(DISTINCT id) FROM shop.snapshots GROUP BY run"
        ).fetchall()
        assert all(rows == distinct for _run, rows, distinct in counts), counts
        there = {run for run, _rows, _distinct in counts}
        with _instance(self.root) as instance:
            runs = [run for run in instance.get_runs() if run.job_name == "shop"]
        ids = [run.run_id for run in runs]
        anew = next((n for n, run in enumerate(runs) if _refreshes(run) and run.run_id in there), len(runs))
        assert not there & set(ids[anew + 1 :]), "a full refresh left rows of the runs before it"
        must = {run.run_id for run in runs[: anew + 1] if run.status.value == "SUCCESS"}
        assert must <= there

    def _check_export_whole(self) -> None:
        output = self.root / "output"
        csv_file, parquet_file = output / "orders.csv", output / "letters.parquet"
        if csv_file.exists():
            with csv_file.open() as file:
                found = {int(row["id"]): int(row["amount"]) for row in csv.DictReader(file)}
            states = [{k: row["amount"] for k, row in t.orders.items()} for t in (self.before, self.truth)]
            assert found in states, "the exported CSV is neither the old nor the new one"
        if parquet_file.exists():
            found = Counter((r["sender"], r["pages"]) for r in pq.read_table(parquet_file).to_pylist())
            assert found in (self.before.table("letters"), self.truth.table("letters"))
        visible = {file.name for file in output.glob("*.csv")} | {
            file.name for file in output.glob("*.parquet")
        }
        assert visible <= {"orders.csv", "letters.parquet"}, visible

    def _check_run_storage(self, markers: dict[str, dict[str, object]]) -> None:
        with _instance(self.root) as instance:
            keys = {
                f"sqlflow/v1/{self.root.name}/dev/shop/{marker['source']}.{marker['stream']}>{table}": marker
                for table, marker in markers.items()
            }
            for key, marker in keys.items():
                stored = instance.run_storage.get_cursor_values({key}).get(key)
                assert stored, f"run storage has no cursor under {key}"
                document = json.loads(stored)
                assert document["position"] == [marker["epoch"], marker["seq"]]
                assert (document["cursor"] or {}).get("value") == marker["cursor_value"]

    def living_runs(self) -> list[str]:
        """Return the runs that are shown as living, but for those killed before they named their process."""
        with _instance(self.root) as instance:
            runs = [run for run in instance.get_runs() if not run.is_finished]
        return [run.run_id for run in runs if "sqlflow/pid" in run.tags]

    def runs(self) -> dict[str, str]:
        """Return the status of every run by its id."""
        with _instance(self.root) as instance:
            return {run.run_id: run.status.value for run in instance.get_runs()}


def _refreshes(run) -> bool:
    return bool(run.run_config.get("resources", {}).get("sqlflow", {}).get("config", {}).get("full_refresh"))


def _days(connection: duckdb.DuckDBPyConnection) -> dict[str, list[int]]:
    query = "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'days' AND table_name = 'days'"
    if not connection.execute(query).fetchone():
        return {}
    rows = connection.execute(
        "SELECT CAST(CAST(day AS DATE) AS VARCHAR), n FROM days.days ORDER BY day"
    ).fetchall()
    found: dict[str, list[int]] = {}
    for day, n in rows:
        found.setdefault(day, []).append(n)
    return found


def _instance(root: Path):
    from dagster import DagsterInstance

    os.environ["DAGSTER_DISABLE_TELEMETRY"] = "1"
    return DagsterInstance.from_config(str(root / "home"))


def _widened(before: Truth, now: Truth) -> Counter[tuple[object, ...]]:
    """The old rows under the new columns."""
    return Counter(tuple(row.get(c) for c in now.columns) for row in before.orders.values())


def _exists(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    query = "SELECT 1 FROM duckdb_tables() WHERE schema_name = 'shop' AND table_name = ?"
    return connection.execute(query, [table]).fetchone() is not None


def _rows(connection: duckdb.DuckDBPyConnection, table: str) -> Counter[tuple[object, ...]]:
    if not _exists(connection, table):
        return Counter()
    hidden = "WHERE NOT starts_with(column_name, '_sqlflow')"
    names = [row[0] for row in connection.execute(f"FROM (DESCRIBE shop.{table}) {hidden}").fetchall()]
    columns = ", ".join(f'CAST("{n}" AS VARCHAR)' if n == "price" else f'"{n}"' for n in names)
    return Counter(connection.execute(f"SELECT {columns} FROM shop.{table}").fetchall())


def _newest_markers(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, object]]:
    if not connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE schema_name = '_sqlflow' AND table_name = 'commits'"
    ).fetchone():
        return {}
    found = connection.execute(
        "SELECT * FROM _sqlflow.commits WHERE pipeline = 'shop' QUALIFY row_number() OVER "
        "(PARTITION BY table_name ORDER BY epoch DESC, seq DESC) = 1"
    )
    names = [column[0] for column in found.description]
    rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
    return {str(row["table_name"]): row for row in rows}


def _check_marker(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    """The newest marker's cursor is the table's newest row: they were committed together."""
    column = {"orders": "updated_at", "events": "seen_at", **dict.fromkeys(STREAMS, "at")}.get(table)
    if column and _exists(connection, table):
        newest = connection.execute(f'SELECT CAST(max("{column}") AS VARCHAR) FROM shop.{table}').fetchone()
        marker = _newest_markers(connection).get(table)
        assert marker, f"{table} has rows and no marker"
        if not marker["seq"]:
            return  # a reset: the next run reads from there on
        assert newest == (marker["cursor_value"],), table


def _write_csv(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    with path.with_suffix(".partial").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    path.with_suffix(".partial").rename(path)
