"""The parameters of S3 and compatible stores: where the objects are, who asks, and what they may cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

from sqlflow_dagster.connectors import airbyte_format, airbyte_s3, globs, other_tools, parameters
from sqlflow_dagster.connectors.csv import CsvOptions
from sqlflow_dagster.connectors.file_options import compression_name
from sqlflow_dagster.connectors.json import PATHS
from sqlflow_dagster.connectors.options import Spread
from sqlflow_dagster.connectors.sink import CsvSinkOptions
from sqlflow_dagster.errors import BadOption

Format = Literal["auto", "csv", "tsv", "json", "jsonl", "parquet", "avro"]
_FORMATS = {
    "ndjson": "jsonl",
    "json_lines": "jsonl",
    "jsonlines": "jsonl",
    "pq": "parquet",
    "detect": "auto",
    "": "auto",
}
_URL = re.compile(r"s3[an]?://(?P<bucket>[^/?#]+)/?(?P<key>.*)", re.IGNORECASE | re.DOTALL)
_BEFORE_HOST = re.compile(r"\A(https?)://(?:[^/?#]*@)?", re.IGNORECASE)
MAGIC = re.compile(r"[*?\[{]")
ALIASES = {
    "bucket_name": "bucket", "s3_bucket_name": "bucket", "s3_bucket_path": "path_prefix", "key_id": "access_key_id",
    "secret": "secret_access_key", "s3_bucket": "bucket",
    "access_key": "access_key_id", "aws_access_key_id": "access_key_id", "aws_access_key": "access_key_id",
    "secret_key": "secret_access_key", "aws_secret_access_key": "secret_access_key",
    "access_key_secret": "secret_access_key", "aws_secret_key": "secret_access_key",
    "aws_session_token": "session_token", "token": "session_token",
    "aws_profile": "profile", "profile_name": "profile",
    "endpoint": "endpoint_url", "aws_endpoint_url": "endpoint_url", "s3_endpoint": "endpoint_url",
    "region_name": "region", "aws_region": "region", "bucket_region": "region", "s3_bucket_region": "region",
    "is_public": "anonymous", "no_sign_request": "anonymous", "format": "file_format", "file_type": "file_format",
    "max_workers": "parallel_workers", "num_workers": "parallel_workers", "threads": "parallel_workers",
}  # fmt: skip


# What other tools call the time at which an object was stored.
OBJECT_CURSORS = ("last_modified", "_last_modified", "LastModified", "_ab_source_file_last_modified")
# While this object lies beside a set of partitions, the set is being replaced.
JOURNAL = "_sqlflow_export.json"


def address(text: str) -> tuple[str, str] | None:
    """Return the bucket and the key of `s3://bucket/key`, None for other texts."""
    url = _URL.fullmatch(text)
    return (url["bucket"], url["key"]) if url else None


class Where(NamedTuple):
    """What is read of a bucket: a `prefix` of keys, one `key`, a `glob`, or `either` a key or a folder."""

    bucket: str
    text: str
    kind: Literal["prefix", "key", "glob", "either"]

    @property
    def prefix(self) -> str:
        """What all keys of it begin with."""
        wild = MAGIC.search(self.text) if self.kind == "glob" else None
        return self.text[: wild.start()] if wild else self.text

    def __str__(self) -> str:
        """The address, for people."""
        return f"s3://{self.bucket}/{self.text}"


def _where(bucket: str, text: str) -> Where:
    if MAGIC.search(text):
        return Where(bucket, text, "glob")
    return Where(bucket, text, "prefix" if not text or text.endswith("/") else "either")


def _format(value: Any) -> Any:
    """A format's name, also as Airbyte writes it: `{"filetype": "csv"}`."""
    if isinstance(value, Mapping):
        names = value.keys() & {"filetype", "format_type"}
        if len(names) != 1 or len(value) != 1:
            raise ValueError("write the format's name, and what else is in the object beside it")
        value = value[names.pop()]
    name = parameters.lower(value)
    return _FORMATS.get(name, name) if isinstance(name, str) else value


def _endpoint(value: Any) -> Any:
    """An address without a user's name and password, which S3 does not ask for, and which errors would show."""
    if not isinstance(value, str):
        return value
    if value.strip() and "://" not in value:
        raise ValueError("write its scheme, too: https://… or http://…")
    return _BEFORE_HOST.sub(lambda found: f"{found[1].lower()}://", value.strip()) or None


class Connecting(BaseModel):
    """The parameters that say which store is asked, and by whom."""

    model_config = ConfigDict(defer_build=True)

    bucket: str | None = Field(None, min_length=1, description="Bucket; also in `path`: `s3://bucket/…`.")
    access_key_id: str | None = Field(
        None,
        min_length=1,
        description="Access key; without it boto3's usual places are looked in: environment, `~/.aws`, the "
        "machine's role.",
    )
    secret_access_key: SecretStr | None = Field(None, description="Secret of the access key.")
    session_token: SecretStr | None = Field(None, description="Token of temporary credentials.")
    profile: str | None = Field(None, min_length=1, description="Profile of `~/.aws`.")
    role_arn: str | None = Field(None, min_length=1, description="Role to assume with these credentials.")
    external_id: SecretStr | None = Field(None, description="What the role's owner wants to be told.")
    role_session_name: str = Field("sqlflow", min_length=2, description="How the role's logs call us.")
    anonymous: bool = Field(False, description="Whether requests are not signed, for public buckets.")
    endpoint_url: Annotated[str | None, BeforeValidator(_endpoint)] = Field(
        None, pattern=r"^https?://", description="Address of a store that is not AWS, `https://…`."
    )
    sts_endpoint_url: str | None = Field(
        None,
        pattern=r"^https?://",
        description="Address that gives a role's credentials, where it is not AWS.",
    )
    region: str | None = Field(None, min_length=1, description="Region; boto3's, else `us-east-1`.")
    addressing: Literal["auto", "path", "virtual"] = Field(
        "auto", description="Whether the bucket stands in the `path` of addresses or, `virtual`, in the host."
    )
    verify_tls: bool | str = Field(
        True,
        description="Whether the store's certificate is checked; or its authority's file, relative to the project.",
    )
    parallel_workers: int = Field(8, ge=1, le=64, description="Requests under way at one time.")
    timeout_seconds: float | None = Field(
        None, gt=0, description="Longest wait for one answer, in seconds; 60."
    )

    def at(self, root: Path) -> Self:
        """Return the options with the authority's file found in the project. Raises BadOption where it is not there."""
        if not isinstance(self.verify_tls, str):
            return self
        path = root / Path(self.verify_tls).expanduser()
        if not path.is_file():
            raise BadOption(f"verify_tls: there is no file {self.verify_tls}", option="verify_tls")
        return self.model_copy(update={"verify_tls": str(path)})

    def connection_problems(self) -> list[str]:
        """Return what contradicts itself, as `name: message` lines."""
        found = []
        if bool(self.access_key_id) != bool(self.secret_access_key):
            found.append("secret_access_key: it goes with `access_key_id`; give both, or neither")
        if self.session_token and not self.access_key_id:
            found.append("session_token: it goes with `access_key_id` and `secret_access_key`")
        if self.anonymous and (self.access_key_id or self.profile or self.role_arn):
            found.append("anonymous: requests are signed where credentials, a profile or a role is given")
        if self.external_id and not self.role_arn:
            found.append("external_id: it goes with `role_arn`")
        return found


class FormatOptions(CsvOptions):
    """The parameters of all formats of objects: CSV's, and what the others have beside them."""

    data_path: Annotated[str | None, BeforeValidator(parameters.path)] = Field(
        None, description="JSON: where in each object the records are, `data.items`."
    )
    max_object_bytes: int = Field(
        16 * 2**20, ge=1024, le=2**32 - 1, description="JSON and JSONL: largest record."
    )
    binary_as_string: bool = Field(
        False, description="Parquet: whether old writers' untyped binary columns are text."
    )


class S3Options(Connecting, FormatOptions):
    """S3's parameters, and those of the format of its objects."""

    aliases: ClassVar[Mapping[str, str]] = {
        **ALIASES, **PATHS,
        "uri": "path", "s3_uri": "path", "prefix": "path_prefix", "s3_prefix": "path_prefix", "object_key": "key",
        "keys": "key", "key_pattern": "key", "globs": "pattern", "csv_delimiter": "delimiter", "csv_header": "header",
        "csv_encoding": "encoding", "max_data_size": "max_data_size_gb", "cost_limit": "cost_limit_usd",
    }  # fmt: skip
    spread: ClassVar[Mapping[str, Spread]] = {
        "streams": airbyte_s3.stream, "provider": airbyte_s3.provider, "format": airbyte_format.parameters,
        "delivery_method": airbyte_s3.delivery, "tables": other_tools.entry, "credentials": other_tools.credentials,
    }  # fmt: skip
    idle: ClassVar[Mapping[str, str]] = {
        "path_pattern": "`key` has its globs", "dataset": "`stream` is the name",
        "rate_limit": None, "timeout_seconds": None,  # type: ignore[dict-item]  # these two are honoured here
        "json_flatten": "nested objects stay whole here; take their parts in SQL",
        "json_max_depth": "nested objects stay whole here; take their parts in SQL",
        "partition_keys": "partitions are seen by their folders' names here",
    }  # fmt: skip

    path: Annotated[tuple[str, ...], BeforeValidator(parameters.paths)] = Field(
        (),
        description="`s3://bucket/folder/`, `s3://bucket/key`, a glob of keys (`s3://bucket/raw/**/*.csv`), or a "
        "list of them; in place of `bucket` with `key` or `path_prefix`.",
    )
    path_prefix: str = Field("", description="What the keys begin with, e.g. `raw/sales/`.")
    key: Annotated[tuple[str, ...], BeforeValidator(parameters.paths)] = Field(
        (), description="One key, a glob of keys, or a list of them."
    )
    pattern: Annotated[tuple[str, ...], BeforeValidator(parameters.globs)] = Field(  # type: ignore[assignment]  # several here
        (), description="Glob or globs, below `path_prefix`, that keys must match: `**/*.csv`."
    )
    file_format: Annotated[Format, BeforeValidator(_format)] = Field(
        "auto",
        description="`csv`, `tsv`, `json`, `jsonl`, `parquet`, `avro`; by default what the keys end with.",
    )
    modified_after: Annotated[str | None, BeforeValidator(parameters.moment)] = Field(
        None, description="Objects stored before this moment are left out, ISO 8601."
    )
    modified_before: Annotated[str | None, BeforeValidator(parameters.moment)] = Field(
        None, description="Objects stored at this moment or later are left out, ISO 8601."
    )
    cost_limit_usd: float | None = Field(
        None, gt=0, description="Most that one run's requests and transfer may cost, by the prices below."
    )
    price_list_usd: float = Field(0.005, ge=0, description="Price of 1,000 listing requests, in US dollars.")
    price_get_usd: float = Field(0.0004, ge=0, description="Price of 1,000 requests for objects.")
    price_gb_usd: float = Field(
        0.09, ge=0, description="Price of a gigabyte that leaves the store; 0 inside its region."
    )
    json_flatten: bool = Field(True, description="A name of the first SQLFlow.")
    json_max_depth: int = Field(10, description="A name of the first SQLFlow.")
    partition_keys: Annotated[tuple[str, ...], BeforeValidator(parameters.names)] = Field(
        (), description="A name of the first SQLFlow."
    )

    @model_validator(mode="before")
    @classmethod
    def _stored_between(cls, given: Any) -> Any:
        """Take bounds for those of the objects' times, where no column inside the objects has them."""
        if not isinstance(given, Mapping) or given.get("cursor_field") not in (None, "", *OBJECT_CURSORS):
            return given
        bounds = {"start_date": "modified_after", "end_date": "modified_before"}
        moved = {bounds[name]: given[name] for name in bounds if given.get(name)}
        for name, other in bounds.items():
            if moved.get(other) and given.get(other) not in (None, moved[other]):
                raise ValueError(f"{name}: it is {other} here, which differs; give one of them")
        return {**{name: value for name, value in given.items() if name not in bounds}, **moved}

    def problems(self) -> list[str]:
        found = [*super().problems(), *self.connection_problems()]
        try:
            places = self.places()
        except ValueError as error:
            return [*found, str(error)]
        if self.pattern and any(where.kind in ("key", "glob") for where in places):
            found.append("pattern: it goes with a prefix; `key` and `path` take globs themselves")
        return found

    @property
    def counts_files(self) -> bool:
        """Whether the objects themselves are the cursor: also by the names that other tools give to it."""
        return self.sync_mode == "incremental" and self.cursor_field in (None, *OBJECT_CURSORS)

    def places(self) -> tuple[Where, ...]:
        """Return what is read.

        Raises ValueError, `name: message`, where the parameters do not say, or contradict each other.
        """
        # Each of `{a,b}` is listed by itself, so that what is between them is not.
        found = [self._place(item) for text in self.path for item in globs.alternatives(text)]
        if self.path and (self.key or self.path_prefix):
            raise ValueError("path: give it, or `key` or `path_prefix` with `bucket`")
        if found:
            return tuple(found)
        if self.bucket is None:
            raise ValueError(
                "bucket: this parameter is required: the bucket, or a `path` such as s3://bucket/folder/"
            )
        if not self.key:
            return (Where(self.bucket, self.path_prefix, "prefix"),)
        stray = [key for key in self.key if not key.startswith(self.path_prefix)]
        if stray:
            raise ValueError(f"key: {stray[0]!r} does not begin with the `path_prefix` {self.path_prefix!r}")
        keys = [item for key in self.key for item in globs.alternatives(key)]
        return tuple(Where(self.bucket, key, "glob" if MAGIC.search(key) else "key") for key in keys)

    def named(self) -> frozenset[Where]:
        """Return the places of one key, or of one key or folder, that no wildcard means."""
        keys = [Where(self.bucket or "", key, "key") for key in self.key if not MAGIC.search(key)]
        found = [self._place(text) for text in self.path if not MAGIC.search(text)]
        return frozenset([*keys, *(where for where in found if where.kind == "either")])

    def _place(self, text: str) -> Where:
        url = address(text)
        if url is None and "://" in text:
            raise ValueError(f"path: {text!r} is no address of an object; write s3://bucket/key")
        if url is None and self.bucket is None:
            raise ValueError(f"path: {text!r} names no bucket; write s3://bucket/key, or give `bucket`")
        if url is None:
            return _where(self.bucket or "", text.lstrip("/"))
        if self.bucket and self.bucket != url[0]:
            raise ValueError(f"bucket: {self.bucket!r} is not the bucket of the path {text!r}")
        return _where(*url)


class S3SinkOptions(Connecting, CsvSinkOptions):
    """How an EXPORT is written to S3, and the options of its format."""

    aliases: ClassVar[Mapping[str, str]] = {
        **ALIASES,
        "prefix": "path_prefix", "uri": "path", "partition_cols": "partition_by", "partition_columns": "partition_by",
        "sse": "server_side_encryption", "encryption": "server_side_encryption", "kms_key": "kms_key_id",
        "sse_kms_key_id": "kms_key_id", "ssekms_key_id": "kms_key_id",
    }  # fmt: skip
    refused: ClassVar[Mapping[str, str]] = {
        **dict.fromkeys(
            ("filename_template", "file_name_pattern", "s3_path_format"),
            "name the object in the target, `s3://bucket/${run_date}.csv`",
        ),
    }
    idle: ClassVar[Mapping[str, str]] = {
        "part_size": "it is not needed here; `part_size_mb` sets the size of parts, in MB",
        "use_multipart": "it is not needed here, large files travel in parts",
    }

    path: str | None = Field(
        None, min_length=1, description="Where to write, where the target does not say it."
    )
    path_prefix: str = Field("", description="What keys begin with, where the target is no `s3://…`.")
    key: str | None = Field(None, min_length=1, description="The key, where the target does not say it.")
    file_format: Annotated[Format, BeforeValidator(_format)] = Field(
        "auto",
        description="`csv`, `tsv`, `json`, `jsonl`, `parquet` or `avro`; by default what the key ends with.",
    )
    compression: Annotated[str | None, BeforeValidator(compression_name)] = Field(  # type: ignore[assignment]  # of all formats
        None,
        description="As the format has it: of the file, of Parquet's pages (`zstd`), of Avro's blocks (`deflate`).",
    )
    compression_level: int | None = Field(
        None, ge=1, le=22, description="Parquet with `zstd`: higher is smaller."
    )
    row_group_size: int = Field(
        122_880, ge=1, description="Parquet: rows of a row group; DuckDB takes the next multiple of 2,048."
    )
    part_size: int | None = Field(None, ge=1, description="A name of the first SQLFlow, in bytes.")
    use_multipart: bool = Field(True, description="A name of the first SQLFlow.")
    part_size_mb: int = Field(
        16, ge=5, le=5_000, description="Size of the parts in which large files travel."
    )
    server_side_encryption: Literal["AES256", "aws:kms", "aws:kms:dsse"] | None = Field(
        None, description="How the store encrypts what it keeps, where that is not the bucket's default."
    )
    kms_key_id: str | None = Field(None, min_length=1, description="Key of `aws:kms`.")
    storage_class: str | None = Field(None, min_length=1, description="E.g. `STANDARD_IA`.")
    max_retries: int | None = Field(None, ge=0, le=100, description="Tries after the first one.")

    def kept(self) -> dict[str, str]:
        """Return how the store is told to keep an object."""
        given = {
            "ServerSideEncryption": self.server_side_encryption,
            "SSEKMSKeyId": self.kms_key_id,
            "StorageClass": self.storage_class,
        }
        return {name: value for name, value in given.items() if value}

    @model_validator(mode="after")
    def _agree(self) -> S3SinkOptions:
        problems = self.connection_problems()
        if self.kms_key_id and self.server_side_encryption not in ("aws:kms", "aws:kms:dsse"):
            problems.append("kms_key_id: it goes with the server_side_encryption `aws:kms`")
        if problems:
            raise ValueError("\n".join(problems))
        return self
