"""Configuration: strict, frozen, and secrets masked."""

import pytest
from pydantic import ValidationError

from serve_app.errors import ConfigError
from serve_app.settings import BuildArgs, StoreSettings

S3 = {
    "S3_BUCKET": "voices",
    "AWS_ACCESS_KEY_ID": "id",
    "AWS_SECRET_ACCESS_KEY": "hidden",
    "AWS_REGION": "us-west-001",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:1",
}


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ({"modles": "auto"}, "modles"),
        ({"models": "some"}, "models"),
        ({"models": []}, "models is empty"),
        ({"models": [{"engine": "preview", "colour": 1}]}, "colour"),
        ({"models": [{"engine": "espeak"}]}, "espeak"),
        ({"models": [{"engine": "preview"}, {"engine": "preview"}]}, "'preview'"),
        ({"models": [{"engine": "preview", "name": "Jobs"}]}, "'Jobs'"),
        ({"models": [{"engine": "f5", "nfe_steps": 0}]}, "nfe_steps"),
        ({"jobs": {"heartbeat_s": 5, "dead_after_s": 10}}, "dead_after_s"),
        ({"ingress": {"autoscaling": {"min_replicas": 3, "max_replicas": 2}}}, "max_replicas"),
        ({"limits": {"max_text_chars": "many"}}, "max_text_chars"),
        ({"aliases": {"models": {"tts-1": 5}}}, "tts-1"),
    ],
)
def test_an_unknown_or_wrong_key_is_named(args, named):
    """The message names the key or the value that is wrong."""
    with pytest.raises(ValidationError, match=named):
        BuildArgs.model_validate(args)


def test_settings_are_frozen():
    """Nothing can change what was accepted at the start."""
    with pytest.raises(ValidationError, match="frozen"):
        BuildArgs().log_level = "DEBUG"


def test_the_environment_of_the_old_worker_is_read():
    """The five variables of the replaced worker select and open the bucket."""
    settings = StoreSettings.from_environment(S3)
    assert settings.model_dump(exclude={"data_dir", "secret_access_key"}) == {
        "bucket": "voices",
        "access_key_id": "id",
        "region": "us-west-001",
        "endpoint_url": "http://127.0.0.1:1",
    }
    assert settings.secret_access_key.get_secret_value() == "hidden"


def test_secrets_are_masked():
    """Neither repr nor a dump shows the secret key."""
    settings = StoreSettings.from_environment(S3)
    assert "hidden" not in repr(settings)
    assert "hidden" not in settings.model_dump_json()


def test_empty_variables_count_as_unset_and_the_directory_is_absolute(monkeypatch, tmp_path):
    """No bucket means the directory ./data, made absolute so that every process means the same one."""
    monkeypatch.chdir(tmp_path)
    settings = StoreSettings.from_environment({name: " " for name in S3})
    assert (settings.bucket, settings.data_dir) == (None, tmp_path / "data")
    assert StoreSettings.from_environment({"DATA_DIR": "x"}).data_dir == tmp_path / "x"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"AWS_SECRET_ACCESS_KEY": ""}, "AWS_SECRET_ACCESS_KEY is not set"),
        ({"AWS_ACCESS_KEY_ID": ""}, "AWS_ACCESS_KEY_ID is not set"),
        ({"S3_BUCKET": ""}, "S3_BUCKET is not set"),
    ],
)
def test_half_a_configuration_is_refused(changes, named):
    """A key without its secret, or an endpoint without a bucket, would otherwise fail much later."""
    with pytest.raises(ConfigError, match=named):
        StoreSettings.from_environment(S3 | changes)
