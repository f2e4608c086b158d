"""Rows of an EXPORT → one object, or a set of partitions, visible whole or not at all.

An object becomes visible when its last byte is there. A set is uploaded whole before any of it is visible; then
its objects appear and the old ones go, by a list (`_sqlflow_export.json` beside them) from which the next export
ends what a kill interrupted. While that list is there, our own reads wait.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar, cast

from pydantic import BaseModel

from sqlflow_dagster.connectors import registry
from sqlflow_dagster.connectors.base import Place, Rows, Written
from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.connectors.rooms import room
from sqlflow_dagster.connectors.s3_client import ObjectChanged, client, translated, whole
from sqlflow_dagster.connectors.s3_options import JOURNAL, Connecting, S3SinkOptions, address
from sqlflow_dagster.errors import BadOption, ExportFailed, NotAllowed, RetryLater, SourceError
from sqlflow_dagster.failpoints import failpoint

log = logging.getLogger(__name__)

T = TypeVar("T")
_FORMATS = ("csv", "tsv", "json", "jsonl", "parquet")
_MB = 2**20
_MOST_PARTS = 10_000
_MOST_DELETED = 1_000
_OWN = frozenset(
    {"path", "path_prefix", "key", "file_format", "part_size_mb", "server_side_encryption", "kms_key_id",
     "storage_class", "max_retries"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Upload:
    """An object of which all parts are there, and which is not visible yet."""

    key: str
    id: str
    tags: list[str]


def write(rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
    """Store all rows at the target, or leave what is there.

    Raises BadOption for a target that cannot be; NotAllowed, RetryLater and ExportFailed as the store
    answers.
    """
    wanted = cast("S3SinkOptions", options)
    bucket, key = _target(target, wanted)
    name = _format(wanted, key)
    kind = registry.find(name)
    told = parse(cast("type[BaseModel]", kind.sink_options_type), _told(wanted, name))[0]
    with room(place.spool, "export") as folder:
        endings = "" if wanted.partition_by else "".join(PurePosixPath(key).suffixes[-2:])
        made = kind.write(rows, f"rows{endings}", told, replace(place, root=folder, allowed=()))
        path = Path(made.target)
        store = _Store(wanted, bucket)
        with _failures(f"s3://{bucket}/{key}"):
            if wanted.partition_by:
                _replace_set(store, f"{key.rstrip('/')}/" if key else "", path)
            else:
                store.put(key, path)
    return replace(made, target=f"s3://{bucket}/{key}")


class _Store:
    """A bucket that is written to, many requests at a time."""

    def __init__(self, options: S3SinkOptions, bucket: str) -> None:
        self.options = options
        self.bucket = bucket
        self.client = client(options)

    def ask(self, key: str, request: str, **told: Any) -> Any:
        """Return what the store answers."""
        with translated(self.options, self.bucket, key):
            return getattr(self.client, request)(Bucket=self.bucket, **told)

    def put(self, key: str, path: Path) -> None:
        """Store a file as an object that is visible when all of it is there."""
        if path.stat().st_size > self.options.part_size_mb * _MB:
            upload = self.upload(key, path)
            failpoint("in_publish")
            self.complete(upload)
            return
        with path.open("rb") as body:
            self.ask(key, "put_object", Key=key, Body=body, **self._kept())

    def upload(self, key: str, path: Path) -> _Upload:
        """Send a file in parts; nothing of it is visible."""
        size = path.stat().st_size
        step = max(self.options.part_size_mb * _MB, -(-size // _MOST_PARTS))
        answer = self.ask(key, "create_multipart_upload", Key=key, **self._kept())
        begun = whole(answer, "UploadId", f"s3://{self.bucket}/{key}")
        parts = [partial(self._part, key, begun, path, start, step) for start in range(0, max(size, 1), step)]
        try:
            return _Upload(key, begun, self.together(parts))
        except SourceError:
            self.abort(key, begun)
            raise

    def complete(self, upload: _Upload) -> None:
        """Make an upload visible."""
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(upload.tags, 1)]
        self.ask(
            upload.key,
            "complete_multipart_upload",
            Key=upload.key,
            UploadId=upload.id,
            MultipartUpload={"Parts": parts},
        )

    def abort(self, key: str, upload: str) -> None:
        """Drop the parts of an upload; where that fails they stay invisible, and are paid for."""
        try:
            self.ask(key, "abort_multipart_upload", Key=key, UploadId=upload)
        except SourceError as error:
            log.warning("parts of an upload stay behind: %s", error)

    def keys(self, prefix: str) -> list[str]:
        """Return all keys with a prefix."""
        return [item["Key"] for item in self._paged("list_objects_v2", "Contents", prefix)]

    def unfinished(self, prefix: str) -> list[tuple[str, str]]:
        """Return keys and ids of uploads that are not complete."""
        found = self._paged("list_multipart_uploads", "Uploads", prefix)
        return [(item["Key"], item["UploadId"]) for item in found]

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects."""
        for start in range(0, len(keys), _MOST_DELETED):
            some = [{"Key": key} for key in keys[start : start + _MOST_DELETED]]
            answer = self.ask(some[0]["Key"], "delete_objects", Delete={"Objects": some, "Quiet": True})
            for failed in answer.get("Errors", ()):
                raise ExportFailed(
                    f"s3://{self.bucket}/{failed.get('Key')}: it cannot be removed ({failed.get('Code')}), and belongs "
                    "to the set before; ask for s3:DeleteObject, and export again"
                )

    def together(self, tasks: Sequence[Callable[[], T]]) -> list[T]:
        """Do all of it, some at a time."""
        if len(tasks) < 2:
            return [task() for task in tasks]
        with ThreadPoolExecutor(self.options.parallel_workers, "sqlflow_s3") as threads:
            under_way = [threads.submit(task) for task in tasks]
            try:
                return [item.result() for item in under_way]
            finally:
                threads.shutdown(wait=True, cancel_futures=True)

    def _part(self, key: str, upload: str, path: Path, start: int, size: int) -> str:
        with path.open("rb") as file:
            file.seek(start)
            body = file.read(size)
        told = {"Key": key, "UploadId": upload, "PartNumber": start // size + 1, "Body": body}
        return str(whole(self.ask(key, "upload_part", **told), "ETag", f"s3://{self.bucket}/{key}"))

    def _paged(self, request: str, name: str, prefix: str) -> Iterator[Mapping[str, Any]]:
        with translated(self.options, self.bucket, prefix):
            for page in self.client.get_paginator(request).paginate(Bucket=self.bucket, Prefix=prefix):
                whole(page, "IsTruncated", f"the listing of s3://{self.bucket}/{prefix}")
                yield from page.get(name, ())

    def _kept(self) -> dict[str, str]:
        """How the store keeps an object."""
        options = self.options
        given = {
            "ServerSideEncryption": options.server_side_encryption,
            "SSEKMSKeyId": options.kms_key_id,
            "StorageClass": options.storage_class,
        }
        return {name: value for name, value in given.items() if value}


def _replace_set(store: _Store, prefix: str, folder: Path) -> None:
    """Put the files below `folder` in the place of all objects below `prefix`."""
    _recover(store, prefix)
    old = store.keys(prefix)
    strange = [key for key in old if "=" not in key[len(prefix) :].partition("/")[0]]
    if strange:
        raise BadOption(
            f"the target s3://{store.bucket}/{prefix} has other things than partitions in it, such as {strange[0]}, "
            "which would be removed; name a prefix of its own"
        )
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    named = [(f"{prefix}{path.relative_to(folder).as_posix()}", path) for path in files]
    begun: list[_Upload] = []
    try:
        begun = store.together([partial(store.upload, key, path) for key, path in named])
        new = {upload.key for upload in begun}
        told: dict[str, list[Any]] = {
            "uploads": [asdict(upload) for upload in begun],
            "old": [key for key in old if key not in new],
        }
        store.ask(prefix, "put_object", Key=f"{prefix}{JOURNAL}", Body=json.dumps(told).encode())
    except SourceError:
        for key, upload in store.unfinished(prefix):
            store.abort(key, upload)
        raise
    failpoint("in_publish")
    _publish(store, prefix, begun, told["old"])


def _publish(store: _Store, prefix: str, uploads: Sequence[_Upload], old: Sequence[Any]) -> None:
    store.together([partial(_show, store, upload) for upload in uploads])
    store.delete([str(key) for key in old])
    failpoint("in_publish")
    store.delete([f"{prefix}{JOURNAL}"])


def _show(store: _Store, upload: _Upload) -> None:
    store.complete(upload)
    failpoint("in_publish")


def _recover(store: _Store, prefix: str) -> None:
    """End what an export that was killed had begun to publish; drop what others had begun to send."""
    try:
        found = store.ask(f"{prefix}{JOURNAL}", "get_object", Key=f"{prefix}{JOURNAL}")["Body"].read()
    except ObjectChanged:
        found = None
    left = dict.fromkeys(store.unfinished(prefix))
    if found is not None:
        told = json.loads(found)
        uploads = [_Upload(**upload) for upload in told["uploads"]]
        # Those that are not there any more are complete.
        _publish(store, prefix, [item for item in uploads if (item.key, item.id) in left], told["old"])
        for upload in uploads:
            left.pop((upload.key, upload.id), None)
    for key, begun in left:
        store.abort(key, begun)


def _target(target: str, options: S3SinkOptions) -> tuple[str, str]:
    text = target if "://" in target else options.path or ""
    found = address(text) if text else (options.bucket or "", options.path_prefix + (options.key or ""))
    if found is None:
        raise BadOption(f"the target {text!r} is no address of an object; write s3://bucket/key")
    bucket, key = found
    if not bucket:
        raise BadOption("bucket: name it, or write the target as s3://bucket/key", option="bucket")
    if options.bucket and options.bucket != bucket:
        raise BadOption(
            f"bucket: {options.bucket!r} is not the bucket of the target {text!r}", option="bucket"
        )
    if not options.partition_by and (not key or key.endswith("/")):
        raise BadOption(
            f"the target s3://{bucket}/{key} names no object; add a key, or set `partition_by`", option="key"
        )
    return bucket, key


def _format(options: S3SinkOptions, key: str) -> str:
    name = options.file_format
    if name == "auto":
        found = (registry.type_for_target(key) or "").lower()
        if found in _FORMATS:
            return found
        if options.partition_by and not found:
            return "parquet"
        raise BadOption(
            f"file_format: the key {key!r} does not say it; it is one of {', '.join(_FORMATS)}",
            option="file_format",
        )
    if name not in _FORMATS:
        raise BadOption(
            f"file_format: {name} is read only; it is one of {', '.join(_FORMATS)}", option="file_format"
        )
    return name


def _told(options: S3SinkOptions, name: str) -> dict[str, Any]:
    """The options of the format. Raises BadOption for those of another one."""
    fields = cast("type[BaseModel]", registry.find(name).sink_options_type).model_fields
    told: dict[str, Any] = {}
    for field in options.model_fields_set - _OWN - set(Connecting.model_fields):
        value = getattr(options, field)
        if field not in fields:
            if value in ((), None):
                continue
            raise BadOption(f"{field}: exports of the format {name} have no such option", option=field)
        told[field] = "uncompressed" if (name, field, value) == ("parquet", "compression", "none") else value
    return told


@contextmanager
def _failures(target: str) -> Iterator[None]:
    """The store's refusals as an export's; what waiting or access mends stays what it is."""
    try:
        yield
    except (RetryLater, NotAllowed):
        raise
    except SourceError as error:
        raise ExportFailed(f"{target}: {error}") from error
