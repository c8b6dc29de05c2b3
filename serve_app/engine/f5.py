"""The F5-TTS engine: clones a voice from seconds of reference audio and its text.

    unit + voice -> reference (level, mel) + tokens + frames -> sampler -> mel -> Vocos -> level undone -> PCM

Follows upstream's `infer_batch_process` (f5_tts/infer/utils_infer.py), but counts in mel frames throughout,
as its evaluation does: counting the reference as samples // 256 lets the last frame of it be heard. Torch is
imported when an engine is made, not with this module, so that nodes without torch can read BUILTIN_VOICES.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from cachetools import LRUCache

from serve_app.domain import BUILTIN, SAMPLE_RATE_HZ, Pcm, Unit, Voice, VoiceRef, VoiceStats
from serve_app.engine.protocol import BatchLimits, EngineInput
from serve_app.errors import EngineError, InvalidText, ModelLoadFailed, UnusableVoice

if TYPE_CHECKING:
    from torch import Tensor

    from serve_app.engine.attention import AttentionRequest, DtypeRequest
    from serve_app.engine.load import F5Weights

__all__ = ["BUILTIN_VOICES", "MAX_FRAMES", "MAX_REFERENCE_S", "F5Engine", "total_frames"]

HOP_SAMPLES = 256
MAX_FRAMES = 8192
"""Positions of the text encoder: 87.4 s, reference included. The model was trained on 30 s (2812 frames) at
most; what is longer is spoken, but not promised to sound right."""

MIN_REFERENCE_S = 0.5
MAX_REFERENCE_S = 12.0
"""Upstream cuts a longer reference, but not its text, and then speaks wrongly."""

TARGET_RMS = 0.1
"""Quieter references are raised to this level for the model, and the speech is lowered again."""
SILENT_RMS = 1e-4

SHORT_TEXT_BYTES = 10
SHORT_TEXT_SPEED = 0.3
SENTENCE_END = ".!?。！？…"

PREPARED_REFERENCES = 64  # at most 0.45 MB each
CPU_LIMITS = BatchLimits(max_units=1, max_frames=MAX_FRAMES)  # a batch on a CPU is slower than one by one
CUDA_LIMITS = BatchLimits(max_units=8, max_frames=2 * MAX_FRAMES)  # chosen, not yet measured
WARM_UP_STEPS = 2


BUILTIN_VOICES: Mapping[str, VoiceStats] = {"basic_ref_en": VoiceStats(127_987 / SAMPLE_RATE_HZ, text_bytes=50)}
"""Recordings in the f5-tts wheel; their stats are written down so that planning need not open the files."""
BUILTIN_TEXTS = {"basic_ref_en": "Some call me nature, others call me mother nature."}


class _Plan(NamedTuple):
    """A checked item: ids of reference text and text to speak, mel frames of reference and speech."""

    voice: Voice
    token_ids: list[int]
    frames: int


class F5Engine:
    """F5-TTS behind the `Engine` protocol. Loads when constructed; raises ModelLoadFailed if it cannot.

    `device`: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N". `dtype`: of the transformer, see
    `choose_dtype`. `nfe_steps`, `cfg_strength`, `sway`: upstream's parameters and defaults. `threads`:
    torch's on the CPU, for the whole process; None leaves them alone.

    On a CPU the same unit, voice and seed give the same bytes, whatever else is in the call. `synthesize` and
    `warm_up` are for one thread at a time; `frames` may run beside them.
    """

    def __init__(
        self,
        weights: "F5Weights",
        device: str = "auto",
        dtype: "DtypeRequest" = "auto",
        nfe_steps: int = 32,
        cfg_strength: float = 2.0,
        sway: float | None = -1.0,
        attention: "AttentionRequest" = "auto",
        threads: int | None = None,
    ) -> None:
        import torch

        from serve_app.engine.attention import choose_attention, choose_device, choose_dtype
        from serve_app.engine.load import load_f5
        from serve_app.engine.sampler import sample

        if threads is not None:
            torch.set_num_threads(threads)
        self.device = choose_device(device)
        self.dtype = choose_dtype(dtype, self.device)
        self.attention = choose_attention(attention, self.device, self.dtype)
        self._model = load_f5(weights, self.device, self.dtype, self.attention.path)
        self._steps = nfe_steps
        self._sample = partial(sample, self._model.dit, cfg_strength=cfg_strength, sway=sway)
        self._builtin = {name: _read_builtin(name) for name in BUILTIN_VOICES}
        self._references: LRUCache[VoiceRef, tuple[Tensor, float]] = LRUCache(maxsize=PREPARED_REFERENCES)

    @property
    def batch_limits(self) -> BatchLimits:
        return CPU_LIMITS if self.device.type == "cpu" else CUDA_LIMITS

    @property
    def runtime(self) -> Mapping[str, str]:
        return {
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "attention": self.attention.path,
            "attention_reason": self.attention.reason,
        }

    def frames(self, item: EngineInput) -> int:
        """Mel frames of reference and speech together. Raises InvalidText or UnusableVoice."""
        return self._plan(item).frames

    def warm_up(self) -> None:
        """Speak a sentence in few steps. Raises ModelLoadFailed, whatever went wrong."""
        voice = VoiceRef(next(iter(BUILTIN_VOICES)), BUILTIN)
        unit = Unit(0, "This warms the model up.", voice, speed=1.0, seed=0, frames=0, request_id="warm-up")
        try:
            self._speak([EngineInput(unit, None)], WARM_UP_STEPS)
        except Exception as error:  # a replica that cannot speak must not start, for whatever reason
            raise ModelLoadFailed(
                f"the model was loaded, but its warm-up failed on {self.device} in {self.dtype} with "
                f"{self.attention.path} ({type(error).__name__}: {error})"
            ) from error

    def synthesize(self, items: Sequence[EngineInput]) -> list[Pcm]:
        """Speak `items`: float32, 24 kHz, clipped to [-1, 1], 256 samples for each frame of speech.

        A vocoder whose head pads "center", as the published one's, leaves the last frame's out. Raises
        InvalidText, UnusableVoice or EngineError.
        """
        if self.device.type == "cpu":  # sums over a batch round differently, and here the bytes are promised
            return [pcm for item in items for pcm in self._speak([item], self._steps)]
        return self._speak(items, self._steps)

    def _speak(self, items: Sequence[EngineInput], steps: int) -> list[Pcm]:
        import torch

        from serve_app.engine.sampler import SampleInput

        plans = [self._plan(item) for item in items]
        references = [self._reference(plan.voice) for plan in plans]
        inputs = [
            SampleInput(mel, torch.tensor(plan.token_ids), plan.frames, item.unit.seed)
            for item, plan, (mel, _) in zip(items, plans, references, strict=True)
        ]
        try:
            mels = self._sample(inputs, steps=steps)
            waves = [self._model.decode(mel.T[None])[0].cpu().numpy() for mel in mels]
        except RuntimeError as error:  # torch's own, out of memory included
            sizes = [plan.frames for plan in plans]
            raise EngineError(f"units of {sizes} mel frames failed on {self.device}: {error}") from error
        if not all(np.isfinite(pcm).all() for pcm in waves):
            raise EngineError(f"the speech has NaN or infinity in {self.dtype}: use bfloat16 or float32")
        return [np.clip(pcm / gain, -1, 1) for pcm, (_, gain) in zip(waves, references, strict=True)]

    def _plan(self, item: EngineInput) -> _Plan:
        """Check text and voice, and count frames. Changes nothing, so any thread may call it."""
        unit, voice, text = item.unit, self._voice(item), item.unit.text.strip()
        reference_text, vocab = _reference_text(voice), self._model.vocab
        tokens, text_tokens = self._model.tokenize([reference_text + text, text])
        _check_speakable(text, text_tokens, vocab)
        reference = len(voice.audio) // HOP_SAMPLES + 1  # frames of a mel with centred windows
        estimate = total_frames(reference, len(reference_text.encode()), len(text.encode()), unit.speed)
        # No fewer than upstream's floor, nor than the two frames of speech that Vocos needs.
        frames = max(estimate, len(tokens) + 1, reference + 2)
        if frames > MAX_FRAMES:
            raise InvalidText(
                f"unit {unit.index} needs {frames} mel frames, {reference} of them for its reference, of "
                f"{MAX_FRAMES} that the model has: send a shorter text, a higher speed or a shorter reference"
            )
        # What the vocabulary lacks becomes 0, which is the space: upstream's rule.
        return _Plan(voice, [vocab.get(token, 0) for token in tokens], frames)

    def _voice(self, item: EngineInput) -> Voice:
        name = item.unit.voice.name
        if item.voice is None and name not in self._builtin:
            raise UnusableVoice(
                f"voice {name!r} came without audio and is not built into this model: upload it, or use "
                f"{' or '.join(self._builtin)}"
            )
        return item.voice or self._builtin[name]

    def _reference(self, voice: Voice) -> "tuple[Tensor, float]":
        """Mel of the levelled audio, (frames, n_mels), and the level's factor. UnusableVoice for silence."""
        import torch

        if voice.ref in self._references:
            return self._references[voice.ref]
        rms = float(np.sqrt(np.mean(np.square(voice.audio, dtype=np.float64))))
        if not rms >= SILENT_RMS:  # in this form NaN is refused too
            raise UnusableVoice(
                f"the reference audio of voice {voice.ref.name!r} has an RMS of {rms:.1g}, which is silence: "
                "upload one in which somebody speaks"
            )
        gain = max(1.0, TARGET_RMS / rms)
        mel = self._model.mel(torch.from_numpy(voice.audio * np.float32(gain))[None])[0].T
        self._references[voice.ref] = mel.contiguous(), gain
        return self._references[voice.ref]


def total_frames(reference_frames: int, reference_bytes: int, text_bytes: int, speed: float) -> int:
    """Mel frames of reference and speech, if the text is spoken as fast as the reference (bytes are UTF-8).

    Upstream's formula, of `infer_batch_process`. It speaks texts under 10 bytes at speed 0.3 whatever was
    asked, because so few bytes say little of their duration. Here 0.3 multiplies the speed: the same at 1.0,
    and at any other a short text still follows what was asked.
    """
    if text_bytes < SHORT_TEXT_BYTES:
        speed *= SHORT_TEXT_SPEED
    return reference_frames + int(reference_frames / reference_bytes * text_bytes / speed)


def _reference_text(voice: Voice) -> str:
    """The text as the model wants it before another: a whole sentence, and a space after an ASCII character.

    Raises UnusableVoice for a voice without text, or with more or less audio than the model can use.
    """
    name, text, duration_s = voice.ref.name, voice.text.strip(), voice.stats.duration_s
    if not text:
        raise UnusableVoice(f"voice {name!r} has no reference text: upload the voice again, with ref_text")
    if not MIN_REFERENCE_S <= duration_s <= MAX_REFERENCE_S:
        raise UnusableVoice(
            f"the reference audio of voice {name!r} is {duration_s:.2f} s: upload {MIN_REFERENCE_S} to "
            f"{MAX_REFERENCE_S:.0f} s of speech (about 5 s is best), with the text of just that"
        )
    text = text if text[-1] in SENTENCE_END else text + "."
    return text + " " if text[-1].isascii() else text


def _check_speakable(text: str, tokens: Sequence[str], vocab: Mapping[str, int]) -> None:
    """A symbol that the vocabulary lacks may become a space; a letter may not: its word would be left out."""
    if lacking := sorted({t for t in tokens if t not in vocab and any(map(str.isalpha, t))}):
        raise InvalidText(
            f"the model's vocabulary lacks {' '.join(lacking[:5])}, which would be left unspoken: write the "
            "text in a script that the model knows, or deploy a checkpoint for its language"
        )
    if not any(t in vocab and any(map(str.isalnum, t)) for t in tokens):
        raise InvalidText(f"the text {text[:40]!r} has nothing that can be spoken: send letters or digits")


def _read_builtin(name: str) -> Voice:
    import soundfile  # not the standard library's wave: the RIFF header is 4 bytes short, and it heeds that

    with files("f5_tts").joinpath(f"infer/examples/basic/{name}.wav").open("rb") as recording:
        audio, _ = soundfile.read(recording, dtype="float32")  # mono, 24 kHz
    return Voice(VoiceRef(name, BUILTIN), audio, BUILTIN_TEXTS[name])
