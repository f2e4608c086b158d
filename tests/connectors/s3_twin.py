"""A server that speaks enough of S3 to list and give objects, and to fail as a test says."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

_STORED = "2026-01-01T00:00:00.000Z"
_STORED_HEADER = "Thu, 01 Jan 2026 00:00:00 GMT"


class Twin:
    """Holds `objects` by key; before each answer `fault(method, key, headers)` may give another one.

    A fault's answer is (status, error code, headers), or bytes to send in place of the object's, under
    its length.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.fault = lambda _method, _key, _headers: None
        self.requests: list[tuple[str, str]] = []
        self.page = 1000
        self._sorted = (0, [])
        twin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                twin.answer(self)

            do_HEAD = do_GET  # noqa: N815 - as http.server names it

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
    def port(self) -> int:
        return self._server.server_address[1]

    @property
    def params(self) -> dict:
        return {
            "bucket": "twin", "endpoint_url": f"http://127.0.0.1:{self.port}",
            "access_key_id": "k", "secret_access_key": "CANARY-twin", "region": "us-east-1",
        }  # fmt: skip

    def count(self, method: str) -> int:
        return sum(made == method for made, _ in self.requests)

    def answer(self, handler) -> None:
        parts = urlsplit(handler.path)
        _, _, key = unquote(parts.path).lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        method = "LIST" if "list-type" in query else handler.command
        self.requests.append((method, key or query.get("prefix", "")))
        broken = self.fault(method, key, handler.headers)
        if isinstance(broken, tuple):
            status, code, headers = broken
            region = headers.get("x-amz-bucket-region")
            told = f"<Region>{region}</Region>" if region else ""
            _send(
                handler,
                status,
                f"<Error><Code>{code}</Code><Message>{code}</Message>{told}</Error>".encode(),
                headers,
            )
        elif method == "LIST":
            _send(handler, 200, self._listing(query), {"Content-Type": "application/xml"})
        elif key not in self.objects:
            _send(handler, 404, b"<Error><Code>NoSuchKey</Code></Error>", {})
        elif handler.headers.get("If-Match") not in (None, tag(self.objects[key])):
            _send(handler, 412, b"<Error><Code>PreconditionFailed</Code></Error>", {})
        else:
            body = self.objects[key]
            headers = {"ETag": tag(body), "Last-Modified": _STORED_HEADER}
            _send(handler, 200, body if broken is None else broken, headers, length=len(body))

    def _listing(self, query) -> bytes:
        prefix = query.get("prefix", "")
        if self._sorted[0] != len(self.objects):
            self._sorted = (len(self.objects), sorted(self.objects))
        keys = [key for key in self._sorted[1] if key.startswith(prefix)] if prefix else self._sorted[1]
        start = bisect_right(keys, query["continuation-token"]) if "continuation-token" in query else 0
        page = keys[start : start + self.page]
        more = start + self.page < len(keys)
        found = "".join(
            f"<Contents><Key>{quote(key)}</Key><LastModified>{_STORED}</LastModified>"
            f"<ETag>{escape(tag(self.objects[key]))}</ETag><Size>{len(self.objects[key])}</Size></Contents>"
            for key in page
        )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        return (
            f"<ListBucketResult><Name>twin</Name><Prefix>{quote(prefix)}</Prefix><EncodingType>url</EncodingType>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{found}</ListBucketResult>"
        ).encode()


@cache
def tag(body: bytes) -> str:
    return f'"{hashlib.md5(body).hexdigest()}"'


def _send(handler, status, body, headers, length=None) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name, value)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
        if length is not None and len(body) < length:
            handler.close_connection = True
