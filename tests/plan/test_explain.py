"""The plan as text and as data: what runs, what is full or incremental and why, and no secret."""

import json

from sqlflow_dagster.plan.explain import as_json, explain

SF = """SOURCE s TYPE CSV PARAMS {"password": "${PW}", "sync_mode": "incremental", "cursor_field": "at",
  "primary_key": "id", "has_header": true};
LOAD t FROM s;
LOAD u FROM s;
CREATE VIEW v AS SELECT * FROM t;
CREATE TABLE days MODE INCREMENTAL BY day LOOKBACK 7 DAYS AS SELECT day FROM v, u;
CREATE TABLE log MODE APPEND AS SELECT 1 AS x;
EXPORT days TO "out/${day}.csv";
"""


def test_a_line_says_what_each_step_does_and_why(desk, monkeypatch):
    monkeypatch.setenv("PW", "canary")
    lines = explain(desk.plan(SF, variables={"day": "monday"}))
    assert lines == [
        "p (p.sf)",
        "  1. source s: 2 loads side by side",
        "     LOAD p.t FROM s.rows  [incremental: read on from at; new rows are merged by id; line 3]",
        "     LOAD p.u FROM s.rows  [incremental: read on from at; new rows are merged by id; line 4]",
        "  2. table v",
        "     VIEW p.v reads p.t  [full: a view stores nothing; line 5]",
        "  3. table days",
        "     TABLE p.days reads p.v, p.u  "
        "[incremental: rows from the newest day less 7 days on are replaced; line 6]",
        "  4. table log",
        "     TABLE p.log reads nothing stored  [append: the result's rows are added; line 7]",
        "  5. export export_out_day_csv",
        "     EXPORT CSV out/${day}.csv reads p.days  [full: the whole result, or nothing; line 8]",
        "notice: pipelines/p.sf:1: SOURCE s: has_header is old",
    ]


def test_pipelines_are_picked_by_name(desk):
    plan = desk.plan("", "CREATE TABLE t AS SELECT 1 AS x;")
    assert explain(plan, ["p"]) == ["p (p.sf)", "  nothing to run"]
    assert [pipeline["name"] for pipeline in as_json(plan, ["p2"])["pipelines"]] == ["p2"]


def test_the_data_can_be_written_as_json_and_holds_no_parameter(desk, monkeypatch):
    monkeypatch.setenv("PW", "canary")
    text = json.dumps(as_json(desk.plan(SF, variables={"day": "monday"})))
    assert "canary" not in text
    assert "PW" not in text
