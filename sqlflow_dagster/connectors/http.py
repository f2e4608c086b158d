"""One vendor's API over HTTP: requests under its rules, answers of bounded size, errors by what helps.

The base of every connector of an API. A redirect or a link to another host is refused, so that
credentials never leave the one they are for.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urljoin, urlsplit

from pydantic import Field

from sqlflow_dagster.connectors.options import SourceOptions
from sqlflow_dagster.errors import BadOption, NotAllowed, RetryLater, SourceFailed, SQLFlowError
from sqlflow_dagster.resilience.guard import Guard

if TYPE_CHECKING:
    import requests

Headers = Mapping[str, str]
_CHUNK = 64 * 1024
_MOST_REDIRECTS = 5
_REDIRECTS = {301, 302, 303, 307, 308}
_DEFAULT_PORTS = {"http": 80, "https": 443}
# What waiting mends: overload, and answers of proxies that did not reach the server (52x: Cloudflare's).
_LATER = {408, 423, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 525, 527, 529, 530}
_REFUSED = {401, 402, 403, 407, 451}
_ASKED_WRONGLY = {400, 404, 405, 406, 410, 411, 413, 414, 415, 422}
_LONGEST_RETRY_AFTER = 7 * 86_400.0
# A small body that unpacks to more than this many times its size, and is large then, is a bomb.
_MOST_TIMES, _SMALL = 200, 16 * 2**20
_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")


class HttpOptions(SourceOptions):
    """The parameters of every API."""

    allow_private_addresses: bool = Field(
        False, description="Whether the host may be this machine or one of a private network."
    )
    max_response_bytes: int = Field(
        256 * 2**20, ge=1, description="Largest answer, in bytes after decompression."
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer: `headers` by lower-case names, and the whole body."""

    url: str
    status: int
    headers: Headers
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """Return the body as JSON.

        Raises RetryLater for a body that is cut off or broken, SourceFailed for one that is no JSON.
        """
        try:
            return json.loads(self.body)
        except ValueError as error:
            kind = self.headers.get("content-type", "")
            if self.body and "json" not in kind:
                raise SourceFailed(
                    f"{_shown(self.url)}: the answer is {kind or 'of no named kind'} and no JSON; look at the address"
                ) from None
            raise RetryLater(f"{_shown(self.url)}: the answer's JSON is broken: {error}") from None


class Client:
    """Asks one host, `base`, under the rules of `guard`."""

    def __init__(
        self,
        base: str,
        guard: Guard,
        options: HttpOptions,
        *,
        headers: Headers | None = None,
        credentials: Callable[[], Headers] | None = None,
        renew: Callable[[], None] | None = None,
    ) -> None:
        """Keep what is asked with; nothing is contacted.

        `credentials` returns the headers that only `base` may see; it is called for each request.
        `renew` is called once when the host says 401, before the request is sent again.

        Raises BadOption for an address that is none, or has a password in it.
        """
        self._base = base if base.endswith("/") else f"{base}/"
        self._origin = _origin(urlsplit(self._base))
        self._guard = guard
        self._options = options
        self._headers = dict(headers or {})
        self._credentials = credentials or dict
        self._renew = renew
        self._session: requests.Session | None = None

    def get(self, address: str, parameters: Mapping[str, Any] | None = None) -> Answer:
        """Return the answer to GET; `address` is a path below `base`, or a link that it gave."""
        return self.request("GET", address, parameters=parameters)

    def request(
        self,
        method: str,
        address: str,
        *,
        parameters: Mapping[str, Any] | None = None,
        document: Any = None,
        headers: Headers | None = None,
    ) -> Answer:
        """Return the answer, the request sent again where waiting mends its failure.

        `document` is sent as JSON. Raises NotAllowed, RetryLater, BadOption or SourceFailed by what
        the host says; SourceFailed for a link or redirect to another host, or a body too large.
        """
        url = self._own(urljoin(self._base, address), "the link")
        options = {"params": parameters, "json": document, "headers": dict(headers or {})}
        return self._guard.call(lambda: self._renewed(method, url, options))

    def close(self) -> None:
        """Close its connections."""
        if self._session:
            self._session.close()

    def _renewed(self, method: str, url: str, options: dict[str, Any]) -> Answer:
        try:
            return self._followed(method, url, options)
        except _Expired:
            if self._renew is None:
                raise
            self._renew()
            return self._followed(method, url, options)

    def _followed(self, method: str, url: str, options: dict[str, Any]) -> Answer:
        for _ in range(_MOST_REDIRECTS + 1):
            answer = self._sent(method, url, options)
            if answer.status not in _REDIRECTS:
                return answer
            if method != "GET":
                raise SourceFailed(f"{_shown(url)}: a {method} is redirected; write the address it leads to")
            url = self._own(urljoin(url, answer.headers.get("location", "")), "a redirect")
            options = {**options, "params": None}
        raise SourceFailed(f"{_shown(url)}: redirected more than {_MOST_REDIRECTS} times")

    def _sent(self, method: str, url: str, options: dict[str, Any]) -> Answer:
        from requests import exceptions as failure  # noqa: PLC0415 - slow, and an extra

        try:
            return self._received(method, url, options)
        except failure.SSLError as error:
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise SourceFailed(
                    f"{_shown(url)}: its certificate is not valid; look at its date and name, or name the "
                    "authority's file in REQUESTS_CA_BUNDLE"
                ) from None
            raise RetryLater(f"{_shown(url)}: the secure connection broke") from None
        except failure.Timeout:
            raise RetryLater(f"{_shown(url)}: no whole answer within {self._timeout:g} s") from None
        except (failure.ConnectionError, failure.ChunkedEncodingError, failure.ContentDecodingError) as error:
            if _is_timeout(error):
                raise RetryLater(f"{_shown(url)}: no whole answer within {self._timeout:g} s") from None
            raise RetryLater(f"{_shown(url)}: {_reason(error)}") from None
        except failure.RequestException as error:
            raise BadOption(f"{_shown(url)}: cannot be asked ({type(error).__name__})") from None

    def _received(self, method: str, url: str, options: dict[str, Any]) -> Answer:
        secret = dict(self._credentials())
        with self._opened().request(
            method,
            url,
            params=options["params"],
            json=options["json"],
            headers={**self._headers, **options["headers"], **secret},
            allow_redirects=False,
            stream=True,
            timeout=(min(self._timeout, 15.0), self._timeout),
        ) as response:
            body = self._body(response)
            headers = {name.lower(): value for name, value in response.headers.items()}
        if response.status_code >= 400:
            said = _without(body[:2000].decode("utf-8", "replace"), secret)
            raise error_for(response.status_code, headers, said, f"{method} {_shown(url)}")
        return Answer(response.url or url, response.status_code, headers, body)

    @property
    def _timeout(self) -> float:
        return self._options.timeout_seconds or 60.0

    def _opened(self) -> requests.Session:
        if self._session is None:
            try:
                from sqlflow_dagster.connectors import wire  # noqa: PLC0415 - slow, and an extra
            except ModuleNotFoundError as error:
                raise BadOption(f"{error.name} is missing: pip install 'sqlflow-dagster[http]'") from error
            self._session = wire.session(private=self._options.allow_private_addresses)
        return self._session

    def _body(self, response: requests.Response) -> bytes:
        most = self._options.max_response_bytes
        parts, size = [], 0
        for chunk in response.iter_content(_CHUNK):
            parts.append(chunk)
            size += len(chunk)
            packed = response.raw.tell()
            if size > most or (size > _SMALL and size > packed * _MOST_TIMES):
                raise SourceFailed(
                    f"{_shown(response.url)}: an answer of more than {size:,} bytes, unpacked from {packed:,}; ask "
                    "for smaller pages, or raise `max_response_bytes` (or look at who answers)"
                )
        return b"".join(parts)

    def _own(self, url: str, what: str) -> str:
        """The URL, if it is of the host that the credentials are for."""
        parts = urlsplit(url)
        same = parts.scheme in _DEFAULT_PORTS and _origin(parts) == self._origin
        secured = self._origin[0] == "http" and _origin(parts) == ("https", self._origin[1], 443)
        if not (same or (secured and self._origin[2] == 80)):
            raise SourceFailed(
                f"{what} {_shown(url)} leads away from {self._base}; it is not followed, since the "
                "credentials are for that host alone"
            )
        return url


class _Expired(NotAllowed):
    """401: the credentials may have to be renewed."""


def error_for(status: int, headers: Headers, said: str, where: str) -> SQLFlowError:
    """Return the error of a status: RetryLater, NotAllowed, BadOption or SourceFailed.

    `headers` have lower-case names, `said` is the body's text, `where` names the request.
    """
    text = f"{where}: {status}{_excerpt(said)}"
    limited = status == 403 and ("retry-after" in headers or headers.get("x-ratelimit-remaining") == "0")
    if status in _LATER or limited:
        return RetryLater(text, after=retry_after(headers))
    if status in _REFUSED:
        kind = _Expired if status == 401 else NotAllowed
        return kind(f"{text}; {_access(status, headers)}")
    if status in _ASKED_WRONGLY:
        return BadOption(f"{text}; look at the address and the parameters")
    return SourceFailed(text)


def retry_after(headers: Headers) -> float | None:
    """Return the seconds that the host asks to be left alone, None where it does not say.

    `Retry-After` in seconds or as a date (RFC 9110, 10.2.3), else GitHub's `X-RateLimit-Reset`; dates
    are compared with the host's own clock where it shows it. Between 0 and seven days.
    """
    value = headers.get("retry-after", "").strip()
    if value:
        return _bounded(_number(value) if _number(value) is not None else _until(_date(value), headers))
    reset = _number(headers.get("x-ratelimit-reset", ""))
    if headers.get("x-ratelimit-remaining") == "0" and reset is not None and reset < 1e11:
        return _bounded(_until(datetime.fromtimestamp(reset, UTC), headers))
    return None


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _date(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _until(moment: datetime | None, headers: Headers) -> float | None:
    now = _date(headers.get("date", "")) or datetime.now(UTC)
    return (moment - now).total_seconds() if moment else None


def _bounded(seconds: float | None) -> float | None:
    return None if seconds is None else min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)


def _access(status: int, headers: Headers) -> str:
    scope = re.search(r'scope="([^"]*)"', headers.get("www-authenticate", ""))
    if scope:
        return f"it asks for the scope {scope.group(1)}"
    if status == 401:
        return "the credentials are missing, wrong or expired"
    return "ask for access, or for credentials that have it"


def _excerpt(said: str) -> str:
    """The first words of an error's body, on one line."""
    text = _CONTROL.sub(" ", said).strip()
    if not text or text.startswith("<"):
        return ""
    return f" {text[:300]}{'…' if len(text) > 300 else ''}"


def _without(text: str, secret: Headers) -> str:
    """The text without the credentials that it may repeat."""
    for value in secret.values():
        for part in (value, value.rpartition(" ")[2]):
            if len(part) > 3:
                text = text.replace(part, "***")
    return text


def _origin(parts: SplitResult) -> tuple[str, str, int | None]:
    """Scheme, host and port. Raises BadOption for what is no address of a host."""
    try:
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        port = None
    if parts.username or parts.password:
        raise BadOption(f"{parts.hostname}: an address holds no user or password; give them as parameters")
    return parts.scheme, (parts.hostname or "").rstrip("."), port


def _shown(url: str) -> str:
    """The URL without what may be secret in it: user, password, query."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}{parts.path}"


def _is_timeout(error: BaseException) -> bool:
    return any("timed out" in str(link) or isinstance(link, TimeoutError) for link in _links(error))


def _reason(error: BaseException) -> str:
    """What went wrong, without the address that requests repeats, which may hold secrets."""
    found = [link.strerror for link in _links(error) if isinstance(link, OSError) and link.strerror]
    kinds = {type(link).__name__ for link in _links(error)}
    if "NameResolutionError" in kinds:
        return "there is no such host, or its name cannot be looked up now"
    if "IncompleteRead" in kinds:
        return "the answer was cut off"
    return (
        f"the connection broke ({found[-1]})" if found else f"the connection broke ({type(error).__name__})"
    )


def _links(error: BaseException) -> list[BaseException]:
    """The error and all it came from: causes, contexts, urllib3's `reason` and arguments."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop(0)
        if link is None or link in found:
            continue
        found.append(link)
        inner = [
            part for part in (*link.args, getattr(link, "reason", None)) if isinstance(part, BaseException)
        ]
        waiting += [link.__cause__, link.__context__, *inner]
    return found
