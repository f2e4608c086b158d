"""boto3's core (botocore) under our rules: one try a request, its failures as the errors that say what to do next."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import urlsplit

from sqlflow_dagster.connectors.http import retry_after
from sqlflow_dagster.connectors.s3_options import Connecting
from sqlflow_dagster.errors import (
    BadOption,
    NotAllowed,
    RetryLater,
    SourceError,
    SourceFailed,
    SQLFlowError,
)

if TYPE_CHECKING:
    from botocore.exceptions import ClientError

_SECONDS_TO_CONNECT = 10
_SECONDS_TO_ANSWER = 60
# Those from 520 on are of networks before a store.
_LATER = frozenset({408, 429, 500, 502, 503, 504, 509, 520, 521, 522, 523, 524, 525, 527, 529, 530})
_ELSEWHERE = frozenset({301, 302, 303, 307, 308})
_LATER_CODES = frozenset(
    {"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling", "ThrottlingException",
     "RequestLimitExceeded", "OperationAborted", "BandwidthLimitExceeded"}
)  # fmt: skip
_BAD_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "TokenRefreshRequired",
     "InvalidClientTokenId", "ExpiredTokenException"}
)  # fmt: skip
# What is wrong with a certificate, or with the file of its authority.
_OF_CERTIFICATES = re.compile(r"CERTIFICATE_VERIFY_FAILED|doesn't match|\[X509|\[PEM|\[Errno (?:2|13|21)\]")
# What each request needs, in the words of AWS.
_PERMISSIONS = {
    "ListObjectsV2": "s3:ListBucket on arn:aws:s3:::{bucket}",
    "HeadBucket": "s3:ListBucket on arn:aws:s3:::{bucket}",
    "GetObject": "s3:GetObject on arn:aws:s3:::{bucket}/{key}",
    "HeadObject": "s3:GetObject on arn:aws:s3:::{bucket}/{key}",
    "PutObject": "s3:PutObject on arn:aws:s3:::{bucket}/{key}",
    "CreateMultipartUpload": "s3:PutObject on arn:aws:s3:::{bucket}/{key}",
    "UploadPart": "s3:PutObject on arn:aws:s3:::{bucket}/{key}",
    "CompleteMultipartUpload": "s3:PutObject on arn:aws:s3:::{bucket}/{key}",
    "AbortMultipartUpload": "s3:AbortMultipartUpload on arn:aws:s3:::{bucket}/{key}",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads on arn:aws:s3:::{bucket}",
    "DeleteObjects": "s3:DeleteObject on arn:aws:s3:::{bucket}/*",
    "AssumeRole": "sts:AssumeRole on the role",
}


class ObjectChanged(SourceError):
    """An object is no longer the one that was listed."""


class UploadGone(SourceError):
    """The store knows no such upload in parts: it is complete, or was aborted."""


class Connected(NamedTuple):
    """boto3's client, its credentials (None for none), and how it looks at certificates."""

    client: Any
    credentials: Any
    verify: bool | str


def waits(options: Connecting) -> tuple[float, float]:
    """Return the longest waits for a connection and for an answer, in seconds."""
    seconds = options.timeout_seconds or _SECONDS_TO_ANSWER
    return min(seconds, _SECONDS_TO_CONNECT), seconds


def require_boto() -> None:
    """Raise BadOption where boto3 is not installed."""
    try:
        import botocore  # noqa: F401, PLC0415 - only who connects needs it
    except ImportError as error:
        raise BadOption("S3 needs boto3: pip install 'sqlflow-dagster[s3]'", option="type") from error


def moment(value: Any) -> datetime:
    """Return a time that S3 wrote. Raises ValueError for what is none."""
    from botocore.utils import parse_timestamp  # noqa: PLC0415 - as boto3

    if isinstance(value, str) and value[:1].isdigit() and "T" in value:
        found = datetime.fromisoformat(value)
        return found if found.tzinfo else found.replace(tzinfo=UTC)
    return cast("datetime", parse_timestamp(value))


def client(options: Connecting) -> Any:
    """Return boto3's client of S3. Nothing is contacted.

    Raises what `connected` raises.
    """
    return connected(options).client


def connected(options: Connecting) -> Connected:
    """Return boto3's client of S3 and what it goes by. Nothing is contacted.

    Raises BadOption for parameters that make no client, and NotAllowed where boto3 has no such profile.
    """
    require_boto()
    from botocore import exceptions as errors  # noqa: PLC0415 - slow to import
    from botocore.config import Config as config  # noqa: N813, PLC0415 - as above

    to_connect, to_answer = waits(options)
    settings: dict[str, Any] = {
        "retries": {"total_max_attempts": 1},
        "connect_timeout": to_connect,
        "read_timeout": to_answer,
        "max_pool_connections": options.parallel_workers,
        "s3": {"addressing_style": _addressing(options)},
        # What stores other than AWS may not know; lengths and ETags are checked in any case.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
    }
    if options.anonymous:
        from botocore import UNSIGNED  # noqa: PLC0415 - as boto3

        settings["signature_version"] = UNSIGNED
    try:
        session = _session(options)
        if options.role_arn:
            _assume(session, options, config)
        made = session.create_client(
            "s3",
            endpoint_url=options.endpoint_url,
            region_name=_region(session, options),
            verify=None if options.verify_tls is True else options.verify_tls,
            config=config(**settings),
        )
        made.meta.events.register_first("needs-retry.s3.HeadBucket", _not_sent_round)
        verify = authority(options, session.get_config_variable("ca_bundle"))
        return Connected(made, None if options.anonymous else session.get_credentials(), verify)
    except errors.ProfileNotFound as error:
        raise NotAllowed(f"profile: {error}; mend `profile`, or add it to ~/.aws/config") from None
    except (errors.NoCredentialsError, errors.PartialCredentialsError) as error:
        raise NotAllowed(f"role_arn: there are no credentials to assume the role with ({error})") from None
    except errors.InvalidRegionError as error:
        raise BadOption(f"region: {error}", option="region") from None
    except ValueError as error:
        raise BadOption(f"endpoint_url: {error}", option="endpoint_url") from None


def authority(options: Connecting, configured: str | None) -> bool | str:
    """Return how certificates are looked at: what the parameters say, else the file that boto3 would look into."""
    if options.verify_tls is not True:
        return options.verify_tls
    return configured or os.environ.get("REQUESTS_CA_BUNDLE") or True


def _not_sent_round(request_dict: dict[str, Any], response: Any, **_: Any) -> None:
    """Let boto3 not ask where a bucket is because of a redirection, where the answer to that is one too, and so on."""
    if response is not None and "x-amz-bucket-region" not in response[0].headers:
        request_dict["context"].setdefault("s3_redirect", {})["redirected"] = True


def whole(answer: dict[str, Any], name: str, where: str) -> Any:
    """Return what an answer of S3 always has. Raises RetryLater where the answer was cut off before it.

    Python's HTTP takes headers that end with the connection for whole ones, and boto3 an empty body for
    an empty answer.
    """
    if name not in answer:
        raise RetryLater(f"{where}: the answer was cut off, it has no {name}")
    return answer[name]


@contextmanager
def translated(options: Connecting, bucket: str, key: str = "") -> Iterator[None]:
    """What boto3 raises in the block about this bucket and key, as an error of ours.

    Raises RetryLater, NotAllowed, ObjectChanged, UploadGone, BadOption and SourceFailed.
    """
    try:
        yield
    except SQLFlowError:
        raise
    # What is none of boto3's goes on; its errors are slow to import, and needed only here.
    except Exception as error:
        found = _translation(error, options, bucket, key)
        if found is None:
            raise
        raise found from None


def _translation(error: Exception, options: Connecting, bucket: str, key: str) -> SQLFlowError | None:  # noqa: PLR0911 - one for each kind
    """An error of boto3's as one of ours; None for others."""
    from botocore import exceptions as errors  # noqa: PLC0415 - as `translated` says
    from botocore.parsers import ResponseParserError  # noqa: PLC0415 - as above
    from urllib3.exceptions import HTTPError  # noqa: PLC0415 - as above

    where = f"s3://{bucket}/{key}"
    store = options.endpoint_url or "AWS"
    match error:
        case errors.ClientError():
            return _answered(error, where, store, bucket, key)
        case errors.NoCredentialsError() | errors.PartialCredentialsError():
            return NotAllowed(
                f"{where}: {error}; give `access_key_id` and `secret_access_key`, or a `profile`, or set `anonymous` "
                "for a public bucket"
            )
        case (
            errors.TokenRetrievalError()
            | errors.UnauthorizedSSOTokenError()
            | errors.CredentialRetrievalError()
        ):
            return NotAllowed(f"{where}: the credentials cannot be had: {error}; sign in again")
        case errors.ParamValidationError():
            return BadOption(f"bucket: {error}", option="bucket")
        case errors.SSLError():
            return _insecure(_short(error), f"{where} at {store}")
        case errors.HTTPClientError() | errors.ConnectionError() | errors.IncompleteReadError() | HTTPError():
            return RetryLater(f"{where} at {store}: {_short(error)}")
        case ResponseParserError():
            return RetryLater(
                f"{where} at {store}: the answer is cut off or no answer of S3: {_short(error)}"
            )
        case errors.EndpointProviderError():
            return BadOption(f"endpoint_url: {_short(error)}", option="endpoint_url")
        case errors.BotoCoreError():
            return SourceFailed(f"{where} at {store}: {_short(error)}")
        case _:
            return None


def _insecure(told: str, where: str) -> SQLFlowError:
    if not _OF_CERTIFICATES.search(told):
        return RetryLater(f"{where}: the secure connection broke: {told}")
    return SourceFailed(
        f"{where}: {told}; look at the dates and the name of its certificate, or name the file of its authority in "
        "`verify_tls` or AWS_CA_BUNDLE"
    )


def _answered(error: ClientError, where: str, store: str, bucket: str, key: str) -> SQLFlowError:  # noqa: PLR0911 - one for each kind
    action = str(error.operation_name)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    code = str(error.response.get("Error", {}).get("Code", ""))
    text = f"{where} at {store}: {action} answered {status} {code}".rstrip()
    if code in _BAD_CREDENTIALS:
        return NotAllowed(
            f"{text}; the credentials are wrong or have expired: mend `access_key_id` and the others"
        )
    if code == "InvalidObjectState":
        return SourceFailed(f"{text}; the object is archived: have it restored, or leave it out")
    if code == "RequestTimeTooSkewed":
        return SourceFailed(f"{text}; this machine's clock is wrong: set it")
    if code == "NoSuchUpload":
        return UploadGone(f"{text}; another export to this target may have taken its place")
    if code == "NoSuchBucket" or (status == 404 and action in ("HeadBucket", "ListObjectsV2")):
        return SourceFailed(
            f"{text}; there is no bucket {bucket!r}: mend `bucket`, `region` or `endpoint_url`"
        )
    if status in (404, 412) and action in ("GetObject", "HeadObject"):
        return ObjectChanged(f"{where} was replaced or removed while it was read")
    if status in _ELSEWHERE or code in (
        "AuthorizationHeaderMalformed",
        "PermanentRedirect",
        "IllegalLocationConstraintException",
    ):
        return _sent_elsewhere(text, headers, error.response.get("Error", {}))
    if status in (401, 403) or code == "AccessDenied":
        wanted = _PERMISSIONS.get(action, "access").format(bucket=bucket, key=key or "*")
        # An answer to HEAD has no room for why.
        why = "look whether the credentials are right, or " if action in ("HeadObject", "HeadBucket") else ""
        return NotAllowed(f"{text}; {why}ask for {wanted}")
    if status in _LATER or code in _LATER_CODES:
        return RetryLater(text, after=retry_after({name.lower(): value for name, value in headers.items()}))
    return SourceFailed(f"{text}: {error.response.get('Error', {}).get('Message', '')}"[:500].rstrip(": "))


def _sent_elsewhere(text: str, headers: Mapping[str, str], said: Mapping[str, str]) -> BadOption:
    region = headers.get("x-amz-bucket-region") or said.get("Region")
    if not region and "location" in headers:
        # Not by S3, but by what stands before it.
        to = urlsplit(headers["location"])
        place = f"{to.scheme}://{to.netloc.rpartition('@')[2]}" if to.netloc else to.path
        return BadOption(f"{text}; it sends us to {place}: mend `endpoint_url`", option="endpoint_url")
    return BadOption(f"{text}; the bucket is in {region or 'another region'}: mend `region`", option="region")


def _session(options: Connecting) -> Any:
    from botocore.session import Session  # noqa: PLC0415 - slow, and only who connects needs it

    session = Session(profile=options.profile)
    session.register_component("data_loader", _models())
    # botocore's own reading of times takes most of the time of a long listing.
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=moment)
    if options.access_key_id and options.secret_access_key:
        token = options.session_token.get_secret_value() if options.session_token else None
        session.set_credentials(options.access_key_id, options.secret_access_key.get_secret_value(), token)
    return session


def _region(session: Any, options: Connecting) -> str:
    return options.region or session.get_config_variable("region") or "us-east-1"


def _assume(session: Any, options: Connecting, config: Any) -> None:
    """Let the session's requests be signed with the role's credentials, fetched anew before they expire."""
    from botocore.credentials import (  # noqa: PLC0415 - as boto3
        AssumeRoleCredentialFetcher,
        DeferredRefreshableCredentials,
    )

    source = session.get_credentials()
    if source is None:
        raise NotAllowed(
            "role_arn: there are no credentials to assume the role with; give `access_key_id` or `profile`"
        )

    def sts(service: str, **given: Any) -> Any:
        return session.create_client(
            service,
            endpoint_url=options.sts_endpoint_url,
            region_name=_region(session, options),
            config=config(retries={"total_max_attempts": 1}, connect_timeout=_SECONDS_TO_CONNECT),
            **given,
        )

    extra = {"RoleSessionName": options.role_session_name}
    if options.external_id:
        extra["ExternalId"] = options.external_id.get_secret_value()
    fetcher = AssumeRoleCredentialFetcher(sts, source, options.role_arn, extra_args=extra)
    # There is no public way to give a session credentials that are fetched anew.
    session._credentials = DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")  # noqa: SLF001


def _addressing(options: Connecting) -> str:
    if options.addressing != "auto":
        return options.addressing
    # Other stores seldom have a name for each bucket.
    return "path" if options.endpoint_url else "auto"


def _short(error: BaseException) -> str:
    return re.sub(r"//[^/@\s]*@", "//***@", " ".join(str(error).split()))[:300]


@cache
def _models() -> Any:
    """What boto3 knows of its services, read once a process."""
    from sqlflow_dagster.connectors.s3_models import Models  # noqa: PLC0415 - as boto3

    return Models()
