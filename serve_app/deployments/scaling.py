"""How many Jobs replicas there should be: by the speech that waits and runs, not by open requests.

    replicas: {unended_audio_s, running_audio_s} -> controller: QueuedAudioPolicy -> Ray: delays, bounds -> replicas

A job is answered before it is run, so what Serve counts says nothing about it. Ray pickles this module by value and
calls the policy in its controller, where the service may not be installed: nothing of `serve_app` is imported here.
An error here would stop the controller's updates of every application, so no report can cause one.
"""

import math
from typing import Any

from ray.serve.config import AutoscalingContext

__all__ = ["QueuedAudioPolicy"]


class QueuedAudioPolicy:
    """One replica for each `target_audio_s` seconds of speech.

    Each replica reports `unended_audio_s`, its view of all jobs of the service that wait or run, and
    `running_audio_s`, its own running jobs, which count as `target_audio_s` at most: more replicas would not end them
    sooner. Ray applies delays, factors, `min_replicas` and `max_replicas` to the answer.
    """

    def __init__(self, target_audio_s: float) -> None:
        self._target_audio_s = target_audio_s

    def __call__(self, ctx: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The replicas wanted, and no state of our own."""
        wake = 1 if ctx.total_num_requests > 0 else 0  # a call that waits at a handle, for there is no replica
        unended, running = _latest(ctx, "unended_audio_s"), _latest(ctx, "running_audio_s")
        if not unended or not running:
            return max(ctx.target_num_replicas, wake), {}  # nothing is known yet
        waiting_s = max(0.0, max(unended.values()) - sum(running.values()))
        audio_s = waiting_s + sum(min(each, self._target_audio_s) for each in running.values())
        # One that has not reported may be running jobs: it is kept until it says that it is not.
        busy = sum(running.get(replica, math.inf) > 0 for replica in ctx.running_replicas)
        return max(math.ceil(audio_s / self._target_audio_s), busy, wake), {}


def _latest(ctx: AutoscalingContext, metric: str) -> dict[Any, float]:
    """The newest value by replica. Ray's own aggregate is a mean over the look-back period, so that it lags."""
    series = (ctx.raw_metrics or {}).get(metric, {})
    newest = {replica: points[-1].value for replica, points in series.items() if points}
    return {replica: value for replica, value in newest.items() if math.isfinite(value)}
