"""Which bucket, and the boto3 client for it: only S3Config decides, never the ambient AWS_* variables."""

import io
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

import boto3
import botocore.session
from botocore.config import Config
from botocore.utils import parse_timestamp

from serve_app import __version__
from serve_app.errors import ConfigError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["DEFAULT_REGION", "S3Config", "make_client"]

DEFAULT_REGION = "us-east-1"
SENT_AT_ONCE_BYTES = 64 * 1024
"""A body up to this size is sent with its headers; before a larger one boto3 asks the store whether it may come."""


@dataclass(frozen=True)
class S3Config:
    """Which bucket, and as whom. An empty string counts as unset.

    `endpoint_url` None: AWS itself. `access_key_id` None: boto3's own chain, such as the machine's role.
    """

    bucket: str
    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        for name in ("endpoint_url", "region", "access_key_id", "secret_access_key"):
            object.__setattr__(self, name, getattr(self, name) or None)
        if not self.bucket:
            raise ConfigError("S3_BUCKET is empty: name the bucket")


def make_client(config: S3Config) -> "S3Client":
    """A client of its own. Raises ValueError for an endpoint or region that is none."""
    client = boto3.session.Session(botocore_session=_session(config)).client(
        "s3",
        endpoint_url=config.endpoint_url,
        region_name=config.region or DEFAULT_REGION,
        aws_access_key_id=config.access_key_id,
        aws_secret_access_key=config.secret_access_key,
        config=Config(
            signature_version="s3v4",
            user_agent=f"serve_app/{__version__}",  # boto3 composes its own anew for each request
            # "auto" would presign for AWS's global host instead of the region's own.
            s3={
                "addressing_style": "path" if config.endpoint_url else "virtual",
                "us_east_1_regional_endpoint": "regional",
            },
            # "when_supported" adds CRC32 headers that Backblaze B2 and others refuse (boto/boto3#4392); the sha256
            # in our metadata takes their place.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            max_pool_connections=50,
            connect_timeout=5,
            read_timeout=30,
            retries={"mode": "standard", "total_max_attempts": 3},
        ),
    )
    client.meta.events.register_last("before-call.s3", _send_at_once)
    return client


def _send_at_once(params: Mapping[str, Any], **_: Any) -> None:
    """No `Expect: 100-continue` with a small body: it costs a round trip, of which boto3 reads each byte by itself."""
    body = params.get("body")
    if isinstance(body, io.BytesIO) and body.getbuffer().nbytes <= SENT_AT_ONCE_BYTES:
        params["headers"].pop("Expect", None)


def _session(config: S3Config) -> botocore.session.Session:
    """A session that reads no AWS_* variable and no config file; AWS_CA_BUNDLE counts, as it does for all of boto3.

    Where `config` has no keys, an ordinary session finds the credentials: a role, a profile, a container's token.
    """
    isolated = {
        name: (None, None, default, conversion)
        for name, (_, _, default, conversion) in botocore.session.Session.SESSION_VARIABLES.items()
        if name != "ca_bundle"
    }
    isolated["config_file"] = isolated["credentials_file"] = (None, None, os.devnull, None)
    isolated["ignore_configured_endpoint_urls"] = (None, None, True, None)
    session = botocore.session.Session(session_vars=isolated)
    if config.access_key_id is None:
        ordinary = botocore.session.Session()
        session.register_component("credential_provider", ordinary.get_component("credential_provider"))
    session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_moment)
    return session


def _moment(value: Any) -> datetime:
    """As boto3 reads a date, but what stores send is read first as what it is: ISO 8601 in listings, HTTP's form in
    headers. boto3, which tries all forms there are, took half of a listing's time for it."""
    for parse in (datetime.fromisoformat, parsedate_to_datetime) if isinstance(value, str) else ():
        with suppress(ValueError, TypeError):
            if (found := parse(value)).tzinfo is not None:
                return found
    return parse_timestamp(value)
