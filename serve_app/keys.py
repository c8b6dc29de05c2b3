"""Where things lie in the store. One place, because the layout is a promise.

`voices/`, `output/` and `timings/` are the layout of the worker that this service replaces. The default
tenant has those bare keys; any other tenant has the same tree under `tenants/{tenant}/`. Records carry
their schema version in the key (`.v1.json`).
"""

from serve_app.domain import DEFAULT_TENANT

__all__ = [
    "SHARDS",
    "audio",
    "audio_reference",
    "audio_removal",
    "call",
    "expiry",
    "heartbeat",
    "job",
    "jobs",
    "lexicon",
    "listed",
    "named",
    "outbox",
    "pending",
    "prepared_audio",
    "prepared_prefix",
    "prepared_record",
    "result",
    "runtime",
    "scanned",
    "tenant_prefix",
    "voice_audio",
    "voice_text",
    "voices_prefix",
    "webhook_secret",
    "worker_output",
]


def tenant_prefix(tenant: str) -> str:
    """What every key of `tenant` starts with: "" for the default tenant."""
    return "" if tenant == DEFAULT_TENANT else f"tenants/{tenant}/"


def voices_prefix(tenant: str) -> str:
    return f"{tenant_prefix(tenant)}voices/"


def voice_audio(tenant: str, name: str) -> str:
    return f"{voices_prefix(tenant)}{name}.wav"


def voice_text(tenant: str, name: str) -> str:
    return f"{voices_prefix(tenant)}{name}.txt"


def prepared_prefix(tenant: str, name: str) -> str:
    """Of all versions of a voice."""
    return f"{tenant_prefix(tenant)}prepared/{name}/"


def prepared_audio(tenant: str, name: str, version: str) -> str:
    """What models are given of a version, its text inside."""
    return f"{prepared_prefix(tenant, name)}{version}.wav"


def prepared_record(tenant: str, name: str, version: str) -> str:
    """What is known of a version."""
    return f"{prepared_prefix(tenant, name)}{version}.v1.json"


SHARDS = tuple("0123456789abcdef")
"""A job's shard is the last hex digit of its id, the random end of a UUIDv7: scans are split evenly by it."""


def job(tenant: str, job_id: str, name: str = "") -> str:
    """Key of one record of a job, or (name "") the prefix of them all."""
    return f"{tenant_prefix(tenant)}jobs/{job_id[-1]}/{job_id}/{name}"


def jobs(shard: str) -> str:
    """The prefix of all jobs of a shard, of the default tenant."""
    return f"jobs/{shard}/"


def scanned(shard: str) -> str:
    """Key of what says how far the jobs of a shard were looked through for those of an older version."""
    return f"collector/scanned-v1/{shard}"


def named(shard: str = "") -> str:
    """Key of what says that the audio of all jobs of an older version in this shard is named, or the prefix of all."""
    return f"collector/named-v1/{shard}"


def pending(shard: str, marker: str = "") -> str:
    """Key of a marker of a job that is not ended, or the prefix of a shard's markers.

    Markers of all tenants lie together, the oldest first, so that a sweeper need not know the tenants.
    """
    return f"pending/{shard}/{marker}"


def listed(tenant: str, state: str, entry: str = "") -> str:
    """Key of a job's entry in the list of a state, or the prefix of that list, the newest first."""
    return f"{tenant_prefix(tenant)}lists/{state}/{entry}"


def expiry(shard: str, entry: str = "") -> str:
    """Key of what says when something is to be removed, or the prefix of a shard's, the earliest first."""
    return f"expiry/{shard}/{entry}"


def outbox(shard: str = "", entry: str = "") -> str:
    """Key of a webhook of a job of this shard that is to be sent, or the prefix of all webhooks."""
    return f"webhooks/{shard}/{entry}" if shard else "webhooks/"


def webhook_secret() -> str:
    """Key of what webhooks are signed with, where the environment does not say it."""
    return "webhook-secret.v1"


def audio_reference(tenant: str, name: str, job_id: str = "") -> str:
    """Key of what says that a job names this audio, or the prefix of all that do."""
    return f"{tenant_prefix(tenant)}references/{name}/{job_id}"


def audio_removal(tenant: str, name: str, entry: str = "") -> str:
    """Key of what says that somebody is removing this audio, or the prefix of all that do."""
    return f"{tenant_prefix(tenant)}removals/{name}/{entry}"


def result(tenant: str, digest: str) -> str:
    """Key of what was spoken for a request of this digest."""
    return f"{tenant_prefix(tenant)}results/{digest}.v1.json"


def lexicon(tenant: str) -> str:
    """Key of the tenant's own pronunciation lexicon."""
    return f"{tenant_prefix(tenant)}lexicon.v1.json"


def heartbeat(replica_id: str = "") -> str:
    return f"heartbeats/{replica_id}.v1.json" if replica_id else "heartbeats/"


def audio(tenant: str, name: str) -> str:
    """Key of content-addressed audio."""
    return f"{tenant_prefix(tenant)}audio/{name}"


def worker_output(tenant: str, job_id: str) -> str:
    """Where the worker that this service replaces wrote a job's audio."""
    return f"{tenant_prefix(tenant)}output/{job_id}.wav"


def call(tenant: str, call_id: str) -> str:
    """Key of the answer to a call that was no job (list_voices and the like), for clients that ask for it by id."""
    return f"{tenant_prefix(tenant)}calls/{call_id[-1]}/{call_id}.v1.json"


def runtime(model: str) -> str:
    """Key of what the replicas of `model` say that they run on: of all tenants."""
    return f"runtimes/{model}.v1.json"
