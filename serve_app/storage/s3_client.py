"""Which bucket, and the boto3 client for it: only S3Config decides, never the ambient AWS_* variables."""

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import boto3
import botocore.session
from botocore.config import Config

from serve_app.errors import ConfigError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["DEFAULT_REGION", "S3Config", "make_client"]

DEFAULT_REGION = "us-east-1"


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
    return boto3.session.Session(botocore_session=_session(config)).client(
        "s3",
        endpoint_url=config.endpoint_url,
        region_name=config.region or DEFAULT_REGION,
        aws_access_key_id=config.access_key_id,
        aws_secret_access_key=config.secret_access_key,
        config=Config(
            signature_version="s3v4",
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
    return session
