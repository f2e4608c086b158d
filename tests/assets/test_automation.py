"""The profile's schedules, sensors and partitions run the right job, once each."""

import signal
import time
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from sqlflow_dagster.assets import session
from sqlflow_dagster.assets.automation import due_partitions
from sqlflow_dagster.assets.sensors import next_key
from sqlflow_dagster.settings import Schedule

EVENTS = [{"id": n, "name": f"n{n}", "at": f"2026-01-0{1 + n // 10}T{n % 10:02}:00:00"} for n in range(30)]
INCREMENTAL = ', "sync_mode": "incremental", "cursor_field": "at"'
DAILY = "pipelines:\n  p:\n    partitions: {every: day, start: 2026-01-01}\n"
PARTITIONED = (
    "LOAD a FROM far.a;\n"
    'CREATE TABLE days MODE INCREMENTAL BY at AS SELECT "at", id FROM a;\n'
    "CREATE TABLE total AS SELECT count(*) AS n FROM days;"
)


def test_a_partition_replaces_its_range_and_moves_no_cursor(deployment):
    deployment.profile(DAILY)
    deployment.pipeline(deployment.far({"a": [EVENTS]}, INCREMENTAL) + PARTITIONED)
    for day in ("2026-01-02", "2026-01-03", "2026-01-02"):
        run = deployment.run("p_partitions", partition_key=day)
        assert run.success, run.failures
        assert run.stored == ["p/a", "p/days"]
    assert deployment.query("SELECT min(id), max(id), count(*) FROM p.days") == [(10, 29, 20)]
    assert deployment.run("p").stored == ["p/total"]
    stored = deployment.instance.run_storage.get_cursor_values({"sqlflow/v1/shop/dev/p/far.a>a"})
    assert stored == {}


def test_a_step_of_partitions_is_not_run_without_one(deployment):
    deployment.profile(DAILY)
    deployment.pipeline(deployment.far({"a": [EVENTS]}, INCREMENTAL) + "LOAD a FROM far.a;")
    run = deployment.run("p")
    assert (run.success, run.stored) == (False, [])
    assert "the run has none: name one by" in run.failures
    assert deployment.run("p", partition_key="2026-01-02").success
    assert deployment.query("SELECT count(*) FROM p.a") == [(10,)]


def test_partitioned_and_other_assets_have_jobs_of_their_own(deployment):
    deployment.profile(DAILY)
    deployment.pipeline(deployment.far({"a": [EVENTS]}, INCREMENTAL) + PARTITIONED)
    jobs = {job.name: job for job in deployment.definitions().resolve_all_job_defs()}
    assert jobs["p"].partitions_def is None
    assert jobs["p_partitions"].partitions_def is not None


@pytest.mark.parametrize(
    ("every", "start", "first"),
    [
        ("hour", "2026-01-01T06:00", ("2026-01-01T06:00", "2026-01-01T07:00")),
        ("day", "2026-01-01T06:30", ("2026-01-01T06:30", "2026-01-02T06:30")),
        ("week", "2026-01-01", ("2026-01-01T00:00", "2026-01-08T00:00")),
        ("month", "2026-01-15", ("2026-01-15T00:00", "2026-02-15T00:00")),
    ],
)
def test_the_first_partition_begins_where_the_profile_says(deployment, every, start, first):
    deployment.profile(
        f"defaults:\n  partitions: {{every: {every}, start: '{start}', timezone: Europe/Berlin}}\n"
    )
    deployment.pipeline("CREATE TABLE t MODE INCREMENTAL BY at AS SELECT now() AS at;")
    partitions = deployment.definitions().resolve_job_def("p").partitions_def
    window = partitions.get_first_partition_window()
    assert tuple(moment.strftime("%Y-%m-%dT%H:%M") for moment in (window.start, window.end)) == first
    assert str(window.start.tzinfo) == "Europe/Berlin"


@pytest.mark.parametrize(
    ("cron", "tick", "due"),
    [
        pytest.param("0 6 * * *", "2026-02-02T06:00", ["2026-02-01"], id="daily"),
        pytest.param("0 6 * * 1", "2026-02-09T06:00", [f"2026-02-0{n}" for n in range(2, 9)], id="weekly"),
        pytest.param("0 * * * *", "2026-02-02T06:00", ["2026-02-01"], id="hourly: the last one again"),
        pytest.param("@daily", "2026-02-02T00:00", ["2026-02-01"], id="at the boundary"),
        pytest.param("0 6 * * *", "2026-01-01T06:00", [], id="before the first one ended"),
        pytest.param("0 6 1 1 *", "2026-01-01T06:00", [], id="yearly"),
    ],
)
def test_a_schedule_asks_for_every_partition_that_ended_since_its_last_tick(cron, tick, due):
    partitions = dg.DailyPartitionsDefinition(start_date="2026-01-01")
    moment = datetime.fromisoformat(tick).replace(tzinfo=UTC)
    assert due_partitions(partitions, Schedule(cron=cron), moment) == due


def test_a_schedule_runs_the_pipelines_job_in_its_time_zone(deployment):
    deployment.profile(
        "pipelines:\n  p:\n    schedule: {cron: '0 6 * * *', timezone: Europe/London, enabled: false}\n"
    )
    deployment.pipeline("CREATE TABLE t AS SELECT '${run_date}' AS day;")
    (schedule,) = deployment.definitions().get_repository_def().schedule_defs
    assert (schedule.name, schedule.job_name, schedule.execution_timezone) == (
        "p_schedule",
        "p",
        "Europe/London",
    )
    assert schedule.default_status is dg.DefaultScheduleStatus.STOPPED


def test_a_scheduled_run_takes_its_date_from_the_tick_and_a_retry_from_the_first_run(deployment):
    deployment.profile("pipelines:\n  p:\n    schedule: {cron: '30 0 * * *', timezone: Europe/Berlin}\n")
    deployment.pipeline("CREATE TABLE t AS SELECT '${run_date}' AS day;")
    (schedule,) = deployment.definitions().get_repository_def().schedule_defs
    tick = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)
    context = dg.build_schedule_context(instance=deployment.instance, scheduled_execution_time=tick)
    (request,) = schedule.evaluate_tick(context).run_requests
    first = deployment.run(tags={**request.tags, ".dagster/scheduled_execution_time": tick.isoformat()})
    assert first.success
    assert deployment.query("SELECT day FROM p.t") == [("2026-03-02",)]
    session._started.clear()  # another process
    # A program that runs it again gives it no tags of the first one.
    again = deployment.run(tags={"dagster/root_run_id": first.run_id, "dagster/parent_run_id": first.run_id})
    assert again.success
    assert deployment.query("SELECT day FROM p.t") == [("2026-03-02",)]


def asked(deployment, tick: str) -> list[dg.RunRequest]:
    """What the schedule of `p` asks for at a tick, told in UTC."""
    repository = deployment.definitions().get_repository_def()
    (schedule,) = repository.schedule_defs
    context = dg.build_schedule_context(
        instance=deployment.instance,
        scheduled_execution_time=datetime.fromisoformat(tick).replace(tzinfo=UTC),
        repository_def=repository,
    )
    return list(schedule.evaluate_tick(context).run_requests or [])


def ticked(deployment, tick: str):
    """Run what the schedule of `p` asks for at a tick, as the daemon does."""
    (request,) = asked(deployment, tick)
    (schedule,) = deployment.definitions().get_repository_def().schedule_defs
    tags = {**request.tags, ".dagster/scheduled_execution_time": f"{tick}:00+00:00"}
    options = {"asset_selection": request.asset_selection} if request.asset_selection else {}
    return deployment.run(schedule.job_name, partition_key=request.partition_key, tags=tags, **options)


def test_every_partition_of_a_schedule_is_one_run(deployment):
    deployment.profile(DAILY + "    schedule: {cron: '0 6 * * 1'}\n")
    deployment.pipeline(deployment.far({"a": [EVENTS]}, INCREMENTAL) + "LOAD a FROM far.a;")
    requests = asked(deployment, "2026-01-12T06:00")
    assert [request.partition_key for request in requests] == [f"2026-01-{day:02}" for day in range(5, 12)]
    assert len({request.run_key for request in requests}) == 7


# Read whole, by partition, and whole again; each table says what its partition and its day are.
BOTH_WAYS = (
    "LOAD u FROM far.u;\n"
    "CREATE TABLE days MODE INCREMENTAL BY at AS "
    "SELECT \"at\", id, '${partition_start|none}'[:10] AS part, '${run_date}' AS day FROM u;\n"
    "CREATE TABLE total AS SELECT count(*) AS n, '${partition_start|none}' AS part, '${run_date}' AS day FROM days;\n"
    "CREATE TABLE ticks MODE APPEND AS SELECT n FROM total;\n"
    'EXPORT SELECT n FROM total TO "output/n.csv";'
)


def test_a_tick_is_one_run_in_which_each_table_comes_after_those_that_it_reads(deployment):
    berlin = "timezone: Europe/Berlin}"
    daily = DAILY.replace("}", f", {berlin}")
    deployment.profile(f"{daily}    schedule: {{cron: '30 0 * * *', {berlin}\n")
    deployment.pipeline(deployment.far({"u": [EVENTS[:15], EVENTS]}) + BOTH_WAYS)
    for tick, rows, day in (("2026-01-02T23:30", 5, "2026-01-03"), ("2026-01-03T23:30", 15, "2026-01-04")):
        run = ticked(deployment, tick)
        assert run.success, run.failures
        assert run.stored[:3] == ["p/u", "p/days", "p/total"]
        assert deployment.query("SELECT * FROM p.total") == [(rows, "none", day)]
    assert deployment.query("SELECT part, day, count(*) FROM p.days GROUP BY ALL ORDER BY ALL") == [
        ("2026-01-02", "2026-01-02", 5),
        ("2026-01-03", "2026-01-03", 10),
    ]
    assert deployment.query("SELECT n FROM p.ticks ORDER BY n") == [(5,), (15,)]
    assert (deployment.bench.root / "output/n.csv").read_text() == "n\n15\n"


def test_an_export_whose_target_says_the_partition_is_one_file_for_each(deployment):
    deployment.profile(DAILY + "    schedule: {cron: '0 6 4 * *'}\n")
    bounds = "\"at\" >= '${partition_start}' AND \"at\" < '${partition_end}'"
    exported = (
        f'EXPORT SELECT count(*) AS n FROM days WHERE {bounds} TO "output/${{partition_start}}.csv" TYPE CSV;'
    )
    deployment.pipeline(deployment.far({"u": [EVENTS]}) + BOTH_WAYS + "\n" + exported)
    run = ticked(deployment, "2026-01-04T06:00")
    assert run.success, run.failures
    output = deployment.bench.root / "output"
    files = {file.name[:10]: file.read_text() for file in output.iterdir() if file.name != "n.csv"}
    assert files == {f"2026-01-{day:02}": "n\n10\n" for day in (1, 2, 3)}
    again = deployment.run("p_partitions", partition_key="2026-01-02")
    assert again.success, again.failures
    assert len(list(output.iterdir())) == 4


@pytest.mark.parametrize(("per_run", "parts"), [(1, 3), (2, 2), ("null", 1)])
def test_all_partitions_of_a_tick_are_stored_before_what_reads_them(deployment, per_run, parts):
    daily = DAILY.replace("}", f", per_run: {per_run}}}")
    deployment.profile(daily + "    schedule: {cron: '0 6 4 * *'}\n")
    deployment.pipeline(deployment.far({"u": [EVENTS]}) + BOTH_WAYS)
    run = ticked(deployment, "2026-01-04T06:00")
    assert run.success, run.failures
    assert deployment.query("SELECT count(*), count(DISTINCT part) FROM p.days") == [(30, parts)]
    assert deployment.query("SELECT n FROM p.ticks") == [(30,)]
    assert run.metadata("p/days")["rows"] == 30
    events = run.result.get_asset_materialization_events()
    assert [event.partition for event in events if event.asset_key.path[-1] == "days"] == [
        "2026-01-01",
        "2026-01-02",
        "2026-01-03",
    ]


def test_what_reads_a_step_that_failed_is_not_stored_by_the_tick(deployment):
    deployment.profile(DAILY + "    schedule: {cron: '0 6 4 * *'}\n")
    failed = ["SourceFailed", "gone"]
    deployment.pipeline(deployment.far({"u": [EVENTS[:10], failed, EVENTS]}) + BOTH_WAYS)
    assert ticked(deployment, "2026-01-04T06:00").success
    run = ticked(deployment, "2026-02-04T06:00")
    assert (run.success, run.stored) == (False, [])
    assert deployment.query("SELECT n FROM p.ticks") == [(10,)]


def test_a_partition_that_fails_keeps_what_reads_it_from_being_stored_and_is_tried_alone(deployment):
    deployment.profile(
        DAILY + "    schedule: {cron: '0 6 4 * *'}\n    retry: {max_retries: 1, delay_seconds: 0}\n"
    )
    refused = ["SourceFailed", "no second day"]
    streams = {"a": [EVENTS, refused, refused, EVENTS, EVENTS]}
    deployment.pipeline(deployment.far(streams, INCREMENTAL) + PARTITIONED)
    first = ticked(deployment, "2026-01-04T06:00")
    assert (first.success, first.stored) == (False, [])
    assert deployment.query("SELECT id FROM p.a ORDER BY id") == [(n,) for n in range(10)]
    again = deployment.run(
        "p_all",
        tags={
            **first.result.dagster_run.tags,
            "dagster/is_resume_retry": "true",
            "dagster/parent_run_id": first.run_id,
        },
    )
    assert again.success, again.failures
    assert (again.metadata("p/a")["rows"], deployment.query("SELECT n FROM p.total")) == (30, [(30,)])


def test_before_the_first_partition_ended_a_tick_stores_what_reads_none(deployment):
    deployment.profile(DAILY + "    schedule: {cron: '0 6 * * *'}\n")
    deployment.pipeline(deployment.far({"u": [EVENTS]}) + BOTH_WAYS)
    run = ticked(deployment, "2026-01-01T06:00")
    assert run.success, run.failures
    assert run.stored == ["p/u"]
    assert ticked(deployment, "2026-01-02T06:00").success


def test_a_tick_is_run_once_by_a_daemon_that_is_killed_before_it_kept_that_it_had_begun_it(deployment):
    launch = "run_coordinator: {module: dagster._core.run_coordinator, class: DefaultRunCoordinator}\n"
    (deployment.home / "dagster.yaml").write_text("telemetry: {enabled: false}\n" + launch)
    deployment.profile(DAILY + "    schedule: {cron: '0 6 * * *'}\n")
    deployment.pipeline(
        "CREATE TABLE u AS SELECT TIMESTAMP '2026-01-02 08:00' AS at;\n"
        "CREATE TABLE days MODE INCREMENTAL BY at AS SELECT * FROM u;\n"
        "CREATE TABLE ticks MODE APPEND AS SELECT count(*) AS n FROM days;"
    )
    moments = ("2026-01-03T05:00+00:00", "2026-01-03T06:01+00:00")
    code, told = deployment.scheduler(*moments, "RUN_LAUNCHED")
    assert code == -signal.SIGKILL, told
    code, told = deployment.scheduler(*moments)
    assert code == 0, told
    deadline = time.monotonic() + 120
    while any(not run.is_finished for run in deployment.instance.get_runs()) and time.monotonic() < deadline:
        time.sleep(0.2)
    (run,) = deployment.instance.get_runs()
    assert (run.job_name, run.status, run.tags["dagster/partition"]) == (
        "p_all",
        dg.DagsterRunStatus.SUCCESS,
        "2026-01-02",
    )
    assert deployment.query("SELECT n FROM p.ticks") == [(1,)]


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_an_eager_table_waits_for_no_partition_that_nobody_stored(deployment):
    deployment.profile(DAILY + "    automation: eager\n")
    deployment.pipeline(deployment.far({"a": [EVENTS]}, INCREMENTAL) + PARTITIONED)
    total, moment, cursor = dg.AssetKey(["p", "total"]), datetime(2026, 1, 9, 6, tzinfo=UTC), None
    asked = []
    for day in (None, "2026-01-02", None, "2026-01-03"):
        if day:
            assert deployment.run("p_partitions", partition_key=day).success
        result = dg.evaluate_automation_conditions(
            deployment.definitions(), deployment.instance, evaluation_time=moment, cursor=cursor
        )
        moment, cursor = moment + timedelta(minutes=1), result.cursor
        asked.append(result.get_num_requested(total))
    assert asked == [0, 1, 0, 1]


# --- sensors

NEW_FILES = "pipelines:\n  p:\n    sensors: [{type: new_files, source: inbox, enabled: false}]\n"


def tick(deployment, name, cursor):
    (sensor,) = [s for s in deployment.definitions().get_repository_def().sensor_defs if s.name == name]
    context = dg.build_sensor_context(
        instance=deployment.instance,
        cursor=cursor,
        repository_def=deployment.definitions().get_repository_def(),
    )
    data = sensor.evaluate_tick(context)
    return [request.run_key for request in data.run_requests], data.cursor


def test_new_and_changed_files_start_one_run_each_time(deployment):
    deployment.profile(NEW_FILES)
    deployment.pipeline(
        'SOURCE inbox TYPE CSV PARAMS {"path": "data/in/*_${run_date|x}.csv"};\nLOAD t FROM inbox;'.replace(
            "_${run_date|x}", ""
        )
    )
    deployment.bench.write("data/in/a.csv", "x\n1\n")
    keys, cursor = tick(deployment, "p_inbox_new_files", None)
    assert len(keys) == 1
    # The tick died before its cursor was kept: the same run is asked for.
    assert tick(deployment, "p_inbox_new_files", None) == (keys, cursor)
    assert tick(deployment, "p_inbox_new_files", cursor) == ([], cursor)
    deployment.bench.write("data/in/b.csv", "x\n2\n")
    more, moved = tick(deployment, "p_inbox_new_files", cursor)
    assert len(more) == 1
    assert more != keys
    assert moved != cursor


def test_a_listing_that_comes_back_is_a_run_of_its_own():
    first = next_key(None, "a 1")
    second = next_key(first, "a 2")
    third = next_key(second, "a 1")
    assert len({first, second, third, next_key(third, "a 2")}) == 4
    assert next_key(third, "a 1") is None
    assert next_key("typed by hand", "a 1") == first


def test_a_folder_that_is_not_there_starts_no_run_and_fails_no_definitions(deployment):
    deployment.profile(NEW_FILES)
    deployment.pipeline('SOURCE inbox TYPE CSV PARAMS {"path": "data/none/*.csv"};\nLOAD t FROM inbox;')
    assert tick(deployment, "p_inbox_new_files", None)[0] == []


def test_tables_of_another_pipeline_start_a_run_each_time_they_are_stored(deployment):
    deployment.profile(
        "pipelines:\n  q:\n    sensors: [{type: upstream, assets: [P.T, p.u], enabled: false}]\n"
    )
    deployment.pipeline("CREATE TABLE t AS SELECT 1 AS x;\nCREATE TABLE u AS SELECT 1 AS x;")
    deployment.pipeline("CREATE TABLE v AS SELECT * FROM p.t;", "q")
    assert tick(deployment, "q_upstream", None)[0] == []
    deployment.run("p", asset_selection=[dg.AssetKey(["p", "t"])])
    keys, cursor = tick(deployment, "q_upstream", None)
    assert len(keys) == 1
    assert tick(deployment, "q_upstream", cursor)[0] == []
    deployment.run("p")
    assert len(tick(deployment, "q_upstream", cursor)[0]) == 1


def test_a_sensor_of_a_pipeline_with_partitions_only_is_refused(deployment):
    deployment.profile(DAILY + "    sensors: [{type: new_files, source: far}]\n")
    deployment.pipeline(deployment.far({"a": [EVENTS]}, INCREMENTAL) + "LOAD a FROM far.a;")
    with pytest.raises(Exception, match="does not know which partition"):
        deployment.definitions()


@pytest.mark.parametrize(
    ("sensor", "of"),
    [
        ("{type: new_files, source: far}", "the source far"),
        ("{type: upstream, assets: [q.t]}", "p that are made from q.t"),
    ],
)
def test_a_sensor_whose_tables_all_have_partitions_is_refused(deployment, sensor, of):
    deployment.profile(DAILY + f"    sensors: [{sensor}]\n")
    deployment.pipeline("CREATE TABLE t AS SELECT now() AS at;", "q")
    deployment.pipeline(
        deployment.far({"a": [EVENTS]}, INCREMENTAL)
        + "LOAD a FROM far.a;\n"
        + "CREATE TABLE b MODE INCREMENTAL BY at AS SELECT * FROM q.t;\n"
        + "CREATE TABLE total AS SELECT count(*) AS n FROM a;"
    )
    with pytest.raises(Exception, match=f"all tables of {of} are partitioned"):
        deployment.definitions()


def test_two_sensors_of_one_kind_have_names_of_their_own(deployment):
    deployment.profile(
        "pipelines:\n  q:\n    sensors: [{type: upstream, assets: [p.t]}, {type: upstream, assets: [p.t]}]\n"
    )
    deployment.pipeline("CREATE TABLE t AS SELECT 1 AS x;")
    deployment.pipeline("CREATE TABLE v AS SELECT 1 AS x;", "q")
    names = {sensor.name for sensor in deployment.definitions().get_repository_def().sensor_defs}
    assert names == {"q_upstream", "q_upstream_2"}
