"""What a request says of its text, alike in all dialects; and the fields that only a call can have."""

import json

import pytest

from serve_app.domain import SpeechRequest
from tests.support.service import LocalService

SPEECH = "/v1/audio/speech"
TEXT = {"language": "pt-BR", "normalize": False, "lexicon": {"Nguyen": "win", "SQL": "sequel", "GIF": "jif"}}


@pytest.fixture
def service() -> LocalService:
    return LocalService()


def keep_accepted(service: LocalService) -> list[SpeechRequest]:
    """All that is accepted from now on."""
    kept, accept = [], service.services.acceptance.accept

    async def kept_accept(**named):
        kept.append(await accept(**named))
        return kept[-1]

    service.services.acceptance.accept = kept_accept
    return kept


@pytest.mark.parametrize("path", [SPEECH, "/v1/jobs", "/run", "/v2/any/runsync"])
async def test_fields_of_the_text_are_part_of_the_request(service, path):
    """The tag in small letters, the words that are in the text; without the fields, the text is normalised alone."""
    accepted = keep_accepted(service)
    for fields in (TEXT, {}):
        text = {"input": "Oi, Nguyen, SQL."} if path in (SPEECH, "/v1/jobs") else {"text": "Oi, Nguyen, SQL."}
        body = text | fields
        answer = await service.client.post(path, json=body if "input" in body else {"input": body})
        assert answer.status_code in (200, 202)
    told = [(each.language, each.normalize, each.lexicon) for each in accepted]
    assert told == [("pt-br", False, (("Nguyen", "win"), ("SQL", "sequel"))), (None, True, ())]


@pytest.mark.parametrize("path", [SPEECH, "/v1/jobs", "/run"])
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"language": "Portuguese!"}, ["language", "Portuguese!", "pt-BR"]),
        ({"language": 3}, ["language", "3"]),
        ({"normalize": "yes"}, ["normalize", "yes"]),
        ({"normalize": None}, ["normalize", "None"]),
        ({"lexicon": ["a"]}, ["lexicon", "a"]),
        ({"lexicon": {"a": 1}}, ["lexicon", "1"]),
        ({"lexicon": {" ": "x"}}, ["lexicon", "no letter or digit"]),
        ({"lexicon": {"SQL": ""}}, ["lexicon", "0 characters", "SQL"]),
        ({"lexicon": {"x" * 101: "y"}}, ["lexicon", "101", "100"]),
        ({"lexicon": {"y": "x" * 101}}, ["lexicon", "101", "100"]),
        ({"lexicon": {"y": "a\x00"}}, ["lexicon", "control character"]),
        ({"lexicon": {"y": "\ud83d"}}, ["lexicon", "half a character"]),
        ({"lexicon": {str(n): "x" for n in range(101)}}, ["lexicon", "101", "100", "/v1/lexicon"]),
        ({"normalise": False}, ["normalise"]),
        ({"lexikon": {}}, ["lexikon"]),
        ({"langauge": "en"}, ["langauge"]),
    ],
)
async def test_wrong_ones_are_refused(service, path, fields, words):
    """400 that names the field, what was sent and the remedy; nothing is spoken or stored."""
    body = {"input": {"text": "Oi."} | fields} if path == "/run" else {"input": "Oi."} | fields
    answer = await service.client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
    error = answer.json() if path == "/run" else answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_request")
    assert [word for word in words if word not in error["message"]] == []
    assert path != "/run" or error["message"].startswith("input.")
    assert service.store.list("jobs/").items == []
    assert service.engine.calls == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"loudness": -3}, ["loudness", "-3", "-40 to -8"]),
        ({"loudness": -41.5}, ["loudness", "-41.5", "-40 to -8"]),
        ({"loudness": float("nan")}, ["loudness", "nan", "-40 to -8"]),
        ({"loudness": "-16"}, ["loudness", "-16", "number"]),
        ({"loudness": True}, ["loudness", "True"]),
        ({"loudnes": -16}, ["loudnes"]),
        ({"word_times": True}, ["word_times", "not measured yet", "leave it out"]),
        ({"word_times": 1}, ["word_times", "1"]),
        ({"word_time": False}, ["word_time"]),
    ],
)
@pytest.mark.parametrize("stream_format", [None, "audio", "sse"])
async def test_wrong_fields_of_a_call_are_refused(service, fields, words, stream_format):
    """400, before anything is spoken, streamed or not."""
    body = {"input": "Hi.", "stream_format": stream_format} | fields
    answer = await service.client.post(SPEECH, content=json.dumps(body), headers={"content-type": "application/json"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "invalid_request")
    assert [word for word in words if word not in error["message"]] == []
    assert service.engine.calls == []


async def test_what_may_be_said_without_effect_is_taken(service):
    """`word_times: false`, `loudness: null` and `instructions` ask for nothing; a header names what is ignored."""
    body = {"input": "Hi.", "word_times": False, "loudness": None, "instructions": "Whisper."}
    for form in ({}, {"stream_format": "audio"}):
        answer = await service.client.post(SPEECH, json=body | form)
        assert (answer.status_code, answer.headers["x-ignored-fields"]) == (200, "instructions")
        assert "x-loudness" not in answer.headers


async def test_the_text_decides_the_result_with_its_fields(service):
    """Another language, normalisation or lexicon is another result; the same is the same job's again."""
    digests = set()
    for fields in ({}, {"language": "en"}, {"normalize": False}, {"lexicon": {"Hi": "High"}}, {"language": "EN"}):
        answer = await service.client.post(SPEECH, json={"input": "Hi.", "seed": 1} | fields)
        assert answer.status_code == 200
        digests |= {info.key for info in service.store.list("results/").items}
    assert len(digests) == 4


async def test_an_answer_says_in_which_languages_numbers_were_written_out(service):
    """Whole or streamed; others are left as they are, and that is said too."""
    for fields, told in (
        ({"input": "I have 3 cats."}, "en"),
        ({"input": "I have 3 cats. 我有3只猫。"}, "en, zh"),
        ({"input": "I have 3 cats.", "normalize": False}, "none"),
        ({"input": "Ich habe 3 Katzen.", "language": "de"}, "none"),
    ):
        for form in ({}, {"stream_format": "audio"}):
            answer = await service.client.post(SPEECH, json=fields | form)
            assert (answer.status_code, answer.headers["x-normalization"]) == (200, told)


async def test_the_stored_lexicon_is_spoken_and_a_requests_own_wins(service):
    """Only what is in the text is kept with the request."""
    entries = {"GIF": "jif", "SQL": "sequel", "Nguyen": "win"}
    assert (await service.client.put("/v1/lexicon", json={"entries": entries})).status_code == 200
    accepted = keep_accepted(service)
    body = {"input": "A GIF of SQL.", "lexicon": {"SQL": "ess queue ell"}}
    assert (await service.client.post(SPEECH, json=body)).status_code == 200
    assert accepted[0].lexicon == (("SQL", "ess queue ell"), ("GIF", "jif"))
    assert service.engine.calls == [("A jif of ess queue ell.",)]


@pytest.mark.parametrize("path", [SPEECH, "/v1/jobs", "/run"])
@pytest.mark.parametrize("text", ["# ---", "\U0001f44d\U0001f389", "[pause:1]", "**[voice:heart]**"])
async def test_what_is_markup_alone_is_refused(service, path, text):
    """Before it is a job: nothing would be spoken."""
    body = {"input": {"text": text}} if path == "/run" else {"input": text}
    answer = await service.client.post(path, json=body)
    code = answer.json()["code"] if path == "/run" else answer.json()["error"]["code"]
    assert (answer.status_code, code) == (400, "invalid_text")
    assert service.store.list("jobs/").items == []


async def test_a_text_switches_voices(service):
    """Each is fixed at acceptance; one that does not exist is a 404 that names it, as the text does."""
    accepted = keep_accepted(service)
    body = {"input": "Mine. [voice:nature] Hers.", "model": "f5"}
    assert (await service.client.post(SPEECH, json=body)).status_code == 200
    assert {name: ref.name for name, ref in accepted[0].voices.items()} == {"nature": "nature"}
    missing = await service.client.post(SPEECH, json={"input": "Mine. [voice:eve] Hers.", "model": "f5"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "voice_not_found")
    assert "[voice:eve]" in missing.json()["error"]["message"]
