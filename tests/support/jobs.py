"""A job runner on a memory store with injected clocks, and what stands in for the speaker."""

import asyncio
from datetime import UTC, datetime
from hashlib import sha256

import numpy as np

from serve_app import keys
from serve_app.domain import BUILTIN, SAMPLE_RATE_HZ, Speech, SpeechRequest, SpokenUnit, Unit, VoiceRef
from serve_app.job_runner import JobRunner, RunnerSettings
from serve_app.jobs import OUTCOMES, ErrorRecord, JobOutcome, JobRef, JobRequest, JobStore, Marker, Results, RunEnd
from serve_app.storage import MemoryStore, ObjectStore
from serve_app.unit_speech import NO_PROGRESS, Progress

JOB_ID = "01939f00-0000-7000-8000-00000000000a"
NOTHING_OLDER = {keys.named(shard): b"" for shard in keys.SHARDS}
"""What lies in a store where all jobs name their audio, so that it may be removed."""
REF = JobRef(tenant="default", job_id=JOB_ID)
STARTED_AT = 200.0
"""What the wall clock says when the monotonic clock says 0."""


def lists_of(store: ObjectStore, job_id: str = "", *, whole: bool = True) -> list[str]:
    """What the entries of a job, or of all jobs of the default tenant, say, sorted. What has ended has two of them, if
    `whole`; in the middle of a crash it may have one."""
    entries = [info.key.split("/")[1:] for info in store.list("lists/").items if job_id in info.key]
    alone = sorted(f"{name}.{listing}" for listing, name in entries if listing in OUTCOMES)
    ended = sorted(name for listing, name in entries if listing == "ended")
    assert alone == ended or not whole
    first = [listing for listing, _ in entries if listing in ("open", "begun")]
    return sorted(first + [name.rpartition(".")[2] for name in ended])


def runner_settings(replica_id: str = "a", **changes: float) -> RunnerSettings:
    values = {"max_running_jobs": 2, "max_runs": 3, "heartbeat_s": 1.0, "dead_after_s": 5.0, "sweep_s": 1.0}
    return RunnerSettings(replica_id=replica_id, **(values | changes))


class Clock:
    """A monotonic clock that the test moves; `wall` moves with it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return STARTED_AT + self.now

    def date(self) -> datetime:
        return datetime.fromtimestamp(self.wall(), UTC)


class Speak:
    """Stands in for the speaker: counts calls, fails as told, waits at a gate."""

    def __init__(self, *errors: Exception | None, made_by: str = "test") -> None:
        self.requests: list[SpeechRequest] = []
        self.errors = list(errors)
        self.made_by = made_by
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, request: SpeechRequest, progress: Progress = NO_PROGRESS) -> Speech:
        self.requests.append(request)
        await self.gate.wait()
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        audio = np.full(SAMPLE_RATE_HZ, (request.seed % 100) / 1000, np.float32)
        return Speech(audio, request.model, request.seed, draft=True, units=1, made_by=self.made_by)


class SpeakUnits:
    """Stands in for the speaker of a text of `count` units, one after another: says which were spoken, and how.

    `fail` is asked for each unit, and what it returns is raised; at `stuck_at` it goes no further.
    """

    def __init__(self, count: int = 4, fail=lambda unit: None, stuck_at: int | None = None) -> None:
        self.count, self.fail, self.stuck_at = count, fail, stuck_at
        self.spoken: list[int] = []
        self.alone: list[int] = []
        self.stuck = False

    async def __call__(self, request: SpeechRequest, progress: Progress = NO_PROGRESS) -> Speech:
        units = [unit_of(request, index) for index in range(self.count)]
        audio = {index: each.audio for index, each in (await progress.planned(units)).items()}
        for unit in units:
            if unit.index in audio:
                continue
            if progress.is_suspect(unit):
                self.alone.append(unit.index)
            if (error := self.fail(unit)) is not None:
                raise error
            if unit.index == self.stuck_at:
                self.stuck = True
                await asyncio.Event().wait()
            self.spoken.append(unit.index)
            audio[unit.index] = samples_of(unit)
            await progress.spoken(unit, SpokenUnit(audio[unit.index], "test"))
        joined = np.concatenate([audio[unit.index] for unit in units])
        return Speech(joined, request.model, request.seed, draft=False, units=self.count, made_by="test")


def unit_of(request: SpeechRequest, index: int, seed: int = 0) -> Unit:
    text = f"{request.text} {index}"
    return Unit(index, text, request.voice, request.speed, seed + index, 100, request.request_id, request.job_id)


def samples_of(unit: Unit) -> np.ndarray:
    """Noise that only this seed makes, no round numbers."""
    return np.random.default_rng(unit.seed).uniform(-0.5, 0.5, 240).astype(np.float32)


def job_id_of(number: int) -> str:
    return f"01939f00-0000-7000-8000-{number:012x}"


def job_request(number: int = 0xA, tenant: str = "default", text: str = "Hello.", **changes: object) -> JobRequest:
    """A job as it was accepted at 100 s."""
    job_id = job_id_of(number)
    speech = SpeechRequest(text, "preview", VoiceRef("heart", BUILTIN), 1.0, 7, "r1", tenant=tenant, job_id=job_id)
    known = {"tenant": tenant, "job_id": job_id, "accepted_at": 100.0, "dialect": "runpod", "speech": speech}
    return JobRequest(**(known | changes))


def job_outcome(state: str, run: int = 1, **changes: object) -> JobOutcome:
    known = {"job_id": JOB_ID, "started_at": 101.0, "finished_at": 102.0, "model": "preview", "seed": 7}
    return JobOutcome(**(known | {"state": state, "run": run} | changes))


def nothing_older(store: MemoryStore) -> MemoryStore:
    """No job of an older version lies there: audio may be removed."""
    for key, body in NOTHING_OLDER.items():
        store.put(key, body, content_type="application/json")
    return store


def job_store(store: ObjectStore, clock: Clock | None = None, *, exclusive: bool = False) -> JobStore:
    return JobStore(store, exclusive=exclusive, wall_clock=(clock or Clock()).wall)


def submit(store: ObjectStore, number: int = 0xA, tenant: str = "default", **changes: object) -> JobRef:
    request = job_request(number, tenant, **changes)
    job_store(store).submit(request)
    return request.ref


def model_refused(at: float, error: Exception, ref: JobRef = REF) -> RunEnd:
    """A run ended `at` (Unix seconds) for a model or a store that takes nothing; the next one begins in a minute."""
    record = ErrorRecord.of(error)
    return RunEnd(job_id=ref.job_id, run=1, reason="waiting", ended_at=at, not_before=at + 60.0, error=record)


def told(store: ObjectStore, ref: JobRef) -> Marker:
    """What an ingress tells a Jobs replica of a job that it has accepted: the marker that lies in the store."""
    return next(marker for marker in job_store(store).markers.all(ref.job_id[-1]) if marker.ref == ref)


def runner(
    store: ObjectStore, speak, clock: Clock | None = None, name: str = "a", *, exclusive: bool = False, **changes: float
) -> JobRunner:
    clock = clock or Clock()
    settings = runner_settings(name, **changes)
    return JobRunner(store, speak, settings, clock, clock.wall, no_pause, exclusive=exclusive)


PAUSES: list[float] = []


async def no_pause(seconds: float) -> None:
    PAUSES.append(seconds)
    await asyncio.sleep(0)


async def finish(store: ObjectStore, r: JobRunner, ref: JobRef) -> str:
    """The state of the job when this replica is done with it."""
    await r.wait(ref)
    return JobStore(store, wall_clock=r._executor._wall_clock).status(ref).state


async def until(happened) -> None:
    """Let the others go on until `happened()`."""
    while not happened():
        await asyncio.sleep(0)


async def kill(r: JobRunner) -> None:
    """End a replica in mid-job as kill -9 does: nothing more is written."""
    tasks = dict(r._tasks)
    for ref, task in tasks.items():
        r._executor.ended_elsewhere(ref)
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


def speak_now(store: ObjectStore, clock: Clock, ref: JobRef, wav: bytes, made_by: str = "test") -> JobOutcome:
    """End a job as an executor does, with `wav` or with what was spoken for an equal request before."""
    jobs, results = job_store(store, clock), Results(store, clock.wall)
    status = jobs.status(ref)
    if (found := results.find(status.request)) is not None:
        ended = jobs.completed(status, found.audio, found.draft, found.units, found.made_by, cached=True)
    else:
        audio = results.store_audio(status.request, wav, sha256(wav).hexdigest(), "audio/wav", 1.0)
        ended = jobs.completed(status, audio, False, 1, made_by)
    counts = jobs.finish(ended)
    if counts == ended and not ended.cached:
        results.remember(status.request, ended)
    jobs.settle(status.request, counts)
    return counts
