"""The yardsticks of bench/ measure what they say."""

import asyncio
from pathlib import Path

import pytest

from bench.counting import CountingStore
from bench.engine import BYTES_PER_S, FULL, ON_A_CPU, SECONDS, flops, frames_of, text_of
from bench.load import Load
from bench.simulated import RTF, UNIT_AUDIO_S, SimulatedEngine, text_of_units
from bench.store_requests import SCENES
from serve_app.domain import BUILTIN, SAMPLE_RATE_HZ, SpeechRequest, VoiceRef
from serve_app.engine.architecture import sizes
from serve_app.engine.protocol import EngineInput, speak
from serve_app.planning import PREVIEW_LIMITS, plan

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seconds", SECONDS)
def test_texts_are_as_long_as_they_say(seconds: int) -> None:
    """At the pace of the reference, to a tenth."""
    assert len(text_of(seconds)) / BYTES_PER_S == pytest.approx(seconds, rel=0.1)


def test_the_work_is_that_of_the_formula() -> None:
    """About 379 M + 90.1 k * frames a token, twice for guidance, once a step: of v1_base."""
    expected = 16 * 2 * 1250 * (379e6 + 90.1e3 * 1250)
    assert flops(sizes("v1_base"), 16, [1250]) == pytest.approx(expected, rel=0.01)
    assert flops(sizes("v1_base"), 16, [1250, 1250]) == pytest.approx(2 * expected, rel=0.01)


def test_frames_are_those_of_the_planned_units() -> None:
    """A text is as long as it says beside its reference, once in each of its units."""
    assert frames_of(text_of(8)) == [pytest.approx(500 + 750, rel=0.05)]
    assert sum(frames_of(text_of(20))) == pytest.approx(2 * 500 + 1875, rel=0.05)


def test_what_a_cpu_measures_is_part_of_the_whole() -> None:
    """Every point of the short grid is one of the full one, which has all sizes, steps and streams."""
    assert set(ON_A_CPU) <= set(FULL)
    assert len(FULL) == 3 * 3 * 6


def test_a_simulated_text_is_planned_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many units, all but the first as long, and slept for as long as the real-time factor says."""
    request = SpeechRequest(text_of_units(25, "07"), "preview", VoiceRef("heart", BUILTIN), 1.0, 1, "r")
    units = plan(request, PREVIEW_LIMITS)
    assert [unit.frames / 93.75 for unit in units] == pytest.approx([38 / 15, *[UNIT_AUDIO_S] * 24], rel=0.01)

    slept: list[float] = []
    monkeypatch.setattr("bench.simulated.time.sleep", slept.append)
    (audio,) = speak(SimulatedEngine(), EngineInput(units[1], None))
    assert (len(audio) / SAMPLE_RATE_HZ, slept) == (
        pytest.approx(UNIT_AUDIO_S, rel=0.001),
        [pytest.approx(RTF * UNIT_AUDIO_S, rel=0.001)],
    )


def test_loads_add_up() -> None:
    """Calls a second are of all turns together; percentiles of all calls."""
    load = Load([0.001] * 99, 0.5)
    load.add(Load([0.1], 1.5))
    assert (load.per_s, load.percentile_ms(50)) == (50.0, pytest.approx(1.0))
    assert load.percentile_ms(99) == pytest.approx(2.0, abs=0.1)


def test_a_counting_store_counts_each_method() -> None:
    """One for one with the requests of S3."""
    store = CountingStore()
    with store.counted() as found:
        store.put("a", b"", content_type="a/b")
        assert store.put_new("b", b"1", content_type="a/b")
        store.get("a")
        store.head("a")
        store.list("")
        store.delete("a")
    assert found == {"PUT": 2, "GET": 1, "HEAD": 1, "LIST": 1, "DELETE": 1}


@pytest.mark.parametrize("scene", [name for name in SCENES if "hour of speech" not in name])
def test_docs_have_the_requests_as_they_are(scene: str) -> None:
    """docs/scale.md says what the code asks of the store now."""
    counts = asyncio.run(SCENES[scene]())
    row = f"| {scene} | " + " | ".join(f"{counts[verb]:,}" for verb in ("PUT", "GET", "HEAD", "LIST", "DELETE"))
    assert row in (ROOT / "docs/scale.md").read_text()
