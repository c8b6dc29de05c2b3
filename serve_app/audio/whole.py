"""Speech that comes in waves, made into one whole file with a true size, in bounded memory.

    wave -> 16 bit -> encoder -> file                              the file is ready when the last wave is
    wave -> 16 bit -> meter, spool -> (end) gain -> encoder -> file     where a loudness is wanted

Files are temporary and have no name from their making on, so they are gone with the process, whatever ends it.
"""

import io
import wave
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from threading import Lock
from typing import BinaryIO, cast

import numpy as np

from serve_app.audio.encoding import FULL_SCALE, PIECE_SAMPLES, Encoder, to_int16
from serve_app.audio.formats import Encoding
from serve_app.audio.loudness import Gain, LoudnessMeter, gain_to
from serve_app.audio.resampling import Int16
from serve_app.domain import SAMPLE_RATE_HZ, Pcm

__all__ = ["KEPT_BYTES", "WholeFile", "wav_waves"]

SPOOL_BYTES = 2 * 1024 * 1024
"""What is kept of a file in memory; more lies in the temporary folder."""
KEPT_BYTES = 32 * 1024 * 1024
"""Of samples, and of a WAV that is read as a whole: 11.6 minutes."""
READ_BYTES = 256 * 1024


class WholeFile:
    """A file to be: `add` waves, `finish`, then it has a size and `pieces`. To be closed, whatever comes of it.

    `lufs`: how loud it is to be. `keep`: `kept` is wanted, too. Blocks on encoding and on the disk; `close` waits for
    whatever another thread does with it, which ends soon, with ValueError.
    """

    def __init__(self, encoding: Encoding, *, lufs: float | None = None, keep: bool = False) -> None:
        self.size_bytes = 0
        self.samples = 0
        self.gain: Gain | None = None
        self._lufs = lufs
        self._keep = keep
        self._meter = None if lufs is None else LoudnessMeter()
        self._file = _spool()
        self._spool = _spool()
        self._encoder = Encoder(encoding, self._file)
        self._using = Lock()
        self._closing = False

    @property
    def duration_s(self) -> float:
        return self.samples / SAMPLE_RATE_HZ

    def add(self, audio: Pcm) -> None:
        """Raises ValueError for audio that is empty or not finite, UnsupportedFormat for a WAV over 4 GiB."""
        samples = to_int16(audio)
        with self._using:
            self.samples += len(samples)
            if self._meter is not None or (self._keep and 2 * self.samples <= KEPT_BYTES):
                self._spool.write(samples.tobytes())
            if self._meter is None:
                self._encoder.add(_floats(samples))
            else:  # of what is kept of other requests there are 16 bits: equal speech has an equal gain
                self._meter.add(_floats(samples))

    def finish(self) -> None:
        """The whole file is there. Raises UnsupportedFormat as `add`."""
        with self._using:
            if self._meter is not None and self._lufs is not None:
                self.gain = gain_to(self._lufs, self._meter.finish())
                for samples in self._spooled():
                    self._encoder.add(_floats(samples) * np.float32(self.gain.factor))
            self._encoder.finish()
            self.size_bytes = self._file.seek(0, io.SEEK_END)

    def kept(self) -> Pcm | None:
        """The speech as it came; None where it was not to be kept, or is over KEPT_BYTES."""
        if not self._keep or 2 * self.samples > KEPT_BYTES:
            return None
        with self._using:
            return np.concatenate([_floats(samples) for samples in self._spooled()])

    def pieces(self) -> Iterator[bytes]:
        """Of the file, from its beginning."""
        for at in range(0, self.size_bytes, READ_BYTES):
            with self._using:
                self._file.seek(at)
                piece = self._file.read(READ_BYTES)
            yield piece

    def close(self) -> None:
        """Nothing of it is left."""
        self._closing = True
        with self._using:
            self._file.close()
            self._spool.close()

    def _spooled(self) -> Iterator[Int16]:
        self._spool.seek(0)
        while piece := self._spool.read(2 * PIECE_SAMPLES):
            if self._closing:
                raise ValueError("the file is being closed: nobody wants it any more")
            yield np.frombuffer(piece, "<i2")


def wav_waves(data: bytes) -> Iterator[Pcm]:
    """The waveform of a WAV that `encode` wrote, a minute at a time; see `read_wav`."""
    with wave.open(io.BytesIO(data)) as reader:
        while piece := reader.readframes(PIECE_SAMPLES):
            yield _floats(np.frombuffer(piece, "<i2"))


def _spool() -> BinaryIO:
    return cast("BinaryIO", SpooledTemporaryFile(SPOOL_BYTES))  # closed by `close`


def _floats(samples: Int16) -> Pcm:
    """Which `to_int16` makes the same samples of."""
    return samples.astype(np.float32) / np.float32(FULL_SCALE)
