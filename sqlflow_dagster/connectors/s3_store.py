"""Files → objects of a bucket, each request under the rules of the export; what fails for good leaves no parts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from sqlflow_dagster.connectors.parallel import together
from sqlflow_dagster.connectors.s3_client import UploadGone, client, translated, whole
from sqlflow_dagster.connectors.s3_options import S3SinkOptions
from sqlflow_dagster.errors import Canceled, ExportFailed, RetryLater, SourceError
from sqlflow_dagster.failpoints import failpoint
from sqlflow_dagster.resilience.guard import Guard

log = logging.getLogger(__name__)

T = TypeVar("T")
_MB = 2**20
_MOST_PARTS = 10_000
_MOST_DELETED = 1_000
_NEXT = {"list_objects_v2": "NextContinuationToken", "list_multipart_uploads": "NextKeyMarker"}


@dataclass(frozen=True, slots=True)
class Upload:
    """An object of which all parts are there, and which is not visible yet."""

    key: str
    id: str
    tags: list[str]


class Store:
    """A bucket that is written to, many requests at a time; a request that fails is repeated alone."""

    def __init__(self, options: S3SinkOptions, bucket: str, guard: Guard) -> None:
        """Keep how it is asked. Nothing is contacted."""
        self.options = options
        self.bucket = bucket
        self.guard = guard
        self.client = client(options)
        self._begun: dict[str, str] = {}

    def ask(self, key: str, request: str, has: str = "", **told: Any) -> Any:
        """Return what the store answers, which is cut off where it lacks `has`.

        Raises what `translated` raises, and RetryLater for an upload that is gone: the export begins again.
        """
        return self._guarded(key, lambda: self._asked(key, request, has, told))

    def read(self, key: str) -> bytes:
        """Return a small object. Raises what `translated` raises, ObjectChanged where there is none."""

        def asked() -> bytes:
            with translated(self.options, self.bucket, key):
                body: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            return body

        return self._guarded(key, asked)

    def put(self, key: str, path: Path) -> None:
        """Store a file as an object that is visible when all of it is there."""
        if path.stat().st_size > self.options.part_size_mb * _MB:
            upload = self.upload(key, path)
            failpoint("in_publish")
            with self._aborted_on_failure(key, upload.id):
                self.complete(upload)
            return

        def asked() -> None:
            with path.open("rb") as body:
                self._asked(key, "put_object", "", {"Key": key, "Body": body, **self.options.kept()})

        self._guarded(key, asked)

    def upload(self, key: str, path: Path) -> Upload:
        """Send a file in parts; nothing of it is visible."""
        size = path.stat().st_size
        step = max(self.options.part_size_mb * _MB, -(-size // _MOST_PARTS))
        begun = self.ask(key, "create_multipart_upload", "UploadId", Key=key, **self.options.kept())[
            "UploadId"
        ]
        self._begun[key] = begun
        parts = [partial(self._part, key, begun, path, start, step) for start in range(0, max(size, 1), step)]
        with self._aborted_on_failure(key, begun):
            return Upload(key, begun, self.together(parts))

    def complete(self, upload: Upload) -> None:
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
        told = {"Key": key, "UploadId": upload}
        try:
            # Also of a run that is canceled, for which `ask` asks nothing more.
            self.guard.call(lambda: self._asked(key, "abort_multipart_upload", "", told))
        except UploadGone:
            return
        except SourceError as error:
            log.warning("parts of an upload stay behind: %s", error)

    def abort_all(self) -> None:
        """Drop the parts of every upload that was begun here."""
        for key, upload in self._begun.items():
            self.abort(key, upload)

    def keys(self, prefix: str) -> list[str]:
        """Return all keys with a prefix."""
        return [item["Key"] for item in self._listed("list_objects_v2", "Contents", prefix)]

    def unfinished(self, prefix: str) -> list[tuple[str, str]]:
        """Return keys and ids of uploads that are not complete."""
        found = self._listed("list_multipart_uploads", "Uploads", prefix)
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
        return together(tasks, self.options.parallel_workers, "sqlflow_s3")

    @contextmanager
    def _aborted_on_failure(self, key: str, upload: str) -> Iterator[None]:
        """Let no parts stay behind where the block fails."""
        try:
            yield
        # Whatever ends the upload, a cancellation too, is raised again.
        except BaseException:
            self.abort(key, upload)
            raise

    def _guarded(self, key: str, asked: Callable[[], T]) -> T:
        def unless_canceled() -> T:
            if self.guard.stopped:
                raise Canceled(
                    "the run was canceled while objects were written; what is not whole is not seen"
                )
            return asked()

        try:
            return self.guard.call(unless_canceled)
        except UploadGone as error:
            # Somebody aborted it; or it is complete, and the answer that said so was lost.
            raise RetryLater(f"s3://{self.bucket}/{key}: {error}") from error

    def _asked(self, key: str, request: str, has: str, told: dict[str, Any]) -> Any:
        with translated(self.options, self.bucket, key):
            answer = getattr(self.client, request)(Bucket=self.bucket, **told)
        if has:
            whole(answer, has, f"s3://{self.bucket}/{key}")
        return answer

    def _part(self, key: str, upload: str, path: Path, start: int, size: int) -> str:
        with path.open("rb") as file:
            file.seek(start)
            body = file.read(size)
        told = {"Key": key, "UploadId": upload, "PartNumber": start // size + 1, "Body": body}
        tag = str(self.ask(key, "upload_part", "ETag", **told)["ETag"])
        failpoint("in_upload")
        return tag

    def _listed(self, request: str, name: str, prefix: str) -> list[Any]:
        def asked() -> list[Any]:
            found: list[Any] = []
            with translated(self.options, self.bucket, prefix):
                pages = self.client.get_paginator(request).paginate(Bucket=self.bucket, Prefix=prefix)
                for page in pages:
                    where = f"the listing of s3://{self.bucket}/{prefix}"
                    if whole(page, "IsTruncated", where):
                        # boto3 takes a page that does not say how to ask for the next for the last one.
                        whole(page, _NEXT[request], where)
                    found += page.get(name, ())
            return found

        return self.guard.call(asked)
