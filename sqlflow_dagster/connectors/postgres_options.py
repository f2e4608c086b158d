"""The parameters of Postgres, and where they say the server is: the same words for source and sink."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import parse_qsl, unquote

from pydantic import BaseModel, BeforeValidator, Field, SecretStr, model_validator

from sqlflow_dagster.connectors import casts, parameters
from sqlflow_dagster.connectors.base import Place
from sqlflow_dagster.connectors.options import Options, SyncMode
from sqlflow_dagster.connectors.tables import TableOptions
from sqlflow_dagster.errors import BadOption

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
_URL = re.compile(r"(?:postgres|postgresql)(?:\+\w+)?://", re.IGNORECASE)
_TYPE = re.compile(r"[A-Za-z_][\w .\"]*(\(\d+(, *-?\d+)?\))?[\w ]*(\[\])*")
_WORD = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?:\s+|$)")
# A connection string's own words, and what the parameter is called here.
_WORDS = {
    "host": "host", "hostaddr": "host", "port": "port", "dbname": "database", "user": "username",
    "password": "password", "sslmode": "sslmode", "sslrootcert": "sslrootcert", "sslcert": "sslcert",
    "sslkey": "sslkey", "connect_timeout": "connect_timeout", "application_name": "application_name",
    "target_session_attrs": "target_session_attrs",
}  # fmt: skip
# Words that only libpq has to understand.
_PASSED_ON = frozenset(
    {
        "channel_binding", "gssencmode", "krbsrvname", "keepalives", "keepalives_idle", "keepalives_interval",
        "keepalives_count", "tcp_user_timeout", "load_balance_hosts", "options", "passfile", "require_auth", "service",
        "sslcompression", "sslcrl", "sslcrldir", "sslnegotiation", "sslsni", "ssl_min_protocol_version",
        "ssl_max_protocol_version", "fallback_application_name",
    }
)  # fmt: skip
_GRACE_SECONDS = 5
_FILES = ("sslrootcert", "sslcert", "sslkey")
ALIASES = {
    "dbname": "database", "db": "database", "database_name": "database", "user": "username",
    "hostname": "host", "server": "host", "passwd": "password", "pwd": "password",
    "connection_string": "connection", "connection_url": "connection", "connection_uri": "connection",
    "conn": "connection", "dsn": "connection", "url": "connection", "uri": "connection",
    "ssl_mode": "sslmode", "ssl_root_cert": "sslrootcert", "sslca": "sslrootcert", "ssl_ca": "sslrootcert",
    "ssl_cert": "sslcert", "ssl_key": "sslkey", "connection_timeout": "connect_timeout",
}  # fmt: skip


def _mode(value: Any) -> Any:
    """The mode's name, also from `{"mode": "require"}` and with underscores."""
    if isinstance(value, Mapping):
        value = value.get("mode")
    if isinstance(value, bool):
        return "require" if value else "disable"
    return value.strip().lower().replace("_", "-") if isinstance(value, str) else value


def _types(value: Any) -> Any:
    """Column → Postgres type; ValueError for a text that cannot be one."""
    for kind in value.values() if isinstance(value, Mapping) else ():
        if not _TYPE.fullmatch(str(kind)):
            raise ValueError(f"{kind!r} is no type; write e.g. 'json' or 'numeric(12,2)'")
    return value


class Connecting(BaseModel):
    """The parameters that say where the server is and who asks."""

    connection: SecretStr | None = Field(
        None,
        description="`postgresql://user:password@host:port/database?sslmode=require`, or `host=… dbname=…`. "
        "Parameters beside it win over its parts.",
    )
    host: str | None = Field(
        None, min_length=1, description="Host name, address, or folder of a socket; `localhost`."
    )
    port: int | None = Field(None, ge=1, le=65535, description="Port; 5432.")
    database: str | None = Field(None, min_length=1, description="Database; by default the user's name.")
    username: str | None = Field(
        None, min_length=1, description="User; by default that of the operating system."
    )
    password: SecretStr | None = Field(None, description="Password; also from `~/.pgpass`.")
    sslmode: Annotated[SslMode | None, BeforeValidator(_mode)] = Field(
        None, description="`disable`, `allow`, `prefer` (default), `require`, `verify-ca`, `verify-full`."
    )
    sslrootcert: str | None = Field(
        None, description="File of the authorities' certificates, relative to the project; or `system`."
    )
    sslcert: str | None = Field(None, description="File of the client's certificate.")
    sslkey: str | None = Field(None, description="File of the client's key.")
    connect_timeout: int = Field(
        10, ge=1, description="Longest wait for the server to take a connection, in seconds."
    )
    application_name: str = Field("sqlflow_dagster", description="How the server's views call us.")
    target_session_attrs: (
        Literal["any", "read-write", "read-only", "primary", "standby", "prefer-standby"] | None
    ) = Field(None, description="With several hosts: which kind of server to take.")
    silence_seconds: float = Field(
        1800,
        gt=0,
        description="Longest time in which nothing comes from the server and nothing goes to it, in seconds; then the "
        "connection is given up, and what was under way is tried again. A statement that works longer before its "
        "first row needs more.",
    )
    session_settings: bool = Field(
        True,
        description="Whether time zone, date style and timeouts are set when connecting. `false` behind a pooler "
        "that refuses them (PgBouncer); the server must then have its defaults.",
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
        found = _parsed(self.connection.get_secret_value()) if self.connection else {}
        own = {name: getattr(self, name) for name in dict.fromkeys(_WORDS.values())}
        for name, value in own.items():
            if value is not None and (name in self.model_fields_set or name not in found):
                found[name] = value.get_secret_value() if isinstance(value, SecretStr) else str(value)
        if found.get("sslmode") not in (None, *SslMode.__args__):  # type: ignore[attr-defined]  # a Literal's values
            raise ValueError(f"connection: sslmode is one of {', '.join(SslMode.__args__)}")  # type: ignore[attr-defined]  # as above
        return {"host": "localhost", "port": "5432", **found}


class PostgresOptions(Connecting, TableOptions):
    """Postgres's parameters."""

    aliases: ClassVar[Mapping[str, str]] = {
        **ALIASES,
        "statement_timeout": "timeout_seconds", "pool_size": "max_connections", "pool_min": "min_connections",
        "pool_max": "max_connections", "min_pool_size": "min_connections", "max_pool_size": "max_connections",
        "column_types": "types", "dtypes": "types", "replication_slot": "slot_prefix", "slot_name": "slot_prefix",
        "publication_name": "publication",
    }  # fmt: skip
    idle: ClassVar[Mapping[str, str]] = {
        "batch_size": "it is not needed here, rows stream in DuckDB's own batches",
        "rate_limit": "it is not needed here, a stream is one request",
    }

    sync_modes: ClassVar[tuple[SyncMode, ...]] = ("full_refresh", "incremental", "cdc")

    slot_prefix: str = Field(
        "sqlflow",
        min_length=1,
        max_length=40,
        pattern="^[a-z0-9_]+$",
        description="`cdc`: what the names of its replication slots begin with; each LOAD has one of its own.",
    )
    publication: str | None = Field(
        None,
        min_length=1,
        max_length=63,
        description="`cdc`: the publication to read by, made where it is missing; by default one for each slot.",
    )
    deletes: Annotated[Literal["soft", "hard"], BeforeValidator(parameters.lower)] = Field(
        "soft",
        description="`cdc`: `soft` keeps deleted rows, with `_sqlflow_deleted` true; `hard` deletes them here too.",
    )
    heartbeat: bool = Field(
        True,
        description="`cdc`: whether each read writes a message into the log, so that a quiet one moves on too.",
    )
    transaction_bytes: int = Field(
        256 * 2**20,
        ge=1,
        description="`cdc`: about how many bytes of changes are committed together; a transaction is never parted.",
    )
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
        description="What `numeric` without a precision becomes: `VARCHAR` keeps all digits; or e.g. "
        "`DECIMAL(38,9)`, which refuses values that do not fit, or `DOUBLE`, which rounds.",
    )

    @property
    def by_xmin(self) -> bool:
        """Whether the cursor is the system column that says which transaction wrote a row."""
        return self.sync_mode == "incremental" and (self.cursor_field or "").lower() == "xmin"

    def problems(self) -> list[str]:
        found = super().problems()
        if self.sync_mode == "cdc":
            found += self._cdc_problems()
        if self.min_connections > self.max_connections:
            found.append("min_connections: more than max_connections")
        kind = self.numeric_type
        if kind != "VARCHAR" and not (
            casts.is_scalar(kind) and (kind.startswith("DECIMAL") or kind == "DOUBLE")
        ):
            found.append("numeric_type: write VARCHAR, DECIMAL(p,s) or DOUBLE")
        if self.by_xmin and self.query:
            found.append("cursor_field: a query has no xmin; name a column, or read a table")
        if self.by_xmin and self.lookback_window:
            found.append("lookback_window: reading by xmin misses nothing, and needs none")
        return found

    def _cdc_problems(self) -> list[str]:
        """What does not go with changes: they are of whole tables, and merged by key."""
        idle = {
            "query": "a query has no log; name a table",
            "cursor_field": "the log is its own cursor",
            "lookback_window": "the log misses nothing, and needs none",
            "start_date": "the log has no dates; filter in a CREATE TABLE … AS",
            "end_date": "the log has no dates; filter in a CREATE TABLE … AS",
            "filters": "a row may come to match, or not to; filter in a CREATE TABLE … AS",
            "row_provenance": "a table is written by one cdc LOAD alone",
        }
        found = [f"{name}: with cdc, {why}" for name, why in idle.items() if getattr(self, name)]
        if not self.session_settings:
            found.append("session_settings: cdc needs the server itself, not a pooler")
        return found


class PostgresSinkOptions(Connecting, Options):
    """How an EXPORT is written to Postgres."""

    aliases: ClassVar[Mapping[str, str]] = {
        **ALIASES,
        "table_name": "table", "schema_name": "schema", "write_mode": "mode", "if_exists": "mode",
        "key": "keys", "primary_key": "keys", "unique_key": "keys", "upsert_keys": "keys",
    }  # fmt: skip

    table: str | None = Field(
        None,
        min_length=1,
        description="The table, `name` or `schema.name`; also the target's `#name` or last part.",
    )
    schema_: str | None = Field(
        None, alias="schema", min_length=1, description="The table's schema; `public`."
    )
    mode: Annotated[Literal["append", "replace", "upsert"], BeforeValidator(parameters.lower)] = Field(
        "replace",
        description="`replace` swaps the table, `append` adds rows, `upsert` merges them by `keys`.",
    )
    keys: Annotated[tuple[str, ...], BeforeValidator(parameters.keys)] = Field(
        (), description="Columns that name a row, for `upsert`."
    )
    create: bool = Field(True, description="Whether a table or schema that is missing is made.")
    types: Annotated[Mapping[str, str], BeforeValidator(_types)] = Field(
        default_factory=dict,
        description='Postgres types of columns of a new table, `{"doc": "json", "amount": "numeric(12,2)"}`.',
    )
    timeout_seconds: float | None = Field(
        None, gt=0, description="Longest time of one statement, in seconds."
    )
    max_retries: int | None = Field(None, ge=0, le=100, description="Tries after the first one.")
    lock_timeout_seconds: float = Field(
        60, gt=0, description="Longest wait for others who use the table, in seconds; then it is tried again."
    )


def server(options: Connecting, place: Place) -> dict[str, str]:
    """Return what libpq is told, its files found in the project; it holds the password.

    Raises BadOption where a certificate's file is not there.
    """
    parts = options.parts()
    for name in _FILES:
        if name in parts and not (name == "sslrootcert" and parts[name] == "system"):
            parts[name] = str(_file(parts[name], place, name))
    words = {mine: theirs for theirs, mine in reversed(_WORDS.items())}
    told = {words.get(name, name): value for name, value in parts.items()}
    # A host that is gone is known after a minute; `silence_seconds` is for one that is there and says nothing.
    alive = {"keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}
    return {**alive, "tcp_user_timeout": "60000", **told}


def _file(path: str, place: Place, option: str) -> Path:
    found = Path(place.root, Path(path).expanduser())
    if not found.is_file():
        raise BadOption(f"{option}: there is no file {path}", option=option)
    return found


def _parsed(text: str) -> dict[str, str]:
    text = text.strip()
    if (scheme := _URL.match(text)) is None:
        return _words(text)
    rest, _, query = text[scheme.end() :].partition("?")
    authority, _, path = rest.partition("/")
    user, at, hosts = authority.rpartition("@")
    found = {"database": unquote(path)} if path else {}
    if at:
        name, colon, password = user.partition(":")
        found |= {"username": unquote(name)} if name else {}
        found |= {"password": unquote(password)} if colon else {}
    found |= _hosts(hosts)
    for word, value in parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)):
        found[_known(word)] = value
    return found


def _hosts(text: str) -> dict[str, str]:
    """Host and port of an authority; several are joined by commas, as libpq takes them."""
    pairs = [re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d+))?", part) for part in text.split(",")]
    if not all(pairs):
        raise ValueError(
            "connection: write postgresql://user:password@host:port/database; special characters as %40"
        )
    hosts = [unquote(pair[1]).strip("[]") for pair in pairs if pair]
    ports = [pair[2] for pair in pairs if pair]
    found = {"host": ",".join(hosts)} if any(hosts) else {}
    return found | ({"port": ",".join(port or "5432" for port in ports)} if any(ports) else {})


def _words(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    place = 0
    while place < len(text):
        word = _WORD.match(text, place)
        if word is None:
            raise ValueError(
                "connection: write postgresql://user:password@host:port/database, or host=… dbname=…"
            )
        value = word[3] if word[2] is None else word[2]
        found[_known(word[1])] = re.sub(r"\\(.)", r"\1", value)
        place = word.end()
    return found


def _known(word: str) -> str:
    if word in _PASSED_ON:
        return word
    if word not in _WORDS:
        raise ValueError(f"connection: the part {word!r} is not known here; there are {', '.join(_WORDS)}")
    return _WORDS[word]
