"""What the clients of chaos keep of an answer, with a service that is a function."""

from pathlib import Path

import httpx
import pytest

from tests.chaos.history import History
from tests.chaos.load import Load


@pytest.mark.parametrize(
    ("status", "body", "recorded"),
    [
        (200, {"id": "a", "status": "CANCELLED"}, [("cancel", True), ("seen", "CANCELLED")]),
        (200, {"id": "a", "status": "COMPLETED"}, [("cancel", True), ("seen", "COMPLETED")]),
        (503, {"code": "storage_unreachable"}, [("cancel", None)]),
    ],
)
def test_the_answer_to_a_cancel_is_a_read(tmp_path: Path, status: int, body: dict[str, str], recorded: list[object]):
    """What it says of the job's state is in the history, from when it was asked; an error says nothing of it."""
    history = History(tmp_path / "history.jsonl")
    service = httpx.MockTransport(lambda _: httpx.Response(status, json=body))
    with httpx.Client(base_url="http://service", transport=service) as client:
        Load("http://service", history, jobs=1, rate=1.0, seed=1)._cancel(client, "a")
    history.close()
    assert [(event["event"], event.get("state", event.get("accepted"))) for event in history.events] == recorded
    assert all(event["sent"] <= event["at"] for event in history.events if event["event"] == "seen")
