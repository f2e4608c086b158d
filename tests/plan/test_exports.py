"""EXPORT: what a file's exports have to do with each other."""

import pytest

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
