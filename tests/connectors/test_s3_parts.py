"""Exports that travel in parts: what fails is repeated alone, and what fails for good leaves nothing behind."""

from __future__ import annotations

import json

import pytest

from sqlflow_dagster.connectors.base import Place
from sqlflow_dagster.connectors.options import parse
from sqlflow_dagster.connectors.registry import find
from sqlflow_dagster.errors import Canceled, ExportFailed, NotAllowed, RetryLater
from sqlflow_dagster.resilience.guard import Guard
from sqlflow_dagster.resilience.policy import DEFAULTS
from sqlflow_dagster.warehouse.duckdb import Warehouse, WarehouseSettings
from sqlflow_dagster.warehouse.result import rows
from sqlflow_dagster.warehouse.udf import Functions

from .s3_gateway import Gateway

pytestmark = pytest.mark.fault
# Three parts of 5 MB.
QUERY = "SELECT md5(range::VARCHAR) AS a FROM range(400000)"
OLD = b"a\nold\n"


@pytest.fixture
def gateway(bucket):
    bucket.put("out.csv", OLD)
    with Gateway(bucket.store.port) as made:
        yield made
    assert not bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads")


@pytest.fixture
def export(bench, bucket, gateway):
    """Export through the gateway, and return the outcome."""

    def exporting(query=QUERY, key="out.csv", **options):
        told = {**bucket.params, "endpoint_url": gateway.url, "part_size_mb": 5, **options}
        target = f"s3://{told.pop('bucket')}/{key}"
        bench.pipeline(f'EXPORT {query} TO "{target}" OPTIONS {json.dumps(told)};')
        (outcome,) = bench.run().values()
        return outcome

    return exporting


def whole(bucket, key="out.csv"):
    lines = bucket.get(key).split()
    return len(lines), len(set(lines))


@pytest.mark.parametrize(
    "answer", [(503, "SlowDown"), (500, "InternalError"), "reset", "stall", "lost"], ids=str
)
def test_a_part_that_fails_is_sent_again_alone(bucket, gateway, export, answer):
    gateway.fault = lambda kind, number, passed: (
        answer if (kind, number) == ("part", 2) and passed < 2 else None
    )
    outcome = export(timeout_seconds=1)
    assert outcome.error is None, outcome.error
    assert gateway.count("part") == {1: 1, 2: 3, 3: 1}
    assert gateway.count("create").total() == gateway.count("complete").total() == 1
    assert (outcome.calls.requests, outcome.calls.retries) == (7, 2)
    assert whole(bucket) == (400_001, 400_001)


# An upload whose creation is answered, and the answer lost, stays in the store: it has no parts.
@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (kind, answer)
        for kind in ("create", "complete", "PUT")
        for answer in ((503, "SlowDown"), "reset", "lost")
        if (kind, answer) != ("create", "lost")
    ],
    ids=str,
)
def test_each_other_request_is_made_again_alone_too(bucket, gateway, export, kind, answer):
    gateway.fault = lambda made, _number, passed: answer if made == kind and not passed else None
    outcome = export("SELECT 1 AS a" if kind == "PUT" else QUERY)
    assert outcome.error is None, outcome.error
    assert outcome.calls.retries == 1
    assert gateway.count(kind).total() == 2
    assert whole(bucket) == ((2, 2) if kind == "PUT" else (400_001, 400_001))


@pytest.mark.parametrize(
    ("answer", "error", "sent"),
    [((503, "SlowDown"), RetryLater, 4), ((403, "AccessDenied"), NotAllowed, 1), ((400, "InvalidRequest"), ExportFailed, 1)],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("kind", ["part", "complete"])
def test_what_tries_do_not_mend_leaves_the_old_object_and_no_parts(
    bucket, gateway, export, kind, answer, error, sent
):
    wanted = (kind, 2 if kind == "part" else 0)
    gateway.fault = lambda kind, number, _passed: answer if (kind, number) == wanted else None
    outcome = export()
    assert type(outcome.error) is error, outcome.error
    assert gateway.count(kind)[wanted[1]] == sent
    assert (gateway.count("create").total(), gateway.count("abort").total()) == (1, 1)
    assert bucket.get("out.csv") == OLD


def test_an_upload_that_somebody_else_aborted_is_begun_again(bucket, gateway, export):
    gateway.fault = lambda kind, number, passed: (
        (404, "NoSuchUpload") if (kind, number) == ("part", 2) and not passed else None
    )
    outcome = export()
    assert outcome.error is None, outcome.error
    assert gateway.count("create").total() == 2
    assert whole(bucket) == (400_001, 400_001)


def test_a_set_whose_part_fails_for_good_leaves_the_old_set_and_no_parts(bucket, gateway, export):
    kept = {"partition_by": "k", "file_format": "csv"}
    assert export("SELECT 1 AS a, range AS k FROM range(3)", "set", **kept).error is None
    old = {key: bucket.get(key) for key in bucket.keys("set/")}
    left = [3]

    def fault(kind, _number, _passed):
        left[0] -= kind == "part"
        return (403, "AccessDenied") if kind == "part" and left[0] < 1 else None

    gateway.fault = fault
    outcome = export("SELECT 2 AS a, range AS k FROM range(9)", "set", **kept)
    assert type(outcome.error) is NotAllowed, outcome.error
    assert {key: bucket.get(key) for key in bucket.keys("set/")} == old


def test_a_set_whose_list_may_be_there_is_ended_by_the_next_try(bucket, gateway, export):
    kept = {"partition_by": "k", "file_format": "csv", "max_retries": 0}
    assert export("SELECT 1 AS a, range AS k FROM range(3)", "set", **kept).error is None
    gateway.fault = lambda kind, _number, _passed: "lost" if kind == "PUT" else None
    assert isinstance(export("SELECT 2 AS a, range AS k FROM range(3)", "set", **kept).error, RetryLater)
    # The list is there: the uploads that it names are, too.
    assert any(key.endswith("_sqlflow_export.json") for key in bucket.keys("set/"))
    gateway.fault = lambda *_: None
    assert export("SELECT 3 AS a, 7 AS k", "set", **kept).error is None
    assert [key.split("/")[1] for key in bucket.keys("set/")] == ["k=7"]


def test_an_export_that_is_canceled_sends_no_more_and_leaves_no_parts(bench, bucket, gateway):
    guard = Guard("export", DEFAULTS["object_store"])
    kind = find("S3")
    told = {**bucket.params, "endpoint_url": gateway.url, "part_size_mb": 5, "parallel_workers": 1}

    def fault(kind, number, _passed):
        if (kind, number) == ("part", 1):
            guard.stop()

    gateway.fault = fault
    place = Place(bench.root, bench.root / ".sqlflow/spool", guard=guard)
    settings = WarehouseSettings(path=bench.root / "data/k.duckdb", state_directory=bench.root / ".sqlflow")
    with rows(Warehouse(settings), QUERY, Functions(bench.root)) as result, pytest.raises(Canceled):
        kind.write(result, f"s3://{bucket.name}/out.csv", parse(kind.sink_options_type, told)[0], place)
    assert gateway.count("part") == {1: 1}
    assert gateway.count("abort").total() == 1
    assert bucket.get("out.csv") == OLD
