"""Asks every node that may run a replica, before the replica is submitted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from serve_app import logs
from serve_app.environments import ModelEnvironment, choose_environment, prepared_problems, wheel_problem
from serve_app.errors import ConfigError
from serve_app.settings import F5Settings

__all__ = ["checked_environment"]

T = TypeVar("T")
ANSWER_TIMEOUT_S = 120.0


def checked_environment(model: F5Settings, environ: dict[str, str]) -> ModelEnvironment:
    """The environment for the replicas of `model`, tried on every live node that could run one.

    A wheel that these cannot install becomes its refusal. Raises ConfigError for a prepared environment that is
    missing or does not match: Ray starts no replica in it, and says nothing.
    """
    chosen = choose_environment(model, environ)
    if chosen.python is not None and chosen.refusal is None:
        found = _on_nodes(prepared_problems, chosen.python, chosen.wheel, chosen.wheel_asked_for, gpus=model.num_gpus)
        if wrong := {node: said for node, said in found.items() if said}:
            node, said = next(iter(wrong.items()))
            raise ConfigError(
                f"model {model.name!r} cannot run in the prepared environment {chosen.python} (node {node}): "
                + "; ".join(said)
            )
    elif chosen.wheel is not None:
        refusals = [said for said in _on_nodes(wheel_problem, chosen.wheel, gpus=model.num_gpus).values() if said]
        if refusals:
            chosen = _refused(chosen, refusals[0])
    logs.event(
        "environment_chosen",
        model=model.name,
        form=chosen.form,
        reason=chosen.reason,
        wheel=chosen.wheel and chosen.wheel.filename,
        refusal=chosen.refusal,
    )
    return chosen


def _refused(chosen: ModelEnvironment, refusal: str) -> ModelEnvironment:
    return ModelEnvironment(chosen.form, chosen.reason, refusal=refusal)


def _on_nodes(function: Callable[..., T], *args: Path | object, gpus: float) -> dict[str, T]:
    """What `function` answers on each live node with GPUs, or on each one for a model without; by node's address."""
    asked = {
        f"{node['NodeManagerAddress']} {node['NodeID'][:8]}": ray.remote(function)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote(*args)
        for node in _live_nodes()
        if not gpus or node["Resources"].get("GPU", 0) > 0
    }
    try:
        answers: list[Any] = ray.get(list(asked.values()), timeout=ANSWER_TIMEOUT_S)
    except RayError as error:
        raise ConfigError(
            f"the environment of f5 could not be checked on {', '.join(asked)} ({type(error).__name__}): see that "
            "these nodes live and answer, then deploy again"
        ) from error
    return dict(zip(asked, answers, strict=True))


def _live_nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]  # Ray's is untyped
