"""Upstream's F5-TTS as its users run it: what `F5TTS.infer` does once the reference is in its cache.

Its `infer/utils_infer.py` imports packages for its web page and for transcription, which our lock leaves out and which
take no part in speaking; empty modules stand for them.
"""

import sys
import types
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from serve_app.engine.load import F5Weights, import_f5_tts, load_dit, load_vocab

__all__ = ["REFERENCE", "REFERENCE_TEXT", "Upstream"]

REFERENCE = Path(str(files("f5_tts").joinpath("infer/examples/basic/basic_ref_en.wav")))
REFERENCE_TEXT = "Some call me nature, others call me mother nature. "
NOT_NEEDED = {
    "matplotlib": ("use",),
    "matplotlib.pylab": (),
    "pydub": ("AudioSegment", "silence"),
    "transformers": ("pipeline",),
}


class Upstream:
    """The same weights under upstream's own code, in the precision that it chooses for the device."""

    def __init__(self, weights: F5Weights, device: torch.device) -> None:
        self._infer = _utils_infer()
        from f5_tts.model.cfm import CFM
        from vocos import Vocos

        vocab = load_vocab(weights)
        dtype = torch.float16 if device.type == "cuda" else torch.float32
        dit = load_dit(weights, vocab, device, torch.float32)
        self._device = device
        self._model = CFM(transformer=dit, vocab_char_map=vocab).to(device, dtype).eval()
        vocoder = Vocos.from_hparams(str(weights.vocoder / "config.yaml"))
        vocoder.load_state_dict(load_file(weights.vocoder / "model.safetensors"))
        self._vocoder = vocoder.to(device).eval()

    def speak(self, text: str, nfe_steps: int) -> int:
        """One text, as `F5TTS.infer` speaks it, cut into chunks where it is long; samples of the result."""
        wave, _, _ = self._infer.infer_process(
            str(REFERENCE), REFERENCE_TEXT, text, self._model, self._vocoder, **self._options(nfe_steps)
        )
        return len(wave)

    def speak_in_pool(self, texts: Sequence[str], nfe_steps: int) -> int:
        """`texts` at once in upstream's thread pool, which is meant for the chunks of one text; samples in all."""
        import torchaudio

        audio, rate = torchaudio.load(str(REFERENCE))
        seconds = audio.shape[1] / rate
        max_chars = int(len(REFERENCE_TEXT.encode()) / seconds * (22 - seconds))  # as `infer_process` has it
        chunks = [chunk for text in texts for chunk in self._infer.chunk_text(text, max_chars=max_chars)]
        wave, _, _ = next(
            self._infer.infer_batch_process(
                (audio, rate),
                REFERENCE_TEXT,
                chunks,
                self._model,
                self._vocoder,
                cross_fade_duration=0,
                **{key: value for key, value in self._options(nfe_steps).items() if key != "show_info"},
            )
        )
        return len(wave)

    def _options(self, nfe_steps: int) -> dict[str, Any]:
        return {"nfe_step": nfe_steps, "progress": None, "show_info": lambda *_: None, "device": str(self._device)}


def _utils_infer() -> Any:
    for name, members in NOT_NEEDED.items():
        module = types.ModuleType(name)
        for member in members:
            setattr(module, member, lambda *_args, **_named: None)
        sys.modules.setdefault(name, module)
    import_f5_tts()
    from f5_tts.infer import utils_infer

    vars(utils_infer)["print"] = lambda *_args, **_named: None  # it tells of every chunk
    return utils_infer
