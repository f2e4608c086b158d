"""LOADs that share one table, beside a plain-Python oracle: each replaces its own rows and no others.

Two incremental LOADs without a key read files of the same names, whose rows change, vanish and come
back; one more adds rows that nobody may touch.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from sqlflow_dagster.cursor import Cursor, Marker, Position, StateKey
from sqlflow_dagster.errors import LoadRefused
from sqlflow_dagster.sql import Sql
from sqlflow_dagster.warehouse import commits
from sqlflow_dagster.warehouse.shape import Window

from .conftest import Depot

WRITERS = st.sampled_from(["a", "b"])
FILES = st.sampled_from(["x", "y"])
TIMES = st.integers(0, 4)
BY_TS = {"cursor_field": "ts", "row_provenance": True, "sole_writer": False}


def key(source):
    return StateKey("shop", "dev", "sales", source, "data", "orders")


def page(rows):
    """Rows of (file, ts, v) as a Scan that says which file each came from."""
    listed = ", ".join(f"({ts}, {v}, '{file}')" for file, ts, v in rows) or "(0, 0, '')"
    return Sql(
        f"SELECT ts::BIGINT AS ts, v::BIGINT AS v, f AS _sqlflow_file FROM (VALUES {listed}) AS t(ts, v, f)"
        f" WHERE {bool(rows)}"
    )


class Writers(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.depot = Depot(Path(self.folder.name), {"threads": 1})
        self.serial = count(1)
        self.source = {"a": [], "b": []}
        self.stored = {"a": [], "b": [], "added": []}
        self.cursor = {"a": None, "b": None}
        self.rewound = set()

    def write(self, writer, feed, **changes):
        given = {"key": key(writer), "run_id": f"run {next(self.serial)}", **BY_TS, **changes}
        return self.depot.load(feed=feed, **given)

    @rule(writer=WRITERS, file=FILES, times=st.lists(TIMES, min_size=1, max_size=3))
    def rows_appear(self, writer, file, times):
        self.source[writer] += [(file, ts, next(self.serial)) for ts in times]

    @rule(writer=WRITERS, file=FILES)
    def a_file_vanishes(self, writer, file):
        self.source[writer] = [row for row in self.source[writer] if row[0] != file]

    @rule(writer=WRITERS, index=st.integers(0, 9))
    def a_row_changes(self, writer, index):
        if rows := self.source[writer]:
            file, ts, _ = rows[index % len(rows)]
            rows[index % len(rows)] = (file, ts, next(self.serial))

    @rule(writer=WRITERS)
    def read_on(self, writer):
        since = self.cursor[writer]
        rows = self.source[writer]
        self.write(writer, lambda intake: intake.scan(page(rows), provenance=True))
        read = [row for row in rows if since is None or row[1] >= since]
        before = [] if since is None else [row for row in self.stored[writer] if row[1] < since]
        self.stored[writer] = before + read
        self.cursor[writer] = max(
            [*(row[1] for row in read), *([] if since is None else [since])], default=None
        )

    @rule(writer=WRITERS, to=st.one_of(st.none(), TIMES), reads=st.booleans())
    def go_back(self, writer, to, reads):
        """A reset reads everything, a rewind from a value on; also where the source has no batch."""
        with self.depot.warehouse.open() as connection:
            newest = commits.newest(connection, key(writer))
            if newest is None or newest.cursor is None:
                return
            back = Cursor(str(to), "BIGINT") if to is not None else None
            marker = Marker(Position(newest.position.epoch + 1, 0), back, "reset", 0, "", True, "2026")
            commits.append(connection, key(writer), marker)
        self.cursor[writer] = to
        if reads or to is not None:
            self.read_on(writer)
        else:
            self.write(writer, lambda _intake: None)
            self.stored[writer], self.cursor[writer] = [], None

    @rule(writer=WRITERS, start=TIMES, length=st.integers(1, 3))
    def a_partition_is_loaded(self, writer, start, length):
        rows = self.source[writer]
        self.write(
            writer,
            lambda intake: intake.scan(page(rows), provenance=True),
            key=StateKey("shop", "dev", "sales", writer, "data", "orders", str(start)),
            window=Window(str(start), str(start + length)),
            since=None,
        )
        kept = [row for row in self.stored[writer] if not start <= row[1] < start + length]
        self.stored[writer] = kept + [row for row in rows if start <= row[1] < start + length]

    @rule(ts=TIMES)
    def another_statement_adds_a_row(self, ts):
        value = next(self.serial)
        self.depot.load(
            f"SELECT {ts}::BIGINT AS ts, {value}::BIGINT AS v",
            key=key("c"),
            sole_writer=False,
            mode="append",
            run_id=f"run {next(self.serial)}",
        )
        self.stored["added"].append((None, ts, value))

    @invariant()
    def the_table_is_the_rows_of_all(self):
        wanted = Counter(row[1:] for rows in self.stored.values() for row in rows)
        if wanted:
            assert Counter(self.depot.query("SELECT ts, v FROM sales.orders")) == wanted

    def teardown(self):
        self.folder.cleanup()


TestWriters = Writers.TestCase
TestWriters.settings = settings(
    max_examples=20, stateful_step_count=12, suppress_health_check=list(HealthCheck)
)


def test_a_changed_file_replaces_the_rows_of_its_own_load_only(depot):
    def files(*rows, replaces=()):
        def feed(intake):
            intake.scan(page(rows), provenance=True, replaces=replaces)
            intake.position(Cursor("[]", "JSON"))

        return feed

    given = {"own_cursor": True, "incremental": True, "row_provenance": True, "sole_writer": False}
    depot.load(feed=files(("x", 1, 10)), key=key("a"), **given)
    depot.load(feed=files(("x", 1, 20)), key=key("b"), **given)
    depot.load(feed=files(("x", 1, 11), replaces=["x"]), key=key("a"), **given)
    assert depot.query("SELECT v, _sqlflow_load, _sqlflow_file FROM sales.orders ORDER BY v") == [
        (11, "sales/a.data", "x"),
        (20, "sales/b.data", "x"),
    ]


def test_rows_stored_before_they_were_marked_are_not_doubled(depot):
    depot.load(feed=lambda i: i.scan(page([("x", 1, 1)]), provenance=True), key=key("a"), cursor_field="ts")
    with pytest.raises(LoadRefused, match="before it had row_provenance"):
        depot.load(feed=lambda i: i.scan(page([("x", 1, 1)]), provenance=True), key=key("a"), **BY_TS)
    assert depot.query("SELECT count(*) FROM sales.orders") == [(1,)]
