"""Waveforms joined and stretched. Pure functions."""

import itertools
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import av.filter
import numpy as np

from serve_app.domain import SAMPLE_RATE_HZ, Pcm

__all__ = ["CrossFader", "cross_fade", "time_stretch"]

MIN_TEMPO, MAX_TEMPO = 0.5, 2.0
"""Range of one atempo filter: below it refuses, above it leaves samples out instead of blending them."""
FRAME_SAMPLES = 4096
TAIL_S = 0.25


def cross_fade(
    waves: Sequence[Pcm], overlap_s: float, pauses_s: Sequence[float] | None = None, tail_s: float = 0.0
) -> Pcm:
    """`waves` one after the other, each fading linearly into the next over `overlap_s` seconds (0: just joined).

    `pauses_s`: silence before each wave, where the wave before it does not fade (None: no pauses); `tail_s`: behind the
    last. An overlap is never longer than the shorter of the two waves it joins, so the length of two is
    len(a) + len(b) - min(overlap, len(a), len(b)). A wave of equal samples joined to its like keeps its level.
    Raises ValueError for no waves, or a negative overlap or pause.
    """
    if not waves:
        raise ValueError("waves is empty: there is nothing to join")
    fader = CrossFader(overlap_s)
    pauses = [0.0] * len(waves) if pauses_s is None else pauses_s
    joined = [fader.add(wave, pause_s) for wave, pause_s in zip(waves, pauses, strict=True)]
    return np.concatenate([*joined, fader.finish(tail_s)])


class CrossFader:
    """`cross_fade` of waves as they come: each sample is given as soon as no later wave can change it.

    `begins_at`: the sample of the whole at which the last wave begins. Raises ValueError for a negative overlap.
    """

    def __init__(self, overlap_s: float) -> None:
        if not overlap_s >= 0:
            raise ValueError(f"overlap_s is {overlap_s}: it must be 0 or more")
        self._wanted = round(overlap_s * SAMPLE_RATE_HZ)
        self._wave: Pcm = np.zeros(0, np.float32)  # the last
        self._fade_in = 0
        self._given = 0  # samples of it
        self._under: Pcm = self._wave  # what the waves before it add to it, from there on
        self.begins_at = 0

    def add(self, wave: Pcm, pause_s: float = 0.0) -> Pcm:
        """All before the end of `wave`, which fades into the next one, that was not given yet. `pause_s`: silence
        before it, instead of an overlap."""
        pause = _silence(pause_s)
        overlap = 0 if len(pause) else min(self._wanted, len(self._wave), len(wave))
        last = np.concatenate([self._rest(overlap), pause])
        self.begins_at += len(self._wave) + len(pause) - overlap
        before, self._under = np.split(last, [len(last) - overlap])
        self._wave, self._fade_in, self._given = wave, overlap, len(wave) - min(self._wanted, len(wave))
        sure = _over(self._under, _faded(wave, overlap, 0)[: self._given])
        self._under = self._under[self._given :]
        return np.concatenate([before, sure])

    def finish(self, tail_s: float = 0.0) -> Pcm:
        """The end of the last wave, and `tail_s` of silence behind it."""
        return np.concatenate([self._rest(0), _silence(tail_s)])

    def _rest(self, fade_out: int) -> Pcm:
        return _over(self._under, _faded(self._wave, self._fade_in, fade_out)[self._given :])


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


def _silence(pause_s: float) -> Pcm:
    if not pause_s >= 0:
        raise ValueError(f"pause_s is {pause_s}: it must be 0 or more")
    return np.zeros(round(pause_s * SAMPLE_RATE_HZ), np.float32)


def _faded(wave: Pcm, fade_in: int, fade_out: int) -> Pcm:
    envelope = np.ones(len(wave), np.float32)
    envelope[:fade_in] *= _ramp(fade_in)
    envelope[len(wave) - fade_out :] *= _ramp(fade_out)[::-1]
    return wave * envelope


def _over(under: Pcm, wave: Pcm) -> Pcm:
    """Both together, from their beginning on; `wave` is changed."""
    shared = min(len(under), len(wave))
    wave[:shared] += under[:shared]
    return wave


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
