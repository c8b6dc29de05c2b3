"""ElevenLabs' text to speech over the whole service in one process."""

import base64
import json

import numpy as np
import pytest

from serve_app.api.elevenlabs_forms import OUTPUT_FORMATS
from serve_app.audio import Encoder, Encoding, decode
from serve_app.settings import LimitSettings
from tests.support.service import LocalService

SPEECH = "/v1/text-to-speech/heart"
FORMS = ["", "/stream", "/with-timestamps", "/stream/with-timestamps"]
FILLER = "so that it has a unit of its own, " * 5
BODY = {
    "text": " \n".join(f"Sentence {n} goes on for a while, {FILLER}and ends." for n in range(4)),
    "model_id": "preview",
    "seed": 3,
}
PCM = "?output_format=pcm_24000"


@pytest.fixture
def service() -> LocalService:
    return LocalService()


async def spoken(service: LocalService, form: str = "", query: str = PCM, **body: object):
    return await service.client.post(f"{SPEECH}{form}{query}", json=BODY | body)


async def file_of(service: LocalService, form: str, query: str = PCM, **body: object) -> bytes:
    """The audio file, in whichever form it comes."""
    answer = await spoken(service, form, query, **body)
    assert answer.status_code == 200, answer.text
    if "timestamps" not in form:
        return answer.content
    return b"".join(base64.b64decode(json.loads(line)["audio_base64"]) for line in answer.text.splitlines())


def spy(service: LocalService) -> list:
    """Requests as they were accepted from now on."""
    seen, accept = [], service.services.acceptance.accept

    async def noted(**asked):
        seen.append(await accept(**asked))
        return seen[-1]

    service.services.acceptance.accept = noted
    return seen


@pytest.mark.parametrize("form", FORMS)
async def test_all_forms_are_the_speech_of_the_other_dialects(service, form):
    """To the sample what OpenAI's dialect gives for the same text and seed."""
    openai = {"input": BODY["text"], "model": "preview", "voice": "heart", "seed": 3, "response_format": "pcm"}
    expected = (await service.client.post("/v1/audio/speech", json=openai)).content
    assert await file_of(service, form) == expected


@pytest.mark.parametrize("name", OUTPUT_FORMATS)
async def test_a_format_is_what_its_name_says(service, name):
    """Kind, rate and bit rate; whole and streamed, it decodes to the speech."""
    kind, rate_hz, *kbits = name.split("_")
    encoding = Encoding.of(kind, int(rate_hz), 1000 * int(kbits[0]) if kbits else None)
    pcm = await file_of(service, "", text="Hello there.")
    audio = np.frombuffer(pcm, "<i2").astype(np.float32) / 32767
    for form, whole in (("", True), ("/stream", False)):
        answer = await spoken(service, form, f"?output_format={name}", text="Hello there.")
        encoder = Encoder(encoding, whole=whole)
        assert answer.content == encoder.add(audio) + encoder.finish()
        assert answer.headers["content-type"] == encoding.content_type


async def test_mp3_at_44_khz_is_the_default(service):
    """As ElevenLabs' reference says."""
    answer = await spoken(service, query="")
    assert answer.headers["content-type"] == "audio/mpeg"
    assert answer.content == await file_of(service, "", "?output_format=mp3_44100_128")
    assert len(decode(answer.content)) / 24_000 == pytest.approx(float(answer.headers["x-audio-seconds"]), abs=0.05)


async def test_what_has_a_meaning_here_is_honoured(service):
    """Speed, seed, language and normalization reach the speech; a voice can be an alias."""
    seen = spy(service)
    settings = {"speed": 2.0}
    body = {"text": "Hi.", "voice_settings": settings, "language_code": "pt-BR", "apply_text_normalization": "off"}
    assert (await service.client.post("/v1/text-to-speech/alloy", json=body)).status_code == 200
    assert (await service.client.post(SPEECH, json={"text": "Hi.", "model_id": "preview"})).status_code == 200
    told = [(each.speed, each.language, each.normalize, each.voice.name) for each in seen]
    assert told == [(2.0, "pt-br", False, "nature"), (1.0, None, True, "heart")]


@pytest.mark.parametrize(("sent", "used"), [(7, 7), (2**31 - 1, 2**31 - 1), (2**31, 0), (2**32 - 1, 2**31 - 1)])
async def test_every_seed_of_theirs_can_be_sent(service, sent, used):
    """They have one bit more; the answer names the seed that was used."""
    assert (await spoken(service, text="Hi.", seed=sent)).headers["x-seed"] == str(used)


@pytest.mark.parametrize("form", FORMS)
async def test_what_has_no_meaning_here_is_named(service, form):
    """Taken, and told to be ignored; the audio is the same without it."""
    settings = {"stability": 0.0, "similarity_boost": 1, "style": 0.2, "use_speaker_boost": False, "speed": 1.0}
    ignored = {
        "previous_text": "a",
        "next_text": "b",
        "previous_request_ids": ["1"],
        "next_request_ids": [],
        "use_pvc_as_ivc": True,
        "apply_language_text_normalization": False,
    }
    body = {"text": "Hi.", "voice_settings": settings | {"clone_strength": 0.5}, **ignored}
    query = f"{PCM}&optimize_streaming_latency=3"
    answer = await spoken(service, form, query, **body)
    named = answer.headers["x-ignored-fields"].split(", ")
    of_settings = {f"voice_settings.{name}" for name in (*settings, "clone_strength") if name != "speed"}
    assert set(named) == {*ignored, *of_settings, "optimize_streaming_latency"}
    assert len(named) == len(set(named))
    assert await file_of(service, form, query, **body) == await file_of(service, form, PCM, text="Hi.")
    assert "x-ignored-fields" not in (await spoken(service, form, text="Hi.")).headers


async def test_speech_with_a_seed_is_kept_unless_logging_is_off(service):
    """`enable_logging=false` neither keeps it nor takes what was kept."""
    seen = spy(service)
    await spoken(service, seed=9)
    service.runtimes.publish("preview", (await service.speaker.speak(seen[0])).made_by)
    off = f"{PCM}&enable_logging=false"
    cached = [(await spoken(service, query=query)).headers["x-cached"] for query in (off, PCM, off, PCM)]
    assert cached == ["false", "false", "false", "true"]


@pytest.mark.parametrize("form", FORMS)
async def test_answers_have_their_headers(service, form):
    """Theirs, and ours that say who spoke."""
    answer = await service.client.post(
        f"/v1/text-to-speech/alloy{form}", json={"text": "Hi.", "seed": 4}, headers={"x-request-id": "abc"}
    )
    names = ("request-id", "character-cost", "x-character-count", "x-model", "x-draft", "x-seed")
    assert [answer.headers[name] for name in names] == ["abc", "3", "3", "f5", "false", "4"]
    assert answer.headers.get("x-timing-method") == ("estimated" if "timestamps" in form else None)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("body", "query", "status", "code", "words"),
    [
        ({"text": " "}, "", 400, "invalid_text", ["text", "empty"]),
        ({"text": "half \ud83d"}, "", 400, "invalid_text", ["text", "half a character"]),
        ({"text": None}, "", 400, "invalid_request", ["text", "None"]),
        ({"text": "x" * 201}, "", 413, "payload_too_large", ["text", "201", "200"]),
        ({"model_id": "eleven_v9"}, "", 404, "model_not_found", ["eleven_v9", "preview"]),
        ({"seed": -1}, "", 400, "invalid_request", ["seed", "-1"]),
        ({"seed": 2**32}, "", 400, "invalid_request", ["seed", str(2**32)]),
        ({"language_code": "English!"}, "", 400, "invalid_request", ["language_code", "English!", "pt-BR"]),
        ({"voice_settings": {"speed": 9}}, "", 400, "invalid_request", ["speed", "9", "0.25 to 4"]),
        ({"voice_settings": {"stabilty": 1}}, "", 400, "invalid_request", ["voice_settings.stabilty"]),
        ({"voice_settings": {"style": "0.5"}}, "", 400, "invalid_request", ["voice_settings.style", "'0.5'"]),
        ({"voice_settings": {"speed": True}}, "", 400, "invalid_request", ["voice_settings.speed", "True"]),
        ({"voice_settings": {"style": "much"}}, "", 400, "invalid_request", ["voice_settings.style", "much"]),
        ({"apply_text_normalization": "maybe"}, "", 400, "invalid_request", ["apply_text_normalization", "maybe"]),
        ({"txt": "Hi."}, "", 400, "invalid_request", ["txt"]),
        (
            {"pronunciation_dictionary_locators": [{"pronunciation_dictionary_id": "a"}]},
            "",
            400,
            "invalid_request",
            ["pronunciation_dictionary_locators", "leave it out"],
        ),
        ({"audio_effects": {"pan": 0, "distance": 0.5}}, "", 400, "invalid_request", ["audio_effects.distance"]),
        ({}, "?output_format=mp3_44100_129", 422, "unsupported_format", ["output_format", "129", *OUTPUT_FORMATS]),
        ({}, "?output_format=", 422, "unsupported_format", ["output_format", "pcm_24000"]),
        ({}, "?output_fromat=pcm_8000", 400, "invalid_request", ["output_fromat"]),
        ({}, "?optimize_streaming_latency=5", 400, "invalid_request", ["optimize_streaming_latency", "5"]),
        ({}, "?enable_logging=perhaps", 400, "invalid_request", ["enable_logging", "perhaps"]),
    ],
)
async def test_bad_input_is_refused_with_the_field_the_value_and_the_remedy(form, body, query, status, code, words):
    """In their envelope, with our four fields, before anything is spoken."""
    service = LocalService(limits=LimitSettings(speech_chars=200))
    content = json.dumps({"text": "Hi."} | body)
    headers = {"content-type": "application/json"}
    answer = await service.client.post(f"{SPEECH}{form}{query}", content=content, headers=headers)
    detail = answer.json()["detail"]
    assert (answer.status_code, detail["status"], detail["code"]) == (status, code, code)
    assert [word for word in words if word not in detail["message"]] == []
    assert set(detail) == {"status", "type", "code", "message", "request_id"}
    assert service.engine.calls == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("voice_id", "status", "code"),
    [("21m00Tcm4TlvDq8ikWAM", 404, "voice_not_found"), ("..", 404, "not_found"), ("a b", 400, "invalid_voice_name")],
)
async def test_an_unknown_voice_is_theirs_to_read(service, form, voice_id, status, code):
    """404 that names it; what cannot be a name is 400."""
    answer = await service.client.post(f"/v1/text-to-speech/{voice_id}{form}", json={"text": "Hi."})
    if voice_id != "..":  # the client itself takes that for the folder above
        assert voice_id in answer.json()["detail"]["message"]
        assert (answer.status_code, answer.json()["detail"]["code"]) == (status, code)
    assert answer.status_code == status


@pytest.mark.parametrize("path", ["/v1/text-to-speech", "/v1/text-to-speech/heart/nothing", "/v1/voices/heart/edit"])
async def test_what_is_not_served_says_so_in_their_form(service, path):
    """Errors of the framework itself too."""
    answer = await service.client.post(path, json={})
    assert (answer.status_code, answer.json()["detail"]["status"]) in [(404, "not_found"), (405, "method_not_allowed")]


async def test_the_documented_example_is_spoken(service):
    """As it stands, but for the alias, which is not in this catalog."""
    document = (await service.client.get("/openapi.json")).json()
    (example,) = document["components"]["schemas"]["TextToSpeechBody"]["examples"]
    answer = await service.client.post(SPEECH, json=example | {"model_id": "preview"})
    assert (answer.status_code, answer.headers["x-seed"]) == (200, str(example["seed"]))


async def test_models_have_two_forms(service):
    """With their header a bare list, with and without the key being right; else OpenAI's."""
    theirs = (await service.client.get("/v1/models", headers={"xi-api-key": "any"})).json()
    assert [model["model_id"] for model in theirs] == ["preview", "f5", "tts-1"]
    assert {model["can_do_text_to_speech"] for model in theirs} == {True}
    assert theirs[0]["languages"] == [{"language_id": "en", "name": "en"}]
    assert theirs[0]["maximum_text_length_per_request"] == service.limits.speech_chars
    assert "draft" in theirs[0]["description"]
    assert "an alias of f5" in theirs[2]["description"]
    ours = (await service.client.get("/v1/models")).json()
    assert [model["id"] for model in ours["data"]] == ["preview", "f5", "tts-1"]
