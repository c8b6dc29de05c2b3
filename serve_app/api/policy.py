"""What a client may ask of a job beside the speech: limits of time, priority, a webhook, how long its result is kept.

RunPod's `policy` and `?ttl=` count milliseconds, our own fields seconds. What cannot be kept is refused with 422 before
anything is stored. Knows nothing of HTTP.
"""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import WithJsonSchema

from serve_app.errors import InvalidPolicy, InvalidUrl
from serve_app.fetching import check_form
from serve_app.jobs import RETENTION_S

__all__ = [
    "Flag",
    "JobPolicy",
    "JobPolicyDefaults",
    "Milliseconds",
    "NotTaken",
    "Policy",
    "Retention",
    "Seconds",
    "Url",
    "native_policy",
    "runpod_policy",
    "ttl_s",
]

MIN_S = 1
MAX_S = 7 * 86_400
"""RunPod's: seven days."""
MAX_RETENTION_S = 366 * 86_400
POLICY_KEYS = ("executionTimeout", "lowPriority", "ttl")

Seconds = Annotated[Any, WithJsonSchema({"type": ["number", "null"], "minimum": MIN_S, "maximum": MAX_S})]
Retention = Annotated[Any, WithJsonSchema({"type": ["number", "null"], "minimum": MIN_S, "maximum": MAX_RETENTION_S})]
Flag = Annotated[Any, WithJsonSchema({"type": ["boolean", "null"]})]
Url = Annotated[Any, WithJsonSchema({"type": ["string", "null"], "pattern": r"^https?://[^/@\s]+"})]
Policy = Annotated[
    Any,
    WithJsonSchema(
        {
            "type": ["object", "null"],
            "properties": {
                "executionTimeout": {"type": ["number", "null"], "minimum": 1000 * MIN_S, "maximum": 1000 * MAX_S},
                "lowPriority": {"type": ["boolean", "null"]},
                "ttl": {"type": ["number", "null"], "minimum": 1000 * MIN_S, "maximum": 1000 * MAX_S},
            },
            "additionalProperties": False,
        }
    ),
]
NotTaken = Annotated[Any, WithJsonSchema({"type": "null"})]
"""Types of fields that are checked here and not by the body's model, since a wrong one is a 422."""
Milliseconds = Annotated[
    str, WithJsonSchema({"type": "integer", "minimum": 1000 * MIN_S, "maximum": 1000 * MAX_RETENTION_S})
]
"""Of `?ttl=`, see `ttl_s`."""


@dataclass(frozen=True, slots=True)
class JobPolicyDefaults:
    """For jobs whose client says nothing; see JobsSettings."""

    ttl_s: float = 86_400.0
    retention_s: float = RETENTION_S


@dataclass(frozen=True, slots=True)
class JobPolicy:
    """What a job keeps to; JobRequest says what the fields mean."""

    ttl_s: float
    retention_s: float
    execution_timeout_s: float | None = None
    low_priority: bool = False
    webhook: str | None = None


def runpod_policy(
    policy: object, webhook: object, s3_config: object, ttl: str | None, defaults: JobPolicyDefaults
) -> JobPolicy:
    """`policy`, `webhook` and `s3Config` of RunPod's body, and `?ttl=`. Raises InvalidPolicy, naming the field."""
    if s3_config is not None:
        raise InvalidPolicy(
            "s3Config is not taken: results lie in the service's own bucket (S3_BUCKET, AWS_ENDPOINT_URL and the keys "
            "in its environment), and `audio_url` of the output reads them; leave s3Config out"
        )
    given = {} if policy is None else policy
    if not isinstance(given, dict):
        raise InvalidPolicy(f"policy is {_shown(policy)}: send an object with some of {', '.join(POLICY_KEYS)}")
    if unknown := sorted(set(given) - set(POLICY_KEYS)):
        raise InvalidPolicy(f"policy: {_shown(unknown[0])} is unknown: use some of {', '.join(POLICY_KEYS)}")
    execution_timeout_s = _seconds("policy.executionTimeout", given.get("executionTimeout"), MAX_S, per_s=1000)
    waiting_s = _seconds("policy.ttl", given.get("ttl"), MAX_S, per_s=1000)
    retention_s = ttl_s(ttl)
    return JobPolicy(
        ttl_s=defaults.ttl_s if waiting_s is None else waiting_s,
        retention_s=defaults.retention_s if retention_s is None else retention_s,
        execution_timeout_s=execution_timeout_s,
        low_priority=_flag("policy.lowPriority", given.get("lowPriority")),
        webhook=_url("webhook", webhook),
    )


def native_policy(
    *,
    execution_timeout_s: object,
    ttl_s: object,
    retention_s: object,
    low_priority: object,
    webhook: object,
    defaults: JobPolicyDefaults,
) -> JobPolicy:
    """The fields of our own body. Raises InvalidPolicy, naming the field."""
    waiting_s = _seconds("ttl_s", ttl_s, MAX_S)
    kept_s = _seconds("retention_s", retention_s, MAX_RETENTION_S)
    return JobPolicy(
        ttl_s=defaults.ttl_s if waiting_s is None else waiting_s,
        retention_s=defaults.retention_s if kept_s is None else kept_s,
        execution_timeout_s=_seconds("execution_timeout_s", execution_timeout_s, MAX_S),
        low_priority=_flag("low_priority", low_priority),
        webhook=_url("webhook", webhook),
    )


def ttl_s(ttl: str | None) -> float | None:
    """Seconds of `?ttl=`, which counts milliseconds. Raises InvalidPolicy."""
    value = int(ttl) if ttl is not None and ttl.isdecimal() and len(ttl) < 20 else ttl
    return _seconds("ttl", value, MAX_RETENTION_S, per_s=1000)


def _seconds(field: str, value: object, most_s: int, *, per_s: int = 1) -> float | None:
    low, high = MIN_S * per_s, most_s * per_s
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        unit = "milliseconds" if per_s == 1000 else "seconds"
        raise InvalidPolicy(f"{field} is {_shown(value)}: send {unit}, from {low} to {high}, or leave it out")
    return value / per_s


def _flag(field: str, value: object) -> bool:
    if value is not None and not isinstance(value, bool):
        raise InvalidPolicy(f"{field} is {_shown(value)}: send true or false, or leave it out")
    return bool(value)


def _url(field: str, value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidPolicy(f"{field} is {_shown(value)}: send an http:// or https:// URL, or leave it out")
    try:
        check_form(value, field)
    except InvalidUrl as error:
        raise InvalidPolicy(error.message) from error
    return value


def _shown(value: object) -> str:
    return repr(value)[:60]
