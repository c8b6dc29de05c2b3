"""What a request asks for joins what the model has, within ranges, in every dialect alike."""

from collections.abc import Sequence
from concurrent.futures import Future

import pytest

from serve_app.domain import Pcm, Sampling
from serve_app.engine.fake import FakeEngine
from serve_app.engine.protocol import EngineInput
from serve_app.errors import InvalidRequest
from serve_app.parameters import MAX_SEED, RANGES, Defaults, Parameters
from serve_app.settings import F5Settings, PreviewSettings
from tests.support.service import LocalService

OWN = Defaults(Sampling(16, 1.5, 0.5), speed=1.2, cross_fade_s=0.2)


class Listening(FakeEngine):
    """Keeps the whole inputs of its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.inputs: list[EngineInput] = []

    def synthesize(self, items: Sequence[EngineInput]) -> list[Future[Pcm]]:
        self.inputs += items
        return super().synthesize(items)


def test_what_is_missing_is_the_models_own() -> None:
    """Each field alone replaces the model's, and none of the others."""
    assert Parameters().joined("f5", OWN) == OWN
    assert Parameters(nfe_steps=7).joined("f5", OWN).sampling == Sampling(7, 1.5, 0.5)
    assert Parameters(cfg_strength=0.0, sway=-1.0).joined("f5", OWN).sampling == Sampling(16, 0.0, -1.0)
    assert Parameters(speed=2.0).joined("f5", OWN) == Defaults(OWN.sampling, 2.0, 0.2)
    assert Parameters(cross_fade_s=0.0).joined("f5", OWN) == Defaults(OWN.sampling, 1.2, 0.0)


@pytest.mark.parametrize("name", RANGES)
def test_ranges_have_ends(name: str) -> None:
    """Both ends are taken, what is beyond them or no number is refused with the field, the value and the range."""
    low, high = RANGES[name]
    for value in (low, high):
        Parameters(**{name: value}).joined("f5", OWN)
    for value in (low - 1, high + 1, float("nan")):
        with pytest.raises(InvalidRequest, match=rf"{name} is {value}: send .*number from {low} to {high}"):
            Parameters(**{name: value}).joined("f5", OWN)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1])
def test_seeds_have_ends(seed: int) -> None:
    """A seed is 31 bits."""
    with pytest.raises(InvalidRequest, match=f"seed is {seed}: send a whole number from 0 to 2147483647"):
        Parameters(seed=seed).joined("f5", OWN)


def test_a_model_that_does_not_sample_has_no_such_parameters() -> None:
    """They are refused, not dropped in silence; speed and cross-fade it has."""
    for name in ("nfe_steps", "cfg_strength", "sway"):
        value = RANGES[name][1]
        with pytest.raises(
            InvalidRequest, match=rf"{name} is {value}, but model 'preview' does not sample.*leave it out"
        ):
            Parameters(**{name: value}).joined("preview", Defaults())
    assert Parameters(speed=2.0, cross_fade_s=0.5).joined("preview", Defaults()) == Defaults(None, 2.0, 0.5)


@pytest.mark.parametrize("path", ["/v1/audio/speech", "/runsync"])
async def test_parameters_reach_the_engine(path: str) -> None:
    """In both dialects: what is asked for, and for the rest the model's own."""
    service = LocalService(engine=Listening())
    asked = {"model": "f5", "nfe_steps": 7, "cfg_strength": 3.0, "speed": 0.5, "seed": 1}
    body = {"input": "Hi.", **asked} if path.startswith("/v1") else {"input": {"text": "Hi.", **asked}}
    answer = await service.client.post(path, json=body)
    assert answer.status_code == 200
    unit = service.engine.inputs[0].unit
    assert (unit.sampling, unit.speed) == (Sampling(7, 3.0, -1.0), 0.5)


async def test_a_preview_request_samples_nothing() -> None:
    """Its units say so, and a request that asks for steps is refused before anything is spoken."""
    service = LocalService(engine=Listening())
    body = {"input": "Hi.", "model": "preview"}
    assert (await service.client.post("/v1/audio/speech", json=body)).status_code == 200
    assert service.engine.inputs[0].unit.sampling is None
    refused = await service.client.post("/v1/audio/speech", json=body | {"nfe_steps": 16})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "invalid_request")
    job = await service.client.post("/run", json={"input": {"text": "Hi.", "model": "preview", "sway": -1}})
    assert (job.status_code, job.json()["code"]) == (400, "invalid_request")
    assert len(service.engine.inputs) == 1


async def test_the_cross_fade_is_the_requests() -> None:
    """Units that overlap by half a second are half a second shorter each, but for the first."""
    service = LocalService()
    text = "One sentence of words. " * 20

    async def seconds(cross_fade_s: float) -> float:
        body = {"input": text, "model": "f5", "cross_fade_s": cross_fade_s}
        answer = await service.client.post("/v1/audio/speech", json=body)
        return float(answer.headers["x-audio-seconds"])

    joined, faded = await seconds(0.0), await seconds(0.5)
    units = len([text for call in service.engine.calls for text in call]) // 2
    assert units == 3
    assert joined - faded == pytest.approx(2 * 0.5, abs=0.001)


async def test_models_tell_their_parameters() -> None:
    """What may be set, with the values that hold where it is not."""
    models = {each["id"]: each for each in (await LocalService().client.get("/v1/models")).json()["data"]}
    assert models["preview"]["parameters"] == {"speed": 1.0, "cross_fade_s": 0.0}
    assert models["f5"]["parameters"] == {
        "nfe_steps": 16, "cfg_strength": 2.0, "sway": -1.0, "speed": 1.0, "cross_fade_s": 0.15,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("key", "value"), [("nfe_steps", 3), ("nfe_steps", 65), ("cfg_strength", 11), ("sway", 2), ("speed", 5)]
)
def test_a_models_own_parameters_have_the_same_ranges(key: str, value: float) -> None:
    """deploy.yaml cannot set what a request could not ask for."""
    with pytest.raises(ValueError, match=key):
        F5Settings.model_validate({key: value})


def test_a_models_own_parameters_are_upstreams() -> None:
    """Where deploy.yaml says nothing."""
    f5, preview = F5Settings(), PreviewSettings()
    assert (f5.nfe_steps, f5.cfg_strength, f5.sway, f5.speed, f5.cross_fade_s) == (32, 2.0, -1.0, 1.0, 0.15)
    assert (preview.speed, preview.cross_fade_s) == (1.0, 0.01)
