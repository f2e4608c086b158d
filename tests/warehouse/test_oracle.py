"""Random sequences of loads beside a plain-Python oracle that says what the table must hold."""

from __future__ import annotations

import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from sqlflow_dagster.cursor import Cursor

from .conftest import Depot

KEYS = st.one_of(st.none(), st.integers(0, 2))
TIMES = st.integers(0, 4)
ROWS = st.lists(st.tuples(KEYS, TIMES), min_size=1, max_size=4)
BATCHES = st.lists(st.integers(0, 30), min_size=0, max_size=3)
SCHEMA = pa.schema([("id", pa.int64()), ("ts", pa.int64()), ("v", pa.int64())])


def newest_first(row):
    """A row's rank among those of its key: a NULL cursor is below every other."""
    return -1 if row.ts is None else row.ts


def split(rows, cuts):
    """Cut a read into batches, keeping its order."""
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    return [rows[a:b] for a, b in pairwise(edges)]


def table(rows):
    return pa.Table.from_pylist([vars(row) for row in rows], schema=SCHEMA)


class Loads(RuleBasedStateMachine):
    """The source is a list of rows in read order; each run reads what its cursor asks for."""

    keyed = True

    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.depot = Depot(Path(self.folder.name), {"threads": 1})
        self.source = []
        self.expected = []
        self.cursor = None
        self.serial = 0

    @initialize(rows=ROWS, cuts=BATCHES)
    def begin(self, rows, cuts):
        self.given = {"cursor_field": "ts", **({"keys": ("id",)} if self.keyed else {})}
        self.insert(rows)
        self.load(None, cuts, "arrow")

    def row(self, key, ts):
        self.serial += 1
        return SimpleNamespace(id=key, ts=ts, v=self.serial)

    def insert(self, rows):
        """Rows appear anywhere in time: also late, below the cursor, or equal to it."""
        self.source += [self.row(key, ts if ts is not None or self.keyed else 0) for key, ts in rows]

    def update(self, index, later):
        """A row changes in its place; with `later` 0 it keeps its cursor."""
        index %= len(self.source)
        old = self.source[index]
        self.source[index] = self.row(old.id, None if old.ts is None else old.ts + later)

    @rule(
        rows=st.lists(st.tuples(KEYS, st.one_of(st.none(), TIMES)), max_size=3),
        updates=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2)), max_size=3),
        repeated=st.lists(st.integers(0, 20), max_size=2),
        cuts=BATCHES,
        lookback=st.sampled_from([0, 0, 1, 3]),
        form=st.sampled_from(["arrow", "scan"]),
    )
    def read_on(self, rows, updates, repeated, cuts, lookback, form):
        """The source changes, and a run reads what its cursor asks for; paging may repeat rows."""
        self.insert(rows)
        for index, later in updates:
            self.update(index, later)
        if self.keyed:
            self.source += [self.source[index % len(self.source)] for index in repeated]
        self.load(None if self.cursor is None else self.cursor - lookback, cuts, form)

    @rule(cuts=BATCHES)
    def full_refresh(self, cuts):
        self.load(None, cuts, "scan")

    @rule()
    def retry_of_the_last_run(self):
        """A run that was done is not done again, whatever has changed since."""
        if self.cursor is not None:
            spec = {"since": Cursor(str(self.cursor), "BIGINT"), "run_id": self.last, **self.given}
            self.depot.load(table(self.source), **spec)

    def load(self, since, cuts, form):
        batches = [table(part) for part in split(self.source, cuts)]
        if form == "scan":
            batches = [values(part) for part in split(self.source, cuts)]
        typed = None if since is None else Cursor(str(since), "BIGINT")
        self.serial += 1
        self.last = f"run {self.serial}"
        done = self.depot.load(*batches, since=typed, run_id=self.last, **self.given)
        read = [r for r in self.source if since is None or r.ts is None or r.ts >= since]
        self.remember(read, since)
        assert done.rows_read == len(read)
        assert done.total_rows == len(self.expected)
        assert (done.cursor and int(done.cursor.value)) == self.cursor

    def remember(self, read, since):
        """What the table and the cursor must be after this read."""
        if since is None:
            self.expected, self.cursor = [], None
        if self.keyed:
            best = {row.id: row for row in self.expected}
            for row in read:
                if row.id not in best or newest_first(row) >= newest_first(best[row.id]):
                    best[row.id] = row
            self.expected = list(best.values())
        else:
            self.expected = [r for r in self.expected if r.ts < since] if since is not None else []
            self.expected += read
        times = [row.ts for row in read if row.ts is not None]
        self.cursor = max([*times, *([] if self.cursor is None else [self.cursor])], default=None)

    @invariant()
    def the_table_is_what_it_must_be(self):
        if not self.serial or not hasattr(self, "last"):
            return
        found = Counter(self.depot.query("SELECT id, ts, v FROM sales.orders"))
        assert found == Counter((row.id, row.ts, row.v) for row in self.expected)

    def teardown(self):
        self.folder.cleanup()


def values(rows):
    """The rows as a SELECT, which DuckDB reads itself."""
    listed = ", ".join(str((r.id, r.ts, r.v)).replace("None", "NULL") for r in rows)
    lead = "SELECT id::BIGINT AS id, ts::BIGINT AS ts, v::BIGINT AS v FROM (VALUES "
    return f"{lead}{listed or '(0, 0, 0)'}) AS t(id, ts, v) WHERE {bool(rows)}"


class KeylessLoads(Loads):
    """The same without a key: rows at or after the cursor are replaced by those read."""

    keyed = False


_SETTINGS = settings(max_examples=20, stateful_step_count=12, suppress_health_check=list(HealthCheck))
TestLoads, TestKeylessLoads = Loads.TestCase, KeylessLoads.TestCase
TestLoads.settings = TestKeylessLoads.settings = _SETTINGS
