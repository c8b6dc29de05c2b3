"""F5-TTS voice-cloning speech service on Ray Serve."""

__all__ = ["__version__"]

__version__ = "0.1.0"
