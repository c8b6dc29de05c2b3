"""Opens the bucket that the settings name."""

from serve_app.errors import ConfigError
from serve_app.settings import StoreSettings
from serve_app.storage.s3 import S3Store
from serve_app.storage.s3_client import S3Config

__all__ = ["s3_store"]


def s3_store(settings: StoreSettings, bucket: str | None = None) -> S3Store:
    """The service's bucket, or another one at its endpoint with its credentials. Raises ConfigError without any."""
    name = bucket or settings.bucket
    if not name:
        raise ConfigError("S3_BUCKET is not set: name the bucket, and give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    secret = settings.secret_access_key
    return S3Store(
        S3Config(
            bucket=name,
            endpoint_url=settings.endpoint_url,
            region=settings.region,
            access_key_id=settings.access_key_id,
            secret_access_key=secret.get_secret_value() if secret else None,
        )
    )
