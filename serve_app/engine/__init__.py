"""Engines: what turns units into waveforms. Nothing is imported here, so no engine costs who does not use it."""
