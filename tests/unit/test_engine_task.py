"""What the device raises becomes an error of ours, and what failed is let go."""

import gc
import weakref

import numpy as np
import pytest
import torch

from serve_app.engine.sampler import SampleInput
from serve_app.engine.task import Task, device_errors
from serve_app.errors import DeviceLost, EngineError, OutOfMemory, ServiceError

TASK = Task(SampleInput(torch.zeros(2, 100), torch.zeros(1, dtype=torch.int64), 9, seed=0), gain=2.0, dtype=torch.half)


@pytest.mark.parametrize(
    ("raised", "told", "message"),
    [
        (
            torch.OutOfMemoryError("no room"),
            OutOfMemory,
            r"of \[7, 9\] mel frames do not fit .* of cuda \(no room\)",
        ),
        (RuntimeError("CUDA error: out of memory"), OutOfMemory, "do not fit .* of cuda"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), OutOfMemory, "do not fit"),
        (RuntimeError("CUDA error: an illegal memory access"), DeviceLost, r"cuda failed at units of \[7, 9\]"),
        (RuntimeError("no kernel"), EngineError, r"units of \[7, 9\] mel frames failed on cuda: no kernel"),
    ],
)
def test_what_failed_lets_go_of_its_tensors(raised: Exception, told: type[ServiceError], message: str) -> None:
    """While the error is told, and the call tried again, the tensors of the failed one are gone."""
    kept: list[weakref.ref[torch.Tensor]] = []

    def fail() -> None:
        large = torch.zeros(1000)
        kept.append(weakref.ref(large))
        raise raised

    with pytest.raises(told, match=message) as caught, device_errors([7, 9], "cuda"):
        fail()
    gc.collect()
    assert caught.value.__cause__ is raised
    assert kept[0]() is None


def test_speech_gets_the_level_of_its_reference_back() -> None:
    """Divided by what the reference was raised by, and within full scale."""
    np.testing.assert_allclose(TASK.finished(np.array([0.5, -3.0], np.float32)), [0.25, -1.0])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_a_number_is_never_given_out(bad: float) -> None:
    """The message names the precision and what to use instead."""
    with pytest.raises(EngineError, match=r"NaN or infinity in torch.float16: use bfloat16 or float32"):
        TASK.finished(np.array([0.5, bad], np.float32))
