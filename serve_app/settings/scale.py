"""How deployments are sized."""

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["AutoscalingSettings", "IngressSettings", "JobsSettings", "ScaleSettings", "Strict"]


class Strict(BaseModel):
    """Frozen, and refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AutoscalingSettings(Strict):
    """Serve's autoscaling of one deployment; the names are Ray's own."""

    min_replicas: int = Field(1, ge=0)
    max_replicas: int = Field(1, ge=1)
    initial_replicas: int | None = Field(None, ge=0)
    target_ongoing_requests: float = Field(2.0, gt=0)
    upscale_delay_s: float = Field(5.0, ge=0)
    downscale_delay_s: float = Field(120.0, ge=0)
    metrics_interval_s: float = Field(2.0, gt=0)
    look_back_period_s: float = Field(10.0, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> "AutoscalingSettings":
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}")
        return self


class ScaleSettings(Strict):
    """How one deployment is sized. Defaults suit a laptop; deploy.yaml gives the reasons beside its values."""

    autoscaling: AutoscalingSettings = AutoscalingSettings()
    max_ongoing_requests: int = Field(8, ge=1)
    max_queued_requests: int = Field(256, ge=-1)
    graceful_shutdown_timeout_s: float = Field(120.0, gt=0)
    retry_after_s: int = Field(5, ge=1)
    num_cpus: float = Field(0.1, ge=0)
    num_gpus: float = Field(0.0, ge=0)


class IngressSettings(ScaleSettings):
    """Ingress replicas wait on others nearly all the time, so each holds many requests."""

    max_ongoing_requests: int = Field(200, ge=1)
    max_queued_requests: int = Field(400, ge=-1)


class JobsSettings(ScaleSettings):
    """Jobs replicas: how many jobs one runs at once, and how a dead one is noticed.

    Their number follows `target_audio_s`; `autoscaling.target_ongoing_requests` decides nothing.
    """

    max_ongoing_requests: int = Field(400, ge=1)
    max_queued_requests: int = Field(400, ge=-1)
    target_audio_s: float = Field(600.0, gt=0, description="seconds of waiting and running speech for each replica")
    max_running_jobs: int = Field(2, ge=1)
    max_runs: int = Field(3, ge=1, description="failed or fruitless runs of one job before it fails")
    heartbeat_s: float = Field(2.0, gt=0)
    dead_after_s: float = Field(10.0, gt=0, description="a replica whose heartbeat did not change for so long is dead")
    sweep_s: float = Field(3.0, gt=0)
    watch_s: float = Field(1.0, gt=0, description="how soon a run stops that a client has cancelled")
    collect_s: float = Field(60.0, gt=0, description="how often results past their retention are looked for")
    execution_timeout_s: float = Field(600.0, gt=0, description="of one run, where the client sets no limit")
    execution_per_audio: float = Field(
        10.0, gt=0, description="seconds of one run for each planned second of speech, where that is more"
    )
    ttl_s: float = Field(86_400.0, gt=0, description="from acceptance to the end, where the client sets none")
    retention_s: float = Field(7 * 86_400.0, gt=0, description="of a result, where the client sets none")
    idempotency_s: float = Field(86_400.0, ge=60, description="how long an Idempotency-Key is remembered")
    webhook_timeout_s: float = Field(10.0, gt=0, le=60)
    webhook_attempts: int = Field(3, ge=1, le=20)
    webhook_pause_s: float = Field(10.0, gt=0, description="between two attempts")

    @model_validator(mode="after")
    def _beats_before_death(self) -> "JobsSettings":
        if self.dead_after_s < 3 * self.heartbeat_s:
            raise ValueError(
                f"dead_after_s {self.dead_after_s} is under three heartbeats of {self.heartbeat_s} s: "
                "one late write would give a live replica's jobs away"
            )
        return self
