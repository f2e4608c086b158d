"""The promises that every connector keeps; arrangements.py says how to reach the far side of each."""

from __future__ import annotations

import ast
import difflib
import gc
import importlib
import importlib.util
import inspect
import json
import os
import resource
import textwrap
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydantic import SecretStr

from sqlflow_dagster.connectors import registry
from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.errors import BadOption, NotAllowed, PipelineError
from sqlflow_dagster.health import reachability
from sqlflow_dagster.project import load_project

from .arrangements import ARRANGEMENTS, COLUMNS, Arrangement
from .conftest import Table
from .mysql.conftest import mysql_database, mysql_server  # noqa: F401 - fixtures

if importlib.util.find_spec("pgserver"):
    from .postgres.conftest import database, server  # noqa: F401 - fixtures

INCREMENTAL = {"sync_mode": "incremental", "cursor_field": "changed"}
KEYED = {**INCREMENTAL, "primary_key": "id"}
EITHER = pytest.mark.parametrize("given", [KEYED, INCREMENTAL], ids=["with-key", "without-key"])
WRITING = [item for item in ARRANGEMENTS if item.writes]
COUNTED = [item for item in ARRANGEMENTS if "full_refresh" in registry.find(item.type).counts]
AUDITED = [item for item in ARRANGEMENTS if "incremental" in registry.find(item.type).counts]
SYSTEMS = [item for item in WRITING if item.nowhere]
BOUNDED = [item for item in ARRANGEMENTS if item.bounded]


def row(number, **changes):
    """A row whose `changed` is that day of January 2026."""
    made = {
        "id": number,
        "changed": f"2026-01-{number:02} 08:00:00.123",
        "name": f"näme '{number}', \"quoted\"\n and ✓",
        "amount": f"{number}.10",
        "ok": number % 2 == 0,
        "day": f"2025-02-{number:02}",
        **changes,
    }
    return tuple(made.values())


NULLS = row(20, name=None, amount=None, ok=None, day=None)


@dataclass
class Source:
    """A project with one SOURCE of a type and its far side."""

    far: Arrangement
    bench: Any

    def load(self, *rows, mode="", check=True, full_refresh=False, **params):
        """Put rows into the far side where any are given, run the LOAD, and return its outcome."""
        if rows:
            self.far.put(list(rows))
        text = json.dumps({**self.far.params, **params})
        self.bench.pipeline(f"SOURCE s TYPE {self.far.type} PARAMS {text};\nLOAD t FROM s {mode};")
        outcome = self.bench.run(full_refresh=full_refresh)["t"]
        if check and outcome.error:
            raise outcome.error
        return outcome

    def rows(self, table="t"):
        """The table's rows as `row` makes them."""
        typed = ", ".join(f"CAST({name} AS {kind})::VARCHAR" for name, kind in COLUMNS.items())
        found = self.bench.query(f"SELECT {typed} FROM p.{table} ORDER BY id")
        return [(int(i), c, n, a, None if ok is None else ok == "true", d) for i, c, n, a, ok, d in found]

    def types(self):
        return {name: kind for name, kind, *_ in self.bench.query("DESCRIBE p.t")}

    def open(self, **params):
        kind = registry.find(self.far.type)
        options = parse(kind.options_type, {**self.far.params, **params})[0]
        from sqlflow_dagster.connectors.base import Place

        return kind(options, Place(self.bench.root, self.bench.root / ".sqlflow/spool"))

    def wrong(self, **params):
        with pytest.raises(BadOption) as caught:
            parse(registry.find(self.far.type).options_type, params)
        return str(caught.value)


@pytest.fixture
def arranged(request, bench):
    """What makes a project's source of an arrangement, and starts the server that it needs."""

    def make(arrangement):
        server = {"POSTGRES": "database", "MYSQL": "mysql_database", "S3": "bucket"}.get(arrangement.type)
        needs = [request.getfixturevalue(server)] if server else []
        return Source(arrangement(bench, *needs), bench)

    return make


@pytest.fixture(params=ARRANGEMENTS, ids=lambda item: item.type)
def source(request, arranged):
    return arranged(request.param)


def numbers(rows):
    return [found[0] for found in rows]


def test_it_discovers_its_streams_without_reading(source):
    with source.open() as connector:
        streams = connector.streams()
    assert streams
    assert len({stream.name.casefold() for stream in streams}) == len(streams)


def test_all_rows_of_all_pages_come_with_the_declared_types_and_each_once(source):
    rows = [row(number) for number in range(1, 20)] + [NULLS]
    outcome = source.load(*rows)
    assert source.rows() == rows
    assert source.types() == source.far.types
    assert (outcome.rows, outcome.total_rows) == (20, 20)
    with source.open() as connector:
        known = connector.streams()[0].columns
    assert known is None or dict(known) == source.far.types


@EITHER
def test_since_keeps_rows_at_the_boundary_and_drops_older_ones(source, given):
    source.load(row(1), row(2), row(3), **given)
    late = row(4, changed=row(3)[1])
    outcome = source.load(row(1, name="too old"), row(2, name="too old"), row(3), late, row(5), **given)
    assert source.rows() == [row(1), row(2), row(3), late, row(5)]
    assert outcome.rows == 3
    assert outcome.cursor_after.value == row(5)[1]


def test_the_same_since_twice_gives_the_same_rows(source):
    params = json.dumps({**source.far.params, **INCREMENTAL})
    source.bench.pipeline(f"SOURCE s TYPE {source.far.type} PARAMS {params};\nLOAD t FROM s;\nLOAD u FROM s;")
    for last in (3, 6):
        source.far.put([row(number) for number in range(1, last)])
        outcomes = source.bench.ok()
        assert source.rows("t") == source.rows("u")
        assert outcomes["t"].rows == outcomes["u"].rows
        assert outcomes["t"].cursor_after == outcomes["u"].cursor_after


@EITHER
def test_reading_on_from_every_cursor_reaches_the_same_table(source, given):
    every = [row(number) for number in range(1, 7)]
    for last in (1, 2, 4, 6):
        source.load(*every[:last], **given)
    assert source.rows() == every
    assert source.load(**given).rows == 1
    assert source.rows() == every


def test_rows_of_the_year_2999_are_loaded_and_move_no_cursor(source):
    far_away = row(9, changed="2999-01-01 00:00:00")
    for _ in range(2):
        outcome = source.load(row(1), far_away, row(2), **KEYED)
        assert outcome.cursor_after.value == row(2)[1]
    assert source.rows() == [row(1), row(2), far_away]
    assert any("future" in notice for notice in outcome.notices)


@pytest.mark.parametrize("given", [{}, KEYED], ids=["full", "incremental"])
def test_an_empty_stream_is_a_table_with_its_schema(source, given):
    source.far.put([])
    outcome = source.load(**given)
    assert (outcome.rows, outcome.total_rows) == (0, 0)
    assert source.types() == source.far.types
    source.load(row(1), **given)
    assert source.rows() == [row(1)]


def test_a_full_refresh_holds_what_the_source_holds(source):
    source.load(row(1), row(2))
    source.load(row(2, name="new"), row(3))
    assert source.rows() == [row(2, name="new"), row(3)]
    source.far.put([])
    source.load()
    assert source.rows() == []


WANTED = [
    ({"filters": {"id": [1, 20], "ok": None}}, [20]),
    ({"filters": {"name": None}}, [20]),
    ({"filters": {"name": {"!=": None}, "id": ">= 4"}}, [4, 5]),
    ({"filters": {"name": ["five", None]}}, [5, 20]),
    ({"filters": {"name": {"not in": ["five"]}, "id": "< 3"}}, [1, 2]),
    ({"filters": {"amount": "> 2.1"}}, [3, 4, 5]),
    ({"filters": {"amount": 2.1}}, [2]),
    ({"filters": {"id": "2.5"}}, []),
    ({"filters": {"id": {">": 1.5, "<": "4.4"}}}, [2, 3, 4]),
    ({"filters": {"day": "2025-02-03"}}, [3]),
    ({"filters": {"day": ">= 2025-02-03T12:00:00"}}, [4, 5]),
    ({"filters": {"changed": "<= 2026-01-02 08:00:00.123"}}, [1, 2]),
    ({"filters": {"ok": True}}, [2, 4]),
    ({"filters": {"name": "x' OR '1'='1"}}, []),
    ({"cursor_field": "changed", "start_date": "2026-01-02", "end_date": "2026-01-04T08:00:00.123"}, [2, 3]),
    ({"cursor_field": "day", "start_date": "2025-02-02T12:00:00", "filters": {"id": "<= 5"}}, [3, 4, 5]),
]


def test_filters_and_bounds_mean_the_same_for_every_source(source):
    """Also where the connector sends them to the far side."""
    source.far.put([row(1), row(2), row(3), row(4), row(5, name="five"), NULLS])
    text = ""
    for number, (params, _ids) in enumerate(WANTED):
        given = json.dumps({**source.far.params, **params})
        text += f"SOURCE s{number} TYPE {source.far.type} PARAMS {given};\nLOAD t{number} FROM s{number};\n"
    source.bench.pipeline(text)
    outcomes = source.bench.run()
    told = {}
    for number, (params, ids) in enumerate(WANTED):
        outcome = outcomes[f"t{number}"]
        found = outcome.error or sorted(i for (i,) in source.bench.query(f"SELECT id FROM p.t{number}"))
        if found != ids:
            told[str(params)] = found
    assert told == {}


def test_columns_are_left_out_and_masked_before_anything_is_stored(source):
    source.load(
        row(1, name="Ann"), row(2, name="Ann"), NULLS,
        columns=["ID", "name", "day", "ok"], exclude_columns=["OK"], mask={"name": "hash", "day": "redact"},
    )  # fmt: skip
    rows = source.bench.query("SELECT id::BIGINT, name, day FROM p.t ORDER BY id")
    assert list(source.types()) == ["id", "name", "day"]
    assert rows[0][1] == rows[1][1] != "Ann"
    assert [row[2] for row in rows] == ["***", "***", None]
    assert b"Ann" not in (source.bench.root / "data/warehouse.duckdb").read_bytes()


def test_an_unknown_parameter_is_refused_with_the_nearest_name(source):
    for name in registry.find(source.far.type).options_type.model_fields:
        misspelt = name[:-1] + "z" + name[-1]
        near = source.wrong(**{**source.far.params, misspelt: "x"})
        assert near.startswith(f"{misspelt}: unknown parameter; did you mean")
        assert difflib.get_close_matches(name, [near.split("'")[1]], cutoff=0.6)


def test_a_missing_parameter_is_named(source):
    lines = source.wrong(sync_mode="incremental").splitlines()
    assert any(line.startswith(f"{source.far.required}: ") for line in lines)


def test_the_present_name_wins_over_an_old_one_and_a_notice_names_both(source):
    old, present, ignored, used = source.far.renamed
    options_type = registry.find(source.far.type).options_type
    params = {name: value for name, value in source.far.params.items() if name != present}
    options, notices = parse(options_type, {**params, old: ignored, present: used})
    assert (options, ()) == parse(options_type, {**params, present: used})
    assert any(repr(old) in notice and repr(present) in notice for notice in notices)
    assert parse(options_type, {**params, old: used}) == (options, ())


def test_a_secret_is_in_no_repr(source):
    fields = registry.find(source.far.type).options_type.model_fields
    for name in ("password", "secret", "token", "api_key", "access_key", "secret_key", "private_key"):
        if name in fields:
            assert SecretStr in (fields[name].annotation, *getattr(fields[name].annotation, "__args__", ()))


def open_files(root):
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            path = str(descriptor.readlink())
        except OSError:
            continue
        if path.startswith(str(root)):
            found.append(path)
    return found


def test_closing_a_reader_early_frees_what_it_held(source):
    source.far.put([row(number) for number in range(1, 20)])
    with source.open() as connector:
        batches = connector.read(connector.streams()[0], None)
        next(batches)
        batches.close()
    gc.collect()
    assert open_files(source.bench.root) == []
    spool = source.bench.root / ".sqlflow/spool"
    assert not spool.exists() or not list(spool.iterdir())
    source.load(row(1))


@pytest.mark.parametrize("arrangement", BOUNDED, ids=lambda item: item.type)
def test_memory_does_not_grow_with_the_rows(arrangement, arranged):
    source = arranged(arrangement)
    peaks = []
    for count in (20_000, 200_000):
        source.far.wide(count)
        peaks.append(peak_of(partial(counted, source, count)))
    # The rows that came on top are 230 MB; a reader's own buffers are filled by few of them.
    assert peaks[1] - peaks[0] < 120_000


class Counted(Table):
    """Takes rows and keeps none."""

    def _store(self, relation, parameters):
        query = f"SELECT count(*), max(id::BIGINT), sum(length(text)) FROM {relation}"
        self.found = self.connection.execute(query, parameters).fetchone()


def counted(source, count):
    table = Counted()
    table.connection.execute("SET threads = 1; SET memory_limit = '100MB'")
    with source.open(**({"types": {}} if "types" in source.far.params else {})) as connector:
        for batch in connector.read(connector.streams()[0], None):
            table.take(batch)
    assert table.found == (count, count - 1, count * 32 * 40)


def peak_of(work):
    """Kilobytes that a child process of this one grows by at most while it does the work."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            work()
            os.write(write, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before).encode())
        finally:
            os._exit(0)
    os.close(write)
    os.waitpid(child, 0)
    with os.fdopen(read) as answer:
        return int(answer.read())


@pytest.mark.parametrize("arrangement", WRITING, ids=lambda item: item.type)
def test_what_is_written_is_read_back(arrangement, arranged):
    source = arranged(arrangement)
    rows = [row(number) for number in range(1, 20)] + [NULLS]
    source.far.put(rows)
    read, written = json.dumps(source.far.params), json.dumps(source.far.written)
    source.bench.pipeline(
        f"SOURCE s TYPE {source.far.type} PARAMS {read};\nLOAD t FROM s;\n"
        f"EXPORT SELECT * FROM t ORDER BY id TO {source.far.target};\n"
    )
    assert source.bench.ok()["t"].total_rows == 20
    source.bench.pipeline(f"SOURCE w TYPE {source.far.type} PARAMS {written};\nLOAD t FROM w;", name="p")
    source.bench.ok()
    assert source.rows() == rows
    assert source.types() == source.far.types


def told(outcome):
    audit = outcome.audit
    return audit.level, audit.facts.get("audit_source_rows"), audit.facts.get("audit_rows")


AUDIT = {"loss_audit": True}


@pytest.mark.parametrize("arrangement", AUDITED, ids=lambda item: item.type)
@EITHER
def test_an_audit_finds_what_the_table_lost(arrangement, arranged, given):
    source = arranged(arrangement)
    assert (
        told(
            source.load(
                row(1), row(2), row(3), row(9, changed=None) if given is KEYED else row(3), **given, **AUDIT
            )
        )[0]
        == "fine"
    )
    assert told(source.load(row(1), row(2), row(3), row(4), row(5), **given, **AUDIT)) == ("fine", 4, 4)
    with duckdb.connect(str(source.bench.root / "data/warehouse.duckdb")) as connection:
        connection.execute("DELETE FROM p.t WHERE id IN (2, 3)")
    outcome = source.load(**given, **AUDIT)
    assert told(outcome) == ("fail", 4, 2)
    assert "2 of 4 rows of the source are missing" in outcome.audit.message
    assert told(source.load(full_refresh=True, **given, **AUDIT)) == ("fine", 4, 4)


@pytest.mark.parametrize("arrangement", AUDITED, ids=lambda item: item.type)
@EITHER
def test_an_audit_finds_a_row_that_came_behind_the_cursor(arrangement, arranged, given):
    source = arranged(arrangement)
    source.load(row(1), row(3), row(5), **given, **AUDIT)
    # One at the cursor is read again, and so is no loss.
    late = row(6, changed=row(5)[1])
    rows = [row(1), row(2), row(3), row(5), late]
    assert told(source.load(*rows, **given, **AUDIT)) == ("fail", 3, 2)
    source.load(full_refresh=True, **given, **AUDIT)
    within = {**given, **AUDIT, "lookback_window": "P7D"}
    assert told(source.load(*rows, row(4), **within)) == ("fine", 0, 0)
    assert source.rows() == [row(1), row(2), row(3), row(4), row(5), late]


@pytest.mark.parametrize("arrangement", AUDITED, ids=lambda item: item.type)
def test_an_audit_takes_what_the_source_deleted_or_changed_for_no_loss(arrangement, arranged):
    source = arranged(arrangement)
    source.load(row(1), row(2), row(3), row(4), **KEYED, **AUDIT)
    outcome = source.load(row(2), row(3, changed=row(9)[1]), row(4), **KEYED, **AUDIT)
    assert told(outcome) == ("fine", 2, 3)
    assert "1 more are here" in outcome.audit.message
    # Two rows of one key, of which the newest is stored.
    twice = [row(1), row(1, changed=row(12)[1]), row(4)]
    assert told(source.load(*twice, full_refresh=True, **KEYED, **AUDIT)) == ("fine", 1, 1)


@pytest.mark.parametrize("arrangement", AUDITED, ids=lambda item: item.type)
def test_an_audit_counts_what_filters_and_bounds_take_or_says_that_it_cannot(arrangement, arranged):
    source = arranged(arrangement)
    source.far.put(
        [row(1, name="A"), row(2, name="a"), row(3, name="a "), row(4, name="a"), row(5, name="a"), NULLS]
    )
    found = {}
    for text in (
        '{"filters": {"name": "a"}}',
        '{"filters": {"name": ["a", "b"], "id": "> 2"}}',
        '{"filters": {"name": null}}',
        '{"start_date": "2026-01-03", "end_date": "2026-01-05"}',
    ):
        for kind, given in (("full", {"cursor_field": "changed"}), ("incremental", KEYED)):
            found[text, kind] = told(source.load(full_refresh=True, **given, **AUDIT, **json.loads(text)))
    assert {level for level, *_ in found.values()} <= {"fine", "warn"}, found
    assert all(there == here for _, there, here in found.values()), found
    if source.far.type in ("POSTGRES", "MYSQL"):
        known = {key: there for key, (_, there, _) in found.items() if there is not None}
        assert list(known.values())[:4] == [3, 2, 2, 1]
        assert list(known.values())[-2:] == [2, 1]


@pytest.mark.parametrize("arrangement", COUNTED, ids=lambda item: item.type)
def test_an_audit_of_a_whole_read_counts_all_of_it(arrangement, arranged):
    source = arranged(arrangement)
    rows = [row(number) for number in range(1, 20)] + [NULLS]
    assert told(source.load(*rows, **AUDIT)) == ("fine", 20, 20)
    assert told(source.load(*rows[:5], **AUDIT)) == ("fine", 5, 5)
    source.far.put([])
    assert told(source.load(**AUDIT)) == ("fine", 0, 0)
    assert source.load().audit is None


@pytest.mark.parametrize("arrangement", ARRANGEMENTS, ids=lambda item: item.type)
def test_an_audit_that_cannot_be_says_so_when_the_project_is_looked_at(arrangement, arranged):
    source = arranged(arrangement)
    outcome = source.load(row(1), **KEYED, **AUDIT)
    notices = [text for text in load_project(source.bench.root).plan.notices if "loss_audit" in text]
    assert bool(notices) is (arrangement not in AUDITED)
    assert outcome.audit.level == ("warn" if notices else "fine")


def asked(source, target):
    """How the target of an EXPORT is said to be, which must be as it was then."""
    source.bench.pipeline(f"EXPORT SELECT 1 AS id TO {target};")
    source.bench.write("data/file", "no folder")
    project = load_project(source.bench.root)
    (export,) = project.exports()
    before = source.far.held()
    found = reachability(lambda: project.target(export, project.scope(export.scope)))
    assert source.far.held() == before
    assert "CANARY" not in str(found)
    return found


@pytest.mark.parametrize("arrangement", WRITING, ids=lambda item: item.type)
def test_a_target_is_fine_before_and_after_the_first_export(arrangement, arranged):
    source = arranged(arrangement)
    for _ in range(2):
        found = asked(source, source.far.target)
        assert found.level == "fine", found
        assert found.facts["seconds"] >= 0
        assert source.bench.ok()


@pytest.mark.parametrize("arrangement", SYSTEMS, ids=lambda item: item.type)
def test_a_target_that_is_not_there_is_said_to_be_so(arrangement, arranged):
    source = arranged(arrangement)
    found = asked(source, source.far.nowhere)
    assert found.level == "fail", found
    assert next(iter(source.bench.run().values())).error


@pytest.mark.parametrize("arrangement", SYSTEMS, ids=lambda item: item.type)
def test_a_target_that_may_not_be_written_to_says_what_to_do(arrangement, arranged):
    source = arranged(arrangement)
    if source.far.planned:
        with pytest.raises(PipelineError, match=source.far.advice):
            asked(source, source.far.forbidden)
        return
    found = asked(source, source.far.forbidden)
    assert found.level == "fail", found
    assert source.far.advice in found.message
    assert isinstance(next(iter(source.bench.run().values())).error, NotAllowed)


def test_the_statement_of_its_docstring_runs(source):
    module = importlib.import_module(registry.find(source.far.type).__module__)
    text = ast.get_docstring(ast.parse(inspect.getsource(module)), clean=True)
    statement = textwrap.dedent(text.split("::\n", 1)[1]).strip().split(";\n")[0].rstrip(";") + ";"
    columns = source.far.documented()
    name = statement.split()[1]
    source.bench.pipeline(f"{statement}\nLOAD * FROM {name};")
    outcomes = source.bench.ok()
    assert all(dict(outcome.columns) == columns for outcome in outcomes.values())
    assert all(outcome.rows for outcome in outcomes.values())


def test_a_wrong_parameter_is_an_error_at_its_place_in_the_file(source):
    params = json.dumps({**source.far.params, "colums": ["id"]})
    source.bench.pipeline(f"SOURCE s TYPE {source.far.type} PARAMS {params};\nLOAD t FROM s;")
    with pytest.raises(PipelineError, match=r"p\.sf:1:\d+: .*did you mean 'columns'"):
        load_project(source.bench.root)
