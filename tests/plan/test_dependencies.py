"""Which tables a query reads: what DuckDB's binder would look up, and nothing else."""

import duckdb
import pytest

from sqlflow_dagster.plan.dependencies import reads
from sqlflow_dagster.plan.lineage import column_lineage
from sqlflow_dagster.plan.syntax import syntax_trees
from sqlflow_dagster.sql import TableName

# query -> the stored tables it reads, in order
CASES = {
    "comma-join": ("SELECT * FROM a, s.b", "a s.b"),
    "from-first": ("FROM a SELECT x", "a"),
    "quoted": ('SELECT * FROM "My T" JOIN "s s"."b.c" USING (x)', "My|T s|s.b.c"),
    "cte": ("WITH x AS (SELECT * FROM a) SELECT * FROM x JOIN b USING (i)", "a b"),
    "cte-any-case": ("WITH X AS (FROM a) FROM x", "a"),
    "cte-reads-its-own-name": ("WITH a AS (SELECT * FROM a) SELECT * FROM a", "a"),
    "cte-qualified-is-stored": ("WITH a AS (SELECT 1) SELECT * FROM s.a", "s.a"),
    "cte-later-is-not-seen": ("WITH x AS (FROM y), y AS (SELECT 1) FROM x, y", "y"),
    "cte-earlier-is-seen": ("WITH y AS (SELECT 1), x AS (FROM y) FROM x", ""),
    "cte-inner-scope": ("WITH c AS (FROM d) SELECT * FROM (WITH c AS (FROM e) FROM c), c", "d e"),
    "cte-ends-with-its-query": ("SELECT * FROM (WITH c AS (FROM e) FROM c), c", "e c"),
    "cte-in-subquery": ("WITH c AS (FROM d) SELECT (SELECT max(x) FROM c), * FROM f", "d f"),
    "recursive": ("WITH RECURSIVE r AS (SELECT 1 AS n UNION ALL SELECT n FROM r, b) FROM r", "b"),
    "recursive-starts-from-its-namesake": (
        "WITH RECURSIVE r AS (SELECT n FROM r UNION ALL SELECT n + 1 FROM r WHERE n < 3) FROM r",
        "r",
    ),
    "recursive-word-without-recursion": ("WITH RECURSIVE r AS (SELECT * FROM r) FROM r", "r"),
    "scalar-subquery": ("SELECT (SELECT max(x) FROM u WHERE u.i = t.i) FROM t", "u t"),
    "exists-and-in": ("FROM t WHERE EXISTS (FROM v) AND k IN (FROM w SELECT k)", "t v w"),
    "subquery-in-case": ("SELECT CASE WHEN (SELECT count(*) FROM q) > 1 THEN 1 END FROM t", "q t"),
    "subquery-in-order-and-limit": ("FROM t ORDER BY (FROM o) LIMIT (SELECT n FROM l)", "o l t"),
    "having-and-qualify": (
        "SELECT a FROM t GROUP BY a HAVING sum(b) > (FROM h) QUALIFY row_number() OVER () < (FROM q)",
        "t h q",
    ),
    "lateral": ("FROM t, LATERAL (SELECT * FROM l WHERE l.x = t.x)", "t l"),
    "union-by-name": ("SELECT * FROM a UNION BY NAME SELECT * FROM b EXCEPT FROM c", "a b c"),
    "values": ("VALUES (1), ((SELECT max(x) FROM a))", "a"),
    "table": ("TABLE s.a", "s.a"),
    "pivot": ("PIVOT sales ON year USING sum(amount)", "sales"),
    "pivot-in-from": ("SELECT * FROM (PIVOT s.sales ON y, m USING sum(z) GROUP BY a) JOIN k USING (a)", "s.sales k"),
    "pivot-of-a-query": ("PIVOT (SELECT * FROM a JOIN b USING (i)) ON y USING sum(z)", "a b"),
    "pivot-in-cte": ("WITH p AS (PIVOT a ON b USING count(*)) SELECT * FROM p, c", "a c"),
    "pivot-standard": ("FROM t PIVOT (sum(z) FOR y IN ('a', 'b'))", "t"),
    "unpivot": ("UNPIVOT m ON a, b INTO NAME n VALUE v", "m"),
    "asof-positional-semi": ("FROM a ASOF JOIN b USING (k) POSITIONAL JOIN c SEMI JOIN d USING (k)", "a b c d"),
    "describe": ("DESCRIBE t", "t"),
    "summarize": ("SUMMARIZE SELECT * FROM t", "t"),
    "sample": ("FROM t TABLESAMPLE 10%", "t"),
    "columns": ("SELECT COLUMNS(c -> c LIKE 'a%') FROM t", "t"),
    "table-function": ("FROM range(10) AS r(i), unnest([1]), generate_series(1, 2)", ""),
    "file-function": ("FROM read_csv('data/x.csv'), read_parquet(['a.parquet'])", ""),
    "file-name": ("FROM 'data/x.csv', 'y.parquet', 's3://b/z.json.gz'", ""),
    "information-schema": ("FROM information_schema.tables", "information_schema.tables"),
    "string-and-comment": ("SELECT 'FROM hidden', $$ FROM h $$ FROM t -- FROM c\n/* FROM d */", "t"),
    "python-table": ('SELECT * FROM PYTHON_FUNC("m.f", a, s.b, k=v)', "a s.b"),
    "python-of-cte": ('WITH c AS (FROM a) SELECT * FROM PYTHON_FUNC("m.f", c)', "a"),
    "python-of-query": ('SELECT * FROM PYTHON_FUNC("m.f", (SELECT * FROM a), 3)', "a"),
    "python-scalar": ("SELECT PYTHON_FUNC(\"m.f\", x, 'b') FROM t", "t"),
    "unicode": ("SELECT 'é', \"ü\" FROM \"größe\"", "größe"),
    "at-version": ("FROM t AT (VERSION => 3)", "t"),
    "twice": ("FROM a, a AS b", "a a"),
}  # fmt: skip


@pytest.mark.parametrize(("sql", "tables"), CASES.values(), ids=CASES)
def test_a_query_reads_these_tables(sql, tables):
    (tree,) = syntax_trees([sql])
    assert not tree.error
    found = [
        f"{ref.schema}.{ref.name}" if ref.schema else ref.name for ref in reads(tree.statements[0]).tables
    ]
    assert sorted(found) == sorted(text.replace("|", " ") for text in tables.split())


@pytest.mark.parametrize(("sql", "tables"), CASES.values(), ids=CASES)
def test_a_table_is_found_where_it_stands(sql, tables):
    (tree,) = syntax_trees([sql])
    for ref in reads(tree.statements[0]).tables:
        offset = tree.offset(ref.position)
        assert (
            sql[offset:]
            .replace('"', "")
            .casefold()
            .startswith(f"{ref.schema}.{ref.name}".lstrip(".").casefold())
        )


@pytest.mark.parametrize("function", ["query('FROM t')", "query_table('t')", "QUERY_TABLE(['a', 'b'])"])
def test_a_function_that_hides_what_it_reads_is_named(function):
    (tree,) = syntax_trees([f"SELECT * FROM {function}"])
    assert [hidden.function for hidden in reads(tree.statements[0]).hidden] == [
        function.partition("(")[0].lower()
    ]


def answer(connection, sql):
    try:
        connection.execute(sql)
    except duckdb.Error as error:  # columns, files and versions are made up; tables must not be missing
        return str(error)
    return ""


@pytest.mark.parametrize(
    "sql",
    [c[0] for c in CASES.values() if "PYTHON" not in c[0]],
    ids=[k for k, c in CASES.items() if "PYTHON" not in c[0]],
)
def test_duckdb_asks_for_no_other_table(sql, tmp_path):
    (tree,) = syntax_trees([sql])
    with duckdb.connect() as connection:
        for ref in reads(tree.statements[0]).tables:
            if ref.schema == "information_schema":
                continue
            schema = ref.schema or "main"
            connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            connection.execute(f'CREATE TABLE IF NOT EXISTS "{schema}"."{ref.name}" AS SELECT 1 AS unlikely')
        assert "Table with name" not in answer(connection, f"EXPLAIN {sql}")


def test_what_is_no_query_is_said_to_be_none():
    trees = syntax_trees(["INSERT INTO t VALUES (1)", "SELECT 1; SELECT 2", "SELEC 1", "PIVOT", "x" * 3])
    assert [tree.not_a_query for tree in trees] == [True, False, False, False, False]
    assert len(trees[1].statements) == 2
    assert all(tree.error for tree in trees[2:])


def test_a_place_counts_code_points_and_not_bytes_or_what_was_put_in():
    (tree,) = syntax_trees(["WITH x AS (PIVOT s ON é USING sum(c)) SELECT 'ü' frm x wher"])
    assert tree.sql[tree.wrong_at :] == "x wher"


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT " + "x + " * 900 + "x AS y FROM t",
        "SELECT " + "CASE WHEN x = 1 THEN " * 300 + "1" + " END" * 300 + " FROM t",
    ],
    ids=["sum", "case"],
)
def test_a_query_may_nest_as_deep_as_duckdb_reads(sql):
    assert [ref.name for ref in reads(syntax_trees([sql])[0].statements[0]).tables] == ["t"]
    (column,) = column_lineage(sql, {TableName("main", "t"): ("x",)}, ("main",), ("y",))
    assert column.inputs == ((TableName("main", "t"), "x"),)
