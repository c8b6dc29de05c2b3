"""HTTP servers on loopback that stand for the sites of strangers, and for one that has files."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["LoopbackServer", "QuietHandler", "serving_files"]


class LoopbackServer(ThreadingHTTPServer):
    """At a free port while the `with` lasts. `over` is set at its end: whoever answers for ever stops then."""

    daemon_threads = True

    def __init__(self, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.over = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.over.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


class QuietHandler(BaseHTTPRequestHandler):
    """Logs nothing, and a client that breaks off is no error."""

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client had enough
            super().handle()


class _FileHandler(QuietHandler, SimpleHTTPRequestHandler):
    """The files of a folder."""


@contextmanager
def serving_files(folder: Path) -> Iterator[str]:
    """The URL under which the files of `folder` are, while the block lasts."""
    with LoopbackServer(partial(_FileHandler, directory=str(folder))) as server:
        yield server.url
