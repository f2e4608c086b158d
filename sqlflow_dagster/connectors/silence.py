"""A connection on which nothing comes or goes any more → one that is closed, so that who waits for it is told.

Drivers in C wait for ever for a far side that keeps the connection open and says nothing, and
nobody outside can interrupt them. The kernel knows when the last byte came.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

log = logging.getLogger(__name__)

Address = tuple[str, int]
_OWN = Path("/proc/self/fd")
# Where `struct tcp_info` of Linux has the milliseconds since data last went, and last came.
_LAST_DATA = struct.Struct("=44xI4xI")
_TCP_INFO = getattr(socket, "TCP_INFO", 11)


@contextmanager
def watched(
    servers: Collection[Address], seconds: float | None, spare: Callable[[], Collection[int]] = tuple
) -> Iterator[Sequence[Address]]:
    """Inside the block, close connections of this process to `servers` on which nothing comes or goes.

    The block is given a list, in which the far end of each one that was closed is noted.
    `servers` are names or addresses with ports; `seconds` is the longest silence, None for any.
    `spare` returns the descriptors of connections that nobody waits for; others that are there when the
    block begins are not its own, and left. A connection whose bytes are not read yet is not silent:
    then it is us who are slow. Linux only; elsewhere nothing happens.
    """
    closed: list[Address] = []
    if not seconds or not servers or not _OWN.is_dir():
        yield closed
        return
    ended = threading.Event()
    own = set(spare())
    others = {name for descriptor, name in _sockets().items() if descriptor not in own}
    watch = threading.Thread(
        target=_watch,
        args=(servers, seconds, spare, others, ended, closed),
        name="sqlflow_silence",
        daemon=True,
    )
    watch.start()
    try:
        yield closed
    finally:
        ended.set()
        watch.join()


def _watch(
    servers: Collection[Address],
    seconds: float,
    spare: Callable[[], Collection[int]],
    others: Collection[str],
    ended: threading.Event,
    closed: list[Address],
) -> None:
    known = {address for host, port in servers for address in _addresses(host, port)}
    begun: dict[str, float] = {}
    pause = min(1.0, seconds / 4)
    while not ended.wait(pause):
        idle = set(spare())
        waited_for = {
            name: descriptor
            for descriptor, name in _sockets().items()
            if descriptor not in idle and name not in others
        }
        now = time.monotonic()
        # One that was idle until now has not been waited for all the time that it was silent.
        begun = {name: begun.get(name, now) for name in waited_for}
        for name, descriptor in waited_for.items():
            if now - begun[name] > seconds - 2 * pause:
                with suppress(OSError):  # it was closed meanwhile, or has no other end
                    _close_if_silent(descriptor, known, seconds, closed)


def _sockets() -> dict[int, str]:
    """The descriptors of this process's sockets, and the kernel's name of each socket."""
    found = {}
    for entry in _OWN.iterdir():
        with suppress(OSError):  # it was closed meanwhile
            name = str(entry.readlink())
            if name.startswith("socket:"):
                found[int(entry.name)] = name
    return found


def _close_if_silent(
    descriptor: int, known: Collection[Address], seconds: float, closed: list[Address]
) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        if connection.type != socket.SOCK_STREAM or connection.family not in (
            socket.AF_INET,
            socket.AF_INET6,
        ):
            return
        if connection.getpeername()[:2] not in known:
            return
        silent = _silence(connection)
        if silent > seconds:
            log.warning(
                "nothing came from %s for %.0f s; the connection is closed",
                connection.getpeername()[:2],
                silent,
            )
            closed.append(connection.getpeername()[:2])
            connection.shutdown(socket.SHUT_RDWR)


def _silence(connection: socket.socket) -> float:
    """Seconds since a byte came or went, 0 where some wait to be read."""
    waiting = struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, b"\0" * 4))[0]
    if waiting:
        return 0.0
    told = connection.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 104)
    milliseconds: int = min(_LAST_DATA.unpack_from(told))
    return milliseconds / 1000


def _addresses(host: str, port: int) -> list[Address]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return [(str(item[4][0]), port) for item in found]
