"""A relay of bytes between the service and the store, which can cut every connection or hold back what passes.

    service -> Relay (cut? late?) -> store

Bytes and not requests: a cut falls anywhere, also between a write that was done and its answer.
"""

import asyncio
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

__all__ = ["Relay"]

PIECE_BYTES = 256 * 1024


class Relay:
    """Listens on a free loopback port and passes on to `upstream_port` on loopback; runs in a thread of its own."""

    def __init__(self, upstream_port: int) -> None:
        self.port = 0
        self._upstream_port = upstream_port
        self._delay_s = 0.0
        self._closed = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)

    def cut(self) -> None:
        """Reset all connections, and every new one, until `mend`."""
        self._loop.call_soon_threadsafe(self._cut)

    def delay(self, seconds: float) -> None:
        """Hold back each piece that the store sends for so long."""
        self._delay_s = seconds

    def mend(self) -> None:
        """Pass everything on again, at once."""
        self._closed, self._delay_s = False, 0.0

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0, limit=PIECE_BYTES))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        self._cut()
        server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            self._loop.run_until_complete(asyncio.wait(self._tasks))
        self._loop.close()

    def _cut(self) -> None:
        self._closed = True
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        upstream: asyncio.StreamWriter | None = None
        try:
            if self._closed:
                return
            answers, upstream = await asyncio.open_connection("127.0.0.1", self._upstream_port, limit=PIECE_BYTES)
            self._writers.add(upstream)
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(reader, upstream, late=False))
                pumps.create_task(self._pump(answers, writer, late=True))
        except* OSError:
            pass  # the store is down, or this connection was cut
        finally:
            for each in filter(None, (writer, upstream)):
                self._writers.discard(each)
                each.transport.abort()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, late: bool) -> None:
        while piece := await reader.read(PIECE_BYTES):
            if late and self._delay_s:
                await asyncio.sleep(self._delay_s)
            writer.write(piece)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()
