"""A project's folder and profile become settings; what is not known is refused by name."""

import duckdb
import pytest

from sqlflow_dagster.errors import SettingsError
from sqlflow_dagster.settings import load_settings


@pytest.fixture
def project(tmp_path, monkeypatch):
    monkeypatch.delenv("SQLFLOW_PROFILE", raising=False)
    root = tmp_path / "shop"
    (root / "profiles").mkdir(parents=True)
    (root / "pipelines").mkdir()

    def write(profile: str, name: str = "dev"):
        (root / "profiles" / f"{name}.yml").write_text(profile, "utf-8")
        return root

    return write


def test_a_folder_without_any_file_runs_on_the_defaults(tmp_path):
    settings = load_settings(tmp_path)
    assert settings.environment == "dev"
    assert settings.project == tmp_path.name
    assert settings.database == tmp_path / "data/warehouse.duckdb"


def test_a_file_that_starts_with_a_byte_order_mark_is_read(project):
    root = project("﻿variables: {a: 1}\n")
    assert load_settings(root).profile.variables == {"a": 1}


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("{mode: memory}", None),
        ("{path: ':memory:'}", None),
        ("{mode: persistent, path: target/x.db}", "target/x.db"),
        ("{mode: persistent, database_path: old.db}", "old.db"),
    ],
    ids=["memory", "memory-path", "path", "old-name"],
)
def test_the_engine_says_where_the_database_is(project, engine, expected):
    root = project(f"engines: {{duckdb: {engine}}}\n")
    assert load_settings(root).database == (root / expected if expected else None)


def test_keys_that_the_first_sqlflow_never_read_are_let_be(project, caplog):
    caplog.set_level("INFO")
    profile = load_settings(
        project("variables: {a: 1}\nlogging: {level: info}\nsources: {s: {type: x}}\n")
    ).profile
    assert profile.variables == {"a": 1}
    assert "dev.yml: logging: the first SQLFlow took this key" in caplog.text


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ("variabels: {}", r"dev\.yml: variabels: unknown key; did you mean 'variables'"),
        (
            "pipelines: {a: {scheduel: {cron: '@daily'}}}",
            r"pipelines\.a\.scheduel: unknown key; did you mean 'schedule'",
        ),
        ("a: 1\na: 2", r"given twice"),
        ("- 1", r"must be a mapping"),
        ("variables: [", r"dev\.yml: "),
        ("x: !!python/object/apply:os.system ['true']", r"constructor"),
        ("a: &a [1]\nb: [*a, *a]", r"aliases"),
        ("engines: {duckdb: {threads: 0}}", r"engines\.duckdb\.threads: "),
        ("defaults: {sensors: [{type: new_file, source: a}]}", r"new_files"),
        ("pipelines: {a: {pool: the database}}", r"pipelines\.a\.pool: "),
        ("schema: Temp", r"schema: .* the schema Temp is DuckDB's own"),
        ("schema: Warehouse.DuckDB", "schema: .* is the name of a database file"),
        ("schema: _sqlflow", r"schema: .* the schema _sqlflow is the product's own"),
        ("schema: ''", r"schema: .* a schema has a name"),
        (
            "engines: {duckdb: {memory_limit: 2 gigs}}",
            r"duckdb\.memory_limit: .*'2 gigs' is no amount of memory",
        ),
        ("engines: {duckdb: {memory_limit: 50%}}", r"duckdb\.memory_limit: "),
        ("engines: {duckdb: {timezone: Mars/Phobos}}", r"duckdb\.timezone: .*'Mars/Phobos' is no time zone"),
        ("engines: {duckdb: {timezone: ''}}", r"duckdb\.timezone: "),
    ],
    ids=lambda value: value[:40],
)
def test_a_wrong_profile_is_refused_with_its_file_and_key(project, profile, message):
    with pytest.raises(SettingsError, match=message):
        load_settings(project(profile))


@pytest.mark.parametrize("text", ["512MB", "2 gb", "1.5GiB", "4g", "2 gigabytes", "1e3MB", "none"])
def test_what_duckdb_takes_for_memory_is_taken(project, text):
    engine = load_settings(project(f"engines: {{duckdb: {{memory_limit: {text}}}}}")).profile.engines.duckdb
    duckdb.connect().execute(f"SET memory_limit = '{engine.memory_limit}'")


def test_an_unknown_profile_names_those_there_are(project):
    project("", "dev")
    root = project("", "prod")
    with pytest.raises(SettingsError, match="there are dev, prod"):
        load_settings(root, "staging")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(SettingsError, match="no such folder"):
        load_settings(tmp_path / "nowhere")


def test_the_profile_is_asked_for_then_the_environments_then_the_projects(project, monkeypatch):
    root = project("")
    project("", "prod")
    project("", "ci")
    (root / "sqlflow.yml").write_text("name: shop2\nprofile: prod\n")
    assert (load_settings(root).environment, load_settings(root).project) == ("prod", "shop2")
    monkeypatch.setenv("SQLFLOW_PROFILE", "ci")
    assert load_settings(root).environment == "ci"
    assert load_settings(root, "dev").environment == "dev"


def test_a_pipeline_has_the_defaults_but_for_its_own_keys(project):
    root = project(
        "defaults: {owners: ['team:data'], retry: {max_retries: 1}}\n"
        "pipelines: {sales: {retry: {max_retries: 5}}}\n"
    )
    profile = load_settings(root).profile
    assert (profile.pipeline("sales").retry.max_retries, profile.pipeline("sales").owners) == (
        5,
        ("team:data",),
    )
    assert profile.pipeline("other").retry.max_retries == 1


def test_dotenv_values_are_kept_as_written(project):
    root = project("")
    (root / ".env").write_text("A='x ${B}'\nB=1\nC=\n")
    assert load_settings(root).dotenv == {"A": "x ${B}", "B": "1", "C": ""}


def test_a_date_is_the_text_that_was_written(project):
    root = project(
        "variables: {since: 2026-01-31}\npipelines:\n  p:\n    partitions: {start: 2026-01-01}\n"
        "    start: 2026-01-01 06:00:00\n"
    )
    profile = load_settings(root).profile
    assert profile.variables == {"since": "2026-01-31"}
    assert profile.pipelines["p"].partitions.start == "2026-01-01"
    assert profile.pipelines["p"].start == "2026-01-01 06:00:00"


@pytest.mark.parametrize("text", ["12:30:00", "10:30", "01234", "007", "-01", "08", "1:30.5"])
def test_what_hardly_anybody_means_as_a_number_stays_text(project, text):
    settings = load_settings(project(f"variables: {{a: {text}, b: [{text}], {text}: 1}}\n"))
    assert settings.profile.variables == {"a": text, "b": [text], text: 1}


def test_numbers_are_numbers(project):
    root = project(
        "variables: {a: 0, b: -5, c: 0.5, d: 10, e: 1e3, f: 0x1F}\nengines: {duckdb: {threads: 02}}\n"
    )
    profile = load_settings(root).profile
    assert profile.variables == {"a": 0, "b": -5, "c": 0.5, "d": 10, "e": "1e3", "f": 31}
    assert profile.engines.duckdb.threads == 2
