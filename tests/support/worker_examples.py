"""The documented examples of the replaced worker (`tests/golden/worker`): filled in, and their answers judged."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any

from jsonschema import Draft202012Validator

__all__ = ["EXAMPLES", "Answer", "Example", "example"]

FOLDER = Path(__file__).parents[1] / "golden" / "worker"
EXAMPLES = sorted(path.stem for path in FOLDER.glob("*.json"))


@dataclass(frozen=True)
class Answer:
    """What came of an example: status and body of the submitting call, or of `/status` once the job has ended."""

    status: int
    body: Mapping[str, Any]


@dataclass(frozen=True)
class Example:
    """`input` is what goes into RunPod's; `output` a JSON Schema, or `error` what is refused with which words."""

    input: Mapping[str, Any]
    output: Mapping[str, Any] | None
    error: Mapping[str, Any] | None

    def problems(self, answer: Answer) -> list[str]:
        """What is wrong with `answer`; nothing where it is as documented."""
        if self.error is not None:
            told, words = answer.body.get("error"), self.error["words"]
            missing = [word for word in words if word not in str(told)]
            as_wanted = (answer.status, answer.body.get("code")) == (self.error["status"], self.error["code"])
            return [] if isinstance(told, str) and as_wanted and not missing else [str(answer)]
        if (answer.status, answer.body.get("status")) != (200, "COMPLETED"):
            return [str(answer)]
        return [error.message for error in Draft202012Validator(self.output).iter_errors(answer.body["output"])]


def example(name: str, values: Mapping[str, str]) -> Example:
    """The example of this file; `values` has `voice` (its name), `voice_file` and `text_file` (base64) and their
    `..._url`, and the `job_id` of a job that has completed."""
    said = json.loads((FOLDER / f"{name}.json").read_text())
    filled = _filled(said, values)
    return Example(filled["input"], filled.get("output"), filled.get("error"))


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return Template(value).safe_substitute(values) if "${" in value else value
    if isinstance(value, list):
        return [_filled(each, values) for each in value]
    if isinstance(value, dict):
        return {key: _filled(each, values) for key, each in value.items()}
    return value
