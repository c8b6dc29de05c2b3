"""The F5-TTS engine: clones a voice from seconds of reference audio and its text.

    unit + voice -> reference (level, mel, token ids) + tokens + frames -> sampler -> mel -> Vocos -> level -> PCM

Follows upstream's `infer_batch_process` (f5_tts/infer/utils_infer.py), but counts in mel frames throughout,
as its evaluation does: counting the reference as samples // 256 lets the last frame of it be heard. How it runs on
its device is in `cpu.py` and `cuda.py`. Torch is imported when an engine is made, not with this module, so that nodes
without torch can read BUILTIN_VOICES.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from importlib.resources import files
from typing import TYPE_CHECKING, NamedTuple

from serve_app.domain import BUILTIN, SAMPLE_RATE_HZ, Pcm, Sampling, Unit, Voice, VoiceRef, VoiceStats
from serve_app.engine.protocol import BatchLimits, EngineInput
from serve_app.errors import InvalidText, ModelLoadFailed, UnusableVoice

if TYPE_CHECKING:
    from serve_app.engine.hardware import AttentionRequest, DtypeRequest
    from serve_app.engine.load import F5Weights
    from serve_app.engine.references import Reference
    from serve_app.engine.task import Task

__all__ = ["BUILTIN_VOICES", "REFERENCE_CACHE_BYTES", "F5Engine", "total_frames"]

SHORT_TEXT_BYTES = 10
SHORT_TEXT_SPEED = 0.3

REFERENCE_CACHE_BYTES = 256 * 1024 * 1024
"""At least 230 voices of 12 s."""

BUILTIN_VOICES: Mapping[str, VoiceStats] = {"basic_ref_en": VoiceStats(127_987 / SAMPLE_RATE_HZ, text_bytes=50)}
"""Recordings in the f5-tts wheel; their stats are written down so that planning need not open the files."""
BUILTIN_TEXTS = {"basic_ref_en": "Some call me nature, others call me mother nature."}


class _Plan(NamedTuple):
    """A checked item: its reference, ids of reference text and text to speak, mel frames of reference and speech."""

    reference: "Reference"
    token_ids: list[int]
    frames: int


class F5Engine:
    """F5-TTS behind the `Engine` protocol. Loads when constructed; raises ModelLoadFailed if it cannot.

    `device`: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N". `dtype`: of the transformer, see
    `choose_dtype`. `sampling`: of units that bring none. `threads`: torch's on the CPU, for the whole process; None
    leaves them alone. `reference_cache_bytes`: of prepared references. `memory_share`: of a GPU's free memory, 0 to 1.

    On a CPU the same unit, voice and seed give the same bytes, whatever else is in the call. `synthesize` and
    `warm_up` are for one thread at a time, best the one that made the engine: each thread that computes brings helpers
    of its own, and when these are more than the cores they no longer wait for each other actively. `frames` may run
    beside them.
    """

    def __init__(
        self,
        weights: "F5Weights",
        device: str = "auto",
        dtype: "DtypeRequest" = "auto",
        sampling: Sampling | None = None,
        attention: "AttentionRequest" = "auto",
        threads: int | None = None,
        reference_cache_bytes: int = REFERENCE_CACHE_BYTES,
        memory_share: float = 1.0,
        cuda_graphs: bool = True,
    ) -> None:
        import torch

        from serve_app.engine.allocator import keep_freed_memory
        from serve_app.engine.cpu import CpuExecution
        from serve_app.engine.cuda import CudaExecution
        from serve_app.engine.hardware import choose_attention, choose_device, choose_dtype
        from serve_app.engine.load import load_f5
        from serve_app.engine.references import References
        from serve_app.engine.sampler import Sampler

        if threads is not None:
            torch.set_num_threads(threads)
        self.device = choose_device(device)
        if self.device.type == "cpu":
            keep_freed_memory()
        self.dtype = choose_dtype(dtype, self.device)
        self.attention = choose_attention(attention, self.device, self.dtype)
        self._sampling = sampling or Sampling()
        self._model = model = load_f5(weights, self.device, self.dtype, self.attention.path)
        self._execution = (
            CpuExecution(Sampler(model.transformer), model.decode)
            if self.device.type == "cpu"
            else CudaExecution(model.transformer, model.decode, reference_cache_bytes, memory_share, cuda_graphs)
        )
        self._references = References(model.mel, model.tokenize, model.vocab, self.device, reference_cache_bytes)
        self._builtin = {name: _read_builtin(name) for name in BUILTIN_VOICES}

    @property
    def batch_limits(self) -> BatchLimits:
        return self._execution.limits

    @property
    def runtime(self) -> Mapping[str, str]:
        return {
            "device": str(self.device),
            "dtype": str(self.dtype).removeprefix("torch."),
            "attention": self.attention.path,
            "attention_reason": self.attention.reason,
            "batching": self._execution.batching,
        }

    @property
    def version(self) -> str:
        """16 hex digits of what is in its files."""
        return self._model.version

    def frames(self, item: EngineInput) -> int:
        """Mel frames of reference and speech together. Raises InvalidText or UnusableVoice."""
        return self._plan(item).frames

    def computed_frames(self, frames: Sequence[int]) -> int:
        return self._execution.computed_frames(frames)

    def warm_up(self) -> None:
        """Speak a sentence in few steps, and settle how units are batched. Whatever goes wrong is a ModelLoadFailed."""
        voice = VoiceRef(next(iter(BUILTIN_VOICES)), BUILTIN)
        unit = Unit(0, "This warms the model up.", voice, speed=1.0, seed=0, frames=0, request_id="warm-up")
        try:
            self._execution.warm_up(self._task(EngineInput(unit, None)), self._sampling)
        except Exception as error:  # a replica that cannot speak must not start, for whatever reason
            raise ModelLoadFailed(
                f"the model was loaded, but its warm-up failed on {self.device} in {self.dtype} with "
                f"{self.attention.path} ({type(error).__name__}: {error})"
            ) from error

    def synthesize(self, items: Sequence[EngineInput]) -> list[Future[Pcm]]:
        """Speak `items`: float32, 24 kHz, clipped to [-1, 1], 256 samples for each frame of speech.

        A vocoder whose head pads "center", as the published one's, leaves the last frame's out. See the protocol for
        what is raised.
        """
        answers: list[Future[Pcm]] = [Future() for _ in items]
        tasks: list[Task] = []
        spoken: list[int] = []
        for index, item in enumerate(items):
            try:
                tasks.append(self._task(item))
                spoken.append(index)
            except Exception as error:  # belongs to this item alone
                answers[index].set_exception(error)
        if tasks:
            for index, future in zip(spoken, self._execution.run(tasks, self._shared_sampling(items)), strict=True):
                answers[index] = future
        return answers

    def _shared_sampling(self, items: Sequence[EngineInput]) -> Sampling:
        asked = {item.unit.sampling or self._sampling for item in items}
        if len(asked) > 1:
            raise ValueError(f"one call holds units that are sampled as {asked}: sort them by their sampling")
        return asked.pop()

    def _task(self, item: EngineInput) -> "Task":
        import torch

        from serve_app.engine.sampler import SampleInput
        from serve_app.engine.task import Task, device_errors

        plan = self._plan(item)
        with device_errors([plan.frames], str(self.device)):
            mel = plan.reference.mel
        sample = SampleInput(mel, torch.tensor(plan.token_ids), plan.frames, item.unit.seed)
        return Task(sample, plan.reference.gain, self.dtype)

    def _plan(self, item: EngineInput) -> _Plan:
        """Check text and voice, and count frames. Any thread may call it."""
        from serve_app.engine.transformer import MAX_FRAMES

        unit, text, vocab = item.unit, item.unit.text.strip(), self._model.vocab
        reference = self._references.get(self._voice(item))
        _check_speakable(text, self._model.tokenize([text])[0], vocab)
        token_ids = reference.followed_by(text, self._model.tokenize, vocab)
        estimate = total_frames(reference.frames, len(reference.text.encode()), len(text.encode()), unit.speed)
        # No fewer than upstream's floor, nor than the two frames of speech that Vocos needs.
        frames = max(estimate, len(token_ids) + 1, reference.frames + 2)
        if frames > MAX_FRAMES:
            raise InvalidText(
                f"unit {unit.index} needs {frames} mel frames, {reference.frames} of them for its reference, of "
                f"{MAX_FRAMES} that the model has: send a shorter text, a higher speed or a shorter reference"
            )
        return _Plan(reference, token_ids, frames)

    def _voice(self, item: EngineInput) -> Voice:
        name = item.unit.voice.name
        if item.voice is None and name not in self._builtin:
            raise UnusableVoice(
                f"voice {name!r} came without audio and is not built into this model: upload it, or use "
                f"{' or '.join(self._builtin)}"
            )
        return item.voice or self._builtin[name]


def total_frames(reference_frames: int, reference_bytes: int, text_bytes: int, speed: float) -> int:
    """Mel frames of reference and speech, if the text is spoken as fast as the reference (bytes are UTF-8).

    Upstream's formula, of `infer_batch_process`. It speaks texts under 10 bytes at speed 0.3 whatever was
    asked, because so few bytes say little of their duration. Here 0.3 multiplies the speed: the same at 1.0,
    and at any other a short text still follows what was asked.
    """
    if text_bytes < SHORT_TEXT_BYTES:
        speed *= SHORT_TEXT_SPEED
    return reference_frames + int(reference_frames / reference_bytes * text_bytes / speed)


def _check_speakable(text: str, tokens: Sequence[str], vocab: Mapping[str, int]) -> None:
    """A symbol that the vocabulary lacks may become a space; a letter or digit may not: it would be left out."""
    if lacking := sorted({t for t in tokens if t not in vocab and any(map(str.isalnum, t))}):
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
