"""A model hub on loopback, as huggingface.co speaks: resolve URLs that redirect to a CDN on a port of its own.

    HEAD|GET /owner/name/resolve/<commit>/<path> -> 302, X-Linked-Size, X-Linked-Etag -> GET <cdn>/<n>, with Range

It counts requests and bytes, and does what a test asks of it: refuse, hold, cut, ignore ranges, or serve other bytes.
"""

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import unquote

from env_setup.pins import HubFile

__all__ = ["Hub", "HubRequest"]

HOLD_S = 60
BLOCK = 4096


@dataclass(frozen=True)
class HubRequest:
    """A request as it came to the hub (`server` "hub") or to its CDN ("cdn")."""

    server: str
    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case


@dataclass
class Hub:
    """`files` by URL path, `refusals` by URL path as (status, X-Error-Code, X-Error-Message).

    `large`: answer as for LFS files, by redirect and with the sha256; else at once and without. `linked` False: by
    redirect alone, as a plain mirror does. `cut_at`: close the connection at this offset of the file, the next `cuts`
    times. `hold_at`: stop there until `released` is set, having set `held`. `ranges` False: answer every GET with the
    whole. `wrong`: what the CDN serves in place of a path.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    requests: list[HubRequest] = field(default_factory=list)
    served: list[HubRequest] = field(default_factory=list)
    sent_bytes: int = 0
    large: bool = True
    linked: bool = True
    cut_at: int | None = None
    cuts: int = 1
    hold_at: int | None = None
    held: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    ranges: bool = True
    wrong: dict[str, bytes] = field(default_factory=dict)

    def add(self, repository: str, revision: str, path: str, body: bytes) -> HubFile:
        """Put a file there; a pin that fits it."""
        self.files[f"/{repository}/resolve/{revision}/{path}"] = body
        return HubFile(repository, revision, path, hashlib.sha256(body).hexdigest(), len(body))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    def gets(self, name: str = "") -> list[HubRequest]:
        """The GETs that were answered with content, of files whose path ends in `name`."""
        return [each for each in self.served if each.path.endswith(name)]

    def __enter__(self) -> Self:
        self._servers = [_Server(("127.0.0.1", 0), _Handler) for _ in range(2)]
        for server, name in zip(self._servers, ("hub", "cdn"), strict=True):
            server.hub, server.name = self, name
        self._threads = [threading.Thread(target=each.serve_forever, args=(0.02,)) for each in self._servers]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.released.set()
        self.stop()

    def stop(self) -> None:
        """Nothing answers at these ports any more."""
        for server, thread in zip(self._servers, self._threads, strict=True):
            if thread.is_alive():
                server.shutdown()
                thread.join()
                server.server_close()

    @property
    def cdn(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_port}"


class _Server(ThreadingHTTPServer):
    hub: Hub
    name: str
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that is killed is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    # HTTP/1.0: a connection for each request, so that `stop` leaves none open.

    def _handle(self) -> None:
        hub, path = self.server.hub, unquote(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = HubRequest(self.server.name, self.command, path, headers)
        hub.requests.append(request)
        if refusal := hub.refusals.get(path):
            status, code, message = refusal
            return self._answer(status, {"X-Error-Code": code, "X-Error-Message": message})
        if path not in hub.files:
            return self._answer(404, {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"})
        body = hub.files[path]
        if self.server.name == "hub" and hub.large:
            known = {"X-Linked-Size": str(len(body)), "X-Linked-Etag": f'"{hashlib.sha256(body).hexdigest()}"'}
            return self._answer(302, {"Location": hub.cdn + self.path} | (known if hub.linked else {}))
        if self.command == "GET":
            hub.served.append(request)
        self._content(hub.wrong.get(path, body))

    do_GET = do_HEAD = _handle  # noqa: N815  (names that http.server looks for)

    def _answer(self, status: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _content(self, body: bytes) -> None:
        hub = self.server.hub
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and hub.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.send_header("ETag", '"a blob id"')
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if self.command == "HEAD":
            return
        for at in range(start, len(body), BLOCK):
            if hub.hold_at is not None and at >= hub.hold_at:
                self.wfile.flush()
                hub.held.set()
                hub.released.wait(HOLD_S)
            if hub.cut_at is not None and at >= hub.cut_at and hub.cuts > 0:
                hub.cuts -= 1
                return
            self.wfile.write(body[at : at + BLOCK])
            hub.sent_bytes += len(body[at : at + BLOCK])

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: `requests` is the log."""
