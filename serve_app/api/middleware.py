"""Pure ASGI middleware: a request id for every request, a check of who calls whom, a bound on every body and frame.

Requests and WebSockets alike; to a WebSocket that is refused the handshake is answered, as a request would be.
"""

import re
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from serve_app import logs
from serve_app.api.errors import error_response
from serve_app.errors import HostRefused, PayloadTooLarge

__all__ = ["BodyLimit", "HostCheck", "RequestId"]

CALLS = ("http", "websocket")
POLICY_VIOLATION = 1008

ID_PATTERN = re.compile(r"[\x20-\x7e]{1,128}")
"""Any printable ASCII: Serve's proxy echoes what it was sent, and header, answer and logs must agree."""


class RequestId:
    """Takes the caller's x-request-id where it is one, else makes one; every log line and answer carries it.

    `echo` is off behind Serve's proxy, which passes the id in and adds the header to the answer itself. Where a
    WebSocket is accepted, it does not.
    """

    def __init__(self, app: ASGIApp, echo: bool) -> None:
        self._app = app
        self._echo = echo

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in CALLS:
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if ID_PATTERN.fullmatch(given) else str(uuid7())
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            answer = message["type"] in ("http.response.start", "websocket.http.response.start")
            if (self._echo and answer) or message["type"] == "websocket.accept":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        with logs.bind(request_id=request_id):
            await self._app(scope, receive, send_with_id)


class HostCheck:
    """Answers only under the names that the service is called by, and only to pages that it served itself, or that come
    from one of `origins`.

    A page elsewhere could otherwise reach a loopback service through its visitor's browser: by a name that it
    rebinds to 127.0.0.1, or by a form that needs no preflight. `*` in `allowed` turns both checks off where there are
    no `origins`, else the first alone; in `origins` it turns off the second.
    """

    def __init__(self, app: ASGIApp, allowed: Collection[str], origins: Collection[str] = ()) -> None:
        self._app = app
        self._allowed = frozenset(allowed)
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in CALLS and ("*" not in self._allowed or self._origins):
            headers = Headers(scope=scope)
            if (refusal := self._refusal(headers.get("host", ""), headers.get("origin"))) is not None:
                if scope["type"] == "http" or "websocket.http.response" in scope.get("extensions", {}):
                    await error_response(HTTPConnection(scope), refusal)(scope, receive, send)
                else:
                    await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refusal.code})
                return
        await self._app(scope, receive, send)

    def _refusal(self, host: str, origin: str | None) -> HostRefused | None:
        if self._allowed.isdisjoint((_host_name(host), "*")):
            return HostRefused(
                f"Host {host[:100]!r} is not a name of this service: call it by one of "
                f"{', '.join(sorted(self._allowed))}, or add the name to allowed_hosts in deploy.yaml"
            )
        if origin is None or not self._origins.isdisjoint((origin, "*")):
            return None
        if origin.partition("://")[2].lower() != host.lower():
            return HostRefused(
                f"Origin {origin[:100]!r} is not this service's own ({host}): a page from elsewhere may not call it; "
                "call it from a program, or put the origin into cors_origins, or `*` into allowed_hosts, in deploy.yaml"
            )
        return None


def _host_name(host: str) -> str:
    """`localhost` of `localhost:8000`; "" for what is no host."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


class BodyLimit:
    """Refuses a body over `limit_bytes` with 413: at once when its length is announced, else when it is reached.

    A WebSocket's frame over `frame_bytes` is raised as PayloadTooLarge to whoever receives it.
    """

    def __init__(self, app: ASGIApp, limit_bytes: int, frame_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes
        self._frame_bytes = frame_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, self._frames(receive), send)
            return
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdigit() and int(announced) > self._limit_bytes:
            await self._refuse(scope, receive, send)
            return
        taken = 0

        async def receive_counted() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > self._limit_bytes:
                raise PayloadTooLarge(self._message())
            return message

        async def send_unless_over(message: Message) -> None:
            if taken <= self._limit_bytes:  # the framework turns what receive raises into an answer of its own
                await send(message)

        await self._app(scope, receive_counted, send_unless_over)
        if taken > self._limit_bytes:
            await self._refuse(scope, receive, send)

    def _frames(self, receive: Receive) -> Receive:
        async def receive_bounded() -> Message:
            message = await receive()
            frame = message.get("text") or message.get("bytes") or ""
            size_bytes = len(frame.encode(errors="surrogatepass")) if isinstance(frame, str) else len(frame)
            if size_bytes > self._frame_bytes:
                raise PayloadTooLarge(
                    f"the frame has {size_bytes} bytes, at most {self._frame_bytes} are taken: send the text in pieces"
                )
            return message

        return receive_bounded

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await error_response(HTTPConnection(scope), PayloadTooLarge(self._message()))(scope, receive, send)

    def _message(self) -> str:
        return f"the body is over {self._limit_bytes} bytes, the most that is taken: send a shorter text or file"
