"""A reverse proxy that tests put in front of an HTTP server: it records each request and injects faults.

It forwards the Host header as it came, so that a signature over it (SigV4, presigned URLs) still verifies.

    client -> WireProxy: record -> fault? -> upstream -> fault? -> client

An upstream that refuses the connection, or breaks it off, closes the client's: it may stop and start again behind.
"""

import http.client
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

__all__ = [
    "CutAnswer", "Delay", "Fault", "FlipBit", "Gate", "HalfBody", "IgnoreConditions", "Refuse", "WireProxy",
    "WireRequest", "refuse_conditions",
]  # fmt: skip

UPSTREAM_TIMEOUT_S = 30
GATE_TIMEOUT_S = 60
NOT_FORWARDED = {"connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"}
CONDITIONS = {"if-match", "if-none-match"}


@dataclass
class WireRequest:
    """A request as it crossed the wire. `status` is None until it is answered, and stays so if the answer is cut."""

    method: str
    path: str  # percent-decoded, without query
    query: str  # as sent
    headers: Mapping[str, str]  # names in lower case
    status: int | None = None

    @property
    def conditional(self) -> bool:
        """Whether it is a write that may only happen under a condition."""
        return self.method == "PUT" and not CONDITIONS.isdisjoint(self.headers)


@dataclass(frozen=True)
class Refuse:
    """Answer with this status and S3 error code, without asking upstream."""

    status: int
    code: str


@dataclass(frozen=True)
class CutAnswer:
    """Close the connection before any answer. With `forward` upstream still does what was asked: a lost reply."""

    forward: bool = False


@dataclass(frozen=True)
class HalfBody:
    """Promise the whole body, send half of it and close the connection."""


@dataclass(frozen=True)
class FlipBit:
    """Flip one bit in the middle of the answer's body."""


@dataclass(frozen=True)
class Gate:
    """Hold the request until the event is set, then pass it on. The proxy's end waits for it, 60 s at most."""

    opened: threading.Event


@dataclass(frozen=True)
class Delay:
    """Hold the request for so long, then pass it on. The proxy's end does not wait for it, but cuts it."""

    delay_s: float


@dataclass(frozen=True)
class IgnoreConditions:
    """Pass a write on as if it had no condition. Signed anew with these keys, since the signature covers the header."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    region: str = "us-east-1"


Fault = Refuse | CutAnswer | HalfBody | FlipBit | Gate | Delay | IgnoreConditions


def refuse_conditions(request: WireRequest) -> Fault | None:
    """A `WireProxy.fault`: a store without conditional writes, which answers 501 to them and serves all else."""
    return Refuse(501, "NotImplemented") if request.conditional else None


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


class WireProxy:
    """Listens on a free loopback port (`url`) and passes requests on to `upstream`, a URL, which may be set anew.

    `requests` holds each request in the order of arrival, recorded before it is passed on. `fault` is asked for each;
    None passes it on unharmed.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream
        self.requests: list[WireRequest] = []
        self.fault: Callable[[WireRequest], Fault | None] | None = None
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="wire-proxy")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def count(self, method: str, path_contains: str = "") -> int:
        """How many requests came with this method and this text in their path."""
        return sum(each.method == method and path_contains in each.path for each in list(self.requests))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.close_connections()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """Knows its open connections: clients keep theirs alive, and their threads end only when these close."""

    proxy: WireProxy
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self.daemon_threads = False
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, address = super().get_request()
        with self._lock:
            self._open.add(connection)
        return connection, address

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        assert isinstance(request, socket.socket)
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        with self._lock:
            for connection in self._open:
                _shut(connection)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # headers and body are two writes

    def _handle(self) -> None:
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = WireRequest(self.command, unquote(parts.path), parts.query, headers)
        proxy = self.server.proxy
        body = self.rfile.read(int(headers.get("content-length", "0")))
        proxy.requests.append(request)
        fault = proxy.fault(request) if proxy.fault else None
        if isinstance(fault, Gate):
            fault.opened.wait(GATE_TIMEOUT_S)
        if isinstance(fault, Delay) and proxy.closing.wait(fault.delay_s):
            return self._cut()
        if isinstance(fault, CutAnswer) and not fault.forward:
            return self._cut()
        try:
            answer = _refusal(fault) if isinstance(fault, Refuse) else self._ask_upstream(request, body, fault)
        except (OSError, http.client.HTTPException):
            return self._cut()
        if isinstance(fault, CutAnswer):
            return self._cut()
        request.status = answer.status
        if isinstance(fault, FlipBit):
            answer = _flipped(answer)
        self._send(answer, half=isinstance(fault, HalfBody))

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815  (names that http.server looks for)

    def _ask_upstream(self, request: WireRequest, body: bytes, fault: Fault | None) -> _Answer:
        headers = [pair for pair in self.headers.items() if pair[0].lower() not in NOT_FORWARDED]
        if isinstance(fault, IgnoreConditions) and request.conditional:
            headers = self._without_conditions(headers, body, fault)
        upstream = urlsplit(self.server.proxy.upstream)
        connection = http.client.HTTPConnection(upstream.netloc, timeout=UPSTREAM_TIMEOUT_S)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers:
                connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            kept = [pair for pair in answer.getheaders() if pair[0].lower() not in NOT_FORWARDED]
            return _Answer(answer.status, kept, answer.read())
        finally:
            connection.close()

    def _without_conditions(
        self, headers: list[tuple[str, str]], body: bytes, fault: IgnoreConditions
    ) -> list[tuple[str, str]]:
        kept = {name: value for name, value in headers if name.lower() not in CONDITIONS}
        request = AWSRequest(self.command, f"http://{kept['Host']}{self.path}", kept, body)
        S3SigV4Auth(Credentials(fault.access_key_id, fault.secret_access_key), "s3", fault.region).add_auth(request)
        return [*request.headers.items()]

    def _send(self, answer: _Answer, *, half: bool) -> None:
        self.send_response_only(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in answer.headers):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if half:
            self.wfile.write(answer.body[: len(answer.body) // 2])
            return self._cut()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _cut(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        _shut(self.connection)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: `requests` is the log."""


def _refusal(fault: Refuse) -> _Answer:
    body = f"<Error><Code>{fault.code}</Code><Message>injected by a test</Message></Error>".encode()
    return _Answer(fault.status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))], body)


def _flipped(answer: _Answer) -> _Answer:
    middle = len(answer.body) // 2
    body = bytearray(answer.body)
    body[middle] ^= 1
    return _Answer(answer.status, answer.headers, bytes(body))


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the client was quicker
