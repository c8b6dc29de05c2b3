"""Many callers, many voices, a bad network: each voice is read once, nobody sees an error, nothing wrong is served."""

import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from serve_app.deployments.voice_cache import VoiceCacheArgs
from serve_app.domain import DEFAULT_TENANT
from tests.support.caching import BUCKET, CALLERS, TEXT, Deployed, caller_on, is_read, summary
from tests.support.running import ROOT, until
from tests.support.seaweedfs import SeaweedFS
from tests.support.speech import ENGLISH, recording
from tests.support.wire import CutAnswer, Fault, FlipBit, HalfBody, Refuse, WireRequest

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""Ray's Cluster leaves sockets open that it looked for free ports with."""

VOICES, EACH = 100, 50
QUICK = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three nodes, which notice soon that one is dead."""
    with tempfile.TemporaryDirectory(prefix="ray") as folder:  # short: Ray's sockets lie in it
        head = {"num_cpus": 2, "include_dashboard": False, "_system_config": QUICK, "temp_dir": folder}
        made = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(2):
            made.add_node(num_cpus=2)
        ray.init(address=made.address, log_to_driver=False)
        yield made
        ray.shutdown()
        made.shutdown()


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


def test_an_unusable_voice_is_tried_once(deployed: Deployed, callers: list[Any], s3: SeaweedFS) -> None:
    """A recording without a text, and no transcriber: all are told, and for a while without reading it again."""
    s3.client().put_object(Bucket=BUCKET, Key="voices/mute.wav", Body=recording("basic_ref_en.wav"))
    ref = deployed.library.resolve(DEFAULT_TENANT, "mute")
    for _ in range(2):
        assert ray.get([caller.get.remote(ref, 50, True) for caller in callers]) == [["UnusableVoice"] * 50] * CALLERS
    assert deployed.proxy.count("GET", "voices/mute.wav") == 1


def test_memory_stays_under_its_bound(deployed: Deployed, callers: list[Any]) -> None:
    """More voices than there is room for: all are served, and what is kept is within the bound."""
    seconds = 12.0
    size = round(seconds * 24_000) * 4 + len(TEXT)
    refs = [deployed.create(f"large{index}", seconds=seconds) for index in range(deployed.args.max_bytes // size + 5)]
    for ref in refs:
        assert ray.get(callers[0].get.remote(ref, 1, True))[0][0] == seconds * 24_000
    stats = deployed.actor_stats()
    assert deployed.args.max_bytes - size < stats.size <= deployed.args.max_bytes


def test_callers_that_leave_harm_nobody(deployed: Deployed, callers: list[Any]) -> None:
    """Half of those who wait for a cold voice are cancelled: the others get it, by the one GET."""
    ref, each = deployed.create("anna"), 100
    opened = deployed.hold_audio()
    answers = [caller.get_half.remote(ref, each) for caller in callers]
    until(lambda: ray.get([caller.waiting.remote() for caller in callers]) == [each] * CALLERS, "all are waiting")
    ray.get([caller.leave.remote() for caller in callers])
    opened.set()
    found = summary(deployed.library.load(ref))
    assert ray.get(answers) == [["CancelledError", found] * (each // 2)] * CALLERS
    assert deployed.gets() == [1, 0]


def test_there_are_no_lock_files(deployed: Deployed, callers: list[Any]) -> None:
    """Neither in the bucket after a read, nor in the code that reads."""
    ray.get(callers[0].get.remote(deployed.create("anna"), 1, True))
    assert [item.key for item in deployed.store.list("").items if "lock" in item.key] == []
    folders = (ROOT / "serve_app" / name for name in ("voices", "deployments", "storage", "preparation"))
    sources = [path.read_text() for folder in folders for path in folder.rglob("*.py")]
    assert not [text for text in sources if any(word in text for word in ("flock", "FileLock", '.lock"'))]


def test_the_death_of_the_actors_node(cluster: Cluster, deployed: Deployed) -> None:
    """With all waiting: the actor comes back on another node, reads once more, and answers them all.

    The last of this file, for a node is gone with it.
    """
    head = ray.get_runtime_context().get_node_id()
    caller = caller_on(head)
    deployed.args = actor_away_from(head, deployed)
    ray.get(caller.connect.remote(deployed.args, deployed.store))
    ref = deployed.create("anna")
    opened = deployed.hold_audio()
    answer = caller.get.remote(ref, 250, True)
    until(lambda: deployed.gets()[0] == 1, "the actor reads")
    lost = node_of(deployed)
    cluster.remove_node(next(node for node in cluster.list_all_nodes() if node.node_id == lost), allow_graceful=False)
    until(lambda: deployed.gets()[0] == 2, "the actor on its new node reads")
    opened.set()
    assert ray.get(answer) == [summary(deployed.library.load(ref))] * 250
    assert node_of(deployed) != lost


def node_of(deployed: Deployed) -> str:
    """On which the actor is."""
    found: str = ray.get(deployed.actor().__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()))
    return found


def actor_away_from(head: str, deployed: Deployed) -> VoiceCacheArgs:
    """Ray chooses the node; arguments with which it has chosen another than the head, which is not to die."""
    for attempt in range(30):
        deployed.args = replace(deployed.args, identity=f"{deployed.args.identity}{attempt}")
        deployed.args.client(deployed.store)
        if node_of(deployed) != head:
            return deployed.args
        ray.kill(deployed.actor())
    raise AssertionError("Ray put 30 actors on the head")
