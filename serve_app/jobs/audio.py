"""Audio in the store: content-addressed, named by every job that has it, removed when nobody names it any more.

    audio/{name}                          the bytes; `name` is their sha256, now and then with a suffix
    references/{name}/{job_id}            a job names them; written before its outcome, removed with the job
    jobs/{shard}/{id}/audio-{name}.v1     the same from the job's side, for whoever removes the job
    removals/{name}/{job_id}.{token}      somebody may be removing them just now
    collector/named-v1/{shard}            all jobs of this shard name theirs, those of a version without references too

Why no job ever names audio that is gone, whoever is killed where, without conditions and without clocks:

    names       1 reference   2 look for removals; where one is, another name   3 look for the audio, or write it
    removes     1 removal     2 look for references; where one is, leave it     3 delete the audio   4 end the removal

Both write before they look, so at least one sees the other. A remover that saw no reference had written its removal
before the reference was there. Whoever names looks behind that, and sees it; or it has ended, so the deletion is over,
and audio that is found or written from then on stays. Nothing is deleted on a guess and put back. A remover that is
killed leaves its removal, which costs a second copy of equal audio until it is cleared: after STALE_S, far longer than
a process that lives stands still between two requests.
"""

import secrets
import time
from collections.abc import Callable

from serve_app import keys
from serve_app.jobs.records import JobRef
from serve_app.storage import ObjectStore

__all__ = ["STALE_S", "JobAudio"]

JSON = "application/json"
STALE_S = 3600.0


class JobAudio:
    """Blocks on the store. `wall_clock`: Unix seconds."""

    def __init__(self, store: ObjectStore, wall_clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._wall_clock = wall_clock
        self._all_named = False

    def name(self, ref: JobRef, sha256: str) -> str:
        """Under which name the job is to write audio of this content: it names it from now on."""
        if self.refer(ref, sha256):
            return sha256
        other = f"{sha256}-{secrets.token_hex(4)}"  # nobody can be removing that
        self.refer(ref, other)
        return other

    def refer(self, ref: JobRef, name: str) -> bool:
        """The job names this audio from now on. False where somebody is removing it: then it must not be used."""
        self._store.put(keys.job(ref.tenant, ref.job_id, f"audio-{name}.v1"), b"", content_type=JSON)
        self._store.put(keys.audio_reference(ref.tenant, name, ref.job_id), b"", content_type=JSON)
        return not self._store.list(keys.audio_removal(ref.tenant, name), limit=1).items

    def note_named(self, shard: str) -> None:
        """All jobs of this shard name their audio (`older`)."""
        self._store.put(keys.named(shard), b"", content_type=JSON)

    def all_named(self) -> bool:
        """Whether all jobs there are name their audio. Until then none may be removed: what nobody names may be wanted.

        Asked of the store until it is so, which it then stays.
        """
        if not self._all_named:
            noted = {info.key for info in self._store.list(keys.named()).items}
            self._all_named = noted >= {keys.named(shard) for shard in keys.SHARDS}
        return self._all_named

    def is_named(self, tenant: str, name: str, *, other_than: str = "") -> bool:
        """Whether any job names this audio."""
        prefix = keys.audio_reference(tenant, name)
        return any(not info.key.endswith(f"/{other_than}") for info in self._store.list(prefix, limit=2).items)

    def remove(self, ref: JobRef, name: str) -> bool:
        """The job no longer names this audio; it goes, unless another does.

        False: there are removals that others began, and perhaps did not end. Call it again after STALE_S.
        """
        removal = keys.audio_removal(ref.tenant, name, f"{ref.job_id}.{secrets.token_hex(8)}")
        self._store.put(removal, b"", content_type=JSON)
        self._store.delete(keys.audio_reference(ref.tenant, name, ref.job_id))
        if not self.is_named(ref.tenant, name):
            self._store.delete(keys.audio(ref.tenant, name))
        self._store.delete(removal)
        return self.cleared(ref.tenant, name)

    def cleared(self, tenant: str, name: str) -> bool:
        """Remove what was left of removals; False where one may still be under way."""
        left = self._store.list(keys.audio_removal(tenant, name)).items
        stale = [info for info in left if info.last_modified.timestamp() + STALE_S < self._wall_clock()]
        for info in stale:
            self._store.delete(info.key)
        return len(stale) == len(left)
