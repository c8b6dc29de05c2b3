"""Tests of what only a GPU shows: `make test-gpu`, or `python -m pytest tests/gpu`. No Ray, no network.

They skip where torch sees no GPU, and are written for torch 2.6 and newer.
"""

import warnings
from typing import Any

import pytest
import torch

from serve_app.engine.architecture import sizes
from serve_app.engine.load import import_f5_tts
from tests.support.tiny_f5 import SMALL, random_dit


@pytest.fixture(scope="session", autouse=True)
def _gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip(f"torch {torch.__version__} sees no CUDA device here")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.9 says that there is a newer name, which 2.6 does not know
        torch.backends.cudnn.allow_tf32 = False  # a replica leaves it on, and rounds float32 convolutions
    import_f5_tts()


@pytest.fixture(scope="session", params=["small", "v1_base"])
def dit(request: pytest.FixtureRequest) -> Any:
    """Upstream's DiT on the CPU in float32, with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return random_dit(SMALL if request.param == "small" else sizes("v1_base"), std=0.05)
