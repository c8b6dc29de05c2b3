"""Whatever clients and time do: audio that a live job names is there, and in the end nothing is left behind."""

import contextlib
import hashlib
from dataclasses import replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from serve_app import keys
from serve_app.errors import Conflict, JobExpired, JobNotFound
from serve_app.jobs import Collector, JobRef, JobStatus, Results
from serve_app.jobs.collector import GRACE_S, TOMBSTONE_S
from serve_app.storage import MemoryStore
from tests.support.interleaving import Crash, Crashing, contents
from tests.support.jobs import NOTHING_OLDER, Clock, job_request, job_store, speak_now

HOUSEHOLD = {
    "voices/anna.wav": b"v",
    "prepared/anna/1.wav": b"p",
    "models/f5/x": b"m",
    "output/old.wav": b"o",
    **NOTHING_OLDER,
}
NUMBERS = st.integers(0, 30)
DAY_S = 86_400.0


class Retention(RuleBasedStateMachine):
    """Clients, replicas and a collector take turns on one store."""

    @initialize()
    def begin(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(now=self.clock.date)
        for key, body in HOUSEHOLD.items():
            self.store.put(key, body, content_type="x/y")
        self.jobs = job_store(self.store, self.clock)
        self.refs: list[JobRef] = []

    def status(self, ref: JobRef) -> JobStatus | None:
        try:
            return self.jobs.status(ref)
        except (JobExpired, JobNotFound):
            return None

    def one(self, number: int) -> JobRef:
        return self.refs[number % len(self.refs)]

    @rule(
        text=st.sampled_from(["One.", "Two."]),
        kept_s=st.sampled_from([1.0, 1800.0, 2 * DAY_S, 9 * DAY_S]),
        seeded=st.booleans(),
        cache=st.booleans(),
        worker_output=st.booleans(),
    )
    def submit(self, text: str, kept_s: float, seeded: bool, cache: bool, worker_output: bool) -> None:
        request = job_request(
            len(self.refs) * 7 + 1, accepted_at=self.clock.wall(), retention_s=kept_s, seeded=seeded, cache=cache,
            worker_output=worker_output, audio_s=40.0, webhook="https://client.example/hook",
        )  # fmt: skip
        speech = replace(request.speech, text=text, model_version="test")
        self.jobs.submit(request.model_copy(update={"speech": speech}))
        self.refs.append(request.ref)

    @precondition(lambda self: self.refs)
    @rule(number=NUMBERS)
    def speak(self, number: int) -> None:
        status = self.status(self.one(number))
        if status is not None and status.outcome is None:
            speak_now(self.store, self.clock, status.request.ref, status.request.speech.text.encode())

    @precondition(lambda self: self.refs)
    @rule(number=NUMBERS)
    def store_audio_and_no_more(self, number: int) -> None:
        """A run that was killed, or is in the middle."""
        status = self.status(self.one(number))
        if status is not None and status.outcome is None:
            wav = status.request.speech.text.encode()
            sha256 = hashlib.sha256(wav).hexdigest()
            Results(self.store, self.clock.wall).store_audio(status.request, wav, sha256, "audio/wav", 1.0)

    @precondition(lambda self: self.refs)
    @rule(number=NUMBERS)
    def fail(self, number: int) -> None:
        status = self.status(self.one(number))
        if status is not None and status.outcome is None:
            self.jobs.settle(status.request, self.jobs.finish(self.jobs.ended(status, "failed", None)))

    @precondition(lambda self: self.refs)
    @rule(number=NUMBERS)
    def cancel(self, number: int) -> None:
        if self.status(self.one(number)) is not None:
            self.jobs.cancel(self.one(number))

    @precondition(lambda self: self.refs)
    @rule(number=NUMBERS)
    def retry(self, number: int) -> None:
        if self.status(self.one(number)) is not None:
            with contextlib.suppress(Conflict):
                self.jobs.retry(self.one(number))

    @precondition(lambda self: self.refs)
    @rule(number=NUMBERS, kept_s=st.sampled_from([0.0, 60.0, DAY_S]))
    def shorten(self, number: int, kept_s: float) -> None:
        status = self.status(self.one(number))
        if status is not None and status.outcome is not None:
            self.jobs.shorten(status.request, self.clock.wall() + kept_s, status.standing.generation)

    @rule(seconds=st.sampled_from([0.0004, 30.0, GRACE_S, DAY_S, 8 * DAY_S, TOMBSTONE_S]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(shards=st.sets(st.sampled_from(keys.SHARDS), min_size=1))
    def collect(self, shards: set[str]) -> None:
        for shard in sorted(shards):
            Collector(self.store, self.clock.wall).collect(shard, limit=3)

    @rule(shard=st.sampled_from(keys.SHARDS), at=st.integers(0, 12))
    def collect_and_be_killed(self, shard: str, at: int) -> None:
        """In the middle of what it removes."""
        with contextlib.suppress(Crash):
            Collector(Crashing(self.store, at), self.clock.wall).collect(shard, limit=3)

    @invariant()
    def completed_jobs_have_their_audio(self) -> None:
        for ref in getattr(self, "refs", ()):
            status = self.status(ref)
            if status is not None and status.state == "completed":
                audio = status.outcome.audio
                assert hashlib.sha256(self.store.get(audio.key).body).hexdigest() == audio.sha256
                if status.request.worker_output:
                    assert self.store.head(keys.worker_output("default", ref.job_id))

    @invariant()
    def voices_and_models_are_as_they_were(self) -> None:
        if hasattr(self, "store"):
            assert HOUSEHOLD.items() <= contents(self.store).items()

    def teardown(self) -> None:
        if not hasattr(self, "store"):
            return
        for ref in self.refs:
            if self.status(ref) is not None:
                self.jobs.cancel(ref)
        for _ in range(4):
            self.clock.now += TOMBSTONE_S + 10 * DAY_S
            for shard in keys.SHARDS:
                while Collector(self.store, self.clock.wall).collect(shard):
                    pass
        assert contents(self.store) == HOUSEHOLD


Retention.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestRetention = Retention.TestCase
