"""What the OpenAPI document shows as an example works as it stands."""

import json
import re
from typing import Any

import pytest
import yaml

from serve_app.api.examples import JOB_ID
from tests.support.fuzzing import URLS, VOICE
from tests.support.running import ROOT
from tests.support.service import LocalService
from tests.support.uploads import sample, upload

DOCUMENT: dict[str, Any] = LocalService().app.openapi()
BODIES = [
    (method, path, kind, content)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
    for kind, content in operation.get("requestBody", {}).get("content", {}).items()
]
ALIASES = yaml.safe_load((ROOT / "deploy.yaml").read_text())["applications"][0]["args"]["aliases"]["models"]
PARAMETER = re.compile(r"\{(\w+)\}")


def schema_of(content: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = content["schema"]
    return DOCUMENT["components"]["schemas"][found["$ref"].rpartition("/")[2]] if "$ref" in found else found


def examples_of(content: dict[str, Any]) -> list[Any]:
    named = [each["value"] for each in content.get("examples", {}).values()]
    return [*named, *([content["example"]] if "example" in content else []), *schema_of(content).get("examples", [])]


EXAMPLES = [
    pytest.param(method, path, kind, content, example, id=f"{method} {path} {at}")
    for method, path, kind, content in BODIES
    for at, example in enumerate(examples_of(content))
]


@pytest.mark.parametrize(("path", "content"), [(path, content) for _, path, _, content in BODIES])
def test_every_body_has_an_example(path: str, content: dict[str, Any]):
    """Of each dialect, where somebody looks for how to ask."""
    assert examples_of(content) != []


@pytest.mark.parametrize(("method", "path", "kind", "content", "example"), EXAMPLES)
async def test_every_example_is_taken(method: str, path: str, kind: str, content: dict[str, Any], example: Any):
    """With a voice, and a job that has been spoken, in place of those that it names."""
    service = LocalService(web=dict(URLS), model_aliases=ALIASES)
    assert (await upload(service, VOICE)).status_code == 201
    spoken = (await service.client.post("/runsync", json={"input": {"text": "It has been spoken."}})).json()
    url = PARAMETER.sub(lambda found: spoken["id"] if found[1] == "job_id" else VOICE, path)
    answer = await service.client.request(method, url, **sent(kind, content, example, spoken["id"]))
    assert answer.status_code < 300, answer.text


def sent(kind: str, content: dict[str, Any], example: Any, job_id: str) -> dict[str, Any]:
    if kind == "application/json":
        return {"json": json.loads(json.dumps(example).replace(JOB_ID, job_id))}
    properties = schema_of(content)["properties"]
    files = {name: ("a.wav", sample()) for name, told in properties.items() if is_file(told) and name in example}
    return {"data": {name: value for name, value in example.items() if name not in files}, "files": files}


def is_file(told: dict[str, Any]) -> bool:
    told = told.get("items", told)
    return told.get("format") == "binary" or "contentMediaType" in told


async def test_the_document_is_served_with_the_errors_that_are_sent():
    """No operation promises the framework's own form of an error, and each tells one."""
    service = LocalService()
    served = (await service.client.get("/openapi.json")).raise_for_status().json()
    assert "HTTPValidationError" not in json.dumps(served)
    told = [
        operation["responses"]["4XX"]["content"]["application/json"]["schema"]["$ref"]
        for operations in served["paths"].values()
        for operation in operations.values()
    ]
    names = {ref.rpartition("/")[2] for ref in told}
    assert names >= {"OpenAIError", "RunPodError", "jobsError", "serviceError"}
    flat = served["components"]["schemas"]["RunPodError"]
    assert flat["required"] == ["error", "type", "code", "message", "request_id"]
