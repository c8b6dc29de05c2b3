"""What the F5 engine keeps of a voice: checked, tokenised and turned into a mel once, then only read.

Voice -> text as a sentence -> token ids
      -> checked audio -> level -> mel on the device (when the first unit is spoken)
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock

import numpy as np
import torch
from cachetools import LRUCache
from torch import Tensor

from serve_app.domain import Voice, VoiceRef
from serve_app.engine.threads import worker_pool
from serve_app.errors import UnusableVoice

__all__ = ["HOP_SAMPLES", "MAX_REFERENCE_S", "Reference", "References"]

HOP_SAMPLES = 256
MIN_REFERENCE_S = 0.5
MAX_REFERENCE_S = 12.0
"""Upstream cuts a longer reference, but not its text, and then speaks wrongly."""

TARGET_RMS = 0.1
"""Quieter references are raised to this level for the model, and the speech is lowered again."""
SILENT_RMS = 1e-4

CLIPPED_LEVEL, MAX_CLIPPED = 0.999, 0.01
"""A reference of which more than this part is at full scale is distorted, and so would be all that is spoken."""

SENTENCE_END = ".!?。！？…"

Tokenize = Callable[[list[str]], list[list[str]]]


@dataclass(slots=True)
class Reference:
    """A voice as the engine uses it.

    `text`: the reference text as the model wants it before another. `token_ids`: of that. `frames`: of its mel.
    `gain`: what the audio was raised by. `mel`: (frames, n_mels), float32, on the engine's device; made when it is
    first asked for, because a unit is measured on the event loop and spoken elsewhere.
    """

    text: str
    token_ids: Sequence[int]
    frames: int
    gain: float
    size_bytes: int
    _make_mel: Callable[[], Tensor] | None = field(repr=False)  # holds the audio
    _mel: Tensor | None = field(default=None, repr=False)
    _lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def mel(self) -> Tensor:
        with self._lock:
            if self._make_mel is not None:
                self._mel, self._make_mel = self._make_mel(), None
            assert self._mel is not None
            return self._mel

    def followed_by(self, text: str, tokenize: Tokenize, vocab: Mapping[str, int]) -> list[int]:
        """Token ids of the reference text and `text`, the same as if both were tokenised as one.

        What follows depends on the last character before it, and on nothing earlier: that ends a sentence. What the
        vocabulary lacks becomes 0, which is the space: upstream's rule.
        """
        following = tokenize([self.text[-1] + text])[0][1:]
        return [*self.token_ids, *(vocab.get(token, 0) for token in following)]


class References:
    """The latest voices, in at most `max_bytes`, by name, tenant and version; the engine holds one model.

    For any number of threads. A reference that is dropped while it is spoken with stays usable.
    """

    def __init__(
        self,
        mel: Callable[[Tensor], Tensor],
        tokenize: Tokenize,
        vocab: Mapping[str, int],
        device: torch.device,
        max_bytes: int,
    ) -> None:
        self._mel = mel
        self._tokenize = tokenize
        self._vocab = vocab
        self._device = device
        self._one_thread = worker_pool(1, threads_each=1, name="reference")
        self._kept: LRUCache[VoiceRef, Reference] = LRUCache(max_bytes, getsizeof=lambda kept: kept.size_bytes)
        self._lock = Lock()

    def get(self, voice: Voice) -> Reference:
        """The reference of `voice`. Raises UnusableVoice where it cannot be spoken with."""
        with self._lock:
            found = self._kept.get(voice.ref)
        if found is not None:
            return found
        made = self._prepare(voice)
        with self._lock:
            if made.size_bytes <= self._kept.maxsize:
                self._kept[voice.ref] = made
        return made

    @property
    def size_bytes(self) -> int:
        """Of what is kept."""
        return int(self._kept.currsize)

    def _prepare(self, voice: Voice) -> Reference:
        text = _reference_text(voice)
        gain = _gain(voice)
        frames = len(voice.audio) // HOP_SAMPLES + 1  # of a mel with centred windows
        tokens = self._tokenize([text])[0]
        if not any(token in self._vocab and any(map(str.isalnum, token)) for token in tokens):
            raise UnusableVoice(
                f"the reference text of voice {voice.ref.name!r} has no letter that the model's vocabulary has: upload "
                "the voice with a text in a script that the model knows, or deploy a checkpoint for its language"
            )
        token_ids = [self._vocab.get(token, 0) for token in tokens]

        def make_mel() -> Tensor:
            levelled = torch.from_numpy(voice.audio * np.float32(gain))
            # On one thread: the product with the mel filters has other last bits on others.
            mel = self._one_thread.submit(self._mel, levelled[None]).result()
            return mel[0].T.contiguous().to(self._device)

        size_bytes = voice.audio.nbytes + 8 * len(token_ids)  # the audio becomes a mel, which is smaller
        return Reference(text, token_ids, frames, gain, size_bytes, make_mel)


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


def _gain(voice: Voice) -> float:
    """What raises the audio to the model's level, 1 at least. Raises UnusableVoice for silent or clipped audio."""
    rms = float(np.sqrt(np.mean(np.square(voice.audio, dtype=np.float64))))
    if not rms >= SILENT_RMS:  # in this form NaN is refused too
        raise UnusableVoice(
            f"the reference audio of voice {voice.ref.name!r} has an RMS of {rms:.1g}, which is silence: "
            "upload one in which somebody speaks"
        )
    clipped = float(np.mean(np.abs(voice.audio) >= CLIPPED_LEVEL))
    if clipped > MAX_CLIPPED:
        raise UnusableVoice(
            f"{clipped:.0%} of the reference audio of voice {voice.ref.name!r} is at full scale, which is distorted: "
            "record it again at a lower level"
        )
    return max(1.0, TARGET_RMS / rms)
