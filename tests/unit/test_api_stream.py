"""RunPod's /stream: the audio in pieces, each once, and the output at the end; as its own SDK reads it."""

import asyncio
import base64
import io
import threading
import wave

import pytest
from runpod.endpoint import runner as sdk

from serve_app.engine.fake import FakeEngine
from serve_app.engine.protocol import BatchLimits
from serve_app.jobs import JobRef, JobStore, progress
from tests.support.deadline import DEADLINE_S
from tests.support.jobs import Clock
from tests.support.runpod import SdkClient, heard
from tests.support.sentences import SENTENCES
from tests.support.service import LocalService

LONG = " ".join(SENTENCES * 3)


class Stepping(FakeEngine):
    """Speaks one unit each time that `allowed` is released."""

    def __init__(self, version: str = "1") -> None:
        super().__init__(limits=BatchLimits(max_units=1, max_frames=30_000), version=version)
        self.allowed = threading.Semaphore(0)
        self.failing = False

    def synthesize(self, items):
        if not self.allowed.acquire(timeout=DEADLINE_S):
            raise TimeoutError("nobody allowed the unit")
        if self.failing:
            raise RuntimeError("told to fail")
        return super().synthesize(items)


@pytest.fixture
def service() -> LocalService:
    return LocalService(told=False)


@pytest.fixture
def stepping(monkeypatch) -> LocalService:
    """Every unit is kept as soon as it is spoken."""
    monkeypatch.setattr(progress, "FLUSH_S", 0.0)
    clock = Clock()
    return LocalService(engine=Stepping(), clock=clock, wall_clock=clock)


async def run(service: LocalService, text: str = SENTENCES[0], **fields: object) -> str:
    return (await service.client.post("/run", json={"input": {"text": text} | fields})).json()["id"]


async def stream(service: LocalService, job_id: str, method: str = "GET") -> dict:
    return (await service.client.request(method, f"/v2/mine/stream/{job_id}")).json()


async def stored(service: LocalService, job_id: str) -> bytes:
    """The samples of the job's audio."""
    output = (await service.client.get(f"/status/{job_id}")).json()["output"]
    with wave.open(io.BytesIO((await service.client.get(output["audio_url"])).content)) as reader:
        return reader.readframes(reader.getnframes())


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_stream_hands_everything_out_once(service, method):
    """Nothing before the end of a short text, then its audio and the output, then nothing: at any ingress."""
    job_id = await run(service)
    other = LocalService(store=service.store)
    assert await stream(service, job_id, method) == {"status": "IN_QUEUE", "stream": []}
    await service.run_jobs()
    first = await stream(service, job_id, method)
    piece, output = (each["output"] for each in first["stream"])
    assert (first["status"], set(piece)) == (
        "COMPLETED", {"audio", "content_type", "start_s", "duration_s", "index"},
    )  # fmt: skip
    assert (piece["content_type"], piece["start_s"], piece["index"]) == ("audio/wav", 0.0, 0)
    assert heard([piece]) == await stored(service, job_id)
    with wave.open(io.BytesIO(base64.b64decode(piece["audio"]))) as reader:
        form = (reader.getframerate(), reader.getsampwidth(), reader.getnchannels(), reader.getnframes())
    assert form == (24_000, 2, 1, round(24_000 * piece["duration_s"]))
    status = (await service.client.get(f"/status/{job_id}")).json()
    assert output.keys() == status["output"].keys()
    assert (output["job_id"], output["duration"]) == (job_id, status["output"]["duration"])
    for each in (service, other):
        assert await stream(each, job_id, method) == {"status": "COMPLETED", "stream": []}


async def test_a_long_audio_comes_in_several_answers(service):
    """Pieces of at most ten seconds, six of them in an answer, which is then under 4 MB; the output is the last."""
    job_id = await run(service, " ".join(SENTENCES * 2), speed=0.5)
    await service.run_jobs()
    answers = [await service.client.get(f"/stream/{job_id}") for _ in range(4)]
    outputs = [[each["output"] for each in answer.json()["stream"]] for answer in answers]
    pieces = [output for answer in outputs for output in answer if "audio" in output]
    assert heard(pieces) == await stored(service, job_id)
    assert max(len(answer.content) for answer in answers) < 4_000_000
    assert max(piece["duration_s"] for piece in pieces) == 10
    assert [len(answer) for answer in outputs] == [6, len(pieces) - 6 + 1, 0, 0]
    assert outputs[1][-1]["job_id"] == job_id


async def test_runpods_own_sdk_hears_a_job_while_it_is_spoken(stepping, monkeypatch):
    """Its Job.stream gives pieces of the first units before the last ones are spoken; together they are the audio."""
    monkeypatch.setattr(sdk.time, "sleep", lambda seconds: None)
    job_id = await run(stepping, LONG, cross_fade_s=0.15)
    stepping.engine.allowed.release(3)
    client, states = SdkClient(stepping), []

    def listen() -> list[dict]:
        outputs = []
        for output in sdk.Job("mine", job_id, client).stream():
            outputs.append(output)
            states.append(sdk.Job("mine", job_id, client).status())
            stepping.engine.allowed.release()
        return outputs

    *pieces, output = await asyncio.to_thread(listen)
    assert output["job_id"] == job_id
    assert states[0] == "IN_PROGRESS"
    assert states.count("IN_PROGRESS") > 2
    assert heard(pieces) == await stored(stepping, job_id)


async def test_a_retried_job_goes_on_where_its_listener_was(stepping):
    """What it had kept is not spoken again, nor handed out again."""
    job_id, engine = await run(stepping, LONG), stepping.engine
    engine.allowed.release(3)
    first = []
    while len(first) < 2:
        first += (await stream(stepping, job_id))["stream"]
    engine.failing = True
    engine.allowed.release(100)
    while (await stepping.client.get(f"/status/{job_id}")).json()["status"] != "FAILED":
        await stepping.run_jobs()
        stepping.clock.now += 60
    assert (await stepping.client.get(f"/stream/{job_id}")).status_code == 409
    engine.failing = False
    assert (await stepping.client.post(f"/retry/{job_id}")).status_code == 200
    await stepping.run_jobs()
    engine.allowed.release(100)
    await stepping.run_jobs()
    rest = []
    while not rest or "audio_url" not in rest[-1]["output"]:
        rest += (await stream(stepping, job_id))["stream"]
    assert heard([each["output"] for each in first + rest[:-1]]) == await stored(stepping, job_id)


async def test_of_two_who_stream_at_once_one_is_told_of_the_end_where_writes_are_conditional(service):
    """`exclusive` stores let one be the first."""
    job_id = await run(service)
    await service.run_jobs()
    ref = JobRef(tenant="default", job_id=job_id)
    exclusive = JobStore(service.store, exclusive=True)
    handed = await asyncio.gather(*(asyncio.to_thread(exclusive.hand_out, ref) for _ in range(8)))
    assert sum(handed) == 1


async def test_a_stream_of_what_did_not_complete_is_no_success():
    """The SDK would ask for ever: 409 with the reason."""
    clock = Clock()
    service = LocalService(engine=FakeEngine(fail_on={SENTENCES[0]}), clock=clock, wall_clock=clock, told=False)
    failed = await run(service)
    for _ in range(3):
        await service.run_jobs()
        clock.now += 60
    cancelled = await run(service, SENTENCES[1])
    await service.client.post(f"/cancel/{cancelled}")
    for asked, word, reason in ((failed, "FAILED", "told to fail"), (cancelled, "CANCELLED", "cancelled")):
        answer = await service.client.get(f"/stream/{asked}")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
        assert word in answer.json()["error"]
        assert reason in answer.json()["error"]


async def test_a_call_that_is_no_job_has_its_output_in_one_piece(service):
    """Once, as a job's is."""
    job_id = (await service.client.post("/run", json={"input": {"endpoint": "list_voices"}})).json()["id"]
    first, second = [await stream(service, job_id) for _ in range(2)]
    assert [each["output"]["status"] for each in first["stream"]] == ["success"]
    assert second == {"status": "COMPLETED", "stream": []}


async def test_runpods_own_sdk_cancels_and_purges(service, monkeypatch):
    """A stream of what was cancelled raises, where its loop would never end."""
    monkeypatch.setattr(sdk.time, "sleep", lambda seconds: None)
    client = SdkClient(service)
    job_id, waiting = await run(service), await run(service)
    cancelled = await asyncio.to_thread(sdk.Job("mine", waiting, client).cancel)
    await service.run_jobs()
    outputs = await asyncio.to_thread(lambda: list(sdk.Job("mine", job_id, client).stream()))
    assert ["audio" in outputs[0], outputs[-1]["job_id"], len(outputs)] == [True, job_id, 2]
    assert cancelled["status"] == "CANCELLED"
    with pytest.raises(Exception, match="409"):
        await asyncio.to_thread(lambda: list(sdk.Job("mine", waiting, client).stream()))
