"""F5-TTS voice-cloning speech service on Ray Serve."""

import os

__all__ = ["__version__"]

__version__ = "0.1.0"

# Before anything can import onnxruntime, whose wheel else writes a device id to the home and reports to its makers.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
