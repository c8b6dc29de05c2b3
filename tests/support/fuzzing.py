"""The service in one process, and requests to it that schemathesis makes of its own OpenAPI document: no sockets.

LocalService -> app.openapi(), RunPod's paths once more under /v2 -> schemathesis -> Fuzzed.send
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import cycle
from typing import Any

import hypothesis
import requests
import schemathesis
from schemathesis import APIOperation, Case, GenerationMode
from schemathesis.core import NotSet
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import CoveragePhaseData, CoverageScenario, TestPhase
from schemathesis.python import asgi

from tests.support.service import LocalService
from tests.support.uploads import sample

__all__ = ["Fuzzed", "document", "labels"]

BASE_URL = "http://127.0.0.1"
V2 = "/v2/any"
VOICE, MODEL = "anna", "f5"
NEW = "berta"
FILES = {"audio_sample": sample(), "files": [sample()]}
KNOWN = dict.fromkeys(("model", "model_id"), MODEL) | dict.fromkeys(("voice", "local_voice", "voice_id"), VOICE)
URLS = {"https://example.com/anna.wav": sample(), "https://example.com/anna.txt": b"Hello there."}
KEY = "idempotency-key"
MISSING = "01926f0e-5b7a-7c3d-8e4f-ba9876543210"


def document() -> dict[str, Any]:
    """The app's OpenAPI document, with the paths that it leaves out since they are others' under a prefix."""
    found: dict[str, Any] = LocalService().app.openapi()
    for path, operations in dict(found["paths"]).items():
        if any("RunPod" in operation["tags"] for operation in operations.values()):
            found["paths"][V2 + path] = operations
    return found


def labels(found: dict[str, Any]) -> list[str]:
    """Of all operations, as in `GET /health`."""
    return [f"{method.upper()} {path}" for path, operations in found["paths"].items() for method in operations]


class Fuzzed:
    """One operation of a service of its own, in which there are a voice, and a job that has been spoken."""

    def __init__(self, found: dict[str, Any], label: str) -> None:
        self.service = LocalService(web=dict(URLS))
        schema = schemathesis.openapi.from_dict(found)
        self.operation: APIOperation[Any, Any, Any, Any] = next(
            each for result in schema.get_all_operations() if (each := result.ok()).label == label
        )
        self.client: requests.Session = asgi.get_client(self.service.app)
        self.voice = self._made("/v1/audio/voices", data={"name": VOICE, "ref_text": "Hello."}, files=_recording())
        self.job_id: str = self._made("/runsync", json={"input": {"text": "It has been spoken."}})["id"]
        assert self._made("/runsync", json={"input": {"text": "It has been spoken."}})["status"] == "COMPLETED"
        self._ids = cycle([self.job_id, MISSING])

    def _made(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self.client.post(f"{BASE_URL}{path}", **body)
        assert answer.ok, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def cases(self, mode: GenerationMode) -> Iterator[Case]:
        """Each field wrong (or right, at its limits) in each way that its schema tells, one at a time."""
        schema = self.operation.schema
        config = schema.config.generation_for(operation=self.operation)
        for case in schema.iter_coverage_cases(self.operation, generation_modes=[mode], generation_config=config):
            yield self._in_this_world(case)

    def drawn(self, mode: GenerationMode, examples: int, check: Callable[[Case], None]) -> None:
        """`check` so many drawn cases, always the same ones. None where the operation has nothing to draw."""
        run = hypothesis.given(case=self.operation.as_strategy(generation_mode=mode))(
            lambda case: check(self._in_this_world(case))
        )
        bounded = hypothesis.settings(
            max_examples=examples,
            derandomize=True,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )(run)
        with suppress(hypothesis.errors.Unsatisfiable):  # nothing can be wrong
            bounded()

    def send(self, case: Case) -> schemathesis.Response:
        """What the service answers."""
        return case.call(session=self.client, base_url=BASE_URL)

    def _in_this_world(self, case: Case) -> Case:
        """`case` with names of what is there, where they are not what is wrong with it."""
        parameter = None if case.meta is None else case.meta.phase.data.parameter
        for name, known in {"job_id": next(self._ids), "voice_id": VOICE, "name": self._named(case)}.items():
            if name in case.path_parameters and parameter != name:
                case.path_parameters[name] = known
        if case.meta and case.meta.phase.data.parameter_location is ParameterLocation.BODY:
            case.query.clear()  # which schemathesis has wrong, too
        if parameter != KEY:
            case.headers.pop(KEY, None)  # each would be the same key with another body
        if isinstance(case.body, dict) and not _drawn_wrong(case):
            _known_names(case.body, fields_of(case))
        return case

    @staticmethod
    def _named(case: Case) -> str:
        return MODEL if "/models/" in case.path else VOICE


def fields_of(case: Case) -> list[str]:
    """What is wrong with a case of `Fuzzed.cases`: the field's name, and those of the objects that it lies in; []
    where it is the request as a whole."""
    data = case.meta.phase.data if case.meta else None
    if not isinstance(data, CoveragePhaseData) or data.scenario is CoverageScenario.UNSPECIFIED_HTTP_METHOD:
        return []
    return [name.split("/")[0] for name in (data.location or "").split("/properties/")[1:]]


def _known_names(body: dict[str, Any], wrong: list[str]) -> None:
    """Names in `body`, and in what lies in it, of what is there; and a recording where there is to be one."""
    for name, value in body.items():
        if isinstance(value, dict):
            _known_names(value, wrong)
        elif name in FILES and name not in wrong:
            body[name] = FILES[name]
        elif name == "name" and value == "" and name not in wrong:
            body[name] = NEW
        elif name in KNOWN and name not in wrong and value is not None:
            body[name] = KNOWN[name]


def _drawn_wrong(case: Case) -> bool:
    meta = case.meta
    return meta is not None and meta.generation.mode is GenerationMode.NEGATIVE and meta.phase.name is TestPhase.FUZZING


def has_body(case: Case) -> bool:
    """Whether anything is sent in it."""
    return not isinstance(case.body, NotSet)


def _recording() -> dict[str, Any]:
    return {"audio_sample": ("a.wav", sample())}
