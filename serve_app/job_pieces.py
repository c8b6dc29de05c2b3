"""The audio of a job in pieces, each handed out once, also while it is still spoken.

    kept units, from the first on -> cross-fade -> what no later unit can change  |  the audio of a job that completed
        -> what lies behind what was handed out -> said so in the store -> pieces

Together the pieces are the samples of the job's audio. `streamed-...` records in the job's folder say how far it was
handed out, so that any process goes on; they go with the job. What was handed out from kept units is compared with the
audio at the end: where these differ (the model was updated in mid-job, and spoke the text again) the pieces begin anew.
Knows nothing of HTTP, and reaches neither models nor whoever runs the job.
"""

import secrets
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from pydantic import Field

from serve_app import keys, logs
from serve_app.audio import BYTES_PER_SAMPLE, WAV_HEADER_BYTES, CrossFader, Int16, to_int16
from serve_app.domain import SAMPLE_RATE_HZ, version_of
from serve_app.jobs import AudioRecord, JobRef, JobRequest, JobStatus, JobStore
from serve_app.jobs.folders import JobFolders
from serve_app.jobs.kept import KeptIndex, KeptReader, KeptUnit
from serve_app.jobs.progress import keeps_progress
from serve_app.jobs.records import Record
from serve_app.jobs.states import STREAMED, streamed_name
from serve_app.storage import FileStore, ObjectStore

__all__ = ["PIECES", "PIECE_S", "JobPiece", "JobPieces", "Taken"]

PIECE_S = 10
PIECES = 6
"""At most at once: 3.8 MB in base64."""
PIECE_SAMPLES = PIECE_S * SAMPLE_RATE_HZ
MOST_SAMPLES = PIECES * PIECE_SAMPLES
LOOKS = 3
"""Where others take pieces of the same job at the same time."""
NOTHING: Int16 = np.zeros(0, "<i2")


@dataclass(frozen=True, slots=True)
class JobPiece:
    """`index`: 0 is the first; `begins_at`: of the whole, in samples at 24 kHz. `samples`: 16 bit."""

    index: int
    begins_at: int
    samples: Int16 = field(repr=False)


@dataclass(frozen=True, slots=True)
class Taken:
    """`ended`: nothing was left behind these pieces, and this is who was told so first."""

    pieces: Sequence[JobPiece] = ()
    ended: bool = False


class HandedOut(Record):
    """How far it was handed out, in `samples` and `pieces`, which are the last. `crc32`: of all those samples.

    Of a job that is still spoken: `unit` is the first that goes on behind them, `unit_at` the sample at which it
    begins, with the pause before it; nothing more is sure until there is the unit `waits_for`; `version` spoke them
    all. `complete`: they are those of the audio as it was stored. `token`: tells two writers apart.
    """

    samples: int = 0
    pieces: int = 0
    crc32: int = 0
    unit: int = 0
    unit_at: int = 0
    waits_for: int = 0
    version: str = ""
    complete: bool = False
    token: str = Field(default_factory=lambda: secrets.token_hex(8))

    def then(self, samples: Int16, **changes: object) -> "HandedOut":
        """After these samples, too."""
        told = {
            "samples": self.samples + len(samples),
            "pieces": self.pieces + -(-len(samples) // PIECE_SAMPLES),
            "crc32": zlib.crc32(samples.tobytes(), self.crc32),
            "token": secrets.token_hex(8),
        }
        return self.model_copy(update=told | changes)


class JobPieces:
    """Blocks on the store. `exclusive`: see JobStore; without it two who ask at once may be given the same."""

    def __init__(self, store: ObjectStore, jobs: JobStore, *, exclusive: bool = False) -> None:
        self._store = store
        self._jobs = jobs
        self._folders = JobFolders(store, exclusive=exclusive)
        self._index = KeptIndex()

    def take(self, status: JobStatus) -> Taken:
        """The next pieces of a job that completed or is not ended; none while nothing new is sure."""
        ref, audio = status.request.ref, status.outcome.audio if status.outcome else None
        for _ in range(LOOKS):
            names = self._streamed(ref)
            if STREAMED in names:
                break
            start, so_far = self._so_far(ref, names)
            if audio is not None and not self._is_in(audio, so_far):
                logs.event("stream_begins_anew", job_id=ref.job_id, handed_out_s=so_far.samples / SAMPLE_RATE_HZ)
                start, so_far = start + 1, _none(ref)
            samples, then = self._of_audio(audio, so_far) if audio else self._of_kept(status.request, so_far)
            ends = audio is not None and then.samples == _samples_of(audio)
            if not len(samples):
                return Taken(ended=ends and self._jobs.hand_out(ref))
            if self._folders.write_once(ref, streamed_name(start, so_far.samples), then):
                logs.event("pieces_handed_out", job_id=ref.job_id, handed_out_s=then.samples / SAMPLE_RATE_HZ)
                return Taken([*_pieces(samples, so_far)], ended=ends and self._jobs.hand_out(ref))
        return Taken()

    def _streamed(self, ref: JobRef) -> list[str]:
        prefix, after, names = keys.job(ref.tenant, ref.job_id), "", list[str]()
        while True:
            page = self._store.list(f"{prefix}streamed", after=after)
            names += [info.key.removeprefix(prefix) for info in page.items]
            if page.next_after is None:
                return names
            after = page.next_after

    def _so_far(self, ref: JobRef, names: Sequence[str]) -> tuple[int, HandedOut]:
        """How often it began anew, and how far it has come since."""
        if not names:
            return 0, _none(ref)
        last = max(names)
        return int(last.split("-")[1]), self._folders.read(ref, last, HandedOut)

    def _is_in(self, audio: AudioRecord, so_far: HandedOut) -> bool:
        """Whether what was handed out is how this audio begins; each block of it is read once, and none is kept."""
        if so_far.complete or so_far.samples == 0:
            return True
        if so_far.samples > _samples_of(audio):
            return False
        crc32 = 0
        for block in self._read(audio, 0, so_far.samples):
            crc32 = zlib.crc32(block, crc32)
        return crc32 == so_far.crc32

    def _of_audio(self, audio: AudioRecord, so_far: HandedOut) -> tuple[Int16, HandedOut]:
        most = min(MOST_SAMPLES, _samples_of(audio) - so_far.samples)
        samples: Int16 = np.frombuffer(b"".join(self._read(audio, so_far.samples, most)), "<i2") if most else NOTHING
        return samples, so_far.then(samples, complete=True)

    def _of_kept(self, request: JobRequest, so_far: HandedOut) -> tuple[Int16, HandedOut]:
        """What is sure of the units that are kept, spoken by one version of the model, without a gap from the first on.

        The samples behind the end of one unit depend on later units alone, so no more is read than from there on.
        """
        overlap_s = request.speech.cross_fade_s
        if overlap_s is None or not keeps_progress(request):  # a job of a version before; one that is short
            return NOTHING, so_far
        reader = KeptReader(self._store, self._index)
        units, fader, version = reader.units(request.ref), CrossFader(overlap_s), so_far.version
        if _of_version(version, units.get(so_far.waits_for)) is None:
            return NOTHING, so_far
        waves, left = [np.zeros(0, np.float32)], so_far.samples - so_far.unit_at + MOST_SAMPLES
        spans: list[tuple[int, int, int]] = []
        for index in count(so_far.unit):
            unit = _of_version(version, units.get(index))
            if left <= 0 or unit is None or (wave := reader.wave(unit)) is None:
                break
            version = version_of(unit.made_by)
            waves.append(fader.add(wave, unit.pause_s))
            left -= len(waves[-1])
            begins_at = so_far.unit_at + fader.begins_at
            spans.append((index, begins_at - round(unit.pause_s * SAMPLE_RATE_HZ), begins_at + len(wave)))
        sure = np.concatenate(waves)[so_far.samples - so_far.unit_at :]
        if not len(sure):
            return NOTHING, so_far
        samples = to_int16(sure[:MOST_SAMPLES])
        end = so_far.samples + len(samples)
        index, unit_at, _ = next((span for span in spans if span[2] > end), spans[-1])
        waits_for = spans[-1][0] + 1 if len(samples) == len(sure) else index
        return samples, so_far.then(samples, unit=index, unit_at=unit_at, waits_for=waits_for, version=version)

    def _read(self, audio: AudioRecord, begin: int, samples: int) -> Iterator[bytes]:
        """The bytes of so many samples from `begin` on."""
        assert isinstance(self._store, FileStore)  # as every store is
        left = samples * BYTES_PER_SAMPLE
        for block in self._store.read(audio.key, start=WAV_HEADER_BYTES + begin * BYTES_PER_SAMPLE):
            yield block[:left]
            left -= len(block)
            if left <= 0:
                return


def _of_version(version: str, unit: KeptUnit | None) -> KeptUnit | None:
    """This unit, where there is one and this version spoke it ("": any)."""
    return None if unit is None or version not in ("", version_of(unit.made_by)) else unit


def _none(ref: JobRef) -> HandedOut:
    return HandedOut(tenant=ref.tenant, job_id=ref.job_id)


def _samples_of(audio: AudioRecord) -> int:
    return (audio.size_bytes - WAV_HEADER_BYTES) // BYTES_PER_SAMPLE


def _pieces(samples: Int16, so_far: HandedOut) -> Iterator[JobPiece]:
    for number, begin in enumerate(range(0, len(samples), PIECE_SAMPLES)):
        yield JobPiece(so_far.pieces + number, so_far.samples + begin, samples[begin : begin + PIECE_SAMPLES])
