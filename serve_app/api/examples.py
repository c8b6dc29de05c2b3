"""Bodies that the OpenAPI document shows, in each dialect; a test sends them all."""

from typing import Any

__all__ = ["JOB", "JOB_ID", "RUN", "SPEECH", "VOICE"]

RECORDING = "(the file's bytes)"


def _form(**fields: str) -> dict[str, Any]:
    return {"requestBody": {"content": {"multipart/form-data": {"example": fields}}}}


TEXT = "The quick brown fox jumps over the lazy dog."
LONG_TEXT = f"{TEXT} It does so every morning, and nobody knows why."
JOB_ID = "01926f0e-5b7a-7c3d-8e4f-0123456789ab"
"""Of a job that has been spoken."""

SPEECH: list[Any] = [
    {"model": "tts-1", "input": TEXT, "voice": "alloy"},
    {
        "input": TEXT,
        "voice": {"id": "alloy"},
        "response_format": "opus",
        "sample_rate": 48_000,
        "speed": 1.1,
        "seed": 7,
    },
    {"input": LONG_TEXT, "response_format": "pcm", "stream_format": "audio"},
    {"input": LONG_TEXT, "stream_format": "sse"},
]
JOB: list[Any] = [
    {"input": LONG_TEXT},
    {
        "model": "tts-1",
        "input": LONG_TEXT,
        "voice": "alloy",
        "seed": 7,
        "ttl_s": 3600,
        "retention_s": 86_400,
        "low_priority": True,
        "webhook": "https://example.com/spoken",
    },
]
VOICE = _form(
    name="anna",
    audio_sample=RECORDING,
    ref_text="What is said in the recording, word for word.",
    language="en",
    consent="Anna agreed on 1 March.",
    labels='{"accent": "Scottish"}',
)
ELEVENLABS_VOICE = _form(
    name="anna-2",
    files=RECORDING,
    ref_text="What is said in the recording, word for word.",
    description="Calm, for long texts.",
    labels='{"accent": "Scottish", "language": "en"}',
)
"""Of forms, as a route's `openapi_extra`."""
RUN: list[Any] = [
    {"input": {"text": TEXT}},
    {
        "input": {"endpoint": "tts", "text": TEXT, "local_voice": "alloy", "speed": 0.9, "seed": 7},
        "policy": {"executionTimeout": 600_000, "lowPriority": True, "ttl": 86_400_000},
    },
    {
        "input": {
            "endpoint": "upload",
            "voice_name": "anna",
            "voice_file_url": "https://example.com/anna.wav",
            "text_file_url": "https://example.com/anna.txt",
        }
    },
    {"input": {"endpoint": "list_voices", "limit": 20}},
    {"input": {"endpoint": "status", "job_id": JOB_ID}},
    {"input": {"endpoint": "result", "job_id": JOB_ID}},
    {"input": {"endpoint": "download", "job_id": JOB_ID}},
]
