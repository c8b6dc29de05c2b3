"""Stored voices: names, versions, and what is made of them at their arrival. Knows no Ray, no HTTP and no model."""

from serve_app.voices.library import Upload, VoiceDetails, VoiceLibrary
from serve_app.voices.listing import VoiceInfo, VoicePage
from serve_app.voices.names import NAME_PATTERN, from_file_name, validate_name
from serve_app.voices.record import VoiceRecord

__all__ = [
    "NAME_PATTERN",
    "Upload",
    "VoiceDetails",
    "VoiceInfo",
    "VoiceLibrary",
    "VoicePage",
    "VoiceRecord",
    "from_file_name",
    "validate_name",
]
