"""What a job, a question about one, and the service at rest ask of the store: `python -m bench.store_requests`.

Counted at the store's own methods, each of which is one request of S3, by driving the real job code in one process. A
store that proved conditional writes, and `limit` of a listing under 1,000 keys. Nothing is timed.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bench.counting import COLLECT_S, DAY_S, HEARTBEAT_S, SWEEP_S, UNIT_S, WATCH_S, Bench, CountingStore
from serve_app.audio import encode
from serve_app.domain import DEFAULT_TENANT, SAMPLE_RATE_HZ, Speech, SpeechRequest
from serve_app.job_runner import JobRunner, RunnerSettings
from serve_app.jobs import JobRequest, marker_of
from serve_app.unit_speech import Progress
from serve_app.voices import Upload, VoiceLibrary
from tests.support.preparing import PlainPreparer

__all__ = ["SCENES", "main"]

HOUR_S = 3600
VERBS = ("PUT", "GET", "HEAD", "LIST", "DELETE")
Scene = Callable[[], Awaitable[Counter[str]]]


async def short_job(**more: Any) -> Counter[str]:
    """From acceptance to the end, by the replica that was told of it."""
    bench = Bench()
    request = bench.request(**more)
    with bench.store.counted() as found:
        await bench.client.submit(request)
        await _run(bench.runner(), request)
    return found


async def accepted(**more: Any) -> Counter[str]:
    bench = Bench()
    with bench.store.counted() as found:
        await bench.client.submit(bench.request(**more))
    return found


async def accepted_with_key() -> Counter[str]:
    bench = Bench()
    with bench.store.counted() as found:
        claim = await bench.client.look(DEFAULT_TENANT, "key", "0" * 64)
        await bench.client.hold(claim.ref, "key", "0" * 64)
        await bench.client.submit(bench.request())
    return found


async def found_again() -> Counter[str]:
    """A seeded request that was spoken before, in our own form."""
    bench = Bench()
    first = bench.request(seeded=True)
    await bench.client.submit(first)
    await _run(bench.runner(), first)
    again = bench.request(seeded=True)
    again = again.model_copy(update={"speech": _same_text(again.speech, first.speech)})
    with bench.store.counted() as found:
        await bench.client.submit(again)
    assert (await bench.client.status(again.ref)).state == "completed"
    return found


async def voice_found() -> Counter[str]:
    """Which version a stored voice has, which acceptance asks."""
    bench = Bench()
    library = VoiceLibrary(bench.store, PlainPreparer())
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 3 * SAMPLE_RATE_HZ).astype(np.float32)
    library.create(DEFAULT_TENANT, "anna", Upload(encode(noise, "wav"), "A voice."))
    with bench.store.counted() as found:
        library.resolve(DEFAULT_TENANT, "anna")
    return found


async def webhook() -> Counter[str]:
    """What a webhook adds: its entry, and the sending of it, without the sweep that finds it."""
    bench = Bench()
    runner, request = bench.runner(), bench.request(webhook="https://example.com/hook")
    plain = await short_job()
    with bench.store.counted() as all_of_it:
        await bench.client.submit(request)
        await _run(runner, request)
        await _webhooks_sent(runner)
    all_of_it["LIST"] -= 1  # the look into the outbox that every sweep makes
    return all_of_it - plain


async def hour_of_speech() -> Counter[str]:
    """360 units of 10 s, which come faster than every five seconds."""
    bench = Bench()
    units = HOUR_S // UNIT_S
    request = bench.request(audio_s=HOUR_S)
    request = request.model_copy(update={"speech": _with_units(request.speech, units)})
    with bench.store.counted() as found:
        await bench.client.submit(request)
        await _run(bench.runner(), request)
    return found


async def status(*, ended: bool, asked_before: bool) -> Counter[str]:
    """Asked before: by the same ingress, within the second, so without the sixteen listings of the queue."""
    bench = Bench()
    request = bench.request()
    await bench.client.submit(request)
    if ended:
        await _run(bench.runner(), request)
    for _ in range(1 + asked_before):
        with bench.store.counted() as found:
            await bench.client.position(await bench.client.status(request.ref))
    return found


async def page(state: Any, *, ended: bool) -> Counter[str]:
    """The newest 20 of 40 jobs."""
    bench = Bench()
    runner = bench.runner()
    for _ in range(40):
        request = bench.request()
        await bench.client.submit(request)
        if ended:
            await _run(runner, request)
    with bench.store.counted() as found:
        assert len((await bench.client.page(DEFAULT_TENANT, state, limit=20)).items) == 20
    return found


async def removal() -> Counter[str]:
    """Of a short job whose retention is over, its tombstone included, beside the looks that find it."""
    bench = Bench()
    request = bench.request()
    await bench.client.submit(request)
    await _run(runner := bench.runner(), request)
    await runner.collect()  # the first of a process also asks whether older jobs are to be settled
    idle = await _collected(runner, bench.store)
    total = Counter[str]()
    for days in (8, 31, 61):
        bench.now = request.accepted_at + days * DAY_S
        total += await _collected(runner, bench.store) - idle
    total["LIST"] -= 1  # whether all jobs name their audio, which a process asks once
    assert not any(bench.store.inner.list(f"{prefix}/").items for prefix in ("jobs", "audio", "lists", "expiry"))
    return total


async def idle_hour(replicas: int) -> Counter[str]:
    """Of so many Jobs replicas with nothing to do: what one round of each of their loops asks, times rounds an hour."""
    bench = Bench()
    runners = [bench.runner(f"replica-{number}") for number in range(replicas)]
    for runner in runners:
        await runner.collect()  # the first of a process also asks whether older jobs are to be settled
    total = Counter[str]()
    for turn, every_s in (("beat", HEARTBEAT_S), ("sweep", SWEEP_S), ("watch", WATCH_S), ("collect", COLLECT_S)):
        with bench.store.counted() as found:
            for runner in runners:
                await getattr(runner, turn)()
        total += Counter({verb: count * round(HOUR_S / every_s) for verb, count in found.items()})
    return total


async def watched_minute() -> Counter[str]:
    """What a running job costs beside its own work, a minute."""
    bench = Bench()
    gate = asyncio.Event()

    async def held(request: SpeechRequest, progress: Progress) -> Speech:
        gate.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    settings = RunnerSettings("a", 1, 3, HEARTBEAT_S, 10.0, SWEEP_S, WATCH_S, COLLECT_S)
    runner = JobRunner(bench.store, held, settings, wall_clock=lambda: bench.now, exclusive=True)
    request = bench.request()
    await bench.client.submit(request)
    await runner.start(marker_of(request))
    await gate.wait()
    with bench.store.counted() as found:
        await runner.watch()
    await runner.close()
    return Counter({verb: count * round(60 / WATCH_S) for verb, count in found.items()})


async def _run(runner: JobRunner, request: JobRequest) -> None:
    assert await runner.start(marker_of(request))
    await runner.wait(request.ref)


async def _webhooks_sent(runner: JobRunner) -> None:
    webhooks = runner._webhooks
    assert webhooks is not None
    await webhooks.sweep(lambda _: True)
    await asyncio.gather(*webhooks._sending.values())


async def _collected(runner: JobRunner, store: CountingStore) -> Counter[str]:
    with store.counted() as found:
        await runner.collect()
    return found


def _same_text(speech: SpeechRequest, other: SpeechRequest) -> SpeechRequest:
    return replace(speech, text=other.text)


def _with_units(speech: SpeechRequest, units: int) -> SpeechRequest:
    return replace(speech, seed=units)


SCENES: dict[str, Scene] = {
    "acceptance alone (`POST /v1/jobs`)": accepted,
    "... with a stored voice adds": voice_found,
    "... with an Idempotency-Key": accepted_with_key,
    "... of what was spoken before: ended at once": found_again,
    "a short job, from acceptance to its end": short_job,
    "... by `/run`, which also writes `output/{id}.wav`": lambda: short_job(worker_output=True),
    "... a webhook adds": webhook,
    "... its removal adds, retention and tombstone over": removal,
    "a job of one hour of speech": hour_of_speech,
    "... each minute that a job runs adds": watched_minute,
    "status or result of a finished job": lambda: status(ended=True, asked_before=False),
    "... asked before": lambda: status(ended=True, asked_before=True),
    "status of a waiting job, once a second": lambda: status(ended=False, asked_before=False),
    "... asked before within the second": lambda: status(ended=False, asked_before=True),
    "list, the newest 20, all ended": lambda: page(None, ended=True),
    "list, the newest 20, all waiting": lambda: page(None, ended=False),
    "list, the newest 20 of those that wait": lambda: page("queued", ended=False),
    "list, 20 completed": lambda: page("completed", ended=True),
    "the service at rest, an hour, 1 Jobs replica": lambda: idle_hour(1),
    "the service at rest, an hour, 10 Jobs replicas": lambda: idle_hour(10),
}


def main() -> str:
    """The table in Markdown."""
    found = {name: asyncio.run(scene()) for name, scene in SCENES.items()}
    rows = [
        f"| {name} | " + " | ".join(f"{counts[verb]:,}" for verb in VERBS) + f" | {counts.total():,} |"
        for name, counts in found.items()
    ]
    return "\n".join([f"| what | {' | '.join(VERBS)} | all |", "|---" * 7 + "|", *rows])


if __name__ == "__main__":
    print(main())
