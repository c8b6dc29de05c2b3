"""Clients: some submit jobs at a bounded rate, others ask for the state of any job, again and again.

Only a 200 with an id is an acknowledgement. Whatever else comes is forgotten, and a new job is sent for it.
"""

import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import httpx

from serve_app.api.worker import SpeechInput
from tests.chaos.history import History
from tests.chaos.texts import spoken

__all__ = ["ENDED", "Load"]

ENDED = ("COMPLETED", "CANCELLED", "FAILED", "TIMED_OUT")
SUBMITTERS, WATCHERS = 4, 4
WATCH_PAUSE_S, REFUSED_PAUSE_S = 0.05, 0.5
OPEN_AT_ONCE = 40
"""Acknowledged jobs that are not seen to have ended: more are not sent, so that faults fall on running work."""

SHARE_OF_ENDED = 0.25
"""Of the questions, those about jobs that have ended: their state must not change any more."""

OPTIONS = {"cache": False} if "cache" in SpeechInput.model_fields else {}
"""Equal texts would be answered from the store, and no run could be killed."""

SHARE_CANCELLED = 0.03
TIMEOUT_S = 15.0


class Load:
    """`jobs` acknowledged jobs at `rate` a second at most, drawn from `seed`.

    More are sent as long as faults are to come, so that each falls on running work.
    """

    def __init__(self, url: str, history: History, jobs: int, rate: float, seed: int) -> None:
        self.acked = 0
        self.other_answers: Counter[str] = Counter()  # those that were neither an acknowledgement nor a state
        self.can_cancel = True
        self._url = url
        self._history = history
        self._jobs = jobs
        self._pause_s = 1 / rate
        self._seed = seed
        self._open: list[str] = []
        self._ended: list[str] = []
        self._audio_wanted: list[tuple[str, str]] = []
        self._sent = 0  # acknowledged or being sent
        self._faults_to_come = True
        self._next_at = time.monotonic()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._pool = ThreadPoolExecutor(SUBMITTERS + WATCHERS, thread_name_prefix="load")
        self._futures: list[Any] = []

    def start(self) -> None:
        self._futures = [self._pool.submit(self._looped, self._submit, number) for number in range(SUBMITTERS)]
        self._futures += [self._pool.submit(self._looped, self._watch, 100 + number) for number in range(WATCHERS)]

    def stop(self) -> None:
        """End all clients; raises what one of them died of."""
        self._stopped.set()
        self._pool.shutdown()
        self.check()

    def faults_are_over(self) -> None:
        """No more jobs than were asked for need be sent."""
        self._faults_to_come = False

    def adopt(self, job_id: str, text: str, seed: int) -> None:
        """Watch a job that came into the store in another way, as if it had been acknowledged here."""
        self._history.add("acked", id=job_id, text=text, seed=seed)
        with self._lock:
            self._open.append(job_id)

    def check(self) -> None:
        """Raises what a client died of."""
        for future in self._futures:
            if future.done():
                future.result()

    def unfinished(self) -> int:
        """Acknowledged jobs that were not seen to end, or whose audio was not read yet."""
        return len(self._open) + len(self._audio_wanted)

    def _looped(self, turn: Callable[[httpx.Client, random.Random], None], number: int) -> None:
        dice = random.Random(self._seed * 1000 + number)
        with httpx.Client(base_url=self._url, timeout=TIMEOUT_S) as client:
            while not self._stopped.is_set():
                turn(client, dice)

    def _submit(self, client: httpx.Client, dice: random.Random) -> None:
        number = self._turn_to_send()
        if number is None:
            self._stopped.wait(0.05)
            return
        text, seed = spoken(number)
        answer = _answer(lambda: client.post("/run", json={"input": {"text": text, "seed": seed} | OPTIONS}))
        job_id = answer.json().get("id") if answer is not None and answer.status_code == 200 else None
        if job_id is None:
            if answer is not None and answer.status_code in (400, 422):
                raise AssertionError(f"/run answered {answer.status_code}: {answer.text[:500]}")
            with self._lock:
                self._sent -= 1
                self.other_answers[_told("run", answer)] += 1
            self._stopped.wait(REFUSED_PAUSE_S)
            return
        self._history.add("acked", id=job_id, text=text, seed=seed)
        with self._lock:
            self.acked += 1
            self._open.append(job_id)
        if self.can_cancel and dice.random() < SHARE_CANCELLED:
            self._cancel(client, job_id)

    def _turn_to_send(self) -> int | None:
        """The number of a job that may be sent now."""
        with self._lock:
            now = time.monotonic()
            enough = self._sent >= self._jobs and not self._faults_to_come
            if enough or len(self._open) >= OPEN_AT_ONCE or now < self._next_at:
                return None
            self._next_at = max(self._next_at + self._pause_s, now - 1)
            self._sent += 1
            return self._sent

    def _cancel(self, client: httpx.Client, job_id: str) -> None:
        sent = time.time()
        answer = _answer(lambda: client.post(f"/cancel/{job_id}"))
        if answer is not None and answer.status_code in (404, 405) and _is_ours(answer):
            self.can_cancel = False  # this version has no such call
            return
        accepted = None if answer is None or answer.status_code >= 500 else answer.status_code == 200
        self._history.add("cancel", id=job_id, accepted=accepted)
        if answer is not None and accepted:  # it says how the job stands, and is held to it as any other answer
            self._history.add("seen", id=job_id, sent=sent, state=answer.json()["status"])

    def _watch(self, client: httpx.Client, dice: random.Random) -> None:
        if self._read_audio():
            return
        job_id = self._any_job(dice)
        if job_id is not None:
            self._look(client, job_id)
        self._stopped.wait(WATCH_PAUSE_S)

    def _any_job(self, dice: random.Random) -> str | None:
        with self._lock:
            jobs = self._ended if self._ended and (not self._open or dice.random() < SHARE_OF_ENDED) else self._open
            return dice.choice(jobs) if jobs else None

    def _look(self, client: httpx.Client, job_id: str) -> None:
        sent = time.time()
        answer = _answer(lambda: client.get(f"/status/{job_id}"))
        if answer is not None and answer.status_code == 404 and _is_ours(answer):
            self._history.add("unknown", id=job_id, sent=sent, body=answer.text[:300])
            return
        if answer is None or answer.status_code != 200:
            with self._lock:
                self.other_answers[_told("status", answer)] += 1
            self._stopped.wait(REFUSED_PAUSE_S)
            return
        status = answer.json()
        self._history.add("seen", id=job_id, sent=sent, state=status["status"], error=status.get("error"))
        if status["status"] in ENDED:
            with self._lock:
                if job_id in self._open:
                    self._open.remove(job_id)
                    self._ended.append(job_id)
                    if status["status"] == "COMPLETED":
                        self._audio_wanted.append((job_id, status["output"]["audio_url"]))

    def _read_audio(self) -> bool:
        """Read what one completed job's URL gives; False when none waits, or the store does not answer."""
        with self._lock:
            if not self._audio_wanted:
                return False
            job_id, url = self._audio_wanted.pop()
        answer = _answer(lambda: httpx.get(url, timeout=TIMEOUT_S))
        if answer is None or answer.status_code >= 500:
            with self._lock:
                self._audio_wanted.append((job_id, url))
            return False
        sha256 = hashlib.sha256(answer.content).hexdigest() if answer.status_code == 200 else str(answer.status_code)
        self._history.add("audio", id=job_id, sha256=sha256)
        return True


def _answer(call: Callable[[], httpx.Response]) -> httpx.Response | None:
    """None where there is none: no connection, or one that was cut."""
    with suppress(httpx.TransportError):
        return call()
    return None


def _told(call: str, answer: httpx.Response | None) -> str:
    """`run 503 storage_unreachable`, `status 500 of the proxy`, `run no answer`: what to count it as."""
    if answer is None:
        return f"{call} no answer"
    if not _is_ours(answer):
        return f"{call} {answer.status_code} of the proxy"
    return f"{call} {answer.status_code} {answer.json().get('code', '')}".strip()


def _is_ours(answer: httpx.Response) -> bool:
    """Whether the service said it: Serve's proxy answers 404 by itself while it knows no application."""
    return "application/json" in answer.headers.get("content-type", "")
