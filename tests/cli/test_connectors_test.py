"""`sqlflow connectors test`: what can be read, how it is, and an exit status for scripts."""

import pytest


@pytest.fixture
def sources(bench):
    bench.write("data/a.csv", "id\n1\n")
    bench.pipeline(
        'SOURCE good TYPE CSV PARAMS {"path": "data/a.csv"};\n'
        'SOURCE gone TYPE CSV PARAMS {"path": "data/${which|gone}.csv"};\n'
        "LOAD a FROM good;\nLOAD b FROM gone;\n"
        'EXPORT a TO "out.csv";\n'
        'EXPORT a TO sink OPTIONS {"partition_by": "id"};',
        "shop",
    )
    bench.write("sink", "a file, where a folder of partitions is to be")
    bench.write(
        "profiles/dev.yml",
        "connectors:\n  named: {type: CSV, params: {path: data/a.csv}}\n  sink: {type: CSV, params: {header: false}}\n",
    )
    return bench


def test_each_source_is_tested_and_one_that_is_not_there_is_an_exit_status(sqlflow, sources):
    result = sqlflow("connectors", "test", "--project", sources.root)
    assert result.status == 1
    assert "shop.good" in result.out
    assert "data/gone.csv" in result.out
    document = sqlflow("connectors", "test", "--project", sources.root, "--format", "json").json
    assert {row["name"]: (row["role"], row["reachable"]) for row in document} == {
        "shop.good": ("source", True),
        "shop.gone": ("source", False),
        "named": ("source", True),
        "shop.out_csv": ("target", True),
        "shop.sink": ("target", False),
    }
    (good,) = [row for row in document if row["name"] == "shop.good"]
    assert (good["type"], good["level"], good["facts"]["files"]) == ("CSV", "fine", 1)
    assert good["facts"]["seconds"] >= 0


@pytest.mark.parametrize("name", ["good", "shop.good", "SHOP.GOOD", "named", "out_csv", "shop.out_csv"])
def test_one_can_be_named(sqlflow, sources, name):
    result = sqlflow("connectors", "test", name, "--project", sources.root, "--format", "json")
    assert result.status == 0
    assert len(result.json) == 1


def test_a_variable_makes_it_another_file(sqlflow, sources):
    result = sqlflow("connectors", "test", "gone", "--project", sources.root, "--vars", "which=a")
    assert result.status == 0, result.err


def test_an_unknown_name_lists_those_there_are(sqlflow, sources):
    result = sqlflow("connectors", "test", "god", "--project", sources.root)
    assert result.status == 1
    assert "shop.good, shop.gone, named, shop.out_csv, shop.sink" in result.err


def test_targets_are_tested_also_by_the_name_of_the_profiles_connector_and_left_as_they_are(sqlflow, sources):
    result = sqlflow("connectors", "test", "sink", "--project", sources.root, "--format", "json")
    assert result.status == 1
    (row,) = result.json
    assert "is a file, and `partition_by` writes a folder" in row["message"]
    result = sqlflow("connectors", "test", "out_csv", "--project", sources.root, "--format", "json")
    assert result.json[0]["facts"]["free_bytes"] > 0
    assert not (sources.root / "out.csv").exists()


def test_a_project_without_sources_has_none_to_fail(sqlflow, shop):
    assert sqlflow("connectors", "test", "--project", shop.root).status == 0


@pytest.mark.parametrize(("type_", "suffix"), [("SQLITE", "sqlite"), ("DUCKDB", "duckdb")])
def test_a_table_or_column_that_is_not_there_is_told_before_it_is_read(sqlflow, bench, type_, suffix):
    import sqlite3

    import duckdb

    path = bench.root / f"a.{suffix}"
    with (sqlite3.connect if type_ == "SQLITE" else duckdb.connect)(str(path)) as connection:
        connection.execute("CREATE TABLE t (a INTEGER)")
    connection.close()
    sources = {
        "good": '"table": "t"', "fine": '"query": "SELECT a FROM t;"', "any": '"tables": "t*"',
        "bad": '"tables": ["t", "nix"]', "wrong": '"query": "SELECT nix FROM t"',
    }  # fmt: skip
    bench.pipeline(
        "".join(
            f'SOURCE {name} TYPE {type_} PARAMS {{"path": "a.{suffix}", {what}}};\n'
            for name, what in sources.items()
        )
    )
    result = sqlflow("connectors", "test", "--project", bench.root, "--format", "json")
    assert result.status == 1
    assert {row["name"].removeprefix("p.") for row in result.json if not row["reachable"]} == {"bad", "wrong"}
    assert all("nix" in row["message"] for row in result.json if not row["reachable"])
