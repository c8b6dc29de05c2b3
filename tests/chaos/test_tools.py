"""The tools of chaos do as they say: sessions end with all that they hold, and the relay cuts and delays."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.processes import Sessions, commands, kill, members
from tests.chaos.relay import Relay
from tests.support.running import ROOT, until

ENV = {"PATH": os.environ["PATH"]}
FAMILY = ["sh", "-c", "sleep 1000 & (sleep 1001 &) ; exec sleep 1002"]
SLOW_S = 0.3


def test_a_session_ends_with_its_orphans(tmp_path: Path) -> None:
    """A child, and a grandchild whose parent is gone, are found and killed with the leader, and nothing else is."""
    with Sessions() as sessions:
        one, other = (sessions.start(FAMILY, ENV, tmp_path / "log") for _ in range(2))
        until(lambda: len(members([one.pid])) == len(members([other.pid])) == 3, "all run")
        assert sessions.end(one) == 3
        assert (len(members([one.pid])), len(members([other.pid]))) == (0, 3)
        sessions.end(other)


def test_nothing_outlives_a_run_that_is_killed(tmp_path: Path) -> None:
    """kill -9 of the process that started a session: the guard ends the session."""
    mark = f"sleep 1{os.getpid()}"
    code = f"""
import sys, threading
from pathlib import Path
from tests.chaos.processes import Sessions
with Sessions() as sessions:
    sessions.start(["sh", "-c", "{mark} & (setsid true) ; {mark}"], {{"PATH": "{ENV["PATH"]}"}}, Path("{tmp_path}/log"))
    threading.Event().wait()
"""
    run = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
    until(lambda: commands().count(mark) == 2, "it runs")
    kill(run.pid)
    run.wait()
    until(lambda: mark not in commands(), "it is ended")


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends back what it is sent."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection:
                try:
                    while piece := connection.recv(1000):
                        connection.sendall(piece)
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def asked(connection: socket.socket) -> bytes:
    connection.settimeout(10)
    try:
        connection.sendall(b"hello")
        return connection.recv(1000)
    except OSError:
        return b""


def connected(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), timeout=10)


def test_a_relay_cuts_and_mends(echo: int) -> None:
    """Open connections end, new ones are useless, and after `mend` new ones work."""
    with Relay(echo) as relay:
        with connected(relay) as connection:
            assert asked(connection) == b"hello"
            relay.cut()
            until(lambda: asked(connection) == b"", "it is cut")
        with connected(relay) as connection:
            assert asked(connection) == b""
        relay.mend()
        with connected(relay) as connection:
            assert asked(connection) == b"hello"


def test_a_relay_delays(echo: int) -> None:
    """An answer takes as long as was asked for, until `mend`."""
    with Relay(echo) as relay, connected(relay) as connection:
        relay.delay(SLOW_S)
        began = time.monotonic()
        assert asked(connection) == b"hello"
        assert time.monotonic() - began >= SLOW_S
        relay.mend()
        began = time.monotonic()
        assert asked(connection) == b"hello"
        assert time.monotonic() - began < SLOW_S


def test_a_relay_to_a_store_that_is_down(echo: int) -> None:
    """Connections are closed, as the store's own port would refuse them."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with Relay(port) as relay, connected(relay) as connection:
        assert asked(connection) == b""
