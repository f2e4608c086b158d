"""A connection on which nothing comes is closed, and no other."""

import socket
import threading
import time
from pathlib import Path

import pytest

from sqlflow_dagster.connectors.silence import watched


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def address(server):
    return server.getsockname()


@pytest.fixture
def pair(server):
    """Make pairs of connected sockets: ours and the far side's."""
    made = []

    def connect():
        ours = socket.create_connection(server.getsockname())
        far, _ = server.accept()
        made.extend((ours, far))
        return ours, far

    yield connect
    for item in made:
        item.close()


def test_a_silent_connection_is_closed_for_who_waits_on_it(pair, address):
    begin = time.monotonic()
    with watched([("localhost", 1), address], 0.4) as closed:
        ours, _far = pair()
        ours.settimeout(10)
        assert ours.recv(1) == b""
        assert closed == [address]
    assert 0.3 < time.monotonic() - begin < 5


def alive(ours, far):
    far.sendall(b"x")
    ours.settimeout(1)
    return ours.recv(1) == b"x"


def test_one_that_says_something_now_and_then_is_left(pair, address):
    with watched([address], 0.6):
        ours, far = pair()
        for _ in range(8):
            time.sleep(0.2)
            assert alive(ours, far)


def test_one_that_takes_something_now_and_then_is_left(pair, address):
    """Rows that are sent to a table: nothing comes before the last one."""
    with watched([address], 0.6):
        ours, far = pair()
        for _ in range(8):
            time.sleep(0.2)
            ours.sendall(b"x")
            assert far.recv(1) == b"x"
        assert alive(ours, far)


def test_one_that_takes_nothing_more_is_closed(pair, address):
    with watched([address], 0.6) as closed:
        ours, _far = pair()
        ours.settimeout(10)
        with pytest.raises(OSError, match="Broken pipe|reset"):
            ours.sendall(b"x" * 100_000_000)
        assert closed == [address]


def test_one_whose_bytes_wait_for_us_is_left(pair, address):
    with watched([address], 0.3):
        ours, far = pair()
        far.sendall(b"x")
        time.sleep(1)
    assert ours.recv(1) == b"x"
    assert alive(ours, far)


@pytest.mark.parametrize("how", ["spare", "elsewhere", "no limit", "there before"])
def test_one_that_nobody_waits_for_is_left(pair, address, how):
    servers = [("127.0.0.1", 1)] if how == "elsewhere" else [address]
    made = [pair()] if how == "there before" else []
    with watched(
        servers,
        None if how == "no limit" else 0.3,
        lambda: [ours.fileno() for ours, _ in made] if how == "spare" else [],
    ):
        made = made or [pair()]
        time.sleep(1)
    assert alive(*made[0])


def test_watching_leaves_no_thread_and_no_descriptor(pair, address):
    pair()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with watched([address], 5):
        time.sleep(0.1)
    with watched([address], 0.4):
        time.sleep(1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert "sqlflow_silence" not in {thread.name for thread in threading.enumerate()}
