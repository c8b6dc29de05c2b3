"""What is read from the process environment."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from env_setup.layout import weights_dir
from serve_app.errors import ConfigError
from serve_app.settings.scale import Strict

__all__ = ["NodeSettings", "StoreSettings", "WebhookSecret"]


class StoreSettings(Strict):
    """Where voices, jobs and audio are kept. The names are the variables of the worker that this replaces."""

    bucket: str | None = None
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    region: str | None = None
    endpoint_url: str | None = None
    data_dir: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "StoreSettings":
        """Read S3_BUCKET, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL and DATA_DIR.

        An empty variable counts as unset. Raises ConfigError for half a key pair, or for S3 settings without a bucket.
        """
        value = {name: environ.get(name, "").strip() or None for name in ENVIRONMENT}
        if (value["AWS_ACCESS_KEY_ID"] is None) != (value["AWS_SECRET_ACCESS_KEY"] is None):
            missing = "AWS_ACCESS_KEY_ID" if value["AWS_ACCESS_KEY_ID"] is None else "AWS_SECRET_ACCESS_KEY"
            raise ConfigError(f"{missing} is not set, but the other half of the key pair is: set both or neither")
        if value["S3_BUCKET"] is None and value["AWS_ENDPOINT_URL"] is not None:
            raise ConfigError(
                f"AWS_ENDPOINT_URL is {value['AWS_ENDPOINT_URL']!r} but S3_BUCKET is not set: name the bucket, "
                "or unset AWS_ENDPOINT_URL to keep everything in DATA_DIR"
            )
        secret = value["AWS_SECRET_ACCESS_KEY"]
        return cls(
            bucket=value["S3_BUCKET"],
            access_key_id=value["AWS_ACCESS_KEY_ID"],
            secret_access_key=SecretStr(secret) if secret else None,
            region=value["AWS_REGION"],
            endpoint_url=value["AWS_ENDPOINT_URL"],
            data_dir=Path(value["DATA_DIR"] or "data").absolute(),
        )


class NodeSettings(Strict):
    """Where a node keeps model weights, and which hub it gets them from."""

    weights_dir: Path
    hub_endpoint: str = "https://huggingface.co"
    hub_token: SecretStr | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "NodeSettings":
        """Read WEIGHTS_DIR, HF_ENDPOINT and HF_TOKEN (the model hub's own names). An empty variable counts as unset."""
        endpoint, token = (environ.get(name, "").strip() for name in ("HF_ENDPOINT", "HF_TOKEN"))
        return cls(
            weights_dir=weights_dir(environ),
            hub_endpoint=endpoint.rstrip("/") or "https://huggingface.co",
            hub_token=SecretStr(token) if token else None,
        )


class WebhookSecret(Strict):
    """What webhooks are signed with; None: a secret that is made at the first start and kept in the store."""

    secret: SecretStr | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "WebhookSecret":
        """Read WEBHOOK_SECRET. An empty variable counts as unset."""
        text = environ.get("WEBHOOK_SECRET", "").strip()
        return cls(secret=SecretStr(text) if text else None)


ENVIRONMENT = (
    "S3_BUCKET",
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_REGION",
    "AWS_ENDPOINT_URL",
    "DATA_DIR",
)
