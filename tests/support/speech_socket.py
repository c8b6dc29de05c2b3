"""A client of the speech WebSocket, without sockets."""

import asyncio
import base64
import json

from serve_app.api import create_app
from tests.support.deadline import DEADLINE_S
from tests.support.service import LocalService
from tests.support.speaking import settle

PATH = "/v1/audio/speech/ws"


class Socket:
    """A WebSocket client of the application, which sees what is sent to it and may be slow to take it."""

    def __init__(self, service: LocalService, *, extensions: tuple[str, ...] = (), **headers: str) -> None:
        self.messages: list[dict] = []
        self.takes = asyncio.Event()
        self.takes.set()
        self._sent: asyncio.Queue[dict] = asyncio.Queue()
        self._sent.put_nowait({"type": "websocket.connect"})
        named = {"host": "127.0.0.1"} | headers
        scope = {
            "type": "websocket",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "path": PATH,
            "raw_path": PATH.encode(),
            "query_string": b"",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in named.items()],
            "subprotocols": [],
            "extensions": {name: {} for name in extensions},
        }
        self.served = asyncio.create_task(create_app(service.services)(scope, self._sent.get, self._take))

    async def _take(self, message: dict) -> None:
        self.messages.append(message)
        if message["type"] == "websocket.send":
            await self.takes.wait()

    def send(self, *frames: dict | str | bytes) -> "Socket":
        for frame in frames:
            kind = "bytes" if isinstance(frame, bytes) else "text"
            body = json.dumps(frame) if isinstance(frame, dict) else frame
            self._sent.put_nowait({"type": "websocket.receive", kind: body})
        return self

    def leave(self) -> None:
        self._sent.put_nowait({"type": "websocket.disconnect", "code": 1001, "reason": ""})

    async def until(self, what: str, number: int = 1) -> None:
        """That many frames of this type have come."""
        async with asyncio.timeout(DEADLINE_S):
            await settle(lambda: len(self.told(what)) >= number or self.served.done())
        assert len(self.told(what)) >= number, self.frames

    async def ended(self) -> dict:
        """The last frame; the session is over."""
        async with asyncio.timeout(DEADLINE_S):
            await self.served
        return self.frames[-1]

    @property
    def frames(self) -> list[dict]:
        """In their order; audio in binary as `{"type": "binary"}`."""
        sent = [message for message in self.messages if message["type"] == "websocket.send"]
        return [json.loads(each["text"]) if "text" in each else {"type": "binary"} for each in sent]

    @property
    def kinds(self) -> list[str]:
        """Types of frames, pieces of audio in one."""
        kinds = [frame["type"] for frame in self.frames]
        return [kind for kind, before in zip(kinds, [None, *kinds], strict=False) if (kind, before) != ("binary",) * 2]

    def told(self, what: str) -> list[dict]:
        return [frame for frame in self.frames if frame["type"] == what]

    @property
    def audio(self) -> bytes:
        in_json = b"".join(base64.b64decode(frame["audio"]) for frame in self.told("audio"))
        return in_json + b"".join(message.get("bytes") or b"" for message in self.messages)

    @property
    def closed_with(self) -> int | None:
        return next((each["code"] for each in self.messages if each["type"] == "websocket.close"), None)
