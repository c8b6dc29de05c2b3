"""deploy.yaml as it stands in the repository."""

from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel
from ray.serve.schema import ServeDeploySchema

from serve_app.app import choose_models
from serve_app.deployments.ingress import catalog_of
from serve_app.settings import BuildArgs

CONFIG = yaml.safe_load((Path(__file__).parents[2] / "deploy.yaml").read_text())


def unknown_keys(given: object, known: object, path: str = "") -> list[str]:
    """Keys of `given` that the pydantic model `known` does not have; Ray ignores them in silence."""
    if isinstance(given, list) and isinstance(known, list):
        return [key for g, k in zip(given, known, strict=True) for key in unknown_keys(g, k, f"{path}[]")]
    if not isinstance(given, dict) or not isinstance(known, BaseModel):
        return []
    fields = type(known).model_fields
    wrong = [f"{path}.{key}" for key in given if key not in fields]
    return wrong + [
        key
        for name in fields
        if name in given
        for key in unknown_keys(given[name], getattr(known, name), f"{path}.{name}")
    ]


def test_ray_knows_every_key():
    """The file is valid for ServeDeploySchema and holds no key that Ray would ignore."""
    assert unknown_keys(CONFIG, ServeDeploySchema.model_validate(CONFIG)) == []


def test_a_misspelt_key_would_be_found():
    """The check above can fail."""
    wrong = CONFIG | {"http_optoins": {}}
    assert unknown_keys(wrong, ServeDeploySchema.model_validate(wrong)) == [".http_optoins"]


def test_the_service_binds_loopback():
    """Nothing listens to other machines unless told."""
    assert CONFIG["http_options"]["host"] == "127.0.0.1"


def test_the_args_are_valid_and_aliases_resolve():
    """What Ray passes to the builder is accepted, and the usual names of other services mean the default."""
    args = BuildArgs.model_validate(CONFIG["applications"][0]["args"])
    catalog = catalog_of(args, choose_models(args, gpus=0))
    for name in ("tts-1", "tts-1-hd", "gpt-4o-mini-tts", "eleven_multilingual_v2"):
        assert catalog.model(name).name == "preview"
    for voice in ("alloy", "echo", "fable", "onyx", "nova", "shimmer"):
        assert catalog.voice_alias(voice, catalog.default) == "heart"


@pytest.mark.parametrize(("gpus", "names"), [(0, ["preview"]), (1, ["preview", "f5"])])
def test_auto_means_preview_and_f5_where_there_is_a_gpu(gpus, names):
    """`auto` looks at the cluster as it is now."""
    args = BuildArgs.model_validate(CONFIG["applications"][0]["args"])
    assert [model.name for model in choose_models(args, gpus)] == names


def test_shutdown_outlasts_the_longest_synthesis():
    """In-flight work past the graceful timeout would die."""
    args = BuildArgs.model_validate(CONFIG["applications"][0]["args"])
    assert args.ingress.graceful_shutdown_timeout_s >= CONFIG["http_options"]["request_timeout_s"]
    assert all(model.graceful_shutdown_timeout_s >= 120 for model in choose_models(args, gpus=1))
