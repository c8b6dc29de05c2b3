"""ElevenLabs' own Python client, unmodified, against the service: one replica of the preview model on a directory."""

import base64
from collections.abc import Iterator
from itertools import pairwise

import httpx
import pytest
from elevenlabs import VoiceSettings
from elevenlabs.client import ElevenLabs
from elevenlabs.core.api_error import ApiError

from serve_app.audio import decode
from tests.support.deadline import DEADLINE_S
from tests.support.running import RunningService
from tests.support.sentences import SENTENCES
from tests.support.speech import ENGLISH, recording
from tests.support.transcribe import transcribe, word_error_rate

TEXT = " ".join(SENTENCES)
MODEL = "eleven_multilingual_v2"
VOICE = "heart"
MAX_WER = 0.06
ONCE = {"max_retries": 0}


@pytest.fixture
def sdk(service: RunningService) -> Iterator[ElevenLabs]:
    with httpx.Client(timeout=DEADLINE_S) as http:
        yield ElevenLabs(api_key="any", base_url=service.url, httpx_client=http)


def speech(**changes: object) -> dict:
    return {"voice_id": VOICE, "model_id": MODEL, "text": TEXT, "seed": 3, **changes}


def test_it_converts(sdk: ElevenLabs):
    """What comes is what the text says, in the format that it has where none is named."""
    file = b"".join(sdk.text_to_speech.convert(**speech(voice_settings=VoiceSettings(stability=0.5, speed=1.0))))
    assert file[:3] == b"ID3" or file[0] == 0xFF
    assert word_error_rate([TEXT], [transcribe(file)]) <= MAX_WER


def test_it_streams(sdk: ElevenLabs):
    """In pieces, to the sample what it converts."""
    asked = speech(output_format="pcm_24000", enable_logging=False)
    with sdk.text_to_speech.with_raw_response.stream(**asked) as answer:
        pieces = [*answer.data]
        assert answer.headers["content-type"] == "audio/pcm"
    assert len(pieces) > 1
    assert b"".join(pieces) == b"".join(sdk.text_to_speech.convert(**asked))


@pytest.mark.parametrize("output_format", ["opus_48000_64", "wav_16000", "ulaw_8000", "mp3_22050_32"])
def test_it_gets_the_format_that_it_names(sdk: ElevenLabs, output_format: str):
    """As long as the speech, whichever it is."""
    asked = speech(text=SENTENCES[0])
    pcm = b"".join(sdk.text_to_speech.convert(**asked, output_format="pcm_24000"))
    file = b"".join(sdk.text_to_speech.convert(**asked, output_format=output_format))
    seconds = len(file) / 8000 if output_format == "ulaw_8000" else len(decode(file)) / 24_000
    assert seconds == pytest.approx(len(pcm) / 48_000, abs=0.01)


def test_it_converts_with_timestamps(sdk: ElevenLabs):
    """Every character of the text once, in order, inside the audio."""
    answer = sdk.text_to_speech.convert_with_timestamps(**speech(output_format="pcm_24000"))
    audio_s = len(base64.b64decode(answer.audio_base_64)) / 48_000
    for alignment in (answer.alignment, answer.normalized_alignment):
        edges = [*alignment.character_start_times_seconds, alignment.character_end_times_seconds[-1]]
        assert all(before <= after for before, after in pairwise([0.0, *edges, audio_s + 1e-4]))
    assert "".join(answer.alignment.characters) == TEXT
    assert "".join(answer.normalized_alignment.characters).split() == TEXT.split()


def test_it_streams_with_timestamps(sdk: ElevenLabs):
    """Its parser reads each line; together they are the whole answer."""
    asked = speech(output_format="pcm_24000")
    chunks = [*sdk.text_to_speech.stream_with_timestamps(**asked)]
    whole = sdk.text_to_speech.convert_with_timestamps(**asked)
    assert len(chunks) > 1
    assert b"".join(base64.b64decode(chunk.audio_base_64) for chunk in chunks) == base64.b64decode(whole.audio_base_64)
    told = [chunk.alignment for chunk in chunks if chunk.alignment]
    assert [character for each in told for character in each.characters] == whole.alignment.characters
    starts_s = [at for each in told for at in each.character_start_times_seconds]
    assert starts_s == whole.alignment.character_start_times_seconds


def test_a_stream_that_breaks_is_no_whole_answer(sdk: ElevenLabs):
    """Of a text that the model cannot go on with: its iterator raises, in both forms."""
    asked = speech(text=f"{TEXT} 我不会说英语。", output_format="pcm_24000", request_options=ONCE)
    for method in (sdk.text_to_speech.stream, sdk.text_to_speech.stream_with_timestamps):
        heard = method(**asked)
        assert next(heard)
        with pytest.raises(httpx.RemoteProtocolError):
            list(heard)


def test_a_voice_lives_from_add_to_delete(sdk: ElevenLabs):
    """Added from a recording, found by both lists, told, deleted, gone."""
    labels = {"accent": "American"}
    added = sdk.voices.ivc.create(
        name="nature two", files=[("nature.wav", recording("basic_ref_en.wav"))], description="Calm.", labels=labels
    )
    assert (added.voice_id, added.requires_verification) == ("nature-two", False)
    assert [VOICE, added.voice_id] == [voice.voice_id for voice in sdk.voices.get_all().voices]
    found = sdk.voices.search(search="NATURE", page_size=1, sort="name", include_total_count=True)
    assert ([voice.voice_id for voice in found.voices], found.total_count) == ([added.voice_id], 1)
    told = sdk.voices.get(added.voice_id)
    assert (told.description, told.labels["accent"], told.category) == ("Calm.", "American", "cloned")
    assert word_error_rate([ENGLISH], [transcribe(httpx.get(told.preview_url).content)]) <= MAX_WER
    assert sdk.voices.delete(added.voice_id).status == "ok"
    with pytest.raises(ApiError) as refusal:
        sdk.voices.get(added.voice_id)
    assert refusal.value.status_code == 404


def test_it_lists_models(sdk: ElevenLabs):
    """The bare list, with the names that its users send."""
    models = {model.model_id: model for model in sdk.models.list()}
    assert {"preview", MODEL, "eleven_flash_v2_5"} <= set(models)
    assert models[MODEL].can_do_text_to_speech
    assert [language.language_id for language in models[MODEL].languages] == ["en"]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"voice_id": "21m00Tcm4TlvDq8ikWAM"}, 404, "voice_not_found"),
        ({"text": "?!"}, 400, "invalid_text"),
        ({"model_id": "eleven_v9"}, 404, "model_not_found"),
        ({"output_format": "mp3_44100_1"}, 422, "unsupported_format"),
    ],
)
def test_its_errors_show_what_is_wrong(sdk: ElevenLabs, changes: dict, status: int, code: str):
    """Status, code, message and the request's id are in the error that it raises, in all forms."""
    tts = sdk.text_to_speech
    for method in (tts.convert, tts.stream, tts.convert_with_timestamps, tts.stream_with_timestamps):
        with pytest.raises(ApiError) as refusal:
            b"".join(method(**speech(**changes, request_options=ONCE)))
        detail = refusal.value.body["detail"]
        assert (refusal.value.status_code, detail["status"]) == (status, code)
        assert detail["request_id"] == refusal.value.headers["x-request-id"]
        assert detail["message"] in str(refusal.value) or "'" in detail["message"]
