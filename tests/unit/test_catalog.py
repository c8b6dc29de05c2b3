"""Selecting models and voices by name."""

import pytest

from serve_app.catalog import Catalog, Model
from serve_app.errors import ConfigError, ModelNotFound


def model(name: str, draft: bool) -> Model:
    return Model(name, name, draft, (f"{name}-voice",), f"{name}-voice", "Apache-2.0", "en")


PREVIEW, F5 = model("preview", True), model("f5", False)


def test_f5_is_the_default_where_it_is_deployed():
    """A request without a model is cloned where something clones, else previewed."""
    assert Catalog([PREVIEW, F5]).model(None) == F5
    assert Catalog([PREVIEW]).model(None) == PREVIEW
    assert Catalog([PREVIEW, F5], default_model="preview").model(None) == PREVIEW


def test_aliases_mean_the_default_or_a_named_model():
    """`default` follows the default model; a name means that model."""
    catalog = Catalog([PREVIEW, F5], model_aliases={"tts-1": "default", "draft": "preview"})
    assert (catalog.model("tts-1"), catalog.model("draft"), catalog.model("f5")) == (F5, PREVIEW, F5)
    assert catalog.aliases == {"tts-1": F5, "draft": PREVIEW}


def test_voice_aliases_follow_the_model():
    """`alloy` is the default voice of whichever model speaks."""
    catalog = Catalog([PREVIEW, F5], voice_aliases={"alloy": "default", "boss": "anna"})
    assert catalog.voice_alias("alloy", PREVIEW) == "preview-voice"
    assert catalog.voice_alias("alloy", F5) == "f5-voice"
    assert catalog.voice_alias("boss", F5) == "anna"
    assert catalog.voice_alias("nobody", F5) is None


def test_an_unknown_model_is_refused_with_what_there_is():
    """The message lists models and aliases."""
    with pytest.raises(ModelNotFound, match=r"'gpt-9'.*f5, preview.*tts-1"):
        Catalog([PREVIEW, F5], model_aliases={"tts-1": "default"}).model("gpt-9")


def test_names_that_are_not_deployed_are_configuration_errors():
    """A wrong default_model or alias target ends the deployment."""
    with pytest.raises(ConfigError, match=r"default_model.*'f6'"):
        Catalog([PREVIEW], default_model="f6")
    with pytest.raises(ConfigError, match=r"aliases\.voices\.a.*alias itself"):
        Catalog([PREVIEW], voice_aliases={"a": "b", "b": "a"})
    with pytest.raises(ConfigError, match=r"aliases\.models\.tts-1.*'f6'"):
        Catalog([PREVIEW], model_aliases={"tts-1": "f6"})
