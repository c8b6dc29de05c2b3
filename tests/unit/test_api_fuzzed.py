"""Every route of every dialect, with all that schemathesis makes of the service's own OpenAPI document.

What is wrong is a 4xx in the form that the document promises, and nothing is ever a 5xx. A route that is added is
fuzzed without a word here.
"""

from collections import Counter
from typing import Any

import jsonschema
import pytest
from schemathesis import Case, GenerationMode, Response
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.meta import CoverageScenario

from tests.support.fuzzing import Fuzzed, document, fields_of, has_body, labels

DOCUMENT = document()
DRAWN = 20
NEVER_TAKEN = {
    "GET /files/{key}",  # nobody draws a signature
    "POST /v1/jobs/{job_id}/retry",
    *(f"POST {prefix}/retry/{{job_id}}" for prefix in ("", "/v2/any")),  # of a job that has been spoken
}
FIELDS = {"type", "code", "message", "request_id"}
PLACES = {
    "OpenAI": "error",
    "jobs": "error",
    "lexicon": "error",
    "service": "error",
    "RunPod": None,
    "ElevenLabs": "detail",
}
"""Of the four fields in the body of a refusal, by the tag of the dialect."""


@pytest.mark.parametrize("label", labels(DOCUMENT))
def test_what_is_wrong_is_refused_in_the_dialects_own_form(label: str):
    """Each field wrong in each way, one at a time, and many at once: a 4xx that names the field."""
    fuzzed = Fuzzed(DOCUMENT, label)
    taken: list[str] = []

    def check(case: Case) -> None:
        answer = fuzzed.send(case)
        told = is_told(fuzzed, case, answer)
        if answer.status_code < 400 and not is_right_after_all(case):
            taken.append(f"{answer.status_code} {shown(case)}")
        if told and (names := fields_of(case)) and not any(name in told["message"] for name in names):
            taken.append(f"{names} not in {told['message']!r}: {shown(case)}")

    for case in fuzzed.cases(GenerationMode.NEGATIVE):
        check(case)
    fuzzed.drawn(GenerationMode.NEGATIVE, DRAWN, check)
    assert taken == []


@pytest.mark.parametrize("label", labels(DOCUMENT))
def test_what_is_right_is_answered(label: str):
    """Nothing that the document allows is a 5xx, and whatever is refused is refused with its reason."""
    fuzzed = Fuzzed(DOCUMENT, label)
    statuses: Counter[int] = Counter()

    def check(case: Case) -> None:
        answer = fuzzed.send(case)
        is_told(fuzzed, case, answer)
        statuses[answer.status_code] += 1

    for case in fuzzed.cases(GenerationMode.POSITIVE):
        check(case)
    fuzzed.drawn(GenerationMode.POSITIVE, DRAWN, check)
    assert min(statuses) < 400 or label in NEVER_TAKEN


def is_told(fuzzed: Fuzzed, case: Case, answer: Response) -> dict[str, Any] | None:
    """The four fields of a refusal, in the form that the document has for it; None for what is no refusal."""
    assert answer.status_code < 500, f"{answer.status_code} {shown(case)}: {answer.text[:500]}"
    if answer.status_code < 400 or case.method == "HEAD":
        return None
    body = answer.json()
    schema = DOCUMENT["paths"][fuzzed.operation.path][fuzzed.operation.method.lower()]["responses"]["4XX"]
    form = schema["content"]["application/json"]["schema"]
    jsonschema.validate(body, form | {"components": DOCUMENT["components"]})
    told = body if (place := PLACES[tag_of(case)]) is None else body[place]
    assert set(told) >= FIELDS
    assert all(isinstance(told[name], str) and told[name] for name in FIELDS), told
    assert told["request_id"] == answer.headers["x-request-id"][0]
    assert len(told["message"]) < 2000
    return told


def is_right_after_all(case: Case) -> bool:
    """Whether a case that is called wrong is none, since nobody looks at what is wrong with it, or it is not sent."""
    assert case.meta is not None
    data = case.meta.phase.data
    scenario = getattr(data, "scenario", None)
    if scenario is CoverageScenario.MALFORMED_CONTENT_TYPE and not has_body(case):
        return True
    if scenario is CoverageScenario.INCORRECT_TYPE and case.media_type == "multipart/form-data":
        return case.body[fields_of(case)[-1]] == 0  # "0" is a form's way to say false
    if data.parameter_location is not ParameterLocation.QUERY:
        return False
    named = [each.definition["schema"] for each in case.operation.query if each.name == data.parameter]
    texts = any("array" in (each.get("type") for each in (schema, *schema.get("anyOf", ()))) for schema in named)
    return texts or [] in case.query.values() or is_lenient(case)  # of an empty list nothing is sent


def is_lenient(case: Case) -> bool:
    """Whether the dialect's own service takes parameters that it does not know: its clients send what they like."""
    return tag_of(case) == "ElevenLabs"


def tag_of(case: Case) -> str:
    (tag,) = case.operation.tags or ()
    return tag


def shown(case: Case) -> str:
    assert case.meta is not None
    what = case.meta.phase.data.description
    sent = f"{case.path_parameters} {case.query} {dict(case.headers)} {case.body!r}"
    return f"{case.method} {case.path} ({what}): {sent[:400]}"
