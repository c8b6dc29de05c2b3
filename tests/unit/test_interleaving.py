"""The orders that `interleavings` leaves out differ in nothing from one that it has."""

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.errors import ObjectNotFound
from serve_app.storage import MemoryStore
from tests.support.interleaving import contents, interleavings

KEYS = ("a/1", "a/2", "b/1")
OPERATIONS = st.one_of(
    st.tuples(st.sampled_from(("put", "put_new", "get", "head", "delete")), st.sampled_from(KEYS)),
    st.tuples(st.just("list"), st.sampled_from(("a/", "b/", ""))),
)
SCRIPTS = st.lists(st.lists(OPERATIONS, min_size=1, max_size=3), min_size=2, max_size=3)
ALL = 99


def script(operations: list[tuple[str, str]], name: str) -> Callable[[MemoryStore], Any]:
    """Does these one after the other, and returns all that it saw."""

    def act(store: MemoryStore) -> list[Any]:
        return [seen(store, operation, key) for operation, key in operations]

    def seen(store: MemoryStore, operation: str, key: str) -> Any:
        if operation in ("put", "put_new"):
            done = getattr(store, operation)(key, name.encode(), content_type="text/plain")
            return done if operation == "put_new" else None
        if operation == "list":
            return [info.etag for info in store.list(key).items]
        try:
            found = getattr(store, operation)(key)
        except ObjectNotFound:
            return "nothing"
        return getattr(found, "body", None) or getattr(found, "etag", None)

    return act


@settings(max_examples=25, deadline=None)
@given(SCRIPTS)
def test_no_end_is_left_out(scripts: list[list[tuple[str, str]]]) -> None:
    acts = [script(operations, str(number)) for number, operations in enumerate(scripts)]

    def ends(switches: int | None) -> tuple[set[str], int]:
        orders = [*interleavings(MemoryStore, *acts, switches=switches)]
        return {repr((order.results, contents(order.store))) for order in orders}, len(orders)

    (some, few), (every, many) = ends(None), ends(ALL)
    assert some == every
    assert few <= many


def test_what_touches_nothing_of_the_other_is_tried_once() -> None:
    acts = [script([("put", key), ("get", key), ("delete", key)], key) for key in KEYS]
    assert len([*interleavings(MemoryStore, *acts)]) == 1
    assert len([*interleavings(MemoryStore, *acts, switches=ALL)]) == 1680  # 9! / 3!^3
