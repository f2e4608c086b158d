"""What `check()` finds of a bucket: whether each permission is there, and what to ask for where one is not."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlflow_dagster.connectors.base import Health
from sqlflow_dagster.connectors.s3_client import ObjectChanged
from sqlflow_dagster.connectors.s3_objects import Objects
from sqlflow_dagster.connectors.s3_options import Where
from sqlflow_dagster.errors import NotAllowed


def health(objects: Objects, places: Sequence[Where], begin: float) -> Health:
    """Ask each place for one page of its listing and one byte of its first object.

    Raises what the store answers, but for refusals of a permission.
    """
    facts: dict[str, str | int | float | bool] = {"endpoint": str(objects.requests.endpoint)}
    refused: list[str] = []
    found = 0
    for where in dict.fromkeys(places):
        count, problems = _place(objects, where)
        found += count
        refused += problems
    facts["latency_seconds"] = round(time.perf_counter() - begin, 4)
    facts["objects_seen"] = found
    if refused:
        return Health(ok=False, message="; ".join(refused), facts=facts)
    if not found and objects.options.require_files:
        message = (
            f"no object begins with {', '.join(map(str, places))}; mend `path_prefix`, or set `require_files` to false "
            "where there may be none"
        )
        return Health(ok=False, message=message, facts=facts)
    seen = "no objects" if not found else f"{found:,} objects" if found < 1000 else "1,000 objects or more"
    return Health(ok=True, message=f"{', '.join(map(str, places))}: {seen}, listed and readable", facts=facts)


def _place(objects: Objects, where: Where) -> tuple[int, list[str]]:
    bucket, text, kind = where
    refused: list[str] = []
    keys: list[str] = []
    if kind == "key":
        keys = [text]
    else:
        prefix = where.prefix
        try:
            page: Any = objects.ask(bucket, prefix, lambda: objects.requests.page(bucket, prefix))
            keys = [item["Key"] for item in page.get("Contents", ()) if not item["Key"].endswith("/")]
        except NotAllowed as error:
            refused.append(str(error))
    if keys:
        try:
            objects.ask(bucket, keys[0], lambda: objects.requests.head(bucket, keys[0]))
        except NotAllowed as error:
            refused.append(str(error))
        except ObjectChanged:
            return 0, [f"s3://{bucket}/{keys[0]}: there is no such object; mend `key`"]
    return len(keys), refused
