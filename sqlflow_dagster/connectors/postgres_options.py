"""The parameters of Postgres, and where they say the server is: the same words for source and sink."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import unquote

from pydantic import BeforeValidator, Field, SecretStr

from sqlflow_dagster.connectors import casts, parameters, postgres_service, sql_options
from sqlflow_dagster.connectors.base import Place
from sqlflow_dagster.connectors.options import SyncMode
from sqlflow_dagster.connectors.sql_options import (
    ServerOptions,
    mode_name,
    server_types,
    url_parts,
    with_files,
)
from sqlflow_dagster.connectors.sql_sink import SinkOptions

SslMode = Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]
_URL = re.compile(r"(?:postgres|postgresql)(?:\+\w+)?://", re.IGNORECASE)
_TYPE = re.compile(r"[A-Za-z_][\w .\"]*(\(\d+(, *-?\d+)?\))?[\w ]*(\[\])*")
_types = server_types(_TYPE, "'json' or 'numeric(12,2)'")
_FORM = "write postgresql://user:password@host:port/database; special characters as %40"
_WORD = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s'\\]|\\.)*))(?:\s+|$)")
# A connection string's own words, and what the parameter is called here.
_WORDS = {
    "host": "host", "hostaddr": "host", "port": "port", "dbname": "database", "user": "username",
    "password": "password", "sslmode": "sslmode", "sslrootcert": "sslrootcert", "sslcert": "sslcert",
    "sslkey": "sslkey", "connect_timeout": "connect_timeout", "application_name": "application_name",
    "target_session_attrs": "target_session_attrs",
}  # fmt: skip
# What other drivers call them in a URL.
_OTHER_WORDS = {"ssl": "sslmode", "ApplicationName": "application_name", "connectTimeout": "connect_timeout"}
# Words that only libpq has to understand.
_PASSED_ON = frozenset(
    {
        "channel_binding", "gssencmode", "krbsrvname", "keepalives", "keepalives_idle", "keepalives_interval",
        "keepalives_count", "tcp_user_timeout", "load_balance_hosts", "options", "passfile", "require_auth", "service",
        "sslcompression", "sslcrl", "sslcrldir", "sslnegotiation", "sslsni", "ssl_min_protocol_version",
        "ssl_max_protocol_version", "fallback_application_name",
    }
)  # fmt: skip
_OTHER_MODES = {"true": "require", "false": "disable"}
_FILES = ("sslrootcert", "sslcert", "sslkey")
ALIASES = {
    **sql_options.ALIASES,
    "ssl_mode": "sslmode", "ssl": "sslmode", "ssl_root_cert": "sslrootcert", "sslca": "sslrootcert",
    "ssl_ca": "sslrootcert",
    "ssl_cert": "sslcert", "ssl_key": "sslkey",
}  # fmt: skip


def _mode(value: Any) -> Any:
    """The mode's name, also as true or false and with underscores."""
    name = mode_name(value)
    return _OTHER_MODES.get(name, name.replace("_", "-")) if isinstance(name, str) else name


class Connecting(sql_options.Connecting):
    """The parameters that say where the server is and who asks."""

    connection: SecretStr | None = Field(
        None,
        description="`postgresql://user:password@host:port/database?sslmode=require`, or `host=… dbname=…`. "
        "Parameters beside it win over its parts.",
    )
    host: str | None = Field(
        None,
        min_length=1,
        description="Host name, address, or folder of a socket; `PGHOST`, else `localhost`.",
    )
    port: int | None = Field(None, ge=1, le=65535, description="Port; `PGPORT`, else 5432.")
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
    application_name: str = Field("sqlflow_dagster", description="How the server's views call us.")
    target_session_attrs: (
        Literal["any", "read-write", "read-only", "primary", "standby", "prefer-standby"] | None
    ) = Field(None, description="With several hosts: which kind of server to take.")
    session_settings: bool = Field(
        True,
        description="Whether time zone, date style and timeouts are set when connecting. `false` behind a pooler "
        "that refuses them (PgBouncer); the server must then have its defaults.",
    )

    def parts(self) -> dict[str, str]:
        found = self.filled(_parsed, dict.fromkeys(_WORDS.values()))
        if found.get("sslmode") not in (None, *SslMode.__args__):  # type: ignore[attr-defined]  # a Literal's values
            raise ValueError(f"connection: sslmode is one of {', '.join(SslMode.__args__)}")  # type: ignore[attr-defined]  # as above
        if service := os.environ.get("PGSERVICE"):
            found = {"service": service, **found}
        return found if "service" in found else {**_home(), **found}


class PostgresOptions(Connecting, ServerOptions):
    """Postgres's parameters."""

    aliases: ClassVar[Mapping[str, str]] = {
        **ALIASES,
        "replication_slot": "slot_prefix", "slot_name": "slot_prefix", "publication_name": "publication",
    }  # fmt: skip
    idle: ClassVar[Mapping[str, str]] = {
        "logical_poll_total_seconds": "it is not needed here, a read ends where the log ended when it began",
        "break_at_end_lsn": "it is not needed here, a read ends where the log ended when it began",
        "plugin": "it is not needed here, the log is read by pgoutput",
        "initial_waiting_seconds": "it is not needed here, a read ends where the log ended when it began",
        "initial_load_timeout_hours": "it is not needed here, the first read goes on until it is done",
        "queue_size": "it is not needed here, changes are stored as they come",
        "lsn_commit_behaviour": "it is not needed here, a slot moves on after the warehouse has committed",
        "heartbeat_action_query": "it is not needed here, `heartbeat` writes a message into the log",
        "invalid_cdc_cursor_position_behavior": "a slot that lost its place is an error, which asks for "
        "--full-refresh",
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
    dropped_partitions: Annotated[Literal["refuse", "keep"], BeforeValidator(parameters.lower)] = Field(
        "refuse",
        description="`cdc`: rows of partitions that were dropped, detached, or emptied by themselves, which the log "
        "does not tell: `refuse` asks for --full-refresh, `keep` keeps them.",
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


class PostgresSinkOptions(Connecting, SinkOptions):
    """How an EXPORT is written to Postgres."""

    aliases: ClassVar[Mapping[str, str]] = {
        **ALIASES,
        "schema_name": "schema",
        "default_target_schema": "schema",
    }

    schema_: str | None = Field(
        None, alias="schema", min_length=1, description="The table's schema; `public`."
    )
    types: Annotated[Mapping[str, str], BeforeValidator(_types)] = Field(
        default_factory=dict,
        description='Postgres types of columns of a new table, `{"doc": "json", "amount": "numeric(12,2)"}`.',
    )


def server(options: Connecting, place: Place) -> dict[str, str]:
    """Return what libpq is told, its files found in the project; it holds the password.

    Raises BadOption where a certificate's file is not there.
    """
    parts = options.parts()
    if (said := postgres_service.parts(parts["service"]) if "service" in parts else None) is not None:
        parts = {**_home(), **{_WORDS.get(word, word): value for word, value in said.items()}, **parts}
        # It has said all that it has to say.
        del parts["service"]
    system = parts.get("sslrootcert") == "system"
    parts = with_files(parts, [name for name in _FILES if not (system and name == "sslrootcert")], place)
    words = {mine: theirs for theirs, mine in reversed(_WORDS.items())}
    told = {words.get(name, name): value for name, value in parts.items()}
    # A host that is gone is known after a minute; `silence_seconds` is for one that is there and says nothing.
    alive = {"keepalives_idle": "30", "keepalives_interval": "10", "keepalives_count": "3"}
    return {**alive, "tcp_user_timeout": "60000", **told}


def _home() -> dict[str, str]:
    """Where the server is when nobody says it: as for libpq, but never at a socket that nobody names."""
    return {
        "host": os.environ.get("PGHOST") or "localhost",
        "port": os.environ.get("PGPORT") or "5432",
    }


def _parsed(text: str) -> dict[str, str]:
    text = text.strip().removeprefix("jdbc:")
    if (scheme := _URL.match(text)) is None:
        return _words(text)
    found, hosts, words = url_parts(text[scheme.end() :], _FORM)
    found |= _hosts(hosts)
    for word, value in words.items():
        name = _known(word)
        found[name] = _mode(value) if name == "sslmode" else value
    return found


def _hosts(text: str) -> dict[str, str]:
    """Host and port of an authority; several are joined by commas, as libpq takes them."""
    pairs = [re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::(\d+))?", part) for part in text.split(",")]
    if not all(pairs):
        raise ValueError(f"connection: {_FORM}")
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
    word = _OTHER_WORDS.get(word, word)
    if word in ("currentSchema", "schema"):
        raise ValueError(f"connection: {word}: name the schema in `table` or `schemas`, and leave it out")
    if word not in _WORDS:
        raise ValueError(f"connection: the part {word!r} is not known here; there are {', '.join(_WORDS)}")
    return _WORDS[word]
