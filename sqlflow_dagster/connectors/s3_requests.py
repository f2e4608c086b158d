"""The requests that read a bucket (LIST, HEAD, GET), signed as boto3 signs them, without what it does beside that.

boto3 takes three milliseconds of Python for a request, most of them to find out again what is the same for all
objects of a bucket; and a tenth of a second before the first, to find out who asks and where. It is asked for
that only where the parameters do not say all of it, and for requests where a bucket is not where it seems to be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote_plus, urlencode, urlsplit

from sqlflow_dagster.connectors.s3_client import Connected, authority, moment, require_boto, waits
from sqlflow_dagster.connectors.s3_options import Connecting
from sqlflow_dagster.errors import RetryLater

_ASKED_ELSEWHERE = (301, 307, 308, 400)
_UNSIGNED = "UNSIGNED-PAYLOAD"
# Of others boto3 says what is wrong with them.
_PLAIN_REGION = re.compile(r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_PLAIN_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
# With these boto3 looks into files for what the parameters do not say.
_CONFIGURED = frozenset({"AWS_CONFIG_FILE", "AWS_DEFAULT_PROFILE", "AWS_PROFILE"})


class _Key(NamedTuple):
    """Credentials that do not change, in botocore's words."""

    access_key: str
    secret_key: str
    token: str | None


class _Asking(NamedTuple):
    """Who asks: `key` returns the credentials of now, None for nobody; and where, for each bucket."""

    key: Callable[[], Any]
    region: str
    endpoint: str
    verify: bool | str
    base: Callable[[str], str]


class Requests:
    """Asks for what is in a store's buckets; any number of threads may.

    What it asks raises what boto3 raises, and answers with what it answers.
    """

    def __init__(self, options: Connecting, boto: Callable[[], Connected]) -> None:
        """Find out who asks. Nothing is contacted; `boto` is called only where its client is needed."""
        require_boto()
        from botocore.httpsession import URLLib3Session  # noqa: PLC0415 - slow to import
        from botocore.utils import get_environ_proxies  # noqa: PLC0415 - as above

        self._boto = boto
        self._asking = _by_parameters(options) or _by_boto(boto())
        self._session = URLLib3Session(
            verify=self._asking.verify,
            proxies=get_environ_proxies(self._asking.endpoint),
            timeout=waits(options),
            max_pool_connections=options.parallel_workers,
        )
        self._bases: dict[str, str] = {}
        self._elsewhere: set[str] = set()

    @property
    def endpoint(self) -> str:
        """The address of the store."""
        return self._asking.endpoint

    def page(self, bucket: str, prefix: str, delimiter: str = "", token: str = "") -> dict[str, Any]:
        """Return a page of a listing (ListObjectsV2); one that lacks `IsTruncated` was cut off.

        Raises RetryLater for an answer that is none.
        """
        asked = {"prefix": prefix, "delimiter": delimiter, "continuation-token": token}
        query = {"list-type": "2", "encoding-type": "url", **_given(asked)}
        answer = self._answer("ListObjectsV2", bucket, query=query)
        if answer is not None:
            return _page(answer, f"the listing of s3://{bucket}/{prefix}")
        told = {"Prefix": prefix, "Delimiter": delimiter, "ContinuationToken": token}
        found: dict[str, Any] = self._boto().client.list_objects_v2(Bucket=bucket, **_given(told))
        return found

    def head(self, bucket: str, key: str) -> dict[str, Any]:
        """Return what is known of an object (HeadObject): its ContentLength, LastModified and ETag.

        Raises RetryLater for an answer that is none.
        """
        answer = self._answer("HeadObject", bucket, key)
        if answer is not None:
            return _known(answer.headers, f"s3://{bucket}/{key}")
        found: dict[str, Any] = self._boto().client.head_object(Bucket=bucket, Key=key)
        return found

    def body(self, bucket: str, key: str, headers: Mapping[str, str]) -> Any:
        """Return the open body of an object (GetObject); `headers` may be `If-Match` and `Range`."""
        answer = self._answer("GetObject", bucket, key, headers=headers)
        if answer is not None:
            return answer.raw
        told = {name.replace("-", ""): value for name, value in headers.items()}
        return self._boto().client.get_object(Bucket=bucket, Key=key, **told)["Body"]

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _answer(
        self,
        action: str,
        bucket: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """What the store answers; None where boto3 is to be asked, which looks for the bucket."""
        if bucket in self._elsewhere or not _PLAIN_BUCKET.fullmatch(bucket):
            return None
        url = f"{self._base(bucket)}{quote(key, safe='/~')}"
        if query is not None:
            # A bucket in the path has no slash behind it.
            root = url if urlsplit(url).path == "/" else url[:-1]
            url = f"{root}?{urlencode(query, quote_via=quote, safe='~')}"
        answer = self._session.send(self._signed(action, url, headers or {}))
        if answer.status_code in (200, 206):
            return answer
        if answer.status_code not in _ASKED_ELSEWHERE:
            raise _refused(answer, action)
        answer.raw.close()
        self._elsewhere.add(bucket)
        return None

    def _signed(self, action: str, url: str, headers: Mapping[str, str]) -> Any:
        from botocore.auth import S3SigV4Auth  # noqa: PLC0415 - slow to import
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415 - as above

        method = "HEAD" if action == "HeadObject" else "GET"
        request = AWSRequest(method, url, headers=dict(headers), stream_output=action == "GetObject")
        key = self._asking.key()
        if key is not None:
            request.context["payload_signing_enabled"] = False
            request.headers["X-Amz-Content-SHA256"] = _UNSIGNED
            S3SigV4Auth(key, "s3", self._asking.region).add_auth(request)
        return request.prepare()

    def _base(self, bucket: str) -> str:
        """What the addresses of a bucket's objects begin with: in the path or in the host, as boto3 has it."""
        if bucket not in self._bases:
            self._bases[bucket] = self._asking.base(bucket)
        return self._bases[bucket]


def _by_parameters(options: Connecting) -> _Asking | None:
    """Who asks and where, told by the parameters alone; None where boto3 may know more of it."""
    endpoint = (options.endpoint_url or "").removesuffix("/")
    region = options.region or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    plain = _is_plain(endpoint) and _PLAIN_REGION.fullmatch(region)
    asked_of_boto = options.role_arn or options.profile or options.addressing == "virtual"
    if not plain or asked_of_boto or _is_configured():
        return None
    key = None
    if options.access_key_id and options.secret_access_key:
        token = options.session_token.get_secret_value() if options.session_token else None
        key = _Key(options.access_key_id, options.secret_access_key.get_secret_value(), token)
    elif not options.anonymous:
        return None
    verify = authority(options, os.environ.get("AWS_CA_BUNDLE"))
    return _Asking(lambda: key, region, endpoint, verify, lambda bucket: f"{endpoint}/{bucket}/")


def _by_boto(found: Connected) -> _Asking:
    client, credentials, verify = found

    def key() -> Any:
        return None if credentials is None else credentials.get_frozen_credentials()

    def base(bucket: str) -> str:
        url: str = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
        return url.partition("?")[0].removesuffix("k")

    return _Asking(key, client.meta.region_name, client.meta.endpoint_url, verify, base)


def _is_plain(endpoint: str) -> bool:
    """Whether an address is a host and perhaps a port, and nothing that boto3 may refuse or add to."""
    from botocore.utils import is_valid_endpoint_url, is_valid_ipv6_endpoint_url  # noqa: PLC0415 - slow to import

    try:
        url = urlsplit(endpoint)
        whole = endpoint == f"{url.scheme}://{url.netloc}" and "@" not in url.netloc and url.port != 0
    except ValueError:
        return False
    return whole and bool(is_valid_endpoint_url(endpoint) or is_valid_ipv6_endpoint_url(endpoint))


def _is_configured() -> bool:
    """Whether boto3 has files of its own to look into on this machine."""
    return bool(_CONFIGURED & os.environ.keys()) or Path("~/.aws/config").expanduser().exists()


def _given(words: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in words.items() if value}


def _known(headers: Mapping[str, str], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {"ETag": headers.get("ETag", "")}
    try:
        if "Content-Length" in headers:
            found["ContentLength"] = int(headers["Content-Length"])
        if "Last-Modified" in headers:
            found["LastModified"] = _stored(headers["Last-Modified"])
    except ValueError as error:
        raise RetryLater(f"{where}: this is no answer of S3: {error}") from None
    return found


def _stored(text: str) -> datetime:
    """The time in a header; some stores write it there as in listings. Raises ValueError for what is none."""
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return moment(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _page(answer: Any, where: str) -> dict[str, Any]:
    import xml.etree.ElementTree as ET  # noqa: PLC0415 - a read from files needs none

    try:
        root = ET.fromstring(answer.content)  # noqa: S314 - the store's own text, as boto3 reads it
    except ET.ParseError as error:
        raise RetryLater(f"{where}: the answer is cut off or no answer of S3: {error}") from None
    if _name(root) == "Error":
        raise _refused(answer, "ListObjectsV2")
    found: dict[str, Any] = {"Contents": [], "CommonPrefixes": []}
    encoded = any(_name(item) == "EncodingType" and item.text == "url" for item in root)
    text = unquote_plus if encoded else str
    for item in root:
        name = _name(item)
        if name == "Contents":
            found[name].append(_listed({_name(part): part.text or "" for part in item}, text, where))
        elif name == "CommonPrefixes":
            found[name] += [{"Prefix": text(part.text or "")} for part in item if _name(part) == "Prefix"]
        elif name == "IsTruncated":
            found[name] = (item.text or "").strip().lower() in ("true", "1")
        elif name == "NextContinuationToken":
            found[name] = item.text or ""
    return found


def _listed(parts: Mapping[str, str], text: Callable[[str], str], where: str) -> dict[str, Any]:
    try:
        return {
            "Key": text(parts["Key"]),
            "Size": int(parts["Size"]),
            "LastModified": moment(parts["LastModified"]),
            "ETag": parts.get("ETag", ""),
        }
    except (KeyError, ValueError) as error:
        raise RetryLater(f"{where}: this is no answer of S3, an object in it has {error}") from None


def _name(element: Any) -> str:
    """The name of an XML element; stores differ in the namespace."""
    return str(element.tag).rpartition("}")[2]


def _refused(answer: Any, action: str) -> Exception:
    """An answer that is none of what was asked for, as boto3 raises it."""
    import xml.etree.ElementTree as ET  # noqa: PLC0415 - only refusals need it

    from botocore.exceptions import ClientError  # noqa: PLC0415 - as above

    try:
        # Of some stores it is an element inside another.
        found = {_name(item): item.text or "" for item in ET.fromstring(answer.content).iter()}  # noqa: S314 - as above
    except ET.ParseError:
        found = {}
    headers = {name.lower(): value for name, value in answer.headers.items()}
    told = {"HTTPStatusCode": answer.status_code, "HTTPHeaders": headers}
    refused: Exception = ClientError({"Error": found, "ResponseMetadata": told}, action)
    return refused
