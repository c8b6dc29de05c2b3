"""A replica's plain class: voices, batches, logs and health, on the fake engine."""

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from serve_app.batcher import Batcher
from serve_app.domain import BUILTIN, Pcm, Unit, Voice, VoiceRef
from serve_app.engine.fake import FakeEngine
from serve_app.engine.protocol import BatchLimits, EngineInput, speak
from serve_app.errors import DeviceLost, EngineError, ModelLoadFailed, Unavailable, VoiceNotFound
from serve_app.metrics import REPLICA_RUNTIME_LABELS
from serve_app.synthesis import SynthesisService
from tests.support.deadline import DEADLINE_S

ANNA = Voice(VoiceRef("anna", "v1"), np.zeros(2560, np.float32), "Reference text.")


class Voices:
    """A voice source that knows anna, and records what it is asked."""

    def __init__(self) -> None:
        self.asked: list[VoiceRef] = []

    async def get(self, ref: VoiceRef) -> Voice:
        self.asked.append(ref)
        if ref != ANNA.ref:
            raise VoiceNotFound(f"voice {ref.name!r} does not exist")
        return ANNA


class Listening(FakeEngine):
    """Keeps the whole inputs of its calls."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.inputs: list[EngineInput] = []

    def synthesize(self, items: Any) -> list[Future[Pcm]]:
        self.inputs += items
        return super().synthesize(items)


def unit(text: str, *, voice: VoiceRef = ANNA.ref, index: int = 3, seed: int = 1, speed: float = 1.0) -> Unit:
    return Unit(index, text, voice, speed, seed, 100, "r1", "j1")


def events(caplog: pytest.LogCaptureFixture) -> list[tuple[str, dict[str, object]]]:
    return [(record.getMessage(), getattr(record, "fields", {})) for record in caplog.records]


async def test_a_unit_is_spoken_with_the_voice_it_names() -> None:
    """The voice comes from the source in exactly the version of the unit, and reaches the engine."""
    engine, voices = Listening(), Voices()
    service = SynthesisService(engine, voices, "fake")
    spoken = await service.synthesize(unit("hello"))
    await service.close()
    assert voices.asked == [VoiceRef("anna", "v1")]
    assert engine.inputs == [EngineInput(unit("hello"), ANNA)]
    assert spoken.audio.shape == (5 * 5 * 256,)


async def test_a_spoken_unit_says_what_made_it() -> None:
    """Engine, model version, precision, attention path and kind of device, in one line of five words."""

    class ThirdEngine(FakeEngine):
        @property
        def runtime(self) -> Mapping[str, str]:
            return {"device": "cuda:1", "dtype": "bfloat16", "attention": "flash_attn", "attention_reason": "it fits"}

    service = SynthesisService(FakeEngine(), Voices(), "any name")
    assert service.made_by == "fake 1 float32 none cpu"
    assert (await service.synthesize(unit("hello"))).made_by == service.made_by
    await service.close()
    assert SynthesisService(FakeEngine(version="2"), Voices(), "m").made_by == "fake 2 float32 none cpu"
    assert SynthesisService(ThirdEngine(), Voices(), "m").made_by == "third 1 bfloat16 flash_attn cuda"


async def test_a_built_in_voice_is_not_looked_up() -> None:
    """It lives in the engine: the source is not asked, and the engine gets no voice."""
    engine, voices = Listening(), Voices()
    service = SynthesisService(engine, voices, "fake")
    await service.synthesize(unit("hello", voice=VoiceRef("heart", BUILTIN)))
    await service.close()
    assert voices.asked == []
    assert engine.inputs[0].voice is None


async def test_steps_are_logged_with_their_times(caplog: pytest.LogCaptureFixture) -> None:
    """unit_started when the engine begins, unit_done with the seconds of audio and what the unit waited and ran."""
    caplog.set_level("INFO", logger="serve_app")
    seconds = iter([10.0, 12.5, 20.0])
    engine = FakeEngine()
    service = SynthesisService(engine, Voices(), "fake", clock=lambda: next(seconds), batcher=Batcher(engine))
    await service.synthesize(unit("hello"))
    await service.close()
    ids = {"request_id": "r1", "job_id": "j1", "unit": 3, "model": "fake"}
    assert events(caplog) == [
        ("unit_started", {"wait_ms": 2500, **ids}),
        ("unit_done", {"audio_s": 0.267, "wait_ms": 2500, "run_ms": 7500, **ids}),
    ]


async def test_a_voice_that_is_missing_fails_its_unit_only(caplog: pytest.LogCaptureFixture) -> None:
    """The source's error reaches the caller and the log; the engine is not called."""
    caplog.set_level("INFO", logger="serve_app")
    engine = FakeEngine()
    service = SynthesisService(engine, Voices(), "fake")
    with pytest.raises(VoiceNotFound, match="'bert' does not exist"):
        await service.synthesize(unit("hello", voice=VoiceRef("bert", "v1")))
    await service.close()
    assert engine.calls == []
    assert events(caplog) == [
        ("unit_failed", {"code": "voice_not_found", "request_id": "r1", "job_id": "j1", "unit": 3, "model": "fake"})
    ]


async def test_a_failed_unit_is_logged_with_its_code(caplog: pytest.LogCaptureFixture) -> None:
    """The engine's error is an EngineError for the caller and a unit_failed in the log."""
    caplog.set_level("INFO", logger="serve_app")
    service = SynthesisService(FakeEngine(fail_on={"bad"}), Voices(), "fake")
    with pytest.raises(EngineError, match="unit 3 of the text: RuntimeError"):
        await service.synthesize(unit("bad"))
    await service.close()
    assert [(name, fields.get("code")) for name, fields in events(caplog)] == [
        ("unit_started", None),
        ("engine_failed", None),
        ("unit_failed", "synthesis_failed"),
    ]


async def test_units_of_many_requests_share_a_batch() -> None:
    """What arrives while the engine is busy runs in one call."""
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    service = SynthesisService(engine, Voices(), "fake")
    tasks = [asyncio.create_task(service.synthesize(unit("first")))]
    assert await asyncio.to_thread(engine.started.acquire, timeout=DEADLINE_S)
    tasks += [asyncio.create_task(service.synthesize(unit(text))) for text in ("aaaa", "bbbb", "cccc")]
    await asyncio.sleep(0)
    assert service.health()["waiting"] == 3
    gate.set()
    await asyncio.gather(*tasks)
    await service.close()
    assert engine.calls == [("first",), ("aaaa", "bbbb", "cccc")]


async def test_health_says_what_the_replica_did() -> None:
    """Plain values: the engine, what it runs on, the warm-up's seconds and the batcher's counts."""
    seconds = iter([1.0, 3.5, *range(100)])
    service = SynthesisService(FakeEngine(), Voices(), "fake", clock=lambda: float(next(seconds)))
    assert service.health()["warm_up_s"] is None
    service.warm_up()
    await service.synthesize(unit("hello"))
    await service.close()
    health = service.health()
    assert health.pop("busy_s") > 0
    assert health == {
        "engine": "FakeEngine",
        **FakeEngine().runtime,
        "warm_up_s": 2.5,
        "waiting": 0,
        "running": 0,
        "units_done": 1,
        "units_failed": 0,
        "units_abandoned": 0,
        "calls": {1: 1},
        "frames": 35,
        "computed_frames": 35,
    }


def test_the_runtime_is_a_metric() -> None:
    """The attention path and its reason are labels of a gauge, set when the model is warm."""
    gauges = []

    class Recorder:
        def gauge(self, name: str, value: float, labels: Mapping[str, str]) -> None:
            gauges.append((name, value, dict(labels)))

        def count(self, name: str, value: float, labels: Mapping[str, str]) -> None:
            raise AssertionError("nothing was spoken")

    service = SynthesisService(FakeEngine(), Voices(), "fake", metrics=Recorder())
    assert gauges == []
    service.warm_up()
    labels = {"model": "fake", "engine": "FakeEngine", **FakeEngine().runtime}
    assert gauges == [("speech_replica_runtime", 1, labels)]
    assert tuple(labels) == REPLICA_RUNTIME_LABELS


async def test_padding_is_a_metric() -> None:
    """Frames of the units, and those beside them that only fill the batch, are counted by model."""
    counted: dict[str, float] = {}

    class Recorder:
        def gauge(self, name: str, value: float, labels: Mapping[str, str]) -> None:
            raise AssertionError("no gauge is set by speaking")

        def count(self, name: str, value: float, labels: Mapping[str, str]) -> None:
            assert labels == {"model": "fake"}
            counted[name] = counted.get(name, 0) + value

    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    service = SynthesisService(engine, Voices(), "fake", metrics=Recorder())
    tasks = [asyncio.create_task(service.synthesize(unit("1234")))]
    assert await asyncio.to_thread(engine.started.acquire, timeout=DEADLINE_S)
    tasks += [asyncio.create_task(service.synthesize(unit(text))) for text in ("1234567", "12345678")]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*tasks)
    await service.close()
    assert counted == {"speech_batch_frames": 30 + 45 + 50, "speech_batch_padding_frames": 5}


async def test_a_closed_service_takes_no_units() -> None:
    """After close a unit fails with Unavailable, which tells the caller to send it again."""
    service = SynthesisService(FakeEngine(), Voices(), "fake")
    await service.close()
    with pytest.raises(Unavailable, match="send the request again"):
        await service.synthesize(unit("hello"))


async def test_a_replica_whose_device_is_lost_is_not_healthy() -> None:
    """Its unit is Unavailable, which another replica is asked for, and Serve learns that this one must go."""

    class Broken(FakeEngine):
        def synthesize(self, items: Any) -> list[Future[Pcm]]:
            raise DeviceLost("cuda failed")

    service = SynthesisService(Broken(), Voices(), "fake")
    service.check_health()
    with pytest.raises(Unavailable, match="cuda failed"):
        await service.synthesize(unit("hello"))
    with pytest.raises(DeviceLost, match="cuda failed"):
        service.check_health()
    await service.close()


def test_warm_up_runs_the_engine() -> None:
    """A replica warms its engine before it takes requests."""
    engine = FakeEngine()
    SynthesisService(engine, Voices(), "fake").warm_up()
    assert engine.warm


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("CUDA out of memory"), "model 'fake' could not be warmed up: RuntimeError: CUDA out of memory"),
        (ModelLoadFailed("vocoder is silent"), "^vocoder is silent$"),
    ],
)
def test_a_failed_warm_up_is_a_failed_start(error: Exception, message: str) -> None:
    """Whatever goes wrong is a ModelLoadFailed that names the model, or the engine's own."""

    class Cold(FakeEngine):
        def warm_up(self) -> None:
            raise error

    with pytest.raises(ModelLoadFailed, match=message):
        SynthesisService(Cold(), Voices(), "fake").warm_up()


def test_the_fake_engine_speaks_the_same_for_the_same_unit_only() -> None:
    """Its tone depends on text, voice and seed, not on its neighbours; its length on text and speed."""
    engine = FakeEngine()
    first, again = (speak(engine, EngineInput(unit("hello"), ANNA))[0] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    others = [unit("jello"), unit("hello", seed=2), unit("hello", voice=VoiceRef("anna", "v2"))]
    for other in speak(engine, *(EngineInput(each, None) for each in others)):
        assert other.shape == first.shape
        assert not np.array_equal(other, first)
    assert np.abs(first).max() <= 0.3
    assert first.dtype == np.float32
    (fast,) = speak(engine, EngineInput(unit("hello", speed=2.0), None))
    assert len(fast) == 13 * 256  # ceil(5 * 5 / 2)


def test_the_fake_engine_counts_the_reference() -> None:
    """Its frames are those of the speech and of the reference audio, as in a model that clones."""
    engine = FakeEngine(limits=BatchLimits(2, 100))
    assert engine.frames(EngineInput(unit("hello"), ANNA)) == 10 + 25
    assert engine.frames(EngineInput(unit("hello"), None)) == 25
    assert engine.batch_limits == BatchLimits(2, 100)
