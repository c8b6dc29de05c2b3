"""Asks a store at start for everything the service will ask of it, so that a wrong setting ends the start."""

import secrets
from contextlib import suppress

from serve_app.errors import StorageError, StorageMisconfigured
from serve_app.storage.protocol import ObjectStore

__all__ = ["probe"]


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
