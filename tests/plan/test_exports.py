"""EXPORT: what a file's exports have to do with each other."""

import pytest

from sqlflow_dagster.errors import PipelineError
from sqlflow_dagster.project import load_project

SAME = [
    ('"out/a.csv"', '"out/a.csv"'),
    ('"out/a.csv"', '"./out/b/../a.csv"'),
    ('"out/${run_date}.csv"', '"out/${run_date}.csv" OPTIONS {"header": false}'),
    ('"memory://t"', '"memory://t" OPTIONS {"mode": "overwrite"}'),
    ('"duckdb://data/x.duckdb/t"', '"duckdb://data/x.duckdb/t"'),
    ('"out/a.xlsx" OPTIONS {"sheet": "one"}', '"out/a.xlsx" OPTIONS {"sheet": "two"}'),
]
OTHER = [
    ('"out/a.csv"', '"out/b.csv"'),
    ('"out/${run_id}.csv"', '"out/${run_date}.csv"'),
    ('"memory://t"', '"memory://t" OPTIONS {"mode": "append"}'),
    ('"duckdb://data/x.duckdb" OPTIONS {"table": "t"}', '"duckdb://data/x.duckdb" OPTIONS {"table": "u"}'),
]


def notices(bench, one, other):
    bench.pipeline(f"EXPORT SELECT 1 AS x TO {one};\nEXPORT SELECT 2 AS x TO {other};")
    return load_project(bench.root).plan.notices


@pytest.mark.parametrize(("one", "other"), SAME)
def test_an_export_that_replaces_what_another_has_written_is_told(bench, one, other):
    (notice,) = notices(bench, one, other)
    assert notice.startswith("pipelines/p.sf:2: this EXPORT replaces what that of line 1 writes to")


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_exports_to_other_places_or_that_add_rows_are_two(bench, one, other):
    assert not notices(bench, one, other)


WRONG = [
    (
        '"postgresql://h/d"',
        "",
        '"postgresql',
        'table: name the table, e.g. OPTIONS {"table": "mart.revenue"}',
    ),
    ('"postgresql://h/d#t"', '{"mode": "upsert"}', '{"mode', "needs the columns that name a row"),
    ('"postgresql://h/d#t"', '{"mode": "append", "keys": "id"}', '"id"', "mode `append` does not go by them"),
    ('"postgresql://h/d#t"', '{"table": "u"}', '"u"', "the target names t, and this u"),
    (
        '"postgresql://h/d#t"',
        '{"connection": "postgresql://g/d"}',
        '"postgresql://g/d"',
        "the target says where the",
    ),
    (f'"postgresql://h/d#{"x" * 64}"', "", '"postgresql', "longer than Postgres keeps"),
    (f'"mysql://h/d#{"x" * 65}"', "", '"mysql', "longer than MySQL takes"),
    ('"mysql://h/d#t"', '{"mode": "merge"}', '{"mode', "needs the columns that name a row"),
    ('"mysql://h/d"', '{"create": false}', '{"create', "table: name the table"),
    ('"mysql://h#t"', "", '"mysql', "t is in none; write `database.t`"),
    ("mart", '{"mode": "append"}', '{"mode', "table: name the table"),
    ('"duckdb://data/x.duckdb"', "", '"duckdb', "names no table"),
    ('"out/x.sqlite"', '{"table": "t", "mode": "upsert"}', '{"table', "needs the columns that name a row"),
    ('"out/t.xlsx"', '{"sheet": "a/b"}', '"a/b"', "cannot be a sheet's name"),
    ('"out/t.csv"', '{"partition_by": "d", "compression": "xz"}', '"d"', "none, gzip or zstd"),
    ('"out/t.avro.gz"', "", '"out', "Avro is compressed inside"),
    ('"out/" TYPE PARQUET', "", '"out/"', "is a folder; name a file in it"),
    ('"../t.csv"', "", '"../t.csv"', "outside the project"),
    ('"pipelines/t.csv"', '{"header": false}', '"pipelines', "one of the project's own files"),
    ('"s3://b/folder/"', '{"file_format": "csv"}', '{"file_format', "names no object"),
    ('"s3://b/t.bin"', "", '"s3', "file_format: the key 't.bin' does not say it"),
    ('"s3://b/t.csv"', '{"row_group_size": 5}', "5}", "exports of the format csv have no such"),
]


@pytest.mark.parametrize(("target", "options", "place", "message"), WRONG)
def test_what_an_export_says_wrong_by_itself_is_told_before_a_run(bench, target, options, place, message):
    bench.write(
        "profiles/dev.yml", 'connectors: {mart: {type: postgres, params: {connection: "postgresql://h/d"}}}\n'
    )
    text = f"EXPORT SELECT 1 AS id TO {target}{' OPTIONS ' + options if options else ''};"
    bench.pipeline(text)
    with pytest.raises(PipelineError) as error:
        load_project(bench.root)
    (problem,) = error.value.problems
    assert message in problem.message
    assert problem.column == text.index(place) + 1


def test_a_target_that_only_a_run_knows_is_not_refused(bench):
    bench.pipeline(
        'SET day = ${run_date};\nEXPORT SELECT 1 AS x TO "out/${run_id}/${day}.csv";\n'
        'EXPORT SELECT 1 AS x TO "postgresql://h/d#t_${run_id}";'
    )
    assert len(load_project(bench.root).exports()) == 2
