"""Rows of an EXPORT → one object, or a set of partitions, visible whole or not at all.

An object becomes visible when its last byte is there. A set is uploaded whole before any of it is visible; then
its objects appear and the old ones go, by a list (`_sqlflow_export.json` beside them) from which the next export
ends what a kill interrupted. While that list is there, our own reads wait.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, cast

from pydantic import BaseModel

from sqlflow_dagster.connectors import registry
from sqlflow_dagster.connectors.base import Connector, Place, Rows, Written
from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.connectors.s3_client import ObjectChanged
from sqlflow_dagster.connectors.s3_options import JOURNAL, Connecting, S3SinkOptions, address
from sqlflow_dagster.connectors.s3_store import Store, Upload
from sqlflow_dagster.errors import BadOption, ExportFailed, NotAllowed, RetryLater, SourceError
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.rooms import room

_FORMATS = ("csv", "tsv", "json", "jsonl", "parquet", "avro")
_OWN = frozenset(
    {"path", "path_prefix", "key", "file_format", "part_size_mb", "part_size", "use_multipart",
     "server_side_encryption", "kms_key_id", "storage_class", "max_retries"}
)  # fmt: skip


def write(rows: Rows, target: str, options: BaseModel, place: Place) -> Written:
    """Store all rows at the target, or leave what is there.

    Raises BadOption for a target that cannot be; NotAllowed, RetryLater and ExportFailed as the store
    answers.
    """
    wanted = cast("S3SinkOptions", options).at(place.root)
    bucket, key, kind, told = planned(target, wanted)
    with room(place.spool, "export") as folder:
        made = kind.write(rows, _spooled(wanted, key), told, replace(place, root=folder, allowed=(), own=()))
        path = Path(made.target)
        store = Store(wanted, bucket, place.guard)
        with _failures(f"s3://{bucket}/{key}"):
            if wanted.partition_by:
                _replace_set(store, f"{key.rstrip('/')}/" if key else "", path)
            else:
                store.put(key, path)
    return replace(made, target=f"s3://{bucket}/{key}")


def check_words(target: str, options: BaseModel, place: Place) -> None:
    """Raise BadOption for a target, a format or options of it that cannot be."""
    wanted = cast("S3SinkOptions", options)
    _, key, kind, told = planned(target, wanted)
    kind.check_words(_spooled(wanted, key), told, replace(place, allowed=(), own=()))


def _spooled(options: S3SinkOptions, key: str) -> str:
    """What the file or folder is called that an object, or a set of them, is made as."""
    return "rows" if options.partition_by else f"rows{''.join(PurePosixPath(key).suffixes[-2:])}"


def planned(target: str, options: S3SinkOptions) -> tuple[str, str, type[Connector[Any]], BaseModel]:
    """Return the bucket, the key, and the connector of the format with its options. Raises BadOption."""
    bucket, key = _target(target, options)
    name = _format(options, key)
    kind = registry.find(name)
    return bucket, key, kind, parse(cast("type[BaseModel]", kind.sink_options_type), _told(options, name))[0]


def _replace_set(store: Store, prefix: str, folder: Path) -> None:
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
    try:
        begun = store.together([partial(store.upload, key, path) for key, path in named])
    # Whatever ends it, a cancellation too, is raised again.
    except BaseException:
        store.abort_all()
        raise
    new = {upload.key for upload in begun}
    told: dict[str, list[Any]] = {
        "uploads": [asdict(upload) for upload in begun],
        "old": [key for key in old if key not in new],
    }
    # A list whose answer is lost may be there: from here on the uploads are for the next export to end.
    store.ask(prefix, "put_object", Key=f"{prefix}{JOURNAL}", Body=json.dumps(told).encode())
    failpoint("in_publish")
    _publish(store, prefix, begun, told["old"])


def _publish(store: Store, prefix: str, uploads: Sequence[Upload], old: Sequence[Any]) -> None:
    store.together([partial(_show, store, upload) for upload in uploads])
    store.delete([str(key) for key in old])
    failpoint("in_publish")
    store.delete([f"{prefix}{JOURNAL}"])


def _show(store: Store, upload: Upload) -> None:
    store.complete(upload)
    failpoint("in_publish")


def _recover(store: Store, prefix: str) -> None:
    """End what an export that was killed had begun to publish; drop what others had begun to send."""
    try:
        found = store.read(f"{prefix}{JOURNAL}")
    except ObjectChanged:
        found = None
    left = dict.fromkeys(store.unfinished(prefix))
    if found is not None:
        told = json.loads(found)
        uploads = [Upload(**upload) for upload in told["uploads"]]
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
    told = {"path": text, "key": key, "path_prefix": key[: len(options.path_prefix)]}
    if text and (
        stray := [name for name, value in told.items() if getattr(options, name) not in (None, value)]
    ):
        raise BadOption(
            f"{stray[0]}: the target says where to write, {text!r}; leave it out", option=stray[0]
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
