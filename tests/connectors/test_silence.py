"""A connection on which nothing comes is closed, and no other."""

import socket
import threading
import time
from pathlib import Path

import pytest

from sqlflow_dagster.connectors.silence import watched


@pytest.fixture
def pair():
    """Make pairs of connected sockets: ours and the far side's; the server's port is fixed."""
    made = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def connect():
            ours = socket.create_connection(server.getsockname())
            far, _ = server.accept()
            made.extend((ours, far))
            return ours, far, server.getsockname()

        yield connect
    for item in made:
        item.close()


def test_a_silent_connection_is_closed_for_who_waits_on_it(pair):
    ours, _far, address = pair()
    ours.settimeout(10)
    begin = time.monotonic()
    with watched([("localhost", 1), address], 0.4):
        assert ours.recv(1) == b""
    assert 0.3 < time.monotonic() - begin < 5


def alive(ours, far):
    far.sendall(b"x")
    ours.settimeout(1)
    return ours.recv(1) == b"x"


def test_one_that_says_something_now_and_then_is_left(pair):
    ours, far, address = pair()
    with watched([address], 0.6):
        for _ in range(8):
            time.sleep(0.2)
            assert alive(ours, far)


def test_one_whose_bytes_wait_for_us_is_left(pair):
    ours, far, address = pair()
    far.sendall(b"x")
    with watched([address], 0.3):
        time.sleep(1)
    assert ours.recv(1) == b"x"
    assert alive(ours, far)


@pytest.mark.parametrize("how", ["spare", "elsewhere", "no limit"])
def test_one_that_nobody_waits_for_is_left(pair, how):
    ours, far, address = pair()
    servers = [("127.0.0.1", 1)] if how == "elsewhere" else [address]
    with watched(
        servers, None if how == "no limit" else 0.3, lambda: [ours.fileno()] if how == "spare" else []
    ):
        time.sleep(1)
    assert alive(ours, far)


def test_watching_leaves_no_thread_and_no_descriptor(pair):
    _ours, _far, address = pair()
    before = len(list(Path("/proc/self/fd").iterdir()))
    with watched([address], 5):
        time.sleep(0.1)
    with watched([address], 0.4):
        time.sleep(1)
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert "sqlflow_silence" not in {thread.name for thread in threading.enumerate()}
