"""Sends the webhooks that lie in the outbox: one Jobs replica each, and another where that one dies.

    outbox -> mine? -> the job's status as its dialect has it -> signed POST -> `notified`, and the entry goes

RunPod's terms: a POST of what /status answers; where the answer is no 2xx, two more tries, 10 s apart. A webhook may
arrive twice (a replica died between the answer and its record): the receiver tells by `webhook-id`.

A receiver that does not answer holds up nobody else: a place is held while a message is sent and not between two
tries, one host has few of the places, and what is for a host that has many waiting is left in the outbox for a while.
"""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit
from weakref import WeakValueDictionary

from serve_app import logs
from serve_app.errors import JobExpired, JobNotFound, ServiceError, WebhookFailed
from serve_app.jobs import JobRef, JobStatus, JobStore, Letter, Outbox
from serve_app.storage import ObjectStore
from serve_app.webhooks import Sender

__all__ = ["WebhookSettings", "Webhooks"]

AT_ONCE = 8
"""Each is a process of its own while it is sent."""
TO_ONE_HOST = 2
WAITING_FOR_ONE_HOST = 32
LEFT_S = 60.0
"""How long a webhook is left whose host has so many waiting, or that could not be looked at."""
READERS = 4
PAGE, PAGES = 1000, 4
"""A look into the outbox; the next goes on where it ended."""
BEGUN_MOST = 1000
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Tries in all, and seconds between two."""

    attempts: int = 3
    pause_s: float = 10.0


class Webhooks:
    """`body_of` makes what is sent of a job that has ended."""

    def __init__(
        self,
        store: ObjectStore,
        jobs: JobStore,
        sender: Sender,
        body_of: Callable[[JobStatus], Mapping[str, Any]],
        settings: WebhookSettings,
        wall_clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        # Threads of its own: what waits for a receiver must not keep jobs from theirs.
        self._senders = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="webhooks")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="outbox")
        self._places = asyncio.Semaphore(AT_ONCE)
        self._places_of: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._waiting_for = Counter[str]()
        self._left: dict[tuple[JobRef, int], float] = {}  # until when of the clock
        self._after = ""
        self._outbox = Outbox(store)
        self._jobs = jobs
        self._sender = sender
        self._body_of = body_of
        self._settings = settings
        self._wall_clock = wall_clock
        self._sleep = sleep
        self._sending: dict[tuple[JobRef, int], asyncio.Task[None]] = {}

    async def sweep(self, is_mine: Callable[[JobRef], bool]) -> None:
        """Begin to send what lies in the outbox and is this replica's to send."""
        now = self._clock()
        self._left = {each: until for each, until in self._left.items() if until > now}
        for _ in range(PAGES):
            if len(self._sending) >= BEGUN_MOST:
                return
            letters, after = await self._ask(self._outbox.page, limit=PAGE, after=self._after)
            self._after = after or ""
            for letter in letters:
                which = letter.ref, letter.generation
                if which not in self._sending and which not in self._left and is_mine(letter.ref):
                    task = asyncio.get_running_loop().create_task(self._send(letter), context=Context())
                    self._sending[which] = task
            if after is None:
                return

    async def close(self) -> None:
        """Stop; what was not sent lies in the outbox still."""
        tasks = list(self._sending.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._senders.shutdown(wait=False)
        self._readers.shutdown(wait=False)

    async def _ask(self, step: Callable[..., T], *args: Any, **more: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, partial(step, *args, **more))

    async def _send(self, letter: Letter) -> None:
        try:
            with logs.bind(job_id=letter.ref.job_id):
                await self._try(letter)
        except Exception as error:
            logs.failure("webhook_left", error, job_id=letter.ref.job_id)
            self._left[letter.ref, letter.generation] = self._clock() + LEFT_S
        finally:
            self._sending.pop((letter.ref, letter.generation), None)

    async def _try(self, letter: Letter) -> None:
        try:
            status = await self._ask(self._jobs.status, letter.ref, past=True)
        except (JobNotFound, JobExpired) as error:
            logs.event("webhook_without_job", code=error.code)
            await self._ask(self._outbox.remove, letter)
            return
        attempts = await self._ask(self._outbox.attempts, letter)
        outcome = status.outcome
        ended = outcome is not None and outcome.generation == letter.generation
        if outcome is None or not ended or status.standing.notified or attempts is None:  # retried, or sent meanwhile
            await self._ask(self._outbox.remove, letter)
            return
        host = _host_of(status.request.webhook or "")
        if self._waiting_for[host] >= WAITING_FOR_ONE_HOST:
            self._left[letter.ref, letter.generation] = self._clock() + LEFT_S
            return
        self._waiting_for[host] += 1
        try:
            sent, attempts = await self._tries(letter, status, host, attempts)
        finally:
            self._waiting_for[host] -= 1
            self._waiting_for += Counter()  # drops those without any
        await self._ask(self._jobs.notified, outcome, sent=sent, attempts=attempts)
        if not letter.sharded:
            await self._ask(self._outbox.remove, letter)

    async def _tries(self, letter: Letter, status: JobStatus, host: str, attempts: int) -> tuple[bool, int]:
        """Whether it was sent, and how often it was tried by now."""
        of_host = self._places_of.setdefault(host, asyncio.Semaphore(TO_ONE_HOST))
        sent = False
        while not sent and attempts < self._settings.attempts:
            if attempts:
                await self._sleep(self._settings.pause_s)
            attempts += 1
            async with of_host, self._places:
                sent = await self._attempt(status, attempts)
            if not sent:
                await self._ask(self._outbox.put, letter, attempts)
        return sent, attempts

    async def _attempt(self, status: JobStatus, attempt: int) -> bool:
        request, outcome = status.request, status.outcome
        assert request.webhook is not None
        assert outcome is not None
        message_id = f"{request.job_id}-{outcome.generation}"
        send = self._sender.send
        try:
            body = json.dumps(self._body_of(status)).encode()  # with URLs made now
            message = partial(send, request.webhook, body, message_id=message_id, timestamp=int(self._wall_clock()))
            await asyncio.get_running_loop().run_in_executor(self._senders, message)
        except WebhookFailed as error:
            logs.event("webhook_failed", attempt=attempt, reason=error.message)
            return False
        except ServiceError:
            raise
        except Exception as error:  # a defect is a try too: a receiver may have got the message
            logs.failure("webhook_failed", error, attempt=attempt)
            return False
        logs.event("webhook_sent", attempt=attempt)
        return True


def _host_of(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2].lower()
    except ValueError:
        return ""
