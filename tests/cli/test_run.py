import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.fault

SQLFLOW = Path(sys.executable).with_name("sqlflow")
# Long enough that no machine has done it before the test is over.
ENDLESS = "SELECT sum(sqrt(i * 1.0)) AS x FROM range(1000000000000) AS numbers(i)"


@pytest.fixture
def start():
    """Start `sqlflow` without waiting for it; what still runs at the test's end is killed."""
    started = []

    def begin(project, *arguments):
        run = subprocess.Popen(
            [SQLFLOW, *arguments, "--project", project.root],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=_environment(),
            # A shell's background jobs ignore Ctrl-C, and so would what these tests start in one.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads here
        )
        started.append(run)
        return run

    yield begin
    for run in started:
        run.kill()
        run.communicate()


def test_a_run_that_did_everything_ends_with_0_and_shows_each_asset(sqlflow, shop):
    result = sqlflow("run", "shop", "--project", shop.root)
    assert result.status == 0, result.err
    lines = [line.split() for line in result.out.splitlines()]
    assert lines[0][:2] == ["asset", "read"]
    assert [line[0] for line in lines[2:]] == ["shop/a", "shop/b"]
    assert "2 assets stored, 0 steps failed" in result.err
    assert shop.query("FROM shop.b") == [(1,)]


def test_a_pipeline_runs_although_another_is_wrong(sqlflow, shop):
    shop.pipeline("CREATE TABLE c AS FROM nowhere;\nEXPORT c TO '${out}/c.csv';", "other")
    result = sqlflow("run", "shop", "--project", shop.root)
    assert result.status == 0, result.err
    assert "notice: other is left out, something in it is wrong: sqlflow validate other" in result.err
    wrong = sqlflow("run", "other", "--project", shop.root)
    assert wrong.status == 1
    assert "unknown table 'nowhere'" in wrong.err
    assert "no value for ${out}" in wrong.err


def test_a_pipeline_does_not_run_where_a_file_that_it_includes_is_wrong(sqlflow, shop):
    shop.write("lib/part.sf", "CREATE TABL c AS SELECT 1 AS x;")
    shop.pipeline("INCLUDE 'lib/part.sf';", "other")
    result = sqlflow("run", "other", "--project", shop.root)
    assert result.status == 1
    assert "lib/part.sf:1:8: expected TABLE or VIEW" in result.err


def test_what_a_function_prints_is_no_part_of_the_result(sqlflow, bench):
    bench.write(
        "python_udfs/talk.py", "print('read')\ndef f(x: int) -> int:\n    print('called')\n    return x\n"
    )
    bench.pipeline('CREATE TABLE a AS SELECT PYTHON_FUNC("talk.f", 1) AS x;')
    result = sqlflow("run", "p", "--project", bench.root, "--format", "json")
    assert result.json["success"] is True
    assert {"read", "called"} <= set(result.err.splitlines())


def test_a_failed_step_ends_with_1_names_the_reason_and_what_was_not_stored(sqlflow, bench):
    bench.pipeline(
        "CREATE TABLE a AS SELECT 1 AS x;\nCREATE TABLE b AS SELECT error('no such luck') AS y FROM a;\n"
        "CREATE TABLE c AS FROM b;\n"
    )
    result = sqlflow("run", "p", "--project", bench.root, "--format", "json")
    assert result.status == 1
    assert result.json["success"] is False
    assert [asset["asset"] for asset in result.json["assets"]] == ["p/a"]
    assert "no such luck" in result.json["failures"][0]["error"]
    assert result.json["not_stored"] == ["p/b", "p/c"]


def test_a_step_that_is_tried_again_says_why_in_the_same_words_as_at_its_end(sqlflow, bench):
    bench.write("profiles/dev.yml", "defaults:\n  retry: {max_retries: 1, delay_seconds: 0}\n")
    bench.write("data/a.csv", "a,b\n1,2\n3\n")
    bench.pipeline('SOURCE s TYPE CSV PARAMS {"path": "data/a.csv"};\nLOAD a FROM s;')
    result = sqlflow("run", "p", "--project", bench.root)
    assert result.status == 1
    why = "p/a: s.data: data/a.csv:3: Expected Number of Columns: 2 Found: 1 ('3'); mend the line"
    assert result.err.count(why) == 2, result.err
    assert "_duckdb" not in result.err


def test_variables_of_the_command_line_win_over_all_others(sqlflow, bench):
    bench.pipeline("SET n = 1;\nCREATE TABLE a AS SELECT ${n} AS n, '${t|none}' AS t;\n")
    bench.write("profiles/dev.yml", "variables: {n: 2, t: profile}\n")
    result = sqlflow("run", "p", "--project", bench.root, "--vars", "n=7", "t=it's")
    assert result.status == 0, result.err
    assert bench.query("FROM p.a") == [(7, "it's")]


def test_the_history_is_kept_in_the_project(sqlflow, shop):
    assert sqlflow("run", "shop", "--project", shop.root).status == 0
    assert (shop.root / ".dagster/dagster.yaml").is_file()
    assert _statuses(shop.root / ".dagster") == ["SUCCESS"]


def test_the_history_is_kept_where_dagster_home_says(shop, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    ended = _sqlflow(shop, "run", "shop", DAGSTER_HOME=str(home))
    assert ended.returncode == 0, ended.stderr
    assert not (shop.root / ".dagster").exists()
    assert _statuses(home) == ["SUCCESS"]


@pytest.mark.parametrize("home", ["relative", "/no/such/home"])
def test_a_dagster_home_that_cannot_be_is_named(shop, home):
    ended = _sqlflow(shop, "run", "shop", DAGSTER_HOME=home)
    assert ended.returncode == 1
    assert home in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "arguments",
    [["nope"], ["shop", "--partition", "2026-01-01"], ["shop", "--vars", "nonsense"], ["empty"]],
    ids=["pipeline", "partition", "vars", "nothing-to-run"],
)
def test_what_cannot_be_run_is_said_without_a_traceback(sqlflow, shop, arguments):
    shop.pipeline("SET a = 1;", "empty")
    result = sqlflow("run", *arguments, "--project", shop.root, "--format", "json")
    assert result.status == 1
    assert result.json["success"] is False
    assert result.json["error"] in result.err


def test_the_log_goes_to_a_file_in_a_folder_of_its_own(shop):
    shop.write("profiles/dev.yml", "log_file: logs/today/run.log\n")
    ended = _sqlflow(shop, "run", "shop")
    assert ended.returncode == 0, ended.stderr
    assert (shop.root / "logs/today/run.log").is_file()


def test_a_partition_is_run_of_the_pipeline_that_is_named(sqlflow, bench):
    bench.write("profiles/dev.yml", "defaults: {partitions: {every: day, start: '2026-01-01'}}\n")
    days = "CREATE TABLE days MODE INCREMENTAL BY at AS SELECT TIMESTAMP '2026-01-02 08:00' AS at;\n"
    bench.pipeline(days + "CREATE TABLE total AS SELECT count(*) AS n FROM days;")
    bench.pipeline(days, "p_partitions")
    ended = sqlflow("run", "p", "--project", bench.root, "--partition", "2026-01-02", "--format", "json")
    assert [asset["asset"] for asset in json.loads(ended.out)["assets"]] == ["p/days"]


def test_a_partition_is_run_by_its_key(sqlflow, bench):
    bench.write("data/days.csv", "day,n\n2026-01-01,1\n2026-01-02,2\n2026-01-02,3\n")
    bench.write(
        "profiles/dev.yml",
        "pipelines: {p: {partitions: {every: day, start: '2026-01-01', end: '2026-01-04'}}}\n",
    )
    bench.pipeline(
        'SOURCE s TYPE CSV PARAMS {"path": "data/days.csv"};\nLOAD raw FROM s;\n'
        "CREATE TABLE days MODE INCREMENTAL BY day AS SELECT day, n FROM raw;\n"
    )
    whole = sqlflow("run", "p", "--project", bench.root)
    assert whole.status == 0, whole.err
    assert "not in this run: p/days (run by partition, name one with --partition)" in whole.err
    part = sqlflow("run", "p", "--project", bench.root, "--partition", "2026-01-02")
    assert part.status == 0, part.err
    assert "not in this run: p/raw (run without one)" in part.err
    assert bench.query("SELECT n FROM p.days ORDER BY n") == [(2,), (3,)]
    for key in ("2030-01-01", ""):  # a script's variable may be empty
        unknown = sqlflow("run", "p", "--project", bench.root, "--partition", key)
        assert unknown.status == 1
        assert f"p has no partition {key!r}; the newest one is 2026-01-03" in unknown.err


def test_two_first_runs_at_once_both_succeed(shop, start):
    shop.pipeline("CREATE TABLE a AS SELECT 1 AS x;", "other")
    runs = [start(shop, "run", name) for name in ("shop", "other")]
    for run in runs:
        _, err = run.communicate(timeout=120)
        assert run.returncode == 0, err


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_stopped_run_is_canceled_keeps_what_was_stored_and_ends_with_130(shop, start, name):
    shop.pipeline(
        f"CREATE TABLE a AS SELECT 1 AS x;\nCREATE TABLE b AS {ENDLESS} WHERE i <> (SELECT x FROM a);"
    )
    run = start(shop, "run", "p", "--format", "json")
    _wait_for_step(run, "p/a")
    run.send_signal(getattr(signal, name))
    out, err = run.communicate(timeout=60)
    assert run.returncode == 130, err
    assert "stopped" in err
    assert "stopped" in json.loads(out)["error"]
    assert shop.query("FROM p.a") == [(1,)]
    assert _statuses(shop.root / ".dagster") == ["CANCELED"]


def test_the_run_of_a_killed_process_is_marked_failed_by_the_next(shop, start):
    shop.pipeline(
        f"CREATE TABLE a AS SELECT 1 AS x;\nCREATE TABLE b AS {ENDLESS} WHERE i <> (SELECT x FROM a);"
    )
    run = start(shop, "run", "p")
    _wait_for_step(run, "p/a")
    run.kill()
    run.communicate(timeout=60)
    ended = _sqlflow(shop, "run", "shop")
    assert ended.returncode == 0, ended.stderr
    assert "its process is gone" in ended.stderr
    assert sorted(_statuses(shop.root / ".dagster")) == ["FAILURE", "SUCCESS"]


def _environment(**more):
    return {name: value for name, value in os.environ.items() if name != "DAGSTER_HOME"} | more


def _sqlflow(project, *arguments, **environment):
    command = [SQLFLOW, *arguments, "--project", project.root]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env=_environment(**environment), timeout=120
    )


def _wait_for_step(run, asset):
    """Read stderr until the asset is stored and the next step has had a moment to begin."""
    for line in run.stderr:
        if line.strip().startswith(asset):
            time.sleep(1)
            return
    raise AssertionError(f"{asset} was not stored")


def _statuses(home):
    import dagster as dg

    with dg.DagsterInstance.from_config(str(home)) as instance:
        return [run.status.value for run in instance.get_runs()]
