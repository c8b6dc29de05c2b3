"""What is said of each kind of engine agrees with the engine."""

import subprocess
import sys
from dataclasses import replace

import pytest

from serve_app.domain import VoiceStats
from serve_app.engine import f5, preview
from serve_app.engine.load import content_version
from serve_app.errors import ModelLoadFailed, UnusableVoice
from serve_app.models import describe, load_engine, speaking
from serve_app.planning import PREVIEW_LIMITS, limits_for_f5
from serve_app.settings import F5Settings, PreviewSettings
from serve_app.synthesis import SynthesisService
from serve_app.weights import F5Files, F5Sources
from tests.support.tiny_f5 import tiny_settings, write_tiny_f5


class Nobody:
    """A synthesizer that is never called."""

    async def synthesize(self, unit):
        raise NotImplementedError


class Nowhere:
    """No weights are asked for."""

    def fetch(self, sources):
        raise NotImplementedError


def test_the_catalog_names_the_engines_own_built_in_voices():
    """A voice that is listed as built in is one that the engine has."""
    assert describe(PreviewSettings()).builtin_voices == preview.BUILTIN_VOICES
    assert describe(F5Settings()).builtin_voices == tuple(f5.BUILTIN_VOICES)


def test_only_preview_is_a_draft():
    """f5 clones; preview never says that it does."""
    assert (describe(PreviewSettings()).draft, describe(F5Settings()).draft) == (True, False)
    assert "CC-BY-NC" in describe(F5Settings()).license


def test_units_follow_the_model_and_for_f5_the_voice():
    """preview plans by itself; f5 by the reference, its own one where the voice is built in."""
    assert speaking(PreviewSettings(), Nobody()).limits_of(None, 1.0) == PREVIEW_LIMITS
    limits_of = speaking(F5Settings(), Nobody()).limits_of
    assert limits_of(VoiceStats(5.0, 60), 1.0) == limits_for_f5(VoiceStats(5.0, 60), 1.0)
    assert limits_of(None, 1.0) == limits_for_f5(f5.BUILTIN_VOICES["basic_ref_en"], 1.0)
    with pytest.raises(UnusableVoice, match="ref_text"):
        limits_of(VoiceStats(5.0, 0), 1.0)


def test_preview_loads_by_its_settings():
    """The settings of preview make an engine of one unit at a time."""
    engine = load_engine(PreviewSettings(), Nowhere())
    assert engine.batch_limits.max_units == 1
    assert SynthesisService(engine, None, "m").made_by == f"preview {engine.version} float32 onnxruntime cpu"


def test_f5_without_its_packages_says_how_to_get_them(monkeypatch):
    """The base environment has no torch; the message names the command that prepares one."""
    monkeypatch.setitem(sys.modules, "serve_app.engine.load", None)
    with pytest.raises(ModelLoadFailed, match="python -m env_setup install"):
        load_engine(F5Settings(), Nowhere())


def test_f5_loads_what_its_settings_name(tmp_path):
    """Source, vocoder and vocabulary are asked for, and loaded in the architecture that the settings give."""
    written, asked = write_tiny_f5(tmp_path), []
    known = {written.checkpoint: "0" * 64}

    class Fixed:
        def fetch(self, sources):
            asked.append(sources)
            return F5Files(written.checkpoint, written.vocoder, None, known)

    settings = F5Settings.model_validate(tiny_settings(tmp_path, attention="sdpa"))
    engine = load_engine(settings, Fixed())
    assert asked == [F5Sources(str(written.checkpoint), str(written.vocoder), None)]
    assert engine.runtime == {
        "device": "cpu",
        "dtype": "float32",
        "attention": "sdpa",
        "attention_reason": "attention is set to sdpa",
        "batching": "one unit at a time on 1 thread",
    }
    given = replace(written, architecture=settings.architecture.model_dump())
    version = content_version(replace(given, sha256=known))
    assert version != content_version(given)  # so it is by the digests that the node knows
    assert SynthesisService(engine, None, "m").made_by == f"f5 {version} float32 sdpa cpu"


def test_a_checkpoint_of_ones_own_says_its_licence_and_languages():
    """What is true of the published weights is not said of others, and nothing is guessed."""
    own = {"source": "/m.safetensors", "license": "MIT", "languages": ["de", "gsw-CH"]}
    described = describe(F5Settings.model_validate(own))
    assert (described.license, described.languages) == ("code MIT; weights MIT", ("de", "gsw-CH"))
    for lacking in ("license", "languages"):
        with pytest.raises(ValueError, match=f"source is '/m.safetensors', but {lacking} not given"):
            F5Settings.model_validate({key: value for key, value in own.items() if key != lacking})
    with pytest.raises(ValueError, match="belong to a checkpoint: give its source"):
        F5Settings(license="MIT")


def test_the_builder_and_the_ingress_import_no_torch():
    """Everything that runs on a node without a GPU does without torch."""
    code = "import sys, serve_app.app; print(sorted({'torch', 'hibari', 'f5_tts'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
