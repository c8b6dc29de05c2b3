"""The Serve shell of the job runner."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from serve_app import logs
from serve_app.api.job_forms import job_form
from serve_app.deployments.handles import SynthesizerHandle
from serve_app.deployments.priority import work_behind_the_ingress
from serve_app.deployments.threads import wait_in_threads
from serve_app.deployments.voice_cache import VoiceCacheArgs
from serve_app.job_runner import JobRunner, RunnerSettings
from serve_app.job_webhooks import Webhooks, WebhookSettings
from serve_app.jobs import JobStatus, JobStore, parse_marker
from serve_app.models import speaking
from serve_app.settings import BuildArgs, ModelSettings
from serve_app.speech import Speaker
from serve_app.storage import ObjectStore
from serve_app.store_clock import StoreClock
from serve_app.webhooks import WebhookSender

__all__ = ["STOP_LOOK_S", "Jobs", "speaker_for", "stop_times"]


STOP_MARGIN_S = 10.0
"""Before Serve's own patience ends, jobs are stopped in an orderly way."""
WAIT_S = 5.0
"""Longest that a call is open here. Serve tells a replica that it is stopped only when no call is open any more, and
its patience runs out meanwhile (2.60: `_drain_ongoing_requests`, then `__del__`)."""
STOP_LOOK_S = 0.5
"""How often Serve looks then whether one is open, instead of every 2 s."""


def stop_times(patience_s: float) -> tuple[float, float]:
    """Seconds that a call may be open, and seconds that running jobs have once `__del__` is called: so they are let go
    STOP_MARGIN_S before Serve kills the replica, which is `patience_s` after the stop began."""
    wait_s = min(WAIT_S, patience_s / 4)
    return wait_s, max(0.0, patience_s - STOP_LOOK_S - wait_s - STOP_MARGIN_S)


class Jobs:
    """One replica runs a bounded number of jobs; the rest wait in the store."""

    def __init__(
        self,
        args: BuildArgs,
        models: tuple[ModelSettings, ...],
        store: ObjectStore,
        voices: VoiceCacheArgs,
        synthesizers: Mapping[str, DeploymentHandle[Any]],
        exclusive: bool,
        sender: WebhookSender,
    ) -> None:
        logs.configure(args.log_level)
        work_behind_the_ingress()
        wait_in_threads()
        self._wait_s, self._drain_s = stop_times(args.jobs.graceful_shutdown_timeout_s)
        settings = RunnerSettings(
            replica_id=serve.get_replica_context().replica_id.unique_id,
            max_running_jobs=args.jobs.max_running_jobs,
            max_runs=args.jobs.max_runs,
            heartbeat_s=args.jobs.heartbeat_s,
            dead_after_s=args.jobs.dead_after_s,
            sweep_s=args.jobs.sweep_s,
            watch_s=args.jobs.watch_s,
            collect_s=args.jobs.collect_s,
            execution_timeout_s=args.jobs.execution_timeout_s,
            execution_per_audio=args.jobs.execution_per_audio,
        )
        speaker = speaker_for(models, store, voices, synthesizers)
        clock = StoreClock()
        webhooks = Webhooks(
            store,
            JobStore(store, exclusive=exclusive, wall_clock=clock),
            sender,
            partial(_body_of, store, args.limits.url_expiry_s),
            WebhookSettings(args.jobs.webhook_attempts, args.jobs.webhook_pause_s),
            wall_clock=clock,
        )
        self._runner = JobRunner(
            store, speaker.speak, settings, exclusive=exclusive, webhooks=webhooks, store_clock=clock
        )
        self._background = asyncio.create_task(self._runner.serve())

    async def start_named(self, names: Sequence[str]) -> None:
        """Run the jobs of these markers as far as there is room here; the others wait for their turn."""
        for name in names:
            if marker := parse_marker(name):
                await self._runner.start(marker)

    async def run_named(self, name: str) -> None:
        """Start the job of this marker and return when this replica is done with it, or after a few seconds: whoever
        waits for its end looks into the store from then on."""
        if marker := parse_marker(name):
            await self._runner.start(marker)
            await self._runner.wait(marker.ref, self._wait_s)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """What QueuedAudioPolicy counts; Serve asks for it every few seconds."""
        return self._runner.audio_waiting()

    async def check_health(self) -> None:
        """A replica whose heartbeat has stopped must not live on."""
        if self._background.done():
            self._background.result()

    async def __del__(self) -> None:
        await self._runner.close(self._drain_s)  # the heartbeat goes on until the last job has ended
        self._background.cancel()
        await asyncio.to_thread(self._runner.retire)


def _body_of(store: ObjectStore, url_expiry_s: int, status: JobStatus) -> Mapping[str, Any]:
    """What /status would answer, with URLs that begin as the client's did."""

    def url(key: str, filename: str) -> str:
        made = store.url(key, expires_s=url_expiry_s, filename=filename)
        return made if "://" in made else f"{(status.request.base_url or '').rstrip('/')}{made}"

    return job_form(status, url)


def speaker_for(
    models: tuple[ModelSettings, ...],
    store: ObjectStore,
    voices: VoiceCacheArgs,
    synthesizers: Mapping[str, DeploymentHandle[Any]],
) -> Speaker:
    """A Speaker that reaches every model's replicas through its handle."""
    speaking_models = {
        model.name: speaking(model, SynthesizerHandle(synthesizers[model.name], model.name, model.retry_after_s))
        for model in models
    }
    return Speaker(speaking_models, voices.client(store))
