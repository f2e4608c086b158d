"""What a vendor's API may answer, over real HTTP: each answer becomes what helps, and nothing leaks."""

from __future__ import annotations

import gzip
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from sqlflow_dagster.connectors.http import Client, HttpOptions, error_for, retry_after
from sqlflow_dagster.connectors.wire import is_public
from sqlflow_dagster.errors import BadOption, NotAllowed, RetryLater, SourceFailed
from sqlflow_dagster.resilience.clock import waits_off
from sqlflow_dagster.resilience.counts import counting
from sqlflow_dagster.resilience.guard import Guard
from sqlflow_dagster.resilience.policy import DEFAULTS
from tests.http_server import Server
from tests.proxy import Cut, Proxy, Refuse, Reset, Slow, Stall

TOKEN = "canary-5f1c2e"


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def off():
    with waits_off() as skipped:
        yield skipped


@pytest.fixture
def client(server, off):
    """Make clients of the server; `timeout` and the like are its options."""
    made = []

    def make(base=None, credentials=True, renew=None, **options):
        given = HttpOptions(**{"allow_private_addresses": True, **options})
        secret = (lambda: {"Authorization": f"Bearer {TOKEN}"}) if credentials is True else credentials
        made.append(
            Client(base or server.url, Guard("far", DEFAULTS["api"]), given, credentials=secret, renew=renew)
        )
        return made[-1]

    yield make
    for item in made:
        item.close()


OK = (200, {}, b'{"ok": true}')


def in_seconds(seconds):
    return format_datetime(datetime.now(UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ({"Retry-After": "7"}, 7, 8),
        ({"Retry-After": in_seconds(9)}, 0, 10.1),
        ({"Retry-After": "1000000000"}, 60, 61),
        ({}, 0, 1),
        ({"Retry-After": "soon"}, 0, 1),
        ({"Retry-After": "-5"}, 0, 1),
        ({"Retry-After": "nan"}, 0, 1),
    ],
    ids=["seconds", "date", "a billion", "none", "no number", "negative", "nan"],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_host_that_is_busy_is_left_alone_as_long_as_it_asks(
    server, client, off, status, header, least, most
):
    server.answers = [(status, header, b"slow down"), OK]
    with counting() as counter:
        assert client().get("items").json() == {"ok": True}
    assert least <= off.skipped <= most
    assert (counter.calls.requests, counter.calls.retries) == (2, 1)


def test_a_date_is_compared_with_the_host_s_own_clock(server, off):
    """A host whose clock is a day ahead asks for ten seconds, not for a day."""
    ahead = datetime.now(UTC) + timedelta(days=1)
    headers = {"date": format_datetime(ahead, usegmt=True)}
    headers["retry-after"] = format_datetime(ahead + timedelta(seconds=10), usegmt=True)
    assert retry_after(headers) == 10


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520, 529])
def test_an_outage_is_waited_for(server, client, status):
    server.answers = [(status, {}, b"oops"), (status, {}, b"oops"), OK]
    assert client().get("items").json() == {"ok": True}
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("status", "headers", "error", "said"),
    [
        (401, {}, NotAllowed, "credentials are missing, wrong or expired"),
        (403, {}, NotAllowed, "ask for access"),
        (403, {"WWW-Authenticate": 'Bearer error="insufficient_scope", scope="orders:read"'}, NotAllowed, "scope orders:read"),
        (402, {}, NotAllowed, "402"),
        (400, {}, BadOption, "look at the address and the parameters"),
        (404, {}, BadOption, "/api/items: 404"),
        (422, {}, BadOption, "422"),
        (409, {}, SourceFailed, "409"),
        (501, {}, SourceFailed, "501"),
    ],
)  # fmt: skip
def test_a_refusal_is_raised_at_once_and_says_what_helps(server, client, status, headers, error, said):
    server.answers = [(status, headers, b'{"message": "no"}')]
    with pytest.raises(error, match=said) as caught:
        client().get("items", {"key": TOKEN})
    assert type(caught.value).__mro__.index(error) <= 1
    assert len(server.requests) == 1
    assert '"message": "no"' in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_a_403_of_a_spent_limit_is_waited_for(server, client, off):
    reset = int(time.time()) + 20
    server.answers = [(403, {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset)}, b"{}"), OK]
    client().get("items")
    assert 17 <= off.skipped <= 22


def test_credentials_that_an_error_repeats_are_not_told(server, client, caplog):
    server.answers = [(400, {}, f"bad key {TOKEN}".encode())]
    with pytest.raises(BadOption, match=r"bad key \*\*\*"):
        client().get("items")
    server.answers = [(500, {}, f"bad key {TOKEN}".encode())]
    with pytest.raises(RetryLater):
        client().get(f"items?token={TOKEN}")
    assert TOKEN not in caplog.text
    assert "bad key ***" in caplog.text


# --- what the network does


@pytest.mark.parametrize(
    "breaks",
    [Cut(0), Cut(40), Cut(300), Reset(0), Reset(300), Refuse()],
    ids=[
        "closed at once",
        "cut in the head",
        "cut in the body",
        "reset at once",
        "reset in the body",
        "refused",
    ],
)
def test_a_connection_that_breaks_is_made_again(server, client, breaks):
    body = json.dumps(["x" * 1000]).encode()
    server.answers = [(200, {}, body)]
    with Proxy("127.0.0.1", server.port) as proxy:
        proxy.breaks, proxy.times = breaks, 2
        answer = client(f"http://127.0.0.1:{proxy.port}/api").get("items")
        assert answer.body == body
        assert proxy.connections == 3


@pytest.mark.parametrize(
    "breaks",
    [Stall(0), Stall(300), Slow(50)],
    ids=["no answer", "stalled in the body", "a few bytes now and then"],
)
def test_an_answer_is_waited_for_no_longer_than_the_timeout(server, client, breaks):
    server.answers = [(200, {}, json.dumps(["x" * 1000]).encode())]
    with Proxy("127.0.0.1", server.port) as proxy:
        proxy.breaks, proxy.times = breaks, 1
        begin = time.monotonic()
        answer = client(f"http://127.0.0.1:{proxy.port}/api", timeout_seconds=0.4).get("items")
        assert time.monotonic() - begin < 3
        assert len(answer.body) > 1000


def test_what_stays_broken_says_why_and_holds_no_secret(client):
    with pytest.raises(RetryLater, match=r"Connection refused.*tried 5 times") as caught:
        client("http://127.0.0.1:9").get("items", {"key": TOKEN})
    link: BaseException | None = caught.value
    while link is not None:
        assert TOKEN not in str(link)
        link = link.__cause__


def test_a_name_that_does_not_exist_is_named(client):
    with pytest.raises(RetryLater, match=r"nowhere\.invalid/items: there is no such host"):
        client("http://nowhere.invalid").get("items")


def test_a_body_shorter_than_it_says_is_asked_for_again(server, client):
    body = b'{"rows": [1, 2, 3]}'
    server.answers = [lambda handler: raw(handler, "Content-Length: 5000\r\n", body), (200, {}, body)]
    assert client().get("items").json() == {"rows": [1, 2, 3]}


def test_chunks_without_their_end_are_asked_for_again(server, client):
    broken = b'7\r\n{"rows"\r\n'
    server.answers = [lambda handler: raw(handler, "Transfer-Encoding: chunked\r\n", broken), OK]
    assert client().get("items").json() == {"ok": True}


def raw(handler, head, body):
    handler.wfile.write(
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n{head}\r\n".encode()
        + body
    )
    handler.close_connection = True


# --- other hosts


@pytest.mark.parametrize(
    "link",
    ["http://evil.example/items", "https://evil.example/items", "//evil.example/x", "file:///etc/passwd"],
)
def test_a_link_to_another_host_is_refused(server, client, link):
    with pytest.raises(SourceFailed, match="leads away from"):
        client().get(link)
    assert server.requests == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_refused(server, client, status):
    other = Server()
    server.answers = [(status, {"Location": f"http://127.0.0.1:{other.port}/x"}, b"")]
    with pytest.raises(SourceFailed, match="a redirect .* leads away"):
        client().get("items")
    assert other.requests == []
    other.close()


def test_a_redirect_on_the_same_host_is_followed(server, client):
    server.answers = [(302, {"Location": "/api/moved?page=2"}, b""), OK]
    assert client().get("items", {"page": 1}).json() == {"ok": True}
    assert [path for path, *_ in server.requests] == ["/api/items?page=1", "/api/moved?page=2"]


def test_redirects_in_a_circle_end(server, client):
    server.answers = [(302, {"Location": "/api/items"}, b"")]
    with pytest.raises(SourceFailed, match="redirected more than 5 times"):
        client().get("items")


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0177.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"]
)
def test_a_private_address_is_refused_however_it_is_written(server, client, host):
    far = client(f"http://{host}:{server.port}", allow_private_addresses=False)
    with pytest.raises((BadOption, RetryLater)) as caught:
        far.get("items")
    assert server.requests == []
    if isinstance(caught.value, BadOption):
        assert "allow_private_addresses" in str(caught.value)
    else:  # nobody listens there
        assert "connection broke" in str(caught.value)


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True), ("2606:4700::1111", True), ("10.1.2.3", False), ("169.254.169.254", False),
        ("172.16.0.1", False), ("192.168.0.1", False), ("100.64.0.1", False), ("224.0.0.1", False),
        ("fd00::1", False), ("fe80::1%eth0", False), ("::ffff:10.0.0.1", False), ("64:ff9b::a00:1", False),
        ("64:ff9b::808:808", True), ("2002:a00:1::", False), ("::", False), ("255.255.255.255", False),
    ],
)  # fmt: skip
def test_which_addresses_are_public(address, public):
    assert is_public(address) is public


def test_an_address_with_a_password_is_refused(client):
    with pytest.raises(BadOption, match="no user or password"):
        client("http://user:secret@127.0.0.1")


# --- sizes


def test_an_answer_that_is_too_large_is_not_taken(server, client):
    server.answers = [(200, {}, b"x" * 300_000)]
    with pytest.raises(SourceFailed, match="max_response_bytes"):
        client(max_response_bytes=100_000).get("items")


def test_a_small_body_that_unpacks_without_end_is_not_taken(server, client):
    bomb = gzip.compress(b"\0" * (64 * 2**20))
    server.answers = [(200, {"Content-Encoding": "gzip"}, bomb)]
    with pytest.raises(SourceFailed, match="unpacked from"):
        client().get("items")


def test_a_compressed_answer_is_unpacked(server, client):
    server.answers = [(200, {"Content-Encoding": "gzip"}, gzip.compress(b'{"ok": 1}'))]
    assert client().get("items").json() == {"ok": 1}


# --- bodies


@pytest.mark.parametrize(
    ("headers", "body", "error"),
    [
        ({}, b'{"rows": [1, 2', RetryLater),
        ({}, b"", RetryLater),
        ({"Content-Type": "text/html"}, b"<html>Log in</html>", SourceFailed),
    ],
    ids=["cut off", "empty", "a page"],
)
def test_what_is_no_json_is_no_answer(server, client, headers, body, error):
    server.answers = [(200, headers, body)]
    with pytest.raises(error):
        client().get("items").json()


# --- credentials


def test_expired_credentials_are_renewed_once(server, client):
    tokens = ["old"]

    def renew():
        tokens.append("new")

    server.answers = [(401, {}, b"{}"), OK]
    far = client(credentials=lambda: {"Authorization": tokens[-1]}, renew=renew)
    assert far.get("items").json() == {"ok": True}
    assert [headers["Authorization"] for _, headers, _ in server.requests] == ["old", "new"]
    server.answers = [(401, {}, b"{}")]
    with pytest.raises(NotAllowed):
        far.get("items")
    assert tokens == ["old", "new", "new"]


def test_a_document_is_sent_as_json(server, client):
    client().request("POST", "search", document={"q": [1]})
    assert server.requests[0][2] == b'{"q": [1]}'


def test_every_status_is_an_error_of_ours():
    for status in range(400, 600):
        assert str(status) in str(error_for(status, {}, "text", "GET x"))
