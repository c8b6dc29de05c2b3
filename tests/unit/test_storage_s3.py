"""S3Store without a network: what decides its settings, and what only AWS itself would answer."""

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.awsrequest import AWSResponse
from botocore.stub import Stubber
from botocore.utils import parse_timestamp

from serve_app import __version__
from serve_app.errors import ConfigError, StorageMisconfigured
from serve_app.storage import S3Config, S3Store, probe
from serve_app.storage.s3_client import SENT_AT_ONCE_BYTES, _moment

CONFIG = S3Config("voices", "https://s3.us-west-001.backblazeb2.com", "us-west-001", "key-id", "secret-key")


@pytest.fixture
def hostile_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every ambient way to lead boto3 elsewhere, as a developer's machine may have."""
    config = tmp_path / ".aws" / "config"
    config.parent.mkdir()
    config.write_text(
        "[default]\nregion = eu-central-1\nendpoint_url = http://file.invalid\n"
        "s3 =\n  addressing_style = virtual\n  use_accelerate_endpoint = true\n  endpoint_url = http://file.invalid\n"
    )
    for name, value in {
        "HOME": str(tmp_path),
        "AWS_CONFIG_FILE": str(config),
        "AWS_PROFILE": "not-there",
        "AWS_ENDPOINT_URL": "http://ambient.invalid",
        "AWS_ENDPOINT_URL_S3": "http://ambient-s3.invalid",
        "AWS_REGION": "ap-south-1",
        "AWS_DEFAULT_REGION": "ap-south-2",
        "AWS_ACCESS_KEY_ID": "ambient-id",
        "AWS_SECRET_ACCESS_KEY": "ambient-secret",
        "AWS_SESSION_TOKEN": "ambient-token",
        "AWS_USE_DUALSTACK_ENDPOINT": "true",
        "AWS_USE_FIPS_ENDPOINT": "true",
        "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "legacy",
    }.items():
        monkeypatch.setenv(name, value)


def presigned(config: S3Config) -> tuple[str, str, bool]:
    """Where a request would go (scheme, host and path), the credential in it, and whether a session token is."""
    url = urlsplit(S3Store(config).url("a", expires_s=60, filename="a"))
    query = parse_qs(url.query)
    day_and_more = query["X-Amz-Credential"][0].split("/")
    return (
        f"{url.scheme}://{url.netloc}{url.path}",
        f"{day_and_more[0]} {day_and_more[2]}",
        "X-Amz-Security-Token" in query,
    )


@pytest.mark.usefixtures("hostile_environment")
def test_the_environment_does_not_lead_elsewhere() -> None:
    """Endpoint, addressing, region and credentials are S3Config's, whatever AWS_* and the config file say."""
    assert presigned(CONFIG) == (f"{CONFIG.endpoint_url}/voices/a", "key-id us-west-001", False)


@pytest.mark.usefixtures("hostile_environment")
def test_without_endpoint_it_is_aws() -> None:
    """No endpoint means AWS's own, in the region given or us-east-1, and never an ambient one."""
    aws = S3Config("voices", access_key_id="key-id", secret_access_key="secret-key")
    assert presigned(aws) == ("https://voices.s3.us-east-1.amazonaws.com/a", "key-id us-east-1", False)
    elsewhere = S3Config("voices", None, "eu-west-2", "key-id", "secret-key")
    assert presigned(elsewhere) == ("https://voices.s3.eu-west-2.amazonaws.com/a", "key-id eu-west-2", False)


def test_without_keys_the_ordinary_chain_gives_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A profile, standing for a machine's role, gives the credentials; its region and endpoint do not count."""
    (tmp_path / "credentials").write_text(
        "[speech]\naws_access_key_id = of-profile\naws_secret_access_key = s\nregion = eu-central-1\n"
    )
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "speech")
    config = S3Config("voices", CONFIG.endpoint_url, CONFIG.region)
    assert presigned(config) == (f"{CONFIG.endpoint_url}/voices/a", "of-profile us-west-001", False)


@pytest.mark.parametrize("profile", ["", "not-there"])
def test_no_credentials_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, profile: str) -> None:
    """Without keys, role or profile the message asks for both variables."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    if profile:
        monkeypatch.setenv("AWS_PROFILE", profile)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StorageMisconfigured, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"):
        probe(S3Store(S3Config("voices", CONFIG.endpoint_url, CONFIG.region)))


def test_aws_itself_does_not_know_the_key() -> None:
    """AWS's answer to another provider's key says that AWS_ENDPOINT_URL is missing. Stubbed: only AWS gives it."""
    store = S3Store(S3Config("voices", access_key_id="key-id", secret_access_key="secret-key"))
    aws = Stubber(store._client())
    aws.add_client_error("put_object", "InvalidAccessKeyId", "does not exist in our records", 403)
    with aws, pytest.raises(StorageMisconfigured) as caught:
        probe(store)
    assert caught.value.message.startswith(
        'AWS_ENDPOINT_URL is not set and bucket "voices" answered 403 InvalidAccessKeyId: the request went to AWS; '
        "set AWS_ENDPOINT_URL to your provider's endpoint"
    )


def test_empty_settings_count_as_unset() -> None:
    """What an empty variable in a container's environment leaves behind means the same as no variable."""
    assert S3Config("voices", "", "", "", "") == S3Config("voices")
    with pytest.raises(ConfigError, match="S3_BUCKET is empty"):
        S3Config("")


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (S3Config("voices", "s3.example.org", None, "k", "s"), "AWS_ENDPOINT_URL is 's3.example.org'"),
        (S3Config("voices", None, "not a region", "k", "s"), "AWS_REGION 'not a region'"),
        (S3Config("my voices", CONFIG.endpoint_url, None, "k", "s"), "S3_BUCKET is 'my voices'"),
        (S3Config("voices", CONFIG.endpoint_url, None, "k", None), "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_settings_that_boto3_refuses_are_named(config: S3Config, names: str) -> None:
    """What cannot be used is refused before any request, with the variable and its value."""
    with pytest.raises(StorageMisconfigured) as caught:
        S3Store(config).head("a")
    assert names in caught.value.message


def test_a_url_of_more_than_seven_days_is_refused() -> None:
    """S3 would refuse it later, at the client."""
    with pytest.raises(ConfigError, match=r"limits\.url_expiry_s is 604801"):
        S3Store(CONFIG).url("a", expires_s=604_801, filename="a")


def test_secrets_stay_out_of_repr_but_not_out_of_pickle() -> None:
    """Neither config nor store prints the secret, and a copy in another process still has it."""
    store = pickle.loads(pickle.dumps(S3Store(CONFIG)))
    assert "secret-key" not in repr(CONFIG) + repr(store)
    assert store.url("a", expires_s=60, filename="a") != ""
    assert pickle.loads(pickle.dumps(CONFIG)) == CONFIG


def headers_sent(store: S3Store, size_bytes: int) -> dict[str, Any]:
    """The headers of a write of so many bytes, which goes nowhere."""
    sent: list[dict[str, Any]] = []

    def answer(request: Any, **_: Any) -> AWSResponse:
        sent.append({name.lower(): value for name, value in request.headers.items()})
        nothing = SimpleNamespace(stream=lambda **_: iter(()))
        return AWSResponse(request.url, 200, {"etag": '"x"'}, nothing)

    store._client().meta.events.register("before-send.s3", answer)
    store.put("a", bytes(size_bytes), content_type="x/y")
    return sent[0]


@pytest.mark.parametrize(
    ("size_bytes", "asks"), [(0, False), (SENT_AT_ONCE_BYTES, False), (SENT_AT_ONCE_BYTES + 1, True)]
)
def test_a_small_body_is_sent_without_asking_first(size_bytes: int, asks: bool) -> None:
    """Records of jobs are small, and a round trip for each would cost much; a large body is asked for."""
    assert ("expect" in headers_sent(S3Store(CONFIG), size_bytes)) is asks


def test_requests_name_the_service() -> None:
    """What a provider's log shows; boto3's own user agent is composed anew for each request."""
    assert headers_sent(S3Store(CONFIG), 1)["user-agent"].startswith(f"serve_app/{__version__}".encode())


@pytest.mark.parametrize(
    "sent",
    [
        "2026-11-25T12:34:56.789Z",
        "2026-11-25T12:34:56+02:00",
        "Wed, 25 Nov 2026 12:34:56 GMT",
        "Wednesday, 25-Nov-26 12:34:56 GMT",
        "2026-11-25T12:34:56",
        "20261125T123456Z",
        "1795610096",
        1795610096.5,
    ],
)
def test_dates_are_what_boto3_takes_them_for(sent: str | float):
    """Whatever a store sends; the forms of S3 itself are only read faster."""
    assert _moment(sent) == parse_timestamp(sent)
