"""An API over real HTTP that fails now and then is read whole, once, and only where it broke again."""

from __future__ import annotations

import json

import pytest

from sqlflow_dagster.errors import NotAllowed, RetryLater, SourceFailed
from tests.http_server import Server
from tests.proxy import Proxy, Reset, Stall

TOKEN = "canary-7d4b"
BUSY = (503, {}, b"busy")


@pytest.fixture
def server():
    made = Server()
    yield made
    made.close()


@pytest.fixture
def api(bench, flaky):
    """Write a pipeline that loads the pages of a server."""

    def write(url, **params):
        given = {"url": url, "token": TOKEN, "allow_private_addresses": True, **params}
        bench.pipeline(f"SOURCE s TYPE PAGES PARAMS {json.dumps(given)};\nLOAD t FROM s MODE APPEND;")
        return bench

    return write


def page(number, of, rows=2, **more):
    ids = [{"id": (number - 1) * rows + index} for index in range(1, rows + 1)]
    following = {"next": f"items?page={number + 1}"} if number < of else {}
    return (200, {}, json.dumps({"rows": ids, **following, **more}).encode())


def ids(bench):
    return [row[0] for row in bench.query("SELECT id FROM p.t ORDER BY ALL")]


def test_a_page_that_fails_is_asked_for_again_and_no_other(server, api):
    server.answers = [page(1, 3), page(2, 3), BUSY, (429, {"Retry-After": "3"}, b""), page(3, 3)]
    outcome = api(server.url).ok()["t"]
    bench = api(server.url)
    assert ids(bench) == [1, 2, 3, 4, 5, 6]
    assert [path for path, *_ in server.requests] == ["/api/items?page=1", "/api/items?page=2"] + [
        "/api/items?page=3"
    ] * 3
    assert (outcome.calls.requests, outcome.calls.retries) == (5, 2)
    assert outcome.calls.seconds_waited >= 3


def test_a_page_that_is_no_json_is_read_again_from_the_start_without_doubled_rows(server, api):
    server.answers = [page(1, 2), (200, {}, b'{"rows": [{"id"'), page(1, 2), page(2, 2)]
    bench = api(server.url)
    bench.ok()
    assert ids(bench) == [1, 2, 3, 4]


def test_an_api_that_stays_down_is_asked_no_more_often_than_its_rules_say(server, api):
    """The tries for a request are not multiplied by tries for the read."""
    server.answers = [page(1, 2), BUSY]
    bench = api(server.url)
    error = bench.run()["t"].error
    assert isinstance(error, RetryLater)
    assert "tried 5 times" in str(error)
    assert len(server.requests) == 1 + 5


def test_a_link_that_comes_again_ends_the_read(server, api):
    server.answers = [page(1, 2), page(1, 2)]
    assert isinstance(api(server.url).run()["t"].error, SourceFailed)


@pytest.mark.parametrize("breaks", [Reset(400), Stall(400)], ids=["reset", "stalled"])
def test_a_network_that_breaks_costs_nothing_but_time(server, api, breaks):
    server.answers = [page(number, 4, rows=50) for number in range(1, 5)]

    def numbered(handler):
        number = int(handler.path.rpartition("=")[2])
        _, _, body = page(number, 4, rows=50)
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    server.answers = [numbered]
    with Proxy("127.0.0.1", server.port) as proxy:
        proxy.breaks, proxy.times = breaks, 2
        bench = api(f"http://127.0.0.1:{proxy.port}/api", timeout_seconds=0.5)
        assert bench.ok()["t"].calls.retries == 2
    assert ids(bench) == list(range(1, 201))


def test_no_secret_is_in_what_fails(server, api, caplog):
    server.answers = [(401, {}, f"unknown token {TOKEN}".encode())]
    error = api(server.url).run()["t"].error
    assert isinstance(error, NotAllowed)
    assert TOKEN not in str(error) + caplog.text


def test_connections_are_freed_after_a_failure(server, api):
    with Proxy("127.0.0.1", server.port) as proxy:
        server.answers = [page(1, 9), (400, {}, b"no")]
        assert api(f"http://127.0.0.1:{proxy.port}/api").run()["t"].error
        proxy.settled()
        assert proxy.open == 0


def test_a_private_address_is_refused_unless_it_may_be(server, api):
    error = api(server.url, allow_private_addresses=False).run()["t"].error
    assert "allow_private_addresses" in str(error)
    assert server.requests == []
