"""What is said of a job, in each dialect: from its status, as the store has it, to the body of an answer.

Pure. The same forms serve the routes and webhooks, so a webhook says what `/status` would. URLs are made afresh each
time by `url(key, filename)`. Knows nothing of HTTP.
"""

import base64
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from serve_app.audio import wav_file
from serve_app.domain import SAMPLE_RATE_HZ, JobState
from serve_app.job_pieces import JobPiece
from serve_app.jobs import AudioRecord, ErrorRecord, JobOutcome, JobStatus
from serve_app.jobs.status import removed_at

__all__ = [
    "NO_TIMINGS",
    "RUNPOD_STATES",
    "UrlOf",
    "event_id",
    "iso_time",
    "job_form",
    "native_form",
    "piece_form",
    "reason_of",
    "runpod_form",
    "speech_output",
]

UrlOf = Callable[[str, str], str]
"""From the key of an object and the name that it is saved under to a URL at which whoever has it can read it."""

RUNPOD_STATES: Mapping[JobState, str] = {
    "queued": "IN_QUEUE",
    "in_progress": "IN_PROGRESS",
    "completed": "COMPLETED",
    "failed": "FAILED",
    "cancelled": "CANCELLED",
    "expired": "TIMED_OUT",
}
NO_TIMINGS = "word timings are not served by this version: timing_files and word_timings are empty"


def job_form(status: JobStatus, url: UrlOf) -> dict[str, Any]:
    """The job as the dialect has it that it was sent in: the body of its webhook."""
    return native_form(status, url) if status.request.dialect == "native" else runpod_form(status, url)


def runpod_form(status: JobStatus, url: UrlOf, position: int | None = None) -> dict[str, Any]:
    """RunPod's answer to /status: `id, status, delayTime, executionTime` (ms) and `output` or `error`; and ours."""
    request, found, outcome = status.request, status.standing, status.outcome
    answer: dict[str, Any] = {"id": request.job_id, "status": RUNPOD_STATES[status.state]}
    if (started_at := _started_at(status)) is not None:
        answer["delayTime"] = _ms(started_at - request.accepted_at)
    answer |= {"attempts": found.run, "retries": max(0, found.run - 1)}
    if outcome is None:
        if status.state == "queued" and position is not None:
            answer["queuePosition"] = position
        if status.state == "in_progress" and found.units:
            answer["progress"] = {"units_done": found.units_done, "units": found.units}
        return answer
    answer["executionTime"] = _ms(outcome.finished_at - outcome.started_at)
    if outcome.state == "completed":
        return answer | {"output": speech_output(status, url)}
    error = _error(status, outcome)
    return answer | {"error": error["message"], **error}  # its SDK reads `error` as a string


def speech_output(status: JobStatus, url: UrlOf) -> dict[str, Any]:
    """What a completed job answers: the fields of the replaced worker's second form, with the `job_id` that its first
    form polls, and ours."""
    outcome, audio = status.outcome, _audio(status)
    assert outcome is not None
    text = status.request.speech.text
    return {
        "audio_url": url(audio.key, f"{outcome.job_id}.wav"),
        "duration": round(audio.duration_s, 3),
        "text": text,
        "status": "completed",
        "job_id": outcome.job_id,
        "seed": outcome.seed,
        "timing_files": {},
        "timing_format": None,
        "timing_method": None,
        "word_count": len(text.split()),
        "timing_confidence": None,
        "model": outcome.model,
        "draft": outcome.draft,
        "cached": outcome.cached,
        "warnings": [NO_TIMINGS],
    }


def piece_form(piece: JobPiece) -> dict[str, Any]:
    """A piece of a job's audio: a WAV of its own."""
    return {
        "audio": base64.b64encode(wav_file(piece.samples)).decode(),
        "content_type": "audio/wav",
        "start_s": piece.begins_at / SAMPLE_RATE_HZ,
        "duration_s": len(piece.samples) / SAMPLE_RATE_HZ,
        "index": piece.index,
    }


def native_form(status: JobStatus, url: UrlOf, position: int | None = None) -> dict[str, Any]:
    """Our own form: every field is always there, null where it does not apply."""
    request, found, outcome = status.request, status.standing, status.outcome
    started_at = _started_at(status)
    ended = outcome is not None
    completed = outcome is not None and outcome.state == "completed"
    return {
        "id": request.job_id,
        "state": status.state,
        "model": request.speech.model,
        "voice": request.speech.voice.name,
        "seed": request.speech.seed,
        "created_at": _time(request.accepted_at),
        "started_at": _time(started_at),
        "finished_at": _time(outcome.finished_at if outcome else None),
        "expires_at": _time(removed_at(outcome, found) if outcome else None),
        "delay_s": None if started_at is None else _seconds(started_at - request.accepted_at),
        "execution_s": _seconds(outcome.finished_at - outcome.started_at) if outcome else None,
        "attempts": found.run,
        "units_done": outcome.units if outcome and completed else found.units_done,
        "units": (outcome.units if outcome and completed else found.units) or None,
        "queue_position": None if ended else position,
        "error": None if outcome is None or completed else _error(status, outcome),
        "cached": outcome.cached if outcome and completed else None,
        "made_by": (outcome.made_by or None) if outcome else None,
        "draft": outcome.draft if outcome and completed else None,
        "audio": _audio_form(status, url) if completed else None,
    }


def event_id(status: JobStatus) -> str:
    """Of what a client has seen of a job: equal ids say the same. Of an end it is made of the outcome alone."""
    found, outcome = status.standing, status.outcome
    if outcome is not None:
        return f"{outcome.generation}-{outcome.run}-{outcome.units}-{outcome.state}"
    return f"{found.generation}-{found.run}-{found.units_done}-{status.state}"


def reason_of(outcome: JobOutcome) -> str:
    """Why it did not complete; a record of an older version may not say it."""
    return outcome.error.message if outcome.error else "no reason is recorded"


def iso_time(ms: int) -> str:
    """ISO 8601 in UTC of Unix milliseconds."""
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def _audio(status: JobStatus) -> AudioRecord:
    assert status.outcome is not None
    assert status.outcome.audio is not None
    return status.outcome.audio


def _audio_form(status: JobStatus, url: UrlOf) -> dict[str, Any]:
    audio = _audio(status)
    return {
        "url": url(audio.key, f"{status.request.job_id}.wav"),
        "content_type": audio.content_type,
        "duration_s": round(audio.duration_s, 3),
        "size_bytes": audio.size_bytes,
        "sha256": audio.sha256,
    }


def _error(status: JobStatus, outcome: JobOutcome) -> dict[str, str]:
    """The four fields of every error; a record of an older version may have none."""
    error = outcome.error or ErrorRecord(type="server_error", code=outcome.state, message=f"the job is {outcome.state}")
    return error.model_dump() | {"request_id": status.request.speech.request_id}


def _started_at(status: JobStatus) -> float | None:
    """When its last run began; one that ended without a run (found among the results, cancelled) began at its end."""
    if status.run is not None:
        return status.run.started_at
    return status.outcome.started_at if status.outcome else None


def _time(at: float | None) -> str | None:
    return None if at is None else iso_time(int(1000 * at))  # as markers and lists have it


def _seconds(seconds: float) -> float:
    return max(0.0, round(seconds, 3))


def _ms(seconds: float) -> int:
    return max(0, round(1000 * seconds))
