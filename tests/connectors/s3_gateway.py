"""A gateway before a real store, which passes requests on, counts them, and fails as a test says."""

from __future__ import annotations

import http.client
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, urlsplit


class Gateway:
    """Passes requests to a store on 127.0.0.1.

    Before each, `fault(kind, number, passed)` may say (status, code) to answer instead, "reset" to break the
    connection, "stall" to say nothing, "lost" to pass it on and break the connection before the answer.
    `kind` is `part`, `complete`, `create`, `abort`, or the method; `number` is the part's; `passed` counts
    such requests so far. `requests` holds (kind, number) of all.
    """

    def __init__(self, port: int) -> None:
        self.fault = lambda _kind, _number, _passed: None
        self.requests: list[tuple[str, int]] = []
        self._seen: Counter = Counter()
        self._lock = threading.Lock()
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                gateway.answer(self, port)

            do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815 - as http.server names them

            def log_message(self, *_):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def count(self, kind: str) -> Counter:
        """How often each part, or each request of another kind, was sent."""
        return Counter(number for made, number in self.requests if made == kind)

    def answer(self, handler, port) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        kind, number = _kind(handler)
        with self._lock:
            passed = self._seen[kind, number]
            self._seen[kind, number] += 1
            self.requests.append((kind, number))
            said = self.fault(kind, number, passed)
        if said == "stall":
            time.sleep(3)
        if said in ("reset", "stall"):
            _reset(handler)
            return
        if isinstance(said, tuple):
            status, code = said
            _send(
                handler, status, {}, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            )
            return
        far = http.client.HTTPConnection("127.0.0.1", port)
        headers = {name: value for name, value in handler.headers.items() if name.lower() != "expect"}
        far.request(handler.command, handler.path, body=body or None, headers=headers)
        answer = far.getresponse()
        content = answer.read()
        if said == "lost":
            _reset(handler)
        else:
            _send(handler, answer.status, dict(answer.getheaders()), content)
        far.close()


def _kind(handler) -> tuple[str, int]:
    query = parse_qs(urlsplit(handler.path).query, keep_blank_values=True)
    number = int(query.get("partNumber", ["0"])[0])
    if number:
        return "part", number
    if "uploadId" in query:
        return ("complete" if handler.command == "POST" else "abort"), 0
    return ("create" if "uploads" in query and handler.command == "POST" else handler.command), 0


def _send(handler, status, headers, body) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        if name.lower() not in ("transfer-encoding", "content-length", "connection", "date", "server"):
            handler.send_header(name, value)
    length = headers.get("Content-Length") if handler.command == "HEAD" else None
    handler.send_header("Content-Length", length or str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)


def _reset(handler) -> None:
    """Close with RST: linger on, for no time."""
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    handler.connection.close()
