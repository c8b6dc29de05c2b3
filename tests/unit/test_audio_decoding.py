"""Files that strangers send: every accepted format is read, and nothing else is opened, believed or held in memory."""

import io
import struct
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from serve_app.audio import decode, decoding, encode, median_pitch_hz
from serve_app.domain import Pcm
from serve_app.errors import InvalidAudio

RATE_HZ = 48_000


def file(container: str, codec: str, *, seconds: float = 2.0, stereo: bool = False, amplitude: float = 0.5) -> bytes:
    """A tone of 200 Hz, encoded by FFmpeg; in stereo the right channel is silent."""
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    channel = amplitude * np.sin(2 * np.pi * 200 * time_s)
    channels = np.stack([channel, 0 * channel] if stereo else [channel]).astype(np.float32)
    layout = "stereo" if stereo else "mono"
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=RATE_HZ, layout=layout, options={"strict": "experimental"})
        frame = av.AudioFrame.from_ndarray(channels, format="fltp", layout=layout)
        frame.sample_rate = RATE_HZ
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def wav(samples: Pcm, *, rate_hz: int = 24_000, channels: int = 1) -> bytes:
    """A wav of 32-bit floats, which may say anything."""
    body, block = samples.astype("<f4").tobytes(), 4 * channels
    form = struct.pack("<IHHIIHH", 16, 3, channels, rate_hz, min(rate_hz * block, 2**32 - 1), block, 32)
    head = b"WAVEfmt " + form + b"data" + struct.pack("<I", len(body))
    return b"RIFF" + struct.pack("<I", len(head) + len(body)) + head + body


def video() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        output.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        output.mux(stream.encode(None))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("container", "codec", "extra_s"),
    [
        ("wav", "pcm_s16le", 0.0),
        ("wav", "pcm_f32le", 0.0),
        ("mp3", "libmp3lame", 0.0),
        ("flac", "flac", 0.0),
        ("ogg", "libopus", 0.0),
        ("webm", "libopus", 0.0),
        ("mov", "alac", 0.0),
        ("ipod", "aac", 0.05),  # aac comes in whole frames
        ("adts", "aac", 0.05),
    ],
)
def test_accepted_formats(container: str, codec: str, extra_s: float) -> None:
    """Each is read from memory: 2 s at 24 kHz, the same tone, finite and in range."""
    audio = decode(file(container, codec))
    assert audio.dtype == np.float32
    assert 2.0 <= len(audio) / 24_000 <= 2.0 + extra_s
    assert median_pitch_hz(audio) == pytest.approx(200, rel=0.005)
    assert float(np.abs(audio).max()) == pytest.approx(0.5, abs=0.05)


def test_ogg_vorbis() -> None:
    """Vorbis is read too; FFmpeg's own encoder for it takes stereo only."""
    audio = decode(file("ogg", "vorbis", stereo=True))
    assert len(audio) / 24_000 == pytest.approx(2.0, abs=0.05)
    assert median_pitch_hz(audio) == pytest.approx(200, rel=0.005)


def test_stereo_is_averaged() -> None:
    """A silent channel halves the level."""
    audio = decode(file("flac", "flac", stereo=True))
    assert float(np.abs(audio[2400:-2400]).max()) == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8])
def test_channels(channels: int) -> None:
    """Up to eight equal channels give what one gives."""
    samples = np.linspace(-0.5, 0.5, 4800, dtype=np.float32)
    assert decode(wav(np.repeat(samples, channels), channels=channels)) == pytest.approx(samples, abs=1e-6)


def test_our_own_wav_comes_back() -> None:
    """To half a step of 16 bits."""
    samples = np.random.default_rng(1).uniform(-1, 1, 5000).astype(np.float32)
    assert decode(encode(samples, "wav")) == pytest.approx(samples, abs=0.6 / 32767 + 1 / 32768)


def test_a_wav_that_was_streamed() -> None:
    """Its writer did not know the sizes and wrote the greatest; what follows is read."""
    whole = encode(np.zeros(4800, np.float32), "wav")
    assert len(decode(whole[:4] + b"\xff" * 4 + whole[8:40] + b"\xff" * 4 + whole[44:])) == 4800


def test_above_full_scale() -> None:
    """A float file that goes to 5 is scaled down as a whole, not clipped."""
    samples = np.array([0.0, 1.0, 5.0, -2.5], np.float32)
    assert decode(wav(samples)).tolist() == pytest.approx([0.0, 0.2, 1.0, -0.5])


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"empty \(0 bytes\)"),
        (b"RIFF", "cannot be read"),
        (b"The quick brown fox. " * 100, "cannot be read"),
        (bytes(10_000), "cannot be read"),
        (np.random.default_rng(1).bytes(50_000), "cannot be read"),
        (b"PK\x03\x04" + bytes(1000), "cannot be read"),
        (wav(np.zeros(0, np.float32)), "no audio at all"),
        (wav(np.array([0.1, np.nan], np.float32)), "NaN"),
        (wav(np.array([0.1, np.inf], np.float32)), "NaN or infinity"),
        (wav(np.zeros(480, np.float32), rate_hz=1), r"sample rate of 1 Hz.*8000 and 192000"),
        (wav(np.zeros(480, np.float32), rate_hz=2_000_000_000), "sample rate of 2000000000 Hz"),
        (wav(np.zeros(480, np.float32), channels=12), "12 channels: send at most 8"),
        (file("mp4", "ac3"), "encoded with ac3"),
        (file("aiff", "pcm_s16be"), "cannot be read"),
        (video(), "without an audio stream"),
        (file("flac", "flac")[:-3000], "cannot be read"),
        (file("ipod", "aac")[:-3000], "cannot be read"),
        (file("mp3", "libmp3lame")[:20_000] + bytes(200) + file("mp3", "libmp3lame")[20_200:], "cannot be read"),
    ],
)
def test_refused(data: bytes, reason: str) -> None:
    """The error names the field, what was found, and what to send."""
    with pytest.raises(InvalidAudio, match=rf"^ref_audio .*({reason})"):
        decode(data, field="ref_audio")
    with pytest.raises(InvalidAudio, match=r": (send|export) "):
        decode(data)


def test_a_frame_missing_inside_is_noticed() -> None:
    """FFmpeg leaves out a damaged flac frame without a word; the header's count tells."""
    data = bytearray(file("flac", "flac", seconds=4.0))
    data[len(data) // 2 : len(data) // 2 + 3000] = bytes(3000)
    with pytest.raises(InvalidAudio, match=r"states 4\.00 s and ends after 3\.\d\d s: send the whole file"):
        decode(bytes(data))


PLAYLISTS = [
    b"ffconcat version 1.0\nfile secret.wav\n",
    b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nsecret.wav\n#EXT-X-ENDLIST\n",
    b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" profiles="x">'
    b"<Period><AdaptationSet><Representation><BaseURL>secret.wav</BaseURL></Representation></AdaptationSet></Period>"
    b"</MPD>",
    b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
]


@pytest.fixture
def _secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file in the working directory that no upload may reach."""
    monkeypatch.chdir(tmp_path)
    with wave.open("secret.wav", "wb") as writer:
        writer.setparams((1, 2, 24_000, 0, "NONE", ""))
        writer.writeframes(bytes(48_000))


@pytest.mark.usefixtures("_secret")
@pytest.mark.parametrize("playlist", PLAYLISTS, ids=["ffconcat", "hls", "dash", "sdp"])
@pytest.mark.parametrize("recognised", [False, True])
def test_playlists_open_nothing(playlist: bytes, recognised: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A playlist is no audio; and if FFmpeg took it for one, it still could not open what it names."""
    if recognised:
        monkeypatch.setattr(decoding, "CONTAINERS", (*decoding.CONTAINERS, "concat", "hls", "dash", "sdp"))
    with pytest.raises(InvalidAudio, match="cannot be read as audio"):
        decode(playlist)


@pytest.mark.usefixtures("_secret")
def test_the_secret_is_in_reach_without_our_limits() -> None:
    """The test above can fail: with its defaults PyAV opens the file beside."""
    with av.open(io.BytesIO(PLAYLISTS[0]), mode="r") as container:
        assert sum(frame.samples for frame in container.decode(container.streams.audio[0])) == 24_000


def test_audio_bomb() -> None:
    """A small file of ten minutes of silence is refused by what comes out of it, not by what it says."""
    bomb = file("flac", "flac", seconds=600, amplitude=0.0)
    assert len(bomb) < 200_000
    with pytest.raises(InvalidAudio, match="audio is longer than 60 s"):
        decode(bomb, max_duration_s=60)


def test_the_limit_itself_is_allowed() -> None:
    """Exactly as long as allowed is not too long."""
    assert len(decode(file("flac", "flac", seconds=2.0), max_duration_s=2.0)) == 48_000
