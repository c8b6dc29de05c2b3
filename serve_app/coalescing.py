"""Request coalescing: equal questions that come while one is being answered are answered together."""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

__all__ = ["Coalesced"]

T = TypeVar("T")


class Coalesced(Generic[T]):
    """One call at a time for each key. Whoever asks while one goes on waits for the next, which is made for all that
    wait: so no answer is older than its question, and however many ask, no more is asked of what answers. Safe for
    threads; blocks as the call does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: dict[Hashable, Future[T]] = {}  # of those who wait; it has not begun
        self._going: dict[Hashable, Future[T]] = {}

    def call(self, key: Hashable, ask: Callable[[], T]) -> T:
        """What `ask` answers to a call that begins after this one, made here or by another that asks for `key`. Raises
        what that call raises."""
        with self._lock:
            answer = self._next.get(key)
            if leads := answer is None:
                answer = self._next[key] = Future()
                before = self._going.get(key)
        if not leads:
            return answer.result()
        if before is not None:
            wait([before])
        with self._lock:  # from here on others are too late for it
            del self._next[key]
            self._going[key] = answer
        try:
            answer.set_result(ask())
        except BaseException as error:
            answer.set_exception(error)
        finally:
            with self._lock:
                if self._going.get(key) is answer:
                    del self._going[key]
        return answer.result()
