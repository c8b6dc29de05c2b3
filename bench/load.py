"""Load over HTTP: so many clients, each of which sends its next request when the last one is answered, or later.

One thread and one kept connection for each client; http.client, since it costs a fraction of what is measured.
"""

import http.client
import json
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Call", "Load", "call", "run_load"]

TIMEOUT_S = 60


@dataclass(frozen=True)
class Call:
    """One request. `body` is sent as JSON."""

    method: str
    path: str
    body: Any = None


@dataclass
class Load:
    """What a load came to: seconds of each call, and of all together. Several can be added up."""

    latencies_s: list[float] = field(default_factory=list)
    took_s: float = 0.0

    def add(self, other: "Load") -> None:
        self.latencies_s += other.latencies_s
        self.took_s += other.took_s

    @property
    def per_s(self) -> float:
        return len(self.latencies_s) / self.took_s

    def percentile_ms(self, percent: int) -> float:
        return 1000 * statistics.quantiles(self.latencies_s, n=100, method="inclusive")[percent - 1]


class _Client:
    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)

    def send(self, wanted: Call) -> tuple[int, bytes]:
        body = None if wanted.body is None else json.dumps(wanted.body).encode()
        headers = {"Content-Type": "application/json"} if body else {}
        self._connection.request(wanted.method, wanted.path, body, headers)
        with self._connection.getresponse() as answer:
            return answer.status, answer.read()

    def close(self) -> None:
        self._connection.close()


def call(url: str, wanted: Call) -> tuple[int, Any]:
    """Status and JSON of one call."""
    client = _Client(url)
    try:
        status, body = client.send(wanted)
        return status, json.loads(body)
    finally:
        client.close()


def run_load(url: str, next_call: Callable[[int], Call], *, clients: int, calls: int, every_s: float = 0.0) -> Load:
    """`clients` at once make `calls` calls together: `next_call` of 0, 1, 2 ... Each begins one `every_s` seconds at
    most, evenly between the others. Raises RuntimeError for a call that is not answered with 2xx."""
    barrier = threading.Barrier(clients + 1, timeout=TIMEOUT_S)

    def work(number: int) -> list[float]:
        latencies: list[float] = []
        client = _Client(url)
        try:
            client.send(Call("GET", "/healthz"))  # connected before it counts
            barrier.wait()
            due = time.perf_counter() + every_s * number / clients
            for index in range(number, calls, clients):
                wanted = next_call(index)
                time.sleep(max(0.0, due - time.perf_counter()))
                due += every_s
                began = time.perf_counter()
                status, body = client.send(wanted)
                latencies.append(time.perf_counter() - began)
                if status // 100 != 2:
                    raise RuntimeError(f"{wanted.method} {wanted.path} answered {status}: {body[:300]!r}")
        except BaseException:
            barrier.abort()
            raise
        finally:
            client.close()
        return latencies

    with ThreadPoolExecutor(clients) as pool:
        working = [pool.submit(work, number) for number in range(clients)]
        with suppress(threading.BrokenBarrierError):  # the client that broke it says why
            barrier.wait()
        began = time.perf_counter()
        wait(working)
        took_s = time.perf_counter() - began
        errors = [error for each in working if (error := each.exception()) is not None]
        for error in sorted(errors, key=lambda error: isinstance(error, threading.BrokenBarrierError)):
            raise error
        return Load([each for mine in working for each in mine.result()], took_s)
