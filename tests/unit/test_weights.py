"""Finding a model's files."""

import sys
from types import ModuleType

import pytest

from serve_app import weights
from serve_app.errors import ModelLoadFailed
from serve_app.weights import F5Files, f5_files


def test_local_files_are_taken_as_they_are(tmp_path):
    """Paths that exist are the answer; nothing is downloaded."""
    (tmp_path / "m.safetensors").touch()
    given = F5Files(checkpoint=tmp_path / "m.safetensors", vocoder=tmp_path)
    assert f5_files(given) == given


@pytest.mark.parametrize("field", ["checkpoint", "vocoder", "vocab", "config"])
def test_a_missing_path_is_named_with_its_key(tmp_path, field):
    """The message names the key of deploy.yaml and the path."""
    paths = dict.fromkeys(("checkpoint", "vocoder", "vocab", "config"), tmp_path) | {field: tmp_path / "absent"}
    with pytest.raises(ModelLoadFailed, match=rf"models\[\]\.weights\.{field} is .*absent"):
        f5_files(F5Files(**paths))


def test_without_paths_the_pinned_revisions_are_asked_of_the_hub(monkeypatch, tmp_path):
    """Every file is asked for at a fixed revision, never at whatever is newest."""
    asked = []

    def hf_hub_download(repository, name, *, revision):
        asked.append((repository, name, revision))
        return str(tmp_path / name)

    hub = ModuleType("huggingface_hub")
    hub.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    files = f5_files(None)
    assert files == F5Files(checkpoint=tmp_path / weights.F5_CHECKPOINT, vocoder=tmp_path)
    assert {(repository, len(revision)) for repository, _, revision in asked} == {
        ("SWivid/F5-TTS", 40),
        ("charactr/vocos-mel-24khz", 40),
    }


def test_a_hub_that_does_not_answer_says_what_to_set(monkeypatch):
    """The message names the repositories and the keys to set in their place."""

    def hf_hub_download(repository, name, *, revision):
        raise OSError("no route")

    hub = ModuleType("huggingface_hub")
    hub.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with pytest.raises(ModelLoadFailed, match=r"SWivid/F5-TTS.*no route.*weights\.checkpoint"):
        f5_files(None)


def test_an_environment_without_the_f5_packages_says_how_to_get_them(monkeypatch):
    """A node that has only the base installation names the command that prepares it."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModelLoadFailed, match="EXTRAS=f5 make run"):
        f5_files(None)
