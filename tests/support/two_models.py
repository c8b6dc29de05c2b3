"""A deploy.yaml with preview and two f5 models of random numbers in one application."""

from pathlib import Path

import yaml

from tests.support.running import ROOT
from tests.support.tiny_f5 import ARCHITECTURE, tiny_settings


def two_models(weights: Path, bucket: str) -> dict:
    """Preview and Jobs, which scale to two, f5 with a short queue, f5 in German from the bucket; a dead Jobs replica is
    noticed soon."""
    config = yaml.safe_load((ROOT / "deploy.yaml").read_text())
    args = config["applications"][0]["args"]
    quick = {"upscale_delay_s": 0.5, "downscale_delay_s": 1, "metrics_interval_s": 0.5, "look_back_period_s": 1}
    args["models"] = [
        {
            "engine": "preview",
            "max_ongoing_requests": 4,
            "num_cpus": 0.1,
            "autoscaling": {"min_replicas": 1, "max_replicas": 2, "target_ongoing_requests": 1} | quick,
        },
        tiny_settings(weights, max_ongoing_requests=1, max_queued_requests=2, retry_after_s=7),
        tiny_settings(
            weights,
            name="f5-german",
            source=f"s3://{bucket}/models/german.safetensors",
            vocab=f"s3://{bucket}/models/german.txt",
            architecture=ARCHITECTURE | {"depth": 1},
            license="CC-BY-4.0",
            languages=["de"],
        ),
    ]
    args["default_model"] = "preview"
    args["jobs"] |= {"heartbeat_s": 0.5, "dead_after_s": 2, "sweep_s": 0.5, "target_audio_s": 1500}
    args["jobs"]["autoscaling"] = {"min_replicas": 1, "max_replicas": 2} | quick
    return config
