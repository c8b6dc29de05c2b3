"""Waveforms: files to samples and back, joining, stretching and pitch. Knows no model, no store and no HTTP."""

from serve_app.audio.decoding import decode, decode_counting_clipped
from serve_app.audio.encoding import BYTES_PER_SAMPLE, WAV_HEADER_BYTES, Encoder, encode, read_wav, to_int16, wav_file
from serve_app.audio.formats import FORMATS, AudioFormat, Encoding
from serve_app.audio.loudness import MAX_LUFS, MIN_LUFS, Gain, StreamGain
from serve_app.audio.pitch import median_pitch_hz
from serve_app.audio.psola import shift_pitch
from serve_app.audio.reference import decode_reference, encode_reference
from serve_app.audio.resampling import Int16
from serve_app.audio.waveform import CrossFader, cross_fade, joined, most_samples, time_stretch
from serve_app.audio.whole import KEPT_BYTES, WholeFile, wav_waves

__all__ = [
    "BYTES_PER_SAMPLE",
    "FORMATS",
    "KEPT_BYTES",
    "MAX_LUFS",
    "MIN_LUFS",
    "WAV_HEADER_BYTES",
    "AudioFormat",
    "CrossFader",
    "Encoder",
    "Encoding",
    "Gain",
    "Int16",
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
    "to_int16",
    "wav_file",
    "wav_waves",
]
