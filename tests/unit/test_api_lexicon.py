"""GET, PUT and DELETE /v1/lexicon."""

import pytest

from tests.support.service import LocalService

URL = "/v1/lexicon"


async def test_a_lexicon_is_stored_read_and_deleted():
    """As a whole: what a PUT leaves out is gone."""
    client = LocalService().client
    assert (await client.get(URL)).json() == {"entries": {}}
    await client.put(URL, json={"entries": {"PNG": "ping"}})
    stored = await client.put(URL, json={"entries": {"GIF": "jif"}})
    assert (stored.status_code, stored.json()) == (200, {"entries": {"GIF": "jif"}})
    assert (await client.get(URL)).json() == {"entries": {"GIF": "jif"}}
    assert (await client.delete(URL)).json() == {"object": "lexicon", "deleted": True}
    assert (await client.get(URL)).json() == {"entries": {}}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, "entries"),
        ({"entries": {"GIF": 5}}, "entries"),
        ({"entries": {"GIF": "jif"}, "word": "x"}, "word"),
        ({"entries": {"GIF": ""}}, "entries has the entry 'GIF', whose spelling has 0 characters"),
        ({"entries": {str(n): "x" for n in range(1001)}}, "entries has 1001 entries, at most 1000 are taken"),
    ],
)
async def test_a_wrong_lexicon_is_refused(body, says):
    """And what was stored stays."""
    client = LocalService().client
    await client.put(URL, json={"entries": {"PNG": "ping"}})
    answer = await client.put(URL, json=body)
    assert (400 <= answer.status_code < 500, says in answer.json()["error"]["message"]) == (True, True)
    assert (await client.get(URL)).json() == {"entries": {"PNG": "ping"}}
