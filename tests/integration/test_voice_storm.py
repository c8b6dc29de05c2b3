"""Many callers, many voices, a bad network: each voice is read once, nobody sees an error, nothing wrong is served."""

import random
from collections.abc import Callable
from typing import Any

import ray

from serve_app.domain import DEFAULT_TENANT
from tests.support.caching import BUCKET, CALLERS, TEXT, Deployed, is_read, summary
from tests.support.running import ROOT, until
from tests.support.seaweedfs import SeaweedFS
from tests.support.speech import ENGLISH, recording
from tests.support.wire import CutAnswer, Fault, FlipBit, HalfBody, Refuse, WireRequest

VOICES, EACH = 100, 50


def test_a_thousand_callers_of_one_cold_voice(deployed: Deployed, callers: list[Any]) -> None:
    """In four processes, all waiting at once: one GET."""
    ref, each = deployed.create("anna"), 1000 // CALLERS
    opened = deployed.hold_audio()
    answers = [caller.get.remote(ref, each, True) for caller in callers]
    until(lambda: ray.get([caller.waiting.remote() for caller in callers]) == [each] * CALLERS, "all are waiting")
    opened.set()
    assert ray.get(answers) == [[summary(deployed.library.load(ref))] * each] * CALLERS
    assert deployed.gets() == [1, 0]


def test_a_thousand_callers_of_a_voice_of_the_old_worker(deployed: Deployed, callers: list[Any], s3: SeaweedFS) -> None:
    """Prepared once for all of them: one GET of the audio, one of the text, beside the one that looks for a version."""
    for key, body in (("old.wav", recording("basic_ref_en.wav")), ("old.txt", ENGLISH.encode())):
        s3.client().put_object(Bucket=BUCKET, Key=f"voices/{key}", Body=body)
    ref = deployed.library.resolve(DEFAULT_TENANT, "old")
    answers = ray.get([caller.get.remote(ref, 250, True) for caller in callers])
    found = answers[0][0]
    assert answers == [[found] * 250] * CALLERS
    assert found[2] == ENGLISH
    counts = [deployed.proxy.count("GET", path) for path in ("voices/old.wav", "voices/old.txt", "prepared/old/")]
    assert counts == [1, 1, 1]


def faulty(seed: int, parts: dict[float, Fault]) -> Callable[[WireRequest], Fault | None]:
    """Each fault for its share of the reads, drawn anew at each."""
    dice = random.Random(seed)

    def fault(request: WireRequest) -> Fault | None:
        if not is_read(request, ".wav"):
            return None
        drawn = dice.random()
        for share, each in parts.items():
            if drawn < share:
                return each
            drawn -= share
        return None

    return fault


def storm(deployed: Deployed, callers: list[Any], prefix: str) -> int:
    """50 calls for each of 100 voices, spread over the processes; all must be right. The reads that it took."""
    refs = [deployed.create(f"{prefix}{index}", hz=100 + index, seconds=1) for index in range(VOICES)]
    expected = [summary(deployed.library.load(ref)) for ref in refs]
    answers = ray.get(
        [
            callers[(index + part) % CALLERS].get.remote(ref, EACH // 2, True)
            for part in (0, 1)
            for index, ref in enumerate(refs)
        ]
    )
    assert answers == [[each] * (EACH // 2) for _ in (0, 1) for each in expected]
    return deployed.gets()[0]


def test_a_hundred_voices(deployed: Deployed, callers: list[Any]) -> None:
    """50 callers of each: exactly 100 GETs."""
    assert storm(deployed, callers, "clear") == VOICES


def test_a_bad_network(deployed: Deployed, callers: list[Any]) -> None:
    """10 % of 503, 5 % of cut connections, 5 % of half bodies: more reads, no error, and every voice right."""
    deployed.proxy.fault = faulty(1, {0.1: Refuse(503, "SlowDown"), 0.05: CutAnswer(), 0.0500001: HalfBody()})
    reads = storm(deployed, callers, "bad")
    assert reads > VOICES


def test_flipped_bits(deployed: Deployed, callers: list[Any]) -> None:
    """In the first answer of each voice: caught by the sha256, read again, and not one is served."""
    flipped: set[str] = set()

    def fault(request: WireRequest) -> Fault | None:
        if not is_read(request, ".wav") or request.path in flipped:
            return None
        flipped.add(request.path)
        return FlipBit()

    deployed.proxy.fault = fault
    assert storm(deployed, callers, "flip") == 2 * VOICES


def test_a_refusal_is_one_try(deployed: Deployed, callers: list[Any]) -> None:
    """403 is not tried again: one request, one typed error for all; the next caller tries afresh."""
    ref = deployed.create("anna")
    deployed.proxy.fault = faulty(3, {1.0: Refuse(403, "AccessDenied")})
    assert ray.get(callers[0].get.remote(ref, 100, True)) == ["StorageDenied"] * 100
    assert deployed.gets() == [1, 0]
    deployed.proxy.fault = None
    assert ray.get(callers[0].get.remote(ref, 1, True)) == [summary(deployed.library.load(ref))]
    assert deployed.gets() == [2, 0]


def test_memory_stays_under_its_bound(deployed: Deployed, callers: list[Any]) -> None:
    """More voices than there is room for: all are served, and what is kept is within the bound."""
    seconds = 12.0
    size = round(seconds * 24_000) * 4 + len(TEXT)
    refs = [deployed.create(f"large{index}", seconds=seconds) for index in range(deployed.args.max_bytes // size + 5)]
    for ref in refs:
        assert ray.get(callers[0].get.remote(ref, 1, True))[0][0] == seconds * 24_000
    stats = deployed.actor_stats()
    assert deployed.args.max_bytes - size < stats.size <= deployed.args.max_bytes


def test_there_are_no_lock_files(deployed: Deployed, callers: list[Any]) -> None:
    """Neither in the bucket after a read, nor in the code that reads."""
    ray.get(callers[0].get.remote(deployed.create("anna"), 1, True))
    assert [item.key for item in deployed.store.list("").items if "lock" in item.key] == []
    folders = (ROOT / "serve_app" / name for name in ("voices", "deployments", "storage", "preparation"))
    sources = [path.read_text() for folder in folders for path in folder.rglob("*.py")]
    assert not [text for text in sources if any(word in text for word in ("flock", "FileLock", '.lock"'))]
