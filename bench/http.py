"""Speech over HTTP beside the engine alone and beside a plain server around the same engine (bench/plain_server.py).

    python -m bench.http       about 8 minutes; --short: about 3, to see that it works

    preview, one replica: a request at a time -> as many as it takes -> a minute of text, heard as it comes
    simulated, 1 replica and 8: ten minutes of text on either, in turns -> 200 listeners at once -> listeners that wait

Real Ray Serve with its Python proxy, one ingress replica and a directory. What is compared is measured in turns.
"""

import argparse
import math
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.listeners import open_listeners
from bench.listening import SPEECH, Heard, listen
from bench.load import Call, Load, run_load
from bench.plain_server import plain_server
from bench.simulated import RTF, serving
from bench.stores import new_store
from serve_app.domain import BUILTIN, SpeechRequest, Unit, VoiceRef
from serve_app.engine.preview import PreviewEngine
from serve_app.engine.protocol import Engine, EngineInput, speak
from serve_app.planning import PREVIEW_LIMITS, plan
from tests.support.sentences import SENTENCES

__all__ = ["FULL", "SHORT", "Sizes", "body_of", "in_process", "in_turns", "main", "tables", "text_of", "units_of"]

SHORT_TEXT = "The juice of lemons makes fine punch."
CLIENTS = 8
FEW, MANY = "preview", "eight"
"""Names of the simulated models with one replica and with REPLICAS."""
REPLICAS = 8
MINUTE_S, TEN_MINUTES_S = 60.0, 600.0
CHARACTERS_PER_S = 15


@dataclass(frozen=True)
class Sizes:
    """How much is measured. `calls` of each turn, one after the other; `at_once` of each turn, of all clients."""

    turns: int
    calls: int
    at_once: int
    rounds: int
    listeners: int
    listener_rounds: int
    waiting: int


FULL = Sizes(turns=5, calls=40, at_once=120, rounds=5, listeners=200, listener_rounds=3, waiting=8)
SHORT = Sizes(turns=2, calls=10, at_once=40, rounds=2, listeners=200, listener_rounds=1, waiting=8)


def text_of(seconds: float) -> str:
    """Sentences of about so many seconds of speech."""
    wanted = round(seconds * CHARACTERS_PER_S)
    text = " ".join(SENTENCES * (wanted // len(" ".join(SENTENCES)) + 1))
    return text[: text.index(".", wanted - 1) + 1]


def body_of(text: str, **more: Any) -> dict[str, Any]:
    """A request that is spoken anew each time, in the same way."""
    return {"input": text, "seed": 1, "cache": False, "response_format": "wav"} | more


def units_of(text: str) -> tuple[Unit, ...]:
    """As the service plans them for `body_of(text)`."""
    return plan(SpeechRequest(text, "preview", VoiceRef("heart", BUILTIN), 1.0, 1, "bench"), PREVIEW_LIMITS)


def main(sizes: Sizes = FULL) -> str:
    """The tables in Markdown."""
    return "\n\n".join(tables(sizes))


def tables(sizes: Sizes) -> Iterator[str]:
    """Each as soon as it is measured."""
    yield (
        f"{os.cpu_count()} cores, Ray {version('ray')}, one ingress replica, Serve's Python proxy; the simulated "
        f"engine sleeps for {RTF} x the audio"
    )
    yield from _with_preview(sizes)
    yield from _simulated(sizes)


def _with_preview(sizes: Sizes) -> Iterator[str]:
    """With deploy.yaml's own numbers for the model, but one replica."""
    with (
        tempfile.TemporaryDirectory(prefix="b") as name,
        new_store("directory", Path(name)) as kept,
        serving(
            Path(name), kept.variables, builder="serve_app.app:build", model_options={"max_ongoing_requests": 16}
        ) as service,
        plain_server("preview") as plain,
    ):
        engine = PreviewEngine()
        engine.warm_up()
        yield _at_one_stream(service.url, plain, engine, sizes)
        yield _saturated(service.url, plain, engine, sizes)
        yield _first_audio("preview", service.url, plain, sizes)


def _simulated(sizes: Sizes) -> Iterator[str]:
    with (
        tempfile.TemporaryDirectory(prefix="b") as name,
        new_store("directory", Path(name)) as kept,
        serving(Path(name), kept.variables, also={MANY: REPLICAS}) as service,
    ):
        with plain_server("simulated") as plain:
            yield _first_audio("simulated", service.url, plain, sizes)
            yield _by_replicas(service.url, plain, max(1, sizes.rounds // 2))
        yield open_listeners(
            service,
            body_of(text_of(MINUTE_S / 2), model=MANY),
            body_of(text_of(TEN_MINUTES_S), model=MANY),
            listeners=sizes.listeners,
            rounds=sizes.listener_rounds,
            waiting=sizes.waiting,
        )


def in_process(engine: Engine, text: str, calls: int) -> Load:
    """The engine alone, with the units that the service plans, one after the other."""
    units, latencies = units_of(text), []
    began = time.perf_counter()
    for _ in range(calls):
        call_began = time.perf_counter()
        for unit in units:
            speak(engine, EngineInput(unit, None))
        latencies.append(time.perf_counter() - call_began)
    return Load(latencies, time.perf_counter() - began)


def in_turns(paths: Mapping[str, Callable[[], Load]], turns: int) -> dict[str, Load]:
    """The first turn warms up."""
    loads = {name: Load() for name in paths}
    for turn in range(turns + 1):
        for name, path in paths.items():
            load = path()
            if turn:
                loads[name].add(load)
    return loads


def _load(url: str, call: Call, *, clients: int, calls: int) -> Callable[[], Load]:
    return lambda: run_load(url, lambda _: call, clients=clients, calls=calls)


def _at_one_stream(url: str, plain: str, engine: Engine, sizes: Sizes) -> str:
    whole = Call("POST", SPEECH, body_of(SHORT_TEXT))
    paths = {
        "plain server": (plain, whole),
        "service, whole file": (url, whole),
        "service, `stream_format: audio`": (url, Call("POST", SPEECH, body_of(SHORT_TEXT, stream_format="audio"))),
        "service, GET /healthz": (url, Call("GET", "/healthz")),
    }
    loads = in_turns(
        {"engine alone": lambda: in_process(engine, SHORT_TEXT, sizes.calls)}
        | {name: _load(where, call, clients=1, calls=sizes.calls) for name, (where, call) in paths.items()},
        sizes.turns,
    )
    alone_ms = loads["engine alone"].percentile_ms(50)
    rows = [
        (name, _ms(each.percentile_ms(50)), _ms(each.percentile_ms(95)), _ms(each.percentile_ms(50) - alone_ms))
        for name, each in loads.items()
    ]
    return _table(
        f"One request at a time: {len(SHORT_TEXT)} characters, units: {len(units_of(SHORT_TEXT))}; {sizes.turns} turns "
        f"of {sizes.calls} calls",
        "path|p50 ms|p95 ms|p50 over the engine, ms",
        rows,
    )


def _saturated(url: str, plain: str, engine: Engine, sizes: Sizes) -> str:
    rows: list[tuple[str, ...]] = []
    for text, calls in ((SHORT_TEXT, sizes.at_once), (text_of(MINUTE_S / 4), sizes.at_once // 2)):
        call = Call("POST", SPEECH, body_of(text))
        paths: dict[str, Callable[[], Load]] = {
            "engine alone": partial(in_process, engine, text, calls),
            "plain server": _load(plain, call, clients=CLIENTS, calls=calls),
            "service": _load(url, call, clients=CLIENTS, calls=calls),
        }
        loads = in_turns(paths, sizes.turns)
        alone = loads["engine alone"].per_s
        rows += [
            (f"{len(text)} characters", name, f"{each.per_s:.1f}", f"{100 * each.per_s / alone:.0f}")
            for name, each in loads.items()
        ]
    return _table(
        f"Saturated: {CLIENTS} clients, each of which sends its next request when the last is answered, and the engine "
        f"alone in a loop; {sizes.turns} turns",
        "text|path|answers/s|% of the engine alone",
        rows,
    )


def _first_audio(engine: str, url: str, plain: str, sizes: Sizes) -> str:
    """The plain server has the whole or nothing."""
    text = text_of(MINUTE_S)
    streamed = body_of(text, response_format="pcm", stream_format="audio")
    heard: dict[str, list[Heard]] = {"plain server": [], "service": []}
    for turn in range(sizes.rounds + 1):
        for name, where, body in (("plain server", plain, {"input": text}), ("service", url, streamed)):
            each = listen(where, body)
            if turn:
                heard[name].append(each)
    return _table(
        f"A text of {len(text)} characters ({len(text) / CHARACTERS_PER_S:.0f} s), {engine} engine, 1 replica; medians "
        f"of {sizes.rounds} rounds",
        "path|first audio ms|all of it ms|first / all",
        [
            (
                name,
                _ms(1000 * statistics.median(each.first_s for each in those)),
                _ms(1000 * statistics.median(each.full_s for each in those)),
                f"1/{1 / statistics.median(each.first_s / each.full_s for each in those):.1f}",
            )
            for name, those in heard.items()
        ],
    )


def _by_replicas(url: str, plain: str, rounds: int) -> str:
    """One replica and eight are there at once, and asked in turns."""
    text = text_of(TEN_MINUTES_S)
    forms = {"whole file": body_of(text), "streamed": body_of(text, stream_format="audio")}
    listen(url, forms["whole file"] | {"model": MANY})  # its replicas have answered nothing yet
    took: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        took.setdefault(("plain server", FEW), []).append(listen(plain, {"input": text}).full_s)
        for form, body in forms.items():
            for model in (FEW, MANY):
                took.setdefault((form, model), []).append(listen(url, body | {"model": model}).full_s)
    medians = {key: statistics.median(those) for key, those in took.items()}
    rows = [("plain server", f"{medians['plain server', FEW]:.2f}", "-", "-")]
    rows += [
        (
            f"service, {form}",
            f"{medians[form, FEW]:.2f}",
            f"{medians[form, MANY]:.2f}",
            f"{medians[form, FEW] / medians[form, MANY]:.2f}",
        )
        for form in forms
    ]
    units = units_of(text)
    slept_s = RTF * len(text) / CHARACTERS_PER_S
    return _table(
        f"A text of {len(text):,} characters ({len(text) / CHARACTERS_PER_S:.0f} s, {len(units)} units, of which the "
        f"engine sleeps {slept_s:.1f} s; {math.ceil(len(units) / REPLICAS)} of them one after the other at {REPLICAS} "
        f"replicas), simulated engine; medians of {rounds} rounds",
        f"path|1 replica s|{REPLICAS} replicas s|times as soon",
        rows,
    )


def _ms(value: float) -> str:
    return f"{value:.1f}"


def _table(caption: str, columns: str, rows: Iterable[Sequence[str]]) -> str:
    names = columns.split("|")
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|", *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join([caption, "", *lines])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="fewer rounds: to see that it works")
    wanted = SHORT if parser.parse_args().short else FULL
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that what was started is ended
    for table in tables(wanted):
        print(table, end="\n\n", flush=True)
