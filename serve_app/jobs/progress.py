"""What a run has spoken so far, kept in the store so that the next run need not speak it again.

    jobs/{shard}/{id}/progress-{run}-{number}-{done}-of-{units}.v1.npz

Each object holds the units that were finished since the one before, every few seconds of audio or of time: the
waveforms as they were (so that audio made of restored units is the same to the byte), under the index of the unit and a
digest of all that it is spoken with; and the pauses before them. A unit whose digest is another one (the plan changed
with the version) is spoken anew. `kept` reads them for listeners.
"""

import asyncio
import hashlib
import io
import time
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import NamedTuple
from zipfile import BadZipFile

import numpy as np

from serve_app import keys, logs
from serve_app.domain import SAMPLE_RATE_HZ, SpokenUnit, Unit
from serve_app.errors import ObjectCorrupt, ObjectNotFound, ServiceError
from serve_app.jobs.records import JobRef, JobRequest
from serve_app.patience import Patience, patiently
from serve_app.storage import ObjectStore

__all__ = ["KEEP_FROM_S", "PAUSES", "UNREADABLE", "KeptProgress", "drop_progress", "keeps_progress"]

KEEP_FROM_S = 30.0
"""Planned seconds from which on a job's units are kept: less is spoken again in no time."""
FLUSH_S = 5.0
FLUSH_BYTES = 1024 * 1024
"""11 s of audio: a store that is given little at a time has no moments in which it answers nobody else."""
OBJECTS = 100
"""Of a long job each holds this share at least, and FLUSH_S counts for no more: whoever asks how it is lists them."""
BYTES_PER_S = 4 * SAMPLE_RATE_HZ
PAUSES = "-1 pauses -"
"""Beside the waveforms: (units, 2), the index and the pause before it in seconds. The version before this one reads it
as a unit of no plan, and passes it over; where it is missing there were no pauses."""
UNREADABLE = (ObjectNotFound, ObjectCorrupt, ValueError, EOFError, BadZipFile, zlib.error)
"""What reading kept units may raise where they are removed or broken."""


def keeps_progress(request: JobRequest) -> bool:
    return (request.audio_s or 0) >= KEEP_FROM_S


def drop_progress(store: ObjectStore, ref: JobRef) -> None:
    """Remove what the runs of an ended job have kept."""
    for key in _kept(store, ref):
        store.delete(key)


class _Waiting(NamedTuple):
    """A unit that is not written yet. `of`: its digest."""

    of: str
    pause_s: float
    spoken: SpokenUnit


class KeptProgress:
    """A `speech.Progress` of one run. `suspects`: units with which a replica ended; they are spoken alone.
    `patience` of the run: how long it waits for what takes a unit, and for a store that keeps none; None: not at all.

    `done` of `units` is how far it has come.
    """

    def __init__(
        self,
        store: ObjectStore,
        request: JobRequest,
        run: int,
        suspects: Collection[int],
        clock: Callable[[], float] = time.monotonic,
        *,
        patience: Patience | None = None,
    ) -> None:
        self._patience = patience
        self._store = store
        self._request = request
        self._run = run
        self._suspects = suspects
        self._clock = clock
        self._waiting: dict[int, _Waiting] = {}
        self._spoken: dict[int, SpokenUnit] = {}
        self._flushed_at = clock()
        self._flush_bytes = max(FLUSH_BYTES, BYTES_PER_S * (request.audio_s or 0.0) / OBJECTS)
        self._number = 0
        self._writing = asyncio.Lock()
        self.done = 0
        self.units = 0

    async def planned(self, units: Sequence[Unit]) -> Mapping[int, SpokenUnit]:
        """What an earlier run, or an earlier try of this one, has spoken of `units`."""
        self.units = len(units)
        if keeps_progress(self._request) and not self._spoken:
            digests = {unit.index: digest(unit, self._request.speech.model_version) for unit in units}
            self._spoken = await asyncio.to_thread(_restored, self._store, self._request.ref, digests)
        self.done = len(self._spoken)
        if self.done:
            logs.event("progress_restored", units=len(units), restored=self.done)
        return dict(self._spoken)

    async def spoken(self, unit: Unit, spoken: SpokenUnit) -> None:
        """Keep a finished unit; written with others, every few seconds. A store that does not answer is waited for;
        what else is being spoken goes on."""
        self._spoken[unit.index] = spoken
        self.done = len(self._spoken)
        if not keeps_progress(self._request):
            return
        of = digest(unit, self._request.speech.model_version)
        self._waiting[unit.index] = _Waiting(of, unit.pause_s, spoken)
        size_bytes = sum(each.spoken.audio.nbytes for each in self._waiting.values())
        is_late = self._number < OBJECTS and self._clock() - self._flushed_at >= FLUSH_S
        is_due = is_late or size_bytes >= self._flush_bytes
        if is_due and self.done < self.units:  # what is complete is stored as audio in a moment
            async with self._writing:  # one waits for the store, and the others for that one
                step = partial(self._write)  # of its own: pauses are counted by step
                await (patiently(step, self._patience) if self._patience else step())

    async def refused(self, unit: Unit, error: ServiceError, asked: Collection[int] = ()) -> None:
        """Wait for a while; what else is being spoken goes on."""
        if self._patience is None:
            raise error
        await self._patience.wait(unit.index, error)

    def outdated(self, indexes: Collection[int]) -> None:
        """Forget these: what is spoken in their place is kept under another name, and counts."""
        for index in indexes:
            self._spoken.pop(index, None)
            self._waiting.pop(index, None)
        self.done = len(self._spoken)

    def is_suspect(self, unit: Unit) -> bool:
        return unit.index in self._suspects

    def complete(self) -> None:
        """Hold no more than what is not written yet: of hours of speech there is no room for two."""
        self._spoken = {}

    async def flush(self) -> None:
        """Write what is not written yet."""
        async with self._writing:
            await self._write()

    async def _write(self) -> None:
        batch, self._waiting = self._waiting, {}
        self._flushed_at = self._clock()
        if not batch:
            return
        self._number += 1
        name = f"progress-{self._run:04d}-{self._number:05d}-{self.done:05d}-of-{self.units:05d}.v1.npz"
        key = keys.job(self._request.tenant, self._request.job_id, name)
        try:
            body = await asyncio.to_thread(_packed, batch)
            await asyncio.to_thread(self._store.put, key, body, content_type="application/zip")
        except BaseException:
            self._waiting = batch | self._waiting
            raise
        logs.event("progress_kept", units=len(batch), done=self.done, size_bytes=len(body))


def digest(unit: Unit, model_version: str | None) -> str:
    """Of all that decides how a unit sounds."""
    spoken_with = asdict(unit)
    for name in ("request_id", "job_id", "alone", "pause_s", "tail_s", "due_in_s"):
        spoken_with.pop(name, None)
    return hashlib.sha256(repr((sorted(spoken_with.items()), model_version)).encode()).hexdigest()[:32]


def _packed(batch: Mapping[int, _Waiting]) -> bytes:
    packed = io.BytesIO()
    arrays = {f"{index} {each.of} {each.spoken.made_by}": each.spoken.audio for index, each in batch.items()}
    arrays[PAUSES] = np.array([(index, each.pause_s) for index, each in batch.items()])
    np.savez(packed, **arrays)  # type: ignore[arg-type]  # numpy's keyword for a file object has no such name here
    return packed.getvalue()


def _restored(store: ObjectStore, ref: JobRef, digests: Mapping[int, str]) -> dict[int, SpokenUnit]:
    """Units whose digest is still theirs; an object that cannot be read costs a second synthesis, no more."""
    restored: dict[int, SpokenUnit] = {}
    for key in _kept(store, ref):
        try:
            with np.load(io.BytesIO(store.get(key).body), allow_pickle=False) as arrays:
                for name in arrays.files:
                    index, of, made_by = name.split(" ", 2)
                    if digests.get(int(index)) == of:
                        restored.pop(int(index), None)  # it was spoken again: in the order in which they were spoken
                        restored[int(index)] = SpokenUnit(arrays[name], made_by)
        except UNREADABLE as error:
            logs.failure("progress_not_readable", error, key=key)
    return restored


def _kept(store: ObjectStore, ref: JobRef) -> list[str]:
    prefix, after, found = keys.job(ref.tenant, ref.job_id, "progress-"), "", []
    while True:
        page = store.list(prefix, after=after)
        found += [info.key for info in page.items]
        if page.next_after is None:
            return found
        after = page.next_after
