"""Hard queries: each runs on a real DuckDB, and each column's inputs are known or said to be unknown."""

import duckdb
import pytest

from sqlflow_dagster.plan.lineage import column_lineage
from sqlflow_dagster.sql import TableName

STORED = """
CREATE SCHEMA p; CREATE SCHEMA q;
CREATE TABLE p.t AS SELECT 1 AS a, 2 AS b, 3 AS c;
CREATE TABLE p.u AS SELECT 1 AS a, 5 AS k, 'x' AS "Mixed Case";
CREATE TABLE p.s AS SELECT {'f': 1, 'g': 2} AS s, [1, 2] AS l, '{"x": 1}'::JSON AS j, 4 AS t;
CREATE TABLE q.t AS SELECT 9 AS z;
"""
SCHEMAS = {
    TableName("p", "t"): ["a", "b", "c"],
    TableName("p", "u"): ["a", "k", "Mixed Case"],
    TableName("p", "s"): ["s", "l", "j", "t"],
    TableName("q", "t"): ["z"],
}

# query -> output column -> inputs ("" for none, "?" for not certain)
CASES = {
    "plain": ("SELECT a, b + c AS d FROM t", {"a": "t.a", "d": "t.b t.c"}),
    "constant": ("SELECT 1 AS one, 'x' AS x FROM t", {"one": "", "x": ""}),
    "star": ("SELECT * FROM t", {"a": "t.a", "b": "t.b", "c": "t.c"}),
    "from-first": ("FROM t SELECT c", {"c": "t.c"}),
    "from-only": ("FROM t", {"a": "t.a", "b": "t.b", "c": "t.c"}),
    "table": ("TABLE u", {"a": "u.a", "k": "u.k", "Mixed Case": "u.Mixed Case"}),
    "case-insensitive": (
        'SELECT T.A, U."mixed case" AS m FROM T, U',
        {"a": "t.a", "m": "u.Mixed Case"},
    ),
    "quoted": ('SELECT "MIXED CASE" AS m FROM "U"', {"m": "u.Mixed Case"}),
    "other-schema": ("SELECT z, t2.a FROM q.t, p.t AS t2", {"z": "q.t.z", "a": "t.a"}),
    "schema-in-column": ("SELECT p.t.a, q.t.z FROM p.t, q.t", {"a": "t.a", "z": "q.t.z"}),
    "shadowing-alias": ("SELECT u.a FROM t AS u", {"a": "t.a"}),
    "join-using": (
        "SELECT a, k FROM t JOIN u USING (a)",
        {"a": "t.a", "k": "u.k"},
    ),
    "right-join-using": ("SELECT a FROM t RIGHT JOIN u USING (a)", {"a": "u.a"}),
    "full-join-using": (
        "SELECT a, t.a AS left_a FROM t FULL JOIN u USING (a)",
        {"a": "t.a u.a", "left_a": "t.a"},
    ),
    "star-using": (
        "SELECT * FROM t FULL JOIN u USING (a)",
        {"a": "t.a u.a", "b": "t.b", "c": "t.c", "k": "u.k", "Mixed Case": "u.Mixed Case"},
    ),
    "natural": (
        "SELECT * FROM t NATURAL JOIN u",
        {"a": "t.a", "b": "t.b", "c": "t.c", "k": "u.k", "Mixed Case": "u.Mixed Case"},
    ),
    "semi-join": ("SELECT * FROM t SEMI JOIN u USING (a)", {"a": "t.a", "b": "t.b", "c": "t.c"}),
    "asof": ("SELECT t.b, u.k FROM t ASOF JOIN u ON t.a >= u.a", {"b": "t.b", "k": "u.k"}),
    "positional-join": ("SELECT b, k FROM t POSITIONAL JOIN u", {"b": "t.b", "k": "u.k"}),
    "twins": ("SELECT t.a, u.a FROM t, u", {"a": "t.a", "a#2": "u.a"}),
    "twins-outside": ("SELECT a FROM (SELECT t.a, u.a FROM t, u)", {"a": "t.a"}),
    "twin-by-its-new-name": ("SELECT a_1 FROM (SELECT t.a, u.a FROM t, u)", {"a_1": "?"}),
    "cte": ("WITH x AS (SELECT a AS y FROM t) SELECT y FROM x", {"y": "t.a"}),
    "cte-columns": ("WITH x(y, z) AS (SELECT a, b FROM t) SELECT z, y FROM x", {"z": "t.b", "y": "t.a"}),
    "cte-shadows-table": ("WITH t AS (SELECT k AS a FROM u) SELECT a FROM t", {"a": "u.k"}),
    "cte-reads-its-table": ("WITH t AS (SELECT a, b FROM t) SELECT * FROM t", {"a": "t.a", "b": "t.b"}),
    "cte-inside": (
        "WITH x AS (SELECT a FROM t) SELECT (WITH x AS (SELECT k FROM u) SELECT k FROM x) AS k, a FROM x",
        {"k": "u.k", "a": "t.a"},
    ),
    "cte-beaten-by-schema": ("WITH t AS (SELECT k FROM u) SELECT a FROM p.t", {"a": "t.a"}),
    "recursive": (
        "WITH RECURSIVE r(n, m) AS (SELECT a, b FROM t UNION ALL SELECT m, n + 1 FROM r WHERE n < 3) SELECT * FROM r",
        {"n": "t.a t.b", "m": "t.a t.b"},
    ),
    "recursive-grows": (
        "WITH RECURSIVE r AS (SELECT a AS n FROM t UNION SELECT n + k FROM r, u WHERE n < 3) SELECT n FROM r",
        {"n": "t.a u.k"},
    ),
    "subquery": ("SELECT x.y FROM (SELECT a + b AS y FROM t) AS x", {"y": "t.a t.b"}),
    "subquery-columns": ("SELECT two FROM (SELECT a, b FROM t) AS x(one, two)", {"two": "t.b"}),
    "scalar-subquery": ("SELECT (SELECT max(k) FROM u WHERE u.a = t.a) AS m FROM t", {"m": "u.k"}),
    "correlated": ("SELECT (SELECT k + b FROM u) AS m FROM t", {"m": "u.k t.b"}),
    "inner-before-outer": ("SELECT (SELECT a FROM u) AS m FROM t", {"m": "u.a"}),
    "in-subquery": ("SELECT b IN (SELECT k FROM u) AS yes FROM t", {"yes": "t.b u.k"}),
    "exists": ("SELECT EXISTS (SELECT 1 FROM u WHERE u.a = t.a) AS yes, a FROM t", {"yes": "?", "a": "t.a"}),
    "array-subquery": ("SELECT ARRAY(SELECT k FROM u) AS ks FROM t", {"ks": "u.k"}),
    "lateral": (
        "SELECT b, d FROM t, LATERAL (SELECT t.c + u.k AS d FROM u) AS x",
        {"b": "t.b", "d": "t.c u.k"},
    ),
    "lateral-unsaid": ("SELECT d FROM t, (SELECT c * 2 AS d) AS x", {"d": "t.c"}),
    "unnest-in-from": ("SELECT e FROM s, unnest(s.l) AS n(e)", {"e": "s.l"}),
    "unnest-in-select": ("SELECT unnest(l) AS e, t FROM s", {"e": "?", "t": "?"}),
    "unnest-struct": ("SELECT unnest(s), t AS f2 FROM s", {"f": "?", "g": "?", "f2": "?"}),
    "ordinality": ("SELECT e, n FROM s, unnest(l) WITH ORDINALITY AS x(e, n)", {"e": "s.l", "n": ""}),
    "range": ("SELECT i, a FROM t, range(3) AS r(i)", {"i": "", "a": "t.a"}),
    "range-of-column": ("SELECT i FROM t, range(t.b) AS r(i)", {"i": "t.b"}),
    "values": ("SELECT x, y FROM (VALUES (1, 'a')) AS v(x, y)", {"x": "", "y": ""}),
    "values-alone": ("VALUES (1, 2)", {"col0": "", "col1": ""}),
    "union": ("SELECT a, b FROM t UNION ALL SELECT k, a FROM u", {"a": "t.a u.k", "b": "t.b u.a"}),
    "union-by-name": (
        "SELECT a, b FROM t UNION BY NAME SELECT k AS b, a, 'x' AS x FROM u",
        {"a": "t.a u.a", "b": "t.b u.k", "x": ""},
    ),
    "union-by-name-case": ("SELECT a FROM t UNION BY NAME SELECT k AS A FROM u", {"a": "t.a u.k"}),
    "union-by-name-star": (
        "FROM t UNION ALL BY NAME FROM u",
        {"a": "t.a u.a", "b": "t.b", "c": "t.c", "k": "u.k", "Mixed Case": "u.Mixed Case"},
    ),
    "union-in-cte": (
        "WITH x AS (SELECT a FROM t UNION BY NAME SELECT k FROM u) SELECT k, a FROM x",
        {"k": "u.k", "a": "t.a"},
    ),
    "except": ("SELECT a FROM t EXCEPT SELECT k FROM u", {"a": "t.a"}),
    "intersect": ("SELECT a FROM t INTERSECT SELECT a FROM u", {"a": "t.a u.a"}),
    "qualify": (
        "SELECT a, b FROM t QUALIFY row_number() OVER (PARTITION BY c ORDER BY b) = 1",
        {"a": "t.a", "b": "t.b"},
    ),
    "window": (
        "SELECT sum(a) FILTER (WHERE b > 0) OVER w AS x FROM t WINDOW w AS (PARTITION BY c)",
        {"x": "t.a t.b t.c"},
    ),
    "lag": ("SELECT lag(a, 1, b) OVER (ORDER BY c) AS x FROM t", {"x": "t.a t.b t.c"}),
    "aggregate-order": (
        "SELECT string_agg(a, ',' ORDER BY b) FILTER (c > 0) AS x FROM t",
        {"x": "t.a t.b t.c"},
    ),
    "count-star": ("SELECT count(*) AS n FROM t GROUP BY ALL", {"n": ""}),
    "group-by-all": ("SELECT a, sum(b) AS b FROM t GROUP BY ALL", {"a": "t.a", "b": "t.b"}),
    "unnamed": ("SELECT max(a), b FROM t GROUP BY b", {"max(a)": "t.a", "b": "t.b"}),
    "unnamed-outside": ('SELECT "max(a)" AS m FROM (SELECT max(a) FROM t)', {"m": "?"}),
    "alias-in-select": ("SELECT a + 1 AS x, x * 2 AS y FROM t", {"x": "t.a", "y": "t.a"}),
    "column-beats-alias": ("SELECT a + 1 AS b, b + 1 AS x FROM t", {"b": "t.a", "x": "t.b"}),
    "swapped": ("SELECT b AS a, a AS b FROM t", {"a": "t.b", "b": "t.a"}),
    "alias-in-subquery": ("SELECT a AS zz, (SELECT zz) AS y FROM t", {"zz": "t.a", "y": "t.a"}),
    "prefix-alias": ("SELECT x: b, y: a + 1 FROM t", {"x": "t.b", "y": "t.a"}),
    "case": ("SELECT CASE WHEN a > 1 THEN b ELSE c END AS x FROM t", {"x": "t.a t.b t.c"}),
    "cast": (
        "SELECT a::VARCHAR AS x, TRY_CAST(b AS SMALLINT) AS y FROM t",
        {"x": "t.a", "y": "t.b"},
    ),
    "between": ("SELECT a BETWEEN b AND c AS x FROM t", {"x": "t.a t.b t.c"}),
    "in-list": (
        "SELECT a IN (b, 2) AS x, a IS NULL AS y, NOT (a = b AND c > 1) AS z FROM t",
        {"x": "t.a t.b", "y": "t.a", "z": "t.a t.b t.c"},
    ),
    "exclude": ("SELECT * EXCLUDE (b) FROM t", {"a": "t.a", "c": "t.c"}),
    "exclude-qualified": (
        "SELECT * EXCLUDE (t.b, u.a) FROM t, u",
        {"a": "?", "c": "?", "k": "?", "Mixed Case": "?"},
    ),
    "replace": ("SELECT * REPLACE (b + c AS a) FROM t", {"a": "t.b t.c", "b": "t.b", "c": "t.c"}),
    "rename": ("SELECT * RENAME (a AS x) FROM t", {"x": "t.a", "b": "t.b", "c": "t.c"}),
    "table-star": (
        "SELECT u.*, b FROM t, u",
        {"a": "u.a", "k": "u.k", "Mixed Case": "u.Mixed Case", "b": "t.b"},
    ),
    "columns-star": ("SELECT COLUMNS(*) FROM t", {"a": "t.a", "b": "t.b", "c": "t.c"}),
    "columns-regex": ("SELECT COLUMNS('a|b') FROM t", {"a": "?", "b": "?"}),
    "columns-in-function": ("SELECT max(COLUMNS(*)) FROM t", {"a": "?", "b": "?", "c": "?"}),
    "star-like": ("SELECT * LIKE 'a%' FROM t", {"a": "?"}),
    "struct-field": ("SELECT s.s.f AS one, s['g'] AS two FROM s", {"one": "s.s", "two": "s.s"}),
    "struct-field-bare": ("SELECT x.y.f AS f FROM (SELECT s AS y FROM s) AS x", {"f": "s.s"}),
    "field-or-column": ("SELECT a.f FROM (SELECT s AS a, t AS f FROM s) AS a", {"f": "s.t"}),
    "struct-star": ("SELECT y.* FROM (SELECT s AS y FROM s) AS x", {"f": "?", "g": "?"}),
    "whole-row": ("SELECT t FROM t", {"t": "t.a t.b t.c"}),
    "row-or-column": ("SELECT t FROM s AS t", {"t": "s.t"}),
    "json-arrow": ("SELECT j -> 'x' AS x, j ->> '$.x' AS y FROM s", {"x": "s.j", "y": "s.j"}),
    "lambda": ("SELECT list_transform(l, lambda a: a + t) AS x FROM s", {"x": "s.l s.t"}),
    "lambda-shadows": ("SELECT list_transform(l, lambda t: t + 1) AS x FROM s", {"x": "s.l"}),
    "lambda-or-table": (
        "SELECT list_transform(l, lambda t: t.b) AS x, list_transform([s.s], lambda u: u.f) AS y FROM s, t",
        {"x": "?", "y": "s.s"},
    ),
    "comprehension": ("SELECT [t + e FOR e IN l IF e > 1] AS x FROM s", {"x": "s.l s.t"}),
    "method": ("SELECT b.upper() AS x FROM (SELECT b::VARCHAR AS b FROM t)", {"x": "?"}),
    "position": ("SELECT #2 AS x FROM t", {"x": "t.b"}),
    "bare-function": ("SELECT current_date AS d, a FROM t", {"d": "", "a": "t.a"}),
    "row-id": ("SELECT rowid AS r FROM t", {"r": "?"}),
    "pivot": ("PIVOT t ON b USING sum(c) GROUP BY a", {"a": "?", "2": "?"}),
    "unpivot": ("UNPIVOT t ON b, c INTO NAME n VALUE v", {"a": "?", "n": "?", "v": "?"}),
    "describe": ("SELECT column_name FROM (DESCRIBE t)", {"column_name": "?"}),
    "distinct-on": ("SELECT DISTINCT ON (a) b FROM t ORDER BY c", {"b": "t.b"}),
    "sample": ("SELECT a FROM t TABLESAMPLE 100%", {"a": "t.a"}),
    "macro-like": (
        "SELECT coalesce(a, b, 0) AS x, greatest(b, c) AS y FROM t",
        {"x": "t.a t.b", "y": "t.b t.c"},
    ),
    "dollar-quotes": ("SELECT $$ a from t $$ AS x, a FROM t -- b\n", {"x": "", "a": "t.a"}),
    "unicode": ("SELECT a AS \"ÿ\", 'é' || b AS x FROM t", {"ÿ": "t.a", "x": "t.b"}),
    "deep": (
        """WITH x AS (SELECT *, a + b AS ab FROM t), y AS (SELECT * EXCLUDE (c), k FROM x JOIN u USING (a))
        SELECT ab + k AS n, y.b FROM y WHERE b > 0""",
        {"n": "t.a t.b u.k", "b": "t.b"},
    ),
}


@pytest.fixture(scope="module")
def stored():
    with duckdb.connect() as connection:
        connection.execute(STORED)
        connection.execute("SET search_path = 'p'")
        yield connection


def shown(lineage):
    if lineage.inputs is None:
        return "?"
    return {f"{table.name if table.schema == 'p' else table}.{column}" for table, column in lineage.inputs}


def wanted(text):
    if text == "?":
        return "?"
    return {part.replace("\x00", " ") for part in text.replace("Mixed Case", "Mixed\x00Case").split()}


@pytest.mark.parametrize(("sql", "expected"), CASES.values(), ids=CASES)
def test_inputs_are_right_or_said_to_be_unknown(stored, sql, expected):
    columns = [column[0] for column in stored.execute(sql).description]
    lineage = column_lineage(sql, SCHEMAS, ["p"], columns)
    assert [item.column for item in lineage] == columns
    assert [name.split("#")[0].casefold() for name in expected] == [name.casefold() for name in columns]
    assert [shown(item) for item in lineage] == [wanted(text) for text in expected.values()]


UNKNOWN = {
    "one-table": ("SELECT a, x.b FROM t AS x", {"a": "t.a", "b": "t.b"}),
    "alias-may-be-a-column": ("SELECT a AS x, x AS y FROM t", {"x": "t.a", "y": "?"}),
    "two-tables": ("SELECT a, t.b FROM t, u", {"a": "?", "b": "t.b"}),
    "outer-or-inner": ("SELECT (SELECT k FROM u) AS m FROM t", {"m": "?"}),
    "natural": ("SELECT b FROM t NATURAL JOIN u", {"b": "?"}),
    "bare-function": ("SELECT current_date AS d FROM t", {"d": "?"}),
    "no-such-table": ("SELECT a FROM elsewhere", {"a": "?"}),
    "file": ("SELECT a FROM 'x.csv'", {"a": "?"}),
    "function": ("SELECT a FROM read_csv('x.csv')", {"a": "?"}),
    "python": ('SELECT a FROM PYTHON_FUNC("m.f", t)', {"a": "?"}),
    "catalog": ("SELECT a FROM other.p.t", {"a": "?"}),
}


@pytest.mark.parametrize(("sql", "expected"), UNKNOWN.values(), ids=UNKNOWN)
def test_without_the_columns_of_a_table_only_what_is_certain_is_said(sql, expected):
    lineage = column_lineage(sql, {TableName("p", "t"): None, TableName("p", "u"): None}, ["p"])
    assert {item.column: shown(item) for item in lineage} == {k: wanted(v) for k, v in expected.items()}


def test_a_python_functions_inputs_are_its_arguments_and_not_its_names():
    sql = "SELECT PYTHON_FUNC(\"m.f\", a + b, k=c) AS x, PYTHON_FUNC('m.g', 1) AS y FROM t"
    lineage = column_lineage(sql, SCHEMAS, ["p"])
    assert [shown(item) for item in lineage] == [wanted("t.a t.b t.c"), wanted("")]


def test_a_star_over_unknown_columns_leaves_every_column_unknown():
    lineage = column_lineage("SELECT *, 1 AS a FROM t", {TableName("p", "t"): None}, ["p"], ["x", "a"])
    assert [(item.column, item.inputs) for item in lineage] == [("x", None), ("a", None)]


@pytest.mark.parametrize(
    ("sql", "columns", "expected"),
    [
        ("SELECT b AS y, a AS x FROM t", ["x", "Y"], ["t.a", "t.b"]),
        ("SELECT a AS x FROM t", ["gone", "x"], ["?", "t.a"]),
        ("SELECT count(*), a AS x FROM t", ["x", "count_star()"], ["t.a", "?"]),
    ],
    ids=["order", "gone", "unnamed"],
)
def test_a_table_that_was_there_before_has_its_columns_by_name(sql, columns, expected):
    lineage = column_lineage(sql, SCHEMAS, ["p"], columns)
    assert [shown(item) for item in lineage] == [wanted(text) for text in expected]


def test_what_does_not_parse_has_no_lineage():
    assert column_lineage("SELEC 1", {}, []) == ()
    assert [item.inputs for item in column_lineage("SELEC 1", {}, [], ["a"])] == [None]


OTHER_VALUES = {
    ("p", "t", "a"): "a + 1000",
    ("p", "t", "b"): "b + 1000",
    ("p", "t", "c"): "c + 1000",
    ("p", "u", "a"): "a + 1000",
    ("p", "u", "k"): "k + 1000",
    ("p", "u", "Mixed Case"): "'other'",
    ("p", "s", "s"): "{'f': 1001, 'g': 1002}",
    ("p", "s", "l"): "[1001, 1002]",
    ("p", "s", "j"): """'{"x": 1001}'""",
    ("p", "s", "t"): "t + 1000",
    ("q", "t", "z"): "z + 1000",
}


# Where a WHERE stands, values also change because other rows are taken.
BY_VALUE = {
    name: case[0] for name, case in CASES.items() if "WHERE" not in case[0] and "PIVOT" not in case[0]
}


@pytest.mark.parametrize("sql", BY_VALUE.values(), ids=BY_VALUE)
def test_a_column_that_follows_a_stored_one_names_it(stored, sql):
    """Tables have one row each, so that a query with as many rows as before differs by values only."""
    before = stored.execute(sql)
    columns = [column[0] for column in before.description]
    before = before.fetchall()
    lineage = column_lineage(sql, SCHEMAS, ["p"], columns)
    for (schema, table, name), value in OTHER_VALUES.items():
        stored.execute("BEGIN")
        stored.execute(f'UPDATE {schema}.{table} SET "{name}" = {value}')
        after = stored.execute(sql).fetchall()
        stored.execute("ROLLBACK")
        if len(before) != len(after):
            continue
        for item, old, new in zip(lineage, zip(*before, strict=True), zip(*after, strict=True), strict=True):
            if sorted(map(str, old)) != sorted(map(str, new)):
                assert item.inputs is None or (TableName(schema, table), name) in item.inputs
