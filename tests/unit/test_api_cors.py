"""Pages from elsewhere, where the operator lets them in."""

from dataclasses import replace

import httpx
import pytest
from pydantic import ValidationError

from serve_app.api import create_app
from serve_app.settings import LOOPBACK_NAMES, BuildArgs
from tests.support.service import LocalService

SPEECH = "/v1/audio/speech"
PAGE = "https://chat.example.com"
ASKED = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


def client_of(*origins: str, allowed_hosts: tuple[str, ...] = LOOPBACK_NAMES) -> tuple[httpx.AsyncClient, LocalService]:
    service = LocalService(cors_origins=origins)
    app = create_app(replace(service.services, allowed_hosts=allowed_hosts))
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1"), service


@pytest.mark.parametrize(("origins", "told"), [((PAGE,), PAGE), (("https://a.example", PAGE), PAGE), (("*",), "*")])
async def test_a_page_of_a_listed_origin_is_let_in(origins, told):
    """Its browser's preflight is answered, and it may read our headers and the body."""
    client, service = client_of(*origins)
    preflight = await client.options(SPEECH, headers={"Origin": PAGE} | ASKED)
    assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, told)
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert {"authorization", "content-type"} <= set(
        preflight.headers["access-control-allow-headers"].lower().replace(" ", "").split(",")
    )
    assert service.engine.calls == []
    answer = await client.post(SPEECH, json={"input": "Hi.", "loudness": -20}, headers={"Origin": PAGE})
    assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (200, told)
    exposed = set(answer.headers["access-control-expose-headers"].lower().replace(" ", "").split(","))
    own = {name for name in answer.headers if name.startswith("x-")}
    assert own >= {"x-model", "x-voice", "x-seed", "x-loudness", "x-request-id"}
    assert own <= exposed
    assert "access-control-allow-credentials" not in answer.headers


async def test_it_reads_refusals_as_well():
    """A wrong request's error, and that of a body which is too large."""
    client, service = client_of(PAGE)
    for body, status in (({"input": ""}, 400), ({"input": "x" * (service.limits.body_bytes + 1)}, 413)):
        answer = await client.post(SPEECH, json=body, headers={"Origin": PAGE})
        assert (answer.status_code, answer.headers["access-control-allow-origin"]) == (status, PAGE)


@pytest.mark.parametrize("origins", [(), (PAGE,)])
@pytest.mark.parametrize(
    "origin", ["https://evil.example", "https://chat.example.com.evil.example", "null", f"{PAGE}:8"]
)
async def test_any_other_page_is_not(origins, origin):
    """403 for the call and its preflight, with no word that would let a browser go on."""
    client, service = client_of(*origins)
    asked = await client.options(SPEECH, headers={"Origin": origin} | ASKED)
    answer = await client.post(SPEECH, json={"input": "Hi."}, headers={"Origin": origin})
    for each in (asked, answer):
        assert (each.status_code, each.json()["error"]["code"]) == (403, "host_refused")
        assert "cors_origins" in each.json()["error"]["message"]
        assert "access-control-allow-origin" not in each.headers
    assert service.engine.calls == []


async def test_a_rebound_name_stays_refused():
    """Whatever origins are let in: the Host is looked at first."""
    client, _ = client_of("*")
    for send in (client.options, client.get):
        answer = await send("/v1/models", headers={"Host": "evil.example", "Origin": "http://evil.example"} | ASKED)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "host_refused")


async def test_own_pages_need_no_entry():
    """/docs calls the service from its own origin."""
    client, _ = client_of(PAGE)
    answer = await client.get("/v1/models", headers={"Origin": "http://127.0.0.1"})
    assert answer.status_code == 200


@pytest.mark.parametrize("origin", ["chat.example.com", "https://chat.example.com/", "https://a.b/c", "", "https://"])
def test_what_is_no_origin_is_refused_at_the_start(origin):
    """No browser would ever send it, so it could let nobody in."""
    with pytest.raises(ValidationError, match="cors_origins"):
        BuildArgs.model_validate({"cors_origins": [origin]})
    assert BuildArgs.model_validate({"cors_origins": [PAGE, "http://localhost:3000", "*"]}).cors_origins[2] == "*"
    assert BuildArgs().cors_origins == ()


async def test_any_name_is_no_any_page():
    """Where pages are named, others are kept out, though the service may be called by any name."""
    client, _ = client_of(PAGE, allowed_hosts=("*",))
    for origin, status in ((PAGE, 200), ("https://evil.example", 403)):
        answer = await client.get("/healthz", headers={"origin": origin, "host": "any.example"})
        assert answer.status_code == status
