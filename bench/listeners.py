"""Hundreds of listeners at once: that each hears all of it, and what the service's processes hold in memory for them.

    a listener alone (how many samples there are) -> all open, none reads on -> all read to the end -> the same again

Then a few that read nothing for a while, of a text of ten minutes: what is spoken for them meanwhile lies somewhere.
"""

from collections.abc import Mapping
from statistics import median
from typing import Any

from bench.listening import Heard, listen, listen_together
from bench.memory import memory_mb, processes_of, watched
from serve_app.domain import SAMPLE_RATE_HZ
from tests.support.running import RunningService

__all__ = ["open_listeners"]

BYTES_PER_SAMPLE = 2
HOLD_S = 25.0
"""How long those that wait read nothing: as long as eight replicas need to speak ten minutes to eight of them."""


def open_listeners(
    service: RunningService,
    body: Mapping[str, Any],
    long_body: Mapping[str, Any],
    *,
    listeners: int,
    rounds: int,
    waiting: int,
) -> str:
    """The tables in Markdown. Raises for an error in any answer, and where one is not as long as that of one alone."""
    processes = processes_of(service.process.pid)
    rows: list[str] = []

    def together(what: str, body: Mapping[str, Any], count: int, hold_s: float) -> list[Heard]:
        asked = dict(body) | {"response_format": "pcm", "stream_format": "audio"}
        expected_bytes = listen(service.url, asked).size_bytes
        before, opened = memory_mb(processes), {}
        with watched(processes) as peak:
            heard = listen_together(
                service.url, asked, count, opened=lambda: opened.update(memory_mb(processes)), hold_s=hold_s
            )
        after = memory_mb(processes)
        sizes = {each.size_bytes for each in heard}
        assert sizes == {expected_bytes}, (expected_bytes, sorted(sizes))
        for kind in after:
            growth_mb = (peak.mb[kind] - before[kind]) / count
            numbers = (before[kind], opened[kind], peak.mb[kind], after[kind])
            rows.append(
                f"| {what} | {expected_bytes / 1e6:.2f} | {kind} | "
                + " | ".join(f"{mb:.0f}" for mb in numbers)
                + f" | {growth_mb:.2f} |"
            )
        return heard

    heard = [together(f"{listeners}, round {number + 1}", body, listeners, 0.0) for number in range(rounds)]
    together(f"{waiting} that wait {HOLD_S:.0f} s", long_body, waiting, HOLD_S)
    first_s = median(each.first_s for those in heard for each in those)
    full_s = median(each.full_s for those in heard for each in those)
    head = (
        f"{listeners} listeners at once, each to the end with all its samples, of {len(body['input'])} characters "
        f"({_audio_s(heard[0][0]):.0f} s of speech): first audio after {first_s:.1f} s and all of it after "
        f"{full_s:.1f} s (medians of {rounds} rounds); {waiting} of {len(long_body['input'])} characters. In "
        "MB, of processes what they share with none; a stream is one of 16-bit samples"
    )
    columns = "| listeners | MB a stream | held by | before | all open | at most | after | growth at most a listener |"
    return "\n".join([head, "", columns, "|---" * 8 + "|", *rows])


def _audio_s(heard: Heard) -> float:
    return heard.size_bytes / BYTES_PER_SAMPLE / SAMPLE_RATE_HZ
