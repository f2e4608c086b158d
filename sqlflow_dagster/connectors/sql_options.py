"""The parameters that every database server has: where it is, how it is read, how it is written."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import parse_qsl, unquote

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, model_validator

from sqlflow_dagster.connectors import casts, other_tools, parameters
from sqlflow_dagster.connectors.base import Place
from sqlflow_dagster.connectors.options import Options, Spread
from sqlflow_dagster.connectors.other_tools import Foreign
from sqlflow_dagster.connectors.tables import TableOptions
from sqlflow_dagster.errors import BadOption

_GRACE_SECONDS = 5
# What other tools call the parameters of `Connecting`.
ALIASES = {
    "dbname": "database", "db": "database", "database_name": "database", "user": "username",
    "hostname": "host", "server": "host", "passwd": "password", "pwd": "password",
    "connection_string": "connection", "connection_url": "connection", "connection_uri": "connection",
    "conn": "connection", "dsn": "connection", "url": "connection", "uri": "connection",
    "connection_timeout": "connect_timeout", "sqlalchemy_url": "connection", "credentials": "connection",
    "pass": "password",
}  # fmt: skip


class Connecting(BaseModel):
    """The parameters that say where a server is and who asks; a subclass reads `connection`."""

    spread: ClassVar[Mapping[str, Spread]] = {
        "credentials": other_tools.credentials,
        "tunnel_method": parameters.tunnel_method,
        **dict.fromkeys(("ssl_mode", "sslmode", "ssl"), other_tools.secured),
    }

    connection: SecretStr | None = None
    host: str | None = Field(None, min_length=1)
    port: int | None = Field(None, ge=1, le=65535)
    database: str | None = Field(None, min_length=1)
    username: str | None = Field(None, min_length=1)
    password: SecretStr | None = Field(None, description="Password.")
    connect_timeout: int = Field(
        10, ge=1, description="Longest wait for the server to take a connection, in seconds."
    )

    silence_seconds: float = Field(
        1800,
        gt=0,
        description="Longest time in which nothing comes from the server and nothing goes to it, in seconds; then the "
        "connection is given up, and what was under way is tried again. A statement that works longer before its "
        "first row needs more.",
    )

    @model_validator(mode="after")
    def _readable(self) -> Connecting:
        self.parts()
        return self

    def longest_silence(self, statement_seconds: float | None) -> float:
        """Return how long a server may say nothing, which ends a statement itself after `statement_seconds`."""
        if statement_seconds is None:
            return self.silence_seconds
        # It is let go first, and says why.
        longest = statement_seconds + _GRACE_SECONDS
        return min(longest, self.silence_seconds) if "silence_seconds" in self.model_fields_set else longest

    def parts(self) -> dict[str, str]:
        """Return host, port, database … by our names, with those of `connection` filled in.

        Raises ValueError where `connection` cannot be read; its text never shows it.
        """
        raise NotImplementedError

    def filled(self, parsed: Callable[[str], dict[str, str]], names: Iterable[str]) -> dict[str, str]:
        """Return what `connection` says as `parsed` reads it; parameters of `names` that are given win."""
        found = parsed(self.connection.get_secret_value()) if self.connection else {}
        for name in names:
            value = getattr(self, name)
            if value is not None and (name in self.model_fields_set or name not in found):
                found[name] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        return found


class ServerOptions(TableOptions):
    """How tables of a server are read."""

    aliases: ClassVar[Mapping[str, str]] = {
        "statement_timeout": "timeout_seconds", "pool_size": "max_connections", "pool_min": "min_connections",
        "pool_max": "max_connections", "min_pool_size": "min_connections", "max_pool_size": "max_connections",
        "column_types": "types", "dtypes": "types",
    }  # fmt: skip
    spread: ClassVar[Mapping[str, Spread]] = {"replication_method": parameters.replication_method}
    foreign: ClassVar[Mapping[str, Foreign]] = other_tools.TABLES
    idle: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            ("chunk_size", "itersize", "checkpoint_target_interval_seconds"),
            "it is not needed here, rows stream in DuckDB's own batches",
        ),
        **dict.fromkeys(
            (
                "backend",
                "backend_kwargs",
                "reflection_level",
                "defer_table_reflect",
                "detect_precision_hints",
            ),
            "it is not needed here, DuckDB reads each column in its own type",
        ),
        "concurrency": "it is not needed here, `max_connections` says it",
        "batch_size": "it is not needed here, rows stream in DuckDB's own batches",
        "rate_limit": "it is not needed here, a stream is one request",
    }

    min_connections: int = Field(1, ge=0, le=100, description="Connections kept open while a step runs.")
    max_connections: int = Field(
        5, ge=1, le=100, description="Most connections at one time; each stream takes one."
    )
    types: Annotated[Mapping[str, str], BeforeValidator(casts.declared)] = Field(
        default_factory=dict,
        description='DuckDB types by column, `{"amount": "DECIMAL(12,2)"}`; a value that does not fit is an error.',
    )
    numeric_type: Annotated[str, BeforeValidator(casts.type_name)] = Field(
        "VARCHAR",
        description="What a number of more digits than DuckDB's have becomes: `VARCHAR` keeps all of them; or e.g. "
        "`DECIMAL(38,9)`, which refuses values that do not fit, or `DOUBLE`, which rounds.",
    )

    def problems(self) -> list[str]:
        found = super().problems()
        if self.min_connections > self.max_connections:
            found.append("min_connections: more than max_connections")
        kind = self.numeric_type
        if kind != "VARCHAR" and not (
            casts.is_scalar(kind) and (kind.startswith("DECIMAL") or kind == "DOUBLE")
        ):
            found.append("numeric_type: write VARCHAR, DECIMAL(p,s) or DOUBLE")
        return found


class ServerSinkOptions(Options):
    """How an EXPORT is written to a table of a server."""

    aliases: ClassVar[Mapping[str, str]] = {
        "table_name": "table", "target_table": "table", "write_mode": "mode", "if_exists": "mode",
        "destination_sync_mode": "mode", "write_disposition": "mode", "load_method": "mode", "object": "table",
        "key_properties": "keys", "key": "keys", "primary_key": "keys", "unique_key": "keys", "upsert_keys": "keys",
    }  # fmt: skip
    foreign: ClassVar[Mapping[str, Foreign]] = other_tools.SINKS
    idle: ClassVar[Mapping[str, str]] = {
        "raw_data_schema": "it is not needed here, there are no raw tables",
        "disable_type_dedupe": "it is not needed here, there are no raw tables",
        "batch_size_rows": "it is not needed here, the rows travel in batches of their own",
        "use_copy": "it is not needed here, rows travel the fastest way that is exact",
        "validate_records": "it is not needed here, each value is looked at",
        "activate_version": "it is not needed here, `mode` says what becomes of old rows",
        "batch_size": "it is not needed here, the rows travel in batches of their own",
        "min_connections": "it is not needed here, an export has one connection",
        "max_connections": "it is not needed here, an export has one connection",
    }

    batch_size: int | None = Field(None, ge=1, description="A name of the first SQLFlow.")
    min_connections: int | None = Field(None, ge=0, description="A name of the first SQLFlow.")
    max_connections: int | None = Field(None, ge=1, description="A name of the first SQLFlow.")
    table: str | None = Field(
        None, min_length=1, description="The table, `name` or `schema.name`; also the target's `#name`."
    )
    mode: Annotated[Literal["append", "replace", "upsert"], BeforeValidator(parameters.sink_mode)] = Field(
        "replace",
        description="`replace` swaps the table, `append` adds rows, `upsert` merges them by `keys`.",
    )
    keys: Annotated[tuple[str, ...], BeforeValidator(parameters.keys)] = Field(
        (), description="Columns that name a row, for `upsert`."
    )
    create: bool = Field(True, description="Whether a table or schema that is missing is made.")
    timeout_seconds: float | None = Field(
        None, gt=0, description="Longest time of one statement, in seconds."
    )
    max_retries: int | None = Field(None, ge=0, le=100, description="Tries after the first one.")
    lock_timeout_seconds: float = Field(
        60, gt=0, description="Longest wait for others who use the table, in seconds; then it is tried again."
    )


def mode_name(value: Any) -> Any:
    """Return the name of an SSL mode in lower case, also from `{"mode": "require"}` and true or false."""
    if isinstance(value, Mapping):
        value = value.get("mode")
    if isinstance(value, bool):
        value = str(value)
    return value.strip().lower() if isinstance(value, str) else value


def server_types(pattern: re.Pattern[str], example: str) -> Callable[[Any], Any]:
    """Return what takes column → type of a server, and raises ValueError for a text that cannot be a type."""

    def types(value: Any) -> Any:
        for kind in value.values() if isinstance(value, Mapping) else ():
            if not pattern.fullmatch(str(kind)):
                raise ValueError(f"{kind!r} is no type; write e.g. {example}")
        return value

    return types


def url_parts(text: str, form: str) -> tuple[dict[str, str], str, dict[str, str]]:
    """Return database, user and password of what stands after `scheme://`, the text of its hosts, and its words.

    Raises ValueError, which says no more than `form`, where a part of the password might be taken for
    something else: it would be shown.
    """
    rest, _, query = text.partition("?")
    authority, _, path = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    try:
        words = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), errors="strict"))
        found = {"database": unquote(path, errors="strict")} if path else {}
        if at:
            name, colon, password = user.partition(":")
            found |= {"username": unquote(name, errors="strict")} if name else {}
            found |= {"password": unquote(password, errors="strict")} if colon else {}
    except ValueError:
        raise ValueError(f"connection: {form}") from None
    if "@" in path or (not at and "@" in query and "user" not in words):
        raise ValueError(f"connection: {form}")
    return found, hosts, words


def with_files(parts: Mapping[str, str], names: Iterable[str], place: Place) -> dict[str, str]:
    """Return the parts, the files `names` found in the project. Raises BadOption where one is not there."""
    found = dict(parts)
    for name in names:
        if name in found:
            path = Path(place.root, Path(found[name]).expanduser())
            if not path.is_file():
                raise BadOption(f"{name}: there is no file {found[name]}", option=name)
            found[name] = str(path)
    return found
