"""What the F5 engine hands to the device for one unit, and what becomes of the waveform that comes back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from traceback import clear_frames

import numpy as np
import torch

from serve_app.domain import Pcm
from serve_app.engine.sampler import SampleInput
from serve_app.errors import DeviceLost, EngineError, OutOfMemory, ServiceError

__all__ = ["WARM_UP_STEPS", "Task", "device_errors"]

WARM_UP_STEPS = 2
"""Of the sentence that warms a model up."""

NO_MEMORY = ("CUDA error: out of memory", "can't allocate memory")
"""Of the driver, and of torch on a CPU, which raise it as a plain RuntimeError."""
CUDA_FAILED = "CUDA error: "
"""An illegal address, a failed assertion, a lost device: each later call in the process fails too."""


@dataclass(frozen=True, slots=True)
class Task:
    """`sample`: what to sample. `gain`: what the reference was raised by. `dtype`: of the model, for the error."""

    sample: SampleInput
    gain: float
    dtype: torch.dtype

    def finished(self, wave: Pcm) -> Pcm:
        """`wave` at the level of the reference, within [-1, 1]. Raises EngineError for what is not a number."""
        if not np.isfinite(wave).all():
            raise EngineError(
                f"the speech has NaN or infinity in {self.dtype}: use bfloat16 or float32; in float32 "
                "it is the weights that are bad"
            )
        levelled: Pcm = np.clip(wave / np.float32(self.gain), -1, 1)
        return levelled


@contextmanager
def device_errors(frames: list[int], device: str) -> Iterator[None]:
    """torch's own errors as ours: OutOfMemory, DeviceLost, or EngineError with the sizes.

    What failed lets go of its tensors, which the traceback would keep while the call is tried again.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        clear_frames(error.__traceback__)
        raise _ours(error, frames, device) from error


def _ours(error: RuntimeError, frames: list[int], device: str) -> ServiceError:
    told = str(error)
    if isinstance(error, torch.OutOfMemoryError) or any(words in told for words in NO_MEMORY):
        return OutOfMemory(
            f"units of {frames} mel frames do not fit into the memory of {device} ({error}): send the request "
            "again, or deploy the model on a device with more"
        )
    if CUDA_FAILED in told:
        return DeviceLost(f"{device} failed at units of {frames} mel frames ({error}): send the request again")
    return EngineError(f"units of {frames} mel frames failed on {device}: {error}")
