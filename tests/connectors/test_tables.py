"""Which tables a source of tables means, what their streams are called, and what is remembered of them."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest

from sqlflow_dagster.connectors.base import Health
from sqlflow_dagster.connectors.discovered import Table
from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.connectors.tables import Name, TableOptions, Tables
from sqlflow_dagster.errors import BadOption, NotDiscovered, SourceFailed

SHOP = [
    Table("public", "customers", ("id",), {"id": "BIGINT", "updated_at": "TIMESTAMP"}),
    Table("public", "fact_orders", ("id",), {"id": "BIGINT", "updated_at": "TIMESTAMP"}),
    Table("public", "fact_returns", (), {"id": "BIGINT"}, "view"),
    Table("sales", "orders", ("day", "no"), {"day": "DATE", "no": "INTEGER"}),
    Table("sales_old", "or.ders", (), {}),
]


class Shop(Tables[TableOptions]):
    """A source whose tables are a list."""

    options_type: ClassVar = TableOptions
    family: ClassVar = "database"
    default_schema = "public"
    there: ClassVar = SHOP

    def list_tables(self):
        return iter(self.there)

    def place_of_data(self):
        return {"database": "shop"}

    def read(self, stream, since):
        raise NotImplementedError

    def check(self):
        return Health(ok=True, message="there")


@pytest.fixture
def shop(folder):
    return lambda **params: Shop(parse(TableOptions, params)[0], folder.place)


def names(source):
    return [stream.name for stream in source.streams()]


@pytest.mark.parametrize(
    ("params", "streams"),
    [
        pytest.param({"table": "orders"}, ["orders"], id="one"),
        pytest.param({"table": "sales.orders"}, ["sales__orders"], id="of another schema"),
        pytest.param(
            {"table": "sales.orders", "schema": "crm"}, ["sales__orders"], id="of another than the usual"
        ),
        pytest.param({"table": "orders", "schema": "sales"}, ["orders"], id="schema apart"),
        pytest.param({"table": '"a.b"."c""d*"'}, ['a.b__c"d*'], id="quoted names, no pattern"),
        pytest.param({"tables": "a, sales.b"}, ["a", "sales__b"], id="several"),
        pytest.param({"query": "SELECT 1"}, ["query"], id="a query"),
        pytest.param({"sql": "SELECT 1", "stream": "ones"}, ["ones"], id="a query's name"),
    ],
)
def test_tables_that_are_named_need_no_contact(shop, params, streams):
    source = shop(**params)
    source.list_tables = None
    assert names(source) == streams


@pytest.mark.parametrize(
    ("params", "streams"),
    [
        pytest.param({}, ["customers", "fact_orders", "fact_returns"], id="nothing: the default schema"),
        pytest.param({"tables": "fact_*"}, ["fact_orders", "fact_returns"], id="pattern"),
        pytest.param({"schemas": "sales"}, ["orders"], id="one schema"),
        pytest.param({"schemas": "sales*"}, ["sales__orders", "sales_old__or.ders"], id="pattern of schemas"),
        pytest.param(
            {"schemas": ["public", "sales"], "tables": "*orders"}, ["fact_orders", "sales__orders"], id="both"
        ),
        pytest.param({"tables": ["sales.*", "customers"]}, ["customers", "sales__orders"], id="qualified"),
        pytest.param({"exclude_tables": "fact_*"}, ["customers"], id="all but some"),
        pytest.param({"tables": 'sales_old."or.*"'}, ["sales_old__or.ders"], id="quoted"),
    ],
)
def test_patterns_are_looked_up_once_and_remembered(shop, params, streams):
    with pytest.raises(NotDiscovered):
        shop(**params).streams()
    assert [stream.name for stream in shop(**params).discover()] == streams
    later = shop(**params)
    later.list_tables = None
    assert names(later) == streams


def test_what_was_found_is_declared(shop):
    found = {stream.name: stream for stream in shop(schemas="*").discover()}
    assert found["sales__orders"].primary_key == ("day", "no")
    assert found["sales__orders"].columns == {"day": "DATE", "no": "INTEGER"}
    again = shop(schemas="*")
    assert {stream.name: stream for stream in again.streams()} == found
    assert again.table_of(found["sales_old__or.ders"]) == Name("sales_old", "or.ders")


def test_sources_of_other_tables_do_not_share_what_they_found(shop):
    shop(tables="fact_*").discover()
    with pytest.raises(NotDiscovered):
        shop(tables="fact_o*").streams()


def test_looking_up_anew_forgets_what_is_gone(shop, monkeypatch):
    source = shop(tables="*")
    source.discover()
    monkeypatch.setattr(Shop, "there", SHOP[:1])
    assert names(source) == ["customers", "fact_orders", "fact_returns"]
    source.discover()
    assert names(source) == names(shop(tables="*")) == ["customers"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        json.dumps({"version": 9, "tables": []}),
        json.dumps({"version": 1, "tables": [{"x": 1}]}),
    ],
)
def test_a_torn_memory_is_looked_up_anew(shop, folder, text):
    shop().discover()
    (file,) = (folder.place.state / "tables").iterdir()
    file.write_text(text)
    with pytest.raises(NotDiscovered):
        shop().streams()


def test_nothing_found_is_no_empty_source(shop):
    with pytest.raises(SourceFailed, match=r"no table matches \(`tables` nix\*; `schemas` public\)"):
        shop(tables="nix*").discover()


def test_tables_without_the_cursor_are_named(shop):
    source = shop(sync_mode="incremental", cursor_field="updated_at")
    with pytest.raises(BadOption, match="no column 'updated_at' in public.fact_returns; leave them out"):
        source.discover()


def test_tables_that_duckdb_does_not_tell_apart_are_refused(shop, monkeypatch):
    monkeypatch.setattr(Shop, "there", [Table("public", "Orders"), Table("public", "orders")])
    with pytest.raises(SourceFailed, match=r"public\.Orders and public\.orders would have one name"):
        shop().discover()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"table": "a", "tables": "b"}, "tables: give only one of table and tables"),
        ({"query": "SELECT 1", "schemas": "a"}, "schemas: it selects tables"),
        ({"table": 'a"b'}, "'a\"b' is no table"),
        ({"tables": ["a.b.c"]}, "'a.b.c' is no table"),
        ({"stream": "sales.orders"}, "stream: it names the rows of a `query`; write `table`"),
        (
            {"table": "orders", "schemas": ["public", "sales"]},
            "table: say in which schema it is, as in `schema.orders`",
        ),
    ],
)
def test_a_selection_that_makes_no_sense_is_refused(shop, params, message):
    with pytest.raises(BadOption, match=message):
        shop(**params).streams()


def test_a_file_is_asked_each_time(shop, monkeypatch, folder):
    monkeypatch.setattr(Shop, "lists_at_once", True)
    assert names(shop(tables="fact_*")) == ["fact_orders", "fact_returns"]
    assert not (folder.place.state / "tables").exists()
