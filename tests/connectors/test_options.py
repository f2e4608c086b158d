"""PARAMS objects → options."""

import importlib
import inspect
import pkgutil
from decimal import Decimal
from typing import ClassVar

import pytest
from pydantic import Field, SecretStr

from sqlflow_dagster import connectors
from sqlflow_dagster.connectors.base import Connector
from sqlflow_dagster.connectors.options import SourceOptions, parse
from sqlflow_dagster.connectors.registry import find, types
from sqlflow_dagster.errors import BadOption
from sqlflow_dagster.sql import Condition


class ShopOptions(SourceOptions):
    aliases: ClassVar = {"dbname": "database", "pwd": "password"}
    refused: ClassVar = {"rate_limit": "a shop is read at one rate"}
    idle: ClassVar = {"batch_size": "not needed: a shop sends all at once"}

    database: str = Field(description="The database.")
    password: SecretStr | None = None
    port: int = 5432


def shop(**params):
    return parse(ShopOptions, {"database": "d", **params})[0]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("id", ("id",)),
        ("id, shop", ("id", "shop")),
        (["id", "shop"], ("id", "shop")),
        ([["id"], ["shop"]], ("id", "shop")),
        ([["data", "id"]], ("data.id",)),
        (None, ()),
        ([], ()),
    ],
)
def test_a_primary_key_is_read_in_every_form(given, expected):
    assert shop(primary_key=given).primary_key == expected


@pytest.mark.parametrize("given", ["data.updated_at", ["data", "updated_at"]], ids=["text", "list"])
def test_a_cursor_field_is_a_dotted_path(given):
    assert shop(cursor_field=given).cursor_field == "data.updated_at"


def test_an_empty_cursor_field_is_none():
    assert shop(cursor_field=[]).cursor_field is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("P7D", "7 days"),
        ("P1DT12H", "1 days 12 hours"),
        ("PT30M", "30 minutes"),
        ("7 days", "7 days"),
        ("1 day", "1 days"),
        ("12h", "12 hours"),
        (3600, "3600 seconds"),
        ("3600", "3600 seconds"),
        (None, None),
    ],
)
def test_a_lookback_window_becomes_an_interval(given, expected):
    assert shop(lookback_window=given).lookback_window == expected


@pytest.mark.parametrize("given", ["soon", "P", "7 parsecs", True, -5], ids=str)
def test_what_is_no_length_of_time_is_refused(given):
    with pytest.raises(BadOption, match="no length of time"):
        shop(lookback_window=given)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("FULL_TABLE", "full_refresh"), ("INCREMENTAL", "incremental"), ("incremental", "incremental")],
)
def test_fivetrans_replication_method_is_our_sync_mode(given, expected):
    assert shop(replication_method=given, cursor_field="c").sync_mode == expected


@pytest.mark.parametrize(
    ("given", "same"),
    [
        (
            {"replication_method": {"method": "CDC", "replication_slot": "s", "publication": "p"}},
            {"sync_mode": "cdc", "slot_prefix": "s", "publication": "p"},
        ),
        ({"replication_method": {"method": "Xmin"}}, {"sync_mode": "incremental", "cursor_field": "xmin"}),
        ({"replication_method": {"method": "Standard"}}, {}),
        (
            {"replication_method": {"method": "STANDARD"}, "cursor_field": ["at"]},
            {"sync_mode": "incremental", "cursor_field": "at"},
        ),
        ({"replication_method": {"method": "CDC"}, "sync_mode": "incremental"}, {"sync_mode": "cdc"}),
        ({"replication_method": {"method": "CDC"}, "sync_mode": "full_refresh"}, {}),
    ],
    ids=str,
)
def test_airbytes_replication_method_is_the_parameters_it_stands_for(given, same):
    options = find("POSTGRES").options_type
    parsed, notices = parse(options, {"table": "t", **given})
    expected, _ = parse(options, {"table": "t", **same})
    assert parsed.model_dump(exclude_unset=True) == expected.model_dump(exclude_unset=True) | (
        {"sync_mode": "full_refresh"} if "full_refresh" in given.values() else {}
    )
    assert notices == ()


def test_what_airbytes_replication_method_needs_not_is_said():
    method = {"method": "CDC", "plugin": "pgoutput", "initial_waiting_seconds": 300}
    _, notices = parse(find("POSTGRES").options_type, {"table": "t", "replication_method": method})
    assert [notice.partition(":")[0] for notice in notices] == ["plugin", "initial_waiting_seconds"]


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("MYSQL", {"replication_method": {"method": "CDC"}}, "replication_method: cdc is not read here"),
        ("POSTGRES", {"replication_method": {"method": "WAL"}}, "replication_method: 'WAL' is no method"),
        (
            "POSTGRES",
            {"replication_method": {"method": "CDC", "publicaton": "p"}},
            "did you mean 'publication'",
        ),
        (
            "POSTGRES",
            {"replication_method": {"method": "Xmin"}, "cursor_field": "id"},
            "leave `cursor_field`",
        ),
        (
            "POSTGRES",
            {"replication_method": {"method": "CDC", "publication": "p"}, "publication": "q"},
            "'publication' stands in it and beside it",
        ),
    ],
    ids=str,
)
def test_an_airbyte_replication_method_that_cannot_be_had_is_refused(kind, given, said):
    with pytest.raises(BadOption, match=said):
        parse(find(kind).options_type, {"table": "t", **given})


def test_a_mode_the_connector_lacks_is_refused():
    with pytest.raises(BadOption, match="replication_method: 'cdc' is not one of full_refresh, incremental"):
        shop(replication_method="LOG_BASED")


def test_incremental_without_a_cursor_is_refused():
    with pytest.raises(BadOption, match="cursor_field: incremental reading needs it") as caught:
        shop(sync_mode="incremental")
    assert caught.value.option == "cursor_field"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"a": ">= 300"}, [Condition("a", ">=", (300,))]),
        ({"a": ">=4.15"}, [Condition("a", ">=", (Decimal("4.15"),))]),
        ({"a": {">": 300, "<": 500}}, [Condition("a", ">", (300,)), Condition("a", "<", (500,))]),
        ({"a": [1, 2]}, [Condition("a", "IN", (1, 2))]),
        ({"a": "x"}, [Condition("a", "=", ("x",))]),
        ({"a": "300"}, [Condition("a", "=", ("300",))]),
        ({"a": True}, [Condition("a", "=", (True,))]),
        ({"a": None}, [Condition("a", "=", (None,))]),
        ({"a": "<> 'x y'"}, [Condition("a", "!=", ("x y",))]),
        ({"a": "> 2024-01-01"}, [Condition("a", ">", ("2024-01-01",))]),
        ({"a": "!= null"}, [Condition("a", "!=", (None,))]),
        ({"a": {"not in": ["x"]}}, [Condition("a", "NOT IN", ("x",))]),
        ({"a": {"between": [1, 2]}}, [Condition("a", ">=", (1,)), Condition("a", "<=", (2,))]),
        ([{"column": "a", "operator": "=", "value": 1}], [Condition("a", "=", (1,))]),
    ],
    ids=str,
)
def test_filters_become_conditions(given, expected):
    assert list(shop(filters=given).filters) == expected


@pytest.mark.parametrize("given", ["a > 3", {"a": {"like": "x"}}, {"a": []}, {"a": {">": [1, 2]}}], ids=str)
def test_filters_that_cannot_be_read_are_refused(given):
    with pytest.raises(BadOption, match="filters: "):
        shop(filters=given)


def test_the_present_name_wins_and_a_notice_names_both():
    options, notices = parse(ShopOptions, {"dbname": "old", "database": "new"})
    assert options.database == "new"
    assert notices == ("both 'database' and 'dbname' are given; 'dbname' is ignored",)


def test_an_old_name_works_alone_without_a_notice():
    options, notices = parse(ShopOptions, {"dbname": "old"})
    assert (options.database, notices) == ("old", ())


def test_all_problems_are_reported_together():
    with pytest.raises(BadOption) as caught:
        parse(ShopOptions, {"databse": "x", "port": "many", "rate_limit": 5})
    assert str(caught.value).splitlines() == [
        "databse: unknown parameter; did you mean 'database'?",
        "rate_limit: a shop is read at one rate",
        "database: this parameter is required: The database.",
        "port: input should be a valid integer, unable to parse string as an integer",
    ]
    assert caught.value.option == "databse"


def test_an_option_that_needs_no_honouring_is_said_to():
    assert parse(ShopOptions, {"database": "d", "batch_size": 10})[1] == (
        "batch_size: not needed: a shop sends all at once",
    )


def test_text_from_variables_is_taken_for_numbers_and_booleans():
    options = shop(port="5433", row_provenance="true", max_retries="5")
    assert (options.port, options.row_provenance, options.max_retries) == (5433, True, 5)


@pytest.mark.parametrize("option", ["exclude_columns", "mask"])
def test_the_cursor_column_is_stored_as_it_is(option):
    with pytest.raises(BadOption, match=f"{option}: 'Updated' is the cursor"):
        shop(sync_mode="incremental", cursor_field="Updated", **{option: ["updated"]})


def test_a_secret_is_in_no_repr_and_no_error():
    assert "hunter2" not in repr(shop(password="hunter2"))
    with pytest.raises(BadOption) as caught:
        shop(password=["hunter2"], pwd="x", port="hunter2")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"), [(60, 60), ("10/second", 600), ("120/minute", 120), ("3600/hour", 60)]
)
def test_a_rate_is_requests_a_minute(given, expected):
    assert parse(SourceOptions, {"rate_limit": given})[0].rate_limit == expected


@pytest.mark.parametrize("kind", ["POSTGRES", "DUCKDB"])
def test_a_name_that_pydantic_has_taken_is_a_parameter_all_the_same(kind):
    options, _notices = parse(find(kind).sink_options_type, {"table": "t", "schema": "s"})
    assert options.schema_ == "s"
    with pytest.raises(BadOption, match="did you mean 'schema'"):
        parse(find(kind).sink_options_type, {"schem": "s"})


def test_every_connector_of_ours_has_the_name_of_its_module_and_is_listed():
    modules = [
        importlib.import_module(f"{connectors.__name__}.{module.name}")
        for module in pkgutil.iter_modules(connectors.__path__)
    ]
    found = {
        module.__name__.rpartition(".")[2].upper()
        for module in modules
        for item in vars(module).values()
        if inspect.isclass(item) and issubclass(item, Connector) and item.__module__ == module.__name__
        if "options_type" in vars(item) and not inspect.isabstract(item)
    }
    # Others' may be there too.
    assert found <= set(types())
    assert all(find(name) for name in found)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({"filetype": "parquet", "decimal_as_float": False}, {"file_format": "parquet"}),
        (
            {
                "filetype": "csv", "delimiter": "\\t", "quote_char": "'", "escape_char": "\\", "double_quote": False,
                "encoding": "latin-1", "null_values": ["-"], "strings_can_be_null": True, "skip_rows_before_header": 2,
                "skip_rows_after_header": 0, "inference_type": "None", "true_values": ["y", "yes", "t", "true", "on", "1"],
                "header_definition": {"header_definition_type": "User Provided", "column_names": ["a", "b"]},
                "ignore_errors_on_fields_mismatch": True, "newlines_in_values": True,
            },
            {
                "file_format": "csv", "delimiter": "\t", "quote": "'", "escape": "\\", "encoding": "latin-1",
                "null_values": ["-"], "skip_rows": 2, "header": False, "column_names": ["a", "b"],
                "bad_rows": "quarantine",
            },
        ),
        ({"filetype": "csv", "escape_char": None, "double_quote": True}, {"file_format": "csv"}),
        (
            {"filetype": "csv", "header_definition": {"header_definition_type": "Autogenerated"}},
            {"file_format": "csv", "header": False},
        ),
    ],
    ids=["parquet", "all of it", "as usual", "no header"],
)  # fmt: skip
def test_airbytes_format_of_files_is_what_it_stands_for(written, meant):
    kind = find("S3").options_type
    assert (
        parse(kind, {"path": "s3://b/", "format": written})[0] == parse(kind, {"path": "s3://b/", **meant})[0]
    )


@pytest.mark.parametrize(
    ("written", "beside", "said"),
    [
        ({"filetype": "csv", "skip_rows_after_header": 2}, {}, "skip_rows_after_header"),
        ({"filetype": "csv", "null_values": ["-"], "strings_can_be_null": False}, {}, "strings_can_be_null"),
        ({"filetype": "csv", "double_quote": False}, {}, "double_quote"),
        ({"filetype": "csv", "true_values": ["ja"]}, {}, "true_values"),
        ({"filetype": "parquet", "decimal_as_float": True}, {}, "decimal_as_float"),
        ({"filetype": "csv", "header_definition": {"header_definition_type": "x"}}, {}, "header_definition"),
        ({"filetype": "csv", "header_definition": "User Provided"}, {}, "header_definition"),
        ({"filetype": "csv", "true_values": [True, "yes"]}, {}, "true_values"),
        ({"filetype": "csv", "delimiter": ";"}, {"delimiter": ","}, "delimiter"),
        ({"filetype": "csv", "nothing_known": 1}, {}, "nothing_known"),
    ],
)
def test_what_airbytes_format_says_is_never_ignored(written, beside, said):
    with pytest.raises(BadOption, match=f"^format: .*{said}"):
        parse(find("S3").options_type, {"path": "s3://b/", "format": written, **beside})


def test_an_exports_format_is_a_name():
    kind = find("S3").sink_options_type
    assert parse(kind, {"format": {"format_type": "CSV"}})[0].file_format == "csv"
    with pytest.raises(BadOption, match="what else is in the object beside it"):
        parse(kind, {"format": {"format_type": "CSV", "compression": {"compression_type": "GZIP"}}})


@pytest.mark.parametrize("kind", ["CSV", "EXCEL", "S3"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_header_is_no_lines_number(kind, number):
    with pytest.raises(BadOption, match="^header: write true where there is one"):
        parse(find(kind).options_type, {"path": "s3://b/a", "header": number})
    assert parse(find(kind).options_type, {"path": "s3://b/a", "header": "false"})[0].header is False


@pytest.mark.parametrize("kind", ["POSTGRES", "MYSQL"])
def test_a_tunnel_of_airbyte_is_none_or_refused(kind):
    given = {"host": "h", "database": "d", "username": "u", "table": "t"}
    same = parse(find(kind).options_type, {**given, "tunnel_method": {"tunnel_method": "NO_TUNNEL"}})
    assert same == parse(find(kind).options_type, given)
    with pytest.raises(BadOption, match="^tunnel_method: no tunnel is opened here"):
        parse(find(kind).options_type, {**given, "tunnel_method": {"tunnel_method": "SSH_KEY_AUTH"}})


def test_an_object_of_columns_and_types_is_told_where_types_stand():
    with pytest.raises(
        BadOption, match="^columns: write a list of names; the types of columns stand in `types`"
    ):
        parse(find("CSV").options_type, {"path": "a.csv", "columns": {"a": "VARCHAR"}})


@pytest.mark.parametrize("kind", ["POSTGRES", "MYSQL"])
@pytest.mark.parametrize("password", ["12/CANARY", "1?CANARY", "1?CANARY=1", "x%CANARY"])
def test_a_password_that_is_not_escaped_is_taken_for_nothing_else(kind, password):
    with pytest.raises(BadOption) as caught:
        parse(find(kind).options_type, {"connection": f"{kind.lower()}://u:{password}@h:1/d", "table": "t"})
    assert "special characters as %40" in str(caught.value)
    assert "CANARY" not in str(caught.value)


SERVER = {"host": "h", "table": "t"}


@pytest.mark.parametrize(
    ("kind", "given", "same"),
    [
        ("POSTGRES", {**SERVER, "ssl": True}, {**SERVER, "sslmode": "require"}),
        ("POSTGRES", {**SERVER, "ssl": "false"}, {**SERVER, "sslmode": "disable"}),
        ("MYSQL", {**SERVER, "ssl": True}, {**SERVER, "ssl_mode": "required"}),
        (
            "POSTGRES",
            {**SERVER, "ssl_mode": {"mode": "verify-ca", "ca_certificate": "ca.pem", "client_key": "k.pem"}},
            {**SERVER, "sslmode": "verify-ca", "sslrootcert": "ca.pem", "sslkey": "k.pem"},
        ),
        (
            "MYSQL",
            {**SERVER, "ssl_mode": {"mode": "verify_ca", "ca_certificate": "ca.pem", "client_key_password": ""}},
            {**SERVER, "ssl_mode": "verify_ca", "ssl_ca": "ca.pem"},
        ),
        ("MYSQL", {**SERVER, "replication_method": {"method": "STANDARD"}}, SERVER),
        ("POSTGRES", {**SERVER, "jdbc_url_params": "", "connection_type": "Directly", "auth_method": "PASSWORD"}, SERVER),
        ("POSTGRES", {**SERVER, "ssh_tunnel": {"enable": False}, "delete_capture_enabled": False}, SERVER),
        ("POSTGRES", {**SERVER, "filter_schemas": ["s"]}, {**SERVER, "schemas": ["s"]}),
        ("POSTGRES", {"sqlalchemy_url": "postgresql://u:p@h/d", "table": "t"}, {"connection": "postgresql://u:p@h/d", "table": "t"}),
        (
            "POSTGRES",
            {"credentials": {"drivername": "postgresql", "host": "h", "username": "u"}, "table": "t"},
            {**SERVER, "username": "u"},
        ),
        (
            "POSTGRES",
            {**SERVER, "write_disposition": "merge", "primary_key": "id"},
            {**SERVER, "destination_sync_mode": "append_dedup", "primary_key": "id"},
        ),
        (
            "CSV",
            {"files": [{"entity": "leads", "path": "a.csv", "keys": ["Id"], "delimiter": ";"}]},
            {"path": "a.csv", "stream": "leads", "primary_key": "Id", "delimiter": ";"},
        ),
        ("CSV", {"path": "a.csv", "delimiter": r"\t"}, {"path": "a.csv", "delimiter": "\t"}),
        ("CSV", {"path": "a.csv", "delimiter": "", "double_quote": True, "skip_after": 0}, {"path": "a.csv"}),
        ("CSV", {"path": "a.csv", "strings_can_be_null": True}, {"path": "a.csv"}),
        (
            "S3",
            {"bucket": "b", "tables": [{"search_prefix": "in/", "search_pattern": "*.csv", "table_name": "t", "key_properties": ["id"]}]},
            {"bucket": "b", "path_prefix": "in/", "pattern": "*.csv", "stream": "t", "primary_key": "id"},
        ),
        ("S3", {"path": "s3://b/x", "credentials": {"region_name": "r"}}, {"path": "s3://b/x", "region": "r"}),
        ("S3", {"bucket": "b", "auth_type": "IAM_ROLE", "list_strategy": "complete_listing"}, {"bucket": "b"}),
    ],
)  # fmt: skip
def test_what_other_tools_write_is_what_it_stands_for(kind, given, same):
    assert parse(find(kind).options_type, given)[0] == parse(find(kind).options_type, same)[0]


@pytest.mark.parametrize(
    ("kind", "given", "said"),
    [
        ("POSTGRES", {"ssl_mode": {"mode": "verify-ca", "ca_certificate": "-----BEGIN CERTIFICATE-----"}},
         "ssl_mode: ca_certificate: it is read from a file; write the file's name, relative to the project"),
        ("MYSQL", {"ssl_mode": {"mode": "verify_ca", "client_key_password": "CANARY"}},
         "ssl_mode: client_key_password: it cannot be said here; there are mode, ca_certificate, "),
        ("POSTGRES", {"sslmode": {}}, "sslmode: `mode` is missing"),
        ("MYSQL", {"ssl": {"ca": "ca.pem"}}, "ssl: `mode` is missing"),
        ("MYSQL", {"replication_method": {"method": "Xmin"}}, "replication_method: xmin is not read here"),
        ("MYSQL", {"replication_method": {"method": "CDC", "initial_waiting_seconds": 1}},
         "replication_method: cdc is not read here"),
        ("POSTGRES", {"replication_method": "STANDARD"}, "replication_method: write `full_refresh`, or `incremental`"),
        ("POSTGRES", {"sync_mode": "incremental_deduped_history"},
         "sync_mode: write two parameters: `sync_mode`: `incremental`, and `destination_sync_mode`: `append_dedup`"),
        ("POSTGRES", {"user": ""}, "user: string should have at least 1 character"),
        ("POSTGRES", {"syncMode": "incremental"}, "syncMode: unknown parameter; did you mean 'sync_mode'?"),
        ("POSTGRES", {"jdbc_url_params": "ssl=true"}, "jdbc_url_params: write what is in it as parameters of their own"),
        ("MYSQL", {"connection_type": "SshTunnel"}, "connection_type: no tunnel is opened here; open it by `ssh -L`"),
        ("POSTGRES", {"ssh_tunnel": {"enable": True}}, "ssh_tunnel: no tunnel is opened here; open it by `ssh -L`"),
        ("POSTGRES", {"update_method": "XMIN"}, "update_method: write `sync_mode`"),
        ("POSTGRES", {"mode": "incremental"}, "mode: how rows are read is `sync_mode`"),
        ("CSV", {"double_quote": False}, "double_quote: doubled quotes inside quotes are one; for backslashes write `escape`"),
        ("CSV", {"connection": "c"}, "connection: a file needs none; write `path`"),
        ("CSV", {"files": [{"path": "a"}, {"path": "b"}]}, "files: a SOURCE reads one of them; write one for each"),
        ("CSV", {"delimiter": "tab"}, "delimiter: 'tab' is no delimiter; write the sign itself, and \\t for a tab"),
        ("S3", {"auth_type": "PUBLIC_BUCKET"}, "auth_type: write `access_key_id` and `secret_access_key`, or"),
        ("S3", {"skip_after": 1}, "skip_after: lines at the end cannot be left out"),
        ("CSV", {"strings_can_be_null": False}, "strings_can_be_null: nothing between two delimiters"),
        ("S3", {"pattern": r".*\.csv"}, "pattern: '.*\\\\.csv' is a regular expression; write a glob"),
        ("S3", {"endpoint": "u:CANARY@minio:9000"}, "endpoint: write its scheme, too: https://… or http://…"),
    ],
)  # fmt: skip
def test_what_other_tools_write_and_is_none_here_is_told_in_their_words(kind, given, said):
    place = {"CSV": {"path": "a.csv"}, "S3": {"bucket": "b"}}.get(kind, SERVER)
    with pytest.raises(BadOption) as caught:
        parse(find(kind).options_type, {**place, **given})
    assert said in str(caught.value).splitlines()[0]
    assert "CANARY" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "given", "same"),
    [
        ("POSTGRES", {"destination_sync_mode": "append_dedup", "primary_key": [["id"]]}, {"mode": "upsert", "keys": "id"}),
        ("POSTGRES", {"load_method": "append-only", "default_target_schema": "s"}, {"mode": "append", "schema": "s"}),
        ("MYSQL", {"write_disposition": "replace", "tunnel_method": {"tunnel_method": "NO_TUNNEL"}}, {"mode": "replace"}),
        ("S3", {"s3_bucket_name": "b", "s3_bucket_path": "p"}, {"bucket": "b", "path_prefix": "p"}),
    ],
)  # fmt: skip
def test_what_other_tools_write_of_a_destination_is_what_it_stands_for(kind, given, same):
    assert parse(find(kind).sink_options_type, given)[0] == parse(find(kind).sink_options_type, same)[0]


@pytest.mark.parametrize(
    ("url", "mode"),
    [
        ("jdbc:postgresql://h/d?user=u&password=p%40&ssl=true&ApplicationName=x", "require"),
        ("postgres+asyncpg://u:p%40@h/d?ssl=verify-full", "verify-full"),
        ("postgresql://u:p%40@h/d", None),
    ],
)
def test_a_url_of_another_driver_says_the_same(url, mode):
    parts = parse(find("POSTGRES").options_type, {"connection": url, "table": "t"})[0].parts()
    assert (parts["host"], parts["database"], parts["username"], parts["password"]) == ("h", "d", "u", "p@")
    assert parts.get("sslmode") == mode


def test_a_schema_in_a_url_is_told_where_it_goes():
    with pytest.raises(
        BadOption, match="^connection: currentSchema: name the schema in `table` or `schemas`"
    ):
        parse(
            find("POSTGRES").options_type,
            {"connection": "jdbc:postgresql://h/d?currentSchema=s", "table": "t"},
        )
