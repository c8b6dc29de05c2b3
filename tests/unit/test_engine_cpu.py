"""On a CPU units run alone or side by side, as was measured; what they say is the same."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from serve_app.domain import BUILTIN, Sampling, Unit, VoiceRef
from serve_app.engine.cpu import CpuExecution
from serve_app.engine.cuda import MAX_BATCH_FRAMES, frame_budget
from serve_app.engine.f5 import F5Engine
from serve_app.engine.protocol import BatchLimits, EngineInput, speak
from serve_app.errors import InvalidText, ModelLoadFailed
from tests.support.deadline import DEADLINE_S
from tests.support.tiny_f5 import write_tiny_f5


@pytest.fixture(autouse=True)
def _two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def item(text: str, seed: int = 1) -> EngineInput:
    voice = VoiceRef("basic_ref_en", BUILTIN)
    return EngineInput(Unit(0, text, voice, 1.0, seed, frames=0, request_id="r"), None)


def warm_engine(directory: Path, monkeypatch: pytest.MonkeyPatch, single_s: float, pair_s: float) -> F5Engine:
    """A tiny engine whose warm-up measures these seconds for one unit, and for two at once."""
    engine = F5Engine(write_tiny_f5(directory), device="cpu", sampling=Sampling(4))
    ticks = iter([0.0, single_s, 0.0, pair_s])
    monkeypatch.setattr(engine._execution, "_clock", lambda: next(ticks))
    engine.warm_up()
    return engine


def test_threads_are_divided_where_that_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two units in 1.6 times the time of one: two at once; they say what each says alone, and a bad one fails alone."""
    engine = warm_engine(tmp_path, monkeypatch, single_s=1.0, pair_s=1.6)
    assert engine.batch_limits == BatchLimits(2, 2 * 8192, max_length_ratio=float("inf"))
    assert engine.runtime["batching"] == "2 units at once on 1 thread each, measured 1.25 times one at a time"
    assert engine.computed_frames([300, 200]) == 500
    alone = [speak(engine, item(text, seed))[0].tobytes() for seed, text in enumerate(("Hello there.", "Good bye."))]
    together = speak(engine, *(item(text, seed) for seed, text in enumerate(("Hello there.", "Good bye."))))
    assert [wave.tobytes() for wave in together] == alone
    fine, bad = engine.synthesize([item("Hello there.", 0), item("?!")])
    assert fine.result().tobytes() == alone[0]
    assert isinstance(bad.exception(), InvalidText)


def test_lanes_run_side_by_side_and_are_filled_as_they_come_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two units are inside the model at once; a call returns when a lane is free, and the next fills just that."""
    engine = warm_engine(tmp_path, monkeypatch, single_s=1.0, pair_s=1.0)
    execution, inside = engine._execution, threading.Barrier(2)
    assert isinstance(execution, CpuExecution)
    decode, slow = execution._decode, threading.Event()
    names: list[str] = []

    def meet(mel: torch.Tensor) -> torch.Tensor:
        if len(names) < 2:
            names.append(threading.current_thread().name)
            inside.wait(timeout=DEADLINE_S)  # broken unless both are here
            if names[0] != threading.current_thread().name:
                assert slow.wait(timeout=DEADLINE_S)
        return decode(mel)

    monkeypatch.setattr(execution, "_decode", meet)
    first = engine.synthesize([item("Hello there.", 0), item("Good bye.", 1)])
    assert sorted(future.done() for future in first) == [False, True]
    assert engine.batch_limits.max_units == 1
    (third,) = engine.synthesize([item("Hello there.", 0)])
    assert third.result(timeout=DEADLINE_S).shape[0] > 0
    assert not all(future.done() for future in first)
    slow.set()
    for future in first:
        future.result(timeout=DEADLINE_S)
    assert engine.batch_limits.max_units == 2


def test_threads_stay_together_where_that_is_as_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two units in 1.9 times the time of one gain too little: one at a time, and the lanes that were tried are gone."""
    before = set(threading.enumerate())
    engine = warm_engine(tmp_path, monkeypatch, single_s=1.0, pair_s=1.9)
    assert engine.batch_limits == BatchLimits(1, 8192, max_length_ratio=float("inf"))
    assert engine.runtime["batching"] == "one unit at a time on 2 threads"
    assert [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("lane")] == []


def test_lanes_have_their_part_of_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each lane computes on one thread; who is not a lane keeps both, threads that come later included."""
    engine = warm_engine(tmp_path, monkeypatch, single_s=1.0, pair_s=1.0)
    execution = engine._execution
    assert isinstance(execution, CpuExecution)
    assert execution._lanes is not None
    assert execution._lanes.submit(torch.get_num_threads).result() == 1
    seen: list[int] = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert [torch.get_num_threads(), *seen] == [2, 2]


def test_a_gpu_takes_the_frames_that_fit() -> None:
    """Two fifths of the free memory, at most sixteen units of 30 s; too little for one unit ends the start."""
    assert frame_budget(free_bytes=1_000_000_000, bytes_per_frame=50_000) == 8000
    assert frame_budget(free_bytes=80_000_000_000, bytes_per_frame=50_000) == MAX_BATCH_FRAMES == 45_056
    with pytest.raises(
        ModelLoadFailed, match=r"0.3 GB of GPU memory are free .* hold 2400 mel frames of 50 kB, .* 2812"
    ):
        frame_budget(free_bytes=300_000_000, bytes_per_frame=50_000)
