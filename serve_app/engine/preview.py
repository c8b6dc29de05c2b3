"""The preview engine: hibari-tts on a CPU. English, one voice, weights inside the wheel. A draft, never a clone.

    text -> sentences -> phonemes -> model -> spectrum and f0 -> waveform -> (pitch shifted) -> (time-stretched)

Knows nothing of HTTP, Ray, stores or settings.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from importlib.metadata import version
from threading import Lock

import numpy as np
from cachetools import LRUCache, cached
from hibari import Hibari, dsp
from hibari.voices import voice_path
from numpy.typing import NDArray

from serve_app.audio import median_pitch_hz, shift_pitch, time_stretch
from serve_app.domain import FRAMES_PER_S, Pcm, Unit, Voice
from serve_app.engine.english import EnglishReader, quoted
from serve_app.engine.protocol import BatchLimits, EngineInput, one_by_one
from serve_app.errors import InvalidText, ModelLoadFailed, UnusableVoice

__all__ = ["BUILTIN_VOICES", "PreviewEngine"]

VOICE = "heart"
BUILTIN_VOICES = (VOICE,)
"""The one voice inside hibari's wheel; the others would be downloaded."""

VOICE_MEDIAN_HZ = 192.0
"""`median_pitch_hz` of `heart` over ten sentences: one figure, so that all units of a request move alike."""
MAX_SEMITONES = 8.0
"""As far as this the word error rate does not change; further it was not measured."""

MIN_MODEL_SPEED, MAX_MODEL_SPEED = 0.5, 1.15
"""What the model is asked for; time-stretching does the rest. Faster, phonemes shrink below the model's steps of
25 ms: at 1.5 by the model alone 13 % of words were heard wrong, with the rest stretched 5 %. Slower, 8 % against 4 %
at 0.25. Heard by Whisper tiny.en, 22 sentences."""

CHARACTERS_PER_S, SILENCE_S = 15.5, 0.2
"""Line through the lengths of 75 texts of 4 to 300 characters; 90 % of them are between 0.8 and 1.1 of it."""
WARM_UP_TEXT = "The birch canoe slid on the smooth planks."


class PreviewEngine:
    """Speaks English with hibari's voice `heart`, one unit at a time, at any speed; thread-safe.

    With an uploaded voice it follows the median pitch of the reference audio, by at most 8 semitones up or down, and
    nothing else: timbre, accent and pace stay those of `heart`. It is a draft of what will be said, not a clone.

    The waveform depends on text, speed, seed and voice only. `threads` are onnxruntime's, per call.
    Raises ModelLoadFailed with the cause.
    """

    def __init__(self, threads: int = 1) -> None:
        try:
            model = voice_path(VOICE, download_missing=False)
            self._tts = Hibari(VOICE, model=model, threads=threads, g2p=EnglishReader())
        except Exception as error:
            raise ModelLoadFailed(
                f"hibari-tts could not be loaded ({type(error).__name__}: {error}): "
                "install the locked requirements again"
            ) from error
        self._median_hz: Callable[[Voice], float | None] = cached(
            LRUCache(maxsize=256), key=lambda voice: voice.ref, lock=Lock()
        )(lambda voice: median_pitch_hz(voice.audio))

    @property
    def batch_limits(self) -> BatchLimits:
        """One unit at a time, of any length."""
        return BatchLimits(max_units=1, max_frames=1_000_000)

    @property
    def runtime(self) -> Mapping[str, str]:
        reason = "hibari's model has one path, onnxruntime's"
        return {"device": "cpu", "dtype": "float32", "attention": "onnxruntime", "attention_reason": reason}

    @property
    def version(self) -> str:
        """Of hibari's wheel, which has the weights in it."""
        return f"hibari-tts-{version('hibari-tts')}"

    def frames(self, item: EngineInput) -> int:
        """Estimate of the output in mel frames (93.75 a second): 15.5 characters a second and 0.2 s.

        The reference audio takes no part in the computation.
        """
        return math.ceil((len(item.unit.text) / CHARACTERS_PER_S + SILENCE_S) / item.unit.speed * FRAMES_PER_S)

    def computed_frames(self, frames: Sequence[int]) -> int:
        """There is no padding."""
        return sum(frames)

    def warm_up(self) -> None:
        """Speak a sentence. Raises ModelLoadFailed with the cause."""
        try:
            self._speak(WARM_UP_TEXT, speed=1.0, seed=0, pitch_ratio=1.0)
        except Exception as error:
            raise ModelLoadFailed(
                f"hibari-tts could not speak its first sentence ({type(error).__name__}: {error}): "
                "install the locked requirements again"
            ) from error

    def synthesize(self, items: Sequence[EngineInput]) -> list[Future[Pcm]]:
        """Speak `items`; (samples,) float32 each, of the natural length divided by the unit's speed.

        InvalidText for a text with nothing to speak or with something that cannot be read as English, UnusableVoice for
        a built-in voice of another engine and for a reference audio without pitch.
        """
        return one_by_one(self._spoken, items)

    def _spoken(self, item: EngineInput) -> Pcm:
        return self._speak(item.unit.text, item.unit.speed, item.unit.seed, self._pitch_ratio(item.unit, item.voice))

    def _speak(self, text: str, speed: float, seed: int, pitch_ratio: float) -> Pcm:
        sentences = [self._tts.ids(phonemes) for phonemes in self._phonemes(text)]
        rng = np.random.default_rng(seed)
        model_speed = min(max(speed, MIN_MODEL_SPEED), MAX_MODEL_SPEED)
        spoken = np.concatenate([self._sentence(ids, model_speed, pitch_ratio, rng) for ids in sentences])
        if speed != 1.0:
            spoken = time_stretch(spoken, len(spoken) * speed / self._natural_samples(sentences))
        peak = max(1.0, float(np.abs(spoken).max()))
        return (spoken / peak).astype(np.float32)

    def _sentence(self, ids: list[int], speed: float, pitch_ratio: float, rng: np.random.Generator) -> Pcm:
        # The waveform is shifted, and not f0 before the synthesis: the model gives most of 1 to 4 kHz with phases of
        # its own, which stay at its own f0. Scaled that way, a peak of 0.3 became 1.4 and the median missed by 17 %.
        *spectrum, f0 = self._model_output(ids, speed)
        audio: Pcm = dsp.synth(*spectrum, f0, rng)
        frame = (np.arange(len(audio)) + 0.5) / dsp.HOP - 0.5  # as hibari places its pulses
        return shift_pitch(audio, np.interp(frame, np.arange(len(f0)), f0), pitch_ratio)

    def _phonemes(self, text: str) -> list[str]:
        sentences: list[str] = self._tts.phonemize(text)
        if not any(character.isalpha() for phonemes in sentences for character in phonemes):
            raise InvalidText(f"text {quoted(text)} has nothing that can be spoken: send words or numbers")
        return sentences

    def _model_output(self, ids: list[int], speed: float) -> list[NDArray[np.float32]]:
        """The model's answer for one sentence: five parts of (601, frames) and f0 of (frames,), 80 frames a second."""
        answer = self._tts.sess.run(None, {"ids": np.array([ids], np.int64), "speed": np.array([speed], np.float32)})
        return [part[0] for part in answer]

    def _natural_samples(self, sentences: list[list[int]]) -> int:
        """Length of the text at speed 1. The model's own speeds are only near what they say, so it is asked."""
        return sum(len(self._model_output(ids, 1.0)[-1]) * dsp.HOP for ids in sentences)

    def _pitch_ratio(self, unit: Unit, voice: Voice | None) -> float:
        if voice is None:
            if unit.voice.name not in BUILTIN_VOICES:
                raise UnusableVoice(
                    f"voice {unit.voice.name!r} is not built into preview: use {VOICE!r} or an uploaded voice"
                )
            return 1.0
        median_hz = self._median_hz(voice)
        if median_hz is None:
            raise UnusableVoice(
                f"voice {unit.voice.name!r} has no pitch to follow, its {voice.stats.duration_s:.1f} s of reference "
                "audio hold less than 0.1 s of voiced speech: upload a reference with speech in it"
            )
        semitones = 12 * math.log2(median_hz / VOICE_MEDIAN_HZ)
        return float(2 ** (min(max(semitones, -MAX_SEMITONES), MAX_SEMITONES) / 12))
