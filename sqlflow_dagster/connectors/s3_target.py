"""An EXPORT's place in a bucket → whether it may be written: an upload is begun there and aborted."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

from pydantic import BaseModel

from sqlflow_dagster.connectors.base import Health, Place
from sqlflow_dagster.connectors.s3_client import ObjectChanged, UploadGone, client, translated, whole
from sqlflow_dagster.connectors.s3_options import JOURNAL, S3SinkOptions
from sqlflow_dagster.connectors.s3_sink import planned
from sqlflow_dagster.errors import NotAllowed


def health(target: str, options: BaseModel, place: Place) -> Health:
    """Return how the bucket is, and what the export may not do there.

    Raises what the store answers, but for refusals of a permission.
    """
    wanted = cast("S3SinkOptions", options).at(place.root)
    bucket, key, _, _ = planned(target, wanted)
    asked = _Asked(wanted, bucket)
    try:
        return asked.health(key)
    finally:
        asked.client.close()


class _Asked:
    """A bucket that is asked what may be done in it; `refused` says what may not."""

    def __init__(self, options: S3SinkOptions, bucket: str) -> None:
        self.options = options
        self.bucket = bucket
        self.client = client(options)
        self.refused: list[str] = []
        self.facts: dict[str, str | int | float | bool] = {"endpoint": str(self.client.meta.endpoint_url)}

    def health(self, key: str) -> Health:
        where, several = f"s3://{self.bucket}/{key}", bool(self.options.partition_by)
        begin = time.perf_counter()
        lists = self._may("head_bucket", {}, needed=several)
        self.facts["latency"] = round(time.perf_counter() - begin, 6)
        self.facts["may_list"] = lists is not None
        if lists and (server := lists["ResponseMetadata"]["HTTPHeaders"].get("server")):
            self.facts["version"] = server
        said = []
        if several:
            prefix = f"{key.rstrip('/')}/" if key else ""
            self._may("list_multipart_uploads", {"Prefix": prefix, "MaxUploads": 1})
            self._begun_and_aborted(f"{prefix}{JOURNAL}")
            said.append(
                "whether the objects of the set before may be removed (s3:DeleteObject) is seen when they are"
            )
        else:
            self._size(key)
            self._begun_and_aborted(key)
        self.facts["may_write"] = not self.refused
        if self.refused:
            return Health(ok=False, message="; ".join(self.refused), facts=self.facts)
        return Health(ok=True, message="; ".join([f"{where}: may be written", *said]), facts=self.facts)

    def _may(self, request: str, told: Mapping[str, Any], *, needed: bool = True) -> Any:
        """What the store answers, None where it refuses."""
        try:
            with translated(self.options, self.bucket, str(told.get("Key", ""))):
                return getattr(self.client, request)(Bucket=self.bucket, **told)
        except NotAllowed as error:
            if needed:
                self.refused.append(str(error))
            return None

    def _size(self, key: str) -> None:
        """What is there now, where we may know it."""
        try:
            found = self._may("head_object", {"Key": key}, needed=False)
        except ObjectChanged:
            self.facts["exists"] = False
            return
        if found is not None:
            self.facts |= {"exists": True, "bytes": int(found["ContentLength"])}

    def _begun_and_aborted(self, key: str) -> None:
        """Begin an upload as the export would; of one without parts nothing is ever seen or paid for."""
        begun = self._may("create_multipart_upload", {"Key": key, **self.options.kept()})
        if begun is None:
            return
        upload = whole(begun, "UploadId", f"s3://{self.bucket}/{key}")
        # An export that is under way may have cleared it away.
        with suppress(UploadGone):
            self._may("abort_multipart_upload", {"Key": key, "UploadId": upload})
