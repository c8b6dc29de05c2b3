"""Waveforms: files to samples and back, joining, stretching and pitch. Knows no model, no store and no HTTP."""

from serve_app.audio.decoding import decode, decode_counting_clipped
from serve_app.audio.encoding import Encoder, encode, read_wav
from serve_app.audio.formats import FORMATS, AudioFormat, Encoding
from serve_app.audio.loudness import MAX_LUFS, MIN_LUFS, Gain, StreamGain
from serve_app.audio.pitch import median_pitch_hz
from serve_app.audio.psola import shift_pitch
from serve_app.audio.reference import decode_reference, encode_reference
from serve_app.audio.waveform import CrossFader, cross_fade, joined, most_samples, time_stretch
from serve_app.audio.whole import KEPT_BYTES, WholeFile, wav_waves

__all__ = [
    "FORMATS",
    "KEPT_BYTES",
    "MAX_LUFS",
    "MIN_LUFS",
    "AudioFormat",
    "CrossFader",
    "Encoder",
    "Encoding",
    "Gain",
    "StreamGain",
    "WholeFile",
    "cross_fade",
    "decode",
    "decode_counting_clipped",
    "decode_reference",
    "encode",
    "encode_reference",
    "joined",
    "median_pitch_hz",
    "most_samples",
    "read_wav",
    "shift_pitch",
    "time_stretch",
    "wav_waves",
]
