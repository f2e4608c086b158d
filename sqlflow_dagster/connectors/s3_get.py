"""GETs of whole objects, signed as boto3 signs them, without what it does beside that.

boto3 takes three milliseconds of Python for a request, most of them to find out again what is the same for all
objects of a bucket. Where a bucket is not where its client looks for it, boto3 asks after all.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from sqlflow_dagster.connectors.s3_options import Connecting

_ASKED_ELSEWHERE = (301, 307, 308, 400)
_UNSIGNED = "UNSIGNED-PAYLOAD"


class Getter:
    """Fetches objects of a client's buckets; any number of threads may."""

    def __init__(self, client: Any, credentials: Any, options: Connecting) -> None:
        """Keep who asks: `credentials` are None for nobody."""
        from botocore.httpsession import URLLib3Session  # noqa: PLC0415 - slow to import
        from botocore.utils import get_environ_proxies  # noqa: PLC0415 - as above

        self._client = client
        self._credentials = credentials
        config = client.meta.config
        self._session = URLLib3Session(
            verify=options.verify_tls,
            proxies=get_environ_proxies(client.meta.endpoint_url),
            timeout=(config.connect_timeout, config.read_timeout),
            max_pool_connections=config.max_pool_connections,
        )
        self._bases: dict[str, str] = {}
        self._elsewhere: set[str] = set()

    def body(self, bucket: str, key: str, headers: dict[str, str]) -> Any:
        """Return the open body of an object; `headers` are `If-Match` and `Range`, where they are asked for.

        Raises what boto3 raises.
        """
        if bucket not in self._elsewhere:
            answer = self._session.send(self._signed(bucket, key, headers))
            if answer.status_code in (200, 206):
                return answer.raw
            if answer.status_code not in _ASKED_ELSEWHERE:
                raise _refused(answer)
            answer.raw.close()
            self._elsewhere.add(bucket)
        told = {name.replace("-", ""): value for name, value in headers.items()}
        return self._client.get_object(Bucket=bucket, Key=key, **told)["Body"]

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _signed(self, bucket: str, key: str, headers: dict[str, str]) -> Any:
        from botocore.auth import S3SigV4Auth  # noqa: PLC0415 - as above
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415 - as above

        url = f"{self._base(bucket)}{quote(key, safe='/~')}"
        request = AWSRequest("GET", url, headers=headers, stream_output=True)
        if self._credentials is not None:
            request.context["payload_signing_enabled"] = False
            request.headers["X-Amz-Content-SHA256"] = _UNSIGNED
            frozen = self._credentials.get_frozen_credentials()
            S3SigV4Auth(frozen, "s3", self._client.meta.region_name).add_auth(request)
        return request.prepare()

    def _base(self, bucket: str) -> str:
        """What the addresses of a bucket's objects begin with: in the path or in the host, as boto3 has it."""
        if bucket not in self._bases:
            url = self._client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
            self._bases[bucket] = url.partition("?")[0].removesuffix("k")
        return self._bases[bucket]


def _refused(answer: Any) -> Exception:
    """An answer that is no object, as boto3 raises it."""
    import xml.etree.ElementTree as ET  # noqa: PLC0415 - only refusals need it

    from botocore.exceptions import ClientError  # noqa: PLC0415 - as above

    try:
        found = {item.tag: item.text or "" for item in ET.fromstring(answer.content)}  # noqa: S314 - the store's own text, as boto3 reads it
    except ET.ParseError:
        found = {}
    told = {"HTTPStatusCode": answer.status_code, "HTTPHeaders": dict(answer.headers.items())}
    refused: Exception = ClientError({"Error": found, "ResponseMetadata": told}, "GetObject")
    return refused
