"""Asks a store at start for everything the service will ask of it, so that a wrong setting ends the start.

`probe` asks for what must be there, `conditions_hold` for what may be missing.
"""

import secrets
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from serve_app.errors import StorageError, StorageMisconfigured
from serve_app.storage.protocol import ConditionalStore, ObjectStore

__all__ = ["conditions_hold", "probe"]

AT_ONCE, ROUNDS = 8, 3
"""Writers that race for one key, and how often."""


def probe(store: ObjectStore) -> None:
    """Write, describe, read, list and delete one small object under `.probe/`.

    Raises what the store raises (StorageUnreachable, StorageDenied, StorageMisconfigured), whose message names the
    variable to change, and StorageMisconfigured for a store that does not give back what was written.
    """
    key = f".probe/{secrets.token_hex(16)}"
    body = key.encode()
    written = store.put(key, body, content_type="text/plain")
    try:
        described = store.head(key)
        read = store.get(key)
        listed = [info.key for info in store.list(key).items]
    except BaseException:
        with suppress(StorageError):  # the first error says what is wrong
            store.delete(key)
        raise
    store.delete(key)
    if (described.sha256, read.body, listed) != (written.sha256, body, [key]):
        raise StorageMisconfigured(
            f"the store does not give back what was written to {key!r}: sha256 {described.sha256} for "
            f"{written.sha256}, body {read.body!r}, listing {listed}; use one that keeps metadata, and no cache"
        )


def conditions_hold(store: ObjectStore) -> bool:
    """Whether `put_new` can be used here: of those who write to a fresh key under `.probe/` only one may.

    First one after the other, then at once, a few times: a store may keep conditions only as long as nobody races.
    False for a store without `put_new`, one that refuses conditions, and one that ignores them in silence. Ask it
    behind `probe`: then StorageMisconfigured can mean nothing but the condition. Raises StorageUnreachable and
    StorageDenied as the store does.
    """
    if not isinstance(store, ConditionalStore):
        return False
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="probe") as pool:
        return all(_only_one_writes(store, round_ > 0, pool) for round_ in range(1 + ROUNDS))


def _only_one_writes(store: ObjectStore, at_once: bool, pool: Executor) -> bool:
    assert isinstance(store, ConditionalStore)
    key = f".probe/{secrets.token_hex(16)}"
    bodies = [f"{number} {key}".encode() for number in range(AT_ONCE if at_once else 2)]
    write = partial(store.put_new, key, content_type="text/plain")
    try:
        wrote = list((pool.map if at_once else map)(write, bodies))
        held = wrote.count(True) == 1 and store.get(key).body == bodies[wrote.index(True)]
        held = held and (at_once or wrote[0])
    except BaseException as error:
        with suppress(StorageError):  # the first error says what is wrong
            store.delete(key)
        if isinstance(error, StorageMisconfigured):
            return False
        raise
    store.delete(key)
    return held
