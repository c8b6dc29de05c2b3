"""The audio of a job in pieces: together they are its samples, whatever was kept when, and whoever asks."""

import asyncio
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app import job_pieces, keys
from serve_app.audio import WAV_HEADER_BYTES, cross_fade, to_int16
from serve_app.domain import SAMPLE_RATE_HZ
from serve_app.errors import ObjectNotFound
from serve_app.job_pieces import JobPieces
from serve_app.jobs import RETENTION_S, Collector, KeptProgress, kept, progress
from serve_app.jobs.collector import GRACE_S
from serve_app.jobs.progress import KEEP_FROM_S, drop_progress
from tests.support.deadline import DEADLINE_S
from tests.support.jobs import JOB_ID, nothing_older
from tests.support.kept import Kept, noise

PIECE = 1000


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Pieces of 1,000 samples, three at once."""
    monkeypatch.setattr(job_pieces, "PIECE_SAMPLES", PIECE)
    monkeypatch.setattr(job_pieces, "MOST_SAMPLES", 3 * PIECE)


LENGTHS = st.lists(st.integers(1, 4000), min_size=1, max_size=8)
PAUSES = st.sampled_from([0.0, 0.0, 0.00001, 0.01, 0.1])


@given(
    lengths=LENGTHS,
    pauses_s=st.lists(PAUSES, min_size=8, max_size=8),
    overlap_s=st.sampled_from([0.0, 0.02, 0.15]),
    order=st.randoms(use_true_random=False),
)
def test_all_pieces_are_the_audio(lengths, pauses_s, overlap_s, order):
    """To the sample: units in any order, kept in any lots, with cross-fades and pauses, asked for at any time by
    ingress replicas that know nothing of each other."""

    async def heard() -> None:
        waves = [noise(length, index) for index, length in enumerate(lengths)]
        job = Kept(waves, pauses_s[: len(waves)], overlap_s)
        indexes = [*range(len(waves))]
        order.shuffle(indexes)
        while indexes:
            many = order.randint(1, len(indexes))
            lot, indexes = indexes[:many], indexes[many:]
            await job.keep(*lot)
            for _ in range(order.randint(0, 4)):
                assert job.take() is False
        job.end()
        job.rest()
        assert np.array_equal(job.samples(), to_int16(job.audio))
        assert max(len(piece.samples) for piece in job.heard) <= PIECE
        assert job.take() is False

    asyncio.run(heard())


async def test_pieces_come_before_the_end():
    """Of the first units without a gap, all but what the next one fades into; then nothing until more is kept."""
    job = Kept([noise(2000, index) for index in range(3)], [0.0] * 3, 500 / SAMPLE_RATE_HZ)
    await job.keep(1)
    assert not job.take()
    assert job.heard == []
    await job.keep(0)
    job.take()
    job.take()
    assert [len(piece.samples) for piece in job.heard] == [1000, 1000, 1000]
    assert np.array_equal(job.samples(), to_int16(job.audio)[:3000])


async def test_asking_often_reads_no_more(monkeypatch):
    """Of what is kept only what is new is read, and the end of the unit before; of the audio what is handed out."""
    job = Kept([noise(2500, index) for index in range(4)], [0.0] * 4)
    pieces, read, get = JobPieces(job.store, job.jobs), [], job.store.get

    def counted(key):
        read.append(key)
        return get(key)

    monkeypatch.setattr(job.store, "get", counted)
    for index in range(3):
        await job.keep(index)
        for _ in range(20):
            job.take(pieces)
    objects = [key for key in read if "progress-" in key]
    assert max(objects.count(key) for key in objects) <= 3
    job.end()
    starts, stream = [], job.store.read

    def noted(key, *, start):
        starts.append((start - WAV_HEADER_BYTES) // 2)
        return stream(key, start=start)

    monkeypatch.setattr(job.store, "read", noted)
    while not job.take(pieces):
        pass
    assert np.array_equal(job.samples(), to_int16(job.audio))
    assert starts == [0, 7500]  # to compare what was handed out, and the rest


async def test_a_short_job_comes_in_pieces_at_its_end():
    """Nothing of it is kept."""
    job = Kept([noise(2500)], [0.0], planned_s=KEEP_FROM_S - 1)
    assert not job.take()
    job.end()
    assert job.take()
    assert [len(piece.samples) for piece in job.heard] == [1000, 1000, 500]


async def test_a_job_of_a_version_without_cross_fades_waits_for_its_end():
    """Nobody here knows how its units will be joined."""
    job = Kept([noise(2500), noise(2500, 1)], [0.0, 0.0], None)
    await job.keep(0)
    job.take()
    assert job.heard == []
    job.end()
    job.rest()
    assert np.array_equal(job.samples(), to_int16(job.audio))


async def test_units_that_were_kept_by_the_version_before_have_no_pauses(monkeypatch):
    """Their objects say nothing of them; and what says something is no unit for that version."""
    job = Kept([noise(2000), noise(2000, 1)], [0.0, 0.0])
    with monkeypatch.context() as before:
        before.setattr(progress, "PAUSES", "-1 other -")
        await job.keep(0, 1)
    restored = await KeptProgress(job.store, job.request, 2, (), job.clock).planned([job.unit(0), job.unit(1)])
    job.take()
    assert (sorted(restored), len(job.samples())) == ([0, 1], 3000)


async def test_an_update_in_mid_job_has_the_pieces_begin_anew():
    """What another version spoke is not handed out behind the first; at the end index and time begin at 0 again."""
    job = Kept([noise(2000, index) for index in range(4)], [0.0] * 4)
    updated = [noise(2000, index) for index in range(10, 14)]
    await job.keep(0, 1)
    job.take()
    job.take()
    before = len(job.heard)
    await job.keep(0, 1, 2, 3, made_by="fake 2", waves=updated)
    job.take()
    assert (len(job.samples()), len(job.heard)) == (4000, before)
    audio = cross_fade(updated, 0.0)
    job.end(audio)
    job.rest()
    assert np.array_equal(job.samples(job.heard[before:]), to_int16(audio))


async def test_what_one_replica_of_another_version_spoke_is_waited_for():
    """It is spoken again by the version that has more of the text, and then handed out."""
    job = Kept([noise(2000, index) for index in range(3)], [0.0] * 3)
    await job.keep(0)
    await job.keep(1, 2, made_by="fake 2", waves=[noise(2000, index) for index in range(10, 13)])
    job.take()
    assert len(job.samples()) == 2000
    await job.keep(1, 2, made_by="fake 1 float32")
    job.end()
    job.rest()
    assert np.array_equal(job.samples(), to_int16(job.audio))


async def test_a_shorter_audio_has_them_begin_anew_too():
    """The update spoke faster."""
    job = Kept([noise(2000), noise(2000, 1)], [0.0, 0.0])
    await job.keep(0)
    job.take()
    job.end(noise(900))
    job.rest()
    assert np.array_equal(job.samples(job.heard[2:]), to_int16(noise(900)))


@pytest.mark.parametrize("when", ["listed", "looked through"])
async def test_what_ends_while_it_is_asked_for_loses_nothing(monkeypatch, when):
    """Kept units are removed as the job settles, at any moment of a call."""
    job = Kept([noise(2000, index) for index in range(3)], [0.0] * 3)
    await job.keep(0)
    await job.keep(1)
    status, get, reads = job.jobs.status(job.request.ref), job.store.get, []

    def ends_first(key):
        if "progress-" in key and not reads.append(key) and len(reads) == (1 if when == "listed" else 2):
            job.end()
            drop_progress(job.store, job.request.ref)
            raise ObjectNotFound(key)
        return get(key)

    monkeypatch.setattr(job.store, "get", ends_first)
    job.heard += JobPieces(job.store, job.jobs).take(status).pieces
    job.rest()
    assert np.array_equal(job.samples(), to_int16(job.audio))


async def test_of_two_who_ask_at_once_each_has_its_own_where_writes_are_conditional(monkeypatch):
    """Both have looked how far it was handed out before either says that it goes on: no piece twice, and none lost; one
    is told of the end."""
    job = Kept([noise(9500)], [0.0])
    job.end()
    both, looked = threading.Barrier(2, timeout=DEADLINE_S), 0
    pieces = [JobPieces(job.store, job.jobs, exclusive=True) for _ in range(2)]
    listed = job.store.list

    def together(prefix, **page):
        nonlocal looked
        found = listed(prefix, **page)
        if prefix.endswith("streamed") and (looked := looked + 1) <= 2:
            both.wait()
        return found

    ended = []
    status = job.jobs.status(job.request.ref)
    monkeypatch.setattr(job.store, "list", together)
    for _ in range(3):
        taken = await asyncio.gather(*(asyncio.to_thread(each.take, status) for each in pieces))
        job.heard += [piece for each in taken for piece in each.pieces]
        ended += [each.ended for each in taken]
    job.heard.sort(key=lambda piece: piece.index)
    assert np.array_equal(job.samples(), to_int16(job.audio))
    assert ended.count(True) == 1


async def test_much_that_is_kept_is_looked_through_in_several_calls(monkeypatch):
    """A call has its time; the next goes on where it was."""
    monkeypatch.setattr(kept, "LOOKED_BYTES", 2 * kept.OBJECT_BYTES)
    job = Kept([noise(200, index) for index in range(5)], [0.0] * 5)
    for index in range(5):
        await job.keep(index)
    pieces, heard = JobPieces(job.store, job.jobs), []
    for _ in range(3):
        job.take(pieces)
        heard.append(len(job.heard))
    assert heard == [0, 0, 1]


async def test_an_object_that_cannot_be_read_is_a_gap_until_the_end():
    """Nothing behind it is handed out."""
    job = Kept([noise(1000, index) for index in range(3)], [0.0] * 3)
    await job.keep(0)
    key = keys.job("default", JOB_ID, "progress-0001-00002-00002-of-00003.v1.npz")
    job.store.put(key, b"no zip", content_type="application/zip")
    await job.keep(2)
    job.take()
    assert len(job.samples()) == 1000
    job.end()
    job.rest()
    assert np.array_equal(job.samples(), to_int16(job.audio))


async def test_an_ingress_of_the_version_before_had_handed_it_out():
    """Its word that the output was streamed counts: nothing comes again."""
    job = Kept([noise(2500)], [0.0])
    job.end()
    job.jobs.hand_out(job.request.ref)
    assert not job.take()
    assert job.heard == []


async def test_how_far_it_was_handed_out_goes_with_the_job():
    """Nothing of it is left when its result is removed."""
    job = Kept([noise(2500), noise(2500, 1)], [0.0, 0.0])
    await job.keep(0)
    job.take()
    job.end()
    job.rest()
    records = [info.key for info in job.store.list("jobs/").items if "/streamed" in info.key]
    nothing_older(job.store)
    job.clock.now += RETENTION_S + GRACE_S
    Collector(job.store, job.clock.wall).collect(JOB_ID[-1])
    left = [info.key for info in job.store.list("jobs/").items]
    assert (len(records), [key.rpartition("/")[2] for key in left]) == (3, ["gone.v1.json"])
