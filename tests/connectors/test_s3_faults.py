"""What goes wrong between us and a store: no row is lost or doubled, and what cannot be mended is said."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

from sqlflow_dagster.errors import BadOption, NotAllowed, RetryLater, SourceFailed
from tests.proxy import Cut, Proxy, Refuse, Reset, Stall
from tests.tls import TlsFront, certificate

from .s3_twin import Twin

pytestmark = pytest.mark.fault
ROWS = "id\n" + "".join(f"{number}\n" for number in range(30_000))


@pytest.fixture
def twin():
    with Twin() as made:
        yield made


@pytest.fixture
def load(bench):
    """Load all of a source into the table `t`, and return the outcome."""

    def loading(**params):
        params = {"path_prefix": "in/", "file_format": "csv", **params}
        bench.pipeline(f"SOURCE s TYPE S3 PARAMS {json.dumps(params)};\nLOAD t FROM s;")
        return bench.run()["t"]

    return loading


def first(times, answer, method="GET"):
    """A fault of the first so many requests of a kind."""
    left = [times]
    lock = threading.Lock()

    def fault(made, _key, _headers):
        with lock:
            if made != method or not left[0]:
                return None
            left[0] -= 1
        return answer

    return fault


@pytest.mark.parametrize("method", ["GET", "LIST"])
@pytest.mark.parametrize(
    "answer",
    [(503, "SlowDown", {}), (503, "SlowDown", {"Retry-After": "7"}), (500, "InternalError", {}), (429, "TooManyRequests", {})],
    ids=lambda item: f"{item[0]}-{len(item[2])}",
)  # fmt: skip
def test_what_waiting_mends_is_asked_for_again_alone(twin, load, method, answer):
    twin.objects = {f"in/{number}.csv": f"id\n{number}\n".encode() for number in range(5)}
    twin.fault = first(2, answer, method)
    outcome = load(**twin.params)
    assert outcome.error is None, outcome.error
    assert (outcome.rows, outcome.calls.retries) == (5, 2)
    assert (twin.count("LIST"), twin.count("GET")) == ((3, 5) if method == "LIST" else (1, 7))
    if answer[2]:
        assert outcome.calls.seconds_waited >= 7


@pytest.mark.parametrize(
    ("days", "trusted", "says"),
    [
        (2, "server.crt", None),
        (-1, "server.crt", "certificate has expired"),
        (2, "other.crt", "certificate verify failed"),
        (2, True, "certificate verify failed"),
        (2, "nix.crt", "verify_tls: there is no file nix.crt"),
    ],
    ids=["valid", "expired", "another authority", "no authority", "no file"],
)
def test_a_certificate_that_is_not_valid_is_said_and_not_waited_for(
    twin, load, bench, tmp_path, days, trusted, says
):
    twin.objects = {"in/a.csv": b"id\n1\n"}
    shown = certificate(tmp_path, days=days)
    bench.write("server.crt", shown.path.read_bytes())
    bench.write("other.crt", certificate(tmp_path, "other").path.read_bytes())
    with TlsFront(twin.port, shown) as front:
        outcome = load(
            **{**twin.params, "endpoint_url": f"https://localhost:{front.port}", "verify_tls": trusted}
        )
    if says is None:
        assert outcome.error is None, outcome.error
        assert front.encrypted
    else:
        assert isinstance(outcome.error, SourceFailed | BadOption), outcome.error
        assert says in str(outcome.error)
        assert "verify_tls" in str(outcome.error)
        assert outcome.calls.retries == 0


def test_a_store_that_stays_slow_leaves_the_table_as_it_was(twin, bench, load):
    twin.objects = {"in/a.csv": b"id\n1\n"}
    assert load(**twin.params).rows == 1
    twin.fault = lambda method, *_: (503, "SlowDown", {}) if method == "GET" else None
    outcome = load(**twin.params)
    assert isinstance(outcome.error, RetryLater)
    assert "SlowDown; tried 4 times" in str(outcome.error)
    assert bench.query("SELECT count(*) FROM p.t") == [(1,)]


def test_an_object_that_is_replaced_while_it_is_read_is_read_as_it_then_is(twin, load):
    twin.objects = {"in/a.csv": b"id\n1\n", "in/b.csv": b"id\n2\n"}

    def fault(method, key, _headers):
        if (method, key) == ("GET", "in/b.csv") and twin.objects["in/b.csv"] == b"id\n2\n":
            twin.objects["in/b.csv"] = b"id\n3\n4\n"

    twin.fault = fault
    outcome = load(**twin.params)
    assert outcome.error is None, outcome.error
    assert (outcome.rows, twin.count("LIST")) == (3, 2)


def test_an_object_that_is_removed_while_it_is_read_is_not_waited_for(twin, load):
    twin.objects = {"in/a.csv": b"id\n1\n", "in/b.csv": b"id\n2\n"}

    def fault(method, key, _headers):
        if (method, key) == ("GET", "in/b.csv"):
            twin.objects.pop("in/b.csv", None)

    twin.fault = fault
    outcome = load(**twin.params)
    assert outcome.error is None, outcome.error
    assert outcome.rows == 1


def test_a_store_without_etags_is_read_by_the_times_of_its_objects(twin, bench):
    plain = twin._listing
    twin._listing = lambda query: re.sub(rb"<ETag>.*?</ETag>", b"", plain(query))
    twin.objects = {"in/a.csv": b"id\n1\n"}
    given = {**twin.params, "path_prefix": "in/", "sync_mode": "incremental"}
    bench.pipeline(f"SOURCE s TYPE S3 PARAMS {json.dumps(given)};\nLOAD t FROM s MODE APPEND;")
    assert [bench.ok()["t"].rows for _ in range(2)] == [1, 0]
    twin.objects["in/b.csv"] = b"id\n2\n"
    assert bench.ok()["t"].rows == 1


def test_an_object_that_comes_short_is_fetched_again(twin, load):
    twin.objects = {"in/a.csv": ROWS.encode()}
    twin.fault = first(1, ROWS.encode()[:100_000])
    outcome = load(**twin.params)
    assert outcome.error is None, outcome.error
    assert (outcome.rows, outcome.calls.retries) == (30_000, 1)


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ((403, "AccessDenied", {}), NotAllowed, r"ask for s3:GetObject on arn:aws:s3:::twin/in/a\.csv"),
        ((403, "InvalidObjectState", {}), SourceFailed, "the object is archived"),
        ((403, "RequestTimeTooSkewed", {}), SourceFailed, "this machine's clock is wrong"),
        ((400, "ExpiredToken", {}), NotAllowed, "have expired"),
        ((301, "PermanentRedirect", {"x-amz-bucket-region": "eu-west-3"}), BadOption, "the bucket is in eu-west-3: mend `region`"),
    ],
    ids=lambda item: item[1] if isinstance(item, tuple) else "",
)  # fmt: skip
def test_what_waiting_does_not_mend_is_said_at_once(twin, load, answer, kind, said):
    twin.objects = {"in/a.csv": b"id\n1\n"}
    twin.fault = first(99, answer)
    outcome = load(**twin.params)
    assert type(outcome.error) is kind
    with pytest.raises(kind, match=said):
        raise outcome.error
    # boto3 looks once more whether a redirection leads somewhere.
    assert twin.count("GET") <= (3 if answer[0] in (301, 400) else 1)
    assert "CANARY" not in str(outcome.error)


def test_a_bucket_of_another_region_is_read_where_it_is(twin, load):
    twin.objects = {f"in/{number}.csv": b"id\n1\n" for number in range(5)}

    def fault(_method, _key, headers):
        elsewhere = "/eu-west-3/s3/" not in headers.get("Authorization", "")
        return (
            (400, "AuthorizationHeaderMalformed", {"x-amz-bucket-region": "eu-west-3"}) if elsewhere else None
        )

    twin.fault = fault
    outcome = load(**{**twin.params, "parallel_workers": 1})
    assert outcome.error is None, outcome.error
    assert outcome.rows == 5
    # The first request is sent elsewhere once, and boto3's of it too; from then on all go where the bucket is.
    assert (twin.count("LIST"), twin.count("GET")) == (3, 5)


def test_an_address_of_a_key_with_odd_letters_is_signed_as_it_is_sent(bucket, load):
    for number, name in enumerate(["a b+c", "ü&%41", "~x=y;z", "(q)!*'@:$,", "a//b"]):
        bucket.put(f"in/{name}", f"id\n{number}\n")
    outcome = load(**bucket.params)
    assert outcome.error is None, outcome.error
    assert outcome.rows == 5


def test_a_listing_that_repeats_a_page_ends(twin, load):
    twin.objects = {f"in/{number:03}.csv": b"id\n1\n" for number in range(30)}
    twin.page = 10
    whole = twin._listing
    twin._listing = lambda query: whole({**query, "continuation-token": "in/"})
    outcome = load(**twin.params)
    assert isinstance(outcome.error, SourceFailed)
    assert "repeats a page" in str(outcome.error)


def test_a_hundred_thousand_keys_are_listed_and_two_of_them_read(twin, load):
    body = b"id\n1\n"
    twin.objects = {f"in/{number:06}.csv": body for number in range(100_000)}
    outcome = load(**twin.params, path_prefix="in/", dev_max_files=2)
    assert outcome.error is None, outcome.error
    assert (outcome.rows, twin.count("LIST"), twin.count("GET")) == (2, 100, 2)


@pytest.fixture
def far(bucket):
    """A bucket with an object, and a proxy before its store."""
    for number in range(3):
        bucket.put(f"in/{number}.csv", ROWS)
    with Proxy("127.0.0.1", bucket.store.port) as proxy:
        yield proxy


def through(proxy, bucket, **more):
    return {**bucket.params, "endpoint_url": f"http://127.0.0.1:{proxy.port}", "parallel_workers": 2, **more}


@pytest.mark.parametrize(
    "breaks",
    [Refuse(), Cut(0), Cut(100), Reset(100), Cut(100_000), Reset(150_000), Stall(100_000)],
    ids=["refused", "closed", "cut in the listing", "reset in the listing", "cut", "reset", "stalled"],
)
def test_a_connection_that_breaks_is_made_again_and_no_row_doubles(bench, bucket, far, load, breaks):
    far.breaks, far.times = breaks, 2
    outcome = load(**through(far, bucket, timeout_seconds=1))
    assert outcome.error is None, outcome.error
    assert outcome.calls.retries >= 1
    assert bench.query("SELECT count(*), count(DISTINCT id) FROM p.t") == [(90_000, 30_000)]
    assert not list((bench.root / ".sqlflow/spool").iterdir())


def test_an_export_whose_connection_breaks_is_whole_in_the_end(bench, bucket):
    with Proxy("127.0.0.1", bucket.store.port) as proxy:
        proxy.breaks, proxy.times = Reset(0), 1
        params = through(proxy, bucket)
        bench.pipeline(
            f'EXPORT SELECT range AS id FROM range(1000) TO "s3://{params.pop("bucket")}/x.csv" OPTIONS {json.dumps(params)};'
        )
        (outcome,) = bench.ok().values()
    assert (outcome.rows, outcome.calls.retries) == (1000, 1)
    assert bucket.get("x.csv").count(b"\n") == 1001


KILLED = """
    from pathlib import Path
    from sqlflow_dagster.connectors import registry
    from sqlflow_dagster.connectors.base import Place
    from sqlflow_dagster.connectors.options import parse
    from sqlflow_dagster.warehouse.duckdb import Warehouse, WarehouseSettings
    from sqlflow_dagster.warehouse.result import rows
    from sqlflow_dagster.warehouse.udf import Functions
    root = Path({root!r})
    warehouse = Warehouse(WarehouseSettings(path=root / "data/k.duckdb", state_directory=root / ".sqlflow"))
    kind = registry.find("S3")
    with rows(warehouse, {query!r}, Functions(root)) as result:
        kind.write(result, {target!r}, parse(kind.sink_options_type, {options!r})[0], Place(root, root / ".sqlflow/spool"))
"""


def export(bench, bucket, query, key, failpoint=None, **options):
    """Export in a process that may be killed at a place; return its exit status."""
    options = {**bucket.params, **options}
    code = KILLED.format(
        root=str(bench.root), query=query, target=f"s3://{bucket.name}/{key}", options=options
    )
    env = {**os.environ, "SQLFLOW_FAILPOINT": failpoint or ""}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=env, check=False, capture_output=True
    )
    assert done.returncode in (0, -9), done.stderr.decode()
    return done.returncode


def test_a_large_object_whose_export_is_killed_is_not_seen(bench, bucket):
    bucket.put("out.csv", "id\n1\n")
    query = "SELECT md5(range::VARCHAR) AS id FROM range(250000)"
    assert export(bench, bucket, query, "out.csv", "in_publish:kill", part_size_mb=5) == -9
    assert bucket.get("out.csv") == b"id\n1\n"
    assert export(bench, bucket, query, "out.csv", part_size_mb=5) == 0
    assert bucket.get("out.csv").count(b"\n") == 250_001


def test_a_set_whose_export_is_killed_is_the_old_one_or_waits_and_then_the_new_one(bench, bucket, load):
    options = {"partition_by": "part", "file_format": "csv"}
    assert export(bench, bucket, "SELECT 1 AS id, range AS part FROM range(3)", "set", **options) == 0
    new = "SELECT 2 AS id, range + 2 AS part FROM range(3)"
    assert export(bench, bucket, new, "set", "in_export:kill", **options) == -9
    assert load(**bucket.params, path_prefix="set/").rows == 3
    assert bench.query("SELECT DISTINCT id FROM p.t") == [(1,)]
    # Before the first of it is visible, after each object, and before the old ones and the list are removed.
    for place in ("in_publish:kill", "in_publish:kill:2", "in_publish:kill:4", "in_publish:kill:5"):
        assert export(bench, bucket, new, "set", place, **options) == -9
        outcome = load(**bucket.params, path_prefix="set/", max_retries=0)
        assert isinstance(outcome.error, RetryLater), place
        assert "an export is replacing" in str(outcome.error)
    assert export(bench, bucket, new, "set", **options) == 0
    assert load(**bucket.params, path_prefix="set/").rows == 3
    assert bench.query("SELECT DISTINCT id, part::INTEGER AS part FROM p.t ORDER BY part") == [
        (2, 2),
        (2, 3),
        (2, 4),
    ]
    assert [key.split("/")[1] for key in bucket.keys("set/")] == ["part=2", "part=3", "part=4"]
    assert not bucket.client.list_multipart_uploads(Bucket=bucket.name).get("Uploads")


class Roles(ThreadingHTTPServer):
    """A server of temporary credentials: gives those of the store's admin to who names the role and the id."""

    def __init__(self, key, secret):
        self.asked = []
        roles = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                asked = {name: values[0] for name, values in parse_qs(body).items()}
                roles.asked.append(asked)
                given = (
                    "<AssumeRoleResponse><AssumeRoleResult><Credentials>"
                    f"<AccessKeyId>{key}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey>"
                    "<SessionToken></SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>"
                    "</Credentials></AssumeRoleResult></AssumeRoleResponse>"
                )
                denied = "<ErrorResponse><Error><Code>AccessDenied</Code><Message>no</Message></Error></ErrorResponse>"
                ok = asked.get("ExternalId") == "CANARY-id"
                self.send_response(200 if ok else 403)
                self.end_headers()
                self.wfile.write((given if ok else denied).encode())

            def log_message(self, *_):
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.daemon_threads = True


def test_a_role_is_assumed_with_the_id_that_its_owner_asks_for(bucket, load):
    bucket.put("in/a.csv", "id\n1\n")
    server = Roles(bucket.params["access_key_id"], bucket.params["secret_access_key"])
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    params = {
        **bucket.params, "access_key_id": "somebody", "secret_access_key": "else", "role_arn": "arn:aws:iam::1:role/reader",
        "sts_endpoint_url": f"http://127.0.0.1:{server.server_address[1]}",
    }  # fmt: skip
    try:
        outcome = load(**params, external_id="CANARY-id")
        assert outcome.error is None, outcome.error
        assert server.asked[0]["RoleArn"] == "arn:aws:iam::1:role/reader"
        refused = load(**params, external_id="CANARY-other").error
        assert isinstance(refused, NotAllowed)
        assert "ask for sts:AssumeRole on the role" in str(refused)
        assert "CANARY" not in str(refused)
    finally:
        server.shutdown()
        server.server_close()
