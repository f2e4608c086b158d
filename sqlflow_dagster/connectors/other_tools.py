"""Parameters of other tools that are none here by one name → what to write instead, or what they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_NOTHING: tuple[Any, ...] = (None, "", "false", False, [], {})


class Foreign(NamedTuple):
    """What to do instead; a value of `as_here` asks for what is done anyway, and needs nothing."""

    advice: str
    as_here: tuple[Any, ...] = _NOTHING

    def asks_nothing(self, value: Any) -> bool:
        """Return whether a value may be left out in silence."""
        if isinstance(value, Mapping) and (
            off := [value[name] for name in ("enable", "enabled") if name in value]
        ):
            value = off[0]
        if isinstance(value, str):
            value = value.strip().lower()
        return value is None or any(value == item and type(value) is type(item) for item in self.as_here)


TUNNEL = "no tunnel is opened here; open it by `ssh -L`, and give its near end as `host` and `port`"
_TYPE = Foreign("TYPE of the statement says it; leave it out")
_OWN_TYPES = Foreign("each column keeps its own type; CAST it in SQL")
_APART = "write what is in it as parameters of their own"
_STATEMENTS = "statements of yours are not run on the server; run them there"
_TUNNELS = dict.fromkeys(
    (
        "tunnel_host",
        "tunnel_port",
        "tunnel_user",
        "ssh_tunnel",
        "ssh_host",
        "ssh_port",
        "ssh_user",
        "ssh_key",
    ),
    Foreign(TUNNEL),
)
SERVERS: Mapping[str, Foreign] = {
    **_TUNNELS,
    **dict.fromkeys(("sourceType", "destinationType", "type"), _TYPE),
    "ssl_enable": Foreign("write `ssl_mode`: `require`"),
    "ssl_certificate_authority": Foreign("write the name of its file as `ssl_ca`"),
    "ssl_client_certificate": Foreign("write the name of its file as `ssl_cert`"),
    "ssl_client_private_key": Foreign("write the name of its file as `ssl_key`"),
    "connection_type": Foreign(TUNNEL, (*_NOTHING, "directly", "direct")),
    "jdbc_url_params": Foreign(_APART),
    "always_encrypted": Foreign("write `ssl_mode`: `require`"),
    "auth_method": Foreign(
        "the server is asked with `username` and `password`, or with a certificate", (*_NOTHING, "password")
    ),
    "session_sqls": Foreign(_STATEMENTS),
    "pre_sql": Foreign(_STATEMENTS),
    "post_sql": Foreign(_STATEMENTS),
}
TABLES: Mapping[str, Foreign] = {
    **SERVERS,
    "update_method": Foreign("write `sync_mode`, and for `incremental` a `cursor_field`"),
    "mode": Foreign("how rows are read is `sync_mode`; how they are stored is MODE of the LOAD"),
    "where": Foreign("write `filters`, or a `query`"),
    "select": Foreign("write `columns`, or `exclude_columns`"),
    "schema_prefix": Foreign("tables are called as the LOAD says; leave it out"),
    "delete_capture_enabled": Foreign("deletions are read by the sync_mode `cdc` of POSTGRES"),
    "incremental": Foreign(
        "write `sync_mode`: `incremental`, `cursor_field`, and `start_date` where it begins"
    ),
    "source_options": Foreign(_APART),
    "selected_fields": Foreign("write `columns`"),
    "dates_as_string": _OWN_TYPES,
    "json_as_object": _OWN_TYPES,
    "server_timezone": Foreign("times are read in UTC; leave it out", (*_NOTHING, "utc")),
    "replica_id": Foreign("the binlog is not read; leave it out"),
    "max_record_count": Foreign("write a `query` with LIMIT"),
}
SINKS: Mapping[str, Foreign] = {
    **SERVERS,
    "target_options": Foreign(_APART),
    "cdc_deletion_mode": Foreign("an export adds, replaces or merges rows; leave it out"),
    "hard_delete": Foreign("an export adds, replaces or merges rows; leave it out"),
    "add_record_metadata": Foreign("no columns are added; select them in the query"),
    "unconstrained_number": Foreign("write the types of columns in `types`"),
    "drop_cascade": Foreign("nothing is dropped that hangs on a table: it is filled in place; leave it out"),
}
FILES: Mapping[str, Foreign] = {
    **dict.fromkeys(("sourceType", "type"), _TYPE),
    "connection": Foreign("a file needs none; write `path`"),
    "append_file_option": Foreign(
        "a changed file is read again: with a `primary_key` its rows are merged, with `row_provenance` they replace "
        "the old ones"
    ),
    "skip_after": Foreign("lines at the end cannot be left out; mend the files", (*_NOTHING, 0, "0")),
    "strings_can_be_null": Foreign(
        "nothing between two delimiters, and `null_values`, are NULL in columns of text too; leave it out",
        (None, True, "true"),
    ),
    "auth_type": Foreign(
        "write `access_key_id` and `secret_access_key`, or `role_arn`, or `anonymous`: true",
        (*_NOTHING, "iam_role", "access_key"),
    ),
    "connection_type": Foreign(
        "S3 is asked directly, or where `endpoint_url` says", (*_NOTHING, "directly", "direct")
    ),
    "list_strategy": Foreign("write `incremental_by`: `partition`", (*_NOTHING, "complete_listing")),
    "empty_header": Foreign("write `header`: false"),
    "line_separator": Foreign("lines end with \\n, \\r\\n or \\r", (*_NOTHING, "\\n", "\\r\\n")),
    "quote_character_enabled": Foreign('write `quote`: ""', (True, "true")),
    "double_quote": Foreign("doubled quotes inside quotes are one; for backslashes write `escape`", (True, "true")),
    "archive_pattern": Foreign("name the files by `path` or `pattern`, unpacked"),
    "warning_if_no_files": Foreign("write `require_files`: false"),
    "date_overrides": Foreign("write the types of columns in `types`"),
    "parse_dates": Foreign("write the types of columns in `types`"),
    "csv_files_definition": Foreign("write a SOURCE for each of its entries"),
    "add_metadata_columns": Foreign("write `row_provenance`: true"),
    "filename": Foreign("write `row_provenance`: true"),
    "provider": Foreign(
        "files of this machine are read; for a bucket write TYPE S3, and fetch others first", ({"storage": "local"},)
    ),
    "reader_options": Foreign(_APART, (*_NOTHING, "{}")),
    "format": Foreign("the format is the SOURCE's TYPE; leave it out"),
    "source_options": Foreign(_APART),
    "incremental": Foreign("write `sync_mode`: `incremental`; new files are its cursor"),
    "use_ssl": Foreign("the scheme of `endpoint_url` says it: https:// or http://", (None, True, "true")),
    "s3_force_path_style": Foreign("write `addressing`: `path`"),
    "force_path_style": Foreign("write `addressing`: `path`"),
    "path_style_access": Foreign("write `addressing`: `path`"),
}  # fmt: skip


def credentials(value: Mapping[str, Any], _beside: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters in dlt's object `credentials`."""
    return {name: item for name, item in value.items() if name != "drivername" and item is not None}


def secured(value: Mapping[str, Any], _beside: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters that `{"mode": "verify-ca", "ca_certificate": …}` stands for.

    Raises ValueError for what is no file.
    """
    given = {name: item for name, item in value.items() if item not in (None, "")}
    if stray := [name for name in given if name not in _SECURED]:
        raise ValueError(f"{stray[0]}: it cannot be said here; there are {', '.join(_SECURED)}")
    if "mode" not in given:
        raise ValueError("`mode` is missing, e.g. `require`")
    if text := [name for name, item in given.items() if "-----BEGIN" in str(item)]:
        raise ValueError(f"{text[0]}: it is read from a file; write the file's name, relative to the project")
    return {_SECURED[name]: item for name, item in given.items()}


_SECURED = {
    "mode": "ssl_mode", "ca_certificate": "ssl_ca", "client_certificate": "ssl_cert", "client_key": "ssl_key",
    "ca": "ssl_ca", "cert": "ssl_cert", "key": "ssl_key",
}  # fmt: skip
_ENTRY = {
    "entity": "stream", "table_name": "stream", "keys": "primary_key", "key_properties": "primary_key",
    "search_prefix": "path_prefix", "search_pattern": "pattern", "file_pattern": "pattern",
}  # fmt: skip


def entry(value: Mapping[str, Any], _beside: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the parameters that one of the files, or tables, of tap-csv, tap-s3-csv or Fivetran stands for."""
    return {_ENTRY.get(name, name): item for name, item in value.items() if item not in (None, "")}
