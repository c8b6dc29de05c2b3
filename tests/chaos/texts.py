"""What the jobs say, and what each of them must sound like: few texts and seeds, each spoken once in this process."""

import asyncio
import hashlib
from collections.abc import Iterable, Sequence

from serve_app.audio import encode
from serve_app.domain import BUILTIN, SpeechRequest, Voice, VoiceRef, VoiceStats
from serve_app.engine.preview import PreviewEngine
from serve_app.models import speaking
from serve_app.settings import PreviewSettings
from serve_app.speech import Speaker
from serve_app.synthesis import SynthesisService
from tests.support.sentences import SENTENCES

__all__ = ["expected_sha256", "spoken"]

SHORT = ("Hello there.", "All is well.", "Nothing is lost.", "Come again soon.", "One more word.")
LONG = (" ".join(SENTENCES[:6]), " ".join(SENTENCES * 2))
LONG_EVERY = 10
SEEDS = 3


def spoken(number: int) -> tuple[str, int]:
    """Text and seed of job `number`: every tenth is one of several units."""
    seed = number % SEEDS + 1
    if number % LONG_EVERY == 0:
        return LONG[number // LONG_EVERY % len(LONG)], seed
    return SHORT[number % len(SHORT)], seed


class _NoVoices:
    async def get(self, ref: VoiceRef) -> Voice:
        raise AssertionError(f"{ref} is not built in")

    async def stats(self, ref: VoiceRef) -> VoiceStats:
        raise AssertionError(f"{ref} is not built in")


def expected_sha256(jobs: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """Of the WAV that a job of this text and seed must end with: on a CPU it is the same to the byte."""
    return asyncio.run(_expected(sorted(set(jobs))))


async def _expected(jobs: Sequence[tuple[str, int]]) -> dict[tuple[str, int], str]:
    settings = PreviewSettings()
    service = SynthesisService(PreviewEngine(), _NoVoices(), settings.name)
    speaker = Speaker({settings.name: speaking(settings, service)}, _NoVoices())
    try:
        return {(text, seed): await _sha256(speaker, settings, text, seed) for text, seed in jobs}
    finally:
        await service.close()


async def _sha256(speaker: Speaker, settings: PreviewSettings, text: str, seed: int) -> str:
    request = SpeechRequest(
        text=text,
        model=settings.name,
        voice=VoiceRef("heart", BUILTIN),
        speed=settings.speed,
        seed=seed,
        request_id="expected",
        cross_fade_s=settings.cross_fade_s,
    )
    return hashlib.sha256(encode((await speaker.speak(request)).audio, "wav")).hexdigest()
