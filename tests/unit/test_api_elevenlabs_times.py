"""When characters are heard, as ElevenLabs' clients read it, over the whole service in one process."""

import asyncio
import base64
import json
import threading
from itertools import accumulate

import pytest

from serve_app.engine.fake import FakeEngine
from serve_app.engine.protocol import BatchLimits
from tests.support.deadline import DEADLINE_S
from tests.support.service import LocalService
from tests.support.speaking import settle

FILLER = "so that it has a unit of its own, " * 5
NUMBERS = ("one", "two", "three", "four")
SENTENCES = ["Sentence zero is what is heard first."]
SENTENCES += [f"Sentence {n} goes on for a while, {FILLER}and ends." for n in NUMBERS[:3]]
TEXT = "  " + " \n".join(SENTENCES) + " \u200b1984"
PATH = "/v1/text-to-speech/{}{}/with-timestamps?output_format={}"
VOICES = {"preview": "heart", "f5": "nature"}
"""f5 fades units into each other."""


@pytest.fixture
def service() -> LocalService:
    return LocalService()


async def asked(service: LocalService, form: str = "", output_format: str = "pcm_24000", model: str = "preview"):
    body = {"text": TEXT, "model_id": model, "seed": 1}
    return await service.client.post(PATH.format(VOICES[model], form, output_format), json=body)


def parts(lines: list[dict], name: str) -> tuple[str, list[float], list[float]]:
    """Characters, starts and ends of all lines together."""
    told = [line[name] for line in lines if line[name]]
    return (
        "".join(character for each in told for character in each["characters"]),
        [at for each in told for at in each["character_start_times_seconds"]],
        [at for each in told for at in each["character_end_times_seconds"]],
    )


@pytest.mark.parametrize("model", VOICES)
async def test_every_character_of_the_text_has_its_time(service, model):
    """Each once, in order, inside the audio; of the spoken text, too."""
    answer = (await asked(service, model=model)).json()
    audio_s = len(base64.b64decode(answer["audio_base64"])) / 48_000
    for name, said in (("alignment", TEXT), ("normalized_alignment", None)):
        characters, starts_s, ends_s = parts([answer], name)
        assert said in (None, characters)
        edges = [edge for pair in zip(starts_s, ends_s, strict=True) for edge in pair]
        assert edges == sorted(edges)
        assert (edges[0], edges[-1]) == (0.0, pytest.approx(audio_s, abs=1e-5))
        assert len(starts_s) == len(characters)
    assert parts([answer], "normalized_alignment")[0].split()[:-3] == " ".join(SENTENCES).split()


async def test_sentences_begin_where_their_audio_does(service):
    """A unit's place is exact: the fake engine speaks each for as long as its text is."""
    answer = (await asked(service)).json()
    characters, starts_s, _ = parts([answer], "alignment")
    lengths_s = [len(sentence) * 5 * 256 / 24_000 for sentence in SENTENCES[:-1]]
    found = [starts_s[characters.index(sentence[:14])] for sentence in SENTENCES]
    assert found == pytest.approx([0.0, *accumulate(lengths_s)], abs=1e-5)


@pytest.mark.parametrize("model", VOICES)
async def test_a_stream_says_the_same(service, model):
    """One JSON object a line: together the audio and the characters of the whole answer."""
    whole = (await asked(service, model=model)).json()
    answer = await asked(service, "/stream", model=model)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert len(lines) >= len(SENTENCES)
    assert {frozenset(line) for line in lines} == {frozenset(whole)}
    audio = b"".join(base64.b64decode(line["audio_base64"]) for line in lines)
    assert audio == base64.b64decode(whole["audio_base64"])
    for name in ("alignment", "normalized_alignment"):
        assert parts(lines, name) == parts([whole], name)


@pytest.mark.parametrize("output_format", ["mp3_22050_32", "opus_48000_32"])
async def test_no_character_waits_in_an_encoder(service, output_format):
    """An encoder holds audio back; all characters are told nevertheless."""
    lines = [json.loads(line) for line in (await asked(service, "/stream", output_format)).text.splitlines()]
    assert parts(lines, "alignment")[0] == TEXT


async def test_a_stream_that_breaks_has_no_end():
    """After the units that were heard the connection is cut: no client takes it for the whole."""
    limits = BatchLimits(max_units=1, max_frames=30_000)
    service = LocalService(engine=FakeEngine(limits=limits, fail_on=[SENTENCES[2]]))
    service.client._transport.raise_app_exceptions = True
    with pytest.raises(RuntimeError):
        await asked(service, "/stream")
    service.client._transport.raise_app_exceptions = False
    assert (await asked(service)).json()["detail"]["code"] == "synthesis_failed"


async def test_whoever_leaves_frees_the_replica():
    """Of the whole answer too: units that nobody will hear are not spoken."""
    service = LocalService(
        engine=FakeEngine(limits=BatchLimits(max_units=1, max_frames=30_000), gate=(gate := threading.Event()))
    )
    replica = service.speaker._models["preview"].synthesizer
    answer = asyncio.create_task(asked(service))
    async with asyncio.timeout(DEADLINE_S):
        await settle(lambda: replica.health()["waiting"] == len(SENTENCES) - 1)
        answer.cancel()
        await asyncio.gather(answer, return_exceptions=True)
        await settle(lambda: replica.health()["waiting"] == 0)
        gate.set()
