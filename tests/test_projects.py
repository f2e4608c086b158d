"""Projects as people write them, run whole: many files, odd layout, environments, functions, increments."""

import json

import pytest

from sqlflow_dagster.language.render import format_script

ORDERS = (
    "id,customer_id,amount,ordered_at\n1,10,19.99,2024-01-01\n2,11,5.00,2024-01-02\n3,10,7.50,2024-01-05\n"
)


def test_staging_and_marts_over_files_from_windows(bench):
    bench.write("data/orders.csv", ORDERS)
    bench.write("data/customers.csv", "id,name,country\r\n10,Ann,DE\r\n11,Bob,US\r\n")
    bench.write(
        "pipelines/shared/sources.sf",
        '\ufeffSOURCE orders TYPE CSV PARAMS {"path":"data/orders.csv","has_header":true,};\r\n'
        'SOURCE customers TYPE CSV PARAMS {"path":"data/customers.csv"};\r\n'
        "LOAD raw_orders FROM orders;\r\n\tLOAD raw_customers FROM customers;\r\n",
    )
    bench.pipeline(
        """-- Marts of the shop
INCLUDE "shared/sources.sf";
create or replace view stg_orders as
with source as (select * from raw_orders), renamed as (
  select id as order_id, customer_id, amount, ordered_at::date as ordered_at from source)
select * from renamed;
CREATE TABLE fct_orders MODE INCREMENTAL BY ordered_at LOOKBACK 3 DAYS AS
select o.*, c.country from stg_orders o left join raw_customers c on c.id = o.customer_id;
CREATE TABLE dim_customers AS
select c.id, c.name, count(o.order_id) as orders, coalesce(sum(o.amount), 0) as spent
from raw_customers c left join fct_orders o on o.customer_id = c.id group by 1, 2;
EXPORT select * from dim_customers order by id TO "output/dim_customers.csv" TYPE CSV OPTIONS {"header": true};
"""
    )
    bench.ok()
    assert (bench.root / "output/dim_customers.csv").read_text() == (
        "id,name,orders,spent\n10,Ann,2,27.49\n11,Bob,1,5.00\n"
    )
    # One order inside the window that is read again, one before it.
    bench.write("data/orders.csv", ORDERS + "4,11,1.00,2024-01-04\n5,11,9.00,2023-12-01\n")
    bench.ok()
    assert bench.query("SELECT order_id FROM p.fct_orders ORDER BY 1") == [(1,), (2,), (3,), (4,)]


def test_an_environment_decides_what_runs(bench):
    bench.write("data/orders.csv", ORDERS)
    bench.write(
        "profiles/dev.yml",
        "variables: {environment: dev, top: 2, regions: [EU, US], out: output}\n"
        "connectors: {files: {type: csv, params: {path: data/orders.csv}}}\n",
    )
    bench.write(".env", "TOKEN=abc\nTHRESHOLD=6\n")
    bench.pipeline(
        """SET suffix = "${environment}";
SOURCE o FROM "files" OPTIONS { "has_header": true };
LOAD raw FROM o;
IF ${environment} == 'prod' AND ${THRESHOLD} > 5 THEN
  CREATE TABLE big AS SELECT * FROM raw WHERE amount > ${THRESHOLD};
ELSEIF ${environment} IN ('dev', 'test') then
  CREATE TABLE big AS SELECT * FROM raw WHERE amount > ${THRESHOLD} ORDER BY id LIMIT ${top};
  create table t_${suffix} as select '${TOKEN}' as k, ${no|'it''s'} as m, ${n|7} as n, 'a_${environment}_b' as p;
else create table never as select 1 / 0 as x;
END IF;
CREATE TABLE r AS SELECT * FROM (VALUES ('EU'), ('XX')) AS v(r) WHERE r IN (${regions});
EXPORT SELECT id FROM big ORDER BY id TO "${out}/big_${environment}_${run_date}.csv";
"""
    )
    bench.ok()
    assert bench.query("FROM p.t_dev") == [("abc", "it's", 7, "a_dev_b")]
    assert bench.query("FROM p.r") == [("EU",)]
    assert (bench.root / "output/big_dev_2026-01-02.csv").read_text() == "id\n1\n3\n"
    assert set(bench.ok(set={"environment": "prod"})) == {
        "raw",
        "big",
        "r",
        "out_big_environment_run_date_csv",
    }


def test_functions_written_for_the_first_sqlflow(bench):
    bench.write("data/orders.csv", ORDERS)
    bench.write(
        "python_udfs/money.py",
        '''"""Money."""
import pandas as pd
from sqlflow.udfs import python_scalar_udf, python_table_udf

@python_scalar_udf
def with_tax(amount: float, rate: float = 0.19) -> float:
    return None if amount is None else round(amount * (1 + rate), 2)

@python_table_udf(output_schema={"customer_id": "BIGINT", "total": "DOUBLE"}, required_columns=["amount"])
def totals(df: pd.DataFrame, *, weight: float = 1.0) -> pd.DataFrame:
    sums = df.groupby("customer_id", as_index=False)["amount"].sum().rename(columns={"amount": "total"})
    return sums.assign(total=sums["total"] * weight, seen=True)
''',
    )
    bench.pipeline(
        """SOURCE o TYPE CSV PARAMS {"path": "data/orders.csv"};
LOAD raw FROM o;
CREATE TABLE taxed AS SELECT id, PYTHON_FUNC("python_udfs.money.with_tax", amount) AS gross,
  PYTHON_FUNC("money.with_tax", amount, 0.07) AS reduced FROM raw;
CREATE TABLE totals AS SELECT t.* FROM PYTHON_FUNC("money.totals", raw, weight=2.0) AS t WHERE total > 10;
"""
    )
    bench.ok()
    assert bench.query("FROM p.taxed ORDER BY id") == [(1, 23.79, 21.39), (2, 5.95, 5.35), (3, 8.92, 8.03)]
    assert bench.query("SELECT customer_id, round(total, 2), seen FROM p.totals") == [(10, 54.98, True)]


def test_exports_between_loads_see_the_table_as_of_their_place(bench):
    bench.write("data/a.csv", "id,v\n1,a\n2,b\n")
    bench.write("data/b.csv", "v,id,extra\nB,2,x\nc,3,y\n")
    bench.pipeline(
        """SOURCE a TYPE CSV PARAMS {"path": "data/a.csv", "primary_key": "id"};
SOURCE b TYPE CSV PARAMS {"path": "data/b.csv"};
LOAD t FROM a;
EXPORT t TO "output/first.csv";
LOAD t FROM b MODE UPSERT KEY (id);
EXPORT SELECT * FROM t ORDER BY id TO "output/second.csv";
LOAD u FROM a MODE UPSERT;
CREATE TABLE log MODE APPEND AS SELECT count(*) AS n FROM t;
CREATE TABLE log MODE APPEND AS SELECT count(*) AS n FROM t;
"""
    )
    for runs in (1, 2):
        bench.ok()
        assert (bench.root / "output/first.csv").read_text() == "id,v\n1,a\n2,b\n"
        assert (bench.root / "output/second.csv").read_text() == "id,v,extra\n1,a,\n2,B,x\n3,c,y\n"
        assert bench.query("FROM p.u ORDER BY id") == [(1, "a"), (2, "b")]
        assert bench.query("SELECT count(*), min(n), max(n) FROM p.log") == [(2 * runs, 3, 3)]


COMMENTED = """-- a
/* b */ SOURCE /* c */ s -- d
TYPE /* e */ CSV PARAMS { -- f
  /* g */ "path" /* h */ : /* i */ "data/o.csv" /* j */ , -- k
  "has_header": true -- l
} /* m */ ; -- n
LOAD /* o */ t /* p */ FROM -- q
 s /* r */ MODE /* s */ UPSERT /* t */ KEY /* u */ ( /* v */ id /* w */ ) ; /* x */
CREATE /* y */ TABLE /* z */ u -- ' "
AS -- "
SELECT /* ; */ id -- ; '
, v /* TO */ FROM t -- TO 'x' ;
; -- z
EXPORT /* a */ SELECT * FROM u -- TO "no.csv";
/* TO */ TO /* b */ "output/u.csv" /* c */ TYPE /* d */ CSV /* e */ OPTIONS /* f */ { /* g */ } ;
IF /* a */ true -- THEN
THEN /* b */ CREATE TABLE w AS SELECT 1 AS x; /* c */ ELSE /* d */ END /* e */ IF /* f */ ;
-- end"""


@pytest.mark.parametrize(
    "text", [COMMENTED, format_script(COMMENTED, "p.sf")], ids=["as written", "laid out"]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["unix", "windows"])
def test_comments_may_stand_wherever_a_blank_may(bench, text, end):
    bench.write("data/o.csv", "id,v\n1,2\n")
    bench.pipeline(text.replace("\n", end))
    bench.ok()
    assert (bench.root / "output/u.csv").read_text() == "id,v\n1,2\n"
    assert bench.query("FROM p.w") == [(1,)]


def test_words_of_the_language_are_names_too(bench):
    bench.pipeline(
        '''CREATE TABLE key AS SELECT 1 AS mode, 2 AS type, 3 AS source;
CREATE TABLE mode AS SELECT mode, type FROM key;
CREATE TABLE load AS SELECT k.source AS "to" FROM key k;
CREATE OR REPLACE TABLE type MODE REPLACE AS FROM mode;
CREATE TABLE options AS SELECT 'THEN' AS "from", CASE WHEN true THEN 'END IF;' ELSE ';' END AS "end";
EXPORT options TO "output/options.csv" TYPE CSV OPTIONS {"delimiter": "|", "header": false};
EXPORT FROM key SELECT mode AS to, type AS type TO "output/key.tsv";
CREATE TABLE "Weird ""Name""" AS SELECT 1 AS "a b";
CREATE TABLE x AS SELECT "A B" FROM "weird ""name""";
'''
    )
    bench.ok()
    assert (bench.root / "output/options.csv").read_text() == "THEN|END IF;\n"
    assert (bench.root / "output/key.tsv").read_text() == "to\ttype\n1\t2\n"
    assert bench.query("FROM p.x") == [(1,)]


def test_names_beyond_ascii_are_those_that_duckdb_knows(bench):
    bench.pipeline(
        """CREATE TABLE "Maß" AS SELECT 1 AS "Größe", 2 AS "größe2", 'İ' AS "İ";
CREATE TABLE "MASS" AS SELECT * FROM "maß";
CREATE TABLE "Straße" MODE UPSERT KEY ("straße", strasse) AS
WITH "Änderung" AS (SELECT "GRöße" AS "straße", 7 AS strasse FROM "Maß") FROM "Änderung";
CREATE TABLE "ÄÖ" AS FROM "Straße";
EXPORT "maß" TO "output/maß.csv";
"""
    )
    bench.ok()
    assert bench.query('FROM p."ÄÖ"') == [(1, 7)]
    assert (bench.root / "output/maß.csv").read_text() == "Größe,größe2,İ\n1,2,İ\n"


@pytest.mark.parametrize("name", ["x.csv", "data/o.csv", "a.b.json", 'a"b', "it's.parquet", "*"])
def test_tables_may_be_called_like_files(bench, name):
    bench.write("data/o.csv", "id,v\n1,a\n")
    bench.write("data/p.csv", "id,v\n2,b\n")
    called = '"{}"'.format(name.replace('"', '""'))
    bench.pipeline(
        'SOURCE s TYPE CSV PARAMS {"path": "data/[op].csv", "sync_mode": "incremental", "primary_key": "id"};\n'
        f"LOAD {called} FROM s;\nCREATE VIEW v AS FROM {called};\n"
        f"CREATE TABLE s.{called} MODE UPSERT KEY (id) AS FROM v;\n"
    )
    bench.ok()
    bench.write("data/p.csv", "id,v\n2,c\n3,d\n")
    bench.ok()
    for schema in ("p", "s"):
        assert bench.query(f"FROM {schema}.{called} ORDER BY id") == [(1, "a"), (2, "c"), (3, "d")]


@pytest.mark.parametrize(
    "names", [{"path": "data/*"}, {"path": "data/**/*"}, {"path": "data", "pattern": "*"}], ids=str
)
def test_a_wildcard_over_the_folder_of_the_warehouse_means_the_files_beside_it(bench, names):
    bench.write("data/a.csv", "id\n1\n")
    bench.write("data/warehouse.duckdb.csv", "id\n2\n")
    bench.pipeline(f"SOURCE s TYPE CSV PARAMS {json.dumps(names)};\nLOAD t FROM s;\n")
    for _ in range(2):
        bench.write("data/warehouse.duckdb.tmp/duckdb_temp_storage_DEFAULT-0.tmp", "x")
        assert bench.ok()["t"].rows == 2
