"""Asks a store at start for everything the service will ask of it, so that a wrong setting ends the start.

`probe` asks for what must be there, `conditions_hold` for what may be missing.
"""

import secrets
from contextlib import suppress

from serve_app.errors import StorageError, StorageMisconfigured
from serve_app.storage.protocol import ConditionalStore, ObjectStore

__all__ = ["conditions_hold", "probe"]


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
    """Whether `put_new` can be used here: two of them to one fresh key under `.probe/`, and only the first may write.

    False for a store without `put_new`, one that refuses conditions, and one that ignores them in silence. Ask it
    behind `probe`: then StorageMisconfigured can mean nothing but the condition. Raises StorageUnreachable and
    StorageDenied as the store does.
    """
    if not isinstance(store, ConditionalStore):
        return False
    key = f".probe/{secrets.token_hex(16)}"
    first, second = (f"{place} {key}".encode() for place in ("first", "second"))
    try:
        held = (
            store.put_new(key, first, content_type="text/plain")
            and not store.put_new(key, second, content_type="text/plain")
            and store.get(key).body == first
        )
    except BaseException as error:
        with suppress(StorageError):  # the first error says what is wrong
            store.delete(key)
        if isinstance(error, StorageMisconfigured):
            return False
        raise
    store.delete(key)
    return held
