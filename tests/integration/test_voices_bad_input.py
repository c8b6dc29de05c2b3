"""Files and names that strangers upload, by every dialect: each is a 4xx that names it, and nothing is stored."""

import base64
import io
import struct
from collections.abc import Callable

import av
import numpy as np
import pytest

from serve_app.audio import encode
from serve_app.preparation import RecordingPreparer
from tests.integration.test_preparation import flac_bomb, noise, wav_of
from tests.support.sentences import SENTENCES
from tests.support.service import LocalService
from tests.support.speech import ENGLISH, joined, recording, spoken


@pytest.fixture
def service() -> LocalService:
    return LocalService(preparer=RecordingPreparer("tiny.en"))


def coded(codec: str, container: str) -> bytes:
    """Two seconds of noise, encoded by FFmpeg."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        stream = out.add_stream(codec, rate=24_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(noise(2)[None].astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate = 24_000
        for made in av.AudioResampler(format=stream.format, layout="mono", rate=24_000).resample(frame):
            out.mux(stream.encode(made))
        out.mux(stream.encode(None))
    return file.getvalue()


def video() -> bytes:
    """A film without sound."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        for _ in range(10):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        out.mux(stream.encode(None))
    return file.getvalue()


def float_wav(samples: np.ndarray) -> bytes:
    """32-bit float, which can hold what is no number."""
    body = samples.astype("<f4").tobytes()
    form = struct.pack("<HHIIHH", 3, 1, 24_000, 96_000, 4, 32)
    head = b"RIFF" + struct.pack("<I", 36 + len(body)) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", len(body)) + body


SPEECH = wav_of(spoken(SENTENCES[0]))
MP3 = coded("libmp3lame", "mp3")
FILES: dict[str, Callable[[], bytes]] = {
    "zero bytes": lambda: b"",
    "one byte": lambda: b"\0",
    "text": lambda: b"I am a text, though I am called anna.wav.",
    "html": lambda: b"<!doctype html><title>404</title>",
    "json": lambda: b'{"error": "not found"}',
    "zip": lambda: b"PK\x03\x04" + bytes(200),
    "elf": lambda: b"\x7fELF" + bytes(200),
    "png": lambda: b"\x89PNG\r\n\x1a\n" + bytes(200),
    "header only": lambda: SPEECH[:44],
    "half a header": lambda: SPEECH[:20],
    "huge chunk size": lambda: SPEECH[:4] + b"\xff\xff\xff\xff" + SPEECH[8:40] + b"\xff\xff\xff\x7f",
    "huge rate": lambda: SPEECH[:24] + struct.pack("<I", 2**31 - 1) + SPEECH[28:],
    "rate of zero": lambda: SPEECH[:24] + struct.pack("<I", 0) + SPEECH[28:],
    "no channels": lambda: SPEECH[:22] + struct.pack("<H", 0) + SPEECH[24:],
    "255 channels": lambda: SPEECH[:22] + struct.pack("<H", 255) + SPEECH[24:],
    "flac bomb": flac_bomb,
    "flac cut": lambda: coded("flac", "flac")[:-2000],
    "ffconcat": lambda: b"ffconcat version 1.0\nfile /etc/passwd\n",
    "hls": lambda: b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
    "dash": lambda: b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"></MPD>',
    "sdp": lambda: b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
    "subtitles": lambda: b"1\n00:00:00,000 --> 00:00:01,000\nHello\n",
    "8 channels of noise": lambda: wav_of(np.repeat(noise(2), 8), channels=8),
    "noise at 8 kHz": lambda: wav_of(noise(1), rate=8_000),
    "noise in mp3": lambda: MP3,
    "random mp3": lambda: b"\xff\xfb\x90\x64" + np.random.default_rng(0).bytes(4000),
    "NaN": lambda: float_wav(np.full(48_000, np.nan)),
    "infinity": lambda: float_wav(np.full(48_000, np.inf)),
    "silence": lambda: wav_of(np.zeros(72_000)),
    "pure tone": lambda: wav_of(0.3 * np.sin(np.arange(72_000) / 20)),
    "0.2 s": lambda: wav_of(spoken(SENTENCES[0])[:4800]),
    "video": video,
    "11 minutes": lambda: encode(np.tile(joined(*SENTENCES), 23)[: 24_000 * 660], "mp3"),
}


@pytest.mark.parametrize("name", FILES)
async def test_a_bad_file_is_refused(service: LocalService, name: str) -> None:
    """By multipart and by base64: 422 names the field; the store is as empty as before."""
    data = FILES[name]()
    multipart = await service.client.post(
        "/v1/audio/voices",
        data={"name": "anna", "ref_text": ENGLISH},
        files={"audio_sample": ("anna.wav", data, "audio/wav")},
    )
    payload = {"endpoint": "upload", "voice_name": "anna", "voice_file": base64.b64encode(data).decode()}
    worker = await service.client.post("/runsync", json={"input": payload})
    assert multipart.status_code == 422, multipart.text
    assert multipart.json()["error"]["code"] == "invalid_audio"
    assert multipart.json()["error"]["message"].startswith("audio_sample")
    assert worker.status_code == (422 if data else 400), worker.text
    assert "input.voice_file" in worker.json()["error"]
    assert service.store.list("").items == []


async def test_a_bad_text_is_refused(service: LocalService) -> None:
    """Another language, nothing, far too long, half a character: 422 or 400 names ref_text, and nothing is stored."""
    files = {"audio_sample": ("anna.wav", recording("basic_ref_en.wav"))}
    for text in ("Der Wind und die Sonne stritten sich einst.", "?!", ENGLISH * 20, "这是另一种语言。"):
        answer = await service.client.post("/v1/audio/voices", data={"name": "anna", "ref_text": text}, files=files)
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_transcript")
        assert "ref_text" in answer.json()["error"]["message"]
    assert service.store.list("").items == []


@pytest.mark.parametrize(
    ("field", "value"), [("language", "Klingon!"), ("labels", "no"), ("labels", "[1]"), ("labels", '{"a": 1}')]
)
async def test_a_bad_field_is_refused(service: LocalService, field: str, value: str) -> None:
    """400 names the field and shows what would do."""
    files = {"audio_sample": ("anna.wav", recording("basic_ref_en.wav"))}
    answer = await service.client.post("/v1/audio/voices", data={"name": "anna", field: value}, files=files)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_request")
    assert field in answer.json()["error"]["message"]
    assert service.store.list("").items == []


def hostile_names() -> list[str]:
    """200 of them: paths, controls, other scripts, lookalikes, shells, URLs, too long."""
    paths = "../x .. . a/b a\\b /etc/passwd C:\\x %2e%2e%2f ..%2f %00 a%00.wav ~ file:///x s3://b/k http://x"
    shells = "$HOME `id` $(id) a;b a|b a&b a>b a<b ' \" a'-- {{7*7}} ${7*7} a* a? [a] a:b @a a,b a+b a=b a#b a!b a^b"
    scripts = "ä é я 中 あ ا א ａ \u202ea a\u200b \ufeffa \U0001f600 a\u0301 Ⅳ ² ٣"
    endings = "-a _a .a a. a.b a.wav.wav a.txt a.v1.json ..wav"
    parts = " ".join((paths, shells, scripts, endings)).split(" ")
    controls = [chr(code) for code in (*range(1, 33), *range(127, 161))]
    parts += [f"a{control}" for control in controls] + [f"a{control}b" for control in controls]
    parts += ["a b", " a", "a ", "a\0b", "a" * 65, "a" * 1000, "a" * 100_000]
    return list(dict.fromkeys(parts))


async def test_hostile_names_are_refused(service: LocalService) -> None:
    """By each dialect, 400 with the pattern, before the recording is looked at; the key of no object is made of one."""
    names = hostile_names()
    assert len(names) >= 200
    files = {"audio_sample": ("anna.wav", b"never read")}
    for name in names:
        answer = await service.client.post("/v1/audio/voices", data={"name": name}, files=files)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_voice_name"), name
        assert len(answer.text) < 1000
        payload = {"endpoint": "upload", "voice_name": name, "voice_file": "AAAA"}
        answer = await service.client.post("/runsync", json={"input": payload})
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_voice_name"), name
        answer = await service.client.post("/v1/audio/speech", json={"input": "Hi.", "voice": name})
        assert answer.status_code in (400, 404), name
    assert service.store.list("").items == []
