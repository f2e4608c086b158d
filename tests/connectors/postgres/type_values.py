"""Values of every type of Postgres: a usual one, and those at the edges of what the type holds.

Each value is an expression of SQL that is cast to the type. `as_text` are values that DuckDB's type for
it cannot hold: a load refuses them unless the column is declared as VARCHAR, and then they too go and come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Values(NamedTuple):
    """What goes there and back of one type."""

    kind: str
    usual: str
    extreme: tuple[str, ...]
    as_text: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """A part of the page: types, and what has to be made before them."""

    title: str
    types: tuple[Values, ...]
    made: tuple[str, ...] = ()
    arrays: bool = True


_LONGEST = "(repeat('9', 131072) || '.' || repeat('9', 16383))"
_ODD = "E'\\n\\t\\r\\\\N \\'\"{},()\\u00e9\\U0001F600\\x7f'"

BUILT_IN = Part(
    "Built-in types",
    (
        Values("bool", "'true'", ("'false'",)),
        Values("int2", "7", ("-32768", "32767")),
        Values("int4", "7", ("-2147483648", "2147483647")),
        Values("int8", "7", ("'-9223372036854775808'", "'9223372036854775807'")),
        Values("float4", "1.5", ("'-3.4028235e38'", "'1e-45'", "'-0'", "'NaN'", "'Infinity'", "'-Infinity'")),
        Values("float8", "1.5", ("'-1.7976931348623157e308'", "'5e-324'", "'-0'", "'NaN'", "'Infinity'", "'-Infinity'")),
        Values("numeric", "1.50", (_LONGEST, "'1e-16383'", "'NaN'", "'Infinity'", "'-Infinity'")),
        Values("numeric(12,2)", "-1234567890.12", ("9999999999.99", "0"), ("'NaN'",)),
        Values("numeric(38,10)", "1.5", ("'-9999999999999999999999999999.9999999999'",), ("'NaN'",)),
        Values("numeric(38,0)", "1", ("'-99999999999999999999999999999999999999'",), ("'NaN'",)),
        Values("numeric(39,1)", "1.5", ("'-99999999999999999999999999999999999999.9'", "'NaN'")),
        Values("numeric(1000,999)", "1.5", ("'-9.' || repeat('9', 999)", "'NaN'")),
        Values("numeric(3,-2)", "12300", ("-99900",), ("'NaN'",)),
        Values("numeric(2,4)", "0.0012", ("-0.0099",), ("'NaN'",)),
        Values("money", "12.34", ("'-92233720368547758.08'", "'92233720368547758.07'")),
        Values("text", "'a'", ("''", _ODD, "'NULL'", "repeat('\u00e9', 100000)")),
        Values("varchar", "'a'", ("''", _ODD)),
        Values("varchar(5)", "'a'", ("''", "'abcde'", "'  a  '")),
        Values("bpchar", "'a'", ("''", _ODD)),
        Values("char(5)", "'a'", ("''", "'abcde'", "'  a  '")),
        Values('"char"', "'a'", ("''", "'\\200'")),
        Values("name", "'a'", ("''", "repeat('x', 63)")),
        Values("bytea", "'\\x6162'", ("''", "'\\x00ff5c2722'", "decode(repeat('00', 100000), 'hex')")),
        Values("date", "'2024-02-29'", ("'4713-01-01 BC'", "'0001-12-31 BC'", "'5874897-12-31'", "'infinity'", "'-infinity'")),
        Values("time", "'12:34:56.789012'", ("'00:00'", "'24:00'", "'23:59:59.999999'")),
        Values("time(0)", "'12:34:56'", ("'24:00'",)),
        Values("timetz", "'12:34:56.789-07:30'", ("'00:00+15:59:59'", "'24:00-15:59:59'")),
        Values(
            "timestamp", "'2024-02-29 23:59:59.999999'",
            ("'4713-01-01 00:00 BC'", "'0044-03-15 12:00 BC'", "'294246-12-31 23:59:59.999999'", "'infinity'", "'-infinity'"),
            ("'294276-12-31 23:59:59.999999'",),
        ),
        Values(
            "timestamptz", "'2024-03-31 02:30:00.000001+02'",
            ("'4713-01-01 00:00+00 BC'", "'0044-03-15 12:00+00 BC'", "'294246-12-31 23:59:59.999999+00'", "'infinity'", "'-infinity'"),
            ("'294276-12-31 23:59:59.999999+00'",),
        ),
        Values("timestamp(3)", "'2024-02-29 23:59:59.999'", ("'0044-03-15 12:00:00.001 BC'",)),
        Values("interval", "'1 year 2 days 03:04:05.6'", (
            "'-178000000 years -5 days -3:04:05.000001'", "'178000000 years'", "'2147483647 days'", "'-00:00:00.000001'",
            "'1 mon -1 day'",
        )),
        Values("interval day to second(0)", "'2 days 03:04:05'", ("'-2 days'",)),
        Values("uuid", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'", (
            "'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
        )),
        Values("json", """'{"b":  1, "b": 2}'""", (
            "'null'", "' 1e400 '", """'"\\u0000"'""", "repeat('[', 500) || repeat(']', 500)",
        )),
        Values("jsonb", """'{"n": 0.10, "u": "\\u00e9"}'""", (
            "'null'", "'1e400'", "'\"\"'", "repeat('[', 500) || repeat(']', 500)",
        )),
        Values("jsonpath", "'$.a[*] ? (@ > 1)'", ("""'strict $."a b"'""",)),
        Values("inet", "'192.168.0.1'", ("'192.168.0.1/24'", "'::/0'", "'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'")),
        Values("cidr", "'192.168.0.0/16'", ("'0.0.0.0/0'", "'::1/128'", "'10.0.0.1/32'")),
        Values("macaddr", "'08:00:2b:01:02:03'", ("'ff:ff:ff:ff:ff:ff'",)),
        Values("macaddr8", "'08:00:2b:ff:fe:01:02:03'", ("'ff:ff:ff:ff:ff:ff:ff:ff'",)),
        Values("bit(3)", "B'101'", ("B'000'",)),
        Values("bit(1000)", "repeat('01', 500)", ("repeat('1', 1000)",)),
        Values("varbit", "B'101'", ("B''", "repeat('01', 5000)")),
        Values("tsvector", "'a b:3A'", ("''", "'''it''''s'':1A,2B,16383'")),
        Values("tsquery", "'a & !b <3> c:*'", ("''", "'''it''''s'' | b'")),
        Values("pg_lsn", "'16/B374D848'", ("'0/0'", "'FFFFFFFF/FFFFFFFF'")),
        Values("point", "'(1.1,-2)'", ("'(NaN,Infinity)'", "'(5e-324,-1.7976931348623157e308)'")),
        Values("line", "'{1,2,3}'", ("'{-1,0,5e-324}'",)),
        Values("lseg", "'[(1,2),(3,4)]'", ("'[(Infinity,0),(0,-0)]'",)),
        Values("box", "'(3,4),(1,2)'", ("'(Infinity,4),(-Infinity,2)'",)),
        Values("path", "'((1,2),(3,4))'", ("'[(0.1,0.2),(1e-300,4)]'",)),
        Values("polygon", "'((1,2),(3,4))'", ("'((0.1,0.30000000000000004))'",)),
        Values("circle", "'<(1,2),3>'", ("'<(-1e300,0),Infinity>'",)),
        Values("int4range", "'[1,5)'", ("'empty'", "'(,)'", "'[2147483646,2147483647)'")),
        Values("int8range", "'[1,5)'", ("'empty'", "'[-9223372036854775808,)'")),
        Values("numrange", "'(1.0,1.50]'", ("'empty'", "'[NaN,NaN]'", "'(-Infinity,1e200)'")),
        Values("daterange", "'[2024-01-01,2024-02-01)'", ("'empty'", "'[-infinity,infinity]'", "'[4713-01-01 BC,)'")),
        Values("tsrange", "'[2024-01-01 00:00,)'", ("'empty'", "'[-infinity,294276-12-31 23:59:59.999999]'")),
        Values("tstzrange", "'[2024-01-01 00:00+00,)'", ("'empty'", "'(0044-03-15 12:00+00 BC,infinity)'")),
        Values("int4multirange", "'{[1,5),[7,9)}'", ("'{}'", "'{(,)}'")),
        Values("int8multirange", "'{[1,5),[7,9)}'", ("'{}'", "'{(,)}'")),
        Values("nummultirange", "'{(1.0,1.50]}'", ("'{}'", "'{(,NaN]}'")),
        Values("datemultirange", "'{[2024-01-01,2024-02-01)}'", ("'{}'", "'{[-infinity,infinity]}'")),
        Values("tsmultirange", "'{[2024-01-01 00:00,)}'", ("'{}'", "'{[-infinity,infinity]}'")),
        Values("tstzmultirange", "'{[2024-01-01 00:00+00,)}'", ("'{}'", "'{[-infinity,infinity]}'")),
        Values("oid", "7", ("0", "4294967295")),
        Values("xid", "'7'", ("'4294967295'",)),
        Values("xid8", "'7'", ("'18446744073709551615'",)),
        Values("cid", "'7'", ("'4294967295'",)),
        Values("tid", "'(1,2)'", ("'(4294967295,65535)'",)),
        Values("pg_snapshot", "'10:20:10,14,15'", ("'1:1:'",)),
        Values("txid_snapshot", "'10:20:10,14,15'", ("'1:1:'",)),
        Values("aclitem", "'=r/postgres'", ("'postgres=arwdDxt*/postgres'",)),
        Values("refcursor", "'c'", ("''",)),
        Values("regclass", "'pg_class'", ("'-'", "'4294967295'")),
        Values("regcollation", "'\"C\"'", ("'-'",)),
        Values("regconfig", "'english'", ("'-'",)),
        Values("regdictionary", "'simple'", ("'-'",)),
        Values("regnamespace", "'pg_catalog'", ("'-'",)),
        Values("regoper", "'||/'", ("'0'",)),
        Values("regoperator", "'+(integer,integer)'", ("'0'",)),
        Values("regproc", "'now'", ("'-'",)),
        Values("regprocedure", "'sum(integer)'", ("'-'",)),
        Values("regrole", "'postgres'", ("'-'",)),
        Values("regtype", "'integer'", ("'-'", "'character varying[]'")),
    ),
)  # fmt: skip

# Of these no value can be written: Postgres keeps them in its catalogue and its indexes.
NOBODYS = frozenset(
    {
        "gtsvector", "pg_brin_bloom_summary", "pg_brin_minmax_multi_summary", "pg_dependencies", "pg_mcv_list",
        "pg_ndistinct", "pg_node_tree",
    }
)  # fmt: skip

OWN = Part(
    "Types that users and extensions make",
    (
        Values("mood", "'so so'", ("''", "'a \"b\" {c},\\'")),
        Values("positive", "7", ("2147483647",)),
        Values("cents", "1.25", ("-99999999.99",), ("'NaN'",)),
        Values("few", "'{1,2}'", ("'{}'", "'{NULL}'")),
        Values(
            "pair", "ROW(1, 'a')", ("ROW(NULL, NULL)", "ROW(-2147483648, 'a \"b\" (c),\\')", "ROW(0, '')")
        ),
        Values("nested", "ROW(ROW(1, 'a'), ARRAY['x', NULL], '1.50')", ("ROW(NULL, '{}', 'NaN')",)),
        Values("floats", "'[1.5,2)'", ("'empty'", "'[-Infinity,Infinity]'")),
        Values("vector", "'[1,2.5]'", ("'[-3.4028235e+38,1e-45]'",)),
    ),
    (
        "CREATE EXTENSION vector",
        "CREATE TYPE mood AS ENUM ('', 'so so', 'a \"b\" {c},\\')",
        "CREATE DOMAIN positive AS int4 CHECK (VALUE > 0)",
        "CREATE DOMAIN cents AS numeric(10,2)",
        "CREATE DOMAIN few AS int4[] CHECK (cardinality(VALUE) < 3)",
        "CREATE TYPE pair AS (a int, b text)",
        "CREATE TYPE nested AS (p pair, list text[], n numeric)",
        "CREATE TYPE floats AS RANGE (subtype = float8)",
    ),
)

ARRAYS = Part(
    "Arrays of several dimensions, and with other first indexes",
    (
        Values("int4[][]", "'{{1,2},{3,NULL}}'", ("'{}'", "'[0:1][2:3]={{1,2},{3,4}}'")),
        Values("int4[]", "'{1}'", ("'{}'", "'{NULL}'"), ("'{{1,2},{3,4}}'", "'[5:6]={1,2}'")),
        Values("text[][][]", "'{{{a,NULL}}}'", ("""'{{{"NULL"},{""}},{{"{,}"},{"\\"\\\\"}}}'""",)),
        Values("text[]", "'{a}'", ("""'{NULL,"NULL","",x\\"y,"a b","{"}'""",), ("'[0:1]={a,b}'",)),
        Values("numeric(5,2)[]", "'{1.10,NULL}'", ("'{}'",), ("'{NaN}'",)),
        Values("timestamp[]", "'{infinity,2024-01-01}'", ("'{}'",), ("'{294276-12-31}'",)),
        Values("int2vector", "'1 2'", ("''", "'-32768 32767'")),
        Values("int2vector[]", """'{"1 2",NULL}'""", ("'{}'",)),
        Values("oidvector", "'1 2'", ("''", "'0 4294967295'")),
        Values("oidvector[]", """'{"1 2",NULL}'""", ("'{}'",)),
    ),
    arrays=False,
)

# These need Postgres with libxml, and with its extensions, as distributions ship it.
DISTRIBUTED = Part(
    "`xml`, and extensions that come with Postgres",
    (
        Values("xml", "'<a b=\"1\">x</a>'", ("'\u00e9 &lt; text'", "'<a/><b/>'", "'<?xml version=\"1.0\"?><a> </a>'")),
        Values("hstore", "'a=>1, b=>NULL'", ("''", "'\"a b\"=>\"x\\\"y\", \"\"=>\"NULL\"'")),
        Values("citext", "'aB'", ("''", _ODD)),
        Values("ltree", "'a.b'", ("''",)),
        Values("cube", "'(1,2),(3,4)'", ("'()'", "'(0.1)'")),
        Values("seg", "'1 .. 2'", ("'<5'", "'1.50 .. '")),
        Values("isbn13", "'978-0-393-04002-9'", ("'9780393040029'",)),
    ),
    tuple(f"CREATE EXTENSION {name}" for name in ("hstore", "citext", "ltree", "cube", "seg", "isn")),
)  # fmt: skip
