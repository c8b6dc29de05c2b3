"""Reference audio and its text in one WAV file: the text is the comment of its INFO chunk."""

import io

import av
import numpy as np

from serve_app.audio.encoding import FULL_SCALE, to_int16
from serve_app.domain import SAMPLE_RATE_HZ, Pcm
from serve_app.errors import InvalidAudio

__all__ = ["decode_reference", "encode_reference"]

COMMENT = "comment"


def encode_reference(audio: Pcm, text: str) -> bytes:
    """`audio` as mono 24 kHz 16-bit WAV that carries `text`: the same bytes for the same audio and text.

    Raises ValueError for audio that is empty or not finite, or text with a NUL.
    """
    if "\0" in text:
        raise ValueError("the text has a NUL, which ends a comment in WAV")
    file = io.BytesIO()
    with av.open(file, "w", format="wav", options={"fflags": "+bitexact"}) as container:
        container.metadata[COMMENT] = text
        stream = container.add_stream("pcm_s16le", rate=SAMPLE_RATE_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(to_int16(audio)[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()


def decode_reference(file: bytes) -> tuple[Pcm, str]:
    """Audio and text of what `encode_reference` made. Raises InvalidAudio for other bytes."""
    try:
        with av.open(io.BytesIO(file), "r", format="wav") as container:
            text = container.metadata.get(COMMENT, "")
            parts = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
    except (av.error.FFmpegError, ValueError, IndexError) as error:
        raise InvalidAudio(f"{len(file)} bytes are no reference ({error}): upload the voice again") from error
    samples = np.concatenate([np.zeros(0, np.int16), *parts])
    audio: Pcm = samples.astype(np.float32) / np.float32(FULL_SCALE)
    return audio, text
