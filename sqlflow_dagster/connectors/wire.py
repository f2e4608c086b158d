"""An HTTP session that keeps to its time, and talks to no private address unless it may.

Imported where a connection is made: `requests` takes long to load and is an extra.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import os
import socket
import time
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from sqlflow_dagster.errors import BadOption

_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class _Within(io.RawIOBase):
    """A socket's bytes, all of them within so many seconds: a byte now and then keeps nobody waiting."""

    def __init__(self, raw: Any, sock: socket.socket, seconds: float) -> None:
        self._raw, self._sock = raw, sock
        self._end = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError("the answer took too long")
        self._sock.settimeout(left)
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Head:
    """The lines of an answer's head: http.client takes one that is cut off for one that is whole."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readline(self, size: int = -1) -> bytes:
        line: bytes = self._file.readline(size)
        if not line:
            raise http.client.RemoteDisconnected("the head of the answer was cut off")
        return line


class _Answer(http.client.HTTPResponse):
    """An answer whose head and body come within the timeout, not each byte of them."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        seconds = sock.gettimeout()
        if seconds is not None:
            raw = self.fp.detach()
            self.fp = io.BufferedReader(_Within(raw, sock, seconds))

    def begin(self) -> None:
        whole, self.fp = self.fp, _Head(self.fp)  # type: ignore[assignment]  # a head is read by lines only
        try:
            super().begin()
        finally:
            self.fp = whole


class _Http(HTTPConnection):
    response_class = _Answer


class _Https(HTTPSConnection):
    response_class = _Answer


class _PublicHttp(_Http):
    def _new_conn(self) -> socket.socket:
        return _public(super()._new_conn(), self.host)


class _PublicHttps(_Https):
    def _new_conn(self) -> socket.socket:
        return _public(super()._new_conn(), self.host)


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


class _PublicHttpPool(HTTPConnectionPool):
    ConnectionCls = _PublicHttp


class _PublicHttpsPool(HTTPSConnectionPool):
    ConnectionCls = _PublicHttps


class _Adapter(HTTPAdapter):
    def __init__(self, *, private: bool) -> None:
        self._pools = (_HttpPool, _HttpsPool) if private else (_PublicHttpPool, _PublicHttpsPool)
        self._private = private
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = dict(zip(("http", "https"), self._pools, strict=True))

    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        url = request.url or ""
        proxies = requests.utils.get_environ_proxies(url)
        if proxies and not self._private:
            # The proxy connects, so that all we can look at is what the name means here.
            host = urlsplit(url).hostname or ""
            for address in _addresses(host):
                _refuse(address, host)
        return super().send(request, *args, **{**options, "proxies": proxies})

    def close(self) -> None:
        # urllib3 leaves a pool open for as long as anything, such as a kept traceback, refers to it.
        pools = self.poolmanager.pools
        for key in pools.keys():  # noqa: SIM118 - it cannot be iterated itself
            pools[key].close()
        super().close()


def session(*, private: bool) -> requests.Session:
    """Return a session; `private` allows addresses that are not of the public internet.

    The system's proxies and certificates count; `.netrc` does not, and nothing is tried again.

    Requests raise BadOption for a host at a private address.
    """
    made = requests.Session()
    made.trust_env = False
    made.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    for scheme in ("http://", "https://"):
        made.mount(scheme, _Adapter(private=private))
    return made


def _public(sock: socket.socket, host: str) -> socket.socket:
    """The socket, if its other end is on the public internet: the address itself, whatever a name says."""
    try:
        _refuse(sock.getpeername()[0], host)
    # Nobody else has the socket yet, whatever ends this; it is raised again.
    except BaseException:
        sock.close()
        raise
    return sock


def _addresses(host: str) -> list[str]:
    try:
        return [str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)]
    except OSError:
        return []  # only the proxy knows it


def _refuse(address: str, host: str) -> None:
    if is_public(address):
        return
    raise BadOption(
        f"{host} is {address}, which is a private address; set `allow_private_addresses` to true where that "
        "is meant",
        option="allow_private_addresses",
    )


def is_public(address: str) -> bool:
    """Return whether an IP address is one of the public internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner:
            return is_public(str(inner))
    return ip.is_global and not ip.is_multicast
