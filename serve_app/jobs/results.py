"""What jobs have spoken, found again by what made it; the audio itself is `audio`'s.

    results/{digest}.v1.json           what was spoken for a request: text, plan, voice version, what spoke, parameters
    jobs/{shard}/{id}/speech-{digest}.v1   such a result belongs to no job, but to speech that was asked for at once

What made the audio is part of the digest (`SpokenUnit.made_by`: model version, precision, attention path), so nothing
is served that the models of now would not say.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict

from serve_app import keys, logs
from serve_app.domain import Speech, SpeechRequest, VoiceRef
from serve_app.errors import ObjectCorrupt, ObjectNotFound
from serve_app.jobs.audio import JobAudio
from serve_app.jobs.lists import JobLists
from serve_app.jobs.records import AudioRecord, JobOutcome, JobRef, JobRequest, Record
from serve_app.planning import PLAN_VERSION
from serve_app.storage import ObjectStore

__all__ = ["ResultRecord", "Results", "digest"]

JSON = "application/json"
NEARLY_REMOVED_S = 60.0
"""A result that is removed so soon is not handed on: whoever finds it needs time to name it."""


class ResultRecord(Record):
    """What job `job_id` spoke, and until when (Unix seconds) it is kept."""

    audio: AudioRecord
    draft: bool
    units: int
    made_by: str
    expires_at: float


class Results:
    """Blocks on the store. `wall_clock`: Unix seconds."""

    def __init__(self, store: ObjectStore, wall_clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._wall_clock = wall_clock
        self._lists = JobLists(store)
        self._audio = JobAudio(store, wall_clock)

    def store_audio(
        self, request: JobRequest, body: bytes, sha256: str, content_type: str, duration_s: float
    ) -> AudioRecord:
        """Write the spoken audio under its content's name, and where the replaced worker's users look for it."""
        audio = AudioRecord(
            key=keys.audio(request.tenant, self._audio.name(request.ref, sha256)),
            sha256=sha256,
            content_type=content_type,
            size_bytes=len(body),
            duration_s=duration_s,
        )
        self._store.put(audio.key, body, content_type=content_type)
        if request.worker_output:
            self._store.put(keys.worker_output(request.tenant, request.job_id), body, content_type=content_type)
        return audio

    def remember(self, request: JobRequest, outcome: JobOutcome) -> None:
        """Let later requests have what this one spoke, unless its client asked for no cache."""
        if not request.cache or not outcome.made_by or outcome.audio is None:
            return
        record = ResultRecord(
            tenant=request.tenant,
            job_id=request.job_id,
            audio=outcome.audio,
            draft=outcome.draft,
            units=outcome.units,
            made_by=outcome.made_by,
            expires_at=outcome.removed_at,
        )
        key = keys.result(request.tenant, outcome.result_digest or digest(request.speech, outcome.made_by))
        self._store.put(key, record.model_dump_json().encode(), content_type=JSON)

    def find(self, request: JobRequest) -> ResultRecord | None:
        """What was spoken for an equal request by what was deployed at its acceptance; this job then names it too."""
        if not (request.cache and request.seeded) or request.speech.model_version is None:
            return None
        try:
            key = keys.result(request.tenant, digest(request.speech, request.speech.model_version))
            record = ResultRecord.model_validate_json(self._store.get(key).body)
            if self._is_nearly_removed(record):
                return None
            if not self._audio.refer(request.ref, record.audio.name):  # before it is looked for: see `audio`
                return None
            if request.worker_output:
                body = self._store.get(record.audio.key).body
                key = keys.worker_output(request.tenant, request.job_id)
                self._store.put(key, body, content_type=record.audio.content_type)
            else:
                self._store.head(record.audio.key)
        except ObjectNotFound:
            return None
        except (ObjectCorrupt, ValueError) as error:
            logs.failure("result_not_readable", error, job_id=request.job_id)
            return None
        return record

    def read(self, speech: SpeechRequest) -> tuple[ResultRecord, bytes] | None:
        """What was spoken for an equal request, with its audio, for one who needs it now and names nothing."""
        if speech.model_version is None:
            return None
        try:
            key = keys.result(speech.tenant, digest(speech, speech.model_version))
            record = ResultRecord.model_validate_json(self._store.get(key).body)
            return None if self._is_nearly_removed(record) else (record, self._store.get(record.audio.key).body)
        except ObjectNotFound:
            return None
        except (ObjectCorrupt, ValueError) as error:
            logs.failure("result_not_readable", error, request_id=speech.request_id)
            return None

    def keep(self, ref: JobRef, request: SpeechRequest, speech: Speech, wav: bytes, retention_s: float) -> None:
        """Let later requests have speech that no job asked for; `ref` is an id of its own, and `wav` what was said."""
        if not speech.made_by:
            return
        sha256, of = hashlib.sha256(wav).hexdigest(), digest(request, speech.made_by)
        expires_at = self._wall_clock() + retention_s
        self._lists.expire(ref, expires_at)  # first, so that nothing is kept that nobody removes
        self._store.put(keys.job(ref.tenant, ref.job_id, f"speech-{of}.v1"), b"", content_type=JSON)
        audio = AudioRecord(
            key=keys.audio(ref.tenant, self._audio.name(ref, sha256)),
            sha256=sha256,
            content_type="audio/wav",
            size_bytes=len(wav),
            duration_s=speech.duration_s,
        )
        self._store.put(audio.key, wav, content_type=audio.content_type)
        record = ResultRecord(
            tenant=ref.tenant,
            job_id=ref.job_id,
            audio=audio,
            draft=speech.draft,
            units=speech.units,
            made_by=speech.made_by,
            expires_at=expires_at,
        )
        self._store.put(keys.result(ref.tenant, of), record.model_dump_json().encode(), content_type=JSON)

    def _is_nearly_removed(self, record: ResultRecord) -> bool:
        return record.expires_at <= self._wall_clock() + NEARLY_REMOVED_S

    def forget(self, ref: JobRef, of: str) -> None:
        """What the job spoke for requests of this digest is not found by later ones."""
        key = keys.result(ref.tenant, of)
        try:
            mine = json.loads(self._store.get(key).body)["job_id"] == ref.job_id
        except ObjectNotFound:
            return
        except (ObjectCorrupt, ValueError, KeyError, TypeError):
            mine = True  # it is of no use to anybody
        if mine:
            self._store.delete(key)


def digest(speech: SpeechRequest, made_by: str) -> str:
    """Of all that decides the audio; equal digests have equal audio."""
    decides = {
        "text": speech.text,
        "plan": PLAN_VERSION,
        "model": speech.model,
        "made_by": made_by,
        "voice": _identity(speech.voice),
        "voices": {name: _identity(ref) for name, ref in speech.voices.items()},
        "speed": speech.speed,
        "seed": speech.seed,
        "sampling": asdict(speech.sampling) if speech.sampling else None,
        "cross_fade_s": speech.cross_fade_s,
        "language": speech.language,
        "languages": speech.languages,
        "normalize": speech.normalize,
        "lexicon": speech.lexicon,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _identity(voice: VoiceRef) -> tuple[str, str]:
    """Two stored voices with one version are one recording, whatever they are called."""
    return (voice.name if voice.builtin else "", voice.version)
