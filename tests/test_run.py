"""Whole runs: a `.sf` file and files of data become tables, exports and cursors."""

import json
import threading

import duckdb
import pytest

from sqlflow_dagster import state
from sqlflow_dagster.errors import BadOption, LoadRefused, PipelineError, SourceError, SQLFlowError
from sqlflow_dagster.project import load_project

KEYED = """
SOURCE orders TYPE CSV PARAMS {
  "path": "data/orders*.csv", "sync_mode": "incremental", "cursor_field": "changed", "primary_key": "id",
  "types": {"id": "INTEGER", "changed": "TIMESTAMP", "amount": "DECIMAL(10,2)"}
};
LOAD orders FROM orders;
"""
KEYLESS = KEYED.replace('"primary_key": "id",', "")
ALL = "SELECT id, changed::VARCHAR, amount::VARCHAR FROM p.orders ORDER BY ALL"


def csv(*rows: str) -> str:
    return "id,changed,amount\n" + "".join(f"{row}\n" for row in rows)


def test_a_load_a_table_and_an_export_in_one_file(bench):
    bench.write("data/orders.csv", csv("1,2026-01-01,1.10", "2,2026-01-02,2.20"))
    bench.pipeline(
        KEYED
        + "CREATE TABLE total AS SELECT sum(amount) AS amount FROM orders;\n"
        + 'EXPORT SELECT * FROM total TO "output/total.csv";'
    )
    outcomes = bench.ok()
    assert (bench.root / "output/total.csv").read_text() == "amount\n3.30\n"
    assert outcomes["orders"].inserted == 2
    assert outcomes["total"].total_rows == 1


NAMED = [
    {"columns": ["id", "note"]}, {"mask": ["note"]}, {"exclude_columns": ["note"]}, {"types": {"note": "VARCHAR"}},
]  # fmt: skip


@pytest.mark.parametrize("form", ["csv", "jsonl"])
@pytest.mark.parametrize("named", NAMED, ids=lambda named: next(iter(named)))
def test_a_column_that_is_named_may_be_missing_from_later_files_but_not_be_called_otherwise(
    bench, form, named
):
    def put(name, **row):
        text = (
            ",".join(row) + "\n" + ",".join(row.values()) + "\n" if form == "csv" else json.dumps(row) + "\n"
        )
        bench.write(f"in/{name}.{form}", text)

    def load(policy="guided"):
        params = {"path": "in", "sync_mode": "incremental", "schema_policy": policy, **named}
        source = f"SOURCE s TYPE {form.upper()} PARAMS {json.dumps(params)};"
        bench.pipeline(f"{source}\nLOAD t FROM s MODE APPEND;")
        return bench.ok()["t"]

    put("a", id="1", note="x")
    load()
    put("b", id="2")
    if form == "csv" or "types" not in named:
        with pytest.raises(SQLFlowError, match="column 'note'"):
            load("strict")
    outcome = load()
    assert "types" in named or "the source has no column note any more" in outcome.notices
    assert [row[0] for row in bench.query("SELECT id::INTEGER FROM p.t ORDER BY id")] == [1, 2]
    columns = [row[0] for row in bench.query("DESCRIBE p.t")]
    assert columns == (["id"] if "exclude_columns" in named else ["id", "note"])
    if columns == ["id", "note"]:
        assert bench.query("SELECT note FROM p.t WHERE id = 2") == [(None,)]
    put("c", id="3", notes="secret")
    if "columns" in named or "types" in named:
        load()
        return
    with pytest.raises(SQLFlowError, match="column 'note'; did you mean 'notes'"):
        load()


OWN_TARGETS = [
    ".env", ".git/config", "pipelines/p.sf", "pipelines/out.csv", "profiles/dev.yml", "python_udfs/f.py", "definitions.py",
    "data/../.env", ".sqlflow/spool/x", "link", "{warehouse}", "{warehouse}.wal",
]  # fmt: skip


@pytest.mark.parametrize("target", OWN_TARGETS)
def test_an_export_writes_over_none_of_the_projects_own_files(bench, target):
    target = target.format(warehouse=load_project(bench.root).settings.database.relative_to(bench.root))
    (bench.root / "link").symlink_to(bench.root / ".env")
    bench.write(".env", "SECRET=1")
    bench.pipeline(f'CREATE TABLE t AS SELECT 1 AS id;\nEXPORT SELECT * FROM t TO "{target}" TYPE CSV;')
    before = (bench.root / "pipelines/p.sf").read_text()
    with pytest.raises(PipelineError, match="own"):
        bench.ok()
    assert (bench.root / ".env").read_text() == "SECRET=1"
    assert (bench.root / "pipelines/p.sf").read_text() == before


def test_a_second_run_reads_from_the_boundary_and_doubles_nothing(bench):
    bench.pipeline(KEYED)
    bench.write("data/orders1.csv", csv("1,2026-01-01,1", "2,2026-01-02,2"))
    bench.ok()
    bench.write("data/orders2.csv", csv("2,2026-01-02,5", "3,2026-01-03,3"))
    outcome = bench.ok()["orders"]
    assert outcome.rows <= 3
    assert [row[0] for row in bench.query(ALL)] == [1, 2, 3]
    assert outcome.cursor_after.value == "2026-01-03 00:00:00"


@pytest.mark.parametrize("sf", [KEYED, KEYLESS], ids=["with-key", "without-key"])
def test_a_late_row_at_the_boundary_is_loaded(bench, sf):
    bench.pipeline(sf)
    bench.write("data/orders.csv", csv("1,2026-01-01,1", "2,2026-01-02,2"))
    bench.ok()
    bench.write("data/orders.csv", csv("1,2026-01-01,1", "2,2026-01-02,2", "3,2026-01-02,3"))
    bench.ok()
    bench.ok()
    assert [row[0] for row in bench.query(ALL)] == [1, 2, 3]


def test_an_older_row_never_overwrites_a_newer_one(bench):
    bench.pipeline(KEYED.replace('"primary_key"', '"lookback_window": "P30D", "primary_key"'))
    bench.write("data/orders.csv", csv("1,2026-01-20,20"))
    bench.ok()
    bench.write("data/orders.csv", csv("1,2026-01-10,10"))
    bench.ok()
    assert bench.query(ALL) == [(1, "2026-01-20 00:00:00", "20.00")]


def test_a_row_far_in_the_future_is_loaded_without_moving_the_cursor(bench):
    bench.pipeline(KEYED)
    bench.write("data/orders.csv", csv("1,2026-01-01,1", "2,2999-01-01,2"))
    outcome = bench.ok()["orders"]
    assert outcome.cursor_after.value == "2026-01-01 00:00:00"
    assert any("future" in notice for notice in outcome.notices)
    bench.write("data/orders2.csv", csv("3,2026-01-05,3"))
    bench.ok()
    assert [row[0] for row in bench.query(ALL)] == [1, 2, 3]


def test_null_cursors_are_merged_with_a_key(bench):
    bench.pipeline(KEYED)
    bench.write("data/orders.csv", csv("1,2026-01-01,1", "2,,2"))
    bench.ok()
    bench.write("data/orders.csv", csv("1,2026-01-01,1", "2,,3"))
    bench.ok()
    assert bench.query(ALL) == [(1, "2026-01-01 00:00:00", "1.00"), (2, None, "3.00")]


def test_null_cursors_are_refused_without_a_key(bench):
    bench.pipeline(KEYLESS)
    bench.write("data/orders.csv", csv("1,2026-01-01,1", "2,,2"))
    assert isinstance(bench.run()["orders"].error, LoadRefused)


def test_a_retry_of_the_same_run_stores_nothing_twice(bench):
    bench.pipeline(
        'SOURCE s TYPE CSV PARAMS {"path": "data/s.csv"};\nLOAD t FROM s MODE APPEND;\n'
        "CREATE TABLE u MODE APPEND AS SELECT * FROM t;"
    )
    bench.write("data/s.csv", "a\n1\n")
    bench.ok(run_id="same")
    outcomes = bench.ok(run_id="same")
    assert outcomes["t"].skipped
    assert outcomes["u"].skipped
    assert bench.query("SELECT count(*) FROM p.t UNION ALL SELECT count(*) FROM p.u") == [(1,), (1,)]


def test_a_failing_source_never_empties_its_table(bench):
    bench.pipeline('SOURCE s TYPE CSV PARAMS {"path": "data/s.csv"};\nLOAD t FROM s;')
    file = bench.write("data/s.csv", "a,b\n1,2\n")
    bench.ok()
    file.unlink()
    assert isinstance(bench.run()["t"].error, SourceError)
    bench.write("data/s.csv", "a,b\n1,2\n3\n4,5,6\n")
    assert bench.run()["t"].error
    assert bench.query("SELECT * FROM p.t") == [(1, 2)]


def test_a_clean_read_of_no_rows_empties_a_replaced_table(bench):
    bench.pipeline('SOURCE s TYPE CSV PARAMS {"path": "data/s.csv"};\nLOAD t FROM s;')
    bench.write("data/s.csv", "a,b\n1,2\n")
    bench.ok()
    bench.write("data/s.csv", "a,b\n")
    bench.ok()
    assert bench.query("SELECT * FROM p.t") == []


def test_run_storage_lost_is_restored_from_the_warehouse(bench):
    bench.pipeline(KEYED)
    bench.write("data/orders1.csv", csv("1,2026-01-01,1"))
    bench.ok()
    before = dict(bench.shelf.values)
    bench.shelf.values.clear()
    bench.write("data/orders2.csv", csv("2,2026-01-02,2"))
    outcome = bench.ok()["orders"]
    assert outcome.repaired
    assert outcome.cursor_before.value == "2026-01-01 00:00:00"
    assert bench.shelf.values.keys() == before.keys()


def test_a_lost_warehouse_is_loaded_whole_again(bench):
    bench.pipeline(KEYED)
    bench.write("data/orders1.csv", csv("1,2026-01-01,1"))
    bench.ok()
    (bench.root / "data/warehouse.duckdb").unlink()
    bench.write("data/orders2.csv", csv("2,2026-01-02,2"))
    outcome = bench.ok()["orders"]
    assert any("read again" in notice for notice in outcome.notices)
    assert [row[0] for row in bench.query(ALL)] == [1, 2]


def test_a_reset_reads_everything_and_drops_what_the_source_has_no_more(bench):
    bench.pipeline(KEYED)
    bench.write("data/orders.csv", csv("1,2026-01-01,1", "2,2026-01-02,2"))
    bench.ok()
    project = load_project(bench.root)
    ((_load, key),) = state.keys(project)
    state.reset(project, bench.shelf, key)
    project.warehouse.close()
    bench.write("data/orders.csv", csv("2,2026-01-02,2"))
    bench.ok()
    assert [row[0] for row in bench.query(ALL)] == [2]


def test_a_rewind_reads_again_from_the_named_value(bench):
    bench.pipeline(KEYED)
    bench.write("data/orders.csv", csv("1,2026-01-01,1", "2,2026-01-02,2", "3,2026-01-03,3"))
    bench.ok()
    project = load_project(bench.root)
    ((_load, key),) = state.keys(project)
    state.reset(project, bench.shelf, key, to="2026-01-02")
    project.warehouse.close()
    bench.write("data/orders.csv", csv("1,2026-01-01,9", "3,2026-01-03,9"))
    bench.ok()
    assert [(row[0], row[2]) for row in bench.query(ALL)] == [(1, "1.00"), (3, "9.00")]


def test_a_table_loaded_again_between_exports_is_seen_as_of_its_place(bench):
    bench.pipeline(
        'SOURCE a TYPE CSV PARAMS {"path": "data/a.csv"};\nSOURCE b TYPE CSV PARAMS {"path": "data/b.csv"};\n'
        'LOAD t FROM a;\nEXPORT SELECT * FROM t TO "output/first.csv";\n'
        'LOAD t FROM b MODE APPEND;\nEXPORT SELECT * FROM t ORDER BY x TO "output/second.csv";'
    )
    bench.write("data/a.csv", "x\n1\n")
    bench.write("data/b.csv", "x\n2\n")
    bench.ok()
    bench.ok()
    assert (bench.root / "output/first.csv").read_text() == "x\n1\n"
    assert (bench.root / "output/second.csv").read_text() == "x\n1\n2\n"


def test_a_file_that_is_renamed_and_changed_later_doubles_no_rows(bench):
    params = {"path": "in", "sync_mode": "incremental", "row_provenance": True}
    bench.pipeline(f"SOURCE s TYPE CSV PARAMS {json.dumps(params)};\nLOAD t FROM s;")
    bench.write("in/a.csv", "id\n1\n")
    bench.ok()
    (bench.root / "in/a.csv").rename(bench.root / "in/b.csv")
    assert bench.ok()["t"].inserted == 0
    bench.write("in/b.csv", "id\n10\n11\n")
    bench.ok()
    assert bench.query("SELECT id, _sqlflow_file FROM p.t ORDER BY id") == [
        (10, "in/b.csv"),
        (11, "in/b.csv"),
    ]


def test_incremental_by_replaces_only_its_window(bench):
    bench.pipeline(
        KEYED + "CREATE TABLE days MODE INCREMENTAL BY day LOOKBACK 1 DAY AS\n"
        "SELECT changed::DATE AS day, sum(amount) AS amount FROM orders GROUP BY 1;"
    )
    bench.write("data/orders.csv", csv("1,2026-01-01,1", "2,2026-01-02,2"))
    bench.ok()
    bench.write("data/orders.csv", csv("1,2026-01-01,1", "2,2026-01-02,2", "3,2026-01-03,3"))
    bench.ok()
    assert bench.query("SELECT day::VARCHAR, amount::VARCHAR FROM p.days ORDER BY 1") == [
        ("2026-01-01", "1.00"),
        ("2026-01-02", "2.00"),
        ("2026-01-03", "3.00"),
    ]


def test_variables_of_the_run_win(bench):
    bench.pipeline("SET n = 1;\nCREATE TABLE t AS SELECT ${n} AS n, '${who|nobody}' AS who;")
    bench.ok(set={"n": 7, "who": "it's"})
    assert bench.query("SELECT * FROM p.t") == [(7, "it's")]


def test_python_functions_are_called(bench):
    bench.write("python_udfs/f.py", "def shout(text: str) -> str:\n    return text.upper()\n")
    bench.pipeline("CREATE TABLE t AS SELECT PYTHON_FUNC(\"f.shout\", 'a') AS x;")
    bench.ok()
    assert bench.query("SELECT * FROM p.t") == [("A",)]


@pytest.mark.parametrize(
    ("sf", "error"),
    [
        ('SOURCE s TYPE CSV PARAMS {"pth": "x.csv"};', "did you mean"),
        ('SOURCE s TYPE CVS PARAMS {"path": "x.csv"};', "CSV"),
        ("LOAD t FROM nowhere;", "nowhere"),
        ("CREATE TABLE t AS SELECT * FROM nowhere;", "nowhere"),
        ("CREATE TABLE t AS SELEC 1;", "SELEC"),
        ("CREATE TABLE t AS SELECT ${missing};", "missing"),
        ("LAOD t FROM s;", "LOAD"),
        ("CREATE TABLE t MODE UPSERT AS SELECT 1 AS a;", "KEY"),
    ],
    ids=["parameter", "type", "source", "table", "sql", "variable", "statement", "key"],
)
def test_what_is_wrong_in_a_file_is_named_before_anything_runs(bench, sf, error):
    bench.pipeline(sf)
    with pytest.raises(PipelineError, match=error):
        load_project(bench.root)


@pytest.mark.parametrize(
    ("content", "params"),
    [
        (None, ""),
        ("", ""),
        ("id,changed\n1,2026-01-01\n2\n", ""),
        (b"id,changed\n1,\xff\xfe\n", ""),
        (
            "id,when\n1,2026-01-01\n",
            ', "sync_mode": "incremental", "cursor_field": "changed", "primary_key": "id"',
        ),
        (
            "id,changed\n1,2026-01-01\n",
            ', "sync_mode": "incremental", "cursor_field": "changed", "primary_key": "key"',
        ),
    ],
    ids=["missing", "empty", "ragged", "not-utf-8", "no-cursor-column", "no-key-column"],
)
def test_bad_input_is_a_clear_error_and_the_old_table_stays(bench, content, params):
    bench.pipeline(f'SOURCE s TYPE CSV PARAMS {{"path": "data/s.csv"{params}}};\nLOAD t FROM s;')
    bench.write("data/s.csv", "id,changed,key\n7,2025-01-01,1\n")
    bench.ok()
    file = bench.root / "data/s.csv"
    file.unlink()
    if content is not None:
        bench.write("data/s.csv", content)
    error = bench.run()["t"].error
    assert isinstance(error, SQLFlowError)
    assert not isinstance(error, BadOption)
    assert bench.query("SELECT count(*) FROM p.t") == [(1,)]


QUARANTINE = """
SOURCE orders TYPE CSV PARAMS {{
  "path": "data/orders*.csv", "types": {{"id": "INTEGER", "changed": "TIMESTAMP", "amount": "DECIMAL(10,2)"}},
  "bad_rows": "quarantine", {} }};
LOAD orders FROM orders;
"""


@pytest.mark.parametrize(
    "parameters",
    [
        '"sync_mode": "full_refresh"',
        '"sync_mode": "incremental"',
        '"sync_mode": "incremental", "cursor_field": "changed", "primary_key": "id"',
        '"sync_mode": "incremental", "cursor_field": "changed"',
        '"filters": {"amount": "> 0"}',
    ],
    ids=["full", "files", "merge", "cursor", "filter"],
)
def test_a_bad_row_of_a_file_is_set_aside_once_and_the_others_are_stored(bench, parameters):
    bench.pipeline(QUARANTINE.format(parameters))
    bench.write("data/orders1.csv", csv("1,2026-01-01,1.10", "2,2026-01-01,4.155", "3,2026-01-02,x"))
    first = bench.ok()["orders"]
    assert (first.rows, first.total_rows, first.quarantined) == (1, 1, 2)
    bench.ok()
    bench.write("data/orders2.csv", csv("4,2026-01-03,4.40", "5,soon,1", "6,2026-01-03"))
    bench.ok()
    assert bench.query("SELECT id, amount::VARCHAR FROM p.orders ORDER BY 1") == [(1, "1.10"), (4, "4.40")]
    assert bench.query("SELECT place, raw FROM _sqlflow.quarantine ORDER BY ALL") == [
        ("data/orders1.csv:3", "2,2026-01-01,4.155"),
        ("data/orders1.csv:4", "3,2026-01-02,x"),
        ("data/orders2.csv:3", "5,soon,1"),
        ("data/orders2.csv:4", "6,2026-01-03"),
    ]


def test_the_engines_options_of_the_profile_hold_in_every_query(bench):
    bench.write(
        "profiles/dev.yml",
        "engines: {duckdb: {path: data/own.duckdb, memory_limit: 300MB, threads: 1, timezone: Asia/Tokyo,"
        " temp_directory: spill}}\n",
    )
    names = ("threads", "memory_limit", "TimeZone", "temp_directory")
    columns = ", ".join(f"current_setting('{name}')::VARCHAR AS \"{name}\"" for name in names)
    bench.pipeline(f'CREATE TABLE t AS SELECT {columns};\nEXPORT SELECT * FROM t TO "output/t.csv";')
    bench.ok()
    _, row = (bench.root / "output/t.csv").read_text().splitlines()
    assert row == f"1,286.1 MiB,Asia/Tokyo,{bench.root}/spill"
    assert (bench.root / "data/own.duckdb").exists()


@pytest.mark.parametrize(
    ("more", "rows"),
    [("", 40 * 2000), (', "sync_mode": "incremental", "primary_key": "id"', 2000)],
    ids=["all", "by-key"],
)
def test_of_many_small_files_the_last_row_of_a_key_is_kept_and_without_one_all_are(bench, more, rows):
    for number in range(40):
        lines = (f"{key},{number},{'x' * 100}\n" for key in range(2000))
        bench.write(f"data/in/{number:02}.csv", "id,file,filling\n" + "".join(lines))
    bench.pipeline(f'SOURCE s TYPE CSV PARAMS {{ "path": "data/in" {more} }};\nLOAD t FROM s;')
    bench.ok()
    newest = 39 if more else 19.5
    assert bench.query("SELECT count(*), avg(file), count(DISTINCT id) FROM p.t") == [(rows, newest, 2000)]


@pytest.mark.parametrize(
    ("more", "rows"),
    [("", 1_000_000), (', "sync_mode": "incremental", "primary_key": "id"', 50_000)],
    ids=["all", "by-key"],
)
def test_of_a_large_text_the_last_row_of_a_key_is_kept_and_without_one_all_are(bench, more, rows):
    (bench.root / "data").mkdir(exist_ok=True)
    duckdb.sql(
        "COPY (SELECT i % 50000 AS id, i // 50000 AS turn, repeat('x', 60) AS filling FROM range(1000000) AS t(i))"
        f" TO '{bench.root}/data/large.csv' (HEADER)"
    )
    assert (bench.root / "data/large.csv").stat().st_size > 64 * 2**20
    bench.pipeline(f'SOURCE s TYPE CSV PARAMS {{ "path": "data/large.csv" {more} }};\nLOAD t FROM s;')
    bench.ok()
    newest = 19 if more else 9.5
    assert bench.query("SELECT count(*), avg(turn), count(DISTINCT id) FROM p.t") == [(rows, newest, 50_000)]


def test_a_canceled_run_calls_no_python_function_any_more(bench):
    bench.write(
        "python_udfs/f.py", "import time\n\n\ndef slow(x: int) -> int:\n    time.sleep(0.01)\n    return x\n"
    )
    bench.pipeline('CREATE TABLE t AS SELECT PYTHON_FUNC("f.slow", i) AS x FROM range(2000) AS n(i);')
    stopped = threading.Event()
    threading.Timer(0.5, stopped.set).start()
    assert "the run was canceled" in str(bench.run(stopped=stopped)["t"].error)


@pytest.mark.parametrize("before", ["this release", "an earlier release"])
def test_a_cursor_of_another_column_is_refused(bench, before):
    def pipeline(column):
        bench.pipeline(
            'SOURCE s TYPE CSV PARAMS {"path": "data/t.csv", "sync_mode": "incremental", "primary_key": "id", '
            f'"cursor_field": "{column}"}};\nLOAD t FROM s;'
        )

    bench.write("data/t.csv", "id,made,changed\n1,2026-01-01,2026-03-01\n2,2026-01-02,2026-02-01\n")
    pipeline("made")
    bench.ok()
    if before == "an earlier release":
        with load_project(bench.root).warehouse.open() as connection:
            connection.execute("ALTER TABLE _sqlflow.commits DROP COLUMN cursor_field")
        bench.ok()
    pipeline("MADE")
    bench.ok()
    pipeline("changed")
    bench.write("data/t.csv", "id,made,changed\n1,2026-01-01,2026-03-01\n3,2026-01-03,2026-01-01\n")
    with pytest.raises(
        LoadRefused, match=r"read in the order of 'MADE', and are to be read on in that of 'changed'"
    ):
        bench.ok()
    project = load_project(bench.root)
    ((_load, key),) = state.keys(project)
    state.reset(project, bench.shelf, key, to="2026-01-01")
    project.warehouse.close()
    with pytest.raises(
        LoadRefused, match=r"read in the order of 'MADE', and are to be read on in that of 'changed'"
    ):
        bench.ok()
    bench.ok(full_refresh=True)
    assert bench.query("SELECT id FROM p.t ORDER BY id") == [(1,), (3,)]
    bench.ok()
