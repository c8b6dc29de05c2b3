"""What was spoken before is found again by an equal request, and by no other."""

from dataclasses import replace

import pytest

from serve_app.domain import Sampling, VoiceRef
from serve_app.job_client import JobClient
from serve_app.jobs import Letter, Outbox, Results
from serve_app.jobs.results import digest
from serve_app.storage import MemoryStore
from tests.support.jobs import Clock, Speak, finish, job_request, job_store, runner, speak_now, submit, told

SPEECH = replace(job_request().speech, model_version="test")
EQUAL = [
    {"request_id": "another"},
    {"job_id": "another"},
    {"tenant": "default"},
    {"model_version": None},
    {"normalisers": ("en",)},
]
OTHERS = [
    {"text": "Other."},
    {"model": "f5"},
    {"voice": VoiceRef("heart", "v2")},
    {"voice": VoiceRef("other", "builtin")},
    {"speed": 1.1},
    {"seed": 8},
    {"sampling": Sampling()},
    {"cross_fade_s": 0.1},
    {"language": "en"},
    {"languages": ("en", "zh")},
    {"normalize": False},
    {"lexicon": (("gif", "jif"),)},
    {"voices": {"anna": VoiceRef("anna", "v1")}},
]


@pytest.mark.parametrize("change", EQUAL)
def test_who_asks_makes_no_other_speech(change):
    """Nor when, nor what was deployed then: what spoke is said apart."""
    assert digest(replace(SPEECH, **change), "x") == digest(SPEECH, "x")


@pytest.mark.parametrize("change", OTHERS)
def test_what_sounds_otherwise_is_other_speech(change):
    """Each field that decides the audio, and what spoke it."""
    assert digest(replace(SPEECH, **change), "x") != digest(SPEECH, "x")
    assert digest(SPEECH, "x") != digest(SPEECH, "y")


def test_a_voice_is_its_version_whatever_its_name():
    """Two names of the same audio and text sound the same."""
    one, other = (replace(SPEECH, voice=VoiceRef(name, "v1")) for name in ("anna", "berta"))
    assert digest(one, "x") == digest(other, "x")


@pytest.mark.parametrize(
    ("first", "second", "found"),
    [
        ({}, {}, True),
        ({"cache": False}, {}, False),
        ({}, {"cache": False}, False),
        ({"seeded": False}, {}, True),
        ({}, {"seeded": False}, False),
        ({}, {"speech": replace(SPEECH, model_version="newer")}, False),
        ({}, {"speech": replace(SPEECH, model_version=None)}, False),
        ({}, {"speech": replace(SPEECH, seed=8)}, False),
    ],
)
def test_a_result_is_found_where_both_clients_allow_it(first, second, found):
    """And by what is deployed now: a request without a seed of its own asks for new speech."""
    store, clock = MemoryStore(), Clock()
    for number, asked in ((0xA, first), (0x1B, second)):
        request = job_request(number, **({"speech": SPEECH, "seeded": True} | asked))
        job_store(store).submit(request)
        outcome = speak_now(store, clock, request.ref, b"RIFF")
        assert outcome.cached is (found and number == 0x1B)


def test_a_result_whose_audio_is_gone_is_not_one():
    """Somebody emptied a folder of the bucket: it is spoken again."""
    store, clock = MemoryStore(), Clock()
    requests = [job_request(number, speech=SPEECH, seeded=True) for number in (0xA, 0x1B)]
    job_store(store).submit(requests[0])
    audio = speak_now(store, clock, requests[0].ref, b"RIFF").audio
    assert Results(store, clock.wall).find(requests[1]).audio == audio
    store.delete(audio.key)
    assert Results(store, clock.wall).find(requests[1]) is None


def test_what_was_found_is_where_the_old_workers_users_look():
    """A result from the store is written there as one that was spoken is."""
    store, clock = MemoryStore(), Clock()
    for number in (0xA, 0x1B):
        request = job_request(number, speech=SPEECH, seeded=True, worker_output=number == 0x1B)
        job_store(store).submit(request)
        speak_now(store, clock, request.ref, b"RIFF")
    assert store.get(f"output/{request.job_id}.wav").body == b"RIFF"


def test_settling_once_more_writes_no_letter_that_was_sent():
    """The receiver was told; a marker that was left over brings nothing back into the outbox."""
    store, clock = MemoryStore(), Clock()
    request, jobs = job_request(webhook="https://client.example/hook"), job_store(store, clock)
    jobs.submit(request)
    outcome = speak_now(store, clock, request.ref, b"RIFF")
    assert Outbox(store).page(limit=10)[0] == [Letter(request.ref, 0)]
    jobs.notified(outcome, sent=True, attempts=1)
    jobs.settle(request, outcome)
    assert Outbox(store).page(limit=10)[0] == []


@pytest.mark.parametrize("cache", [True, False])
async def test_an_equal_request_is_not_spoken_again(cache):
    """Same text, voice, model version, parameters and seed: no call of the speaker, unless the client said so."""
    store, clock, speak = MemoryStore(), Clock(), Speak()
    speech = replace(job_request().speech, model_version="test")
    first, second = (submit(store, number, speech=speech, seeded=True, cache=cache) for number in (0xA, 0x1B))
    r = runner(store, speak, clock)
    for ref in (first, second):
        await r.start(told(store, ref))
        assert await finish(store, r, ref) == "completed"
    assert len(speak.requests) == (1 if cache else 2)
    outcomes = [job_store(store).status(ref).outcome for ref in (first, second)]
    assert [outcome.cached for outcome in outcomes] == [False, cache]
    assert outcomes[0].audio == outcomes[1].audio


async def test_a_request_that_was_spoken_before_ends_as_it_is_submitted():
    """The ingress finds it, so it waits for no replica; without a seed of the client's it never does."""
    store, clock = MemoryStore(), Clock()
    client = JobClient(store, None, wall_clock=clock.wall)
    for number, seeded, state in ((0xA, True, "queued"), (0x1B, True, "completed"), (0x2C, False, "queued")):
        request = job_request(number, seeded=seeded)
        speech = replace(request.speech, model_version="test")
        accepted = await client.submit(request.model_copy(update={"speech": speech}))
        ref = accepted.request.ref
        assert ((await client.status(ref)).state, accepted.ended) == (state, state == "completed")
        if number == 0xA:
            speak_now(store, clock, ref, b"RIFF")
    assert [marker.ref.job_id for marker in job_store(store).markers.oldest("b", limit=10)] == []
