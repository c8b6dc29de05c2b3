"""What the F5 engine hands to the device for one unit, and what becomes of the waveform that comes back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from traceback import clear_frames

import numpy as np
import torch

from serve_app.domain import Pcm
from serve_app.engine.sampler import SampleInput
from serve_app.errors import EngineError, OutOfMemory

__all__ = ["WARM_UP_STEPS", "Task", "device_errors"]

WARM_UP_STEPS = 2
"""Of the sentence that warms a model up."""


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
    """torch's own errors as ours: OutOfMemory, or EngineError with the sizes.

    What failed lets go of its tensors, which the traceback would keep while the call is tried again.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        clear_frames(error.__traceback__)
        raise OutOfMemory(
            f"units of {frames} mel frames do not fit into the memory of {device} ({error}): send the request "
            "again, or deploy the model on a device with more"
        ) from error
    except RuntimeError as error:
        clear_frames(error.__traceback__)
        raise EngineError(f"units of {frames} mel frames failed on {device}: {error}") from error
