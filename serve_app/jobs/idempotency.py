"""One job for one idempotency key, on a store that can neither lock nor compare.

The job's id follows from tenant and key, so two requests that come at once are one job whoever is first. Each writes
the hash of its body as an object beside the job and then lists: of two bodies at least one sees the other, and only a
body that has seen no other becomes a job. As Stripe has it (https://docs.stripe.com/api/idempotent_requests): same key
and body, the same job; another body, 422; after `window_s` a key is free again.

Ids are UUIDv7 in form. Their time is the beginning of the window that they were made in, since all who send the key
must make the same one; what needs the order of jobs goes by `accepted_at`.
"""

import contextlib
import hashlib
import json
import math
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from serve_app.errors import IdempotencyMismatch, InvalidRequest, ObjectCorrupt, ObjectNotFound
from serve_app.jobs.folders import JobFolders
from serve_app.jobs.lists import JobLists
from serve_app.jobs.records import JobRef, JobRequest
from serve_app.jobs.states import GONE, REQUEST
from serve_app.storage import ObjectStore

__all__ = ["Claim", "Idempotency", "check_key"]

MAX_KEY_CHARS = 255
"""Stripe's limit."""
CLAIMING_S = 60.0
"""A claim of the window before may still be on its way to being a job for so long."""
MARGIN_S = 3600.0
"""Past the end of its window nobody makes a job of a key any more; clocks differ, and a request may take its time."""
BODY = re.compile(r"body-([0-9a-f]+)-[0-9a-f]+\.v1")


@dataclass(frozen=True, slots=True)
class Claim:
    """The job of a key. `known`: it was accepted before."""

    ref: JobRef
    known: bool


class Idempotency:
    """`window_s`: how long a key is remembered. `wall_clock`: Unix seconds. Blocks on the store."""

    def __init__(self, store: ObjectStore, window_s: float, wall_clock: Callable[[], float] = time.time) -> None:
        self._folders = JobFolders(store)
        self._lists = JobLists(store)
        self._window_s = window_s
        self._wall_clock = wall_clock

    def claim(self, tenant: str, key: str, body_sha256: str) -> Claim:
        """The job that this key and body stand for. Raises IdempotencyMismatch; InvalidRequest for what is no key."""
        found = self.look(tenant, key, body_sha256)
        return found if found.known else self.hold(found.ref, key, body_sha256)

    def look(self, tenant: str, key: str, body_sha256: str) -> Claim:
        """As `claim`, but it writes nothing: what is refused after this has not used up its key."""
        check_key(key)
        now = self._wall_clock()
        window = math.floor(now / self._window_s)
        before = JobRef(tenant=tenant, job_id=self._job_id(tenant, key, window - 1))
        names = self._names(before)
        if self._accepted_at(before, names) + self._window_s > now:
            self._check(before, names, key, body_sha256)
            return Claim(before, known=True)
        if now - window * self._window_s < CLAIMING_S and _bodies(names) and not _is_known(names):
            self._check(before, names, key, body_sha256)
            return Claim(before, known=False)
        ref = JobRef(tenant=tenant, job_id=self._job_id(tenant, key, window))
        names = self._names(ref)
        self._check(ref, names, key, body_sha256)
        return Claim(ref, known=_is_known(names))

    def hold(self, ref: JobRef, key: str, body_sha256: str) -> Claim:
        """Take the job that `look` found unknown for this body; it may have become known since, or another body's.

        What no job comes of is removed when the window is over: the entry that says so is passed over for a job.
        """
        self._lists.expire(ref, (math.floor(self._wall_clock() / self._window_s) + 1) * self._window_s + MARGIN_S)
        own = f"body-{body_sha256}-{secrets.token_hex(8)}.v1"  # its own: a twin with this body may be accepted already
        self._folders.note(ref, own)
        names = self._names(ref)
        try:
            self._check(ref, names, key, body_sha256)
        except IdempotencyMismatch:
            self._folders.delete(ref, own)
            raise
        return Claim(ref, known=_is_known(names))

    def _check(self, ref: JobRef, names: set[str], key: str, body_sha256: str) -> None:
        """A body that was accepted is the key's, whatever else came with it; before that any other is in the way."""
        accepted = self._folders.read(ref, REQUEST, JobRequest).body_sha256 if REQUEST in names else None
        if {accepted} - {body_sha256} if accepted else _bodies(names) - {body_sha256}:
            raise IdempotencyMismatch(
                f"Idempotency-Key {key[:40]!r} came with another body within {self._window_s:g} s: one key is one "
                "request, so send this one with a key of its own"
            )

    def _names(self, ref: JobRef) -> set[str]:
        return self._folders.names(ref)

    def _accepted_at(self, ref: JobRef, names: set[str]) -> float:
        """When the job of a key was accepted, also where its result is removed; -inf where there is none, or where what
        an older version left does not say it."""
        if REQUEST in names:
            return self._folders.read(ref, REQUEST, JobRequest).accepted_at
        if GONE in names:
            with contextlib.suppress(ObjectNotFound, ObjectCorrupt, ValueError, KeyError, TypeError):
                return float(json.loads(self._folders.body(ref, GONE))["accepted_at"])
        return -math.inf

    def _job_id(self, tenant: str, key: str, window: int) -> str:
        ms = max(0, int(1000 * window * self._window_s))
        bits = hashlib.sha256(f"{tenant}\0{key}\0{window}\0{self._window_s}".encode()).hexdigest()
        variant = "89ab"[int(bits[3], 16) % 4]
        return f"{ms >> 16:08x}-{ms & 0xFFFF:04x}-7{bits[:3]}-{variant}{bits[4:7]}-{bits[7:19]}"


def check_key(key: str) -> None:
    """Raises InvalidRequest for what is no key."""
    if not key or len(key) > MAX_KEY_CHARS or not key.isprintable():
        raise InvalidRequest(f"Idempotency-Key {key[:40]!r} is not one: send 1 to {MAX_KEY_CHARS} printable characters")


def _is_known(names: set[str]) -> bool:
    """Accepted, though its result may be removed: then it answers 410 until its key is free again."""
    return REQUEST in names or GONE in names


def _bodies(names: set[str]) -> set[str]:
    """The hashes of all bodies that came with the key."""
    return {found[1] for name in names if (found := BODY.fullmatch(name))}
