"""Where things lie on a node: one answer for the preparation and for the service. Standard library only."""

import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["F5_PYTHON", "WEIGHTS_DIR", "prepared_python", "weights_dir"]

WEIGHTS_DIR = "WEIGHTS_DIR"
F5_PYTHON = "F5_PYTHON"


def weights_dir(environ: Mapping[str, str]) -> Path:
    """WEIGHTS_DIR, else `f5-tts-weights` in the user's cache directory. Files lie below it by `HubFile.key`."""
    if value := environ.get(WEIGHTS_DIR, "").strip():
        return Path(value).absolute()
    cache = environ.get("XDG_CACHE_HOME", "").strip() or str(Path.home() / ".cache")
    return Path(cache) / "f5-tts-weights"


def prepared_python(environ: Mapping[str, str], prefix: str = sys.prefix) -> Path:
    """The interpreter of the prepared f5 environment: F5_PYTHON, else `.venv-f5` beside the running environment.

    It need not exist. `make run` makes it on a machine with an NVIDIA GPU, by `python -m env_setup install`.
    """
    if value := environ.get(F5_PYTHON, "").strip():
        return Path(value).absolute()
    return Path(prefix).parent / ".venv-f5" / "bin" / "python"
