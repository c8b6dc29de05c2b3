"""Memory stores that look on: what happens between any two operations, and what a crash at any of them leaves.

interleavings   several actors, each in a thread, one store operation at a time, in every order that can differ
Crashing        works until its n-th write, and then no more
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from serve_app.storage import MemoryStore, ObjectInfo, Page, StoredObject

__all__ = ["Crash", "Crashing", "Hooked", "Interleaving", "contents", "interleavings"]

WRITES = {"put", "put_new", "delete"}
Operation = tuple[str, str]
"""Its name and its key; of `list`, the prefix."""
_Branch = tuple[list[int], frozenset[int]]
"""Who takes each step up to here, and whose next operation was tried before, with nothing since that it touches."""


class Hooked(MemoryStore):
    """Another way into `store`. `hook(operation, key)` is called before each operation, and may raise."""

    def __init__(self, store: MemoryStore, hook: Callable[[str, str], None]) -> None:
        super().__init__(now=store._now)
        self._objects, self._lock = store._objects, store._lock
        self._hook = hook

    def put(self, key: str, body: bytes, *, content_type: str) -> ObjectInfo:
        self._hook("put", key)
        return super().put(key, body, content_type=content_type)

    def put_new(self, key: str, body: bytes, *, content_type: str) -> bool:
        self._hook("put_new", key)
        return super().put_new(key, body, content_type=content_type)

    def get(self, key: str) -> StoredObject:
        self._hook("get", key)
        return super().get(key)

    def head(self, key: str) -> ObjectInfo:
        self._hook("head", key)
        return MemoryStore.get(self, key).info

    def list(self, prefix: str, *, after: str = "", limit: int = 1000) -> Page:
        self._hook("list", prefix)
        return super().list(prefix, after=after, limit=limit)

    def delete(self, key: str) -> None:
        self._hook("delete", key)
        super().delete(key)


class Crash(Exception):
    """The process is gone."""


class Crashing(Hooked):
    """A process that ends at its `at`-th write (the first is 0): neither that nor anything after it happens.

    With `lost_reply` that write still happens. `crashed`: whether it came so far.
    """

    def __init__(self, store: MemoryStore, at: int, *, lost_reply: bool = False) -> None:
        super().__init__(store, self._count)
        self._inner, self._left, self._lost_reply = store, at, lost_reply
        self.crashed = False

    def _count(self, operation: str, key: str) -> None:
        if not self.crashed and operation in WRITES:
            self.crashed = self._left == 0
            self._left -= 1
            if self.crashed and self._lost_reply and operation == "delete":
                self._inner.delete(key)
        if self.crashed:
            raise Crash(f"{operation} {key}")


@dataclass
class Interleaving:
    """One order: the store as it is afterwards, what each actor returned or raised, and each step taken."""

    store: MemoryStore
    results: list[Any]
    steps: list[tuple[int, str, str]]


class _Abandoned(BaseException):
    """Nobody wants to know how this order ends."""


class _Actor:
    """A thread that waits before each store operation until it is told to go on."""

    def __init__(self, store: MemoryStore, act: Callable[[MemoryStore], Any]) -> None:
        self.go, self.arrived = threading.Semaphore(0), threading.Semaphore(0)
        self.ended = self.abandoned = False
        self.at: Operation = ("", "")
        self.result: Any = None
        self._act = act
        self._store = Hooked(store, self._wait)
        threading.Thread(target=self._run, daemon=True).start()
        self.arrived.acquire()

    def _wait(self, operation: str, key: str) -> None:
        self.at = (operation, key)
        if not self.abandoned:
            self.arrived.release()
            self.go.acquire()
        if self.abandoned:
            raise _Abandoned

    def _run(self) -> None:
        try:
            self.result = self._act(self._store)
        except (Exception, _Abandoned) as error:
            self.result = error
        self.ended = True
        self.arrived.release()

    def step(self) -> None:
        self.go.release()
        self.arrived.acquire()

    def abandon(self) -> None:
        self.abandoned = True
        if not self.ended:
            self.step()


def interleavings(
    prepare: Callable[[], MemoryStore],
    *acts: Callable[[MemoryStore], Any],
    switches: int | None = None,
    limit: int = 20_000,
) -> Iterator[Interleaving]:
    """Every order in which the store operations of `acts` can happen on what `prepare` makes; each act must do nothing
    but by the store that it is given. Of orders that differ only in which of two neighbours comes first that do not
    touch each other, there is one: sleep sets (Godefroid, LNCS 1032, 1996).

    `switches`: for acts too long for that, all orders in which one that could go on is left for another so often at
    most; nearly all races need one or two (Musuvathi and Qadeer, PLDI 2007)."""
    branches: list[_Branch] = [([], frozenset())]
    for _ in range(limit):
        if not branches:
            return
        prefix, asleep = branches.pop()
        store = prepare()
        actors = [_Actor(store, act) for act in acts]
        steps: list[tuple[int, str, str]] = []
        choices: list[int] = []
        while any(not actor.ended for actor in actors):
            if len(choices) == len(prefix):
                here = _branches(actors, choices, asleep, switches)
                if not here:  # what would come of it comes of another order
                    break
                (prefix, asleep), *others = here
                branches += others
            chosen = prefix[len(choices)]
            choices.append(chosen)
            steps.append((chosen, *actors[chosen].at))
            actors[chosen].step()
        else:
            yield Interleaving(store, [actor.result for actor in actors], steps)
        for actor in actors:
            actor.abandon()
    raise AssertionError(f"more than {limit} orders: give the actors less to do")


def _branches(
    actors: Sequence[_Actor], choices: list[int], asleep: frozenset[int], switches: int | None
) -> list[_Branch]:
    """Who may come next, the one who goes on first, each with those that need not come right after."""
    awake = [index for index, actor in enumerate(actors) if not actor.ended and index not in asleep]
    awake.sort(key=lambda index: [index] != choices[-1:])
    branches: list[_Branch] = []
    for index in awake:
        branch = [*choices, index]
        if switches is None:
            sleeping = {other for other in asleep if _commute(actors[other].at, actors[index].at)}
            branches.append((branch, frozenset(sleeping)))
            asleep |= {index}
        elif not branches or sum(a != b for a, b in pairwise(branch)) <= switches:
            branches.append((branch, frozenset()))
    return branches


def _commute(one: Operation, other: Operation) -> bool:
    """Whether it makes no difference to anybody which of the two comes first."""
    if not WRITES & {one[0], other[0]}:
        return True
    (first, key), (second, other_key) = one, other
    if first == "list":
        return not other_key.startswith(key)
    if second == "list":
        return not key.startswith(other_key)
    return key != other_key


def contents(store: MemoryStore, *, without: tuple[str, ...] = ()) -> dict[str, bytes]:
    """All objects, but for those whose key starts with one of `without`."""
    return {key: each.body for key, each in sorted(store._objects.items()) if not key.startswith(without)}
