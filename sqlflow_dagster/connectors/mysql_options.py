"""The parameters of MySQL and MariaDB, and where they say the server is: the same words for source and sink."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import parse_qsl, unquote

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, model_validator

from sqlflow_dagster.connectors import casts, parameters
from sqlflow_dagster.connectors.base import Place
from sqlflow_dagster.connectors.options import Options
from sqlflow_dagster.connectors.tables import TableOptions
from sqlflow_dagster.errors import BadOption

SslMode = Literal["disabled", "preferred", "required", "verify_ca", "verify_identity"]
_MODES: tuple[str, ...] = ("disabled", "preferred", "required", "verify_ca", "verify_identity")
# What other tools and libpq call the modes.
_OTHER_MODES = {
    "disable": "disabled", "allow": "preferred", "prefer": "preferred", "require": "required",
    "verify_full": "verify_identity", "true": "required", "false": "disabled",
}  # fmt: skip
_URL = re.compile(r"(?:mysql|mariadb)(?:\+\w+)?://", re.IGNORECASE)
_TYPE = re.compile(r"[A-Za-z_][\w ]*(\(\d+(, *\d+)?\))?[\w ]*")
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d+))?")
_FORM = "write mysql://user:password@host:port/database; special characters as %40"
# The words after the `?` of a connection, and what the parameter is called here.
_WORDS = {
    "ssl_mode": "ssl_mode", "sslmode": "ssl_mode", "ssl_ca": "ssl_ca", "sslca": "ssl_ca", "ssl_cert": "ssl_cert",
    "ssl_key": "ssl_key", "socket": "socket", "unix_socket": "socket", "connect_timeout": "connect_timeout",
    "compress": "compress", "user": "username", "password": "password", "database": "database",
}  # fmt: skip
_FILES = ("ssl_ca", "ssl_cert", "ssl_key")
_PARTS = (
    "host", "port", "socket", "database", "username", "password", "ssl_mode", *_FILES, "connect_timeout", "compress",
)  # fmt: skip
_UTF8 = ("utf8", "utf8mb4")
ALIASES = {
    "dbname": "database", "db": "database", "database_name": "database", "user": "username",
    "hostname": "host", "server": "host", "passwd": "password", "pwd": "password",
    "connection_string": "connection", "connection_url": "connection", "connection_uri": "connection",
    "conn": "connection", "dsn": "connection", "url": "connection", "uri": "connection",
    "unix_socket": "socket", "sslmode": "ssl_mode", "sslca": "ssl_ca", "sslrootcert": "ssl_ca",
    "ssl_root_cert": "ssl_ca", "sslcert": "ssl_cert", "sslkey": "ssl_key", "connection_timeout": "connect_timeout",
    "compression": "compress",
}  # fmt: skip


def _mode(value: Any) -> Any:
    """The mode's name, also from `{"mode": "required"}`, with hyphens, and in libpq's words."""
    if isinstance(value, Mapping):
        value = value.get("mode")
    if isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        return value
    name = value.strip().lower().replace("-", "_")
    return _OTHER_MODES.get(name, name)


def _types(value: Any) -> Any:
    """Column → MySQL type; ValueError for a text that cannot be one."""
    for kind in value.values() if isinstance(value, Mapping) else ():
        if not _TYPE.fullmatch(str(kind)):
            raise ValueError(f"{kind!r} is no type; write e.g. 'json' or 'decimal(12,2)'")
    return value


class Connecting(BaseModel):
    """The parameters that say where the server is and who asks."""

    connection: SecretStr | None = Field(
        None,
        description="`mysql://user:password@host:port/database?ssl-mode=required`. Parameters beside it win over its "
        "parts.",
    )
    host: str | None = Field(
        None, min_length=1, description="Host name or address, asked by TCP also where it is `localhost`."
    )
    port: int | None = Field(None, ge=1, le=65535, description="Port; 3306.")
    socket: str | None = Field(None, min_length=1, description="File of a socket, in place of host and port.")
    database: str | None = Field(
        None, min_length=1, description="Database of tables that are named without one."
    )
    username: str | None = Field(None, min_length=1, description="User; `root`.")
    password: SecretStr | None = Field(None, description="Password.")
    ssl_mode: Annotated[SslMode | None, BeforeValidator(_mode)] = Field(
        None, description="`disabled`, `preferred` (default), `required`, `verify_ca`, `verify_identity`."
    )
    ssl_ca: str | None = Field(
        None, description="File of the authorities' certificates, relative to the project; the system's."
    )
    ssl_cert: str | None = Field(None, description="File of the client's certificate.")
    ssl_key: str | None = Field(None, description="File of the client's key.")
    connect_timeout: int = Field(
        10, ge=1, description="Longest wait for the server to take a connection, in seconds."
    )
    compress: bool = Field(
        False, description="Compress what travels: for slow lines. On fast ones it takes three times as long."
    )

    @model_validator(mode="after")
    def _readable(self) -> Connecting:
        self.parts()
        return self

    def parts(self) -> dict[str, str]:
        """Return host, port, database … by our names, with those of `connection` filled in.

        Raises ValueError where `connection` cannot be read; its text never shows it.
        """
        found = _parsed(self.connection.get_secret_value()) if self.connection else {}
        for name in _PARTS:
            value = getattr(self, name)
            if value is not None and (name in self.model_fields_set or name not in found):
                found[name] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        if found.get("ssl_mode", "preferred") not in _MODES:
            raise ValueError(f"connection: ssl-mode is one of {', '.join(_MODES)}")
        if not found["connect_timeout"].isdecimal():
            raise ValueError("connection: connect_timeout is a number of seconds")
        return {"host": "localhost", "port": "3306", "username": "root", **found}


class MySQLOptions(Connecting, TableOptions):
    """MySQL's parameters."""

    aliases: ClassVar[Mapping[str, str]] = {
        **ALIASES,
        "statement_timeout": "timeout_seconds", "pool_size": "max_connections", "pool_min": "min_connections",
        "pool_max": "max_connections", "min_pool_size": "min_connections", "max_pool_size": "max_connections",
        "column_types": "types", "dtypes": "types", "databases": "schemas",
        "zero_date_behavior": "zero_dates", "zerodatetimebehavior": "zero_dates",
        "tinyint1isbit": "tinyint1_as_boolean", "decimal_type": "numeric_type",
    }  # fmt: skip
    idle: ClassVar[Mapping[str, str]] = {
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
        description="What a `decimal` of more than 38 digits becomes: `VARCHAR` keeps all of them; or e.g. "
        "`DECIMAL(38,9)`, which refuses values that do not fit, or `DOUBLE`, which rounds.",
    )
    zero_dates: Annotated[Literal["error", "null"], BeforeValidator(parameters.lower)] = Field(
        "error",
        description="What `0000-00-00`, `2024-05-00` and other dates that are none become: `error` stops the read, "
        "`null` loads NULL and says how many they were.",
    )
    tinyint1_as_boolean: bool = Field(
        True,
        description="Whether `tinyint(1)` is BOOLEAN, and another number than 0 and 1 an error; else it is TINYINT.",
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


class MySQLSinkOptions(Connecting, Options):
    """How an EXPORT is written to MySQL."""

    aliases: ClassVar[Mapping[str, str]] = {
        **ALIASES,
        "table_name": "table", "schema": "database", "schema_name": "database", "write_mode": "mode",
        "if_exists": "mode", "key": "keys", "primary_key": "keys", "unique_key": "keys", "upsert_keys": "keys",
    }  # fmt: skip

    table: str | None = Field(
        None,
        min_length=1,
        description="The table, `name` or `database.name`; also the target's `#name`.",
    )
    mode: Annotated[Literal["append", "replace", "upsert"], BeforeValidator(parameters.lower)] = Field(
        "replace",
        description="`replace` swaps the table, `append` adds rows, `upsert` merges them by `keys`.",
    )
    keys: Annotated[tuple[str, ...], BeforeValidator(parameters.keys)] = Field(
        (), description="Columns that name a row, for `upsert`."
    )
    create: bool = Field(True, description="Whether a table or database that is missing is made.")
    types: Annotated[Mapping[str, str], BeforeValidator(_types)] = Field(
        default_factory=dict,
        description='MySQL types of columns of a new table, `{"doc": "json", "code": "varchar(20)"}`.',
    )
    timeout_seconds: float | None = Field(None, gt=0, description="Longest wait for one answer, in seconds.")
    max_retries: int | None = Field(None, ge=0, le=100, description="Tries after the first one.")
    lock_timeout_seconds: float = Field(
        60, gt=0, description="Longest wait for others who use the table, in seconds; then it is tried again."
    )


def server(options: Connecting, place: Place) -> dict[str, str]:
    """Return host, port … by our names, files found in the project; it holds the password.

    Raises BadOption where a certificate's file is not there.
    """
    parts = options.parts()
    for name in _FILES:
        if name in parts:
            parts[name] = str(_file(parts[name], place, name))
    return parts


def _file(path: str, place: Place, option: str) -> Path:
    found = Path(place.root, Path(path).expanduser())
    if not found.is_file():
        raise BadOption(f"{option}: there is no file {path}", option=option)
    return found


def _parsed(text: str) -> dict[str, str]:
    text = text.strip().removeprefix("jdbc:")
    if (scheme := _URL.match(text)) is None:
        raise ValueError(f"connection: {_FORM}")
    rest, _, query = text[scheme.end() :].partition("?")
    authority, _, path = rest.partition("/")
    user, at, address = authority.rpartition("@")
    found = {"database": unquote(path)} if path else {}
    if at:
        name, colon, password = user.partition(":")
        found |= {"username": unquote(name)} if name else {}
        found |= {"password": unquote(password)} if colon else {}
    host = _HOST.fullmatch(address)
    if host is None:
        raise ValueError(f"connection: {_FORM}")
    found |= {"host": unquote(host[1]).strip("[]")} if host[1] else {}
    found |= {"port": host[2]} if host[2] else {}
    for word, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
        found |= _word(word, value)
    return found


def _word(word: str, value: str) -> dict[str, str]:
    """One word after the `?`: what it says by our names."""
    name = word.lower().replace("-", "_")
    if name in ("charset", "characterencoding"):
        if value.lower().replace("-", "") not in _UTF8:
            raise ValueError("connection: charset: text travels as utf8mb4; leave it out")
        return {}
    if name not in _WORDS:
        raise ValueError(f"connection: the part {word!r} is not known here; there are {', '.join(_WORDS)}")
    if _WORDS[name] == "ssl_mode":
        value = _mode(value)
    if _WORDS[name] == "compress":
        value = str(value.lower() in ("1", "true", "yes"))
    return {_WORDS[name]: value}
