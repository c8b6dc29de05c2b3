"""Which voices somebody may have meant by a name that none has, by two listings at most."""

from collections.abc import Iterable, Iterator

from serve_app import keys
from serve_app.errors import StorageError
from serve_app.near import near_names
from serve_app.storage import ObjectInfo, ObjectStore

__all__ = ["near_voices"]

PAGE = 1000
"""Objects of one listing: what a store gives at once."""
FIRST_CHARS = 2


def near_voices(store: ObjectStore, tenant: str, name: str, others: Iterable[str] = ()) -> list[str]:
    """Of the tenant's voices and `others`, names like `name`, the nearest first; see `near_names`.

    Where a tenant has more voices than one listing gives, those that begin as `name` does, as far as one listing goes,
    and the first ones of all. None of a store that cannot be listed: that no voice has the name is known without it.
    """
    return near_names(name, {*others, *_listed(store, tenant, name)})


def _listed(store: ObjectStore, tenant: str, name: str) -> Iterator[str]:
    prefix = keys.voices_prefix(tenant)
    try:
        page = store.list(prefix, limit=PAGE)
        found: list[ObjectInfo] = list(page.items)
        if page.next_after is not None:
            found += store.list(f"{prefix}{name[:FIRST_CHARS]}", limit=PAGE).items
    except StorageError:
        return
    for info in found:
        name, _, suffix = info.key.removeprefix(prefix).partition(".")
        if suffix == "wav":
            yield name
