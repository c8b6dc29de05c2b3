"""Waveforms joined and stretched. Pure functions."""

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import av.filter
import numpy as np

from serve_app.domain import SAMPLE_RATE_HZ, Pcm

__all__ = ["cross_fade", "time_stretch"]

MIN_TEMPO, MAX_TEMPO = 0.5, 2.0
"""Range of one atempo filter: below it refuses, above it leaves samples out instead of blending them."""
FRAME_SAMPLES = 4096
TAIL_S = 0.25


def cross_fade(waves: Sequence[Pcm], overlap_s: float) -> Pcm:
    """`waves` one after the other, each fading linearly into the next over `overlap_s` seconds (0: just joined).

    An overlap is never longer than the shorter of the two waves it joins, so the length of two is
    len(a) + len(b) - min(overlap, len(a), len(b)). A wave of equal samples joined to its like keeps its level.
    Raises ValueError for no waves or a negative overlap.
    """
    if not waves:
        raise ValueError("waves is empty: there is nothing to join")
    if not overlap_s >= 0:
        raise ValueError(f"overlap_s is {overlap_s}: it must be 0 or more")
    wanted = round(overlap_s * SAMPLE_RATE_HZ)
    overlaps = [min(wanted, len(before), len(after)) for before, after in itertools.pairwise(waves)]
    joined = np.zeros(sum(map(len, waves)) - sum(overlaps), np.float32)
    start = 0
    for wave, overlap_before, overlap_after in zip(waves, [0, *overlaps], [*overlaps, 0], strict=True):
        start -= overlap_before
        joined[start : start + len(wave)] += _faded(wave, overlap_before, overlap_after)
        start += len(wave)
    return joined


def time_stretch(audio: Pcm, factor: float) -> Pcm:
    """`audio` played `factor` times as fast at the same pitch: round(len(audio) / factor) samples.

    FFmpeg's atempo (waveform-similarity overlap-add), as a chain where `factor` is outside 0.5..2. A factor of 1
    returns `audio` itself. The same input gives the same samples. Raises ValueError unless factor is above 0 and
    finite.
    """
    if not 0 < factor < np.inf:
        raise ValueError(f"factor is {factor}: it must be above 0 and finite")
    if factor == 1 or audio.size == 0:
        return audio
    graph = av.filter.Graph()
    source = graph.add_abuffer(
        sample_rate=SAMPLE_RATE_HZ, format="flt", layout="mono", time_base=Fraction(1, SAMPLE_RATE_HZ)
    )
    tempos = [graph.add("atempo", f"{tempo:.9f}") for tempo in _tempos(factor)]
    graph.link_nodes(source, *tempos, graph.add("abuffersink")).configure()
    # atempo withholds the end of what it is given, up to a window per filter: silence to withhold comes behind it.
    silence = np.zeros(round(TAIL_S * max(1.0, factor) * SAMPLE_RATE_HZ), np.float32)
    stretched = np.concatenate(list(_filtered(graph, np.concatenate([audio, silence]))))
    return stretched[: round(len(audio) / factor)]


def _faded(wave: Pcm, fade_in: int, fade_out: int) -> Pcm:
    envelope = np.ones(len(wave), np.float32)
    envelope[:fade_in] *= _ramp(fade_in)
    envelope[len(wave) - fade_out :] *= _ramp(fade_out)[::-1]
    return wave * envelope


def _ramp(samples: int) -> Pcm:
    """Rises from just above 0 to just below 1; a ramp and its mirror add up to 1 everywhere."""
    return ((np.arange(samples) + 0.5) / max(samples, 1)).astype(np.float32)


def _tempos(factor: float) -> Iterator[float]:
    """Equal factors, each in atempo's range, whose product is `factor`."""
    count = 1
    while not MIN_TEMPO <= factor ** (1 / count) <= MAX_TEMPO:
        count += 1
    return itertools.repeat(factor ** (1 / count), count)


def _filtered(graph: av.filter.Graph, audio: Pcm) -> Iterator[Pcm]:
    for start in range(0, len(audio), FRAME_SAMPLES):
        samples = np.ascontiguousarray(audio[np.newaxis, start : start + FRAME_SAMPLES], np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="flt", layout="mono")
        frame.sample_rate = SAMPLE_RATE_HZ
        frame.pts = start
        graph.push(frame)
        yield from _ready(graph)
    graph.push(None)
    yield from _ready(graph)


def _ready(graph: av.filter.Graph) -> Iterator[Pcm]:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield frame.to_ndarray()[0]
