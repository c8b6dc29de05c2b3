"""The builder that deploy.yaml names: the only place where classes become deployments.

    deploy.yaml args -> BuildArgs -> store probed -> models chosen -> Ingress <- Jobs <- one Synthesizer per model

Runs in a Serve task on the cluster, so a ConfigError or a refused store ends in DEPLOY_FAILED with its message.
Never imports torch or an engine.
"""

import base64
import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, BackpressureConfig
from ray.serve.deployment import Deployment

from serve_app import keys, logs
from serve_app.deployments.ingress import Ingress, catalog_of
from serve_app.deployments.jobs import STOP_LOOK_S, Jobs
from serve_app.deployments.nodes import checked_environment
from serve_app.deployments.scaling import QueuedAudioPolicy
from serve_app.deployments.synthesizer import RefusedSynthesizer, Synthesizer
from serve_app.deployments.voice_cache import VoiceCacheArgs
from serve_app.environments import ModelEnvironment
from serve_app.errors import ConfigError, ObjectNotFound, StorageMisconfigured
from serve_app.preparation import RecordingPreparer
from serve_app.settings import (
    BuildArgs,
    F5Settings,
    IngressSettings,
    JobsSettings,
    ModelSettings,
    PreviewSettings,
    ScaleSettings,
    StoreSettings,
    WebhookSecret,
)
from serve_app.storage import (
    ConditionalStore,
    DirectoryStore,
    ObjectStore,
    UrlSigner,
    conditions_hold,
    probe,
    s3_store,
)
from serve_app.webhooks import WebhookSender, secret_of

__all__ = ["build", "choose_models", "jobs_deployment", "open_store"]


MODEL_ATTEMPTS = 20
"""Serve gives a deployment up for good after so many replicas that did not start, or were lost before an update was
done, and after three for each wanted one if that is less (see the launcher, which itself waits for two). Enough for
nodes that die meanwhile; not so many that a wheel which cannot be installed is fetched for ever."""
ATTEMPTS = 1000
"""Of Ingress and Jobs, which have nothing to load."""


def build(args: BuildArgs) -> Application:
    """The application. Raises ConfigError or a StorageError whose message says what to change."""
    logs.configure(args.log_level)
    store_settings = StoreSettings.from_environment(os.environ)
    store, signer = open_store(store_settings)
    probe(store)
    exclusive = conditions_hold(store)
    logs.event("store_probed", conditional_writes=exclusive)
    models = choose_models(args, gpus=_cluster_gpus())
    catalog_of(args, models)  # wrong names must fail here, not in a replica
    environments = {m.name: checked_environment(m, dict(os.environ)) for m in models if isinstance(m, F5Settings)}
    voices = VoiceCacheArgs(_identity(store_settings), args.voice_cache_bytes, RecordingPreparer(args.transcriber))
    synthesizers = {
        model.name: _synthesizer(model, environments.get(model.name), (store, voices, args.log_level))
        for model in models
    }
    secret = _webhook_secret(store, WebhookSecret.from_environment(os.environ), exclusive)
    sender = WebhookSender(secret, args.jobs.webhook_timeout_s, args.url_addresses)
    jobs = jobs_deployment(Jobs, args.jobs).bind(args, models, store, voices, synthesizers, exclusive, sender)
    ingress = _deployment(serve.ingress()(Ingress), "Ingress", args.ingress)
    return ingress.bind(args, models, store, signer, voices, synthesizers, jobs, exclusive)


def _synthesizer(model: ModelSettings, environment: ModelEnvironment | None, parts: tuple[Any, ...]) -> Application:
    """The deployment of a model: alone in having a runtime_env, or failing with the reason why it can have none."""
    if environment is None:
        return _deployment(Synthesizer, model.name, model).bind(model, *parts)
    if environment.refusal is not None:
        at_once = ScaleSettings(num_cpus=0)  # one replica, on any node: no GPU is waited for only to refuse it
        return _deployment(RefusedSynthesizer, model.name, at_once).bind(model, environment.refusal)
    return _deployment(Synthesizer, model.name, model, environment.runtime_env).bind(model, *parts)


def jobs_deployment(cls: type[Any], settings: JobsSettings) -> Deployment:
    """Scaled by what waits in the store, for an accepted job is no open request."""
    policy = AutoscalingPolicy(  # type: ignore[no-untyped-call]  # Ray's is untyped
        policy_function=QueuedAudioPolicy, policy_kwargs={"target_audio_s": settings.target_audio_s}
    )
    return _deployment(cls, "Jobs", settings, policy=policy).options(graceful_shutdown_wait_loop_s=STOP_LOOK_S)


def choose_models(args: BuildArgs, gpus: float) -> tuple[ModelSettings, ...]:
    """The models to deploy: those listed, or for `auto` preview, and f5 where the cluster has a GPU now."""
    if args.models != "auto":
        return args.models
    return (PreviewSettings(), F5Settings()) if gpus >= 1 else (PreviewSettings(),)


def open_store(settings: StoreSettings) -> tuple[ObjectStore, UrlSigner | None]:
    """S3 where a bucket is set, else a directory, with the signer of the URLs that the ingress then serves.

    Raises ConfigError for a directory store on a cluster of more than one node.
    """
    if settings.bucket:
        return s3_store(settings), None
    nodes = _live_nodes()
    if nodes > 1:
        raise ConfigError(
            f"S3_BUCKET is not set and the cluster has {nodes} nodes: the directory {settings.data_dir} is this node's "
            "alone, so the others would not see its voices and jobs; set S3_BUCKET"
        )
    signer = UrlSigner(_signing_key(settings.data_dir / ".url-signing-key"))
    return DirectoryStore(settings.data_dir, signer), signer


def _signing_key(path: Path) -> bytes:
    """The key beside the data, made at the first start, so that URLs outlive a restart."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            fresh = path.with_name(f".{secrets.token_hex(8)}.tmp")
            fresh.touch(mode=0o600)
            fresh.write_bytes(secrets.token_bytes(32))
            fresh.replace(path)
        return path.read_bytes()
    except OSError as error:
        raise StorageMisconfigured(
            f"DATA_DIR {str(path.parent)!r} cannot be used ({error.strerror}): set it to a directory that is writable"
        ) from error


def _webhook_secret(store: ObjectStore, settings: WebhookSecret, exclusive: bool) -> bytes:
    """The one that is set, or one made at the first start and kept in the store, where the operator reads it."""
    if settings.secret is not None:
        return secret_of(settings.secret.get_secret_value())
    key = keys.webhook_secret()
    try:
        return secret_of(store.get(key).body.decode())
    except ObjectNotFound:
        made = f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}".encode()
        if exclusive and isinstance(store, ConditionalStore):
            store.put_new(key, made, content_type="text/plain")  # of two that start at once one is first
        else:
            store.put(key, made, content_type="text/plain")
        return secret_of(store.get(key).body.decode())


def _identity(settings: StoreSettings) -> str:
    """Tells one store, and the right to read it, from another, so that a cache actor is never shared between two."""
    secret = settings.secret_access_key.get_secret_value() if settings.secret_access_key else ""
    parts = (settings.endpoint_url, settings.region, settings.bucket, settings.access_key_id, secret, settings.data_dir)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _cluster_gpus() -> float:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # Ray's is untyped
    return resources.get("GPU", 0.0)


def _live_nodes() -> int:
    return sum(bool(node["Alive"]) for node in ray.nodes())  # type: ignore[no-untyped-call]  # Ray's is untyped


def _deployment(
    cls: type[Any],
    name: str,
    scale: ScaleSettings,
    runtime_env: Mapping[str, Any] | None = None,
    policy: AutoscalingPolicy | None = None,
) -> Deployment:
    bare: Deployment = serve.deployment()(cls)
    options = {"num_cpus": scale.num_cpus, "num_gpus": scale.num_gpus}
    return bare.options(
        name=name,
        max_ongoing_requests=scale.max_ongoing_requests,
        max_queued_requests=scale.max_queued_requests,
        backpressure_config=BackpressureConfig(status_code=429, retry_after_s=scale.retry_after_s),
        graceful_shutdown_timeout_s=scale.graceful_shutdown_timeout_s,
        max_constructor_retry_count=ATTEMPTS if isinstance(scale, IngressSettings | JobsSettings) else MODEL_ATTEMPTS,
        autoscaling_config=AutoscalingConfig(**scale.autoscaling.model_dump() | ({"policy": policy} if policy else {})),
        ray_actor_options=options | ({"runtime_env": dict(runtime_env)} if runtime_env else {}),
    )
