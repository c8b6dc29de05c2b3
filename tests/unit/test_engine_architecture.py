"""The presets are the models that were published."""

from importlib.resources import files

import pytest
import yaml

from serve_app.engine.architecture import PRESETS, sizes
from serve_app.engine.load import import_f5_tts

import_f5_tts()
from f5_tts.model.modules import MelSpec  # noqa: E402 - without upstream's trainer, see import_f5_tts


@pytest.mark.parametrize(("preset", "dim", "depth"), [("v1_base", 1024, 22), ("v1_small", 768, 18), ("base", 1024, 22)])
def test_presets_are_upstreams(preset: str, dim: int, depth: int) -> None:
    """A preset has the sizes of upstream's yaml, and the two base models differ in what no tensor shows."""
    found = sizes(preset)
    shipped = yaml.safe_load(files("f5_tts").joinpath(f"configs/{PRESETS[preset]}.yaml").read_text())["model"]
    assert found.items() <= shipped["arch"].items()
    assert (found["dim"], found["depth"], found["text_mask_padding"]) == (dim, depth, preset != "base")
    assert shipped["mel_spec"] == {key: getattr(MelSpec(), key, value) for key, value in shipped["mel_spec"].items()}
