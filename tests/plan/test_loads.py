"""LOAD: which mode it has, whether it is incremental, and what is refused."""

import json

import pytest

SOURCE = 'SOURCE s TYPE CSV PARAMS {"path": "x.csv"%s};\nLOAD t FROM s%s;'
INCREMENTAL = ', "sync_mode": "incremental", "cursor_field": "at"'
KEY = ', "primary_key": "id"'


@pytest.mark.parametrize(
    ("params", "written", "mode", "incremental", "keys"),
    [
        ("", "", "replace", False, ()),
        ("", " MODE REPLACE", "replace", False, ()),
        ("", " MODE APPEND", "append", False, ()),
        ("", " MODE UPSERT KEY (a, b)", "upsert", False, ("a", "b")),
        (KEY, " MODE UPSERT KEY (a)", "upsert", False, ("a",)),
        (KEY, " MODE UPSERT", "upsert", False, ("id",)),
        (INCREMENTAL + KEY, " mode upsert", "upsert", True, ("id",)),
        (KEY, "", "replace", False, ()),
        (INCREMENTAL, "", "append", True, ()),
        (INCREMENTAL + KEY, "", "upsert", True, ("id",)),
        (INCREMENTAL + KEY, " MODE APPEND", "append", True, ()),
        (INCREMENTAL, " MODE UPSERT KEY id", "upsert", True, ("id",)),
        (', "destination_sync_mode": "append"', "", "append", False, ()),
        (KEY + ', "destination_sync_mode": "append_dedup"', "", "upsert", False, ("id",)),
        (', "destination_sync_mode": "overwrite"', "", "replace", False, ()),
        (', "destination_sync_mode": "append"', " MODE APPEND", "append", False, ()),
        (', "sync_mode": "incremental", "own_cursor": true', "", "append", True, ()),
        (', "sync_mode": "cdc"' + KEY, "", "upsert", True, ("id",)),
    ],
)
def test_the_mode_follows_from_what_is_written_and_what_the_source_says(
    desk, params, written, mode, incremental, keys
):
    (load,) = desk.steps(SOURCE % (params, written))
    assert (load.mode, load.incremental, load.keys) == (mode, incremental, keys)
    assert load.why.startswith("full" if not incremental else ("incremental", "cdc"))


@pytest.mark.parametrize(
    ("params", "written", "message"),
    [
        (INCREMENTAL, " MODE REPLACE", "2:20: MODE REPLACE with sync_mode 'incremental' would lose"),
        (INCREMENTAL + ', "destination_sync_mode": "overwrite"', "", "would lose the rows before the cursor"),
        (
            KEY + ', "destination_sync_mode": "append"',
            " MODE UPSERT KEY (id)",
            "2:20: MODE UPSERT contradicts",
        ),
        ("", " MODE UPSERT", "2:20: UPSERT needs a KEY"),
        (', "destination_sync_mode": "append_dedup"', "", "UPSERT needs a KEY"),
        (', "sync_mode": "incremental"', "", "needs a cursor"),
        (', "sync_mod": "incremental"', "", "1:56: SOURCE s: sync_mod: no such parameter"),
    ],
)
def test_a_mode_that_cannot_be_is_refused_where_it_is_written(desk, params, written, message):
    (problem,) = desk.problems(SOURCE % (params, written))
    assert message in problem


def test_every_wrong_parameter_is_shown_at_its_own_place(desk):
    problems = desk.problems('SOURCE s TYPE CSV PARAMS {"a": 1,\n "path": "x",\n "b": 2};')
    assert [problem.split(" ")[0] for problem in problems] == ["pipelines/p.sf:1:32:", "pipelines/p.sf:3:7:"]


def test_an_unknown_type_is_shown_at_the_type(desk):
    (problem,) = desk.problems("SOURCE s TYPE CVS PARAMS {};")
    assert problem.startswith("pipelines/p.sf:1:15: SOURCE s: no connector has the TYPE CVS")


def test_load_star_loads_every_stream(desk):
    params = '{"path": "x", "streams": ["public.orders", "Customers"]}'
    steps = desk.steps(f"SOURCE s TYPE POSTGRES PARAMS {params};\nLOAD * FROM s;")
    assert [(step.stream, str(step.table)) for step in steps] == [
        ("public.orders", "p.public__orders"),
        ("Customers", "p.Customers"),
    ]


def test_streams_that_would_be_one_table_are_refused(desk):
    (problem,) = desk.problems('SOURCE s TYPE CSV PARAMS {"streams": ["a.b", "A__b"]};\nLOAD * FROM s;')
    assert "would be one table" in problem


def test_a_stream_is_found_by_name_in_any_case(desk):
    source = 'SOURCE s TYPE CSV PARAMS {"streams": ["Orders", "lines"]};\n'
    (load,) = desk.steps(source + "LOAD t FROM s.orders;")
    assert load.stream == "Orders"
    (problem,) = desk.problems(source + "LOAD t FROM s.ordrs;")
    assert "did you mean 'Orders'?" in problem


@pytest.mark.parametrize(
    ("streams", "table", "stream"),
    [(["rows"], "t", "rows"), (["b", "a"], "a", "a"), (["b", "A"], "mart.a", "A")],
    ids=["the only one", "called like the table", "in any case and schema"],
)
def test_a_load_without_a_stream_takes_the_one_it_can_mean(desk, streams, table, stream):
    (load,) = desk.steps(
        f'SOURCE s TYPE CSV PARAMS {{"streams": {json.dumps(streams)}}};\nLOAD {table} FROM s;'
    )
    assert load.stream == stream


def test_a_load_does_not_guess_among_several_streams(desk):
    (problem,) = desk.problems('SOURCE s TYPE CSV PARAMS {"streams": ["b", "a"]};\nLOAD t FROM s;')
    assert "2:13: the source has 2 streams, and none is called 't'" in problem
    assert "LOAD table FROM source.stream; it has b, a" in problem


def test_streams_not_known_yet_are_to_be_looked_up(desk):
    sf = 'SOURCE s TYPE CSV PARAMS {"streams": null};\nLOAD * FROM s;\nLOAD t FROM s.a;'
    problems = desk.problems(sf)
    assert all("sqlflow discover p s" in problem for problem in problems)
    assert len(problems) == 2


@pytest.mark.parametrize(
    ("sf", "message"),
    [
        ("LOAD t FROM shp;\nSOURCE shop TYPE CSV PARAMS {};", "1:13: unknown source 'shp'"),
        (
            "SOURCE s TYPE CSV PARAMS {};\nSOURCE S TYPE CSV PARAMS {};",
            "2:8: the source 'S' is declared twice",
        ),
        ('SOURCE s FROM "pg" OPTIONS {};', "1:15: the profile has no connector 'pg'"),
        ("SOURCE s TYPE CSV PARAMS {};\nLOAD _sqlflow.t FROM s;", "2:6: the schema _sqlflow"),
    ],
)
def test_names_that_are_wrong_are_shown_at_their_place(desk, sf, message):
    (problem,) = desk.problems(sf)
    assert message in problem


def test_a_source_takes_the_profiles_connector_and_its_own_options_win(desk):
    profile = "connectors:\n  pg:\n    type: postgres\n    params: {host: a, port: 1}\n"
    (load,) = desk.steps('SOURCE s FROM "pg" OPTIONS {"port": 2};\nLOAD t FROM s;', profile=profile)
    assert (load.source.type, load.source.params) == ("POSTGRES", {"host": "a", "port": 2})


def test_parameters_keep_their_variables_so_that_no_secret_is_in_a_plan(desk, monkeypatch):
    monkeypatch.setenv("PW", "canary")
    sf = 'SOURCE s TYPE CSV PARAMS {"password": "${PW}"};\nLOAD t FROM s;\n'
    sf += "CREATE TABLE u AS SELECT '${PW}' AS x FROM t;"
    assert "canary" not in repr(desk.plan(sf))


TWO = 'SOURCE a TYPE CSV PARAMS {"path": "a"%s};\nSOURCE b TYPE CSV PARAMS {"path": "b"%s};\n'


def test_a_table_that_one_statement_writes_has_a_sole_writer(desk):
    steps = desk.steps(TWO % ("", "") + "LOAD t FROM a;\nLOAD u FROM a;\nLOAD U FROM b MODE APPEND;")
    assert {str(step.table) + step.source.name: step.sole_writer for step in steps} == {
        "p.ta": True,
        "p.ua": False,
        "p.Ub": False,
    }


def test_two_incremental_loads_of_one_stream_into_one_table_are_refused(desk):
    sf = SOURCE % (INCREMENTAL + KEY, "") + "\nLOAD T FROM S;"
    (problem,) = desk.problems(sf)
    assert "3:1: the stream 'rows' is loaded incrementally into" in problem
    assert len(desk.steps(SOURCE % ("", "") + "\nLOAD t FROM s MODE APPEND;")) == 2


def test_one_stream_into_two_tables_is_fine(desk):
    assert len(desk.steps(SOURCE % (INCREMENTAL, "") + "\nLOAD u FROM s;")) == 2


def test_an_incremental_load_without_a_key_beside_another_writer_is_refused(desk):
    loads = "LOAD t FROM a;\nLOAD t FROM b;"
    problems = desk.problems(TWO % (INCREMENTAL, INCREMENTAL + KEY) + loads)
    assert len(problems) == 1
    assert ":3:1: 't' has other writers too, and this incremental LOAD has no key" in problems[0]
    for own in (KEY, ', "row_provenance": true'):
        assert len(desk.steps(TWO % (INCREMENTAL + own, INCREMENTAL + KEY) + loads)) == 2


def test_an_append_beside_other_writers_merges_by_key_and_cursor_so_that_nothing_doubles(desk):
    loads = "LOAD t FROM a MODE APPEND;\nLOAD t FROM b MODE APPEND;"
    first, second = desk.steps(TWO % (INCREMENTAL + KEY, "") + loads)
    assert (first.mode, first.keys, first.incremental) == ("upsert", ("id", "at"), True)
    assert (second.mode, second.keys, second.incremental) == ("append", (), False)


@pytest.mark.parametrize("maker", ["LOAD t FROM a;", "CREATE OR REPLACE TABLE t AS SELECT 1 AS id;"])
def test_what_another_statement_replaces_in_each_run_is_read_whole(desk, maker):
    steps = desk.steps(TWO % ("", INCREMENTAL + KEY) + maker + "\nLOAD t FROM b;")
    load = steps[-1]
    assert (load.mode, load.incremental) == ("upsert", False)
    assert "line 3 replaces the table in each run" in load.why


def test_notices_of_parameters_name_their_source(desk):
    plan = desk.plan('SOURCE s TYPE CSV PARAMS {"has_header": true};')
    assert plan.notices == ("pipelines/p.sf:1: SOURCE s: has_header is old",)
