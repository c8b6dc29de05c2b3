"""A 2xx is a promise: where anything that it promises is not in the store, the answer is 503."""

from collections.abc import Callable

import pytest

from serve_app.errors import StorageUnreachable
from serve_app.jobs import JobRef, JobStore
from serve_app.storage import MemoryStore
from tests.support.service import LocalService

TEXT = "The birch canoe slid on the smooth planks."
CALL = {"input": {"endpoint": "list_voices"}}
JOB = {"input": {"text": TEXT, "seed": 1}}


class BreakingStore(MemoryStore):
    """Raises StorageUnreachable at one write, counted from 1; with `lost_reply` after it was written."""

    def __init__(self, breaks_at: int | None = None, lost_reply: bool = False) -> None:
        super().__init__()
        self.breaks_at, self.lost_reply = breaks_at, lost_reply
        self.puts: list[str] = []

    def put(self, key: str, body: bytes, *, content_type: str):
        self.puts.append(key)
        breaks = len(self.puts) == self.breaks_at
        if not breaks or self.lost_reply:
            info = super().put(key, body, content_type=content_type)
        if breaks:
            raise StorageUnreachable(f"no answer to the write of {key}")
        return info


CALLS: dict[str, tuple[str, dict, dict]] = {
    "run": ("/run", JOB, {}),
    "run with a key": ("/run", JOB, {"Idempotency-Key": "k"}),
    "native": ("/v1/jobs", {"input": TEXT}, {}),
    "native with a key": ("/v1/jobs", {"input": TEXT}, {"Idempotency-Key": "k"}),
    "a call": ("/run", CALL, {}),
}
PUTS = {"run": 3, "run with a key": 5, "native": 3, "native with a key": 5, "a call": 2}


@pytest.mark.parametrize("name", CALLS)
async def test_these_are_the_writes_of_an_acceptance(name):
    """The next test breaks each of them."""
    path, body, headers = CALLS[name]
    store = BreakingStore()
    answer = await LocalService(store=store, told=False).client.post(path, json=body, headers=headers)
    assert (answer.status_code, len(store.puts)) == (202 if path == "/v1/jobs" else 200, PUTS[name])


@pytest.mark.parametrize("lost_reply", [False, True], ids=["not written", "reply lost"])
@pytest.mark.parametrize(("name", "at"), [(name, at) for name in CALLS for at in range(1, PUTS[name] + 1)])
async def test_a_write_that_fails_is_503_and_never_a_promise(name, at, lost_reply):
    """With Retry-After; sent again the same request is taken, and with a key it is the same job."""
    path, body, headers = CALLS[name]
    store = BreakingStore(at, lost_reply)
    service = LocalService(store=store, told=False)
    answer = await service.client.post(path, json=body, headers=headers)
    error = answer.json()["error"] if path == "/v1/jobs" else answer.json()
    assert (answer.status_code, error["code"], answer.headers["retry-after"]) == (503, "storage_unreachable", "5")
    again = await service.client.post(path, json=body, headers=headers)
    assert again.status_code in (200, 202)
    if name == "a call":
        return
    await service.run_jobs()
    job_id = again.json()["id"]
    assert JobStore(store).status(JobRef(tenant="default", job_id=job_id)).state == "completed"
    ids = {key.split("/")[2] for key in store.puts if key.endswith("/request.v1.json")}
    assert ids == {job_id} if headers else job_id in ids


READS: dict[str, Callable] = {
    "status": lambda client, job_id: client.get(f"/status/{job_id}"),
    "cancel": lambda client, job_id: client.post(f"/cancel/{job_id}"),
    "stream": lambda client, job_id: client.get(f"/stream/{job_id}"),
    "native": lambda client, job_id: client.get(f"/v1/jobs/{job_id}"),
    "result": lambda client, job_id: client.get(f"/v1/jobs/{job_id}/result"),
    "events": lambda client, job_id: client.get(f"/v1/jobs/{job_id}/events"),
    "native cancel": lambda client, job_id: client.post(f"/v1/jobs/{job_id}/cancel"),
    "run with a known key": lambda client, job_id: client.post("/run", json=JOB, headers={"Idempotency-Key": "k"}),
    "run with a new key": lambda client, job_id: client.post("/run", json=JOB, headers={"Idempotency-Key": "new"}),
    "list": lambda client, job_id: client.get("/v1/jobs"),
    "health": lambda client, job_id: client.get("/health"),
    "retry": lambda client, job_id: client.post(f"/retry/{job_id}"),
    "native retry": lambda client, job_id: client.post(f"/v1/jobs/{job_id}/retry"),
    "purge": lambda client, job_id: client.post("/purge-queue"),
    "runsync": lambda client, job_id: client.post("/runsync", json=JOB),
    "runsync of a call": lambda client, job_id: client.post("/runsync", json=CALL),
}
GETS = ("status", "cancel", "stream", "native", "result", "events", "native cancel", "run with a known key", "retry")
LISTS = [name for name in READS if name != "runsync"]
ASKED = [*((name, "list") for name in LISTS), *((name, "get") for name in GETS), ("runsync", "put")]


@pytest.mark.parametrize(
    ("name", "method"),
    ASKED,
)
async def test_a_read_that_fails_is_503(monkeypatch, name, method):
    """Never a 404, nor a second job: what cannot be looked for is not known to be missing."""
    service = LocalService()
    job_id = (await service.client.post("/run", json=JOB, headers={"Idempotency-Key": "k"})).json()["id"]
    await service.run_jobs()

    def unreachable(*args, **named):
        raise StorageUnreachable("no answer")

    monkeypatch.setattr(service.store, method, unreachable)
    answer = await READS[name](service.client, job_id)
    error = answer.json()["error"] if "native" in name or name in ("result", "events", "list") else answer.json()
    assert (answer.status_code, error["code"], answer.headers["retry-after"]) == (503, "storage_unreachable", "5")


async def test_a_result_that_cannot_be_looked_for_is_spoken(monkeypatch):
    """The job is durable by then: the client hears so, and whoever runs it looks again."""
    service = LocalService(told=False)
    service.runtimes.publish("f5", "fake")
    get = service.store.get

    def refusing(key: str):
        if key.startswith("results/"):
            raise StorageUnreachable("no answer")
        return get(key)

    monkeypatch.setattr(service.store, "get", refusing)
    answer = await service.client.post("/run", json=JOB)
    monkeypatch.setattr(service.store, "get", get)
    await service.run_jobs()
    status = (await service.client.get(f"/status/{answer.json()['id']}")).json()
    assert (answer.status_code, status["status"]) == (200, "COMPLETED")
