"""What stores answer, odd answers too: read as boto3 reads them, and refused with what is to be mended."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from sqlflow_dagster.connectors.s3_client import client, connected
from sqlflow_dagster.connectors.s3_options import S3Options
from sqlflow_dagster.connectors.s3_requests import Requests
from sqlflow_dagster.errors import BadOption, NotAllowed, RetryLater, SourceFailed
from tests.tls import TlsFront, certificate

from .s3_twin import Twin

pytestmark = pytest.mark.fault


@pytest.fixture
def twin():
    with Twin() as made:
        made.objects = {"in/a.csv": b"id\n1\n"}
        yield made


@pytest.fixture
def load(bench):
    """Load all of a source into the table `t`, and return the outcome."""

    def loading(**params):
        params = {"path_prefix": "in/", "file_format": "csv", **params}
        bench.pipeline(f"SOURCE s TYPE S3 PARAMS {json.dumps(params)};\nLOAD t FROM s;")
        return bench.run()["t"]

    return loading


def asked(twin, **more):
    """Our requests and boto3's client, asking the same store."""
    options = S3Options(**{**twin.params, **more})
    return Requests(options, lambda: connected(options)), client(options)


def page(inside, truncated="false"):
    text = f"<ListBucketResult><IsTruncated>{truncated}</IsTruncated>{inside}</ListBucketResult>"
    return lambda _query: text.encode()


def item(key, stored="2026-01-01T00:00:00Z"):
    return (
        f"<Contents><Key>{key}</Key><LastModified>{stored}</LastModified><ETag>&quot;e&quot;</ETag>"
        "<Size>5</Size><Owner><ID>1</ID></Owner></Contents>"
    )


@pytest.mark.parametrize(
    "inside",
    [
        "<EncodingType>url</EncodingType>" + item("in/%01+b%2B%C3%BC%25"),
        "<EncodingType></EncodingType>" + item("in/%01+b%2B%C3%BC%25"),
        item("in/%01+b%2B&amp;&#xFC;%25"),
        item("in/a", "Thu, 01 Jan 2026 00:00:00 GMT") + "<!-- no element --><?nor this?>",
        "<EncodingType>url</EncodingType><CommonPrefixes><Prefix>in/x+%2B/</Prefix></CommonPrefixes>",
    ],
    ids=["encoded", "no encoding is named", "not encoded", "comments", "folders"],
)
def test_a_listing_says_what_boto3_finds_in_it(twin, inside):
    twin._listing = page(inside)
    ours, boto = asked(twin)
    found, wanted = ours.page("twin", "in/"), boto.list_objects_v2(Bucket="twin", Prefix="in/")
    names = ("Key", "Size", "LastModified", "ETag")
    rows = [[[item[name] for name in names] for item in said.get("Contents", ())] for said in (found, wanted)]
    assert rows[0] == rows[1]
    assert found["CommonPrefixes"] == wanted.get("CommonPrefixes", [])


@pytest.mark.parametrize(
    ("stored", "moment"),
    [
        ("2026-01-01T00:00:00.000Z", datetime(2026, 1, 1, tzinfo=UTC)),
        ("Thu, 01 Jan 2026 02:00:00 +0200", datetime(2026, 1, 1, tzinfo=UTC)),
        ("Thu, 01 Jan 2026 00:00:00 -0000", datetime(2026, 1, 1, tzinfo=UTC)),
        ("Thu, 01 Jan 2026 00:00:00 +99999999999999999999", None),
        ("yesterday", None),
    ],
)
def test_the_time_of_one_object_is_read_however_a_store_writes_it(twin, monkeypatch, stored, moment):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setattr("tests.connectors.s3_twin._STORED_HEADER", stored)
    ours, _ = asked(twin)
    if moment is None:
        with pytest.raises(RetryLater, match="this is no answer of S3"):
            ours.head("twin", "in/a.csv")
    else:
        assert ours.head("twin", "in/a.csv")["LastModified"] == moment


@pytest.mark.parametrize("truncated", ["true", "True", "1"])
def test_a_listing_that_does_not_say_how_it_goes_on_is_not_taken_for_whole(twin, load, truncated):
    twin._listing = page(item("in/a.csv"), truncated)
    outcome = load(**twin.params)
    assert isinstance(outcome.error, SourceFailed)
    assert "does not speak ListObjectsV2" in str(outcome.error)


@pytest.mark.parametrize("base", ["", "/base"], ids=["ours", "boto3's"])
@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("https://u:CANARY@store:9/in?CANARY=1", "it sends us to https://store:9: mend `endpoint_url`"),
        ("/login?CANARY", "it sends us to /login: mend `endpoint_url`"),
        (None, "the bucket is in another region: mend `region`"),
    ],
)
def test_who_is_sent_elsewhere_is_told_where(twin, load, status, to, said, base):
    twin.fault = lambda *_: (status, "", {"Location": to} if to else {})
    params = {**twin.params, "endpoint_url": f"{twin.params['endpoint_url']}{base}"}
    outcome = load(**params)
    assert isinstance(outcome.error, BadOption)
    assert said in str(outcome.error)
    assert "CANARY" not in str(outcome.error)
    assert len(twin.requests) <= 4


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("<Error><Code>AccessDenied</Code></Error>", NotAllowed, "ask for s3:ListBucket"),
        ("<E><Error><Code>InvalidToken</Code></Error></E>", RetryLater, "it has no IsTruncated"),
        ("<html>Welcome</html>", RetryLater, "it has no IsTruncated"),
    ],
)
def test_what_is_answered_in_place_of_a_listing_is_none(twin, load, text, kind, said):
    twin._listing = lambda _query: text.encode()
    outcome = load(**twin.params)
    assert isinstance(outcome.error, kind)
    assert said in str(outcome.error)


@pytest.mark.parametrize("status", [520, 522, 530])
def test_a_network_before_the_store_that_fails_is_asked_again(twin, load, status):
    left = [2]

    def fault(*_):
        left[0] -= 1
        return (status, "", {}) if left[0] >= 0 else None

    twin.fault = fault
    outcome = load(**twin.params)
    assert outcome.error is None, outcome.error
    assert outcome.calls.retries == 2


@pytest.mark.parametrize("base", ["", "/base"], ids=["ours", "boto3's"])
@pytest.mark.parametrize("name", ["AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE"])
def test_a_certificate_is_looked_at_as_the_environment_says(twin, load, tmp_path, monkeypatch, name, base):
    shown = certificate(tmp_path)
    monkeypatch.delenv("AWS_CA_BUNDLE", raising=False)
    monkeypatch.setenv(name, str(shown.path))
    with TlsFront(twin.port, shown) as front:
        where = f"https://localhost:{front.port}{base}"
        twin.objects = {f"{'twin/' if base else ''}in/a.csv": b"id\n1\n"}
        twin._listing = page(item("in/a.csv").replace("&quot;e&quot;", ""))
        outcome = load(**{**twin.params, "endpoint_url": where})
        assert outcome.error is None, outcome.error
        assert outcome.rows == 1


@pytest.mark.parametrize(
    ("host", "bundle"), [("127.0.0.1", None), ("localhost", "nix.crt"), ("localhost", "junk.crt")]
)
def test_a_certificate_of_another_name_and_a_file_that_is_none_are_not_waited_for(
    twin, load, tmp_path, monkeypatch, host, bundle
):
    shown = certificate(tmp_path)
    (tmp_path / "junk.crt").write_text("no certificate")
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / bundle if bundle else shown.path))
    with TlsFront(twin.port, shown) as front:
        outcome = load(**{**twin.params, "endpoint_url": f"https://{host}:{front.port}"})
    assert isinstance(outcome.error, SourceFailed)
    assert "AWS_CA_BUNDLE" in str(outcome.error)
    assert outcome.calls.retries == 0


@pytest.mark.parametrize(
    ("wrong", "option"),
    [
        ({"endpoint_url": "http://127.0.0.1:port"}, "endpoint_url"),
        ({"endpoint_url": "http://127.0.0.1:99999"}, "endpoint_url"),
        ({"endpoint_url": "http://[::1"}, "endpoint_url"),
        ({"endpoint_url": "http://a store"}, "endpoint_url"),
        ({"endpoint_url": "http://a..b"}, "endpoint_url"),
        ({"region": "us east 1"}, "region"),
        ({"region": "1"}, "region"),
    ],
    ids=str,
)
def test_an_address_or_region_that_cannot_be_is_said_at_once(twin, load, wrong, option):
    outcome = load(**{**twin.params, **wrong})
    assert isinstance(outcome.error, BadOption)
    assert str(outcome.error).count(f"{option}:") == 1
    assert twin.requests == []


@pytest.mark.parametrize(
    "address",
    ["HTTP://127.0.0.1:{}", "http://127.0.0.1:{}/", " http://127.0.0.1:{}\n", "http://u:CANARY@127.0.0.1:{}"],
)
def test_an_address_is_taken_however_it_is_written(twin, load, address):
    outcome = load(**{**twin.params, "endpoint_url": address.format(twin.port)})
    assert outcome.error is None, outcome.error
    twin.fault = lambda *_: (403, "AccessDenied", {})
    outcome = load(**{**twin.params, "endpoint_url": address.format(twin.port)})
    assert "CANARY" not in str(outcome.error)


def test_the_password_of_a_proxy_is_not_shown(twin, load, monkeypatch):
    monkeypatch.setenv("http_proxy", "socks5://u:CANARY@127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    outcome = load(**twin.params, max_retries=0)
    assert isinstance(outcome.error, RetryLater)
    assert "CANARY" not in str(outcome.error)


@pytest.mark.parametrize(
    "where", [{"path_prefix": "in/"}, {"path_prefix": "", "key": "in/a.csv"}], ids=["listed", "named"]
)
def test_an_object_whose_etag_a_proxy_has_weakened_is_read_by_its_time(twin, load, monkeypatch, where):
    monkeypatch.setattr("tests.connectors.s3_twin.tag", lambda _body: 'W/"1"')
    outcome = load(**twin.params, **where)
    assert outcome.error is None, outcome.error
    assert outcome.rows == 1


def test_wrong_credentials_of_which_nothing_is_said_are_not_taken_for_a_lack_of_permission(twin, load):
    twin.fault = lambda method, *_: (403, "", {}) if method == "HEAD" else None
    outcome = load(**twin.params, path_prefix="", key="in/a.csv")
    assert isinstance(outcome.error, NotAllowed)
    assert "look whether the credentials are right, or ask for s3:GetObject" in str(outcome.error)
