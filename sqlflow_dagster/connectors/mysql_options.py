"""The parameters of MySQL and MariaDB, and where they say the server is: the same words for source and sink."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import unquote

from pydantic import BeforeValidator, Field, SecretStr

from sqlflow_dagster.connectors import parameters, sql_options
from sqlflow_dagster.connectors.base import Place
from sqlflow_dagster.connectors.options import Spread
from sqlflow_dagster.connectors.sql_options import (
    ServerOptions,
    mode_name,
    server_types,
    url_parts,
    with_files,
)
from sqlflow_dagster.connectors.sql_sink import SinkOptions

SslMode = Literal["disabled", "preferred", "required", "verify_ca", "verify_identity"]
_MODES: tuple[str, ...] = ("disabled", "preferred", "required", "verify_ca", "verify_identity")
# What other tools and libpq call the modes.
_OTHER_MODES = {
    "disable": "disabled", "allow": "preferred", "prefer": "preferred", "require": "required",
    "verify_full": "verify_identity", "true": "required", "false": "disabled",
}  # fmt: skip
_URL = re.compile(r"(?:mysql|mariadb)(?:\+\w+)?://", re.IGNORECASE)
_TYPE = re.compile(r"[A-Za-z_][\w ]*(\(\d+(, *\d+)?\))?[\w ]*")
_types = server_types(_TYPE, "'json' or 'decimal(12,2)'")
_HOST = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d+))?")
_FORM = "write mysql://user:password@host:port/database; special characters as %40"
# The words after the `?` of a connection, and what the parameter is called here.
_WORDS = {
    "ssl_mode": "ssl_mode", "sslmode": "ssl_mode", "ssl_ca": "ssl_ca", "sslca": "ssl_ca", "ssl_cert": "ssl_cert",
    "ssl_key": "ssl_key", "socket": "socket", "unix_socket": "socket", "connect_timeout": "connect_timeout",
    "compress": "compress", "user": "username", "password": "password", "database": "database",
    "ssl": "ssl_mode", "usessl": "ssl_mode",
}  # fmt: skip
_FILES = ("ssl_ca", "ssl_cert", "ssl_key")
_PARTS = (
    "host", "port", "socket", "database", "username", "password", "ssl_mode", *_FILES, "connect_timeout", "compress",
)  # fmt: skip
_UTF8 = ("utf8", "utf8mb4")
ALIASES = {
    **sql_options.ALIASES,
    "unix_socket": "socket", "sslmode": "ssl_mode", "ssl": "ssl_mode", "sslca": "ssl_ca", "sslrootcert": "ssl_ca",
    "ssl_root_cert": "ssl_ca", "sslcert": "ssl_cert", "sslkey": "ssl_key", "compression": "compress",
}  # fmt: skip


def _mode(value: Any) -> Any:
    """The mode's name, also as true or false, with hyphens, and in libpq's words."""
    name = mode_name(value)
    name = name.replace("-", "_") if isinstance(name, str) else name
    return _OTHER_MODES.get(name, name) if isinstance(name, str) else name


class Connecting(sql_options.Connecting):
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
    ssl_mode: Annotated[SslMode | None, BeforeValidator(_mode)] = Field(
        None, description="`disabled`, `preferred` (default), `required`, `verify_ca`, `verify_identity`."
    )
    ssl_ca: str | None = Field(
        None, description="File of the authorities' certificates, relative to the project; the system's."
    )
    ssl_cert: str | None = Field(None, description="File of the client's certificate.")
    ssl_key: str | None = Field(None, description="File of the client's key.")
    compress: bool = Field(
        False, description="Compress what travels: for slow lines. On fast ones it takes three times as long."
    )

    def parts(self) -> dict[str, str]:
        found = self.filled(_parsed, _PARTS)
        if found.get("ssl_mode", "preferred") not in _MODES:
            raise ValueError(f"connection: ssl-mode is one of {', '.join(_MODES)}")
        if not found["connect_timeout"].isdecimal():
            raise ValueError("connection: connect_timeout is a number of seconds")
        return {"host": "localhost", "port": "3306", "username": "root", **found}


class MySQLOptions(Connecting, ServerOptions):
    """MySQL's parameters."""

    aliases: ClassVar[Mapping[str, str]] = {
        **ALIASES,
        "databases": "schemas", "filter_dbs": "schemas",
        "zero_date_behavior": "zero_dates", "zerodatetimebehavior": "zero_dates",
        "tinyint1isbit": "tinyint1_as_boolean", "decimal_type": "numeric_type",
    }  # fmt: skip
    spread: ClassVar[Mapping[str, Spread]] = {"replication_method": parameters.by_cursor}
    zero_dates: Annotated[Literal["error", "null"], BeforeValidator(parameters.lower)] = Field(
        "error",
        description="What `0000-00-00`, `2024-05-00` and other dates that are none become: `error` stops the read, "
        "`null` loads NULL and says how many they were.",
    )
    tinyint1_as_boolean: bool = Field(
        True,
        description="Whether `tinyint(1)` is BOOLEAN, and another number than 0 and 1 an error; else it is TINYINT.",
    )


class MySQLSinkOptions(Connecting, SinkOptions):
    """How an EXPORT is written to MySQL."""

    aliases: ClassVar[Mapping[str, str]] = {
        **ALIASES,
        "schema": "database", "schema_name": "database", "default_target_schema": "database",
    }  # fmt: skip

    types: Annotated[Mapping[str, str], BeforeValidator(_types)] = Field(
        default_factory=dict,
        description='MySQL types of columns of a new table, `{"doc": "json", "code": "varchar(20)"}`.',
    )
    timeout_seconds: float | None = Field(None, gt=0, description="Longest wait for one answer, in seconds.")


def server(options: Connecting, place: Place) -> dict[str, str]:
    """Return host, port … by our names, files found in the project; it holds the password.

    Raises BadOption where a certificate's file is not there.
    """
    return with_files(options.parts(), _FILES, place)


def _parsed(text: str) -> dict[str, str]:
    text = text.strip().removeprefix("jdbc:")
    if (scheme := _URL.match(text)) is None:
        raise ValueError(f"connection: {_FORM}")
    found, address, words = url_parts(text[scheme.end() :], _FORM)
    host = _HOST.fullmatch(address)
    if host is None:
        raise ValueError(f"connection: {_FORM}")
    found |= {"host": unquote(host[1]).strip("[]")} if host[1] else {}
    found |= {"port": host[2]} if host[2] else {}
    for word, value in words.items():
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
