"""Questions that are answered together: never with what was known before they came."""

import threading
from concurrent.futures import ThreadPoolExecutor

from serve_app.coalescing import Coalesced
from serve_app.errors import StorageUnreachable
from tests.support.deadline import DEADLINE_S
from tests.support.running import until


class Slow:
    """Answers with its count of calls, each when it may."""

    def __init__(self) -> None:
        self.begun, self.most, self.inside = 0, 0, 0
        self.may = threading.Semaphore(0)
        self.lock = threading.Lock()

    def __call__(self) -> int:
        with self.lock:
            self.begun += 1
            self.inside += 1
            self.most = max(self.most, self.inside)
            mine = self.begun
        assert self.may.acquire(timeout=DEADLINE_S)
        with self.lock:
            self.inside -= 1
        return mine


def waits(coalesced: Coalesced[int], key: str) -> bool:
    return key in coalesced._next


def test_whoever_comes_meanwhile_shares_the_next_call():
    """The first is on its way and proves nothing to them; the second is made once, for all."""
    slow, coalesced = Slow(), Coalesced[int]()
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(coalesced.call, "k", slow)
        until(lambda: slow.begun == 1, "the first is asked")
        others = [pool.submit(coalesced.call, "k", slow) for _ in range(5)]
        until(lambda: waits(coalesced, "k"), "one of them leads")
        slow.may.release()
        assert first.result(DEADLINE_S) == 1
        until(lambda: slow.begun == 2, "the second is asked")
        slow.may.release(6)
        answers = {other.result(DEADLINE_S) for other in others}
    assert answers in ({2}, {2, 3})  # 3: a thread that came when the second had begun
    assert slow.most == 1


def test_an_answer_is_never_older_than_its_question():
    """However many ask at once: what was written before one asked is in its answer."""
    written, coalesced = [0], Coalesced[int]()

    def ask_often(_: int) -> bool:
        right = True
        for _ in range(300):
            with lock:
                written[0] += 1
                mine = written[0]
            right = right and coalesced.call("k", lambda: written[0]) >= mine
        return right

    lock = threading.Lock()
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask_often, range(8)))
    assert (coalesced._next, coalesced._going) == ({}, {})


def test_keys_do_not_wait_for_each_other():
    slow, coalesced = Slow(), Coalesced[int]()
    with ThreadPoolExecutor(2) as pool:
        held = pool.submit(coalesced.call, "slow", slow)
        until(lambda: slow.begun == 1, "it is asked")
        assert coalesced.call("other", lambda: 7) == 7
        slow.may.release()
        assert held.result(DEADLINE_S) == 1


def test_an_error_is_for_all_that_share_it_and_for_nobody_later():
    """Those who wait for a call that fails are told so, and do not wait for ever."""
    slow, coalesced = Slow(), Coalesced[int]()

    def fail() -> int:
        slow()
        raise StorageUnreachable("no answer")

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(coalesced.call, "k", slow)
        until(lambda: slow.begun == 1, "the first is asked")
        others = [pool.submit(coalesced.call, "k", fail) for _ in range(3)]
        until(lambda: waits(coalesced, "k"), "one of them leads")
        slow.may.release(10)
        assert first.result(DEADLINE_S) == 1
        assert {type(other.exception(DEADLINE_S)) for other in others} == {StorageUnreachable}
    assert coalesced.call("k", lambda: 1) == 1
