"""Turns what boto3 raises into our errors, by error code: one 403 is a wrong key, another a wrong clock.

    botocore exception -> `storage_error` -> StorageUnreachable | StorageDenied | StorageMisconfigured | ObjectNotFound

Each message names the environment variable to change. Knows nothing of the store's methods.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
)
from botocore.exceptions import ConnectionError as NoConnectionError
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from serve_app.errors import (
    Conflict,
    InvalidRequest,
    ObjectNotFound,
    ServiceError,
    StorageDenied,
    StorageMisconfigured,
    StorageUnreachable,
)

__all__ = ["BOTO_ERRORS", "Attempt", "storage_error"]

BOTO_ERRORS = (BotoCoreError, ClientError, HTTPError, ResponseParserError, KeyError)
"""What a call of boto3 can raise. KeyError: an answer lacks what S3 always sends, so something else answered."""


@dataclass(frozen=True)
class Attempt:
    """What was asked of S3: `verb` (write, read, list, delete) on `key`, and where. `endpoint_url` None: AWS."""

    verb: str
    key: str
    bucket: str
    endpoint_url: str | None
    region: str

    @property
    def where(self) -> str:
        return f'bucket "{self.bucket}" at {self.endpoint_url or "AWS"}'


PERMISSIONS = {"write": "s3:PutObject", "read": "s3:GetObject", "list": "s3:ListBucket", "delete": "s3:DeleteObject"}
NOT_FOUND = {"404", "NoSuchKey", "NotFound"}
NO_CREDENTIALS = (NoCredentialsError, PartialCredentialsError, CredentialRetrievalError, ProfileNotFound)
NO_ANSWER = (NoConnectionError, HTTPClientError, IncompleteReadError, HTTPError)


def storage_error(error: Exception, attempt: Attempt) -> ServiceError:
    """Our error for one of BOTO_ERRORS, raised at `attempt`; raise it from the original."""
    if isinstance(error, ClientError):
        return _answered(error, attempt)
    if isinstance(error, NO_CREDENTIALS):
        return StorageMisconfigured(
            f"{attempt.where} cannot be asked without credentials ({error}): set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or run on a machine whose role may use the bucket"
        )
    if isinstance(error, SSLError):
        return StorageMisconfigured(
            f"no TLS connection to {attempt.where}: {error}; correct the scheme of AWS_ENDPOINT_URL, or name the "
            "endpoint's certificate authority in AWS_CA_BUNDLE"
        )
    if isinstance(error, NO_ANSWER):
        return StorageUnreachable(
            f"{attempt.where} does not answer: {error}; check AWS_ENDPOINT_URL, the network, and that the store runs"
        )
    if isinstance(error, ParamValidationError):
        return StorageMisconfigured(f"S3_BUCKET is {attempt.bucket!r}, which cannot be a bucket's name: correct it")
    return StorageMisconfigured(
        f"what answers as {attempt.where} does not speak S3 ({type(error).__name__}: {error}): correct AWS_ENDPOINT_URL"
    )


def _answered(error: ClientError, attempt: Attempt) -> ServiceError:
    metadata = error.response["ResponseMetadata"]
    status = int(metadata["HTTPStatusCode"])
    code = str(error.response["Error"].get("Code", status))
    if code in NOT_FOUND:
        return ObjectNotFound(f'no object "{attempt.key}" in {attempt.where}')
    if status == 412:
        return Conflict(f'object "{attempt.key}" in {attempt.where} has changed since it was described: begin anew')
    if status == 416:
        return InvalidRequest(f'object "{attempt.key}" in {attempt.where} has no byte at the offset asked for')
    if known := MISCONFIGURED.get(code):
        answer = f"{attempt.where} answered {status} {code}"
        return StorageMisconfigured(known(answer, attempt, metadata.get("HTTPHeaders", {})))
    message = error.response["Error"].get("Message", "")
    said = f"{status} {message}" if code == str(status) else f"{status} {code}: {message}"
    if status == 403:
        return StorageDenied(
            f'{attempt.where} refused to {attempt.verb} "{attempt.key}" ({said}): give the key in AWS_ACCESS_KEY_ID '
            f"the permission {PERMISSIONS[attempt.verb]}, and check the provider's caps and the key's bucket and prefix"
        )
    if (status >= 500 and status != 501) or status in (408, 429):
        return StorageUnreachable(f'{attempt.where} failed to {attempt.verb} "{attempt.key}" ({said}): try again later')
    return StorageMisconfigured(
        f'{attempt.where} does not understand how it was asked to {attempt.verb} "{attempt.key}" ({said}): check '
        f"AWS_ENDPOINT_URL and AWS_REGION ({attempt.region})"
    )


def _wrong_key_id(answer: str, attempt: Attempt, headers: Mapping[str, str]) -> str:
    if attempt.endpoint_url is None:
        return (
            f'AWS_ENDPOINT_URL is not set and bucket "{attempt.bucket}" answered 403 InvalidAccessKeyId: the request '
            "went to AWS; set AWS_ENDPOINT_URL to your provider's endpoint (or, for a bucket at AWS, correct "
            "AWS_ACCESS_KEY_ID)"
        )
    return f"{answer}: it does not know the key in AWS_ACCESS_KEY_ID; correct it, or AWS_ENDPOINT_URL"


def _wrong_secret(answer: str, attempt: Attempt, headers: Mapping[str, str]) -> str:
    return f"{answer}: AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID; correct it"


def _expired(answer: str, attempt: Attempt, headers: Mapping[str, str]) -> str:
    return f"{answer}: the credentials have expired; renew AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or the role"


def _wrong_bucket(answer: str, attempt: Attempt, headers: Mapping[str, str]) -> str:
    return f"{answer}: S3_BUCKET names a bucket that is not there; correct it, or create the bucket"


def _wrong_region(answer: str, attempt: Attempt, headers: Mapping[str, str]) -> str:
    return (
        f'{answer}: AWS_REGION is "{attempt.region}", which is not the region of this bucket and endpoint; correct it'
    )


def _wrong_clock(answer: str, attempt: Attempt, headers: Mapping[str, str]) -> str:
    return (
        f"{answer}: this machine's clock says {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, the store's "
        f"{headers.get('date', 'another time')}; set this machine's clock"
    )


MISCONFIGURED: Mapping[str, Callable[[str, Attempt, Mapping[str, str]], str]] = {
    "InvalidAccessKeyId": _wrong_key_id,
    "SignatureDoesNotMatch": _wrong_secret,
    "ExpiredToken": _expired,
    "InvalidToken": _expired,
    "NoSuchBucket": _wrong_bucket,
    "InvalidBucketName": _wrong_bucket,
    "RequestTimeTooSkewed": _wrong_clock,
    "AuthorizationHeaderMalformed": _wrong_region,
    "PermanentRedirect": _wrong_region,
    "TemporaryRedirect": _wrong_region,
    "IllegalLocationConstraintException": _wrong_region,
}
"""Error codes that mean a wrong setting, with the message that names it."""
